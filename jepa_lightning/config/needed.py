"""Loads the plug-ins that a command needs: importing all of them takes longer than importing ours."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_lightning.config.messages import known_classes
from jepa_lightning.config.plugins import load_plugins, public_classes, registered
from jepa_lightning.config.words import class_names


def load_needed_plugins(words: Sequence[str]) -> list[str]:
    """Import the plug-ins whose classes command-line words and their configs name, and those that may do more.

    All, where it cannot be told: no plug-in of a kind of data is named, or a class that none of these is known to have.

    Args:
        words: of `jepa-fit`.

    Returns:
        The names of the plug-ins that were loaded.

    Raises:
        ValueError: a config does not exist.
    """
    named = class_names(words)
    if named is None:
        return load_plugins()
    public = {plugin: public_classes(plugin) for plugin in registered()}
    needed = {plugin for plugin, classes in public.items() if classes and _uses(named, plugin.module, classes)}
    if not needed:
        return load_plugins()
    loaded = load_plugins({plugin.name for plugin, classes in public.items() if plugin in needed or classes is None})
    known = known_classes().union(*(public[plugin] or () for plugin in needed))
    unknown = {name for name in named if "." not in name} - known
    return load_plugins() if unknown else loaded


def _uses(named: set[str], module: str, classes: set[str]) -> bool:
    return any(name in classes or name.startswith(f"{module}.") for name in named)
