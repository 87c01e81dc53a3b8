"""A resumed run on trajectories goes on as if it had never stopped."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback

from jepa_lightning import JEPA
from jepa_lightning.callbacks import LastCheckpoint
from jepa_lightning.data import TrajectoryData
from jepa_lightning.encoders import ConvEncoder
from jepa_lightning.environments import TwoRooms
from jepa_lightning.predictors import ResidualPredictor
from jepa_lightning.pretexts import HierarchicalRollout, Rollout
from jepa_lightning.regularizers import InverseDynamics, UpperLevels, VICReg
from jepa_lightning.targets import Online
from modalities.image import Image


class Killed(BaseException):
    pass


class Kill(Callback):
    """Ends the run before a step, as a kill would."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Killed


@pytest.mark.parametrize(("stop", "pretext"), [(2, Rollout), (4, Rollout), (4, HierarchicalRollout)])
def test_from_any_step(make_trainer, tmp_path, stop, pretext):
    """Windows, the actions' statistics, running means of norms, the head of inverse dynamics, the macro-actions that
    are kept: all as they were."""
    upper = [partial(UpperLevels, regularizer=VICReg)] if pretext is HierarchicalRollout else []

    def train(folder, *, seed=0, kill=None, resume=None):
        torch.manual_seed(seed)
        rooms, encoder = TwoRooms(image_size=16), partial(ConvEncoder, dim=8, width=2)
        modality = Image(image_size=16, patch_size=16, channels=1, encoder=encoder)
        parts = {"pretext": pretext(action_dim=2, steps=3), "target": partial(Online, stop_gradient=False)}
        jepa = JEPA(modality, predictor=ResidualPredictor, regularizers=[VICReg, InverseDynamics, *upper], **parts)
        data = TrajectoryData(key="image", environment=rooms, episodes=16, batch_size=4, num_workers=0)
        trainer = make_trainer(
            LastCheckpoint(every_n_train_steps=1), Kill(kill), max_epochs=2, default_root_dir=tmp_path / folder
        )
        trainer.fit(jepa, data, ckpt_path=resume)
        return jepa.state_dict()

    whole = train("whole")
    with pytest.raises(Killed):
        train("killed", kill=stop)
    resumed = train("killed", seed=1, resume=tmp_path / "killed" / "checkpoints" / "last.ckpt")
    assert any(name.endswith("running_mean") for name in whole)
    assert bool(whole["pretext.estimated"])
    assert whole.keys() == resumed.keys()
    if upper:
        assert whole["pretext.levels.0.recent"].any()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
