"""Finds plug-ins, ours and anyone's, through two entry-point groups."""

from __future__ import annotations

import ast
import os
import sys
import warnings
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

GROUP = "jepa_lightning.modalities"  # kinds of data
GROUPS = (GROUP, "jepa_lightning.plugins")  # and packages of anything else: pretexts, encoders, maskers, ...


def registered() -> list[EntryPoint]:
    """The entry points of all installed plug-ins, by name."""
    return list(_registered(tuple((place, _changed(place)) for place in sys.path)))


@lru_cache(maxsize=1)
def _registered(places: tuple[tuple[str, int], ...]) -> list[EntryPoint]:
    """Those of packages at these places; read anew where a package was added to one, or removed."""
    known = entry_points()  # reads what all installed packages say, which takes longer than to choose among it
    return sorted((point for group in GROUPS for point in known.select(group=group)), key=lambda point: point.name)


def _changed(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


def packages() -> set[str]:
    """The packages of all installed plug-ins; nothing of them is imported."""
    return {point.value.partition(":")[0].partition(".")[0] for point in registered()}


def load_plugins(names: set[str] | None = None) -> list[str]:
    """Import registered plug-ins, so that the CLI knows their classes by their short names.

    A plug-in that cannot be imported costs a one-line warning and nothing else.

    Args:
        names: of plug-ins; None: all.

    Returns:
        The names of those that were loaded.
    """
    loaded = []
    for plugin in registered():
        if names is not None and plugin.name not in names:
            continue
        try:
            plugin.load()
        except Exception as error:  # a stranger's package may fail in any way
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            warnings.warn(f"plug-in '{plugin.name}' ({plugin.value}) does not load: {reason}", stacklevel=2)
        else:
            loaded.append(plugin.name)
    return loaded


def public_classes(plugin: EntryPoint) -> set[str] | None:
    """The names that a kind of data's module defines or imports, read from its source; nothing of it is run.

    None where they cannot be told: it is of another group, does more than to define and import, or is not found.
    """
    try:
        spec = find_spec(plugin.module)  # which imports the packages around it
        body = ast.parse(Path(str(spec and spec.origin)).read_text()).body
    except Exception:  # a stranger's package may fail in any way
        return None
    names: set[str] = set()
    for line in body:
        if isinstance(line, ast.Import | ast.ImportFrom):
            names |= {name.asname or name.name for name in line.names}
        elif isinstance(line, ast.ClassDef | ast.FunctionDef):
            names.add(line.name)
        elif not isinstance(line, ast.Assign | ast.AnnAssign) and not _is_text(line):
            return None
    return None if "*" in names or plugin.group != GROUP or plugin.attr else names


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
