"""The encoder of one of several modalities, by itself."""

from __future__ import annotations

from typing import Any

from jepa_lightning.loading.frozen import Frozen
from jepa_lightning.multimodal.modality import Multimodal


def part_of(frozen: Frozen, name: str) -> Frozen:
    """Return the encoder of one modality of a run of several, as if it had been trained alone.

        image = part_of(jepa_lightning.load("runs/textimage"), "image")
        vector = image("photo.jpg")  # (D,)

    It is the encoder itself, in front of the linear map that `Multimodal` puts behind it where a width is set. Its
    `untrained()` has weights of another draw than the run began with. Its data are those of the modality, from the
    run's table or dataset, without the others.

    Args:
        frozen: of a run of `jepa-fit`.
        name: of the modality.

    Raises:
        ValueError: the run is of a single modality, has none of this name, or has no configuration.
    """
    if not isinstance(frozen.modality, Multimodal) or name not in frozen.modality.modalities:
        there = list(frozen.modality.modalities) if isinstance(frozen.modality, Multimodal) else [frozen.modality.name]
        what = "one of the modalities" if len(there) > 1 else "no part of a run of"
        raise ValueError(f"expected {what} {', '.join(there)}, got part {name!r}")
    config: dict[str, Any] = frozen.stored_config()
    model = {key: value for key, value in config["model"].items() if key != "pretext"}
    model["modality"] = config["model"]["modality"]["init_args"]["modalities"][name]
    config["model"] = model
    data = (frozen.config or {}).get("data") or {}
    together = {key: value for key, value in (data.get("init_args") or {}).items() if value is not None}
    parts = together.pop("modalities", None)
    if isinstance(parts, dict):
        single = parts[name] if isinstance(parts[name], dict) else {"class_path": parts[name]}
        config["data"] = {**single, "init_args": {**(single.get("init_args") or {}), **together}}
    own = frozen.modality.modalities[name]
    weights = {f"tokenizer.{key}": value for key, value in own.tokenizer.state_dict().items()}
    weights |= {f"encoder.{key}": value for key, value in own.encoder.state_dict().items()}
    return Frozen.from_folder(weights, config, trust=frozen.trust).to(frozen.device)
