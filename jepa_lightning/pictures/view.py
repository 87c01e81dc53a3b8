"""Draw what a trained JEPA sees. The flags of `jepa-view` are the parameters of `view`.

Heavy imports are inside the function, so that the help of the command needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule


def view(
    checkpoint: str | Path,
    pictures: Sequence[str] = ("masks", "features", "neighbours", "attention", "error"),
    *,
    data: LightningDataModule | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    samples: int = 6,
    ids: Sequence[str] | None = None,
    split: Literal["train", "val", "test"] = "val",
    neighbours: int = 5,
    gallery: int = 2000,
    label: str | None = None,
    seed: int = 0,
    which: Literal["last", "best"] = "last",
    encoder: Literal["target", "context"] | None = None,
    pooling: Literal["mean", "max", "mean+max", "quarters", "segments"] = "mean",
    device: str = "auto",
    trust: Sequence[str] = (),
) -> list[Path]:
    """Draw what a trained JEPA sees in a few samples.

        files = jepa_lightning.view("runs/image", ["masks", "features"], samples=8)

    Prints each file as it is written, with the numbers it shows. Some kinds also write these as JSON.

    Args:
        checkpoint: folder of a run, or a checkpoint.
        pictures: kinds to draw. masks: context and targets, for three draws of the run's masker; features: the first
            three principal components of token features as colours, untrained beside trained; neighbours: each sample
            and its nearest neighbours by cosine similarity of pooled features; attention: where an attentive probe
            attends to predict a label; error: the prediction error of each token when it is hidden; predictions: the
            samples whose hidden part is nearest to what is predicted, for one draw of masks and each code of a z.
        data: data to draw samples from. Settings, {"root": "my_images"}, override those of the run's data; a
            "class_path" with "init_args" selects another data module; or a data module. Classes in a stored
            configuration that are neither ours nor a plug-in's need `trust`. None: the run's data.
        out: folder of the pictures. None: `view` in the run's folder.
        samples: number of samples, spread evenly over the split.
        ids: ids of the samples, as `jepa_lightning.embed` writes them; `samples` is then ignored.
        split: split of the samples.
        neighbours: number of neighbours of each sample, and of each prediction.
        gallery: number of samples of the split to search for them.
        label: label that the attentive probe predicts; None: the first class label.
        seed: seed of the masks and of the attentive probe.
        which: checkpoint of a run's folder to use, last or best.
        encoder: the "target" or the "context" encoder; None: the run's default (see `Target.evaluated`).
        pooling: how a sample's tokens are pooled to find neighbours.
        device: "auto" (a GPU if available), "cpu", "cuda", "cuda:1", ...
        trust: packages whose classes the run's configuration may name, in addition to ours and plug-ins.

    Returns:
        The files written.

    Raises:
        ValueError: the run, its data or a setting cannot be used, or there is no such sample; the message says what
            to do.
    """
    from jepa_lightning.evaluation.open_data import errors_with, open_data
    from jepa_lightning.evaluation.runs import EncoderSettings
    from jepa_lightning.pictures.chosen import ChosenSamples
    from jepa_lightning.pictures.files import pictures_folder
    from jepa_lightning.pictures.kinds import chosen_kinds
    from jepa_lightning.pictures.scene import Scene
    from jepa_lightning.run.locks import locked

    kinds = chosen_kinds(pictures)
    for name, number in (("samples", samples), ("neighbours", neighbours), ("gallery", gallery)):
        if number < 1:
            raise ValueError(f"expected {name} of at least 1, got {number}")
    folder = pictures_folder(checkpoint, out, which=which)
    settings = EncoderSettings(which, encoder, pooling, device=device, trust=trust)
    with locked(folder / ".lock", f"expected {folder} for these pictures, but others are being drawn"):
        frozen = settings.load(checkpoint)
        opened = open_data(frozen, data, trust=trust)
        with errors_with(opened.prefix):  # report mistakes before any computation
            chosen = ChosenSamples(opened.module, split)
            batch = chosen.read(chosen.spread(samples) if ids is None else chosen.find(ids))
        try:
            frozen.embed(batch)
        except (ValueError, KeyError) as error:
            raise ValueError(f"the data do not fit the encoder: {error}") from error
        options: dict[str, Any] = {"k": neighbours, "gallery": gallery, "label": label, "seed": seed}
        scene = Scene(Path(checkpoint), settings, frozen, opened.module, chosen, batch, folder, **options)
        for draw in kinds:
            draw(scene)
        for name, why in scene.samples.unreadable.items():
            scene.say(f"skipped, since it cannot be read: {name} ({why})")
        return scene.files
