"""Two gloo processes on CPUs against one process with the same global batch. What the two do is in two_processes.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import LIMIT, in_two

from jepa_lightning import load
from jepa_lightning.cli.probe import probe
from jepa_lightning.optimization import decays
from jepa_lightning.run.sharded import is_sharded

sys.path.insert(0, str(Path(__file__).parent))
import two_processes

ROOT = Path(__file__).parents[2]
TINY = [
    *("--data.samples", "96", "--data.batch_size", "8", "--data.probe_samples", "20", "--data.num_workers", "0"),
    *("--model.modality.image_size", "32", "--model.modality.masker.min_context", "2"),
    *("--model.modality.encoder.width", "16", "--model.modality.encoder.depth", "1"),
    *("--model.modality.encoder.heads", "2", "--model.predictor.width", "8", "--model.predictor.depth", "1"),
    *("--model.predictor.heads", "2", "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "2"),
    *("--probe.c", "1"),
]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, and the folder that they wrote into."""
    folder = tmp_path_factory.mktemp("two")
    in_two(folder, two_processes.main, folder)
    return json.loads((folder / "found.json").read_text()), folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One process: its weights, its losses and whether its gradients were clipped."""
    watch, module = two_processes.Watch(), two_processes.make_jepa()
    two_processes.fit(tmp_path_factory.mktemp("one"), module, watch)
    return two_processes.state(module), watch


def assert_same(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance, check_dtype=False, msg=name)


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "recomputed"])
def test_two_processes_are_one_with_the_same_global_batch(one, two, name):
    """Student, target, buffers and loss after four clipped optimiser steps of two accumulated batches each."""
    expected, watch = one
    found, folder = two
    assert len(watch.losses) == two_processes.STEPS
    assert all(watch.clipped)
    assert all(found[name]["clipped"])
    assert found[name]["losses"] == pytest.approx(watch.losses, abs=1e-5)
    for rank in (0, 1):
        assert_same(torch.load(folder / f"{name}-{rank}.pt"), expected)
    start = two_processes.state(two_processes.make_jepa())
    weights = [k for k in expected if k.endswith("weight") and "unused" not in k]
    assert all((expected[k] - start[k]).abs().max() > 1e-3 for k in weights)  # all has moved, the target too


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("name", two_processes.WITHOUT_A_TEACHER)
def test_two_processes_without_a_teacher_are_one(two, tmp_path, name, strategy):
    """With the target's gradient and VICReg over all samples, or without gradient; there is one encoder."""
    found, folder = two
    watch, module = two_processes.Watch(), two_processes.make_jepa(**two_processes.WITHOUT_A_TEACHER[name])
    before = two_processes.state(module)
    two_processes.fit(tmp_path, module, watch, max_epochs=1)
    expected = two_processes.state(module)
    assert not [key for key in expected if key.startswith("target.")]
    assert found[f"{name}-{strategy}"]["losses"] == pytest.approx(watch.losses, abs=1e-5)
    for rank in (0, 1):
        assert_same(torch.load(folder / f"{name}-{strategy}-{rank}.pt"), expected)
    weights = [key for key in expected if key.endswith("weight") and "unused" not in key]
    assert all((expected[key] - before[key]).abs().max() > 1e-3 for key in weights)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_with_a_teacher_of_views_are_one(two, tmp_path, strategy):
    """DINO: the teacher's projector is averaged, and the centre is that of the samples of both."""
    found, folder = two
    watch, module = two_processes.Watch(), two_processes.make_dino()
    before = two_processes.state(module)
    two_processes.fit(tmp_path, module, watch)
    expected = two_processes.state(module)
    assert found[f"dino-{strategy}"]["losses"] == pytest.approx(watch.losses, abs=1e-5)
    for rank in (0, 1):
        assert_same(torch.load(folder / f"dino-{strategy}-{rank}.pt"), expected)
    moved = [key for key in expected if key.startswith("target.head_0.") or key == "pretext.centering.mean"]
    assert len(moved) == 8
    assert all((expected[key] - before[key]).abs().max() > 1e-5 for key in moved)


@pytest.mark.parametrize("name", ["", "dino-"])
def test_all_is_sharded(two, name):
    found, _ = two
    for part, (here, whole) in found[f"{name}fsdp2"]["shards"].items():
        assert whole / 2 <= here < 0.52 * whole, part
    for here, whole in found["ddp"]["shards"].values():
        assert here == whole


def test_weight_decay_finds_its_parameters_by_name(two):
    expected = sorted(decays(two_processes.make_jepa()))
    assert two[0]["fsdp2"]["decays"] == two[0]["recomputed"]["decays"] == expected


@pytest.mark.parametrize("resumed", ["ddp-fsdp2", "sharded-ddp", "sharded-fsdp2", "file-ddp"])
def test_half_a_run_goes_on_under_another_strategy(one, two, resumed):
    for rank in (0, 1):
        assert_same(torch.load(two[1] / f"{resumed}-{rank}.pt"), one[0])


def test_checkpoints_are_a_folder_or_a_file(two):
    folder = two[1]
    assert is_sharded(folder / "sharded.ckpt")
    assert (folder / "file.ckpt").is_file()
    assert (folder / "ddp.ckpt").is_file()
    assert not [path.name for path in folder.iterdir() if path.name.endswith((".part", ".old"))]


def test_any_checkpoint_loads_in_one_process(two):
    _, folder = two
    loaded = {
        name: load(folder / f"{name}.ckpt", module=two_processes.make_jepa(seed=7)).state_dict()
        for name in ("ddp", "file", "sharded")
    }
    assert_same(loaded["file"], loaded["ddp"])
    assert_same(loaded["sharded"], loaded["ddp"])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_precisions_under_fsdp2(two, precision):
    found = two[0][precision]
    assert found["losses"][-1] < 0.8 * found["losses"][0]
    assert found["losses"] == pytest.approx(two[0]["32-true"]["losses"], abs=0.02)
    assert found["moved"] > 1e-5  # a thousandth of the way to a student that has moved by some 0.01 a step
    half = {name for name, dtype in found["dtypes"].items() if dtype == "torch.bfloat16"}
    if precision == "bf16-true":
        assert any(name.endswith("qkv.weight") for name in half)
        assert not [name for name in half if "norm" in name or name.startswith("target")]
    else:
        assert not half


def test_ranks_that_drew_other_weights_train_one_model(two):
    states = [torch.load(two[1] / f"seeds-{rank}.pt") for rank in (0, 1)]
    assert_same(states[1], states[0], tolerance=0)
    first = two_processes.make_jepa(seed=0).state_dict()
    for name, value in states[0].items():
        if name.endswith("weight"):  # which one step leaves where the first rank drew it, give or take
            assert (value - first[name]).abs().max() < 0.01


UNDER_FSDP2 = [
    *("--config", "image.yaml", *TINY, "--trainer.default_root_dir", "run"),
    *("--trainer.strategy", "fsdp2", "--trainer.accelerator", "cpu", "--trainer.devices", "2"),
]


@pytest.mark.usefixtures("no_plots")
def test_jepa_fit_under_fsdp2_from_start_to_probe(tmp_path, capsys):
    check_run(in_two(tmp_path, two_processes.command, UNDER_FSDP2)[0], tmp_path / "run", capsys)


@pytest.mark.usefixtures("no_plots")
@pytest.mark.slow
def test_jepa_fit_under_fsdp2_as_lightning_starts_its_processes(tmp_path, capsys):
    """The command starts itself again for the second process; none of the settings of this one is passed on."""
    script = tmp_path / "fit.py"
    script.write_text("from jepa_lightning.cli.fit import fit\n\nfit()\n")
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    paths = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(script), *UNDER_FSDP2],
        **{"cwd": tmp_path, "capture_output": True, "text": True, "timeout": LIMIT},
        env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    check_run(done.stdout, tmp_path / "run", capsys)


def check_run(said, run, capsys):
    """What `jepa-fit` printed and left, to a probe of it."""
    assert "linear" in said
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 12  # 96 images are 6 batches of 8 for each of two, twice
    for name in ("train_loss", "effective_rank", "feature_std", "knn", "linear", "linear_untrained"):
        assert summary[name] is not None, name
    assert (run / "pictures" / "masks.png").is_file()
    assert len(list((run / "pictures").glob("features_*.png"))) == 3
    for which in ("last", "best"):
        assert is_sharded(run / "checkpoints" / f"{which}.ckpt")
        encoder = load(run, which=which)
        assert encoder.embed({"image": torch.rand(2, 3, 32, 32)}).shape == (2, 16)
    probe(["--checkpoint", str(run), "--probes", "knn"])
    assert "knn" in capsys.readouterr().out
