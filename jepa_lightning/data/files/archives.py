"""Samples that lie in a NumPy archive: one array of inputs, the others of its length are labels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data.arrays import native
from jepa_lightning.data.errors import DataError
from jepa_lightning.names.nearest import nearest_names
from jepa_lightning.names.printable import printable
from jepa_lightning.names.shown import Shown

SPLITS = ("train", "val", "test")
_CHANNELS = (1, 3, 4)
_log = logging.getLogger(__name__)


class ArchiveSamples(Shown, Dataset[dict[str, Any]]):
    """Inputs and labels from a .npz file. A modality says what its inputs are called and how many axes they have.

    Inputs whose channels (1, 3 or 4) stand before height and width are transposed, which a line says, and so are the
    arrays named that cannot be labels.

    Args:
        path: the file. The inputs are the array of one of the `names`, N of them; other arrays of N entries are labels.
        labels: names of the arrays that are labels, the first being the primary one; None for all that have N entries.
            Whole numbers, one a sample, are classes; floats of any shape are continuous. An array (N, 1) is taken as
            (N,).

    Attributes:
        key: of an input in a sample.
        names: that the array of inputs may have.
        shapes: of it, by its number of axes.

    Raises:
        DataError: no such file, no inputs in it, no label of a name that was asked for.
    """

    key: ClassVar[str]
    names: ClassVar[tuple[str, ...]]
    shapes: ClassVar[dict[int, str]]

    def __init__(self, path: str, *, labels: list[str] | None = None) -> None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise DataError(f"expected a .npz file of {self.names[-1]}, but there is no file {path}: check data.root")
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {printable(name): _numbers(archive[name]) for name in archive.files}
        except Exception as error:  # damaged ones raise what zipfile, zlib and numpy like, MemoryError too
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"expected {path} to be a .npz file of plain arrays, got: {reason}") from None
        name = next((name for name in self.names if name in arrays), None)
        if name is None or arrays[name].ndim not in self.shapes:
            found = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
            wanted = " or ".join(self.shapes.values())
            raise DataError(f"expected in {path} an array {self.names[0]!r} {wanted}, got {found}")
        self.name = file.stem
        self.inputs = _channels_last(arrays.pop(name), path, axes=max(self.shapes))
        each = {key: _column(array) for key, array in arrays.items() if _is_label(array, len(self.inputs))}
        if labels is None and len(each) < len(arrays):
            found = ", ".join(f"{key} {array.dtype} {array.shape}" for key, array in arrays.items() if key not in each)
            _log.warning(
                "%s: left out: %s, no numbers for each of the %d entries of %s; store classes as whole numbers (N,)",
                printable(path), found, len(self.inputs), name,
            )  # fmt: skip
        for label in labels or ():
            if label not in each:
                near = nearest_names(label, each)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(each) or 'none'}"
                if label in arrays:
                    hint = f"got {arrays[label].dtype} {arrays[label].shape}; store classes as whole numbers (N,)"
                raise DataError(f"expected a label {label!r} in {path}, a number for each of {name}: {hint}")
        self.labels = {key: each[key] for key in (each if labels is None else labels)}
        first = next(iter(self.labels.values()), None)
        if first is not None and first.ndim == 1 and np.issubdtype(first.dtype, np.integer):
            self.targets = first.astype(np.int64)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Of every input, where they are uint8."""
        return self.inputs.shape[1:] if self.inputs.dtype == np.uint8 else None

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Inputs and labels of many samples."""
        return self[indices]  # type: ignore[index]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {self.key: self.inputs[index], "labels": {name: values[index] for name, values in self.labels.items()}}

    def sample_id(self, index: int) -> str:
        """Name sample `index` by archive and number."""
        return f"{self.name}[{index}]"


def _is_label(array: NDArray[Any], count: int) -> bool:
    return array.shape[:1] == (count,) and array.dtype.kind in "biuf"


def _column(array: NDArray[Any]) -> NDArray[Any]:
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _channels_last(inputs: NDArray[Any], path: str, *, axes: int) -> NDArray[Any]:
    """Move the channels of inputs (N, ..., H, W, C) with so many `axes` to the end, where they clearly stand elsewhere.

    That is (N, C, H, W), (N, T, C, H, W) or (N, C, T, H, W), with 1, 3 or 4 channels and another width. Grey inputs
    without an axis of channels get one.
    """
    if inputs.ndim == axes - 1:
        return inputs[..., None]
    if inputs.ndim != axes or inputs.shape[-1] in _CHANNELS:
        return inputs
    place = next((axis for axis in range(axes - 3, 0, -1) if inputs.shape[axis] in _CHANNELS), None)
    if place is None:
        return inputs
    _log.warning("%s: inputs %s are read with their channels moved to the end", printable(path), inputs.shape)
    return np.moveaxis(inputs, place, -1)


def _numbers(array: NDArray[Any]) -> NDArray[Any]:
    return native(array) if array.dtype.kind in "biufc" else array


def find_archives(
    root: str | None, reader: type[ArchiveSamples], *, labels: list[str] | None = None
) -> dict[str, ArchiveSamples]:
    """Find the sets of `root/train.npz` (with val.npz and test.npz), or of the .npz file `root`; empty for neither."""
    folder = Path(root or "").expanduser()
    if root is None or (folder.suffix.lower() != ".npz" and not (folder / "train.npz").is_file()):
        return {}
    if folder.suffix.lower() == ".npz":
        return {"train": reader(str(folder), labels=labels)}
    files = {split: folder / f"{split}.npz" for split in SPLITS}
    return {split: reader(str(file), labels=labels) for split, file in files.items() if file.is_file()}
