"""Audio files by soundfile: a part of one, mono, at the wanted sample rate."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_lightning.data import DataError, Encoded

Waveform = NDArray[np.float32]

EXTENSIONS = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".sph"),
    *(".wave", ".rf64", ".aifc", ".snd", ".mp2", ".voc", ".nist", ".pvf", ".avr", ".8svx"),
)
"""File name endings of audio files in folders, in any case."""

_WIDTH, _ROLLOFF = 6, 0.99  # of torchaudio's filter: zero crossings either side, and its edge's share of Nyquist's
_LARGEST_RATIO = 1000  # of whole numbers in a ratio of rates: the filter's size is their product
LARGEST = 1e12  # of a sample; the energy of a spectrum's band is still a float
_LAST_PAGE = 4  # seconds; the last page of an ogg file is shorter
_RESERVOIR = 8 * 1152  # samples, of 8 mp3 frames
_UNKNOWN = 0x7FFFF000  # from here on, a size in a header is what a programme writes that does not know it
_CHUNKS = re.compile(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_NO_LAST_PAGE = re.compile(r"lacks an end-of-stream|without an End-Of-Stream|Junk after the last page")
_PAGE = 65_307  # bytes of the longest page of an ogg file


@dataclass(frozen=True)
class Info:
    """What is known of a file without decoding it.

    Attributes:
        frames: number of samples of each channel.
        sample_rate: in Hz.
        channels: their number.
    """

    frames: int
    sample_rate: int
    channels: int

    def length(self, sample_rate: int) -> int:
        """Number of samples after resampling; the same as that of torchaudio's result."""
        return -int(-self.frames * ratio(self.sample_rate, sample_rate) // 1)


def info(path: str | Encoded, *, check: bool = True) -> Info:
    """Read length, rate and channels of a file from its header.

    Args:
        path: of the file.
        check: also look whether the file's end is there. Costs nothing for files that are not compressed, and about
            a seek for the others.

    Raises:
        OSError: no audio file, an empty one, or (with `check`) one that ends too early; says so shortly.
        DataError: soundfile is not installed.
    """
    with _Open(path) as file:
        if check:
            _check_end(file, path)
        return Info(file.frames, file.samplerate, file.channels)


def read(path: str | Encoded, *, start: int = 0, count: int | None = None, sample_rate: int | None = None) -> Waveform:
    """Read a part of a file, mono (the mean of its channels), resampled.

    Only that part is decoded, with the few samples beside it that resampling needs: a part equals the same part of
    the whole file, read and resampled by `torchaudio.functional.resample`, to rounding.

    Args:
        path: of the file: wav, flac, ogg, mp3 and what else libsndfile reads.
        start: first sample, counted at the rate `sample_rate`.
        count: number of samples, likewise; None: to the end.
        sample_rate: wanted, in Hz; None: the file's.

    Returns:
        (n,) float32, in -1 to 1 for files of whole numbers; n is `count`, or less where the file ends before that.

    Raises:
        OSError: no audio file, an empty or damaged one, one that ends before its header says, or NaN or infinity in
            what was read.
        DataError: soundfile is not installed; or torchaudio is not, and the rates differ.
    """
    with _Open(path) as file:
        rate = sample_rate or file.samplerate
        total = Info(file.frames, file.samplerate, file.channels).length(rate)
        stop = total if count is None else min(start + count, total)
        if not 0 <= start < stop:
            raise OSError(f"samples {start} to {stop} do not exist: there are {total}")
        if rate == file.samplerate:
            return _decode(file, start, stop)
        step = ratio(file.samplerate, rate)
        new, old = step.numerator, step.denominator
        # The filter makes `new` samples of every `old`, so the part must begin at a multiple of these.
        beside = -(-_reach(old, new) // old)
        first, last = start // new, -(-stop // new)
        begin = max(0, first - beside) * old
        source = _decode(file, begin, min(file.frames, (last + beside) * old))
        skip = start - begin // old * new
        return resample(source, file.samplerate, rate)[skip : skip + stop - start]


def resample(waveform: Waveform, old_rate: int, new_rate: int) -> Waveform:
    """Resample a waveform (L,) to (ceil(L * new / old),), by torchaudio's windowed sinc filter.

    Rates without a common divisor would need a huge filter; their ratio is rounded (by
    a few parts in a million at most).

    Raises:
        DataError: torchaudio is not installed or does not load.
    """
    if old_rate == new_rate:
        return waveform
    with torch.no_grad():
        return _resampler(ratio(old_rate, new_rate))(torch.from_numpy(waveform)).numpy()


def ratio(old_rate: int, new_rate: int) -> Fraction:
    """Compute new / old, of whole numbers that are not too large.

    Raises:
        OSError: they are too far apart, as they are where a file's header is damaged.
    """
    if not old_rate <= new_rate * _LARGEST_RATIO <= old_rate * _LARGEST_RATIO**2:
        raise OSError(f"a sample rate of {old_rate} Hz is too far from {new_rate} Hz to be converted to it")
    exact = Fraction(new_rate, old_rate)
    if max(exact.numerator, exact.denominator) <= _LARGEST_RATIO:
        return exact
    return exact.limit_denominator(int(_LARGEST_RATIO / max(1.0, float(exact))))


def _reach(old: int, new: int) -> int:
    """Count the samples of the source that the filter looks at, beside the ones that it replaces."""
    return int(np.ceil(_WIDTH * old / (min(old, new) * _ROLLOFF))) + 1


@lru_cache(maxsize=8)
def _resampler(step: Fraction) -> Any:
    try:
        from torchaudio.transforms import Resample
    except (ImportError, OSError, RuntimeError) as error:  # the latter two where it was built for another torch
        raise DataError(
            'these files need resampling and so torchaudio, which does not load: pip install "jepa-lightning[audio]", '
            f"or store them at the model's sample rate ({str(error).splitlines()[0]})"
        ) from error
    return Resample(step.denominator, step.numerator, lowpass_filter_width=_WIDTH, rolloff=_ROLLOFF)


class _Open:
    """Opens a file; whatever goes wrong inside becomes an OSError with a short reason."""

    def __init__(self, path: str | Encoded) -> None:
        self.path = path
        self._file: Any = None

    def __enter__(self) -> Any:
        soundfile = _soundfile()
        file = self.path.open() if isinstance(self.path, Encoded) else self.path
        if not (len(self.path.data) if isinstance(self.path, Encoded) else os.stat(self.path).st_size):
            raise OSError("the file is empty")
        try:
            self._file = soundfile.SoundFile(file)
        except RuntimeError as error:
            reason = str(error).removeprefix(f"Error opening {file!r}: ")
            if "does not exist" in reason:  # what it says of any mp3 without a frame
                reason = "no audio in it"
            raise OSError(f"not an audio file that can be read: {reason}") from error
        if self._file.frames < 1:
            self._file.close()
            raise OSError("there are no samples in the file")
        return self._file

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._file.close()
        if isinstance(error, RuntimeError | ValueError) and not isinstance(error, DataError):
            raise OSError(f"the file is damaged: {error}") from error


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: there is no libsndfile
        raise DataError(
            f'reading audio files needs soundfile, which does not load: pip install "jepa-lightning[audio]" ({error})'
        ) from error
    return soundfile


def _check_end(file: Any, path: str | Encoded) -> None:
    log = file.extra_info
    chunk = _CHUNKS.search(log)
    if chunk and int(chunk[2]) < int(chunk[1]) < _UNKNOWN:
        raise OSError(f"the file is truncated: {chunk[2]} of {chunk[1]} bytes of audio are there")
    if "Corrupted bitstream" in log or (_NO_LAST_PAGE.search(log) and not _ends_with_a_page(path)):
        raise OSError("the file is truncated or damaged: its last page is incomplete")
    if file.format in ("FLAC", "MP3"):  # whose headers say how long they should be
        try:
            file.seek(file.frames - 1)
            there = len(file.read(1, dtype="float32"))
        except (RuntimeError, ValueError):
            there = 0
        if not there:
            raise OSError(f"the file is truncated or damaged: it ends before its {file.frames} samples")


def _ends_with_a_page(path: str | Encoded) -> bool:
    """Tell whether the last page of an ogg file ends where the file does.

    Many files have no page that is marked as the last, or a second stream behind it: they are whole, and play.
    """
    with path.open() if isinstance(path, Encoded) else open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _PAGE))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    sizes = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return len(page) > 26 and len(page) == 27 + len(sizes) + sum(sizes)


def _decode(file: Any, start: int, stop: int) -> Waveform:
    begin = start
    if file.format == "MP3":
        begin = max(0, start - _RESERVOIR)  # frames draw on the bits of those before them, which a seek has not read
    elif file.subtype == "VORBIS":
        # On the last page libsndfile's seek is up to a block late (its issue 885): start well before that page.
        begin = max(0, min(start, file.frames - _LAST_PAGE * file.samplerate))
    if begin:
        file.seek(begin)
    audio = file.read(stop - begin, dtype="float32", always_2d=True)
    if len(audio) < stop - begin:
        raise OSError(f"the file is truncated: {begin + len(audio)} of {file.frames} samples are there")
    audio = audio[start - begin :]
    mono = audio[:, 0] if audio.shape[1] == 1 else audio.mean(1)
    if not np.isfinite(mono).all():
        raise OSError("there are NaN or infinite samples in the file")
    if max(abs(float(mono.max())), abs(float(mono.min()))) > LARGEST:
        raise OSError(f"there are samples beyond {LARGEST:g} in the file")
    return mono
