"""Environments of gymnasium, seen as small pictures: what `Gym` and `jepa-collect` share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from jepa_lightning.config.extras import extra
from jepa_lightning.environments.spaces import ActionSpace, Box, Discrete


def make(name: str) -> Any:
    """Make an environment that renders pictures.

    Raises:
        ValueError: gymnasium does not know it.
        ImportError: gymnasium, or what the environment needs, is not installed.
    """
    with extra("world", who="environments need", packages=("gymnasium",), broken="gymnasium does not load ({})".format):
        import gymnasium
    try:
        return gymnasium.make(name, render_mode="rgb_array")
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError(f"{name} cannot be made: {error}") from error
    except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
        raise ValueError(f"expected the id of an environment of gymnasium, such as Pendulum-v1: {error}") from error


def space_of(env: Any) -> ActionSpace:
    """The actions of an environment.

    Raises:
        ValueError: they are neither a vector between finite bounds nor choices.
    """
    space = env.action_space
    kind = type(space).__name__
    if kind == "Discrete":
        return Discrete(int(space.n))
    if kind != "Box" or len(space.shape) != 1 or not space.is_bounded():
        raise ValueError(f"expected actions that are choices, or a vector between finite bounds, got {space}")
    return Box(space.low.tolist(), space.high.tolist())


def as_asked(space: ActionSpace, env: Any, action: Tensor) -> Any:
    """An action (A,) as the environment takes it."""
    if isinstance(space, Discrete):
        return int(action.argmax()) + int(env.action_space.start)
    return action.numpy().astype(env.action_space.dtype)


def picture(env: Any, size: int) -> Tensor:
    """What the environment shows of its state, (3, size, size) uint8; averaged over areas.

    The arrow of the last torque, which Pendulum-v1 draws on top, is left out: it would show a model what was done.
    """
    if hasattr(env.unwrapped, "last_u"):
        env.unwrapped.last_u = None
    return shrunk(env.render(), (size, size))


def shrunk(image: NDArray[np.uint8], size: tuple[int, int], *, channels: int = 3) -> Tensor:
    """An image (H, W) or (H, W, C) as (channels, rows, columns) uint8: three in colours, one in grey."""
    made = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    found = np.array(made.convert("L" if channels == 1 else "RGB").resize(size[::-1], Image.Resampling.BOX))
    return torch.from_numpy(found.reshape(*size, channels)).movedim(-1, 0).contiguous()
