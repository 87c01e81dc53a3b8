"""Names are the field's: words that went do not come back, in code or on pages."""

import ast
import re

import pytest
from pages import ROOT

GONE = {
    "alone": "step",
    "blocks_of": "layers",
    "compare": "pairs",
    "Counts": "RandomCount",
    "Earlier": "previous",
    "ended_well": "short_errors",
    "Faults": "NonFiniteGuard",
    "in_half": "autocast_in_half",
    "judge": "evaluate",
    "judged": "evaluated",
    "Keeping": "PoolAndStore",
    "penalise": "regularize",
    "Several": "MultiMasker",
    "sparing": "keep_precision",
    "teach": "targets",
    "teacher": "target",
}
"""A name that went, and what stands in its place."""

PHRASES = {
    r"\b(go(es)?|went|going) on\b": "resume, continue",
    r"\bjudg\w*": "evaluate, score",
    r"\blearnt\b|\blearns? (from|on)\b": "fit on, train on",
    r"\bsounds\b": "clips, audio, recordings",
    r"\bwhat is to be\b": "name the thing: targets",
    r"\bwhatever\b": "any, for every",
    r"\bsee to (it|that)\b": "handle",
}
"""What pages do not say, and what they say instead."""

MOVED = r"jepa_lightning[./](viewing|commands|drawing|checkpoints|run_folder|endings|parallel|strategies|rebuild)\b"
CODE = [path for folder in ("jepa_lightning", "modalities", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
PAGES += (ROOT / "configs").rglob("*.yaml")
PROSE = [*PAGES, ROOT / "benchmarks" / "README.md"]


def identifiers(path):
    """All names that a file's code defines or uses."""
    for node in ast.walk(ast.parse(path.read_text())):
        for field in ("id", "attr", "arg", "name", "asname"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield from name.split(".")


@pytest.mark.long
def test_names_in_code():
    assert len(CODE) > 200
    found = {(name, path.relative_to(ROOT).as_posix()) for path in CODE for name in identifiers(path) if name in GONE}
    assert not found, {name: GONE[name] for name, _ in found}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_on_pages(path):
    text = path.read_text()
    shown = set(re.findall(r"`(\w+)`|class_path: *(?:\w+\.)*(\w+)", text))
    names = {name for pair in shown for name in pair} & GONE.keys()
    assert not names
    assert not re.search(MOVED, text)


def test_phrases_in_code():
    """In docstrings, comments and messages alike."""
    old = r"(?i)\b(go(es)?|went) on\b|\bjudg\w*|\blearnt\b|\blearns? (from|on)\b|\bwhat is to be\b"
    found = {(path.relative_to(ROOT).as_posix(), m[0]) for path in CODE for m in re.finditer(old, path.read_text())}
    assert not found


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_phrases_on_pages(path):
    text = re.sub(r"\s+", " ", path.read_text())
    found = {m[0]: instead for phrase, instead in PHRASES.items() for m in re.finditer(phrase, text, re.IGNORECASE)}
    assert not found


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180
