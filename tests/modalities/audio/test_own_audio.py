"""`own_audio.yaml` on a small folder, also with clips of another length: a short run ends with a trained encoder."""

import json

import numpy as np
import pytest
from scipy.io import wavfile

from jepa_lightning.cli.fit import fit


@pytest.mark.parametrize("seconds", [[], ["--model.modality.seconds", "0.4"]])
def test_a_folder_of_recordings_of_several_lengths(tmp_path, seconds):
    generator = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "audio" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(path, 16000, generator.integers(-9000, 9000, 3000 + 700 * number, dtype=np.int16))
    words = ["own_audio.yaml", "--data.root", str(tmp_path / "audio"), "--trainer.default_root_dir", str(tmp_path)]
    words += ["--data.batch_size", "8", "--data.val_fraction", "0.3", "--data.num_workers", "0", *seconds]
    words += ["--trainer.max_steps", "3", "--trainer.val_check_interval", "3", "--pictures.enabled", "false"]
    fit([*words, "--trainer.enable_progress_bar", "false"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 3  # more than the two batches of an epoch
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
