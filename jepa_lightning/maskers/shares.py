"""Maskers by share of the tokens, without a grid: what they have in common."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.grids import checked_range
from jepa_lightning.tokens import Tokens


class ShareMasker(Masker):
    """M target blocks of one share of a sample's tokens, and a context of another; both shares drawn from ranges.

    Args:
        targets: number M of target blocks.
        target_share: range of a target block's share of the tokens.
        context_share: range of the context's share.
        fixed_size: the mean shares at each step.

    Raises:
        ValueError: a setting is out of range, or the targets could cover everything.
    """

    def __init__(
        self,
        *,
        targets: int,
        target_share: tuple[float, float],
        context_share: tuple[float, float],
        fixed_size: bool,
    ) -> None:
        self.targets, self.target_share = checked_targets(targets, target_share)
        self.context_share = checked_range("context_share", context_share, most=1.0)
        self.fixed_size = fixed_size

    def _drawn(self, limits: tuple[float, float], chance: Tensor) -> Tensor:
        """Shares (B,) from a range: drawn, or all of them its mean."""
        low, high = limits
        return torch.full_like(chance, (low + high) / 2) if self.fixed_size else low + (high - low) * chance

    def _longest(self, sizes: Iterable[int]) -> int:
        """The largest possible T of samples of so many tokens."""
        low, high = self.target_share
        share = (low + high) / 2 if self.fixed_size else high
        return max(length_of(n, share=share, blocks=self.targets) for n in sizes)


def checked_targets(targets: int, share: tuple[float, float]) -> tuple[int, tuple[float, float]]:
    """A checked number of target blocks and range of their share, which leave a context."""
    if targets < 1:
        raise ValueError(f"targets must be at least 1, got {targets}")
    share = checked_range("target_share", share, most=1.0)
    if targets * share[1] >= 1:
        raise ValueError(
            f"{targets} targets of up to {share[1]:g} of the tokens can leave no context: lower targets or "
            "target_share so that their product is below 1"
        )
    return targets, share


def check_tokens(tokens: Tokens, blocks: int, what: str) -> None:
    """Refuse too few tokens for so many target blocks, and validity of another shape."""
    if tokens.count <= blocks:
        raise ValueError(
            f"{tokens.count} tokens are too few for {blocks} {what} and a context: use at least {blocks + 1}, or lower "
            "targets"
        )
    wanted = (tokens.batch_size, tokens.count)
    if tokens.valid is not None and tokens.valid.shape != wanted:
        raise ValueError(f"Tokens.valid must be {wanted} (B, N), got {tuple(tokens.valid.shape)}")


def sized(share: Tensor, count: Tensor) -> Tensor:
    """`share` of `count` tokens in whole tokens, at least one where there is one: int64."""
    return (share * count + 0.5).floor().long().clamp(min=1).minimum(count)


def lengths(count: Tensor, *, share: Tensor, blocks: int) -> Tensor:
    """Tokens in each of `blocks` blocks, a share of each sample's `count` (B,), that together leave at least one."""
    return sized(share, count).minimum((count - 1).clamp(min=0) // blocks)


@lru_cache(maxsize=8192)
def size_of(count: int, share: float) -> int:
    """`sized` of one sample, rounded as tensors are."""
    return int(sized(torch.tensor(share), torch.tensor(count)))


@lru_cache(maxsize=8192)
def length_of(count: int, *, share: float, blocks: int) -> int:
    """`lengths` of one sample, rounded as tensors are."""
    return int(lengths(torch.tensor(count), share=torch.tensor(share), blocks=blocks))
