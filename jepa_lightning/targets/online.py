"""The trained encoder as its own target, without a teacher."""

from __future__ import annotations

from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.targets.base import Target, encode
from jepa_lightning.tokens import Tokens


class Online(Target):
    """Use the context encoder as target: no second copy in memory, in the checkpoint or in the step.

    The gradient is stopped at the target (SimSiam: Chen and He 2021), or flows through it (VICReg: Bardes et al.
    2022; LeJEPA: Balestriero and LeCun 2025). Without a regularizer (`model.regularizers`) the encoder collapses:
    constant features make the prediction loss zero.

    Args:
        encoder: the context encoder, given by the module.
        spec: the tokens' spec, given by the module.
        stop_gradient: whether to stop the gradient at the targets.

    Examples:
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
        >>> from jepa_lightning.targets import Online
        >>> spec = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> encoder = ViT(spec, width=32, depth=2, heads=2)
        >>> target = Online(encoder, spec, stop_gradient=False)
        >>> target.encoder is encoder, len(target.state_dict())
        (True, 0)
    """

    owns_encoder: ClassVar[bool] = False

    def __init__(self, encoder: Encoder, spec: TokenSpec | None = None, *, stop_gradient: bool = True) -> None:
        super().__init__()
        self.stop_gradient = stop_gradient
        self._student = (encoder,)  # in a tuple, so that it is not registered and saved a second time

    @property
    def encoder(self) -> Encoder:  # type: ignore[override]
        """Return the context encoder."""
        return self._student[0]

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: tuple[int, ...] = (),
    ) -> Tensor:
        """Encode, without gradient if `stop_gradient`; see `Target.forward`."""
        with torch.no_grad() if self.stop_gradient else nullcontext():
            return encode(self.encoder, tokens, keep, keep_valid, layers=layers)

    def of_encoded(self, encoded: Tensor) -> Tensor:
        """What was encoded, without gradient where it is stopped; see `Target.of_encoded`."""
        return encoded.detach() if self.stop_gradient else encoded
