"""A loss or gradients that are not finite end the run with the samples' names, or are left out."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from jepa_lightning.callbacks import LastCheckpoint, NonFiniteGuard
from jepa_lightning.callbacks.non_finite import are_finite
from jepa_lightning.run.interruption import Fault


class Poison(Callback):
    """Makes the images of a step's batch infinite, or only its gradients."""

    def __init__(self, *steps, gradients=False):
        self.steps, self.gradients, self.ids = steps, gradients, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.ids[trainer.global_step] = batch["id"]
        if trainer.global_step in self.steps and not self.gradients:
            batch["image"].fill_(math.inf)

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step in self.steps and self.gradients:
            next(pl_module.encoder.parameters()).grad.view(-1)[0] = math.nan


class States(Callback):
    """Weights and optimiser state after each step."""

    def __init__(self):
        self.after = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        state = {name: value.clone() for name, value in pl_module.state_dict().items()}
        for index, values in trainer.optimizers[0].state_dict()["state"].items():
            state |= {f"{index}/{name}": value.clone() for name, value in values.items()}
        self.after.append(state)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("gradients", "what"), [(False, "the loss is"), (True, "the gradients are")])
def test_the_run_stops_with_the_step_and_the_samples(make_trainer, make_jepa, make_data, gradients, what):
    poison = Poison(3, gradients=gradients)
    trainer = make_trainer(
        poison, NonFiniteGuard(), LastCheckpoint(every_n_train_steps=1), max_steps=10, log_every_n_steps=5
    )
    with pytest.raises(Fault, match=f"{what} not finite at step 3, first with the samples: ") as error:
        trainer.fit(make_jepa(), datamodule=make_data())
    assert all(name in str(error.value) for name in poison.ids[3][:8])
    assert "and 8 more" in str(error.value)
    assert "learning_rate" in str(error.value)
    last = torch.load(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert all(value.isfinite().all() for value in last["state_dict"].values())


def test_it_is_noticed_when_metrics_are_logged_and_at_the_end(make_trainer, make_jepa, make_data):
    seen = States()
    trainer = make_trainer(Poison(1), NonFiniteGuard(), seen, max_steps=10, log_every_n_steps=4)
    with pytest.raises(Fault, match="step 1"):
        trainer.fit(make_jepa(), datamodule=make_data())
    assert len(seen.after) == 3  # the fourth step is logged
    trainer = make_trainer(Poison(8), NonFiniteGuard(), max_steps=10, log_every_n_steps=50)
    with pytest.raises(Fault, match="step 8"):
        trainer.fit(make_jepa(), datamodule=make_data())


@pytest.mark.parametrize("gradients", [False, True])
def test_a_skipped_step_changes_nothing(make_trainer, make_jepa, make_data, gradients):
    seen, guard, logged = States(), NonFiniteGuard(action="skip"), []

    class Logged(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            logged.append(float(trainer.callback_metrics.get("train/skipped", -1)))

    trainer = make_trainer(Poison(2, 4, gradients=gradients), guard, seen, Logged(), max_steps=7, log_every_n_steps=1)
    trainer.fit(make_jepa(), datamodule=make_data())
    unchanged = [same(before, after) for before, after in zip(seen.after, seen.after[1:], strict=False)]
    assert unchanged == [False, True, False, True, False, False]
    assert guard.skipped == 2
    assert logged[-1] == 2
    assert all(value.isfinite().all() for value in seen.after[-1].values())


def test_skipping_has_an_end(make_trainer, make_jepa, make_data):
    trainer = make_trainer(Poison(*range(100)), NonFiniteGuard(action="skip"), max_steps=80, log_every_n_steps=10)
    with pytest.raises(Fault, match="not finite"):
        trainer.fit(make_jepa(), datamodule=make_data())
    assert 50 <= trainer.global_step <= 60


def test_without_the_watch_no_checkpoint_is_spoilt(make_trainer, make_jepa, make_data):
    trainer = make_trainer(Poison(3), LastCheckpoint(every_n_train_steps=2), max_steps=10)
    with pytest.raises(Fault, match=r"at step 4 the weights are not finite, so .*last.ckpt was not replaced"):
        trainer.fit(make_jepa(), datamodule=make_data())
    last = torch.load(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2


def test_large_gradients_are_finite():
    assert are_finite([torch.full((1000,), 1e38), torch.zeros(0)])
    assert not are_finite([torch.ones(3), torch.tensor([1.0, math.nan, 2.0])])
    assert not are_finite([torch.tensor([-math.inf]), torch.ones(3)])


def test_an_unknown_choice():
    with pytest.raises(ValueError, match="action must be stop or skip, got 'go'"):
        NonFiniteGuard(action="go")
