"""Why kNN of the direction rises or falls: what the nearest neighbours of a clip of moving MNIST share with it.

    jepa-fit --config recipes/vjepa_moving_mnist.yaml --data.root DIR
    jepa-fit --config recipes/vicreg_moving_mnist.yaml --data.root DIR
    python -m benchmarks.neighbours runs/vjepa_moving_mnist runs/vicreg_moving_mnist --threads 1

For the frozen encoder of each run, the same before training, and the mean frame: accuracy of kNN (20 neighbours,
cosine) of the direction from the features as they are, centred (the training mean taken off), and whitened (the first
principal components, each divided by its standard deviation); then, over the 20 neighbours of each clip by the
features as they are, how many have its direction, the opposite one, and its digit, and how far their digit is from
its own in pixels: mean place over all frames, place in the first frame, and frame by frame (the path). Fitted on the
training part, asked of the part held out of it; the test clips are not read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import jepa_lightning
from benchmarks.report import table
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.encoders.pooling import Pooling
from jepa_lightning.evaluation import Features, extract
from jepa_lightning.evaluation.probes.neighbours import knn_predict
from jepa_lightning.modality import Batch

K = 20
LABELS = ["direction", "digit", "position"]


def centre(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Take the training mean off both."""
    return train - train.mean(0), test - train.mean(0)


def whiten(train: Tensor, test: Tensor, *, components: int) -> tuple[Tensor, Tensor]:
    """Project both on the training features' first principal components, each divided by its standard deviation."""
    train, test = centre(train, test)
    _, scale, axes = torch.linalg.svd(train, full_matrices=False)
    kept = min(components, len(scale))
    to = axes[:kept].T / (scale[:kept] / len(train) ** 0.5 + 1e-6)
    return train @ to, test @ to


def accuracy(train: Tensor, test: Tensor, labels: Tensor, truth: Tensor) -> float:
    """Accuracy of kNN."""
    return float((knn_predict(train, labels, test, k=K) == truth).float().mean())


def shared(train: Features, test: Features) -> dict[str, float]:
    """What the K nearest training clips of each test clip share with it, on average."""
    one, other = F.normalize(test.values, dim=1), F.normalize(train.values, dim=1)
    nearest = (one @ other.T).topk(min(K, len(other)), dim=1)[1]
    return shares(train.labels, test.labels, nearest)


def shares(train: dict[str, Tensor], test: dict[str, Tensor], nearest: Tensor) -> dict[str, float]:
    """Shares and distances between test clips and the training clips `nearest` (n, k); see `main`'s columns.

    Args:
        train: `direction` (N,) in eighths of a turn, `digit` (N,) and `position` (N, T, 2).
        test: likewise, of n clips.
        nearest: numbers of training clips.
    """
    turn = (train["direction"].long()[nearest] - test["direction"].long()[:, None]) % 8
    apart = train["position"].double()[nearest] - test["position"].double()[:, None]  # (n, k, T, 2)
    return {
        "same direction": float((turn == 0).double().mean()),
        "opposite": float((turn == 4).double().mean()),
        "same digit": float((train["digit"][nearest] == test["digit"][:, None]).double().mean()),
        "mean place": float(apart.mean(2).norm(dim=-1).mean()),
        "first place": float(apart[:, :, 0].norm(dim=-1).mean()),
        "path": float(apart.norm(dim=-1).mean()),
    }


def measure(name: str, embed: Callable[[Batch], Tensor], data: Any) -> list[str]:
    """A row of the table."""
    train, test = extract(embed, data.probe_dataloader()), extract(embed, data.val_dataloader())
    labels, truth = train.labels["direction"].long(), test.labels["direction"].long()
    forms = [
        (train.values, test.values),
        centre(train.values, test.values),
        whiten(train.values, test.values, components=32),
    ]
    found = [accuracy(*form, labels, truth) for form in forms]
    return [name, *(f"{value:.3f}" for value in found), *map(_number, shared(train, test).items())]


def _number(item: tuple[str, float]) -> str:
    name, value = item
    return f"{value:.1f}" if name in ("mean place", "first place", "path") else f"{value:.3f}"


def main(args: list[str] | None = None) -> list[list[str]]:
    """Print the table of some runs."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.neighbours", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="folders of runs on moving MNIST")
    parser.add_argument("--pooling", choices=get_args(Pooling), default="mean", help="as that of jepa-probe")
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args(args)
    if given.threads:
        torch.set_num_threads(given.threads)
    load_plugins()
    rows: list[list[str]] = []
    for run in given.runs:
        encoder = jepa_lightning.load(run)
        data = encoder.data(labels=LABELS, views=1, view_transform=None, probe_samples=10_000)
        for state, encoded in (("trained", encoder), ("untrained", encoder.untrained())):
            rows.append(measure(f"{run}: {state}", partial(encoded.embed, pooling=given.pooling), data))
    rows.append(measure("mean frame", encoder.modality.raw_features, data))  # type: ignore[arg-type]
    random = _random_pairs(data)
    rows.append(["clips drawn at random", "-", "-", "-", *map(_number, random.items())])
    print(table(["features", "kNN", "centred", "whitened", *random], rows))
    return rows


def _random_pairs(data: Any) -> dict[str, float]:
    train, test = extract(_nothing, data.probe_dataloader()), extract(_nothing, data.val_dataloader())
    rng = np.random.default_rng(0)
    drawn = torch.from_numpy(rng.integers(0, len(train.values), (len(test.values), K)))
    return shares(train.labels, test.labels, drawn)


def _nothing(batch: Batch) -> Tensor:
    return torch.zeros(len(batch["video"]), 1)


if __name__ == "__main__":
    main()
