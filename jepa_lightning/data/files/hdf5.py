"""HDF5 files of strangers, by h5py where it is installed: what lies in the file itself, and no more than it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from jepa_lightning.data.errors import DataError

ENDINGS = (".h5", ".hdf5")
_DEFLATED = 1100  # times its size, what compression can unpack to at most


class Elsewhere(OSError):
    """What is named does not lie in the file itself; it was not opened, since it may be any file of the user."""


@contextmanager
def open_hdf5(path: Path, *, extra: str) -> Iterator[Any]:
    """Open a file; inside, anything that is wrong with it is an OSError with the reason in a line.

    Args:
        path: of the file.
        extra: of this package, which brings h5py.

    Raises:
        DataError: h5py is not installed.
        OSError: the file is damaged.
    """
    try:
        import h5py
    except ImportError:
        raise DataError(
            f'HDF5 files need h5py, which is not installed: pip install "jepa-lightning[{extra}]"'
        ) from None
    try:
        with h5py.File(path) as file:
            yield file
    except Exception as error:  # h5py has one of its own for each thing that can be wrong inside a file
        raise OSError(" ".join(str(error).split())[:150] or type(error).__name__) from None


def read_array(group: Any, name: str) -> NDArray[Any]:
    """Read a dataset of a file or group.

    Raises:
        Elsewhere: it is a link, or its values lie in other files.
        OSError: it is no dataset, or declares more than the file holds.
    """
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise Elsewhere(
            f"expected the dataset {name}, got a link, which was not followed: store the values in the file"
        )
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset):
        raise OSError(f"expected the dataset {name}, got a {type(dataset).__name__}")
    if dataset.is_virtual or dataset.external:
        raise Elsewhere(f"expected the values of {name} in the file, got some in other files: store them in the file")
    size, stored = dataset.nbytes, dataset.id.get_storage_size()
    if size > _DEFLATED * stored + _DEFLATED:  # the rest would be filled in, however much it is
        raise OSError(f"{dataset.name} {dataset.shape} should hold {size} bytes, and {stored} are there")
    return dataset[()]


def read_arrays(group: Any) -> dict[str, Any]:
    """Read all datasets of a file or group by name, those of a group within it in a dict; see `read_array`.

    What lies elsewhere is left out.
    """
    import h5py

    found: dict[str, Any] = {}
    for name in group:
        here = isinstance(group.get(name, getlink=True), h5py.HardLink)
        if here and isinstance(group[name], h5py.Group):
            found[name] = read_arrays(group[name])
        else:
            with suppress(Elsewhere):
                found[name] = read_array(group, name)
    return found
