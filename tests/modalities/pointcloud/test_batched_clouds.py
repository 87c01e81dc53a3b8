"""Clouds of a whole batch: what the samples one by one give, by the same numbers and in distribution."""

import numpy as np
import pytest
import torch

from jepa_lightning.data import DataError
from jepa_lightning.data.batched import SampleIds
from jepa_lightning.data.views import view_seed
from jepa_lightning.randomness import normals_at, permutations_at, uniforms, uniforms_at
from modalities.pointcloud import PointCloudData, PointCloudViews, transforms
from modalities.pointcloud.batched import BatchAugment, centred, rotations
from modalities.pointcloud.hdf5 import HDF5Clouds
from modalities.pointcloud.transforms import Augment, random_rotation, unit_sphere

SMALL = {"samples": 64, "batch_size": 16, "points": 64, "features": 0, "val_fraction": 0}
EVERY = {"rotation": "so3", "jitter": 0.02, "jitter_clip": 0.03, "dropout": 0.6, "scale": (0.5, 2.0)}


def first_batch(data):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(3)
    return next(iter(loader))


@pytest.mark.parametrize(("have", "points"), [(90, 64), (64, 64), (40, 64)])
@pytest.mark.parametrize(
    "settings", [{"rotation": "none", "scale": (1.0, 1.0)}, {"rotation": "y"}, EVERY, {**EVERY, "stretch": 1.6}]
)
def test_as_one_by_one_with_the_same_numbers(monkeypatch, have, points, settings):
    """`Augment` is handed the numbers that were drawn for the batch, cloud by cloud."""
    augment = Augment(points, features=4, normals=True, **settings)
    batched = BatchAugment(augment, (have, 8))
    clouds = torch.randn(9, have, 8, dtype=torch.float64) + torch.tensor([1e4, 0, 0, 0, 0, 0, 0, 0])
    clouds[4] = 3.0  # a cloud of equal points
    seeds = np.arange(9)
    draws = batched.draw(seeds)
    found = batched({"points": clouds}, dict(draws))["points"]
    assert found.shape == (9, points, 7)
    assert found.dtype == torch.float32
    low, high = augment.scale
    for number, seed in enumerate(torch.from_numpy(seeds)[:, None]):
        again = uniforms_at(seed, points, first=6 + have)[0]
        noise = normals_at(seed, 3 * points, first=6 + have + points)
        factor = (float(draws["factors"][number]) - low) / ((high - low) or 1.0)
        axes = uniforms_at(seed, 3, first=6 + have + points + 3 * points + 1)[0]  # behind those of the noise
        rand = iter(
            ([uniforms(seed.numpy(), 2)[0, 1]] if augment.dropout else [])
            + ([axes] if augment.stretch != 1 else [])
            + [factor]
        )
        monkeypatch.setattr(torch, "rand", lambda *_, rand=rand: torch.as_tensor(next(rand)))
        monkeypatch.setattr(torch, "randn", lambda *shape, noise=noise: noise.reshape(shape))
        monkeypatch.setattr(torch, "randperm", lambda count, seed=seed: permutations_at(seed, count, first=6)[0])
        monkeypatch.setattr(
            torch, "randint", lambda high, shape, again=again: (again * high).long()[points - shape[0] :]
        )
        monkeypatch.setattr(transforms, "random_rotation", lambda _, turn=draws["turns"][number, 0]: turn)
        one = augment({"points": clouds[number].clone()})["points"]
        monkeypatch.undo()
        torch.testing.assert_close(found[number], one, atol=2e-5, rtol=1e-5)


def test_clouds_in_the_unit_sphere_by_plain_loops():
    clouds = torch.randn(5, 30, 3) * 100 + 1e5
    clouds[2] = 7.0
    moved, radius = centred(clouds)
    for cloud, got, far in zip(clouds, moved, radius, strict=True):
        mean = [sum(float(p[axis]) for p in cloud) / 30 for axis in range(3)]
        expected = torch.tensor([[float(p[axis]) - mean[axis] for axis in range(3)] for p in cloud])
        torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(got / far, unit_sphere(cloud), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["none", "x", "y", "z", "so3"])
def test_rotations_are_distributed_as_one_by_one(kind):
    found = torch.from_numpy(rotations(kind, uniforms(np.arange(4000), 4)))
    torch.testing.assert_close(found @ found.mT, torch.eye(3, dtype=torch.float64).expand_as(found))
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(4000, dtype=torch.float64))
    torch.manual_seed(0)
    others = torch.stack([random_rotation(kind) for _ in range(4000)]).double()
    levels = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    for row in range(3):  # every entry, and the angle, by quantiles; the pairs of entries by their mean products
        for column in range(3):
            pair = [m[:, row, column].quantile(levels) for m in (found, others)]
            assert (pair[0] - pair[1]).abs().max() < 0.11
    traces = [torch.diagonal(m, dim1=1, dim2=2).sum(1).quantile(levels) for m in (found, others)]
    assert (traces[0] - traces[1]).abs().max() < 0.2
    products = [torch.einsum("ni,nj->ij", m.flatten(1), m.flatten(1)) / 4000 for m in (found, others)]
    assert (products[0] - products[1]).abs().max() < 0.05


def test_scales_shares_and_noise_are_distributed_as_one_by_one():
    augment = Augment(64, **{**EVERY, "rotation": "none"})
    cloud = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    batched = BatchAugment(augment, (64, 3))
    draws = batched.draw(np.arange(1500))
    factors, different = draws["factors"][:, 0], draws["different"][:, 0]
    levels = torch.linspace(0, 1, 11)
    assert torch.allclose(factors.quantile(levels), torch.linspace(0.5, 2.0, 11), atol=0.06)
    shares = 1 - different / 64
    assert torch.allclose(shares.float().quantile(levels), torch.linspace(0, 0.6, 11), atol=0.03)
    places = batched.choose(draws["seeds"][:, 0], different)
    counts = torch.tensor([len(row.unique()) for row in places])
    assert torch.equal(counts, different)
    repeats = torch.stack([torch.bincount(row, minlength=64) for row in places]).float()
    torch.manual_seed(0)
    others = torch.stack([torch.bincount(augment.choose(64), minlength=64) for _ in range(1500)]).float()
    assert repeats.mean(0).sub(1).abs().max() < 0.12  # each point as often as another
    assert float(repeats.var()) == pytest.approx(float(others.var()), rel=0.08)
    assert float(places.double().corrcoef().fill_diagonal_(0).abs().mean()) < 0.13  # orders of their own
    only = BatchAugment(Augment(64, rotation="none", scale=(1, 1), jitter=0.02, jitter_clip=0.03), (64, 3))
    draws = only.draw(np.arange(500))
    found = only({"points": cloud.expand(500, 64, 3)}, draws)["points"]
    noise = found - unit_sphere(cloud)[only.choose(draws["seeds"][:, 0], draws["different"][:, 0])]
    expected = (torch.randn(200_000) * 0.02).clamp(-0.03, 0.03)
    assert float(noise.std()) == pytest.approx(float(expected.std()), rel=0.02)
    levels = torch.linspace(0.05, 0.95, 19)
    assert torch.allclose(noise.flatten()[::8].quantile(levels), expected.quantile(levels), atol=0.001)


def test_batches_follow_from_seed_epoch_and_sample():
    batch, again = (
        first_batch(PointCloudData(**SMALL, **EVERY)),
        first_batch(PointCloudData(**SMALL, num_workers=1, **EVERY)),
    )
    assert isinstance(batch["id"], SampleIds)
    assert torch.equal(batch["points"], again["points"])
    assert list(batch["id"]) == again["id"]
    one_by_one = first_batch(PointCloudData(**SMALL, **EVERY, batched=False, num_workers=0))
    assert list(batch["id"]) == one_by_one["id"]
    assert batch["points"].dtype == one_by_one["points"].dtype
    for name, label in one_by_one["labels"].items():
        assert torch.equal(batch["labels"][name], label)
        assert batch["labels"][name].dtype == label.dtype
    batched = BatchAugment(Augment(64, **EVERY), (64, 3))
    clouds = torch.randn(8, 64, 3)
    whole = batched({"points": clouds}, batched.draw(np.arange(8)))["points"]
    part = batched({"points": clouds[[5, 2]]}, batched.draw(np.array([5, 2])))["points"]
    assert torch.equal(whole[[5, 2]], part)


def test_views():
    views = PointCloudViews(rotation="z")
    batch = first_batch(PointCloudData(**SMALL, views=3, view_transform=views))
    assert [view["points"].shape for view in batch["views"]] == [(16, 64, 3)] * 3
    assert batch["views"][0]["points"] is batch["points"]
    assert not torch.equal(batch["views"][1]["points"], batch["views"][2]["points"])
    batched = BatchAugment(Augment(64), (64, 3), views=3)
    clouds = torch.randn(2, 64, 3)
    later = batched({"points": clouds}, batched.draw(np.array([8, 9])))["views"][2]["points"]
    own = BatchAugment(Augment(64), (64, 3))
    seeds = np.array([view_seed(8, 2), view_seed(9, 2)])
    assert torch.equal(later, own({"points": clouds}, own.draw(seeds))["points"])


def test_files_of_one_size(tmp_path):
    """HDF5 files and .npy files are taken at once; clouds of two sizes, or with NaN, one by one."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)

    def write(name, clouds):
        with h5py.File(tmp_path / name, "w") as file:
            file["data"], file["label"] = clouds, np.arange(len(clouds))[:, None]

    def batched():
        data = PointCloudData(root=str(tmp_path), **{**SMALL, "batch_size": 8})
        data.setup()
        return data.part("train").batched, data

    write("train0.h5", rng.normal(size=(5, 80, 4)).astype(np.float32))
    write("train1.h5", rng.normal(size=(7, 80, 4)).astype(np.float32))
    transform, data = batched()
    assert isinstance(transform, BatchAugment)
    clouds = HDF5Clouds([tmp_path / "train0.h5", tmp_path / "train1.h5"])
    found = clouds.take(np.array([6, 0, 11, 4]))
    assert found["labels"]["label"].tolist() == [1, 0, 6, 4]
    for row, index in zip(found["points"], (6, 0, 11, 4), strict=True):
        assert np.array_equal(row, clouds[index]["points"].numpy())
    assert first_batch(data)["points"].shape == (8, 64, 3)
    broken = rng.normal(size=(7, 80, 4)).astype(np.float32)
    broken[2, 3, 1] = np.nan
    for other in (rng.normal(size=(7, 90, 4)).astype(np.float32), broken):
        write("train1.h5", other)
        assert batched()[0] is None
    for file in tmp_path.iterdir():
        file.unlink()
    for number in range(12):
        np.save(tmp_path / f"{number:02d}.npy", rng.normal(size=(70, 3)).astype(np.float32))
    assert isinstance(batched()[0], BatchAugment)
    np.save(tmp_path / "12.npy", rng.normal(size=(71, 3)).astype(np.float32))
    assert batched()[0] is None
    with pytest.raises(DataError, match="expected data in memory, of one size and without NaN, and the modality"):
        PointCloudData(root=str(tmp_path), batched=True, **SMALL).setup()
