"""Images to patches, against plain loops."""

import pytest
import torch

from modalities.image import PatchTokenizer

C, H, W, PATCH = 3, 12, 20, (4, 5)


@pytest.fixture
def tokenizer():
    return PatchTokenizer(image_size=(H, W), patch_size=PATCH, channels=C)


def images(channels=C):
    return torch.randn(2, channels, H, W, generator=torch.Generator().manual_seed(0))


def test_patches_lie_in_raster_order(tokenizer):
    image = images()
    tokens = tokenizer({"image": image})
    assert tokens.grid == (3, 4)
    assert tokens.values.shape == (2, 12, C, *PATCH)
    assert tokens.valid is None
    for b in range(2):
        for row in range(3):
            for column in range(4):
                cut = image[b, :, 4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
                assert torch.equal(tokens.values[b, 4 * row + column], cut)


def test_positions_are_row_and_column(tokenizer):
    tokens = tokenizer({"image": images()})
    assert tokens.positions.shape == (1, 12, 2)
    assert tokens.positions[0].tolist() == [[row, column] for row in range(3) for column in range(4)]


def test_any_memory_layout(tokenizer):
    image = images()
    expected = tokenizer({"image": image}).values
    for other in (image.contiguous(memory_format=torch.channels_last), image.flip(-1).flip(-1), image.mT.clone().mT):
        assert torch.equal(tokenizer({"image": other}).values, expected)


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_any_number_of_channels(channels):
    tokenizer = PatchTokenizer(image_size=(H, W), patch_size=PATCH, channels=channels)
    assert tokenizer({"image": images(channels)}).values.shape == (2, 12, channels, *PATCH)


def test_it_has_no_parameters(tokenizer):
    assert not list(tokenizer.parameters())
    assert not tokenizer.state_dict()


def test_positions_are_where_the_image_is(tokenizer):
    tokens = tokenizer({"image": images().to("meta")})
    assert tokens.positions.is_meta
    assert tokens.values.is_meta


@pytest.mark.parametrize(
    ("size", "patch", "message"),
    [
        ((12, 20), (16, 5), "an image of height 12 is smaller than a patch of 16"),
        ((12, 20), (4, 32), "an image of width 20 is smaller than a patch of 32"),
        ((12, 20), (0, 5), "smaller than a patch of 0"),
        ((12, 20), (4, 6), r"width 20 is not a whole number of patches of 6: use image_size 18"),
        ((33, 32), (16, 16), r"height 33 is not a whole number of patches of 16: use image_size 32"),
    ],
)
def test_sizes_that_do_not_fit(size, patch, message):
    with pytest.raises(ValueError, match=message):
        PatchTokenizer(image_size=size, patch_size=patch, channels=3)


def test_images_of_another_shape(tokenizer):
    for shape in ((2, C, H, W + 5), (2, 1, H, W), (2, H, W)):
        with pytest.raises(ValueError, match=r"expected images of \(channels, height, width\) \(3, 12, 20\), got"):
            tokenizer({"image": torch.zeros(shape)})


def test_a_batch_without_images(tokenizer):
    with pytest.raises(ValueError, match=r"needs the key 'image', this one has \['id', 'video'\]"):
        tokenizer({"video": images(), "id": []})


def test_whole_numbers_are_refused_as_not_normalised():
    tokenizer = PatchTokenizer(image_size=(8, 8), patch_size=(4, 4), channels=3)
    with pytest.raises(ValueError, match=r"normalised floats, got torch\.uint8"):
        tokenizer({"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)})


def test_no_channels_are_refused():
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        PatchTokenizer(image_size=(8, 8), patch_size=(4, 4), channels=0)
