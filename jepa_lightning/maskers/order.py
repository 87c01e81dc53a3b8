"""Masks for ordered tokens, such as Point-JEPA's (Saito et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from jepa_lightning.maskers.grids import marked_slots
from jepa_lightning.maskers.shares import ShareMasker, check_tokens, length_of, lengths, size_of, sized
from jepa_lightning.tokens import Masks, Tokens, send


class OrderedRuns(ShareMasker):
    """Contiguous runs of ordered tokens as targets, and a run of the remaining tokens as context.

    Point-JEPA's masks (Saito et al. 2024, arXiv:2404.16432, section 3.3), for tokens whose neighbours in the order are
    neighbours in space (or time). M target runs are placed anywhere and may overlap. The context is contiguous in
    the order after all targets are taken out. Starts and shares are drawn for each sample; its M runs have one length.
    Indices are in ascending order.

    Samples have their own numbers of tokens: T and K are the batch's maxima, `targets_valid` and `context_valid` mark
    the filler of smaller ones (index 0, after the real ones), and are None without filler. This is decided from
    the draw, on the generator's device.

    With `fixed_size` all samples have the mean length T and the same K, without filler, and nothing waits for any
    device: K is the mean share of the number of tokens that are left on average, and never more than are sure to be.

    If tokens have padding (`Tokens.valid`), runs are placed among each sample's valid tokens, in their order and with
    shares of their number. T and K then follow from N, not from the data, and the masks mark filler. A sample of
    at most M valid tokens has no target; one without any has no context either. Nothing waits for the tokens' device.

    Args:
        targets: number M of target runs.
        target_share: range of a target run's share of the tokens.
        context_share: range of the context's share of the tokens that the targets leave.
        fixed_size: the same K and T at each step, for `torch.compile` and XLA.

    Raises:
        ValueError: a setting is out of range, or the targets could cover everything; when called: there are fewer than
            M + 1 tokens, or `valid` does not have the shape (B, N).

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import OrderedRuns
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.zeros(1, 64, 3))
        >>> masks = OrderedRuns(targets=2, fixed_size=True)(tokens, torch.Generator().manual_seed(0))
        >>> masks[0].context.shape, masks[0].targets.shape
        (torch.Size([2, 25]), torch.Size([2, 2, 11]))
    """

    def __init__(
        self,
        *,
        targets: int = 4,
        target_share: tuple[float, float] = (0.15, 0.2),
        context_share: tuple[float, float] = (0.4, 0.75),
        fixed_size: bool = False,
    ) -> None:
        super().__init__(targets=targets, target_share=target_share, context_share=context_share, fixed_size=fixed_size)

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw one `Masks`: context (B, K) and targets (B, M, T), on the tokens' device."""
        batch, count = tokens.batch_size, tokens.count
        check_tokens(tokens, self.targets, "target runs")
        chance = torch.rand(3 + self.targets, batch, generator=generator, device=generator.device)
        valid = tokens.valid
        if valid is None:
            valid = torch.ones(batch, count, dtype=torch.bool, device=generator.device)
        chance = send(chance, valid.device)
        own = valid.sum(1)  # (B,) tokens of each sample

        length = lengths(own, share=self._drawn(self.target_share, chance[0]), blocks=self.targets)
        covered = _run(valid[:, None], _place(chance[3:].t(), own[:, None], length[:, None]), length[:, None])
        left = valid & ~covered.any(1)  # (B, N)
        rest = left.sum(1)
        if self.fixed_size:
            table = [self._fixed_context(n) for n in range(count + 1)]
            keep = send(torch.tensor(table), own.device)[own]
        else:
            keep = sized(self._drawn(self.context_share, chance[1]), rest)
        shown = _run(left[:, None], _place(chance[2:3].t(), rest[:, None], keep[:, None]), keep[:, None]).squeeze(1)

        if tokens.valid is None and not self.fixed_size:
            most, longest = int(keep.max()), int(length.max())
            filler = most > int(keep.min()), longest > int(length.min())
        else:
            sizes = [count] if tokens.valid is None else range(count + 1)
            most, longest = self._most_context(sizes), self._longest(sizes)
            filler = tokens.valid is not None, tokens.valid is not None
        context, context_valid = marked_slots(shown, most)
        targets, targets_valid = marked_slots(covered.flatten(0, 1), longest)
        masks = Masks(
            context=context,
            targets=targets.unflatten(0, (batch, self.targets)),
            context_valid=context_valid if filler[0] else None,
            targets_valid=targets_valid.unflatten(0, (batch, self.targets)) if filler[1] else None,
        )
        return [masks.to(tokens.device)]

    def _most_context(self, sizes: Iterable[int]) -> int:
        """The largest possible K of samples of so many tokens."""
        if self.fixed_size:
            return max(map(self._fixed_context, sizes))
        # At least one run is taken out, wherever the others are.
        least = self.target_share[0]
        return max(size_of(n - length_of(n, share=least, blocks=self.targets), self.context_share[1]) for n in sizes)

    def _fixed_context(self, count: int) -> int:
        """K of a sample of `count` tokens, with `fixed_size`."""
        length = length_of(count, share=sum(self.target_share) / 2, blocks=self.targets)
        wanted = int(_mean_left(count, length, self.targets) * sum(self.context_share) / 2 + 0.5)
        return min(max(wanted, 1), count - self.targets * length)


@lru_cache(maxsize=8192)
def _mean_left(count: int, length: int, runs: int) -> float:
    """Mean number of `count` tokens outside of `runs` runs at random places."""
    places = count - length + 1
    covering = (min(i, places - 1) - max(i - length + 1, 0) + 1 for i in range(count))  # places of a run over token i
    return sum((1 - number / places) ** runs for number in covering)


def _place(chance: Tensor, count: Tensor, length: Tensor) -> Tensor:
    """First rank of runs of `length` among `count` tokens, uniform over all places, for chances from 0 to below 1."""
    places = count - length + 1
    return (chance * places).floor().long().minimum(places - 1)  # rounding could reach one place too many


def _run(members: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """The tokens of `members` (B, 1, N) whose rank among them lies in a run (B, M): (B, M, N) bool."""
    rank = members.cumsum(2) - 1
    return members & (rank >= start[..., None]) & (rank < (start + length)[..., None])
