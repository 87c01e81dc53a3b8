"""The actor: from a state and a goal to an action, without planning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_lightning.environments import ActionSpace
from jepa_lightning.modality import Batch
from jepa_lightning.planning.fitting import mlp
from jepa_lightning.planning.world import World
from jepa_lightning.predictors.rollout import Past, predict_next
from jepa_lightning.run.writing import replacing


class Actor(nn.Module):
    """An MLP of (state, goal, goal - state): "Mode-1" of LeCun 2022, section 3.1.1.

    Its outputs, centre + scale x tanh, are projected on the space.

    Args:
        size: numbers S x D of a state.
        space: of the actions.
        width: of the hidden layers.
        depth: number of hidden layers, each followed by GELU.

    Raises:
        ValueError: a setting is out of range.

    Examples:
        >>> import torch
        >>> from jepa_lightning.environments import Disc
        >>> from jepa_lightning.planning import Actor
        >>> actor = Actor(8, Disc(3.0))
        >>> actor(torch.randn(5, 1, 8), torch.randn(5, 1, 8)).shape
        torch.Size([5, 2])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, space: ActionSpace, *, width: int = 256, depth: int = 2) -> None:
        super().__init__()
        if min(size, width, depth) < 1:
            raise ValueError(f"size, width and depth must be at least 1, got {size}, {width} and {depth}")
        self.settings = {"size": size, "width": width, "depth": depth}
        self.space = space
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.layers = mlp([3 * size, *[width] * depth, space.dim])

    @torch.no_grad()
    def standardize_by(self, states: Tensor) -> None:
        """Take the mean and spread of states (N, S, D) for what is usual."""
        self.mean.copy_(states.flatten(1).mean(0))
        self.std.copy_(states.flatten(1).std(0).clamp(min=1e-6))

    def forward(self, state: Tensor, goal: Tensor) -> Tensor:
        """Actions (B, A) in the environment's units, in states (B, S, D) that are to become goals (B, S, D)."""
        here, there = ((part.flatten(1) - self.mean) / self.std for part in (state, goal))
        out = self.layers(torch.cat([here, there, there - here], dim=-1)).tanh()
        return self.space.project(self.space.centre.to(out) + self.space.scale.to(out) * out)

    def imagine(self, world: World, past: Past, goal: Tensor, *, horizon: int, hold: int = 1) -> tuple[Tensor, Tensor]:
        """What the actor would do and what the world says would follow.

        Args:
            world: imagines.
            past: of B episodes.
            goal: (B, S, D).
            horizon: steps H of the environment, a multiple of the world's frame skip k.
            hold: steps that an action is held; of a block of k actions, if there are more.

        Returns:
            actions (B, H, A) and states (B, H / k, S, D); gradients flow through both.

        Raises:
            ValueError: the horizon is no multiple of the frame skip, or the world has a latent z.
        """
        skip = world.frame_skip
        if world.pretext.futures > 1:
            raise ValueError("expected a world with one future, got one with a latent z: let it plan without an actor")
        if horizon % skip:
            raise ValueError(f"expected a horizon that is a multiple of {skip}, the world's frame skip, got {horizon}")
        actions, states = [], []
        for step in range(horizon // skip):
            if step % max(hold // skip, 1) == 0:
                action = self(past.states[:, -1], goal)
                told = world.pretext.standardized(action)
            state = predict_next(world.predictor, past, told)
            past = past.push(state, told)
            actions.append(action.unflatten(-1, (skip, -1)))
            states.append(state)
        return torch.cat(actions, dim=1), torch.stack(states, dim=1)

    def save(self, path: str | Path) -> None:
        """Write it to a file that `load_actor` reads."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as beside:
            torch.save({"settings": self.settings, "state_dict": self.state_dict()}, beside)


def load_actor(path: str | Path, space: ActionSpace) -> Actor:
    """Read the actor that `jepa-plan --actor` has written (`actor.pt` in the run's folder); nothing in the file is run.

    Args:
        path: of the file.
        space: of the actions.

    Raises:
        ValueError: it holds no actor, or one of other actions.
    """
    stored: Any = torch.load(Path(path).expanduser(), weights_only=True, map_location="cpu")
    if not isinstance(stored, dict) or set(stored) != {"settings", "state_dict"}:
        raise ValueError(f"expected an actor that jepa-plan has written, got something else: {path}")
    actor = Actor(space=space, **stored["settings"])
    width = len(stored["state_dict"][f"layers.{len(actor.layers) - 1}.bias"])
    if width != space.dim:
        raise ValueError(f"expected an actor of actions of width {space.dim}, got one of {width}: {path}")
    actor.load_state_dict(stored["state_dict"])
    return actor.eval()


class Reactive:
    """Acts without imagining: each action is the actor's. An agent as `Agent` is.

    Where the world has a frame skip k, the actor's actions are blocks (`World.block_space`), each done in k steps.

    Args:
        world: encodes.
        actor: acts.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ConvEncoder
        >>> from jepa_lightning.environments import Disc
        >>> from jepa_lightning.planning import Actor, Reactive, World
        >>> from jepa_lightning.predictors import ResidualPredictor
        >>> from jepa_lightning.pretexts import Rollout
        >>> from modalities.image import Image
        >>> image = Image(image_size=32, patch_size=32, channels=1, encoder=partial(ConvEncoder, dim=8, width=2))
        >>> world = World(JEPA(image, pretext=Rollout(action_dim=2), predictor=ResidualPredictor))
        >>> agent = Reactive(world, Actor(8, Disc(3.0)))
        >>> agent.reset({"image": torch.randn(5, 1, 32, 32)})
        >>> agent.act({"image": torch.randn(5, 1, 32, 32)}).shape
        torch.Size([5, 2])
    """

    plans = 0
    """It makes none."""

    def __init__(self, world: World, actor: Actor) -> None:
        self.world = world
        self.actor = actor.to(world.device)
        self.left: list[Tensor] = []  # actions of the block that are not done, the next one last

    def reset(self, goal: Tensor | Batch) -> None:
        """New episodes begin, with observations of their goals."""
        self.left = []
        self.goal = self.world.encode_goal(goal)

    @property
    def looks(self) -> bool:
        """Whether the next action depends on what is observed: within a block of actions it does not."""
        return not self.left

    @torch.no_grad()
    def act(self, observation: Tensor | Batch | None) -> Tensor:
        """The next action of each episode, (B, A) in the environment's units, on the CPU.

        Args:
            observation: of all episodes; None is enough where the agent does not look.

        Raises:
            ValueError: there is none, and it looks.
        """
        if self.looks:
            if observation is None:
                raise ValueError("expected an observation, since a block of actions is done, got None")
            block = self.actor(self.world.encode(observation), self.goal).cpu()
            self.left = [*block.unflatten(-1, (self.world.frame_skip, -1)).unbind(1)][::-1]
        return self.left.pop()

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only, (B',) int64."""
        self.left = [action[index.cpu()] for action in self.left]
        self.goal = self.goal[index.to(self.goal.device)]
