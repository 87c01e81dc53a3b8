"""Arrays from files and other people's datasets, in the form that torch takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = np.iinfo(np.int64).max


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Store an array of real numbers in this machine's byte order; unsigned integers as the next larger signed type.

    Others (GDAL, FITS and IDL write big-endian ones) are refused by torch, which can do little with the unsigned types.

    Raises:
        ValueError: an array of anything but real numbers (complex ones would lose their imaginary part), or of whole
            numbers from 2**63 on, which torch has not.
    """
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"expected real numbers, got an array of {array.dtype}"
            + (": store the magnitude, or real and imaginary part as channels" if array.dtype.kind == "c" else "")
        )
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.size and array.max() > _LARGEST:
        raise ValueError(f"expected whole numbers below 2**63, got {array.max()}: store them as float64")
    wider = {"u2": np.int32, "u4": np.int64, "u8": np.int64, "f16": np.float64}
    wanted = wider.get(f"{array.dtype.kind}{array.dtype.itemsize}", array.dtype.newbyteorder("="))
    return array.astype(wanted, copy=False)
