"""What the words of a command line name, before any of them is parsed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from jepa_lightning.config.bounded_yaml import load_yaml
from jepa_lightning.config.shipped import find_config

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_CONFIG = ("--config", "-c")
_FILES = (".yaml", ".yml", ".json")


def spell_out(words: Sequence[str], *, subcommands: Sequence[str] = ()) -> list[str]:
    """Command-line words with their short forms written out.

    Words before the first option name configs: `image.yaml` is `--config image.yaml`. A number for the learning rate is
    the schedule's peak, and a regularizer's name a list of one.

    Args:
        words: of `jepa-fit`.
        subcommands: the first word may be one of these.

    Raises:
        ValueError: there is no config of a name.
    """
    rest = list(words)
    found = [rest.pop(0)] if rest and rest[0] in subcommands else []
    while rest and not rest[0].startswith("-"):
        found += ["--config", rest.pop(0)]
    for word in rest:
        flag, equals, value = word.partition("=") if word.startswith("--") else (found[-1] if found else "", "", word)
        if flag == "--model.regularizers" and _PATH.fullmatch(value) and value not in ("null", "None"):
            word = f"{flag}=[{value}]" if equals else f"[{value}]"
        elif flag == "--model.learning_rate" and _is_number(value):
            flag = f"{flag}.{_highest([*found, *rest])}"
            word = f"{flag}={value}" if equals else value
            if not equals:
                found[-1] = flag
        found.append(word)
    return found


def _highest(words: Sequence[str]) -> str:
    """The setting of the configs' learning rate that is its highest value: of a constant one, its value."""
    rates = [(config.get("model") or {}).get("learning_rate") for _, config in read_configs(words) if _is_whole(config)]
    named = [rate.get("class_path", "") for rate in rates if isinstance(rate, dict)]
    return "value" if named and named[-1].rpartition(".")[2] == "Constant" else "peak"


def _is_whole(config: Any) -> bool:
    return isinstance(config, dict) and isinstance(config.get("model"), dict)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_configs(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Each config that is named, and what it holds; None for one that cannot be read.

    Raises:
        ValueError: there is none of that name, it is no YAML, or holds no settings; the message names the file.
    """
    for word, following in pairwise([*words, ""]):
        flag, equals, value = word.partition("=")
        if flag in _CONFIG:
            name = value if equals else following
            try:
                text = Path(find_config(name)).read_text()
            except OSError:  # the parser says what is wrong with it
                yield name, None
                continue
            except UnicodeDecodeError as error:
                raise ValueError(f"{name} is not in UTF-8 ({error.reason} at byte {error.start}): save it so") from None
            try:
                config = load_yaml(text)
            except yaml.YAMLError as error:
                raise ValueError(f"{name}{_where(error)}") from None
            if not isinstance(config, dict):
                found = "nothing" if config is None else f"a {type(config).__name__}"
                raise ValueError(f"expected settings in {name}, such as `trainer: {{max_epochs: 3}}`, got {found}")
            yield name, config


def _where(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML file, and in which line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f": {error}"
    context = f" ({error.context})" if getattr(error, "context", None) else ""
    return f", line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', error)}{context}"


def config_settings(words: Sequence[str]) -> dict[str, str]:
    """The settings that the configs hold, each by its option's name, and the config that it is in.

    Examples:
        >>> from jepa_lightning.config.words import config_settings
        >>> config_settings(["--config", "image.yaml"])["model.modality.patch_size"]
        'image.yaml'
    """
    found: dict[str, str] = {}
    for name, config in read_configs(words):
        found |= dict.fromkeys(_settings(config), name)
    return found


def _settings(value: Any, key: str = "") -> Iterator[str]:
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        inside = key if name in ("init_args", "dict_kwargs") else f"{key}.{name}".lstrip(".")
        if inside != key and name != "class_path":
            yield inside
        yield from _settings(inner, inside)


def class_names(words: Sequence[str]) -> set[str] | None:
    """All that may be a class in the words and their configs: paths with dots, and names that begin with a capital.

    None where that cannot be told: help is asked for, which shows what there is, or there are files within files.

    Raises:
        ValueError: there is no config of a name.
    """
    if any(word == "-h" or re.match(r"--([\w.]+\.)?help\b", word) for word in words):
        return None
    configs = [config for _, config in read_configs(words)]
    if None in configs:
        return None
    texts = [text for config in configs for text in _texts(config)]
    for before, word in pairwise(["", *words]):
        flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if before not in _CONFIG and not (equals and flag in _CONFIG):
            texts += _texts(_read(value))
    if any(text.endswith(_FILES) for text in texts):
        return None
    return {text for text in texts if _PATH.fullmatch(text) and ("." in text or text[0].isupper())}


def _read(text: str) -> Any:
    try:
        return load_yaml(text)
    except (ValueError, yaml.YAMLError):
        return text


def _texts(value: Any) -> Iterator[str]:
    """All texts among values within each other."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value
