"""Means and deviations that come batch by batch, against NumPy on all rows at once."""

import numpy as np
import pytest
import torch

from jepa_lightning.moments import Moments


@pytest.mark.parametrize("centre", [0.0, -3.0, 1e6])
@pytest.mark.parametrize("sizes", [(1,), (5, 1, 40), (0, 7, 0, 3)])
def test_as_numpy_on_all_rows(centre, sizes):
    rng = np.random.default_rng(0)
    rows = (centre + rng.normal(size=(sum(sizes), 4)) * [1e-2, 1, 30, 0]).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    moments = Moments(4)
    for part in np.split(rows, np.cumsum(sizes)[:-1]):
        moments.add(torch.from_numpy(part))
    for column in range(4):
        known = rows[:, column][~np.isnan(rows[:, column])].astype(np.float64)
        assert float(moments.mean[column]) == pytest.approx(known.mean() if len(known) else 0, rel=1e-9, abs=1e-9)
        assert float(moments.std[column]) == pytest.approx(known.std() if len(known) else 0, rel=1e-6, abs=1e-9)
    assert not moments.changes[3]
    assert bool(moments.changes[2]) == (np.nanstd(rows[:, 2].astype(np.float64)) > 0)


def test_nothing_known():
    moments = Moments(2)
    assert (moments.mean.tolist(), moments.std.tolist()) == ([0, 0], [0, 0])
    moments.add(torch.full((3, 2), torch.nan))
    assert (moments.mean.tolist(), moments.changes.tolist()) == ([0, 0], [False, False])
