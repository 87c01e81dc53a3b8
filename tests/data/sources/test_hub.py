"""Hugging Face datasets: folders, tables, saved sets and streams."""

from __future__ import annotations

import io
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from jepa_lightning.data import DataError, Encoded, HuggingFace, HuggingFaceStream, JEPADataModule
from modalities.audio import AudioData
from modalities.image import ImageData

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()
SIZES = {"image_size": 32, "channels": 3, "batch_size": 8, "num_workers": 0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = str(tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def png(shade):
    file = io.BytesIO()
    PILImage.new("RGB", (40, 36), (shade, 255 - shade, 60)).save(file, "png")
    return file.getvalue()


def tables(folder, *, files=4, each=16, broken=()):
    """Parquet files of images with a class and an age."""
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
            "age": datasets.Value("float32"),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file in range(files):
        numbers = range(file * each, (file + 1) * each)
        rows = {
            "picture": [{"bytes": b"junk" if i in broken else png(i), "path": f"{i}.png"} for i in numbers],
            "kind": [i % 2 for i in numbers],
            "age": [float(i) for i in numbers],
        }
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(folder / f"train-{file:05d}-of-{files:05d}.parquet")
    return str(folder)


def shade(record):
    return PILImage.open(record.input.open()).getpixel((0, 0))[0]


def test_a_folder_of_parquet_files(tmp_path):
    table = HuggingFace(tables(tmp_path / "photos", broken=(5,)))
    assert len(table) == 64
    assert table.targets.tolist() == [0, 1] * 32
    assert table.classes == ["cat", "dog"]
    assert isinstance(table[3].input, Encoded)
    assert shade(table[3]) == 3
    assert (table[3].labels, table[3].id) == ({"kind": 1}, "photos/train[3] (3.png)")
    data = ImageData(dataset=table, max_unreadable=0.1, **SIZES)
    batches = list(data.train_dataloader())
    assert batches[0]["image"].shape == (8, 3, 32, 32)
    assert data.classes == ["cat", "dog"]
    assert set(data.unreadable) <= {"photos/train[5]"}
    assert len(data.val_dataloader().dataset) == 6
    assert HuggingFace(str(tmp_path / "photos"), labels=["age", "kind"])[3].labels == {"age": 3.0, "kind": 1}
    assert len(HuggingFace(str(tmp_path / "photos"), split="train[:25%]")) == 16


def test_image_folder(tmp_path):
    for i in range(12):
        file = tmp_path / "photos" / ("dogs" if i % 2 else "cats") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(i))
    table = HuggingFace("imagefolder", data_dir=str(tmp_path / "photos"))
    assert table.classes == ["cats", "dogs"]
    assert sorted(map(shade, (table[i] for i in range(12)))) == list(range(12))
    assert table.targets.tolist() == [shade(table[i]) % 2 for i in range(12)]
    stream = HuggingFaceStream("imagefolder", data_dir=str(tmp_path / "photos"))
    assert sorted(map(shade, stream)) == list(range(12))


def test_saved_sets_and_texts_as_classes(tmp_path):
    numbers = {"vector": [[1.0, i] for i in range(6)], "species": ["elk", "bee", "elk", "ant", "bee", "elk"]}
    table = datasets.Dataset.from_dict(numbers)
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(tmp_path / "two")
    for path, split, count in (("one", "train", 6), ("two", "train", 6), ("two", "test", 1)):
        found = HuggingFace(str(tmp_path / path), split=split, labels=["species"])
        assert len(found) == count
        assert found[0].input.tolist() == [1.0, 0.0]
    found = HuggingFace(str(tmp_path / "one"), labels=["species"])
    assert found.classes == ["ant", "bee", "elk"]
    assert found.targets.tolist() == [2, 1, 2, 0, 1, 2]
    assert found[1].labels == {"species": 1}
    given = HuggingFace(str(tmp_path / "one"), labels=["species"], classes=["elk", "bee", "ant"])
    assert given.targets.tolist() == [0, 1, 0, 2, 1, 0]
    with pytest.raises(DataError, match=r"expected a split of .*two: train or test, or a part .*; got val"):
        HuggingFace(str(tmp_path / "two"), split="val")
    with pytest.raises(DataError, match="take HuggingFace"):
        HuggingFaceStream(str(tmp_path / "one"))


@pytest.mark.parametrize(
    ("folder", "split", "rows"),
    [
        ("one", "train", range(10)),
        ("one", "train[:50%]", range(5)),
        ("one", "train[50%:]", range(5, 10)),
        ("one", "train[2:4]+train[-1:]", [2, 3, 9]),
        ("named", "validation", range(10)),
        ("named", "train", range(10)),
        ("named", "validation[:3]", range(3)),
        ("two", "test[:1]", [7]),
        ("two", "train+test", range(10)),
        ("one", "test", None),
        ("one", "val[:50%]", None),
        ("named", "test", None),
        ("two", "train[:nonsense]", None),
        ("two", "val", None),
    ],
)
def test_parts_of_saved_sets(tmp_path, folder, split, rows):
    columns = {"vector": [[float(i), 0.0] for i in range(10)], "label": [i % 2 for i in range(10)]}
    table = datasets.Dataset.from_dict(columns)
    table.save_to_disk(tmp_path / "one")
    datasets.Dataset.from_dict(columns, split="validation").save_to_disk(tmp_path / "named")
    parts = {"train": table.select(range(7)), "test": table.select(range(7, 10))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "two")
    if rows is None:
        with pytest.raises(
            DataError, match=r"expected a split of .*: \w+( or \w+)?, or a part such as .*set dataset.split"
        ):
            HuggingFace(str(tmp_path / folder), split=split)
        return
    found = HuggingFace(str(tmp_path / folder), split=split)
    assert [int(found[i].input[0]) for i in range(len(found))] == list(rows)


def test_rows_without_a_label_keep_those_of_the_others(tmp_path):
    labels = {"label": [None, 1, 0, None], "age": [1.5, None, 2.5, 3.5], "word": ["x", None, "y", "x"]}
    features = {"label": datasets.ClassLabel(names=["p", "q"]), "age": datasets.Value("float32")}
    features |= {"word": datasets.Value("string"), "vector": datasets.Sequence(datasets.Value("float32"))}
    rows = {"vector": [[0.0]] * 4, **labels}
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).save_to_disk(tmp_path / "t")
    found = HuggingFace(str(tmp_path / "t"), labels=["label", "age"], input="vector")
    assert found.targets.tolist() == [-1, 1, 0, -1]
    assert [found[i].labels["label"] for i in range(4)] == [-1, 1, 0, -1]
    assert np.isnan(found[1].labels["age"])
    words = HuggingFace(str(tmp_path / "t"), labels=["word"], input="vector")
    assert (words.classes, words.targets.tolist()) == (["x", "y"], [0, -1, 1, 0])
    assert words[1].labels == {"word": -1}


def numbers(stream, part, parts, seed):
    return [shade(record) for record in stream.records(part, parts, seed=seed)]


@pytest.mark.parametrize("parts", [1, 2, 4, 6])
def test_a_stream_is_shared_out_by_files_or_by_rows(tmp_path, parts):
    stream = HuggingFaceStream(tables(tmp_path / "photos"), shuffle_buffer=5)
    assert stream.shards == 4
    assert stream.classes == ["cat", "dog"]
    assert [shade(record) for record in stream] == list(range(64))
    found = [numbers(stream, part, parts, 1) for part in range(parts)]
    assert sorted(n for part in found for n in part) == list(range(64))
    assert found == [numbers(stream, part, parts, 1) for part in range(parts)]
    assert found != [numbers(stream, part, parts, 2) for part in range(parts)]


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_training_on_a_stream(tmp_path, workers):
    path = tables(tmp_path / "photos", files=2, each=30, broken=(5,))
    sizes = {**SIZES, "num_workers": workers, "batch_size": 5, "max_unreadable": 0.1}
    data = ImageData(dataset=HuggingFaceStream(path), val_dataset=HuggingFace(path), epoch_samples=45, **sizes)
    batches = list(data.train_dataloader())
    assert len({name for batch in batches for name in batch["id"]}) == 45
    assert batches[0]["labels"]["kind"].shape == (5,)
    assert data.classes == ["cat", "dog"]
    assert data.probe_dataloader() is not None
    assert not {"photos/train[file 0, row 5] (5.png)"} & {name for batch in batches for name in batch["id"]}


def test_sounds(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    waves = []
    for i in range(20):
        file = io.BytesIO()
        soundfile.write(file, np.sin(np.arange(2000) * (0.1 + 0.01 * i)) * 0.5, 8000, format="WAV")
        waves.append({"bytes": file.getvalue(), "path": f"{i}.wav"})
    table = datasets.Dataset.from_dict({"audio": waves, "word": [i % 2 for i in range(20)]})
    table = table.cast_column("word", datasets.ClassLabel(names=["no", "yes"]))
    table = table.cast_column("audio", datasets.Audio(decode=False))  # which encoding would need torchcodec for
    table.to_parquet(tmp_path / "train.parquet")
    given = HuggingFace("parquet", data_files=str(tmp_path / "train.parquet"))
    shape = {"seconds": 0.125, "sample_rate": 8000, "batch_size": 4, "num_workers": 0}
    batch = next(iter(AudioData(dataset=given, **shape).train_dataloader()))
    assert batch["waveform"].shape == (4, 1000)
    assert torch.isfinite(batch["waveform"]).all()
    assert batch["labels"]["word"].shape == (4,)


def test_mistakes(tmp_path, monkeypatch):
    path = tables(tmp_path / "photos", files=1)
    with pytest.raises(DataError, match=r"expected a column kid, found picture, kind, age \(did you mean kind\?\)"):
        HuggingFace(path, labels=["kid"])
    with pytest.raises(DataError, match=r"expected a Hugging Face dataset .*photos with a split val: "):
        HuggingFace(path, split="val")
    with pytest.raises(DataError, match="expected a Hugging Face dataset no/such with a split train: "):
        HuggingFace("no/such")
    rows = {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(DataError, match=r"which column is the input, of a, b: set dataset\.input"):
        HuggingFace("parquet", data_files=str(tmp_path / "bare.parquet"))

    class Vectors(JEPADataModule):
        name = "vector"

        def load(self):
            return {"train": datasets.load_dataset("parquet", data_dir=path, split="train", streaming=True)}

        def transforms(self):
            return None, None

    with pytest.raises(DataError, match="expected HuggingFaceStream for a streamed Hugging Face dataset"):
        Vectors().setup()
    monkeypatch.setitem(sys.modules, "datasets", None)
    for kind in (HuggingFace, HuggingFaceStream):
        with pytest.raises(DataError, match=re.escape('pip install "jepa-lightning[hub]"')):
            kind(path)


def test_from_the_shell(tmp_path):
    from short_runs import fit_shortly

    path = tables(tmp_path / "photos")
    for kind in ("HuggingFace", "HuggingFaceStream"):
        words = ["--data.dataset", kind, "--data.dataset.path", path]
        run = fit_shortly("image", tmp_path / kind, *words, "--data.dataset.labels", "[kind]")
        assert run.trainer.global_step == 2
        assert run.datamodule.label == "kind"
