"""Finds plug-ins, ours and anyone's, through two entry-point groups."""

from __future__ import annotations

import warnings
from importlib.metadata import EntryPoint, entry_points

GROUP = "jepa_lightning.modalities"  # kinds of data
GROUPS = (GROUP, "jepa_lightning.plugins")  # and packages of anything else: pretexts, encoders, maskers, ...


def registered() -> list[EntryPoint]:
    """The entry points of all installed plug-ins, by name."""
    return sorted((point for group in GROUPS for point in entry_points(group=group)), key=lambda point: point.name)


def packages() -> set[str]:
    """The packages of all installed plug-ins; nothing of them is imported."""
    return {point.value.partition(":")[0].partition(".")[0] for point in registered()}


def load_plugins() -> list[str]:
    """Import every registered plug-in, so that the CLI knows its classes by their short names.

    A plug-in that cannot be imported costs a one-line warning and nothing else.

    Returns:
        The names of those that were loaded.
    """
    loaded = []
    for plugin in registered():
        try:
            plugin.load()
        except Exception as error:  # a stranger's package may fail in any way
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            warnings.warn(f"plug-in '{plugin.name}' ({plugin.value}) does not load: {reason}", stacklevel=2)
        else:
            loaded.append(plugin.name)
    return loaded
