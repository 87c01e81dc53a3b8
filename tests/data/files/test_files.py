"""Class folders of any kind of file, and CSV files."""

import csv
import io
import logging
import os

import numpy as np
import pytest

from jepa_lightning.data import DataError, find_files


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def find(root, **kwargs):
    return find_files(str(root), kind="video", extensions=(".mp4", ".avi"), **kwargs)


def table(folder, text, name="clips.csv"):
    touch(folder, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    (folder / name).write_text(text)
    return folder / name


def test_folders_of_another_kind(tmp_path):
    touch(tmp_path, "train/run/1.mp4", "train/jump/2.AVI", "train/jump/x.jpg", "validation/run/3.mp4")
    sets = find(tmp_path)
    assert list(sets) == ["train", "val"]
    assert sets["train"].classes == ["jump", "run"]
    assert [sets["train"].sample_id(i) for i in range(2)] == ["train/jump/2.AVI", "train/run/1.mp4"]
    assert sets["val"].labels_of(0) == {"label": 1}
    assert sets["val"].path(0) == str(tmp_path / "validation" / "run" / "3.mp4")
    (tmp_path / "none").mkdir()
    with pytest.raises(
        DataError, match=r"expected videos in .*, got an empty one: files that are read end in .mp4, .avi"
    ):
        find(tmp_path / "none")


def test_csv_with_splits_and_all_kinds_of_labels(tmp_path):
    file = table(
        tmp_path,
        "Path,split,action,count,speed\na.mp4,train,run,5,1.5\nb.mp4,valid,jump,9,2\n\n"
        'c.mp4,TEST,"run, fast",-1,0\nd.mp4,train,jump,5,3\n',
    )
    sets = find(file, labels=["action", "count", "speed"])
    train = sets["train"]
    assert [len(sets[split]) for split in ("train", "val", "test")] == [2, 1, 1]
    assert train.classes == ["jump", "run", "run, fast"]
    assert train.targets.tolist() == [1, 0]
    assert sets["val"].targets.tolist() == [0]
    assert train.class_names["count"] == ["5", "9"]
    assert [int(sets[split].labels["count"][0]) for split in sets] == [0, 1, -1]
    assert train.labels["speed"].dtype == np.float32
    assert train.labels_of(1) == {"action": 0, "count": 0, "speed": 3.0}
    assert train.path(0) == str(tmp_path / "a.mp4")
    assert train.sample_id(0) == "a.mp4"
    assert find(file, labels=["speed"])["train"].targets is None


def test_csv_beside_a_root_with_semicolons_and_a_byte_order_mark(tmp_path):
    touch(tmp_path / "media", "x/a.mp4")
    (tmp_path / "l.csv").write_text("\ufefffilename;class;label\nx/a.mp4;u;v\n", encoding="utf-8")
    files = find(tmp_path / "media", csv=str(tmp_path / "l.csv"))["train"]
    assert files.path(0) == str(tmp_path / "media" / "x" / "a.mp4")
    assert files.labels_of(0) == {"label": 0}
    assert files.classes == ["v"]


def test_other_columns_are_not_guessed_to_be_labels(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        files = find(table(tmp_path, "file,speed\na.mp4,1\n"))["train"]
    assert files.labels_of(0) == {}
    assert files.targets is None
    assert "set data.labels to use speed" in caplog.text


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ("", None, "got the empty file"),
        ("path,label\n", None, "expected videos in .*clips.csv, got no line below"),
        ("a.mp4 1\nb.mp4 2\n", None, "first line of column names with one of path, file, filename"),
        ("path,label\na.mp4,\n", None, "expected a value in line 2, column label, .*, got an empty cell"),
        ("path,label\n,1\n", None, "expected a value in line 2, column path"),
        ("path,label\na.mp4,1,2\n", None, "expected 2 cells in line 2 .*, got 3"),
        ("path;w\na.mp4;1.5\nb.mp4;2,5\n", ["w"], "expected one decimal sign in column w of .*, got 1.5 and 2,5"),
        ('path,w\na.mp4,"1,500"\nb.mp4,"12,250"\n', ["w"], "got 1,500, which may be a thousand or a decimal comma"),
        ("path,speed\na.mp4,1\n", ["sped"], r"label column 'sped' .*\(did you mean speed\?\)"),
        ("path,speed\na.mp4,nan\n", ["speed"], "expected a finite number in line 2, column speed"),
        (
            "path,speed\na.mp4,1e39\n",
            ["speed"],
            r"a finite number, at most 3.4e\+38, in line 2, column speed.*got 1e39",
        ),
        ('path,label\na.mp4,x\n\nb.mp4,"y\nc.mp4,z\n', None, "quotation marks in pairs .* one in line 4 that is never"),
        ("path,split\na.mp4,trian\n", None, r"line 2, column split, .* got 'trian' \(did you mean train\?\)"),
        ("path,split\na.mp4,test\n", None, "expected training rows in .*, got only test"),
        ("path,path\na.mp4,a.mp4\n", None, "got 'path' twice"),
        ("path\nz/a.mp4\n", None, "line 2 names .*z/a.mp4, where there is no file"),
    ],
)
def test_mistakes_in_a_csv(tmp_path, text, labels, message):
    with pytest.raises(DataError, match=message):
        find(table(tmp_path, text), labels=labels)


def test_mistakes_in_the_arguments(tmp_path):
    table(tmp_path, "path\na.mp4\n")
    with pytest.raises(DataError, match=r"no file .*clip.csv \(there is .*clips.csv\)"):
        find(tmp_path / "clip.csv")
    with pytest.raises(DataError, match="expected labels only beside a CSV file"):
        find(tmp_path, labels=["speed"])
    with pytest.raises(DataError, match="a CSV file, got neither"):
        find_files(None, kind="video", extensions=(".mp4",))


@pytest.mark.parametrize(
    ("cells", "values", "names"),
    [
        ("1_1 11 1_2 12", [2, 0, 3, 1], ["11", "12", "1_1", "1_2"]),
        ("01 1 11 1", [0, 1, 2, 1], ["01", "1", "11"]),
        ("+1 -1 +1 -1", [0, 1, 0, 1], ["+1", "-1"]),
        ("\u0661 1 2 2", [2, 0, 1, 1], ["1", "2", "\u0661"]),
        ("-1 1 -1 1", [0, 1, 0, 1], ["-1", "1"]),
        ("-1 0 0 -1", [0, 1, 1, 0], ["-1", "0"]),
        ("-1 0 1 2", [-1, 0, 1, 2], ["0", "1", "2"]),
        ("-2 -1 1 2", [0, 1, 2, 3], ["-2", "-1", "1", "2"]),
        ("-5 5 5 -5", [0, 1, 1, 0], ["-5", "5"]),
        ("10 9 10 1099511627776", [1, 0, 1, 2], ["9", "10", "1099511627776"]),
        ("99999999999999999999 1 1 1", [1, 0, 0, 0], ["1", "99999999999999999999"]),
        ("1 _ 3 NA", [0, -1, 1, -1], ["1", "3"]),
        ("cat _ dog NA", [1, -1, 2, 0], ["NA", "cat", "dog"]),
        ("1,5 2 -,25 1.234,5", [1.5, 2, -0.25, 1234.5], None),
        ("1.5 2 NaN _", [1.5, 2, np.nan, np.nan], None),
        ("1e3 .5 -2. 0", [1000, 0.5, -2, 0], None),
        ("1.5 2.5 1.0.0 1", [2, 3, 1, 0], ["1", "1.0.0", "1.5", "2.5"]),
    ],
)
def test_what_a_column_holds(tmp_path, cells, values, names):
    rows = "".join(
        f"{name}.mp4;{'' if cell == '_' else cell}\n" for name, cell in zip("abcd", cells.split(), strict=True)
    )
    found = find(table(tmp_path, f"path;label\n{rows}"))["train"]
    np.testing.assert_array_equal(found.labels["label"], np.array(values, found.labels["label"].dtype))
    assert found.labels["label"].dtype == (np.float32 if names is None else np.int64)
    assert found.classes == names


def test_doubts_about_a_column_are_said(tmp_path, caplog):
    find(table(tmp_path, "path,label\na.mp4,-1\nb.mp4,0\nc.mp4,1\nd.mp4,-1\n"))
    assert "column label: 2 of 4 rows have the label -1, which means none" in caplog.text
    find(table(tmp_path, "path,label\na.mp4,1.5\nb.mp4,2.5\nc.mp4,fast\nd.mp4,0.5\n"))
    assert "read as 4 classes, since 'fast' in line 4 is no number" in caplog.text
    find(table(tmp_path, "path,label\n" + "".join(f"a.mp4,{i}\n" for i in range(40))))
    assert "40 classes in 40 rows; write numbers with a point" in caplog.text
    find(table(tmp_path, "path,label\n" + "a.mp4,1.0\nb.mp4,0.0\nc.mp4,\n" * 4))
    assert "read as measured values, of which there are 2 (0, 1); write whole numbers (1, not 1.0)" in caplog.text
    caplog.clear()
    find(table(tmp_path, "path,label\n" + "a.mp4,1.5\nb.mp4,0.0\n" * 8))
    assert "measured values" not in caplog.text


def test_names_of_splits_in_another_column_are_said(tmp_path, caplog):
    rows = "".join(
        f"{name}.mp4,{split}\n" for name, split in zip("abc", ("Training", "PublicTest", "val"), strict=True)
    )
    assert len(find(table(tmp_path, "path,Usage\n" + rows))["train"]) == 3
    assert "although column Usage holds names of splits (PublicTest, Training, val): call it split" in caplog.text
    caplog.clear()
    find(table(tmp_path, "path,kind\na.mp4,train\nb.mp4,bus\n"))
    assert "names of splits" not in caplog.text


@pytest.mark.parametrize(
    ("text", "names", "doubt"),
    [
        (
            'path,label\na.mp4,"say \\"it\\""\nb.mp4,y\n',
            ['say \\it\\""', "y"],
            "one within a quoted cell of line 2 is not doubled",
        ),
        ('path\tlabel\na.mp4\t"x\nb.mp4\ty"\n', ['"x', 'y"'], "they enclose line breaks, but are read as characters"),
        ('path\tlabel\na.mp4\t"x\nb.mp4\t"y\n', ['"x', '"y'], ""),
    ],
)
def test_doubts_about_quotation_marks_are_said(tmp_path, caplog, text, names, doubt):
    assert find(table(tmp_path, text))["train"].classes == names
    assert ("quotation marks in doubt" in caplog.text) == bool(doubt)
    assert doubt in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_dialects(tmp_path, encoding, delimiter, end):
    path = "m\u00fcde.mp4"
    (tmp_path / path).touch()
    os.rename(
        tmp_path / path, os.fsencode(tmp_path) + b"/" + path.encode("latin-1" if encoding == "latin-1" else "utf-8")
    )
    lines = [["path", "label", "note"], [path, "x;y,z", 'say "it"'], [path, "b|c\td", "line\nbreak"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(lines)
    (tmp_path / "list.csv").write_bytes(text.getvalue().encode(encoding))
    found = find(tmp_path / "list.csv", labels=["label", "note"])["train"]
    assert found.class_names == {"label": ["b|c\\td", "x;y,z"], "note": ["line\\nbreak", 'say "it"']}
    assert os.path.isfile(found.path(0))


def test_a_comma_in_the_only_column(tmp_path):
    (tmp_path / "a,b.mp4").touch()
    (tmp_path / "list.csv").write_text("path\na,b.mp4\n")
    assert find(tmp_path / "list.csv")["train"].sample_id(0) == "a,b.mp4"
