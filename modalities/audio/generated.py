"""A labelled data set of repeated notes, so that everything runs with no data on disk."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data import DataError
from jepa_lightning.data.generation import fill
from jepa_lightning.names.shown import Shown
from modalities.audio.recordings import parts_of

Array = NDArray[Any]  # float32

RATES = (3.0, 4.5, 6.75, 10.0)
"""Notes a second of the rhythm classes; each is once even and once swung."""
TIMBRES = {
    "pure": (1.0, 0.1),
    "hollow": (1.0, 0.0, 0.7, 0.0, 0.5, 0.0, 0.35),
    "bright": (1.0, 0.8, 0.65, 0.55, 0.45, 0.4, 0.35, 0.3),
    "nasal": (0.3, 0.5, 1.0, 0.9, 0.4, 0.2),
    "organ": (1.0, 0.8, 0.0, 0.7, 0.0, 0.0, 0.0, 0.5),
}
"""Amplitudes of the harmonics, from the fundamental on."""
ENVELOPES = ("pluck", "gate", "swell", "hump")
"""Shapes of a note's loudness over the time to the next one."""

_CHUNK = 40  # clips drawn at a time, a multiple of all numbers of classes. Another number draws other clips
_LOWEST, _OCTAVES = 110.0, 2.5  # Hz; range of pitch
_JITTER = 0.06  # of the rate, either way, as a share
_LEVEL = -20.0, 0.0  # dB, of the whole
_NOISE = -30.0, -12.0  # dB, of white noise against the loudest moment
_STEPS = 4096  # of the table of envelopes, over two notes


class GeneratedAudio(Shown, Dataset[dict[str, Any]]):
    """A note that is repeated in a rhythm, under noise; the class is the rhythm, eight in all.

    A rhythm is one of four rates and either even or swung (a long note, then one of half its length). The rate varies
    a little within a class; where in its beat the clip starts, its pitch, timbre, envelope, level and noise are
    random. The mean spectrum says next to nothing of the rhythm, nor does a single moment. All clips are drawn when
    the set is built and kept as int16. Clip i depends on the seed, the split and i alone (and on length and rate),
    and the classes are equally frequent.

    Args:
        samples: number of clips.
        seconds: length of each, at least 0.5.
        sample_rate: in Hz, at least 4000.
        seed: of the set.
        split: "train", "val" or "test"; the clips of different splits are drawn independently.

    A sample is `waveform` (L,) int16 and `labels`: `rhythm`, `timbre` and `envelope` (classes), `pitch` (octaves above
    110 Hz, 0 to 2.5) and `rate` (notes a second).

    Raises:
        DataError: an argument out of range.

    Examples:
        >>> from modalities.audio import GeneratedAudio
        >>> clips = GeneratedAudio(16, seconds=0.5, seed=1)
        >>> clips
        GeneratedAudio(samples=16, seconds=0.5, seed=1)
        >>> clips[0]["waveform"].shape, sorted(clips[0]["labels"])
        ((4000,), ['envelope', 'pitch', 'rate', 'rhythm', 'timbre'])
    """

    def __init__(
        self,
        samples: int = 4000,
        *,
        seconds: float = 2.0,
        sample_rate: int = 8000,
        seed: int = 0,
        split: str = "train",
    ) -> None:
        if samples < 1:
            raise DataError(f"expected at least 1 sample, got {samples}")
        if seconds < 0.5 or sample_rate < 4000:
            raise DataError(
                f"expected clips of at least 0.5 seconds at 4000 Hz or more, got {seconds:g} at {sample_rate}: "
                "shorter ones have no rhythm"
            )
        self.classes = [f"{rate:g} Hz {kind}" for rate in RATES for kind in ("even", "swung")]
        self.waveforms = np.empty((samples, round(seconds * sample_rate)), dtype=np.int16)
        self.targets = np.empty(samples, dtype=np.int64)
        self.timbres = np.empty(samples, dtype=np.int64)
        self.envelopes = np.empty(samples, dtype=np.int64)
        self.pitches = np.empty(samples, dtype=np.float32)
        self.rates = np.empty(samples, dtype=np.float32)
        columns: tuple[NDArray[Any], ...] = (
            self.waveforms,
            self.targets,
            self.timbres,
            self.envelopes,
            self.pitches,
            self.rates,
        )
        draw = partial(_draw, length=self.waveforms.shape[1], sample_rate=sample_rate)
        fill(columns, draw, size=_CHUNK, seed=seed, split=split)

    def __len__(self) -> int:
        return len(self.waveforms)

    @property
    def input_shape(self) -> tuple[int]:
        """(L,)."""
        return (self.waveforms.shape[1],)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """L of each."""
        return np.full(len(self), self.waveforms.shape[1])

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Waveforms (B, L) and labels of many clips."""
        return self[indices]  # type: ignore[index]

    def take_parts(
        self, indices: NDArray[np.int64], starts: NDArray[np.int64], counts: NDArray[np.int64], size: int
    ) -> dict[str, Any]:
        """Parts (B, V, size) of clips, and labels; see `PartsInMemory`."""
        labels = self.labels_of(indices)
        if starts.shape[1] == 1 and self.waveforms.shape[1] == size:
            return {"waveform": self.waveforms[indices][:, None], "labels": labels}
        rows = parts_of(lambda row: self.waveforms[indices[row]], starts, counts, size=size, dtype=self.waveforms.dtype)
        return {"waveform": rows, "labels": labels}

    def labels_of(self, index: Any) -> dict[str, Any]:
        """Labels of a clip, or of many."""
        return {
            "rhythm": self.targets[index],
            "timbre": self.timbres[index],
            "envelope": self.envelopes[index],
            "pitch": self.pitches[index],
            "rate": self.rates[index],
        }

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"waveform": self.waveforms[index], "labels": self.labels_of(index)}


def _draw(rng: np.random.Generator, length: int, sample_rate: int) -> tuple[NDArray[Any], ...]:
    """Draw one chunk: waveforms (n, L) int16, rhythms, timbres, envelopes, pitches and rates."""
    n = _CHUNK
    rhythms, timbres, envelopes = (
        rng.permutation(np.arange(n) % count) for count in (2 * len(RATES), len(TIMBRES), len(ENVELOPES))
    )
    pitches = rng.uniform(0, _OCTAVES, n)
    rates = np.array(RATES)[rhythms // 2] * rng.uniform(1 - _JITTER, 1 + _JITTER, n)
    clips = _tones(_LOWEST * 2**pitches / sample_rate, timbres, rng.random(n), length)
    clips *= _notes(rates / sample_rate, envelopes, rhythms % 2, rng.random(n), length)
    # The sum of two random bytes less its mean: near enough to a normal, at a tenth of its price.
    noise = rng.integers(0, 256, clips.shape, dtype=np.uint8).astype(np.float32)
    noise += rng.integers(0, 256, clips.shape, dtype=np.uint8)
    noise -= 255
    clips += noise * (10 ** (rng.uniform(*_NOISE, (n, 1)) / 20) / 104).astype(np.float32)
    level = 10 ** (rng.uniform(*_LEVEL, (n, 1)) / 20)
    clips *= (level * 32767 / np.abs(clips).max(1, keepdims=True)).astype(np.float32)
    return clips.astype(np.int16), rhythms, timbres, envelopes, pitches, rates


def _tones(frequencies: Array, timbres: NDArray[np.int64], phases: Array, length: int) -> Array:
    """Draw harmonic tones (n, L) of root mean square 1/4; `frequencies` (n,) in cycles a sample."""
    # e^(iwt) of all times is a product of two short tables, which is faster than sines and as exact.
    fine = 256
    coarse = -(-length // fine)
    steps = 2j * np.pi * frequencies[:, None]
    rough = np.exp(steps * (fine * np.arange(coarse)) + 2j * np.pi * phases[:, None]).astype(np.complex64)
    turn = rough[:, :, None] * np.exp(steps * np.arange(fine)).astype(np.complex64)[:, None, :]
    turn = turn.reshape(len(frequencies), -1)[:, :length]
    recipe = np.zeros((len(TIMBRES), max(map(len, TIMBRES.values()))))
    for row, amplitudes in zip(recipe, TIMBRES.values(), strict=True):
        row[: len(amplitudes)] = amplitudes
    number = np.arange(1, recipe.shape[1] + 1)
    strength = np.where(number * frequencies[:, None] < 0.47, recipe[timbres], 0)  # none above Nyquist's frequency
    strength *= 0.25 / np.sqrt((strength**2).sum(1, keepdims=True) / 2)
    strength = strength.astype(np.float32)
    total = strength[:, -1:] * turn
    for k in range(recipe.shape[1] - 2, -1, -1):  # Horner's rule
        total += strength[:, k : k + 1]
        total *= turn
    return total.imag.copy()


def _notes(rates: Array, envelopes: NDArray[np.int64], swung: NDArray[np.int64], phases: Array, length: int) -> Array:
    """Compute the loudness (n, L) from 0 to 1; `rates` (n,) in notes a sample."""
    table = _table().reshape(-1, _STEPS)
    # The place within two notes, as a fraction of 2^32, whose overflow is the turn of the page.
    step = (rates / 2 * 2**32).astype(np.uint32)[:, None]
    place = np.arange(length, dtype=np.uint32) * step + (phases * 2**32).astype(np.uint32)[:, None]
    place >>= np.uint32(32 - 12)
    loudness = np.empty(place.shape, dtype=np.float32)
    for row, out, which in zip(place, loudness, 2 * envelopes + swung, strict=True):
        np.take(table[which], row, out=out)
    return loudness


def _table() -> Array:
    """Tabulate envelopes over two notes, (kinds, even or swung, steps); each has the same energy."""
    place = (np.arange(_STEPS) + 0.5) / _STEPS * 2
    even = place % 1
    swung = np.where(place < 4 / 3, place / (4 / 3), (place - 4 / 3) / (2 / 3))
    u = np.stack([even, swung])
    attack = np.clip(u / 0.04, 0, 1)
    shapes = [
        attack * np.exp(-4 * u),
        attack * np.clip((0.55 - u) / 0.04, 0, 1),
        (u / 0.85) ** 2 * np.clip((0.9 - u) / 0.05, 0, 1),
        np.sin(np.pi * u) ** 2,
    ]
    table = np.stack(shapes)
    table /= np.sqrt((table**2).mean(-1, keepdims=True))
    return (table / table.max()).astype(np.float32)
