"""Draw fixed numbers of context and target tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.grids import checked_range, sorted_slots
from jepa_lightning.maskers.shares import check_tokens, size_of, sized
from jepa_lightning.tokens import Masks, Tokens, send


class RandomCount(Masker):
    """K random tokens as context, and M others as target blocks of one token each. Needs no grid.

    Graph-JEPA's masks (Skenderi et al. 2023): one patch is the context, a few others are targets. All tokens of
    a sample are equally likely; context and targets are disjoint.

    A sample of n valid tokens has min(context, n - 1) as context, but at least one, and what is left, up to `targets`,
    as targets; so one of a single token has no target, and one of none has neither. K and M follow from N, so shapes do
    not depend on the data: the first slots are real, as `context_valid` and `targets_valid` say, the rest is filler
    (index 0). The context's indices ascend. This is computed on the tokens' device, without synchronisation.

    Args:
        context: number of context tokens.
        targets: number M of targets.
        context_share: for larger contexts, a range of the context's share of a sample's tokens in place of `context`:
            drawn for each sample, and rounded. It may leave fewer targets.

    Raises:
        ValueError: a setting is out of range; when called: there are no tokens, or `valid` does not have the shape (B,
            N).

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import RandomCount
        >>> tokens = Tokens(values=torch.zeros(2, 8, 3), positions=torch.zeros(1, 8, 2))
        >>> masks = RandomCount(targets=3)(tokens, torch.Generator().manual_seed(0))
        >>> masks[0].context.shape, masks[0].targets.shape
        (torch.Size([2, 1]), torch.Size([2, 3, 1]))
    """

    def __init__(self, *, context: int = 1, targets: int = 4, context_share: tuple[float, float] | None = None) -> None:
        for name, value in (("context", context), ("targets", targets)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.context = context
        self.targets = targets
        self.context_share = None if context_share is None else checked_range("context_share", context_share, most=1.0)

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw one `Masks`: context (B, K) and targets (B, M, 1), on the tokens' device."""
        check_tokens(tokens, 0, "target blocks")
        batch, count = tokens.batch_size, tokens.count
        keys = torch.rand(batch, count, generator=generator, device=generator.device)
        share = None
        if self.context_share is not None:
            low, high = self.context_share
            share = low + (high - low) * torch.rand(batch, generator=generator, device=generator.device)
            share = send(share, tokens.device)
        keys = send(keys, tokens.device)
        valid = torch.ones_like(keys, dtype=torch.bool) if tokens.valid is None else tokens.valid
        real = valid.sum(1)
        asked = torch.full_like(real, self.context) if share is None else sized(share, real)
        keep = asked.minimum((real - 1).clamp(min=1)).minimum(real)  # (B,)
        hide = (real - keep).clamp(max=self.targets)
        fewest, most = self._contexts(count)
        masks = self._drawn(
            keys.masked_fill(~valid, 2.0), keep, hide, (most, max(min(self.targets, count - fewest), 1))
        )
        if tokens.valid is None and share is None and count > 1:  # every slot is real
            masks = Masks(context=masks.context, targets=masks.targets)
        return [masks]

    def _contexts(self, count: int) -> tuple[int, int]:
        """The smallest and the largest context of a sample of `count` tokens; no smaller sample has more targets."""
        if self.context_share is None:
            low = high = self.context
        else:
            low, high = (size_of(count, share) for share in self.context_share)
        most = max(count - 1, 1)
        return min(low, most), min(high, most)

    @staticmethod
    def _drawn(keys: Tensor, keep: Tensor, hide: Tensor, sizes: tuple[int, int]) -> Masks:
        """The tokens of the smallest `keys` (B, N): `keep` (B,) as context, then `hide` (B,) targets; `sizes` K, M."""
        order = keys.argsort(dim=1)
        slot = torch.arange(max(sizes), device=keys.device)
        context, context_valid = sorted_slots(order[:, : sizes[0]], slot[: sizes[0]] < keep[:, None])
        targets_valid = slot[: sizes[1]] < hide[:, None]
        rank = (keep[:, None] + slot[: sizes[1]]).clamp(max=keys.shape[1] - 1)
        targets = order.gather(1, rank).masked_fill(~targets_valid, 0)
        return Masks(
            context=context,
            targets=targets.unsqueeze(2),
            context_valid=context_valid,
            targets_valid=targets_valid.unsqueeze(2),
        )
