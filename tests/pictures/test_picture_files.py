"""Laying out pictures and writing them."""

import numpy as np
import torch
from PIL import Image

from jepa_lightning.pictures.files import GAP, WIDE, beside, stack, strip, write_picture, write_pictures


def test_rows_are_stacked_on_white():
    rows = [torch.zeros(3, 5, 8, dtype=torch.uint8), torch.full((3, 2, 6), 7, dtype=torch.uint8)]
    picture = stack(rows)
    assert picture.shape == (3, 5 + GAP + 2, 8)
    assert picture.dtype == torch.uint8
    assert (picture[:, :5] == 0).all()
    assert (picture[:, 5 : 5 + GAP] == 255).all()
    assert (picture[:, -2:, :6] == 7).all()
    assert (picture[:, -2:, 6:] == 255).all()


def test_moving_pictures_of_different_lengths_and_heights():
    short, tall = torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.full((3, 3, 6, 5), 9, dtype=torch.uint8)
    both = beside([short, tall])
    assert both.shape == (3, 3, 6, 10 + GAP)
    assert (both[:, :, :4, :5] == 0).all()
    assert (both[:, :, 4:, :5] == 255).all()
    assert (both[:, :, :, -5:] == 9).all()
    assert strip(short).shape == (3, 4, 10 + GAP)


def test_moving_rows_are_stacked():
    short, wide = torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.full((3, 3, 6, 9), 9, dtype=torch.uint8)
    both = stack([short, wide], gap=7)
    assert both.shape == (3, 3, 4 + 7 + 6, 9)
    assert (both[:, :, :4, :5] == 0).all()
    assert (both[:, :, :4, 5:] == 255).all()
    assert (both[:, :, 4:11] == 255).all()
    assert (both[:, :, 11:] == 9).all()


def test_files(tmp_path):
    still = [torch.full((3, 6, 7), shade, dtype=torch.uint8) for shade in (10, 20)]
    (file,) = write_pictures(still, tmp_path / "new", "still")
    assert file == tmp_path / "new" / "still.png"
    with Image.open(file) as image:
        found = np.asarray(image)
    assert found.shape == (12 + WIDE, 7, 3)
    assert (found[0] == 10).all()
    assert (found[-1] == 20).all()
    moving = [torch.full((2, 3, 6, 7), shade, dtype=torch.uint8) for shade in range(5)]
    gif, png = write_pictures(moving, tmp_path, "moving")
    with Image.open(gif) as image:
        assert image.size == (5 * 7 + 4 * GAP, 6)
        assert image.n_frames in (1, 2)  # Pillow joins frames that are the same
    with Image.open(png) as image:
        assert image.size == (2 * 7 + GAP, 3 * 6 + 2 * WIDE)  # strips of the first three
    assert write_picture(moving[0], tmp_path, "one") == [tmp_path / "one.gif"]
    assert write_pictures(None, tmp_path, "none") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moving.gif", "moving.png", "new", "one.gif"]
