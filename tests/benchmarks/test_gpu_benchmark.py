"""The script for a card, on the CPU with tiny models."""

import json
import sys

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_checks import CHECKS


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(tmp_path, *options):
    file = tmp_path / "new" / "gpu.json"
    gpu.main(["--device", "cpu", "--tiny", "--minutes", "1", "--json", str(file), *options])
    return {row["row"]: row for row in json.loads(file.read_text())["results"]}


@pytest.mark.long
def test_all_checks_are_right_on_a_cpu(tmp_path, capsys):
    rows = run(tmp_path, "--only", "check")
    assert list(rows) == [f"check: {name}" for name in CHECKS]
    assert all(row["right"] for row in rows.values())
    assert "WRONG" not in capsys.readouterr().out


@pytest.mark.long
def test_steps_and_what_fails_beside_them(tmp_path, capsys):
    """A folder that is no clone gives rows with an error, and the rest goes on."""
    rows = run(tmp_path, "--only", "L/16", "192x12 32 px B512 ours, eager", "--ijepa", str(tmp_path))
    assert next(iter(rows)) == "L/16 B128 ours, compiled, graphs"
    assert {"L/16 B128 official", "L/16 B128 official, tuned"} <= rows.keys()
    for name, row in rows.items():
        if "official" in name:
            assert row["error"].startswith("ModuleNotFoundError")
        else:
            assert row["ms"] > 0
            assert row["samples_per_second"] == pytest.approx(rows[name]["samples_per_second"])
            assert row["tflops"] > 0
    assert "backward" in rows["L/16 B128 ours, parts"]["parts_ms"]
    printed = capsys.readouterr().out
    assert "ModuleNotFoundError" in printed
    assert "left out" not in printed


@pytest.mark.long
def test_kernels_of_a_step_by_their_kind(tmp_path):
    rows = run(tmp_path, "--only", "kernels")
    assert list(rows) == [
        f"{size} ours, compiled, graphs, kernels" for size in ("L/16 B128", "S/16 B256", "192x12 32 px B512")
    ]
    for row in rows.values():
        found = row["kernels_ms"]
        assert {"attention", "matrix products", "optimiser, EMA", "other"} <= found.keys()
        assert all(ms >= 0 for ms in found.values())
        assert (
            0.05 * row["ms"] < sum(found.values()) < 20 * row["ms"]
        )  # a profiler slows a tiny step, and hides nothing


CLONE = {  # what is called of a clone, without anything of it
    "helper": """
import torch
from src.models.vision_transformer import Model
def init_model(device, patch_size, model_name, crop_size, pred_depth, pred_emb_dim):
    return Model().to(device), Model().to(device)
class Rates:
    def step(self): pass
def init_opt(encoder, predictor, **settings):
    groups = [{"params": list(encoder.parameters())}, {"params": list(predictor.parameters())}]
    return torch.optim.AdamW(groups), None, Rates(), Rates()
""",
    "models.vision_transformer": """
import torch
class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads, self.qkv, self.proj = 2, torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)
        self.proj_drop = torch.nn.Dropout(0.0)
    def forward(self, x): return self.proj(self.qkv(x)[..., :8]), None
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Attention()
    def forward(self, x, kept=None, hidden=None):
        x = x.flatten(2).transpose(1, 2)[:, :4, :1].expand(-1, -1, 8) if x.ndim == 4 else x
        return self.attention(x)[0]
""",
    "masks.multiblock": """
import torch
class MaskCollator:
    def __init__(self, **settings): pass
    def __call__(self, batch): return torch.zeros(len(batch)), [torch.zeros(1)], [torch.zeros(1)]
""",
    "masks.utils": "def apply_masks(h, masks): return h",
    "utils.tensors": "def repeat_interleave_batch(h, batch, repeat): return h",
}


def test_the_official_step_is_called_from_a_clone(tmp_path):
    for name, source in CLONE.items():
        path = tmp_path / "src" / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    try:
        rows = run(tmp_path, "--only", "L/16 B128 official", "--ijepa", str(tmp_path))
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "src"]:
            del sys.modules[name]
    assert set(rows) == {"L/16 B128 official", "L/16 B128 official, tuned"}
    assert all(row["ms"] > 0 for row in rows.values())
    assert str(tmp_path) not in sys.path


@pytest.mark.long
def test_short_cuts_change_no_loss_but_for_rounding(tmp_path):
    rows = run(tmp_path, "--only", "S/16 B256 ours")
    plain, mine = rows["S/16 B256 ours, plain"], rows["S/16 B256 ours, eager"]
    assert mine["loss"] == pytest.approx(plain["loss"], rel=1e-2)
    assert rows["S/16 B256 ours, compiled"]["loss"] == pytest.approx(mine["loss"], rel=1e-2)


def test_rows_start_only_where_there_is_time(tmp_path):
    bench = gpu.Bench(torch.device("cpu"), gpu.TINY, steps=1, seconds=0.0)
    rows = [gpu.Row("long", 10.0, lambda: {"ms": 1.0}), gpu.Row("over", -1e9, lambda: {"ms": 2.0})]
    first, second = gpu.measure(bench, rows, {}, tmp_path / "gpu.json")
    assert first["left_out"] == "no time"
    assert second["ms"] == 2.0
    assert len(json.loads((tmp_path / "gpu.json").read_text())["results"]) == 2


@pytest.mark.slow
def test_jepa_fit_beside_the_bare_step(tmp_path):
    rows = run(tmp_path, "--only", "192x12 32 px B512 ours, eager", "one thread")
    assert rows["192x12 jepa-fit, one thread"]["share_of_the_step"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "cpu"], "use it with --tiny"),
        (["--device", "cpu", "--tiny", "--ijepa", "nowhere"], "no folder nowhere"),
        (["--device", "cpu", "--tiny", "--only", "nothing"], "no row is called so"),
    ],
)
def test_mistakes_end_with_code_2(options, said, capsys):
    with pytest.raises(SystemExit) as ended:
        gpu.main(options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
