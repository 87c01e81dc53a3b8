"""Draw each step's masks with one of several maskers."""

from __future__ import annotations

import math
from itertools import accumulate

import torch

from jepa_lightning.maskers.base import Masker
from jepa_lightning.tokens import Masks, Tokens


class MixedMasker(Masker):
    """Choose one of several maskers at random at each step, as CNN-JEPA does between blocks and single tokens.

    (Kalapos and Gyires-Toth 2024, arXiv:2408.07514, section III: multi-block masks at three steps of four, random ones
    at the fourth.) `MultiMasker` uses all of them at each step.

    Args:
        maskers: the maskers, at least one.
        shares: how often each is chosen, relative to the others; None: equally often.

    Raises:
        ValueError: the list is empty or holds something other than a masker, or shares do not fit.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import MixedMasker, MultiBlock, Random
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.zeros(1, 64, 2), grid=(8, 8))
        >>> masker = MixedMasker([MultiBlock(), Random(target_ratio=0.6)], shares=[3, 1])
        >>> len(masker(tokens, torch.Generator().manual_seed(0)))
        1
    """

    def __init__(self, maskers: list[Masker], *, shares: list[float] | None = None) -> None:
        if not maskers or not all(isinstance(masker, Masker) for masker in maskers):
            raise ValueError(f"maskers must hold at least one masker and nothing else, got {maskers!r}")
        shares = [1.0] * len(maskers) if shares is None else shares
        if len(shares) != len(maskers) or min(shares) < 0 or not 0 < sum(shares) < math.inf:
            raise ValueError(
                f"shares must hold one number of at least 0 for each of {len(maskers)} maskers, and not only zeros; "
                f"got {shares}"
            )
        self.maskers = list(maskers)
        self.shares = list(shares)

    @property
    def reads_shapes_only(self) -> bool:
        """Return whether all maskers do."""
        return all(masker.reads_shapes_only for masker in self.maskers)

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw `Masks` with one of the maskers, on the tokens' device."""
        drawn = float(torch.rand((), generator=generator)) * sum(self.shares)
        chosen = next(n for n, end in enumerate(accumulate(self.shares)) if drawn < end)
        return self.maskers[chosen](tokens, generator)
