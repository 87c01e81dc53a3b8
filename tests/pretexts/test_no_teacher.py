"""Without a teacher: masked prediction and views collapse within a few steps, unless a regularizer prevents it."""

import functools
from functools import partial

import pytest
import torch

from jepa_lightning import JEPA
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import Random
from jepa_lightning.objectives import MSE
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import Masked, Views
from jepa_lightning.regularizers import SIGReg, SubspaceSIGReg, VICReg, VISReg
from jepa_lightning.targets import Online
from modalities.image import Image, ImageData

PRETEXTS = {"masked": Masked, "views": partial(Views, projector=(32, 16))}
REGULARIZERS = {
    "SIGReg": partial(SIGReg, directions=64),
    "SubspaceSIGReg": partial(SubspaceSIGReg, subspaces=8, directions=64),
    "VISReg": partial(VISReg, directions=64, weight=1.0),
    "VICReg": VICReg,
}


@functools.cache
def spread(pretext, regularizer=None, steps=30):
    """Train without a stopped gradient; the mean standard deviation over a batch of what is regularized."""
    torch.manual_seed(0)
    data = ImageData(
        samples=128, batch_size=32, image_size=32, channels=3, num_workers=0, val_fraction=0, views=2, drop_last=True
    )
    batches = list(data.train_dataloader())
    encoder = partial(ViT, width=32, depth=1, heads=2)
    modality = Image(image_size=32, patch_size=8, encoder=encoder, masker=Random(target_ratio=0.5))
    jepa = JEPA(
        modality,
        pretext=PRETEXTS[pretext](),
        predictor=partial(TransformerPredictor, width=16, depth=1, heads=2),
        target=partial(Online, stop_gradient=False),
        objective=MSE(),
        regularizers=[REGULARIZERS[regularizer]] if regularizer else [],
    )
    optimizer = torch.optim.AdamW(jepa.parameters(), lr=3e-3)
    for step in range(steps):
        outcome = jepa.step(batches[step % len(batches)], torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        sum(jepa.losses(outcome, step).values()).backward()
        optimizer.step()
    return float(outcome.context[0].pooled().std(0).mean().detach())


@pytest.mark.long
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("pretext", PRETEXTS)
def test_only_a_regularizer_keeps_samples_apart(pretext, regularizer):
    assert spread(pretext, regularizer) > 3 * spread(pretext)
    assert spread(pretext, regularizer) > 0.05
