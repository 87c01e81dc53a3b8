"""Finds modality plug-ins: ours and anyone's, through one entry-point group."""

from __future__ import annotations

import warnings
from importlib.metadata import entry_points

GROUP = "jepa_lightning.modalities"


def load_plugins() -> list[str]:
    """Import every registered plug-in, so that the CLI knows its classes by their short names.

    A plug-in that cannot be imported costs a one-line warning and nothing else.

    Returns:
        The names of those that were loaded.
    """
    loaded = []
    for plugin in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            plugin.load()
        except Exception as error:  # a stranger's package may fail in any way
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            warnings.warn(f"modality plug-in '{plugin.name}' ({plugin.value}) does not load: {reason}", stacklevel=2)
        else:
            loaded.append(plugin.name)
    return loaded
