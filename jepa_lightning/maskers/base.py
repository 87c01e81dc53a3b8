"""Base class of maskers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from jepa_lightning.names.shown import Shown
from jepa_lightning.tokens import Masks, Tokens


class Masker(Shown, ABC):
    """Draw the context tokens and the target tokens.

    A masker is stateless: all randomness comes from the generator passed in, so a resumed run draws the same masks.
    It draws on the generator's device (the CPU by default, where a data-dependent size costs
    no GPU sync) and returns index tensors on the tokens' device.
    """

    @property
    def reads_shapes_only(self) -> bool:
        """Whether masks depend on the number of samples and the grid alone, and can be drawn ahead."""
        return False

    def set_step(self, step: int, total: int) -> None:
        """Take the optimiser step and the length of the run, for masks that follow a schedule; not by default.

        Called before each training batch of the model's masker. What was drawn before has no effect.
        """

    @abstractmethod
    def __call__(self, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw masks for a batch of tokens; most maskers return one `Masks`, V-JEPA's two."""
