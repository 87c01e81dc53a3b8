"""LiDAR against the paper's formula in plain float64 loops."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from jepa_lightning.callbacks.collapse import CollapseMonitor, are_views
from jepa_lightning.evaluation import effective_rank, lidar
from jepa_lightning.objectives import MSE
from jepa_lightning.pretexts import Views
from jepa_lightning.regularizers import VICReg
from jepa_lightning.targets import Online


def plain_lidar(views, delta=1e-4):
    """Thilak et al. 2023, section 4: scatter matrices element by element, W^-1/2 by its eigenvectors."""
    n, q, dim = len(views), len(views[0]), len(views[0][0])
    means = [[sum(views[i][j][d] for j in range(q)) / q for d in range(dim)] for i in range(n)]
    mean = [sum(means[i][d] for i in range(n)) / n for d in range(dim)]
    between, within = np.zeros((dim, dim)), np.zeros((dim, dim))
    for a in range(dim):
        for b in range(dim):
            for i in range(n):
                between[a, b] += (means[i][a] - mean[a]) * (means[i][b] - mean[b]) / (n - 1)
                for j in range(q):
                    within[a, b] += (views[i][j][a] - means[i][a]) * (views[i][j][b] - means[i][b]) / (n * (q - 1))
    values, vectors = np.linalg.eigh(within + delta * np.eye(dim))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    found = np.linalg.eigvalsh(root @ between @ root).clip(0)
    shares = found / found.sum()
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


def draw(n, q, dim, apart, noise, seed=0):
    """Samples (n, q, dim) with these standard deviations, of the samples and of their views, in each channel."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(n, 1, dim, generator=generator, dtype=torch.float64) * torch.as_tensor(apart)
    return samples + torch.randn(n, q, dim, generator=generator, dtype=torch.float64) * torch.as_tensor(noise) + 3.0


@pytest.mark.parametrize(("n", "q", "dim", "delta"), [(12, 3, 5, 1e-4), (4, 5, 6, 1e-4), (9, 2, 4, 0.1)])
def test_it_is_the_papers(n, q, dim, delta):
    views = draw(n, q, dim, 1.5, torch.linspace(0.1, 2.0, dim))
    assert float(lidar(views, delta=delta)) == pytest.approx(plain_lidar(views.tolist(), delta), rel=1e-6)
    assert float(lidar(views.float(), delta=delta)) == pytest.approx(plain_lidar(views.tolist(), delta), rel=1e-3)


def test_directions_of_the_augmentation_do_not_count():
    """RankMe counts eight directions, in half of which only views of one sample differ."""
    views = draw(400, 20, 8, [1.0] * 4 + [0.0] * 4, [0.1] * 4 + [1.0] * 4)
    assert float(effective_rank(views.flatten(0, 1))) > 7.5
    assert float(lidar(views)) == pytest.approx(4.0, abs=0.1)


def test_a_linear_map_of_the_features_changes_nothing():
    views = draw(60, 4, 5, [1.0, 2.0, 0.5, 1.0, 3.0], 0.7)
    skewed = views @ torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert float(lidar(skewed, delta=1e-12)) == pytest.approx(float(lidar(views, delta=1e-12)), rel=1e-6)


def test_collapsed_and_diverged_features():
    assert float(lidar(torch.ones(10, 3, 4))) == 1.0
    line = torch.linspace(-1, 1, 50)[:, None, None] * torch.tensor([1.0, 2.0, -1.0])
    assert float(lidar(line.expand(50, 4, 3))) == pytest.approx(1.0, abs=1e-3)
    assert lidar(torch.full((5, 2, 3), float("inf"))).isnan()


@pytest.mark.parametrize("shape", [(5, 3), (1, 4, 3), (5, 1, 3)])
def test_what_has_no_views_is_refused(shape):
    with pytest.raises(ValueError, match="at least 2 views of at least 2 samples, got the shape"):
        lidar(torch.zeros(shape))


def test_delta_must_be_positive():
    with pytest.raises(ValueError, match="delta must be above 0"):
        lidar(torch.zeros(4, 2, 3), delta=0.0)


def test_the_monitor_logs_it_of_several_contexts(make_jepa, make_trainer, make_data):
    """The value is that of the projections of both views, the last 32 samples; one context has none."""
    found = {}

    class Monitor(CollapseMonitor):
        def _look(self, module, step):
            found["features"] = [torch.cat(list(recent))[-self.samples :] for recent in self._recent["context"]]
            super()._look(module, step)

    for views in (True, False):
        settings = {"pretext": Views(projector=(16, 8)), "objective": MSE(), "regularizers": [VICReg]} if views else {}
        if views:
            settings["target"] = partial(Online, stop_gradient=False)
        trainer = make_trainer(Monitor(every_n_steps=3, samples=32), max_steps=3, limit_val_batches=0)
        trainer.fit(make_jepa(**settings), datamodule=make_data(views=2) if views else make_data())
        if views:
            one, other = found["features"]
            assert one.shape == other.shape == (32, 8)
            expected = plain_lidar(torch.stack([one, other], 1).double().tolist())
            assert float(trainer.callback_metrics["collapse/lidar"]) == pytest.approx(expected, rel=1e-3)
        else:
            assert "collapse/lidar" not in trainer.callback_metrics
    assert not are_views([torch.zeros(4, 2000), torch.zeros(4, 2000)])
    assert not are_views([torch.zeros(4, 8), torch.zeros(6, 8)])
