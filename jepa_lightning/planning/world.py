"""A trained world model: encode, imagine, and the energy of actions."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from jepa_lightning.config.rebuild import Config
from jepa_lightning.data.trajectories import Observations, TrajectoryData, blocks
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.environments import ActionSpace, Blocks
from jepa_lightning.loading import load_jepa_and_config
from jepa_lightning.loading.trajectories import trajectory_data
from jepa_lightning.loading.untrained import untrained_jepa
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from jepa_lightning.planning.cost import Cost
from jepa_lightning.planning.planners.base import Energy
from jepa_lightning.predictors.rollout import Past
from jepa_lightning.pretexts import Rollout
from jepa_lightning.pretexts.trajectories import frames, trajectory_length
from jepa_lightning.run.checkpoints import Which


class World(nn.Module):
    """A JEPA that was trained with `Rollout`, done with training: in eval mode, float32, its parameters frozen.

    Gradients still flow from imagined states to the actions and the past.

    Args:
        jepa: the trained module; its parts are copied.
        observations: makes the modality's input of raw observations, as the data module did in training; None: they
            are given as batches of that.
        config: the run's configuration, for `untrained`; None of a module built in Python.
        trust: packages whose classes `config` may name.
        frame_skip: steps of the environment that one step of the predictor stands for, `TrajectoryData.frame_skip`.

    Raises:
        ValueError: the module was trained with another pretext, or on actions that are no blocks of so many steps.
    """

    def __init__(
        self,
        jepa: JEPA,
        *,
        observations: Observations | None = None,
        config: Config | None = None,
        trust: Collection[str] = (),
        frame_skip: int = 1,
    ) -> None:
        super().__init__()
        if frame_skip < 1 or _rollout_of(jepa).action_dim % frame_skip:
            raise ValueError(
                f"expected a frame_skip that divides {jepa.pretext.action_dim}, the width of a block of actions "
                f"(model.pretext.action_dim), got {frame_skip}"
            )
        self.frame_skip = frame_skip
        parts = jepa.tokenizer, jepa.encoder, jepa.target, jepa.predictor, _rollout_of(jepa)
        copied = copy.deepcopy(parts)  # in one go: the target `Online` is the encoder
        self.tokenizer, self.encoder, self.target, self.predictor = copied[:4]
        self.pretext = copied[4]
        self.modality = jepa.modality
        self.observations = observations
        self.config = config
        self.trust = tuple(trust)
        self.float().requires_grad_(False).train(False)

    @property
    def history(self) -> int:
        """Past states that the predictor sees."""
        return self.pretext.history

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.encoder.parameters()).device

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: `mode` has no effect."""
        return super().train(False)

    def batch(self, observations: Tensor | Batch) -> Batch:
        """Raw observations (B, ...) as a batch of the modality, on the world's device; a batch stays one."""
        if isinstance(observations, Tensor):
            if self.observations is None:
                raise ValueError(
                    "expected a batch of the modality, got a tensor: nobody knows how this world's data were normalised"
                )
            observations = {self.observations.key: self.observations.prepare(observations)}
        return {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in observations.items()}

    @torch.no_grad()
    def encode(self, observations: Tensor | Batch) -> Tensor:
        """The present state (B, S, D), as the predictor takes it."""
        tokens = self.tokenizer(self.batch(observations))
        return self.pretext.states(self.encoder(tokens), tokens).float()

    @torch.no_grad()
    def encode_goal(self, observations: Tensor | Batch) -> Tensor:
        """A state to reach (B, S, D), as the predictor predicts it: by the target."""
        tokens = self.tokenizer(self.batch(observations))
        return self.pretext.states(self.target(tokens), tokens).float()

    @torch.no_grad()
    def encode_both(self, observations: Tensor | Batch) -> tuple[Tensor, Tensor]:
        """What `encode` and `encode_goal` give; the encoder runs once where the target is the encoder itself."""
        tokens = self.tokenizer(self.batch(observations))
        encoded = self.encoder(tokens)
        shared = self.target.of_encoded(encoded)
        goals = self.target(tokens) if shared is None else shared
        return self.pretext.states(encoded, tokens).float(), self.pretext.states(goals, tokens).float()

    def past(self, states: Tensor) -> Past:
        """The past of episodes that begin in `states` (B, S, D)."""
        return self.pretext.past(states.unsqueeze(1), 1, self.positions)

    @property
    def positions(self) -> Tensor | None:
        """Where the tokens of a state lie; None of a pooled one."""
        if self.pretext.state == "pooled":
            return None
        grid = self.modality.spec.grid
        assert grid is not None  # see Rollout.predictor_spec
        return grid_positions(grid, self.device)[0]

    def imagine(
        self, past: Past, actions: Tensor, *, samples: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """The states that follow candidate actions.

        Args:
            past: of B episodes.
            actions: (B, C, H, A) in the environment's units: C candidates for each episode.
            samples: futures K of each candidate, of a world with a latent z (`LatentRollout`); None: one.
            generator: on the CPU, of what is drawn; None: the same in each call, and for all candidates.

        Returns:
            (B, C, H, S, D); with a frame skip k the states after every k-th action, (B, C, H / k, S, D). With samples
            (B, C, K, H / k, S, D).

        Raises:
            ValueError: H is no multiple of k, actions have another width, or more futures are asked for than there are.
        """
        candidates = actions.shape[1]
        told, number = self.told(actions).flatten(0, 1), 1 if samples is None else samples
        found = self.pretext.imagine(self.predictor, past.repeat(candidates), told, number, generator)
        found = found.unflatten(0, (-1, candidates))
        return found.squeeze(2) if samples is None else found

    def told(self, actions: Tensor) -> Tensor:
        """Actions (..., H, A) of the environment as the predictor is told them: standardised blocks (..., H / k, k A).

        Raises:
            ValueError: H is no multiple of the frame skip k, or actions have another width.
        """
        width = self.pretext.action_dim // self.frame_skip
        if actions.shape[-1] != width:
            raise ValueError(f"expected actions of width {width}, got {actions.shape[-1]}")
        return self.pretext.standardized(blocks(actions.to(self.device), self.frame_skip))

    def block_space(self, space: ActionSpace) -> ActionSpace:
        """The space of what one step of the predictor is told: `space` itself, or with a frame skip its blocks."""
        return space if self.frame_skip == 1 else Blocks(space, self.frame_skip)

    @property
    def levels(self) -> int:
        """How many levels it has: 1, or more of `HierarchicalRollout`."""
        return self.pretext.depth

    def lift(self, states: Tensor, *, level: int, since: int = 1) -> Tensor:
        """States (..., S, D) of level `since` as states of a level above it, or of the same; see `Rollout.lift`."""
        return self.pretext.lift(states, level=level, since=since)

    def energy(self, past: Past, goal: Tensor, cost: Cost) -> Energy:
        """What a planner minimises: actions (B, C, H, A) to the cost (B, C) of what would follow, the mean of futures.

        Args:
            past: of B episodes.
            goal: (B, S, D) states to reach.
            cost: of imagined trajectories.
        """

        def energy(actions: Tensor) -> Tensor:
            if self.pretext.futures == 1:
                return self.score(cost, self.imagine(past, actions), actions, goal.unsqueeze(1))
            states = self.imagine(past, actions, samples=self.pretext.futures)  # (B, C, K, H, S, D)
            done = actions.unsqueeze(2).expand(-1, -1, states.shape[2], -1, -1)
            return self.score(cost, states, done, goal[:, None, None]).mean(2)

        return energy

    def score(self, cost: Cost, states: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """What a cost says of states (..., H, S, D) and a goal (..., S, D) of the first level, in its own level."""
        level = cost.level or 1
        return cost(self.lift(states, level=level), actions, self.lift(goal, level=level))

    @torch.no_grad()
    def surprise(self, observations: Tensor | Batch, actions: Tensor) -> Tensor:
        """How implausible each transition is: how far the next state is from the predicted one.

        The root mean square over channels of s' - predictor(s, a), with a latent z that of the best code. The predictor
        sees as many past states as there are, at most `history`, and a `causal` one the actions between them.

        Args:
            observations: raw ones (B, T, ...), or a batch of the modality with T of them a sample.
            actions: (B, T - 1, A) between them, in the environment's units; with a frame skip k (B, (T - 1) k, A).

        Returns:
            (B, T - 1).

        Raises:
            ValueError: the numbers of observations and actions do not fit.
        """
        if isinstance(observations, Tensor):
            observations = {"observations": observations}
        given = {name: value for name, value in observations.items() if name not in ("id", "labels")}
        told = self.told(actions)
        folded = frames({**given, "actions": told})
        seen = folded["observations"] if set(folded) == {"observations"} else folded
        steps = trajectory_length({"actions": told}) - 1
        states, targets = (made.unflatten(0, (-1, steps + 1)) for made in self.encode_both(seen))
        past = self.pretext.past(states, steps, self.positions, told)
        found = self.pretext.surprise(self.predictor, past, told.flatten(0, 1), targets[:, 1:].flatten(0, 1))
        return found.unflatten(0, (-1, steps))

    def untrained(self) -> World:
        """The world before training, with the actions' statistics as they are now.

        Raises:
            ValueError: there is no configuration to build it from.
        """
        if self.config is None:
            raise ValueError("expected a checkpoint of jepa-fit, got a module built in Python: build a fresh one")
        jepa = untrained_jepa(self.config, self.tokenizer, trust=self.trust)
        of_data = {name: value for name, value in self.pretext.state_dict().items() if not name.startswith("levels.")}
        jepa.pretext.load_state_dict(of_data, strict=False)
        kept: dict[str, Any] = {"observations": self.observations, "config": self.config, "trust": self.trust}
        return World(jepa, frame_skip=self.frame_skip, **kept).to(self.device)

    def data(self, **overrides: Any) -> TrajectoryData:
        """The run's data module, with other settings where they are given.

        Raises:
            ValueError: the run's config.yaml is not beside its checkpoint, or names other data.
        """
        return trajectory_data(self.config, self.modality, self.trust, overrides)


def load_world(
    path: str | Path,
    *,
    which: Which = "last",
    map_location: str | torch.device = "cpu",
    trust: Collection[str] = (),
) -> World:
    """The world model of a run.

        world = jepa_lightning.load_world("runs/world")
        states = world.imagine(world.past(world.encode(images)), actions)

    As with `load`, nothing that a checkpoint holds is run.

    Args:
        path: a checkpoint, or the folder of a run.
        which: of a folder, the "last" checkpoint or the "best".
        map_location: device of the result.
        trust: further packages whose classes the configuration may name; their code is imported and run.

    Raises:
        ValueError: there is no such checkpoint, or it is none of a world model. The message says what to do.
    """
    jepa, config = load_jepa_and_config(path, which=which, trust=trust)
    return world_of(jepa, config, trust=trust).to(map_location)


def world_of(jepa: JEPA, config: Config | None, *, trust: Collection[str] = ()) -> World:
    """The world model of a module that was loaded with its run's configuration; see `load_world`."""
    _rollout_of(jepa)  # before its data are read, which would say less
    told: dict[str, Any] = {}
    if "class_path" in ((config or {}).get("data") or {}):
        data = trajectory_data(config, jepa.modality, trust, {})
        told = {"observations": data.batch_transform(), "frame_skip": data.frame_skip}
    return World(jepa, config=config, trust=trust, **told)


def _rollout_of(jepa: JEPA) -> Rollout:
    if not isinstance(jepa.pretext, Rollout):
        raise ValueError(
            f"expected a run of the pretext Rollout, got one of {type(jepa.pretext).__name__}: a world model is "
            "trained on trajectories, as by jepa-fit --config world.yaml"
        )
    return jepa.pretext
