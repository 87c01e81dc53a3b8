"""End a run whose loss or gradients are not finite, with a short error."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from jepa_lightning.module import JEPA
from jepa_lightning.names.shown import Shown
from jepa_lightning.optimization import is_accumulating, is_logged
from jepa_lightning.run.interruption import Fault

_LISTED = 8  # sample ids in a message
_IN_A_ROW = 50  # skipped steps after which skipping is hopeless

ADVICE = (
    "Try, in this order: a lower model.learning_rate peak or a longer warmup; trainer.gradient_clip_val (1.0); "
    "trainer.precision 32-true or bf16-mixed in place of 16-mixed. Also check these samples for NaN. "
    "The last checkpoint is from before. --non_finite.action skip skips such steps."
)


class NonFiniteGuard(Shown, Callback):
    """End the run when the loss or the gradients are not finite, and name the samples; or skip such steps.

    "stop" costs no host sync: the check stays on the device and is read at the steps at which
    metrics are logged. So the run may continue for up to `trainer.log_every_n_steps` steps, but no checkpoint of
    non-finite weights is written. "skip" costs one sync per step: weights, target and the optimiser's state stay
    unchanged, and `train/skipped` counts the steps. In 16-mixed, the scaler handles gradients that overflow, and they
    are not checked.

    Args:
        action: "stop" or "skip". Fifty skipped steps in a row stop the run, too.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jepa_lightning.callbacks import NonFiniteGuard
        >>> trainer = Trainer(max_steps=10, accelerator="cpu", logger=False, callbacks=[NonFiniteGuard(action="skip")])
        >>> next(callback for callback in trainer.callbacks if isinstance(callback, NonFiniteGuard))
        NonFiniteGuard(action='skip')
    """

    def __init__(self, *, action: Literal["stop", "skip"] = "stop") -> None:
        if action not in ("stop", "skip"):
            raise ValueError(f"action must be stop or skip, got {action!r}")
        self.action = action
        self.skipped = 0
        self._in_a_row = 0
        self._gradients: Tensor | None = None  # whether those of the present step are finite
        self._step: list[tuple[list[str], Tensor]] = []  # the present step's batches
        self._steps: list[tuple[int, list[tuple[list[str], Tensor]], Tensor | None]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: JEPA, optimizer: Any) -> None:  # type: ignore[override]
        """Check the gradients."""
        self._gradients = None
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not found:
            return
        self._gradients = are_finite(found)
        if self.action == "stop":
            return
        finite = trainer.strategy.reduce_boolean_decision(bool(self._gradients), all=True)
        pl_module.skip_step = not finite
        if finite:
            self._in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)  # without gradients an optimiser changes neither weights nor its state
        self.skipped += 1
        self._in_a_row += 1

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: JEPA, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the batch; at logging steps, check whether all were finite."""
        self._step.append((batch.get("id", []), outputs["loss"].detach().isfinite()))
        if is_accumulating(trainer):
            return
        self._steps.append((trainer.global_step - 1, self._step, self._gradients))
        self._step = []
        if self.action == "skip" and self._in_a_row < _IN_A_ROW:
            self._steps = self._steps[-1:]
            if is_logged(trainer):
                pl_module.log("train/skipped", float(self.skipped), batch_size=1)
        elif is_logged(trainer) or len(self._steps) > 1000:
            self.look(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Check the last steps."""
        if self.action == "stop":
            self.look(trainer)

    def look(self, trainer: Trainer) -> None:
        """Read the recorded checks.

        Raises:
            Fault: a step was not finite.
        """
        steps, self._steps = self._steps, []
        flags = [
            [flag for _, flag in batches] + [g for g in (gradients,) if g is not None]
            for _, batches, gradients in steps
        ]
        every = torch.stack([flag for step in flags for flag in step]).tolist() if steps else []
        bad: tuple[int, str, list[str]] | None = None
        for (number, batches, _), step in zip(steps, flags, strict=True):
            found, every = every[: len(step)], every[len(step) :]
            if not all(found):
                losses = found[: len(batches)]
                what = "gradients" if all(losses) else "loss"
                ids = [
                    i
                    for (names, _), fine in zip(batches, losses, strict=True)
                    for i in names
                    if not fine or all(losses)
                ]
                bad = number, what, ids
                break
        if trainer.strategy.reduce_boolean_decision(bad is not None, all=False):
            raise Fault(_message(*bad) if bad is not None else "another process has a loss that is not finite")

    def state_dict(self) -> dict[str, Any]:
        """Return the number of skipped steps, for a resumed run."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of skipped steps."""
        self.skipped = state_dict["skipped"]


def are_finite(tensors: list[Tensor]) -> Tensor:
    """Return whether all values are finite, as a bool on their device; of sharded tensors, this process's shards."""
    local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
    local = [t for t in local if t.numel()]
    if not local:
        return torch.ones((), dtype=torch.bool, device=tensors[0].device)
    # The largest absolute value, unlike a sum of squares, cannot overflow. For it the CPU has a slow kernel only.
    if local[0].device.type == "cpu":
        extremes = [extreme for t in local for extreme in torch.aminmax(t)]
        return torch.stack([value.float() for value in extremes]).isfinite().all()
    return nn.utils.get_total_norm(local, float("inf")).isfinite()


def require_finite(trainer: Trainer, *, kept: str) -> None:
    """Check the weights before a checkpoint is written; reads from the device once.

    Raises:
        Fault: some are not finite, so the checkpoint `kept` is not replaced.
    """
    with torch.no_grad():
        weights = [p.detach() for p in trainer.lightning_module.parameters() if p.is_floating_point()]
        finite = bool(are_finite(weights)) if weights else True
    if trainer.strategy.reduce_boolean_decision(finite, all=True):
        return
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, NonFiniteGuard):
            callback.look(trainer)  # it knows the step and the samples
    raise Fault(f"at step {trainer.global_step} the weights are not finite, so {kept} was not replaced. {ADVICE}")


def _message(step: int, what: str, ids: list[str]) -> str:
    names = ", ".join(map(str, ids[:_LISTED])) + (f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else "")
    verb = "is" if what == "loss" else "are"
    return f"the {what} {verb} not finite at step {step}, first with the samples: {names}\n{ADVICE}"
