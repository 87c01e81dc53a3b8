"""The front door of evaluation: from the folders of runs to a report. The flags of `jepa-probe` are its parameters.

What computes is imported when it is called, so that the help of the command needs none of it.
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
    probes: Sequence[Literal["knn", "logistic", "svm", "ridge", "attentive"]] = ("knn", "logistic", "ridge"),
    labels: Sequence[str] | None = None,
    protocol: Literal["split", "folds", "repeated", "groups"] = "split",
    folds: int = 10,
    repeats: int = 20,
    test_share: float = 0.2,
    group: str | None = None,
    label_shares: Sequence[float] = (),
    label_draws: int = 5,
    shots: Sequence[int] = (),
    ways: int | None = None,
    episodes: int = 2000,
    k: int = 20,
    seed: int = 0,
    which: Literal["last", "best"] = "last",
    encoder: Literal["target", "context"] | None = None,
    pooling: Literal["mean", "max", "mean+max"] = "mean",
    layers: int = 1,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> Report:
    """Evaluate the frozen encoders of runs by probes on labelled data, beside untrained encoders, raw input and chance.

        report = jepa_lightning.evaluate("runs/image", data={"root": "my_images"}, probes=["knn", "logistic"])
        print(report.table())

    Every encoder sees the same samples, each once, in order and without augmentation. Beside each run stands the same
    encoder before training (`untrained`): a random network is a strong feature. `jepa_lightning.evaluation.
    evaluate_features` does the same with features that you bring.

    Args:
        checkpoint: the folder of a run, or a checkpoint; or several, for one table.
        data: what is evaluated on. Settings, {"root": "my_images"}, replace those of the first run's data; a
            "class_path" with "init_args" names another data module; or a data module itself. Data of a stored
            configuration need `trust` for classes that are neither ours nor a plug-in's. None: the first run's data.
        out: folder of the report; an earlier report in it is replaced. None: `probe` in the run's folder.
        probes: among knn, logistic, svm (classes), ridge (continuous labels) and attentive (both; it looks at all
            tokens, not at their mean).
        labels: the label columns to predict; None: all.
        protocol: "split" learns on the data's training split and scores on its test split (val without one). The
            others take all samples: "folds", "repeated" random splits, or "groups", which leaves out one at a time.
        folds: their number.
        repeats: random splits of "repeated".
        test_share: of the samples in each of these.
        group: the class label that names the groups of "groups", such as speaker.
        label_shares: shares of the training labels to probe with, too, such as 0.01 0.1.
        label_draws: draws of the labels at each share, of "split".
        shots: labelled samples a class of few-shot episodes, such as 1 5.
        ways: classes an episode; None: 5, or as many as there are.
        episodes: their number, a multiple of 100.
        k: neighbours of knn.
        seed: of whatever is drawn.
        which: of a run's folder, the last checkpoint or the best.
        encoder: the "target" encoder or the "context" encoder; None: the one that the run's target says.
        pooling: of a sample's tokens.
        layers: features of the last layers side by side, as I-JEPA does with 4; 1: the encoder's output.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
        trust: packages whose classes the runs' configurations may name, beside ours and the plug-ins'.

    Returns:
        All scores, differences and settings; `table()` is what the command prints.

    Raises:
        ValueError: a run, its data or a setting that cannot be used; the message says what to do.
    """
    from jepa_lightning.evaluation.probes.tasks import Protocol
    from jepa_lightning.evaluation.report_on_runs import report_folder, report_on_runs
    from jepa_lightning.evaluation.runs import EncoderSettings

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
        settings=EncoderSettings(
            which=which, encoder=encoder, pooling=pooling, layers=layers, device=device, trust=trust
        ),
    )
