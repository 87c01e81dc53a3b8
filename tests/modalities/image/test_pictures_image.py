"""What a mask shows and hides, and features in colour, pixel by pixel."""

import pytest
import torch

from jepa_lightning.pictures import drawing
from jepa_lightning.tokens import Masks, Tokens
from modalities.image import Image, pictures

PATCH, GRID = (4, 8), (3, 2)
H, W = 12, 16
GREY = 128


def image(channels=3):
    return torch.randn(2, channels, H, W, generator=torch.Generator().manual_seed(0))


def panels(row, count):
    """A row (3, H, W) cut at its white gaps."""
    width = (row.shape[2] - (count - 1) * drawing.GAP) // count
    step = width + drawing.GAP
    for gap in range(1, count):
        assert (row[:, :, gap * step - drawing.GAP : gap * step] == 255).all()
    return [row[:, :, i * step : i * step + width] for i in range(count)]


def cells(panel, original):
    """The patches that a panel shows as they are; all others must be grey."""
    factor = panel.shape[1] // H
    shown = set()
    for r in range(GRID[0]):
        for c in range(GRID[1]):
            rows = slice(r * PATCH[0] * factor, (r + 1) * PATCH[0] * factor)
            columns = slice(c * PATCH[1] * factor, (c + 1) * PATCH[1] * factor)
            if torch.equal(panel[:, rows, columns], original[:, rows, columns]):
                shown.add(r * GRID[1] + c)
            else:
                assert (panel[:, rows, columns] == GREY).all()
    return shown


def test_masks_show_context_and_each_target():
    context = torch.tensor([[0, 5], [3, 4]])
    targets = torch.tensor([[[1, 2], [2, 3]], [[0, 1], [5, 5]]])
    rows = pictures.masks(image(), Masks(context=context, targets=targets), PATCH)
    assert len(rows) == 2
    for b, row in enumerate(rows):
        assert row.dtype == torch.uint8
        original, *shown = panels(row, 4)
        found = [cells(panel, original) for panel in shown]
        assert found == [set(context[b].tolist()), set(targets[b, 0].tolist()), set(targets[b, 1].tolist())]


def test_filler_slots_are_not_shown():
    masks = Masks(
        context=torch.tensor([[1, 0], [2, 3]]),
        targets=torch.tensor([[[4, 0]], [[5, 0]]]),
        context_valid=torch.tensor([[True, False], [True, True]]),
        targets_valid=torch.tensor([[[True, False]], [[False, False]]]),
    )
    rows = pictures.masks(image(), masks, PATCH)
    found = []
    for row in rows:
        original, *shown = panels(row, 3)
        found.append([cells(panel, original) for panel in shown])
    assert found == [[{1}, {4}], [{2, 3}, set()]]


def test_features_are_painted_patch_by_patch():
    colours = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(1))
    rows = pictures.features(image(), colours, GRID)
    for b, row in enumerate(rows):
        original, painted = panels(row, 2)
        assert original.shape == painted.shape
        factor = painted.shape[1] // H
        for r in range(GRID[0]):
            for c in range(GRID[1]):
                box = painted[:, r * 4 * factor : (r + 1) * 4 * factor, c * 8 * factor : (c + 1) * 8 * factor]
                expected = (colours[b, r * GRID[1] + c] * 255).round().to(torch.uint8)
                assert (box == expected[:, None, None]).all()


def test_small_images_are_enlarged_and_large_ones_are_not():
    assert pictures.features(image(), torch.rand(2, 6, 3), GRID)[0].shape[1] == 7 * H  # 112 / 16
    large = torch.randn(1, 3, 224, 224)
    assert pictures.features(large, torch.rand(1, 4, 3), (2, 2))[0].shape == (3, 224, 2 * 224 + drawing.GAP)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_is_shown(channels):
    rgb = drawing.to_rgb(image(channels))
    assert rgb.shape == (2, 3, H, W)
    if channels < 3:
        assert torch.equal(rgb[:, 0], rgb[:, 2])
    for sample in rgb:  # each image is stretched to its own range
        assert (float(sample.min()), float(sample.max())) == (0.0, 1.0)


def test_a_blank_image_is_no_trouble():
    assert drawing.to_rgb(torch.full((1, 3, 4, 4), 7.0)).isfinite().all()


def test_half_precision_images():
    assert drawing.to_rgb(image().bfloat16()).dtype == torch.float32


def test_the_modality_draws_its_own_masks_and_features():
    modality = Image(image_size=(H, W), patch_size=PATCH)
    batch = {"image": image()}
    masks = Masks(context=torch.tensor([[0], [1]]), targets=torch.tensor([[[2]], [[3]]]))
    expected = pictures.masks(batch["image"], masks, PATCH)
    drawn = modality.draw_masks(batch, [masks])
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))
    tokens = modality.tokenizer(batch)
    assert isinstance(tokens, Tokens)
    colours = torch.rand(2, 6, 3)
    drawn = modality.draw_features(batch, tokens, colours)
    assert all(torch.equal(a, b) for a, b in zip(drawn, pictures.features(batch["image"], colours, GRID), strict=True))


def test_samples_are_the_images():
    modality = Image(image_size=(H, W), patch_size=PATCH)
    whole = modality.draw_features({"image": image()}, None, torch.rand(2, 6, 3))
    for alone, beside in zip(modality.draw_samples({"image": image()}), whole, strict=True):
        assert alone.shape == (3, 7 * H, 7 * W)
        assert torch.equal(alone, beside[:, :, : 7 * W])
