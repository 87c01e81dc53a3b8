"""A small convolutional encoder of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.tokens import Tokens

Norm = Literal["batch", "group"]


class ConvEncoder(Encoder):
    """A normalised convolutional net on the pixels of each token, each token by itself.

    With `patch_size` equal to `image_size` a frame is one token, and this is an ordinary convolutional encoder of
    frames that gives one vector each, as small world models on pixels use. A strided convolution of 8 pixels, then
    convolutions of 3 pixels with stride 2 until 4 pixels or fewer are left, each followed by a norm and SiLU; all that
    is left is mapped linearly to `dim`, so that the vector can tell where things are.

    Tokens see nothing of each other or of where they lie. There are no outputs of inner layers.

    Of clips, the frames of a tubelet are channels of one image (early fusion: Karpathy et al. 2014, "Large-scale video
    classification with convolutional neural networks", section 3.1). With `tubelet` equal to `frames` and `patch_size`
    to `image_size` a clip is one token, whose vector can tell what moves where.

    Args:
        spec: the tokens' spec, given by the modality; tokens must be (C, H, W) pixels, or (C, frames, H, W) of clips.
        dim: width D of the output.
        width: channels are 2, 4, 4, ... times this.
        norm: "batch" for BatchNorm over all tokens of a batch, "group" for GroupNorm with groups of `width` channels,
            which knows no batch (small batches, several processes).

    Raises:
        ValueError: a setting is out of range, or tokens are no pixels.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import ConvEncoder
        >>> from modalities.image import Image
        >>> image = Image(image_size=64, patch_size=64, channels=1, encoder=partial(ConvEncoder, dim=32, width=8))
        >>> image.encoder(image.tokenizer({"image": torch.randn(4, 1, 64, 64)})).shape
        torch.Size([4, 1, 32])
    """

    def __init__(self, spec: TokenSpec, *, dim: int = 128, width: int = 16, norm: Norm = "batch") -> None:
        super().__init__()
        if min(dim, width) < 1:
            raise ValueError(f"dim and width must be at least 1, got {dim} and {width}")
        if norm not in ("batch", "group"):
            raise ValueError(f"norm must be batch or group, got {norm!r}")
        if len(spec.shape) not in (3, 4) or min(spec.shape[-2:]) < 8 or spec.embed is not None:
            raise ValueError(
                "ConvEncoder needs tokens of (channels, height, width) or (channels, frames, height, width) with at "
                f"least 8 pixels a side, got {spec.shape}: set patch_size to image_size, so that a frame is one token, "
                "or use ViT"
            )
        self.dim = dim
        channels, size = math.prod(spec.shape[:-2]), list(spec.shape[-2:])
        layers: list[nn.Module] = []
        kernel, stride, padding, after = 8, 4, 2, 2 * width
        while not layers or max(size) > 4:
            made = nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(after // width, after)
            layers.append(nn.Sequential(nn.Conv2d(channels, after, kernel, stride, padding), made, nn.SiLU()))
            size = [(pixels + 2 * padding - kernel) // stride + 1 for pixels in size]
            kernel, stride, padding, channels, after = 3, 2, 1, after, 4 * width
        self.layers = nn.ModuleList(layers)  # type: ignore[misc]
        self.project = nn.Linear(channels * math.prod(size), dim)

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode all tokens or the kept ones: (B, N or K, D); see `Encoder.forward`."""
        if layers:
            raise ValueError("ConvEncoder gives its last layer alone, whose width is D: leave layers out")
        seen = tokens if keep is None else tokens.take(keep, keep_valid)
        values = seen.values
        if not isinstance(values, Tensor):
            raise ValueError("ConvEncoder needs tokens of one size, got ragged ones")
        x = values.flatten(2, -3).flatten(0, 1).to(self.project.weight.dtype)  # frames are channels
        for layer in self.layers:
            x = layer(x)
        encoded = self.project(x.flatten(1)).unflatten(0, values.shape[:2])
        return encoded if seen.valid is None else torch.where(seen.valid.unsqueeze(-1), encoded, 0.0)
