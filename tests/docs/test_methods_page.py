"""The table of methods: each row says what its configuration builds; the page on faithfulness names what deviates."""

import re

import pytest
from pages import ROOT
from short_runs import Parsed
from test_examples import public

from jepa_lightning.config.plugins import load_plugins

PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
COLUMNS = ("pretext", "target", "predictor", "objective", "regularizers")
DEFAULTS = {"pretext": "Masked", "target": "EMA", "predictor": "TransformerPredictor", "objective": "SmoothL1"}


def rows():
    """Rows of the page's first table."""
    table = re.search(r"(?:^\|.*\n)+", PAGES["methods.md"], re.MULTILINE)
    assert table is not None
    head, _, *cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in table[0].splitlines()]
    return [dict(zip(head, row, strict=True)) for row in cells]


@pytest.fixture(scope="module")
def parse():
    load_plugins()
    cli = Parsed(["--config", "image.yaml"])

    def settings(words):
        cli.parse_arguments(cli.parser, words)
        return cli.config.model

    return settings


def built(part):
    """Short names of the classes of a part of a configuration."""
    parts = part if isinstance(part, list) else [part]
    return [each.class_path.rsplit(".", 1)[-1] for each in parts if each is not None]


@pytest.mark.long
@pytest.mark.parametrize("row", rows(), ids=lambda row: row["method"])
def test_a_row_is_what_its_configuration_builds(parse, row):
    model = parse(["--config", *row["start"].strip("`").split()])
    for column in COLUMNS:
        named = re.findall(r"`(\w+)`", row[column])
        found = built(model[column]) or [DEFAULTS[column]] if column != "regularizers" else built(model[column])
        if column == "predictor" and row["pretext"] == "`Views`":  # which builds none
            assert row[column] == "none"
            continue
        assert sorted(named) == sorted(found), column
        assert named or row[column] == "none"


def test_all_pretexts_and_targets_are_in_the_table():
    from jepa_lightning.pretexts import Pretext
    from jepa_lightning.targets import Target

    load_plugins()
    table = " ".join(" ".join(row.values()) for row in rows())
    for kind in public():
        if issubclass(kind, Pretext | Target) and kind.__name__ != "Pretrained":
            assert f"`{kind.__name__}`" in table


def test_a_row_says_where_its_method_was_measured_or_that_it_was_not():
    for row in rows():
        links = re.findall(r"\]\(([\w-]+\.md)", row["measured"])
        assert all(page in PAGES for page in links), row["measured"]
        assert links or "`benchmarks/README.md`" in row["measured"] or row["measured"] in ("not run", "not measured")


def test_what_deviates_is_on_the_page():
    load_plugins()
    page = PAGES["faithfulness.md"]
    missing = [
        kind.__name__ for kind in public() if "Deviation" in (kind.__doc__ or "") and f"`{kind.__name__}`" not in page
    ]
    assert not missing
