"""`jepa-probe`: from runs to a report, with every encoder evaluated on the same samples."""

import json
import math
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from jepa_lightning import Frozen, load
from jepa_lightning.cli.embed import embed
from jepa_lightning.cli.probe import probe
from jepa_lightning.evaluation import report_on_runs as command
from jepa_lightning.evaluation.features.files import read_features
from jepa_lightning.evaluation.features.write import write_features
from jepa_lightning.evaluation.report import plots
from jepa_lightning.evaluation.report.results import Plots
from jepa_lightning.modality import Modality
from jepa_lightning.module import JEPA
from modalities.audio import Audio
from modalities.graph import Graph
from modalities.graph.graphs import RawGraph
from modalities.pointcloud import PointCloud
from modalities.video import Video

FAST = ["--device", "cpu", "--data.num_workers", "0"]


@pytest.fixture(autouse=True)
def _threads():
    """As in CI; the judge takes one thread for small features by itself."""
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


@pytest.fixture
def judged(monkeypatch):
    """What the judge is given, without judging: (encoders, settings of the call)."""
    calls = []

    class Stopped(Exception):
        pass

    def stop(encoders, **settings):
        calls.append((encoders, settings))
        raise Stopped

    def run(*words):
        with monkeypatch.context() as patch:
            patch.setattr(command, "evaluate_features", stop)
            with pytest.raises(Stopped):
                probe([*map(str, words), *FAST])
        return calls[-1]

    return run


def read(folder):
    return json.loads((folder / "report.json").read_text())


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as stop:
        probe([*map(str, words), *FAST])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    message = message[message.index("jepa-probe: error:") :].strip()
    lines = [line for line in message.splitlines() if line != "(JEPA_TRACEBACK=1 shows where)"]
    assert len(lines) == 1, message
    return lines[0]


LABELS = {
    "image": ("shape", None),
    "video": (None, None),
    "audio": (None, None),
    "pointcloud": ("shape", "noise"),
    "graph": ("family", "clustering"),
    "text": ("sentiment", None),
}


@pytest.mark.long
@pytest.mark.usefixtures("quick_logistic")
@pytest.mark.parametrize("name", LABELS)
def test_every_modality(short_run, tmp_path, name, capsys, request):
    drawn = name == "image"  # plots, which are the same for all
    request.getfixturevalue("few_plots" if drawn else "no_plots")
    folder, _ = short_run(name)
    words = ["--checkpoint", str(folder), "--protocol", "repeated", "--repeats", "3", "--k", "5", "--probes", "knn"]
    if name == "image":  # a class and a number: each has plots of its own
        words += ["--labels", "shape", "size"]
    else:  # all pixels are the floor of images: fitting thousands of weights takes long
        words += ["ridge", *(["logistic", "--labels", *LABELS[name]] if name == "graph" else [])]
    probe([*words, "--out", str(tmp_path / "report"), *FAST])
    found = read(tmp_path / "report")
    rows = {score["encoder"] for score in found["scores"]}
    assert rows == {"trained", "untrained", "raw"}
    assert set(found["collapse"]) == rows
    for score in found["scores"]:
        assert all(math.isfinite(score["estimate"][end]) for end in ("low", "mean", "high")), score
    pairs = {(d["encoder"], d["baseline"]) for d in found["differences"]}
    assert pairs == {("trained", "untrained"), ("trained", "raw")}
    for label in filter(None, LABELS[name]):
        assert label in {score["label"] for score in found["scores"]}
    settings = found["settings"]
    sizes = load(folder).data(num_workers=0)
    train, val = len(sizes.probe_dataloader().dataset), len(sizes.val_dataloader().dataset)
    assert settings["splits"] == {"train": train, "val": val}
    assert train == 48
    assert settings["pooling"] == "mean"
    assert settings["encoder"] is None  # the run's default
    assert settings["data"]["class"].startswith(f"modalities.{name}.")
    assert settings["checkpoints"]["trained"]["file"].endswith("checkpoints/last.ckpt")
    assert "torch" in settings["versions"]
    assert f"the splits train, val together (train: 48 samples, val: {val} samples)" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text()
    assert ("alt='spectrum of the features&#x27; covariance'" in page) == drawn
    assert page.count("data:image/png;base64,") >= 3 * 5  # nearest neighbours: every modality draws its samples
    assert "val[0]" in page
    assert "<circle" in page or not drawn


def test_features_are_those_of_the_encoders(short_run, judged):
    """In order, not augmented, the same samples of all; the untrained twin is what training began with."""
    folder, run = short_run("image")
    encoders, settings = judged("--checkpoint", folder, "--pooling", "mean+max", "--data.batch_size", "7")
    assert list(encoders) == ["trained", "untrained", "raw"]
    assert settings["pairs"] == [("trained", "untrained"), ("trained", "raw")]
    frozen = load(folder)
    data = frozen.data(drop_last=False, num_workers=0)
    batches = {"train": list(data.probe_dataloader()), "test": list(data.val_dataloader())}  # the former has all 48
    before = Frozen(run.before)
    expected = {
        "trained": lambda batch: frozen.embed(batch, pooling="mean+max"),
        "untrained": lambda batch: before.embed(batch, pooling="mean+max"),
        "raw": lambda batch: batch["image"].flatten(1),
    }
    for name, features in expected.items():
        for part, of_part in batches.items():
            found = getattr(encoders[name], part)
            assert torch.allclose(found.values, torch.cat([features(batch) for batch in of_part]), atol=1e-5), name
            for label, values in found.labels.items():
                assert torch.equal(values, torch.cat([batch["labels"][label] for batch in of_part])), label
    assert not torch.equal(encoders["trained"].values, encoders["untrained"].values)
    assert settings["settings"]["division_of_data"].startswith("fitted on the split train, scored on the split val")


def test_the_context_encoder(short_run, judged):
    folder, _ = short_run("image")
    encoders, settings = judged("--checkpoint", folder, "--encoder", "context")
    batch = next(iter(load(folder).data(drop_last=False, num_workers=0).val_dataloader()))
    context = load(folder, encoder="context").embed(batch)
    assert torch.allclose(encoders["trained"].test.values, context, atol=1e-5)
    assert not torch.allclose(load(folder).embed(batch), context, atol=1e-5)
    assert settings["settings"]["encoder"] == "context"


@pytest.fixture
def folder_of_images(tmp_path):
    """32 + 8 images in two classes, of which one is broken, with a test split."""
    for i in range(40):
        path = tmp_path / "images" / ("test" if i >= 32 else "train") / "ab"[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PILImage.new("RGB", (32, 32), (6 * i, 90, 200 - 5 * i)).save(path)
    (tmp_path / "images" / "train" / "a" / "004.png").write_bytes(b"broken")
    return tmp_path / "images"


def test_a_test_split_is_preferred_and_unreadable_samples_are_missing_alike(short_run, judged, folder_of_images):
    folder, _ = short_run("image")
    words = ["--checkpoint", folder, "--data.root", folder_of_images, "--data.max_unreadable", "0.1"]
    words += ["--data.cache", "false", "--data.val_fraction", "0"]
    encoders, settings = judged(*words)
    for encoded in encoders.values():
        assert (len(encoded.train.values), len(encoded.test.values)) == (31, 8)
    assert settings["settings"]["splits"] == {"train": 31, "test": 8}
    assert [Path(name).name for name in settings["settings"]["unreadable"]] == ["004.png"]
    assert settings["class_names"] == {"label": ["a", "b"]}
    together, settings = judged(*words, "--protocol", "folds", "--folds", "3")
    assert together["trained"].test is None
    assert torch.equal(together["trained"].values, encoders["trained"].values)
    assert settings["protocol"].folds == 3


@pytest.mark.long
def test_the_attentive_probe_looks_at_all_tokens(short_run, judged):
    """In the order of the pooled features, a ragged number of tokens included."""
    for name in ("graph", "image"):
        folder, _ = short_run(name)
        encoders, settings = judged("--checkpoint", folder, "--probes", "attentive", "--data.batch_size", "7")
        plain, _ = judged("--checkpoint", folder, "--probes", "knn")
        assert settings["probes"] == ["attentive"]
        assert encoders["raw"].tokens is None
        assert plain["trained"].tokens is None
        for which in ("trained", "untrained"):
            found = encoders[which]
            assert torch.allclose(found.values, plain[which].values, atol=1e-5)
            assert len(found.tokens.values) == len(found.values) == 54
            mask = torch.ones(found.tokens.values.shape[:2], dtype=torch.bool)
            mask = (mask if found.tokens.valid is None else found.tokens.valid).unsqueeze(-1)
            pooled = (found.tokens.values.float() * mask).sum(1) / mask.sum(1)
            assert torch.allclose(pooled, found.values, atol=5e-3), which


@pytest.mark.usefixtures("no_plots", "quick_attentive")
@pytest.mark.parametrize("protocol", ["split", "folds"])
def test_the_attentive_probe_in_a_report(short_run, tmp_path, capsys, protocol):
    folder, _ = short_run("image")
    words = ["--checkpoint", str(folder), "--probes", "attentive", "knn", "--labels", "shape", "position"]
    probe([*words, "--protocol", protocol, "--folds", "2", "--out", str(tmp_path), *FAST])
    found = read(tmp_path)
    rows = {(s["encoder"], s["label"]): s for s in found["scores"] if s["probe"] == "attentive"}
    assert set(rows) == {(e, label) for e in ("trained", "untrained") for label in ("shape", "position")}
    assert rows["trained", "position"]["measure"] == "R2"
    assert all(len(pair) == 2 for score in rows.values() for pair in score["chosen"])
    pairs = [(d["encoder"], d["baseline"]) for d in found["differences"] if d["probe"] == "attentive"]
    assert pairs == [("trained", "untrained")] * 2
    assert "raw: no attentive probe, since it has no tokens" in found["notes"]
    assert found["settings"]["samples"]["trained"]["tokens"] > 1
    assert "weight decay of" in found["settings"]["probes"]["attentive"]
    table = capsys.readouterr().out
    assert next(line for line in table.splitlines() if line.startswith("raw ")).split()[1] == "-"


@pytest.mark.long
@pytest.mark.usefixtures("quick_attentive", "few_plots")
def test_a_low_label_curve_and_episodes_from_the_command(short_run, tmp_path):
    folder, _ = short_run("image")
    words = ["--checkpoint", str(folder), "--probes", "knn", "attentive", "--labels", "shape", "--protocol", "repeated"]
    words += ["--repeats", "2", "--test_share", "0.5", "--label_shares", "0.3", "--shots", "1", "--ways", "2"]
    probe([*words, "--episodes", "200", "--seed", "3", "--out", str(tmp_path), *FAST])
    found = read(tmp_path)
    by_share = {score["share"]: score["train"] for score in found["scores"] if score["probe"] == "attentive"}
    assert set(by_share) == {0.3, 1.0}
    assert by_share[0.3] < 0.5 * by_share[1.0]
    episodes = {score["probe"]: score for score in found["scores"] if "-way" in score["probe"]}
    assert set(episodes) == {"2-way 1-shot"}
    assert episodes["2-way 1-shot"]["chance"] == 0.5
    assert "200 episodes" in episodes["2-way 1-shot"]["over"]
    division = found["settings"]["division"]
    assert (division["label_shares"], division["shots"], division["seed"]) == ([0.3], [1], 3)
    page = (tmp_path / "report.md").read_text()
    assert "shape by the share of the training labels" in page
    assert "alt='shape: attentive with few labels'" in (tmp_path / "report.html").read_text()


def test_layers_side_by_side(short_run, judged, tmp_path):
    folder, _ = short_run("image", "deep", "--model.modality.encoder.depth", "3")
    encoders, settings = judged("--checkpoint", folder, "--layers", "2", "--pooling", "max", "--probes", "attentive")
    frozen = load(folder)
    batch = next(iter(frozen.data(drop_last=False, num_workers=0).val_dataloader()))
    expected = frozen.embed(batch, pooling="max", layers=2)
    assert expected.shape == (6, 32)
    assert torch.allclose(encoders["trained"].test.values, expected, atol=1e-5)
    assert encoders["untrained"].tokens.values.shape[2] == 32
    assert settings["settings"]["layers"] == 2
    embed(["--checkpoint", str(folder), "--out", str(tmp_path / "f.npz"), "--split", "val", "--layers", "2",
           "--pooling", "max", *FAST])  # fmt: skip
    assert np.allclose(read_features(tmp_path / "f.npz")["features"], expected, atol=1e-5)
    with pytest.raises(ValueError, match="expected from 1 to 3 layers"):
        write_features(frozen, frozen.data(), tmp_path / "g.npz", layers=4)


@pytest.mark.long
def test_alignment_is_that_of_augmented_training_samples(short_run, judged, monkeypatch):
    folder, _ = short_run("image")
    first, second, other = (
        judged("--checkpoint", folder, "--seed", seed, "--protocol", kind)[0]
        for seed, kind in ((0, "split"), (0, "folds"), (1, "split"))
    )
    for name in ("trained", "untrained", "raw"):
        assert torch.equal(first[name].viewed, torch.arange(48))
        assert torch.equal(first[name].views, second[name].views)
        assert first[name].views.shape == first[name].train.values.shape
        assert not torch.allclose(first[name].views, other[name].views, atol=1e-4)
        assert not torch.allclose(first[name].views, first[name].train.values, atol=1e-4)
    monkeypatch.setattr(command, "training_views", partial(command.training_views, count=20))
    few, _ = judged("--checkpoint", folder)
    rows = few["trained"].viewed
    assert len(rows) == 20
    assert (rows.diff() > 0).all()
    whole = first["trained"].train.values
    nearest = torch.cdist(few["raw"].views, first["raw"].train.values).argmin(1)  # a crop is nearest its own image
    assert (nearest == rows).float().mean() > 0.5
    assert torch.equal(few["trained"].train.values, whole)


@pytest.mark.usefixtures("no_plots")
def test_without_augmentation_there_is_no_alignment(short_run, tmp_path):
    folder, _ = short_run("graph")  # of which no edges are dropped
    probe(["--checkpoint", str(folder), "--probes", "knn", "--out", str(tmp_path), *FAST])
    found = read(tmp_path)
    note = "alignment: skipped, since the data have no augmentation: training samples are seen as they are evaluated"
    assert note in found["notes"]
    assert {collapse["alignment"] for collapse in found["collapse"].values()} == {None}


@pytest.mark.long
def test_several_checkpoints_in_one_table(short_run, tmp_path, capsys, monkeypatch):
    """Those that began alike share an untrained row; another seed or size has its own."""

    def curves(report, runs):
        return Plots(runs=[plots.plot_run(metrics, title=name) for name, metrics in runs.items()])

    monkeypatch.setattr(plots, "draw_plots", curves)
    first, _ = short_run("image")
    second = shutil.copytree(first, tmp_path / "longer")
    third, _ = short_run("image", "seeded", "--seed_everything", "7")
    (second / "metrics.csv").write_text("step,train/loss,collapse/effective_rank\n0,1.0,3.0\n1,0.5,4.0\n")
    (third / "metrics.csv").write_text("step,other\n0,1.0\n")
    words = ["--checkpoint", *map(str, (first, second, third)), "--labels", "shape", "--probes", "knn", "--k", "5"]
    probe([*words, "--out", str(tmp_path / "out"), *FAST])
    found = read(tmp_path / "out")
    assert list(found["collapse"]) == ["image", "longer", "seeded", "untrained image", "untrained seeded", "raw"]
    pairs = [(d["encoder"], d["baseline"]) for d in found["differences"]]
    assert pairs == [
        *(("image", "untrained image"), ("longer", "untrained image"), ("seeded", "untrained seeded")),
        *(("image", "raw"), ("longer", "raw"), ("seeded", "raw"), ("longer", "image"), ("seeded", "image")),
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<figcaption>longer</figcaption>" in page
    assert "<figcaption>seeded</figcaption>" not in page
    assert any(note.startswith("no curves of 'seeded'") for note in found["notes"])
    table = capsys.readouterr().out
    assert all(name in table for name in ("untrained seeded", "chance", "note: no curves of 'seeded'"))


def test_names_differ(short_run, judged, tmp_path):
    folder, _ = short_run("image")
    bare = tmp_path / "mine.ckpt"
    bare.write_bytes((folder / "checkpoints" / "last.ckpt").read_bytes())
    encoders, _ = judged("--checkpoint", folder, folder / "checkpoints" / "last.ckpt", bare, "--out", tmp_path)
    assert list(encoders) == ["image", "image 2", "mine", "untrained image", "raw"]


@pytest.mark.usefixtures("no_plots")
def test_a_report_beside_the_run_and_each_sample_seen_once(short_run, monkeypatch):
    folder, _ = short_run("image")
    seen = []
    original = Frozen.embed

    def counted(self, batch, **settings):
        seen.append((id(self), tuple(batch["id"])))
        return original(self, batch, **settings)

    def fail(*args):
        raise AssertionError("nothing is trained")

    monkeypatch.setattr(Frozen, "embed", counted)
    monkeypatch.setattr(JEPA, "training_step", fail)
    probe(["--checkpoint", str(folder), "--labels", "shape", "--probes", "knn", *FAST])
    assert {score["label"] for score in read(folder / "probe")["scores"]} == {"shape"}
    for encoder in {which for which, _ in seen}:
        _, *batches = [ids for which, ids in seen if which == encoder]  # the first is to see whether the data fit
        names = [name for ids in batches for name in ids]
        assert len(set(names[:54])) == 54
        assert names[54:] == [f"train[{i}]" for i in range(48)]  # augmented, for the alignment
    assert len({which for which, _ in seen}) == 2


@pytest.mark.usefixtures("no_plots")
def test_large_raw_input_is_left_out(short_run, tmp_path, monkeypatch):
    folder, _ = short_run("image")
    monkeypatch.setattr(command, "RAW_WIDTH", 3071)
    words = ["--checkpoint", str(folder), "--labels", "shape", "--probes", "knn", "--out", str(tmp_path)]
    probe([*words, *FAST])
    found = read(tmp_path)
    assert list(found["collapse"]) == ["trained", "untrained"]
    assert found["notes"][0] == "raw: skipped, since 3,072 numbers a sample are more than 3,071"


@pytest.mark.usefixtures("no_plots")
def test_an_encoder_that_cannot_be_built_anew_is_left_out(short_run, tmp_path, monkeypatch):
    folder, _ = short_run("image")

    def no_network(self, **settings):
        raise OSError("no network")

    monkeypatch.setattr(Frozen, "untrained", no_network)
    probe(["--checkpoint", str(folder), "--labels", "shape", "--probes", "knn", "--out", str(tmp_path), *FAST])
    found = read(tmp_path)
    assert list(found["collapse"]) == ["trained", "raw"]
    assert found["notes"][0] == "untrained: not beside 'trained': no network"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--labels", "shape", "sise"], "no label 'sise' in the data: it has ["),
        (["--protocol", "groups"], "expected a group with the protocol groups"),
        (["--protocol", "groups", "--group", "speaker"], "no label 'speaker' in the data"),
        (["--protocol", "leave"], "protocol: expected 'split', 'folds', 'repeated', 'groups', got leave"),
        (
            ["--probes", "mlp"],
            "probes: expected 'knn', 'knn_cv', 'logistic', 'svm', 'ridge', 'attentive', 'dense', got mlp",
        ),
        (["--test_share", "1.5"], "expected a test_share above 0 and below 1, got 1.5"),
        (["--folds", "0"], "expected folds of at least 2, got 0"),
        (["--label_shares", "0.1", "1.5"], "expected label_shares above 0 and at most 1, got (0.1, 1.5)"),
        (["--label_shares", "few"], "label_shares: expected float, got few"),
        (["--label_draws", "0"], "expected label_draws >= 1"),
        (["--shots", "0"], "at least one shot, got 2000 and (0,)"),
        (["--shots", "1", "--episodes", "150"], "a number of episodes that is a multiple of 100"),
        (["--shots", "1", "--ways", "1"], "expected at least 2 ways"),
        (["--ways", "3"], "expected at least 2 ways, and shots with them, got 3 and ()"),
        (["--shots", "40", "--labels", "shape"], "label 'shape': expected at least"),
        (["--layers", "2"], "expected from 1 to 1 layers, as many as the encoder has, got 2"),
        (["--protocl", "folds"], "no option --protocl; did you mean --protocol?"),
        (["--data.rot", "x"], "no option 'rot'; did you mean root?"),
        (["--data.root", "no/such"], "no folder"),
        (["--data", "AudioData"], "modality image"),
        (["--data", "GraphData", "--data.samples", "20"], "modality image"),
        (["--checkpoint", "nowhere"], "does not exist"),
    ],
)
def test_mistakes_end_in_a_line(short_run, tmp_path, capsys, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    folder, _ = short_run("image")
    assert says in refused(capsys, "--checkpoint", folder, *words)
    assert not list(tmp_path.iterdir())


def test_data_of_one_split(short_run, folder_of_images, capsys):
    folder, _ = short_run("image")
    words = ["--data.root", folder_of_images / "test", "--data.val_fraction", "0"]
    message = refused(capsys, "--checkpoint", folder, *words)
    assert "neither a test nor a val split: use --protocol folds" in message


def test_checkpoints_of_two_modalities_or_without_a_place(short_run, tmp_path, capsys):
    (image, _), (graph, _) = short_run("image"), short_run("graph")
    message = refused(capsys, "--checkpoint", image, graph, "--out", tmp_path / "r")
    assert "of one modality, got image (image) and graph (graph)" in message
    assert "expected out, a folder, with several checkpoints" in refused(capsys, "--checkpoint", image, image)
    file = image / "checkpoints" / "last.ckpt"
    assert "expected out, a folder, with a checkpoint that is no run's" in refused(capsys, "--checkpoint", file)
    (tmp_path / "file").write_text("mine")
    assert "got the file" in refused(capsys, "--checkpoint", image, "--out", tmp_path / "file")


def test_data_without_labels(short_run, tmp_path, capsys):
    folder, _ = short_run("image")
    for i in range(12):
        PILImage.new("RGB", (32, 32), (20 * i, 0, 0)).save(tmp_path / f"{i}.png")
    assert "the data have no training labels" in refused(capsys, "--checkpoint", folder, "--data.root", tmp_path)


# What modalities give as a floor.


def test_raw_features_of_a_mean_frame():
    video = Video(frames=4, image_size=16, patch_size=8, channels=1)
    clips = torch.randint(0, 256, (2, 1, 4, 16, 16), dtype=torch.uint8)
    assert torch.allclose(video.raw_features({"video": clips})[1, 17], clips[1, 0, :, 1, 1].float().mean())


def test_raw_features_of_sound_are_of_its_real_frames():
    audio = Audio(sample_rate=8000, seconds=0.4, mels=16, patch_size=(16, 4), mean=0.0, std=1.0)
    mel = torch.randn(2, 16, audio.tokenizer.frames)
    found = audio.raw_features({"log_mel": mel, "length": torch.tensor([10, audio.tokenizer.used])})
    assert found.shape == (2, 32)
    assert torch.allclose(found[0, :16], mel[0, :, :10].mean(1), atol=1e-5)
    assert torch.allclose(found[0, 16:], mel[0, :, :10].std(1, correction=0), atol=1e-5)
    assert torch.allclose(found[1, :16], mel[1, :, : audio.tokenizer.used].mean(1), atol=1e-5)


def test_raw_features_of_a_cloud():
    cloud = torch.tensor([[0.5, 0, 0], [-0.5, 0, 0]]).repeat(8, 1)[None]  # far points are 8 apart: the same ones
    cloud[0, 8:] *= -1
    found = PointCloud(points=16, groups=4, group_size=4).raw_features({"points": cloud})[0]
    assert torch.allclose(found[:6], torch.tensor([1.0, 0, 0, 0, 0, 0.25]), atol=1e-6)
    assert found[6:].sum() == 1
    assert found[6 + int(found[6:].argmax())] == 1
    assert found[6:].argmax() in (15, 16)  # all distances are 1, the edge in the middle


def test_raw_features_of_graphs():
    """A star of four nodes and a triangle; every edge counts once, however many patches it is in."""
    star = [[0, 1, 0, 2, 0, 3], [1, 0, 2, 0, 3, 0]]
    ring = [[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]]
    types = torch.eye(2)
    graphs = [
        RawGraph(nodes=types[[0, 1, 1, 1]], edges=torch.tensor(star)),
        RawGraph(nodes=types[[0, 0, 1]], edges=torch.tensor(ring)),
    ]
    found = Graph(features=2, patches=3, walk=4).raw_features({"graph": graphs})
    assert found.shape == (2, 18)
    expected = np.zeros((2, 18))
    expected[0, [0, 1, 2 + 1, 2 + 3]] = [1, 3, 3, 1]
    expected[1, [0, 1, 2 + 2]] = [2, 1, 3]
    assert np.array_equal(found, expected)


def test_a_modality_need_not_have_raw_features():
    assert Modality.raw_features(object(), {}) is None
