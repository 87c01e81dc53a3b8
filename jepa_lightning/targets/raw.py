"""The raw tokens as targets: masked autoencoding, beside which predicted representations are measured."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Tokens


class RawTokens(Target):
    """Predict the tokens themselves, pixels of a patch, instead of representations: MAE (He et al. 2022).

    With the pretext `Masked`, the objective `MSE` and random masks this is MAE, and VideoMAE (Tong et al. 2022) with
    `Tube` masks: the predictor is the decoder. `Masked` layer-norms targets, which is MAE's loss on normalised pixels;
    with `norm_targets: false` it is the loss on pixels. There is no second encoder, and nothing can collapse. The
    context encoder is the evaluated one.

    Deviations: MAE divides a patch by its unbiased standard deviation, here it is the biased one (of 768 values, 0.07%
    less). VideoMAE normalises each channel of a cube by itself, here all channels together. MAE's decoder sees targets
    that are not hidden, too; here a predictor is asked for the hidden ones only.

    Args:
        encoder: the context encoder, given by the module.
        spec: the tokens' spec, given by the module; tokens must have one size, and be embedded by a linear map.

    Raises:
        ValueError: tokens have a modality's own embedding (points, subgraphs): distances of raw values mean little.

    Examples:
        >>> import torch
        >>> from jepa_lightning import Tokens
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
        >>> from jepa_lightning.targets import RawTokens
        >>> spec = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> target = RawTokens(ViT(spec, width=32, depth=2, heads=2), spec)
        >>> tokens = Tokens(values=torch.randn(2, 16, 3, 8, 8), positions=torch.rand(1, 16, 2))
        >>> target(tokens).shape, target.dim
        (torch.Size([2, 16, 192]), 192)
    """

    owns_encoder: ClassVar[bool] = False

    def __init__(self, encoder: Encoder, spec: TokenSpec) -> None:
        super().__init__()
        if spec.embed is not None:
            raise ValueError(
                "RawTokens needs tokens that are embedded by a linear map, such as patches; these have an embedding of "
                "their own: use EMA"
            )
        self.size = math.prod(spec.shape)
        self._student = (encoder,)  # in a tuple, so that it is not registered and saved a second time

    @property
    def encoder(self) -> Encoder:  # type: ignore[override]
        """Return the context encoder."""
        return self._student[0]

    @property
    def dim(self) -> int:
        """Return the number of values of a token."""
        return self.size

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: tuple[int, ...] = (),
    ) -> Tensor:
        """Flatten all tokens or the kept ones: (B, N or K, D)."""
        if layers:
            raise ValueError("raw tokens have no layers: use another target, or a loss on one layer")
        values = tokens.values if keep is None else tokens.take(keep, keep_valid).values
        if not isinstance(values, Tensor):
            raise ValueError("RawTokens needs tokens of one size, got ragged ones: use EMA")
        return values.flatten(2).detach()
