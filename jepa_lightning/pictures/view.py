"""What a trained JEPA sees, as pictures. The flags of `jepa-view` are the parameters of `view`.

What computes is imported when it is called, so that the help of the command needs none of it.
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
    pooling: Literal["mean", "max", "mean+max"] = "mean",
    device: str = "auto",
    trust: Sequence[str] = (),
) -> list[Path]:
    """Draw what a trained JEPA sees in a few samples.

        files = jepa_lightning.view("runs/image", ["masks", "features"], samples=8)

    Prints the files as they are written, and what they show in figures. Some kinds have these as JSON, too.

    Args:
        checkpoint: the folder of a run, or a checkpoint.
        pictures: which kinds. masks: what the context shows and what is to be predicted, three draws of the run's
            masker; features: the first three principal components of token features as colours, trained and
            untrained; neighbours: each sample and its nearest neighbours by the cosine of pooled features; attention:
            where an attentive probe looks to tell a label; error: how badly each token is predicted where it is
            hidden.
        data: where samples are from. Settings, {"root": "my_images"}, replace those of the run's data; a "class_path"
            with "init_args" names another data module; or a data module itself. Data of a stored configuration need
            `trust` for classes that are neither ours nor a plug-in's. None: the run's data.
        out: folder of the pictures. None: `view` in the run's folder.
        samples: how many, evenly over the split.
        ids: names of samples, as `jepa_lightning.embed` writes them, in place of a number of them.
        split: where they are from.
        neighbours: of each sample.
        gallery: samples of the split to look for neighbours in.
        label: that attention is to tell; None: the first class label.
        seed: of masks and of the attentive probe.
        which: of a run's folder, the last checkpoint or the best.
        encoder: the "target" encoder or the "context" encoder; None: the one that the run's target says.
        pooling: of a sample's tokens, to find neighbours.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
        trust: packages whose classes the run's configuration may name, beside ours and the plug-ins'.

    Returns:
        The files that were written.

    Raises:
        ValueError: the run, its data or a setting cannot be used, or no such sample; the message says what to do.
    """
    from jepa_lightning.evaluation.open_data import errors_with, open_data
    from jepa_lightning.evaluation.runs import EncoderSettings
    from jepa_lightning.pictures.chosen import ChosenSamples
    from jepa_lightning.pictures.kinds import Scene, chosen_kinds, pictures_folder
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
        with errors_with(opened.prefix):  # mistakes show before anything is computed
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
            scene.say(f"left out, since it cannot be read: {name} ({why})")
        return scene.files
