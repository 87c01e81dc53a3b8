"""Episodes of an agent as moving pictures: what it sees, the way that its plan imagines, and the goal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.environments import Environment, Tasks
from jepa_lightning.pictures.drawing import PANEL
from jepa_lightning.pictures.files import beside, write_picture
from jepa_lightning.pictures.legend import Legend, with_name
from jepa_lightning.planning.agent import Agent, Deliberate
from jepa_lightning.planning.episodes import run_episodes
from jepa_lightning.planning.world import World

_PART = 500  # pictures that are encoded or decoded at once
_END = 8  # frames for which an episode's end is shown
_SIDE = 64  # pixels a side that are drawn at most


class Decoder(nn.Module):
    """From states of a world to pictures, for looking only: nothing that plans or learns sees it.

    An MLP with two hidden layers on standardised states.

    Args:
        states: (N, S, D), whose mean and spread are taken.
        shape: (C, H, W) of the pictures.

    Examples:
        >>> import torch
        >>> from jepa_lightning.planning.film import Decoder
        >>> states = torch.randn(5, 2, 8)
        >>> Decoder(states, (3, 20, 12)).pictures(states).shape
        torch.Size([5, 3, 20, 12])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, states: Tensor, shape: tuple[int, int, int], *, width: int = 512) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", states.mean(0))
        self.register_buffer("std", states.std(0).clamp(min=1e-6))
        sizes = (states[0].numel(), width, width)
        hidden = [layer for size in sizes[:-1] for layer in (nn.Linear(size, width), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, math.prod(shape)))

    def forward(self, states: Tensor) -> Tensor:
        """Logits of pixels from 0 to 1, (B, C, H, W), of states (B, S, D)."""
        drawn: Tensor = self.layers(((states - self.mean) / self.std).flatten(1))
        return drawn.unflatten(1, self.shape)

    @torch.no_grad()
    def pictures(self, states: Tensor) -> Tensor:
        """States (..., S, D) as pictures (..., C, H, W) uint8, on the CPU."""
        parts = states.flatten(0, -3).split(_PART)
        found = torch.cat([self(part).sigmoid().mul(255).round().to(torch.uint8).cpu() for part in parts])
        return found.unflatten(0, states.shape[:-2])


def fit_decoder(world: World, environment: Environment, *, walks: int, updates: int = 2000, seed: int = 0) -> Decoder:
    """Fit a decoder on random walks of 8 observations: binary cross-entropy of pixels, AdamW.

    Pictures of more than 64 pixels a side are drawn smaller, by a whole factor.

    Args:
        world: encodes; it is left as it is.
        environment: draws the walks. Its observations are pictures.
        walks: number of them.
        updates: of the optimiser, 64 pictures each.
        seed: of what is drawn, the decoder's first weights included.
    """
    generator = torch.Generator().manual_seed(seed)
    pictures, encoded = [], []
    for part in environment.wander(walks, 8, generator).states.flatten(0, 1).split(_PART):
        observed = environment.observe(part)
        factor = -(-max(observed.shape[-2:]) // _SIDE)
        pictures.append(F.avg_pool2d(observed.float(), factor).round().to(torch.uint8) if factor > 1 else observed)
        encoded.append(world.encode(observed))
    seen, states = torch.cat(pictures), torch.cat(encoded)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Decoder(states.cpu(), (seen.shape[1], seen.shape[2], seen.shape[3])).to(world.device)
    optimizer = torch.optim.AdamW(decoder.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=updates)
    with torch.enable_grad():
        for _ in range(updates):
            chosen = torch.randint(len(seen), (64,), generator=generator)
            truth = seen[chosen].to(world.device).float() / 255
            loss = F.binary_cross_entropy_with_logits(decoder(states[chosen.to(world.device)]), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return decoder


class Watched(Deliberate):
    """An agent as a policy that notes what it was in, did and imagined.

    Args:
        agent: acts.

    Attributes:
        states: of each episode the states that it acted in, (P,) each.
        actions: what was done there, (A,) each.
        ways: the states that its plans imagine, (H, S, D) each.
        following: which of these it followed at each step.
    """

    agent: Agent
    states: list[list[Tensor]]
    actions: list[list[Tensor]]
    ways: list[list[Tensor]]
    following: list[list[int]]

    def reset(self, environment: Environment, tasks: Tasks) -> None:
        """Show the goals, and note nothing yet."""
        super().reset(environment, tasks)
        self.running = torch.arange(len(tasks.start))
        self.states = [[] for _ in tasks.start]
        self.actions = [[] for _ in tasks.start]
        self.ways = [[] for _ in tasks.start]
        self.following = [[] for _ in tasks.start]

    @torch.no_grad()
    def act(self, states: Tensor) -> Tensor:
        """Show the states, ask, and note."""
        due, actions = self.agent.loop.due, super().act(states)
        world, plan = self.agent.world, self.agent.loop.plan
        assert plan is not None
        if due:
            imagined = world.imagine(self.agent.memory.past(world.positions), plan.actions.unsqueeze(1))[:, 0]
            for episode, way in zip(self.running.tolist(), imagined, strict=True):
                self.ways[episode].append(way)
        for episode, state, action in zip(self.running.tolist(), states, actions, strict=True):
            self.states[episode].append(state)
            self.actions[episode].append(action)
            self.following[episode].append(len(self.ways[episode]) - 1)
        return actions

    def keep(self, index: Tensor) -> None:
        """Keep some of the episodes only."""
        super().keep(index)
        self.running = self.running[index]


def check_pictures(environment: Environment, tasks: Tasks) -> None:
    """Raise a ValueError where observations are no pictures."""
    seen = environment.observe(tasks.goal[:1])
    if seen.ndim != 4 or seen.dtype != torch.uint8:
        raise ValueError(
            f"expected pictures (B, C, H, W) uint8 to make videos of, got observations {tuple(seen.shape)} of "
            f"{seen.dtype} from {environment.name}: leave video out"
        )


def write_films(
    agent: Agent, environment: Environment, tasks: Tasks, *, budget: int, folder: Path, seed: int = 0
) -> list[dict[str, Any]]:
    """Let an agent act, and write each episode as a GIF: 0.gif, 1.gif, ...; those of earlier episodes are removed.

    Side by side stand what is seen, the way that the plan of the moment imagines, drawn by a small decoder that is
    fitted on true states and on nothing imagined (each pixel is that of the imagined state in which it differs most
    from the plan's first), and the goal.

    Args:
        agent: acts.
        environment: where it acts; its observations are pictures.
        tasks: where the episodes start and are to end.
        budget: steps of an episode, at most.
        folder: of the files.
        seed: of the decoder.

    Returns:
        For each episode its `file`, whether the goal was `reached`, and its `steps`.
    """
    watched = Watched(agent)
    outcomes = run_episodes(environment, tasks, watched, budget=budget)
    decoder = fit_decoder(agent.world, environment, walks=environment.walks, seed=seed)
    found = []
    for episode, states in enumerate(watched.states):
        last = environment.step(states[-1], environment.space.project(watched.actions[episode][-1]))
        seen = environment.observe(torch.stack([*states, last]))
        goal = environment.observe(tasks.goal[episode]).unsqueeze(0)
        ways = torch.stack([trail(decoder.pictures(way)) for way in watched.ways[episode]])  # of different lengths
        ways = F.interpolate(ways, seen.shape[-2:])
        followed = watched.following[episode]
        panels = {"what is seen": seen, "the imagined way": ways[[*followed, followed[-1]]], "the goal": goal}
        picture = beside([with_name(_enlarged(part), name) for name, part in panels.items()], gap=8)
        picture = torch.cat([picture, picture[-1:].expand(_END, -1, -1, -1)])
        reached = bool(outcomes.reached[episode])
        steps = int(outcomes.steps[episode]) if reached else len(states)
        says = f"Episode {episode}: the goal is {'reached' if reached else 'not reached'} after {steps} steps."
        file = write_picture(picture, folder, str(episode), Legend(says))[0]
        found.append({"file": str(file), "reached": reached, "steps": steps})
    for old in folder.glob("*.gif"):
        if old.stem.isdecimal() and int(old.stem) >= len(found):
            old.unlink()
    return found


def trail(pictures: Tensor) -> Tensor:
    """Pictures (H, C, h, w) of a way as one, (C, h, w): each pixel where it differs most from the first picture's."""
    other = (pictures.float() - pictures[0].float()).abs().sum(1)
    chosen = other.argmax(0).expand(pictures.shape[1:])
    return pictures.gather(0, chosen.unsqueeze(0)).squeeze(0)


def _enlarged(pictures: Tensor) -> Tensor:
    """(F, C, H, W) as (F, 3, ...), small ones enlarged by a whole factor; of other channels the first three, or one."""
    factor = max(1, round(PANEL / max(pictures.shape[-2:])))
    colours = pictures[:, :3] if pictures.shape[1] >= 3 else pictures[:, :1].expand(-1, 3, -1, -1)
    return colours.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
