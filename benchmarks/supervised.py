"""Training on labels, as a pretext, so that everything else is that of the methods without labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from jepa_lightning.encoders.pooling import pool_tokens
from jepa_lightning.modality import Batch, Modality
from jepa_lightning.precision import autocast_in_half
from jepa_lightning.predictors import PredictorSpec
from jepa_lightning.pretexts import Networks, Outcome, Pretext
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Latents


class Supervised(Pretext):
    """Classify each training sample by a linear map of its averaged tokens: the term `classes`, a cross-entropy.

    Encoder, optimiser, schedules and augmentation (`data.view_transform`, with `data.views: 1`) are those of the
    recipe. The linear map is left out of what is evaluated, as a projector is.

    Args:
        classes: number of classes; labels, the first of a batch's, are from 0, and below 0 where there is none.

    Raises:
        ValueError: fewer than 2 classes, or a training batch without labels of classes.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from benchmarks.supervised import Supervised
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.targets import Online
        >>> from modalities.image import Image
        >>> modality = Image(image_size=32, patch_size=8, encoder=partial(ViT, width=32, depth=1, heads=2))
        >>> jepa = JEPA(modality, pretext=Supervised(classes=3), target=Online)
        >>> batch = {"image": torch.randn(4, 3, 32, 32), "labels": {"kind": torch.tensor([0, 1, 2, -1])}}
        >>> sorted(jepa.losses(jepa.step(batch, torch.Generator())))
        ['classes']
    """

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"expected at least 2 classes, got {classes}")
        self.classes = classes
        self.classifier: nn.Module = nn.Identity()

    def build(self, modality: Modality, target: Target) -> None:
        """Build the classifier."""
        self.classifier = nn.Linear(modality.encoder.dim, self.classes)

    def predictor_spec(self, modality: Modality, target: Target) -> PredictorSpec | None:
        """Return None: there is no predictor."""
        return None

    def forward(self, nets: Networks, batch: Batch, generator: torch.Generator) -> Outcome:
        """Encode the batch and classify it."""
        tokens = nets.modality.tokenizer(batch)
        with autocast_in_half(tokens.device):
            pooled = pool_tokens(nets.encoder(tokens), tokens.valid)
            logits = self.classifier(pooled)
        labels = next(iter(batch.get("labels", {}).values()), None)
        if labels is None or labels.ndim != 1 or labels.is_floating_point():
            what = "none" if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
            raise ValueError(f"expected a label of whole numbers (B,) first among a batch's labels, got {what}")
        loss = F.cross_entropy(logits.float(), labels, ignore_index=-1)
        return Outcome(context=[Latents(values=pooled.unsqueeze(1))], terms={"classes": (loss, 1.0)})
