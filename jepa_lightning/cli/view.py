"""`jepa-view`: what a trained JEPA sees, as pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jepa_lightning.cli.embed import data_config
from jepa_lightning.cli.errors import short_errors
from jepa_lightning.cli.options import Options, add_encoder_options, choose_device, data_in_order, positive
from jepa_lightning.cli.viewed import KINDS, Scene
from jepa_lightning.config.nearest import nearest_names
from jepa_lightning.data.in_order import SPLITS
from jepa_lightning.loading import load
from jepa_lightning.pictures.chosen import ChosenSamples
from jepa_lightning.run.checkpoints import find_checkpoint
from jepa_lightning.run.locks import locked


def view(args: Sequence[str] | None = None) -> None:
    """Entry point of `jepa-view`. Mistakes of the user end in a few lines and exit code 2."""
    with short_errors("jepa-view"):
        given, words = _parse(sys.argv[1:] if args is None else list(args))
        kinds, words = _kinds(words)
        out = _folder(given)
        with locked(out / ".lock", f"expected {out} for these pictures, but others are being drawn"):
            scene = _open(given, words, out)
            for kind in kinds:
                KINDS[kind](scene)
            for name, why in scene.samples.unreadable.items():
                scene.say(f"left out, since it cannot be read: {name} ({why})")


def _open(given: argparse.Namespace, words: list[str], out: Path) -> Scene:
    """The encoder and the chosen samples; mistakes show before anything is computed."""
    encoder = load(
        given.checkpoint, encoder=given.encoder, which=given.which, trust=given.trust, map_location=choose_device(given)
    )
    stored = (encoder.config or {}).get("data") or {}
    config = data_config(encoder.config or {}, words, trust=given.trust)
    try:
        data = data_in_order(config, encoder.modality, given)
        samples = ChosenSamples(data, given.split)
        positions = samples.spread(given.samples) if given.ids is None else samples.find(given.ids)
        batch = samples.read(positions)
    except ValueError as error:
        if config["class_path"] == stored.get("class_path"):
            raise
        name = config["class_path"].rpartition(".")[2]
        raise ValueError(f"{name}, for a run of the modality {encoder.modality.name}: {error}") from error
    try:
        encoder.embed(batch)
    except (ValueError, KeyError) as error:
        raise ValueError(f"the data do not fit the encoder: {error}") from error
    return Scene(encoder, data, samples, batch, given, out)


def _folder(given: argparse.Namespace) -> Path:
    """Where the pictures go."""
    out: Path | None = given.out
    if out is None:
        path = Path(given.checkpoint).expanduser()
        file = find_checkpoint(path, given.which)
        if file == path and file.parent.name != "checkpoints":
            raise ValueError("expected --out FOLDER with a checkpoint that lies in no run's folder: it has no place")
        out = (file.parent.parent if file.parent.name == "checkpoints" else path) / "view"
    if out.exists() and not out.is_dir():
        raise ValueError(f"expected a folder for --out, got the file {out}")
    return out


def _kinds(words: list[str]) -> tuple[list[str], list[str]]:
    """Which pictures are asked for, and the words about the data.

    Raises:
        ValueError: there is no such picture.
    """
    kinds: list[str] = []
    rest: list[str] = []
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        is_value = before.startswith("--data") and "=" not in before
        if word.startswith("--data") or is_value:
            rest.append(word)
        elif word in KINDS:
            kinds.append(word)
        else:
            close = nearest_names(word, KINDS)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"expected pictures among {', '.join(KINDS)}, got {word!r}{hint}")
    return [kind for kind in KINDS if kind in kinds or not kinds], rest


def _parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Options(
        prog="jepa-view",
        usage="jepa-view [masks] [features] [neighbours] [attention] [error] --checkpoint RUN [options]",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Draw what a trained JEPA sees in a few samples. All of these, or those that are named first:\n"
        + "\n".join(f"  {name:<11} {(kind.__doc__ or '').splitlines()[0]}" for name, kind in KINDS.items()),
        epilog="--data.KEY VALUE changes any setting of the run's data, as in jepa-fit: --data.root DIR.\n"
        "--data CLASS names another data module.",
    )
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="folder of a run, or checkpoint")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the pictures (RUN/view)")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--samples", type=positive, default=6, help="how many, evenly over the split (6)")
    chosen.add_argument("--ids", nargs="+", metavar="ID", help="names of samples, as jepa-embed writes them")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--neighbours", type=positive, default=5, metavar="K", help="of each sample (5)")
    parser.add_argument("--gallery", type=positive, default=2000, help="samples to look for neighbours in (2000)")
    parser.add_argument("--label", metavar="NAME", help="that attention is to tell (the first class label)")
    parser.add_argument("--seed", type=int, default=0, help="of masks and of the attentive probe")
    add_encoder_options(parser)
    return parser.parse_split(args)
