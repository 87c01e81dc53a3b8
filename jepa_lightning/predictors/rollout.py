"""Predictors fed with their own predictions: what a sequence of actions does to a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import TokenSpec
from jepa_lightning.encoders.positions import sincos
from jepa_lightning.predictors.base import Predictor
from jepa_lightning.tokens import Latents, Query


@dataclass(frozen=True, kw_only=True)
class Past:
    """The last h states of a trajectory, oldest first.

    Attributes:
        states: (B, h, S, D): S tokens a state, one where it is pooled.
        valid: (B, h) bool, False where an episode had not begun, or None.
        positions: (S, P) where a state's tokens lie, or None of a pooled one.
        actions: (B, n, A) what was done between the last n + 1 states, as the predictor is told it; None where nothing
            is known of it. Predictors that are not `causal` never see it.
        proprio: (B, P) a robot's own present state in the environment's units, for a world that is told it (the setting
            `proprio` of `TeacherForcing`); None: it is not known.
    """

    states: Tensor
    valid: Tensor | None = None
    positions: Tensor | None = None
    actions: Tensor | None = None
    proprio: Tensor | None = None

    def push(self, state: Tensor, action: Tensor | None = None) -> Past:
        """The past one step later, with the new state (B, S, D); the oldest one is forgotten.

        Args:
            state: the new one.
            action: (B, A) that led to it; None: it is not known, and those before it count for nothing any more.
        """
        states = torch.cat([self.states[:, 1:], state.unsqueeze(1)], dim=1)
        valid, actions = self.valid, None
        if valid is not None:
            valid = torch.cat([valid[:, 1:], valid.new_ones(len(valid), 1)], dim=1)
        if action is not None and states.shape[1] > 1:
            actions = self.told(action)[:, 1 - states.shape[1] :]
        return replace(self, states=states, valid=valid, actions=actions, proprio=None)

    def repeat(self, times: int) -> Past:
        """Each sample `times` times in a row: for as many candidate plans."""
        names = "states", "valid", "actions", "proprio"
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **{name: value.repeat_interleave(times, 0) for name, value in given.items()})

    def known(self) -> Past:
        """The last n + 1 states, between which the actions are known: at least the present one."""
        count = 1 if self.actions is None else 1 + self.actions.shape[1]
        valid = None if self.valid is None else self.valid[:, -count:]
        return replace(self, states=self.states[:, -count:], valid=valid)

    def told(self, action: Tensor) -> Tensor:
        """The known actions and the next one (B, A) behind them, (B, n + 1, A)."""
        last = action.unsqueeze(1)
        return last if self.actions is None else torch.cat([self.actions, last], dim=1)

    def context(self) -> Latents:
        """All tokens of all states as a predictor sees them: (B, h S, D), at (time, where they lie in the state)."""
        history, tokens = self.states.shape[1:3]
        valid = None if self.valid is None else self.valid.repeat_interleave(tokens, dim=1)
        return Latents(values=self.states.flatten(1, 2), positions=self._at(range(history)), valid=valid)

    def query(self, count: int = 1) -> Query:
        """Where the tokens of the next state lie, (B, 1, S, 1 + P); of those after each of the last `count` states."""
        batch, history, tokens = self.states.shape[:3]
        positions = self._at(range(history - count + 1, history + 1)).unflatten(1, (count, tokens))
        return Query(positions=positions.expand(batch, -1, -1, -1))

    def _at(self, times: range) -> Tensor:
        """Positions (1, len(times) S, 1 + P)."""
        tokens = self.states.shape[2]
        own = self.states.new_zeros(tokens, 0) if self.positions is None else self.positions
        time = torch.arange(times.start, times.stop, device=own.device, dtype=torch.float32)
        time = time.repeat_interleave(tokens).unsqueeze(-1)
        return torch.cat([time, own.float().repeat(len(times), 1)], dim=-1).unsqueeze(0)


def predict_next(predictor: Predictor, past: Past, action: Tensor) -> Tensor:
    """The state (B, S, D) that follows `past` under an action (B, A).

    A `causal` predictor is told the actions before it, too, and sees the states between which they are known.
    """
    if predictor.causal:
        past = past.known()
    condition = Latents(values=past.told(action) if predictor.causal else action.unsqueeze(1))
    return predictor(past.context(), past.query(), condition).squeeze(1)


def rollout(predictor: Predictor, past: Past, actions: Tensor) -> Tensor:
    """The states that follow `past` under `actions`, each predicted from the predictions before it.

    Args:
        predictor: built for a condition of width A and as many past states as `past` has.
        past: of B trajectories.
        actions: (B, H, A) as the predictor was trained with.

    Returns:
        (B, H, S, D); gradients flow to the past, the actions and the predictor.

    Examples:
        >>> import torch
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec
        >>> from jepa_lightning.predictors import Past, PredictorSpec, ResidualPredictor, rollout
        >>> token = TokenSpec(shape=(1, 8, 8), grid=None, positions=SinCosPositions)
        >>> predictor = ResidualPredictor(PredictorSpec(dim=16, out=16, token=token, condition=2), width=32)
        >>> rollout(predictor, Past(states=torch.randn(4, 1, 1, 16)), torch.randn(4, 5, 2)).shape
        torch.Size([4, 5, 1, 16])
    """
    found = []
    for action in actions.unbind(1):
        state = predict_next(predictor, past, action)
        past = past.push(state, action)
        found.append(state)
    return torch.stack(found, dim=1)


class FramePositions(nn.Module):
    """Embeds (time, where a token lies in its frame): sines of the time, and the modality's own embedding of the rest.

    Args:
        width: output width.
        own: builds the modality's embedding; None of pooled states, which lie nowhere but in time.
    """

    def __init__(self, width: int, *, own: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.width = width
        self.own = None if own is None else own(width)

    def forward(self, positions: Tensor) -> Tensor:
        """Embed coordinates (..., 1 + P) into (..., width)."""
        embedded = sincos(positions[..., :1], self.width)
        return embedded if self.own is None else embedded + self.own(positions[..., 1:])


def frame_spec(spec: TokenSpec, *, pooled: bool) -> TokenSpec:
    """What a predictor of states is told of their tokens: those of a frame, and time as one more coordinate."""
    return replace(spec, grid=None, positions=partial(FramePositions, own=None if pooled else spec.positions))
