"""What pictures share."""

import torch

from jepa_lightning.drawing import CONTEXT, UNUSED, role_colours, roles
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
