"""Working memory: the states that an agent has been in, and what it did between them."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lightning.predictors.rollout import Past


class Memory:
    """The last states of each episode, as many as a predictor sees, and the actions between them.

    At an episode's start there are fewer.

    Args:
        capacity: states that are kept.

    Raises:
        ValueError: it is below 1.

    Examples:
        >>> import torch
        >>> from jepa_lightning.planning import Memory
        >>> memory = Memory(3)
        >>> memory.write(torch.zeros(2, 1, 8))
        >>> memory.write(torch.ones(2, 1, 8), action=torch.ones(2, 4))
        >>> memory.past().states.shape, memory.past().valid[0].tolist()
        (torch.Size([2, 3, 1, 8]), [False, True, True])
        >>> memory.past().actions.shape
        torch.Size([2, 1, 4])
    """

    def __init__(self, capacity: int = 1) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.states: list[Tensor] = []
        self.actions: list[Tensor] = []

    def clear(self) -> None:
        """Forget: new episodes begin."""
        self.states, self.actions = [], []

    def write(self, state: Tensor, action: Tensor | None = None) -> None:
        """Remember the present states (B, S, D).

        Args:
            state: the present ones.
            action: (B, A) that led to them, as the predictor is told it; None: it is not known, and those before it
                count for nothing any more, as in `Past.push`.
        """
        known = [] if action is None or not self.states else [*self.actions, action]
        self.states = [*self.states, state][-self.capacity :]
        self.actions = known[max(len(known) - self.capacity + 1, 0) :]

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only, (B',) int64."""
        self.states, self.actions = ([one[index] for one in kept] for kept in (self.states, self.actions))

    def past(self, positions: Tensor | None = None) -> Past:
        """What the predictor sees.

        Raises:
            ValueError: nothing was written.
        """
        if not self.states:
            raise ValueError("expected a state in the memory, got none: write one")
        missing = self.capacity - len(self.states)
        states = torch.stack([torch.zeros_like(self.states[0])] * missing + self.states, dim=1)
        valid = None
        if self.capacity > 1:
            valid = torch.arange(self.capacity, device=states.device).expand(len(states), -1) >= missing
        actions = torch.stack(self.actions, dim=1) if self.actions else None
        return Past(states=states, valid=valid, positions=positions, actions=actions)
