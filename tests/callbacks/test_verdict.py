"""What a run says of itself: before, after each validation, and at its end."""

import logging

import pytest
import torch
from scipy import stats

from jepa_lightning.callbacks import OnlineProbe, default_callbacks
from jepa_lightning.callbacks.header import header
from jepa_lightning.callbacks.verdict import Probed, asked, progress
from jepa_lightning.cli.errors import TIPS, short_errors
from jepa_lightning.evaluation import Features


def features(**labels):
    labels = {name: torch.as_tensor(values) for name, values in labels.items()}
    return Features(values=torch.zeros(len(next(iter(labels.values()))), 2), labels=labels)


def test_the_interval_is_that_of_two_independent_proportions():
    found = Probed(label="shape", classes=2, chance=0.5, train=100, test=200).verdict(0.7, 0.55)
    error = ((0.7 * 0.3 + 0.55 * 0.45) / 200) ** 0.5
    low, high = stats.norm.interval(0.95, loc=0.15, scale=error)
    assert found == f"training helps: +0.150 [{low:.3f}, {high:.3f}]"


@pytest.mark.parametrize(
    ("test", "trained", "untrained", "says"),
    [
        (400, 0.6, 0.4, "training helps"),
        (400, 0.4, 0.6, "training hurts"),
        (400, 0.45, 0.44, "no significant difference at this size"),
        (10, 1.0, 0.0, "no significant difference at this size (10 samples)"),
        (400, 1.0, 1.0, "no significant difference"),  # no width
    ],
)
def test_verdicts(test, trained, untrained, says):
    assert Probed(label="a", classes=2, chance=0.5, train=9, test=test).verdict(trained, untrained).startswith(says)


def test_what_was_asked():
    train = features(size=[0.1] * 6, shape=[0, 0, 0, 1, 2, -1], colour=[1, 1, 0, 0, 0, 0])
    test = features(size=[0.1] * 5, shape=[0, 1, 1, -1, 0], colour=[1, 1, 1, 1, 0])
    assert asked(train, test, None) == Probed(label="shape", classes=2, chance=0.5, train=5, test=4)
    assert asked(train, test, "colour") == Probed(label="colour", classes=2, chance=0.2, train=6, test=5)
    assert asked(features(size=[0.1]), features(size=[0.1]), None) is None
    assert asked(features(a=[-1, -1]), features(a=[0, 1]), None) is None


def test_a_line_after_a_validation():
    assert progress(0, {"train/loss": 1.0}) is None
    line = progress(2, {"probe/knn": 0.5, "probe/knn_untrained": 0.25, "probe/r2_size": -0.5, "val/loss": 1.0})
    assert line == "epoch 3: knn 0.500 (untrained 0.250), R2 of size -0.500"


def test_a_run_says_what_it_does_and_what_came_of_it(make_trainer, make_jepa, make_data, capsys, caplog):
    trainer = make_trainer(*default_callbacks(), max_epochs=1)
    with caplog.at_level(logging.INFO):
        trainer.fit(make_jepa(), datamodule=make_data())
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert header(trainer, trainer.lightning_module) in said
    assert f"everything is written to {trainer.default_root_dir}" in said
    assert "epoch 1: knn " in said
    printed = capsys.readouterr().out
    assert "linear probe of the last weights: " in printed
    assert "classes, chance 0." in printed
    assert f"next: jepa-probe {trainer.default_root_dir} evaluates it" in printed


def test_why_there_is_no_probe(make_trainer, make_jepa, make_data, tmp_path, capsys):
    trainer = make_trainer(*default_callbacks(), max_steps=1)
    trainer.fit(make_jepa(), datamodule=make_data())
    assert "No probe: the run ended before its first validation." in capsys.readouterr().out
    callbacks = [c for c in default_callbacks() if not isinstance(c, OnlineProbe)]
    trainer = make_trainer(*callbacks, max_steps=1, default_root_dir=tmp_path / "other")
    trainer.fit(make_jepa(), datamodule=make_data())
    assert "No probe: it is switched off" in capsys.readouterr().out
    same = [{"image": torch.rand(3, 32, 32), "labels": {"size": 0.5}} for _ in range(48)]
    trainer = make_trainer(*default_callbacks(), max_epochs=1, default_root_dir=tmp_path / "same")
    trainer.fit(make_jepa(), datamodule=make_data(dataset=same))
    assert "or R2 is not defined, for its validation values are all the same" in capsys.readouterr().out


def test_lightnings_tips_are_not_shown(caplog):
    from lightning.pytorch.utilities import rank_zero_info

    with caplog.at_level(logging.INFO), short_errors("jepa-fit"):
        for tip in TIPS:
            rank_zero_info(f"Tip: try {tip} for a platform")
        rank_zero_info("of use")
    assert [record.getMessage() for record in caplog.records] == ["of use"]
