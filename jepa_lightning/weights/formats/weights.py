"""The weights of a source under one set of names, with what its file says beyond them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

State = dict[str, Tensor]
Family = Literal["ijepa", "vjepa", "vjepa2", "vjepa2.1"]
FAMILIES = {"ijepa": "I-JEPA", "vjepa": "V-JEPA", "vjepa2": "V-JEPA 2", "vjepa2.1": "V-JEPA 2.1"}
_LISTED = 8  # names in the line
RELEASED_GRID = (16, 16)  # tokens of V-JEPA 2.1's first training, which its rotary coordinates are scaled to


@dataclass(kw_only=True)
class Facts:
    """What tensors do not show of a Transformer; None where the source does not say.

    Attributes:
        heads: attention heads.
        norm_eps: of the norms.
        rotary: the form of rotary attention; "none" without.
        rotary_grid: (rows, columns) that rotary coordinates are scaled to; None: not scaled.
    """

    heads: int | None = None
    norm_eps: float | None = None
    rotary: str | None = None
    rotary_grid: tuple[int, ...] | None = None


@dataclass(kw_only=True)
class Weights:
    """The encoder and predictor of a source.

    Released weights have these names: `patch.weight` (D, C, h, w) or (D, C, t, h, w) and `patch.bias`, `positions`
    (N, D) where they are stored, `layers.I.` and norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2, `norm`; of the
    predictor `embed`, `mask_token` (n, W), `positions`, `layers.I.`, `norm` and `project`. Ours have their own.

    Attributes:
        source: as given.
        family: in words.
        ours: whether names are those of our modules.
        encoder: the encoder's.
        taken: which of the source's encoders, in its own words.
        predictor: the predictor's; None where there is none.
        facts: of the encoder.
        predictor_facts: of the predictor.
        grid: tokens along each axis, where the source says so.
        left_out: what of the source is not used.
        unsure: the source may be of V-JEPA or of V-JEPA 2: it holds positions, which the latter does not use.
        config: of a run of ours: its model's settings.
        data: its data's.
        tokenizer: its tokenizer's statistics.
        notes: what was done to fit a model, for the line.
    """

    source: str
    family: str
    encoder: State
    taken: str
    ours: bool = False
    predictor: State | None = None
    facts: Facts = field(default_factory=Facts)
    predictor_facts: Facts = field(default_factory=Facts)
    grid: tuple[int, ...] | None = None
    left_out: list[str] = field(default_factory=list)
    unsure: bool = False
    config: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    tokenizer: State | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Channels of the encoder."""
        return len(self.encoder["norm.weight"])

    @property
    def patch(self) -> tuple[int, ...]:
        """(C, h, w) or (C, t, h, w) of a token."""
        return tuple(self.encoder["patch.weight"].shape[1:])

    def line(self) -> str:
        """Say in one line what was taken and what was left out."""
        parts = [f"{self.family}, {self.taken} of {self.source}: {_sizes(self.encoder, self.ours)}"]
        if self.facts.rotary not in (None, "none"):
            parts.append(f"rotary {self.facts.rotary}")
        parts += dict.fromkeys(self.notes)
        if self.predictor is not None:
            parts.append(f"predictor {_sizes(self.predictor, self.ours)}")
        more = f" and {len(self.left_out) - _LISTED} more" if len(self.left_out) > _LISTED else ""
        parts.append(f"left out: {', '.join(self.left_out[:_LISTED]) or 'nothing'}{more}")
        return "weights: " + "; ".join(parts)


def _sizes(state: State, ours: bool) -> str:
    norm = state.get("transformer.norm.weight" if ours else "norm.weight")
    found = [] if norm is None else [f"{len(norm)} wide"]
    numbers = {key.split("layers.")[1].split(".")[0] for key in state if "layers." in key}
    found += [f"{len(numbers)} layer{'s' * (len(numbers) > 1)}"] if numbers else []
    if "patch.weight" in state:
        found.append("patches of " + " x ".join(map(str, state["patch.weight"].shape[2:])))
    millions = sum(math.prod(value.shape) for value in state.values()) / 1e6
    return ", ".join([*found, f"{millions:.3g} M numbers"])


def depth(state: State) -> int:
    """Count the layers of released weights."""
    return len({key.split(".")[1] for key in state if key.startswith("layers.")})


def fuse(state: State) -> State:
    """Join queries, keys and values, `attn.q`, `attn.k` and `attn.v`, to `attn.qkv`."""
    fused: State = {}
    for key, value in state.items():
        if ".attn.q." in key:
            parts = [state.get(key.replace(".attn.q.", f".attn.{name}.")) for name in "qkv"]
            if all(part is not None for part in parts):
                fused[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)  # type: ignore[arg-type]
            else:
                fused[key] = value
        elif not (".attn.k." in key or ".attn.v." in key):
            fused[key] = value
    return fused


def split(state: State) -> State:
    """The inverse of `fuse`."""
    parted: State = {}
    for key, value in state.items():
        if ".attn.qkv." in key:
            for name, part in zip("qkv", value.chunk(3), strict=True):
                parted[key.replace(".attn.qkv.", f".attn.{name}.")] = part.clone()
        else:
            parted[key] = value
    return parted
