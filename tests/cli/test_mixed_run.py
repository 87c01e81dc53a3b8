"""The configuration of docs/modalities.md that trains on clips and images: fit, load, read the run's data."""

import torch
from pages import ROOT, named_blocks
from short_runs import SHORT, Run

import jepa_lightning
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.evaluation.open_data import open_data
from modalities.video import VideoData


def test_clips_and_images_from_yaml(tmp_path):
    load_plugins()
    page = (ROOT / "docs" / "modalities.md").read_text()
    text = named_blocks(page)["with_images.yaml"].replace("samples: 1000", "samples: 64")
    (tmp_path / "with_images.yaml").write_text(text)
    settings = SHORT[: SHORT.index("--data.samples")]
    steps = settings.index("--trainer.max_steps")
    words = [*settings[:steps], *settings[steps + 2 :], "--trainer.max_epochs", "2"]
    config = ["--config", "video.yaml", "--config", str(tmp_path / "with_images.yaml")]
    run = Run(["fit", *config, *words, "--trainer.default_root_dir", str(tmp_path / "run")])
    assert run.trainer.global_step == 6  # 2 batches of clips and 1 of images, twice
    before = run.before.encoder.embed.state_dict()
    for name, value in run.model.encoder.embed.state_dict().items():
        assert not torch.equal(value, before[name]), name
    encoder = jepa_lightning.load(tmp_path / "run")
    assert encoder.embed({"image": torch.zeros(2, 1, 32, 32)}).shape == (2, 16)
    opened = open_data(encoder)
    assert isinstance(opened.module, VideoData)
    batch = next(iter(opened.module.val_dataloader()))
    assert encoder.embed(batch).shape == (len(batch["id"]), 16)
