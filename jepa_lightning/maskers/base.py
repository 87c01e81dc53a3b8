"""What every masker is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from jepa_lightning.config.shown import Shown
from jepa_lightning.tokens import Masks, Tokens


class Masker(Shown, ABC):
    """Draws which tokens a JEPA sees and which it predicts.

    A masker is stateless: all randomness comes from the generator that it is handed, so a resumed run draws the masks
    that it would have drawn. It draws on the generator's device (the CPU by default, where a data-dependent size costs
    no GPU sync) and returns index tensors on the tokens' device.
    """

    @abstractmethod
    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw masks for a batch of tokens; most maskers return one `Masks`, V-JEPA's two."""
