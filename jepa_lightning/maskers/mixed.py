"""Draw each step's masks with one of several maskers."""

from __future__ import annotations

import math
from itertools import accumulate

import torch

from jepa_lightning.maskers.base import Masker
from jepa_lightning.schedules import Schedule, value_at
from jepa_lightning.tokens import Masks, Tokens


class MixedMasker(Masker):
    """Choose one of several maskers at random at each step, as CNN-JEPA does between blocks and single tokens.

    (Kalapos and Gyires-Toth 2024, arXiv:2408.07514, section III: multi-block masks at three steps of four, random ones
    at the fourth.) `MultiMasker` uses all of them at each step.

    Shares may be schedules of the run's progress: a curriculum from one kind of mask to another, as A-JEPA's from
    random blocks of a spectrogram to whole times and frequencies (Fei et al. 2023, arXiv:2311.15830). They depend on
    the step alone, so a resumed run draws the same masks; validation has the shares of the last training step. The
    first level of a `Hierarchy` is not told the step.

    Deviation: A-JEPA chooses for each sample, here one kind of mask is chosen for a batch.

    Args:
        maskers: the maskers, at least one.
        shares: how often each is chosen, relative to the others, numbers or schedules; None: equally often.

    Raises:
        ValueError: the list is empty or holds something other than a masker, or shares do not fit, at some step.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import MixedMasker, MultiBlock, Random
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.zeros(1, 64, 2), grid=(8, 8))
        >>> masker = MixedMasker([MultiBlock(), Random(target_ratio=0.6)], shares=[3, 1])
        >>> len(masker(tokens, torch.Generator().manual_seed(0)))
        1
        >>> from jepa_lightning.schedules import LinearRamp
        >>> later = MixedMasker([MultiBlock(), Random()], shares=[LinearRamp(1.0, 0.0), LinearRamp(0.0, 1.0)])
        >>> later.set_step(25, total=100)
        >>> later.current
        [0.75, 0.25]
    """

    def __init__(self, maskers: list[Masker], *, shares: list[float | Schedule] | None = None) -> None:
        if not maskers or not all(isinstance(masker, Masker) for masker in maskers):
            raise ValueError(f"maskers must hold at least one masker and nothing else, got {maskers!r}")
        self.maskers = list(maskers)
        self.shares: list[float | Schedule] = [1.0] * len(maskers) if shares is None else list(shares)
        self.current: list[float] = []
        self._take_shares(0, 1)

    @property
    def reads_shapes_only(self) -> bool:
        """Return whether all maskers do, and no share follows the step: masks are drawn ahead before it is set."""
        fixed = not any(isinstance(share, Schedule) for share in self.shares)
        return fixed and all(masker.reads_shapes_only for masker in self.maskers)

    def set_step(self, step: int, total: int) -> None:
        """Take the shares from their schedules, and tell all maskers."""
        self._take_shares(step, total)
        for masker in self.maskers:
            masker.set_step(step, total)

    def _take_shares(self, step: int, total: int) -> None:
        shares = [value_at(share, step, total) for share in self.shares]
        if len(shares) != len(self.maskers) or min(shares) < 0 or not 0 < sum(shares) < math.inf:
            raise ValueError(
                f"shares must hold one number of at least 0 for each of {len(self.maskers)} maskers, and not only "
                f"zeros; got {shares} at step {step} of {total}"
            )
        self.current = shares

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw `Masks` with one of the maskers, on the tokens' device."""
        drawn = float(torch.rand((), generator=generator)) * sum(self.current)
        chosen = next(n for n, end in enumerate(accumulate(self.current)) if drawn < end)
        return self.maskers[chosen](tokens, generator)
