"""What the code imports is declared in pyproject.toml: the core's by the project, a modality's also by its extra."""

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {"scikit-learn": "sklearn", "pillow": "PIL", "pyyaml": "yaml"}  # whose modules have other names
OURS = {"jepa_lightning", "modalities"}
OPTIONAL = {"torchcodec", "transformers"}  # taken where they can be imported
NOT_IMPORTED = {"tensorboard", "onnx"}  # Lightning does, and torch's exporter


def declared(requirements):
    """Top modules of the packages that requirements name."""
    names = [re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements]
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


CORE = declared(PROJECT["dependencies"])
EXTRAS = {name: declared(requirements) for name, requirements in PROJECT["optional-dependencies"].items()}


@cache
def imports(folder):
    """(top module, whether it is imported with the file itself, file) for each import of another package's module."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            tops = {name.partition(".")[0] for name in names} - OURS - sys.stdlib_module_names
            found += [(top, id(node) not in inside, path.relative_to(ROOT)) for top in tops]
    return found


def test_the_core():
    """With a file itself only what the project requires; inside functions also what an extra brings."""
    found = imports(ROOT / "jepa_lightning")
    assert {"torch", "yaml", "PIL"} <= {top for top, _, _ in found}
    extras = set().union(*EXTRAS.values())
    drawing = {Path("jepa_lightning/evaluation/report") / name for name in ("plots.py", "theme.py")}
    wrapping = {Path("jepa_lightning/rl/wrappers.py")}  # classes of gymnasium's: nothing else imports them
    assert not [
        (top, path)
        for top, at_once, path in found
        if top not in (CORE if at_once and path not in drawing | wrapping else CORE | extras)
    ]


@pytest.mark.parametrize(
    "folder",
    sorted(path.parent for path in (ROOT / "modalities").glob("*/__init__.py")),
    ids=lambda folder: folder.name,
)
def test_a_modality(folder):
    allowed = CORE | EXTRAS.get(folder.name, set()) | OPTIONAL
    assert not [(top, path) for top, _, path in imports(folder) if top not in allowed]


def test_nothing_is_required_that_nobody_imports():
    used = {top for top, _, _ in [*imports(ROOT / "jepa_lightning"), *imports(ROOT / "modalities")]}
    code = set(EXTRAS) - {"all", "docs", "test"}
    assert CORE | set().union(*(EXTRAS[name] for name in code)) <= used | NOT_IMPORTED
