"""Masks of the shipped configurations of images, clips, audio and clouds have one size at every step: nothing is
compiled or allocated anew."""

from pathlib import Path

import pytest
import torch
import yaml

from jepa_lightning import Tokens, maskers

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GRIDS = {
    "image": (6, 6),
    "textimage": (8, 8),
    "video": (4, 8, 8),
    "hierarchy": (8, 8),
    "audio": (1, 12),
}
VARIED = {"graph", "text"}  # whose samples differ in length, too


def nodes(value):
    """Every masker that a configuration names, those inside others left to them."""
    if isinstance(value, dict):
        if hasattr(maskers, str(value.get("class_path"))):
            yield value
            return
        for part in value.values():
            yield from nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from nodes(part)


def built(value):
    if isinstance(value, dict) and "class_path" in value:
        return getattr(maskers, value["class_path"])(**{n: built(v) for n, v in value.get("init_args", {}).items()})
    return [built(part) for part in value] if isinstance(value, list) else value


def test_all_configs_are_looked_at():
    found = {file.stem for file in CONFIGS.glob("*.yaml") if list(nodes(yaml.safe_load(file.read_text())))}
    assert found == {*GRIDS, *VARIED, "pointcloud"}


@pytest.mark.parametrize("name", [*GRIDS, "pointcloud"])
def test_one_size_at_every_step(name):
    grid = GRIDS.get(name)
    for node in nodes(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())):
        if node["class_path"] == "TimeSpans":  # of captions
            continue
        masker = built(node)
        count = 32 if grid is None else torch.Size(grid).numel()
        tokens = Tokens(values=torch.zeros(8, count, 3), positions=torch.randn(1, count, 2), grid=grid)
        shapes = set()
        for seed in range(12):
            masks = masker(tokens, torch.Generator().manual_seed(seed))
            shapes.add(tuple((tuple(mask.context.shape), tuple(mask.targets.shape)) for mask in masks))
        assert len(shapes) == 1, (node, shapes)


def test_sizes_vary_without_it():
    """So the test above can fail."""
    tokens = Tokens(values=torch.zeros(8, 64, 3), positions=torch.randn(1, 64, 2), grid=(8, 8))
    draws = [maskers.MultiBlock()(tokens, torch.Generator().manual_seed(seed))[0] for seed in range(12)]
    assert len({(mask.context.shape, mask.targets.shape) for mask in draws}) > 3
