"""Finds classes of the user's own in the folder where a command is typed, as Python finds them there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path


def find_own_classes(paths: Iterable[str], folders: Iterable[str | Path] = ()) -> None:
    """Let modules in the working directory, or beside a config, be imported where one of them is named.

    A console script does not look there, `python -m` does. A folder is looked through last, so that no file in it
    stands for an installed package, and only where it holds what is named and no installed package does.

    Args:
        paths: import paths that were typed, or that a config of the user's names: `my_parts.LeftRight`.
        folders: to look in besides the working directory.
    """
    packages = {path.partition(".")[0] for path in paths if "." in path}
    for folder in (Path.cwd(), *map(Path, folders)):
        own = [name for name in sorted(packages) if (folder / f"{name}.py").is_file() or (folder / name).is_dir()]
        if any(not _installed(name) for name in own) and os.fspath(folder.resolve()) not in sys.path:
            sys.path.append(os.fspath(folder.resolve()))


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
