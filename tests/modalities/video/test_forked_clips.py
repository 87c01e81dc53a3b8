"""One past, two equally likely futures."""

import numpy as np
import pytest

from jepa_lightning.data import DataError
from modalities.video import ForkedClips


def test_up_and_down_have_the_same_past_and_part_half_way():
    clips = ForkedClips(64, seed=2)
    bright = (clips.videos[..., 0] > 120).astype(float)
    pixel = (np.arange(32) + 0.5) / 32
    rows, columns = (
        (bright.sum(axis) * pixel).sum(2) / bright.sum((2, 3)) for axis in (3, 2)
    )  # (64, 8): of the disc's centre
    assert abs(rows[:, :4] - clips.rows).max() < 0.03
    assert (np.diff(columns[:, 1:4]) > 0.08).all()
    signs = np.where(clips.targets == 0, -1, 1)[:, None]
    assert (np.diff(rows[:, 3:7]) * signs > 0.05).all()
    up, down = (rows[clips.targets == turn, :4] for turn in (0, 1))
    assert abs(up.mean() - down.mean()) < 0.03
    assert clips.targets.sum() == 32
    assert (ForkedClips(8, seed=2).videos == clips.videos[:8]).all()
    assert not (ForkedClips(8, seed=2, split="test").videos == clips.videos[:8]).all()


@pytest.mark.parametrize("settings", [{"samples": 0}, {"frames": 5}, {"image_size": 8}])
def test_settings_that_make_no_sense(settings):
    with pytest.raises(DataError, match="expected at least 1 sample, an even number of frames"):
        ForkedClips(**{"samples": 2, **settings})
