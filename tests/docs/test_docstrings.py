"""Docstrings become pages: what Markdown would take for a link to nowhere stands in backticks."""

import ast
import re

from pages import ROOT

FILES = sorted(file for part in ("jepa_lightning", "modalities") for file in (ROOT / part).rglob("*.py"))
CODE = re.compile(r"```.*?```|`[^`]*`|^ *(?:>>>|\.\.\.).*?$", re.DOTALL | re.MULTILINE)


def docstrings(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def links(text):
    return re.findall(r"\S*\]\[\S*", CODE.sub("", text))


def test_what_is_a_link():
    assert links('samples, "PPI[0][12]".') == ['"PPI[0][12]".']
    assert not links("samples, `PPI[0][12]`.\n>>> a[0][1]\n```\nb[0][1]\n```")


def test_no_links_to_nowhere():
    found = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in FILES}
    there = {file: [link for part in docstrings(text) for link in links(part)] for file, text in found.items()}
    assert not {file: some for file, some in there.items() if some}
