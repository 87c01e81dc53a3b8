"""Audio data sets: files of class folders or a CSV file, perhaps split by a group; and anyone's torch dataset."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from jepa_lightning.data import CachedFileSet, DataError, FileList, find_files
from jepa_lightning.data.sources.given import WrappedDataset
from jepa_lightning.names.nearest import did_you_mean
from modalities.audio.generated import GeneratedAudio
from modalities.audio.reading import EXTENSIONS, Info, Waveform, info, read
from modalities.audio.recordings import ArrayRecording, FileRecording, Recording, as_recording, parts_of

_log = logging.getLogger(__name__)


class AudioFiles(CachedFileSet):
    """The audio files of one split, as dicts: `waveform`, a `Recording`, and `labels`.

    Args:
        files: where they lie, and their labels.
        sample_rate: wanted, in Hz.
    """

    key = "waveform"

    def __init__(self, files: FileList, *, sample_rate: int) -> None:
        super().__init__(files)
        self.sample_rate = sample_rate
        self._known: dict[int, Info] = {}  # each header is read, and each file's end looked for, once in a process

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """(L,) of every recording, -1 where they differ; None where not all are in memory."""
        return None if self._cache is None or self.unreadable else self._cache.shape or (-1,)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples (N,) of each recording in memory."""
        return self.in_memory.lengths

    def take_parts(
        self, indices: NDArray[np.int64], starts: NDArray[np.int64], counts: NDArray[np.int64], size: int
    ) -> dict[str, Any]:
        """Parts (B, V, size) of recordings in memory, and labels; see `PartsInMemory`."""
        cache = self.in_memory
        rows = parts_of(lambda row: cache[int(indices[row])], starts, counts, size=size, dtype=cache.dtype)
        return {"waveform": rows, "labels": self.files.labels_of(indices)}  # type: ignore[arg-type]

    def value(self, index: int) -> Recording:
        """Give recording `index`, not decoded yet unless it is in memory."""
        if self._cache is not None:
            return ArrayRecording(self._cache[index])
        path = self.files.regular(index)
        if index not in self._known:
            self._known[index] = info(path)
        return FileRecording(path, sample_rate=self.sample_rate, known=self._known[index])

    def read(self, index: int) -> Waveform:
        """Decode recording `index`; errors as `modalities.audio.reading.read`."""
        path = self.files.regular(index)
        info(path)  # looks whether the end is there
        return read(path, sample_rate=self.sample_rate)

    def bytes_of(self, index: int) -> float:
        """Estimate the size of recording `index` in memory, from its header."""
        return 4.0 * info(self.files.regular(index), check=False).length(self.sample_rate)


class GivenAudio(WrappedDataset):
    """Anyone's dataset, as dicts with a `Recording`.

    Args:
        dataset: gives a waveform, (waveform, label), a dict with `waveform` (and perhaps `sample_rate`), or
            torchaudio's (waveform, sample_rate, label, ...). Waveforms as in `as_recording`.
        sample_rate: wanted, in Hz; also that of the waveforms that come without one.
    """

    def __init__(self, dataset: Dataset[Any], *, sample_rate: int) -> None:
        super().__init__(dataset)
        self.sample_rate = sample_rate

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """(L,) of generated clips, which lie in memory; None of any other dataset."""
        return self.dataset.input_shape if isinstance(self.dataset, GeneratedAudio) else None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples (N,) of each generated clip."""
        return self.dataset.lengths  # type: ignore[attr-defined]

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Generated clips (B, L) and their labels."""
        return self.dataset.take(indices)  # type: ignore[attr-defined]

    def take_parts(
        self, indices: NDArray[np.int64], starts: NDArray[np.int64], counts: NDArray[np.int64], size: int
    ) -> dict[str, Any]:
        """Parts (B, V, size) of generated clips, and labels; see `PartsInMemory`."""
        return self.dataset.take_parts(indices, starts, counts, size)  # type: ignore[attr-defined]

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        rate = None
        if isinstance(item, dict) and "waveform" in item:
            item = dict(item)
            rate = item.pop("sample_rate", None)
        elif isinstance(item, tuple | list) and len(item) >= 3 and isinstance(item[1], int):
            item, rate = {"waveform": item[0], "label": item[2]}, item[1]
        elif isinstance(item, tuple | list) and 1 <= len(item) <= 2:
            item = dict(zip(("waveform", "label"), item, strict=False))
        elif isinstance(item, tuple | list | dict):
            return item  # the data module says what is wrong with it
        else:
            item = {"waveform": item}
        wave = as_recording(
            item["waveform"], sample_rate=self.sample_rate, own_rate=None if rate is None else int(rate)
        )
        return item | {"waveform": wave}


def find_audio(
    root: str | None,
    *,
    csv: str | None = None,
    labels: list[str] | None = None,
    group: str | None = None,
    test_groups: Sequence[str | int] = (),
    val_groups: Sequence[str | int] = (),
) -> dict[str, FileList]:
    """Find the audio files under a folder, or in a CSV file, by split; see `jepa_lightning.data.find_files`.

    With `group`, a column of the CSV file (a speaker, a recording session), the splits are made by that column, and a
    column `split` is left aside: files of `test_groups` are the test split, files of `val_groups` the validation
    split, all others the training split. The column is a label only if `labels` names it.

    Raises:
        DataError: as `find_files`; a group without a CSV file, groups that are not there, in both splits, or all.
    """
    if group is None:
        return find_files(root, kind="audio file", extensions=EXTENSIONS, csv=csv, labels=labels)
    if csv is None and not (root or "").lower().endswith(".csv"):
        raise DataError(f"expected a CSV file with the column {group!r} to split by, got none: set data.csv")
    found = find_files(root, kind="audio file", extensions=EXTENSIONS, csv=csv, labels=labels)
    kept = list(found["train"].labels)
    if group not in kept:
        found = find_files(root, kind="audio file", extensions=EXTENSIONS, csv=csv, labels=[*kept, group])
    if "val" in found or "test" in found:
        _log.info("splitting by %s, not by the column split", group)
    return _split(list(found.values()), kept, group, list(map(str, test_groups)), list(map(str, val_groups)))


def _split(
    found: list[FileList], kept: list[str], group: str, test_groups: list[str], val_groups: list[str]
) -> dict[str, FileList]:
    names = found[0].class_names.get(group)
    if names is None:
        raise DataError(f"expected text or whole numbers in the column {group!r} to split by, got other numbers")
    for wanted in (*test_groups, *val_groups):
        if wanted not in names:
            raise DataError(
                f"expected in the column {group} the value {wanted!r}{did_you_mean(wanted, names)}, got "
                f"{', '.join(names[:20])}: check data.test_groups and data.val_groups"
            )
    both = sorted(set(test_groups) & set(val_groups))
    if both:
        raise DataError(f"expected different groups for validation and test, got {both[0]} in both")
    paths = np.array([files.relative(index) for files in found for index in range(len(files))])
    columns = {name: np.concatenate([files.labels[name] for files in found]) for name in {*kept, group}}
    groups = np.array([*names, ""])[columns[group]]  # -1, "no label", is in no group
    held = {"val": np.isin(groups, val_groups), "test": np.isin(groups, test_groups)}
    sets = {"train": ~(held["val"] | held["test"]), **{split: chosen for split, chosen in held.items() if chosen.any()}}
    if not sets["train"].any():
        raise DataError(f"expected training files of other values of {group}, got none: leave some of {names} over")
    classes = found[0].class_names
    primary = kept[0] if kept and kept[0] in classes else None
    return {
        split: FileList(
            found[0].root,
            paths[chosen].tolist(),
            name="",
            targets=columns[primary][chosen] if primary else None,
            classes=classes[primary] if primary else None,
            labels={name: columns[name][chosen] for name in kept},
            class_names={name: classes[name] for name in kept if name in classes},
        )
        for split, chosen in sets.items()
    }
