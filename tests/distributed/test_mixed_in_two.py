"""Clips and images in two gloo processes with DDP, as it is by default: one kind at a step; see mixed_in_two.py."""

import sys
from pathlib import Path

import torch
from processes import in_two

sys.path.insert(0, str(Path(__file__).parent))
import mixed_in_two


def test_two_processes_take_the_same_kind_at_each_step_and_have_the_same_weights(tmp_path):
    in_two(tmp_path, mixed_in_two.main, tmp_path)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    kinds = [kind for kind, _ in one["seen"]]
    assert [kind for kind, _ in other["seen"]] == kinds
    assert (kinds.count("video"), kinds.count("image")) == (6, 4)
    assert all(not set(mine) & set(its) for (_, mine), (_, its) in zip(one["seen"], other["seen"], strict=True))
    for name, value in one["state"].items():
        assert torch.equal(value, other["state"][name]), name
