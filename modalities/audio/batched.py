"""Audio of a whole batch: crops of what lies in memory, made louder, softer and masked on the device that trains."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.data.batched import BatchTransform, InMemory, PartsInMemory
from jepa_lightning.data.views import view_seeds
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import uniforms
from modalities.audio.transforms import AudioViews, Crop, mel_places

_NUMBERS = 6  # of a clip: its place, its gain, and two each of the stretch and the band that are left out
_OWN = {"made_with", "samples", "random", "crop", "rate"}
_KNOWN = {*_OWN, "short", "gain", "time_mask", "frequency_mask"}  # settings of both transforms


class BatchCrops(BatchTransform):
    """`Crop`, or `AudioViews` on top of it, for whole batches of recordings in memory, on any device.

    The parts are cut out on the CPU, where the recordings lie, and travel in their own type (16 bits, say). What is
    drawn has the distribution of these transforms. Deviation: a band is taken out of clips that are shorter than the
    others together with the zeros behind them, so that values at such a clip's end differ a little.

    Args:
        crop: whose length and way with short recordings are taken, and without views its gain.
        views: the views' settings, configured; None for a plain crop.
        count: of views.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from modalities.audio.batched import BatchCrops
        >>> from modalities.audio.generated import GeneratedAudio
        >>> from modalities.audio.transforms import Crop
        >>> notes, batched = GeneratedAudio(8, seconds=1.0), BatchCrops(Crop(4000, random=True, gain=6.0))
        >>> draws = batched.draw(np.array([5, 6]))
        >>> batch = {"waveform": torch.from_numpy(batched.take(notes, np.array([3, 4]), draws)["waveform"])}
        >>> batched(batch, draws)["waveform"].shape, batch["length"].tolist()
        (torch.Size([2, 4000]), [4000, 4000])
    """

    def __init__(self, crop: Crop, *, views: AudioViews | None = None, count: int = 1) -> None:
        self.crop = crop
        self.views = views
        self.count = count

    def draw(self, seeds: NDArray[np.int64]) -> dict[str, Tensor]:
        """Draw `places` (B, V) from 0 to 1, `gains` (B, V), and shares from 0 to 1 with views.

        These are `stretches` and `bands` (B, V, 2): where what is left out begins and ends.
        """
        own = view_seeds(seeds, self.count)
        drawn = uniforms(own.reshape(-1), _NUMBERS).reshape(*own.shape, _NUMBERS)
        gain = self.crop.gain if self.views is None else self.views.gain
        found = {"places": torch.from_numpy(drawn[..., 0])}
        if gain:
            found["gains"] = torch.from_numpy((10 ** (gain * (2 * drawn[..., 1] - 1) / 20)).astype(np.float32))
        if self.views is not None:
            for name, share, first in (("stretches", self.views.time_mask, 2), ("bands", self.views.frequency_mask, 4)):
                width = drawn[..., first] * share
                low = drawn[..., first + 1] * (1 - width)
                if share:
                    found[name] = torch.from_numpy(np.stack([low, low + width], axis=-1))
        return found

    def take(self, dataset: InMemory, indices: NDArray[np.int64], draws: dict[str, Tensor]) -> dict[str, Any]:
        """Cut the clips (B, V, L) out of memory, and turn drawn shares into samples, of which `draws` then tells."""
        recordings, size = cast(PartsInMemory, dataset), self.crop.samples
        have = recordings.lengths[indices]
        counts = np.minimum(have, size)
        places = draws.pop("places").numpy()
        starts = (places * (have - counts + 1)[:, None]).astype(np.int64)  # room + 1 places
        found = recordings.take_parts(indices, starts, counts, size)
        draws["length"] = torch.from_numpy(counts)
        if self.crop.short == "tile":
            draws["length"] = torch.full_like(draws["length"], size)
            if (counts < size).any():
                draws["period"] = torch.from_numpy(counts)
        real = draws["length"].numpy()
        if "stretches" in draws:
            draws["stretches"] = torch.from_numpy(np.rint(draws["stretches"].numpy() * real[:, None, None]).astype(int))
        if "bands" in draws:
            draws["bands"] = draws["bands"].float()
        return found

    def __call__(self, batch: Batch, draws: dict[str, Tensor]) -> Batch:
        """Turn a batch with `waveform` (B, V, L) into its first view, with all of them at `views` if there are more.

        The result's `waveform` is (B, L) float32; of whole numbers, it is scaled to -1 to 1 by their type's range.
        """
        waves = _as_floats(batch["waveform"])
        samples = torch.arange(waves.shape[2], device=waves.device)
        if "period" in draws:  # of short recordings that are played again and again
            again = (samples % draws["period"][:, None])[:, None].expand_as(waves)
            waves = waves.gather(2, again)
        if "gains" in draws:
            waves = waves.mul_(draws["gains"][..., None])
        if "bands" in draws:
            real = (samples < draws["length"][:, None])[:, None]  # (B, 1, L), before the zeros behind a clip
            waves = without_bands(waves, draws["bands"], rate=self.views.rate).mul_(real)  # type: ignore[union-attr]
        if "stretches" in draws:  # which end with the clip
            low, high = draws["stretches"][..., None].unbind(2)
            waves = waves.masked_fill_((samples >= low) & (samples < high), 0.0)
        views: list[dict[str, Any]] = [{"waveform": wave, "length": draws["length"]} for wave in waves.unbind(1)]
        batch |= {"waveform": views[0]["waveform"].contiguous(), "length": draws["length"]}
        if self.count > 1:
            batch["views"] = [{**view, "waveform": view["waveform"].contiguous()} for view in views]
        return batch


def knows(transform: Crop | AudioViews) -> bool:
    """Return whether `BatchCrops` does all that a transform does: a setting that it does not know must be off."""
    return not any(value for name, value in vars(transform).items() if name not in _KNOWN)


def without_bands(waves: Tensor, bands: Tensor, *, rate: int) -> Tensor:
    """Remove bands (..., 2) from waveforms (..., L), each from its lower edge to below its upper one.

    Edges are places from 0 to 1 of the mel scale, as those of `filtered`.
    """
    count = waves.shape[-1]
    spectrum, places = torch.fft.rfft(waves), mel_places(count, rate, device=waves.device)
    low, high = bands[..., None].unbind(-2)
    return torch.fft.irfft(spectrum.masked_fill_((places >= low) & (places < high), 0), n=count)


def _as_floats(waves: Tensor) -> Tensor:
    """Scale whole numbers by their type's range, as `as_recording`."""
    if waves.is_floating_point():
        return waves.float()
    half = 2.0 ** (8 * waves.dtype.itemsize - 1)
    floats = waves.float() if waves.dtype.is_signed else waves.float().sub_(half)
    return floats.mul_(1 / half)
