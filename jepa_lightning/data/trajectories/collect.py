"""Record episodes of an environment of gymnasium. The flags of `jepa-collect` are the parameters of `collect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_lightning.environments.gymnasium import as_asked, make, picture, space_of
from jepa_lightning.randomness import derive_seed
from jepa_lightning.run.writing import replacing


def collect(
    env: str,
    out: str | Path,
    *,
    episodes: int = 100,
    length: int | None = None,
    hold: int = 4,
    image_size: int = 64,
    val_fraction: float = 0.1,
    seed: int = 0,
) -> dict[str, int | float]:
    """Record random episodes of an environment of gymnasium, as `TrajectoryData` reads them.

    Writes `train.npz` and `val.npz`: `observations` (M, 3, S, S) uint8 as rendered, `actions` (M, A), choices as
    vectors with a 1, `reward` (M,) after each action, `state` (M, P) where the environment gives a vector, and
    `episode_lengths`. An episode ends where the environment ends it.

    Args:
        env: id of the environment, such as Pendulum-v1.
        out: folder to write.
        episodes: number of episodes.
        length: observations of an episode, at most; None: as long as the environment lets it last.
        hold: steps that a random action is held.
        image_size: pixels a side of an observation.
        val_fraction: share of the episodes for validation, at least one.
        seed: of starts and actions.

    Returns:
        Numbers of `episodes` and `observations`, `action_dim` A, `state` P (0: none), and `return`, the mean sum of
        rewards of an episode.

    Raises:
        ValueError: a setting is out of range, or gymnasium does not know the environment.
        ImportError: gymnasium is not installed.
    """
    if episodes < 2 or min(hold, image_size) < 1 or not 0 < val_fraction < 1 or (length is not None and length < 2):
        raise ValueError(
            "expected at least 2 episodes, a length of at least 2, hold and image_size of at least 1 and a "
            f"val_fraction between 0 and 1, got {episodes}, {length}, {hold}, {image_size} and {val_fraction}"
        )
    made = make(env)
    space = space_of(made)
    limit = length or getattr(made.spec, "max_episode_steps", None)
    if limit is None:
        raise ValueError(f"expected a length, since {env} sets no limit, got none: add --length")
    generator = torch.Generator().manual_seed(derive_seed("collect", seed))
    parts: list[dict[str, Any]] = []
    for number in range(episodes):
        seen, _ = made.reset(seed=derive_seed("collect", seed, number) % 2**31)
        rows: dict[str, list[Any]] = {"observations": [], "actions": [], "reward": [], "state": []}
        ended = False
        for step in range(limit):
            if step % hold == 0:
                action = space.sample((), generator)
            rows["observations"].append(picture(made, image_size).numpy())
            rows["actions"].append(action.numpy())
            rows["state"].append(np.asarray(seen))
            if ended or step == limit - 1:
                rows["reward"].append(np.float32(0))
                break
            seen, reward, terminated, truncated, _ = made.step(as_asked(space, made, action))
            rows["reward"].append(np.float32(reward))
            ended = terminated or truncated
        parts.append({name: np.stack(values) for name, values in rows.items()})
    made.close()
    vector = made.observation_space.shape is not None and len(made.observation_space.shape) == 1
    held = max(1, round(val_fraction * episodes))
    folder = Path(out).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    for split, chosen in (("train", parts[:-held]), ("val", parts[-held:])):
        names = [name for name in parts[0] if name != "state" or vector]
        arrays: dict[str, Any] = {name: np.concatenate([part[name] for part in chosen]) for name in names}
        arrays["episode_lengths"] = np.array([len(part["actions"]) for part in chosen])
        with replacing(folder / f"{split}.npz") as beside, beside.open("wb") as file:
            np.savez_compressed(file, **arrays)
    return {
        "episodes": episodes,
        "observations": sum(len(part["actions"]) for part in parts),
        "action_dim": parts[0]["actions"].shape[-1],
        "state": parts[0]["state"].shape[-1] if vector else 0,
        "return": float(np.mean([part["reward"].sum() for part in parts])),
    }
