from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from jepa_lightning.data import draw, known_targets


class Labelled(TensorDataset):
    def __init__(self, targets):
        super().__init__(torch.zeros(len(targets)))
        self.targets = targets


def test_draw_is_stratified_exact_and_without_repeats():
    targets = np.repeat([0, 1, 2], [600, 300, 100])
    got = draw(1000, 100, seed=0, targets=targets)
    assert np.bincount(targets[got]).tolist() == [60, 30, 10]
    assert len(np.unique(got)) == 100


@pytest.mark.parametrize("number", [1, 7, 33, 99, 100, 500])
def test_draw_rounds_to_the_exact_total(number):
    targets = np.repeat(np.arange(7), [1, 2, 3, 14, 20, 25, 35])
    got = draw(100, number, seed=3, targets=targets)
    assert len(got) == len(np.unique(got)) == min(number, 100)
    share = np.bincount(targets[got], minlength=7) - np.bincount(targets) * min(number, 100) / 100
    assert np.abs(share).max() < 1


@pytest.mark.parametrize("targets", [None, np.arange(200) % 4])
def test_draw_depends_on_the_seed_alone(targets):
    first = draw(200, 20, seed=5, targets=targets)
    assert np.array_equal(first, draw(200, 20, seed=5, targets=targets))
    assert not np.array_equal(first, draw(200, 20, seed=6, targets=targets))


@pytest.mark.parametrize("targets", [[2, 0, 1, 1], torch.tensor([2, 0, 1, 1]), np.array([2, 0, 1, 1])])
def test_known_targets(targets):
    dataset = Labelled(targets)
    assert known_targets(dataset).tolist() == [2, 0, 1, 1]
    assert known_targets(Subset(dataset, [3, 0])).tolist() == [1, 2]
    assert known_targets(ConcatDataset([dataset, dataset])).tolist() == [2, 0, 1, 1] * 2


def test_unknown_targets():
    plain = TensorDataset(torch.zeros(4))
    assert known_targets(plain) is None
    assert known_targets(ConcatDataset([plain, Labelled([0, 1])])) is None
    assert known_targets(Labelled([0.5, 1.5])) is None
