"""`jepa_lightning.finetune` from a run to a table and a model, and its command."""

import json
import shutil

import numpy as np
import pytest

import jepa_lightning
from jepa_lightning.cli.finetune import finetune as command

QUICK = {"accelerator": "cpu", "epochs": 1}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images whose colour is their class, with training, validation and test part."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, number in (("train", 48), ("val", 24), ("test", 30)):
        label = np.arange(number) % 3
        pixels = rng.integers(0, 60, (number, 32, 32, 3))
        pixels[np.arange(number), :, :, label] += 120
        np.savez(
            folder / f"{split}.npz", images=pixels.astype(np.uint8), label=label, size=label + 0.1 * rng.random(number)
        )
    return folder


@pytest.fixture(scope="module")
def report(short_run, images, tmp_path_factory):
    """A run fine-tuned on half of the labels and on all, two draws each."""
    out = tmp_path_factory.mktemp("finetune")
    data = {"root": str(images), "labels": ["label"], "batch_size": 16}
    found = jepa_lightning.finetune(
        short_run("image")[0], data=data, out=out, label_shares=[0.5, 1.0], draws=2, learning_rate=[1e-4, 1e-2], **QUICK
    )
    return found, out


@pytest.mark.long
def test_all_methods_see_the_same_labels(report):
    found, out = report
    rows = {(score.share, score.encoder): score for score in found.scores}
    names = {"fine-tuned", "frozen", "from scratch", "frozen, untrained"}
    assert rows.keys() == {(share, name) for share in (0.5, 1.0) for name in names}
    for (share, _), score in rows.items():
        assert score.train == 48 * share
        assert score.test == 30
        assert len(score.values) == 2
        assert score.measure == "accuracy"
    assert rows[0.5, "frozen"].estimate.mean > 0.9  # the colour is there in any network's features
    assert rows[0.5, "fine-tuned"].estimate.mean > 0.9  # which begins as the probe, and would go back to it
    assert {(d.share, d.baseline) for d in found.differences} == {
        (s, n) for s in (0.5, 1.0) for n in names - {"fine-tuned"}
    }
    assert "chosen on 24 validation samples, scored once on test" in found.table()
    assert "fine-tuned - from scratch" in found.table()
    test = found.scores[0].test
    assert all(0 < score.chance < 1 and (score.chance * test).is_integer() for score in found.scores)
    stored = json.loads((out / "finetune.json").read_text())
    assert stored["settings"]["learning_rates"]["fine-tuned"] == [1e-4, 1e-2]
    assert stored["fits"]["fine-tuned, 0.5, draw 1"]["test"] == rows[0.5, "fine-tuned"].values[1]
    assert (out / "finetune.txt").read_text() == found.table() + "\n"


@pytest.mark.long
def test_the_model_predicts(report, images):
    _, out = report
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == [
        "finetune.json",
        "finetune.txt",
        "model",
        "moments.npz",
    ]
    model = jepa_lightning.load_finetuned(out)
    test = np.load(images / "test.npz")
    found = model.predict(list(test["images"]))
    assert np.mean([int(name) for name in found] == test["label"]) > 0.9


def test_values_and_a_split_alone(short_run, images, tmp_path):
    """Values are scored by R2; without a test split the last epoch's model is scored on the validation split."""
    for split in ("train", "val"):
        (tmp_path / f"{split}.npz").write_bytes((images / f"{split}.npz").read_bytes())
    data = {"root": str(tmp_path), "labels": ["size"], "batch_size": 16}
    settings = {"data": data, "out": tmp_path / "out", "head": "attentive", "unfreeze": 1, "baselines": False, **QUICK}
    found = jepa_lightning.finetune(short_run("image")[0], **settings)
    assert [score.encoder for score in found.scores] == ["fine-tuned", "frozen"]
    assert found.scores[0].measure == "R2"
    assert found.scores[1].estimate.mean > 0.5
    assert found.notes == ["no split to choose the epoch on: that of the last epoch is scored, on val"]
    with pytest.raises(ValueError, match="give one learning rate"):
        jepa_lightning.finetune(short_run("image")[0], **{**settings, "learning_rate": [1e-3, 1e-2]})


@pytest.mark.long
def test_a_stopped_call_resumes(short_run, images, tmp_path, monkeypatch):
    data = {"root": str(images), "labels": ["label"], "batch_size": 16}
    settings = {"data": data, "out": tmp_path, "baselines": False, "draws": 2, **QUICK}
    calls = []

    def stop(line):
        calls.append(line)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("jepa_lightning.finetuning.study._say", stop)
    with pytest.raises(KeyboardInterrupt):
        jepa_lightning.finetune(short_run("image")[0], **settings)
    first = tmp_path / "fits" / "fine-tuned-1-0-0.001" / "fit.json"
    made = first.stat().st_mtime_ns
    with pytest.raises(ValueError, match=r"expected the settings of .* to resume, got others"):
        jepa_lightning.finetune(short_run("image")[0], **{**settings, "epochs": 2}, resume=True)
    monkeypatch.setattr("jepa_lightning.finetuning.study._say", lambda line: calls.append(first.stat().st_mtime_ns))
    jepa_lightning.finetune(short_run("image")[0], **settings, resume=True)
    assert calls[1:] == [made, made]


@pytest.mark.long
def test_several_runs(short_run, images, tmp_path, monkeypatch):
    """Their table has intervals over the runs as well; those that are complete are read when the call is resumed."""
    runs = [tmp_path / name for name in "ab"]
    for run in runs:
        shutil.copytree(short_run("image")[0], run)
    data = {"root": str(images), "labels": ["label"], "batch_size": 16}
    settings = {"data": data, "label_shares": [0.1, 0.2], "epochs": [2, 1], "draws": 2, "accelerator": "cpu"}
    alone = [jepa_lightning.finetune(run, seed=2 * number, **settings) for number, run in enumerate(runs)]
    assert alone[0].fits["fine-tuned, 0.1, draw 0"]["steps"] == 2  # 5 labels, two epochs
    monkeypatch.setattr("jepa_lightning.finetuning.study.fit", None)  # nothing is fitted again
    found = jepa_lightning.finetune(runs, resume=True, out=tmp_path / "both", **settings)
    assert (tmp_path / "both" / "finetune.txt").read_text() == found.table() + "\n"
    assert found.scores[0].over == "test samples and 2 runs and 2 draws of each"
    for place, score in enumerate(found.scores):
        first, second = (report.scores[place] for report in alone)
        assert score.values == pytest.approx([np.mean(first.values), np.mean(second.values)])
        assert score.estimate.mean == pytest.approx(np.mean(score.values))
        assert (score.estimate.count, score.train, score.test) == (2, first.train, 30)
    assert len(found.differences) == len(alone[0].differences)
    with pytest.raises(ValueError, match="runs that are not the same"):
        jepa_lightning.finetune([runs[0], runs[0]], **settings)
    with pytest.raises(ValueError, match="epochs as one number or one for each of 2 label_shares"):
        jepa_lightning.finetune(runs, **{**settings, "epochs": [1, 2, 3]})


def test_the_command(short_run, images, tmp_path, capsys):
    words = ["--data.root", str(images), "--data.labels", "[label]", "--data.batch_size", "16", "--out", str(tmp_path)]
    command([str(short_run("image")[0]), *words, "--accelerator", "cpu", "--epochs", "1", "--baselines", "false"])
    assert "accuracy [95%]" in capsys.readouterr().out
    assert (tmp_path / "finetune.json").is_file()
    with pytest.raises(SystemExit) as stop:
        command([str(short_run("image")[0]), "--epoch", "1"])
    assert stop.value.code == 2
    assert "epochs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs of at least 1"),
        ({"draws": 0}, "draws of at least 1"),
        ({"learning_rate": []}, "at least one run, learning_rate"),
        ({"label_shares": [2.0]}, "label_shares above 0 and at most 1"),
        ({"label": "colour"}, "no label 'colour' in the data"),
    ],
)
def test_what_is_refused(short_run, images, tmp_path, settings, message):
    data = {"root": str(images), "batch_size": 16}
    with pytest.raises(ValueError, match=message):
        jepa_lightning.finetune(
            short_run("image")[0], data=data, out=tmp_path, baselines=False, **{**QUICK, **settings}
        )


def test_from_scratch_is_from_random_weights(short_run, images, tmp_path, monkeypatch):
    """Not from the weights that the run itself began with."""
    asked = []
    original = jepa_lightning.Frozen.untrained

    def untrained(self, **how):
        asked.append(how)
        return original(self, **how)

    monkeypatch.setattr(jepa_lightning.Frozen, "untrained", untrained)
    data = {"root": str(images), "labels": ["label"], "batch_size": 16}
    jepa_lightning.finetune(short_run("image")[0], data=data, out=tmp_path, seed=3, **QUICK)
    assert asked == [{}, {"seed": 3, "pretrained": False}]
