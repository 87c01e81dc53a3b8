"""What fine-tuning came to: scores beside the frozen probe and from scratch, as a table and files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from jepa_lightning.evaluation.probes.bootstrap import Moments, Outcome, bootstrap
from jepa_lightning.evaluation.probes.protocols import Interval
from jepa_lightning.evaluation.report.results import Difference, Score
from jepa_lightning.evaluation.report.table import table as aligned
from jepa_lightning.run.writing import plain, replacing

FINETUNED, FROZEN, SCRATCH, UNTRAINED = "fine-tuned", "frozen", "from scratch", "frozen, untrained"
REPORT, TABLE, MOMENTS = "finetune.json", "finetune.txt", "moments.npz"


@dataclass
class FineTuneReport:
    """The scores of all methods at each share of the labels, of one run or several.

    Attributes:
        scores: of each method at each share.
        differences: of fine-tuning minus the others, paired by run, draw and test sample.
        settings: of all; of several runs, under each one's name.
        notes: what a reader must know.
        fits: what each fit came to, by its name.
        moments: what each score was computed from, one for each draw, in the order of `scores`.
    """

    scores: list[Score] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fits: dict[str, Any] = field(default_factory=dict)
    moments: list[list[Moments]] = field(default_factory=list, repr=False)

    def add(
        self,
        label: str,
        share: float,
        outcomes: Mapping[str, Sequence[Outcome | Moments]],
        *,
        chance: float,
        seed: int,
        runs: int = 1,
    ) -> None:
        """Add the outcomes of all methods at a share of the labels; see `Score` for chance.

        Args:
            label: that was predicted.
            share: of the training labels.
            outcomes: of each method, one for each draw of each of the runs.
            chance: see `Score`.
            seed: of the bootstrap.
            runs: their number.
        """
        for name, given in outcomes.items():
            found = [outcome.moments for outcome in given]
            values = np.array([moments.score for moments in found]).reshape(runs, -1)
            draws = values.shape[1]
            number = found[0].values.shape[1]
            over = [f"{runs} runs"] * (runs > 1) + [f"{draws} draws" + " of each" * (runs > 1)] * (draws > 1)
            self.scores.append(
                Score(
                    encoder=name,
                    label=label,
                    probe="fine-tuning" if name in (FINETUNED, SCRATCH) else "probe",
                    measure=found[0].measure,
                    share=share,
                    estimate=bootstrap(found, seed=seed, runs=runs),
                    over=" and ".join(["test samples", *over]),
                    chance=chance,
                    train=sum(moments.train for moments in found) / len(found),
                    test=float(number),
                    values=tuple((values.mean(1) if runs > 1 else values[0]).tolist()),
                )
            )
            self.moments.append(found)
        for name in (name for name in outcomes if name != FINETUNED):
            estimate = bootstrap(outcomes[FINETUNED], outcomes[name], seed=seed, runs=runs)
            last = self.scores[-1]
            self.differences.append(
                Difference(FINETUNED, name, label, "fine-tuning", last.measure, share, estimate, int(last.test))
            )

    def table(self) -> str:
        """Return the table for a terminal: scores with intervals, then the differences in words."""
        rows = [
            [f"{score.share:.4g}", f"{score.train:.0f}", score.encoder, str(score.estimate),
             " ".join(f"{value:.3f}" for value in score.values)]
            for score in self.scores
        ]  # fmt: skip
        measure = self.scores[0].measure if self.scores else ""
        each = "each run" if self.scores and " runs" in self.scores[0].over else "each draw"
        lines = [aligned(["labels", "samples", "", f"{measure} [95%]", each], rows), ""]
        for found in self.differences:
            lines.append(f"{found.share:.4g} of the labels: {FINETUNED} - {found.baseline}: {found.words}")
        return "\n".join([*lines, *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """Return all of it but `moments` as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "moments"}

    def write(self, out: Path) -> None:
        """Write finetune.json, finetune.txt and moments.npz."""
        out.mkdir(parents=True, exist_ok=True)
        arrays = {str(n): np.stack([one.values for one in found]) for n, found in enumerate(self.moments)}
        with replacing(out / MOMENTS) as beside, beside.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        with replacing(out / TABLE) as beside:
            beside.write_text(self.table() + "\n")
        with replacing(out / REPORT) as beside:  # the last, for who reads it finds the others
            beside.write_text(json.dumps(plain(self.as_dict()), indent=2) + "\n")

    @classmethod
    def read(cls, out: Path) -> Self:
        """Read what `write` wrote."""
        stored = json.loads((out / REPORT).read_text())
        report = cls(settings=stored["settings"], notes=stored["notes"], fits=stored["fits"])
        report.scores = [Score(**_restored(score)) for score in stored["scores"]]
        report.differences = [Difference(**_restored(difference)) for difference in stored["differences"]]
        with np.load(out / MOMENTS, allow_pickle=False) as arrays:
            report.moments = [
                [Moments(score.measure, values, train=score.train) for values in arrays[str(number)]]  # type: ignore[arg-type]
                for number, score in enumerate(report.scores)
            ]
        return report


def _restored(stored: dict[str, Any]) -> dict[str, Any]:
    lists: dict[str, Any] = {name: tuple(stored[name]) for name in ("values", "chosen") if name in stored}
    return {**stored, **lists, "estimate": Interval(**stored["estimate"])}


def combined(reports: dict[str, FineTuneReport], *, seed: int) -> FineTuneReport:
    """Join the reports of several runs, by their names, to one whose intervals are over the runs as well.

    The same shares and methods were scored on the same test samples. Each run counts as one: its mean over draws.
    """
    runs = list(reports.values())
    first = runs[0]
    found = FineTuneReport(
        settings={name: report.settings for name, report in reports.items()},
        notes=list(dict.fromkeys(note for report in runs for note in report.notes)),
        fits={f"{name}: {fit}": what for name, report in reports.items() for fit, what in report.fits.items()},
    )
    for share in dict.fromkeys(score.share for score in first.scores):
        places = [place for place, score in enumerate(first.scores) if score.share == share]
        outcomes = {
            first.scores[place].encoder: [one for report in runs for one in report.moments[place]] for place in places
        }
        chance = float(np.mean([report.scores[places[0]].chance for report in runs]))
        found.add(first.scores[0].label, share, outcomes, chance=chance, seed=seed, runs=len(runs))
    return found
