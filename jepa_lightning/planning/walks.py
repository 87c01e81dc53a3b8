"""Encoded walks: what actors and learned costs are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.data.trajectories import Episodes, TrajectoryData, blocks
from jepa_lightning.planning.world import World
from jepa_lightning.predictors.rollout import Past

_PART = 512  # observations that are encoded at once


@dataclass(frozen=True)
class Walks:
    """Encoded episodes, behind each other.

    Attributes:
        states: (M, S, D) as the predictor takes them.
        goals: (M, S, D) the same as states to reach, see `World.encode_goal`.
        actions: (M, A) after each observation, with a frame skip k blocks (M, k A); zeros after an episode's last.
        first: (M,) int64, where each observation's episode begins.
        last: (M,) int64, where it ends.
    """

    states: Tensor
    goals: Tensor
    actions: Tensor
    first: Tensor
    last: Tensor

    @property
    def follows(self) -> Tensor:
        """(n,) int64, the observations that another one follows."""
        return torch.nonzero(self.last > torch.arange(len(self.last), device=self.last.device)).squeeze(1)

    def past(self, index: Tensor, world: World) -> Past:
        """What the predictor sees at observations (n,)."""
        when = index.unsqueeze(1) + torch.arange(1 - world.history, 1, device=index.device)
        valid = when >= self.first[index].unsqueeze(1)
        states = self.states[when.clamp(min=0)] * valid[..., None, None]
        if world.history == 1:
            return Past(states=states, positions=world.positions)
        done = world.pretext.standardized(self.actions[when[:, :-1].clamp(min=0)]) * valid[:, :-1, None]
        return Past(states=states, valid=valid, positions=world.positions, actions=done)

    def same_episode(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """For each of the observations (n,) one drawn from its episode, (n,) int64."""
        first = self.first[index]
        return first + below(self.last[index] + 1 - first, generator)


def encode_walks(world: World, data: TrajectoryData) -> Walks:
    """Encode all training episodes of a data module once; with a frame skip k every k-th observation of them."""
    train = data.load()["train"]
    assert isinstance(train, Episodes)
    observe = world.observations or data.batch_transform()
    states, goals = [], []
    skip = world.frame_skip
    seen = [episode.observations[::skip] for episode in train.episodes]
    for part in torch.cat(seen).split(_PART):
        both = world.encode_both({observe.key: observe.prepare(part)})
        states.append(both[0])
        goals.append(both[1])
    done = [
        episode.actions[: (len(part) - 1) * skip].float() for episode, part in zip(train.episodes, seen, strict=True)
    ]
    actions = [F.pad(blocks(part, skip), (0, 0, 0, 1)) for part in done]
    length = torch.tensor([len(part) for part in seen])
    end = length.cumsum(0)
    places = [(end - length).repeat_interleave(length), (end - 1).repeat_interleave(length)]
    moved = [values.to(world.device) for values in (torch.cat(actions), *places)]
    return Walks(torch.cat(states), torch.cat(goals), *moved)


def draw(choices: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some of the observations `choices` (n,), drawn with repetition, (count,)."""
    return choices[torch.randint(len(choices), (count,), generator=generator).to(choices.device)]


def below(limits: Tensor, generator: torch.Generator) -> Tensor:
    """A whole number below each limit, (n,) int64."""
    drawn = torch.rand(len(limits), generator=generator, dtype=torch.float64).to(limits.device)
    return (drawn * limits).long().minimum(limits - 1)
