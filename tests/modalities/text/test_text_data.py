"""Where texts come from: folders, tables, lines, datasets; what is cut, and what cannot be read."""

import io
import json
import tarfile

import pytest
import torch
from torch.utils.data import Dataset

from jepa_lightning.data import DataError
from modalities.text import TextData, TextViews
from modalities.text.reading import to_text
from modalities.text.transforms import Passage, passage

SMALL = {"batch_size": 4, "num_workers": 0, "characters": 200}


def texts_of(data, split="train"):
    part = data.part(split)
    return {part[i]["text"]: {k: int(v) for k, v in part[i]["labels"].items()} for i in range(len(part))}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def rows(count, sep=","):
    return "".join(f"{'pos' if i % 2 else 'neg'}{sep}text number {i}\n" for i in range(count))


def test_class_folders(tmp_path):
    for name in ("cats", "dogs"):
        for i in range(6):
            write(tmp_path / name / f"{i}.txt", f"about {name} {i}\nand more")
    data = TextData(root=str(tmp_path), val_fraction=0.25, **SMALL)
    assert data.classes == ["cats", "dogs"]
    found = texts_of(data)
    assert len(found) == 9
    assert all(label == {"label": int("dogs" in text)} for text, label in found.items())
    batch = next(iter(data.train_dataloader()))
    assert len(batch["text"]) == 4
    assert batch["labels"]["label"].shape == (4,)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_tables(tmp_path, suffix):
    entries = [{"label": "pos" if i % 2 else "neg", "text": f'a "quoted", text {i}', "stars": i / 2} for i in range(12)]
    if suffix == ".jsonl":
        content = "\n".join(map(json.dumps, entries)) + "\n\n"
    elif suffix == ".json":
        content = json.dumps(entries)
    else:
        sep = "," if suffix == ".csv" else "\t"
        cells = [[e["label"], '"{}"'.format(e["text"].replace('"', '""')), str(e["stars"])] for e in entries]
        content = "\n".join(sep.join(row) for row in [["label", "text", "stars"], *cells])
    file = write(tmp_path / f"reviews{suffix}", content)
    for given in ({"root": str(file)}, {"csv": str(file)}):
        data = TextData(**given, val_fraction=0.0, **SMALL)
        assert texts_of(data) == {e["text"]: {"label": i % 2} for i, e in enumerate(entries)}
        assert data.classes == ["neg", "pos"]
    data = TextData(csv=str(file), labels=["stars"], val_fraction=0.0, **SMALL)
    assert [float(data.part("train")[i]["labels"]["stars"]) for i in range(3)] == [0.0, 0.5, 1.0]
    assert data.part("train").sample_id(0).startswith(f"reviews{suffix}:")


def test_tables_without_a_header_and_with_quotation_marks(tmp_path):
    """As TREC and MR are: a tab, no header, and quotation marks that are letters as any other."""
    lines = ['1\t" never closed', "0\tplain", '1\tsaid "so" twice', '0\t"and closed here']
    file = write(tmp_path / "mr_train.tsv", "\n".join(lines))
    test = write(tmp_path / "mr_test.tsv", "1\tof the test\n")
    data = TextData(csv=str(file), test_csv=str(test), columns=["label", "text"], val_fraction=0.0, **SMALL)
    assert texts_of(data) == {line[2:]: {"label": int(line[0])} for line in lines}
    assert texts_of(data, "test") == {"of the test": {"label": 1}}


def test_a_folder_of_tables(tmp_path):
    for split, count in (("train", 8), ("dev", 4), ("test", 2)):
        write(tmp_path / f"{split}.csv", "label,text\n" + rows(count).replace("number", split))
    data = TextData(root=str(tmp_path), **SMALL)
    assert data.splits == ["train", "val", "test"]
    assert [len(data.part(split)) for split in data.splits] == [8, 4, 2]
    write(tmp_path / "train.tsv", "label\ttext\n")
    with pytest.raises(DataError, match="one table of the split train"):
        TextData(root=str(tmp_path), **SMALL).setup()


def test_a_column_that_says_the_split(tmp_path):
    file = write(tmp_path / "t.csv", "text,label,split\na,0,train\nb,1,train\nc,0,test\n")
    data = TextData(csv=str(file), val_fraction=0.0, **SMALL)
    assert list(texts_of(data, "test")) == ["c"]


def test_lines_and_unlabelled_texts(tmp_path):
    corpus = write(tmp_path / "corpus.txt", "one\n\ntwo\nthree\nfour\n")
    data = TextData(root=str(corpus), val_fraction=0.0, **SMALL)
    assert list(texts_of(data)) == ["one", "two", "three", "four"]
    assert not data.labelled
    assert data.part("train").sample_id(1) == "corpus.txt:3"
    table = write(tmp_path / "t.csv", "label,text\n" + rows(8))
    both = TextData(csv=str(table), unlabelled=[str(corpus)], val_fraction=0.25, **SMALL)
    found = texts_of(both)
    assert both.labelled
    assert len(found) == 12 - 3
    assert set(texts_of(both, "probe")) <= {f"text number {i}" for i in range(8)}
    batch = next(iter(both.train_dataloader()))
    known = torch.tensor(["number" in text for text in batch["text"]])
    assert torch.equal(batch["labels"]["label"] >= 0, known)


def test_hugging_face_and_shards(tmp_path):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("webdataset")
    from jepa_lightning.data import HuggingFace, HuggingFaceStream, Shards

    table = datasets.Dataset.from_dict({"review": [f"text {i}" for i in range(6)], "label": ["no", "yes"] * 3})
    (tmp_path / "tables").mkdir()
    table.to_parquet(str(tmp_path / "tables" / "train.parquet"))
    source = HuggingFace(str(tmp_path / "tables"), input="review")
    data = TextData(dataset=source, val_fraction=0.0, **SMALL)
    assert texts_of(data) == {f"text {i}": {"label": i % 2} for i in range(6)}
    stream = HuggingFaceStream(str(tmp_path / "tables"), input="review", classes=["no", "yes"])
    data = TextData(dataset=stream, epoch_samples=4, **SMALL)
    assert len(next(iter(data.train_dataloader()))["text"]) == 4
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(4):
            for name, content in ((f"{i}.txt", f"sh\u00e4rd {i}"), (f"{i}.cls", str(i % 2))):
                info = tarfile.TarInfo(name)
                info.size = len(content.encode())
                tar.addfile(info, io.BytesIO(content.encode()))
    data = TextData(dataset=Shards(str(tmp_path / "a.tar"), input="txt"), val_fraction=0.0, **SMALL)
    assert texts_of(data) == {f"sh\u00e4rd {i}": {"label": i % 2} for i in range(4)}


class Given(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize("item", ["a text", b"a text", ("a text",), {"text": "a text"}])
def test_any_dataset(item):
    data = TextData(dataset=Given([item] * 8), val_fraction=0.0, **SMALL)
    assert list(texts_of(data)) == ["a text"]
    data = TextData(dataset=Given([("a text", 3)] * 8), val_fraction=0.0, **SMALL)
    assert texts_of(data) == {"a text": {"label": 3}}


def test_no_texts():
    with pytest.raises(DataError, match="expected texts as strings from the dataset, got int"):
        TextData(dataset=Given([3] * 8), **SMALL).setup()


def test_what_cannot_be_read_is_counted_and_named(tmp_path, caplog):
    lines = "label,text\n" + rows(20) + "pos,\n"
    data = TextData(csv=str(write(tmp_path / "t.csv", lines)), val_fraction=0.0, max_unreadable=0.1, **SMALL)
    list(data.train_dataloader())
    assert data.unreadable == {"t.csv:22": "ValueError: the text is empty"}
    for i in range(3):
        write(tmp_path / "f" / "a" / f"{i}.txt", "ab")
    (tmp_path / "f" / "a" / "9.txt").write_bytes(b"\x89PNG\0\0")
    data = TextData(root=str(tmp_path / "f"), val_fraction=0.0, max_unreadable=0.5, **SMALL)
    list(data.train_dataloader())
    assert data.unreadable == {"a/9.txt": "ValueError: expected a text, got binary data"}


def test_long_lines(tmp_path):
    """A cell of a megabyte is read, and cut at a word; at the start where nothing is drawn."""
    long = "word " * 2**18
    file = write(tmp_path / "t.csv", "label,text\n" + f"0,{long}\n1,short\n" * 4)
    data = TextData(csv=str(file), val_fraction=0.5, **SMALL)
    for split in ("train", "val"):
        found = {len(data.part(split)[i]["text"]) for i in range(4)}
        assert found <= {5, 200}
    assert passage("one two three", 1, 5) == "one t"
    assert passage("one two three", 4, 5) == passage("one two three", 6, 5) == "two t"
    assert passage("a" * 300 + "b" * 300, 400, 50) == "b" * 50
    starts = {Passage(10, random=True)({"text": "ab cd ef gh ij kl mn"})["text"] for _ in range(30)}
    assert len(starts) > 2
    assert all(len(text) == 10 and text[:2].isalpha() for text in starts)
    assert Passage(10)({"text": "ab cd ef gh ij kl"})["text"] == "ab cd ef g"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("caf\u00e9".encode(), "caf\u00e9"),
        ("caf\u00e9".encode("utf-8-sig"), "caf\u00e9"),
        ("caf\u00e9".encode("utf-16"), "caf\u00e9"),
        ("caf\u00e9".encode("utf-32"), "caf\u00e9"),
        ("caf\u00e9".encode("latin-1"), "caf\u00e9"),
    ],
)
def test_encodings(data, expected):
    assert to_text(data) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": "nowhere.csv"}, "there is no file nowhere.csv"),
        ({"root": "nowhere.txt"}, "expected a file of one text a line, cannot read nowhere.txt"),
        ({"root": "nowhere"}, "there is no folder nowhere"),
        ({"text": "review"}, "expected text only for files"),
        ({"csv": "{csv}", "text": "reviw"}, "one of reviw, got label, review"),
        ({"csv": "{csv}", "columns": ["a", "text"], "text": "txt"}, "expected text to be one of columns"),
        ({"csv": "{csv}", "columns": ["a", "b", "text"]}, "expected 3 cells in line 1"),
        ({"root": "{folder}", "columns": ["a"]}, "expected columns only beside a table"),
        ({"csv": "{bad}"}, "expected a JSON object in line 2"),
        ({"csv": "{list}"}, r"got a list"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "folder" / "a" / "b.txt", "text")
    names = {
        "csv": write(tmp_path / "t.csv", "label,review\n0,good\n"),
        "bad": write(tmp_path / "bad.jsonl", '{"text": "a"}\n{"text"\n'),
        "list": write(tmp_path / "list.jsonl", '{"text": "a"}\n["b"]\n'),
        "folder": tmp_path / "folder",
    }
    given = {k: v.format(**names) if isinstance(v, str) else v for k, v in settings.items()}
    with pytest.raises(DataError, match=message):
        TextData(**given, **SMALL).setup()


def test_generated():
    first, again = (TextData(samples=32, seed=3, **SMALL) for _ in range(2))
    assert texts_of(first) == texts_of(again)
    assert first.label == "topic"
    assert len(first.classes) == 16
    labels = [first.part("train")[i]["labels"] for i in range(32)]
    assert {int(label["topic"]) for label in labels} == set(range(16))
    assert not set(texts_of(first)) & set(texts_of(first, "val"))


def test_views():
    data = TextData(samples=32, views=2, view_transform=TextViews(share=(0.4, 0.6), drop=0.3), **SMALL)
    batch = next(iter(data.train_dataloader()))
    assert len(batch["views"]) == 2
    words = [[text.split() for text in view["text"]] for view in batch["views"]]
    assert words[0] != words[1]
    assert all(words[0])
    view = TextViews(share=(1.0, 1.0), drop=0.0)
    view.cut = Passage(100)
    assert view({"text": "a b  c"})["text"] == "a b  c"
    for settings in ({"share": (0.0, 1.0)}, {"drop": 1.0}):
        with pytest.raises(DataError, match="expected"):
            TextViews(**settings)
