"""The vector modality: numbers, as one token or as groups of them."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
from jepa_lightning.maskers import Masker, Random
from jepa_lightning.modality import Batch, EncoderFactory, Modality
from modalities.vector.tokenizer import VectorTokenizer


class Vector(Modality):
    """Vectors of one length: proprioception (a robot's joints), states of a simulator.

    Batches hold `vector` (B, features), as `TrajectoryData` gives observations that are no images. For a world model a
    vector is one token. Masked prediction needs several: with `group` 1 each number is one, as T-JEPA has it for tables
    (Thimonier et al. 2024, arXiv:2410.05016), and a data module of your own.

    Args:
        features: numbers of a vector.
        group: numbers of a token, in a row; None: all of them.
        standardize: less the mean and by the standard deviation of each number, estimated from the training set.
        encoder: builds the encoder from the token spec: `ViT` or your own `Encoder`.
        masker: draws contexts and targets; `Random` by default.

    Raises:
        ValueError: the group does not divide the features.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import ViT
        >>> from modalities.vector import Vector
        >>> joints = Vector(features=6, encoder=partial(ViT, width=32, depth=1, heads=2))
        >>> tokens = joints.tokenizer({"vector": torch.randn(4, 6)})
        >>> tokens.values.shape, joints.encoder(tokens).shape
        (torch.Size([4, 1, 6]), torch.Size([4, 1, 32]))
    """

    name = "vector"

    def __init__(
        self,
        *,
        features: int,
        group: int | None = None,
        standardize: bool = True,
        encoder: EncoderFactory = ViT,
        masker: Masker | None = None,
    ) -> None:
        self.features = features
        group = features if group is None else group
        self.tokenizer: VectorTokenizer = VectorTokenizer(features=features, group=group, standardize=standardize)
        self.spec = TokenSpec(shape=(group,), grid=self.tokenizer.grid, positions=SinCosPositions)
        self.masker = masker or Random()
        self.encoder = encoder(self.spec)

    def example(self, count: int, generator: torch.Generator) -> Batch:
        """Vectors of a normal distribution."""
        return {"vector": torch.randn(count, self.features, generator=generator)}

    def raw_features(self, batch: Batch) -> Tensor:
        """The standardised vectors themselves, (B, features)."""
        return self.tokenizer.standardised(batch)
