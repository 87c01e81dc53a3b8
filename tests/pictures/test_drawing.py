"""What pictures share."""

import torch

from jepa_lightning.pictures.drawing import CONTEXT, COOL, HOT, UNUSED, colour_map, heat, role_colours, roles
from jepa_lightning.tokens import Masks


def test_roles_and_their_colours():
    mask = Masks(
        context=torch.tensor([[0, 5], [1, 0]]),
        targets=torch.tensor([[[2, 3], [3, 4]], [[3, 0], [0, 0]]]),
        context_valid=torch.tensor([[True, True], [True, False]]),
        targets_valid=torch.tensor([[[True, True], [True, True]], [[True, False], [False, False]]]),
    )
    found = roles(mask, 7)
    assert found.tolist() == [[3, 0, 1, 2, 2, 3, 0], [0, 3, 0, 1, 0, 0, 0]]
    colours = role_colours(2)
    assert colours.shape == (4, 3)
    torch.testing.assert_close(colours[0], torch.tensor(UNUSED))
    torch.testing.assert_close(colours[-1], torch.tensor(CONTEXT))
    assert len(role_colours(9).unique(dim=0)) == 6  # four warm colours in turn
    whole = Masks(context=mask.context, targets=mask.targets)
    assert roles(whole, 7)[0].tolist() == [3, 0, 1, 2, 2, 3, 0]


def test_colour_maps_pass_through_their_colours_and_brighten():
    for colours in (COOL, HOT):
        steps = colour_map(torch.linspace(0, 1, len(colours)), colours)
        torch.testing.assert_close(steps, torch.tensor(colours))
        fine = colour_map(torch.linspace(0, 1, 101), colours)
        assert (fine @ torch.tensor([0.299, 0.587, 0.114])).diff().min() > 0
        torch.testing.assert_close(colour_map(torch.tensor([[-1.0, 2.0]]), colours)[0], steps[[0, -1]])


def test_heat_has_a_scale_for_each_sample_and_leaves_out_what_is_not_known():
    values = torch.tensor([[1.0, 3.0, 2.0, 900.0], [0.0, -40.0, torch.nan, 10.0], [5.0, 5.0, 5.0, 5.0]])
    valid = torch.tensor([[True, True, True, False], [True] * 4, [True] * 4])
    found = heat(values, valid)
    black, middle, pale = (torch.tensor(HOT[i]) for i in (0, 2, 4))
    grey = torch.tensor(UNUSED)
    torch.testing.assert_close(found[0], torch.stack([black, pale, middle, grey]))
    torch.testing.assert_close(found[1], torch.stack([colour_map(torch.tensor(0.8), HOT), black, grey, pale]))
    torch.testing.assert_close(found[2], black.expand(4, 3))
    torch.testing.assert_close(heat(torch.full((1, 2), torch.nan)), grey.expand(1, 2, 3))
    torch.testing.assert_close(heat(values[2:].bfloat16()), black.expand(1, 4, 3))
