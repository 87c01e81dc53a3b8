"""Runs of shipped configurations that benchmarks score: trained once, without what is written for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jepa_lightning.cli.fit import fit

QUIET = ["--trainer.limit_val_batches", "0", "--trainer.num_sanity_val_steps", "0", "--probe.enabled", "false"]
QUIET += ["--pictures.enabled", "false", "--trainer.enable_progress_bar", "false"]


def train_missing(config: str, folder: Path, *, seed: int, words: Sequence[str]) -> Path:
    """Train a shipped configuration with these words, unless its run is there; give its folder."""
    if not (folder / "summary.json").is_file():
        where = ["--trainer.default_root_dir", str(folder), "--seed_everything", str(seed)]
        fit(["--config", config, *QUIET, *where, *words])
    return folder
