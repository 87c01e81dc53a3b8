"""Blocks of nearest tokens around random tokens, from positions only."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from jepa_lightning.maskers.grids import as_slots, cover, sorted_slots
from jepa_lightning.maskers.shares import ShareMasker, check_tokens, length_of, lengths, size_of, sized
from jepa_lightning.tokens import Masks, Tokens, send, take


class SpatialBlocks(ShareMasker):
    """I-JEPA's multi-block masks without a grid: a block is the tokens nearest to a random one.

    3D-JEPA's sampling (Hu et al. 2024, arXiv:2409.15803, section 3.2) by Euclidean distance of `Tokens.positions`: M
    target blocks, which may overlap each other, and one large context block, from which all targets are removed. The
    centres and the two shares are drawn for each sample. If the targets cover the whole context block,
    the nearest token outside them is the context. Indices are in ascending order.

    The context's size depends on the positions. On the CPU, K is the batch's maximum; on any other
    device reading it would need a synchronisation, so K is the largest possible size. `context_valid` and
    `targets_valid` mark filler (index 0, after the real ones).

    With `fixed_size` there is none: T is the mean size of a target, and the context the K nearest tokens to its centre
    outside the targets, for K the mean share of what is left on average, and never more than is sure to be left.

    If tokens have padding (`Tokens.valid`), blocks hold valid tokens only, with shares of their number. A sample of
    at most M valid tokens has no target; one without any has no context either.

    Args:
        targets: number M of target blocks.
        target_share: range of a target block's share of the tokens.
        context_share: range of the context block's share of the tokens, before the targets are taken out.
        fixed_size: the same K and T at each step, for `torch.compile` and XLA.

    Raises:
        ValueError: a setting is out of range, or the targets could cover everything; when called: there are fewer than
            M + 1 tokens, or `valid` does not have the shape (B, N).

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import SpatialBlocks
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.rand(2, 64, 3))
        >>> masks = SpatialBlocks(targets=2, fixed_size=True)(tokens, torch.Generator().manual_seed(0))
        >>> masks[0].context.shape, masks[0].targets.shape
        (torch.Size([2, 41]), torch.Size([2, 2, 11]))
    """

    def __init__(
        self,
        *,
        targets: int = 4,
        target_share: tuple[float, float] = (0.15, 0.2),
        context_share: tuple[float, float] = (0.85, 1.0),
        fixed_size: bool = False,
    ) -> None:
        super().__init__(targets=targets, target_share=target_share, context_share=context_share, fixed_size=fixed_size)

    @torch.no_grad()
    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw one `Masks`: context (B, K) and targets (B, M, T), on the tokens' device."""
        batch, count, device = tokens.batch_size, tokens.count, tokens.device
        check_tokens(tokens, self.targets, "target blocks")
        chance = torch.rand(3 + self.targets, batch, generator=generator, device=generator.device)
        chance = send(chance, device)
        valid = torch.ones(batch, count, dtype=torch.bool, device=device) if tokens.valid is None else tokens.valid
        own = valid.sum(1)  # (B,) tokens of each sample

        # One centre for the context, then those of the targets: (B, 1 + M) and the distances (B, 1 + M, N) to them.
        rank = (chance[2:].t() * own[:, None]).floor().long().minimum(own[:, None] - 1).clamp(min=0)
        distance = _distances(tokens.positions, as_slots(valid, count).gather(1, rank))
        distance = distance.masked_fill(~valid[:, None], torch.inf)

        length = lengths(own, share=self._drawn(self.target_share, chance[0]), blocks=self.targets)
        sizes = [count] if tokens.valid is None else range(count + 1)
        longest = self._longest(sizes)
        near = distance[:, 1:].topk(longest, dim=2, largest=False).indices  # (B, M, T)
        real = (torch.arange(longest, device=device) < length[:, None, None]).expand(near.shape)
        covered = cover(near.masked_fill(~real, count).flatten(1), count + 1)[:, :count]  # (B, N)

        left = valid & ~covered
        order = distance[:, 0].masked_fill(~left, torch.inf).argsort(1)
        if self.fixed_size:
            table = [self._fixed_context(n) for n in range(count + 1)]
            keep = send(torch.tensor(table), device)[own]
        else:
            size = sized(self._drawn(self.context_share, chance[1]), own)
            block = distance[:, 0].argsort(1).argsort(1) < size[:, None]
            keep = (block & left).sum(1).maximum(left.sum(1).clamp(max=1))

        filler = True
        if self.fixed_size:
            most, filler = max(map(self._fixed_context, sizes)), tokens.valid is not None
        elif device.type == "cpu":
            most, longest = int(keep.max()), int(length.max())
            filler = most > int(keep.min()) or longest > int(length.min())
        else:
            most = self._most_context(sizes)
        shown = (torch.arange(most, device=device) < keep[:, None]).expand(batch, -1)
        context, context_valid = sorted_slots(order[:, :most], shown)
        targets, targets_valid = sorted_slots(near[..., :longest], real[..., :longest])
        if not filler:
            return [Masks(context=context, targets=targets)]
        return [Masks(context=context, targets=targets, context_valid=context_valid, targets_valid=targets_valid)]

    def _most_context(self, sizes: Iterable[int]) -> int:
        """The largest possible K of samples of so many tokens."""
        least, most = self.target_share[0], self.context_share[1]
        # At least one target block is taken out, of all tokens if not of the context's block.
        return max(min(n - length_of(n, share=least, blocks=self.targets), size_of(n, most)) for n in sizes)

    def _fixed_context(self, count: int) -> int:
        """K of a sample of `count` tokens, with `fixed_size`."""
        if count == 0:
            return 0
        length = length_of(count, share=sum(self.target_share) / 2, blocks=self.targets)
        expected = count * (1 - length / count) ** self.targets
        wanted = int(expected * sum(self.context_share) / 2 + 0.5)
        return min(max(wanted, 1), count - self.targets * length)


def _distances(positions: Tensor, centres: Tensor) -> Tensor:
    """Squared distances (B, C, N) of all tokens at `positions` (B or 1, N, P) to the tokens `centres` (B, C).

    All are finite, also where squares overflow or a position is NaN: what is left out has an infinite distance, and
    must be farther than any token.
    """
    positions = positions.to(torch.promote_types(positions.dtype, torch.float32))
    here = take(positions, centres).unsqueeze(2)  # (B, C, 1, P)
    most = torch.finfo(positions.dtype).max
    return (positions.unsqueeze(1) - here).square().sum(-1).nan_to_num(nan=most, posinf=most)
