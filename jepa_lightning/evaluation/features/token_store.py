"""Token features of a data set, kept once: in memory, or in a temporary file where they are many."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LIMIT = 2**30  # bytes of one encoder's tokens that are kept in memory


@dataclass(frozen=True)
class TokenFeatures:
    """Features of all tokens of some samples.

    Attributes:
        values: (n, N, D) float16; in memory, or mapped from a temporary file (in TMPDIR) that goes with them.
        valid: (n, N) bool, False for padding, or None where all are real.
    """

    values: Tensor
    valid: Tensor | None = None


class TokenStore:
    """Collects token features batch by batch.

    They are kept as float16, which is more exact than what encoders compute under bf16; numbers beyond its range,
    +-65504, become that.

    Args:
        limit: bytes above which they go to a file.
    """

    def __init__(self, *, limit: int = LIMIT) -> None:
        self.limit = limit
        self._parts: list[Tensor] = []
        self._valid: list[Tensor] = []
        self._bytes = 0
        self._file: _Scratch | None = None

    def append(self, tokens: Tensor, valid: Tensor | None = None, *, sources: Sequence[str] | None = None) -> None:
        """Add a batch (B, N, D), of which `valid` (B, N) are real; N may differ from that of other batches.

        Args:
            tokens: of B samples.
            valid: None where all are real.
            sources: B names; samples of one name are clips of one video, and become one sample with the tokens of all.
        """
        tokens = tokens.detach().float().cpu()
        valid = torch.ones(tokens.shape[:2], dtype=torch.bool) if valid is None else valid.cpu()
        if sources is not None:
            tokens, valid = join_clips(tokens, valid, sources)
        finite = tokens.isfinite().all(2) | ~valid
        tokens = tokens.masked_fill(~valid.unsqueeze(-1), 0)
        halves = tokens.clamp(-65504, 65504).masked_fill(~finite.unsqueeze(-1), torch.nan).half()
        self._valid.append(valid)
        self._bytes += halves.numel() * 2
        if self._file is None and self._bytes > self.limit:
            self._file = _Scratch()
            self._parts = [self._file.write(part) for part in self._parts]
        self._parts.append(halves if self._file is None else self._file.write(halves))

    def finish(self) -> TokenFeatures:
        """All of them, padded to the same number of tokens.

        Raises:
            ValueError: there are none.
        """
        if not self._parts:
            raise ValueError("expected token features of at least one batch, got none")
        longest = max(part.shape[1] for part in self._parts)
        ragged = any(part.shape[1] < longest for part in self._parts)
        if self._file is None:
            values = torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in self._parts])
        elif not ragged:
            values = self._file.whole(longest, self._parts[0].shape[2])
        else:
            padded = _Scratch()
            for part in self._parts:
                padded.write(F.pad(part, (0, 0, 0, longest - part.shape[1])))
            values = padded.whole(longest, self._parts[0].shape[2])
        valid = torch.cat([F.pad(part, (0, longest - part.shape[1])) for part in self._valid])
        self._parts, self._valid, self._file = [], [], None
        return TokenFeatures(values, None if bool(valid.all()) else valid)


def join_clips(tokens: Tensor, valid: Tensor, sources: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The tokens of samples of one source behind each other: (S, clips N, D) and (S, clips N), sources in order."""
    clips: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        clips.setdefault(source, []).append(number)
    most = max(map(len, clips.values()))
    index = torch.tensor([of + [0] * (most - len(of)) for of in clips.values()])
    there = torch.tensor([[True] * len(of) + [False] * (most - len(of)) for of in clips.values()])
    return tokens[index].flatten(1, 2), (valid[index] & there.unsqueeze(-1)).flatten(1, 2)


class _Scratch:
    """A temporary file to which float16 tensors are written one after another.

    It is unlinked with this object, and what is mapped from it stays: its space is free when that is gone, too.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="jepa-tokens-", ignore_cleanup_errors=True)
        self._path = Path(self._folder.name) / "tokens.f16"
        self._end = 0

    def write(self, values: Tensor) -> Tensor:
        """The same values, mapped from the file."""
        start = self._end
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(values.numpy()).tobytes())
        self._end += values.numel() * 2
        return self._map(start, tuple(values.shape))

    def whole(self, count: int, width: int) -> Tensor:
        """Everything as (n, count, width)."""
        return self._map(0, (self._end // (2 * count * width), count, width))

    def _map(self, start: int, shape: tuple[int, ...]) -> Tensor:
        mapped = np.memmap(self._path, dtype=np.float16, mode="c", offset=start, shape=shape)  # writable, never written
        return torch.from_numpy(mapped)
