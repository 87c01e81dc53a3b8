"""Spans of time: contiguous steps along the last axis of a grid, over all of the others."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.grids import by, checked_range, full_grid, marked_slots
from jepa_lightning.tokens import Masks, Tokens, send


class TimeSpans(Masker):
    """Hide contiguous spans of time, over all frequencies (wav2vec 2.0: Baevski et al. 2020, section 3.1).

    Time is the last axis of the grid, with any other axes before it: (frequency, time) of a spectrogram, or time only.
    The target is the union of the spans, or each span is its own target block; the context is all the rest. One
    length is drawn for the batch, as a share of a sample's time steps, and placements are drawn for each
    sample: all placements without overlap are equally likely. (wav2vec's spans start anywhere, overlap and have one
        length
    in frames. Without overlap all samples hide as much, so there is no filler.) Indices are in raster order.

    If tokens have padding (`Tokens.valid`), spans are placed among each sample's valid time steps, those with any
    valid token, and cover the same share of them; padding is never context or target. K and T follow from the grid and
    the length, not from the data; `context_valid` and `targets_valid` mark filler (index 0, after the real ones). A
    sample in which a span would be less than a step has fewer spans, of one step; one of a single step has no target.
    This is computed on the tokens' device, without synchronisation.

    Args:
        spans: number of spans.
        scale: range of a span's share of the time steps. Where both ends are the same, so are K and T at every step,
            for `torch.compile` and XLA.
        separate: each span is its own target block (M = spans), predicted separately.

    Raises:
        ValueError: a setting is out of range, or the spans could cover everything; when called: the tokens fill no
            grid, or there are fewer than spans + 1 time steps.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import TimeSpans
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.zeros(1, 64, 2), grid=(8, 8))
        >>> masks = TimeSpans(spans=2, scale=(0.25, 0.25))(tokens, torch.Generator().manual_seed(0))
        >>> masks[0].context.shape, masks[0].targets.shape
        (torch.Size([2, 32]), torch.Size([2, 1, 32]))
    """

    def __init__(self, *, spans: int = 4, scale: tuple[float, float] = (0.1, 0.2), separate: bool = False) -> None:
        if spans < 1:
            raise ValueError(f"spans must be at least 1, got {spans}")
        self.spans = spans
        self.scale = checked_range("scale", scale, most=1.0)
        if spans * self.scale[1] >= 1:
            raise ValueError(
                f"{spans} spans of up to {self.scale[1]:g} of the time leave no context: lower spans or scale so that "
                "their product is below 1"
            )
        self.separate = separate

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw one `Masks`: context (B, K) and targets (B, 1 or spans, T), on the tokens' device."""
        grid = full_grid(tokens, "TimeSpans", padding=True)
        steps, rows = grid[-1], math.prod(grid[:-1])
        if steps <= self.spans:
            raise ValueError(
                f"a grid of {by(grid)} has {steps} time steps, and {self.spans} spans and a context need at least "
                f"{self.spans + 1}: use longer clips, shorter patches or fewer spans"
            )
        low, high = self.scale
        share = low
        if low < high:
            share += (high - low) * float(torch.rand((), generator=generator, device=generator.device))
        keys = torch.rand(tokens.batch_size, steps, generator=generator, device=generator.device)
        keys = send(keys, tokens.device)
        plans = [span_plan(n, share=share, spans=self.spans) for n in range(steps + 1)]
        if tokens.valid is None:
            valid = torch.ones(1, rows, steps, dtype=torch.bool, device=tokens.device).expand(tokens.batch_size, -1, -1)
            sizes = range(steps, steps + 1)  # numbers of time steps that samples may have
        else:
            valid = tokens.valid.view(-1, rows, steps)
            sizes = range(steps + 1)
        blocks = plans[-1][0] if self.separate else 1
        length = max(plans[n][1] if self.separate else math.prod(plans[n]) for n in sizes)
        kept = max(n - math.prod(plans[n]) for n in sizes)
        table = send(torch.tensor(plans), tokens.device)
        covered = _cover(keys, valid.any(1), table, plans[-1][0])  # (B, spans, steps)

        hidden = covered if self.separate else covered.any(1, keepdim=True)
        asked = (hidden[:, :, None] & valid[:, None]).flatten(0, 1).flatten(1)  # (B M, N)
        context, context_valid = marked_slots((~covered.any(1)[:, None] & valid).flatten(1), kept * rows)
        targets, targets_valid = marked_slots(asked, length * rows)
        shape = (tokens.batch_size, blocks)
        masks = Masks(context=context, targets=targets.unflatten(0, shape))
        if tokens.valid is not None:
            masks = replace(masks, context_valid=context_valid, targets_valid=targets_valid.unflatten(0, shape))
        return [masks]


def span_plan(steps: int, *, share: float, spans: int) -> tuple[int, int]:
    """Number of spans, and steps in each, of a sample with so many steps: at least one step is left over."""
    if steps < 2:
        return 0, 0
    number = min(spans, max(round(spans * share * steps), 1), steps - 1)
    return number, min(max(round(share * steps), 1), (steps - 1) // number)


def _cover(keys: Tensor, valid: Tensor, plans: Tensor, spans: int) -> Tensor:
    """Which steps each span covers: (B, spans, S) bool.

    Args:
        keys: (B, S) random numbers from 0 to below 1.
        valid: (B, S) steps that can be covered.
        plans: (S + 1, 2) number of spans and their length, for each number of valid steps.
        spans: the largest number.
    """
    count = valid.sum(1)
    number, size = plans[count].unsqueeze(2).unbind(1)  # (B, 1) each
    # Spans that do not overlap, each shrunk to one step, are a choice of as many out of the steps that then remain.
    remain = count[:, None] - number * (size - 1)
    place = torch.arange(keys.shape[1], device=keys.device)
    order = torch.arange(spans, device=keys.device)
    chosen = keys.masked_fill(place >= remain, 2.0).argsort(1)[:, :spans]
    chosen = chosen.masked_fill(order >= number, keys.shape[1]).sort(1).values  # spans too many lie behind the end
    start = chosen + (size - 1) * order  # (B, spans), counted in valid steps
    inside = (order < number)[..., None]
    rank = (valid.cumsum(1) - 1)[:, None]
    return inside & valid[:, None] & (rank >= start[..., None]) & (rank < (start + size)[..., None])
