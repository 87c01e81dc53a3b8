"""H-JEPA: world models at several time scales, trained together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from jepa_lightning.hierarchy.levels import Level, MacroPrior
from jepa_lightning.precision import autocast_in_half
from jepa_lightning.predictors.base import PredictorFactory, PredictorSpec
from jepa_lightning.predictors.residual import ResidualPredictor
from jepa_lightning.predictors.rollout import frame_spec
from jepa_lightning.pretexts.base import Networks, Outcome, Prediction
from jepa_lightning.pretexts.rollout import Rollout, StateKind
from jepa_lightning.pretexts.trajectories import trajectory_length
from jepa_lightning.schedules import Schedule
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Latents

if TYPE_CHECKING:
    from jepa_lightning.modality import Batch, Modality


class HierarchicalRollout(Rollout):
    """Predict at several time scales: each level re-encodes every `stride`-th state of the level below.

    H-JEPA (Zhang et al. 2026, arXiv:2610.06805). The first level is `Rollout`, with the model's predictor. A level
    above it has a state encoder, an MLP of single states of the level below; a macro-action of few numbers, which a
    small Transformer makes of the `stride` actions of the level below that lead from one of its states to the next; and
    a predictor of its own, which predicts its next state under a macro-action. All levels are trained together, and
    nothing is detached between them: the upper losses train the lower encoders, and the macro-actions become whatever
    the upper predictors need to know.

    The loss is the sum of the levels' prediction losses. States of upper levels collapse without a regularizer of their
    own: `UpperLevels`. `InverseDynamics` and whatever else is in `model.regularizers` looks at the first level. The
    outcome's `levels` hold the states and macro-actions of each level above the first; the collapse monitor watches
    them. Targets of an upper level are the same encoder's states of the level below's targets: with gradient where the
    first level's have one (`Online` with `stop_gradient: false`, as in the paper), else without.

    The last 4,000 macro-actions of each level are kept with the weights, and say where a planner is to look for more
    (`prior`). On several processes those of the first one's batches are saved.

    Deviations: there, upper levels see 3 past states, here the present one; each level is trained on a random crop of
    4 of its own steps, here on the whole window; the embedding of a level's actions is shared between its predictor and
    the encoder of macro-actions, here each has its own; one macro-action of each trajectory is kept, here all; the
    encoder of macro-actions has dropout.

    Args:
        action_dim: width A of an action.
        depth: number of levels, at least 2.
        stride: states of the level below that one step of a level stands for; a number for each level above the first,
            or one for all.
        macro_dim: width of a macro-action, which is layer-normed: at least 2.
        predictor: builds the predictors of the levels above the first; None: `ResidualPredictor`. `model.predictor` is
            the first's.
        width: of the hidden layer of the upper levels' state encoders.
        steps: length of the first level's rollouts.
        upper_steps: length of rollouts above it.
        upper_weight: weight of each upper level's prediction loss beside the first's, a number or a schedule.
        upper_learning_rate: factor of `model.learning_rate` for the upper levels (0.2 in the paper).
        history: past states that the first level's predictor sees.
        state: "pooled"; upper levels encode one vector a state.
        standardize: False for actions as they are.

    Raises:
        ValueError: a setting is out of range, a state has several tokens, states and targets differ in width, or
            trajectories are too short for the top level.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ConvEncoder
        >>> from jepa_lightning.predictors import ResidualPredictor
        >>> from jepa_lightning.pretexts import HierarchicalRollout
        >>> from jepa_lightning.regularizers import SIGReg, UpperLevels
        >>> from jepa_lightning.targets import Online
        >>> from modalities.image import Image
        >>> modality = Image(image_size=32, patch_size=32, channels=1, encoder=partial(ConvEncoder, dim=16, width=4))
        >>> pretext = HierarchicalRollout(action_dim=2, depth=3, stride=2, steps=1)
        >>> target = partial(Online, stop_gradient=False)
        >>> keep = [SIGReg, partial(UpperLevels, regularizer=SIGReg)]
        >>> jepa = JEPA(modality, pretext=pretext, target=target, predictor=ResidualPredictor, regularizers=keep)
        >>> batch = {"image": torch.randn(4, 9, 1, 32, 32), "actions": torch.randn(4, 8, 2)}
        >>> outcome = jepa.step(batch, torch.Generator().manual_seed(0))
        >>> [tuple(p.predicted.shape) for p in outcome.predictions]  # (B, starts, steps, D) of each level
        [(4, 8, 1, 16), (4, 4, 1, 16), (4, 2, 1, 16)]
        >>> [tuple(level.context[0].values.shape) for level in outcome.levels]  # (B T, S, D), 5 and 3 states
        [(20, 1, 16), (12, 1, 16)]
        >>> top = pretext.lift(outcome.context[0].values, level=3)
        >>> pretext.rollout_at(3, top[:4], pretext.macro_actions(3, batch["actions"])).shape  # 2 steps, of 8
        torch.Size([4, 2, 1, 16])
        >>> pretext.prior(3).mean.shape
        torch.Size([4])
    """

    def __init__(
        self,
        *,
        action_dim: int,
        depth: int = 2,
        stride: int | list[int] = 2,
        macro_dim: int = 4,
        predictor: PredictorFactory | None = None,
        width: int = 384,
        steps: int = 4,
        upper_steps: int = 1,
        upper_weight: float | Schedule = 1.0,
        upper_learning_rate: float = 1.0,
        history: int = 1,
        state: StateKind = "pooled",
        standardize: bool = True,
    ) -> None:
        super().__init__(action_dim=action_dim, steps=steps, history=history, state=state, standardize=standardize)
        if state != "pooled":
            raise ValueError(
                f"HierarchicalRollout re-encodes one vector a state, got state {state}: set state to pooled, or use "
                "Rollout"
            )
        for name, value, least in (("depth", depth, 2), ("macro_dim", macro_dim, 2), ("width", width, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if upper_steps < 1 or not 0 < upper_learning_rate < math.inf:
            raise ValueError(
                f"expected upper_steps of at least 1 and a positive upper_learning_rate, got {upper_steps} and "
                f"{upper_learning_rate}"
            )
        strides = tuple(stride) if isinstance(stride, Sequence) else (stride,) * (depth - 1)
        if len(strides) != depth - 1 or min(strides) < 1:
            raise ValueError(
                f"expected a stride of at least 1, or a list of {depth - 1} of them, one for each level above the "
                f"first of {depth}, got {stride}"
            )
        self.depth = depth
        self.strides = strides
        self.macro_dim = macro_dim
        self.width = width
        self.upper_steps = upper_steps
        self.upper_weight = upper_weight
        self.learning_rate_scale = upper_learning_rate
        self.upper_actions = (macro_dim,) * (depth - 1)
        self.build_predictor = predictor or ResidualPredictor
        self.levels = nn.ModuleList()

    def build(self, modality: Modality, target: Target) -> None:
        """Build the levels above the first."""
        dim, out = modality.encoder.dim, target.dim
        if dim != out:
            raise ValueError(
                f"HierarchicalRollout re-encodes states and targets alike, got states of width {dim} and targets of "
                f"width {out}: give the encoder the target's width"
            )
        token = frame_spec(modality.spec, pooled=True)
        spec = PredictorSpec(dim=dim, out=dim, token=token, condition=self.macro_dim)
        widths = (self.action_dim, *self.upper_actions)
        kept = {"width": self.width, "predictor": self.build_predictor, "memory": 4000}
        self.levels = nn.ModuleList(
            Level(spec, stride=stride, below=below, **kept)  # type: ignore[arg-type]
            for stride, below in zip(self.strides, widths, strict=False)
        )

    def level(self, number: int) -> Level:
        """The level of a number from 2 to `depth`.

        Raises:
            ValueError: there is none.
        """
        if not 2 <= number <= self.depth or not self.levels:
            built = f"2 to {self.depth}" if self.levels else "a pretext that JEPA has built"
            raise ValueError(f"expected a level above the first, {built}, got {number}")
        return self.levels[number - 2]  # type: ignore[return-value]

    def lift(self, states: Tensor, *, level: int, since: int = 1) -> Tensor:
        """States (..., S, D) of level `since` as states of `level`, each of them; see `Rollout.lift`."""
        if not 1 <= since <= level <= self.depth:
            raise ValueError(f"expected levels from 1 to {self.depth}, since at most level, got {since} and {level}")
        for number in range(since + 1, level + 1):
            states = self.level(number).encoder(states)
        return states

    def macro_actions(self, level: int, actions: Tensor) -> Tensor:
        """Standardised actions (B, n, A) of the first level as macro-actions of a level above it.

        Returns:
            (B, n // r, macro_dim), r the product of the strides up to this level; what is left over is dropped.
        """
        for number in range(2, level + 1):
            actions = self.level(number).macro_encoder(actions)
        return actions

    def rollout_at(self, level: int, state: Tensor, actions: Tensor) -> Tensor:
        """The states of a level above the first that follow one under macro-actions.

        Args:
            level: from 2 to `depth`.
            state: (B, S, D) of this level.
            actions: (B, H, macro_dim).

        Returns:
            (B, H, S, D); gradients flow to the state and the actions.
        """
        return self.level(level).rollout(state, actions)

    def prior(self, level: int) -> MacroPrior:
        """Where the last 4,000 macro-actions of training lie; before any: mean 0, std 1, from -2 to 2."""
        return self.level(level).prior()

    def forward(self, nets: Networks, batch: Batch, generator: torch.Generator) -> Outcome:
        """Encode all observations, and predict from every start of every level."""
        length = trajectory_length(batch)
        needed = self.upper_steps * math.prod(self.strides) + 1
        if length < needed:
            raise ValueError(
                f"level {self.depth} needs trajectories of at least {needed} observations for {self.upper_steps} of "
                f"its steps (strides {list(self.strides)}), got {length}: set data.window to {needed} or more, or "
                "lower model.pretext.depth"
            )
        first = super().forward(nets, batch, generator)
        assert first.actions is not None
        states, targets = (found[0].values.unflatten(0, (-1, length)) for found in (first.context, first.target))
        same = first.target[0].values is first.context[0].values
        predictions, above, actions = [replace(first.predictions[0], share=1.0)], [], first.actions
        with autocast_in_half(states.device):
            for number in range(2, self.depth + 1):
                level = self.level(number)
                actions = level.macro_encoder(actions)  # (B, T - 1, macro_dim), T states of this level
                states = level.encoder(states[:, :: level.stride])
                if same:
                    targets = states
                else:
                    with torch.no_grad():
                        targets = level.encoder(targets[:, :: level.stride])
                if self.training:
                    level.remember(actions)
                predictions.append(self._upper(level, states, targets, actions))
                made, compared = (Latents(values=found.flatten(0, 1)) for found in (states, targets))
                above.append(Outcome(context=[made], target=[compared], actions=actions.detach()))
        return replace(first, predictions=predictions, levels=above)

    def _upper(self, level: Level, states: Tensor, targets: Tensor, actions: Tensor) -> Prediction:
        """Predict from each start of states (B, T, S, D) under macro-actions (B, T - 1, A)."""
        starts, steps = states.shape[1] - self.upper_steps, self.upper_steps
        windows = actions.unfold(1, steps, 1).transpose(-1, -2)  # (B, starts, steps, A)
        ahead = targets[:, 1:].unfold(1, steps, 1).movedim(-1, 2)  # (B, starts, steps, S, D)
        rolled = level.rollout(states[:, :starts].flatten(0, 1), windows.flatten(0, 1))
        predicted = rolled.flatten(1, 2).unflatten(0, (-1, starts))
        return Prediction(predicted=predicted, target=ahead.flatten(2, 3), share=1.0, ramp=self.upper_weight)
