"""What the tests of README.md and docs/ share: their code blocks and commands."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language that are no files of their own."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def named_blocks(page: str) -> dict[str, str]:
    """The blocks that are files, by the name in their `title`."""
    found = re.findall(r"^```\w+ title=\"([^\"]+)\"\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    return dict(found)


def commands(page: str) -> list[str]:
    """The lines of the shell blocks; those that a backslash ends go on in the next."""
    joined = "".join(blocks(page, "bash")).replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def install(page: str, folder: Path) -> None:
    """Write a page's files into `folder`, and install its package into `folder/site` as its first command says."""
    for name, text in named_blocks(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    words = shlex.split(next(line for line in commands(page) if line.startswith("pip install")))
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", "site"]
    made = subprocess.run([sys.executable, "-m", *words, *offline], cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


def programs() -> dict[str, str]:
    """What the package installs as commands: name to `module:function`."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def program(name: str) -> Callable[[list[str]], None]:
    """The function behind a command, which takes its words."""
    module, _, function = programs()[name].partition(":")
    return getattr(import_module(module), function)
