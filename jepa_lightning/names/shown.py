"""One repr for all that YAML names: the call that made it, in one line."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

_LONGEST = 80  # characters of a value
_MOST = 4  # entries of a list or dict
_PARTS = ("encoder", "spec")  # of a module that the JEPA hands these: torch shows the parts itself


class _Remembered:
    """Remembers, as text, the arguments that an object was made with and that are not the defaults."""

    made_with: tuple[tuple[str, str], ...] = ()

    if not TYPE_CHECKING:  # or editors would show this signature in place of the constructor's

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls.__init__ is object.__init__ and (args or kwargs):  # which Python lets pass beside a __new__
                raise TypeError(f"{cls.__name__}() takes no arguments, got {len(args) + len(kwargs)}")
            made = super().__new__(cls)
            made.__dict__["made_with"] = _changed(cls, args, kwargs)
            return made


class Shown(_Remembered):
    """Shows an object as the call that made it, without the arguments that are the defaults.

    A base class. Arguments are shown as they were given, also where the object keeps something else of them.

    Examples:
        >>> from jepa_lightning.names.shown import Shown
        >>> class Walk(Shown):
        ...     def __init__(self, steps=10, *, seed=0):
        ...         self.path = [seed] * steps
        >>> Walk(3, seed=0)
        Walk(steps=3)
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in self.made_with)})"


class ShownModule(_Remembered):
    """The same for modules, whose parts torch shows: comes before `nn.Module` among the bases."""

    def extra_repr(self) -> str:
        """List the arguments, those without an encoder or a spec."""
        return ", ".join(f"{name}={text}" for name, text in self.made_with if name not in _PARTS)


def _changed(kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and texts of the arguments whose text is not that of the default."""
    defaults = _defaults(kind)
    given = {**dict(zip(defaults, args, strict=False)), **kwargs}
    texts = ((name, _text(value), defaults.get(name, inspect.Parameter.empty)) for name, value in given.items())
    return tuple((name, text) for name, text, default in texts if text != _text(default))


@cache
def _defaults(kind: type) -> dict[str, Any]:
    """Defaults of a constructor by name, in order; of the base's too where it takes `**kwargs` for it."""
    found: dict[str, Any] = {}
    for base in (base for base in kind.__mro__ if "__init__" in vars(base)):
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, parameter.default)
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _text(value: Any) -> str:
    """A value in one short line; of what is not plain, its kind alone."""
    if isinstance(value, partial):
        function = next((part for part in (*value.args, value.func) if callable(part)), value.func)
        return _cut(f"partial({', '.join([_text(function), *(f'{k}={_text(v)}' for k, v in value.keywords.items())])})")
    if isinstance(value, str | int | float | bool | None):
        return _cut(repr(value))
    if isinstance(value, dict):
        return _cut(f"{{{', '.join(_few(f'{key!r}: {_text(part)}' for key, part in value.items()))}}}")
    if isinstance(value, list | tuple):
        return _cut(f"[{', '.join(_few(map(_text, value)))}]")
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    if isinstance(value, Shown) or hasattr(value, "__dataclass_fields__"):
        return _cut(repr(value))
    return f"{type(value).__name__}(...)"


def _few(texts: Iterable[str]) -> list[str]:
    first = list(islice(texts, _MOST + 1))
    return first if len(first) <= _MOST else [*first[:_MOST], "..."]


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
