"""The image modality: I-JEPA's patches, blocks and ViT."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
from jepa_lightning.maskers import Masker, MultiBlock
from jepa_lightning.modality import Batch, EncoderFactory, Extent, Modality
from jepa_lightning.tokens import Masks, Tokens
from modalities.image import pictures
from modalities.image.tokenizer import PatchTokenizer


class Image(Modality):
    """Images as grids of patches (I-JEPA, Assran et al. 2023).

    Batches hold `image`, (B, C, H, W) float.

    Args:
        image_size: height and width in pixels, or one number for both; the data module crops to it.
        patch_size: height and width of a patch in pixels, or one number for both; must divide the image's.
        channels: number of channels of an image.
        encoder: builds the encoder from the token spec: `ViT`, `TimmEncoder` or your own `Encoder`.
        masker: draws contexts and targets; I-JEPA's multi-block by default.
        any_size: also take images of other sizes that the patch divides, as local views are; the encoder must, too, as
            `ViT` does.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import ViT
        >>> from modalities.image import Image
        >>> image = Image(image_size=48, patch_size=8, encoder=partial(ViT, width=32, depth=1, heads=2))
        >>> tokens = image.tokenizer({"image": torch.randn(2, 3, 48, 48)})
        >>> tokens.values.shape, image.encoder(tokens).shape
        (torch.Size([2, 36, 3, 8, 8]), torch.Size([2, 36, 32]))
    """

    name = "image"
    masks_legend = "Each row: the image, what the context encoder sees of it, and each target block."

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        channels: int = 3,
        encoder: EncoderFactory = ViT,
        masker: Masker | None = None,
        any_size: bool = False,
    ) -> None:
        self.image_size = _pair(image_size)
        self.patch_size = _pair(patch_size)
        self.channels = channels
        self.tokenizer = PatchTokenizer(
            image_size=self.image_size, patch_size=self.patch_size, channels=channels, any_size=any_size
        )
        self.grid = self.tokenizer.grid
        self.spec = TokenSpec(shape=(channels, *self.patch_size), grid=self.grid, positions=SinCosPositions)
        self.extent = Extent(
            key="image",
            sizes=self.image_size,
            tokens=math.prod(self.grid),
            cut={"image_size": self.image_size},
            same={"channels": channels},
        )
        self.masker = masker or MultiBlock()
        self.encoder = encoder(self.spec)

    def draw_masks(self, batch: Batch, masks: list[Masks]) -> list[Tensor]:
        """A row a sample: the image, what the context shows, and each target block."""
        return pictures.masks(batch["image"], masks[0], self.patch_size)

    def draw_features(self, batch: Batch, tokens: Tokens, colours: Tensor) -> list[Tensor]:
        """A row a sample: the image and the colour of each patch."""
        return pictures.features(batch["image"], colours, self.grid)

    def example(self, count: int, generator: torch.Generator) -> Batch:
        """Noise."""
        return {"image": torch.randn(count, self.channels, *self.image_size, generator=generator)}

    def draw_samples(self, batch: Batch) -> list[Tensor]:
        """Each image."""
        return pictures.samples(batch["image"])

    def raw_features(self, batch: Batch) -> Tensor:
        """All pixels: (B, C H W)."""
        return batch["image"].flatten(1)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
