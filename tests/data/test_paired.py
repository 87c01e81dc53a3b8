"""Paired data: tables, datasets, each modality's own source, and what is wrong with them."""

import csv
import logging
import tarfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch.utils.data import Dataset

from jepa_lightning import JEPA
from jepa_lightning.data import DataError, HuggingFace, JEPADataModule, PairedData, Shards
from jepa_lightning.encoders import ViT
from jepa_lightning.evaluation.retrieval import retrieval
from jepa_lightning.multimodal import Multimodal
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.pretexts import CrossModal
from modalities.audio import Audio as AudioModality
from modalities.audio import AudioData
from modalities.image import CaptionedImages, ImageData
from modalities.text import Text, TextData

SMALL = partial(ViT, width=16, depth=1, heads=2)
SHARED = {"batch_size": 2, "num_workers": 0}


def parts(**text):
    return {"image": ImageData(image_size=16, channels=3), "text": TextData(characters=100, **text)}


def table(folder, rows, name="pairs.csv"):
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([["path", "caption", "label", "split"], *rows])
    return str(folder / name)


def picture(folder, name, colour):
    folder.mkdir(exist_ok=True)
    Picture.new("RGB", (20, 16), (colour, 0, 0)).save(folder / name)


@pytest.fixture
def rows(tmp_path):
    found = []
    for i in range(12):
        picture(tmp_path / "data", f"{i}.png", 20 * i)
        split = "test" if i > 9 else "val" if i > 7 else "train"
        found.append([f"{i}.png", f"a picture of red {i}, naïve ☃", ["dark", "light"][i > 5], split])
    return found


def by_text(data, split):
    batches = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[split]()
    return {
        text: (batch["image"][row], int(batch["labels"]["label"][row]), batch["id"][row])
        for batch in batches
        for row, text in enumerate(batch["text"])
    }


def test_a_table_gives_each_image_its_caption(tmp_path, rows):
    data = PairedData(modalities=parts(), csv=table(tmp_path / "data", rows), **SHARED)
    for split, numbers in {"train": range(8), "val": (8, 9), "test": (10, 11)}.items():
        found = by_text(data, split)
        assert set(found) == {rows[i][1] for i in numbers}
        for i in numbers:
            image, label, name = found[rows[i][1]]
            red = image[0] * 0.229 + 0.485
            torch.testing.assert_close(red, torch.full_like(red, 20 * i / 255), atol=0.01, rtol=0)
            assert (label, name) == (int(i <= 5) ^ 1, f"{i}.png")
    assert data.classes == ["dark", "light"]


def test_paths_start_from_root(tmp_path, rows):
    data = PairedData(modalities=parts(), root=str(tmp_path / "data"), csv=table(tmp_path / "other", rows), **SHARED)
    assert len(by_text(data, "val")) == 2


def test_unreadable_images_and_empty_captions_are_named_and_replaced(tmp_path, rows, caplog):
    (tmp_path / "data" / "3.png").write_bytes(b"no picture")
    (tmp_path / "data" / "4.png").unlink()
    rows[5][1] = "  "
    settings = {**SHARED, "max_unreadable": 0.5}
    data = PairedData(modalities=parts(), csv=table(tmp_path / "data", rows), **settings)
    with caplog.at_level(logging.WARNING):
        found = by_text(data, "train")
    assert set(found) == {rows[i][1] for i in (0, 1, 2, 6, 7)}
    assert sorted(data.unreadable) == ["3.png", "4.png", "5.png"]
    assert "empty" in data.unreadable["5.png"] or "nothing" in data.unreadable["5.png"]


def test_errors_of_tables(tmp_path, rows):
    with pytest.raises(DataError, match="there is no file"):
        PairedData(modalities=parts(), csv=str(tmp_path / "none.csv"), **SHARED).setup()
    moved = table(tmp_path / "elsewhere", rows)
    with pytest.raises(DataError, match=r"names .*elsewhere/0.png, where there is no file"):
        PairedData(modalities=parts(), csv=moved, **SHARED).setup()
    alone = tmp_path / "data" / "alone.csv"
    alone.write_text("path,label\n0.png,1\n1.png,0\n")
    with pytest.raises(DataError, match="one of text, sentence"):
        PairedData(modalities=parts(), csv=str(alone), **SHARED).setup()


class Given(Dataset):
    """What a user's dataset may give."""

    def __init__(self, count=20):
        self.count, self.read = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        return {"image": np.full((16, 16, 3), index, np.uint8), "text": f"number {index}", "labels": {"odd": index % 2}}


def test_any_dataset_that_gives_both_is_read_once_a_sample():
    data = PairedData(modalities=parts(), dataset=Given(), val_dataset=Given(4), test_dataset=Given(6), **SHARED)
    assert [len(data.part(split)) for split in ("train", "val", "test")] == [20, 4, 6]
    dataset = data.val_dataset
    dataset.read.clear()
    [first, second] = list(data.val_dataloader())
    assert first["text"] + second["text"] == [f"number {i}" for i in range(4)]
    assert second["labels"]["odd"].tolist() == [0, 1]
    values = (first["image"][:, 0, 0, 0] * 0.229 + 0.485) * 255
    torch.testing.assert_close(values, torch.tensor([0.0, 1.0]), atol=1e-3, rtol=0)
    assert dataset.read == [0, 1, 2, 3]


class Half(Given):
    def __getitem__(self, index):
        return {"image": super().__getitem__(index)["image"]}


def test_a_dataset_without_captions_is_told_what_is_missing():
    with pytest.raises(DataError, match=r"expected samples of pairs as dicts with 'text', got \['image'\]"):
        PairedData(modalities=parts(), dataset=Half(), **SHARED).setup()


def test_own_sources_are_paired_in_order(tmp_path, rows):
    file = table(tmp_path / "data", rows)
    own = {"image": ImageData(image_size=16, channels=3, csv=file), "text": TextData(characters=100, csv=file)}
    assert set(by_text(PairedData(modalities=own, **SHARED), "val")) == {rows[8][1], rows[9][1]}
    short = table(tmp_path / "data", rows[:7] + rows[8:], "short.csv")
    own = {"image": ImageData(image_size=16, channels=3, csv=file), "text": TextData(characters=100, csv=short)}
    with pytest.raises(DataError, match="expected as many samples of text as of image"):
        PairedData(modalities=own, **SHARED).setup()
    with pytest.raises(DataError, match="one source of samples"):
        PairedData(modalities=own, csv=file, **SHARED)
    own["text"] = TextData(characters=100)
    with pytest.raises(DataError, match="one of image and none of text"):
        PairedData(modalities=own, **SHARED)


def test_shards_and_tables_of_the_hub_are_paired(tmp_path):
    """WebDataset: N.jpg and N.txt in a tar file; Hugging Face: a column of images and one of captions."""
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for i in range(12):
            picture(tmp_path, f"{i:02}.png", 20 * i)
            (tmp_path / f"{i:02}.txt").write_text(f"red {i}")
            for ending in ("png", "txt"):
                tar.add(tmp_path / f"{i:02}.{ending}", f"{i:02}.{ending}")
    shards = {kind: Shards(str(tmp_path / "0.tar"), input=kind) for kind in ("png", "txt")}
    of_shards = {
        "image": ImageData(image_size=16, channels=3, dataset=shards["png"]),
        "text": TextData(characters=100, dataset=shards["txt"]),
    }
    datasets = pytest.importorskip("datasets")
    columns = {"image": [str(tmp_path / f"{i:02}.png") for i in range(12)], "caption": [f"red {i}" for i in range(12)]}
    table = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    table.save_to_disk(str(tmp_path / "saved"))
    of_hub = {
        "image": ImageData(image_size=16, channels=3, dataset=HuggingFace(str(tmp_path / "saved"), input="image")),
        "text": TextData(characters=100, dataset=HuggingFace(str(tmp_path / "saved"), input="caption")),
    }
    for own in (of_shards, of_hub):
        data = PairedData(modalities=own, val_fraction=0.25, batch_size=3, num_workers=0)
        seen = {}
        for batch in (*data.train_dataloader(), *data.val_dataloader()):
            seen |= dict(zip(batch["text"], batch["image"], strict=True))
        assert set(seen) == {f"red {i}" for i in range(12)}
        for text, image in seen.items():
            red = (image[0] * 0.229 + 0.485) * 255
            torch.testing.assert_close(red, torch.full_like(red, 20.0 * int(text[4:])), atol=1.0, rtol=0)


class Spoken(Dataset):
    """Tones with the names of their digits."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        wave = torch.sin(torch.arange(1600) * (0.05 + 0.02 * index))
        return {"waveform": wave, "text": f"digit {index}"}


def test_audio_with_text_trains_as_any_pair():
    audio = AudioModality(sample_rate=1600, seconds=1.0, mels=16, patch_size=(8, 8), encoder=SMALL)
    both = Multimodal(modalities={"audio": audio, "text": Text(vocabulary=256, length=16, encoder=SMALL)})
    parts = {"audio": AudioData(), "text": TextData()}
    data = PairedData(modalities=parts, dataset=Spoken(), val_dataset=Spoken(), **SHARED).bind(both)
    batch = next(iter(data.train_dataloader()))
    predictor = partial(TransformerPredictor, width=16, depth=1, heads=2)
    jepa = JEPA(both, pretext=CrossModal(), predictor=predictor)
    losses = jepa.losses(jepa.step(batch, torch.Generator().manual_seed(0)))
    assert all(value.isfinite() for value in losses.values())
    found = retrieval(both.apart(jepa.embed(next(iter(data.val_dataloader())))), ks=[1])
    assert [(recall.query, recall.gallery) for recall in found] == [("audio", "text"), ("text", "audio")]


def test_arguments():
    with pytest.raises(DataError, match="at least two modalities"):
        PairedData(modalities={"image": ImageData()})
    with pytest.raises(DataError, match="a key each"):
        PairedData(modalities={"one": ImageData(), "other": ImageData()})
    with pytest.raises(DataError, match="got a root alone"):
        PairedData(modalities=parts(), root="here")
    other = type("Other", (JEPADataModule,), {"name": "x", "load": None, "transforms": None})()
    data = PairedData(modalities={"text": TextData(), "other": other}, samples=16)
    with pytest.raises(DataError, match="no pairs of text and other can be generated"):
        data.setup()


def test_batches_do_not_depend_on_workers_and_differ_by_epoch():
    def first(workers):
        data = PairedData(modalities=parts(), samples=32, batch_size=4, num_workers=workers)
        return next(iter(data.train_dataloader()))

    alone, helped = first(0), first(1)
    assert alone["text"] == helped["text"]
    assert torch.equal(alone["image"], helped["image"])


def test_captions_say_what_is_drawn():
    images = CaptionedImages(64, image_size=32, seed=3)
    sizes = set()
    for i in range(64):
        labels, text = images[i]["labels"], images[i]["text"]
        assert f"stripes at {images.classes[labels['stripes']]}" in text
        if " in the " in text:
            row = ("top", "middle", "bottom")[int(labels["position"][0] * 3)]
            column = ("left", "centre", "right")[int(labels["position"][1] * 3)]
            assert f"in the {row} {column}" in text
        sizes |= {
            word for word in ("large", "small") if word in text and (labels["size"] >= 0.275) == (word == "large")
        }
        assert ("large" in text) <= bool(labels["size"] >= 0.275)
    assert sizes == {"large", "small"}
    again = CaptionedImages(16, image_size=32, seed=3)
    assert [again[i]["text"] for i in range(16)] == [images[i]["text"] for i in range(16)]
    assert images.take(np.array([2, 5]))["text"] == [images[2]["text"], images[5]["text"]]
