"""Each method without a teacher collapses without what protects it, and the monitor names it; with it, it is silent."""

import warnings
from functools import partial

import pytest
import torch

from jepa_lightning.callbacks import CollapseMonitor
from jepa_lightning.objectives import MSE, Cosine
from jepa_lightning.pretexts import Masked, Views
from jepa_lightning.regularizers import SIGReg, SubspaceSIGReg, VICReg, VISReg
from jepa_lightning.schedules import Constant
from jepa_lightning.targets import Online

STEPS = 60
VIEWS = partial(Views, projector=(32, 16))
SETTINGS = {
    "views": (VIEWS, MSE),
    "masked": (Masked, MSE),
    "SimSiam, its gradient not stopped": (partial(Views, projector=(), head=32), Cosine),
}
REGULARIZERS = {
    "VICReg": VICReg,
    "SIGReg": partial(SIGReg, directions=32),
    "SubspaceSIGReg": partial(SubspaceSIGReg, subspaces=4, directions=32),
    "VISReg": partial(VISReg, directions=32),
}


def build(make_jepa, setting, *regularizers):
    pretext, objective = SETTINGS[setting]
    return make_jepa(
        pretext=pretext(),
        objective=objective(),
        target=partial(Online, stop_gradient=False),
        regularizers=list(regularizers),
        learning_rate=Constant(4e-3),
    )


def said(make_trainer, make_data, jepa):
    """Train for some steps; what the monitor warned of."""
    monitor = CollapseMonitor(every_n_steps=5, samples=64)
    trainer = make_trainer(monitor, max_steps=STEPS, max_epochs=-1, limit_val_batches=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(jepa, datamodule=make_data(views=2) if isinstance(jepa.pretext, Views) else make_data())
    return [str(w.message) for w in caught if "The representations" in str(w.message)]


@pytest.mark.parametrize("setting", SETTINGS)
def test_without_a_regularizer_it_collapses_and_is_told_so(make_trainer, make_jepa, make_data, setting):
    warned = said(make_trainer, make_data, build(make_jepa, setting))
    assert len(warned) == 1
    assert warned[0].startswith(("The representations have collapsed", "The representations are collapsing"))
    assert "nearly the same for all samples, even if the loss is low" in warned[0]
    assert "a regularizer on the context (model.regularizers: [VICReg])" in warned[0]


@pytest.mark.parametrize(("setting", "regularizer"), [("views", "VICReg"), ("masked", "VICReg")])
def test_with_its_regularizer_it_is_not(make_trainer, make_jepa, make_data, setting, regularizer):
    assert not said(make_trainer, make_data, build(make_jepa, setting, REGULARIZERS[regularizer]))


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("setting", ["views", "masked"])
def test_a_weight_of_zero_is_no_regularizer(make_jepa, make_data, setting, regularizer):
    """So the runs above are those of every method whose regularizer is switched off."""
    data = make_data(views=2, samples=16, val_fraction=0)
    batch = next(iter(data.train_dataloader()))
    gradients = []
    for regularizers in ([], [partial(REGULARIZERS[regularizer], weight=0.0)]):
        jepa = build(make_jepa, setting, *regularizers)
        losses = jepa.losses(jepa.step(batch, torch.Generator().manual_seed(0)))
        assert len(losses) == 1 + len(regularizers)
        sum(losses.values()).backward()
        gradients.append([p.grad for p in jepa.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
