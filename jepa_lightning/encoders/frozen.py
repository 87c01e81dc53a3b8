"""An encoder that is not trained: what a world model, or any predictor, is trained on top of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder, EncoderFactory, TokenSpec
from jepa_lightning.tokens import Tokens
from jepa_lightning.weights.formats.fit import load_encoder


class FrozenEncoder(Encoder):
    """Another encoder with weights that stay: in eval mode, without gradient and without optimiser state.

    With the pretext `Rollout` and the target `Online` the predictor alone is trained, on the states of an encoder that
    was trained before, as in V-JEPA 2-AC (Assran et al. 2025, arXiv:2506.09985, section 3) and DINO-WM (Zhou et al.
    2024, arXiv:2411.04983). Frozen states cannot collapse, so there is nothing to regularise.

    Args:
        spec: the tokens' spec, given by the module.
        encoder: builds the encoder, such as `ViT` with `weights`, or `TimmEncoder` with `pretrained: true`.
        weights: a run of the same encoder, or released weights, where it takes none itself.
        norm: layer-norm the output of each token, without weights (V-JEPA 2-AC).

    Raises:
        ValueError: the weights do not fit.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import FrozenEncoder, SinCosPositions, TokenSpec, ViT
        >>> spec = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> frozen = FrozenEncoder(spec, encoder=partial(ViT, width=32, depth=2, heads=2), norm=True)
        >>> frozen.dim, any(p.requires_grad for p in frozen.parameters())
        (32, False)
    """

    def __init__(
        self, spec: TokenSpec, *, encoder: EncoderFactory, weights: str | None = None, norm: bool = False
    ) -> None:
        super().__init__()
        self.encoder = encoder(spec)
        if weights is not None:
            load_encoder(self.encoder, spec, weights)
        self.dim = self.encoder.dim
        self.norm = norm
        self.freeze(self.encoder)

    @property
    def layers(self) -> Iterable[nn.Module]:
        """Return the encoder's layers."""
        return self.encoder.layers

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return what gives the number of a parameter's layer."""
        inner = self.encoder.group_matcher(coarse)
        return lambda name: inner(name.removeprefix("encoder."))

    @torch.no_grad()
    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode without gradient; see `Encoder.forward`."""
        options = {"layers": layers} if layers else {}
        encoded = self.encoder(tokens, keep, keep_valid, **options)
        return F.layer_norm(encoded, encoded.shape[-1:]) if self.norm else encoded
