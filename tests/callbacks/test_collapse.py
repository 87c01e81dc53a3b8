"""The collapse monitor on encoders that are healthy, constant, or blind to the sample."""

import warnings
from collections import deque
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule
from torch import nn
from torch.utils.data import DataLoader
from variants import TwoMasks, TwoViews

from jepa_lightning import JEPA
from jepa_lightning.callbacks import CollapseMonitor
from jepa_lightning.callbacks.collapse import variance_within
from jepa_lightning.encoders import ConvEncoder, Encoder, ViT
from jepa_lightning.evaluation import effective_rank
from jepa_lightning.predictors import ResidualPredictor
from jepa_lightning.pretexts import Masked, Rollout
from jepa_lightning.schedules import Constant
from jepa_lightning.targets import Online
from modalities.image import Image


class Constantly(Encoder):
    """The same vector for every token of every sample."""

    dim = 32

    def __init__(self, spec):
        super().__init__()
        self.vector = nn.Parameter(torch.randn(32))

    @property
    def blocks(self):
        return []

    def forward(self, tokens, keep=None, keep_valid=None):
        tokens = tokens if keep is None else tokens.take(keep, keep_valid)
        return self.vector.expand(*tokens.values.shape[:2], 32)


class Whereabouts(Constantly):
    """Tells positions apart, and nothing else: every sample looks the same."""

    def __init__(self, spec):
        super().__init__(spec)
        self.positions = spec.positions(32)

    def forward(self, tokens, keep=None, keep_valid=None):
        tokens = tokens if keep is None else tokens.take(keep, keep_valid)
        return self.vector + self.positions(tokens.positions).expand(tokens.values.shape[0], -1, -1)


class Line(Constantly):
    """Samples differ along one direction only."""

    def forward(self, tokens, keep=None, keep_valid=None):
        tokens = tokens if keep is None else tokens.take(keep, keep_valid)
        return self.vector * 0.01 + F.one_hot(torch.tensor(3), 32) * tokens.values.flatten(2).mean(-1, keepdim=True)


class Seen(Callback):
    """Keeps what the module hands to callbacks, and what is logged."""

    def __init__(self):
        self.targets, self.contexts, self.outcomes, self.metrics = [], [], [], {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        outcome = outputs["outcome"]
        self.outcomes.append(outcome)
        assert not any(latents.values.requires_grad for latents in (*outcome.context, *outcome.target))
        self.targets.extend(latents.values.clone() for latents in outcome.target[:1])
        self.contexts.append([latents.values.clone() for latents in outcome.context])
        self.metrics[trainer.global_step] = dict(trainer.callback_metrics)


def run(make_trainer, jepa, data, monitor, **settings):
    seen = Seen()
    trainer = make_trainer(monitor, seen, **{"max_steps": 6, "limit_val_batches": 0, **settings})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(jepa, datamodule=data)
    return trainer, seen, [str(w.message) for w in caught if "representations have collapsed" in str(w.message)]


def test_a_healthy_encoder_gets_no_warning(make_trainer, make_jepa, make_data):
    trainer, _, warned = run(make_trainer, make_jepa(), make_data(), CollapseMonitor())
    assert not warned
    assert trainer.callback_metrics["collapse/effective_rank"] > 2
    assert trainer.callback_metrics["collapse/std"] > 0.01


@pytest.mark.parametrize("encoder", [Constantly, Whereabouts, Line])
def test_a_collapsed_encoder_gets_one_warning_in_plain_words(make_trainer, make_jepa, make_data, encoder):
    jepa = make_jepa(encoder=encoder, learning_rate=Constant(0.0))
    trainer, _, warned = run(make_trainer, jepa, make_data(), CollapseMonitor())
    assert len(warned) == 1
    for setting in ("model.learning_rate", "model.target.momentum", "masker", "data.batch_size", "model.regularizers"):
        assert setting in warned[0]
    assert "step 2" in warned[0]
    assert trainer.callback_metrics["collapse/effective_rank"] < 2
    if encoder is not Line:
        assert trainer.callback_metrics["collapse/std"] < 0.01


def test_the_numbers_are_those_of_the_last_samples(make_trainer, make_jepa, make_data):
    monitor = CollapseMonitor(every_n_steps=3, samples=20)
    _, seen, _ = run(make_trainer, make_jepa(), make_data(), monitor)
    assert not any(name.startswith("collapse") for name in seen.metrics[2])
    for step in (3, 6):
        metrics = seen.metrics[step]
        pooled = torch.cat([t.mean(1) for t in seen.targets[:step]])[-20:]
        assert float(metrics["collapse/effective_rank"]) == pytest.approx(float(effective_rank(pooled)), rel=1e-4)
        assert float(metrics["collapse/std"]) == pytest.approx(float(pooled.std(0).mean()), rel=1e-4)
        contexts = [F.layer_norm(c, (32,)).mean(1) for (c,) in seen.contexts[:step]]
        pooled = torch.cat(contexts)[-20:]
        assert float(metrics["collapse/context_effective_rank"]) == pytest.approx(
            float(effective_rank(pooled)), rel=1e-4
        )
        assert float(metrics["collapse/context_std"]) == pytest.approx(float(pooled.std(0).mean()), rel=1e-4)
    assert seen.metrics[4]["collapse/std"] == seen.metrics[3]["collapse/std"]  # no look in between


def rank_and_spread(batches):
    """Of the pooled, layer-normed features (n, D) of all batches."""
    pooled = torch.cat([F.layer_norm(latents.values, (32,)).mean(1) for latents in batches])
    return float(effective_rank(pooled)), float(pooled.std(0).mean())


@pytest.mark.parametrize("sees", ["all", "targets"])
def test_of_several_masks_it_sees_each(make_trainer, make_jepa, make_data, sees):
    """The mean of each one's; a target that sees the whole sample is one for both masks."""
    jepa = make_jepa(masker=TwoMasks, pretext=Masked(target_sees=sees))
    _, seen, _ = run(make_trainer, jepa, make_data(), CollapseMonitor(every_n_steps=3), max_steps=3)
    metrics = seen.metrics[3]
    for name, prefix, count in (("context", "context_", 2), ("target", "", 1 if sees == "all" else 2)):
        found = [
            rank_and_spread(getattr(outcome, name)[i] for outcome in seen.outcomes)
            for i in range(len(getattr(seen.outcomes[0], name)))
        ]
        assert len(found) == count
        assert float(metrics[f"collapse/{prefix}effective_rank"]) == pytest.approx(
            sum(rank for rank, _ in found) / count, rel=1e-4
        )
        assert float(metrics[f"collapse/{prefix}std"]) == pytest.approx(
            sum(spread for _, spread in found) / count, rel=1e-4
        )
        assert len({rank for rank, _ in found}) == count


def test_without_a_target_it_warns_by_the_context(make_trainer, make_jepa, make_data):
    class Alone(TwoViews):
        def forward(self, nets, batch, generator):
            return replace(super().forward(nets, batch, generator), target=[])

    settings = {"pretext": Alone(), "learning_rate": Constant(0.0)}
    for encoder, collapses in ((None, False), (Constantly, True)):
        jepa = make_jepa(encoder=encoder, **settings)
        trainer, _, warned = run(make_trainer, jepa, make_data(), CollapseMonitor(), max_steps=2)
        assert bool(warned) == collapses
        assert "collapse/effective_rank" not in trainer.callback_metrics
        assert (trainer.callback_metrics["collapse/context_effective_rank"] < 2) == collapses


def test_steps_of_other_modules_are_let_be(make_trainer, make_data):
    class Plain(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            return {"loss": self.layer(torch.ones(1)).sum()}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = make_trainer(CollapseMonitor(), max_steps=4)
    trainer.fit(Plain(), train_dataloaders=[{"id": ["a", "b"]}] * 4)
    assert trainer.global_step == 4
    assert not [name for name in trainer.callback_metrics if name.startswith("collapse")]


def test_the_target_it_watches_is_layer_normed(make_trainer, make_jepa, make_data):
    _, seen, _ = run(make_trainer, make_jepa(), make_data(), CollapseMonitor())
    for target in seen.targets:
        torch.testing.assert_close(target.mean(-1), torch.zeros(target.shape[:2]), atol=1e-4, rtol=0)
        torch.testing.assert_close(target.var(-1, correction=0), torch.ones(target.shape[:2]), atol=1e-2, rtol=0)


def test_it_looks_as_often_as_the_trainer_logs(make_trainer, make_jepa, make_data):
    _, seen, _ = run(make_trainer, make_jepa(), make_data(), CollapseMonitor(), log_every_n_steps=4)
    assert [step for step in seen.metrics if "collapse/std" in seen.metrics[step]] == [4, 5, 6]


def test_a_short_run_gets_one_look(make_trainer, make_jepa, make_data):
    trainer, seen, _ = run(make_trainer, make_jepa(), make_data(), CollapseMonitor(), log_every_n_steps=50)
    assert "collapse/std" not in seen.metrics[6]
    pooled = torch.cat([t.mean(1) for t in seen.targets])
    assert float(trainer.callback_metrics["collapse/effective_rank"]) == pytest.approx(
        float(effective_rank(pooled)), rel=1e-4
    )


def test_micro_batches_are_one_step(make_trainer, make_jepa, make_data, monkeypatch):
    looks = []
    monkeypatch.setattr(CollapseMonitor, "_look", lambda self, module, step: looks.append(step))
    settings = {"accumulate_grad_batches": 2, "max_steps": 4, "max_epochs": 4}
    run(make_trainer, make_jepa(), make_data(), CollapseMonitor(every_n_steps=2), **settings)
    assert looks == [2, 4]


def test_it_can_be_switched_off(make_trainer, make_jepa, make_data):
    trainer, _, warned = run(make_trainer, make_jepa(encoder=Constantly), make_data(), CollapseMonitor(enabled=False))
    assert not warned
    assert not any(name.startswith("collapse") for name in trainer.callback_metrics)


def test_a_diverged_run_is_told_so_and_goes_on(make_trainer, make_jepa, make_data):
    class Diverged(ViT):
        def forward(self, tokens, keep=None, keep_valid=None):
            return super().forward(tokens, keep, keep_valid) * float("nan")

    trainer = make_trainer(CollapseMonitor(), max_steps=4, limit_val_batches=0)
    jepa = make_jepa(encoder=lambda spec: Diverged(spec, width=32, depth=1, heads=2))
    with pytest.warns(UserWarning, match=r"Training has diverged: at step 2.*gradient_clip_val"):
        trainer.fit(jepa, datamodule=make_data())
    assert trainer.global_step == 4


def test_fewer_than_two_samples_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        CollapseMonitor(samples=1)


# Relative to the run's own start --------------------------------------------------------------------------------------


def looks(monitor, *seen):
    """The warnings of looks at these (rank, spread, loss): features of so many equal dimensions."""

    class Plain(LightningModule):
        def log_dict(self, values, **settings):
            pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, (rank, std, loss) in enumerate(seen, 1):
            features = torch.linalg.qr(torch.randn(256, 32, generator=torch.Generator().manual_seed(0))).Q[:, :rank]
            features = (features - features.mean(0)) * 16 * std * 32 / rank
            monitor._recent = {"target": [deque([F.pad(features, (0, 32 - rank))])], "context": []}
            monitor._losses = [torch.tensor(loss)]
            monitor._look(Plain(), step)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ([(16, 0.5, 1.0), (16, 0.4, 0.5), (16, 0.2, 0.1)], []),
        ([(16, 0.5, 1.0), (5, 0.06, 9.0)], []),
        ([(16, 0.5, 1.0), (3, 0.5, 1.0), (3, 0.5, 1.0)], ["are collapsing at step 2"]),
        ([(16, 0.5, 1.0), (16, 0.2, 1.0), (16, 0.04, 1.0)], ["are collapsing at step 3"]),
        ([(16, 0.5, 1.0), (16, 0.001, 1.0)], ["have collapsed at step 2"]),
        ([(16, 0.5, 1.0), (16, 0.5, 11.0), (16, 0.5, 1e6)], ["Training diverges: at step 2 the loss is 11"]),
        ([(16, 0.5, 0.0), (16, 0.5, 11.0)], []),
        ([(16, 0.5, 1.0), (3, 0.5, 20.0)], ["Training diverges", "are collapsing"]),
    ],
)
def test_slow_collapse_and_divergence_are_seen_by_how_the_run_began(seen, said):
    messages = looks(CollapseMonitor(), *seen)
    assert len(messages) == len(said)
    assert all(part in message for part, message in zip(said, messages, strict=True))


def test_a_resumed_run_is_measured_by_its_start():
    first = CollapseMonitor()
    assert looks(first, (16, 0.5, 1.0)) == []
    again = CollapseMonitor()
    again.load_state_dict(first.state_dict())
    assert len(looks(again, (3, 0.5, 20.0))) == 2
    fresh = CollapseMonitor()
    fresh.load_state_dict(CollapseMonitor().state_dict())
    assert looks(fresh, (3, 0.5, 20.0)) == []


def test_relative_limits_can_be_switched_off():
    monitor = CollapseMonitor(std_drop=None, rank_drop=None, loss_rise=None)
    assert looks(monitor, (16, 0.5, 1.0), (3, 0.02, 100.0)) == []
    for name in ("std_drop", "rank_drop", "loss_rise"):
        with pytest.raises(ValueError, match=f"{name} must be a factor above 1"):
            CollapseMonitor(**{name: 1.0})


@pytest.mark.parametrize("still", [True, False])
def test_states_that_hold_what_never_moves_are_told(make_trainer, still):
    """Frames of pure scenery: rank and spread are healthy, and nothing varies within a trajectory."""
    images = torch.randn(16, 1, 1, 16, 16).expand(-1, 6, -1, -1, -1).clone()
    if not still:
        images += torch.randn(16, 6, 1, 16, 16)
    batch = {"image": images, "actions": torch.randn(16, 5, 2)}
    modality = Image(image_size=16, patch_size=16, channels=1, encoder=partial(ConvEncoder, dim=8, width=4))
    jepa = JEPA(modality, pretext=Rollout(action_dim=2), target=Online, predictor=ResidualPredictor)
    monitor, seen = CollapseMonitor(every_n_steps=1), Seen()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(monitor, seen, max_steps=2).fit(jepa, DataLoader([batch, batch], batch_size=None))
    told = [str(w.message) for w in caught if "The state holds what never moves" in str(w.message)]
    assert len(told) == still
    outcome = jepa.step(batch, torch.Generator())
    states = outcome.by_trajectory(outcome.context[0]).double()
    within = sum(float(((s - s.mean(0)) ** 2).sum()) for s in states)
    total = float(((states - states.mean((0, 1))) ** 2).sum())
    assert float(variance_within(states)) == pytest.approx(within / total, rel=1e-4, abs=1e-12)
    if still:
        assert "InverseDynamics in model.regularizers" in told[0]
