"""The page that adds a modality: its files make a package that works, by the page's own commands."""

import importlib
import json
import shlex
import sys
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from pages import ROOT, blocks, commands, install, named_blocks, program

PAGE = (ROOT / "docs" / "new-modality.md").read_text()
SHORT = [
    *("--trainer.max_epochs=-1", "--trainer.max_steps=4", "--trainer.accelerator=cpu", "--data.samples=96"),
    *("--data.num_workers=0", "--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null"),
    *("--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false", "--probe.c=1"),
    *("--trainer.num_sanity_val_steps=0", "--pictures.samples=2"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the page's files, recordings, and the package installed as the page's first command says."""
    folder = tmp_path_factory.mktemp("stranger")
    install(PAGE, folder)
    for i in range(40):
        path = folder / "my_recordings" / ("well" if i % 2 else "ill") / f"{i}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.sin(np.arange(700) * (0.1 + 0.1 * (i % 2))) + 0.1 * i)
    return folder


@pytest.fixture(scope="module")
def stranger(place):
    """The same, with the installed package where the interpreter looks; a short run is in `runs/ecg`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place / "site")
        patch.chdir(place)
        importlib.invalidate_caches()
        yield place
    for name in [name for name in sys.modules if name.partition(".")[0] == "jepa_ecg"]:
        del sys.modules[name]


def run(line):
    name, *words = shlex.split(line)
    program(name)([*words, *SHORT] if name == "jepa-fit" else words)


def test_it_is_less_than_100_lines():
    python = [text for name, text in named_blocks(PAGE).items() if name.endswith(".py")]
    assert 0 < sum(len(text.splitlines()) for text in python) < 100


def test_it_is_installed_as_a_package(stranger):
    found = [point for point in entry_points(group="jepa_lightning.modalities") if point.name == "ecg"]
    assert [point.value for point in found] == ["jepa_ecg"]


@pytest.mark.long
@pytest.mark.usefixtures("no_plots", "quick_attentive", "quick_logistic")
def test_its_commands_in_their_order(stranger):
    """Training, judging, drawing, embedding: as typed, in one folder, none naming the package."""
    lines = [line for line in commands(PAGE) if line.startswith("jepa-")]
    assert {line.split()[0] for line in lines} == {"jepa-fit", "jepa-probe", "jepa-view", "jepa-embed"}
    first, *others = lines
    run(first)
    summary = json.loads((stranger / "runs" / "ecg" / "summary.json").read_text())
    assert summary["modality"] == "ecg"
    assert summary["steps"] == 4
    assert {"knn", "knn_untrained", "r2_rate", "r2_rate_untrained"} <= {k for k, v in summary.items() if v is not None}
    assert (stranger / "runs" / "ecg" / "pictures" / "masks.png").is_file()
    for line in others[:3]:
        run(line)
    report = (stranger / "runs" / "ecg" / "probe" / "report.md").read_text()
    assert all(row in report for row in ("trained", "untrained", "raw", "chance", "rhythm", "rate"))
    assert len(list((stranger / "runs" / "ecg" / "view").glob("*.png"))) >= 2
    with np.load(stranger / "features.npz") as features:
        assert features["features"].shape == (96 + 24, 96)
        assert {"labels.rhythm", "labels.rate"} <= set(features.files)
    block, _ = blocks(PAGE, "python")
    scope = {"__name__": "page"}
    exec(compile(block, "new-modality.md", "exec"), scope)
    assert scope["vectors"].shape == (len(scope["batch"]["id"]), 96)
    for line in others[3:]:
        run(line)


def test_channels_that_lie_near_each_other_are_hidden():
    """Whole channels at all times, those nearest to the first, other ones in each sample; nothing of them leaks."""
    _, block = blocks(PAGE, "python")
    scope = {"__name__": "page"}
    exec(compile(block, "new-modality.md", "exec"), scope)
    jepa = scope["jepa"]
    assert scope["predicted"].shape == (5, 1, 24, 48)
    eeg = torch.randn(5, 8, 256)
    tokens = jepa.tokenizer({"eeg": eeg})
    assert torch.equal(tokens.values[2, 8 * 3 + 1], eeg[2, 3, 32:64])  # channel 3, second piece
    (masks,) = jepa.masker(tokens, torch.Generator().manual_seed(0))
    hidden = []
    for context, target in zip(masks.context.tolist(), masks.targets[:, 0].tolist(), strict=True):
        assert sorted(context + target) == list(range(64))
        channels = {index // 8 for index in target}
        assert {index for index in range(64) if index // 8 in channels} == set(target)
        first, second, third = sorted(channels)  # on a circle of eight: each beside the next
        assert sorted([(second - first) % 8, (third - second) % 8, (first - third) % 8]) == [1, 1, 6]
        hidden.append(tuple(sorted(channels)))
    assert len(set(hidden)) > 1
    before = jepa.encoder(tokens, masks.context)
    changed = eeg.clone()
    for sample, channels in enumerate(hidden):
        changed[sample, list(channels)] += 1.0
    after = jepa.encoder(jepa.tokenizer({"eeg": changed}), masks.context)
    torch.testing.assert_close(after, before)


def test_a_recording_that_is_too_short_is_named(stranger, caplog):
    from jepa_ecg import EcgData

    np.save(stranger / "my_recordings" / "ill" / "0.npy", np.zeros(3))
    data = EcgData(root=str(stranger / "my_recordings"), samples=16, batch_size=4, num_workers=0, max_unreadable=0.5)
    data.or_model = lambda name, value: 512
    seen = [name for batch in data.probe_dataloader() for name in batch["id"]]
    held = [name for batch in data.val_dataloader() for name in batch["id"]]
    assert len(seen) + len(held) == 40
    assert all("expected at least 512 samples, got 3" in why for why in data.unreadable.values())
    assert list(data.unreadable) == ["my_recordings/ill/0.npy"]
