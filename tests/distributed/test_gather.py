"""Regularizers over the samples of two processes against one process with the whole batch; see gathering.py."""

import sys
from pathlib import Path

import pytest
import torch
from processes import in_two

sys.path.insert(0, str(Path(__file__).parent))
import gathering


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("gather")
    in_two(folder, gathering.main, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("part", gathering.PARTS)
@pytest.mark.parametrize("name", gathering.NAMES)
def test_gathered_it_is_one_process_with_the_whole_batch(found, name, part):
    """The value on each process, and the gradients that DDP averages; "exact" is in float64 throughout."""
    net = gathering.nets(False)[name]
    expected = gathering.value_and_gradients(net, *gathering.batch(sum(gathering.PARTS[part])))
    tolerance = 1e-12 if name == "exact" else 1e-6
    for rank in (0, 1):
        for mine, whole in zip(found[rank][name, part, True], expected, strict=True):
            scale = float(whole.abs().max())
            assert scale > 1e-3
            torch.testing.assert_close(mine, whole, rtol=0, atol=tolerance * max(scale, 1.0))


@pytest.mark.parametrize("part", gathering.PARTS)
@pytest.mark.parametrize("name", gathering.ALIGNED)
def test_alignment_tells_apart_the_samples_of_both(found, name, part):
    """Value and averaged gradients, those of the temperature too, are one process's of the whole batch."""
    net = gathering.nets(None)[name]
    expected = gathering.value_and_gradients(net, *gathering.batch(sum(gathering.PARTS[part])))
    assert len(expected) > 3
    for rank in (0, 1):
        for mine, whole in zip(found[rank][name, part, None], expected, strict=True):
            scale = float(whole.abs().max())
            assert scale > 1e-4
            torch.testing.assert_close(mine, whole, rtol=0, atol=1e-5 * max(scale, 1.0))


@pytest.mark.parametrize("name", gathering.NAMES)
def test_without_gathering_each_process_has_its_own_statistics(found, name):
    """Its own half's value, and gradients that are the mean of both halves'."""
    net, half = gathering.nets(False)[name], 4
    x, valid = gathering.batch(2 * half)
    halves = [gathering.value_and_gradients(net, x[part], valid[part]) for part in (slice(half), slice(half, None))]
    for rank in (0, 1):
        value, *gradients = found[rank][name, "even", False]
        torch.testing.assert_close(value, halves[rank][0], rtol=0, atol=1e-6)
        for mine, one, other in zip(gradients, halves[0][1:], halves[1][1:], strict=True):
            torch.testing.assert_close(mine, (one + other) / 2, rtol=0, atol=1e-6)
        assert abs(float(value - found[rank][name, "even", True][0])) > 1e-3


def test_a_sum_over_ranks_and_its_gradient(found):
    """Of f = sum over ranks r of (r + 1) |total|^2: each rank's value has the gradient of all of it."""
    for rank in (0, 1):
        total, gradient = found[rank]["sum"]
        assert total.tolist() == [3.0, 6.0]
        assert gradient.tolist() == [2 * 3.0 * (1 + 2), 2 * 6.0 * (1 + 2)]
