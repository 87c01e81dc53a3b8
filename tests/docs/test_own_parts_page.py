"""The page on a masker, a loss and a regularizer: its files run by its own commands, and do what they say."""

import json
import math
import shlex
import sys
from pathlib import Path

import pytest
import torch
from pages import ROOT, commands, named_blocks, program

from jepa_lightning import Tokens

PAGE = (ROOT / "docs" / "own-parts.md").read_text()
SHORT = [
    *("--trainer.max_epochs=-1", "--trainer.max_steps=2", "--trainer.accelerator=cpu", "--data.samples=96"),
    *(
        "--data.num_workers=0",
        "--trainer.limit_val_batches=1",
        "--trainer.num_sanity_val_steps=0",
        "--probe.enabled=false",
    ),
    *(
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--data.batch_size=16",
        "--pictures.enabled=false",
    ),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    for name, text in named_blocks(PAGE).items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        for line in commands(PAGE):
            name, *words = shlex.split(line)
            program(name)([*words, *(SHORT if name == "jepa-fit" else ["--samples", "2", "--pictures", "masks"])])
        import my_parts

        yield my_parts
    sys.modules.pop("my_parts")


def test_they_are_in_the_run(parts):
    run = Path("runs/my_parts")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 2
    assert 0 < summary["train_loss"] < 4
    assert "train/loss_zero_mean" in (run / "metrics.csv").read_text()
    assert (run / "view" / "masks_1.png").is_file()


def test_columns(parts):
    tokens = Tokens(values=torch.zeros(4, 12, 3), positions=torch.zeros(1, 12, 2), grid=(3, 4))
    (masks,) = parts.Columns(hidden=1)(tokens, torch.Generator().manual_seed(0))
    assert masks.context.shape == (4, 9)
    assert masks.targets.shape == (4, 1, 3)
    for context, hidden in zip(masks.context.tolist(), masks.targets[:, 0].tolist(), strict=True):
        assert hidden == [hidden[0], hidden[0] + 4, hidden[0] + 8]
        assert sorted(context + hidden) == list(range(12))


def test_angle(parts):
    one, other = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[1.0, 1.0]]]])
    assert parts.Angle()(one, other).item() == pytest.approx(math.pi / 4)
