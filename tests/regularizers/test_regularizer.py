"""What every regularizer looks at, with which weight, and of how many samples."""

from functools import partial

import pytest
import torch
from seeing import vicreg
from torch.utils.data import DataLoader

from jepa_lightning.pretexts import Outcome, Prediction
from jepa_lightning.regularizers import Regularizer, Regularizers, RegularizerSpec, VICReg
from jepa_lightning.schedules import LinearRamp
from jepa_lightning.targets import Online
from jepa_lightning.tokens import Latents

B, M, T, D = 5, 2, 3, 4


class Mean(Regularizer):
    """The mean of all real values that it looks at; it owns a parameter of the width of these."""

    name = "mean"

    def __init__(self, spec, **settings):
        super().__init__(spec, **settings)
        self.scale = torch.nn.Parameter(torch.ones(self.dim))

    def forward(self, outcome):
        return sum((latents.pooled() * self.scale).mean() for latents in self.looked_at(outcome))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def outcome():
    """Two contexts, two predictions and a target, of which all differ."""
    valid = torch.ones(B, M, T, dtype=torch.bool)
    valid[1, 0, 1:] = valid[2, 1] = False
    targets = random(B, M, T, 2 * D, seed=3)
    return Outcome(
        predictions=[
            Prediction(predicted=random(B, M, T, 2 * D, seed=1), target=targets, valid=valid),
            Prediction(predicted=random(B, M, T, 2 * D, seed=2), target=targets),
        ],
        context=[Latents(values=random(B, 7, D, seed=4)), Latents(values=random(B, 6, D, seed=5))],
        target=[Latents(values=random(B, 9, 2 * D, seed=6))],
    )


def test_what_it_looks_at(outcome):
    spec = RegularizerSpec(dim=D, out=2 * D)
    assert [Mean(spec, on=on).dim for on in ("context", "target", "predicted")] == [D, 2 * D, 2 * D]
    assert Mean(spec).looked_at(outcome) is outcome.context
    assert Mean(spec, on="target").looked_at(outcome) is outcome.target
    first, second = Mean(spec, on="predicted").looked_at(outcome)
    for found, prediction in ((first, outcome.predictions[0]), (second, outcome.predictions[1])):
        assert found.values.shape == (B, M * T, 2 * D)
        for b in range(B):
            rows = [
                prediction.predicted[b, m, t].double()
                for m in range(M)
                for t in range(T)
                if prediction.valid is None or prediction.valid[b, m, t]
            ]
            torch.testing.assert_close(found.pooled()[b].double(), sum(rows) / len(rows), check_dtype=False)
    with pytest.raises(ValueError, match="on must be context, target or predicted, got 'teacher'"):
        Mean(spec, on="teacher")


@pytest.mark.parametrize("padded", [False, True])
def test_draws_are_looked_at_as_samples(outcome, padded):
    """Of several draws each is one: (S, B, M, T, D) is like a batch of S B samples."""
    valid = outcome.predictions[0].valid if padded else None
    predicted = random(3, B, M, T, 2 * D, seed=8)
    drawn = Outcome(predictions=[Prediction(predicted=predicted, target=predicted[0], valid=valid)])
    (found,) = Mean(RegularizerSpec(dim=D, out=2 * D), on="predicted").looked_at(drawn)
    assert found.values.shape == (3 * B, M * T, 2 * D)
    pooled = found.pooled().view(3, B, 2 * D)
    for s in range(3):
        one = Latents(values=predicted[s].flatten(1, 2), valid=None if valid is None else valid.flatten(1))
        torch.testing.assert_close(pooled[s], one.pooled())


@pytest.mark.parametrize("on", ["context", "target", "predicted"])
def test_vicreg_of_what_it_looks_at(outcome, on):
    """The mean of its values for each, and a gradient for that alone."""
    given = {
        "context": outcome.context[0].values,
        "target": outcome.target[0].values,
        "predicted": outcome.predictions[0].predicted,
    }
    for values in given.values():
        values.requires_grad_()
    regularizer = VICReg(RegularizerSpec(dim=D, out=2 * D), on=on, variance=2.0, covariance=0.5)
    value = regularizer(outcome)
    each = [regularizer.terms(latents.pooled()) for latents in regularizer.looked_at(outcome)]
    torch.testing.assert_close(value, sum(each) / len(each))
    value.backward()
    assert {name for name, values in given.items() if values.grad is not None} == {on}


# In a JEPA ----------------------------------------------------------------------------------------------------------


IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def generator():
    return torch.Generator().manual_seed(1)


def test_weights_are_numbers_or_schedules(make_jepa):
    ramp = LinearRamp(start=0.0, end=2.0)
    jepa = make_jepa(regularizers=[partial(VICReg, weight=ramp)], prediction_weight=LinearRamp(start=1.0, end=0.5))
    jepa.total_steps = 10
    outcome = jepa.step({"image": IMAGES}, generator())
    plain = make_jepa(regularizers=[VICReg]).losses(outcome)
    for step, expected in ((0, (1.0, 0.0)), (5, (0.75, 1.0)), (8, (0.6, 1.6))):
        found = jepa.losses(outcome, step)
        torch.testing.assert_close(found["prediction"], expected[0] * plain["prediction"])
        torch.testing.assert_close(found["vicreg"], expected[1] * plain["vicreg"])
    fixed = make_jepa(regularizers=[partial(VICReg, weight=3.0)], prediction_weight=0.25).losses(outcome)
    torch.testing.assert_close(fixed["prediction"], 0.25 * plain["prediction"])
    torch.testing.assert_close(fixed["vicreg"], 3 * plain["vicreg"])


def test_several_of_one_kind_have_names_of_their_own(make_jepa):
    jepa = make_jepa(regularizers=[VICReg, Mean, partial(VICReg, on="predicted", weight=0.5)])
    losses = jepa.losses(jepa.step({"image": IMAGES}, generator()))
    assert list(losses) == ["prediction", "vicreg", "mean", "vicreg_2"]
    assert losses["vicreg"] != losses["vicreg_2"]
    assert VICReg.name == "vicreg"


def test_a_run_follows_the_schedules_of_the_weights(make_jepa, make_data, make_trainer):
    settings = {"regularizers": [partial(VICReg, weight=LinearRamp(start=0.0, end=1.0))]}
    trainer = make_trainer(max_steps=1, limit_val_batches=0, log_every_n_steps=1)
    trainer.fit(make_jepa(**settings), datamodule=make_data())
    metrics = trainer.callback_metrics
    assert float(metrics["train/loss_vicreg"]) == 0
    assert float(metrics["train/loss"]) == float(metrics["train/loss_prediction"]) > 0


def test_parameters_of_a_regularizer_are_trained(make_jepa):
    jepa = make_jepa(regularizers=[partial(Mean, on="predicted")])
    sum(jepa.losses(jepa.step({"image": IMAGES}, generator())).values()).backward()
    assert jepa.regularizers[0].scale.grad.abs().sum() > 0
    held = {id(p) for group in jepa.configure_optimizers().param_groups for p in group["params"]}
    assert id(jepa.regularizers[0].scale) in held


def test_on_the_target_it_trains_an_encoder_that_makes_the_targets(make_jepa):
    for target, trained in ((partial(Online, stop_gradient=False), True), (Online, False)):
        jepa = make_jepa(regularizers=[partial(VICReg, on="target")], prediction_weight=0.0, target=target)
        value = jepa.losses(jepa.step({"image": IMAGES}, generator()))["vicreg"]
        assert value.requires_grad == trained
        if trained:
            value.backward()
            assert all(p.grad is not None for p in jepa.encoder.parameters())


# Of how many samples ------------------------------------------------------------------------------------------------


def test_of_too_few_samples_it_is_left_out(make_jepa):
    jepa = make_jepa(regularizers=[VICReg])
    assert set(jepa.losses(jepa.step({"image": IMAGES[:2]}, generator()))) == {"prediction", "vicreg"}
    assert set(jepa.losses(jepa.step({"image": IMAGES[:1]}, generator()))) == {"prediction"}
    gathered = make_jepa(regularizers=[partial(VICReg, gather=True)])  # where all ranks must take part
    assert set(gathered.losses(gathered.step({"image": IMAGES[:1]}, generator()))) == {"prediction", "vicreg"}


def loader(samples, batch_size):
    images = [{"image": image, "id": str(i)} for i, image in enumerate(IMAGES[:samples])]
    return DataLoader(images, batch_size=batch_size)


def test_what_is_left_over_at_the_end_of_an_epoch_trains_and_validates(make_jepa, make_trainer):
    trainer = make_trainer(max_epochs=1, log_every_n_steps=1)
    trainer.fit(make_jepa(regularizers=[VICReg]), loader(5, 2), loader(3, 2))
    assert trainer.global_step == 3
    assert trainer.callback_metrics["train/loss"] == trainer.callback_metrics["train/loss_prediction"]
    assert trainer.callback_metrics["val/loss"].isfinite()


def test_a_batch_size_below_it_is_refused(make_jepa, make_trainer):
    says = r"VICReg needs batches of at least 2 samples on each process, got 1: raise data\.batch_size, add data, or"
    with pytest.raises(ValueError, match=says):
        make_trainer(max_epochs=1).fit(make_jepa(regularizers=[VICReg]), loader(3, 1))
    with pytest.raises(ValueError, match=says):  # of a larger batch there is only one
        make_trainer(max_epochs=1).fit(make_jepa(regularizers=[VICReg]), loader(1, 4))
    make_trainer(max_epochs=1).fit(make_jepa(regularizers=[partial(VICReg, gather=True)]), loader(2, 1))
    Regularizers([lambda spec: vicreg(D)], RegularizerSpec(D, D)).check_batch_size(None)  # of which nobody knows
    Regularizers([lambda spec: vicreg(D)], RegularizerSpec(D, D)).check_batch_size(2)


def test_several_of_one_kind_are_terms_of_their_own(make_jepa):
    """With their own weights: a schedule for the variance, another for the covariance."""
    halves = [
        partial(VICReg, variance=1.0, covariance=0.0, weight=LinearRamp(0.0, 1.0)),
        partial(VICReg, variance=0.0, covariance=0.5, weight=2.0),
    ]
    jepa = make_jepa(regularizers=halves)
    jepa.total_steps = 10
    outcome = jepa.step({"image": torch.rand(4, 3, 32, 32)}, torch.Generator().manual_seed(0))
    found = jepa.losses(outcome, 5)
    assert list(found) == ["prediction", "vicreg", "vicreg_2"]
    first, second = (part(outcome) for part in jepa.regularizers)
    assert torch.equal(found["vicreg"], 0.5 * first)
    assert torch.equal(found["vicreg_2"], 2.0 * second)
