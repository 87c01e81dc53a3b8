"""One vector a sample: the mean of tokens through a projector, by the formula."""

from functools import partial

import pytest
import torch

from jepa_lightning import JEPA
from jepa_lightning.encoders import PooledEncoder, SinCosPositions, TokenSpec, ViT
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.predictors import ResidualPredictor
from jepa_lightning.pretexts import Rollout
from jepa_lightning.targets import Online
from jepa_lightning.tokens import Tokens
from modalities.image import Image

SPEC = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
VIT = partial(ViT, width=24, depth=3, heads=2)


def tokens(valid=None):
    values = torch.randn(5, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Tokens(values=values, positions=grid_positions((4, 4)), grid=(4, 4), valid=valid)


def pooled(**settings):
    torch.manual_seed(0)
    return PooledEncoder(SPEC, encoder=VIT, dim=7, hidden=11, **settings).double()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("padded", [False, True])
def test_by_the_formula(norm, training, padded):
    encoder = pooled(norm=norm).train(training)
    valid = torch.rand(5, 16, generator=torch.Generator().manual_seed(1)) > 0.4 if padded else None
    seen = tokens(valid)
    inner = encoder.encoder(seen)
    real = valid if padded else torch.ones(5, 16, dtype=torch.bool)
    means = torch.stack([x[rows].mean(0) for x, rows in zip(inner, real, strict=True)])
    first, between, _, last = encoder.projector
    x = means @ first.weight.T + first.bias
    if norm == "layer":
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    elif training:
        x = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    else:
        x = (x - between.running_mean) / (between.running_var + 1e-5).sqrt()
    x = x * (1 + torch.erf(x / 2**0.5)) / 2
    expected = x @ last.weight.T + last.bias
    found = encoder(seen)
    assert found.shape == (5, 16, 7)
    for token in range(16):
        torch.testing.assert_close(found[:, token], expected)


def test_layers_are_those_of_the_inner_encoder():
    encoder = pooled()
    assert encoder.depth == 3
    assert list(encoder.layers) == list(encoder.encoder.layers)
    number = encoder.group_matcher()
    assert [number(f"encoder.{n}") for n in ("embed.weight", "transformer.layers.1.attn.qkv.weight")] == [0, 2]
    assert number("projector.0.weight") == 3


def test_what_it_needs():
    encoder = pooled()
    with pytest.raises(ValueError, match="gives one vector of all tokens, and this pretext hides some"):
        encoder(tokens(), torch.zeros(5, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="gives its projector's output alone"):
        encoder(tokens(), layers=(0,))
    with pytest.raises(ValueError, match="norm must be batch or layer, got 'none'"):
        pooled(norm="none")
    with pytest.raises(ValueError, match="dim and hidden must be at least 1, got 0 and 2048"):
        PooledEncoder(SPEC, encoder=VIT, dim=0)


def test_a_world_model_on_it():
    image = Image(
        image_size=16, patch_size=8, channels=1, encoder=partial(PooledEncoder, encoder=VIT, dim=8, hidden=16)
    )
    target = partial(Online, stop_gradient=False)
    jepa = JEPA(image, pretext=Rollout(action_dim=2, steps=2), target=target, predictor=ResidualPredictor)
    outcome = jepa.step({"image": torch.randn(3, 5, 1, 16, 16), "actions": torch.randn(3, 4, 2)}, torch.Generator())
    assert outcome.context[0].values.shape == (15, 1, 8)
    jepa.losses(outcome)["prediction"].backward()
    assert all(p.grad is not None for p in jepa.encoder.parameters())
