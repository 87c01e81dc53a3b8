"""The online probe: is the representation getting better while it trains?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from jepa_lightning.callbacks.transfer import transfer
from jepa_lightning.evaluation import extract, probe
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from jepa_lightning.objectives import pool


class OnlineProbe(Callback):
    """At each validation: kNN and a linear classifier on frozen, mean-pooled teacher features.

    Fits on the data module's `probe_dataloader` (a labelled subset of the training part, evaluation transforms), scores
    on its `val_dataloader`. It has no state in the module and leaves none in the checkpoint. The same encoder before
    training is scored under the same protocol and logged beside it, as `probe/knn_untrained` and
    `probe/linear_untrained`: a random network is a strong feature, and a number without this row says nothing. Where
    the training or the validation data have no classes (or there are no validation data), there is no probe.

    Args:
        label: which label, where samples have several; the first that holds classes by default.
        k: neighbours of the kNN (cosine, temperature 0.07).
        c: inverse L2 penalty of the logistic regression on standardised features; None chooses it for each encoder, on
            a fifth of its training features.
        enabled: False switches it off.
    """

    def __init__(self, *, label: str | None = None, k: int = 20, c: float | None = None, enabled: bool = True) -> None:
        self.label = label
        self.k = k
        self.c = c
        self.enabled = enabled
        self.untrained: dict[str, float] | None = None
        self._before: nn.Module | None = None

    def setup(self, trainer: Trainer, pl_module: JEPA, stage: str) -> None:  # type: ignore[override]
        """Keep the encoder as it is before a checkpoint is loaded; whether one will be is not known yet."""
        if stage == "fit" and self.applies(trainer):
            self._before = copy.deepcopy(pl_module.teacher)

    def on_train_start(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Score the encoder before training."""
        before, self._before = self._before, None
        if self.applies(trainer):
            teacher: nn.Module = pl_module.teacher
            if before is not None and trainer.ckpt_path is not None:  # a resumed run
                teacher = trainer.precision_plugin.convert_module(before).to(pl_module.device)
            self.untrained = self.score(trainer, pl_module, teacher)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Score the teacher as it is now and log it beside the untrained row."""
        if trainer.sanity_checking or not self.applies(trainer):
            return
        scores = {f"probe/{name}": value for name, value in self.score(trainer, pl_module, pl_module.teacher).items()}
        if self.untrained is not None:
            scores |= {f"probe/{name}_untrained": value for name, value in self.untrained.items()}
        pl_module.log_dict(scores, batch_size=1, sync_dist=True)

    def score(self, trainer: Trainer, pl_module: JEPA, teacher: nn.Module) -> dict[str, float]:
        """Accuracies (0-1) of `knn` and `linear` on `teacher`'s features."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]

        def batches(loader: Any) -> Iterator[Batch]:
            return (transfer(trainer, batch) for batch in loader)

        embed = embedder(pl_module, teacher)
        train = extract(embed, batches(data.probe_dataloader()))
        test = extract(embed, batches(data.val_dataloader()))
        return probe(train, test, label=self.label, k=self.k, c=self.c)

    def applies(self, trainer: Trainer) -> bool:
        """Whether this run has labels to probe with: to learn from and to be judged by."""
        data: Any = getattr(trainer, "datamodule", None)
        if not self.enabled or not getattr(data, "labelled", False):
            return False
        return all(has_classes(loader, self.label) for loader in (data.probe_dataloader(), data.val_dataloader()))


def has_classes(loader: Any, label: str | None = None) -> bool:
    """Whether a loader's first sample has a class label; one that is asked for by name only needs to be there."""
    if not loader:
        return False
    labels = loader.dataset[0].get("labels", {})
    if label is not None:
        return bool(labels)  # a wrong name is an error with the right ones, not a run without a probe
    values = [torch.as_tensor(value) for value in labels.values()]
    return any(value.ndim == 0 and not value.is_floating_point() for value in values)


def embedder(module: JEPA, teacher: nn.Module) -> Callable[[Batch], Tensor]:
    """The function from a batch to `teacher`'s mean-pooled features (B, D), in the trainer's precision."""

    @torch.no_grad()
    def embed(batch: Batch) -> Tensor:
        with module.trainer.precision_plugin.forward_context():
            tokens = module.tokenizer(batch)
            return pool(teacher(tokens).float(), tokens.valid)

    return embed
