"""A resumed run goes on as if it had never stopped, from wherever its last checkpoint was written."""

import csv
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from short_runs import IMAGE, SHORT
from torch import nn

from jepa_lightning.callbacks import BestCheckpoint, LastCheckpoint
from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.lightning_cli import JEPACLI
from jepa_lightning.encoders import ViT
from jepa_lightning.objectives import Cosine, CrossEntropy
from jepa_lightning.pretexts import Views
from jepa_lightning.regularizers import VICReg
from jepa_lightning.run.folder import AppendingCSVLogger
from jepa_lightning.run.interruption import stops_before_training
from jepa_lightning.run.signals import Interrupted
from jepa_lightning.schedules import LinearRamp
from jepa_lightning.targets import Online, Pretrained
from modalities.image import ImageData

EPOCH = 4  # steps
SMALL = {"samples": 16 * EPOCH}


class Watch(Callback):
    """What each batch was and what it lost; ends the process's run after a step, as a kill would."""

    def __init__(self, stop=None):
        self.seen, self.validated, self.stop = {}, [], stop

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen[trainer.current_epoch, batch_idx] = tuple(batch["id"]), float(outputs["loss"]), batch["image"].sum()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.stop:
            raise Killed

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated.append(trainer.global_step)


class Killed(BaseException):
    pass


class Dropping(ViT):
    """A ViT that draws from the global generator."""

    def forward(self, tokens, keep=None, keep_valid=None):
        return nn.functional.dropout(super().forward(tokens, keep, keep_valid), 0.1, self.training)


ENCODER = partial(Dropping, width=32, depth=1, heads=2)


@pytest.fixture(scope="module")
def kept():
    """Whole runs by their settings: halves of the same run are resumed again and again."""
    return {}


def once(kept, run, *args, **settings):
    """A whole run, made by the first test that asks for it; a partial's repr names the object that it calls."""
    key = run.__name__, repr(sorted(settings.items()))
    if key not in kept:
        kept[key] = run(*args, **settings)
    return kept[key]


@pytest.fixture
def go(make_trainer, make_jepa, make_data, tmp_path, monkeypatch, kept):
    """Fit in a folder of its own, or resume the run before; `go.whole` makes a run of the same settings once."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # which a command leaves, and the order of samples follows
    folders = []

    def go(*, stop=None, resume=False, seed=0, workers=0, every=1, data=None, model=None, **settings):
        watch = Watch(stop)
        folders.append(folders[-1] if resume else tmp_path / str(len(folders)))
        settings = {"max_epochs": 3, "num_sanity_val_steps": 0, "default_root_dir": folders[-1], **settings}
        trainer = make_trainer(BestCheckpoint(), LastCheckpoint(every_n_train_steps=every), watch, **settings)
        model = {name: part() if name in ("pretext", "objective") else part for name, part in (model or {}).items()}
        model = make_jepa(seed=seed, encoder=ENCODER, **model)
        data = make_data(num_workers=workers, **{**SMALL, **(data or {})})
        trainer.fit(model, datamodule=data, ckpt_path="last" if resume else None)
        return trainer, model, watch

    go.whole = partial(once, kept, go)
    return go


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def check(go, stop, *, resumed_with=None, **settings):
    whole, model, seen = go.whole(**settings)
    with pytest.raises(Killed):
        go(stop=stop, **settings)
    again, resumed, rest = go(resume=True, seed=1, **{**settings, **(resumed_with or {})})
    assert again.global_step == whole.global_step
    assert equal(dict(model.state_dict()), dict(resumed.state_dict()))
    assert equal(whole.optimizers[0].state_dict()["state"], again.optimizers[0].state_dict()["state"])
    assert rest.seen
    assert len(rest.seen) < len(seen.seen)
    assert all(equal(seen.seen[key], value) for key, value in rest.seen.items())
    assert rest.validated == seen.validated[-len(rest.validated) :]
    return rest, seen


@pytest.mark.long
@pytest.mark.parametrize("stop", [1, 3, 4, 6, 8, 11])
def test_from_any_step(go, stop):
    rest, seen = check(go, stop)
    assert len(rest.seen) == 3 * EPOCH - stop  # none is taken twice
    assert [step for step in seen.validated if step > stop] == rest.validated


OTHER_TARGETS = {  # than the moving average that the other tests have
    "the encoder itself": {"target": partial(Online, stop_gradient=False), "regularizers": [VICReg]},
    "a frozen encoder": {"target": partial(Pretrained, build=ENCODER)},  # that the resumed run has drawn anew
    "a projector's average": {"pretext": partial(Views, projector=(16, 8), head=8), "objective": Cosine},  # BYOL
    "an average and a centre": {  # DINO
        "pretext": partial(Views, projector=(16, 8), prototypes=12, centering=0.9),
        "objective": partial(CrossEntropy, target_temperature=LinearRamp(0.04, 0.07)),
    },
}


@pytest.mark.long
@pytest.mark.parametrize("model", OTHER_TARGETS.values(), ids=OTHER_TARGETS.keys())
def test_with_any_target(go, model):
    rest, _ = check(go, 6, model=model, data={"views": 2} if "pretext" in model else {})
    assert len(rest.seen) == 3 * EPOCH - 6


def test_from_the_last_of_every_few_steps(go):
    rest, _ = check(go, 7, every=3)
    assert len(rest.seen) == 3 * EPOCH - 6


def test_with_accumulation(go):
    rest, _ = check(go, 3, accumulate_grad_batches=2)
    assert len(rest.seen) == 3 * EPOCH - 6


def test_a_validation_between_two_micro_batches_is_no_place_to_go_on_from(go):
    check(go, 2, accumulate_grad_batches=2, val_check_interval=3, every=100, data={"samples": 96})


def test_with_validations_within_an_epoch(go):
    check(go, 7, val_check_interval=2, every=100)


def test_without_validation(go):
    check(go, 6, limit_val_batches=0, every=100)


def test_of_steps_without_validation(go):
    check(go, 6, limit_val_batches=0, every=100, max_epochs=-1, max_steps=10)


@pytest.mark.long
def test_with_workers_as_without(go):
    check(go, 6, workers=2, resumed_with={"workers": 0})


def test_a_resumed_run_reads_no_sample_that_it_skips(go, monkeypatch):
    from jepa_lightning.data import Samples

    with pytest.raises(Killed):
        go(stop=2, limit_val_batches=0)
    read, original = [], Samples.__getitems__
    monkeypatch.setattr(Samples, "__getitems__", lambda self, places: read.extend(places) or original(self, places))
    go(resume=True, limit_val_batches=0, max_epochs=1)
    assert len(read) == 2 * 16


def test_a_newer_seed_does_not_change_the_order(go, monkeypatch):
    _, model, _ = go.whole()
    with pytest.raises(Killed):
        go(stop=4)
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    _, resumed, _ = go(resume=True)
    assert equal(dict(model.state_dict()), dict(resumed.state_dict()))
    _, other, _ = go()
    assert not equal(dict(model.state_dict()), dict(other.state_dict()))


# The command ---------------------------------------------------------------------------------------------------------

WORDS = [
    *("fit", "--config", "image.yaml", *SHORT, *IMAGE, "--trainer.logger", "true", "--trainer.log_every_n_steps", "1"),
    *("--trainer.max_steps", "5", "--trainer.max_epochs", "100", "--checkpoint.every_n_train_steps", "2"),
]


def command(folder, *words):
    fit([*WORDS, "--trainer.default_root_dir", str(folder), *words])


def steps(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]


def signalled(monkeypatch, number, *, at=2, times=1):
    """As if the signal came in the middle of a step."""
    from jepa_lightning import JEPA

    step = JEPA.training_step

    def interrupted(self, batch, batch_idx):
        if self.global_step == at:
            for _ in range(times):
                signal.raise_signal(number)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(JEPA, "training_step", interrupted)


def code(folder, *words):
    with pytest.raises(SystemExit) as stop:
        command(folder, *words)
    return stop.value.code


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_after_the_step_and_ends_the_run(tmp_path, monkeypatch, capsys, number, expected):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        signalled(patch, number)
        assert code(tmp_path) == expected
    assert signal.getsignal(number) == before
    assert "resume with --auto_resume true" in capsys.readouterr().err.splitlines()[-1]
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 3
    assert steps(tmp_path) == [0, 1, 2]
    command(tmp_path, "--auto_resume", "true")
    assert steps(tmp_path) == [0, 1, 2, 3, 4]
    assert not (tmp_path / "previous").exists()


def test_a_second_signal_ends_it_at_once(tmp_path, monkeypatch, capsys):
    signalled(monkeypatch, signal.SIGTERM, at=3, times=2)
    assert code(tmp_path) == 75
    assert "stopped at once by SIGTERM" in capsys.readouterr().err
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3


def test_auto_resume_starts_goes_on_and_leaves_a_finished_run_alone(tmp_path, monkeypatch, capsys):
    command(tmp_path / "whole")
    with monkeypatch.context() as patch:
        signalled(patch, signal.SIGTERM, at=3)
        assert code(tmp_path / "run", "--auto_resume", "true") == 75
    command(tmp_path / "run", "--auto_resume", "true")
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "run")
    ]
    assert equal(*map(dict, states))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert code(tmp_path / "run", "--auto_resume", "true") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == files
    command(tmp_path / "run", "--auto_resume", "true", "--trainer.max_steps", "6")
    assert steps(tmp_path / "run") == [0, 1, 2, 3, 4, 5]


def test_rows_behind_the_checkpoint_are_written_anew(tmp_path, monkeypatch):
    command(tmp_path, "--trainer.max_steps", "4")
    (tmp_path / "summary.json").unlink()
    with open(tmp_path / "metrics.csv", "a") as file:
        columns = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
        for step in ("3", "4", "4"):  # the first is of the checkpoint, the others of steps that a kill undid
            file.write(",".join(step if name == "step" else "1.0" for name in columns) + "\n")
        file.write("1.0,0.")  # what a kill cut short
    command(tmp_path, "--auto_resume", "true")
    assert steps(tmp_path) == [0, 1, 2, 3, 3, 4]


# Around a validation ------------------------------------------------------------------------------------------------


class Failing(Callback):
    """Fails in the validation after a step, at its start, in a batch or at its end."""

    def __init__(self, at, where):
        self.at, self.where = at, where

    def fail(self, trainer, where):
        if where == self.where and trainer.global_step == self.at and not trainer.sanity_checking:
            raise Broken

    def on_validation_epoch_start(self, trainer, pl_module):
        self.fail(trainer, "start")

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.fail(trainer, "batch")

    def on_validation_epoch_end(self, trainer, pl_module):
        self.fail(trainer, "end")


class Broken(Exception):
    pass


def saved(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


@pytest.fixture
def fails(make_trainer, make_jepa, make_data, tmp_path_factory, monkeypatch, kept):
    """Fit, with a failure in a validation or without, in a folder; `fails.whole` makes a run without once."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)

    def fails(folder, failing=None, *, resume=False, seed=0, data=None, **settings):
        watch = Watch()
        settings = {"max_epochs": 3, "num_sanity_val_steps": 0, "log_every_n_steps": 1, **settings}
        callbacks = [BestCheckpoint(), LastCheckpoint(), watch, *([failing] if failing else [])]
        logger = AppendingCSVLogger(folder)
        trainer = make_trainer(*callbacks, **{**settings, "default_root_dir": str(folder), "logger": logger})
        model = make_jepa(seed=seed, encoder=ENCODER)
        trainer.fit(model, datamodule=make_data(**SMALL, **(data or {})), ckpt_path="last" if resume else None)
        return trainer, model, watch

    fails.whole = partial(once, kept, fails, tmp_path_factory.mktemp("whole"))
    return fails


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


FAILURES = [  # after which step, of what run
    (4, {}), (8, {}), (12, {}), (2, {"val_check_interval": 2}), (4, {"val_check_interval": 2}),
    (2, {"accumulate_grad_batches": 2}), (8, {"max_steps": 10, "max_epochs": -1}),
    (6, {"val_check_interval": 3, "check_val_every_n_epoch": None}),
]  # fmt: skip


def marks(row, column):
    """The first at every place, the others at one each, of which the later ones take longer."""
    if row == 0 or row % 3 == column:
        return () if row < 4 else pytest.mark.long
    return pytest.mark.slow


@pytest.mark.long
@pytest.mark.parametrize(
    ("at", "settings", "where"),
    [
        pytest.param(*failure, where, marks=marks(row, column))
        for row, failure in enumerate(FAILURES)
        for column, where in enumerate(("start", "batch", "end"))
    ],
)
def test_a_failure_in_a_validation_loses_nothing(fails, tmp_path, at, settings, where):
    whole, model, seen = fails.whole(**settings)
    with pytest.raises(Broken):
        fails(tmp_path / "run", Failing(at, where), **settings)
    assert saved(tmp_path / "run") == at
    again, resumed, rest = fails(tmp_path / "run", resume=True, seed=1, **settings)
    assert again.global_step == whole.global_step
    assert equal(dict(model.state_dict()), dict(resumed.state_dict()))
    assert rest.validated == [step for step in seen.validated if step >= at]
    assert all(equal(seen.seen[key], value) for key, value in rest.seen.items())
    folders = whole.default_root_dir, again.default_root_dir
    assert rows(Path(folders[1])) == rows(Path(folders[0]))
    ends = [torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True) for folder in folders]
    assert equal(ends[0]["loops"]["fit_loop"]["epoch_progress"], ends[1]["loops"]["fit_loop"]["epoch_progress"])
    finished, _, none = fails(tmp_path / "run", resume=True, **settings)
    assert not none.seen
    assert not none.validated
    assert finished.global_step == whole.global_step


def test_a_failure_twice_in_a_row(fails, tmp_path):
    whole, *_ = fails.whole()
    for resume in (False, True, True):
        with pytest.raises(Broken):
            fails(tmp_path / "run", Failing(4, "end"), resume=resume)
    fails(tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == rows(Path(whole.default_root_dir))


def test_a_failure_in_the_validation_after_the_last_step(fails, tmp_path):
    """There are no steps to resume, and Lightning validates nothing without any: it is said."""
    settings = {"max_steps": 8, "max_epochs": -1}
    with pytest.raises(Broken):
        fails(tmp_path, Failing(8, "batch"), **settings)
    assert saved(tmp_path) == 8
    with pytest.warns(UserWarning, match=r"all 8 steps were made when the last validation failed"):
        again, _, rest = fails(tmp_path, resume=True, **settings)
    assert not rest.seen
    assert again.global_step == 8


@pytest.mark.parametrize("settings", [{}, {"val_check_interval": 2}])
def test_a_signal_in_the_step_before_a_validation(go, monkeypatch, settings):
    whole, model, seen = go.whole(**settings)
    with monkeypatch.context() as patch:
        signalled(patch, signal.SIGTERM, at=3)
        with pytest.raises(Interrupted):
            go(**settings)
    again, resumed, rest = go(resume=True, seed=1, **settings)
    assert rest.validated == [step for step in seen.validated if step >= 4]
    assert len(rest.seen) == 3 * EPOCH - 4
    assert equal(dict(model.state_dict()), dict(resumed.state_dict()))
    assert again.global_step == whole.global_step


# Before training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "number"),
    [
        *(("parse_arguments", number) for number in (signal.SIGTERM, signal.SIGUSR1)),
        *((where, signal.SIGTERM) for where in ("instantiate_classes", "before_fit", "setup")),
    ],
)
def test_a_signal_before_training(tmp_path, monkeypatch, capsys, where, number):
    """Whatever the program is about to do: it asks to be started again, and leaves nothing behind."""
    before = signal.getsignal(number)
    owner = ImageData if where == "setup" else JEPACLI
    monkeypatch.setattr(owner, where, lambda *args, **kwargs: signal.raise_signal(number))
    assert code(tmp_path / "run") == 75
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == f"jepa-fit: stopped by {number.name}: training had not begun; start it again"
    assert signal.getsignal(number) == before
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob(".lock"))


@pytest.mark.parametrize(("words", "expected"), [((), 0), (("--auto_resume", "true"), 1), (("--auto_resume=true",), 1)])
def test_a_job_goes_back_into_the_queue_before_training_too(tmp_path, monkeypatch, words, expected):
    calls = []
    monkeypatch.setattr("jepa_lightning.run.interruption.requeue_slurm", lambda: calls.append(1))
    monkeypatch.setattr(JEPACLI, "parse_arguments", lambda *args: signal.raise_signal(signal.SIGUSR1))
    assert code(tmp_path, *words) == 75
    assert len(calls) == expected


def test_a_signal_in_a_forked_worker_is_no_message():
    with stops_before_training():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
