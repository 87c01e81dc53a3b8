"""Means and standard deviations of columns, batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Mean and standard deviation of each of D columns of rows that come batch by batch, in float64 on the CPU.

    Numbers that are NaN are not known and do not count.

    Args:
        columns: D.

    Examples:
        >>> import torch
        >>> from jepa_lightning.moments import Moments
        >>> moments = Moments(2)
        >>> moments.add(torch.tensor([[1.0, 5.0]]))
        >>> moments.add(torch.tensor([[3.0, 5.0]]))
        >>> moments.mean.tolist(), moments.std.tolist(), moments.changes.tolist()
        ([2.0, 5.0], [1.0, 0.0], [True, False])
    """

    def __init__(self, columns: int) -> None:
        # Sums are of numbers less the first batch's mean, so that squares do not cancel.
        self._shift, self._count, self._total, self._squares, self._largest = torch.zeros(5, columns).double()

    def add(self, rows: Tensor) -> None:
        """Add rows (n, D)."""
        rows = rows.cpu().double()
        known = ~rows.isnan()
        self._shift = torch.where(self._count == 0, rows.nanmean(0).nan_to_num(), self._shift)
        values = (rows - self._shift).nan_to_num()
        self._count += known.sum(0)
        self._total += values.sum(0)
        self._squares += values.square().sum(0)
        self._largest = torch.cat([rows.nan_to_num().abs(), self._largest[None]]).amax(0)

    @property
    def mean(self) -> Tensor:
        """Means (D,), 0 of a column of which nothing is known."""
        return self._shift + self._shifted

    @property
    def std(self) -> Tensor:
        """Standard deviations (D,), without Bessel's correction."""
        return (self._squares / self._count.clamp(min=1) - self._shifted.square()).clamp(min=0).sqrt()

    @property
    def changes(self) -> Tensor:
        """Whether a column's numbers differ by more than rounding: (D,) bool."""
        return self.std > 1e-6 * self._largest

    @property
    def _shifted(self) -> Tensor:
        return self._total / self._count.clamp(min=1)
