"""The past as context, the future as target."""

from __future__ import annotations

import math

import torch

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.grids import by, full_grid
from jepa_lightning.tokens import Masks, Tokens


class Future(Masker):
    """Hide the last steps of time, whole, and show all before them.

    What is hidden is not what lies between two things that are seen, but what comes of them, as in V-JEPA's "causal
    multi-block" masks with nothing hidden in the past (Bardes et al. 2024). Time is the first axis of the grid, (time,
    row, column) of clips, or the only one. The masks of all samples are the same, and nothing is drawn.

    Args:
        ratio: share of the time steps that is hidden, rounded to whole steps, at least one and not all.

    Raises:
        ValueError: `ratio` is out of range; when called: the tokens fill no grid, have padding, or only one step.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import Future
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.zeros(1, 64, 3), grid=(4, 4, 4))
        >>> masks = Future(ratio=0.25)(tokens, torch.Generator())
        >>> masks[0].context.shape, masks[0].targets.shape
        (torch.Size([2, 48]), torch.Size([2, 1, 16]))
    """

    def __init__(self, *, ratio: float = 0.5) -> None:
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must lie between 0 and 1, got {ratio}")
        self.ratio = ratio

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Return one `Masks`: context (B, K) and targets (B, 1, T), on the tokens' device."""
        grid = full_grid(tokens, "Future")
        steps, each = grid[0], math.prod(grid[1:])
        if steps < 2:
            raise ValueError(f"Future needs a grid of at least two time steps, got {by(grid)}: use longer samples")
        hidden = min(max(round(self.ratio * steps), 1), steps - 1)
        seen, asked = torch.arange(tokens.count, device=tokens.device).split([(steps - hidden) * each, hidden * each])
        batch = tokens.batch_size
        return [Masks(context=seen.repeat(batch, 1), targets=asked.repeat(batch, 1, 1))]
