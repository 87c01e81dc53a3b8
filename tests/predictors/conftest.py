"""What predictors are asked in their tests."""

import pytest
import torch
from asking import TOKEN, B, C, D, K, M, S, T

from jepa_lightning.tokens import Latents


@pytest.fixture
def inputs():
    """Representations of the context, where they lie, and where the targets lie, in float64."""
    generator = torch.Generator().manual_seed(1)

    def positions(*shape):
        return torch.randint(TOKEN.grid[0], (*shape, 2), generator=generator).double()

    return torch.randn(B, K, D, generator=generator).double(), positions(B, K), positions(B, M, T)


@pytest.fixture
def validity():
    """Which tokens of the context and of the targets are real."""
    generator = torch.Generator().manual_seed(3)
    context_valid = torch.rand(B, K, generator=generator) > 0.4
    target_valid = torch.rand(B, M, T, generator=generator) > 0.4
    context_valid[:, 0] = target_valid[:, :, 0] = True
    return context_valid, target_valid


@pytest.fixture
def told():
    """A condition that lies nowhere, with padding in two samples."""
    values = torch.randn(B, S, C, generator=torch.Generator().manual_seed(4)).double()
    return Latents(values=values, valid=torch.tensor([[True, True], [True, False], [False, True]]))
