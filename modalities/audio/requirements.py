"""What audio needs beyond the core: torchaudio, or one line that says how to get it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch

from jepa_lightning.config.extras import extra


def _broken(reason: str) -> str:
    try:
        found = version("torchaudio")
    except PackageNotFoundError:
        found = "of unknown version"
    return (
        f"torchaudio {found} does not load beside torch {torch.__version__}: the two must be of one release, and "
        "torchaudio 2.11.0 goes with torch 2.11 and 2.12, and 2.11.1 with torch 2.14"
    )


with extra("audio", who="audio needs", packages=("torchaudio",), broken=_broken):
    import torchaudio

__all__ = ["torchaudio"]
