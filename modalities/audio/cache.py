"""Log-mel spectrograms kept on disk, one file a recording, so that each is computed once."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jepa_lightning.data import DataError
from jepa_lightning.run.writing import replacing
from modalities.audio.recordings import FileRecording

_VERSION = 1  # of what is stored; another one makes the old files misses


class LogMelCache:
    """Log-mel spectrograms of audio files, in a folder.

    A spectrogram is that of the whole file, stored as float16 (good to 0.1 %, which is little beside the spread of
    log-mel values) with time first, so that reading a crop of a long one touches only that part of the file. Its
    name is a hash of the front end's settings, the sample rate, and its path, size and time of change; what
    is no longer asked for is not removed. Several processes may use a folder at once: a file is written beside its
    place and then moved there. A damaged one is computed again.

    Args:
        folder: where they are kept; made where it does not exist.
        front_end: waveforms (B, L) to log-mel (B, F, T); it has `settings`, a dict (or a method that gives one) of
            all that its values depend on. It is copied to the CPU.
        sample_rate: of the waveforms, in Hz.

    Raises:
        DataError: the folder cannot be written to, or the front end has no settings.
    """

    def __init__(self, folder: str, *, front_end: nn.Module, sample_rate: int) -> None:
        settings = getattr(front_end, "settings", None)
        settings = settings() if callable(settings) else settings
        if not isinstance(settings, dict):
            raise DataError(
                "expected a front end with `settings`, a dict that names its spectrograms, got "
                f"{type(front_end).__name__} without: give it one"
            )
        self.folder = os.path.expanduser(folder)
        self.front_end = copy.deepcopy(front_end).cpu().eval()  # the model's own moves to the GPU
        self.sample_rate = sample_rate
        self._key = json.dumps([_VERSION, sample_rate, settings], sort_keys=True, default=str)
        try:
            os.makedirs(self.folder, exist_ok=True)
        except OSError as error:
            raise DataError(f"expected a folder for the log-mel cache, cannot make {folder}: {error}") from error

    def frames(self, samples: int) -> int:
        """Count the frames of a clip of that many samples."""
        return self._compute(np.zeros(samples, np.float32)).shape[0]

    def silence(self, samples: int) -> NDArray[np.float16]:
        """Compute what a clip of zeros gives, (F,)."""
        values: NDArray[np.float16] = self._compute(np.zeros(samples, np.float32))[0]
        return values

    def path(self, audio: str) -> str:
        """Name the file where the spectrogram of an audio file is kept, whether it is there or not."""
        found = os.stat(audio)
        key = f"{self._key}\n{os.path.abspath(audio)}\n{found.st_size}\n{found.st_mtime_ns}"
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return os.path.join(self.folder, name[:2], f"{name}.npy")  # 256 folders, as some file systems like it

    def __call__(self, recording: FileRecording) -> NDArray[np.float16]:
        """Compute the log-mel (T, F) of a file, or take a view of the file where it was there before.

        Raises:
            OSError: the file cannot be read.
            DataError: the cache cannot be written.
        """
        path = self.path(recording.path)
        try:
            kept = np.load(path, mmap_mode="r", allow_pickle=False)
            if kept.ndim == 2 and kept.size and kept.dtype == np.float16:
                return kept
        except (OSError, ValueError, EOFError):  # not there, or damaged
            pass
        log_mel = self._compute(recording.read(0, recording.length))
        self._write(path, log_mel)
        return log_mel

    def _compute(self, waveform: NDArray[np.float32]) -> NDArray[np.float16]:
        try:
            with torch.no_grad():
                log_mel = self.front_end(torch.from_numpy(waveform)[None])[0].float()
        except RuntimeError as error:  # from torch's STFT
            raise OSError(f"the front end cannot use its {len(waveform)} samples: {error}") from error
        if not bool(log_mel.abs().max() < torch.finfo(torch.float16).max):
            raise OSError("its log-mel spectrogram is not finite")
        return np.ascontiguousarray(log_mel.T.half().numpy())

    def _write(self, path: str, log_mel: NDArray[np.float16]) -> None:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with replacing(Path(path), unique=True) as beside, open(beside, "xb") as file:
                np.save(file, log_mel)
        except OSError as error:
            raise DataError(
                f"cannot write to the log-mel cache in {self.folder}: {error}: make room there, name another folder, "
                "or leave data.log_mel_cache out"
            ) from error
