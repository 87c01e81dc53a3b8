"""Finds the configs that are shipped with the package."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")  # in a wheel; in a checkout


def shipped() -> dict[str, Path]:
    """The shipped configs by the name that `--config` takes, e.g. `image.yaml` or `recipes/ijepa_cifar10.yaml`."""
    return {
        path.relative_to(folder).as_posix(): path
        for folder in FOLDERS
        if folder.is_dir()
        for path in sorted(folder.rglob("*.yaml"))
    }


def find_config(name: str) -> str:
    """The path of a config: a file that exists, or a shipped one; with or without `.yaml` or `recipes/`.

    Raises:
        ValueError: with the nearest shipped name, when there is no such file.
    """
    if Path(name).is_file() or "\n" in name or "{" in name:  # jsonargparse takes a config's text too
        return name
    known = shipped()
    for candidate in (name, f"{name}.yaml", f"recipes/{name}", f"recipes/{name}.yaml"):
        if candidate in known:
            return str(known[candidate])
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"no config {name!r}, neither as a file here nor shipped; {hint}shipped are {', '.join(known)}")


def find_configs(words: Sequence[str]) -> list[str]:
    """Command-line words with each `--config NAME` (or `-c`, or `--config=NAME`) replaced by its path."""
    found: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=")
        if equals and flag in ("--config", "-c"):
            found.append(f"{flag}={find_config(value)}")
        else:
            found.append(find_config(word) if found and found[-1] in ("--config", "-c") else word)
    return found
