"""Each method without a teacher collapses without what protects it, and the monitor names it; with it, it is silent."""

import re
import warnings
from functools import partial

import pytest
import torch
from pages import ROOT

from jepa_lightning import JEPA
from jepa_lightning.callbacks import CollapseMonitor
from jepa_lightning.data import TrajectoryData
from jepa_lightning.encoders import ConvEncoder
from jepa_lightning.environments import TwoRooms
from jepa_lightning.objectives import MSE, Cosine, CrossEntropy
from jepa_lightning.predictors import ResidualPredictor
from jepa_lightning.pretexts import HierarchicalRollout, LatentRollout, Masked, Rollout, Views
from jepa_lightning.regularizers import InverseDynamics, SIGReg, SubspaceSIGReg, UpperLevels, VICReg, VISReg
from jepa_lightning.schedules import Constant
from jepa_lightning.targets import EMA, Online
from modalities.image import Image

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


TAUGHT = {  # by an average of themselves
    "BYOL": {"pretext": partial(Views, projector=(32, 16), head=32), "objective": Cosine},
    "DINO": {"pretext": partial(Views, projector=(32, 16), prototypes=32, centering=0.9), "objective": CrossEntropy},
}
WORLDS = {
    "PLDM": [VICReg, InverseDynamics],
    "Sub-JEPA": [partial(SubspaceSIGReg, subspaces=4, directions=32)],
    "LeWorldModel": [partial(SIGReg, directions=32, by_time=True, weight=0.1)],
}
FEW = partial(SIGReg, directions=32)
LEVELS = {"H-JEPA": [FEW, partial(UpperLevels, regularizer=FEW)]}
LISTED = {  # methods of docs/methods.md without a teacher, and what is tested of each
    "masked, no teacher": ("masked", "SIGReg"),
    "VICReg": ("views", "VICReg"),
    "VICReg, ResNet-18": ("views", "VICReg"),
    "LeJEPA": ("views", "SIGReg"),
    "VISReg": ("views", "VISReg"),
    "SimSiam": ("SimSiam, its gradient not stopped", None),
    "world model, PLDM": ("world", "PLDM"),
    "world model, Sub-JEPA": ("world", "Sub-JEPA"),
    "world model, H-JEPA": ("world", "H-JEPA"),
    "world model, a latent z": ("world", "PLDM"),
    "world model, LeWorldModel": ("world", "LeWorldModel"),
    "world model, V-JEPA 2-AC": ("world", None),  # a frozen encoder cannot collapse
}


def world(regularizers=(), pretext=Rollout):
    torch.manual_seed(0)
    modality = Image(image_size=16, patch_size=16, channels=1, encoder=partial(ConvEncoder, dim=16, width=4))
    return JEPA(
        modality,
        pretext=pretext(action_dim=2, steps=3),
        objective=MSE(),
        target=partial(Online, stop_gradient=False),
        predictor=partial(ResidualPredictor, width=32, depth=1),
        regularizers=list(regularizers),
        learning_rate=Constant(4e-3),
    )


def build(make_jepa, setting, *regularizers):
    pretext, objective = SETTINGS[setting]
    return make_jepa(
        pretext=pretext(),
        objective=objective(),
        target=partial(Online, stop_gradient=False),
        regularizers=list(regularizers),
        learning_rate=Constant(4e-3),
    )


def said(make_trainer, make_data, jepa, *, steps=STEPS):
    """Train for some steps; what the monitor warned of."""
    monitor = CollapseMonitor(every_n_steps=5, samples=64)
    trainer = make_trainer(monitor, max_steps=steps, max_epochs=-1, limit_val_batches=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = make_data(views=2) if isinstance(jepa.pretext, Views) else make_data()
        if isinstance(jepa.pretext, Rollout):
            rooms = TwoRooms(image_size=16)
            data = TrajectoryData(key="image", environment=rooms, episodes=64, batch_size=8, num_workers=0)
        trainer.fit(jepa, datamodule=data)
    return [str(w.message) for w in caught if "The representations" in str(w.message)]


@pytest.mark.long
@pytest.mark.parametrize("setting", SETTINGS)
def test_without_a_regularizer_it_collapses_and_is_told_so(make_trainer, make_jepa, make_data, setting):
    warned = said(make_trainer, make_data, build(make_jepa, setting))
    assert len(warned) == 1
    assert warned[0].startswith(("The representations have collapsed", "The representations are collapsing"))
    assert "nearly the same for all samples, even if the loss is low" in warned[0]
    assert "a regularizer on the context (model.regularizers: [VICReg])" in warned[0]


@pytest.mark.long
@pytest.mark.parametrize(("setting", "regularizer"), [("views", "VICReg"), ("masked", "VICReg")])
def test_with_its_regularizer_it_is_not(make_trainer, make_jepa, make_data, setting, regularizer):
    assert not said(make_trainer, make_data, build(make_jepa, setting, REGULARIZERS[regularizer]))


def test_every_method_without_a_teacher_is_tested():
    page = (ROOT / "docs" / "methods.md").read_text()
    listed = re.findall(r"^\| ([^:|]+): .*\| `Online` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(LISTED)
    for setting, regularizer in LISTED.values():
        assert setting in (*SETTINGS, "world")
        assert regularizer in (*REGULARIZERS, *WORLDS, *LEVELS, None)


@pytest.mark.long
@pytest.mark.parametrize("pretext", [Rollout, LatentRollout])
def test_a_world_model_without_regularizers_collapses_and_is_told_so(make_trainer, make_data, pretext):
    """What is left of PLDM and of Sub-JEPA is the same; its spread falls slowly, and its rank does not."""
    warned = said(make_trainer, make_data, world(pretext=pretext), steps=240)
    assert len(warned) == 1
    assert warned[0].startswith("The representations are collapsing")


@pytest.mark.long
@pytest.mark.parametrize(("name", "pretext"), [*((name, Rollout) for name in WORLDS), ("PLDM", LatentRollout)])
def test_a_world_model_with_its_regularizers_does_not(make_trainer, make_data, name, pretext):
    assert not said(make_trainer, make_data, world(WORLDS[name], pretext))


def test_levels_above_the_first_are_watched_by_themselves(make_trainer, make_data):
    """With SIGReg on all levels the monitor is silent; without it above the first it names that level alone."""
    assert not said(make_trainer, make_data, world(LEVELS["H-JEPA"], HierarchicalRollout))
    warned = said(make_trainer, make_data, world(LEVELS["H-JEPA"][:1], HierarchicalRollout), steps=240)
    assert len(warned) == 1
    assert warned[0].startswith("The representations of level 2 ")
    assert "(UpperLevels in model.regularizers)" in warned[0]


def test_macro_actions_that_say_nothing_are_told(make_trainer, make_data):
    jepa = world(LEVELS["H-JEPA"], HierarchicalRollout)
    with torch.no_grad():
        jepa.pretext.level(2).macro_encoder.norm.weight.mul_(0.01)
    monitor = CollapseMonitor(every_n_steps=2)
    trainer = make_trainer(monitor, max_steps=4, max_epochs=-1, limit_val_batches=0)
    data = TrajectoryData(key="image", environment=TwoRooms(image_size=16), episodes=64, batch_size=8, num_workers=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(jepa, datamodule=data)
    said = [str(w.message) for w in caught if "macro-actions" in str(w.message)]
    assert len(said) == 1
    assert said[0].startswith("The macro-actions of level 2 are nearly the same whatever is done: at step 2 ")
    assert 0 < trainer.callback_metrics["collapse/level2_actions_std"] < 0.1


@pytest.mark.long
@pytest.mark.parametrize("name", TAUGHT)
def test_methods_with_a_teacher_of_views_are_silent(make_trainer, make_jepa, make_data, name):
    parts = {part: make() for part, make in TAUGHT[name].items()}
    jepa = make_jepa(target=partial(EMA, momentum=Constant(0.99)), learning_rate=Constant(1e-3), **parts)
    assert not said(make_trainer, make_data, jepa)


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
