"""Text in two gloo processes: one vocabulary, kept in the checkpoint, whatever shards the weights; and resumed."""

import sys
from pathlib import Path

import pytest
import torch
from processes import in_two

from jepa_lightning import load

sys.path.insert(0, str(Path(__file__).parent))
import two_processes

WORDS = [
    *("--config", "text.yaml", "--data.samples", "96", "--data.batch_size", "8", "--data.probe_samples", "20"),
    *("--data.num_workers", "0", "--model.modality.vocabulary", "300", "--model.modality.encoder.width", "16"),
    *("--model.modality.encoder.depth", "1", "--model.modality.encoder.heads", "2", "--probe.enabled", "false"),
    *("--pictures.enabled", "false", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"),
    *("--trainer.accelerator", "cpu", "--trainer.devices", "2"),
]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes(tmp_path, strategy):
    words = [*WORDS, "--trainer.strategy", strategy, "--trainer.default_root_dir", str(tmp_path / "run")]
    for name in ("first", "second"):  # a group meets in a folder of its own
        (tmp_path / name).mkdir()
    in_two(tmp_path / "first", two_processes.command, [*words, "--trainer.max_steps", "2"])
    first = load(tmp_path / "run")
    merges = first.tokenizer.merges
    assert (merges[:, 0] >= 0).all()
    text = {"text": ["The cook stirs the soup."]}
    assert torch.isfinite(first.embed(text)).all()
    in_two(tmp_path / "second", two_processes.command, [*words, "--trainer.max_steps", "4", "--ckpt_path", "last"])
    resumed = load(tmp_path / "run")
    assert torch.equal(resumed.tokenizer.merges, merges)  # not fitted a second time
    assert not torch.equal(resumed.embed(text), first.embed(text))


def test_pairs_in_two_sharded(tmp_path):
    small = [f"--model.modality.modalities.{name}.init_args.encoder.init_args" for name in ("image", "text")]
    words = ["--config", "textimage.yaml", "--data.samples", "64", "--data.batch_size", "8", "--data.num_workers", "0"]
    words += [w for part in small for w in (f"{part}.width", "16", f"{part}.depth", "1", f"{part}.heads", "2")]
    words += WORDS[WORDS.index("--probe.enabled") :]
    words += ["--trainer.strategy", "fsdp2", "--trainer.default_root_dir", str(tmp_path / "run")]
    in_two(tmp_path, two_processes.command, [*words, "--trainer.max_steps", "2"])
    found = load(tmp_path / "run")
    assert (found.tokenizer.tokenizers["text"].merges[:, 0] >= 0).any()  # short captions have few pairs
    batch = {"image": torch.randn(2, 3, 48, 48), "text": ["a large disc", "two bars"]}
    assert torch.isfinite(found.embed(batch)).all()
