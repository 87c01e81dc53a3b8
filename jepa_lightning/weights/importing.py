"""Released weights to a run's folder, for the commands that evaluate, embed, view and train further."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from jepa_lightning._version import __version__
from jepa_lightning.config.plugins import registered
from jepa_lightning.config.rebuild import Config, build_model
from jepa_lightning.module import JEPA
from jepa_lightning.randomness import isolate_rng
from jepa_lightning.run.checkpoint_io import SafeCheckpointIO
from jepa_lightning.run.folder import RESULTS
from jepa_lightning.run.writing import replacing
from jepa_lightning.weights.formats.fit import fill_encoder, fill_predictor
from jepa_lightning.weights.formats.sources import WhichEncoder, read_weights
from jepa_lightning.weights.formats.tables import grid_of
from jepa_lightning.weights.formats.weights import Family, State, Weights, depth

_SIZE = {"V-JEPA 2": 256, "V-JEPA 2.1": 384}  # pixels, of files that do not say
_FRAMES = 16
_PREDICTOR = {"width": 384, "depth": 12, "heads": 12}  # where the source has none: the published size


def import_weights(
    source: str,
    out: str,
    *,
    encoder: WhichEncoder | None = None,
    family: Family | None = None,
    image_size: int | None = None,
    frames: int | None = None,
    heads: int | None = None,
    trust: Collection[str] = (),
) -> str:
    """Write released weights as the folder of a run.

        jepa_lightning.import_weights("IN1K-vit.h.14-300e.pth.tar", "runs/ijepa_h14")
        encoder = jepa_lightning.load("runs/ijepa_h14")

    The folder has a config.yaml and a checkpoint, so `load`, `jepa-probe`, `jepa-embed` and `jepa-view` work on it, and
    `jepa-fit --config FOLDER/config.yaml --init FOLDER` trains on. Nothing in the source is executed.

    Args:
        source: an official file of I-JEPA, V-JEPA, V-JEPA 2 or 2.1, a Hugging Face folder or id (ijepa, vjepa2), a
            ViT with timm's names, or what `jepa-export --to safetensors` wrote.
        out: folder to write; it must hold no run.
        encoder: "target" or "context"; None: the target encoder where the source has one.
        family: of an official file that does not tell: "vjepa" or "vjepa2".
        image_size: height and width in pixels; None: the source's. Positions are resampled to it.
        frames: of a clip; None: the source's, or 16 where it has none.
        heads: attention heads of a model of no released size.
        trust: packages whose classes a source of ours may name.

    Returns:
        One line: what was taken, and what was left out.

    Raises:
        ValueError: the source is none of these or does not say its sizes, or the folder holds a run.
    """
    folder = Path(out).expanduser()
    if any((folder / result).exists() for result in RESULTS):
        raise ValueError(f"expected a new folder, got {folder}, which holds a run: name another one as out")
    module, config, line = from_source(
        source, encoder=encoder, family=family, image_size=image_size, frames=frames, heads=heads, trust=trust
    )
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "state_dict": _shared(module.state_dict()),
        "hyper_parameters": config["model"],
        "run_seed": config["seed_everything"],
        "jepa_lightning_version": __version__,
        "epoch": 0,
        "global_step": 0,
    }
    SafeCheckpointIO().save_checkpoint(content, folder / "checkpoints" / "last.ckpt")
    with replacing(folder / "config.yaml") as beside:
        beside.write_text(f"# {line}\n" + yaml.safe_dump(config, sort_keys=False))
    return line


def from_source(
    source: str | Path,
    *,
    encoder: WhichEncoder | None = None,
    family: Family | None = None,
    image_size: int | None = None,
    frames: int | None = None,
    heads: int | None = None,
    trust: Collection[str] = (),
) -> tuple[JEPA, Config, str]:
    """Build the JEPA of released weights: the module, the configuration that a run of it has, and one line.

    Arguments and errors are those of `import_weights`.
    """
    weights = read_weights(source, encoder=encoder, family=family)
    if weights.unsure:
        raise ValueError(
            f"expected to know the family of {source}, which may be V-JEPA's or V-JEPA 2's: give family vjepa or vjepa2"
        )
    if weights.config is not None:
        config: Config = {"seed_everything": 0, "model": weights.config}
        config |= {} if weights.data is None else {"data": weights.data}
    else:
        config = _configured(weights, image_size=image_size, frames=frames, heads=heads)
    with isolate_rng():
        module = build_model(config["model"], pretrained=False, trust=trust)
    spec: Any = module.modality.spec
    fill_encoder(module.encoder, spec, weights)
    module.target.begin(module.encoder)
    if weights.tokenizer is not None:
        module.tokenizer.load_state_dict(weights.tokenizer)
    if weights.predictor is not None:
        fill_predictor(module.predictor, spec, weights)
    else:
        weights.notes.append("the predictor is random, as the source has none")
    return module, config, weights.line()


def _configured(weights: Weights, *, image_size: int | None, frames: int | None, heads: int | None) -> Config:
    """The configuration of a run of released weights."""
    facts, patch, encoder = weights.facts, weights.patch, weights.encoder
    facts.heads = facts.heads or heads
    if facts.heads is None:
        raise ValueError(f"expected a released size, got {weights.width} wide in {weights.source}: give heads")
    axes = len(patch) - 1
    like = _grid(weights, axes, image_size)
    side = [image_size] * 2 if image_size else [n * p for n, p in zip(like[-2:], patch[-2:], strict=True)]
    same: dict[str, Any] = {"norm_eps": facts.norm_eps}
    if facts.rotary in (None, "none"):
        same["positions"] = "stored"
    else:
        same["rotary"] = facts.rotary
    if facts.rotary_grid is not None:
        same["rotary_grid"] = list(facts.rotary_grid)
    sizes = {"width": weights.width, "depth": depth(encoder), "heads": facts.heads}
    vit = {**sizes, "mlp_ratio": _ratio(encoder, weights.width), **same}
    settings: dict[str, Any] = {"image_size": side, "patch_size": list(patch[-2:]), "channels": patch[0]}
    if axes == 3:
        settings |= {"frames": frames or like[0] * patch[1], "tubelet": patch[1]}
    settings["encoder"] = {"class_path": "jepa_lightning.encoders.ViT", "init_args": vit}
    name = "image" if axes == 2 else "video"
    place = _plugin(name)
    return {
        "seed_everything": 0,
        "model": {
            "modality": {"class_path": f"{place}.{name.capitalize()}", "init_args": settings},
            "predictor": {
                "class_path": "jepa_lightning.predictors.TransformerPredictor",
                "init_args": {**_asked(weights), **same},
            },
            "target": {"class_path": "jepa_lightning.targets.EMA"},
        },
        "data": {"class_path": f"{place}.{name.capitalize()}Data", "init_args": {}},
    }


def _asked(weights: Weights) -> dict[str, Any]:
    """Sizes of the predictor."""
    state, heads = weights.predictor, weights.predictor_facts.heads
    if state is None:
        return dict(_PREDICTOR)
    width = len(state["norm.weight"])
    if heads is None or width % heads:
        heads = weights.predictor_facts.heads = weights.facts.heads
    sizes = {"width": width, "depth": depth(state), "heads": heads, "mlp_ratio": _ratio(state, width)}
    return {**sizes, "mask_tokens": len(state["mask_token"])}


def _grid(weights: Weights, axes: int, image_size: int | None) -> tuple[int, ...]:
    """Tokens along each axis, as the source says, its positions show, or its family has."""
    if weights.grid is not None:
        return weights.grid
    table = weights.encoder.get("positions")
    if table is not None:
        side = math.isqrt(len(table)) if axes == 2 else 14
        found = grid_of(table, axes, (side,) * 2 if axes == 2 else (8, side, side))
        if found is None:
            raise ValueError(f"expected positions of square images in {weights.source}, got {len(table)} of them")
        return found
    pixels, patch = image_size or _SIZE.get(weights.family, 224), weights.patch
    if image_size is None:
        weights.notes.append(f"{pixels} px, which the file does not say")
    return (_FRAMES // patch[1], pixels // patch[-2], pixels // patch[-1])[-axes:]


def _ratio(state: State, width: int) -> float:
    """The ratio from which timm's layers compute the hidden width of the MLP."""
    hidden = len(state["layers.0.mlp.fc1.weight"])
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _plugin(name: str) -> str:
    """The module of the plug-in for a kind of data."""
    found = [point.value for point in registered() if point.name == name]
    if not found:
        raise ValueError(f"expected an installed plug-in for {name}, found none: install jepa-lightning again")
    return found[0]


def _shared(state: State) -> dict[str, Tensor]:
    """With a target encoder that is the context encoder's tensors, so that a file holds them once."""
    own = {name: value for name, value in state.items() if name.startswith("encoder.")}
    return {name: own.get(name.removeprefix("target."), value) for name, value in state.items()}
