"""What a level above the first of `HierarchicalRollout` is made of: states, macro-actions, a predictor, a memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.encoders.transformer import Transformer
from jepa_lightning.predictors.base import PredictorFactory, PredictorSpec
from jepa_lightning.predictors.rollout import Past, rollout


@dataclass(frozen=True)
class MacroPrior:
    """Where the macro-actions of a level lie: what a planner draws them from, and keeps them within.

    Attributes:
        mean: (A,) of the last macro-actions of training.
        std: (A,) their standard deviation (with n - 1).
        low: (A,) their 2% quantile.
        high: (A,) their 98% quantile.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor


class StateEncoder(nn.Module):
    """The states of a level from those of the level below, each by itself: LayerNorm, Linear, GELU, Linear.

    Nothing norms the result.

    Args:
        dim: width D of both states.
        width: of the hidden layer.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, dim))

    def forward(self, states: Tensor) -> Tensor:
        """Encode (..., D) into (..., D)."""
        return self.mlp(self.norm(states))


class MacroEncoder(nn.Module):
    """A macro-action from the `count` actions of the level below that it stands for.

    Actions are embedded linearly and get learned positions; a learned class token sees them in one pre-norm Transformer
    layer, and a head (Linear, GELU, LayerNorm, Linear) maps it to the macro-action, which is layer-normed: the numbers
    of a macro-action are bounded, and one fewer of them is free.

    Args:
        below: width of an action of the level below.
        count: actions that one macro-action stands for.
        dim: width of a macro-action.
        width: of the Transformer layer.
        heads: attention heads.
    """

    def __init__(self, *, below: int, count: int, dim: int, width: int = 64, heads: int = 2) -> None:
        super().__init__()
        self.count = count
        self.embed = nn.Linear(below, width)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(count, width))
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.transformer = Transformer(width=width, depth=1, heads=heads, mlp_ratio=2.0)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), LayerNorm(width), nn.Linear(width, dim))
        self.norm = LayerNorm(dim)
        for part in self.transformer.modules():
            if isinstance(part, nn.Linear):  # by torch's own rule: with weights of 0.02 the class token drowns actions
                part.reset_parameters()

    def forward(self, actions: Tensor) -> Tensor:
        """Actions (B, n, A) of the level below as macro-actions (B, n // count, dim); a rest is left out.

        Macro-action i stands for `count` actions from i count on: those that lead from the level's state i,
        which is the state i count of the level below, to the next one.
        """
        batch, whole = len(actions), actions.shape[1] // self.count
        parts = actions[:, : whole * self.count].reshape(batch * whole, self.count, actions.shape[2])
        x = self.embed(parts.to(self.embed.weight.dtype)) + self.positions
        first = self.class_token.to(x.dtype).expand(len(x), 1, -1)
        seen = self.transformer(torch.cat([first, x], dim=1))[:, 0]
        return self.norm(self.head(seen)).unflatten(0, (batch, whole))


class Level(nn.Module):
    """A level above the first.

    The last macro-actions of training are kept in the buffers `recent` and `filled`, which are stored with the weights.
    Nothing in them is read in training, so the host never waits for the device.

    Args:
        spec: of the level's predictor; its condition is the width of a macro-action.
        stride: states of the level below that one step stands for.
        below: width of an action of the level below.
        width: of the state encoder's hidden layer.
        predictor: builds the predictor.
        memory: number of macro-actions that are kept.
    """

    recent: Tensor
    filled: Tensor

    def __init__(
        self, spec: PredictorSpec, *, stride: int, below: int, width: int, predictor: PredictorFactory, memory: int
    ) -> None:
        super().__init__()
        assert spec.condition is not None
        self.stride = stride
        self.encoder = StateEncoder(spec.dim, width)
        self.macro_encoder = MacroEncoder(below=below, count=stride, dim=spec.condition)
        self.predictor = predictor(spec)
        self.register_buffer("recent", torch.zeros(memory, spec.condition))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def remember(self, macro: Tensor) -> None:
        """Keep macro-actions (B, n, A), and forget the oldest."""
        new = macro.detach().flatten(0, 1).to(self.recent.dtype)
        self.recent.copy_(torch.cat([self.recent, new])[-len(self.recent) :])
        self.filled.add_(len(new)).clamp_(max=len(self.recent))

    @torch.no_grad()
    def prior(self) -> MacroPrior:
        """Where the kept macro-actions lie; of fewer than two: mean 0, std 1, from -2 to 2."""
        kept = self.recent[len(self.recent) - int(self.filled) :].float()
        if len(kept) < 2:
            zero = self.recent.new_zeros(self.recent.shape[1], dtype=torch.float32)
            return MacroPrior(mean=zero, std=zero + 1, low=zero - 2, high=zero + 2)
        low, high = kept.quantile(0.02, dim=0), kept.quantile(0.98, dim=0)
        return MacroPrior(mean=kept.mean(0), std=kept.std(0), low=low, high=high)

    def rollout(self, states: Tensor, actions: Tensor) -> Tensor:
        """The states (B, H, S, D) that follow states (B, S, D) of this level under macro-actions (B, H, A)."""
        return rollout(self.predictor, Past(states=states.unsqueeze(1)), actions)
