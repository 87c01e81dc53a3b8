"""HDF5, by h5py where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jepa_lightning.data.errors import DataError


def read_hdf5(file: Path) -> dict[str, Any]:
    """All arrays of a file by name, those of a group in a dict; links and values in other files are left out.

    Raises:
        DataError: h5py is missing, or the file cannot be read.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"reading {file} needs h5py: pip install 'jepa-lightning[world]'") from error

    def read(group: Any) -> dict[str, Any]:
        found = {}
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            part = group[name]
            if isinstance(part, h5py.Group):
                found[name] = read(part)
            elif isinstance(part, h5py.Dataset) and not part.external and not part.is_virtual:
                found[name] = part[()]
        return found

    try:
        with h5py.File(file, "r") as opened:
            return read(opened)
    except OSError as error:
        raise DataError(f"expected an HDF5 file of episodes, cannot read {file}: {error}") from error
