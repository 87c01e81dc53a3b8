from __future__ import annotations

import numpy as np
import pytest

from modalities.image.generated import SHAPES, GeneratedImages


def test_deterministic_and_independent_of_the_number_of_samples():
    small, large = GeneratedImages(70, image_size=32), GeneratedImages(120, image_size=32)
    assert np.array_equal(small.images, large.images[:70])
    assert np.array_equal(small.targets, large.targets[:70])
    assert not np.array_equal(small.images, GeneratedImages(70, image_size=32, seed=1).images)


def test_splits_differ():
    sets = [GeneratedImages(50, image_size=32, split=split).images for split in ("train", "val", "test")]
    for i, first in enumerate(sets):
        for second in sets[i + 1 :]:
            assert not (first == second).all((1, 2, 3)).any()


def test_sample_and_balance():
    images = GeneratedImages(100, image_size=(32, 48), channels=5)
    sample = images[3]
    assert (sample["image"].shape, sample["image"].dtype) == ((32, 48, 5), np.uint8)
    assert list(sample["labels"]) == ["stripes", "shape", "position", "size"]
    counts = np.bincount(images.targets, minlength=8)
    assert counts.max() - counts.min() <= 2
    assert np.bincount(images.shapes).tolist() == [10] * len(SHAPES)


def test_labels_say_where_the_shape_is():
    """Distance of each pixel to the labelled centre and the pixel's difference from its image's corner agree."""
    images = GeneratedImages(200, image_size=64, channels=1)
    pixels = images.images[..., 0].astype(float)
    grid = (np.arange(64) + 0.5) / 64
    place = images.positions[:, :, None, None]
    distance = np.hypot(grid[:, None] - place[:, 0], grid - place[:, 1])
    inside = distance < 0.5 * images.sizes[:, None, None]
    outside = distance > 1.15 * images.sizes[:, None, None]
    full = np.isin(images.shapes, [list(SHAPES).index(name) for name in ("disc", "square")])
    means = [np.array([image[mask].mean() for image, mask in zip(pixels[full], part[full], strict=True)])
             for part in (inside, outside)]  # fmt: skip
    assert np.mean(np.abs(means[0] - means[1]) > 40) > 0.9


def test_class_is_the_direction_of_the_stripes():
    """The strongest frequency of an image's spectrum points where its class says."""
    images = GeneratedImages(200, image_size=64, channels=1)
    pixels = images.images[..., 0].astype(float)
    spectrum = np.abs(np.fft.fft2(pixels - pixels.mean((1, 2), keepdims=True)))
    frequency = np.fft.fftfreq(64) * 64
    rows, columns = np.meshgrid(frequency, frequency, indexing="ij")
    spectrum[:, np.hypot(rows, columns) < 2] = 0  # the shape and the shading
    strongest = spectrum.reshape(200, -1).argmax(1)
    angle = np.arctan2(rows.ravel()[strongest], columns.ravel()[strongest]) % np.pi
    found = np.round(angle / (np.pi / 8)).astype(int) % 8
    assert (found == images.targets).mean() > 0.8


def test_each_shape_has_an_inside_an_outside_and_its_own_form():
    axis = np.linspace(-1.1, 1.1, 45, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    masks = {name: distance(u, v) < 0 for name, distance in SHAPES.items()}
    for name, mask in masks.items():
        assert 0.1 < mask.mean() < 0.75, name
        assert not mask[0].any(), name  # nothing reaches beyond the radius
    forms = list(masks.values())
    for i, first in enumerate(forms):
        for second in forms[i + 1 :]:
            assert (first & second).sum() / (first | second).sum() < 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 8}, "expected images of at least 16 by 16 pixels, got 8 by 8"),
        ({"samples": 0}, "expected at least 1 sample and 1 channel, got 0 and 3"),
        ({"split": "dev"}, "expected a split among train, val, test, got 'dev'"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ValueError, match=message):
        GeneratedImages(**options)
