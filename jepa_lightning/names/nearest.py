"""Names that were perhaps meant where another was given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_names(name: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Find the known names that are most like `name`, the most alike first.

    Args:
        name: what was given.
        known: what there is.
        count: names at most.
        cutoff: how like it they must be, from 0 to 1.

    Examples:
        >>> from jepa_lightning.names.nearest import nearest_names
        >>> nearest_names("colour", ["size", "color", "mode"])
        ['color']
    """
    return difflib.get_close_matches(name, list(known), n=count, cutoff=cutoff)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ask for the known name that `name` was perhaps meant to be: " (did you mean x?)"; "" where none is near."""
    near = nearest_names(name, known)
    return f" (did you mean {near[0]}?)" if near else ""
