"""Scores of all encoders on one task, by one protocol, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.evaluation.features.token_store import TokenFeatures
from jepa_lightning.evaluation.probes.bootstrap import Outcome, bootstrap
from jepa_lightning.evaluation.probes.classification import chance
from jepa_lightning.evaluation.probes.few_shot import draw_in_halves, episodes_interval, few_shot
from jepa_lightning.evaluation.probes.probing import OF_TOKENS, Probe, run_probe
from jepa_lightning.evaluation.probes.protocols import Interval, Split, few_labels, interval
from jepa_lightning.evaluation.probes.tasks import Protocol, Task
from jepa_lightning.evaluation.report.results import Confusion, Difference, Score


class Scoring:
    """One task: its scores and differences as they come."""

    def __init__(
        self,
        task: Task,
        protocol: Protocol,
        splits: list[Split],
        everything: dict[str, Tensor],
        pairs: list[tuple[str, str]],
        k: int,
        *,
        tokens: Mapping[str, TokenFeatures] | None = None,
        device: str = "cpu",
    ) -> None:
        self.tokens, self.device = tokens or {}, device
        self.task, self.protocol, self.splits, self.pairs, self.k = task, protocol, splits, pairs, k
        self.features = {name: values[torch.from_numpy(task.rows)] for name, values in everything.items()}
        self.scores: list[Score] = []
        self.differences: list[Difference] = []
        self.confusions: list[Confusion] = []
        self.ratio = float(np.mean([len(split.test) / len(split.train) for split in splits]))
        self.chance = float(np.mean([self._chance(split) for split in splits])) if task.classes else 0.0

    def run(self, probe: Probe, *, confuse: bool) -> None:
        """Score every encoder and share of the labels by one probe."""
        for share in sorted({*self.protocol.label_shares, 1.0}, reverse=True):
            splits = self._with_share(share)
            found = {
                name: [self._run(probe, name, split) for split in splits]
                for name in self.features
                if probe not in OF_TOKENS or name in self.tokens
            }
            for name, outcomes in found.items():
                self._score(name, probe, share, outcomes)
                if (
                    confuse
                    and share == 1.0
                    and self.task.classes
                    and not self.task.maps
                    and np.isfinite(outcomes[0].predicted).all()
                ):
                    self._confuse(name, probe, outcomes)
            tested = len(np.unique(np.concatenate([split.test for split in splits])))
            for name, other in self.pairs:
                if name not in found or other not in found:
                    continue
                estimate = self._estimate(found[name], found[other])
                measure = found[name][0].measure
                self.differences.append(
                    Difference(name, other, self.task.name, probe, measure, share, estimate, tested)
                )

    def _run(self, probe: Probe, name: str, split: Split) -> Outcome:
        return run_probe(
            probe,
            self.features[name],
            self.task.values,
            split,
            k=self.k,
            tokens=self.tokens.get(name),
            rows=self.task.rows,
            seed=self.protocol.seed,
            device=self.device,
        )

    def episodes(self, *, strict: bool) -> list[str]:
        """Score few-shot episodes drawn from the samples that any split tests: those of the test part, or everything.

        Returns:
            Which episodes too few samples allow, in words; an error if `strict`.
        """
        notes: list[str] = []
        rows = np.unique(np.concatenate([split.test for split in self.splits]))
        protocol, labels = self.protocol, self.task.values[rows]
        ways = protocol.ways or min(5, len(np.unique(labels)))
        for shots in protocol.shots:
            try:
                drawn = draw_in_halves(labels, ways=ways, shots=shots, episodes=protocol.episodes, seed=protocol.seed)
            except ValueError as error:
                if strict:
                    raise
                notes.append(f"label {self.task.name!r}: {error} (no episodes)")
                continue
            found = {
                name: few_shot(values[torch.from_numpy(rows)], drawn, shots=shots)
                if values.isfinite().all()
                else np.full(len(drawn), np.nan)
                for name, values in self.features.items()
            }
            probe, over = f"{ways}-way {shots}-shot", f"test samples and {len(drawn)} episodes"
            sizes = ways * shots, drawn[0].size - ways * shots
            for name, values in found.items():
                estimate = episodes_interval(values)
                self.scores.append(
                    Score(name, self.task.name, probe, "accuracy", 1.0, estimate, over, 1 / ways, *sizes)
                )
            for name, other in self.pairs:
                estimate = episodes_interval(found[name] - found[other])
                self.differences.append(
                    Difference(name, other, self.task.name, probe, "accuracy", 1.0, estimate, len(rows))
                )
        return notes

    def _with_share(self, share: float) -> list[Split]:
        strata, seed = self.task.strata, self.protocol.seed
        if share == 1.0:
            return self.splits
        splits = self.splits * self.protocol.label_draws if len(self.splits) == 1 else self.splits
        return [few_labels(split, strata, share=share, seed=seed + draw) for draw, split in enumerate(splits)]

    def _score(self, name: str, probe: Probe, share: float, outcomes: list[Outcome]) -> None:
        if len(self.splits) > 1:
            over = f"{len(outcomes)} splits"
        else:
            over = "test samples" + (f" and {len(outcomes)} draws of the labels" if len(outcomes) > 1 else "")
        self.scores.append(
            Score(
                encoder=name,
                label=self.task.name,
                probe=probe,
                measure=outcomes[0].measure,
                share=share,
                estimate=self._estimate(outcomes),
                over=over,
                chance=self.chance,
                train=float(np.mean([outcome.train for outcome in outcomes])),
                test=float(np.mean([len(outcome.truth) for outcome in outcomes])),
                values=tuple(outcome.score for outcome in outcomes),
                chosen=tuple(outcome.chosen for outcome in outcomes if outcome.chosen is not None),
            )
        )

    def _estimate(self, outcomes: list[Outcome], against: list[Outcome] | None = None) -> Interval:
        if len(self.splits) == 1:
            return bootstrap(outcomes, against, draws=self.protocol.resamples, seed=self.protocol.seed)
        values = np.array([outcome.score for outcome in outcomes])
        if against is not None:
            values = values - np.array([outcome.score for outcome in against])
        return _interval(values, self.ratio)

    def _confuse(self, name: str, probe: Probe, outcomes: list[Outcome]) -> None:
        counts = np.zeros((len(self.task.names),) * 2, dtype=np.int64)
        for outcome in outcomes:
            np.add.at(counts, (outcome.truth, outcome.predicted), 1)
        self.confusions.append(Confusion(name, self.task.name, probe, self.task.names, counts))

    def _chance(self, split: Split) -> float:
        known, truth = (torch.from_numpy(self.task.values[part]) for part in (split.train, split.test))
        if not self.task.maps:
            return chance(known, truth)
        known, truth = known[known >= 0], truth[truth >= 0]
        often = known.bincount().argmax()  # said everywhere: its share is its IoU, and that of all others is zero
        return float((truth == often).double().mean()) / len(torch.cat([truth, often[None]]).unique())


def _interval(values: NDArray[np.float64], ratio: float) -> Interval:
    if not np.isfinite(values).all():
        return Interval(mean=np.nan, low=np.nan, high=np.nan, std=np.nan, count=len(values))
    return interval(values, test_over_train=ratio)
