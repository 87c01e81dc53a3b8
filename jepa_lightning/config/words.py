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


def read_configs(words: Sequence[str]) -> Iterator[Any]:
    """What the configs that are named hold; None for one that is no file that can be read as YAML.

    Raises:
        ValueError: there is none of that name.
    """
    for word, following in pairwise([*words, ""]):
        flag, equals, value = word.partition("=")
        if flag in _CONFIG:
            file = Path(find_config(value if equals else following))
            try:
                config = load_yaml(file.read_text())
            except (OSError, ValueError, yaml.YAMLError):  # the parser says what is wrong with it
                config = None
            yield config


def class_names(words: Sequence[str]) -> set[str] | None:
    """All that may be a class in the words and their configs: paths with dots, and names that begin with a capital.

    None where that cannot be told: help is asked for, which shows what there is, or there are files within files.

    Raises:
        ValueError: there is no config of a name.
    """
    if any(word == "-h" or re.match(r"--([\w.]+\.)?help\b", word) for word in words):
        return None
    configs = list(read_configs(words))
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
