"""Export a run's encoder to the format of another library, and see that it computes the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from jepa_lightning.loading import Frozen, WhichEncoder, load_jepa_and_config, part_of
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from jepa_lightning.multimodal.modality import Multimodal
from jepa_lightning.run.checkpoint_io import publish
from jepa_lightning.run.checkpoints import Which, find_checkpoint
from jepa_lightning.run.writing import unfinished
from jepa_lightning.weights.exporting.card import card
from jepa_lightning.weights.exporting.graphs import write_onnx, write_pt2
from jepa_lightning.weights.exporting.models import write_timm, write_transformers
from jepa_lightning.weights.exporting.preprocessing import pixels_of
from jepa_lightning.weights.exporting.whole import as_module, images, raw_key, reference

Format = Literal["timm", "transformers", "onnx", "pt2", "safetensors"]
LIMIT = 1e-4  # of the largest difference
_BATCHES = 2, 3  # sizes that are compared

Run = Callable[..., Any]


def export(
    checkpoint: str,
    to: Format,
    out: str,
    *,
    part: str | None = None,
    which: Which = "last",
    encoder: WhichEncoder | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    license: str = "other",
    trust: Collection[str] = (),
) -> float:
    """Export a run's encoder for timm, transformers, ONNX, torch.export or safetensors.

        jepa_lightning.export("runs/image", "timm", "exported/image")

    The exported model is read back from its files and compared with the encoder on two batches of different sizes;
    where they differ by more than 1e-4, nothing is written. Beside the model are the preprocessing (timm's
    pretrained_cfg, transformers' preprocessor_config.json, else preprocessing.json) and a model card.

    Args:
        checkpoint: a run's folder, or a checkpoint of one.
        to: "timm" (a ViT on images or spectrograms, or a TimmEncoder on images), "transformers" (a ViT on images as
            IJepaModel; one on clips with rotary: released, with its predictor, as VJEPA2Model), "onnx" or "pt2" (any,
            from the raw tensor to the vector and the tokens; graphs from their subgraphs' tensors), "safetensors" (any,
            as `Frozen.save_pretrained` writes it).
        out: folder to write; it must not exist.
        part: of a run of several modalities, the one whose encoder is exported, such as image.
        which: checkpoint of a folder, "last" or "best".
        encoder: "target" or "context"; None: the run's evaluated encoder.
        mean: of each channel, for the preprocessing; None: that of the run's data.
        std: likewise.
        license: of the weights, for the model card.
        trust: packages whose classes the run's configuration may name.

    Returns:
        The largest difference.

    Raises:
        ValueError: the format cannot hold this encoder, or computes something else.
    """
    folder = Path(out).expanduser()
    if folder.exists():
        raise ValueError(f"expected a new folder as out, got {folder}, which exists: name another one")
    file = find_checkpoint(checkpoint, which)
    module, config = load_jepa_and_config(file, which=which, trust=trust)
    module.float().train(False)
    frozen = Frozen(module, encoder=encoder, config=config, trust=trust)
    if part is not None:
        frozen = part_of(frozen, part)
    elif isinstance(frozen.modality, Multimodal):
        raise ValueError(f"expected the modality to export, {' or '.join(frozen.modality.modalities)}: set part")
    batches = [_example(frozen, count) for count in _BATCHES]
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = unfinished(folder)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        difference, inputs = _written(frozen, module, to, beside, batches, mean=mean, std=std, trust=trust)
        if not difference <= LIMIT:
            raise ValueError(
                f"expected the exported model to compute the same, got a difference of {difference:.1e} (the limit is "
                f"{LIMIT:g}): nothing was written"
            )
        run = file.parent.parent if file.parent.name == "checkpoints" else file.parent
        text = card(frozen, to=to, run=run, difference=difference, inputs=inputs, license=license)
        (beside / "README.md").write_text(text)
        publish(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return difference


def _written(
    frozen: Frozen,
    module: JEPA,
    to: Format,
    folder: Path,
    batches: list[Batch],
    *,
    mean: list[float] | None,
    std: list[float] | None,
    trust: Collection[str],
) -> tuple[float, dict[str, list[Any]]]:
    """Write the model and its preprocessing: the largest difference, and the sizes of its inputs."""
    wanted = [reference(frozen, batch) for batch in batches]
    if to in ("timm", "transformers"):
        pixels = pixels_of(frozen, mean=mean, std=std)
        if to == "timm":
            run: Run = write_timm(frozen, pixels, folder)
        else:
            run = write_transformers(frozen, module.predictor, pixels, folder)
        raw = [images(frozen.tokenizer(batch)) for batch in batches]
        with torch.no_grad():
            tokens = [(run(value),) for value in raw]
        shape: list[Any] = ["B", *raw[0].shape[1:]]
        return _largest([(encoded,) for _, encoded in wanted], tokens), {"pixels": shape}
    if to == "safetensors":
        again = Frozen.from_pretrained(frozen.save_pretrained(folder), trust=trust)
        found = [reference(again, batch) for batch in batches]
        return _largest(wanted, found), {frozen.modality.name: ["B", "..."]}
    if to not in ("onnx", "pt2"):
        raise ValueError(f"expected to as timm, transformers, onnx, pt2 or safetensors, got {to!r}")
    whole, *given = as_module(frozen, batches[0], batches[1])
    write = {"onnx": write_onnx, "pt2": write_pt2}[to]
    with torch.no_grad():
        run = write(whole, given[0], folder)
        found = [tuple(run(value)) for value in given]
    inputs = {name: _sizes(*pair) for name, pair in zip(whole.names, zip(*given, strict=True), strict=True)}
    (folder / "preprocessing.json").write_text(json.dumps(_preprocessing(frozen, inputs), indent=2))
    return _largest(wanted, found), inputs


def _largest(wanted: list[Any], found: list[Any]) -> float:
    """The largest difference; infinite where shapes differ or a number is none."""
    largest = 0.0
    for want, got in zip(wanted, found, strict=True):
        for one, two in zip(want, got, strict=True):
            if one.shape != two.shape or not two.isfinite().all():
                return float("inf")
            largest = max(largest, float((one.double() - two.double()).abs().max()))
    return largest


def _sizes(one: Tensor, two: Tensor) -> list[Any]:
    """The shape of an input, with B for what differs between two batches."""
    return [n if n == m else "B" for n, m in zip(one.shape, two.shape, strict=True)]


def _preprocessing(frozen: Frozen, inputs: Mapping[str, list[Any]]) -> dict[str, Any]:
    """What an input is, by the settings of the run's modality and data."""
    config = frozen.config or {}
    modality, data = (config.get("model") or {}).get("modality") or {}, config.get("data") or {}
    settings = {k: v for k, v in (modality.get("init_args") or {}).items() if k not in ("encoder", "masker")}
    found: dict[str, Any] = {"modality": modality.get("class_path"), "inputs": dict(inputs), "settings": settings}
    if frozen.modality.name in ("image", "video"):
        pixels = pixels_of(frozen, mean=None, std=None)
        found |= {"mean": pixels.mean, "std": pixels.std, "crop": "the largest central one", "resize": "bicubic"}
    found["data"] = data.get("class_path")
    return found


def _example(frozen: Frozen, count: int) -> Batch:
    """A batch of random samples.

    Raises:
        ValueError: the modality makes none.
    """
    generator = torch.Generator().manual_seed(count)
    batch = frozen.modality.example(count, generator)
    if batch is None or (raw_key(batch) is None and len(batch) != 1):
        raise ValueError(
            f"expected {type(frozen.modality).__name__} to make an example batch: give it a method example"
        )
    return batch
