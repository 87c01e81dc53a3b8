"""Combine several maskers."""

from __future__ import annotations

import torch

from jepa_lightning.maskers.base import Masker
from jepa_lightning.tokens import Masks, Tokens


class MultiMasker(Masker):
    """Join the masks of several maskers, such as V-JEPA's short-range and long-range masks.

    Each masker draws from the same generator in turn, so their draws differ and are reproducible. (The
    multi-masking of V-JEPA, Bardes et al. 2024, section 3.2: a clip is encoded once and predicted under each of them.)

    Args:
        maskers: the maskers, at least one; their lists of masks are joined in this order.

    Raises:
        ValueError: the list is empty or holds something other than a masker.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.maskers import BlockUnion, MultiMasker
        >>> tokens = Tokens(values=torch.zeros(2, 64, 3), positions=torch.zeros(1, 64, 2), grid=(8, 8))
        >>> masker = MultiMasker([BlockUnion(), BlockUnion(blocks=2, scale=(0.7, 0.7))])
        >>> masks = masker(tokens, torch.Generator().manual_seed(0))
        >>> len(masks)
        2
    """

    def __init__(self, maskers: list[Masker]) -> None:
        if not maskers:
            raise ValueError("maskers must hold at least one masker, got none")
        for masker in maskers:
            if not isinstance(masker, Masker):
                raise ValueError(f"maskers must hold maskers, got {masker!r}: give class paths or instances of Masker")
        self.maskers = list(maskers)

    @property
    def reads_shapes_only(self) -> bool:
        """Return whether all maskers do."""
        return all(masker.reads_shapes_only for masker in self.maskers)

    def set_step(self, step: int, total: int) -> None:
        """Tell all maskers."""
        for masker in self.maskers:
            masker.set_step(step, total)

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw all `Masks`, on the tokens' device."""
        return [masks for masker in self.maskers for masks in masker(tokens, generator)]
