"""Nearest neighbours as pictures for a report."""

import io

import pytest
import torch
from PIL import Image as Picture

from jepa_lightning.data import DataError
from jepa_lightning.evaluation.features.extraction import Extracted, Splits
from jepa_lightning.evaluation.features.pooled import Features
from jepa_lightning.pictures.chosen import ChosenSamples
from jepa_lightning.pictures.report import SIZE, draw_neighbours, png
from modalities.image import Image, ImageData


@pytest.fixture
def splits():
    data = ImageData(samples=96, image_size=16, channels=3, batch_size=16, num_workers=0, drop_last=False)
    data.setup()
    return Splits(data, "all")


@pytest.fixture
def modality():
    return Image(image_size=16, patch_size=8)


def extracted(splits, left_out=()):
    """Features on a circle: the neighbours of a sample are those beside it."""
    ids = {
        name: [n for n in map(part.sample_id, part.indices.tolist()) if n not in left_out]
        for name, part in splits.samples.items()
    }
    features = {}
    for name, names in ids.items():
        angle = torch.arange(len(names)).square() * 0.01
        features[name] = Features(torch.stack([angle.cos(), angle.sin()], 1), {})
    return Extracted(features, ids)


def drawn(data, split, modality, name):
    samples = ChosenSamples(data, split)
    return png(modality.draw_samples(samples.read(samples.find([name])))[0])


def test_samples_are_those_of_the_features(splits, modality):
    """Also where one before them could not be read, so that rows are not positions."""
    split = list(splits.samples)[-1]
    part = splits.samples[split]
    bad = part.sample_id(int(part.indices[1]))
    splits.records[split].reasons[bad] = "broken"
    notes = []
    of = extracted(splits, left_out=[bad])
    found = draw_neighbours(splits, {"trained": of, "raw": of}, modality, notes)
    assert notes == []
    first = sum(len(names) for name, names in of.ids.items() if name != split)
    count = len(of.ids[split])
    assert count == len(part) - 1
    assert found.rows[0] == first
    assert found.rows[-1] == first + count - 1
    assert found.nearest["trained"][0].tolist() == [first + 1, first + 2, first + 3, first + 4, first + 5]
    assert (found.similarities["raw"][:, :-1] >= found.similarities["raw"][:, 1:]).all()
    for row in (first, first + 1, int(found.rows[-1])):
        assert found.pictures[row] == drawn(splits.data, split, modality, of.ids[split][row - first])
    assert found.pictures[first] != found.pictures[first + 1]


def test_what_cannot_be_drawn_is_told(splits, modality, monkeypatch):
    of = extracted(splits)
    notes = []
    splits.records[list(splits.samples)[-1]].reasons[of.ids["val"][0]] = "broken"  # and yet it has features
    assert draw_neighbours(splits, {"trained": of}, modality, notes) is None
    splits.records[list(splits.samples)[-1]].reasons.clear()
    monkeypatch.setattr(modality, "draw_samples", lambda batch: None)
    assert draw_neighbours(splits, {"trained": of}, modality, notes) is None

    def unreadable(self, positions):
        raise DataError("gone")

    monkeypatch.setattr(ChosenSamples, "read", unreadable)
    assert draw_neighbours(splits, {"trained": of}, modality, notes) is None
    assert [note.split(" since ")[1] for note in notes] == [
        *("several samples of the split val share a name", "the modality image draws no samples", "gone")
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 300, 200), (5, 3, 300, 200)])
def test_pictures_are_small(shape):
    picture = torch.randint(0, 256, shape, dtype=torch.uint8)
    image = Picture.open(io.BytesIO(png(picture)))
    assert image.size == (64, SIZE)
    tiny = torch.randint(0, 256, (3, 8, 9), dtype=torch.uint8)
    assert Picture.open(io.BytesIO(png(tiny))).size == (9, 8)
