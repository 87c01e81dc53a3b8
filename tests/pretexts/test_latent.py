"""A latent z: the loss against plain loops, and two equally likely futures, which the codes tell apart."""

from functools import partial

import pytest
import torch
from variants import TwoMasks

from jepa_lightning import JEPA
from jepa_lightning.encoders import ViT
from jepa_lightning.evaluation.token_errors import token_errors
from jepa_lightning.maskers import Masker, Random
from jepa_lightning.objectives import MSE
from jepa_lightning.pictures.predictions import distances, expected, nearest_samples
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import LatentCodes, Masked
from jepa_lightning.targets import RawTokens
from jepa_lightning.tokens import Latents, Masks, Query, take
from modalities.image import Image

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def generator():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("masker", [Random, TwoMasks])
def test_the_loss_is_the_best_of_each_sample_and_a_little_of_the_mean(make_jepa, masker):
    jepa = make_jepa(pretext=LatentCodes(codes=3, width=5, mean=0.1), objective=MSE(), masker=masker)
    outcome = jepa.step({"image": IMAGES}, generator())
    tokens = jepa.tokenizer({"image": IMAGES})
    masks = jepa.masker(tokens, generator())
    target = torch.nn.functional.layer_norm(jepa.target(tokens), (32,))
    total = 0.0
    for mask in masks:
        places = take(tokens.positions, mask.context), take(tokens.positions, mask.targets)
        seen = Latents(values=jepa.encoder(tokens, mask.context), positions=places[0])
        errors = torch.zeros(3, 3)
        for s, code in enumerate(jepa.pretext.codes):
            told = Latents(values=code.expand(3, 1, 5))
            guess = jepa.predictor(seen, Query(positions=places[1]), told)
            for b in range(3):
                errors[s, b] = (guess[b] - target[b, mask.targets[b]]).square().mean()
        total += float(0.9 * errors.amin(0).mean() + 0.1 * errors.mean())
    assert float(jepa.losses(outcome)["prediction"].detach()) == pytest.approx(total / len(masks), rel=1e-4)


class SecondIsHidden(Masker):
    """Of two patches the first is the context, the second the target."""

    def __call__(self, tokens, generator):
        first = torch.zeros(tokens.batch_size, 1, dtype=torch.int64)
        return [Masks(context=first, targets=first.unsqueeze(1) + 1)]


def two_futures(count, seed):
    """The same left half, and a right half that is one of two patterns, equally often."""
    which = torch.randint(2, (count,), generator=torch.Generator().manual_seed(seed))
    left = torch.linspace(-1, 1, 8).expand(count, 1, 8, 8)
    stripes = torch.tensor([-1.0, 1.0]).repeat(4).view(1, 1, 1, 8).expand(count, 1, 8, 8)
    right = torch.where(which.view(-1, 1, 1, 1) == 1, stripes, stripes.mT)
    return torch.cat([left, right], dim=3), which


def trained(pretext, steps=40):
    torch.manual_seed(0)
    encoder = partial(ViT, width=16, depth=1, heads=2)
    modality = Image(image_size=(8, 16), patch_size=8, channels=1, encoder=encoder, masker=SecondIsHidden())
    predictor = partial(TransformerPredictor, width=16, depth=1, heads=2)
    jepa = JEPA(modality, pretext=pretext, predictor=predictor, target=RawTokens, objective=MSE())
    optimizer = torch.optim.AdamW(jepa.parameters(), lr=1e-2)
    for step in range(steps):
        outcome = jepa.step({"image": two_futures(32, step)[0]}, generator())
        optimizer.zero_grad()
        jepa.losses(outcome)["prediction"].backward()
        optimizer.step()
    return jepa


@pytest.mark.long
def test_the_best_of_four_tells_two_equally_likely_futures_apart():
    images, which = two_futures(64, 1000)
    one = trained(Masked()).step({"image": images}, generator()).predictions[0]
    single = float((one.predicted - one.target).square().mean())
    assert single == pytest.approx(0.5, abs=0.1)  # the mean of two patterns that differ in half of their pixels by 2
    jepa = trained(LatentCodes(codes=4))
    found = jepa.step({"image": images}, generator()).predictions[0]
    errors = (found.predicted - found.target).square().mean((-3, -2, -1))  # (4, 64)
    best = errors.amin(0)
    assert float(best.mean().detach()) < 0.2 * single
    code = errors.argmin(0)
    for future in (0, 1):
        assert not set(code[which == future].tolist()) & set(code[which != future].tolist())
    batch = {"image": images, "position": list(range(64)), "id": [f"{i}" for i in range(64)]}
    given = expected(jepa.eval(), batch)
    apart, positions, _ = distances(jepa, given, [batch])
    nearest = which[nearest_samples(apart, positions, positions, k=3)[0]]  # (4, 64, 3): futures
    assert (nearest == nearest[:, :1, :1]).all()  # those of a code are all of one future
    assert set(nearest[:, 0, 0].tolist()) == {0, 1}
    assert (nearest[given.errors.argmin(0), torch.arange(64), 0] == which).all()


def test_pictures_of_errors_show_those_of_the_best_code(make_jepa):
    jepa = make_jepa(pretext=LatentCodes(codes=3), objective=MSE()).eval()
    found = token_errors(jepa, {"image": IMAGES}, draws=2)
    assert found.values.shape == (3, 16)
    assert 0 < found.mean < float(jepa.losses(jepa.step({"image": IMAGES}, generator()))["prediction"]) * 1.5


@pytest.mark.parametrize("settings", [{"codes": 0}, {"width": 0}, {"mean": 1.5}])
def test_settings_that_make_no_sense(settings):
    with pytest.raises(ValueError, match="expected at least 1 code and channel, and mean from 0 to 1"):
        LatentCodes(**settings)
