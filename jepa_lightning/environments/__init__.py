"""Environments that are simulated in this process, many episodes at once, and what actions they take."""

from jepa_lightning.environments.base import Environment, Tasks, Wandering
from jepa_lightning.environments.four_rooms import FourRooms
from jepa_lightning.environments.gym import Gym
from jepa_lightning.environments.pusht import PushT
from jepa_lightning.environments.spaces import ActionSpace, Blocks, Box, Disc, Discrete
from jepa_lightning.environments.two_rooms import TwoRooms

__all__ = [
    "ActionSpace",
    "Blocks",
    "Box",
    "Disc",
    "Discrete",
    "Environment",
    "FourRooms",
    "Gym",
    "PushT",
    "Tasks",
    "TwoRooms",
    "Wandering",
]
