"""What fine-tuning came to: scores beside the frozen probe and from scratch, as a table and a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from jepa_lightning.evaluation.probes.bootstrap import Outcome, bootstrap
from jepa_lightning.evaluation.report.results import Difference, Score
from jepa_lightning.evaluation.report.table import table as aligned

FINETUNED, FROZEN, SCRATCH, UNTRAINED = "fine-tuned", "frozen", "from scratch", "frozen, untrained"


@dataclass
class FineTuneReport:
    """The scores of all methods at each share of the labels.

    Attributes:
        scores: of each method at each share.
        differences: of fine-tuning minus the others, paired by draw and test sample.
        settings: of all.
        notes: what a reader must know.
        fits: what each fit came to, by its name.
    """

    scores: list[Score] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fits: dict[str, Any] = field(default_factory=dict)

    def add(self, label: str, share: float, outcomes: dict[str, list[Outcome]], *, chance: float, seed: int) -> None:
        """Add the outcomes of all methods, one for each draw, at a share of the labels; see `Score` for chance."""
        for name, found in outcomes.items():
            estimate = bootstrap(found, seed=seed)
            self.scores.append(
                Score(
                    encoder=name,
                    label=label,
                    probe="fine-tuning" if name in (FINETUNED, SCRATCH) else "probe",
                    measure=found[0].measure,
                    share=share,
                    estimate=estimate,
                    over="test samples" + (f" and {len(found)} draws" if len(found) > 1 else ""),
                    chance=chance,
                    train=sum(outcome.train for outcome in found) / len(found),
                    test=float(len(found[0].truth)),
                    values=tuple(outcome.score for outcome in found),
                )
            )
        for name in (name for name in outcomes if name != FINETUNED):
            estimate = bootstrap(outcomes[FINETUNED], outcomes[name], seed=seed)
            first = outcomes[FINETUNED][0]
            self.differences.append(
                Difference(FINETUNED, name, label, "fine-tuning", first.measure, share, estimate, len(first.truth))
            )

    def table(self) -> str:
        """Return the table for a terminal: scores with intervals, then the differences in words."""
        rows = [
            [f"{score.share:.4g}", f"{score.train:.0f}", score.encoder, str(score.estimate),
             " ".join(f"{value:.3f}" for value in score.values)]
            for score in self.scores
        ]  # fmt: skip
        measure = self.scores[0].measure if self.scores else ""
        lines = [aligned(["labels", "samples", "", f"{measure} [95%]", "each draw"], rows), ""]
        for found in self.differences:
            lines.append(f"{found.share:.4g} of the labels: {FINETUNED} - {found.baseline}: {found.words}")
        return "\n".join([*lines, *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)
