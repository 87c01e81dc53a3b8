"""The report on some encoders as data: scores, comparisons, collapse, and the tables that show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from jepa_lightning.evaluation.auroc import Detection
from jepa_lightning.evaluation.collapse import Collapse
from jepa_lightning.evaluation.probes.protocols import Interval
from jepa_lightning.evaluation.probes.tasks import Task
from jepa_lightning.evaluation.report.results import Confusion, Difference, Embedding, Neighbours, Score
from jepa_lightning.evaluation.report.table import table
from jepa_lightning.evaluation.retrieval import Recall
from jepa_lightning.evaluation.zero_shot import ZeroShot
from jepa_lightning.run.writing import plain

TITLE = "Evaluation of frozen features"

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
        ids: names of all samples, those of the training part first; empty where they are not known.
        neighbours: nearest neighbours of some samples, or None.
        retrieval: of several modalities, the recalls of each encoder.
        energy: how well the energy of each model tells broken samples, by what is broken.
        zero_shot: the accuracies by prompts of each encoder.
    """

    scores: list[Score]
    differences: list[Difference]
    collapses: dict[str, Collapse]
    confusions: list[Confusion]
    embeddings: list[Embedding]
    tasks: list[Task]
    notes: list[str]
    settings: dict[str, Any]
    ids: Sequence[str] = ()
    neighbours: Neighbours | None = None
    retrieval: Mapping[str, Sequence[Recall]] = field(default_factory=dict)
    energy: Mapping[str, Mapping[str, Detection]] = field(default_factory=dict)
    zero_shot: Mapping[str, Sequence[ZeroShot]] = field(default_factory=dict)

    @property
    def encoders(self) -> list[str]:
        """Their names, in order."""
        return list(self.collapses)

    @property
    def protocol(self) -> str:
        """How samples were divided and what the intervals and the chance are, in a sentence or two."""
        chance = "chance is what the most frequent class of the training part gets, of continuous labels an R2 of 0"
        return f"Protocol: {self.settings.get('protocol', '')}. 95% intervals in brackets; {chance}."

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
        """The tables of all labels, and the collapse report."""
        of_labels = (section for task in self.tasks for section in self.label_sections(task))
        others = [*self.retrieval_sections(), *self.zero_shot_sections(), *self.energy_sections()]
        return [*of_labels, *others, self.collapse_section()]

    def retrieval_sections(self) -> list[Section]:
        """The recalls from each modality to each other; none of a single modality."""
        found: list[Section] = []
        recalls = [recall for of in self.retrieval.values() for recall in of]
        for query, gallery in dict.fromkeys((recall.query, recall.gallery) for recall in recalls):
            asked = {
                name: [recall for recall in of if (recall.query, recall.gallery) == (query, gallery)]
                for name, of in self.retrieval.items()
            }
            one = next(iter(asked.values()))
            rows = [[name, *map(str, of)] for name, of in asked.items()]
            rows.append(["chance", *(f"{recall.chance:.3f}" for recall in one)])
            heading = f"{query} to {gallery}, recall among {one[0].candidates} (cosine; interval over queries)"
            found.append((heading, ["features", *(f"R@{recall.k}" for recall in one)], rows))
        return found

    def energy_sections(self) -> list[Section]:
        """The AUROC of energies; none where they were not asked for."""
        if not self.energy:
            return []
        kinds = list(dict.fromkeys(name for of in self.energy.values() for name in of))
        rows = [[name, *(str(of[kind]) if kind in of else "-" for kind in kinds)] for name, of in self.energy.items()]
        pairs = max(found.pairs for of in self.energy.values() for found in of.values())
        heading = f"energy of {pairs} broken samples against the same unbroken (AUROC, 0.5 is chance)"
        return [(heading, ["model", *kinds], rows)]

    def zero_shot_sections(self) -> list[Section]:
        """The accuracies by prompts; none without prompts."""
        if not self.zero_shot:
            return []
        one = next(iter(self.zero_shot.values()))
        rows = [[name, *map(str, of)] for name, of in self.zero_shot.items()]
        rows.append(["chance", *(f"{found.chance:.3f}" for found in one)])
        about = f"{one[0].label} by prompts, zero-shot ({one[0].classes} classes, accuracy; {one[0].samples} samples)"
        return [(about, ["features", *(found.query for found in one)], rows)]

    def collapse_section(self) -> Section:
        """The collapse report of all encoders."""
        rows = [
            [
                *(name, c.verdict, f"{c.effective_rank:.1f}", f"{c.std:.3g}", f"{c.relative_std:.3g}"),
                *(f"{c.spectrum[0]:.0%}" if c.spectrum else "-", f"{c.uniformity:.2f}"),
                "-" if c.alignment is None else f"{c.alignment:.3f}",
            ]
            for name, c in self.collapses.items()
        ]
        header = ["features", "verdict", "effective rank", "std", "relative std", "first component", "uniformity"]
        return "collapse", [*header, "alignment"], rows

    def label_sections(self, task: Task) -> list[Section]:
        """The tables of a label: its scores, its low-label scores and its comparisons."""
        scores = [score for score in self.scores if score.label == task.name]
        if not scores:
            return []
        probes = list(dict.fromkeys(score.probe for score in scores))
        what = f"{len(task.names)} classes, accuracy" if task.classes else "continuous, R2"
        if task.maps:
            what = f"{len(task.names)} classes of pixels, mIoU" if task.classes else "continuous, R2 of pixels"
        rows = []
        for encoder in self.encoders:
            found_of = {score.probe: score for score in scores if (score.encoder, score.share) == (encoder, 1.0)}
            rows.append([encoder, *(_shown(found_of[p].estimate) if p in found_of else "-" for p in probes)])
        chances = {score.probe: score.chance for score in scores}
        rows.append(["chance", *(f"{chances[probe]:.3f}" for probe in probes)])
        size = scores[0]
        sizes = f"fitted on {size.train:.0f} and evaluated on {size.test:.0f} samples, interval over {size.over}"
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
                "retrieval": {name: [asdict(recall) for recall in of] for name, of in self.retrieval.items()},
                "energy": {name: {kind: asdict(d) for kind, d in of.items()} for name, of in self.energy.items()},
                "zero_shot": {name: [asdict(score) for score in of] for name, of in self.zero_shot.items()},
                "notes": self.notes,
            }
        )


def _shown(estimate: Interval) -> str:
    return str(estimate) if estimate.mean == estimate.mean else "not finite"
