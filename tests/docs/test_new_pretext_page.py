"""The page that adds a pretext: its files make a package that `jepa-fit` runs, by the page's own commands."""

import importlib
import json
import shlex
import sys

import pytest
import yaml
from pages import ROOT, blocks, commands, install, named_blocks, program

from jepa_lightning import load

PAGE = (ROOT / "docs" / "new-pretext.md").read_text()
SHORT = [
    *("--trainer.max_epochs=-1", "--trainer.max_steps=4", "--trainer.accelerator=cpu", "--data.samples=96"),
    *("--data.num_workers=0", "--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null"),
    *("--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false", "--data.batch_size=16"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.log_every_n_steps=2", "--data.probe_samples=32", "--probe.c=1"),
    "--pictures.samples=2",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the page's files, and the package installed as the page's first command says."""
    folder = tmp_path_factory.mktemp("halves")
    install(PAGE, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "site")
        patch.chdir(folder)
        importlib.invalidate_caches()
        yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "jepa_halves"]:
        del sys.modules[name]


def test_it_is_less_than_30_lines():
    python = [text for name, text in named_blocks(PAGE).items() if name.endswith(".py")]
    assert 0 < sum(len(text.splitlines()) for text in python) < 30


@pytest.mark.long
def test_its_commands_in_their_order(place):
    first, second = [line for line in commands(PAGE) if line.startswith("jepa-fit")]
    for line, run, target in ((first, "halves", "EMA"), (second, "online", "Online")):
        name, *words = shlex.split(line)
        program(name)([*words, *SHORT])
        config = yaml.safe_load((place / "runs" / run / "config.yaml").read_text())
        assert config["model"]["pretext"]["class_path"] == "jepa_halves.SecondHalf"
        assert config["model"]["target"]["class_path"].endswith(target)
        summary = json.loads((place / "runs" / run / "summary.json").read_text())
        assert summary["steps"] == 4
        assert all(summary[key] is not None for key in ("train_loss", "effective_rank", "knn", "linear_untrained"))
        assert not (place / "runs" / run / "pictures" / "masks.png").exists()  # it hides nothing at random
        assert load(place / "runs" / run).dim == 64  # the package is a plug-in, and so trusted


def test_its_python(place):
    import torch

    scope = {"__name__": "page"}
    exec(compile(blocks(PAGE, "python")[0], "new-pretext.md", "exec"), scope)
    outcome = scope["outcome"]
    assert outcome.predictions[0].predicted.shape == outcome.predictions[0].target.shape == (2, 1, 32, 32)
    assert torch.isfinite(scope["loss"])
    scope["loss"].backward()
    jepa = scope["jepa"]
    assert all(p.grad is not None for p in jepa.encoder.parameters())
    assert all(p.grad is None for p in jepa.target.parameters())
