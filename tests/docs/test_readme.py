"""The README's commands and code blocks run as they stand (with fewer, smaller steps)."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import ROOT, blocks, commands, program
from PIL import Image as PILImage
from short_runs import Parsed

from jepa_lightning.cli.fit import fit
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.config.shipped import shipped

sys.path.insert(0, str(ROOT / "tests" / "weights"))
import layouts as lay

README = (ROOT / "README.md").read_text()
SHORT = [
    "--trainer.max_epochs=-1",
    "--trainer.max_steps=2",
    "--trainer.accelerator=cpu",
    "--trainer.val_check_interval=2",
    "--data.batch_size=16",
    "--probe.c=1",
]
TIMM = [  # of the README's own file
    *("--model.modality.encoder.options", '{"depth": 2}', "--model.predictor", "TransformerPredictor"),
    "--model.predictor.depth=1",
]
COUNT = 48  # files of each kind
SMALL = ["--model.modality.encoder.depth=1", "--model.predictor.depth=1"]  # of the shipped configurations
COMMANDS = [line for line in commands(README) if line.startswith("jepa-")]


def write_video(path: Path, shade: int) -> None:
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for k in range(20):
            pixels = np.full((32, 48, 3), shade, np.uint8)
            pixels[8:24, 2 * k % 32 : 2 * k % 32 + 8] = 255 - shade
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Class folders of clips, and a CSV file that lists them."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(COUNT):
        write_video(folder / ("run" if i % 2 else "sit") / f"{i}.mp4", 3 * i)
    rows = [f"{'run' if i % 2 else 'sit'}/{i}.mp4,{i / 8},{'run' if i % 2 else 'sit'}" for i in range(COUNT)]
    (folder / "list.csv").write_text("\n".join(["path,speed,action", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Sounds of three speakers, and a CSV file that lists them."""
    soundfile = pytest.importorskip("soundfile")
    folder = tmp_path_factory.mktemp("sounds")
    rows = ["path,word,speaker"]
    for i in range(COUNT):
        tone = np.sin(np.arange(9000 + 100 * i) * (0.1 + 0.05 * (i % 2))) * 0.3
        soundfile.write(folder / f"{i}.wav", tone, 8000)
        rows.append(f"{i}.wav,{'yes' if i % 2 else 'no'},{('eve', 'tom', 'ann')[i % 3]}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def clouds(tmp_path_factory):
    """Class folders of clouds."""
    folder = tmp_path_factory.mktemp("clouds")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        path = folder / ("flat" if i % 2 else "round") / f"{i}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, rng.normal(size=(300, 3)) * ((1, 1, 0.1) if i % 2 else (1, 1, 1)))
    return folder


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Rings of seven types of nodes in the raw files of a TUDataset."""
    pytest.importorskip("torch_geometric")
    folder = tmp_path_factory.mktemp("graphs")
    raw = folder / "MUTAG" / "raw"
    raw.mkdir(parents=True)
    count, size = COUNT, 7
    lines: dict[str, list[str]] = {"A": [], "graph_indicator": [], "graph_labels": [], "node_labels": []}
    for graph in range(count):
        first = graph * size + 1
        for node in range(size):
            after = first + (node + 1) % size
            lines["A"] += [f"{first + node}, {after}", f"{after}, {first + node}"]
            lines["graph_indicator"].append(str(graph + 1))
            lines["node_labels"].append(str(node if graph % 2 else (node * node) % size))
        lines["graph_labels"].append(str(graph % 2))
    for name, rows in lines.items():
        (raw / f"MUTAG_{name}.txt").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the README's first command leaves."""
    folder = tmp_path_factory.mktemp("run")
    fit(["--config", "image.yaml", "--trainer.default_root_dir", str(folder), "--data.samples=64", *SMALL, *SHORT])
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """An official file's layout, with random weights of the width that the README says, and of one layer."""
    width = 1280
    state = {**lay.patch(width=width), **lay.layers("blocks.", width, 1, width), **lay.norm("norm", width)}
    state = lay.wrapped({**state, "pos_embed": lay.published((4, 4), width)[None]})
    path = tmp_path_factory.mktemp("released") / "IN1K-vit.h.14-300e.pth.tar"
    torch.save({"target_encoder": state, "epoch": 300}, path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch, videos, sounds, clouds, graphs, run, released):
    """A working folder with what the README supposes there: the reader's own data, and the YAML that it shows."""
    monkeypatch.chdir(tmp_path)
    for i in range(COUNT):
        path = tmp_path / "my_images" / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PILImage.new("RGB", (32, 32), (2 * i, 200 - 2 * i, 90)).save(path)
    PILImage.new("RGB", (60, 40), (90, 20, 200)).save(tmp_path / "photo.jpg")
    (tmp_path / released.name).symlink_to(released)
    (tmp_path / "my_videos").symlink_to(videos)
    (tmp_path / "my_audio").symlink_to(sounds)
    (tmp_path / "my_clouds").symlink_to(clouds)
    (tmp_path / "my_graphs").symlink_to(graphs)
    shutil.copytree(run, tmp_path / "runs" / "image")
    for block in blocks(README, "yaml"):
        name = re.match(r"# (\S+\.yaml)", block)
        if name:
            (tmp_path / name[1]).write_text(block)
    return tmp_path


def test_there_are_commands():
    assert len(COMMANDS) >= 2
    assert blocks(README, "python")


@pytest.mark.usefixtures("no_plots", "quick_attentive", "quick_logistic")
@pytest.mark.parametrize("command", COMMANDS)
def test_command(folder, command):
    name, *words = shlex.split(command, comments=True)
    small = TIMM if "my_run.yaml" in words else [] if "own_images.yaml" in words else SMALL
    more = {"jepa-fit": [*small, *SHORT], "jepa-finetune": ["--epochs=1", "--accelerator=cpu"]}.get(name, [])
    program(name)([*words, *more])
    left = {"jepa-embed": "features.npz", "jepa-probe": "runs/image/probe/report.md", "jepa-view": "runs/image/view"}
    left["jepa-finetune"] = "runs/image/finetune/model"
    assert (folder / left.get(name, "runs")).exists()


@pytest.mark.usefixtures("no_plots", "quick_logistic")
@pytest.mark.parametrize("block", blocks(README, "python"))
def test_python(folder, block):
    exec(compile(block.replace("max_steps=100", "max_steps=2"), "README.md", "exec"), {"__name__": "readme"})


@pytest.fixture(scope="module")
def parse():
    """Parses words of `jepa-fit`, by one parser."""
    load_plugins()
    cli = Parsed(["--config", "image.yaml"])
    return lambda words: cli.parse_arguments(cli.parser, words)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("recipes/")])
def test_recipe_parses_and_names_what_exists(name, parse, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--config", name, "--print_config"])
    assert stop.value.code in (0, None)
    assert "class_path: jepa_lightning.encoders" in capsys.readouterr().out


def test_what_the_readme_shows_exists():
    for path in re.findall(r"\]\(([^)#:]+)\)|src=\"([^\"]+)\"", README):
        assert (ROOT / (path[0] or path[1])).exists(), path
