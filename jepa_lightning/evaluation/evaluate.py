"""Evaluate runs and write a report. The flags of `jepa-probe` are the parameters of `evaluate`.

Heavy imports are inside the function, so that the help of the command needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from jepa_lightning.evaluation.report.report import Report


def evaluate(
    checkpoint: str | Path | Sequence[str | Path],
    *,
    data: LightningDataModule | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    probes: Sequence[Literal["knn", "knn_cv", "logistic", "svm", "ridge", "attentive", "dense"]] = (
        "knn",
        "knn_cv",
        "logistic",
        "ridge",
    ),
    labels: Sequence[str] | None = None,
    protocol: Literal["split", "folds", "repeated", "groups"] = "split",
    folds: int = 10,
    repeats: int = 20,
    test_share: float = 0.2,
    group: str | None = None,
    label_shares: Sequence[float] = (),
    label_draws: int = 5,
    prompts: str | Path | None = None,
    shots: Sequence[int] = (),
    ways: int | None = None,
    episodes: int = 2000,
    k: int = 20,
    seed: int = 0,
    which: Literal["last", "best"] = "last",
    encoder: Literal["target", "context"] | None = None,
    pooling: Literal["mean", "max", "mean+max", "quarters", "segments"] = "mean",
    layers: int = 1,
    energy: bool = False,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> Report:
    """Evaluate the frozen encoders of runs by probes on labelled data, beside untrained encoders, raw input and chance.

        report = jepa_lightning.evaluate("runs/image", data={"root": "my_images"}, probes=["knn", "logistic"])
        print(report.table())

    Every encoder sees the same samples, each once, in order and without augmentation. Each run is compared with the
    same encoder before training (`untrained`), since a random network gives strong features.
    `jepa_lightning.evaluation.evaluate_features` does the same with features that you provide.

    Args:
        checkpoint: folder of a run, or a checkpoint; several are compared in one table.
        data: data to evaluate on. Settings, {"root": "my_images"}, override those of the first run's data; a
            "class_path" with "init_args" selects another data module; or a data module. Classes in a stored
            configuration that are neither ours nor a plug-in's need `trust`. None: the first run's data.
        out: folder of the report; an earlier report in it is replaced. None: `probe` in the run's folder.
        probes: any of knn (DINO's protocol: k neighbours, features as they are), knn_cv (k, and whether features are
            standardised, chosen for each encoder on the training part), logistic, svm (classes), ridge (continuous
            labels) and attentive (both; pools over all tokens instead of using their mean); dense for labels that are
            maps of an image's pixels (segmentation, depth), from single tokens.
        labels: label columns to predict; None: all.
        protocol: "split" fits on the data's training split and scores on its test split (val without one). The
            others use all samples: "folds", "repeated" random splits, or "groups", which leaves out one at a time.
        folds: number of folds.
        repeats: number of random splits of "repeated".
        test_share: share of the samples in the test part of each of these.
        group: class label that defines the groups of "groups", such as speaker.
        label_shares: shares of the training labels to also probe with, such as 0.01 0.1.
        label_draws: random draws of the labels at each share, for "split".
        prompts: of text with another modality, a YAML or JSON file of `class: prompt` or `class: [prompt, ...]` for the
            classes of the first of `labels` (or the data's own label): samples are classified by the nearest class.
        shots: labelled samples per class of few-shot episodes, such as 1 5.
        ways: classes per episode; None: 5, or all if there are fewer.
        episodes: number of episodes, a multiple of 100.
        k: number of neighbours of knn.
        seed: seed of all random draws.
        which: checkpoint of a run's folder to use, last or best.
        encoder: the "target" or the "context" encoder; None: the run's default (see `Target.evaluated`).
        pooling: how a sample's tokens are pooled.
        layers: number of last layers to concatenate, as I-JEPA does with 4; 1: the encoder's output.
        energy: also measure how well the energy, the error of predicting hidden tokens, tells broken samples (tokens
            shuffled, or half of them another sample's) from the same ones unbroken, beside the untrained model.
        device: "auto" (a GPU if available), "cpu", "cuda", "cuda:1", ...
        trust: packages whose classes the runs' configurations may name, in addition to ours and plug-ins.

    Returns:
        All scores, differences and settings; the command prints `table()`.

    Raises:
        ValueError: a run, its data or a setting cannot be used; the message says what to do.
    """
    from jepa_lightning.evaluation.probes.tasks import Protocol
    from jepa_lightning.evaluation.prompts import read_prompts
    from jepa_lightning.evaluation.report_on_runs import report_on_runs
    from jepa_lightning.evaluation.runs import EncoderSettings, report_folder

    for name, number, least in (("folds", folds, 2), ("repeats", repeats, 1), ("k", k, 1)):
        if number < least:
            raise ValueError(f"expected {name} of at least {least}, got {number}")
    if not 0 < test_share < 1:
        raise ValueError(f"expected a test_share above 0 and below 1, got {test_share:g}")
    checkpoints = [checkpoint] if isinstance(checkpoint, str | Path) else list(checkpoint)
    return report_on_runs(
        checkpoints,
        data=data,
        out=report_folder(checkpoints, out, which=which),
        probes=probes,
        labels=labels,
        protocol=Protocol(
            kind=protocol,
            folds=folds,
            repeats=repeats,
            test_share=test_share,
            group=group,
            label_shares=tuple(label_shares),
            label_draws=label_draws,
            shots=tuple(shots),
            ways=ways,
            episodes=episodes,
            seed=seed,
        ),
        k=k,
        energy=energy,
        prompts=None if prompts is None else read_prompts(prompts),
        settings=EncoderSettings(
            which=which, encoder=encoder, pooling=pooling, layers=layers, device=device, trust=trust
        ),
    )
