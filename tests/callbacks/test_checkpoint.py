"""last.ckpt is the final state, best.ckpt the best one."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from jepa_lightning.callbacks import BestCheckpoint, LastCheckpoint, OnlineProbe, RunSummary, default_callbacks
from jepa_lightning.pretexts import Views
from jepa_lightning.targets import Online


def load(trainer, name):
    return torch.load(Path(trainer.default_root_dir) / "checkpoints" / f"{name}.ckpt", weights_only=True)


class Scores(OnlineProbe):
    """A probe with given scores, one each validation; remembers the weights at each."""

    def __init__(self, *scores):
        super().__init__()
        self.scores, self.weights = list(scores), []

    def score(self, trainer, pl_module, encoders):
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        return [{"knn": 0.0, "linear": self.scores[len(self.weights) - 1]}, {"knn": 0.0, "linear": 0.0}][
            : len(encoders)
        ]


def same(checkpoint, weights):
    return all(torch.equal(checkpoint["state_dict"][name], value) for name, value in weights.items())


def test_best_is_the_highest_linear_probe_and_last_is_the_final_state(make_trainer, make_jepa, make_data):
    probe, jepa = Scores(0.3, 0.7, 0.5, 0.7), make_jepa()
    trainer = make_trainer(probe, LastCheckpoint(), BestCheckpoint(), max_epochs=4)
    trainer.fit(jepa, datamodule=make_data())
    assert load(trainer, "best")["global_step"] == 12
    assert same(load(trainer, "best"), probe.weights[1])
    assert load(trainer, "last")["global_step"] == trainer.global_step == 24
    assert same(load(trainer, "last"), jepa.state_dict())
    folder = Path(trainer.default_root_dir) / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_without_labels_best_is_the_lowest_validation_loss(make_trainer, make_jepa, make_data):
    losses = []

    class Log(Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                losses.append((float(trainer.callback_metrics["val/loss"]), trainer.global_step))

    callbacks = OnlineProbe(enabled=False), LastCheckpoint(), BestCheckpoint(), Log()
    trainer = make_trainer(*callbacks, max_epochs=4)
    trainer.fit(make_jepa(), datamodule=make_data())
    assert len(losses) == 4
    assert load(trainer, "best")["global_step"] == min(losses)[1]


def test_without_labels_and_a_validation_loss_there_is_no_best(make_trainer, make_jepa, make_data, caplog, capsys):
    callbacks = [OnlineProbe(enabled=False), LastCheckpoint(), BestCheckpoint(), RunSummary()]
    trainer = make_trainer(*callbacks, max_epochs=2)
    jepa = make_jepa(pretext=Views(projector=(8,)), target=Online)
    with caplog.at_level("INFO"):
        trainer.fit(jepa, datamodule=make_data(views=2))
    assert caplog.text.count("No best checkpoint is kept, only the last: validation logs no val/loss.") == 1
    assert [path.name for path in (Path(trainer.default_root_dir) / "checkpoints").iterdir()] == ["last.ckpt"]
    assert "--which best" not in capsys.readouterr().out


def test_the_end_is_saved_where_no_validation_happens_to_fall(make_trainer, make_jepa, make_data):
    jepa = make_jepa()
    trainer = make_trainer(LastCheckpoint(), BestCheckpoint(), max_steps=9)
    trainer.fit(jepa, datamodule=make_data())  # 6 steps an epoch
    assert load(trainer, "last")["global_step"] == 9
    assert same(load(trainer, "last"), jepa.state_dict())
    assert load(trainer, "best")["global_step"] in (6, 9)


def test_the_end_is_saved_without_any_validation(make_trainer, make_jepa, make_data):
    jepa = make_jepa()
    trainer = make_trainer(LastCheckpoint(), max_steps=4, limit_val_batches=0)
    trainer.fit(jepa, datamodule=make_data(val_fraction=0.0))
    assert same(load(trainer, "last"), jepa.state_dict())


def test_every_so_many_steps(make_trainer, make_jepa, make_data):
    found = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
            found.append(torch.load(path, weights_only=True)["global_step"] if path.exists() else 0)

    trainer = make_trainer(LastCheckpoint(every_n_train_steps=2), Look(), max_steps=5)
    trainer.fit(make_jepa(), datamodule=make_data())
    assert found == [0, 0, 2, 2, 4]
    assert load(trainer, "last")["global_step"] == 5


@pytest.mark.parametrize("logger", [False, True])
def test_a_run_goes_on_from_last(make_trainer, make_jepa, make_data, tmp_path, logger):
    """Whatever the logger, by which Lightning would choose the folder of checkpoints."""

    def trainer(**settings):
        loggers = TensorBoardLogger(tmp_path, name="elsewhere") if logger else False
        return make_trainer(LastCheckpoint(), BestCheckpoint(), logger=loggers, **settings)

    first = make_jepa()
    trainer(max_epochs=1).fit(first, datamodule=make_data())
    kept, starts = {k: v.clone() for k, v in first.state_dict().items()}, []

    class Start(Callback):
        def on_train_start(self, trainer, pl_module):
            starts.append(
                (trainer.global_step, all(torch.equal(kept[k], v) for k, v in pl_module.state_dict().items()))
            )

    again = trainer(max_epochs=3)
    again.callbacks.append(Start())
    again.fit(make_jepa(seed=1), datamodule=make_data(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert starts == [(6, True)]
    assert again.global_step == 18
    assert load(again, "last")["global_step"] == 18


def test_a_new_run_does_not_replace_the_last_of_another(make_trainer, make_jepa, make_data, tmp_path):
    """As where Lightning has not found what `ckpt_path="last"` means."""
    make_trainer(LastCheckpoint(), max_steps=2, limit_val_batches=0).fit(make_jepa(), datamodule=make_data())
    again = make_trainer(LastCheckpoint(every_n_train_steps=1), max_steps=1, limit_val_batches=0)
    with pytest.raises(ValueError, match=r"give Trainer.fit ckpt_path='.*last.ckpt', or the Trainer another") as error:
        again.fit(make_jepa(seed=1), datamodule=make_data(), ckpt_path="last")
    assert str(tmp_path / "checkpoints" / "last.ckpt") in str(error.value)
    assert load(again, "last")["global_step"] == 2


def test_the_same_trainer_fits_twice(make_trainer, make_jepa, make_data):
    trainer, jepa = make_trainer(LastCheckpoint(), max_epochs=1, limit_val_batches=0), make_jepa()
    trainer.fit(jepa, datamodule=make_data())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(jepa, datamodule=make_data())
    assert load(trainer, "last")["global_step"] == 12


def test_what_fails_before_the_setup_is_not_hidden(make_trainer, make_jepa, make_data):
    data = make_data()
    data.setup = lambda stage: 1 / 0
    with pytest.raises(ZeroDivisionError):
        make_trainer(LastCheckpoint(), max_steps=1).fit(make_jepa(), datamodule=data)


@pytest.mark.parametrize("setting", [{"every_n_train_steps": -1}, {"every_minutes": 0.0}])
def test_intervals_are_positive(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be positive or null, got"):
        LastCheckpoint(**setting)


def test_a_resumed_run_remembers_the_best(make_trainer, make_jepa, make_data):
    def trainer(probe, epochs):
        return make_trainer(probe, LastCheckpoint(), BestCheckpoint(), max_epochs=epochs)

    trainer(Scores(0.8, 0.2), 2).fit(make_jepa(), datamodule=make_data())
    again = trainer(Scores(0.5), 3)
    again.fit(make_jepa(), datamodule=make_data(), ckpt_path="last")
    assert again.global_step == 18
    assert load(again, "best")["global_step"] == 6


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_whose_folder_was_moved_keeps_its_best(make_trainer, make_jepa, make_data, tmp_path, kept):
    first, second = tmp_path / "first", tmp_path / "second"
    callbacks = Scores(0.3, 0.7), BestCheckpoint(), LastCheckpoint()
    make_trainer(*callbacks, max_epochs=2, default_root_dir=first).fit(make_jepa(), datamodule=make_data())
    first.rename(second)
    best = second / "checkpoints" / "best.ckpt"
    if not kept:
        best.unlink()
    again = make_trainer(Scores(0.5), BestCheckpoint(), LastCheckpoint(), max_epochs=3, default_root_dir=second)
    again.fit(make_jepa(), datamodule=make_data(), ckpt_path=second / "checkpoints" / "last.ckpt", weights_only=True)
    assert load(again, "best")["global_step"] == (12 if kept else 18)
    assert again.checkpoint_callbacks[0].best_model_path == str(best)
    assert not first.exists()


def test_the_target_is_in_the_checkpoint(make_trainer, make_jepa, make_data):
    jepa = make_jepa()
    trainer = make_trainer(LastCheckpoint(), max_epochs=1)
    trainer.fit(jepa, datamodule=make_data())
    names = set(load(trainer, "last")["state_dict"])
    assert {f"target.encoder.{name}" for name, _ in jepa.encoder.named_parameters()} <= names


def test_an_untested_run_writes_nothing(make_trainer, make_jepa, make_data, tmp_path):
    trainer = make_trainer(*default_callbacks(), fast_dev_run=True)
    trainer.fit(make_jepa(), datamodule=make_data())
    assert not list(tmp_path.iterdir())
