"""The online probe: is the representation getting better while it trains?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from jepa_lightning.callbacks.transfer import transfer
from jepa_lightning.callbacks.verdict import Probed, asked
from jepa_lightning.encoders import Encoder
from jepa_lightning.encoders.pooling import pooled_features
from jepa_lightning.evaluation import Features, extract, probe
from jepa_lightning.evaluation.features.pooled import is_class
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from jepa_lightning.names.shown import Shown
from jepa_lightning.pretexts.trajectories import frames
from jepa_lightning.scale.threads import one_thread_if_small


class OnlineProbe(Shown, Callback):
    """At each validation: kNN and a linear classifier on frozen, mean-pooled features; R2 of continuous labels.

    Classes are logged as `probe/knn` and `probe/linear` (accuracies), every continuous label as `probe/r2_NAME`
    (ridge regression). Fits on the data module's `probe_dataloader` (a labelled subset of the training part,
    evaluation transforms), scores on its `val_dataloader`. The target defines which encoder is probed (an EMA's
    own; without a teacher, the trained one). It has no state in the module and leaves none in the checkpoint. The
    same encoder before training is scored at the first validation, under the same protocol, and logged beside it, as
    `probe/knn_untrained` and so on: a random network gives strong features, so a score without this row says
    nothing. A run that ends before its first validation has neither. Where the training
    or the validation data have no such labels (or there are no validation data), there is no probe.

    Args:
        label: which class label, where samples have several; the first by default.
        k: neighbours of the kNN (cosine, temperature 0.07).
        c: inverse L2 penalty of the logistic regression on standardised features; None chooses it for each encoder, on
            a fifth of its training features.
        enabled: False switches it off.

    Raises:
        ValueError: `k` or `c` is out of range.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from jepa_lightning.callbacks import OnlineProbe
        >>> callbacks = [OnlineProbe(label="shape", k=5)]
        >>> trainer = Trainer(max_steps=10, accelerator="cpu", logger=False, callbacks=callbacks)
        >>> next(callback for callback in trainer.callbacks if isinstance(callback, OnlineProbe))
        OnlineProbe(label='shape', k=5)
    """

    def __init__(self, *, label: str | None = None, k: int = 20, c: float | None = None, enabled: bool = True) -> None:
        if k < 1 or (c is not None and not c > 0):
            raise ValueError(f"expected k of at least 1 and c above 0 (null: chosen), got k {k} and c {c}")
        self.label = label
        self.k = k
        self.c = c
        self.enabled = enabled
        self.untrained: dict[str, float] | None = None
        self.probed: Probed | None = None  # what is asked, once it was
        self._before: Encoder | None = None
        self._kept: tuple[Any, tuple[Any, Any]] | None = None

    def setup(self, trainer: Trainer, pl_module: JEPA, stage: str) -> None:  # type: ignore[override]
        """Keep the encoder as it is before a checkpoint is loaded; whether one will be is not known yet."""
        self._kept = None
        if stage == "fit":
            self.untrained = None
            self._before = copy.deepcopy(pl_module.evaluated_encoder) if self.applies(trainer) else None

    def on_train_start(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Keep what a new run starts from; it is scored at the first validation.

        Raises:
            ValueError: the data have no class label called `label`.
        """
        if self._before is None:
            return
        if self.label is not None:
            for loader in self.loaders(trainer):
                Features(values=torch.empty(1, 0), labels=first_labels(loader)).class_label(self.label)
        if trainer.ckpt_path is None:  # not a resumed run, whose weights are trained
            state = {name: whole(value) for name, value in pl_module.evaluated_encoder.state_dict().items()}
            self._before.load_state_dict(state, strict=False)  # a precision plug-in may have added to it

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: JEPA) -> None:  # type: ignore[override]
        """Score the encoder as it is now and log it beside the untrained row, which is made at the first validation."""
        if trainer.sanity_checking or not self.applies(trainer):
            return
        encoder, before = pl_module.evaluated_encoder, self._before
        if before is None:
            [found] = self.score(trainer, pl_module, [encoder])
        else:
            found, self.untrained = self.score(trainer, pl_module, [encoder, alike(before, encoder)])
            self._before = None
        scores = {f"probe/{name}": value for name, value in found.items()}
        if self.untrained is not None:
            scores |= {f"probe/{name}_untrained": value for name, value in self.untrained.items()}
        pl_module.log_dict(scores, batch_size=1, sync_dist=True)

    def teardown(self, trainer: Trainer, pl_module: JEPA, stage: str) -> None:  # type: ignore[override]
        """Let go of the loaders and their workers."""
        self._kept = None

    def score(self, trainer: Trainer, pl_module: JEPA, encoders: Sequence[Encoder]) -> list[dict[str, float]]:
        """What `evaluation.probe` finds in the features of each encoder, in one pass over the data."""
        embed = embedder(pl_module, *encoders)

        def features(loader: Any) -> list[Features]:
            found = extract(embed, (frames(transfer(trainer, batch)) for batch in loader))
            values = found.values.chunk(len(encoders), dim=1)
            return [Features(values=part.contiguous(), labels=found.labels) for part in values]

        train, test = map(features, self.loaders(trainer))
        self.probed = asked(train[0], test[0], self.label)
        with one_thread_if_small(train[0].values.numel()):
            return [probe(*sets, label=self.label, k=self.k, c=self.c) for sets in zip(train, test, strict=True)]

    def loaders(self, trainer: Trainer) -> tuple[Any, Any]:
        """Give the loaders that the probe is fitted and scored on; they are kept, with their workers, for the run."""
        of_run: Any = trainer
        data = of_run.datamodule
        if self._kept is None or self._kept[0] is not data or of_run.reload_dataloaders_every_n_epochs:
            self._kept = data, (data.probe_dataloader(), data.val_dataloader())
        return self._kept[1]

    def applies(self, trainer: Trainer) -> bool:
        """Whether this run has labels to probe with: for fitting and for scoring."""
        return self.main_metric(trainer) is not None

    def main_metric(self, trainer: Trainer) -> str | None:
        """What says best how good the features are: `probe/linear`, or R2 of the first continuous label; or None."""
        data: Any = getattr(trainer, "datamodule", None)
        evaluated = self.enabled and isinstance(trainer.lightning_module, JEPA)
        if not evaluated or not getattr(data, "labelled", False):
            return None
        loaders = self.loaders(trainer)
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


def embedder(module: JEPA, *encoders: Encoder) -> Callable[[Batch], Tensor]:
    """The function from a batch to the encoders' mean-pooled features (B, n x D), in the trainer's precision."""

    @torch.no_grad()
    def embed(batch: Batch) -> Tensor:
        with module.trainer.precision_plugin.forward_context():
            tokens = module.tokenizer(batch)
            return torch.cat([pooled_features(encoder, tokens) for encoder in encoders], dim=1)

    return embed


def whole(value: Tensor) -> Tensor:
    """A tensor, gathered where the ranks hold shards of it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, then buffers."""
    return chain(module.parameters(), module.buffers())


def alike(encoder: Encoder, other: Encoder) -> Encoder:
    """Move an encoder to the device of another of the same architecture, in place, and to the types of its weights."""
    with torch.inference_mode(False), torch.no_grad():
        encoder.to(next(tensors(other)).device)
        for mine, its in zip(tensors(encoder), tensors(other), strict=True):
            mine.data = mine.data.to(its.dtype)
    return encoder
