"""Labels that are maps of an image's pixels: segmentation and depth."""

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score, r2_score
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex

import jepa_lightning
from jepa_lightning import Frozen
from jepa_lightning.evaluation.probes.bootstrap import Moments, resampled
from jepa_lightning.evaluation.probes.dense import moments_of
from jepa_lightning.finetuning import DenseHead, FineTuned
from modalities.image.transforms import CentreCrop, RandomCrop


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Images of which one half is bright, the left or the upper one, with a map of it: classes 2 and 5, or depth."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for split, number in (("train", 40), ("val", 10), ("test", 16)):
        bright = np.zeros((number, 32, 32), dtype=bool)
        for scene, left in zip(bright, np.arange(number) % 2, strict=True):
            scene[:, :16] |= left == 1
            scene[:16] |= left == 0
        pixels = rng.integers(0, 60, (number, 32, 32, 3)) + 150 * bright[..., None]
        classes = np.where(bright, 5, 2).astype(np.int64)
        classes[:, 0, 0] = -1  # nobody knows
        np.savez(
            folder / f"{split}.npz",
            images=pixels.astype(np.uint8),
            classes=classes,
            depth=bright * 3.0 + 1.0,
            side=bright[:, 0, 0],
        )
    return folder


def settings(scenes, label):
    data = {"root": str(scenes), "labels": [label], "batch_size": 8, "crop_scale": [0.5, 1.0], "flip": True}
    return {"data": data, "label": label, "head": "dense", "accelerator": "cpu", "learning_rate": [0.01]}


@pytest.mark.long
def test_segmentation(short_run, scenes, tmp_path):
    """All four methods; maps are cropped and mirrored as their images are, or nothing could be learned."""
    found = jepa_lightning.finetune(short_run("image")[0], out=tmp_path, epochs=6, **settings(scenes, "classes"))
    scores = {score.encoder: score for score in found.scores}
    assert list(scores) == ["fine-tuned", "frozen", "from scratch", "frozen, untrained"]
    assert {score.measure for score in found.scores} == {"mIoU"}
    assert {score.test for score in found.scores} == {16}
    assert scores["fine-tuned"].estimate.mean > 0.7
    assert scores["fine-tuned"].estimate.mean >= scores["frozen"].estimate.mean - 0.02  # with which it begins
    assert scores["frozen"].chance == pytest.approx(0.25, abs=0.01)
    model = jepa_lightning.load_finetuned(tmp_path)
    test = np.load(scenes / "test.npz")
    predicted = model.predict(list(test["images"]))
    assert predicted.shape == (16, 32, 32)
    known = test["classes"] >= 0
    expected = jaccard_score(test["classes"][known], predicted.numpy()[known], average="macro")
    assert scores["fine-tuned"].estimate.mean == pytest.approx(expected, abs=1e-6)
    assert model(test["images"][0]).shape == (2, 32, 32)


@pytest.mark.long
def test_depth(short_run, scenes, tmp_path):
    how = settings(scenes, "depth")
    found = jepa_lightning.finetune(short_run("image")[0], out=tmp_path, epochs=6, baselines=False, **how)
    assert [score.encoder for score in found.scores] == ["fine-tuned", "frozen"]
    model = jepa_lightning.load_finetuned(tmp_path)
    test = np.load(scenes / "test.npz")
    predicted = model.predict(list(test["images"])).numpy()
    expected = r2_score(test["depth"].ravel(), predicted.ravel())
    assert found.scores[0].estimate.mean == pytest.approx(expected, abs=1e-4)
    assert expected > 0.5


def test_labels_that_are_no_maps(short_run, scenes, tmp_path):
    how = settings(scenes, "side")
    with pytest.raises(ValueError, match=r"'side': the head dense expects a map \(H, W\) of the pixels .*, got \(\)"):
        jepa_lightning.finetune(short_run("image")[0], out=tmp_path, **how)
    how = {**settings(scenes, "classes"), "head": "linear"}
    with pytest.raises(ValueError, match="the head dense takes a map"):
        jepa_lightning.finetune(short_run("image")[0], out=tmp_path, **how)


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_scores_of_pixels(kind):
    """Against torchmetrics and scikit-learn, of all samples and of drawn ones; pixels without a label do not count."""
    generator = torch.Generator().manual_seed(0)
    shape = (12, 5, 6)
    if kind == "classes":
        goal = torch.randint(-1, 3, shape, generator=generator)
        outputs = F.one_hot(goal.clamp(min=0), 4).movedim(-1, 1) + torch.randn(12, 4, 5, 6, generator=generator)
        metric = MulticlassJaccardIndex(4, ignore_index=-1)  # the last class is nowhere, but predicted
        plain = lambda rows: float(metric(outputs[rows].argmax(1), goal[rows]))  # noqa: E731
    else:
        goal = torch.randn(12, 1, 5, 6, generator=generator, dtype=torch.float64) * 3 + 40
        outputs = goal + torch.randn(goal.shape, generator=generator, dtype=torch.float64)
        goal[torch.rand(goal.shape, generator=generator) < 0.2] = torch.nan
        known = goal.isfinite()
        plain = lambda rows: r2_score(goal[rows][known[rows]], outputs[rows][known[rows]])  # noqa: E731
    moments = Moments("mIoU" if kind == "classes" else "R2 of pixels", moments_of(outputs, goal).T.numpy(), train=1)
    assert moments.score == pytest.approx(plain(torch.arange(12)), abs=1e-6)
    drawn = torch.from_numpy(np.random.default_rng(3).integers(12, size=(20, 12)))
    assert resampled(moments, draws=20, seed=3) == pytest.approx([plain(rows) for rows in drawn], abs=1e-6)


def test_the_dense_head_is_a_convolution():
    head = DenseHead(8, 3)
    torch.nn.init.normal_(head.linear.bias)
    maps = torch.randn(2, 8, 4, 5)
    head.standardise(torch.randn(50, 8) * 3 + 1)
    scaled = (maps - head.mean.view(-1, 1, 1)) / head.scale.view(-1, 1, 1)
    found = F.conv2d(scaled, head.linear.weight[..., None, None], head.linear.bias)
    expected = F.interpolate(found, (16, 20), mode="bilinear")
    torch.testing.assert_close(head.pixels(maps, (16, 20)), expected)


def test_maps_of_another_size_than_the_images(make_jepa):
    model = FineTuned(Frozen(make_jepa()), label="mask", classes=[0, 1], head="dense")
    batch = {"image": torch.rand(2, 3, 32, 32), "labels": {"mask": torch.zeros(2, 16, 16, dtype=torch.long)}}
    with pytest.raises(ValueError, match=r"a map of each image's pixels, of \(32, 32\), got \(16, 16\)"):
        model.goal(batch)


def test_a_map_follows_its_image():
    """The map is the image's own red channel: so it is after crop and flip, but for what interpolation smooths."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 2, (1, 1, 5, 8), generator=generator).float()
    image = F.interpolate(coarse, (60, 96))[0].expand(3, -1, -1).contiguous()
    torch.manual_seed(1)
    for crop in (CentreCrop((32, 32), channels=3), *[RandomCrop((32, 32), channels=3, flip=True)] * 6):
        labels = {"map": image[0].long(), "other": torch.zeros(4, 4)}
        for given in (image, (image * 255).byte()):
            found = crop({"image": given.clone(), "labels": labels, "id": "one"})
            pixels = found["image"][0].float() / (1 if given.is_floating_point() else 255)
            assert found["labels"]["map"].shape == (32, 32)
            clear = (pixels - 0.5).abs() > 0.4
            assert clear.float().mean() > 0.6
            assert ((pixels > 0.5) == (found["labels"]["map"] == 1))[clear].float().mean() > 0.98
            assert found["labels"]["other"].shape == (4, 4)
            assert labels["map"].shape == (60, 96)
