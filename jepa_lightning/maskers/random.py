"""Unstructured masking: draw context and target tokens one by one."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.grids import sorted_slots
from jepa_lightning.tokens import Masks, Tokens, send


class Random(Masker):
    """Random tokens as context and as targets, disjoint, with the same counts at every step. Needs no grid.

    The target tokens are split at random into M disjoint blocks of T = round(target_ratio * N / M) tokens; the context
    has K = round(context_ratio * N), or all the rest. At least one token is context, and T is at least 1. Indices come
    in ascending order, the targets within each block. (The masking of MAE, He et al. 2022, for a predictor.)

    If tokens have padding (`Tokens.valid`), only valid ones are drawn, with ratios of each sample's number
    of valid tokens: the first slots are real, as `context_valid` and `targets_valid` say, the rest is filler (index 0).
    K and T follow from N, so shapes do not depend on the data; with M > 1 rounding can cost a sample a few context
    tokens. A sample with at most M valid tokens gets one as context and no target; one without any gets neither. This
    is computed on the tokens' device, without synchronisation.

    Args:
        target_ratio: share of target tokens, between 0 and 1 (both excluded).
        context_ratio: share of context tokens, at most 1 - target_ratio; None for all the rest.
        targets: number M of target blocks.

    Raises:
        ValueError: a setting is out of range; when called: there are fewer than M + 1 tokens, or `valid` does not
            have the shape (B, N).

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import Random
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.zeros(1, 64, 2))
        >>> masks = Random(target_ratio=0.5, targets=2)(tokens, torch.Generator().manual_seed(0))
        >>> masks[0].context.shape, masks[0].targets.shape
        (torch.Size([2, 32]), torch.Size([2, 2, 16]))
    """

    def __init__(self, *, target_ratio: float = 0.6, context_ratio: float | None = None, targets: int = 1) -> None:
        if not 0 < target_ratio < 1:
            raise ValueError(f"target_ratio must lie between 0 and 1, got {target_ratio}")
        if context_ratio is not None and not 0 < context_ratio <= 1 - target_ratio + 1e-9:
            raise ValueError(
                f"context_ratio must be above 0 and at most 1 - target_ratio = {1 - target_ratio:g}, "
                f"got {context_ratio}; give null for all the rest"
            )
        if targets < 1:
            raise ValueError(f"targets must be at least 1, got {targets}")
        self.target_ratio = target_ratio
        self.context_ratio = context_ratio
        self.targets = targets

    @property
    def reads_shapes_only(self) -> bool:
        """Return True, of tokens without padding."""
        return True

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw one `Masks`: context (B, K) and targets (B, M, T), on the tokens' device."""
        batch, count = tokens.batch_size, tokens.count
        if count <= self.targets:
            raise ValueError(
                f"{count} tokens cannot be split into {self.targets} target blocks and a context: "
                f"use more tokens or lower targets"
            )
        keys = torch.rand(batch, count, generator=generator, device=generator.device)
        if tokens.valid is not None:
            if tokens.valid.shape != keys.shape:
                raise ValueError(f"Tokens.valid must be {tuple(keys.shape)} (B, N), got {tuple(tokens.valid.shape)}")
            return [self._among_valid(send(keys, tokens.device), tokens.valid)]
        keep, hide = self._counts(count)
        order = keys.argsort(dim=1)
        context = order[:, :keep].sort(dim=1).values
        targets = order[:, keep : keep + self.targets * hide].unflatten(1, (self.targets, hide)).sort(dim=2).values
        return [Masks(context=context, targets=targets).to(tokens.device)]

    def _counts(self, count: int) -> tuple[int, int]:
        return counts(count, target_ratio=self.target_ratio, context_ratio=self.context_ratio, targets=self.targets)

    def _among_valid(self, keys: Tensor, valid: Tensor) -> Masks:
        """Masks that draw among the valid tokens only; `keys` (B, N) in [0, 1) are the draw."""
        device, count = valid.device, valid.shape[1]
        keep, hide = self._counts(count)
        table = send(table_of_counts(count, self.target_ratio, self.context_ratio, self.targets), device)
        keeps, hides = table[valid.sum(1)].unbind(1)  # (B,) each
        order = keys.masked_fill(~valid, 2.0).argsort(dim=1)  # padding last

        slots = torch.arange(keep, device=device)
        context_valid = slots < keeps[:, None]  # (B, K)
        context, context_valid = sorted_slots(order[:, :keep], context_valid)

        slots = torch.arange(hide, device=device)
        starts = keeps[:, None] + hides[:, None] * torch.arange(self.targets, device=device)  # (B, M)
        targets_valid = (slots < hides[:, None, None]).repeat(1, self.targets, 1)  # (B, M, T)
        ranks = (starts[:, :, None] + slots).clamp(max=count - 1)
        targets, targets_valid = sorted_slots(order.gather(1, ranks.flatten(1)).view_as(ranks), targets_valid)
        return Masks(context=context, targets=targets, context_valid=context_valid, targets_valid=targets_valid)


@lru_cache(maxsize=8192)
def counts(count: int, *, target_ratio: float, context_ratio: float | None, targets: int) -> tuple[int, int]:
    """Context tokens, and target tokens in each of `targets` blocks, of a sample with `count` tokens."""
    if count <= targets:
        return min(count, 1), 0
    hide = max(int(target_ratio * count / targets + 0.5), 1)
    hide = min(hide, (count - 1) // targets)
    rest = count - targets * hide
    return rest if context_ratio is None else min(max(int(context_ratio * count + 0.5), 1), rest), hide


@lru_cache(maxsize=64)
def table_of_counts(count: int, target_ratio: float, context_ratio: float | None, targets: int) -> Tensor:
    """`counts` of samples of 0 to `count` tokens, none above those of `count`: (count + 1, 2), not to be changed."""
    ratios = {"target_ratio": target_ratio, "context_ratio": context_ratio}
    table = torch.tensor([counts(n, **ratios, targets=targets) for n in range(count + 1)])
    return table.minimum(table[-1])
