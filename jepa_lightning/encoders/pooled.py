"""One vector a sample: another encoder's tokens, pooled and projected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder, EncoderFactory, TokenSpec
from jepa_lightning.encoders.transformer import init_weights
from jepa_lightning.tokens import Tokens, pool


class PooledEncoder(Encoder):
    """Mean of another encoder's tokens, through a projector: one vector a sample, the same at each of its tokens.

    For states of world models (`Rollout`, `TeacherForcing`) that a regularizer shapes: a ViT ends with a LayerNorm,
    which keeps `SIGReg` from making its outputs a Gaussian. LeWorldModel (Maes et al. 2026, arXiv:2603.19312, section
    3.1) therefore adds an MLP with BatchNorm: here Linear, BatchNorm, GELU, Linear, as its released configuration has
    it. It is a part of the encoder: features, probes and goals are what it gives.

    Deviations: LeWorldModel's ViT has a class token, which the projector takes; here the mean of all tokens.

    Args:
        spec: the tokens' spec, given by the modality.
        encoder: builds the encoder, such as `ViT`.
        dim: width D of the output.
        hidden: width between the two linear maps.
        norm: "batch" for BatchNorm, "layer" for LayerNorm, which knows no batch (several processes, small batches).

    Raises:
        ValueError: a setting is out of range; when called: tokens are hidden, or inner layers are asked for.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import PooledEncoder, ViT
        >>> from modalities.image import Image
        >>> vit = partial(ViT, width=24, depth=2, heads=2)
        >>> image = Image(image_size=32, patch_size=8, encoder=partial(PooledEncoder, encoder=vit, dim=16, hidden=64))
        >>> image.encoder(image.tokenizer({"image": torch.randn(4, 3, 32, 32)})).shape
        torch.Size([4, 16, 16])
    """

    def __init__(
        self,
        spec: TokenSpec,
        *,
        encoder: EncoderFactory,
        dim: int = 192,
        hidden: int = 2048,
        norm: Literal["batch", "layer"] = "batch",
    ) -> None:
        super().__init__()
        if min(dim, hidden) < 1:
            raise ValueError(f"dim and hidden must be at least 1, got {dim} and {hidden}")
        if norm not in ("batch", "layer"):
            raise ValueError(f"norm must be batch or layer, got {norm!r}")
        self.encoder = encoder(spec)
        self.dim = dim
        between = nn.BatchNorm1d(hidden) if norm == "batch" else nn.LayerNorm(hidden)
        first = nn.Linear(self.encoder.dim, hidden)
        self.projector = nn.Sequential(first, between, nn.GELU(), nn.Linear(hidden, dim))
        init_weights(self.projector)

    @property
    def layers(self) -> Iterable[nn.Module]:
        """Return the inner encoder's layers."""
        return self.encoder.layers

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return what gives the number of a parameter's layer; the projector's is that of the last one."""
        inner, last = self.encoder.group_matcher(coarse), len(list(self.encoder.layers))
        return lambda name: inner(name.removeprefix("encoder.")) if name.startswith("encoder.") else last

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode all tokens: (B, N, D), one vector at all tokens of a sample; see `Encoder.forward`."""
        if keep is not None:
            raise ValueError(
                "PooledEncoder gives one vector of all tokens, and this pretext hides some: use its inner encoder, or "
                "a pretext that hides nothing (Rollout, TeacherForcing)"
            )
        if layers:
            raise ValueError("PooledEncoder gives its projector's output alone: leave layers out")
        pooled = pool(self.encoder(tokens), tokens.valid)
        projected = self.projector(pooled.to(next(self.projector.parameters()).dtype))
        return projected.unsqueeze(1).expand(-1, tokens.count, -1)
