"""Find a source of weights and read it: a run of ours, an official file, a Hugging Face folder or id, a timm file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from jepa_lightning.run.checkpoints import find_checkpoint, read_checkpoint, read_config, read_content
from jepa_lightning.weights.formats.hugging_face import read_ijepa, read_vjepa2
from jepa_lightning.weights.formats.official import is_flat, is_official, read_flat, read_official
from jepa_lightning.weights.formats.weights import Facts, Family, State, Weights

WhichEncoder = Literal["target", "context"]
OURS = "jepa-lightning"  # library_name in the config.json of a folder that `Frozen.save_pretrained` wrote
_HUB = ("hf-hub:", "hf:")
_ID = re.compile(rf"(?:{'|'.join(_HUB)})?([\w.-]+/[\w.-]+)$")


def read_weights(source: str | Path, *, encoder: WhichEncoder | None = None, family: Family | None = None) -> Weights:
    """Read the weights of a source. Tensors and plain values are read, and no code is run.

    Args:
        source: the folder or a checkpoint of a run of ours; an official file (.pth.tar, .pt); a folder of a Hugging
            Face model, of timm's or of `jepa-export`, or its id on the hub; a file of safetensors with timm's names.
        encoder: "target" or "context"; None: the target encoder where the source has one.
        family: of an official file that does not tell: "vjepa" or "vjepa2".

    Raises:
        ValueError: there is no such source, or it is none of these.
    """
    place = Path(source).expanduser()
    name = str(source)
    if place.is_dir() and (place / "config.json").is_file() and not (place / "checkpoints").is_dir():
        return _read_folder(place, name, family)
    if place.is_dir() or place.suffix == ".ckpt":
        return _read_run(place, name, encoder)
    if place.is_file():
        return _read_file(place, place.name, encoder, family)
    named = _ID.match(name)
    if named:
        return _read_folder(_download(named[1]), named[1], family)
    raise ValueError(
        f"expected weights, got {name}, which does not exist: name a run, a checkpoint, an official file, a folder of "
        "a Hugging Face model or its id (owner/name)"
    )


def is_released(source: str | Path) -> bool:
    """Tell whether a source is neither a run of ours nor a folder of `Frozen.save_pretrained`, by its looks.

    An id of the hub needs `hf-hub:` before it: `runs/image` may be a folder that does not exist.
    """
    place = Path(source).expanduser()
    if place.is_dir():
        return (place / "config.json").is_file() and OURS not in (place / "config.json").read_text()
    if place.is_file() and place.suffix != ".ckpt":
        content = {} if place.suffix == ".safetensors" else read_content(place, mapped=True)
        return not (isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping))
    return is_hub_id(source)


def is_hub_id(source: str | Path) -> bool:
    """Tell whether a source is an id of the hub with `hf-hub:` before it."""
    return str(source).startswith(_HUB)


def _read_file(file: Path, source: str, encoder: WhichEncoder | None, family: Family | None) -> Weights:
    if file.suffix == ".safetensors":
        return _read_state(read_safetensors([file]), source, family)
    content = read_content(file, mapped=True)
    if is_official(content):
        return read_official(content, source, which=encoder, family=family)
    inside = content.get("state_dict") if isinstance(content, Mapping) else None
    if isinstance(inside, Mapping) and any(str(key).startswith("encoder.") for key in inside):
        return _read_run(file, source, encoder)
    for inner in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(inner), Mapping):
            content = content[inner]
    return _read_state(content, source, family)


def _read_state(state: Any, source: str, family: Family | None) -> Weights:
    if isinstance(state, Mapping) and is_flat(state):
        return _named(read_flat(state, source, family=family))
    keys = ", ".join(map(str, list(state)[:3])) if isinstance(state, Mapping) else type(state).__name__
    raise ValueError(
        f"expected weights of an I-JEPA, V-JEPA or ViT in {source}, got {keys}: name the model's folder, with its "
        "config.json, or the official file"
    )


def _read_folder(folder: Path, source: str, family: Family | None) -> Weights:
    """A folder with config.json: transformers', timm's or ours."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise ValueError(f"expected JSON in {folder / 'config.json'}: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"expected settings in {folder / 'config.json'}, got a {type(config).__name__}")
    files = sorted(folder.glob("*.safetensors"))
    state = read_safetensors(files) if files else _read_bin(folder)
    if config.get("library_name") == OURS and isinstance(config.get("model"), dict):
        return _ours(state, source, "encoder", config["model"], data=config.get("data"), left_out=[])
    kind = config.get("model_type")
    if kind == "ijepa":
        return read_ijepa(config, state, source)
    if kind == "vjepa2":
        return read_vjepa2(config, state, source)
    if is_flat(state):
        return _named(read_flat(state, source, family=family))
    raise ValueError(
        f"expected a model of transformers' ijepa or vjepa2, or one of timm, in {source}, got {kind or 'another'}"
    )


def _named(weights: Weights) -> Weights:
    """An encoder by itself: of an image model, it may be any with timm's names."""
    weights.family = "a ViT with timm's names" if weights.family == "I-JEPA" else weights.family
    return weights


def _read_bin(folder: Path) -> State:
    files = sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise ValueError(f"expected *.safetensors beside config.json in {folder}, found none")
    state: State = {}
    for file in files:
        state |= read_content(file, mapped=True)
    return state


def read_safetensors(files: list[Path]) -> State:
    """All tensors of some files; of a model in shards, the shards'."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    shards = [file for file in files if re.search(r"-of-\d+", file.name)]
    state: dict[str, Tensor] = {}
    for file in shards or files:
        try:
            state |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"expected whole safetensors, got a damaged file: {file} ({error})") from None
    return state


def _read_run(path: Path, source: str, encoder: WhichEncoder | None) -> Weights:
    file = find_checkpoint(path)
    content = read_checkpoint(file)
    state, stored = content["state_dict"], content.get("hyper_parameters")
    config = stored if isinstance(stored, dict) and "modality" in stored else None
    parts = {"target": _below(state, "target.encoder."), "context": _below(state, "encoder.")}
    kind = str(((config or {}).get("target") or {}).get("class_path", ""))
    wanted = encoder or ("context" if not parts["target"] or kind.endswith(".Pretrained") else "target")
    if not parts[wanted]:
        raise ValueError(
            f"expected the {wanted} encoder in {source}, which has the other one only: leave the choice out"
        )
    other = "target" if wanted == "context" else "context"
    left_out = [f"the {other} encoder"] if parts[other] else []
    left_out += [name for name in ("optimizer_states", "loops") if name in content]
    if wanted == "target":
        state = {name: value for name, value in state.items() if not name.startswith("encoder.")}
        state |= {f"encoder.{name}": value for name, value in parts["target"].items()}
    data = read_config(file).get("data")
    return _ours(state, source, f"{wanted} encoder", config, data=data, left_out=left_out)


def _ours(
    state: State,
    source: str,
    taken: str,
    config: dict[str, Any] | None,
    *,
    data: dict[str, Any] | None,
    left_out: list[str],
) -> Weights:
    """Weights under our own names: `encoder.`, `predictor.` and `tokenizer.`."""
    modality = (config or {}).get("modality") or {}
    return Weights(
        source=source,
        family=f"a run of ours{_of(modality)}",
        ours=True,
        encoder=_below(state, "encoder."),
        taken=taken,
        predictor=_below(state, "predictor.") or None,
        tokenizer=_below(state, "tokenizer.") or None,
        data=data,
        facts=_facts_of((modality.get("init_args") or {}).get("encoder")),
        predictor_facts=_facts_of((config or {}).get("predictor")),
        left_out=left_out,
        config=config,
    )


def _facts_of(part: Any) -> Facts:
    """What the settings of a ViT or TransformerPredictor say beyond its tensors."""
    settings = part.get("init_args") if isinstance(part, dict) else None
    if not isinstance(settings, dict) or not str(part.get("class_path", "")).endswith(
        (".ViT", ".TransformerPredictor")
    ):
        return Facts()
    grid = settings.get("rotary_grid")
    return Facts(
        heads=settings.get("heads"),
        norm_eps=settings.get("norm_eps", 1e-6),
        rotary=settings.get("rotary") or "none",
        rotary_grid=None if grid is None else tuple(grid),
    )


def _of(modality: Mapping[str, Any]) -> str:
    name = str(modality.get("class_path", "")).rpartition(".")[2]
    return f" ({name})" if name else ""


def _below(state: Mapping[str, Tensor], prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", "*.safetensors"]))
    except Exception as error:  # of the hub, of requests, of the disk
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(
            f"expected a folder or a model of the Hugging Face hub, got {name}: there is no such folder, and the hub "
            f"says: {reason[:200]}. Without network, download it elsewhere and name its folder"
        ) from None
