"""Episodes in memory, and the windows that are cut from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from jepa_lightning.data.batch import Sample
from jepa_lightning.data.errors import DataError


@dataclass(frozen=True)
class Episode:
    """One episode: T observations (T, ...), T - 1 actions (T - 1, A), labels (T, ...) by name.

    Raises:
        DataError: the numbers do not fit.
    """

    observations: Tensor
    actions: Tensor
    labels: Mapping[str, Tensor]
    name: str

    def __post_init__(self) -> None:
        length = len(self.observations)
        if self.actions.ndim != 2 or len(self.actions) != length - 1:
            raise DataError(
                f"expected {length - 1} actions of a few numbers each between the {length} observations of "
                f"{self.name}, got the shape {tuple(self.actions.shape)}"
            )
        for label, values in self.labels.items():
            if len(values) != length:
                raise DataError(f"expected {length} values of {label} in {self.name}, got {len(values)}")


class Episodes(Dataset[Sample]):
    """Episodes, each of them `windows` times: that many samples of an epoch are cut from each.

    Args:
        episodes: at least one.
        key: of the observations in a sample.
        windows: samples of each episode.
    """

    def __init__(self, episodes: Sequence[Episode], *, key: str, windows: int = 1) -> None:
        self.episodes = list(episodes)
        self.key = key
        self.windows = windows

    def __len__(self) -> int:
        return len(self.episodes) * self.windows

    def __getitem__(self, index: int) -> Sample:
        """The whole episode, and at `place` where the sample's window lies in it: from 0, the start, to 1, the end."""
        number, which = divmod(index, len(self.episodes))
        episode = self.episodes[which]
        sample = {self.key: episode.observations, "actions": episode.actions, "labels": dict(episode.labels)}
        return {**sample, "place": number / max(self.windows - 1, 1)}

    def sample_id(self, index: int) -> str:
        """Name of the episode, with the number of its sample where there are several."""
        number, which = divmod(index, len(self.episodes))
        name = self.episodes[which].name
        return name if self.windows == 1 else f"{name}.{number}"


class Window:
    """Cuts `length` observations, and what belongs to them, out of an episode.

    Args:
        key: of the observations.
        length: observations of a window.
        random: begin anywhere, drawn from torch's global generator; False: at the sample's `place`.
        frame_skip: steps k from one observation of a window to the next; the k actions between are one behind the
            other in a block (k A).
    """

    def __init__(self, key: str, length: int, *, random: bool, frame_skip: int = 1) -> None:
        self.key = key
        self.length = length
        self.random = random
        self.frame_skip = frame_skip

    def __call__(self, sample: Sample) -> Sample:
        """A window of an episode."""
        steps = (self.length - 1) * self.frame_skip
        last = len(sample[self.key]) - 1 - steps
        start = int(torch.randint(last + 1, ())) if self.random else round(sample["place"] * last)

        def cut(values: Any) -> Any:
            return values[start : start + steps + 1 : self.frame_skip].clone()  # or a worker would send all of it

        others = {name: value for name, value in sample.items() if name != "place"}
        return {
            **others,
            self.key: cut(sample[self.key]),
            "actions": blocks(sample["actions"][start : start + steps], self.frame_skip).clone(),
            "labels": {name: cut(values) for name, values in sample["labels"].items()},
        }


def blocks(actions: Tensor, frame_skip: int) -> Tensor:
    """Actions (..., n k, A) as blocks of k, one behind the other: (..., n, k A).

    Raises:
        ValueError: their number is no multiple of k.
    """
    steps = actions.shape[-2]
    if steps % frame_skip:
        raise ValueError(f"expected a multiple of {frame_skip} actions, the frame skip, got {steps}")
    return actions.unflatten(-2, (steps // frame_skip, frame_skip)).flatten(-2)
