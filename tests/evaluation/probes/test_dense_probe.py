"""The dense probe: patches and scores against plain loops and torchmetrics, known answers, reports, errors."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.functional.regression import r2_score

import jepa_lightning
from jepa_lightning.evaluation.evaluate_features import Encoded, Protocol, evaluate_features
from jepa_lightning.evaluation.features.pooled import Features
from jepa_lightning.evaluation.features.token_store import TokenFeatures
from jepa_lightning.evaluation.probes import dense
from jepa_lightning.evaluation.probes.dense import count_pixels, fit_dense, grid_of, patch_labels
from jepa_lightning.evaluation.probes.probing import run_probe
from jepa_lightning.evaluation.probes.protocols import Split
from jepa_lightning.evaluation.probes.tasks import make_task


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def class_maps(count, size=(8, 12), classes=3, seed=0):
    return torch.randint(-1, classes, (count, *size), generator=torch.Generator().manual_seed(seed))


def test_what_is_on_a_patch_against_plain_loops():
    maps = class_maps(5)
    maps[0, :4, :4] = -1  # nothing is known of this patch
    values = draw(5, 8, 12)
    values[draw(5, 8, 12, seed=1) > 1] = math.nan
    values[1, 4:, :4] = math.nan
    found, means = patch_labels(maps, (2, 3)), patch_labels(values, (2, 3))
    for n in range(5):
        for row in range(2):
            for column in range(3):
                pixels = maps[n, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten().tolist()
                counts = [pixels.count(number) for number in range(3)]
                expected = counts.index(max(counts)) if max(counts) else -1
                assert int(found[n, row, column]) == expected
                known = [v for v in values[n, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten().tolist()
                         if v == v]  # fmt: skip
                mean = float(means[n, row, column])
                assert mean == pytest.approx(sum(known) / len(known), abs=1e-6) if known else math.isnan(mean)
    assert int(found[0, 0, 0]) == -1
    assert math.isnan(float(means[1, 1, 0]))


def test_scores_are_those_of_torchmetrics():
    """Logits and values interpolated by hand, then mIoU over classes that are there, and R2 of all known pixels."""
    tokens, maps = draw(30, 6, 5), class_maps(30, size=(4, 6))
    split = Split(np.arange(20), np.arange(20, 30))
    outcome = run_probe("dense", draw(30, 2), maps.numpy(), split, tokens=TokenFeatures(tokens.half()))
    probe = fit_dense(tokens[:20].half(), maps[:20])
    scaled = (tokens[20:].half().float() - probe.mean) / probe.scale
    logits = (scaled @ probe.weight.T + probe.bias).transpose(1, 2).reshape(10, 3, 2, 3)
    said = F.interpolate(logits, (4, 6), mode="bilinear").argmax(1)
    each = multiclass_jaccard_index(said, maps[20:], num_classes=3, ignore_index=-1, average="none")
    assert outcome.measure == "mIoU"
    assert outcome.score == pytest.approx(float(each.mean()), abs=1e-6)
    assert (outcome.train, outcome.chosen) == (20, probe.chosen)

    depth = draw(30, 4, 6, seed=2) + 10
    depth[3, :2] = depth[25, 1:3] = math.nan
    outcome = run_probe("dense", draw(30, 2), depth.double().numpy(), split, tokens=TokenFeatures(tokens.half()))
    probe = fit_dense(tokens[:20].half(), depth[:20].double())
    scaled = (tokens[20:].half().float() - probe.mean) / probe.scale
    values = (scaled @ probe.weight.T + probe.bias).transpose(1, 2).reshape(10, 1, 2, 3)
    said = F.interpolate(values, (4, 6), mode="bilinear")[:, 0]
    known = depth[20:].isfinite()
    assert outcome.measure == "R2 of pixels"
    assert outcome.score == pytest.approx(float(r2_score(said[known], depth[20:][known])), abs=1e-4)


def test_known_answers():
    """Tokens that say what is on their patch, at the patches' own resolution; and tokens that say nothing."""
    maps = class_maps(60, size=(4, 4), classes=4, seed=3).clamp(min=0)
    maps[:, 0] = -1
    told = F.one_hot(maps.clamp(min=0), 4).flatten(1, 2).float() * (maps.flatten(1) >= 0)[..., None]
    probe = fit_dense(told[:40], maps[:40])
    counts = count_pixels(probe, told[40:], maps[40:])
    assert counts.shape == (20, 8)
    inside, union = counts.sum(0).chunk(2)
    assert torch.equal(inside, union)
    assert int(union.sum()) == 20 * 12  # the first rows do not count
    depth = draw(60, 4, 4)
    probe = fit_dense(depth.reshape(60, 16, 1)[:40], depth[:40])
    assert probe.chosen == dense.PENALTIES[-1]
    error, _, square, pixels = count_pixels(probe, depth.reshape(60, 16, 1)[40:], depth[40:]).sum(0).tolist()
    assert error < 1e-4 * square
    assert pixels == 20 * 16


def test_a_class_without_a_patch_counts_as_missed():
    maps = torch.zeros(12, 8, 8, dtype=torch.long)
    maps[:, :, 4:] = 1
    maps[9:, 0, 0] = 2  # a pixel that fills no patch, in the test part alone
    tokens = F.one_hot(maps[:, ::4, ::4], 3).flatten(1, 2).float()
    outcome = run_probe("dense", tokens.mean(1), maps.numpy(), Split(np.arange(9), np.arange(9, 12)),
                        tokens=TokenFeatures(tokens))  # fmt: skip
    assert outcome.moments.values.shape == (6, 3)
    inside, union = outcome.moments.values.sum(1).reshape(2, 3)
    assert (inside[2], union[2]) == (0, 3)


def test_few_tokens_of_many(monkeypatch):
    """At most so many are drawn, by the seed; the fit sees no other."""
    tokens, maps = draw(50, 4, 3), class_maps(50, size=(4, 4))
    monkeypatch.setattr(dense, "MOST", 60)
    first, again, other = (fit_dense(tokens, maps, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def parts(kind, told, count=48, seed=0):
    """Features of two parts with a label map, beside a class; tokens that know it, or not."""
    made = []
    for number, rows in enumerate((count, count // 2)):
        maps = class_maps(rows, size=(4, 4), seed=seed + number)
        values = draw(rows, 4, 4, seed=seed + number)
        values[maps < 0] = math.nan
        known = values.nan_to_num()[..., None] if kind == "depth" else F.one_hot(maps.clamp(min=0), 3).float()
        tokens = known.flatten(1, 2) if told else draw(rows, 16, 3, seed=9 + number)
        label = values if kind == "depth" else maps
        site = torch.arange(rows) % 3
        made.append((Features(tokens.mean(1), {kind: label, "site": site}), tokens))
    (train, known), (test, asked) = made
    return Encoded(train, test, tokens=TokenFeatures(torch.cat([known, asked]).half()))


PROTOCOLS = [
    Protocol(label_shares=(0.5,), label_draws=2),
    Protocol(kind="folds", folds=3),
    Protocol(kind="repeated", repeats=2),
    Protocol(kind="groups", group="site"),
]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.kind)
@pytest.mark.parametrize(("kind", "measure"), [("mask", "mIoU"), ("depth", "R2 of pixels")])
def test_reports(kind, measure, protocol):
    data = {"trained": parts(kind, True), "untrained": parts(kind, False)}
    report = evaluate_features(data, protocol=protocol, probes=("dense", "knn"), labels=(kind,))
    told, untold = (report.score(name, kind, "dense") for name in data)
    assert told.measure == measure
    assert told.estimate.mean > 0.99
    assert untold.estimate.mean < 0.5
    assert {score.probe for score in report.scores} == {"dense"}
    (difference,) = [d for d in report.differences if d.share == 1.0]
    assert difference.words.startswith("training helps: +")
    heading = f"3 classes of pixels, {measure}" if kind == "mask" else f"continuous, {measure}"
    assert f"{kind} ({heading};" in report.table()
    if kind == "mask" and protocol.kind == "split":  # the most frequent class everywhere: its share, by three classes
        truth, known = (part.labels["mask"].flatten() for part in (data["trained"].test, data["trained"].train))
        often = int(known[known >= 0].bincount().argmax())
        assert told.chance == pytest.approx(float((truth[truth >= 0] == often).double().mean()) / 3)


def test_maps_and_labels_of_samples_beside_each_other():
    data = {"trained": parts("mask", True)}
    report = evaluate_features(data, probes=("knn", "dense"), pairs=[])
    assert [(score.label, score.probe) for score in report.scores] == [("mask", "dense"), ("site", "knn")]
    report = evaluate_features(data, probes=("knn",), pairs=[])
    assert [score.label for score in report.scores] == ["site"]
    assert any("the probe dense takes a map of pixels (skipped)" in note for note in report.notes)
    broken = parts("mask", True)
    broken.tokens.values[0, 0, 0] = math.nan
    report = evaluate_features({"trained": broken}, probes=("dense",), pairs=[], labels=("mask",))
    assert math.isnan(report.scores[0].estimate.mean)


def test_maps_as_tasks():
    maps = torch.full((3, 2, 2), -1)
    maps[1], maps[2, 0] = 7, 4
    task = make_task("mask", maps, maps=True)
    assert (task.rows.tolist(), task.names, task.maps) == ([1, 2], ("4", "7"), True)
    assert task.values.tolist() == [[[1, 1], [1, 1]], [[0, 0], [-1, -1]]]
    assert task.strata.tolist() == [0, 0]
    for label in (torch.zeros(3, 2, 2, dtype=torch.long), torch.full((3, 2, 2), 2.0), torch.full((3, 2, 2), -1)):
        with pytest.raises(ValueError, match=r"expected pixels of at least 2 values, got (only|none)"):
            make_task("mask", label, maps=True)


def test_errors():
    for count, size in ((6, (4, 4)), (12, (8, 8)), (1, (4, 8))):
        with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} pixels, got {count} tokens"):
            grid_of(count, size)
    assert [grid_of(16, (8, 8)), grid_of(8, (16, 32)), grid_of(1, (8, 8))] == [(4, 4), (2, 4), (1, 1)]
    maps = class_maps(4, size=(4, 4))
    with pytest.raises(ValueError, match=r"expected tokens \(n, N, D\) and maps \(n, H, W\), got \(4, 4\)"):
        fit_dense(draw(4, 4), maps)
    with pytest.raises(ValueError, match="labels on at least 2 patches of the 4 training samples, got 0"):
        fit_dense(draw(4, 4, 3), torch.full_like(maps, -1))
    with pytest.raises(ValueError, match="expected finite tokens"):
        fit_dense(draw(4, 4, 3) * math.inf, maps)
    with pytest.raises(ValueError, match="expected token features for the probe dense, got none"):
        run_probe("dense", draw(4, 2), maps.numpy(), Split(np.arange(2), np.arange(2, 4)))
    padded = TokenFeatures(draw(4, 4, 3), torch.zeros(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="some that are padding"):
        run_probe("dense", draw(4, 2), maps.numpy(), Split(np.arange(2), np.arange(2, 4)), tokens=padded)


def test_a_run(short_run, tmp_path):
    """Images of which one half is bright, and maps of that: its tokens know, before training as well."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 40), ("test", 24)):
        bright = np.zeros((number, 32, 32), dtype=bool)
        bright[::2, :, :16] = bright[1::2, :16] = True
        pixels = rng.integers(0, 60, (number, 32, 32, 3)) + 150 * bright[..., None]
        arrays = {"images": pixels.astype(np.uint8), "half": bright.astype(np.int64), "depth": bright * 3.0 + 1.0}
        np.savez(tmp_path / f"{split}.npz", **arrays)
    run = short_run("image")[0]
    how = {"data": {"root": str(tmp_path)}, "device": "cpu", "out": tmp_path / "probe"}
    report = jepa_lightning.evaluate(run, probes=["dense"], **how)
    scores = {(score.label, score.encoder): score for score in report.scores}
    assert set(scores) == {(label, name) for label in ("half", "depth") for name in ("trained", "untrained")}
    assert all(score.estimate.mean > 0.8 for score in scores.values())
    assert any(note.startswith("raw: no dense probe, since it has no tokens") for note in report.notes)
    page = (tmp_path / "probe" / "report.html").read_text()
    assert "R2 of pixels" in page
    assert "2 classes of pixels, mIoU" in page
