"""Random CSV files in any dialect have the values that pandas finds when it is told the dialect, or are refused."""

import csv
import io
import random
from collections import Counter

import numpy as np
import pytest
from fuzz_helpers import FACTOR, must_be_ours

from jepa_lightning.data import DataError, find_files
from jepa_lightning.names.printable import printable

pandas = pytest.importorskip("pandas")

TEXTS = ["a", "B", "cat", "x y", "a,b", "a;b", "a\tb", "a|b", "x,", "|y", ",", 'say "hi"', '"q"', '"', '5" disk',
         'a""b', "two\nlines", "win\r\nlines", "ü", "1a", "O'Neil", "#tag", "-", "N/A?", "é;à"]  # fmt: skip
NONE = ["", "NA", "NaN", "nan", "null", "None", "N/A", "n/a", "<NA>", "#N/A", "NULL", "-nan", "-NaN", "#NA", "1.#IND"]
KINDS = {  # of cells, each drawn by a generator
    "text": lambda draw: draw.choice(TEXTS),
    "text or none": lambda draw: draw.choice([*TEXTS, "", ""]),
    "whole": lambda draw: str(draw.randint(0, 12)),
    "whole or none": lambda draw: draw.choice([str(draw.randint(0, 12)), ""]),
    "signed": lambda draw: draw.choice(["-1", "1"]),
    "point": lambda draw: repr(draw.uniform(-1e4, 1e4)),
    "power": lambda draw: f"{draw.uniform(-1e4, 1e4):.3e}",
    "point or none": lambda draw: draw.choice([f"{draw.uniform(-9, 9):.2f}", draw.choice(NONE)]),
    "comma": lambda draw: f"{draw.uniform(-1e4, 1e4):.4f}".replace(".", ","),
    "true or false": lambda draw: draw.choice(["True", "False"]),
}


def check(seed, where):
    """Write the table of a seed, and read it by pandas and by us; whether we did."""
    draw = random.Random(seed)
    count = draw.randint(1, 8)
    kinds = draw.choices(list(KINDS), k=draw.randint(1, 3))
    columns = {"path": [draw.choice(["im/", "a b/", ""]) + f"{number}.png" for number in range(count)]}
    columns |= {f"{kind} {at}": [KINDS[kind](draw) for _ in range(count)] for at, kind in enumerate(kinds)}
    header = draw.sample(list(columns), len(columns))
    delimiter, encoding = draw.choice(",;\t|"), draw.choice(["utf-8", "utf-8-sig", "utf-16"])
    style = {
        "delimiter": delimiter,
        "lineterminator": draw.choice(["\n", "\r\n"]),
        "quoting": draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    }
    text = io.StringIO()
    csv.writer(text, **style).writerows([header, *zip(*(columns[name] for name in header), strict=True)])
    file = where / "list.csv"
    file.write_bytes(text.getvalue().encode(encoding))
    labels = [name for name in columns if name != "path"]
    try:
        found = find_files(str(file), kind="image", extensions=(".png",), labels=labels)["train"]
    except DataError as error:
        must_be_ours(error)
        return False
    assert [found.relative(number) for number in range(count)] == columns["path"]
    for name in labels:
        known = {"decimal": "," if name.startswith("comma") else ".", "encoding": encoding}
        if name.startswith("text"):  # of text, only an empty cell is none
            known |= {"dtype": str, "keep_default_na": False, "na_values": [""]}
        cells = pandas.read_csv(file, sep=delimiter, **known)[name]
        if name.startswith(("po", "comma")):
            assert name not in found.class_names
            np.testing.assert_array_equal(found.labels[name], cells.to_numpy(np.float32))
            continue
        plain = int if name.startswith(("whole", "signed")) else str
        expected = [None if pandas.isna(cell) else printable(str(plain(cell)).strip()) for cell in cells]
        names = [*found.class_names[name], None]
        assert [names[number] for number in found.labels[name]] == expected
    return True


def sweep(seeds, where):
    for name in ("im", "a b"):
        (where / name).mkdir()
    for place in ("im", "a b", "."):
        for number in range(8):
            (where / place / f"{number}.png").touch()
    return Counter(check(seed, where) for seed in seeds)


def test_values_are_those_of_pandas(tmp_path):
    found = sweep(range(120 * FACTOR), tmp_path)
    assert found[True] > 100


@pytest.mark.slow
def test_values_are_those_of_pandas_in_many_files(tmp_path):
    found = sweep(range(1000, 6000), tmp_path)
    assert found[True] > 4500
