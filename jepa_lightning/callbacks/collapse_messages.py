"""What the collapse monitor says, with the settings to change."""

from __future__ import annotations

from jepa_lightning.evaluation.collapse import MIN_RANK, MIN_STD


def still_message(step: int, share: float, level: str = "") -> str:
    """What to do where states tell trajectories apart, and not what happens in them; "level2" names a level."""
    return (
        f"The state{_of(level)} holds what never moves: at step {step} only {share:.2g} of the states' variance lies "
        "within trajectories. The prediction loss is then low, and the model knows nothing of what actions do. What "
        "helps, in this order: a larger weight of InverseDynamics in model.regularizers; a lower "
        "model.prediction_weight at the start, raised later by a schedule; TrajectoryVICReg over time; more steps."
    )


def idle_message(step: int, std: float, level: str) -> str:
    """What to do where macro-actions say nothing."""
    return (
        f"The macro-actions{_of(level)} are nearly the same whatever is done: at step {step} they vary by a standard "
        f"deviation of only {std:.2g}, and the level predicts without them. Try, in this order: TrajectoryVICReg over "
        "time within UpperLevels (model.regularizers), or a larger weight of it; a lower model.pretext.upper_weight."
    )


REMEDIES = (
    "a regularizer on the context (model.regularizers: [VICReg])",
    "a lower model.learning_rate peak or a longer warmup",
    "a model.target.momentum that starts nearer to 1 (0.996 to 0.9996)",
    "larger or more targets in the masker",
    "a larger data.batch_size",
)
"""What helps against collapse, in the order in which to try it; the pages name the same."""

UPPER_REMEDY = (
    "a regularizer on the levels above the first (UpperLevels in model.regularizers), or a larger weight of it"
)
"""What helps a level above the first, before anything else."""


def _of(level: str) -> str:
    return f" of level {level.removeprefix('level')}" if level else ""


def collapse_message(step: int, rank: float, std: float, first: tuple[float, float], level: str = "") -> str:
    """Return the warning of a collapse, with the settings to change; "level2" names a level above the first."""
    slowly = rank >= MIN_RANK and std >= MIN_STD
    what = "are collapsing" if slowly else "have collapsed"
    before = f"; at the first measurement they were {first[1]:.2g} and {first[0]:.1f}" if slowly else ""
    remedies = (UPPER_REMEDY, *REMEDIES[1:2], *REMEDIES[-1:]) if level else REMEDIES
    return (
        f"The representations{_of(level)} {what} at step {step}: pooled over tokens, the target's features vary by a "
        f"standard deviation of only {std:.2g} over samples and fill {rank:.1f} dimensions (effective rank){before}. "
        "The features are nearly the same for all samples, even if the loss is low. Try, in this order: "
        f"{'; '.join(remedies)}."
    )


def rising_message(step: int, loss: float, first: float) -> str:
    """Return the warning of a rising loss, with the settings to change."""
    return (
        f"Training diverges: at step {step} the loss is {loss:.3g}, up from {first:.3g} in the first step. Try, "
        "in this order: a lower model.learning_rate peak or a longer warmup; trainer.gradient_clip_val (1.0)."
    )


def divergence_message(step: int) -> str:
    """Return the warning of non-finite features, with the settings to change."""
    return (
        f"Training has diverged: at step {step} the target's features hold NaN or infinity, and will not recover. Try, "
        "in this order: a lower model.learning_rate peak or a longer warmup; trainer.gradient_clip_val (1.0); "
        "trainer.precision 32-true or bf16-mixed in place of 16-mixed. Also check the data for NaN."
    )
