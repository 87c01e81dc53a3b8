"""Multi-block masking on a grid of any number of axes (I-JEPA: Assran et al. 2023, section 3 and appendix A)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.grids import (
    block_cells,
    block_starts,
    by,
    checked_range,
    cover,
    fitting_draw,
    full_grid,
    sorted_slots,
    without_padding,
)
from jepa_lightning.tokens import Masks, Tokens, send, take

_ATTEMPTS = 100  # draws of targets for samples where the first ones hide too much; nearly always two are enough
_ATTEMPTS_FIXED = 4  # the same with fixed sizes, where every attempt is made for the whole batch
_FIXED_FILL = 0.9  # part of the expected visible tokens that a fixed context keeps, so that most samples have enough
_DRAWS = 8  # draws for each sample with padding, of which the first that suits its valid tokens is taken
_ASPECTS = 129  # aspects that are tried in looking for the largest blocks


def block_size(
    grid: Sequence[int], *, scale: float, aspect: float = 1.0, leading: Sequence[float] = ()
) -> tuple[int, ...]:
    """Compute the size of a block in tokens.

    On the last two axes the block covers `scale` of the area with height / width = `aspect` (in tokens). A
    side longer than its axis is clipped to the axis, and the other side grows so that the area stays the same. On a
    grid of one axis it is `scale` long. Sizes are rounded, at least 1 and at most the grid's.

    Args:
        grid: tokens along each axis.
        scale: fraction of the last two axes' area, above 0 and at most 1.
        aspect: height over width, positive; no effect on one axis.
        leading: fraction of each axis before the last two; one that is not given is 1.
    """
    shares = [*leading, *[1.0] * len(grid)]
    sides = [size * share for size, share in zip(grid[:-2], shares, strict=False)]
    if len(grid) == 1:
        sides.append(scale * grid[0])
    else:
        height, width = grid[-2:]
        area = scale * height * width
        tall = min(max(math.sqrt(area * aspect), area / width), height)  # area / width: the width is clipped
        sides += [tall, area / tall]
    return tuple(min(max(round(side), 1), size) for side, size in zip(sides, grid, strict=True))


@lru_cache(maxsize=256)
def largest_blocks(
    grid: tuple[int, ...], scale: float, aspects: tuple[float, float], leading: float
) -> tuple[tuple[int, ...], ...]:
    """Return the sizes of blocks of the highest scale over the range of aspects."""
    low, high = aspects
    tried = [low + (high - low) * i / (_ASPECTS - 1) for i in range(_ASPECTS)]
    shares = [leading] * max(len(grid) - 2, 0)
    return tuple(sorted({block_size(grid, scale=scale, aspect=aspect, leading=shares) for aspect in tried}))


@lru_cache(maxsize=4096)
def expected_visible(
    grid: tuple[int, ...], *, target: tuple[int, ...], targets: int, context: tuple[int, ...] | None = None
) -> float:
    """Compute the expected number of tokens outside all target blocks, in a context block or (None) on the whole grid.

    Blocks lie independently and uniformly over all their placements, so a token's chance of being covered is a product
    over the axes.
    """

    def covered(block: tuple[int, ...]) -> list[float]:
        chances = []
        for size, length in zip(grid, block, strict=True):
            last = size - length  # the last place where a block can start
            chances.append([(min(i, last) - max(0, i - length + 1) + 1) / (last + 1) for i in range(size)])
        return [math.prod(chance) for chance in product(*chances)]

    hidden = covered(target)
    inside = covered(context) if context else [1.0] * len(hidden)
    return sum(c * (1 - t) ** targets for c, t in zip(inside, hidden, strict=True))


class MultiBlock(Masker):
    """I-JEPA's masks: a few target blocks, and a large context block without the target tokens.

    One target size and one context size are drawn for the batch, scale and aspect independently. Each block of
    each sample is then placed uniformly over all placements. Target blocks may overlap each other; the context never
    overlaps a target. Contexts of unequal length are cut to one size K by dropping random tokens. Indices are in
    raster order, those of targets within each block.

    Deviations from the paper (Assran et al. 2023):
        - A sample whose context block keeps fewer than `min_context` tokens gets random tokens from outside the block,
          none of them targets (the paper draws the masks again).
        - Only if all targets together leave fewer than `min_context` tokens, the sample's targets are drawn again, a
          bounded number of times; if all draws fail, its blocks are placed on top of one of them. Settings that do not
          leave `min_context` tokens on average are refused at the first batch, so a run does not fail later.
        - Aspects are measured in tokens, also on grids that are not square; a clipped block keeps its area.

    With `fixed_size`, K and T depend on the grid and the settings only, not on the draw or the batch size: sizes
    are those of the mean scale and the (geometric) mean aspect, and K is 0.9 of the tokens that the context block is
    expected to keep (at least `min_context`). A sample with more drops random ones, one with fewer gets random tokens
    from outside its context block; targets that leave fewer than K are drawn again as above, up to 3 times. There is
    no synchronisation, on any generator device. Without `fixed_size`, K is the batch's minimum, so large
    batches have smaller contexts.

    If tokens have padding (`Tokens.valid`), blocks are placed as if there were none, and padding is removed from the
    targets and the context. Of 8 draws for a sample, the first is used whose targets hold a valid token and leave
    `min_context` of them (or half of them, if that is less). If there is none, random tokens of the first draw's
    targets become context. A context is filled up to that number only; blocks of padding only have no real slot. K and
    T are as without padding, without synchronisation.

    Args:
        targets: number M of target blocks.
        target_scale: range of a target's share of the grid (of its last two axes).
        target_aspect: range of a target's height over width.
        context_scale: range of the context block's share.
        context_aspect: range of the context block's height over width.
        min_context: smallest number of context tokens K.
        leading_scale: range of the share of each axis before the last two that a block spans (time in a video); one
            share is drawn for each axis, separately for targets and context. No effect on grids of one or two axes.
        fixed_size: the same K and T at each step, for `torch.compile` and XLA.

    Raises:
        ValueError: a setting is out of range; when called: the tokens fill no grid, or the masks do not fit it.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import MultiBlock
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.zeros(1, 64, 2), grid=(8, 8))
        >>> masks = MultiBlock(targets=2, fixed_size=True)(tokens, torch.Generator().manual_seed(0))
        >>> masks[0].context.shape, masks[0].targets.shape
        (torch.Size([2, 42]), torch.Size([2, 2, 9]))
    """

    def __init__(
        self,
        *,
        targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_aspect: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        context_aspect: tuple[float, float] = (1.0, 1.0),
        min_context: int = 10,
        leading_scale: tuple[float, float] = (1.0, 1.0),
        fixed_size: bool = False,
    ) -> None:
        for name, value in (("targets", targets), ("min_context", min_context)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.targets = targets
        self.target_scale = checked_range("target_scale", target_scale, most=1.0)
        self.target_aspect = checked_range("target_aspect", target_aspect)
        self.context_scale = checked_range("context_scale", context_scale, most=1.0)
        self.context_aspect = checked_range("context_aspect", context_aspect)
        self.min_context = min_context
        self.leading_scale = checked_range("leading_scale", leading_scale, most=1.0)
        self.fixed_size = fixed_size

    @property
    def reads_shapes_only(self) -> bool:
        """Return True, of tokens without padding."""
        return True

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """One `Masks`: context (B, K) and targets (B, M, T), on the tokens' device."""
        grid, draws = full_grid(tokens, "MultiBlock", padding=True), 1 if tokens.valid is None else _DRAWS
        batch = tokens.batch_size * draws
        target, context = self._middle_sizes(grid) if self.fixed_size else self._draw_sizes(grid, generator)
        self._check_fit(grid, target)
        keep = self._fixed_keep(grid, target, context) if self.fixed_size else None

        targets, hidden = self._place_targets(grid, target, batch, least=keep or self.min_context, generator=generator)
        block = block_starts(grid, context, (batch, 1), generator) + block_cells(grid, context, generator.device)
        inside = cover(block, tokens.count)
        if keep is None:
            keep = max(self.min_context, int((inside & ~hidden).sum(1).min()))

        if tokens.valid is not None:
            return [self._among_valid(targets, hidden, inside, keep, tokens.valid, generator)]
        # The smallest keys are kept: what the context block shows, at random, then what lies outside; never targets.
        keys = torch.rand(hidden.shape, generator=generator, device=generator.device)
        keys = keys + torch.where(inside, 0.0, 2.0) + torch.where(hidden, 4.0, 0.0)
        kept = keys.topk(keep, dim=1, largest=False, sorted=False).indices.sort(dim=1).values
        return [Masks(context=kept, targets=targets).to(tokens.device)]

    def _among_valid(
        self, targets: Tensor, hidden: Tensor, inside: Tensor, keep: int, valid: Tensor, generator: torch.Generator
    ) -> Masks:
        """Masks of the valid tokens (B, N), from several draws (B draws, ...) of targets and context blocks."""
        keys = torch.rand(valid.shape, generator=generator, device=generator.device)
        keys = send(keys, valid.device)
        drawn = [send(part, valid.device).unflatten(0, (-1, _DRAWS)) for part in (targets, hidden, inside)]
        best = fitting_draw(drawn[1], valid, self.min_context) + _DRAWS * torch.arange(len(valid), device=valid.device)
        targets, hidden, inside = (part.flatten(0, 1)[best] for part in drawn)

        visible, hidden = without_padding(hidden, valid, self.min_context, keys)
        keys = keys + torch.where(inside, 0.0, 2.0) + torch.where(visible, 0.0, 4.0)
        kept = keys.topk(keep, dim=1, largest=False, sorted=True).indices
        wanted = (visible & inside).sum(1).maximum(visible.sum(1).clamp(max=self.min_context))
        context, context_valid = sorted_slots(kept, torch.arange(keep, device=valid.device) < wanted[:, None])
        targets, targets_valid = sorted_slots(targets, take(hidden, targets))
        return Masks(context=context, targets=targets, context_valid=context_valid, targets_valid=targets_valid)

    def _draw_sizes(self, grid: tuple[int, ...], generator: torch.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes of the batch's target and context blocks."""
        for size in largest_blocks(grid, self.target_scale[1], self.target_aspect, self.leading_scale[1]):
            self._check_fit(grid, size)  # at the first batch, not at the one where this size happens to be drawn
        ranges = [self.leading_scale] * max(len(grid) - 2, 0)
        ranges = [self.target_scale, self.target_aspect, *ranges, self.context_scale, self.context_aspect, *ranges]
        chances = torch.rand(len(ranges), generator=generator, device=generator.device).tolist()
        drawn = [low + (high - low) * chance for (low, high), chance in zip(ranges, chances, strict=True)]
        half = len(drawn) // 2
        sizes = [block_size(grid, scale=d[0], aspect=d[1], leading=d[2:]) for d in (drawn[:half], drawn[half:])]
        return sizes[0], sizes[1]

    def _middle_sizes(self, grid: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes of target and context blocks in the middle of their ranges."""
        leading = [sum(self.leading_scale) / 2] * max(len(grid) - 2, 0)
        ranges = ((self.target_scale, self.target_aspect), (self.context_scale, self.context_aspect))
        sizes = [
            block_size(grid, scale=sum(scale) / 2, aspect=math.sqrt(math.prod(aspect)), leading=leading)
            for scale, aspect in ranges
        ]
        return sizes[0], sizes[1]

    def _fixed_keep(self, grid: tuple[int, ...], target: tuple[int, ...], context: tuple[int, ...]) -> int:
        """K of `fixed_size`; at most what is left where all target blocks lie on each other."""
        expected = expected_visible(grid, target=target, targets=self.targets, context=context)
        return min(max(self.min_context, int(_FIXED_FILL * expected)), math.prod(grid) - math.prod(target))

    def _check_fit(self, grid: tuple[int, ...], target: tuple[int, ...]) -> None:
        """Refuse a grid on which targets of this size do not even leave `min_context` tokens on average."""
        left = expected_visible(grid, target=target, targets=self.targets)
        if left < self.min_context - 1e-6:
            raise ValueError(
                f"the masks do not fit a grid of {by(grid)} ({math.prod(grid)} tokens): {self.targets} target blocks "
                f"of {by(target)} leave {left:.1f} tokens on average, and the context needs {self.min_context}; use "
                f"more tokens (a larger input or smaller patches) or lower min_context, targets or target_scale"
            )

    def _place_targets(
        self, grid: tuple[int, ...], size: tuple[int, ...], batch: int, *, least: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Targets (B, M, T) that leave at least `least` tokens, and which tokens they hide (B, N)."""
        count = math.prod(grid)
        cells = block_cells(grid, size, generator.device)
        starts = block_starts(grid, size, (batch, self.targets), generator)
        for _ in range(_ATTEMPTS_FIXED if self.fixed_size else _ATTEMPTS):
            targets = starts.unsqueeze(-1) + cells
            hidden = cover(targets.flatten(1), count)
            fits = (hidden.sum(1, dtype=torch.int32) <= count - least).unsqueeze(1)
            if not self.fixed_size and bool(fits.all()):
                return targets, hidden
            others = block_starts(grid, size, (batch, self.targets), generator)
            starts = torch.where(fits, starts, others)
        targets = torch.where(fits, starts, starts[:, :1]).unsqueeze(-1) + cells
        return targets, cover(targets.flatten(1), count)
