"""Reading YAML within bounds: a few lines of it may stand for more values than a computer can hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

MODE = "bounded_yaml"
"""jsonargparse's name for parsers that read YAML with these bounds."""

VALUES = 100_000  # that a configuration stands for, its aliases written out
DEPTH = 50  # of lists and mappings in each other
CHARACTERS = 10_000_000
_SHORT = 40  # characters that are within all bounds, where there is no alias and at most one key
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class OutOfBounds(yaml.YAMLError, ValueError):
    """A configuration is larger or deeper than any of use."""


class Repeated(yaml.YAMLError, ValueError):
    """A setting stands twice in one place; YAML readers take the last without a word."""


@dataclass
class _Level:
    """A list or mapping that is open: its anchor, the values before it, and of a mapping its keys so far."""

    anchor: str | None
    before: int
    keys: set[str] | None
    next_is_key: bool = True

    def take(self, event: Any) -> None:
        """Note a key, or pass a value.

        Raises:
            Repeated: the key is there already.
        """
        if self.keys is None:
            return
        if self.next_is_key and isinstance(event, yaml.ScalarEvent):
            if event.value in self.keys:
                line = event.start_mark.line + 1
                raise Repeated(f"expected each setting once, got {event.value} again in line {line}: leave one out")
            self.keys.add(event.value)
        self.next_is_key = not self.next_is_key


def check_yaml(text: str) -> None:
    """Check that a text, read as YAML, stands for a configuration of a usual size; nothing is built of it.

    Aliases (`*name`) count as what they stand for, for that is what reads and writes them later.

    Raises:
        OutOfBounds: it is too long or too deep, stands for too much, or an alias lies within what it stands for.
        Repeated: a key stands twice in one mapping.
        yaml.YAMLError: it is no YAML.
    """
    if len(text) <= _SHORT and "*" not in text and text.count(":") < 2:
        return
    if len(text) > CHARACTERS:
        raise OutOfBounds(f"expected a configuration of at most {CHARACTERS:,} characters, got {len(text):,}")
    known: dict[str, int] = {}  # values that each anchor stands for
    levels: list[_Level] = []
    total = 0
    for event in _events(text):
        if levels and isinstance(event, yaml.AliasEvent | yaml.ScalarEvent | yaml.CollectionStartEvent):
            levels[-1].take(event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in known:
                raise OutOfBounds(f"expected an anchor before the alias *{event.anchor}, and not around it")
            total += known[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                known[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            levels.append(_Level(event.anchor, total, set() if isinstance(event, yaml.MappingStartEvent) else None))
            total += 1
            if len(levels) > DEPTH:
                raise _too_deep()
        elif isinstance(event, yaml.CollectionEndEvent):
            level = levels.pop()
            if level.anchor is not None:
                known[level.anchor] = total - level.before
        if total > VALUES:
            raise _too_many()


def check_values(value: Any) -> None:
    """Check that plain values, read from anywhere, make a configuration of a usual size, and so do texts in them.

    Raises:
        OutOfBounds: as `check_yaml`.
    """
    _measure(value, {}, 0)


def load_yaml(text: str) -> Any:
    """What a text says, read as jsonargparse reads YAML.

    Raises:
        OutOfBounds: as `check_yaml`.
        yaml.YAMLError: it is no YAML.
    """
    check_yaml(text)
    return get_loader("yaml")(text)


set_loader(MODE, load_yaml, exceptions=(yaml.YAMLError,))


def _events(text: str) -> Iterator[Any]:
    try:
        yield from yaml.parse(text, Loader=_Loader)
    except yaml.YAMLError as error:
        if "nesting depth" in str(error):  # libyaml's own limit, which it meets while it looks ahead
            raise _too_deep() from None
        raise


def _measure(value: Any, known: dict[int, tuple[int, int]], depth: int) -> tuple[int, int]:
    """How many values a value stands for, and how deep it is."""
    if isinstance(value, str):
        try:
            check_yaml(value)  # a parser reads a text as YAML where it may be more than a text
        except OutOfBounds:
            raise
        except yaml.YAMLError:
            pass
        return 1, 0
    if not isinstance(value, dict | list | tuple):
        return 1, 0
    if id(value) not in known:
        if depth > DEPTH:
            raise _too_deep()
        known[id(value)] = 1, DEPTH + 1  # for one that lies in itself
        inner = [_measure(v, known, depth + 1) for v in (value.values() if isinstance(value, dict) else value)]
        count = 1 + len(inner) * isinstance(value, dict) + sum(number for number, _ in inner)
        if count > VALUES:
            raise _too_many()
        known[id(value)] = count, 1 + max((height for _, height in inner), default=0)
    count, height = known[id(value)]
    if depth + height > DEPTH:
        raise _too_deep()
    return count, height


def _too_many() -> OutOfBounds:
    return OutOfBounds(
        f"expected a configuration of at most {VALUES:,} values, got one whose aliases or lists stand for more: name "
        "files of data, and write aliases out"
    )


def _too_deep() -> OutOfBounds:
    return OutOfBounds(
        f"expected lists and mappings at most {DEPTH} deep in each other, got deeper ones: write less deep"
    )
