"""Arrays from files and other people's datasets, in the form that torch takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Store an array of real numbers in this machine's byte order; unsigned integers as the next larger signed type.

    Others (GDAL, FITS and IDL write big-endian ones) are refused by torch, which can do little with the unsigned types.

    Raises:
        ValueError: an array of anything but real numbers (complex ones would lose their imaginary part), or of numbers
            beyond 64 bits with a sign.
    """
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"expected real numbers, got an array of {array.dtype}"
            + (": store the magnitude, or real and imaginary part as channels" if array.dtype.kind == "c" else "")
        )
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"expected numbers below 2^63, got {array.max()}: store smaller ones, or floats")
    wider = {"u2": np.int32, "u4": np.int64, "u8": np.int64, "f16": np.float64}
    wanted = wider.get(f"{array.dtype.kind}{array.dtype.itemsize}", array.dtype.newbyteorder("="))
    return array.astype(wanted, copy=False)
