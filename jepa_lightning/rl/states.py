"""Observations of an environment as states of a frozen encoder, with those before them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_lightning.environments.gymnasium import shrunk
from jepa_lightning.loading import Frozen, load_jepa_and_config
from jepa_lightning.planning.world import World, world_of
from jepa_lightning.pretexts import Rollout

Encoder = str | Path | World | Frozen


class States:
    """Encodes what some environments show, and remembers: their last `history` states, one behind the other.

    Args:
        encoder: folder or checkpoint of a run, or a loaded encoder or world.
        count: number of environments.
        example: what one of them shows, an array of the shape and type of its observations.
        history: states that are told; None: as many as a world's predictor sees, and 1 of an encoder. Those of a world
            are its frame skip apart.
        device: to move the encoder to; None: where it is.

    Attributes:
        dim: numbers of what is told.

    Raises:
        ValueError: `history` is below 1, there is no such run, or it cannot encode what is shown.
    """

    def __init__(
        self,
        encoder: Encoder,
        count: int,
        example: NDArray[Any],
        *,
        history: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.encoder = loaded(encoder) if isinstance(encoder, str | Path) else encoder
        if device is not None:
            self.encoder.to(device)
        world = self.encoder if isinstance(self.encoder, World) else None
        self.history = history if history is not None else 1 if world is None else world.history
        self.apart = 1 if world is None else world.frame_skip
        if self.history < 1:
            raise ValueError(f"history must be at least 1, got {self.history}")
        width = self.encode([example]).shape[1]
        self.dim = self.history * width
        self.last = np.zeros((self.apart * (self.history - 1) + 1, count, width), dtype=np.float32)

    def __call__(self, shown: Sequence[NDArray[Any]], fresh: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The states (n, history x D) of n environments, the oldest first; zeros before an episode's start.

        Args:
            shown: what each environment shows.
            fresh: (n,) whether an episode begins with it.
        """
        self.last[:, fresh] = 0
        self.last = np.concatenate([self.last[1:], self.encode(shown)[None]])
        return self.told()

    def told(self, index: int | None = None, instead: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """What is told now, (n, history x D).

        Args:
            index: of one environment alone, (history x D).
            instead: what it would show in place of the last observation.
        """
        chosen = self.last[:: self.apart]  # (history, n, D)
        if index is None:
            return chosen.swapaxes(0, 1).reshape(chosen.shape[1], -1).copy()
        own = chosen[:, index].copy()
        if instead is not None:
            own[-1] = self.encode([instead])[0]
        return own.reshape(-1)

    @torch.no_grad()
    def encode(self, shown: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """What environments show as their states, (n, D) on the CPU."""
        if isinstance(self.encoder, World):
            found = self.encoder.encode(torch.stack([self.seen(one) for one in shown]))
        else:
            found = self.encoder([channels_last(one) if is_image(one) else one for one in shown])
        return found.flatten(1).float().cpu().numpy()

    def seen(self, shown: NDArray[Any]) -> Tensor:
        """What an environment shows as a world takes it: images in its size and colours, other numbers as they are."""
        if not is_image(shown):
            return torch.as_tensor(np.asarray(shown))
        modality, image = self.encoder.modality, channels_last(shown)
        size, channels = getattr(modality, "image_size", image.shape[:2]), getattr(modality, "channels", 3)
        return shrunk(image, (size, size) if isinstance(size, int) else tuple(size), channels=channels)


def loaded(path: str | Path) -> World | Frozen:
    """The world of a run that has one, and the encoder of another; the checkpoint is read once."""
    jepa, config = load_jepa_and_config(path)
    return world_of(jepa, config) if isinstance(jepa.pretext, Rollout) else Frozen(jepa, config=config)


def is_image(shown: NDArray[Any]) -> bool:
    """Whether an observation is an image of 8 bits: (H, W), (H, W, C) or (C, H, W)."""
    return shown.dtype == np.uint8 and shown.ndim in (2, 3)


def channels_last(image: NDArray[Any]) -> NDArray[Any]:
    """An image (C, H, W) as (H, W, C); others stay as they are."""
    first = image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[-1] not in (1, 3)
    return np.ascontiguousarray(np.moveaxis(image, 0, -1)) if first else image
