"""A Transformer over the frames of a trajectory and the actions between them, in which no frame sees a later one."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from timm.layers import AttentionRope
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.encoders.rotary import rotary
from jepa_lightning.encoders.transformer import check_sizes, init_weights
from jepa_lightning.predictors.base import Predictor, PredictorSpec, check_condition
from jepa_lightning.tokens import Latents, Query

ActionKind = Literal["token", "modulation"]


class FrameCausalLayer(nn.Module):
    """A pre-norm Transformer layer with rotary attention, modulated by a vector for each token where there is one.

    With modulation as in `AdaLNLayer` (AdaLN-zero: Peebles and Xie 2023, section 3.2): the layer starts as the
    identity.

    Args:
        width: channels W.
        heads: attention heads.
        head_dim: channels of a head; None for W over `heads`.
        mlp_ratio: hidden width of the MLP over W.
        dropout: of attention weights and of what both branches give.
        modulated: whether a vector modulates it.
    """

    def __init__(
        self, width: int, heads: int, *, head_dim: int | None, mlp_ratio: float, dropout: float, modulated: bool
    ) -> None:
        super().__init__()
        norm = partial(LayerNorm, width, elementwise_affine=not modulated, eps=1e-6)
        self.norm1, self.norm2 = norm(), norm()
        self.attn = AttentionRope(
            width, heads, num_prefix_tokens=0, attn_head_dim=head_dim, attn_drop=dropout, proj_drop=dropout
        )
        self.mlp = Mlp(width, int(width * mlp_ratio), drop=dropout)
        self.modulation = nn.Linear(width, 6 * width) if modulated else None
        init_weights(self)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor, condition: Tensor | None = None) -> Tensor:
        """Run the layer: x and condition (B, L, W), rope (1, 1, L, 2 C), mask (B or 1, 1, L, L), to (B, L, W)."""
        if self.modulation is None or condition is None:
            x = x + self.attn(self.norm1(x), rope=rope, attn_mask=mask)
            return x + self.mlp(self.norm2(x))
        modulation = self.modulation(nn.functional.silu(condition))
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1, rope=rope, attn_mask=mask)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class FrameCausalPredictor(Predictor):
    """Predict what follows each state of a trajectory in one call: V-JEPA 2-AC's predictor, and LeWorldModel's.

    The tokens of all states attend to each other within a state and to those of earlier states, never to later ones.
    What comes out at a state's tokens is the next state at the same places, so that one call predicts after every state
    (teacher forcing, see `TeacherForcing`), or after the last one alone.

    Each state comes with one action, that which follows it:

    - `token`: as one more token of the state, which its tokens and later states attend to (V-JEPA 2-AC: Assran et al.
      2025, arXiv:2506.09985, section 3.1); two, where the action comes with the robot's own state. Each kind of token
      has a linear map of its own, and so has the output.
    - `modulation`: it modulates the norms and branches of every layer at its state's tokens (AdaLN-zero, an MLP of
      width 4 W before it), as in LeWorldModel (Maes et al. 2026, arXiv:2603.19312, section 3.1).

    Rotary attention turns tokens by time and, where a state has several tokens, by their places in the frame (3-D in
    V-JEPA 2-AC), along axes with more than one place; actions by time alone. Predictions therefore depend on times
    between states, not on when a trajectory begins.

    Deviations: LeWorldModel has learned positions in place of rotary attention.

    Args:
        spec: widths and the tokens' spec, given by the module; it needs a condition.
        width: the predictor's own width W (1024 in V-JEPA 2-AC).
        depth: number of layers (24).
        heads: attention heads (16).
        mlp_ratio: hidden width of the MLP over W.
        head_dim: channels of a head; None for W over `heads` (64 in LeWorldModel's code, with 16 heads of a width of
            192).
        action: `token` or `modulation`.
        dropout: in every layer (0.1 in LeWorldModel).
        projector: hidden width of an MLP with BatchNorm and GELU that gives the output in place of a linear map (2048
            in LeWorldModel's code); None: the linear map.

    Raises:
        ValueError: a setting is out of range, or the spec has no condition; when called: tokens do not divide into
            states, or there is not one action for each.

    Examples:
        >>> import torch
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec
        >>> from jepa_lightning.predictors import FrameCausalPredictor, Past, PredictorSpec, rollout
        >>> from jepa_lightning.tokens import Latents
        >>> token = TokenSpec(shape=(3, 8, 8), grid=(2, 2), positions=SinCosPositions)
        >>> spec = PredictorSpec(dim=32, out=32, token=token, condition=7)
        >>> predictor = FrameCausalPredictor(spec, width=24, depth=2, heads=2)
        >>> places = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> past = Past(states=torch.randn(3, 5, 4, 32), positions=places)  # 5 states of 4 tokens
        >>> predictor(past.context(), past.query(5), Latents(values=torch.randn(3, 5, 7))).shape
        torch.Size([3, 5, 4, 32])
        >>> rollout(predictor, past, torch.randn(3, 2, 7)).shape
        torch.Size([3, 2, 4, 32])
    """

    causal: ClassVar[bool] = True

    def __init__(
        self,
        spec: PredictorSpec,
        *,
        width: int = 384,
        depth: int = 6,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        head_dim: int | None = None,
        action: ActionKind = "token",
        dropout: float = 0.0,
        projector: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(width=width, depth=depth, heads=1 if head_dim is not None else heads, mlp_ratio=mlp_ratio)
        if action not in ("token", "modulation"):
            raise ValueError(f"action must be token or modulation, got {action!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a share, from 0 to below 1; got {dropout}")
        if heads < 1 or (head_dim is not None and head_dim < 2) or (projector is not None and projector < 1):
            raise ValueError(
                "expected at least 1 head of at least 2 channels, and a projector of at least 1 channel, got heads "
                f"{heads}, head_dim {head_dim} and projector {projector}"
            )
        if not spec.condition:
            raise ValueError(
                "FrameCausalPredictor predicts what an action does, and this pretext has none: use "
                "TransformerPredictor, or a pretext with actions (TeacherForcing, Rollout)"
            )
        self.condition = spec.condition
        self.action = action
        self.head_dim = width // heads if head_dim is None else head_dim
        self.embed = nn.Linear(spec.dim, width)
        self.parts = spec.parts or (spec.condition,)
        self.axes = None if spec.frame is None else [0, *(i for i, size in enumerate(spec.frame, 1) if size > 1)]
        hidden = 4 * width
        self.embed_action: nn.Module
        if action == "token":
            self.embed_action = nn.ModuleList(nn.Linear(part, width) for part in self.parts)
        else:
            self.embed_action = nn.Sequential(nn.Linear(spec.condition, hidden), nn.SiLU(), nn.Linear(hidden, width))
        sizes: dict[str, Any] = {"head_dim": head_dim, "mlp_ratio": mlp_ratio, "dropout": dropout}
        self.layers = nn.ModuleList(  # type: ignore[misc]
            FrameCausalLayer(width, heads, modulated=action == "modulation", **sizes) for _ in range(depth)
        )
        self.norm = LayerNorm(width, eps=1e-6)
        last = width if projector is None else projector
        rows = [] if projector is None else [nn.Linear(width, last), nn.BatchNorm1d(last), nn.GELU()]
        self.project = nn.Sequential(*rows, nn.Linear(last, spec.out))
        for part in (self.embed, self.embed_action, self.project):
            init_weights(part)
        with torch.no_grad():
            for number, layer in enumerate(self.layers, start=1):
                layer.attn.proj.weight /= math.sqrt(2 * number)  # type: ignore[union-attr,operator]
                layer.mlp.fc2.weight /= math.sqrt(2 * number)  # type: ignore[union-attr,operator]

    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Predict what follows each of the last M states of the context.

        Args:
            context: (B, h S, D), h states of S tokens each, one behind the other, at (time, place in the frame).
            query: (B, M, S, 1 + P) where the tokens of the M next states lie; M from 1 to h.
            condition: (B, h, A) the action after each state.

        Returns:
            (B, M, S, out).
        """
        check_condition(self.condition, condition, type(self).__name__)
        assert condition is not None  # see check_condition
        if context.positions is None:
            raise ValueError("FrameCausalPredictor needs the context's positions, got Latents without positions")
        (asked, tokens), kept = query.positions.shape[1:3], context.values.shape[1]
        states = kept // tokens
        if kept % tokens or not 1 <= asked <= states or condition.values.shape[1] != states:
            raise ValueError(
                "FrameCausalPredictor predicts what follows the last states of a trajectory and takes one action for "
                f"each, got a context of {kept} tokens, {asked} block(s) of {tokens} and {condition.values.shape[1]} "
                "action(s)"
            )
        seen = context.values.unflatten(1, (states, tokens))
        valid = None if context.valid is None else context.valid.unflatten(1, (states, tokens))
        if valid is not None:
            seen = seen.masked_fill(~valid.unsqueeze(-1), 0)  # or what is not a number would reach others by 0 x NaN
        x = self.embed(seen)
        places = context.positions.unflatten(1, (states, tokens))
        if self.axes is not None:
            places = torch.stack([places[..., axis] for axis in self.axes], dim=-1)
        told, vector = condition.values.to(self.embed.weight.dtype), None
        if isinstance(self.embed_action, nn.ModuleList):
            first = [embed(part) for embed, part in zip(self.embed_action, told.split(self.parts, -1), strict=True)]
            x = torch.cat([torch.stack(first, dim=2).to(x.dtype), x], dim=2)
            count = len(first)
            when = nn.functional.pad(places[:, :, :1, :1], (0, places.shape[-1] - 1)).expand(-1, -1, count, -1)
            places = torch.cat([when, places], dim=2)
            real = None if valid is None else valid.any(2, keepdim=True).expand(-1, -1, count)
            valid = None if valid is None or real is None else torch.cat([real, valid], dim=2)
        else:
            vector = self.embed_action(told).to(x.dtype).repeat_interleave(tokens, dim=1)
        places = places.flatten(1, 2)
        rope = rotary(places.double() if x.dtype == torch.float64 else places, self.head_dim)
        mask = causal_mask(states, x.shape[2], None if valid is None else valid.flatten(1), x.device)
        each = x.shape[2]
        x = x.flatten(1, 2)
        for layer in self.layers:
            x = layer(x, rope, mask, vector)
        last = x.unflatten(1, (states, each))[:, states - asked :, each - tokens :]
        return self.project(self.norm(last).flatten(0, 2)).unflatten(0, (-1, asked, tokens))


def causal_mask(states: int, tokens: int, valid: Tensor | None, device: torch.device) -> Tensor:
    """Which tokens see which: those of their own state and of earlier ones, of those the real ones.

    Args:
        states: number h of states.
        tokens: number of tokens of each.
        valid: (B, L) bool, L = h x tokens, False for filler; None: all are real.
        device: of the result.

    Returns:
        (B, 1, L, L) bool, (1, 1, L, L) without filler. Each token sees itself, filler too, so that nothing is divided
        by zero.
    """
    state = torch.arange(states, device=device).repeat_interleave(tokens)
    mask = (state.unsqueeze(1) >= state)[None, None]
    if valid is None:
        return mask
    return (mask & valid[:, None, None]) | torch.eye(len(state), dtype=torch.bool, device=device)
