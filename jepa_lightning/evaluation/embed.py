"""Write features to a file. The flags of `jepa-embed` are the parameters of `embed`.

Heavy imports are inside the function, so that the help of the command needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule


def embed(
    checkpoint: str | Path,
    out: str | Path,
    *,
    data: LightningDataModule | Mapping[str, Any] | None = None,
    split: Literal["train", "val", "test", "all"] = "all",
    part: int = 4096,
    which: Literal["last", "best"] = "last",
    encoder: Literal["target", "context"] | None = None,
    pooling: Literal["mean", "max", "mean+max", "quarters", "segments"] = "mean",
    layers: int = 1,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> dict[str, tuple[int, ...]]:
    """Write the features of a dataset, computed by the frozen encoder of a run, to a file, with labels and ids.

        jepa_lightning.embed("runs/image", "features.npz", data={"root": "my_images"}, split="val")

    The file has one row per sample, in order, without augmentation. Unreadable samples have no row and are logged by
    name. Several clips of one video are averaged to one row. A killed call resumes after its last part when it is
    repeated. `jepa_lightning.evaluation.features.files.read_features` reads .npz and .safetensors.

    Args:
        checkpoint: folder of a run, or a checkpoint.
        out: file to write: .npz, .safetensors or .parquet.
        data: data to encode. Settings, {"root": "my_images"}, override those of the run's data; a "class_path" with
            "init_args" selects another data module; or a data module. Classes in a stored configuration that are
            neither ours nor a plug-in's need `trust`. None: the run's data.
        split: "train" (without the samples held out for validation), "val", "test", or "all" existing splits.
        part: number of samples per part; at most one part is lost when a call is killed.
        which: checkpoint of a run's folder to use, last or best.
        encoder: the "target" or the "context" encoder; None: the run's default (see `Target.evaluated`).
        pooling: how a sample's tokens are pooled.
        layers: number of last layers to concatenate, as I-JEPA does with 4; 1: the encoder's output.
        device: "auto" (a GPU if available), "cpu", "cuda", "cuda:1", ...
        trust: packages whose classes the run's configuration may name, in addition to ours and plug-ins.

    Returns:
        The shapes of the columns: `features` (n, D), `id` and `split`, and `labels.NAME` (n, ...) for each label.

    Raises:
        ValueError: the file exists or is being written, or the run, its data or a setting cannot be used; the message
            says what to do.
    """
    from jepa_lightning.evaluation.features.files import check_format
    from jepa_lightning.evaluation.features.write import named_files, write_features
    from jepa_lightning.evaluation.open_data import open_data
    from jepa_lightning.evaluation.runs import EncoderSettings, file_hash
    from jepa_lightning.run.checkpoints import find_checkpoint
    from jepa_lightning.run.locks import locked

    path = Path(out).expanduser()
    settings = EncoderSettings(which, encoder, pooling, layers, device, trust)
    check_format(path)
    with locked(path.with_name(f".{path.name}.lock"), f"expected {path} for this, but it is written"):
        check_format(path)  # another process may have just finished it
        frozen = settings.load(checkpoint)
        opened = open_data(frozen, data, trust=trust)
        identity = {
            "checkpoint": file_hash(find_checkpoint(checkpoint, which)),
            "encoder": encoder,
            "data": opened.config,
            "files": named_files(opened.config),
        }
        try:
            how: dict[str, Any] = {"split": split, "pooling": pooling, "layers": layers, "part": part}
            return write_features(frozen, opened.module, path, identity=identity, **how)
        except OSError as error:
            error.add_note("Finished parts are kept in OUT.parts: the same command resumes from there.")
            raise
