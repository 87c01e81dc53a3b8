"""What happens to a sample before an exported model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jepa_lightning.data.pixels import usual_statistics
from jepa_lightning.loading import Frozen


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Resizing and normalisation of images or frames, as in evaluation: the largest central crop, resized.

    Attributes:
        size: (height, width).
        channels: their number.
        mean: of each channel, for values from 0 to 1.
        std: likewise.
    """

    size: tuple[int, int]
    channels: int
    mean: list[float]
    std: list[float]

    def processor(self, *, clips: bool) -> tuple[str, dict[str, Any]]:
        """The file of transformers' processor, and its content."""
        height, width = self.size
        shared = {
            "do_resize": True,
            "size": {"shortest_edge": min(height, width)},
            "do_center_crop": True,
            "crop_size": {"height": height, "width": width},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": self.mean,
            "image_std": self.std,
            "resample": 3,
        }
        if clips:
            return "video_preprocessor_config.json", {"video_processor_type": "VJEPA2VideoProcessor", **shared}
        return "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", **shared}


def pixels_of(frozen: Frozen, *, mean: Sequence[float] | None, std: Sequence[float] | None) -> Pixels:
    """How a run's images or frames are made.

    Args:
        frozen: of the run.
        mean: None: that of the run's data.
        std: likewise.

    Raises:
        ValueError: the run measured them on its data, and its configuration does not have them.
    """
    spec = frozen.modality.spec
    channels = spec.shape[0]
    size = [n * p for n, p in zip((spec.grid or ())[-2:], spec.shape[-2:], strict=True)]
    default = usual_statistics(channels)
    found: dict[str, list[float]] = {}
    measured = {name: getattr(frozen.tokenizer, name, None) for name in ("mean", "std")}  # of spectrograms
    for name, given, usual in (("mean", mean, default[0]), ("std", std, default[1])):
        value = given if given is not None else _stored(frozen.config, name)
        of_spectrograms: Any = measured[name]
        if value is None and of_spectrograms is not None:
            value = float(of_spectrograms)
        if isinstance(value, str):
            raise ValueError(
                f"expected numbers, got {name}: {value} in the run's data: give {name} and write them down"
            )
        found[name] = list(usual if value is None else value) if not isinstance(value, float) else [value] * channels
    return Pixels(size=(size[0], size[1]), channels=channels, mean=found["mean"], std=found["std"])


def _stored(config: Mapping[str, Any] | None, name: str) -> Any:
    """A setting of the run's modality or data."""
    measured = ((config or {}).get("estimated") or {}).get(name)
    if measured is not None:
        return measured
    parts = [((config or {}).get("model") or {}).get("modality"), (config or {}).get("data")]
    for part in parts:
        value = ((part or {}).get("init_args") or {}).get(name)
        if value is not None:
            return value
    return None
