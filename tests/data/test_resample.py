"""Crops of a batch against Pillow's, one by one."""

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_lightning.data.boxes import DRAWS, random_boxes
from jepa_lightning.data.resample import crop_and_resize
from jepa_lightning.randomness import uniforms


def pictures(count, height, width, channels):
    """Smooth colours under noise: neither nothing to filter nor noise alone."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:height, :width]
    waves = np.sin(rows[..., None] / 5 + np.arange(channels)) + np.cos(columns[..., None] / 7)
    noisy = 128 + 40 * waves + rng.normal(0, 20, (count, height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, (32, 32)), (48, 64, (20, 24)), (40, 30, (64, 50))])
@pytest.mark.parametrize("channels", [1, 3])
def test_within_rounding_of_pillow(height, width, size, channels):
    images = pictures(16, height, width, channels)
    boxes = random_boxes(uniforms(np.arange(16), DRAWS), height, width, scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3))
    flip = torch.arange(16) % 2 == 0
    got = crop_and_resize(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(boxes), size, flip=flip)
    for image, box, mirrored, found in zip(images, boxes, flip, got, strict=True):
        picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
        resized = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=tuple(box))
        expected = torch.from_numpy(np.array(resized)).view(*size, channels).permute(2, 0, 1).float()
        error = (found - (expected.flip(-1) if mirrored else expected)).abs()
        assert error.mean() < 0.5
        assert error.max() < 2.5


def test_the_whole_image_at_its_size_is_the_image():
    images = torch.from_numpy(pictures(3, 12, 9, 2)).permute(0, 3, 1, 2)
    boxes = torch.tensor([[0.0, 0.0, 9.0, 12.0]]).expand(3, 4)
    torch.testing.assert_close(crop_and_resize(images, boxes, (12, 9)), images.float(), atol=1e-3, rtol=0)
    mirrored = crop_and_resize(images, boxes, (12, 9), flip=torch.tensor([True, False, True]))
    torch.testing.assert_close(mirrored[0], images[0].float().flip(-1), atol=1e-3, rtol=0)
    torch.testing.assert_close(mirrored[1], images[1].float(), atol=1e-3, rtol=0)


def test_floats_keep_their_range():
    images = torch.randn(2, 1, 8, 8) * 1000
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).expand(2, 4)
    torch.testing.assert_close(crop_and_resize(images, boxes, (8, 8)), images, atol=1e-2, rtol=0)
