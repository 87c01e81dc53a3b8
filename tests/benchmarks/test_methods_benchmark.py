"""`benchmarks.methods`: every method's configuration can be built, and a small run gives the table."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import methods
from benchmarks.hog import hog_features
from benchmarks.method_settings import RECIPES
from benchmarks.methods import Clock, rows_of, train_for
from benchmarks.supervised import Supervised
from jepa_lightning.cli.fit import fit
from jepa_lightning.targets import Online


@pytest.mark.long
@pytest.mark.parametrize("name", RECIPES["cpu"])
@pytest.mark.parametrize("machine", RECIPES)
def test_configurations_parse(machine, name, capsys):
    config, words = RECIPES[machine][name]
    with pytest.raises(SystemExit) as stop:
        fit(["--config", config, *words, "--print_config"])
    assert stop.value.code in (0, None)
    printed = capsys.readouterr().out
    for changed in ("RawTokens", "Online", "SIGReg", "VISReg", "Random"):
        assert (changed in printed) >= any(changed in word for word in words)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of two classes, each bright in a half of its own."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, count in (("train", 120), ("test", 20)):
        for number in range(count):
            path = folder / "cifar10_jpg" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 128, (32, 32, 3), dtype=np.uint8)
            pixels[:, 16 * (number % 2) :][:, :16] += 128
            Image.fromarray(pixels).save(path)
    return folder


@pytest.mark.long
def test_a_small_run(data, tmp_path, capsys):
    words = ["--data", str(data), "--out", str(tmp_path / "out"), "--json", str(tmp_path / "methods.json")]
    words += ["--minutes", "0.001", "--methods", "views_vicreg", "--split", "test", "--data.batch_size", "16"]
    (found,) = methods.main(words)
    assert found["steps"] >= 1
    assert found["samples"] == 16 * found["steps"]
    assert all(0 <= found[column] <= 1 for column in methods.COLUMNS)
    assert "views_vicreg" in capsys.readouterr().out
    assert methods.main(words) == [found]  # nothing was trained again
    assert json.loads((tmp_path / "methods.json").read_text())

    both = ["views_vicreg", "raw", "--split"]
    words[words.index("views_vicreg") : words.index("--split") + 1] = both
    trained, raw = methods.main(words)
    assert trained == found
    assert set(raw) & set(methods.COLUMNS) == {"trained knn", "trained logistic"}
    assert raw["trained knn"] == raw["trained logistic"] == 1.0  # each class is bright in a half of its own
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert (row[0], row.count("-")) == ("raw", len(methods.COLUMNS) - 2)  # no encoder, no quarters


def test_rows_are_means_over_seeds():
    same = {"method": "a", "steps": 3, "samples": 6, "cpu_seconds": 90.0, **dict.fromkeys(methods.COLUMNS, 0.5)}
    other = {**same, "trained knn": 0.7}
    (row,) = rows_of([same, other])
    assert row[:5] == ["a", "2", "1.5", "3", "6"]
    expected = dict.fromkeys(methods.COLUMNS, "0.500 ± 0.000") | {"trained knn": "0.600 ± 0.141"}
    assert row[5:] == list(expected.values())


SMALL = ["--model.modality.encoder.options", '{"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]}']


@pytest.mark.long
def test_labels_poolings_and_a_card(data, tmp_path, capsys, monkeypatch):
    """As on a GPU, whose part the CPU takes: settings, clock, numbers of labels, and the file's name."""
    monkeypatch.setattr(methods, "choose_device", lambda parser, name: torch.device("cpu"))
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    monkeypatch.setattr(methods.ClockedCardRun, "computes_on", "cpu")
    words = ["--data", str(data), "--out", str(tmp_path / "out"), "--json", str(tmp_path / "methods.json")]
    words += ["--minutes", "0.001", "--methods", "supervised", "--split", "test", "--device", "cuda"]
    words += ["--labels", "100", "120", "--poolings", "mean", "--data.batch_size", "16", "--data.num_workers", "0"]
    words += ["--trainer.accelerator", "cpu", "--model.pretext.classes", "2", *SMALL]
    (found,) = methods.main(words)
    assert len(waits) == 3 + 2 + (found["steps"] >= 20)  # begin and end of two runs, and after the warm-up
    assert found["seconds"] > 0
    assert "cpu_seconds" not in found
    scores = [f"{encoder} {probe} {count}" for count in (100, 120) for probe in ("logistic", "knn")
              for encoder in ("trained", "untrained")]  # fmt: skip
    assert all(0 <= found[score] <= 1 for score in scores)
    assert set(scores) == set(methods.columns([100, 120], ["mean"]))
    assert (tmp_path / "out" / "supervised_0_test_0.001_cuda_100-120_mean.json").is_file()
    assert any((tmp_path / "out" / "decoded").iterdir())
    assert "minutes" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--trainer.max_steps", "2"], ["--trainer.max_steps=2"], []])
def test_steps_that_are_given_are_trained_once(words, tmp_path):
    asked = []

    class Kind:
        device = "cpu"

        def __init__(self, given):
            asked.append(given)
            self.clock = SimpleNamespace(step=0.5)

    train_for("image.yaml", tmp_path, seed=0, minutes=1, words=words, kind=Kind)
    steps = [given[given.index("--trainer.max_steps") + 1] for given in asked]
    assert [given[len(given) - len(words) :] for given in asked] == [words] * len(asked)
    assert steps == (["1"] if words else ["11", "120"])  # the words come last


def test_more_labels_than_are_left_take_the_test_images(capsys):
    with pytest.raises(SystemExit):
        methods.main(["--labels", "50000", "--split", "val"])
    assert "none are held out, so use --split test" in capsys.readouterr().err


def test_fewer_labels_are_those_of_a_run_with_that_many(data):
    """Probing 60 and 100 labels together gives what each gives by itself."""
    root = data / "cifar10_jpg"
    how = {"device": "cpu", "val_fraction": 0.1}
    both = methods.score_fixed("raw", root, "test", labels=[60, 100], **how)
    for count in (60, 100):
        alone = methods.score_fixed("raw", root, "test", labels=[count], **how)
        assert alone
        assert alone.items() <= both.items()


def test_a_card_is_waited_for_twice(monkeypatch):
    """The mean time of the steps after the warm-up, between two waits."""
    now, waits = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(now[0]))
    clock = Clock("cuda")
    clock.on_train_start()
    for step in range(30):
        now[0] += 1.0 if step < clock.warm else 0.25
        clock.on_train_batch_end()
    now[0] += 0.5  # what the device had still to do
    clock.on_train_end()
    assert waits == [0.0, 20.0, 23.0]
    assert clock.step == pytest.approx(3.0 / 10)
    assert clock.seconds == pytest.approx(23.0)


def test_supervised_is_a_cross_entropy_of_averaged_tokens(make_jepa):
    jepa = make_jepa(pretext=Supervised(classes=3), target=Online)
    labels = torch.tensor([2, 0, -1, 1])
    batch = {"image": torch.rand(4, 3, 32, 32), "labels": {"kind": labels}}
    losses = jepa.losses(jepa.step(batch, torch.Generator()))
    encoded = jepa.encoder(jepa.tokenizer(batch)).detach().double()
    weight, bias = (p.detach().double() for p in jepa.pretext.classifier.parameters())
    expected = []
    for row, label in zip(encoded, labels.tolist(), strict=True):
        logits = [float(weight[c] @ row.mean(0) + bias[c]) for c in range(3)]
        if label >= 0:
            expected.append(np.log(np.exp(logits).sum()) - logits[label])
    assert set(losses) == {"classes"}
    assert float(losses["classes"].detach()) == pytest.approx(np.mean(expected), rel=1e-5)
    losses["classes"].backward()
    assert all(p.grad is not None for p in (*jepa.encoder.parameters(), *jepa.pretext.parameters()))
    with pytest.raises(ValueError, match="expected at least 2 classes, got 1"):
        Supervised(classes=1)
    for wrong, what in (({}, "got none"), ({"depth": torch.rand(4)}, r"got torch.float32 \(4,\)")):
        with pytest.raises(ValueError, match=what):
            jepa.step({**batch, "labels": wrong}, torch.Generator())


def test_hog_knows_directions():
    pytest.importorskip("skimage")
    images = torch.zeros(3, 3, 32, 32)
    images[0, :, :, 16:] = images[1, 1, 16:] = images[2, :, :, 16:] = 1.0  # an edge that stands, and one that lies
    images[2] *= 5.0
    found = hog_features(images, cell=8).unflatten(1, (3, 3, 2, 2, 9)).sum((1, 2, 3, 4))
    assert found.argmax(1).tolist() == [0, 4, 0]  # of 9 directions of gradients, from 0 to 180 degrees
    torch.testing.assert_close(found[0], found[2], rtol=1e-3, atol=1e-3)  # of any contrast
    assert (found[:2].amax(1) > 0.99 * found[:2].sum(1)).all()


def test_hog_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(ImportError, match=r"needs scikit-image.*pip install scikit-image"):
        hog_features(torch.zeros(1, 3, 32, 32), cell=8)
