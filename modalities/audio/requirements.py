"""What audio needs beyond the core: torchaudio, or one line that says how to get it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch

_INSTALL = 'pip install "jepa-lightning[audio]"'

try:
    import torchaudio
except (ImportError, OSError, RuntimeError) as error:
    if isinstance(error, ModuleNotFoundError) and error.name == "torchaudio":
        raise ImportError(f"audio needs torchaudio, which is not installed: {_INSTALL}") from None
    try:
        found = version("torchaudio")
    except PackageNotFoundError:
        found = "of unknown version"
    raise ImportError(
        f"torchaudio {found} does not load beside torch {torch.__version__}: the two must be of one release, and "
        f"torchaudio's last, 2.11.0, goes with torch 2.11 and 2.12 (not with 2.14 and later): {_INSTALL}"
    ) from error

__all__ = ["torchaudio"]
