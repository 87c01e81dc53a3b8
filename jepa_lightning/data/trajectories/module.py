"""The data module of world models: windows of episodes, with actions."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from jepa_lightning.data.batch import Sample
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.module import JEPADataModule
from jepa_lightning.data.shared import DataSettings, Unpack
from jepa_lightning.data.split import draw
from jepa_lightning.data.trajectories.episodes import Episode, Episodes, Window
from jepa_lightning.data.trajectories.lerobot import is_lerobot, read_lerobot
from jepa_lightning.data.trajectories.reading import find_episode_files, read_episodes
from jepa_lightning.environments import Environment, TwoRooms
from jepa_lightning.modality import Batch
from jepa_lightning.randomness import derive_seed

_log = logging.getLogger(__name__)
_OBSERVATIONS, _ACTIONS = "observations", "actions"  # names in files where nothing else is said


class TrajectoryData(JEPADataModule):
    """Windows of episodes: `window` observations at a modality's key, and the actions between them.

    Any modality whose batches are tensors: an observation is a sample of it. Those of 8 bits are taken for images,
    (H, W), (H, W, C) or (C, H, W); they are scaled to 0-1, then by `mean` and `std`, and must have the model's size.
    Others (numbers of a robot's joints) stay as they are, as float32. Actions stay in the environment's units; the
    pretext standardises them.

    Whole episodes are held out for validation. Training windows begin anywhere, drawn from (seed, epoch, sample); those
    for evaluation at the episode's start, and of several spread evenly over it.

    With `frame_skip` k, a window holds every k-th observation, beginning anywhere, and an action is the block of the k
    actions between two of them, one behind the other: `model.pretext.action_dim` is k times the width of one. A world
    that is trained so sees what k actions do in one step of its predictor.

    Args:
        root: a file of episodes, or a folder of them whose names may tell splits (`train.npz`, `test.h5`); see
            `jepa_lightning.data.trajectories.reading.read_episodes` for the layouts; or a folder of LeRobot, whose
            pictures are scaled to the model's size. None: an agent that wanders in
            `environment`.
        environment: what is simulated where there are no files; `TwoRooms` by default.
        episodes: number of generated training episodes (an eighth as many for validation).
        length: observations of a generated episode.
        window: observations of a sample. Episodes shorter than (window - 1) x frame_skip + 1 are left out.
        frame_skip: steps from one observation of a sample to the next; each action of it is a block of so many.
        windows: samples of an epoch from each episode.
        key: of the observations in a batch: what the modality reads. None: the model's modality's name.
        observations: name of the observations in files; of LeRobot its only camera, where nothing else is said.
        actions: name of the actions in files; LeRobot's is action. None: without actions, of any data; each then has no
            numbers, and `LatentRollout` with an action_dim of 0 learns what happens.
        labels: names of arrays in files that are labels; None: all with a number for each observation or episode.
        mean: of images, subtracted after scaling to 0-1; one number, or one for each channel.
        std: of images, divided by; likewise.
        **shared: batch_size, num_workers, seed and so on (`JEPADataModule`).

    Raises:
        DataError: arguments that do not fit each other or the data.

    Examples:
        >>> from jepa_lightning.data import TrajectoryData
        >>> data = TrajectoryData(key="image", episodes=16, length=12, window=8, batch_size=4, num_workers=0)
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["image"].shape, batch["actions"].shape, batch["labels"]["x"].shape
        (torch.Size([4, 8, 1, 64, 64]), torch.Size([4, 7, 2]), torch.Size([4, 8]))
    """

    name = "observations"

    def __init__(
        self,
        *,
        root: str | None = None,
        environment: Environment | None = None,
        episodes: int = 800,
        length: int = 32,
        window: int = 12,
        frame_skip: int = 1,
        windows: int = 1,
        key: str | None = None,
        observations: str = _OBSERVATIONS,
        actions: str | None = _ACTIONS,
        labels: list[str] | None = None,
        mean: float | list[float] = 0.1,
        std: float | list[float] = 0.25,
        **shared: Unpack[DataSettings],
    ) -> None:
        super().__init__(**shared)
        if root is not None and environment is not None:
            raise DataError("expected root or environment, got both: leave one out, or set it to null")
        if window < 2 or min(windows, frame_skip) < 1:
            raise DataError(
                "expected at least 2 observations a window, 1 window an episode and a frame_skip of 1, got "
                f"{window}, {windows} and {frame_skip}"
            )
        self.window = window
        self.frame_skip = frame_skip
        if root is None and (episodes < 8 or length < self.span):
            raise DataError(
                f"expected at least 8 generated episodes no shorter than a window of {self.span}, got {episodes} of "
                f"{length}"
            )
        means, stds = _listed(mean), _listed(std)
        if not all(map(math.isfinite, means)) or not all(0 < one < math.inf for one in stds) or not means or not stds:
            raise DataError(f"expected a finite mean and a std above 0, got {mean} and {std}")
        if self.views > 1:
            raise DataError(f"expected views 1 of trajectories, got {self.views}")
        self.root = root
        self.environment = environment or TwoRooms()
        self.episodes = episodes
        self.length = length
        self.windows = windows
        self.key = key
        self.observations, self.actions = observations, actions
        self.labels = labels
        self.mean, self.std = mean, std

    @property
    def observation_key(self) -> str:
        """Key of the observations in a batch."""
        return str(self.or_model("name", self.key))

    @property
    def span(self) -> int:
        """Observations of an episode from a window's first to its last."""
        return (self.window - 1) * self.frame_skip + 1

    def load(self) -> dict[str, Dataset[Any]]:
        """Episodes by split, whole ones held out where there is no validation split."""
        self.in_memory = True
        self.name = self.observation_key
        found = self._generated() if self.root is None else self._read(Path(self.root).expanduser())
        if self.actions is None:
            found = {name: [replace(one, actions=one.actions[:, :0]) for one in part] for name, part in found.items()}
        if "val" not in found and self.val_fraction > 0:
            train = found["train"]
            held = set(draw(len(train), max(1, round(self.val_fraction * len(train))), seed=self.seed).tolist())
            found["train"] = [episode for i, episode in enumerate(train) if i not in held]
            found["val"] = [train[i] for i in sorted(held)]
            if not found["train"]:
                raise DataError("expected at least 2 episodes, one to hold out, got 1: add data or set val_fraction 0")
        return {
            split: Episodes(part, key=self.name, windows=self.windows if split == "train" else 1)
            for split, part in found.items()
        }

    def _generated(self) -> dict[str, list[Episode]]:
        counts = {"train": self.episodes, "val": max(1, self.episodes // 8)}
        found: dict[str, list[Episode]] = {}
        for split, count in counts.items():
            generator = torch.Generator().manual_seed(derive_seed("episodes", self.seed, split))
            walks = self.environment.wander(count, self.length, generator)
            names = self.environment.state_names
            found[split] = [
                Episode(
                    self.environment.observe(states),
                    actions,
                    dict(zip(names, states.unbind(-1), strict=True)),
                    f"{split}[{i}]",
                )
                for i, (states, actions) in enumerate(zip(walks.states, walks.actions, strict=True))
            ]
        return found

    def _read(self, root: Path) -> dict[str, list[Episode]]:
        names: dict[str, Any] = {"observations": self.observations, "actions": self.actions, "labels": self.labels}
        found: dict[str, list[Episode]] = {}
        for split, every in (self._read_lerobot(root) if is_lerobot(root) else _from_files(root, names)).items():
            found[split] = [episode for episode in every if len(episode.observations) >= self.span]
            if not found[split]:
                longest = max((len(episode.observations) for episode in every), default=0)
                raise DataError(
                    f"expected episodes of at least {self.span} observations for {split} in {root}, the longest of "
                    f"{len(every)} has {longest}: lower data.window"
                )
            if len(found[split]) < len(every):
                _log.warning("%d of %d episodes are shorter than a window", len(every) - len(found[split]), len(every))
        return found

    def _read_lerobot(self, root: Path) -> dict[str, list[Episode]]:
        size = getattr(self.modality, "image_size", None)
        return {
            "train": read_lerobot(
                root,
                observations=None if self.observations == _OBSERVATIONS else self.observations,
                actions="action" if self.actions is None or self.actions == _ACTIONS else self.actions,
                labels=self.labels,
                size=(size, size) if isinstance(size, int) else size,
            )
        }

    def transforms(self) -> tuple[Callable[[Sample], Sample], Callable[[Sample], Sample]]:
        """A window anywhere for training, the first one for evaluation."""
        shared: dict[str, Any] = {"length": self.window, "frame_skip": self.frame_skip}
        return Window(self.name, random=True, **shared), Window(self.name, random=False, **shared)

    def as_item(self, value: Any) -> Any:
        """One observation: an array, a tensor, an image of Pillow or the path of an .npy file; or a sample dict."""
        self.name = self.observation_key
        item = super().as_item(np.array(value) if hasattr(value, "getbands") else value)
        return {**item, self.name: torch.as_tensor(item[self.name])} if self.name in item else item

    def evaluation_transform(self) -> Callable[[Sample], Sample]:
        """Prepare single observations that are not among the data: nothing is cut from them."""
        return _Single(self.batch_transform())

    def batch_transform(self) -> Observations:
        """Images as normalised floats."""
        return Observations(self.observation_key, mean=self.mean, std=self.std)


def _from_files(root: Path, names: Mapping[str, Any]) -> dict[str, list[Episode]]:
    """Read the episodes of each split."""
    found = find_episode_files(root)
    return {split: [one for file in files for one in read_episodes(file, **names)] for split, files in found.items()}


def _listed(value: float | Sequence[float]) -> list[float]:
    return [value] if isinstance(value, int | float) else [*value]


class Observations:
    """Observations as a modality takes them; see `TrajectoryData`.

    Args:
        key: of the observations in a batch.
        mean: of images, of all channels or of each.
        std: of images, likewise.
    """

    anywhere = True  # computes on the device of the batch; see `jepa_lightning.data.batch.AfterTransfer`

    def __init__(self, key: str, *, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.key = key
        self.mean, self.std = _listed(mean), _listed(std)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with observations as floats, images (..., C, H, W)."""
        seen = batch[self.key]
        if not isinstance(seen, Tensor):
            raise DataError("expected observations of one shape, got several: make the episodes alike")
        return {**batch, self.key: self.prepare(seen, lead=2)}

    def prepare(self, seen: Tensor, *, lead: int = 1) -> Tensor:
        """Observations behind `lead` axes (batch, time)."""
        if seen.dtype != torch.uint8:
            return seen.float()
        if seen.ndim == lead + 2:
            seen = seen.unsqueeze(-3)
        elif seen.ndim == lead + 3 and seen.shape[-1] in (1, 3, 4) and seen.shape[-3] not in (1, 3, 4):
            seen = seen.movedim(-1, -3)
        elif seen.ndim != lead + 3:
            raise DataError(f"expected images (H, W), (H, W, C) or (C, H, W), got {tuple(seen.shape[lead:])}")
        scaled, channels = seen.float() / 255, seen.shape[-3]
        if len(self.mean) == len(self.std) == 1:
            return (scaled - self.mean[0]) / self.std[0]
        if {len(self.mean), len(self.std)} - {1, channels}:
            raise DataError(
                f"expected a mean and a std for each of {channels} channels, or one for all, got {self.mean} and "
                f"{self.std}: set data.mean and data.std"
            )
        each = zip(scaled.unbind(-3), *(v * channels if len(v) == 1 else v for v in (self.mean, self.std)), strict=True)
        return torch.stack([(part - mean) / std for part, mean, std in each], dim=-3)


class _Single:
    """A single observation as a modality takes it."""

    def __init__(self, observations: Observations) -> None:
        self.observations = observations

    def __call__(self, sample: Sample) -> Sample:
        key = self.observations.key
        return {**sample, key: self.observations.prepare(sample[key], lead=0)}
