"""Worlds whose levels are exact.

`Circle` is an angle from 0 to 4.5, seen as a place on a circle; macro-actions are sums of turns. Start
and goal lie near the ends, which are near each other on the circle: the way to the goal first leads away from it.
`TrueRooms` is Four Rooms with its true states and dynamics at every level; a macro-action is the sum of equal moves.
"""

import math

import torch
from torch import nn

from jepa_lightning.environments import Box, Environment, FourRooms, Tasks, Wandering
from jepa_lightning.hierarchy.levels import MacroPrior
from jepa_lightning.planning import World
from jepa_lightning.planning.policies import simulate
from jepa_lightning.predictors.rollout import Past
from jepa_lightning.pretexts import HierarchicalRollout

END, TURN = 4.5, 0.35


def place(angles):
    """Angles (..., 1) as states (..., 1, 2)."""
    return torch.cat([angles.cos(), angles.sin()], dim=-1).unsqueeze(-2)


def angle(states):
    """States (..., 1, 2) as angles (..., 1)."""
    return torch.atan2(states[..., 0, 1:], states[..., 0, :1]) % (2 * torch.pi)


def turned(states, turns):
    """States (..., H, 1, 2) after turns (..., H, 1) from states (..., 1, 2)."""
    way, found = angle(states), []
    for turn in turns.unbind(-2):
        way = (way + turn).clamp(0, END)
        found.append(place(way))
    return torch.stack(found, dim=-3)


class Exact(HierarchicalRollout):
    """Levels that are all the same circle."""

    def __init__(self, strides):
        nn.Module.__init__(self)
        self.strides, self.depth, self.history, self.state = tuple(strides), len(strides) + 1, 1, "pooled"
        self.register_buffer("none", torch.zeros(1))

    def lift(self, states, *, level, since=1):
        return states

    def rollout_at(self, level, state, actions):
        return turned(state, actions)

    def prior(self, level):
        reach = torch.tensor([TURN * torch.tensor(self.strides[: level - 1]).prod()])
        return MacroPrior(mean=0 * reach, std=reach / 2, low=-reach, high=reach)


class Circle(World):
    """Sees the angle, and imagines what is true."""

    def __init__(self, *strides):
        nn.Module.__init__(self)
        self.pretext, self.frame_skip, self.config, self.observations = Exact(strides), 1, None, None

    device = torch.device("cpu")

    def encode(self, observations):
        return place(observations)

    encode_goal = encode

    def past(self, states):
        return Past(states=states.unsqueeze(1))

    def imagine(self, past, actions, **_):
        start = past.states[:, -1].unsqueeze(1).expand(-1, actions.shape[1], -1, -1)
        return turned(start, actions)

    def surprise(self, observations, actions):
        after = (observations[:, :-1] + actions).clamp(0, END)
        return (observations[:, 1:] - after).abs().squeeze(-1)


class Angle(Environment):
    """Turning from one end to the other."""

    name = "angle"
    space = Box([-TURN], [TURN])
    state_names = ("angle",)

    def step(self, states, actions):
        return (states + actions).clamp(0, END)

    def observe(self, states):
        return states

    def distance(self, states, goals):
        return (states - goals).abs().squeeze(-1)

    def reached(self, states, goals):
        return self.distance(states, goals) < 0.15

    def tasks(self, count, generator):
        near = 0.2 * torch.rand(2, count, 1, generator=generator)
        return Tasks(start=near[0], goal=END - near[1])

    def wander(self, count, length, generator):
        states = [END * torch.rand(count, 1, generator=generator)]
        actions = self.space.sample((count, length - 1), generator)
        for action in actions.unbind(1):
            states.append(self.step(states[-1], action))
        return Wandering(torch.stack(states, 1), actions)


class Bare(FourRooms):
    """Four Rooms that is observed as it is."""

    def observe(self, states):
        return states


class Moves(HierarchicalRollout):
    """Levels that are all the true state."""

    def __init__(self, rooms, strides):
        nn.Module.__init__(self)
        self.strides, self.depth, self.history, self.state = tuple(strides), len(strides) + 1, 1, "pooled"
        self.rooms = rooms

    def lift(self, states, *, level, since=1):
        return states

    def rollout_at(self, level, state, actions):
        steps = math.prod(self.strides[: level - 1])
        moves = self.rooms.space.project(actions / steps).repeat_interleave(steps, 1)
        return simulate(self.rooms, state[:, 0], moves)[:, steps - 1 :: steps].unsqueeze(2)

    def prior(self, level):
        reach = torch.full((2,), 3.0 * math.prod(self.strides[: level - 1]))
        return MacroPrior(mean=0 * reach, std=reach / 2, low=-reach, high=reach)


class TrueRooms(World):
    """Sees the true state, and imagines what is true."""

    def __init__(self, rooms, *strides):
        nn.Module.__init__(self)
        self.pretext, self.frame_skip, self.config, self.observations = Moves(rooms, strides), 1, None, None

    device = torch.device("cpu")

    def encode(self, observations):
        return observations.unsqueeze(1)

    encode_goal = encode

    def past(self, states):
        return Past(states=states.unsqueeze(1))

    def imagine(self, past, actions, **_):
        start = past.states[:, -1, 0].unsqueeze(1).expand(-1, actions.shape[1], -1)
        return simulate(self.pretext.rooms, start, actions).unsqueeze(-2)
