"""Features of training samples as training augments them."""

import torch

from jepa_lightning.evaluation.features.extraction import Splits, extract_splits
from jepa_lightning.evaluation.features.views import training_views
from modalities.image import ImageData, ImageViews


def views_of(**settings):
    """Features of 40 generated images and of views of them: the pixels, and the mean of each channel."""
    data = ImageData(image_size=32, channels=3, samples=40, batch_size=16, num_workers=0, views=2, **settings)
    data.setup()
    splits = Splits(data, "all")
    embedders = {"raw": lambda batch: batch["image"].flatten(1), "means": lambda batch: batch["image"].mean((2, 3))}
    found = extract_splits(splits, embedders)
    return found, training_views(splits, embedders, found, count=20)


def test_features_whose_width_follows_the_size_of_a_view_are_left_out():
    """`global_size` makes views smaller than images: their pixels stand beside nothing, what has one width does."""
    found, views = views_of(view_transform=ImageViews(global_size=16))
    assert found["raw"].features["train"].values.shape[1] == 3 * 32 * 32
    assert set(views.features) == {"means"}
    assert views.features["means"].shape == (20, 3) == (len(views.rows), 3)


def test_all_features_of_views_of_one_size_are_kept():
    found, views = views_of(view_transform=ImageViews(scale=(0.3, 0.3)))
    for name, width in (("raw", 3 * 32 * 32), ("means", 3)):
        assert views.features[name].shape == (20, width)
        assert not torch.allclose(views.features[name], found[name].features["train"].values[views.rows])
