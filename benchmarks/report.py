"""What the benchmarks share: options, a table for a person, a JSON file for a program."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from jepa_lightning.evaluation.report.table import table

__all__ = ["at_least", "choose_device", "machine", "options", "quartiles", "table", "write_json"]


def options(doc: str | None, name: str, *, threads: int | None = 1) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has: `--threads` and `--json`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "as torch chooses" if threads is None else str(threads)
    parser.add_argument("--threads", type=int, default=threads, help=f"CPU threads ({default} by default)")
    file = Path(f"runs/benchmarks/{name}.json")
    parser.add_argument("--json", type=Path, default=file, help=f"file to write, {file} by default")
    return parser


def at_least(parser: argparse.ArgumentParser, args: argparse.Namespace, **least: int) -> None:
    """End with exit code 2 where an option that was given is below its least value; lists count by their smallest."""
    for name, limit in least.items():
        value = getattr(args, name)
        if value is not None and (min(value) if isinstance(value, list) else value) < limit:
            parser.error(f"--{name.replace('_', '-')} must be at least {limit}, got {value}")


def choose_device(parser: argparse.ArgumentParser, name: str) -> torch.device:
    """The device called `name`, or exit code 2 where this machine has no CUDA device."""
    if name == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
    return torch.device(name)


def machine(device: torch.device | None = None) -> dict[str, str]:
    """What the figures depend on besides the options: versions and hardware."""
    facts = {"torch": torch.__version__, "machine": platform.machine(), "python": platform.python_version()}
    if device is not None:
        facts["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return facts


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile; a single value is all three."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def write_json(path: Path, settings: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write the settings, paths as text, and, under `results`, the figures; say where."""
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**plain, "results": results}, indent=2) + "\n")
    print(f"written to {path}")
