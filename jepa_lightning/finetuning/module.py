"""The LightningModule of fine-tuning."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, R2Score
from torchmetrics.classification import MulticlassJaccardIndex
from torchvision.transforms.v2 import MixUp

from jepa_lightning.finetuning.groups import Unfreeze, layer_groups, set_drop_path, unfreeze
from jepa_lightning.finetuning.heads import loss_of, loss_of_shares
from jepa_lightning.finetuning.model import FineTuned
from jepa_lightning.modality import Batch
from jepa_lightning.optimization import run_length
from jepa_lightning.schedules import WarmupCosine


class FineTuning(LightningModule):
    """Trains an encoder and a head on labels, for any Trainer.

    AdamW, a warmup and a cosine schedule to 0. Logs `train/loss`, and at each validation `val/accuracy`, `val/r2` of
    values, or `val/miou` (the mean intersection over union) of classes of pixels. Strategies, precision, accumulation
    and resuming are the Trainer's.

    Args:
        model: encoder and head; its encoder is unfrozen here.
        learning_rate: of the head, at its peak.
        which: layers that are trained: "all", "none", or a number of the last ones.
        layer_decay: factor of the learning rate from layer to layer (`layer_groups`).
        weight_decay: of weight matrices.
        warmup: share of the steps.
        drop_path: stochastic depth of the last layer; None: as the encoder was built.
        label_smoothing: of classes.
        mixup: alpha of MixUp (Zhang et al. 2018), for images and classes; 0: none.

    Raises:
        ValueError: a setting is out of range or does not fit.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA, Frozen
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.finetuning import FineTuned, FineTuning
        >>> from modalities.image import Image
        >>> jepa = JEPA(Image(image_size=32, patch_size=8, encoder=partial(ViT, width=32, depth=2, heads=2)))
        >>> model = FineTuned(Frozen(jepa), label="label", classes=[0, 1], names=["cat", "dog"])
        >>> module = FineTuning(model, which=1, layer_decay=0.5)
        >>> sorted({round(group["lr"], 5) for group in module.groups()})
        [0.0005, 0.001]
    """

    def __init__(
        self,
        model: FineTuned,
        *,
        learning_rate: float = 1e-3,
        which: Unfreeze = "all",
        layer_decay: float = 0.75,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        drop_path: float | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
    ) -> None:
        super().__init__()
        if not learning_rate > 0:
            raise ValueError(f"expected a learning_rate above 0, got {learning_rate:g}")
        if not 0 <= label_smoothing < 1 or not mixup >= 0:
            raise ValueError(
                f"expected label_smoothing from 0 to below 1 and mixup of at least 0, got {label_smoothing:g} and "
                f"{mixup:g}"
            )
        if mixup and not (model.classifies and not model.dense and model.encoder.modality.name == "image"):
            raise ValueError("expected mixup for images with classes only: leave it out")
        self.model = model
        self.rates = {"learning_rate": learning_rate, "layer_decay": layer_decay, "weight_decay": weight_decay}
        self.label_smoothing = label_smoothing
        self.mixup = MixUp(alpha=mixup, num_classes=len(model.classes) + 1) if mixup else None
        self.schedule = WarmupCosine(start=0.0, peak=1.0, end=0.0, warmup=warmup)
        unfreeze(model.encoder.encoder, which)
        if drop_path is not None:
            set_drop_path(model.encoder.encoder, drop_path)
        self.score: Any = MeanMetric() if model.classifies else R2Score()
        if model.dense and model.classifies:
            self.score = MulticlassJaccardIndex(len(model.classes), ignore_index=-1, validate_args=False)

    @property
    def metric(self) -> str:
        """Return the name of the score of a validation."""
        if not self.model.classifies:
            return "val/r2"
        return "val/miou" if self.model.dense else "val/accuracy"

    def groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups, from the input to the head."""
        return layer_groups(self.model.encoder.encoder, self.model.head, **self.rates)

    def configure_optimizers(self) -> Any:
        """Build AdamW and the schedule of the whole run."""
        optimizer = AdamW(self.groups())
        total = run_length(self.trainer)
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step + 1, total + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        if self.mixup is not None:
            goal, count = self.model.goal(batch), len(self.model.classes)
            images, shares = self.mixup(batch["image"], torch.where(goal < 0, count, goal))  # no label: a class more
            outputs = self.model.outputs({"image": images})
            loss = loss_of_shares(outputs, shares[:, :count], label_smoothing=self.label_smoothing)
        else:
            outputs, goal = self.model.compared(batch)
            loss = loss_of(outputs, goal, label_smoothing=self.label_smoothing)
        self.log("train/loss", loss, batch_size=len(batch["labels"][self.model.label]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch."""
        outputs, goal = self.model.compared(batch)
        known = goal >= 0 if self.model.classifies else goal.isfinite().all(1)
        if isinstance(self.score, MeanMetric):
            self.score.update((outputs.argmax(1) == goal)[known].float())
        else:
            self.score.update(outputs[known].float(), goal[known])
        self.log(self.metric, self.score, batch_size=len(batch["labels"][self.model.label]))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return probabilities or values of a batch."""
        return self.model(batch)
