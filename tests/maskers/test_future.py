"""The past is shown, the future hidden."""

import pytest
import torch

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import Future
from jepa_lightning.tokens import Tokens


def make_tokens(grid, batch=3, **fields):
    positions = grid_positions(grid)
    return Tokens(values=torch.zeros(batch, positions.shape[1], 1), positions=positions, grid=grid, **fields)


@pytest.mark.parametrize(
    ("grid", "ratio", "hidden"), [((8, 2, 3), 0.5, 4), ((8,), 0.3, 2), ((4, 2, 2), 0.01, 1), ((4, 5), 0.99, 3)]
)
def test_every_step_is_seen_before_or_asked_for_after(grid, ratio, hidden):
    tokens = make_tokens(grid)
    (masks,) = Future(ratio=ratio)(tokens, torch.Generator())
    times = tokens.positions[0, :, 0]
    assert masks.targets.shape[:2] == (3, 1)
    assert torch.cat([masks.context, masks.targets[:, 0]], 1).tolist() == [list(range(tokens.count))] * 3
    assert times[masks.context].max() < times[masks.targets].min()
    assert len(times[masks.targets].unique()) == hidden


def test_what_has_no_future():
    with pytest.raises(ValueError, match="ratio must lie between 0 and 1, got 1"):
        Future(ratio=1)
    with pytest.raises(ValueError, match="at least two time steps, got 1x4"):
        Future()(make_tokens((1, 4)), torch.Generator())
    with pytest.raises(ValueError, match="padding"):
        Future()(make_tokens((4,), valid=torch.ones(3, 4, dtype=torch.bool)), torch.Generator())
