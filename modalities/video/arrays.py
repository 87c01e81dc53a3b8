"""Clips that lie in a NumPy archive, as moving MNIST and its kin come."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from jepa_lightning.data import DataError

_VIDEO = ("video", "videos", "clips", "frames")


class ArrayClips(Dataset[dict[str, Any]]):
    """Clips and labels from a .npz file: one array of clips, the other arrays of that length are labels.

    Args:
        path: the file. The clips are the array called `video` (or videos, clips, frames): (N, T, H, W, C) or
            (N, T, H, W), uint8 or float.
        labels: names of the arrays that are labels, the first being the primary one; None for all that have N entries.
            Whole numbers, one a clip, are classes; floats of any shape are continuous.

    Raises:
        DataError: no such file, no clips in it, no label of a name that was asked for.
    """

    def __init__(self, path: str, *, labels: list[str] | None = None) -> None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise DataError(f"expected a .npz file of clips, but there is no file {path}: check data.root")
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"expected {path} to be a .npz file of plain arrays, got: {error}") from None
        name = next((name for name in _VIDEO if name in arrays), None)
        if name is None or arrays[name].ndim not in (4, 5):
            found = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
            raise DataError(f"expected in {path} an array 'video' (N, T, H, W) or (N, T, H, W, C), got {found}")
        self.name = file.stem
        self.videos = arrays.pop(name)
        per_clip = {key: array for key, array in arrays.items() if array.shape[:1] == self.videos.shape[:1]}
        for label in labels or ():
            if label not in per_clip:
                near = difflib.get_close_matches(label, per_clip, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(per_clip) or 'none'}"
                raise DataError(f"expected a label {label!r} in {path}, one entry a clip: {hint}")
        self.labels = {key: per_clip[key] for key in (per_clip if labels is None else labels)}
        first = next(iter(self.labels.values()), None)
        if first is not None and first.ndim == 1 and np.issubdtype(first.dtype, np.integer):
            self.targets = first.astype(np.int64)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"video": self.videos[index], "labels": {name: values[index] for name, values in self.labels.items()}}

    def sample_id(self, index: int) -> str:
        """Archive and number of clip `index`."""
        return f"{self.name}[{index}]"


def find_archives(root: Path, labels: list[str] | None) -> dict[str, ArrayClips] | None:
    """The sets of `root/train.npz` (and val.npz, test.npz beside it), or of the .npz file `root`; None for neither."""
    if root.suffix.lower() == ".npz":
        return {"train": ArrayClips(str(root), labels=labels)}
    if not (root / "train.npz").is_file():
        return None
    files = {split: root / f"{split}.npz" for split in ("train", "val", "test")}
    return {split: ArrayClips(str(file), labels=labels) for split, file in files.items() if file.is_file()}
