"""What the commands on a checkpoint share of their command lines."""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path
from typing import NoReturn

import torch

from jepa_lightning.cli.errors import fail
from jepa_lightning.config.messages import shorten
from jepa_lightning.config.rebuild import Config, build_data
from jepa_lightning.config.trust import library_classes
from jepa_lightning.data import JEPADataModule
from jepa_lightning.modality import Modality


class Options(argparse.ArgumentParser):
    """A parser with errors of a line, which leaves `--data...` to the data module.

    Args:
        *args: of ArgumentParser.
        **kwargs: likewise.
    """

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit with code 2."""
        fail(shorten(message, self), program=self.prog)

    def parse_split(self, args: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """The options, and the words about the data."""
        given, words = self.parse_known_args(args)
        strange = [word for word in words if word.startswith("-") and not re.match(r"--data(\.|=|$)", word)]
        if strange:
            self.error(f"unrecognized arguments: {strange[0]}")
        given.trust = [*given.trust, *library_classes(word.rpartition("=")[2] for word in words)]  # typed, not stored
        return given, words


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Options of how a run's encoder is read and used."""
    parser.add_argument("--which", choices=["last", "best"], default="last", help="which checkpoint of the folder")
    parser.add_argument("--pooling", choices=["mean", "max", "mean+max"], default="mean", help="of a sample's tokens")
    parser.add_argument("--encoder", choices=["target", "context"])
    parser.add_argument("--batch_size", type=positive, help="in place of the run's")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--trust", nargs="+", default=[], metavar="PACKAGE", help="packages whose classes the run may name"
    )


def add_layers_option(parser: argparse.ArgumentParser) -> None:
    """How many of the last layers features come from."""
    parser.add_argument(
        "--layers", type=positive, default=1, metavar="K",
        help="features of the last K layers side by side, as I-JEPA does with 4 (1: the encoder's output)",
    )  # fmt: skip


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def choose_device(given: argparse.Namespace) -> str:
    """The device of `--device`.

    Raises:
        ValueError: there is no such device.
    """
    if given.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a CUDA device for --device cuda, found none: leave it out, or say --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if given.device == "auto" else str(given.device)


def data_in_order(config: Config, modality: Modality, given: argparse.Namespace) -> JEPADataModule:
    """The data module of a configuration, which is changed to leave no sample out and to have `--batch_size`.

    Raises:
        ValueError: it is no JEPADataModule, or refuses its settings.
    """
    overrides = {"drop_last": False, **({"batch_size": given.batch_size} if given.batch_size else {})}
    config["init_args"] = {**(config.get("init_args") or {}), **overrides}
    data = build_data(config, {}, modality, trust=given.trust)
    if not isinstance(data, JEPADataModule):
        raise ValueError(f"expected a JEPADataModule, got {type(data).__name__}: only their splits have an order")
    return data


def file_hash(path: Path) -> str:
    """SHA-256 of a file; of a checkpoint in shards, which is a folder, that of its files' names and hashes."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return hashlib.sha256("".join(f"{file.name} {file_hash(file)}\n" for file in files).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
