"""World models: predict the states of a trajectory from what is done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from jepa_lightning.precision import autocast_in_half
from jepa_lightning.predictors.base import Predictor, PredictorSpec
from jepa_lightning.predictors.rollout import Past, frame_spec, predict_next, rollout
from jepa_lightning.pretexts.base import Networks, Outcome, Prediction, Pretext
from jepa_lightning.pretexts.trajectories import frames, trajectory_length
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Latents, Tokens, pool

if TYPE_CHECKING:
    from jepa_lightning.modality import Batch, Modality

StateKind = Literal["pooled", "tokens"]


class Rollout(Pretext):
    """Predict the next states of a trajectory from the last ones and the actions between, several in a row.

    Every observation is encoded once, as a sample of its own. From each start at once, the predictor is given the last
    `history` states and an action, predicts the next state, and continues from its own prediction, `steps` times; each
    prediction is compared with what the target makes of that observation. With the target `Online` without a stopped
    gradient, VICReg and inverse dynamics this is the recipe of PLDM (Sobal et al. 2025, arXiv:2502.14819); with
    `SIGReg` that of LeWorldModel.

    States are not layer-normed. Actions are standardised by the mean and standard deviation of the training data, which
    are estimated before the first step and stored with the weights. The outcome's context and target hold all B T
    states, one sample each, and its `actions` are the standardised ones.

    Without a regularizer the state collapses, most often to what never moves in a trajectory: see
    `jepa_lightning.regularizers` for those that look at trajectories.

    Args:
        action_dim: width A of an action.
        steps: length of a rollout; trajectories need at least one observation more.
        history: past states that the predictor sees. At the start of a trajectory there are fewer.
        state: "pooled" for one vector a state, the mean over an observation's tokens; "tokens" for all of them, which
            then must lie on a grid.
        standardize: False for actions as they are.

    Raises:
        ValueError: a setting is out of range, or states and predictions differ in width where predictions are fed back.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ConvEncoder
        >>> from jepa_lightning.predictors import ResidualPredictor
        >>> from jepa_lightning.pretexts import Rollout
        >>> from jepa_lightning.regularizers import InverseDynamics, VICReg
        >>> from jepa_lightning.targets import Online
        >>> from modalities.image import Image
        >>> modality = Image(image_size=32, patch_size=32, channels=1, encoder=partial(ConvEncoder, dim=16, width=4))
        >>> target = partial(Online, stop_gradient=False)
        >>> keep = [VICReg, InverseDynamics]
        >>> pretext = Rollout(action_dim=2, steps=3)
        >>> jepa = JEPA(modality, pretext=pretext, target=target, predictor=ResidualPredictor, regularizers=keep)
        >>> batch = {"image": torch.randn(4, 8, 1, 32, 32), "actions": torch.randn(4, 7, 2)}
        >>> outcome = jepa.step(batch, torch.Generator().manual_seed(0))
        >>> outcome.predictions[0].predicted.shape  # (B, starts, steps, D)
        torch.Size([4, 5, 3, 16])
        >>> outcome.context[0].values.shape
        torch.Size([32, 1, 16])
    """

    least: ClassVar[int] = 1
    """The least width of an action: without one nothing says what follows."""

    futures: int = 1
    """What may follow one past: how many predictions there are of it."""

    depth: int = 1
    """Number of levels; see `HierarchicalRollout`."""

    action_dim: int
    action_mean: Tensor
    action_std: Tensor
    estimated: Tensor

    def __init__(
        self,
        *,
        action_dim: int,
        steps: int = 4,
        history: int = 1,
        state: StateKind = "pooled",
        standardize: bool = True,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("action_dim", action_dim, self.least),
            ("steps", steps, 1),
            ("history", history, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if state not in ("pooled", "tokens"):
            raise ValueError(f"state must be pooled or tokens, got {state!r}")
        self.action_dim = action_dim
        self.steps = steps
        self.history = history
        self.state = state
        self.register_buffer("action_mean", torch.zeros(action_dim))
        self.register_buffer("action_std", torch.ones(action_dim))
        self.register_buffer("estimated", torch.tensor(not standardize))

    def predictor_spec(self, modality: Modality, target: Target) -> PredictorSpec:
        """States in, states out, told an action; time is one more coordinate."""
        dim, out = modality.encoder.dim, target.dim
        if dim != out and (self.steps > 1 or self.history > 1):
            raise ValueError(
                f"Rollout feeds predictions back, got states of width {dim} and targets of width {out}: give the "
                "encoder the target's width, or set steps and history to 1"
            )
        if self.state == "tokens" and modality.spec.grid is None:
            raise ValueError(f"state tokens needs tokens on a grid, and {modality.name} has none: set state to pooled")
        token = frame_spec(modality.spec, pooled=self.state == "pooled")
        frame = modality.spec.grid if self.state == "tokens" else None
        told, history = self.action_dim, self.history
        return PredictorSpec(dim=dim, out=out, token=token, condition=told, history=history, frame=frame)

    @property
    def needs_statistics(self) -> bool:  # type: ignore[override]
        """Whether the actions' mean and spread are neither estimated nor loaded from a checkpoint."""
        return not bool(self.estimated)

    @torch.no_grad()
    def estimate(self, batches: Iterable[Batch]) -> None:
        """Set mean and standard deviation to those of all actions in the batches; what never varies is not scaled."""
        found = []
        for batch in batches:
            trajectory_length(batch)  # which says what is wrong with a batch without actions
            found.append(batch["actions"].double().flatten(0, 1))
        if not found:
            raise ValueError("expected training batches to standardise actions by, got none: add data")
        actions = self._checked(torch.cat(found))
        std = actions.std(0, correction=0)
        self.action_mean.copy_(actions.mean(0))
        self.action_std.copy_(torch.where(std > 1e-8, std, 1.0))
        self.estimated.fill_(True)

    def standardized(self, actions: Tensor) -> Tensor:
        """Actions (..., A) in the environment's units, as the predictor is told them.

        Raises:
            ValueError: they have another width.
        """
        return (self._checked(actions) - self.action_mean) / self.action_std

    def _checked(self, actions: Tensor) -> Tensor:
        if actions.shape[-1] != self.action_dim:
            raise ValueError(
                f"expected actions of width {self.action_dim}, got {actions.shape[-1]}: set model.pretext.action_dim"
            )
        return actions

    def forward(self, nets: Networks, batch: Batch, generator: torch.Generator) -> Outcome:
        """Encode all observations, and predict from every start."""
        length = trajectory_length(batch)
        starts = length - self.steps
        if starts < 1:
            raise ValueError(
                f"a rollout of {self.steps} steps needs trajectories of at least {self.steps + 1} observations, got "
                f"{length}: lower model.pretext.steps or raise data.window"
            )
        seen = {name: value for name, value in batch.items() if name not in ("id", "labels")}
        tokens = nets.modality.tokenizer(frames(seen))
        actions = self.standardized(batch["actions"])
        with autocast_in_half(tokens.device):
            encoded = nets.encoder(tokens)
            shared = nets.target.of_encoded(encoded)
            states = self.states(encoded, tokens)  # (B T, S, D)
            if shared is encoded:
                targets = states
            else:
                targets = self.states(nets.target(tokens) if shared is None else shared, tokens)
            by_time, compared = (x.unflatten(0, (-1, length)) for x in (states, targets))
            told = self.told(batch, actions)
            predictions = self.predictions(nets.predictor, by_time, compared, told, self.positions(tokens))
        context, target = [Latents(values=states)], [Latents(values=targets)]
        return Outcome(predictions=predictions, context=context, target=target, actions=actions)

    def told(self, batch: Batch, actions: Tensor) -> Tensor:
        """What the predictor is told at each step (B, T - 1, C): the standardised actions."""
        return actions

    def predictions(
        self, predictor: Predictor, states: Tensor, targets: Tensor, actions: Tensor, positions: Tensor | None
    ) -> list[Prediction]:
        """Predict from all starts of trajectories.

        Args:
            predictor: of the next state.
            states: (B, T, S, D).
            targets: (B, T, S, D) what predictions are compared with.
            actions: (B, T - 1, A), standardised.
            positions: (S, P) where a state's tokens lie, or None.
        """
        past = self.past(states, states.shape[1] - self.steps, positions, actions)
        windows = actions.unfold(1, self.steps, 1).transpose(-1, -2)  # (B, starts, steps, A)
        ahead = targets[:, 1:].unfold(1, self.steps, 1).movedim(-1, 2)
        return [self.prediction(predictor, past, windows, ahead)]

    def prediction(self, predictor: Predictor, past: Past, actions: Tensor, ahead: Tensor) -> Prediction:
        """Predict from each start.

        Args:
            predictor: of the next state.
            past: of all starts, (B starts, history, S, D).
            actions: (B, starts, steps, A), standardised.
            ahead: (B, starts, steps, S, D) what truly follows.
        """
        rolled = rollout(predictor, past, actions.flatten(0, 1))  # (B starts, steps, S, D)
        return Prediction(predicted=rolled.flatten(1, 2).unflatten(0, ahead.shape[:2]), target=ahead.flatten(2, 3))

    def imagine(
        self, predictor: Predictor, past: Past, actions: Tensor, samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Futures (B, samples, H, S, D) of standardised actions (B, H, A).

        Raises:
            ValueError: more than one is asked for, and there is one.
        """
        if samples != 1:
            raise ValueError(f"expected 1 sample, since {type(self).__name__} has no latent z, got {samples}")
        return rollout(predictor, past, actions).unsqueeze(1)

    def surprise(self, predictor: Predictor, past: Past, action: Tensor, after: Tensor) -> Tensor:
        """The root mean square (B,) of a state (B, S, D) less its prediction after a standardised action (B, A)."""
        return (after - predict_next(predictor, past, action)).square().mean((-1, -2)).sqrt()

    def lift(self, states: Tensor, *, level: int, since: int = 1) -> Tensor:
        """States of level `since` as states of a level above it, or of the same.

        Args:
            states: (..., S, D) of level `since`.
            level: from `since` to `depth`.
            since: from 1.

        Returns:
            (..., S, D), one for each given state: nothing is left out between them.

        Raises:
            ValueError: there is no such level, or it is below `since`.
        """
        if not since == level == 1:
            raise ValueError(f"expected level 1, since {type(self).__name__} has no other, got {since} and {level}")
        return states

    def states(self, encoded: Tensor, tokens: Tokens) -> Tensor:
        """Encoded observations (n, N, D) as states (n, S, D)."""
        if self.state == "pooled":
            return pool(encoded, tokens.valid).unsqueeze(1)
        if tokens.valid is not None:
            raise ValueError("state tokens needs observations with as many tokens each: set state to pooled")
        return encoded

    def positions(self, tokens: Tokens) -> Tensor | None:
        """Where the tokens of a state lie, (S, P); None of a pooled one."""
        return None if self.state == "pooled" else tokens.positions[0]

    def past(self, states: Tensor, starts: int, positions: Tensor | None, actions: Tensor | None = None) -> Past:
        """What the predictor sees at the first `starts` of trajectories (B, T, S, D): (B starts, history, S, D).

        Args:
            states: (B, T, S, D).
            starts: their number.
            positions: (S, P) where a state's tokens lie, or None.
            actions: (B, T - 1, A) between the states, standardised; None: not known.
        """

        def windows(values: Tensor, length: int) -> Tensor:
            """The last `length` values at each start, zeros before the first: (B starts, length, ...)."""
            before = values.new_zeros(len(values), length - 1, *values.shape[2:])
            return torch.cat([before, values], dim=1).unfold(1, length, 1)[:, :starts].movedim(-1, 2).flatten(0, 1)

        valid, done = None, None
        if self.history > 1:
            device = states.device
            when = torch.arange(starts, device=device).unsqueeze(1) + torch.arange(1 - self.history, 1, device=device)
            valid = (when >= 0).repeat(len(states), 1)
            if actions is not None:
                done = windows(torch.cat([torch.zeros_like(actions[:, :1]), actions], dim=1), self.history - 1)
        return Past(states=windows(states, self.history), valid=valid, positions=positions, actions=done)
