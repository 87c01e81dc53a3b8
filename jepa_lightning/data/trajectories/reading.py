"""Episodes in files: NumPy archives and HDF5."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_lightning.data.arrays import native
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.files.hdf5 import ENDINGS as HDF5
from jepa_lightning.data.files.hdf5 import open_hdf5, read_arrays
from jepa_lightning.data.files.notes import warn_of_unread
from jepa_lightning.data.files.split_names import plain_split_of
from jepa_lightning.data.files.tree import that_could_be_data
from jepa_lightning.data.trajectories.episodes import Episode

ENDINGS = (".npz", *HDF5)
LENGTHS = ("episode_lengths", "ep_len")  # numbers of observations, of arrays with all episodes behind each other
ENDS = ("terminals", "timeouts")  # where either is true, an episode ends


def find_episode_files(root: Path) -> dict[str, list[Path]]:
    """The files of episodes at `root`, a file or a folder, by split: as their names say (train.npz, test.h5).

    Raises:
        DataError: there are none, or none to train on.
    """
    if not root.exists():
        raise DataError(f"expected episodes at {root}, found nothing there: check data.root")
    there = [root] if root.is_file() else sorted(path for path in root.iterdir() if not path.name.startswith("."))
    files = there if root.is_file() else [path for path in there if path.suffix.lower() in ENDINGS]
    if not files:
        raise DataError(f"expected files {', '.join(ENDINGS)} in {root}, found none: check data.root")
    others = Counter(path.suffix.lower() for path in there if path not in files and path.is_file())
    warn_of_unread(str(root), that_could_be_data(others), len(files))
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(plain_split_of(file.stem) or "train" if root.is_dir() else "train", []).append(file)
    if "train" not in found:
        raise DataError(f"expected episodes to train on in {root}, got {', '.join(f.name for f in files)} alone")
    return found


def read_episodes(file: Path, *, observations: str, actions: str | None, labels: Sequence[str] | None) -> list[Episode]:
    """All episodes of a file.

    Three layouts are known. Arrays of all episodes of one length: observations (N, T, ...), actions (N, T - 1, A), or
    (N, T, A) whose last is left out. All episodes behind each other: observations (M, ...), actions (M, A), and
    `episode_lengths` (or `ep_len`), or flags `terminals` and `timeouts` at each episode's last observation. HDF5 with a
    group for each episode, as Minari writes them, of `observations` (T, ...) and `actions` (T - 1, A).

    Args:
        file: .npz, .h5 or .hdf5.
        observations: name of the observations' array.
        actions: name of the actions'; None: there are none, and each has no numbers, (T - 1, 0).
        labels: names of arrays that are labels of each observation, or of each episode; None: all the others of
            numbers that have the right length.

    Raises:
        DataError: what was expected and what the file holds.
    """
    kind = "a NumPy archive" if file.suffix.lower() == ".npz" else "an HDF5 file"
    try:
        stored = _stored(file)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"expected {kind} of episodes, cannot read {file}: {error}") from error
    groups = {name: part for name, part in stored.items() if isinstance(part, dict)}
    if not groups:
        return _from_arrays(stored, file, observations, actions, labels)
    return [
        _one(groups[name], f"{file.name}/{name}", observations, actions, labels)
        for name in sorted(groups, key=lambda name: (len(name), name))  # episode_10 after episode_9
    ]


def _stored(file: Path) -> dict[str, Any]:
    """Read all arrays of a file by name, those of a group of an HDF5 file in a dict."""
    if file.suffix.lower() == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    with open_hdf5(file, extra="world") as opened:
        return read_arrays(opened)


def _from_arrays(
    stored: Mapping[str, Any], file: Path, observations: str, actions: str | None, labels: Sequence[str] | None
) -> list[Episode]:
    seen, lengths = _named(stored, observations, file.name), _lengths(stored, file.name)
    done = _actions(stored, actions, seen, file.name, axes=2 if lengths is None else 1)
    others = {name: value for name, value in stored.items() if name not in (observations, actions, *LENGTHS, *ENDS)}
    if lengths is None:
        if done.ndim != 3 or len(done) != len(seen):
            raise DataError(
                f"expected in {file.name} {actions} (N, T - 1, A) for {observations} {seen.shape}, or all episodes "
                f"behind each other with {LENGTHS[0]} or {ENDS[0]}, got {actions} {done.shape}"
            )
        return [
            _one(
                {
                    observations: seen[i],
                    **({} if actions is None else {actions: done[i]}),
                    **_of_episode(others, i, len(seen), seen.shape[1]),
                },
                f"{file.name}[{i}]", observations, actions, labels,
            )
            for i in range(len(seen))
        ]  # fmt: skip
    ends = np.cumsum(lengths)
    if ends[-1] != len(seen) or len(done) != len(seen):
        raise DataError(
            f"expected in {file.name} as many {actions} as {observations}, in episodes that add up to them, got "
            f"{len(done)}, {len(seen)} and episodes of {ends[-1]} together"
        )
    found = []
    for i, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        part = {name: value[start:end] for name, value in others.items() if len(value) == len(seen)}
        part |= {observations: seen[start:end]} | ({} if actions is None else {actions: done[start:end]})
        found.append(_one(part, f"{file.name}[{i}]", observations, actions, labels))
    return found


def _of_episode(others: Mapping[str, Any], i: int, count: int, length: int) -> dict[str, NDArray[Any]]:
    """The other arrays of episode i; what holds for the whole episode is repeated for each observation."""
    found = {}
    for name, values in others.items():
        if values.ndim >= 1 and len(values) == count:
            each = values.ndim >= 2 and values.shape[1] == length
            found[name] = values[i] if each else np.broadcast_to(values[i], (length, *values.shape[1:]))
    return found


def _one(
    stored: Mapping[str, Any], name: str, observations: str, actions: str | None, labels: Sequence[str] | None
) -> Episode:
    seen = _named(stored, observations, name)
    done = _actions(stored, actions, seen, name, axes=1)
    if len(done) == len(seen):  # the last one leads nowhere
        done = done[:-1]
    if done.ndim == 1:
        done = done[:, None]
    known: dict[str, torch.Tensor] = {}
    for key in [k for k in stored if k not in (observations, actions)] if labels is None else labels:
        values = stored.get(key)
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and values.shape[:1] == seen.shape[:1]:
            known[key] = _tensor(values)
        elif labels is not None:
            raise DataError(f"expected the label {key!r} in {name}, it has {sorted(stored)}: see data.labels")
    return Episode(_tensor(seen), _tensor(done).float(), known, name)


def _actions(stored: Mapping[str, Any], name: str | None, seen: NDArray[Any], where: str, *, axes: int) -> NDArray[Any]:
    return _named(stored, name, where) if name is not None else np.zeros((*seen.shape[:axes], 0), dtype=np.float32)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(native(array)))  # a copy that may be written to


def _named(stored: Mapping[str, Any], name: str, where: str) -> NDArray[Any]:
    values = stored.get(name)
    if not isinstance(values, np.ndarray) or values.ndim < 1:
        raise DataError(
            f"expected an array {name!r} in {where}, it has {sorted(stored)}: set data.observations and data.actions"
        )
    return values


def _lengths(stored: Mapping[str, Any], where: str) -> NDArray[np.int64] | None:
    """Observations of each episode, of arrays with all episodes behind each other; None of other arrays."""
    for name in LENGTHS:
        if name in stored:
            lengths = np.asarray(stored[name]).astype(np.int64).ravel()
            if not len(lengths) or (lengths < 1).any():
                raise DataError(f"expected {name} of at least 1 in {where}, got {lengths[:5].tolist()}")
            return lengths
    flags = [np.asarray(stored[name]).ravel().astype(bool) for name in ENDS if name in stored]
    if not flags:
        return None
    last = np.logical_or.reduce(flags)
    last[-1] = True
    return np.diff(np.flatnonzero(last), prepend=-1)
