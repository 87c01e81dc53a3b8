"""The pictures that a run writes."""

import numpy as np
import pytest
import torch
from PIL import Image
from variants import TwoViews

from jepa_lightning.callbacks import Pictures
from jepa_lightning.callbacks.pictures import first
from jepa_lightning.modality import Modality
from jepa_lightning.pictures.files import GAP, STRIP, WIDE
from jepa_lightning.pictures.legend import WIDTH


def opened(path):
    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.mode == "RGB"
        return np.asarray(image)


def test_masks_and_features_are_written(make_trainer, make_jepa, make_data, tmp_path):
    trainer = make_trainer(Pictures(samples=3), max_epochs=2)
    trainer.fit(make_jepa(), datamodule=make_data())
    folder = tmp_path / "pictures"
    steps = [0, 6, 12]  # before training, and at each validation
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"features_{step:06d}.png" for step in steps),
        "masks.png",
    ]
    side, gap = 32 * 4, 4  # small images are enlarged
    rows = 3 * side + 2 * WIDE
    masks = opened(folder / "masks.png")
    assert masks.shape[1] == WIDTH  # image, context, two target blocks, and white
    assert (masks[:, 4 * side + 3 * gap :] == 255).all()
    assert 0 < (masks[rows:] < 255).mean() < 0.2  # the legend
    for step in steps:
        features = opened(folder / f"features_{step:06d}.png")
        assert features.shape[1] == WIDTH
        features = features[: 2 * rows : 2, : 2 * (2 * side + gap) : 2]  # enlarged to twice their size
        colours = {tuple(c) for c in features[:, side + gap :].reshape(-1, 3)}
        assert len(colours) > 8
    assert not np.array_equal(opened(folder / "features_000000.png"), opened(folder / "features_000012.png"))


def test_the_samples_and_masks_are_fixed(make_trainer, make_jepa, make_data, tmp_path):
    found = []
    for _ in range(2):
        make_trainer(Pictures(), max_steps=1, limit_val_batches=0).fit(make_jepa(), datamodule=make_data())
        found.append([opened(tmp_path / "pictures" / name) for name in ("masks.png", "features_000000.png")])
    for one, two in zip(*found, strict=True):
        assert np.array_equal(one, two)


def test_masks_show_each_patch_of_context_and_targets(make_trainer, make_jepa, make_data, tmp_path):
    jepa, data = make_jepa(), make_data()
    make_trainer(Pictures(samples=1), max_steps=1, limit_val_batches=0).fit(jepa, datamodule=data)
    picture = opened(tmp_path / "pictures" / "masks.png").astype(int)
    side, patch = 128, 32
    panels = [picture[:, i * (side + 4) : i * (side + 4) + side] for i in range(4)]
    shown = []
    for panel in panels[1:]:
        cells = set()
        for row in range(4):
            for column in range(4):
                box = slice(row * patch, (row + 1) * patch), slice(column * patch, (column + 1) * patch)
                if (panel[box] == 128).all():
                    continue
                assert np.array_equal(panel[box], panels[0][box])  # what is shown is the image
                cells.add((row, column))
        shown.append(cells)
    context, *targets = shown
    assert len(context) == 8
    assert [len(t) for t in targets] == [4, 4]
    assert not context & (targets[0] | targets[1])


NONE = {"switched off": ({"enabled": False}, {}), "no validation data": ({}, {"val_fraction": 0.0})}


@pytest.mark.parametrize(("settings", "data"), NONE.values(), ids=NONE.keys())
def test_no_pictures(make_trainer, make_jepa, make_data, tmp_path, settings, data):
    if data:
        data["dataset"] = torch.utils.data.TensorDataset(torch.rand(32, 3, 32, 32))
    make_trainer(Pictures(**settings), max_epochs=1).fit(make_jepa(), datamodule=make_data(**data))
    assert not (tmp_path / "pictures").exists()


def test_a_modality_that_draws_nothing(make_trainer, make_jepa, make_data, tmp_path):
    jepa = make_jepa()
    for name in ("draw_masks", "draw_features"):
        setattr(jepa.modality, name, getattr(Modality, name).__get__(jepa.modality))
    make_trainer(Pictures(), max_epochs=1).fit(jepa, datamodule=make_data())
    assert not (tmp_path / "pictures").exists()


def test_a_pretext_that_hides_nothing_has_no_picture_of_masks(make_trainer, make_jepa, make_data, tmp_path):
    make_trainer(Pictures(), max_epochs=1).fit(make_jepa(pretext=TwoViews()), datamodule=make_data())
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["features_000000.png", "features_000006.png"]


def test_loaders_without_a_data_module_have_no_pictures(make_trainer, make_jepa, make_data, tmp_path):
    data = make_data()
    data.setup()
    trainer = make_trainer(Pictures(), max_steps=1, limit_val_batches=0)
    trainer.fit(make_jepa(), train_dataloaders=data.train_dataloader())
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision(make_trainer, make_jepa, make_data, tmp_path, precision):
    make_trainer(Pictures(), max_epochs=1, precision=precision).fit(make_jepa(), datamodule=make_data())
    assert opened(tmp_path / "pictures" / "features_000006.png").std() > 1


def test_the_first_samples_of_a_batch():
    batch = {
        "image": torch.arange(5),
        "labels": {"shape": torch.arange(5), "boxes": [1, 2, 3, 4, 5]},
        "id": list("abcde"),
        "rate": 16000,
    }
    cut = first(batch, 2)
    assert cut["image"].tolist() == cut["labels"]["shape"].tolist() == [0, 1]
    assert cut["labels"]["boxes"] == [1, 2]
    assert cut["id"] == ["a", "b"]
    assert cut["rate"] == 16000
    assert len(batch["id"]) == 5


def test_moving_pictures_become_a_gif_and_a_strip(make_trainer, make_jepa, make_data, tmp_path):
    """Frames that say by their shade where they belong."""
    jepa = make_jepa()
    shades = torch.arange(15, dtype=torch.uint8) * 16
    frames = shades.view(-1, 1, 1, 1).expand(-1, 3, 10, 12)
    jepa.modality.draw_masks = lambda batch, masks: [frames, 255 - frames]
    make_trainer(Pictures(), max_steps=1, limit_val_batches=0).fit(jepa, datamodule=make_data())
    folder = tmp_path / "pictures"
    row = opened(folder / "masks.png")
    row = row[: 4 * (2 * 10 + WIDE) : 4, : 4 * (STRIP * 12 + (STRIP - 1) * GAP) : 4]  # enlarged
    found = [int(row[5, i * (12 + GAP) + 6, 0]) for i in range(STRIP)]
    assert found == [int(shades[2 * i]) for i in range(STRIP)]
    with Image.open(folder / "masks.gif") as gif:
        assert gif.n_frames == 15
        assert gif.size[0] == WIDTH
        for i in range(15):
            gif.seek(i)
            pixels = np.asarray(gif.convert("RGB")).astype(int)
            assert abs(pixels[5, 6] - int(shades[i])).max() <= 2
            assert abs(pixels[5, 12 + GAP + 6] - (255 - int(shades[i]))).max() <= 2
