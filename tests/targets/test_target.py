"""What all targets share: encoding by a frozen encoder, and what a run is judged by."""

from functools import partial

import pytest
import torch
from torch import nn

from jepa_lightning.encoders import ViT
from jepa_lightning.targets import EMA, Online, evaluating, represent


class Dropping(ViT):
    """A ViT with dropout, which says which layers it was asked for."""

    def __init__(self, spec, **settings):
        super().__init__(spec, **settings)
        self.drop = nn.Dropout(0.5)
        self.asked = []

    def forward(self, tokens, keep=None, keep_valid=None, *, layers=()):
        self.asked.append(layers)
        values = self.drop(super().forward(tokens, keep, keep_valid))
        return torch.stack([values] * len(layers), dim=2) if layers else values


@pytest.fixture
def jepa(make_jepa):
    return make_jepa(encoder=partial(Dropping, width=32, depth=1, heads=2))


@pytest.fixture
def tokens(jepa):
    return jepa.tokenizer({"image": torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))})


@pytest.mark.parametrize("fails", [False, True])
def test_evaluating_returns_each_part_to_its_mode(fails):
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Dropout())
    module[1].eval()  # a part that was in eval mode stays so
    before = [part.training for part in module.modules()]
    x = torch.ones(3, 2, requires_grad=True)
    try:
        with evaluating(module):
            assert not any(part.training for part in module.modules())
            assert not module(x).requires_grad
            if fails:
                raise OSError
    except OSError:
        pass
    assert [part.training for part in module.modules()] == before == [True, True, False, False, False, True]
    assert module(x).requires_grad


def test_representations_have_no_dropout_and_no_gradient(jepa, tokens):
    encoder = jepa.encoder.train()
    state = torch.get_rng_state()
    found = represent(encoder, tokens)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.shape == (3, 16, 32)
    assert not found.requires_grad
    assert torch.equal(found, represent(encoder, tokens))
    assert encoder.drop.training
    assert not torch.equal(encoder(tokens), found)
    assert torch.equal(encoder.eval()(tokens), found)


@pytest.mark.parametrize("target", [EMA, Online])
def test_layers_are_asked_of_the_encoder(jepa, tokens, target):
    made = target(jepa.encoder, jepa.modality.spec)
    assert made(tokens, layers=(0, 2)).shape == (3, 16, 2, 32)
    keep = torch.tensor([[0, 3], [5, 1], [2, 2]])
    assert made(tokens, keep, layers=(1,)).shape == (3, 2, 1, 32)
    assert represent(jepa.encoder, tokens, layers=(0, 2)).shape == (3, 16, 2, 32)
    assert made.encoder.asked[:2] == [(0, 2), (1,)]
    assert jepa.encoder.asked[-1] == (0, 2)


def test_features_are_those_of_the_encoder_that_the_target_names(make_jepa):
    """Of an EMA its own; where the trained encoder is judged, that one, without its dropout."""
    batch = {"image": torch.rand(3, 3, 32, 32)}
    for target, own in ((EMA, True), (Online, False)):
        jepa = make_jepa(encoder=partial(Dropping, width=32, depth=1, heads=2), target=target)
        with torch.no_grad():
            for parameter in jepa.encoder.parameters():
                parameter += 0.1
        assert jepa.evaluated_encoder is (jepa.target.encoder if own else jepa.encoder)
        assert (jepa.target.encoder is jepa.encoder) != own
        expected = jepa.evaluated_encoder.eval()(jepa.tokenizer(batch))
        jepa.train()
        torch.testing.assert_close(jepa(batch), expected)
        torch.testing.assert_close(jepa.embed(batch), expected.mean(1))
        assert jepa.encoder.drop.training
