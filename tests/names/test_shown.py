"""The repr of what YAML names: the call that made it, without defaults, in one line."""

import copy
import inspect
import pickle
from functools import partial

import numpy as np
import pytest
import torch

from jepa_lightning.callbacks import LastCheckpoint, default_callbacks
from jepa_lightning.data import SourcedDataModule, ViewTransform
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import BlockUnion, Masker, MultiBlock, MultiMasker, Random, Tube
from jepa_lightning.names.shown import Shown
from jepa_lightning.objectives import L1, SmoothL1
from jepa_lightning.regularizers import RegularizerSpec, VICReg
from jepa_lightning.schedules import LinearRamp
from jepa_lightning.targets import EMA, Online
from modalities.image import GeneratedImages, Image, ImageData, ImageViews


class Any(Shown):
    def __init__(self, first, second=None, **more):
        """Keeps nothing."""


def test_only_what_is_not_the_default():
    assert repr(MultiBlock()) == repr(MultiBlock(targets=4, target_scale=[0.15, 0.2])) == "MultiBlock()"
    assert repr(MultiBlock(targets=2, fixed_size=True)) == "MultiBlock(targets=2, fixed_size=True)"
    assert repr(GeneratedImages(16, seed=3)) == "GeneratedImages(samples=16, seed=3)"
    assert repr(LastCheckpoint(signals=False)) == "LastCheckpoint(signals=False)"


def test_what_is_made_of_others():
    union = MultiMasker([BlockUnion(blocks=2, scale=(0.7, 0.7)), Tube()])
    assert repr(union) == "MultiMasker(maskers=[BlockUnion(blocks=2, scale=[0.7, 0.7]), Tube()])"
    image = Image(image_size=48, patch_size=8, encoder=partial(ViT, width=32, depth=1, heads=2), masker=Random())
    assert repr(image) == (
        "Image(image_size=48, patch_size=8, encoder=partial(ViT, width=32, depth=1, heads=2), masker=Random())"
    )


def test_settings_and_defaults_of_the_bases():
    data = ImageData(root="photos", batch_size=32, seed=0, views=2, view_transform=ImageViews(blur=[1.0, 0.1]))
    assert repr(data) == (
        "ImageData(root='photos', batch_size=32, views=2, view_transform=ImageViews(blur=[1.0, 0.1]))"
    )


def test_modules_show_their_settings_where_torch_does():
    assert repr(SmoothL1(2.0)) == "SmoothL1(beta=2.0)"
    assert repr(VICReg(RegularizerSpec(4, 4), weight=LinearRamp(0.0, 1.0))) == (
        "VICReg(weight=LinearRamp(start=0.0, end=1.0, stretch=1.0))"
    )
    image = Image(image_size=48, patch_size=8, encoder=partial(ViT, width=32, depth=1, heads=2))
    assert repr(Online(image.encoder, image.spec, stop_gradient=False)) == "Online(stop_gradient=False)"
    shown = repr(copy.deepcopy(EMA(image.encoder, image.spec, half_copy=False)))
    assert shown.startswith("EMA(\n  half_copy=False\n  (encoder): ViT(")


def test_long_and_strange_values():
    shown = repr(Any(np.zeros(9), [*range(9)], a={"b": 1}, c="x" * 200, d=torch.zeros(3), e=len, f="two\nlines"))
    assert shown == (
        "Any(first=ndarray(...), second=[0, 1, 2, 3, ...], a={'b': 1}, c='" + "x" * 76 + "..., d=Tensor(...), e=len, "
        "f='two\\nlines')"
    )


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda masker: pickle.loads(pickle.dumps(masker))])
def test_copies(copied):
    assert repr(copied(MultiBlock(targets=2))) == "MultiBlock(targets=2)"


def test_one_line_each():
    for callback in default_callbacks():
        assert repr(callback) == f"{type(callback).__name__}()"


def test_constructors_stay_what_they_are():
    """Signatures, and errors about arguments."""
    assert list(inspect.signature(MultiBlock).parameters) == list(inspect.signature(MultiBlock.__init__).parameters)[1:]
    assert "root" in inspect.signature(SourcedDataModule).parameters
    with pytest.raises(TypeError, match="unexpected keyword argument 'target'"):
        MultiBlock(target=2)
    with pytest.raises(TypeError, match="positional argument"):
        L1(3)
    with pytest.raises(TypeError, match="abstract"):
        Masker()

    class Plain(ViewTransform):
        def __call__(self, sample, view=0):
            return sample

    assert repr(Plain()) == "Plain()"
    with pytest.raises(TypeError, match=r"Plain\(\) takes no arguments, got 1"):
        Plain(scale=2)
