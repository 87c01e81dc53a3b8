"""Random CSV dialects, against the cells that were written and plain rules for what they mean."""

import csv
import io
import math

import numpy as np
import pytest
from fuzz_helpers import bounded, folder, fuzz
from hypothesis import given
from hypothesis import strategies as st

from jepa_lightning.data import find_files

WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=8).map(
    str.strip
)
TEXTS = WORDS.filter(lambda text: text and not text[0].isdigit() and text[0] not in "+-.,'\"")
COLUMNS = {
    "text": TEXTS,
    "whole": st.integers(0, 30).map(str),
    "signed": st.sampled_from(["-1", "1"]),
    "point": st.floats(-1e6, 1e6, width=32).map(repr),
    "comma": st.floats(-1e6, 1e6, width=32).map(lambda value: f"{value:.4f}".replace(".", ",")),
}


def of_text(cells, kind):
    """What a column of that kind means: classes and their names, or numbers."""
    if kind in ("point", "comma"):
        return np.array([float(cell.replace(",", ".")) for cell in cells], np.float32), None
    names = sorted(set(cells), key=int if kind in ("whole", "signed") else None)
    return np.array([names.index(cell) for cell in cells]), names


@pytest.mark.long
@fuzz(40)
@given(st.data())
def test_any_dialect_gives_the_cells_that_were_written(data):
    kinds = data.draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=3))
    count = data.draw(st.integers(1, 8))
    cells = [data.draw(st.lists(COLUMNS[kind], min_size=count, max_size=count)) for kind in kinds]
    paths = [f"{i}.png" for i in range(count)]
    header = ["path", *(f"{kind}{i}" for i, kind in enumerate(kinds))]
    columns = [paths, *cells]
    order = data.draw(st.permutations(range(len(columns))))
    text = io.StringIO()
    csv.writer(
        text,
        delimiter=data.draw(st.sampled_from(",;\t|")),
        lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])),
        quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    ).writerows([[header[i] for i in order], *([columns[i][row] for i in order] for row in range(count))])
    written = text.getvalue() if data.draw(st.booleans()) else text.getvalue().rstrip()
    with folder() as root, bounded():
        for path in paths:
            (root / path).touch()
        encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
        (root / "list.csv").write_bytes(written.encode(encoding))
        found = find_files(str(root / "list.csv"), kind="image", extensions=(".png",), labels=header[1:])["train"]
        assert [found.relative(i) for i in range(count)] == paths
        for name, kind, column in zip(header[1:], kinds, cells, strict=True):
            values, names = of_text(column, kind)
            np.testing.assert_array_equal(found.labels[name], values)
            assert found.class_names.get(name) == names
            assert not any(math.isnan(value) for value in found.labels[name])
