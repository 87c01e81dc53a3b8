"""Tar files in WebDataset's layout: their URLs, and which members of a sample are its input and its labels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jepa_lightning.data.errors import DataError
from jepa_lightning.data.sources.fields import Fields, label_value
from jepa_lightning.names.nearest import did_you_mean

_SIDE = ("cls", "json", "txt", "id", "key", "index")  # members that are no input unless they are asked for
_SHELL = re.compile(r"^pipe:")


def choose_input(names: Sequence[str], fields: Fields) -> str:
    """Choose the input among the members of a sample.

    Raises:
        ValueError: it is not there.
    """
    if fields.input is None:
        wanted = ["an input"]
        chosen = next((name for name in names if name not in (*_SIDE, *(fields.labels or ()))), None)
    else:
        wanted = [name.strip().lower().lstrip(".") for name in fields.input.split(";")]
        chosen = next((name for name in wanted if name in names), None)
    if chosen is None:
        raise ValueError(f"expected a file {' or '.join(wanted)} in the sample, found {', '.join(names) or 'none'}")
    return chosen


def read_labels(files: Mapping[str, bytes], fields: Fields) -> dict[str, Any]:
    """Read the labels among the members of a sample.

    Raises:
        ValueError: one is missing.
        DataError: one is neither a number nor a class.
    """
    names = [name for name in ("cls",) if name in files] if fields.labels is None else fields.labels
    found = {}
    for name in names:
        key = name.removeprefix("json.")
        if name in files:
            value: Any = files[name].decode()
        elif name.startswith("json.") and "json" in files:
            entries = json.loads(files["json"])
            if key not in entries:
                raise ValueError(f"expected an entry {key} in the JSON file{did_you_mean(key, entries)}")
            value = entries[key]
        else:
            raise ValueError(f"expected a file {name} in the sample, found {', '.join(files)}")
        label = "label" if name == "cls" else key
        found[label] = label_value(value, name=label, classes=fields.classes)
    return found


def label_members(fields: Fields) -> set[str]:
    """Name the members that labels are read from."""
    return {"json" if name.startswith("json.") else name for name in fields.labels or ()} or {"cls"}


def expand(urls: str | list[str]) -> list[str]:
    """Write out the paths and URLs that a pattern, or a list of patterns, stands for.

    Raises:
        DataError: webdataset is not installed, a file on disk is missing, or a URL names a shell command.
    """
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise DataError(f'shards need webdataset: pip install "jepa-lightning[shards]" ({error})') from error
    found = [url for pattern in ([urls] if isinstance(urls, str) else urls) for url in expand_urls(pattern)]
    if not found:
        raise DataError("expected urls of tar files, got none: set dataset.urls")
    paths = []
    for url in found:
        if _SHELL.match(url):  # a stored configuration must not run commands
            raise DataError(f"expected a path or a URL, got the shell command {url!r}: name the file's own URL")
        path = url.removeprefix("file://") if url.startswith("file://") else url
        if "://" not in path:
            path = str(Path(path).expanduser())
            if not Path(path).is_file():
                raise DataError(f"expected a tar file {url}, but there is none: check dataset.urls")
        paths.append(path)
    return paths
