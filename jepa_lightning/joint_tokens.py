"""Tokens and masks of several modalities, one behind the other: what a `Multimodal` makes of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.tokens import Masks, Ragged, Tokens, take


class JointValues(Ragged):
    """Stand in for the raw values of tokens of several modalities, which only each one's own encoder reads.

    Args:
        batch: B.
        count: N, of all modalities together.
    """

    def __init__(self, batch: int, count: int) -> None:
        self.size = batch, count

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (B, N)."""
        return self.size

    def take(self, index: Tensor, valid: Tensor | None = None) -> Ragged:
        """Refuse: which modality a token is of cannot be told from its number alone."""
        raise ValueError(
            "tokens of several modalities are hidden modality by modality, which only the pretext CrossModal does: set "
            "model.pretext to CrossModal"
        )


@dataclass(frozen=True, kw_only=True)
class JointTokens(Tokens):
    """The tokens of several modalities: those of the first, then those of the second, and so on.

    `positions` are (B or 1, N, 1 + P): the number of the modality, then a token's coordinates, followed by zeros where
    another modality has more of them.

    Attributes:
        parts: the tokens of each modality by name, whole.
        numbers: the number of each modality.
        kept: of each modality of which not all is seen: (B, K) indices into its own tokens, and which are real.
    """

    parts: Mapping[str, Tokens]
    numbers: Mapping[str, int]
    kept: Mapping[str, tuple[Tensor, Tensor | None]] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the number of seen tokens of each modality."""
        return {name: self.kept[name][0].shape[1] if name in self.kept else p.count for name, p in self.parts.items()}

    def only(self, kept: Mapping[str, tuple[Tensor, Tensor | None]]) -> JointTokens:
        """Return the same samples with some modalities seen in part only."""
        return join_tokens(self.parts, numbers=self.numbers, kept=kept)

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Cut (B, N, ...) into what belongs to each modality."""
        return dict(zip(self.parts, values.split(list(self.sizes.values()), dim=1), strict=True))


def join_tokens(
    parts: Mapping[str, Tokens],
    *,
    numbers: Mapping[str, int],
    kept: Mapping[str, tuple[Tensor, Tensor | None]] | None = None,
) -> JointTokens:
    """Join the tokens of several modalities.

    Args:
        parts: by name, of the same samples.
        numbers: the number of each modality.
        kept: see `JointTokens`.

    Raises:
        ValueError: the modalities have different numbers of samples.
    """
    kept = kept or {}
    samples = {name: part.batch_size for name, part in parts.items()}
    if len(set(samples.values())) != 1:
        raise ValueError(f"expected as many samples of each modality in a batch, got {samples}: they come in pairs")
    batch = next(iter(samples.values()))
    axes = max(part.positions.shape[2] for part in parts.values())
    places, valid = [], []
    for name, part in parts.items():
        where, real = part.positions.float(), part.valid
        if name in kept:
            index, filled = kept[name]
            where = take(where, index)
            real = _both(None if real is None else take(real, index), filled)
        where = F.pad(where, (0, axes - where.shape[2]))
        places.append(F.pad(where, (1, 0), value=float(numbers[name])))
        valid.append(real)
    rows = max(where.shape[0] for where in places)
    positions = torch.cat([where.expand(rows, -1, -1) for where in places], dim=1)
    count = positions.shape[1]
    return JointTokens(
        values=JointValues(batch, count),
        positions=positions,
        valid=join_valid(valid, [where.shape[1] for where in places], batch, positions.device),
        parts=parts,
        kept=kept,
        numbers=numbers,
    )


def join_valid(
    valid: Sequence[Tensor | None], counts: Sequence[int], batch: int, device: torch.device
) -> Tensor | None:
    """Join validities (B, N) of several modalities, None for all real, to one; None where all are."""
    if all(real is None for real in valid):
        return None
    full = [
        torch.ones(batch, count, dtype=torch.bool, device=device) if real is None else real
        for real, count in zip(valid, counts, strict=True)
    ]
    return torch.cat(full, dim=1)


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one & other


@dataclass(frozen=True, kw_only=True)
class JointMasks(Masks):
    """A draw of masks in which one modality hides some tokens and the others show all.

    Indices are those of `JointTokens`; the context holds what is kept of the one and all tokens of the others, in the
    order of the modalities.

    Attributes:
        part: name of the modality that hides tokens.
        own: its masks, with indices into its own tokens.
    """

    part: str
    own: Masks

    def to(self, device: torch.device) -> JointMasks:
        """Copy the masks to `device` without synchronisation."""
        moved = super().to(device)
        return replace(self, **{name: getattr(moved, name) for name in Masks.__dataclass_fields__},
                       own=self.own.to(device))  # fmt: skip


def join_masks(tokens: JointTokens, part: str, own: Masks) -> JointMasks:
    """Make the masks of one modality those of all: the others' tokens join the context.

    Args:
        tokens: of all modalities, whole.
        part: name of the one whose masks they are.
        own: with indices into its own tokens.
    """
    starts = dict(zip(tokens.parts, [0, *accumulate(tokens.sizes.values())][:-1], strict=True))
    batch, device = tokens.batch_size, own.context.device
    context, valid, counts = [], [], []
    for name, of in tokens.parts.items():
        if name == part:
            context.append(own.context + starts[name])
            valid.append(own.context_valid)
        else:
            context.append(torch.arange(of.count, device=device).expand(batch, -1) + starts[name])
            valid.append(of.valid)
        counts.append(context[-1].shape[1])
    return JointMasks(
        context=torch.cat(context, dim=1),
        targets=own.targets + starts[part],
        context_valid=join_valid(valid, counts, batch, device),
        targets_valid=own.targets_valid,
        part=part,
        own=own,
    )
