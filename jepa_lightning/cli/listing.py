"""`jepa-fit list`: what a configuration can name, each with a line about it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jepa_lightning.config.kinds import KINDS, classes_of
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.config.shipped import shipped
from jepa_lightning.names.nearest import did_you_mean


def print_lists(kinds: Sequence[str]) -> None:
    """Print what there is of each kind; of all kinds where none is named.

    Exits with code 2 where a name is none of `KINDS`.
    """
    from jepa_lightning.cli.errors import fail
    from jepa_lightning.cli.output import readers_may_leave

    for kind in kinds:
        if kind not in KINDS:
            fail(f"expected one of {', '.join(KINDS)} to list, got {kind!r}{did_you_mean(kind, KINDS)}")
    with readers_may_leave():
        if any(KINDS[kind] for kind in kinds or KINDS):
            load_plugins()
        for number, kind in enumerate(kinds or KINDS):
            print(f"{chr(10) if number else ''}{kind}")
            rows = list(_rows(kind))
            width = max((len(name) for name, _ in rows), default=0)
            for name, about in rows:
                print(f"  {name:<{width}}  {about}".rstrip())


def _rows(kind: str) -> Iterator[tuple[str, str]]:
    if KINDS[kind] is None:
        for name, path in shipped().items():
            if name.startswith("recipes/") == (kind == "recipes"):
                yield name.removeprefix("recipes/"), _about_file(path)
    else:
        for cls in classes_of(kind):
            yield cls.__name__, (inspect.getdoc(cls) or "").partition("\n")[0].rstrip(".:")


def _about_file(path: Path) -> str:
    """The first sentence of the comment on top of a config."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    return _first_sentence("\n".join(comment))


def _first_sentence(text: str) -> str:
    """Up to the first full stop or colon that ends a word, but that of "et al."; at most 100 characters in one line."""
    sentence = " ".join(re.split(r"(?<! al)[.:](?:\s|$)", text, maxsplit=1)[0].split())
    return sentence if len(sentence) <= 100 else f"{sentence[:96].rsplit(' ', 1)[0]} ..."
