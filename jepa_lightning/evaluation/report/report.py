"""The report on some encoders: a table for the terminal, report.json for programs, report.md with plots for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jepa_lightning.evaluation.collapse import Collapse
from jepa_lightning.evaluation.probes.protocols import Interval
from jepa_lightning.evaluation.probes.tasks import Task
from jepa_lightning.evaluation.report.page import page
from jepa_lightning.evaluation.report.results import Confusion, Difference, Embedding, Score
from jepa_lightning.evaluation.report.table import table
from jepa_lightning.run.writing import named, plain

Section = tuple[str, Sequence[str], list[list[str]]]  # a heading, names of columns, rows


@dataclass(frozen=True)
class Report:
    """Everything that was found of some encoders.

    Attributes:
        scores: of every encoder, label, probe and share of the labels.
        differences: paired, of the encoders that were compared.
        collapses: encoder to what its spread says.
        confusions: of the class labels.
        embeddings: in two dimensions.
        tasks: the labels.
        notes: what was left out, and why.
        settings: what the figures depend on.
    """

    scores: list[Score]
    differences: list[Difference]
    collapses: dict[str, Collapse]
    confusions: list[Confusion]
    embeddings: list[Embedding]
    tasks: list[Task]
    notes: list[str]
    settings: dict[str, Any]

    @property
    def encoders(self) -> list[str]:
        """Their names, in order."""
        return list(self.collapses)

    def score(self, encoder: str, label: str, probe: str, *, share: float = 1.0) -> Score:
        """The score of an encoder."""
        wanted = (encoder, label, probe, share)
        for score in self.scores:
            if (score.encoder, score.label, score.probe, score.share) == wanted:
                return score
        known = sorted({(score.encoder, score.label, score.probe, score.share) for score in self.scores})
        raise ValueError(f"no score of {wanted}, there are {known}")

    def table(self) -> str:
        """Scores, comparisons in words and the collapse report, for a terminal."""
        lines = []
        for heading, header, rows in self.sections():
            lines += [heading, table(header, rows), ""]
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"protocol: {self.settings.get('protocol', '')}; 95% intervals in brackets")
        return "\n".join(lines)

    def sections(self) -> list[Section]:
        """The tables: of each label its scores, its low-label scores and its comparisons, and the collapse report."""
        found: list[Section] = []
        for task in self.tasks:
            found += self._label(task)
        rows = [
            [
                *(name, c.verdict, f"{c.effective_rank:.1f}", f"{c.std:.3g}", f"{c.relative_std:.3g}"),
                *(f"{c.spectrum[0]:.0%}" if c.spectrum else "-", f"{c.uniformity:.2f}"),
                "-" if c.alignment is None else f"{c.alignment:.3f}",
            ]
            for name, c in self.collapses.items()
        ]
        header = ["features", "verdict", "effective rank", "std", "relative std", "first component", "uniformity"]
        return [*found, ("collapse", [*header, "alignment"], rows)]

    def _label(self, task: Task) -> list[Section]:
        scores = [score for score in self.scores if score.label == task.name]
        if not scores:
            return []
        probes = list(dict.fromkeys(score.probe for score in scores))
        what = f"{len(task.names)} classes, accuracy" if task.classes else "continuous, R2"
        rows = []
        for encoder in self.encoders:
            found_of = {score.probe: score for score in scores if (score.encoder, score.share) == (encoder, 1.0)}
            rows.append([encoder, *(_shown(found_of[p].estimate) if p in found_of else "-" for p in probes)])
        chances = {score.probe: score.chance for score in scores}
        rows.append(["chance", *(f"{chances[probe]:.3f}" for probe in probes)])
        size = scores[0]
        sizes = f"learnt from {size.train:.0f} and judged by {size.test:.0f} samples, interval over {size.over}"
        found: list[Section] = [(f"{task.name} ({what}; {sizes})", ["features", *probes], rows)]
        shares = sorted({score.share for score in scores})
        if len(shares) > 1:
            low = {(s.encoder, s.probe): s for s in scores if s.share == shares[0]}
            rows = [
                [
                    f"{encoder}, {probe}",
                    *(_shown(self.score(encoder, task.name, probe, share=s).estimate) for s in shares),
                ]
                for probe in probes
                for encoder in self.encoders
                if (encoder, probe) in low
            ]
            heading = f"{task.name} by the share of the training labels"
            found.append((heading, ["features", *(f"{share:.4g}" for share in shares)], rows))
        differences = [difference for difference in self.differences if difference.label == task.name]
        if differences:
            rows = []
            for d in differences:
                share = "" if d.share == 1.0 else f", {d.share:.4g} of the labels"
                rows.append([f"{d.encoder} - {d.baseline}", d.probe + share, d.words])
            found.append((f"{task.name}, compared on the same samples", ["", "probe", "difference"], rows))
        return found

    def as_dict(self) -> dict[str, Any]:
        """All numbers and settings, as JSON has them."""
        return plain(
            {
                "settings": self.settings,
                "scores": [asdict(score) for score in self.scores],
                "differences": [{**asdict(found), "words": found.words} for found in self.differences],
                "collapse": {name: asdict(found) for name, found in self.collapses.items()},
                "confusions": [asdict(found) for found in self.confusions],
                "notes": self.notes,
            }
        )

    def write(self, folder: str | Path, *, runs: Mapping[str, str | Path] | None = None) -> Path:
        """Write report.json, report.md and its plots (plots/*.svg).

        Args:
            folder: made if it is not there; an earlier report in it is replaced.
            runs: encoder to the metrics.csv of its run, for its loss and rank over the steps.

        Returns:
            The path of report.md.
        """
        folder = Path(folder)
        text, drawings = page(self, dict(runs or {}))
        plots = folder / "plots"
        plots.mkdir(parents=True, exist_ok=True)
        for old in plots.glob("*.svg"):
            old.unlink()
        files = {plots / name: drawing for name, drawing in drawings.items()}
        files[folder / "report.json"] = json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n"
        files[folder / "report.md"] = text
        for file, content in files.items():
            with named(file):
                file.write_text(content, encoding="utf-8")
        return folder / "report.md"


def _shown(estimate: Interval) -> str:
    return str(estimate) if estimate.mean == estimate.mean else "not finite"
