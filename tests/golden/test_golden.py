"""Losses of the first steps and the weights after them, as version 0.1 had them, of shipped configs and recipes.

The figures were taken on one machine. Another machine, another number of threads or another version of torch rounds
differently, so the test allows for rounding; `python tests/golden/test_golden.py` compares bit for bit, for use on the
machine that made them: after a change that should change nothing, first on the version before it (`--write FILE`), then
on the new one (`--against FILE`).
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from jepa_lightning.cli.lightning_cli import JEPACLI
from jepa_lightning.config.plugins import load_plugins

FIGURES = Path(__file__).with_name("figures.json")
CASES = {
    "image": ["--data.batched", "false"],  # 0.1 drew crops sample by sample
    "video": ["--data.batched", "false"],
    "audio": ["--data.batched", "false"],  # likewise its order of numbers
    "pointcloud": ["--data.batched", "false"],
    "graph": [],
    "recipes/ijepa_cifar10": ["--data.root", "null", "--data.batched", "false"],
    "recipes/graphjepa_mutag": [
        *("--data.root", "null", "--data.name", "null", "--data.batch_size", "32"),
        *("--model.modality.features", "4", "--model.modality.edge_features", "0"),
    ],
    "recipes/vjepa_moving_mnist": ["--data.root", "null", "--data.labels", "null", "--data.batched", "false"],
}
QUIET = [
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.num_sanity_val_steps", "0"),
    *("--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--probe.enabled", "false", "--pictures.enabled", "false", "--trainer.limit_val_batches", "0"),
    *("--data.num_workers", "0", "--data.samples", "640", "--trainer.enable_checkpointing", "false"),
]


class Losses(Callback):
    def __init__(self, steps):
        self.steps, self.found = steps, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.found.append(float(outputs["loss"]))
        trainer.should_stop = len(self.found) >= self.steps  # schedules stay those of a run of twenty steps


class Run(JEPACLI):
    steps = 20

    def before_fit(self):
        self.losses = Losses(self.steps)
        self.trainer.callbacks.insert(0, self.losses)
        super().before_fit()


def measure(name, folder, steps=20):
    load_plugins()
    Run.steps = steps
    words = ["--config", f"{name}.yaml", *CASES[name], *QUIET, "--trainer.max_steps", "20"]
    run = Run(["fit", *words, "--trainer.default_root_dir", str(folder)])
    parts = {"encoder": run.model.encoder, "predictor": run.model.predictor, "target": run.model.target.encoder}
    found = {"losses": run.losses.found}
    for part, module in parts.items():
        weights = [p.detach().contiguous() for _, p in module.named_parameters()]
        found[part] = hashlib.sha256(b"".join(p.numpy().tobytes() for p in weights)).hexdigest()
        key = {"encoder": "sum", "target": "target_sum", "predictor": "predictor_sum"}[part]
        found[key] = float(sum(p.double().sum() for p in weights))
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name.startswith("recipes/") else ()) for name in CASES]
)
def test_the_first_steps_of_shipped_configs_are_those_of_0_1(name, tmp_path):
    """Rounding grows from step to step: three steps here, all twenty with -m slow."""
    expected = json.loads(FIGURES.read_text())[name]
    found = measure(name, tmp_path, steps=3)
    assert found["losses"] == pytest.approx(expected["losses"][:3], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_and_the_weights_after_them(name, tmp_path):
    expected = json.loads(FIGURES.read_text())[name]
    found = measure(name, tmp_path)
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-2)
    for key in ("sum", "target_sum", "predictor_sum"):
        assert found[key] == pytest.approx(expected[key], rel=1e-2, abs=0.5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="write the figures of this version on this machine")
    parser.add_argument("--against", type=Path, default=FIGURES, help="the figures to compare with")
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as place:
            figures[case] = measure(case, place)
    if args.write:
        args.write.write_text(json.dumps(figures, indent=1) + "\n")
        sys.exit()
    known = json.loads(args.against.read_text())
    same = {case: figures[case] == known[case] for case in CASES}
    print("\n".join(f"{case:<30} {'bit for bit' if fine else 'DIFFERENT'}" for case, fine in same.items()))
    sys.exit(not all(same.values()))
