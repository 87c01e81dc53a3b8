"""The embedding of clips and images in one encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.transformer import init_weights


class ClipImageEmbedding(nn.Module):
    """Embed tubelets of clips and patches of images, each kind by a linear map of its own and a learned vector.

    The vector is added to all tokens of its kind (V-JEPA 2.1, Mur-Labadia et al. 2026, arXiv:2603.14482). The kinds are
    told apart by their frames: `shape` has several, a patch of an image has one.

    The map and the vector of the kind that a batch does not hold get gradients of zero, not none: so all processes of
    DDP have gradients of the same parameters. Adam then moves them on by its momentum, as it does everything else.

    Args:
        width: channels of a token.
        shape: (channels, frames, height, width) of a tubelet, of at least 2 frames.

    Raises:
        ValueError: a tubelet of one frame; when called: tokens of another shape.

    Examples:
        >>> import torch
        >>> from modalities.video.embedding import ClipImageEmbedding
        >>> embed = ClipImageEmbedding(32, shape=(3, 2, 8, 8))
        >>> embed(torch.randn(4, 10, 3, 2, 8, 8)).shape, embed(torch.randn(4, 5, 3, 1, 8, 8)).shape
        (torch.Size([4, 10, 32]), torch.Size([4, 5, 32]))
    """

    def __init__(self, width: int, *, shape: Sequence[int]) -> None:
        super().__init__()
        channels, frames, *patch = shape
        if frames < 2:
            raise ValueError(
                f"expected tubelets of at least 2 frames beside images, got {frames}: images are told from clips by "
                "their one frame; set modality.tubelet to 2, or images to false"
            )
        self.shape = (channels, frames, *patch)
        self.image_shape = (channels, 1, *patch)
        self.clip = nn.Linear(math.prod(self.shape), width)
        self.image = nn.Linear(math.prod(self.image_shape), width)
        self.clip_token = nn.Parameter(torch.empty(width))
        self.image_token = nn.Parameter(torch.empty(width))
        init_weights(self)
        for token in (self.clip_token, self.image_token):
            nn.init.trunc_normal_(token, std=0.02)

    def forward(self, values: Tensor) -> Tensor:
        """Embed tokens of one kind: (B, K, C, t, h, w), or (B, K, C, 1, h, w), to (B, K, width)."""
        found = tuple(values.shape[2:])
        if found not in (self.shape, self.image_shape):
            raise ValueError(
                f"expected tokens of shape {self.shape} (clips) or {self.image_shape} (images), got {found}"
            )
        mine, other = (self.clip, self.clip_token), (self.image, self.image_token)
        if found == self.image_shape:
            mine, other = other, mine
        embedded = mine[0](values.flatten(2).to(mine[0].weight.dtype)) + mine[1]
        none = other[0](embedded.new_empty(0, other[0].in_features, dtype=other[0].weight.dtype)) + other[1]
        return embedded + none.sum()  # a sum over no tokens: zero, and so are the gradients
