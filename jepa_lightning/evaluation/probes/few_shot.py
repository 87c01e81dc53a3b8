"""Few-shot episodes: new classes from a handful of samples, by the nearest centroid."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from jepa_lightning.evaluation.probes.protocols import Interval

_HALVINGS = 50
_FREEDOM = 10  # cautious: halvings of the same samples are not independent


def draw_episodes(
    labels: NDArray[np.int64], *, ways: int, shots: int, queries: int = 15, episodes: int = 600, seed: int = 0
) -> NDArray[np.int64]:
    """Draw the samples of episodes: (episodes, ways, shots + queries) numbers of samples, none twice in an episode.

    Args:
        labels: (n,) classes; negative ones are left out.
        ways: classes an episode, drawn from those with enough samples.
        shots: training samples per class, the first of the last axis.
        queries: test samples a class; fewer where otherwise too few classes would have enough samples.
        episodes: their number.
        seed: of the draws.

    Raises:
        ValueError: fewer than `ways` classes have more samples than shots.
    """
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    if ways < 2 or shots < 1 or queries < 1 or episodes < 2:
        raise ValueError(
            f"expected at least 2 ways, 1 shot, 1 query and 2 episodes, got {ways}, {shots}, {queries} and {episodes}"
        )
    enough = int((counts > shots).sum())
    if enough < ways:
        raise ValueError(
            f"expected at least {ways} classes with more than {shots} samples for {ways}-way {shots}-shot episodes, "
            f"got {enough}: use fewer ways or shots"
        )
    queries = min(queries, int(np.sort(counts)[-ways]) - shots)
    members = [np.flatnonzero(labels == name) for name in names[counts >= shots + queries]]
    rng = np.random.default_rng(seed)
    found = np.empty((episodes, ways, shots + queries), dtype=np.int64)
    for episode in found:
        for row, number in zip(episode, rng.choice(len(members), ways, replace=False), strict=True):
            row[:] = rng.choice(members[number], shots + queries, replace=False)
    return found


def few_shot(features: Tensor, episodes: NDArray[np.int64], *, shots: int, chunk: int = 32) -> NDArray[np.float64]:
    """Measure the accuracy of the nearest centroid in each episode: (episodes,).

    Features are centred by the mean of the episode's shots, which no query touches, and scaled to unit length; a class
    is the mean of its shots (Snell et al. 2017, without training; centring and scaling as in Wang et al. 2019,
    SimpleShot, whose mean is that of other classes).

    Args:
        features: (n, D).
        episodes: from `draw_episodes`, with as many shots.
        shots: training samples per class.
        chunk: episodes at once.
    """
    ways, right = episodes.shape[1], []
    truth = torch.arange(ways).view(1, ways, 1)
    for part in torch.from_numpy(episodes).split(chunk):
        drawn = features[part].float()  # (E, ways, shots + queries, D)
        drawn = F.normalize(drawn - drawn[:, :, :shots].mean((1, 2), keepdim=True), dim=-1)
        centroids, asked = drawn[:, :, :shots].mean(2), drawn[:, :, shots:]
        distances = torch.cdist(asked.flatten(1, 2), centroids).unflatten(1, asked.shape[1:3])
        right.append((distances.argmin(-1) == truth).float().mean((1, 2)))
    return torch.cat(right).double().numpy()


def draw_in_halves(
    labels: NDArray[np.int64], *, ways: int, shots: int, queries: int = 15, episodes: int = 2000, seed: int = 0
) -> NDArray[np.int64]:
    """Draw episodes as `draw_episodes`, each within one half of the samples: their spread can then be told honestly.

    The samples of each class are halved at random fifty times. The first hundredth of the episodes comes from one half
    of the first halving, the second from its other half, and so on.

    Args:
        labels: (n,) classes; negative ones are left out.
        ways: classes an episode.
        shots: training samples per class.
        queries: test samples a class, at most.
        episodes: their number, a multiple of 100, at least 200.
        seed: of the draws.

    Raises:
        ValueError: too few classes have enough samples in each half, or a number that is out of range.
    """
    parts = 2 * _HALVINGS
    if episodes % parts or episodes < 2 * parts:
        raise ValueError(f"expected a number of episodes that is a multiple of {parts}, at least {2 * parts}, "
                         f"got {episodes}")  # fmt: skip
    rng, found = np.random.default_rng(seed), []
    _, counts = np.unique(labels[labels >= 0], return_counts=True)
    # The same number of queries in all halves: a class of an odd number has one sample less in some.
    queries = max(1, min(queries, int(np.sort(counts)[-min(ways, len(counts))]) // 2 - shots))
    for halving in range(_HALVINGS):
        second = np.zeros(len(labels), dtype=bool)
        for name in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == name))
            second[members[(len(members) + halving % 2) // 2 :]] = True
        for hidden in (second, ~second):
            inside = np.where(hidden, -1, labels)
            found.append(draw_episodes(inside, ways=ways, shots=shots, queries=queries, episodes=episodes // parts,
                                       seed=int(rng.integers(2**31))))  # fmt: skip
    return np.concatenate(found)


def episodes_interval(values: NDArray[np.float64], *, level: float = 0.95) -> Interval:
    """Average over episodes from `draw_in_halves`, or differences, with an interval for fresh samples.

    The usual interval, from the spread over episodes alone, shrinks with the number of episodes while the samples stay
    the same: on noise it finds differences. Here the two halves of a halving share no sample, so half the difference of
    their means has, on average, the variance of the mean over all samples; the mean square over the fifty halvings,
    less the part that comes from the finite number of episodes in a half (but not more than half of it), is that
    variance (a delete-half jackknife), to which that of the mean over episodes is added. The quantile is that of
    Student's t with 10 degrees of freedom. For paired differences in simulations of 300 samples the interval covered
    the truth 89 times of 90, the usual one 20 times.

    Returns:
        The interval; its `std` is that over episodes, its `count` their number.
    """
    std, count = float(values.std(ddof=1)), len(values)
    mean = float(values.mean())
    if not np.isfinite(mean):
        return Interval(mean=np.nan, low=np.nan, high=np.nan, std=np.nan, count=count)
    halves = values.reshape(_HALVINGS, 2, -1)
    within = float(halves.var(axis=2, ddof=1).mean())
    contrast = halves.mean(axis=2)
    between = float(np.square(contrast[:, 0] - contrast[:, 1]).mean()) / 4
    samples = max(between / 2, between - within / halves.shape[2] / 2)
    half = float(student.ppf(0.5 + level / 2, _FREEDOM)) * float(np.sqrt(samples + within / count))
    return Interval(mean=mean, low=mean - half, high=mean + half, std=std, count=count)
