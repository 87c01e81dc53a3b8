"""`own_images.yaml` on a small folder: a run of a few steps ends with a trained encoder and probes of the labels."""

import json

import numpy as np
from PIL import Image

from jepa_lightning.cli.fit import fit


def test_a_folder_of_pictures_of_several_sizes(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(48):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (50 + number, 70, 3), dtype=np.uint8)).save(path)
    words = ["own_images.yaml", "--data.root", str(tmp_path / "images"), "--trainer.default_root_dir", str(tmp_path)]
    words += ["--data.batch_size", "16", "--data.val_fraction", "0.3", "--data.num_workers", "0"]
    words += ["--trainer.max_steps", "3", "--trainer.val_check_interval", "3", "--pictures.enabled", "false"]
    fit([*words, "--trainer.enable_progress_bar", "false"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 3  # more than the two batches of an epoch
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
