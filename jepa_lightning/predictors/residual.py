"""Predictors of the next state: an MLP that says how the state changes, and a recurrent cell."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from jepa_lightning.predictors.base import Predictor, PredictorSpec, check_condition
from jepa_lightning.tokens import Latents, Query


class ResidualPredictor(Predictor):
    """The last state plus an MLP of the past states and the action: for the pretext `Rollout`.

    Past states and the action are concatenated; of a state of several tokens, each token by itself. The last linear
    map starts at zero, so that an untrained predictor says that nothing changes. States before an episode's start are
    zeros.

    Where something stops what moves, the change jumps from one state to the next one beside it, and an MLP rounds that
    off: a planner then walks through walls. Two settings make it sharper. `sines` gives the MLP sines and cosines of
    random maps of the states, whose frequencies are trained (Fourier features: Tancik et al. 2020, arXiv:2006.10739).
    `gate` multiplies the change of each channel by a sigmoid, so that it can be shut (the transform gate of Highway
    Networks: Srivastava et al. 2015, arXiv:1505.00387).

    Args:
        spec: widths and the number of past states, given by the module; it needs a condition, the action.
        width: width of the hidden layers.
        depth: number of hidden layers, each followed by GELU.
        sines: number of maps whose sines and cosines the MLP is given, too.
        frequency: standard deviation of these maps of states with a variance of one in each channel, in radians.
        gate: multiply the change by a gate.

    Raises:
        ValueError: a setting is out of range, the spec has no condition, or predictions are of another width than
            states.

    Examples:
        >>> import torch
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec
        >>> from jepa_lightning.predictors import Past, PredictorSpec, ResidualPredictor
        >>> from jepa_lightning.predictors.rollout import predict_next
        >>> token = TokenSpec(shape=(1, 8, 8), grid=None, positions=SinCosPositions)
        >>> spec = PredictorSpec(dim=16, out=16, token=token, condition=2, history=3)
        >>> predictor = ResidualPredictor(spec, width=32)
        >>> states = torch.randn(4, 3, 1, 16)
        >>> torch.equal(predict_next(predictor, Past(states=states), torch.randn(4, 2)), states[:, -1])
        True
    """

    def __init__(
        self,
        spec: PredictorSpec,
        *,
        width: int = 256,
        depth: int = 2,
        sines: int = 0,
        frequency: float = 3.0,
        gate: bool = False,
    ) -> None:
        super().__init__()
        if min(width, depth) < 1:
            raise ValueError(f"width and depth must be at least 1, got {width} and {depth}")
        if sines < 0 or not 0 < frequency < math.inf:
            raise ValueError(f"expected sines of at least 0 and a positive frequency, got {sines} and {frequency}")
        check_dynamics(spec, type(self).__name__)
        self.condition = spec.condition
        self.history = spec.history
        self.gate = gate
        seen = spec.history * spec.dim
        self.waves = nn.Linear(seen, sines) if sines else None
        if self.waves is not None:
            nn.init.normal_(self.waves.weight, std=frequency / math.sqrt(seen))
            nn.init.uniform_(self.waves.bias, -math.pi, math.pi)
        sizes = [seen + (spec.condition or 0) + 2 * sines] + [width] * depth
        self.layers = nn.ModuleList(  # type: ignore[misc]
            nn.Sequential(nn.Linear(before, after), nn.GELU()) for before, after in pairwise(sizes)
        )
        self.project = nn.Linear(width, spec.out * (2 if gate else 1))
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Predict the next state (B, 1, S, D); see `Predictor.forward`."""
        check_condition(self.condition, condition, type(self).__name__)
        past = past_states(context, query, self.history, type(self).__name__)  # (B, h, S, D)
        action = last_action(condition, past.shape[2])
        states = past.transpose(1, 2).flatten(2)
        parts = [states, action.to(past.dtype)]
        if self.waves is not None:
            angles = self.waves(states)
            parts += [angles.sin(), angles.cos()]
        x = torch.cat(parts, dim=-1)
        for layer in self.layers:
            x = layer(x)
        change = self.project(x)
        if self.gate:
            amount, gate = change.chunk(2, dim=-1)
            change = amount * gate.sigmoid()
        return (past[:, -1] + change).unsqueeze(1)


class GRUPredictor(Predictor):
    """A GRU cell whose hidden state is the state and whose input is the action (Cho et al. 2014): for `Rollout`.

    Of a state of several tokens, each token by itself. All that it knows of the past is the last state.

    Args:
        spec: widths, given by the module; it needs a condition, the action.
        width: of an embedding of the action (Linear, GELU) that the cell reads; None: the action itself.

    Raises:
        ValueError: the spec has no condition, more than one past state, or predictions of another width than states.

    Examples:
        >>> import torch
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec
        >>> from jepa_lightning.predictors import GRUPredictor, Past, PredictorSpec, rollout
        >>> token = TokenSpec(shape=(1, 8, 8), grid=None, positions=SinCosPositions)
        >>> predictor = GRUPredictor(PredictorSpec(dim=16, out=16, token=token, condition=2))
        >>> rollout(predictor, Past(states=torch.randn(4, 1, 1, 16)), torch.randn(4, 5, 2)).shape
        torch.Size([4, 5, 1, 16])
    """

    def __init__(self, spec: PredictorSpec, *, width: int | None = None) -> None:
        super().__init__()
        check_dynamics(spec, type(self).__name__)
        if spec.history != 1:
            raise ValueError(f"GRUPredictor knows the last state alone, got history {spec.history}: set it to 1")
        self.condition = spec.condition
        dim: int = spec.condition  # type: ignore[assignment]
        self.embed: nn.Module = nn.Identity() if width is None else nn.Sequential(nn.Linear(dim, width), nn.GELU())
        self.cell = nn.GRUCell(width or dim, spec.dim)

    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Predict the next state (B, 1, S, D); see `Predictor.forward`."""
        check_condition(self.condition, condition, type(self).__name__)
        state = past_states(context, query, 1, type(self).__name__)[:, 0]
        action = self.embed(last_action(condition, state.shape[1]).to(state.dtype))
        return self.cell(action.flatten(0, 1), state.flatten(0, 1)).view_as(state).unsqueeze(1)


def check_dynamics(spec: PredictorSpec, name: str) -> None:
    """See that a predictor of the next state is told of actions, and of states as wide as its predictions.

    Raises:
        ValueError: it is not.
    """
    if spec.condition is None:
        raise ValueError(f"{name} predicts what an action does, and this pretext has none: use the pretext Rollout")
    if spec.dim != spec.out:
        raise ValueError(f"{name} changes a state, got states of width {spec.dim} and predictions of {spec.out}")


def past_states(context: Latents, query: Query, history: int, name: str) -> Tensor:
    """The context's tokens as states (B, h, S, D), filler as zeros.

    Raises:
        ValueError: it is not `history` states with as many tokens as the one that is asked for.
    """
    blocks, tokens = query.positions.shape[1:3]
    if blocks != 1 or context.values.shape[1] != history * tokens:
        raise ValueError(
            f"{name} predicts one state from {history} of as many tokens, got a context of {context.values.shape[1]} "
            f"tokens and {blocks} block(s) of {tokens}: use the pretext Rollout"
        )
    values = context.values
    if context.valid is not None:
        values = values.masked_fill(~context.valid.unsqueeze(-1), 0)
    return values.unflatten(1, (history, tokens))


def last_action(condition: Latents | None, tokens: int) -> Tensor:
    """The action for each token of a state: (B, 1, A) to (B, S, A)."""
    assert condition is not None  # see check_condition
    return condition.values[:, -1:].expand(-1, tokens, -1)
