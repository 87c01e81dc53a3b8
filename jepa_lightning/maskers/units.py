"""Whole units of tokens: words or sentences of a text are hidden as a whole."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lightning.maskers.base import Masker
from jepa_lightning.maskers.grids import marked_slots
from jepa_lightning.maskers.random import table_of_counts
from jepa_lightning.maskers.shares import check_tokens
from jepa_lightning.tokens import Masks, Tokens, send


class WholeUnits(Masker):
    """Hide random units of tokens, each as a whole, such as the words or the sentences of a text.

    Whole-word masking (Cui et al. 2021, arXiv:1906.08101): parts of a unit cannot be predicted from its other parts.
    `Tokens.units` says which tokens belong together. The hidden units of a sample are split at random into M target
    blocks. A block takes units in random order as long as they fit into its share of the tokens; if the first one alone
    is longer, all of it is hidden, and its first tokens are the target. The context is all the rest: at least one
    unit, and the tokens of no unit (special tokens). Indices are in ascending order. A sample of a single unit has no
    target, one without tokens has no context either.

    T follows from N, not from the data; K is the batch's maximum on the CPU, and N on other devices, where reading it
    would need a synchronisation. `context_valid` and `targets_valid` mark filler (index 0, after the real ones).

    Args:
        unit: name of the units: "word" or "sentence" for texts.
        target_ratio: share of the tokens in target blocks, between 0 and 1 (both excluded).
        targets: number M of target blocks.

    Raises:
        ValueError: a setting is out of range; when called: the tokens have no such units, there are fewer than M + 1
            tokens, or `valid` does not have the shape (B, N).

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import WholeUnits
        >>> words = torch.arange(12) // 3  # four words of three tokens
        >>> places = torch.arange(12.0)[None, :, None]
        >>> tokens = Tokens(values=torch.zeros(1, 12), positions=places, units={"word": words[None]})
        >>> masks = WholeUnits(target_ratio=0.5)(tokens, torch.Generator().manual_seed(0))
        >>> words[masks[0].targets[masks[0].targets_valid]].tolist()
        [2, 2, 2, 3, 3, 3]
    """

    def __init__(self, *, unit: str = "word", target_ratio: float = 0.4, targets: int = 1) -> None:
        if not 0 < target_ratio < 1:
            raise ValueError(f"target_ratio must lie between 0 and 1, got {target_ratio}")
        if targets < 1:
            raise ValueError(f"targets must be at least 1, got {targets}")
        self.unit = unit
        self.target_ratio = target_ratio
        self.targets = targets

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw one `Masks`: context (B, K) and targets (B, M, T), on the tokens' device."""
        check_tokens(tokens, self.targets, "target blocks")
        if self.unit not in (tokens.units or {}):
            known = ", ".join(tokens.units or {}) or "none"
            raise ValueError(f"WholeUnits needs tokens with the unit {self.unit!r}, these have {known}: set its unit")
        batch, count = tokens.batch_size, tokens.count
        unit = tokens.units[self.unit]  # type: ignore[index]
        keys = torch.rand(batch, count, generator=generator, device=generator.device)
        keys = send(keys, tokens.device)
        valid = torch.ones_like(unit, dtype=torch.bool) if tokens.valid is None else tokens.valid
        sizes = table_of_counts(count, self.target_ratio, None, self.targets)[:, 1]  # of a block, by the tokens
        size = send(sizes, tokens.device)[valid.sum(1)]  # (B,)

        free = valid & (unit >= 0)
        key = keys.gather(1, unit.clamp(min=0))  # of each token's unit
        last = free & (key == key.masked_fill(~free, -1).amax(1, keepdim=True))  # a unit that stays with the context
        free = free & ~last
        hidden = torch.zeros_like(free)
        blocks = []
        for _ in range(self.targets):
            taken, asked = _take_units(key, free, size)
            free, hidden = free & ~taken, hidden | taken
            blocks.append(asked)
        shown = valid & ~hidden
        kept = max(int(shown.sum(1).max()), 1) if shown.device.type == "cpu" else count
        context, context_valid = marked_slots(shown, kept)
        most = int(sizes[-1])
        targets, targets_valid = marked_slots(torch.stack(blocks, dim=1).flatten(0, 1), most)
        shape = (batch, self.targets)
        return [
            Masks(
                context=context,
                targets=targets.unflatten(0, shape),
                context_valid=context_valid,
                targets_valid=targets_valid.unflatten(0, shape),
            )
        ]


def _take_units(key: Tensor, free: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Take units in the order of their `key` (B, N) while they fit into `size` (B,) tokens, and at least one.

    Returns:
        What is taken, (B, N) bool, and its first `size` tokens.
    """
    key = key.masked_fill(~free, 2.0)
    ordered, order = key.sort(dim=1, stable=True)
    rank = torch.arange(key.shape[1], device=key.device)
    starts = torch.ones_like(free)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ends = torch.ones_like(free)
    ends[:, :-1] = starts[:, 1:]
    first = (rank * starts).cummax(1).values  # rank of the first token of each one's unit
    end = rank.masked_fill(~ends, key.shape[1]).flip(1).cummin(1).values.flip(1)  # and of its last
    fits = ((end < size[:, None]) | (first == 0)) & (size > 0)[:, None]
    taken = torch.zeros_like(free).scatter(1, order, fits) & free
    return taken, taken & (taken.cumsum(1) <= size[:, None])
