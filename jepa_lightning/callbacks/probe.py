"""The online probe: is the representation getting better while it trains?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from jepa_lightning.callbacks.transfer import transfer
from jepa_lightning.config.shown import Shown
from jepa_lightning.encoders import Encoder
from jepa_lightning.evaluation import extract, probe
from jepa_lightning.evaluation.features.pooled import is_class
from jepa_lightning.evaluation.features.pooling import pooled_features
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from jepa_lightning.scale.threads import one_thread_if_small


class OnlineProbe(Shown, Callback):
    """At each validation: kNN and a linear classifier on frozen, mean-pooled features; R2 of continuous labels.

    Classes are logged as `probe/knn` and `probe/linear` (accuracies), every continuous label as `probe/r2_NAME`
    (ridge regression). Fits on the data module's `probe_dataloader` (a labelled subset of the training part,
    evaluation transforms), scores on its `val_dataloader`. The target defines which encoder is probed (an EMA's
    own; without a teacher, the trained one). It has no state in the module and leaves none in the checkpoint. The
    same encoder before training is scored under the same protocol and logged beside it, as `probe/knn_untrained`
    and so on: a random network gives strong features, so a score without this row says nothing. Where the training
    or the validation data have no such labels (or there are no validation data), there is no probe.

    Args:
        label: which class label, where samples have several; the first by default.
        k: neighbours of the kNN (cosine, temperature 0.07).
        c: inverse L2 penalty of the logistic regression on standardised features; None chooses it for each encoder, on
            a fifth of its training features.
        enabled: False switches it off.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from jepa_lightning.callbacks import OnlineProbe
        >>> callbacks = [OnlineProbe(label="shape", k=5)]
        >>> trainer = Trainer(max_steps=10, accelerator="cpu", logger=False, callbacks=callbacks)
        >>> next(callback for callback in trainer.callbacks if isinstance(callback, OnlineProbe))
        OnlineProbe(label='shape', k=5)
    """

    def __init__(self, *, label: str | None = None, k: int = 20, c: float | None = None, enabled: bool = True) -> None:
        self.label = label
        self.k = k
        self.c = c
        self.enabled = enabled
        self.untrained: dict[str, float] | None = None
        self._before: Encoder | None = None

    def setup(self, trainer: Trainer, pl_module: JEPA, stage: str) -> None:  # type: ignore[override]
        """Keep the encoder as it is before a checkpoint is loaded; whether one will be is not known yet."""
        if stage == "fit" and self.applies(trainer):
            self._before = copy.deepcopy(pl_module.evaluated_encoder)

    def on_train_start(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Score the encoder before training."""
        before, self._before = self._before, None
        if self.applies(trainer):
            encoder = pl_module.evaluated_encoder
            if before is not None and trainer.ckpt_path is not None:  # a resumed run
                encoder = before.to(pl_module.device)
            self.untrained = self.score(trainer, pl_module, encoder)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Score the encoder as it is now and log it beside the untrained row."""
        if trainer.sanity_checking or not self.applies(trainer):
            return
        found = self.score(trainer, pl_module, pl_module.evaluated_encoder)
        scores = {f"probe/{name}": value for name, value in found.items()}
        if self.untrained is not None:
            scores |= {f"probe/{name}_untrained": value for name, value in self.untrained.items()}
        pl_module.log_dict(scores, batch_size=1, sync_dist=True)

    def score(self, trainer: Trainer, pl_module: JEPA, encoder: Encoder) -> dict[str, float]:
        """What `evaluation.probe` finds in `encoder`'s features."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]

        def batches(loader: Any) -> Iterator[Batch]:
            return (transfer(trainer, batch) for batch in loader)

        embed = embedder(pl_module, encoder)
        train = extract(embed, batches(data.probe_dataloader()))
        test = extract(embed, batches(data.val_dataloader()))
        with one_thread_if_small(train.values.numel()):
            return probe(train, test, label=self.label, k=self.k, c=self.c)

    def applies(self, trainer: Trainer) -> bool:
        """Whether this run has labels to probe with: for fitting and for scoring."""
        return self.main_metric(trainer) is not None

    def main_metric(self, trainer: Trainer) -> str | None:
        """What says best how good the features are: `probe/linear`, or R2 of the first continuous label; or None."""
        data: Any = getattr(trainer, "datamodule", None)
        evaluated = self.enabled and isinstance(trainer.lightning_module, JEPA)
        if not evaluated or not getattr(data, "labelled", False):
            return None
        loaders = (data.probe_dataloader(), data.val_dataloader())
        if any(loader and not loader.dataset.labelled for loader in loaders):  # all of them -1
            return None
        found = [first_labels(loader) for loader in loaders]
        if self.label is not None:  # a wrong name is an error with the right ones, not a run without a probe
            return "probe/linear" if all(found) else None
        if all(any(is_class(label) for label in labels.values()) for labels in found):
            return "probe/linear"
        return next((f"probe/r2_{n}" for n, v in found[0].items() if v.is_floating_point() and n in found[1]), None)


def first_labels(loader: Any) -> dict[str, Tensor]:
    """The labels of a loader's first sample, with a batch of one; empty without a loader."""
    labels = loader.dataset[0].get("labels", {}) if loader else {}
    return {name: torch.as_tensor(value).unsqueeze(0) for name, value in labels.items()}


def embedder(module: JEPA, encoder: Encoder) -> Callable[[Batch], Tensor]:
    """The function from a batch to `encoder`'s mean-pooled features (B, D), in the trainer's precision."""

    @torch.no_grad()
    def embed(batch: Batch) -> Tensor:
        with module.trainer.precision_plugin.forward_context():
            return pooled_features(encoder, module.tokenizer(batch))

    return embed
