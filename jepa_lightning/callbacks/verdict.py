"""What the online probe found, in sentences: of which label, over how many samples, beside chance, and how sure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jepa_lightning.evaluation.features.pooled import Features, is_class
from jepa_lightning.evaluation.probes.classification import chance


@dataclass(frozen=True)
class Probed:
    """The question that the online probe asks.

    Attributes:
        label: the class label.
        classes: number of classes in the validation data.
        chance: accuracy of always saying the class that is most frequent in the training part.
        train: number of labelled samples that the probe is fitted on.
        test: number of labelled samples that it is scored on.
    """

    label: str
    classes: int
    chance: float
    train: int
    test: int

    def verdict(self, trained: float, untrained: float) -> str:
        """Say whether training helps by an accuracy; the interval takes both scores for independent (it is wide).

        Examples:
            >>> from jepa_lightning.callbacks.verdict import Probed
            >>> Probed(label="shape", classes=5, chance=0.2, train=800, test=400).verdict(0.6, 0.4)
            'training helps: +0.200 [0.132, 0.268]'
        """
        from jepa_lightning.evaluation.probes.protocols import Interval  # which import scikit-learn
        from jepa_lightning.evaluation.report.results import Difference

        found = trained - untrained
        error = math.sqrt(sum(p * (1 - p) for p in (trained, untrained)) / max(self.test, 1))
        interval = Interval(mean=found, low=found - 1.96 * error, high=found + 1.96 * error, std=error, count=self.test)
        words = {"label": self.label, "probe": "linear", "measure": "accuracy", "share": 1.0, "samples": self.test}
        return Difference(encoder="trained", baseline="untrained", estimate=interval, **words).words  # type: ignore[arg-type]

    def __str__(self) -> str:
        return (
            f"{self.label}: {self.classes} classes, chance {self.chance:.3f}, {self.train:,} training and "
            f"{self.test:,} validation samples"
        )


def asked(train: Features, test: Features, label: str | None) -> Probed | None:
    """Describe the question; None where there is no class label, or no labelled sample."""
    classes = [name for name, values in train.labels.items() if is_class(values)]
    name = label or next(iter(classes), None)
    if name is None or name not in test.labels:
        return None
    known, truth = (part.labels[name].long() for part in (train, test))
    known, truth = known[known >= 0], truth[truth >= 0]
    if not len(known) or not len(truth):
        return None
    sizes = {"classes": len(truth.unique()), "train": len(known), "test": len(truth)}
    return Probed(label=name, chance=chance(known, truth), **sizes)


def progress(epoch: int, metrics: Mapping[str, float]) -> str | None:
    """Describe a validation in a line: each probe's score beside the untrained one's; None without scores.

    Examples:
        >>> from jepa_lightning.callbacks.verdict import progress
        >>> progress(0, {"probe/linear": 0.424, "probe/linear_untrained": 0.315, "collapse/effective_rank": 18.46})
        'epoch 1: linear 0.424 (untrained 0.315), effective rank 18.5'
    """
    named = [name for name in metrics if name.startswith("probe/") and not name.endswith("_untrained")]
    parts = []
    for name in named:
        untrained = metrics.get(f"{name}_untrained")
        beside = "" if untrained is None else f" (untrained {untrained:.3f})"
        parts.append(f"{name.removeprefix('probe/').replace('r2_', 'R2 of ')} {metrics[name]:.3f}{beside}")
    if not parts:
        return None
    rank = metrics.get("collapse/effective_rank")
    return f"epoch {epoch + 1}: " + ", ".join([*parts, *([] if rank is None else [f"effective rank {rank:.1f}"])])
