"""Wrappers of gymnasium whose observations are the states of a frozen encoder."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from jepa_lightning.environments.gymnasium import picture
from jepa_lightning.rl.states import Encoder, States


class PictureObservation(gymnasium.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Shows the rendered picture in place of the observation: (3, S, S) uint8, as `jepa-collect` records it.

    Args:
        env: made with `render_mode="rgb_array"`.
        size: pixels a side.

    Raises:
        ValueError: the environment renders no arrays.

    Examples:
        >>> import gymnasium
        >>> from jepa_lightning.rl import PictureObservation
        >>> env = PictureObservation(gymnasium.make("Pendulum-v1", render_mode="rgb_array"), 32)
        >>> env.reset(seed=0)[0].shape
        (3, 32, 32)
    """

    def __init__(self, env: gymnasium.Env[Any, Any], size: int = 64) -> None:
        RecordConstructorArgs.__init__(self, size=size)
        super().__init__(env)
        if env.render_mode != "rgb_array":
            raise ValueError(f'expected an environment made with render_mode="rgb_array", got {env.render_mode!r}')
        self.size = size
        self.observation_space = Box(0, 255, (3, size, size), np.uint8)

    def observation(self, observation: Any) -> NDArray[np.uint8]:
        """What is rendered now."""
        return picture(self.env, self.size).numpy()


class LatentObservation(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Hands a frozen encoder's states to any library of reinforcement learning, in place of observations.

    A state is the pooled representation of what is observed, and of a world what its predictor sees: with `history` h
    the states of the last h observations, a frame skip apart, the oldest first, and zeros before an episode's start.
    Nothing is trained, and there is no gradient.

    Images of 8 bits, (H, W), (H, W, C) or (C, H, W), are brought to the model's size; an environment that shows
    something else is seen by its pictures with `PictureObservation`. Copies of an environment in one process may share
    one loaded encoder.

    Args:
        env: whose observations are encoded.
        encoder: folder or checkpoint of a run, `jepa_lightning.load_world(run)` or `jepa_lightning.load(run)`.
        history: states that are told; None: as many as a world's predictor sees, and 1 of an encoder.
        device: to move the encoder to; None: where it is.

    Raises:
        ValueError: `history` is below 1, there is no such run, or it cannot encode what the environment shows.

    Examples:
        >>> import gymnasium
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.data.trajectories import Observations
        >>> from jepa_lightning.encoders import ConvEncoder
        >>> from jepa_lightning.planning import World
        >>> from jepa_lightning.predictors import ResidualPredictor
        >>> from jepa_lightning.pretexts import Rollout
        >>> from jepa_lightning.rl import LatentObservation, PictureObservation
        >>> from modalities.image import Image
        >>> image = Image(image_size=32, patch_size=32, encoder=partial(ConvEncoder, dim=8, width=2))
        >>> jepa = JEPA(image, pretext=Rollout(action_dim=1, history=2), predictor=ResidualPredictor)
        >>> world = World(jepa, observations=Observations("image", mean=0.8, std=0.3))
        >>> pendulum = gymnasium.make("Pendulum-v1", render_mode="rgb_array")
        >>> env = LatentObservation(PictureObservation(pendulum, 32), world)
        >>> env.observation_space.shape, env.reset(seed=0)[0].shape
        ((16,), (16,))
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        encoder: Encoder,
        *,
        history: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        given = {"encoder": encoder, "history": history, "device": device}
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **given)
        super().__init__(env)
        self.states = States(encoder, 1, blank(env.observation_space), history=history, device=device)
        self.observation_space = Box(-np.inf, np.inf, (self.states.dim,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A new episode; nothing is remembered."""
        shown, info = self.env.reset(seed=seed, options=options)
        return self.states([np.asarray(shown)], np.array([True]))[0], info

    def step(self, action: Any) -> tuple[NDArray[np.float32], SupportsFloat, bool, bool, dict[str, Any]]:
        """One step of the environment."""
        shown, reward, terminated, truncated, info = self.env.step(action)
        return self.states([np.asarray(shown)], np.array([False]))[0], reward, terminated, truncated, info


class LatentVectorObservation(VectorWrapper[Any, Any, Any, Any, Any]):
    """`LatentObservation` of a vector of environments, whose observations are encoded together.

    Where an environment begins a new episode, its states before it are forgotten, whenever the vector resets it:
    `AutoresetMode.NEXT_STEP`, `SAME_STEP` (states of the last observations are in the infos' `final_obs`) and
    `DISABLED` (by `reset(options={"reset_mask": ...})`).

    Args:
        env: whose observations are encoded.
        encoder: see `LatentObservation`.
        history: see `LatentObservation`.
        device: see `LatentObservation`.

    Raises:
        ValueError: see `LatentObservation`.

    Examples:
        >>> import gymnasium
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.data.trajectories import Observations
        >>> from jepa_lightning.encoders import ConvEncoder
        >>> from jepa_lightning.planning import World
        >>> from jepa_lightning.predictors import ResidualPredictor
        >>> from jepa_lightning.pretexts import Rollout
        >>> from jepa_lightning.rl import LatentVectorObservation, PictureObservation
        >>> from modalities.image import Image
        >>> image = Image(image_size=32, patch_size=32, encoder=partial(ConvEncoder, dim=8, width=2))
        >>> world = World(
        ...     JEPA(image, pretext=Rollout(action_dim=1), predictor=ResidualPredictor),
        ...     observations=Observations("image", mean=0.8, std=0.3),
        ... )
        >>> seen = lambda: PictureObservation(gymnasium.make("Pendulum-v1", render_mode="rgb_array"), 32)
        >>> envs = LatentVectorObservation(gymnasium.vector.SyncVectorEnv([seen] * 3), world)
        >>> envs.reset(seed=0)[0].shape
        (3, 8)
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        encoder: Encoder,
        *,
        history: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__(env)
        example = blank(env.single_observation_space)
        self.states = States(encoder, env.num_envs, example, history=history, device=device)
        self.single_observation_space = Box(-np.inf, np.inf, (self.states.dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.over = np.zeros(env.num_envs, dtype=bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """New episodes, of those in `reset_mask` alone where there is one; the others' states are told again."""
        mask = None if options is None else options.get("reset_mask")
        shown, infos = self.env.reset(seed=seed, options=options)
        if mask is None:
            self.over[:] = False
            return self.states(list(shown), np.ones(len(self.over), dtype=bool)), infos
        mask = np.asarray(mask)
        kept = self.states.last.copy()
        self.states(list(shown), mask)
        self.states.last[:, ~mask] = kept[:, ~mask]
        return self.states.told(), infos

    def step(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """One step of each environment."""
        before = self.states.last.copy()
        shown, rewards, terminated, truncated, infos = self.env.step(actions)
        over = np.logical_or(terminated, truncated)
        same = self.mode == AutoresetMode.SAME_STEP
        fresh = over if same else self.over if self.mode == AutoresetMode.NEXT_STEP else np.zeros_like(over)
        told = self.states(list(shown), fresh)
        if same and "final_obs" in infos:
            infos = {**infos, "final_obs": self.final(before, infos["final_obs"])}
        self.over = over
        return told, rewards, terminated, truncated, infos

    def final(self, before: NDArray[np.float32], shown: NDArray[Any]) -> NDArray[Any]:
        """States at the end of episodes that are over, an array of objects, None for the others.

        Args:
            before: the remembered states before the step.
            shown: what the environments showed in the end, None for the others.
        """
        now, found = self.states.last, np.full(len(shown), None, dtype=object)
        self.states.last = np.concatenate([before[1:], before[-1:]])
        for index, one in enumerate(shown):
            if one is not None:
                found[index] = self.states.told(index, np.asarray(one))
        self.states.last = now
        return found


def blank(space: gymnasium.Space[Any]) -> NDArray[Any]:
    """An observation of zeros.

    Raises:
        ValueError: observations are no arrays.
    """
    if not isinstance(space, Box):
        raise ValueError(f"expected observations that are arrays (Box), got {space}: wrap it by PictureObservation")
    return np.zeros(space.shape, space.dtype)
