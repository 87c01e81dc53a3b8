"""Random boxes of many images at once, against those of one."""

import numpy as np
import pytest
import torch

from jepa_lightning.data.boxes import DRAWS, random_box, random_boxes
from jepa_lightning.randomness import uniforms


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(32, 32, (0.3, 1.0)), (48, 20, (0.5, 0.9)), (10, 400, (0.9, 1.0))]
)
def test_many_boxes_are_those_of_one_by_one(height, width, scale, monkeypatch):
    draws = uniforms(np.arange(200), DRAWS)
    boxes = random_boxes(draws, height, width, scale=scale, ratio=(3 / 4, 4 / 3))
    for row, box in zip(draws, boxes, strict=True):
        monkeypatch.setattr(torch, "rand", lambda count, row=row: torch.from_numpy(row))
        assert random_box(height, width, scale=scale, ratio=(3 / 4, 4 / 3)) == pytest.approx(tuple(box), abs=1e-9)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= width + 1e-9).all()
    assert (boxes[:, 3] <= height + 1e-9).all()


def test_uniforms():
    """SplitMix64's published first numbers for seed 1234567; each row by its seed alone; even, and independent."""
    mask = 2**64 - 1
    state, expected = 1234567, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        expected.append(z ^ (z >> 31))
    assert expected[:2] == [6457827717110365317, 3203168211198807973]
    assert uniforms(np.array([5, 1234567]), 3)[1].tolist() == [(z >> 11) / 2**53 for z in expected]
    drawn = uniforms(np.random.default_rng(0).integers(2**63, size=20_000), 4)
    assert 0 <= drawn.min() <= drawn.max() < 1
    assert np.abs(np.cov(drawn.T) - np.eye(4) / 12).max() < 0.003
    assert np.abs(np.histogram(drawn, bins=10, range=(0, 1))[0] / 8000 - 1).max() < 0.06
