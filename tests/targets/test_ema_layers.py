"""Targets that are the mean of the last layers' outputs, as data2vec's."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.targets import EMA
from jepa_lightning.tokens import Tokens

SPEC = TokenSpec(shape=(4,), grid=(6,), positions=SinCosPositions)
TOKENS = Tokens(values=torch.randn(2, 6, 4), positions=grid_positions((6,)), grid=(6,))


def make(**settings):
    torch.manual_seed(0)
    return EMA(ViT(SPEC, width=8, depth=3, heads=2), SPEC, **settings)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_mean_of_normed_layers(number):
    target = make(average_layers=number)
    outputs = target.encoder(TOKENS, layers=(0, 1, 2)).unbind(2)[-number:]
    expected = sum(F.layer_norm(x, (8,)) for x in outputs) / number
    torch.testing.assert_close(target(TOKENS), expected)
    assert not target(TOKENS).requires_grad
    keep = torch.tensor([[0, 2], [1, 5]])
    assert target(TOKENS, keep).shape == (2, 2, 8)
    assert torch.equal(target(TOKENS, layers=(1,)), target.encoder(TOKENS, layers=(1,)))  # what is asked for


def test_without_it_the_output_is_the_encoders():
    target = make()
    assert torch.equal(target(TOKENS), target.encoder(TOKENS))


def test_copies_keep_it():
    target = make(average_layers=2)
    assert torch.equal(copy.deepcopy(target)(TOKENS), target(TOKENS))


def test_too_many():
    with pytest.raises(ValueError, match="expected from 1 to 3 layers, as many as the encoder has, got 4"):
        make(average_layers=4)


def test_an_encoder_that_gives_its_last_layer_only():
    class Last(ViT):
        def forward(self, tokens, keep=None, keep_valid=None):
            return super().forward(tokens, keep, keep_valid)

    with pytest.raises(ValueError, match="takes `layers`, got Last"):
        EMA(Last(SPEC, width=8, depth=3, heads=2), SPEC, average_layers=2)
    assert partial(EMA, average_layers=1)(Last(SPEC, width=8, depth=3, heads=2), SPEC).average_layers == 1
