"""`jepa-embed`: every sample once, in order, whatever happens on the way."""

import errno
import json
import logging
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from no_room import no_room
from PIL import Image as PILImage
from processes import holding
from safetensors.numpy import load_file

from jepa_lightning import JEPA, Frozen, load
from jepa_lightning.cli.embed import embed
from jepa_lightning.cli.probe import probe
from jepa_lightning.cli.view import view
from jepa_lightning.data import DataError
from jepa_lightning.encoders import ViT
from jepa_lightning.evaluation.features.files import Parts, read_features
from jepa_lightning.evaluation.features.write import write_features
from jepa_lightning.maskers import Random
from jepa_lightning.predictors import TransformerPredictor
from modalities.image import Image, ImageData
from modalities.video import Video, VideoData


@pytest.fixture
def image_run(short_run):
    return short_run("image")[0]


@pytest.fixture
def frozen():
    """An untrained encoder of 16 px images."""
    torch.manual_seed(0)
    small = {"width": 16, "depth": 1, "heads": 2}
    modality = Image(image_size=16, patch_size=8, encoder=partial(ViT, **small), masker=Random(target_ratio=0.5))
    return Frozen(JEPA(modality, predictor=partial(TransformerPredictor, **small)))


def image_data(**settings):
    defaults = {"image_size": 16, "channels": 3, "batch_size": 4, "drop_last": False, "num_workers": 0}
    return ImageData(**{**defaults, **settings})


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as stop:
        embed(list(map(str, words)))
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message[message.index("jepa-embed: error:") :]


def test_features_labels_and_ids_of_a_run(image_run, tmp_path, capsys):
    out = tmp_path / "new" / "features.npz"
    embed(["--checkpoint", str(image_run), "--out", str(out), "--pooling", "mean+max", "--part", "20"])
    assert "54 samples, 32 features, labels: " in capsys.readouterr().out
    found = read_features(out)
    assert found["features"].dtype == np.float32
    encoder = load(image_run)
    data = encoder.data(drop_last=False)
    assert found["split"].tolist() == ["train"] * 48 + ["val"] * 6
    assert found["id"].tolist() == [f"train[{i}]" for i in range(48)] + [f"val[{i}]" for i in range(6)]
    batches = [*data.probe_dataloader(), *data.val_dataloader()]  # the former has all 48 here, not augmented
    expected = torch.cat([encoder.embed(batch, pooling="mean+max") for batch in batches])
    assert np.allclose(found["features"], expected, atol=1e-5)
    for name in batches[0]["labels"]:
        assert np.array_equal(found[f"labels.{name}"], torch.cat([batch["labels"][name] for batch in batches]))
    assert found["labels.position"].shape == (54, 2)
    assert [path.name for path in out.parent.iterdir()] == ["features.npz"]


def test_formats_hold_the_same(frozen, tmp_path):
    tables = {}
    for ending in ("npz", "safetensors"):
        write_features(frozen, image_data(samples=16), tmp_path / f"f.{ending}", part=8)
        tables[ending] = read_features(tmp_path / f"f.{ending}")
    with np.load(tmp_path / "f.npz", allow_pickle=False) as file:
        assert set(file.files) == set(tables["npz"])
    stored = load_file(tmp_path / "f.safetensors")
    assert bytes(stored["id"][3]).rstrip(b"\0") == b"train[3]"
    for name, values in tables["npz"].items():
        assert np.array_equal(values, tables["safetensors"][name]), name
    with pytest.raises(ValueError, match="read parquet with pandas"):
        read_features(tmp_path / "f.parquet")


def test_parquet(frozen, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_features(frozen, image_data(samples=16), tmp_path / "f.parquet", part=8)
    write_features(frozen, image_data(samples=16), tmp_path / "f.npz")
    table, expected = parquet.read_table(tmp_path / "f.parquet"), read_features(tmp_path / "f.npz")
    assert table.num_rows == 18
    for name in table.column_names:
        assert np.array_equal(np.array(table[name].to_pylist(), dtype=expected[name].dtype), expected[name]), name


def test_parquet_without_pyarrow(image_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jepa_lightning.evaluation.features.files.find_spec", lambda name: None)
    message = refused(capsys, "--checkpoint", image_run, "--out", tmp_path / "f.parquet")
    assert "pip install pyarrow" in message


class Killed(BaseException):
    pass


def dies_after(calls, monkeypatch):
    """Makes the encoder fail after some batches; counts the batches."""
    seen = []
    original = Frozen.embed

    def embed_or_die(self, batch, **settings):
        if len(seen) == calls:
            raise Killed
        seen.append(batch["id"])
        return original(self, batch, **settings)

    monkeypatch.setattr(Frozen, "embed", embed_or_die)
    return seen


def dies_on_joining(temporary, path, rename=os.rename):
    if path.name == "f.npz":
        raise Killed
    rename(temporary, path)


@pytest.mark.parametrize(("calls", "left"), [(0, 6), (2, 4), (3, 4), (5, 1), (None, 0)])
def test_goes_on_where_it_was_killed(frozen, tmp_path, monkeypatch, calls, left):
    run = partial(write_features, frozen, part=8)
    run(image_data(samples=18), tmp_path / "whole.npz")  # and 2 for validation; 6 batches of 4 in 4 parts
    with monkeypatch.context() as patch:
        dies_after(calls, patch)
        if calls is None:  # with all parts written, while they are joined
            patch.setattr("jepa_lightning.run.writing.os.replace", dies_on_joining)
        with pytest.raises(Killed):
            run(image_data(samples=18), tmp_path / "f.npz")
    assert not (tmp_path / "f.npz").exists()
    with monkeypatch.context() as patch:
        seen = dies_after(100, patch)
        run(image_data(samples=18), tmp_path / "f.npz")
    assert len(seen) == left
    whole, resumed = read_features(tmp_path / "whole.npz"), read_features(tmp_path / "f.npz")
    assert len(set(resumed["id"])) == 20
    for name, values in whole.items():
        assert np.array_equal(values, resumed[name]), name


def test_does_not_go_on_with_another_run(frozen, tmp_path, monkeypatch):
    out = tmp_path / "f.npz"
    with monkeypatch.context() as patch:
        dies_after(3, patch)
        with pytest.raises(Killed):
            write_features(frozen, image_data(samples=18), out, part=8)
    with pytest.raises(ValueError, match=r"f\.npz\.parts holds the beginning of a run with other pooling: remove"):
        write_features(frozen, image_data(samples=18), out, part=8, pooling="max")
    with pytest.raises(ValueError, match="with other batch_size, batches: remove"):
        write_features(frozen, image_data(samples=18, batch_size=2), out, part=8)
    with pytest.raises(ValueError, match="with other samples: remove"):
        write_features(frozen, image_data(samples=20), out, part=8)
    with pytest.raises(ValueError, match="with other checkpoint: remove"):
        write_features(frozen, image_data(samples=18), out, part=8, identity={"checkpoint": "another"})


@pytest.fixture
def folder(tmp_path):
    """40 images in two classes, of which one is broken."""
    for i in range(40):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PILImage.new("RGB", (20, 20), (6 * i, 90, 200 - 5 * i)).save(path)
    broken = tmp_path / "images" / "a" / "004.png"
    broken.write_bytes(broken.read_bytes()[:40])
    return tmp_path / "images"


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_samples_have_no_row(frozen, folder, tmp_path, caplog, workers):
    with caplog.at_level(logging.WARNING):
        data = image_data(root=str(folder), max_unreadable=0.05, num_workers=workers, cache=False)
        write_features(frozen, data, tmp_path / "f.npz", part=8)
    assert "004.png" in caplog.text
    found = read_features(tmp_path / "f.npz")
    names = [Path(name).name for name in found["id"]]
    assert sorted(names) == [f"{i:03d}.png" for i in range(40) if i != 4]
    assert len(np.unique(found["features"], axis=0)) == 39  # nothing stands in for it
    assert all(int(name[:3]) % 2 == label for name, label in zip(names, found["labels.label"], strict=True))


def test_a_whole_part_may_be_unreadable(frozen, folder, tmp_path):
    for path in sorted((folder / "a").iterdir())[:9]:
        path.write_bytes(b"")
    data = image_data(root=str(folder), max_unreadable=0.5, cache=False, val_fraction=0.0, batch_size=2)
    write_features(frozen, data, tmp_path / "f.safetensors", part=2)
    assert len(read_features(tmp_path / "f.safetensors")["id"]) == 31


def test_too_many_unreadable_samples_end_it(frozen, folder, tmp_path):
    for path in sorted((folder / "a").iterdir())[:5]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="max_unreadable"):
        write_features(frozen, image_data(root=str(folder), cache=False), tmp_path / "f.npz")


def test_splits(frozen, tmp_path):
    held_out = image_data(samples=16, val_fraction=0.25)
    write_features(frozen, held_out, tmp_path / "train.npz", split="train")
    assert set(read_features(tmp_path / "train.npz")["split"]) == {"train"}
    images = [(PILImage.new("RGB", (16, 16), (i, 0, 0)), i % 2) for i in range(20)]
    data = image_data(dataset=images, val_fraction=0.25, test_dataset=images[:3])
    write_features(frozen, data, tmp_path / "all.npz")
    found = read_features(tmp_path / "all.npz")
    assert found["split"].tolist() == ["train"] * 15 + ["val"] * 5 + ["test"] * 3
    assert sorted(found["id"][:20]) == sorted(f"train[{i}]" for i in range(20))
    with pytest.raises(DataError, match="a split test, but these data have only train, val"):
        write_features(frozen, held_out, tmp_path / "test.npz", split="test")
    with pytest.raises(DataError, match="a split val, but these data have only train"):
        write_features(frozen, image_data(dataset=images, val_fraction=0.0), tmp_path / "val.npz", split="val")


def test_labels_that_not_all_samples_have_are_filled(frozen, tmp_path):
    images = [{"image": PILImage.new("RGB", (16, 16)), "labels": {"a": i}} for i in range(12)]
    for i in (9, 10):
        images[i]["labels"] = {"b": 1.0}
    write_features(frozen, image_data(dataset=images, val_fraction=0.0), tmp_path / "f.npz", part=4)
    found = read_features(tmp_path / "f.npz")
    assert found["labels.a"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, -1, -1, 11]
    np.testing.assert_array_equal(found["labels.b"], np.array([*[np.nan] * 9, 1, 1, np.nan], np.float32))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_names_that_are_not_utf8_are_written_with_escapes(frozen, tmp_path, suffix):
    for name in "ab":
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(3):
            PILImage.new("RGB", (16, 16)).save(tmp_path / "d" / name / f"{i}.png")
    os.rename(tmp_path / "d" / "a" / "0.png", os.fsencode(tmp_path) + b"/d/a/caf\xe9.png")
    out = tmp_path / f"f{suffix}"
    write_features(frozen, image_data(root=str(tmp_path / "d"), val_fraction=0.0), out)
    if suffix == ".parquet":
        ids = pytest.importorskip("pyarrow.parquet").read_table(out)["id"].to_pylist()
    else:
        ids = read_features(out)["id"].tolist()
    assert r"d/a/caf\xe9.png" in ids
    assert len(ids) == 6


def test_labels_that_a_whole_part_lacks_are_filled(tmp_path):
    parts = Parts(tmp_path / "f.npz", {})
    for rows, more in ((2, {}), (3, {"labels.a": np.arange(3), "labels.b": np.ones((3, 2), np.float32)}), (1, {})):
        columns = {"features": np.zeros((rows, 4), np.float32), "id": np.array(["x"] * rows), **more}
        parts.append(columns | {"split": np.array(["val"] * rows)}, split="val", unreadable={})
    assert parts.join()["labels.b"] == (6, 2)
    found = read_features(tmp_path / "f.npz")
    assert found["labels.a"].tolist() == [-1, -1, 0, 1, 2, -1]
    assert np.isnan(found["labels.b"]).tolist() == [[True] * 2] * 2 + [[False] * 2] * 3 + [[True] * 2]


def test_texts_of_any_length_and_alphabet(tmp_path):
    parts = Parts(tmp_path / "f.safetensors", {})
    for ids in (["é", "long-ähnlich"], ["", "x" * 40]):
        columns = {"features": np.zeros((2, 3), np.float32), "id": np.array(ids), "split": np.array(["val"] * 2)}
        parts.append(columns, split="val", unreadable={})
    assert parts.join()["features"] == (4, 3)
    assert read_features(tmp_path / "f.safetensors")["id"].tolist() == ["é", "long-ähnlich", "", "x" * 40]


def test_clips_of_one_video_are_one_row(tmp_path):
    small = {"width": 16, "depth": 1, "heads": 2}
    sizes = {"frames": 4, "image_size": 16, "channels": 1}
    torch.manual_seed(0)
    modality = Video(**sizes, tubelet=2, patch_size=8, encoder=partial(ViT, **small), masker=Random(target_ratio=0.5))
    frozen = Frozen(JEPA(modality, predictor=partial(TransformerPredictor, **small)))
    videos = [np.random.default_rng(i).integers(0, 255, (12, 16, 16), dtype=np.uint8) for i in range(6)]
    settings = {**sizes, "batch_size": 3, "drop_last": False, "num_workers": 0, "val_fraction": 0.0}
    data = VideoData(dataset=[(video, i) for i, video in enumerate(videos)], eval_clips=2, **settings)
    write_features(frozen, data, tmp_path / "f.npz")
    found = read_features(tmp_path / "f.npz")
    assert found["id"].tolist() == [f"train[{i}]" for i in range(6)]
    assert found["labels.label"].tolist() == list(range(6))
    batch = next(iter(data.probe_dataloader()))
    assert np.allclose(found["features"][0], frozen.embed(batch)[:2].mean(0), atol=1e-5)


@pytest.mark.parametrize("name", ["graph", "audio", "pointcloud", "text"])
def test_other_modalities(name, short_run, tmp_path):
    out = tmp_path / "f.npz"
    embed(["--checkpoint", str(short_run(name)[0]), "--out", str(out), "--data.samples", "20", "--split", "train"])
    found = read_features(out)
    assert found["features"].shape == (20, 16)
    assert np.isfinite(found["features"]).all()
    assert len(np.unique(found["features"], axis=0)) == 20


def test_other_data(image_run, folder, tmp_path):
    words = ["--checkpoint", str(image_run), "--data.root", str(folder), "--data.max_unreadable", "0.1"]
    embed([*words, "--out", str(tmp_path / "f.npz"), "--data.batch_size", "7"])
    assert len(read_features(tmp_path / "f.npz")["id"]) == 39
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((image_run / "checkpoints" / "last.ckpt").read_bytes())
    words = ["--checkpoint", str(alone), "--data", "ImageData", "--data.root", str(folder)]
    embed([*words, "--data.max_unreadable=0.1", "--out", str(tmp_path / "g.npz")])
    assert np.array_equal(read_features(tmp_path / "f.npz")["id"], read_features(tmp_path / "g.npz")["id"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--out must be given"),
        (["--out", "f.csv"], "ends in .npz, .safetensors, .parquet"),
        (["--out", "f.npz", "--splitt", "val"], "no option --splitt; did you mean --split?"),
        (["--out", "f.npz", "--split", "tests"], "split: expected 'train', 'val', 'test', 'all', got tests"),
        (["--out", "f.npz", "--part", "0"], "expected part of at least 1 sample, got 0"),
        (["--out", "f.npz", "--part", "few"], "part: expected int, got few"),
        (["--out", "f.npz", "--part"], "expected a value after --part"),
        (["--out", "f.npz", "more"], "got 'more'"),
        (["--out", "f.npz", "--batch_size", "7"], "no option --batch_size; did you mean --data.batch_size?"),
        (["--out", "f.npz", "--data.rot", "x"], "no option 'rot'; did you mean root?"),
        (["--out", "f.npz", "--data.root", "no/such"], "no folder"),
        (["--out", "f.npz", "--split", "test"], "a split test, but these data have only train, val"),
        (["--out", "f.npz", "--data.dataset", "strange.Data"], "trust=['strange']"),
        (["--out", "f.npz", "--data", "LightningDataModule"], ""),
        (["--out", "f.npz", "--checkpoint", "nowhere"], "does not exist"),
    ],
)
def test_mistakes_end_in_a_short_message(image_run, tmp_path, capsys, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, "--checkpoint", image_run, *words)
    assert says in message
    assert len(message.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_no_config_and_no_data(image_run, tmp_path, capsys):
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((image_run / "checkpoints" / "last.ckpt").read_bytes())
    assert "--data ImageData --data.root DIR" in refused(capsys, "--checkpoint", alone, "--out", tmp_path / "f.npz")


def test_a_file_is_not_overwritten(image_run, tmp_path, capsys):
    out = tmp_path / "f.npz"
    out.write_bytes(b"mine")
    assert "f.npz exists" in refused(capsys, "--checkpoint", image_run, "--out", out)
    assert out.read_bytes() == b"mine"


def test_plan_is_json(frozen, tmp_path, monkeypatch):
    dies_after(0, monkeypatch)
    with pytest.raises(Killed):
        write_features(frozen, image_data(samples=16), tmp_path / "f.npz", identity={"data": {"dataset": object}})
    assert json.loads((tmp_path / "f.npz.parts" / "plan.json").read_text())["pooling"] == "mean"


# Files, locks, faults -------------------------------------------------------------------------------------------------


def test_one_process_writes_a_file(image_run, tmp_path, capsys):
    out = tmp_path / "features.npz"
    with holding(tmp_path / ".features.npz.lock") as other:
        message = refused(capsys, "--checkpoint", image_run, "--out", out)
    assert f"(process {other.pid} on " in message
    assert not out.exists()


@pytest.fixture
def repainted(tmp_path):
    """Images in a folder, and a function that makes a new set of the same names and sizes."""

    def paint(start=0):
        for number in range(24):
            path = tmp_path / "images" / "ab"[number % 2] / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            PILImage.new("RGB", (16, 16), (number + start, 0, 0)).save(path)
            os.utime(path, ns=(10**18 + start, 10**18 + start))

    paint()
    return tmp_path / "images", paint


def killed(monkeypatch, *words):
    """`jepa-embed` until its second part is written."""
    append = Parts.append

    def dying(self, *args, **kwargs):
        append(self, *args, **kwargs)
        if len(self.files) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "append", dying)
        with pytest.raises(SystemExit) as stop:
            embed(list(map(str, words)))
    return stop.value.code


def archive(folder, start):
    np.savez(folder / "train.npz", images=np.full((24, 16, 16, 3), start, np.uint8))
    os.utime(folder / "train.npz", ns=(10**18 + start, 10**18 + start))


@pytest.mark.parametrize("kind", ["files", "archive"])
def test_files_that_changed_meanwhile_are_noticed(image_run, repainted, tmp_path, monkeypatch, capsys, kind):
    root, paint = repainted
    if kind == "archive":
        shutil.rmtree(root)
        root.mkdir()

        def paint(start):
            archive(root, start)

        paint(0)
    words = ["--checkpoint", image_run, "--out", tmp_path / "f.npz", "--part", "4", "--data.batch_size", "4"]
    words += ["--data.root", root, "--data.val_fraction", "0", "--data.image_size", "32"]
    assert killed(monkeypatch, *words) == 130
    paint(1)
    message = refused(capsys, *words)
    assert "holds the beginning of a run with other " in message
    paint(0)
    embed(list(map(str, words)))
    assert read_features(tmp_path / "f.npz")["features"].shape[0] == 24
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "f."))] == ["f.npz"]


@pytest.mark.parametrize(
    ("at", "ending"),
    [
        ("part", ".npz"),
        *(("file", ending) for ending in (".npz", ".safetensors", ".parquet")),
    ],  # parts are all the same
)
def test_a_full_disk(image_run, tmp_path, capsys, monkeypatch, at, ending):
    words = ["--checkpoint", str(image_run), "--out", str(tmp_path / f"f{ending}"), "--data.samples", "64"]
    write = Parts.append if at == "part" else Parts.join

    def full(self, *args, **kwargs):
        with no_room(600):
            return write(self, *args, **kwargs)

    monkeypatch.setattr(Parts, write.__name__, full)
    with pytest.raises(SystemExit) as stop:
        embed(words)
    message = capsys.readouterr().err
    message = message[message.index("jepa-embed: ") :]
    assert stop.value.code == 1
    assert "no room left to write" in message
    assert str(tmp_path / f"f{ending}") in message
    assert "resumes from there" in message
    assert len(message.splitlines()) < 5
    assert not list(tmp_path.rglob("*.unfinished"))
    monkeypatch.undo()
    embed(words)


def test_a_folder_that_may_not_be_written_shows_before_the_work(image_run, tmp_path, capsys, monkeypatch):
    opened = os.open

    def refuse(path, *args, **kwargs):
        if str(path).endswith(".lock"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr("jepa_lightning.evaluation.runs.load", None)
    for command, words in ((embed, ["--out", "f.npz"]), (probe, ["--out", "p"]), (view, ["--out", "v"])):
        with pytest.raises(SystemExit) as stop:
            command(["--checkpoint", str(image_run), words[0], str(tmp_path / words[1])])
        assert stop.value.code == 1
        assert "Set --out to a folder that may be written" in capsys.readouterr().err
