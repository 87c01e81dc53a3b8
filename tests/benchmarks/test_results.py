"""`benchmarks.results`: intervals over seeds, and a table from small runs."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from short_runs import IMAGE, SHORT

from benchmarks import results
from benchmarks.results import ENTRIES, Entry, cells, combine, raw_tokens, split_shapes, summarise
from jepa_lightning import JEPA
from jepa_lightning.encoders import ViT
from modalities.audio import Audio


def test_the_interval_covers_seeds_and_test_samples():
    """Coverage over simulations: a true difference, noise of the test set that seeds share, noise of seeds."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        shared = rng.normal(0, 0.02)
        seeds = 0.05 + shared + rng.normal(0, 0.03, 3)
        mean, low, high = combine(seeds.tolist(), [(s - 1.96 * 0.02, s + 1.96 * 0.02) for s in seeds])
        assert mean == pytest.approx(seeds.mean())
        covered.append(low <= 0.05 <= high)
    assert 0.93 < np.mean(covered) <= 1.0


def test_a_single_seed_has_the_interval_of_its_test_samples():
    assert combine([0.1], [(0.05, 0.15)]) == pytest.approx((0.1, 0.05, 0.15), abs=1e-4)
    assert combine([0.0, 0.0], [(0.0, 0.0)] * 2) == (0, 0, 0)


def test_divisions_by_the_corrected_rule():
    values = [0.1, 0.2, 0.0, 0.3]
    mean, low, high = combine(values, [(0, 0)] * 4, ratio=0.25)
    half = student.ppf(0.975, 3) * np.std(values, ddof=1) * np.sqrt(1 / 4 + 0.25)
    assert (mean, low, high) == pytest.approx((0.15, 0.15 - half, 0.15 + half))


def row(difference, **more):
    scores = {"trained": 0.5 + difference, "untrained": 0.5}
    ends = {"low": difference - 0.02, "high": difference + 0.02}
    start = {"label": "digit", "probe": "knn", "note": "", "train": 100, "test": 50, "chance": 0.1}
    return {**start, "scores": scores, "difference": difference, **ends, **more}


@pytest.mark.parametrize(("difference", "words"), [(0.1, "helps"), (-0.1, "hurts"), (0.001, "inconclusive")])
def test_words(difference, words):
    runs = [{"rows": [row(difference)]}, {"rows": [row(difference + 0.001)]}]
    (found,) = summarise(Entry("Digits", "", ""), runs)
    assert found["words"] == words
    assert "raw" not in found
    shown = cells(found)
    assert shown[:3] == ["Digits", "digit", "kNN"]
    assert shown[5] == "-"


def test_shapes_are_divided_once(tmp_path):
    folder = tmp_path / "shapes_factors"
    folder.mkdir()
    factors = np.stack([np.zeros(50, dtype=np.int64), *np.random.default_rng(0).integers(0, 3, (5, 50))], axis=1)
    images = np.arange(50, dtype=np.uint8)[:, None, None] % 2 * np.ones((1, 4, 4), dtype=np.uint8)
    np.savez(
        folder / "shapes_ndarray_co1sh3sc6or8x16y16_64x64.npz",
        imgs=images, latents_classes=factors, latents_values=factors.astype(float),
    )  # fmt: skip
    made = split_shapes(tmp_path, tmp_path / "out")
    train, test = (dict(np.load(made / f"{split}.npz")) for split in ("train", "test"))
    assert (len(train["image"]), len(test["image"])) == (40, 10)
    assert train["image"].shape[1:] == (4, 4, 1)  # with channels, so that views are made of whole batches
    assert set(np.unique(train["image"])) == {0, 255}
    together = np.concatenate([train["position"], test["position"]])
    assert sorted(map(tuple, together)) == sorted(map(tuple, factors[:, 4:6].astype(float)))
    assert train["shape"].shape == (40,)


def test_every_entry_names_a_recipe_that_is_shipped():
    from jepa_lightning.config.shipped import find_config

    for entry in ENTRIES.values():
        assert find_config(f"{entry.recipe}.yaml")


def test_raw_tokens_in_segments_are_means_of_mel_bands():
    """Of a spectrogram whose patches hold two frames, against plain loops over its real patches."""
    audio = Audio(
        sample_rate=8000,
        seconds=0.2,
        mels=8,
        patch_size=(8, 2),
        mean=0.0,
        std=1.0,
        encoder=partial(ViT, width=8, depth=1, heads=1),
    )
    batch = {"waveform": torch.randn(2, 1600), "length": torch.tensor([1600, 600])}  # 20 and 8 frames of 80
    found = raw_tokens(JEPA(audio), "segments")(batch)
    mel = audio.tokenizer.spectrogram(batch)
    for sample, frames in ((0, [(0, 3), (2, 5), (5, 8), (7, 10)]), (1, [(0, 1), (1, 2), (2, 3), (3, 4)])):
        expected = [mel[sample, :, 2 * first : 2 * behind].mean(1) for first, behind in frames]
        torch.testing.assert_close(found[sample], torch.cat(expected))


def test_small_runs_make_a_table(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("test", 32)):
        level = rng.integers(0, 2, count)
        images = (rng.integers(0, 100, (count, 32, 32, 3)) + 150 * level[:, None, None, None]).astype(np.uint8)
        depth = rng.normal(size=count).astype(np.float32)
        np.savez(tmp_path / f"{split}.npz", image=images, level=level, depth=depth)
    at = SHORT.index("--data.samples")
    words = (*SHORT[:at], *SHORT[at + 2 :], *IMAGE, "--data.num_workers", "0")
    entry = Entry("Levels", "image", "", words=words, runs=(0, 1), probes=("knn", "ridge"))
    monkeypatch.setattr(results, "ENTRIES", {"levels": entry})
    arguments = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--json", str(tmp_path / "results.json")]
    found = results.main([*arguments, "--markdown"])
    rows = {(row["label"], row["probe"]): row for row in found["rows"]}
    assert set(rows) == {("level", "knn"), ("depth", "ridge")}
    assert rows["level", "knn"]["raw"] == 1.0
    assert rows["level", "knn"]["runs"] == 2
    assert 0 <= rows["level", "knn"]["untrained"] <= 1
    assert "| Levels | level | kNN |" in capsys.readouterr().out
    first = json.loads((tmp_path / "out" / "levels_0.json").read_text())
    assert first["seed"] == 0
    assert "raw" not in json.loads((tmp_path / "out" / "levels_1.json").read_text())["rows"][0]["scores"]
    assert results.main(arguments)["rows"] == found["rows"]  # nothing was trained again
