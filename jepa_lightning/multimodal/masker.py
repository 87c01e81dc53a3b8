"""Masks of several modalities: each in turn hides some of its tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from jepa_lightning.joint_tokens import JointTokens, join_masks
from jepa_lightning.maskers.base import Masker
from jepa_lightning.tokens import Masks, Tokens


class EachMasker(Masker):
    """Draw masks of each modality with its own masker, while the others show all their tokens.

    Args:
        maskers: by modality.

    Examples:
        >>> import torch
        >>> from jepa_lightning.joint_tokens import join_tokens
        >>> from jepa_lightning.maskers import Random
        >>> from jepa_lightning.multimodal import EachMasker
        >>> from jepa_lightning.tokens import Tokens
        >>> parts = {n: Tokens(values=torch.zeros(2, 8, 3), positions=torch.zeros(1, 8, 1)) for n in ("a", "b")}
        >>> masker = EachMasker({"a": Random(target_ratio=0.5), "b": Random(target_ratio=0.5)})
        >>> masks = masker(join_tokens(parts, numbers={"a": 0, "b": 1}), torch.Generator().manual_seed(0))
        >>> [mask.part for mask in masks], masks[0].context.shape  # 4 tokens of a, all 8 of b
        (['a', 'b'], torch.Size([2, 12]))
    """

    def __init__(self, maskers: Mapping[str, Masker]) -> None:
        self.maskers = dict(maskers)

    def set_step(self, step: int, total: int) -> None:
        """Tell all maskers."""
        for masker in self.maskers.values():
            masker.set_step(step, total)

    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw the masks of all modalities, in order."""
        if not isinstance(tokens, JointTokens):
            raise ValueError(f"expected tokens of several modalities (JointTokens), got {type(tokens).__name__}")
        return [
            join_masks(tokens, name, masks)
            for name, part in tokens.parts.items()
            for masks in self.maskers[name](part, generator)
        ]
