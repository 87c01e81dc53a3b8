"""V-JEPA's masks: the target is a union of blocks, the context everything else (Bardes et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.blocks import block_size, expected_visible, largest_blocks
from jepa_lightning.maskers.grids import (
    by,
    checked_range,
    fitting_draw,
    full_grid,
    marked_slots,
    without_padding,
)
from jepa_lightning.tokens import Masks, Tokens, send

_ATTEMPTS = 100  # draws for samples where the first ones hide too much; nearly always two are enough
_CANDIDATES = 4  # unions drawn for each sample of a fixed size, of which the nearest to that size is taken
_DRAWS = 8  # unions drawn for each sample with padding, of which the first that suits its valid tokens is taken
_STEPS = 33  # aspects over which the expected size is averaged


class BlockUnion(Masker):
    """V-JEPA's multi-block masks (Bardes et al. 2024, arXiv:2404.08471, section 3.2): predict a union of blocks.

    The target of a sample is all that its blocks cover, the context all the rest. Blocks span the leading axes of the
    grid (time in a video), are placed independently and uniformly over all placements, and may overlap. Their size is
    drawn once per sample, scale and aspect independently. V-JEPA's short-range masks are 8 blocks of scale 0.15, its
    long-range ones 2 blocks of scale 0.7; `MultiMasker` combines the two.

    Every sample keeps its whole union and the whole complement, so the masked share does not depend on the batch
    size: K and T are the batch's maxima, and `context_valid` and `targets_valid` mark the filler of smaller samples
    (index 0, after the real ones, which are in raster order). If all samples have equal sizes, as in a batch of
    one, there is no filler and both are None. This is decided from the draw, on the generator's device.

    With `fixed_size` there is no filler either: T and K = N - T depend on the grid and the settings only. T is the
    expected size of the union, rounded, and at most N - min_context. Of 4 unions that are drawn for a sample, the one
    nearest in size is trimmed or grown at its edge to exactly T tokens; the context is its complement. There is no
    synchronisation, on any generator device.

    If tokens have padding (`Tokens.valid`), unions are drawn as if there were none, and padding is removed from the
    target and the context: both then have filler. Of 8 unions drawn for a sample, the first is used that
    hides a valid token and leaves `min_context` of them (or half of them, if that is less). If there is none, random
    tokens of the first union become context. There is no synchronisation with the tokens' device.

    Deviations from the published masks:
        - Nothing is truncated. The published code truncates all samples to the batch's smallest target and
          context in raster order: larger batches predict and see fewer tokens, and lose those at the bottom first.
        - A size is drawn for each sample instead of one for the batch; aspects are measured in tokens, also on grids
          that are not square; a clipped block keeps its area.
        - A union that leaves fewer than `min_context` tokens is drawn again, a bounded number of times; if all
          draws fail, it is a single block. Settings that do not leave `min_context` tokens on average are refused at
          the first batch.

    Args:
        blocks: number of blocks in a union.
        scale: range of a block's share of the last two axes' area.
        aspect: range of a block's height over width.
        leading_scale: range of the share of each axis before the last two that a block spans; one share is drawn for
            each axis. No effect on grids of one or two axes.
        fixed_size: the same K and T at each step, for `torch.compile` and XLA.
        min_context: smallest number of context tokens of a sample.

    Raises:
        ValueError: a setting is out of range; when called: the tokens fill no grid, or the masks do not fit it.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import BlockUnion
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.zeros(1, 64, 2), grid=(8, 8))
        >>> masks = BlockUnion(blocks=4, fixed_size=True)(tokens, torch.Generator().manual_seed(0))
        >>> masks[0].context.shape, masks[0].targets.shape
        (torch.Size([2, 35]), torch.Size([2, 1, 29]))
    """

    def __init__(
        self,
        *,
        blocks: int = 8,
        scale: tuple[float, float] = (0.15, 0.15),
        aspect: tuple[float, float] = (0.75, 1.5),
        leading_scale: tuple[float, float] = (1.0, 1.0),
        fixed_size: bool = False,
        min_context: int = 1,
    ) -> None:
        for name, value in (("blocks", blocks), ("min_context", min_context)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.blocks = blocks
        self.scale = checked_range("scale", scale, most=1.0)
        self.aspect = checked_range("aspect", aspect)
        self.leading_scale = checked_range("leading_scale", leading_scale, most=1.0)
        self.fixed_size = fixed_size
        self.min_context = min_context

    @property
    def reads_shapes_only(self) -> bool:
        """Return True, of tokens without padding."""
        return True

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """One `Masks`: context (B, K) and targets (B, 1, T), on the tokens' device."""
        grid = full_grid(tokens, "BlockUnion", padding=True)
        for size in largest_blocks(grid, self.scale[1], self.aspect, self.leading_scale[1]):
            self._check_fit(grid, size)
        # Blocks over the whole of the leading axes are drawn on the last two alone.
        whole = self.leading_scale == (1.0, 1.0)
        core = grid[-2:] if whole else grid
        frames = tokens.count // math.prod(core)
        enough = math.ceil(self.min_context / frames)
        draw = self._draw_fixed if self.fixed_size else self._draw
        draws = tokens.batch_size * (1 if tokens.valid is None else _DRAWS)
        hidden = draw(core, enough, draws, generator).repeat(1, frames)
        if self.fixed_size:
            least = most = self._fixed_target(core, enough) * frames
        else:
            counts = hidden.sum(1)
            least, most = int(counts.min()), int(counts.max())

        visible = ~hidden
        if tokens.valid is not None:
            visible, hidden = self._among_valid(hidden, tokens.valid, generator)
        context, context_valid = marked_slots(visible, tokens.count - least)
        targets, targets_valid = marked_slots(hidden, most)
        masks = Masks(context=context, targets=targets.unsqueeze(1))
        if least < most or tokens.valid is not None:
            masks = replace(masks, context_valid=context_valid, targets_valid=targets_valid.unsqueeze(1))
        return [masks.to(tokens.device)]

    def _among_valid(self, hidden: Tensor, valid: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What samples show and hide of their valid tokens (B, N), from several draws of unions (B draws, N)."""
        keys = torch.rand(valid.shape, generator=generator, device=generator.device)
        keys = send(keys, valid.device)
        draws = send(hidden, valid.device).unflatten(0, (-1, _DRAWS))
        best = fitting_draw(draws, valid, self.min_context) + _DRAWS * torch.arange(len(valid), device=valid.device)
        return without_padding(draws.flatten(0, 1)[best], valid, self.min_context, keys)

    def _check_fit(self, grid: tuple[int, ...], size: tuple[int, ...]) -> None:
        """Refuse a grid on which unions of this size do not even leave `min_context` tokens on average."""
        left = expected_visible(grid, target=size, targets=self.blocks)
        if left < self.min_context - 1e-6:
            raise ValueError(
                f"the masks do not fit a grid of {by(grid)} ({math.prod(grid)} tokens): {self.blocks} blocks of "
                f"{by(size)} leave {left:.1f} tokens on average, and the context needs {self.min_context}; use more "
                f"tokens (a larger input or smaller patches) or lower min_context, blocks or scale"
            )

    def _draw(self, grid: tuple[int, ...], least: int, batch: int, generator: torch.Generator) -> Tensor:
        """Unions (B, N) bool that leave at least `least` tokens."""
        most = math.prod(grid) - least
        hidden = self._unions(grid, batch, self.blocks, generator)
        for _ in range(_ATTEMPTS):
            fits = (hidden.sum(1) <= most).unsqueeze(1)
            if bool(fits.all()):
                return hidden
            hidden = torch.where(fits, hidden, self._unions(grid, batch, self.blocks, generator))
        fits = (hidden.sum(1) <= most).unsqueeze(1)
        return torch.where(fits, hidden, self._unions(grid, batch, 1, generator))

    def _draw_fixed(self, grid: tuple[int, ...], least: int, batch: int, generator: torch.Generator) -> Tensor:
        """Unions (B, N) bool of the same number of tokens."""
        size = self._fixed_target(grid, least)
        unions = self._unions(grid, batch * _CANDIDATES, self.blocks, generator).unflatten(0, (batch, _CANDIDATES))
        nearest = (unions.sum(2) - size).abs().argmin(1)
        hidden = unions.gather(1, nearest.view(-1, 1, 1).expand(-1, 1, unions.shape[2])).squeeze(1)
        # First what is hidden, from the inside to the edge, then what is visible, from the edge outwards.
        keys = 2.0 * hidden + _smoothed(hidden.float(), grid)
        keys = keys + 1e-3 * torch.rand(keys.shape, generator=generator, device=keys.device)
        return torch.zeros_like(hidden).scatter_(1, keys.topk(size, dim=1).indices, True)

    def _fixed_target(self, grid: tuple[int, ...], least: int) -> int:
        """Tokens of `grid` that a union of fixed size covers."""
        ranges = self.scale, self.aspect, self.leading_scale
        expected = math.prod(grid) - _mean_visible(grid, self.blocks, *ranges)
        return max(min(round(expected), math.prod(grid) - least), 1)

    def _unions(self, grid: tuple[int, ...], batch: int, blocks: int, generator: torch.Generator) -> Tensor:
        """What `blocks` blocks cover, of one size and at places of their own in each sample: (B, N) bool."""
        device = generator.device
        ranges = [self.scale, self.aspect, *[self.leading_scale] * max(len(grid) - 2, 0)]
        chances = torch.rand(batch, len(ranges), generator=generator, dtype=torch.float64, device=device)
        drawn = [low + (high - low) * chance for (low, high), chance in zip(ranges, chances.unbind(1), strict=True)]
        covered = torch.ones(batch, blocks, 1, dtype=torch.bool, device=device)
        for length, size in zip(grid, block_sizes(grid, drawn[0], drawn[1], drawn[2:]), strict=True):
            size = size[:, None]
            chance = torch.rand(batch, blocks, generator=generator, dtype=torch.float64, device=device)
            start = (chance * (length - size + 1)).floor()[..., None]
            place = torch.arange(length, device=device)
            inside = (place >= start) & (place < start + size[..., None])
            covered = (covered.unsqueeze(3) & inside.unsqueeze(2)).flatten(2)
        return covered.any(1)


def block_sizes(grid: Sequence[int], scale: Tensor, aspect: Tensor, leading: Sequence[Tensor]) -> list[Tensor]:
    """`block_size` for many blocks at once: tensors in place of numbers, one tensor of sizes for each axis."""
    sides = [size * share for size, share in zip(grid[:-2], leading, strict=True)]
    if len(grid) == 1:
        sides.append(scale * grid[0])
    else:
        height, width = grid[-2:]
        area = scale * height * width
        tall = (area * aspect).sqrt().maximum(area / width).clamp(max=height)
        sides += [tall, area / tall]
    return [side.round().clamp(1, size) for side, size in zip(sides, grid, strict=True)]


@lru_cache(maxsize=256)
def _mean_visible(
    grid: tuple[int, ...],
    blocks: int,
    scale: tuple[float, float],
    aspect: tuple[float, float],
    leading: tuple[float, float],
) -> float:
    """Expected number of tokens outside a union, averaged over the ranges that its sizes are drawn from."""

    def steps(limits: tuple[float, float], count: int) -> list[float]:
        low, high = limits
        return [low] if low == high else [low + (high - low) * (i + 0.5) / count for i in range(count)]

    shares = product(steps(leading, _STEPS // 4), repeat=max(len(grid) - 2, 0))
    visible = [
        expected_visible(grid, target=block_size(grid, scale=s, aspect=a, leading=share), targets=blocks)
        for s, a, share in product(steps(scale, _STEPS), steps(aspect, _STEPS), list(shares))
    ]
    return sum(visible) / len(visible)


def _smoothed(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Mean of `values` (B, N) over neighbourhoods of the grid, wide enough to tell the edge from what lies behind it.

    Three box filters of 3 cells along each axis; cells beyond the grid's border do not count.
    """
    x = values.unflatten(1, grid)
    for axis in list(range(1, x.ndim)) * 3:
        last = x.movedim(axis, -1)
        flat = last.reshape(-1, 1, last.shape[-1])
        x = avg_pool1d(flat, 3, stride=1, padding=1, count_include_pad=False).view(last.shape).movedim(-1, axis)
    return x.flatten(1)
