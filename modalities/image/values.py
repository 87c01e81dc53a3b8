"""The range of an image's values: which of them become 0 and 1.

8-bit values are 0 to 255. All others are looked at:

- whole numbers from 0 on: 8, 10, 12, 14 or 16 bits, the fewest that hold the largest value;
- fractions from 0 to 1: as they are; from 0 to 255, the largest above 127: those of 8 bits;
- anything else (negative or larger): from the smallest to the largest value.

So the same numbers give the same image, whatever type they are stored in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = (8, 10, 12, 14, 16)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Values:
    """A range of values.

    Attributes:
        low: what becomes 0.
        high: what becomes 1.
        why: in words, for the log; empty where it is what anyone expects.
        of_floats: whether the values are fractions, as far as they were looked at.
    """

    low: float
    high: float
    why: str = ""
    of_floats: bool = False

    def unit(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """The values, float32; those of the range from 0 to 1."""
        return ((array.astype(np.float64) - self.low) / (self.high - self.low)).astype(np.float32)

    def byte(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        """The values, rounded to whole numbers from 0 to 255.

        Raises:
            OSError: some are NaN or infinite, or lie outside of the range by more than a hundredth of it.
        """
        if not np.isfinite(array).all():
            raise OSError("there are values in it that are NaN or infinite")
        unit = self.unit(array)
        if unit.size and (unit.min() < -0.01 or unit.max() > 1.01):
            raise OSError(
                f"its values, {array.min():g} to {array.max():g}, lie outside of those of the other images, "
                f"{self.low:g} to {self.high:g}: set data.value_range"
            )
        return np.rint(unit * 255).clip(0, 255).astype(np.uint8)


EIGHT = Values(0, 255)
UNIT = Values(0, 1)


def values_of(arrays: Iterable[NDArray[Any]]) -> Values | None:
    """The range of a set of images, by some of them; None where all are of 8 bits."""
    low, high, whole, kinds = np.inf, -np.inf, True, set()
    for array in arrays:
        if array.dtype == np.uint8 or array.dtype.kind == "b" or not array.size:
            continue
        found = array[np.isfinite(array)] if array.dtype.kind == "f" else array
        if not found.size:
            continue
        low, high = min(low, float(found.min())), max(high, float(found.max()))
        whole = whole and (array.dtype.kind != "f" or (high > 1 and bool((found == np.rint(found)).all())))
        kinds.add(array.dtype.name)  # the same in either byte order
    if not kinds:
        return None
    what = f"{', '.join(sorted(kinds))} from {low:g} to {high:g}"
    if whole and low >= 0:
        bits = next((bits for bits in _BITS if high < 2**bits), None)
        if bits is not None:
            floats = all("float" in kind for kind in kinds)
            why = "" if f"uint{bits}" in kinds else f"{what} are read as {bits}-bit values"
            return Values(0, 2**bits - 1, why, floats)
    if not whole and low >= 0 and high <= 1:
        return UNIT
    floats = all("float" in kind for kind in kinds)
    if not whole and low >= 0 and 127 < high <= 255:
        return Values(0, 255, f"{what} are read as 8-bit values", floats)
    if high <= low:
        return Values(low, low + 1, f"{what}: all are the same", floats)
    return Values(low, high, f"{what} are spread over the range from {low:g} to {high:g}", floats)


def say(values: Values | None) -> None:
    """Log how values are read, where one might not expect it."""
    if values is not None and values.why:
        _log.warning("images: %s; set data.value_range to read them otherwise", values.why)
