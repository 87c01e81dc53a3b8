"""The progress bar: loss and rate, read when it is drawn and not at every step."""

import pytest

from jepa_lightning.callbacks import LossBar, RunSummary


class Counting(LossBar):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.drawn = []

    def get_metrics(self, trainer, pl_module):
        self.drawn.append((trainer.global_step, super().get_metrics(trainer, pl_module)))
        return self.drawn[-1][1]


def test_the_bar_shows_loss_and_rate_when_it_is_drawn(make_trainer, make_jepa, make_data):
    bar = Counting(refresh_rate=3)
    settings = {"max_epochs": 2, "limit_val_batches": 0, "enable_progress_bar": True}
    trainer = make_trainer(bar, RunSummary(), **settings)
    trainer.fit(make_jepa(), datamodule=make_data())  # 6 steps an epoch
    during = [shown for step, shown in bar.drawn if step and step % 6]
    assert len({step for step, _ in bar.drawn}) <= 5  # of 12 steps
    assert all(shown["loss"] > 0 and shown["samples/s"] > 0 for shown in during)
    assert bar.drawn[-1][1]["loss"] == pytest.approx(float(trainer.callback_metrics["train/loss"]))


def test_nothing_is_read_by_lightning_itself(make_trainer, make_jepa, make_data):
    """What is logged for Lightning's own bar costs a host sync a step."""
    trainer = make_trainer(LossBar(), RunSummary(), max_steps=3, limit_val_batches=0, enable_progress_bar=True)
    trainer.fit(make_jepa(), datamodule=make_data())
    assert not trainer.progress_bar_metrics


def test_before_anything_is_logged(make_trainer, make_jepa):
    trainer, jepa = make_trainer(), make_jepa()
    shown = LossBar().get_metrics(trainer, jepa)
    assert "loss" not in shown
