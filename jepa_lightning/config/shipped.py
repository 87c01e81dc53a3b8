"""Finds the configs that are shipped with the package and with installed plug-ins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from jepa_lightning.config.plugins import packages
from jepa_lightning.names.nearest import nearest_names

PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")  # in a wheel; in a checkout


def shipped() -> dict[str, Path]:
    """The shipped configs by the name that `--config` takes, e.g. `image.yaml` or `recipes/ijepa_cifar10.yaml`.

    A plug-in's package may hold configs in a folder `configs` of its own. Where names are the same, ours count.
    """
    found: dict[str, Path] = {}
    for folder in (*reversed(FOLDERS), *_plugin_folders()):
        for path in sorted(folder.rglob("*.yaml")) if folder.is_dir() else ():
            found.setdefault(path.relative_to(folder).as_posix(), path)
    return found


def _plugin_folders() -> Iterator[Path]:
    """The folders `configs` of the packages of plug-ins; nothing of them is imported."""
    for package in sorted(packages()):
        try:
            spec = find_spec(package)
        except (ImportError, ValueError):  # a stranger's package may be broken in any way
            continue
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(place) / "configs"


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
    near = nearest_names(name, known, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    short = ", ".join(name for name in known if "/" not in name)
    raise ValueError(
        f"no config {name!r}, neither as a file here nor shipped; {hint}shipped are {short} and the recipes that "
        "`jepa-fit list recipes` shows"
    )


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
