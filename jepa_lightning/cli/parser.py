"""The parser of `jepa-fit`: errors of a few lines, and help without the names of all classes of other libraries."""

from __future__ import annotations

import argparse
import copy
import os
from argparse import Action
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter, Namespace, dict_to_namespace
from lightning.pytorch.cli import LightningArgumentParser

from jepa_lightning.cli.errors import TRACEBACK, fail
from jepa_lightning.config.bounded_yaml import MODE
from jepa_lightning.config.messages import shorten

_KNOWN = ", known subclasses: "
_MOST = 16  # classes that are listed


class ShortHelp(DefaultHelpFormatter):
    """jsonargparse's help, in which a setting that takes a class names ours alone, by their short names.

    jsonargparse lists every class below `Dataset` or `nn.Module` that was imported: thousands of lines.
    """

    def add_argument(self, action: Action) -> None:
        """Add an option to the page."""
        extra = getattr(action, "extra_help", None)
        if extra is not None:
            action.extra_help = lambda: _shortened(str(extra()))  # type: ignore[attr-defined]
        super().add_argument(action)


class Parser(LightningArgumentParser):
    """Lightning's parser with errors of a few lines and short help, which reads YAML within bounds."""

    typed: Sequence[str] = ()  # all words of the command
    named: Mapping[str, str] = MappingProxyType({})  # classes that what is being parsed names, by setting

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if str(kwargs.get("description")).startswith("Help for --"):  # on a class: all of it stands below
            kwargs["usage"] = argparse.SUPPRESS
        super().__init__(*args, **{"parser_mode": MODE, "formatter_class": ShortHelp, **kwargs})

    def get_defaults(self, *args: Any, **kwargs: Any) -> Namespace:
        """As jsonargparse's, without the settings of the classes that are the defaults, which are added in the end.

        Or a class that is named in a default's place would take over those settings that it has, too, as if they had
        been asked for: `MLPPredictor` the 6 layers of `TransformerPredictor`.
        """
        found: Namespace = super().get_defaults(*args, **kwargs)
        for key, _ in _classes(found):
            default = {"class_path": self.named[key]} if key in self.named else copy.deepcopy(self.get_default(key))
            found[key] = dict_to_namespace(default) if isinstance(default, dict) else default
        return found

    def parse_object(self, obj: Any, namespace: Any = None, **kwargs: Any) -> Any:
        """As jsonargparse's, without merging settings with themselves: each level of classes would double the work."""
        namespace = None if namespace == obj else namespace
        before, self.named = self.named, dict([*_classes(namespace), *_classes(obj)])
        try:
            return super().parse_object(obj, namespace, **kwargs)
        finally:
            self.named = before

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """As jsonargparse's, without a second validation of the settings, which takes most of the time."""
        return str(super().dump(*args, **{**kwargs, "skip_validation": True}))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong, with the nearest name where one was mistyped, and exit with code 2."""
        if not self.exit_on_error or os.environ.get(TRACEBACK):  # jsonargparse tries alternatives in this way
            super().error(message, ex)
        fail(shorten(message, self))


def _classes(settings: Any, within: str = "") -> Iterator[tuple[str, str]]:
    """Settings that say of which class they are, each with that; nothing of what these contain."""
    items = vars(settings) if isinstance(settings, Namespace) else settings
    for name, value in list(items.items()) if isinstance(items, Mapping) else ():
        if isinstance(value, Namespace | Mapping):
            if "class_path" in value:
                yield within + name, value["class_path"]
            else:
                yield from _classes(value, f"{within}{name}.")


def _shortened(extra: str) -> str:
    before, known, paths = extra.partition(_KNOWN)
    if not known:
        return extra
    names = paths.split(", ")
    ours = [name for name in names if name.startswith(("jepa_lightning.", "modalities."))]
    short = [name.rpartition(".")[2] for name in ours or names]
    if len(short) > _MOST:
        return f"{before}, a class of that kind, by its import path"
    return f"{before}, one of {', '.join(short)}, or a class of yours by its import path"
