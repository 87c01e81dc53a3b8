"""Graph-JEPA's table: its floors on hand-worked graphs, its statistics, and a small run of both variants."""

import json

import numpy as np
import pytest
import torch
import yaml

from benchmarks import graph_table, repeated_splits, wl
from benchmarks.wl import TypedGraph, histograms, read_graphs, wl_accuracy, wl_counts, wl_kernels
from jepa_lightning.evaluation.probes import protocols
from jepa_lightning.evaluation.probes.protocols import Split, stratified_folds


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def graph(nodes, *pairs, types=None):
    edges = np.array([*pairs, *[(b, a) for a, b in pairs]], dtype=np.int64).reshape(-1, 2).T
    return TypedGraph(nodes, edges, None if types is None else np.array(types))


PATH = graph(4, (0, 1), (1, 2), (2, 3))
STAR = graph(4, (0, 1), (0, 2), (0, 3))


# Weisfeiler and Lehman


def test_labels_of_untyped_graphs_start_with_degrees():
    before, after = (part.toarray() for part in wl_counts([PATH, STAR], 1))
    assert before.tolist() == [[0, 2, 2, 0], [0, 3, 0, 1]]
    # After one round the path has ends (beside a 2) and inner nodes (1, 2), the star leaves (beside a 3) and a hub.
    assert after.tolist() == [[2, 2, 0, 0], [0, 0, 1, 3]]


def test_kernel_is_the_cosine_of_all_rounds():
    typed = [TypedGraph(4, g.edges, np.zeros(4, dtype=np.int64)) for g in (PATH, STAR)]
    # Round 0: 4 nodes of one type each, 16. Round 1, by degree: (2, 2, 0) and (3, 0, 1), 6; themselves 8 and 10.
    kernel = wl_kernels(typed, [0, 1])
    assert kernel[0] == pytest.approx(np.ones((2, 2)))
    assert kernel[1] == pytest.approx(np.array([[1, 22 / (24 * 26) ** 0.5], [22 / (24 * 26) ** 0.5, 1]]))


def test_graphs_that_only_the_second_round_tells_apart():
    chain = [(0, 1), (1, 2), (2, 3), (3, 4)]
    pair = [graph(6, *chain, (place, 5), types=[0] * 6) for place in (1, 2)]
    kernels = wl_kernels(pair, [1, 2])
    assert kernels[1] == pytest.approx(np.ones((2, 2)))
    # Round 0: 36. Round 1 (degrees 1, 2, 3): 3, 2, 1, so 14. Round 2: leaves beside the 3: 2 and 1, beside a 2: 1 and
    # 2, so 4; the rest differs: 2 (1, 2) and 2 (2, 3) against twice 2 (1, 3), and the 3. Themselves 8 and 10.
    assert kernels[2][0, 1] == pytest.approx(54 / (58 * 60) ** 0.5)


def test_renumbered_graphs_are_equal_and_types_count():
    rng = np.random.default_rng(0)
    edges = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4)]
    types = np.array([0, 1, 1, 0, 2])
    order = rng.permutation(5)
    twin = graph(5, *[(order[a], order[b]) for a, b in edges], types=types[np.argsort(order)])
    other = graph(5, *edges, types=np.array([1, 1, 0, 0, 2]))
    kernel = wl_kernels([graph(5, *edges, types=types), twin, other], [3])[3]
    assert kernel[0, 1] == pytest.approx(1)
    assert kernel[0, 2] < 0.9


def test_a_graph_without_edges_and_isolated_nodes():
    counts = wl_counts([graph(2), graph(3, (0, 1))], 2)
    assert [part.toarray().sum(1).tolist() for part in counts] == [[2, 3]] * 3
    assert counts[2].toarray()[0].max() == 2


def test_wl_classifier_learns_rings_from_paths_and_bears_one_label_a_class():
    sizes = range(5, 15)
    rings = [graph(n, *[(i, (i + 1) % n) for i in range(n)], types=[0] * n) for n in sizes]
    paths = [graph(n, *[(i, i + 1) for i in range(n - 1)], types=[0] * n) for n in sizes]
    labels = np.repeat([0, 1], 10)
    kernels = wl_kernels(rings + paths)
    assert all(wl_accuracy(kernels, labels, split) == 1 for split in stratified_folds(labels, folds=5))
    single = Split(np.array([4, 14]), np.setdiff1d(np.arange(20), [4, 14]))
    assert wl_accuracy(kernels, labels, single) > 0.8


def test_histograms_of_types_and_degrees():
    typed = graph(4, (0, 1), (0, 2), (0, 3), types=[2, 0, 0, 1])
    assert histograms([typed]).tolist() == [[2, 1, 1, 0, 3, 0, 1]]
    assert histograms([PATH, STAR]).tolist() == [[4, 0, 2, 2, 0], [4, 0, 3, 0, 1]]


# The table


def test_spread_over_seeds_and_over_folds():
    spread = graph_table.Spread.of(np.array([[0.5, 0.7], [0.8, 0.8], [0.9, 0.5]]))
    # Means 0.6, 0.8, 0.7; folds' standard deviations 0.2 / sqrt 2, 0, 0.4 / sqrt 2.
    assert spread.mean == pytest.approx(0.7)
    assert spread.seeds == pytest.approx(0.1)
    assert spread.folds == pytest.approx(0.2 / 2**0.5)
    assert graph_table.Spread.of(np.array([[0.5, 0.7]])).seeds is None


def test_difference_is_paired_over_seeds():
    trained = np.array([[0.6, 0.8], [0.8, 1.0], [0.7, 0.9]])
    untrained = np.array([[0.6, 0.6], [0.6, 0.8], [0.3, 0.7]])
    # By seed 0.1, 0.2, 0.3: mean 0.2, std 0.1; t with 2 degrees of freedom is 4.303.
    half = 4.3027 * 0.1 / 3**0.5
    text = graph_table.difference({"trained": trained, "untrained": untrained})
    assert text == f"0.200 [{0.2 - half:.3f}, {0.2 + half:.3f}]"


# A small run


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """24 graphs in TU's raw layout: rings and stars with types at random; a recipe; the words of a call."""
    for module in (protocols, wl):  # most of the time
        monkeypatch.setattr(module, "C_GRID", (0.1, 1.0))
        monkeypatch.setattr(module, "_INNER_FOLDS", 2)
    rng = np.random.default_rng(0)
    edges, indicator, labels, types, first = [], [], [], [], 1
    for number in range(24):
        n = int(rng.integers(5, 9))
        star = number % 2
        pairs = [(0, i) if star else (i, (i + 1) % n) for i in range(star, n)]
        edges += [(first + a, first + b) for a, b in [*pairs, *[(b, a) for a, b in pairs]]]
        indicator += [number + 1] * n
        types += rng.integers(3, size=n).tolist()
        labels.append(1 - 2 * star)
        first += n
    raw = tmp_path / "data" / "TINY-SET" / "raw"
    raw.mkdir(parents=True)
    (raw / "TINY-SET_A.txt").write_text("".join(f"{a}, {b}\n" for a, b in sorted(edges)))
    for name, values in {"graph_indicator": indicator, "graph_labels": labels, "node_labels": types}.items():
        (raw / f"TINY-SET_{name}.txt").write_text("".join(f"{value}\n" for value in values))
    encoder = {"class_path": "ViT", "init_args": {"width": 16, "depth": 1, "heads": 2}}
    modality = {"features": 3, "patches": 4, "walk": 4, "layers": 1, "encoder": encoder}
    recipe = {
        "model": {
            "modality": {"class_path": "Graph", "init_args": modality},
            "predictor": {"class_path": "MLPPredictor", "init_args": {"width": 16}},
        },
        "data": {"class_path": "GraphData", "init_args": {"batch_size": 8, "val_fraction": 0.0}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
    }
    (tmp_path / "tiny_set.yaml").write_text(yaml.safe_dump(recipe))
    return [
        *("--root", str(tmp_path / "data"), "--sets", "TINY-SET", "--recipe", str(tmp_path / "{set}.yaml")),
        *("--folds", "3", "--draws", "2", "--shares", "0.2", "1", "--out", str(tmp_path / "out")),
        *("--json", str(tmp_path / "figures.json"), "--trainer.log_every_n_steps", "1"),
    ]


def forbid_training(monkeypatch):
    def refuse(*args, **settings):
        pytest.fail("trained again")

    monkeypatch.setattr(graph_table, "train", refuse)


def test_raw_files_are_read_with_their_types(tiny, tmp_path):
    graphs, labels = read_graphs(str(tmp_path / "data"), "TINY-SET")
    assert np.bincount(labels).tolist() == [12, 12]
    ring, star = graphs[0], graphs[1]
    assert set(ring.degrees) == {2}
    assert star.degrees.max() == star.nodes - 1
    written = (tmp_path / "data" / "TINY-SET" / "raw" / "TINY-SET_node_labels.txt").read_text().split()
    assert ring.types.tolist() == [int(word) for word in written[: ring.nodes]]


@pytest.mark.long
def test_all_graphs_once_a_seed_and_again_without_training(tiny, tmp_path, capsys, monkeypatch):
    found = graph_table.main([*tiny, "--seeds", "0", "1"])["TINY-SET"]
    scores = {row: np.array(values) for row, values in found["scores"].items()}
    assert all(values.shape == (2, 3) for values in scores.values())
    assert scores["majority class"] == pytest.approx(np.full((2, 3), 0.5))
    assert scores["WL subtree features"].mean() > 0.8
    assert scores["histogram of types and degrees"].mean() > 0.9
    assert found["few_labels"]["1"]["trained"] == found["scores"]["trained"]
    assert found["few_labels"]["0.2"].keys() == {"trained", "untrained", "WL subtree features"}
    kept = {path.name for path in (tmp_path / "out").glob("*.json")}
    assert kept == {"TINY-SET_all_0.json", "TINY-SET_all_1.json"}
    figures = json.loads((tmp_path / "out" / "TINY-SET_all_0.json").read_text())
    assert (figures["train_samples"], figures["test_samples"], figures["steps"]) == (24, 0, 3)
    assert not list((tmp_path / "out").rglob("*.ckpt"))
    with np.load(tmp_path / "out" / "TINY-SET_all_0.npz") as features:
        assert features["trained"].shape == features["untrained"].shape == (24, 32)
        assert not np.allclose(features["trained"], features["untrained"])
    shown = capsys.readouterr().out
    assert "pre-training on all graphs, without labels, 3 steps" in shown
    assert "published, not measured here" in shown
    assert "95% over seeds: initialisation, pre-training, shuffling; not other graphs" in shown
    assert json.loads((tmp_path / "figures.json").read_text())["results"]["TINY-SET"] == found

    forbid_training(monkeypatch)
    again = graph_table.main([*tiny, "--seeds", "0", "1", "--pooling", "max"])["TINY-SET"]
    assert again["scores"]["WL subtree features"] == found["scores"]["WL subtree features"]
    assert again["cpu_seconds_of_runs"] == found["cpu_seconds_of_runs"]
    with pytest.raises(ValueError, match="other options"):
        graph_table.main([*tiny, "--seeds", "0", "--trainer.max_epochs", "2"])


@pytest.mark.long
def test_within_folds_no_test_graph_is_trained_on(tiny, tmp_path, capsys, monkeypatch):
    trained_on = []
    original = repeated_splits.SplitRun.before_fit

    def watched(self):
        original(self)
        part = self.datamodule.part("train").dataset
        trained_on.append([part[i]["graph"].index for i in range(len(part))])

    monkeypatch.setattr(repeated_splits.SplitRun, "before_fit", watched)
    found = graph_table.main([*tiny, "--pretrain", "fold", "--seeds", "0"])["TINY-SET"]
    _, labels = read_graphs(str(tmp_path / "data"), "TINY-SET")
    splits = stratified_folds(labels, folds=3, seed=0)
    assert [sorted(numbers) for numbers in trained_on] == [split.train.tolist() for split in splits]
    assert len(found["cpu_seconds_of_runs"]) == 3
    shown = capsys.readouterr().out
    assert "pre-training within each training fold" in shown
    assert "one seed: no interval" in shown
    forbid_training(monkeypatch)
    graph_table.main([*tiny, "--pretrain", "fold", "--seeds", "0"])


@pytest.mark.parametrize(
    ("words", "message"), [(["--folds", "1"], "--folds must be at least 2"), (["--shares", "0"], "--shares must be")]
)
def test_options_that_do_not_fit(tiny, words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        graph_table.main([*tiny, *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
