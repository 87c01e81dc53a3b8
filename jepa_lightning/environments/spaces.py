"""Action spaces: which actions there are, and the nearest one to any vector."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class ActionSpace(ABC):
    """The actions that an environment takes, as vectors of `dim` numbers in its own units."""

    dim: int
    """Width A of an action."""

    choices: bool = False
    """Whether actions are choices, which cannot be averaged or moved a little."""

    @abstractmethod
    def project(self, actions: Tensor) -> Tensor:
        """The nearest actions of the space, (..., A) to (..., A); those inside stay as they are."""

    @abstractmethod
    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Actions (*shape, A) drawn uniformly on the CPU."""

    @property
    @abstractmethod
    def centre(self) -> Tensor:
        """(A,) where a search begins."""

    @property
    @abstractmethod
    def scale(self) -> Tensor:
        """(A,) how far actions reach from the centre: the unit of a planner's spread."""


class Box(ActionSpace):
    """Actions between bounds, each number by itself.

    Args:
        low: the lower bounds.
        high: the upper bounds.

    Raises:
        ValueError: the bounds are not finite, or not in order.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Box
        >>> Box([-1, 0], [1, 4]).project(torch.tensor([2.0, 3.0]))
        tensor([1., 3.])
    """

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        self.low, self.high = torch.tensor(low, dtype=torch.float32), torch.tensor(high, dtype=torch.float32)
        bounds = torch.cat([self.low, self.high])
        if self.low.shape != self.high.shape or not bounds.isfinite().all() or (self.low >= self.high).any():
            raise ValueError(f"expected finite lower bounds below as many upper ones, got {list(low)} and {list(high)}")
        self.dim = len(self.low)

    def project(self, actions: Tensor) -> Tensor:
        """Clamp each number."""
        return actions.clamp(self.low.to(actions), self.high.to(actions))

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draw each number."""
        return self.low + (self.high - self.low) * torch.rand(*shape, self.dim, generator=generator)

    @property
    def centre(self) -> Tensor:
        """The middle."""
        return (self.low + self.high) / 2

    @property
    def scale(self) -> Tensor:
        """Half the side of the box."""
        return (self.high - self.low) / 2


class Disc(ActionSpace):
    """Actions no longer than a radius: a velocity or a displacement.

    Args:
        radius: the largest Euclidean length.
        dim: width A.

    Raises:
        ValueError: one is out of range.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Disc
        >>> Disc(5.0).project(torch.tensor([[6.0, 8.0], [1.0, 0.0]]))
        tensor([[3., 4.],
                [1., 0.]])
    """

    def __init__(self, radius: float, *, dim: int = 2) -> None:
        if not 0 < radius < math.inf or dim < 1:
            raise ValueError(f"expected a positive radius and at least one dimension, got {radius} and {dim}")
        self.radius = radius
        self.dim = dim

    def project(self, actions: Tensor) -> Tensor:
        """Shorten what is too long."""
        length = actions.norm(dim=-1, keepdim=True)
        return torch.where(length > self.radius, actions * (self.radius / length.clamp(min=1e-12)), actions)

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draw points of the disc."""
        direction = F.normalize(torch.randn(*shape, self.dim, generator=generator), dim=-1)
        return direction * self.radius * torch.rand(*shape, 1, generator=generator) ** (1 / self.dim)

    @property
    def centre(self) -> Tensor:
        """Zero."""
        return torch.zeros(self.dim)

    @property
    def scale(self) -> Tensor:
        """The radius."""
        return torch.full((self.dim,), self.radius)


class Discrete(ActionSpace):
    """One of `dim` choices, as a vector that is 1 at the choice and 0 elsewhere.

    Args:
        dim: number of choices.

    Raises:
        ValueError: there are fewer than two.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Discrete
        >>> Discrete(3).project(torch.tensor([0.2, 0.9, -1.0]))
        tensor([0., 1., 0.])
    """

    choices = True

    def __init__(self, dim: int) -> None:
        if dim < 2:
            raise ValueError(f"expected at least two choices, got {dim}")
        self.dim = dim

    def project(self, actions: Tensor) -> Tensor:
        """The choice with the largest number."""
        return F.one_hot(actions.argmax(-1), self.dim).to(actions.dtype)

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draw choices."""
        return F.one_hot(torch.randint(self.dim, tuple(shape), generator=generator), self.dim).float()

    @property
    def centre(self) -> Tensor:
        """All choices alike."""
        return torch.full((self.dim,), 1 / self.dim)

    @property
    def scale(self) -> Tensor:
        """One."""
        return torch.ones(self.dim)


class Blocks(ActionSpace):
    """Blocks of several actions, one behind the other: what a world of a frame skip sees as one action.

    Args:
        of: space of each action.
        length: actions of a block.

    Raises:
        ValueError: a block has no action.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Blocks, Box
        >>> Blocks(Box([-1.0], [1.0]), 3).project(torch.tensor([0.5, -2.0, 2.0]))
        tensor([ 0.5000, -1.0000,  1.0000])
    """

    def __init__(self, of: ActionSpace, length: int) -> None:
        if length < 1:
            raise ValueError(f"expected blocks of at least 1 action, got {length}")
        self.of, self.length = of, length
        self.dim = of.dim * length
        self.choices = of.choices

    def project(self, actions: Tensor) -> Tensor:
        """Each action of a block by itself."""
        return self.of.project(actions.unflatten(-1, (self.length, -1))).flatten(-2)

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Each action of a block by itself."""
        return self.of.sample((*shape, self.length), generator).flatten(-2)

    @property
    def centre(self) -> Tensor:
        """That of each action."""
        return self.of.centre.repeat(self.length)

    @property
    def scale(self) -> Tensor:
        """That of each action."""
        return self.of.scale.repeat(self.length)
