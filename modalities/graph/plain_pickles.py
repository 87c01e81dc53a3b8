"""Pickles of plain values, tensors and arrays, read without running what else they may hold."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

_PLAIN = {  # what a tensor, and a number of NumPy, is made of
    **dict.fromkeys((("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2"))),
    **dict.fromkeys((("collections", "OrderedDict"), ("numpy", "dtype"), ("_codecs", "encode"))),
    **dict.fromkeys((("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"))),
}
_ARRAYS = {  # and an array, a sparse matrix and a dict of lists
    **dict.fromkeys((("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"))),
    **dict.fromkeys((("scipy.sparse.csr", "csr_matrix"), ("scipy.sparse._csr", "csr_matrix"), ("numpy", "ndarray"))),
    **dict.fromkeys((("collections", "defaultdict"), ("__builtin__", "list"), ("builtins", "list"))),
}


def load_plain(path: Path, *, arrays: bool = False) -> Any:
    """What a pickle of plain values and tensors holds.

    Args:
        path: of the file.
        arrays: it may hold NumPy's arrays, SciPy's CSR matrices and dicts of lists, too, and Python 2 may have written
            it.

    Raises:
        ValueError: it names anything else, which was not run.
    """
    with path.open("rb") as file:
        try:
            return _Plain(file, arrays=arrays).load()
        except pickle.UnpicklingError as error:
            reason = " ".join(str(error).split())[:150]
            raise ValueError(
                f"expected {'arrays' if arrays else 'tensors'} and plain values in {path.name}, got more ({reason}): "
                "such a file can run code, so it was not read"
            ) from None


class _Plain(pickle.Unpickler):
    def __init__(self, file: Any, *, arrays: bool) -> None:
        super().__init__(file, encoding="latin1" if arrays else "ASCII")
        self._known = {**_PLAIN, **_ARRAYS} if arrays else _PLAIN

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):  # which would unpickle anything once more
            return _storage
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def _storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)
