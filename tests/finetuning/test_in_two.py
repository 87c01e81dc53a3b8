"""Fine-tuning in two processes, each with half of every batch, is that in one."""

import sys
from pathlib import Path

import numpy as np
import torch
from processes import in_two
from safetensors.torch import load_file

import jepa_lightning

sys.path.insert(0, str(Path(__file__).parent))
import fine_tuned_by_two


def test_two_processes_are_one(short_run, tmp_path):
    """The same model, scores and files: 16 training samples in batches of 8, 2 x 4 of two processes."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 16), ("val", 8), ("test", 10)):
        label = np.arange(number) % 2
        images = rng.integers(0, 60, (number, 32, 32, 3))
        images[np.arange(number), :, :, label] += 100
        np.savez(tmp_path / f"{split}.npz", images=images.astype(np.uint8), label=label)
    run = short_run("image")[0]
    data = {"root": str(tmp_path), "labels": ["label"], "crop_scale": [1.0, 1.0], "num_workers": 0, "batched": False}
    (tmp_path / "group").mkdir()
    in_two(tmp_path / "group", fine_tuned_by_two.finetune, run, data, tmp_path / "two")
    settings = {**fine_tuned_by_two.SETTINGS, "data": {**data, "batch_size": 8}, "devices": 1}
    one = jepa_lightning.finetune(run, out=tmp_path / "one", **settings)
    two = jepa_lightning.finetuning.outcome.FineTuneReport.read(tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )
    for found, expected in zip(two.scores, one.scores, strict=True):
        assert found == expected
    name = "fine-tuned, 1, draw 0"
    assert {**two.fits[name], "seconds": 0} == {**one.fits[name], "seconds": 0}
    weights = [load_file(tmp_path / which / "model" / "model.safetensors") for which in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=0, atol=1e-5, msg=key)
