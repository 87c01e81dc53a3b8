"""From a function's signature to the flags of a command: `jepa-probe`, `jepa-embed`, `jepa-view` and `jepa-plan`.

Nothing that computes is imported here until it is needed: `--help` shows at once.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NoReturn, get_type_hints

import docstring_parser
import jsonargparse

from jepa_lightning.config.bounded_yaml import MODE, check_values

_DATA = re.compile(r"--data(\.|=|$)")


class Parser(jsonargparse.ArgumentParser):
    """A parser with the errors of `jepa-fit`: a few lines, with the nearest name where one was mistyped."""

    of_function = True
    """Its options are those of a function; a message does not speak of shipped configurations."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong and exit with code 2."""
        from jepa_lightning.cli.errors import fail
        from jepa_lightning.config.messages import shorten

        if not self.exit_on_error:  # jsonargparse tries alternatives in this way
            super().error(message, ex)
        fail(shorten(message, self), program=self.prog)


def function_parser(program: str, function: Callable[..., Any]) -> Parser:
    """A parser whose options are the parameters of a function, with their types, defaults and descriptions.

    Args:
        program: name of the command.
        function: typed, with a docstring that describes each parameter. One called `data` is the data of a run.
    """
    described = docstring_parser.parse(function.__doc__ or "")
    has_data = "data" in inspect.signature(function).parameters
    positional = " ".join(f"[{name.upper()}]" for name in positionals(function))
    parser = Parser(
        prog=program,
        usage=f"{program} {positional} [--OPTION VALUE ...]{' [--data.KEY VALUE ...]' if has_data else ''}",
        description=described.short_description,
        parser_mode=MODE,
        allow_abbrev=False,
        print_config=None,
    )
    parser.add_argument("--config", action="config", help="YAML file with these options; those typed beside it win")
    parser.add_function_arguments(_without_data(function), as_positional=False)
    if not has_data:
        return parser
    about = next(param.description or "" for param in described.params if param.arg_name == "data")
    parser.add_argument(
        "--data",
        metavar="CLASS",
        help=f"{about} In a shell: --data.KEY VALUE changes a setting of the run's data, as in jepa-fit; --data CLASS "
        "names another data module",
    )
    return parser


def positionals(function: Callable[..., Any]) -> list[str]:
    """The parameters that words without an option stand for, in order."""
    signature = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in signature if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


@contextmanager
def command(program: str, function: Callable[..., Any], args: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Inside, errors of the function that a command calls end in a few lines; gives the arguments of that call.

    An option that takes several values takes all words up to the next option, numbers and choices also with commas
    between them. Words about the data change the settings that the first run stores, or name another data module.
    Options may stand in a file, `--config plan.yaml`.

    Args:
        program: name of the command.
        function: with the parameter `checkpoint`, and with `which` and `trust` where it has `data`.
        args: the words; None: those of this process.
    """
    words = list(sys.argv[1:] if args is None else args)
    if "-h" in words or "--help" in words:
        function_parser(program, function).print_help()
        sys.exit(0)
    from jepa_lightning.cli.errors import short_errors

    with short_errors(program):
        found, about_data = parse_words(program, function, words)
        if found.get("trust"):
            from jepa_lightning.config.own_classes import find_own_classes

            find_own_classes(f"{package}." for package in found["trust"])
        if about_data:
            from jepa_lightning.config.trust import library_classes

            typed = library_classes(word.rpartition("=")[2] for word in about_data)  # typed, not stored: to be trusted
            found["trust"] = [*found["trust"], *typed]
            found["data"] = _data_config(found, about_data)
        yield found


def parse_words(program: str, function: Callable[..., Any], words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The arguments of a call, all but `data`, and the words that are about the data; see `command`.

    Classes that a parameter names, `--planner CEM --planner.samples 256`, are built.
    """
    parser = function_parser(program, function)
    options, about_data = _sort(words, function, parser)
    parsed = parser.parse_args(options)
    found: dict[str, Any] = parsed.as_dict()
    found.pop("config", None)
    if found.pop("data", None) is not None:
        raise ValueError("expected settings of the data as words, --data.KEY VALUE, got them in the file of --config")
    named = [name for name, value in found.items() if isinstance(value, dict) and "class_path" in value]
    if named:
        built = parser.instantiate_classes(parsed)
        found |= {name: built[name] for name in named}
    return found, about_data


def _without_data(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as the parser sees it: without `data`, which a run's configuration describes, and what it returns.

    Types of both are of heavy packages, which the help needs not; jsonargparse imports what an annotation names.
    """
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__, copy.__doc__ = function.__kwdefaults__, function.__doc__
    copy.__annotations__ = {k: v for k, v in function.__annotations__.items() if k not in ("data", "return")}
    types = copy.__annotations__ = get_type_hints(copy)
    signature = inspect.signature(function)
    kept = [known.replace(annotation=types[name]) for name, known in signature.parameters.items() if name != "data"]
    copy.__signature__ = signature.replace(parameters=kept, return_annotation=signature.empty)  # type: ignore[attr-defined]
    return copy


def _sort(words: Sequence[str], function: Callable[..., Any], parser: Parser) -> tuple[list[str], list[str]]:
    """The words of options, each `--NAME=VALUE`, and those about the data."""
    kinds = {name: str(parameter.annotation) for name, parameter in inspect.signature(function).parameters.items()}
    several = {name for name, kind in kinds.items() if "Sequence" in kind}
    plain = {name for name in several if "str" not in kinds[name]}  # numbers, or names of which none has a comma
    options: list[str] = []
    about_data: list[str] = []
    loose: list[str] = []
    given: set[str] = set()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if "data" in kinds and _DATA.match(word):
            about_data += [word] if equals or not rest else [word, rest.pop(0)]
        elif not word.startswith("--"):
            loose.append(word)
        else:
            key = name[2:]
            given.add(key)
            values = [] if equals else list(_values(rest, most=None if key in several else 1))
            del rest[: len(values)]
            if key == "config":  # first, so that what is typed wins
                options = [*([word] if equals else _option(key, values, several=False, parser=parser)), *options]
                continue
            if key.partition(".")[0] not in kinds:  # what follows a dot is a setting of a class
                if key == "batch_size" and "data" in kinds:
                    raise ValueError("no option --batch_size; did you mean --data.batch_size?")
                parser.error(f"unrecognized arguments: {name}")
            if key in plain:
                equals, values = "", list(_apart([word.partition("=")[2]] if equals else values))
            options += [word] if equals else _option(key, values, several=key in several, parser=parser)
    for key in positionals(function):
        if key not in given and loose:
            values = loose if key in several else loose[:1]
            loose = loose[len(values) :]
            options += _option(key, values, several=key in several, parser=parser)
    if loose:
        parser.error(f"expected options after these words, got {loose[0]!r}: what it belongs to is missing")
    return options, about_data


def _values(rest: Iterable[str], *, most: int | None) -> Iterable[str]:
    for number, word in enumerate(rest):
        if word.startswith("--") or number == most:
            return
        yield word


def _apart(values: Iterable[str]) -> Iterable[str]:
    """Values that commas separate, one by one: 5,10 is 5 and 10; a list in brackets stays as it is."""
    for value in values:
        yield from [value] if value.startswith("[") else filter(None, value.split(","))


def _option(key: str, values: Sequence[str], *, several: bool, parser: Parser) -> list[str]:
    if not values:
        parser.error(f"expected a value after --{key}, got none")
    if several and not (len(values) == 1 and values[0].startswith("[")):
        return [f"--{key}={json.dumps(list(values))}"]
    return [f"--{key}={values[0]}"]


def _data_config(found: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The configuration of the data: that of the first run, with what the words change in it."""
    from jepa_lightning.run.checkpoints import find_checkpoint, read_config

    checkpoint = found["checkpoint"]
    first = checkpoint[0] if isinstance(checkpoint, list) else checkpoint
    return data_config(read_config(find_checkpoint(first, found["which"])), words, trust=found["trust"])


def data_config(config: Mapping[str, Any], words: Sequence[str], *, trust: Sequence[str] = ()) -> dict[str, Any]:
    """The data's part of a run's configuration, with what the words of a command line change in it.

    Args:
        config: the run's; its `data` may be missing where the words name a class.
        words: `--data.root photos --data.csv ...`, or `--data CLASS ...` for another data module.
        trust: packages whose classes may be named.

    Raises:
        ValueError: no class is named at all, or the words do not fit it.
    """
    from lightning.pytorch import LightningDataModule

    from jepa_lightning.config.messages import shorten
    from jepa_lightning.config.plugins import load_plugins
    from jepa_lightning.config.trust import Untrusted, only_trusted

    stored = config.get("data")
    if any(word == "--data" or word.startswith("--data=") for word in words):
        stored = None
        load_plugins()  # so that their short names are known
    elif not isinstance(stored, dict):
        raise ValueError(
            "the run's config.yaml is not beside its checkpoint, so its data are not known: name the run's folder, or "
            "a data module, such as --data ImageData --data.root DIR"
        )
    parser = jsonargparse.ArgumentParser(exit_on_error=False, parser_mode=MODE)
    parser.add_subclass_arguments(LightningDataModule, "data", fail_untyped=False, required=True)
    check_values(stored)
    first = [] if stored is None else ["--data", json.dumps(stored)]
    try:
        with only_trusted(trust):
            return dict(parser.parse_args([*first, *words]).data.as_dict())
    except Untrusted:
        raise
    except (argparse.ArgumentError, ValueError, TypeError, ImportError) as error:
        raise ValueError(shorten(str(error), parser)) from error
