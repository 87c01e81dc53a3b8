"""Schedules against the papers' numbers and formulas."""

import math
from itertools import pairwise

import pytest

from jepa_lightning.schedules import Constant, CosineRamp, LinearRamp, WarmupConstantDecay, WarmupCosine

TOTAL = 1000
IJEPA_LEARNING_RATE = WarmupCosine(start=1e-4, peak=1e-3, end=1e-6, warmup=15 / 300)  # appendix: 15 of 300 epochs


def values(schedule, total=TOTAL, steps=None):
    return [schedule(step, total) for step in range((steps or total) + 1)]


def test_constant():
    assert set(values(Constant(0.3))) == {0.3}


def test_ijepas_momentum_is_a_straight_line_from_0996_to_1():
    momentum = LinearRamp(start=0.996, end=1.0)
    for step in range(0, TOTAL + 1, 50):
        assert momentum(step, TOTAL) == pytest.approx(0.996 + 0.004 * step / TOTAL, abs=1e-12)


def test_ijepas_weight_decay_runs_from_004_to_04():
    decay = CosineRamp(start=0.04, end=0.4)
    assert decay(0, TOTAL) == pytest.approx(0.04)
    assert decay(TOTAL // 2, TOTAL) == pytest.approx(0.22)
    assert decay(TOTAL, TOTAL) == pytest.approx(0.4)
    for step in range(0, TOTAL + 1, 50):  # half a period of a cosine, upside down
        expected = 0.04 + 0.36 * math.sin(math.pi / 2 * step / TOTAL) ** 2
        assert decay(step, TOTAL) == pytest.approx(expected)


def test_ijepas_learning_rate():
    rate = IJEPA_LEARNING_RATE
    assert rate(0, TOTAL) == pytest.approx(1e-4)
    assert rate(25, TOTAL) == pytest.approx(5.5e-4)  # half way up
    assert rate(50, TOTAL) == pytest.approx(1e-3)
    assert rate(50 + 475, TOTAL) == pytest.approx((1e-3 + 1e-6) / 2)  # half way down
    assert rate(TOTAL, TOTAL) == pytest.approx(1e-6)
    for step in range(51, TOTAL, 37):
        expected = 1e-6 + (1e-3 - 1e-6) * math.cos(math.pi / 2 * (step - 50) / 950) ** 2
        assert rate(step, TOTAL) == pytest.approx(expected)


def test_the_learning_rate_rises_then_falls_and_never_jumps():
    found = values(IJEPA_LEARNING_RATE)
    assert found[:51] == sorted(found[:51])
    assert found[50:] == sorted(found[50:], reverse=True)
    steps = [abs(b - a) for a, b in pairwise(found)]
    assert max(steps) == pytest.approx(9e-4 / 50)  # the warm-up is the steepest part


@pytest.mark.parametrize("schedule", [LinearRamp(1.0, 3.0), CosineRamp(1.0, 3.0), CosineRamp(3.0, 1.0)])
def test_ramps_go_one_way_between_their_ends(schedule):
    found = values(schedule)
    assert found == sorted(found, reverse=schedule.start > schedule.end)
    assert (found[0], found[-1]) == (schedule.start, pytest.approx(schedule.end))


@pytest.mark.parametrize(
    "schedule", [LinearRamp(0.996, 1.0), CosineRamp(0.04, 0.4), IJEPA_LEARNING_RATE, WarmupCosine(1.0, warmup=1.0)]
)
@pytest.mark.parametrize("total", [1, 2, 7, TOTAL])
def test_past_the_end_it_stays_at_the_end(schedule, total):
    assert schedule(total + 1, total) == schedule(10 * total, total) == pytest.approx(schedule.end)


@pytest.mark.parametrize("make", [lambda s: LinearRamp(1.0, 2.0, stretch=s), lambda s: CosineRamp(1.0, 2.0, stretch=s)])
def test_a_stretched_ramp_is_a_longer_one_cut_off(make):
    for step in range(0, TOTAL + 1, 100):
        assert make(1.25)(step, TOTAL) == pytest.approx(make(1.0)(step, 1250))
    assert make(1.25)(TOTAL, TOTAL) < 2.0


def test_stretching_the_learning_rate_leaves_the_warmup_alone():
    """V-JEPA: the schedule is 25% longer than the run; its warm-up is counted in the run's own epochs."""
    plain, stretched = (WarmupCosine(peak=1.0, end=0.0, warmup=0.1, stretch=s) for s in (1.0, 1.25))
    assert values(plain)[:101] == values(stretched)[:101]
    for step in range(100, TOTAL, 100):
        assert stretched(step, TOTAL) == pytest.approx(0.5 * (1 + math.cos(math.pi * (step - 100) / (1250 - 100))))
    assert stretched(TOTAL, TOTAL) > 0.03


def test_no_warmup_starts_at_the_peak():
    assert WarmupCosine(peak=1.0, start=0.5, warmup=0.0)(0, TOTAL) == 1.0


def test_a_warmup_of_a_fraction_of_a_step():
    rate = WarmupCosine(peak=1.0, start=0.5, end=0.0, warmup=0.05)
    assert rate(0, 10) == 0.5
    assert 0.9 < rate(1, 10) < 1.0


@pytest.mark.parametrize("warmup", [-0.1, 1.5, 15])
def test_a_warmup_counted_in_epochs_is_refused(warmup):
    with pytest.raises(ValueError, match="share of the run"):
        WarmupCosine(peak=1.0, warmup=warmup)


@pytest.mark.parametrize("stretch", [0.0, -1.0])
def test_a_stretch_that_is_no_length_is_refused(stretch):
    for make in (LinearRamp, CosineRamp):
        with pytest.raises(ValueError, match="stretch must be positive"):
            make(0.0, 1.0, stretch=stretch)
    with pytest.raises(ValueError, match="stretch must be positive"):
        WarmupCosine(peak=1.0, stretch=stretch)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(float("nan")),
        lambda: LinearRamp(0.9, float("nan")),
        lambda: CosineRamp(float("inf"), 0.1),
        lambda: CosineRamp(0.1, 0.2, stretch=float("nan")),
        lambda: WarmupCosine(peak=float("nan")),
    ],
)
def test_numbers_that_are_not_finite_are_refused(make):
    with pytest.raises(ValueError, match=r"finite|positive"):
        make()


def test_vjepa_2_acs_learning_rate():
    """Appendix B.1: 7.5e-5 to 4.25e-4 over 4,500 steps, constant for 85,500, to 0 over 4,500."""
    total = 94_500
    rate = WarmupConstantDecay(start=7.5e-5, peak=4.25e-4, warmup=4500 / total, decay=4500 / total)
    assert rate(0, total) == pytest.approx(7.5e-5)
    assert rate(2250, total) == pytest.approx((7.5e-5 + 4.25e-4) / 2)
    assert {round(rate(step, total), 12) for step in range(4500, 90_001, 1500)} == {4.25e-4}
    assert rate(92_250, total) == pytest.approx(4.25e-4 / 2)
    assert rate(total, total) == pytest.approx(0, abs=1e-12)


def test_a_schedule_without_warm_up_or_decay_is_constant():
    assert set(values(WarmupConstantDecay(peak=2.0, start=1.0, warmup=0.0, decay=0.0))) == {2.0}
    found = values(WarmupConstantDecay(peak=2.0, start=1.0, end=0.5, warmup=0.5, decay=0.5))
    assert (found[0], found[500], found[1000]) == (1.0, 2.0, 0.5)


@pytest.mark.parametrize(("warmup", "decay"), [(-0.1, 0.1), (0.1, -0.1), (0.6, 0.5), (float("nan"), 0.1)])
def test_shares_of_a_run_that_are_none(warmup, decay):
    with pytest.raises(ValueError, match="warmup and decay are shares of the run, at most 1 together"):
        WarmupConstantDecay(peak=1.0, warmup=warmup, decay=decay)
