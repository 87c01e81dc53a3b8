"""Published tables of positions against plain loops; recognised, and stretched to other grids."""

import math

import pytest
import torch

from jepa_lightning.encoders import SinCosPositions, StoredPositions
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.weights.formats.tables import grid_of, published, recognise, resample


def waves(x, width):
    """Sines then cosines of one coordinate, as a list."""
    angles = [x / 10_000 ** (i / (width / 2)) for i in range(width // 2)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def row(place, width, form):
    if form == "columns first":
        return waves(place[1], width // 2) + waves(place[0], width // 2)
    if form == "rows first":
        return waves(place[0], width // 2) + waves(place[1], width // 2)
    if form == "D/2, D/4, D/4":
        return waves(place[0], width // 2) + waves(place[1], width // 4) + waves(place[2], width // 4)
    share = math.ceil(width / 6) * 2
    return [w for x in place for w in waves(x, share)][:width]


@pytest.mark.parametrize("form", ["columns first", "rows first"])
def test_tables_of_images(form):
    table = published((3, 4), 16, form)
    expected = [row((r, c), 16, form) for r in range(3) for c in range(4)]
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float64))
    assert recognise(table.float(), (3, 4)) == form
    assert recognise(table.half(), (3, 4)) == form
    assert recognise(table + 0.1, (3, 4)) is None


@pytest.mark.parametrize("form", ["ceil(D/6)*2 an axis", "D/2, D/4, D/4"])
@pytest.mark.parametrize("width", [24, 32, 40])
def test_tables_of_clips(form, width):
    table = published((2, 3, 4), width, form)
    expected = [row((t, r, c), width, form) for t in range(2) for r in range(3) for c in range(4)]
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float64))
    assert recognise(table, (2, 3, 4)) == form


def test_the_published_form_is_the_default():
    assert torch.equal(published((3, 4), 16), published((3, 4), 16, "columns first"))
    assert torch.equal(published((2, 3, 4), 32), published((2, 3, 4), 32, "ceil(D/6)*2 an axis"))


def test_our_own_positions_are_one_form():
    computed = SinCosPositions(32)(grid_positions((2, 3, 4)))[0]
    assert recognise(computed, (2, 3, 4)) == "even shares"
    assert recognise(SinCosPositions(16)(grid_positions((3, 4)))[0], (3, 4)) == "rows first"


def test_grids_are_found():
    assert grid_of(published((5, 5), 16), 2, (4, 4)) == (5, 5)
    assert grid_of(published((2, 4, 4), 32), 3, (8, 2, 2)) == (2, 4, 4)  # as many tokens as the wrong one
    learned = torch.randn(25, 16)
    assert grid_of(learned, 2, (4, 4)) == (5, 5)
    assert grid_of(torch.randn(12, 16), 2, (3, 4)) == (3, 4)
    assert grid_of(torch.randn(12, 16), 2, (4, 4)) is None


def test_learned_tables_are_interpolated():
    torch.manual_seed(0)
    rows = torch.linspace(0, 1, 6)[:, None, None].expand(6, 6, 8)
    assert recognise(rows.reshape(36, 8), (6, 6)) is None
    found = resample(rows.reshape(36, 8), (6, 6), (3, 12)).view(3, 12, 8)
    torch.testing.assert_close(found[1], torch.full((12, 8), 0.5), rtol=0, atol=1e-6)  # the middle stays the middle
    same = torch.randn(36, 8)
    assert resample(same, (6, 6), (6, 6)) is same
    clip = resample(torch.randn(2 * 36, 8), (2, 6, 6), (4, 3, 3))
    assert clip.shape == (36, 8)


def test_stored_positions_are_rows_of_the_table():
    positions = StoredPositions(16, grid=(3, 4))
    assert list(positions.state_dict()) == ["table"]
    assert not list(positions.parameters())
    assert torch.equal(positions(grid_positions((3, 4)))[0], positions.table)
    assert torch.equal(positions(torch.tensor([[[2.0, 1.0], [0.0, 3.0]]]))[0], positions.table[[9, 3]])
    positions.check((2, 4))
    with pytest.raises(ValueError, match=r"stored for a grid of \(3, 4\), got tokens on \(3, 5\)"):
        positions.check((3, 5))
    with pytest.raises(ValueError, match="needs tokens on a grid"):
        StoredPositions(16, grid=None)
