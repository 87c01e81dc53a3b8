"""`own_clouds.yaml` on a small folder: a few steps end with a trained encoder and a probe; views are turned any way."""

import json

import numpy as np

from jepa_lightning.cli.fit import fit


def test_a_folder_of_clouds_of_several_sizes(tmp_path, capsys):
    generator = np.random.default_rng(0)
    for number in range(36):
        path = tmp_path / "clouds" / "ab"[number % 2] / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, generator.normal(size=(300 + 20 * number, 3)).astype(np.float32))
    words = ["own_clouds.yaml", "--data.root", str(tmp_path / "clouds"), "--trainer.default_root_dir", str(tmp_path)]
    words += ["--data.batch_size", "8", "--data.val_fraction", "0.3", "--data.num_workers", "0"]
    words += ["--trainer.max_steps", "4", "--trainer.val_check_interval", "4", "--pictures.enabled", "false"]
    fit([*words, "--trainer.enable_progress_bar", "false"])
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 4  # more than the three batches of an epoch
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert "rotation: so3" in (tmp_path / "config.yaml").read_text()
    assert "linear probe of the last weights: " in capsys.readouterr().out
