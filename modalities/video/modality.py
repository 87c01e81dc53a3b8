"""The video modality: V-JEPA's tubelets, masks and ViT."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from jepa_lightning.data.pixels import usual_statistics
from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
from jepa_lightning.maskers import BlockUnion, Masker, MultiMasker
from jepa_lightning.modality import Batch, EncoderFactory, Extent, Modality
from jepa_lightning.tokens import Masks, Tokens
from modalities.video import pictures
from modalities.video.embedding import ClipImageEmbedding
from modalities.video.tokenizer import TubeletTokenizer


def vjepa_masks() -> MultiMasker:
    """V-JEPA's two mask generators: short-range (8 small blocks) and long-range (2 large ones), through all frames."""
    return MultiMasker(maskers=[BlockUnion(blocks=8, scale=(0.15, 0.15)), BlockUnion(blocks=2, scale=(0.7, 0.7))])


class Video(Modality):
    """Clips as grids of tubelets (V-JEPA, Bardes et al. 2024, arXiv:2404.08471).

    Batches hold `video`, (B, C, T, H, W): bytes (normalised by the tokenizer) or floats (taken as they are); single
    frames (B, C, H, W), such as the observations of a trajectory, are repeated over the clip. With `images`, a batch
    may hold `image`, (B, C, H, W), instead, as `MixedData` gives them (V-JEPA 2.1: Mur-Labadia et al. 2026,
    arXiv:2603.14482): its patches of one frame lie at the time 0 and have an embedding of their own
    (`ClipImageEmbedding`).

    Args:
        frames: frames T of a clip; 1 for still images.
        image_size: height and width of a frame in pixels, or one number for both; the data module crops to it.
        tubelet: frames of a tubelet; must divide `frames`.
        patch_size: height and width of a tubelet in pixels, or one number for both; must divide the frame's.
        channels: number of channels.
        mean: of each channel, for values from 0 to 1. None: ImageNet's for 3 channels, 0.5 for other numbers.
        std: likewise; None is ImageNet's, or 0.25.
        encoder: builds the encoder from the token spec: `ViT`, `TimmEncoder` or your own `Encoder`.
        masker: draws contexts and targets; V-JEPA's short-range and long-range masks by default.
        images: also take images, of the size and channels of a frame; `tubelet` must be at least 2, and the encoder one
            that uses `TokenSpec.embed`, as `ViT` does.

    Raises:
        ValueError: sizes that do not fit each other, or `images` with an encoder that cannot take them.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import ViT
        >>> from modalities.video import Video
        >>> video = Video(frames=4, image_size=32, patch_size=8, encoder=partial(ViT, width=32, depth=1, heads=2))
        >>> tokens = video.tokenizer({"video": torch.randn(2, 3, 4, 32, 32)})
        >>> tokens.values.shape, video.encoder(tokens).shape
        (torch.Size([2, 32, 3, 2, 8, 8]), torch.Size([2, 32, 32]))
    """

    name = "video"
    masks_legend = (
        "From above: the clip; then for each draw of masks what the context encoder sees, and what it does not."
    )

    def __init__(
        self,
        *,
        frames: int = 16,
        image_size: int | tuple[int, int] = 224,
        tubelet: int = 2,
        patch_size: int | tuple[int, int] = 16,
        channels: int = 3,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        encoder: EncoderFactory = ViT,
        masker: Masker | None = None,
        images: bool = False,
    ) -> None:
        default = usual_statistics(channels)
        self.frames = frames
        self.image_size = _pair(image_size)
        self.channels = channels
        self.tokenizer = TubeletTokenizer(
            frames=frames,
            image_size=self.image_size,
            tubelet=tubelet,
            patch_size=_pair(patch_size),
            channels=channels,
            mean=default[0] if mean is None else mean,
            std=default[1] if std is None else std,
            images=images,
        )
        self.grid = self.tokenizer.grid
        shape = (channels, *self.tokenizer.tubelet)
        self.spec = TokenSpec(shape=shape, grid=self.grid, positions=SinCosPositions)
        if images:
            embed = partial(ClipImageEmbedding, shape=shape)
            self.spec = replace(self.spec, embed=embed, other_shapes=((channels, 1, *shape[2:]),))
        self.extent = Extent(
            key="video",
            sizes=(frames, *self.image_size),
            tokens=math.prod(self.grid),
            cut={"frames": frames, "image_size": self.image_size},
            same={"channels": channels},
        )
        self.masker = masker or vjepa_masks()
        self.encoder = encoder(self.spec)
        if images and not any(isinstance(part, ClipImageEmbedding) for part in self.encoder.modules()):
            raise ValueError(
                f"expected an encoder that uses TokenSpec.embed for clips and images, got "
                f"{type(self.encoder).__name__}: use ViT, or set modality.images to false"
            )

    def draw_masks(self, batch: Batch, masks: list[Masks]) -> list[Tensor]:
        """Moving pictures: the clip above, for each draw of masks, what its context shows and what it hides."""
        clips, grid = self._shown(batch)
        return pictures.masks(clips, masks, grid)

    def draw_features(self, batch: Batch, tokens: Tokens, colours: Tensor) -> list[Tensor]:
        """Moving pictures: the clip above the colour of each tubelet."""
        clips, grid = self._shown(batch)
        return pictures.features(clips, colours, grid)

    def example(self, count: int, generator: torch.Generator) -> Batch:
        """Noise."""
        return {"video": torch.randn(count, self.channels, self.frames, *self.image_size, generator=generator)}

    def draw_samples(self, batch: Batch) -> list[Tensor]:
        """Each clip, moving."""
        return pictures.samples(self._shown(batch)[0])

    def raw_features(self, batch: Batch) -> Tensor:
        """The pixels of the mean frame: (B, C H W)."""
        return self._shown(batch)[0].float().mean(2).flatten(1)

    def _shown(self, batch: Batch) -> tuple[Tensor, tuple[int, ...]]:
        """The clips of a batch, or its images as clips of one frame, and the grid of their tokens."""
        if "video" not in batch and "image" in batch:
            return batch["image"].unsqueeze(2), (1, *self.grid[1:])
        video = batch["video"]
        return video.unsqueeze(2) if video.ndim == 4 else video, self.grid


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
