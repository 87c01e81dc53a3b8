"""Few-shot episodes."""

import numpy as np
import pytest
import torch

from jepa_lightning.evaluation.probes.few_shot import draw_episodes, draw_in_halves, episodes_interval, few_shot

LABELS = np.repeat([4, 7, 9, 2, 0, -1], [30, 30, 30, 30, 12, 8])


def test_episodes_hold_different_samples_of_different_classes():
    found = draw_episodes(LABELS, ways=3, shots=2, queries=5, episodes=50)
    assert found.shape == (50, 3, 7)
    for episode in found:
        assert len(set(episode.ravel().tolist())) == 21
        classes = [set(LABELS[row].tolist()) for row in episode]
        assert all(len(names) == 1 for names in classes)
        assert len(set.union(*classes)) == 3
        assert -1 not in set.union(*classes)


def test_fewer_queries_where_classes_are_small():
    assert draw_episodes(LABELS, ways=5, shots=2, episodes=4).shape == (4, 5, 12)
    assert draw_episodes(LABELS, ways=4, shots=2, episodes=4).shape == (4, 4, 17)


def test_the_nearest_centroid_is_that_of_a_plain_loop():
    features = torch.randn(len(LABELS), 6, generator=torch.Generator().manual_seed(0)) + 2
    features += torch.from_numpy(LABELS).unsqueeze(1) * torch.tensor([0.2, -0.1, 0, 0, 0.1, 0])
    episodes = draw_episodes(LABELS, ways=3, shots=2, queries=5, episodes=40)
    accuracies = []
    for episode in episodes:
        values = features.numpy()[episode]
        values = values - values[:, :2].reshape(-1, 6).mean(0)
        values = values / np.linalg.norm(values, axis=-1, keepdims=True)
        right = 0
        for name in range(3):
            for query in values[name, 2:]:
                distances = [np.linalg.norm(query - values[other, :2].mean(0)) for other in range(3)]
                right += int(np.argmin(distances) == name)
        accuracies.append(right / 15)
    assert 0.4 < np.mean(accuracies) < 0.95
    np.testing.assert_allclose(few_shot(features, episodes, shots=2, chunk=7), accuracies, atol=1e-6)


def test_halves_share_no_sample():
    found = draw_in_halves(LABELS, ways=5, shots=1, episodes=200).reshape(50, 2, -1)
    assert found.size == 200 * 5 * 6  # 12 of the smallest class, 6 in each half
    for first, second in found:
        assert not set(first.tolist()) & set(second.tolist())
    assert len({tuple(sorted(set(half[0].tolist()))) for half in found}) == 50


@pytest.mark.long
def test_the_interval_covers_chance_on_noise_where_that_of_the_episodes_alone_does_not():
    covered, usual, rounds = 0, 0, 20
    labels = np.arange(160) % 4
    for seed in range(rounds):
        features = torch.randn(160, 8, generator=torch.Generator().manual_seed(seed))
        values = few_shot(features, draw_in_halves(labels, ways=4, shots=5, episodes=500, seed=seed), shots=5)
        found = episodes_interval(values)
        covered += found.low <= 0.25 <= found.high
        usual += abs(values.mean() - 0.25) <= 1.96 * values.std() / np.sqrt(500)
    assert covered >= 0.9 * rounds
    assert usual < 0.7 * rounds


def test_the_interval_of_equal_episodes_is_a_point():
    found = episodes_interval(np.full(200, 0.5))
    assert (found.mean, found.low, found.high, found.count) == (0.5, 0.5, 0.5, 200)
    assert np.isnan(episodes_interval(np.full(200, np.nan)).mean)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_episodes(LABELS, ways=6, shots=1), "at least 6 classes with more than 1 samples .* got 5"),
        (lambda: draw_episodes(LABELS, ways=5, shots=12), "5-way 12-shot episodes, got 4"),
        (lambda: draw_episodes(LABELS, ways=1, shots=1), "at least 2 ways"),
        (lambda: draw_in_halves(LABELS, ways=2, shots=1, episodes=50), "multiple of 100"),
        (lambda: draw_in_halves(LABELS, ways=5, shots=6), "5-way 6-shot episodes, got 4"),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
