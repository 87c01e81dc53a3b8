"""Fine-tune the encoder of a run. The flags of `jepa-finetune` are the parameters of `finetune`.

Heavy imports are inside the function, so that the help of the command needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from jepa_lightning.finetuning.outcome import FineTuneReport


def finetune(
    checkpoint: str | Path | Sequence[str | Path],
    *,
    data: LightningDataModule | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    label: str | None = None,
    part: str | None = None,
    head: Literal["linear", "attentive", "dense"] = "linear",
    unfreeze: Literal["all", "none"] | int = "all",
    epochs: int | Sequence[int] = 20,
    learning_rate: Sequence[float] = (1e-3,),
    scratch_learning_rate: Sequence[float] = (1e-3,),
    layer_decay: float = 0.75,
    weight_decay: float = 0.05,
    warmup: float = 0.1,
    drop_path: float | None = None,
    label_smoothing: float = 0.0,
    mixup: float = 0.0,
    label_shares: Sequence[float] = (1.0,),
    draws: int = 1,
    baselines: bool = True,
    seed: int = 0,
    resume: bool = False,
    which: Literal["last", "best"] = "last",
    encoder: Literal["target", "context"] | None = None,
    accelerator: str = "auto",
    devices: str | int = "auto",
    strategy: str = "auto",
    precision: str = "32-true",
    trust: Sequence[str] = (),
) -> FineTuneReport:
    """Fine-tune the encoder of a run on labelled data, beside a probe of it frozen and the same network from scratch.

        report = jepa_lightning.finetune("runs/image", data={"root": "my_images"}, label_shares=[0.01, 0.1], draws=3)
        print(report.table())
        jepa_lightning.load_finetuned("runs/image/finetune").predict("photo.jpg")

    For each share of the training labels and each draw of them, encoder and head are trained, the epoch and the
    learning rate are chosen on the validation split, and the test split is scored once. Beside it stand the probe of
    `jepa-probe` on the frozen encoder and on the untrained one, and the same network trained from its initial weights,
    all on the same labels. The linear head begins with the frozen probe (LP-FT, Kumar et al. 2022), which stands as
    epoch 0: where no epoch does better on the validation split, the encoder stays as it was. Training is augmented as
    the run's data are. `jepa_lightning.finetuning.FineTuning` is the LightningModule, for a Trainer of your own.

    Args:
        checkpoint: folder of a run, or a checkpoint. Of several runs, such as those of three seeds, each is fine-tuned
            on draws of its own, and the intervals of their one table are over the runs as well.
        data: data to train and score on. Settings, {"root": "my_images"}, override those of the run's data; a
            "class_path" with "init_args" selects another data module; or a data module. None: the run's data.
        out: folder of finetune.json, finetune.txt, moments.npz and the model. None: `finetune` in the run's folder. Of
            several runs each has that folder, and `out` holds their joint table, if given.
        label: label column to predict, classes or values; None: the primary one.
        part: of a run of several modalities, the one whose encoder is fine-tuned, such as image, on data of it alone;
            None: all of them together, on pairs.
        head: "linear" on the mean of the tokens, or "attentive" over all tokens; or "dense" for a label that is a map
            (H, W) of the image's pixels, whole numbers (segmentation) or numbers with a point (depth): linear on each
            token, interpolated. The frozen probe is then this head, trained alone.
        unfreeze: layers to train: "all", "none", or a number of the last ones, such as 2.
        epochs: passes over the drawn labels; or as many numbers as label_shares, one for each.
        learning_rate: of the head, at its peak; of several, the best on the validation split at the first draw of each
            share is kept.
        scratch_learning_rate: likewise, from scratch, where no layer's is decayed.
        layer_decay: factor of the learning rate from layer to layer, towards the input.
        weight_decay: of weight matrices.
        warmup: share of the steps in which the learning rate rises.
        drop_path: stochastic depth of the last layer; None: as in the run.
        label_smoothing: of classes.
        mixup: alpha of MixUp, for images and classes; 0: none.
        label_shares: shares of the training labels, such as 0.01 0.1.
        draws: draws of the labels at each share, each with its own seed.
        baselines: also train from scratch and probe the untrained encoder; False: only the frozen probe is beside it.
        seed: of the first draw; the next has the next.
        resume: resume a call that was stopped: fits that are complete are kept, and so are runs.
        which: checkpoint of a run's folder to use, last or best.
        encoder: the "target" or the "context" encoder; None: the run's default (see `Target.evaluated`).
        accelerator: of Lightning's Trainer: "auto", "cpu", "gpu", ...
        devices: of the Trainer.
        strategy: of the Trainer.
        precision: of the Trainer, such as "bf16-mixed".
        trust: packages whose classes the run's configuration may name, in addition to ours and plug-ins.

    Returns:
        All scores, differences and settings; the command prints `table()`.

    Raises:
        ValueError: a run, its data or a setting cannot be used; the message says what to do.
    """
    from jepa_lightning.finetuning.folder import is_first
    from jepa_lightning.finetuning.outcome import combined
    from jepa_lightning.finetuning.study import Study
    from jepa_lightning.run.checkpoints import find_checkpoint

    runs = [checkpoint] if isinstance(checkpoint, str | Path) else list(checkpoint)
    several = [epochs] if isinstance(epochs, int) else list(epochs)
    for name, number in (("epochs", min(several, default=0)), ("draws", draws)):
        if number < 1:
            raise ValueError(f"expected {name} of at least 1, got {number}")
    if not runs or not learning_rate or not scratch_learning_rate or not label_shares:
        raise ValueError("expected at least one run, learning_rate, scratch_learning_rate and label share, got none")
    if len(several) not in (1, len(label_shares)):
        raise ValueError(
            f"expected epochs as one number or one for each of {len(label_shares)} label_shares, got {several}"
        )
    if len({Path(run).expanduser().resolve() for run in runs}) < len(runs):
        raise ValueError(f"expected runs that are not the same, got {', '.join(map(str, runs))}")
    reports = {}
    for number, run in enumerate(runs):
        file = find_checkpoint(run, which)
        folder = Path(run).expanduser()
        if (out is None or len(runs) > 1) and folder == file:
            raise ValueError(
                "expected out, a folder, with a checkpoint that is no run's folder; of several, runs' folders"
            )
        study = Study(
            file,
            folder / "finetune" if out is None or len(runs) > 1 else Path(out).expanduser(),
            data=data,
            label=label,
            part=part,
            head=head,
            trust=trust,
            encoder=encoder,
            epochs=several,
            rates={"fine-tuned": list(learning_rate), "from scratch": list(scratch_learning_rate)},
            trainer={"accelerator": accelerator, "devices": devices, "strategy": strategy, "precision": precision},
            how={
                "which": unfreeze,
                "layer_decay": layer_decay,
                "weight_decay": weight_decay,
                "warmup": warmup,
                "drop_path": drop_path,
                "label_smoothing": label_smoothing,
                "mixup": mixup,
            },
        )
        first = seed + number * draws  # no two draws are the same
        reports[str(run)] = study.run(shares=label_shares, draws=draws, baselines=baselines, seed=first, resume=resume)
    if len(reports) == 1:
        return reports[str(runs[0])]
    report = combined(reports, seed=seed)
    if out is not None and is_first():
        report.write(Path(out).expanduser())
    return report
