import json

import pytest
import torch

from benchmarks import maskers, overhead, real_data, report, step_time
from benchmarks.flops import model_flops, peak
from benchmarks.models import build
from benchmarks.step_time import PARTS, training_step
from benchmarks.syncs import HostReads

SMALL = {"image_size": 32, "patch_size": 4, "predictor_width": 32, "predictor_depth": 1}
OPTIONS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = build("vit_mini", **SMALL)
    model.total_steps = 10
    return model


def run(main, tmp_path, *options):
    """The JSON that a benchmark writes."""
    file = tmp_path / "new" / "figures.json"
    main([*options, "--json", str(file)])
    return json.loads(file.read_text())


@pytest.mark.parametrize("bf16", [False, True])
def test_the_split_step_is_the_step_of_the_module(model, bf16):
    batch = {"image": torch.randn(4, 3, 32, 32)}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outcomes = [model.step(batch, model.mask_generator("train", step, 0)) for step in (3, 4)]
        expected, other = (sum(model.losses(outcome).values()) for outcome in outcomes)
    loss = training_step(model, model.configure_optimizers(), batch, 3, bf16=bf16)
    assert torch.equal(loss, expected)
    assert not torch.equal(loss, other)


def test_the_split_step_trains_and_moves_the_target(model):
    before = {name: p.clone() for name, p in model.named_parameters()}
    laps = []
    training_step(model, model.configure_optimizers(), {"image": torch.randn(4, 3, 32, 32)}, 0, lap=laps.append)
    moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"encoder", "predictor", "target"} <= moved
    assert tuple(laps) == PARTS


def test_step_time_writes_its_figures(tmp_path, capsys):
    figures = run(step_time.main, tmp_path, "--model", "vit_mini", "--batch", "2", "--steps", "2", *OPTIONS)
    results = figures["results"]
    assert list(results["parts_ms"]) == list(PARTS)
    assert min(results["parts_ms"].values()) > 0
    assert results["samples_per_second"] == pytest.approx(2e3 / results["step_ms"])
    assert results["flops_per_second"] == pytest.approx(results["flops"]["step"] / results["step_ms"] * 1e3)
    assert results["peak_share"] is None
    printed = capsys.readouterr().out
    assert all(part in printed for part in PARTS)


def test_step_time_takes_models_of_timm(tmp_path):
    options = ["--model", "vit_tiny_patch16_224", "--batch", "2", "--steps", "1", "--warmup", "0", "--fixed-size"]
    assert run(step_time.main, tmp_path, *options, *OPTIONS)["results"]["flops"]["target"] > 0


def test_flops_are_those_of_the_formula(model):
    batch, tokens, width, depth, predictor = 3, 64, 192, 4, 32

    def blocks(count, width, depth):  # qkv, projection and MLP: 12 width^2 multiply-adds a token; attention: 2 count
        return depth * (24 * count * width**2 + 4 * count**2 * width)

    def encoder(count):
        return 2 * count * (3 * 4 * 4) * width + blocks(count, width, depth)

    counted = model_flops(model, (batch, 3, 32, 32), range(5, 6))
    (masks,) = model.masker(
        model.tokenizer({"image": torch.zeros(batch, 3, 32, 32)}), model.mask_generator("train", 5, 0)
    )
    kept, (targets, length) = masks.context.shape[1], masks.targets.shape[1:]
    assert counted["target"] == batch * encoder(tokens)
    assert counted["context"] == 3 * batch * encoder(kept)
    projections = 2 * (kept + targets * length) * width * predictor
    whole = kept + length
    last = (
        4 * whole * predictor**2 + 20 * length * predictor**2 + 4 * length * whole * predictor
    )  # keys and values: all
    assert counted["predictor"] == 3 * batch * (projections + targets * last)
    assert counted["step"] == counted["target"] + counted["context"] + counted["predictor"]


@pytest.mark.parametrize(
    ("card", "precision", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "tf32", 494),
        ("NVIDIA A100-SXM4-80GB", "32", 19.5),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA GeForce RTX 4090", "bf16", 165),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("NVIDIA L40", "bf16", None),
    ],
)
def test_peaks(card, precision, teraflops):
    found = peak(card, precision)
    assert found == (None if teraflops is None else pytest.approx(teraflops * 1e12))


@pytest.mark.long
def test_overhead_compares_the_same_training(tmp_path, capsys):
    figures = run(overhead.main, tmp_path, "--batch", "2", "--steps", "5", "--log-every", "3", *OPTIONS)
    for arm in ("trainer", "with_callbacks"):
        results = figures["results"][arm]
        assert results["trainer_ms"] > 0
        assert results["bare_ms"] > 0
        assert results["overhead_q1"] <= results["overhead"] <= results["overhead_q3"]
        assert results["largest_weight_difference"] == 0
    assert "at most 5%" in capsys.readouterr().out


def test_overhead_counts_host_syncs_alone(tmp_path):
    results = run(overhead.main, tmp_path, "--syncs", "--batch", "2", "--steps", "5", "--log-every", "3", *OPTIONS)
    assert list(results["results"]) == ["syncs"]
    syncs = results["results"]["syncs"]
    assert syncs["plain_steps"] == 3  # 2, 4, 5: the first sets up, 3 and 6 are logged (and 6 is the last)
    assert any("collapse.py" in place for place in syncs["a_logged_step"])
    assert not any("collapse.py" in place or "module.py" in place for place in syncs["a_plain_step"])
    assert syncs["on_cpu_a_plain_step"] > 0  # Adam's counters


def test_host_reads_are_counted_with_their_line(model):
    value = torch.ones(3)
    with HostReads() as reads:
        float(value.sum())
        value.tolist()
        value.numpy()
        torch.nonzero(value)
        if value[0] > 0:
            value + 1
    assert sum(reads.device.values()) == 5
    assert all("test_benchmarks.py" in place for place in reads.device)
    with HostReads() as reads:
        model.masker(model.tokenizer({"image": torch.zeros(2, 3, 32, 32)}), torch.Generator())
    assert reads.cpu
    assert not reads.device


def test_maskers_writes_its_figures(tmp_path):
    figures = run(maskers.main, tmp_path, "--batch", "2", "--grid", "8", "8", "--repeats", "2")
    assert set(figures["results"]) == set(maskers.MASKERS)
    assert figures["results"]["Random"]["image_ms"] == pytest.approx(figures["results"]["Random"]["batch_ms"] / 2)


@pytest.mark.long
def test_maskers_on_several_threads_beside_busy_cores(tmp_path):
    options = ["--batch", "2", "--grid", "8", "8", "--repeats", "1", "--threads", "2", "--busy"]
    figures = run(maskers.main, tmp_path, *options)
    assert figures["busy"]
    assert all(row["all_threads_ms"] > 0 for row in figures["results"].values())


@pytest.mark.parametrize(
    ("main", "options", "said"),
    [
        (step_time.main, ["--batch", "0"], "--batch must be at least 1, got 0"),
        (step_time.main, ["--predictor-width", "100"], "multiple of 32"),
        (step_time.main, ["--model", "vit_tinny"], "vit_tinny"),
        (step_time.main, ["--image-size", "30"], "whole number of patches"),
        (step_time.main, ["--precision", "tf32"], "tf32"),
        (overhead.main, ["--log-every", "1", "--syncs", "--batch", "1", "--steps", "2", *OPTIONS], "raise --steps"),
        (overhead.main, ["--steps", "1"], "--steps must be at least 2"),
        (maskers.main, ["--grid", "8", "0"], "--grid must be at least 1"),
        (maskers.main, ["--grid", "2", "2"], "grid"),
    ],
)
def test_mistakes_end_with_code_2(main, options, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*options, "--json", str(tmp_path / "figures.json")])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "figures.json").exists()


@pytest.mark.parametrize("main", [step_time.main, overhead.main])
def test_without_a_card_cuda_ends_with_code_2(main, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        main(["--device", "cuda"])
    assert ended.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.gpu
def test_step_time_on_a_card(tmp_path):
    figures = run(step_time.main, tmp_path, "--device", "cuda", "--precision", "bf16", "--batch", "8", *OPTIONS)
    assert figures["results"]["samples_per_second"] > 0
    assert figures["results"]["peak_memory_bytes"] > 0


@pytest.mark.gpu
def test_overhead_on_a_card(tmp_path):
    figures = run(overhead.main, tmp_path, "--device", "cuda", "--syncs", "--batch", "8", "--steps", "15", *OPTIONS)
    assert figures["results"]["syncs"]["plain_steps"] > 0


def test_table_and_quartiles():
    assert report.table(("a", "bb"), [("long", "1"), ("x", "22")]) == "a     bb\nlong   1\nx     22"
    assert report.quartiles([4.0]) == (4.0, 4.0, 4.0)
    assert report.quartiles([1.0, 2.0, 3.0]) == (1.5, 2.0, 2.5)


@pytest.mark.long
def test_real_data_scores_trained_untrained_and_raw_input(tmp_path):
    """On a folder of its own; each row is there, and a second call trains nothing again."""
    from PIL import Image as PILImage

    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 60), ("test", 20)):
        for index in range(count):
            path = tmp_path / "images" / split / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = torch.randint(0, 128, (3, 16, 16), generator=generator) + 100 * (index % 2)
            PILImage.fromarray(noise.permute(1, 2, 0).to(torch.uint8).numpy()).save(path)
    words = ["--recipe", "ijepa_cifar10", "--root", str(tmp_path / "images"), "--seeds", "0", "1"]
    words += ["--out", str(tmp_path / "out"), "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    words += ["--model.modality.encoder.depth=1", "--model.predictor.depth=1", "--data.val_fraction=0.2"]
    results = real_data.main([*words, "--data.batch_size=24", "--trainer.log_every_n_steps=1"])
    for result in results:
        assert (result["labels"], result["test_samples"], result["steps"]) == (48, 20, 2)
        assert result["raw"]["linear"] == 1.0  # brightness alone tells these classes
        assert all(0 <= result[row][probe] <= 1 for row in ("trained", "untrained") for probe in ("knn", "linear"))
    assert [result["seed"] for result in results] == [0, 1]
    assert real_data.main(words) == results


@pytest.mark.slow
def test_real_data_on_clips_with_several_labels_and_variants(tmp_path):
    """Moving MNIST's layout: every label is probed, each variant is a run of its own."""
    import numpy as np

    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 12)):
        video = rng.integers(0, 256, (count, 20, 64, 64), dtype=np.uint8)
        labels = {"direction": np.arange(count) % 2, "velocity": rng.normal(size=(count, 2)).astype(np.float32)}
        np.savez(tmp_path / f"{split}.npz", video=video, **labels, digit=np.arange(count) % 3)
    words = ["--recipe", "vjepa_moving_mnist", "--root", str(tmp_path), "--seeds", "0", "--out", str(tmp_path / "out")]
    words += ["--each", "data.val_fraction", "0.1", "0.2", "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
    words += ["--trainer.enable_progress_bar=false", "--data.batch_size=16", "--trainer.log_every_n_steps=1"]
    results = real_data.main([*words, "--data.labels=[direction, velocity, digit]"])
    assert [result["labels"] for result in results] == [36, 32]
    probes = {"knn", "linear", "knn_digit", "linear_digit", "r2_velocity"}
    for result in results:
        assert result["test_samples"] == 12
        assert all(set(result[row]) == probes for row in ("trained", "untrained", "raw"))
    with pytest.raises(SystemExit):
        real_data.main([*words[:6], "--each", "data.val_fraction"])
