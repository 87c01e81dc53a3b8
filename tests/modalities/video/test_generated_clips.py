"""The generated clips: their labels are true, and motion is what they are about."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jepa_lightning.data import DataError
from modalities.video.generated import _SPEED, SHAPES, GeneratedClips


def test_deterministic_and_independent_of_the_number_of_samples():
    small, large = GeneratedClips(40, frames=4), GeneratedClips(70, frames=4)
    assert np.array_equal(small.videos, large.videos[:40])
    assert np.array_equal(small.targets, large.targets[:40])
    assert not np.array_equal(small.videos, GeneratedClips(40, frames=4, seed=1).videos)
    assert not np.array_equal(small.videos, GeneratedClips(40, frames=4, split="val").videos)


def test_sample_and_balance():
    clips = GeneratedClips(64, frames=6, image_size=(24, 40), channels=2)
    sample = clips[3]
    assert (sample["video"].shape, sample["video"].dtype) == ((6, 24, 40, 2), np.uint8)
    assert list(sample["labels"]) == ["direction", "shape", "velocity"]
    assert np.bincount(clips.targets).tolist() == [8] * 8
    assert np.bincount(clips.shapes).tolist() == [16] * len(SHAPES)


def test_direction_is_that_of_the_velocity():
    clips = GeneratedClips(200, frames=2)
    speed = np.hypot(*clips.velocities.T)
    assert speed.min() >= _SPEED[0] - 1e-6
    assert speed.max() <= _SPEED[1] + 1e-6
    angle = np.arctan2(clips.velocities[:, 0], clips.velocities[:, 1])
    assert np.array_equal(np.round(angle / (np.pi / 4)).astype(int) % 8, clips.targets)


def test_frames_move_by_the_velocity():
    """The shift at which two frames fit best (circular correlation) is the labelled one."""
    clips = GeneratedClips(60, frames=12, image_size=48, channels=1)
    video = clips.videos[..., 0].astype(float)
    spectrum = np.fft.fft2(video - video.mean(1, keepdims=True))  # less the ground, which stands still
    fit = np.fft.ifft2((spectrum[:, :-4].conj() * spectrum[:, 4:]).sum(1)).real.reshape(60, -1)
    found = np.stack(np.unravel_index(fit.argmax(1), (48, 48)), 1)
    expected = 4 * 48 * clips.velocities
    off = np.abs((found - expected + 24) % 48 - 24).max(1)
    assert np.mean(off < 2) > 0.9


@pytest.mark.long
def test_stills_do_not_tell_the_direction():
    """Logistic regression on single frames stays near chance (1/8)."""
    train, test = (
        GeneratedClips(800, frames=2, image_size=16),
        GeneratedClips(400, frames=2, image_size=16, split="val"),
    )
    model = LogisticRegression(C=0.01, max_iter=200).fit(train.videos[:, 0].reshape(800, -1) / 255, train.targets)
    assert model.score(test.videos[:, 0].reshape(400, -1) / 255, test.targets) < 0.125 + 0.07  # 4 standard deviations


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 1}, "at least 2 frames"),
        ({"image_size": 8}, "at least 16 by 16 pixels, got 8 by 8"),
        ({"split": "dev"}, "a split among train, val, test, got 'dev'"),
        ({"samples": 0}, "at least 1 sample"),
    ],
)
def test_arguments_out_of_range(settings, message):
    with pytest.raises(DataError, match=message):
        GeneratedClips(**settings)
