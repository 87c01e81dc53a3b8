"""Runs of shipped configurations that benchmarks score: trained once, without what is written for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.lightning_cli import JEPACLI

QUIET = ["--trainer.limit_val_batches", "0", "--trainer.num_sanity_val_steps", "0", "--probe.enabled", "false"]
QUIET += ["--pictures.enabled", "false", "--trainer.enable_progress_bar", "false"]


def train_missing(config: str, folder: Path, *, seed: int, words: Sequence[str]) -> Path:
    """Train a shipped configuration with these words, unless its run is there; give its folder."""
    if not (folder / "summary.json").is_file():
        where = ["--trainer.default_root_dir", str(folder), "--seed_everything", str(seed)]
        fit(["--config", config, *QUIET, *where, *words])
    return folder


class _Watched(JEPACLI):
    watcher: Callback

    def before_fit(self) -> None:
        self.trainer.callbacks.append(self.watcher)  # type: ignore[attr-defined]
        super().before_fit()


def fit_watched(config: str, settings: Mapping[str, Any], watcher: Callback) -> None:
    """Run `jepa-fit` with settings by their names, and one callback more behind all others."""
    _Watched.watcher = watcher
    words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    _Watched(["fit", "--config", config, *words])
