"""Which points of a cloud are taken, the unit sphere, augmentation per cloud, odd clouds, and the data's sources."""

from __future__ import annotations

import csv
import logging
import os
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch.utils.data import Dataset, TensorDataset

from jepa_lightning.data import DataError
from modalities.pointcloud.data import PointCloudData, report
from modalities.pointcloud.transforms import Augment, TakePoints, as_cloud, random_rotation, unit_sphere

N = 32


def cloud(n=100, columns=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, columns)).astype(np.float32)


def folders(folder, count, names=("ant", "bee"), **options):
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            np.save(folder / name / f"{i}.npy", cloud(seed=i, **options))


def make(root=None, **kwargs):
    return PointCloudData(**{"root": root and str(root), "points": N, "features": 0, "batch_size": 4,
                             "num_workers": 0} | kwargs)  # fmt: skip


def ids(loader):
    return [name for batch in loader for name in batch["id"]]


def take(transform, points):
    return transform({"points": points})["points"]


def distances(points):
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def radii(points):
    return points[..., :3].norm(dim=-1).amax(-1)


# Which points


def test_training_takes_random_points_without_repeats():
    torch.manual_seed(0)
    augment = Augment(40)
    draws = [augment.choose(60) for _ in range(200)]
    assert all(len(set(draw.tolist())) == 40 for draw in draws)
    counts = torch.bincount(torch.cat(draws), minlength=60)
    assert counts.min() > 100  # 133 expected
    assert counts.max() < 167
    assert sorted(augment.choose(40).tolist()) == list(range(40))


def test_evaluation_takes_the_same_points():
    evaluate = TakePoints(40)
    taken = evaluate.choose(60)
    assert torch.equal(taken, TakePoints(40).choose(60))
    assert len(set(taken.tolist())) == 40
    assert (taken.diff() < 0).sum() > 10  # not in the file's order, which may be parts
    points = cloud(60)
    assert torch.equal(take(evaluate, points), take(evaluate, torch.from_numpy(points)))


@pytest.mark.parametrize("transform", [TakePoints(64), Augment(64), Augment(64, dropout=0.9)])
def test_fewer_points_are_repeated(transform):
    for have in (1, 10, 63):
        taken = transform.choose(have)
        assert len(taken) == 64
        assert taken.max() < have
        if not getattr(transform, "dropout", 0):
            assert set(taken.tolist()) == set(range(have))
    assert torch.bincount(TakePoints(64).choose(10)).tolist().count(6) == 6


def test_dropout_leaves_points_out():
    torch.manual_seed(0)
    augment = Augment(100, dropout=0.5)
    kept = np.array([len(set(augment.choose(200).tolist())) for _ in range(300)])
    assert kept.min() >= 50
    assert kept.min() < 55
    assert kept.max() > 95
    assert kept.mean() == pytest.approx(75, abs=3)


# The unit sphere


def test_unit_sphere():
    for points in (cloud(), cloud() * 1e-20, cloud() * 1e30, cloud() + 1000):
        got = unit_sphere(torch.from_numpy(points))
        assert got.mean(0).abs().max() < 1e-4
        assert radii(got) == pytest.approx(1, abs=1e-5)
    got = unit_sphere(torch.from_numpy(cloud()))
    want = cloud().astype(np.float64) - cloud().astype(np.float64).mean(0)
    np.testing.assert_allclose(got, want / np.linalg.norm(want, axis=1).max(), atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, -12345.678])
def test_equal_points_become_zeros(value):
    for transform in (TakePoints(N), Augment(N, rotation="so3", dropout=0.3)):
        for count in (1, 7, 100):
            got = take(transform, torch.full((count, 3), value))
            assert got.shape == (N, 3)
            assert not got.any()


# Augmentation


@pytest.mark.parametrize("kind", ["x", "y", "z", "so3", "none"])
def test_rotations_keep_distances_and_handedness(kind):
    torch.manual_seed(0)
    for _ in range(20):
        turn = random_rotation(kind)
        assert torch.allclose(turn @ turn.T, torch.eye(3), atol=1e-6)
        assert torch.det(turn) == pytest.approx(1, abs=1e-5)
        if kind in "xyz":
            axis = torch.eye(3)["xyz".index(kind)]
            assert torch.allclose(turn @ axis, axis)
    points = torch.from_numpy(cloud(N))
    plain, turned = (take(Augment(N, rotation=r, scale=(1, 1)), points) for r in ("none", kind))
    order, other = (torch.cdist(p, p).sum(1).argsort() for p in (plain, turned))
    assert torch.allclose(distances(plain[order]), distances(turned[other]), atol=1e-5)


def test_any_rotation_is_as_likely_as_another():
    torch.manual_seed(0)
    turns = torch.stack([random_rotation("so3") for _ in range(3000)])
    assert turns.mean(0).abs().max() < 0.05
    assert torch.allclose((turns**2).mean(0), torch.full((3, 3), 1 / 3), atol=0.03)
    # The angle's density is (1 - cos t) / pi, so that the mean of the trace, 1 + 2 cos t, is 0 and its square's is 1.
    trace = turns.diagonal(dim1=1, dim2=2).sum(1)
    assert trace.mean() == pytest.approx(0, abs=0.06)
    assert (trace**2).mean() == pytest.approx(1, abs=0.1)
    about_y = torch.stack([random_rotation("y") for _ in range(2000)])
    assert about_y[:, 0, 0].mean() == pytest.approx(0, abs=0.06)
    assert about_y[:, 0, 2].mean() == pytest.approx(0, abs=0.06)


def test_every_cloud_is_turned_and_scaled_by_its_own():
    same = torch.from_numpy(cloud(N)).repeat(64, 1, 1)
    data = make(dataset=TensorDataset(same), batch_size=64, val_fraction=0, rotation="z", scale=(0.5, 2.0))
    points = next(iter(data.train_dataloader()))["points"]
    sizes = radii(points)
    assert len(set(sizes.tolist())) == 64
    assert sizes.min() < 0.7
    assert sizes.max() > 1.7
    assert 0.5 <= sizes.min() <= sizes.max() <= 2.0001
    farthest = points[torch.arange(64), points.norm(dim=2).argmax(1)]
    angles = torch.atan2(farthest[:, 1], farthest[:, 0])
    assert angles.std() > 1
    heights = farthest[:, 2] / sizes
    assert torch.allclose(heights, heights[:1].expand(64), atol=1e-5)  # about z
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    assert not torch.equal(points, next(iter(loader))["points"])


def test_jitter_is_clipped_and_for_training():
    torch.manual_seed(0)
    points = torch.from_numpy(cloud(4000))
    options = {"rotation": "none", "scale": (1.0, 1.0)}
    state = torch.get_rng_state()
    plain = take(Augment(4000, **options), points)
    torch.set_rng_state(state)
    noise = take(Augment(4000, jitter=0.02, jitter_clip=0.03, **options), points) - plain
    assert noise.abs().max() <= 0.0301
    assert noise.std() == pytest.approx(0.0181, abs=0.0005)  # of a normal clipped at 1.5 deviations: 0.904 of 0.02
    assert noise.mean().abs() < 0.001


def test_normals_turn_with_the_cloud_and_other_features_do_not():
    xyz = cloud(N)
    normals = xyz / np.linalg.norm(xyz - xyz.mean(0), axis=1, keepdims=True)
    both = np.concatenate([xyz - xyz.mean(0), normals, np.full((N, 1), 7)], axis=1).astype(np.float32)
    both[:, 3:6] = both[:, :3] / np.linalg.norm(both[:, :3], axis=1, keepdims=True)  # radial
    for normals_turn in (True, False):
        got = take(Augment(N, features=4, rotation="so3", normals=normals_turn), both)
        radial = (torch.nn.functional.normalize(got[:, :3]) * got[:, 3:6]).sum(1)
        assert bool((radial > 0.999).all()) == normals_turn
        assert (got[:, 6] == 7).all()
        assert torch.allclose(got[:, 3:6].norm(dim=1), torch.ones(N), atol=1e-5)


def test_evaluation_is_only_the_unit_sphere_and_sources_stay_as_they_are():
    points = cloud(N)
    before = points.copy()
    got = take(TakePoints(N), points)
    sphere = unit_sphere(torch.from_numpy(points))
    assert torch.allclose(got[:, 0].sort()[0], sphere[:, 0].sort()[0], atol=1e-6)
    take(Augment(N, rotation="so3", jitter=0.1, jitter_clip=1.0), points)
    np.testing.assert_array_equal(points, before)


# Odd clouds


def test_points_that_are_not_finite_are_left_out():
    points = cloud(50, columns=4)
    points[3, 0], points[4, 3], points[5, 2] = np.nan, np.inf, -np.inf
    assert len(as_cloud(points, features=1)) == 47
    assert len(as_cloud(points)) == 48  # the feature is not used
    assert torch.isfinite(take(Augment(64, features=1), points)).all()
    for bad, why in ((np.full((5, 3), np.nan), "all its points are NaN"), (np.zeros((0, 3)), "there are no points")):
        with pytest.raises(OSError, match=why):
            as_cloud(bad)


def test_types_of_clouds():
    for dtype in (np.float16, np.float32, np.float64, np.int16, np.uint16, np.uint8):
        got = as_cloud(np.arange(12).reshape(4, 3).astype(dtype))
        assert got.dtype == torch.float32
        assert got.flatten().tolist() == list(range(12))
    assert as_cloud(torch.ones(4, 5), features=1).shape == (4, 4)
    for wrong in (np.zeros(3), np.zeros((4, 2)), torch.zeros(2, 4, 3), np.array([["a"] * 3]), [[0.0, 0, 0]], None):
        with pytest.raises(DataError, match=r"expected clouds as tensors or arrays of numbers \(n, 3 \+ features\)"):
            as_cloud(wrong)
    with pytest.raises(DataError, match="expected clouds with 3 features beside x, y and z, got 1"):
        as_cloud(torch.zeros(4, 4), features=3)


def test_report_counts_odd_clouds(caplog):
    partly = cloud()
    partly[0] = np.nan
    with caplog.at_level(logging.WARNING):
        counts = report("train", [cloud(), partly, cloud(5), np.ones((40, 3)), np.full((40, 3), np.nan)], points=N)
    assert list(counts.values()) == [1, 1, 1]
    assert "train: 1 of 5 clouds have NaN or infinite points" in caplog.text
    assert "train: 1 of 5 clouds have points that are all equal" in caplog.text
    caplog.clear()
    report("train", [cloud()], points=N)
    assert not caplog.text


def break_files(folder):
    """Sixty good ones, three odd but usable, and five that cannot be read, with part of the reason."""
    folder.mkdir(exist_ok=True)
    for i in range(60):
        np.save(folder / f"{i:03}.npy", cloud(seed=i))
    np.save(folder / "equal.npy", np.ones((50, 3)))
    np.save(folder / "few.npy", cloud(3))
    partly = cloud()
    partly[::2] = np.nan
    np.save(folder / "partly.npy", partly)
    np.save(folder / "nan.npy", np.full((50, 3), np.nan))
    np.save(folder / "none.npy", np.zeros((0, 3)))
    np.save(folder / "flat.npy", np.zeros((50, 2)))
    (folder / "empty.xyz").write_bytes(b"")
    (folder / "text.off").write_text("OFF\nthis is no mesh\n")
    return {"nan.npy": "all its points are NaN", "none.npy": "no points", "flat.npy": "(50, 2)",
            "empty.xyz": "the file is empty", "text.off": "not in the format off"}  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [False, True])
def test_bad_clouds_are_counted_and_named_and_kill_no_worker(tmp_path, workers, cache, caplog):
    bad = break_files(tmp_path)
    data = make(tmp_path, num_workers=workers, cache=cache, val_fraction=0, max_unreadable=0.2)
    with caplog.at_level(logging.WARNING):
        batches = [batch for _ in range(2) for batch in data.train_dataloader()]
    reasons = {os.path.basename(name): why for name, why in data.unreadable.items()}
    assert set(reasons) == set(bad)
    for name, why in bad.items():
        assert why in reasons[name]
        assert sum(name in record.getMessage() for record in caplog.records) == 1
    assert [batch["points"].shape for batch in batches] == [(4, N, 3)] * 34
    names = {os.path.basename(name) for batch in batches for name in batch["id"]}
    assert {"equal.npy", "few.npy", "partly.npy"} <= names
    assert not names & set(bad)
    assert all(torch.isfinite(batch["points"]).all() for batch in batches)
    assert ("1 of 63 clouds have fewer than 32 points" in caplog.text) == cache


def test_too_many_bad_files_end_the_run(tmp_path):
    break_files(tmp_path)
    with pytest.raises(DataError, match=r"5 of 68 samples cannot be read, more than max_unreadable(.*\n)*.*empty.xyz"):
        make(tmp_path, cache=True).setup()


def test_bad_clouds_in_hdf5(tmp_path):
    values = np.stack([cloud(seed=i) for i in range(20)])
    values[3] = np.nan
    values[4, :50] = np.nan
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["data"] = values
    data = make(tmp_path, val_fraction=0, max_unreadable=0.1, drop_last=False)
    assert sorted(set(ids(data.train_dataloader()))) == sorted(f"train.h5[{i}]" for i in range(20) if i != 3)
    assert list(data.unreadable) == ["train.h5[3]"]


# Sources


def test_class_folders(tmp_path):
    folders(tmp_path / "train", 6)
    folders(tmp_path / "test", 2)
    data = make(tmp_path, val_fraction=0.25)
    assert data.classes == ["ant", "bee"]
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {"points", "labels", "id"}
    assert (batch["points"].shape, batch["points"].dtype) == ((4, N, 3), torch.float32)
    assert [data.classes[i] for i in batch["labels"]["label"]] == [name.split(os.sep)[1] for name in batch["id"]]
    assert len(ids(data.val_dataloader())) == 3
    assert len(ids(data.test_dataloader())) == 4
    first, second = (torch.cat([batch["points"] for batch in data.val_dataloader()]) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.allclose(radii(first), torch.ones(3), atol=1e-5)


def test_several_labels_from_a_csv(tmp_path):
    folders(tmp_path, 4)
    rows = [[f"{name}/{i}.npy", name, i + 0.5, "test" if i == 3 else "train"] for name in ("ant", "bee")
            for i in range(4)]  # fmt: skip
    with open(tmp_path / "index.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "kind", "height", "split"], *rows])
    data = make(tmp_path / "index.csv", labels=["kind", "height"], val_fraction=0)
    batch = next(iter(data.train_dataloader()))
    assert {name: values.dtype for name, values in batch["labels"].items()} == {
        "kind": torch.int64,
        "height": torch.float32,
    }
    assert data.label == "kind"
    assert len(ids(data.test_dataloader())) == 2


def test_modelnet_s_hdf5(tmp_path):
    for split, n in (("train", 24), ("test", 8)):
        with h5py.File(tmp_path / f"ply_data_{split}0.h5", "w") as file:
            file["data"] = np.stack([cloud(seed=i) for i in range(n)]).astype(np.float16)
            file["label"] = (np.arange(n) % 2)[:, None].astype(np.uint8)
    (tmp_path / "shape_names.txt").write_text("chair\ndesk\n")
    data = make(tmp_path, val_fraction=0.25)
    assert data.classes == ["chair", "desk"]
    batch = next(iter(data.test_dataloader()))
    assert batch["points"].shape == (4, N, 3)
    assert batch["labels"]["label"].tolist() == [0, 1, 0, 1]
    assert batch["id"] == [f"ply_data_test0.h5[{i}]" for i in range(4)]
    counts = torch.bincount(torch.cat([batch["labels"]["label"] for batch in data.val_dataloader()]))
    assert counts.tolist() == [3, 3]
    assert data.in_memory
    single = make(tmp_path / "ply_data_test0.h5")
    assert len(ids(single.val_dataloader())) == 1
    assert not single.has_test


def test_small_sets_are_kept_in_memory_by_default(tmp_path, monkeypatch):
    folders(tmp_path, 8)
    data = make(tmp_path)
    data.setup()
    assert data.in_memory
    for path in tmp_path.rglob("*.npy"):
        path.unlink()
    assert len(ids(data.train_dataloader())) == 12
    folders(tmp_path, 8)
    monkeypatch.setattr("jepa_lightning.data.files.file_set.CACHE_BYTES", 16 * 100 * 12)
    data = make(tmp_path)
    data.setup()
    assert not data.in_memory


@pytest.mark.parametrize("workers", [0, 1])
def test_runs_are_repeatable(tmp_path, workers):
    folders(tmp_path, 6)
    got = []
    for _ in range(2):
        torch.manual_seed(7)
        data = make(tmp_path, num_workers=workers, jitter=0.01, dropout=0.3, rotation="so3")
        got.append(torch.cat([batch["points"] for batch in data.train_dataloader()]))
    assert torch.equal(*got)


def test_generated_by_default():
    data = make(samples=400)
    assert data.label == "shape"
    assert len(data.classes) == 8
    assert len(data.train_dataloader().dataset) == 400
    assert len(data.val_dataloader().dataset) == 50
    assert data.train_dataloader().num_workers == 0
    batch = next(iter(data.train_dataloader()))
    assert batch["points"].shape == (4, N, 3)
    assert list(batch["labels"]) == ["shape", "elongation", "flatness", "noise"]
    with_normals = make(samples=40, features=3, normals=True, rotation="so3")
    normals = next(iter(with_normals.train_dataloader()))["points"][..., 3:]
    assert torch.allclose(normals.norm(dim=2), torch.ones(4, N), atol=5e-3)
    with pytest.raises(DataError, match=r"0 features, or 3 \(normals\), of the generated clouds, got 1"):
        make(samples=40, features=1).setup()


class Various(Dataset):
    """Clouds of different sizes with a class number."""

    classes = ("yes", "no")

    def __init__(self, count: int = 12, columns: int = 3):
        self.count = count
        self.columns = columns

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return cloud(10 + 10 * index, columns=self.columns, seed=index), index % 2


def test_datasets_of_various_sizes():
    data = make(dataset=Various(), test_dataset=Various(4))
    assert data.classes == ["yes", "no"]
    batch = next(iter(data.test_dataloader()))
    assert batch["points"].shape == (4, N, 3)
    assert batch["labels"]["label"].tolist() == [0, 1, 0, 1]
    assert batch["id"] == [f"test[{i}]" for i in range(4)]
    assert make(dataset=Various(columns=6), features=2).train_dataloader().dataset[0]["points"].shape == (N, 5)


def test_tensor_datasets():
    points, labels = torch.rand(20, 50, 3), torch.arange(20)[:, None] % 3
    data = make(dataset=TensorDataset(points, labels), val_dataset=TensorDataset(points[:4], labels[:4]))
    assert next(iter(data.val_dataloader()))["labels"]["label"].tolist() == [0, 1, 2, 0]
    assert not make(dataset=TensorDataset(points)).labelled
    with pytest.raises(DataError, match="expected clouds as tensors"):
        make(dataset=TensorDataset(torch.zeros(8, 3, 32, 32))).setup()
    with pytest.raises(DataError, match="expected clouds with 3 features"):
        make(dataset=TensorDataset(points), features=3).setup()


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation": "w"}, "expected rotation to be none, x, y, z or so3, got 'w'"),
        ({"scale": (1.2, 0.8)}, r"expected scale as a lower and an upper factor above 0, got \[1.2, 0.8\]"),
        ({"scale": (0.0, 1.0)}, "expected scale as a lower"),
        ({"jitter": -1.0}, "expected jitter and jitter_clip of at least 0, got -1 and 0.05"),
        ({"dropout": 1.0}, "expected dropout from 0 to below 1, got 1"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(DataError, match=message):
        PointCloudData(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": None}, "expected points, got none and there is no"),
        ({"features": None}, "expected features, got none"),
        ({"points": 0}, "expected at least 1 point and 0 features, got 0 and 0"),
        ({"normals": True}, "expected at least 3 features where the first three are normals, got 0"),
        ({"root": "nowhere"}, "there is no folder nowhere"),
    ],
)
def test_settings_that_are_out_of_range(options, message):
    with pytest.raises(DataError, match=message):
        make(**options).setup()


def test_labels_beside_hdf5(tmp_path):
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["data"] = np.zeros((4, 10, 3))
    with pytest.raises(DataError, match="expected labels only beside a CSV file, got HDF5 files"):
        make(tmp_path, labels=["label"]).setup()


def test_points_and_features_come_from_the_model():
    data = make(samples=50, points=None, features=None)
    model = SimpleNamespace(modality=SimpleNamespace(points=48, features=3))
    data.trainer = SimpleNamespace(lightning_module=model, num_devices=1, world_size=1)
    assert next(iter(data.train_dataloader()))["points"].shape == (4, 48, 6)


def test_from_yaml(tmp_path):
    folders(tmp_path, 10, columns=6)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(PointCloudData, "data")
    config = tmp_path / "c.yaml"
    config.write_text(
        "data:\n"
        f"  root: {tmp_path}\n"
        "  points: 24\n"
        "  features: 3\n"
        "  normals: true\n"
        "  rotation: y\n"
        "  scale: [0.9, 1.1]\n"
        "  jitter: 0.01\n"
        "  dropout: 0.2\n"
        "  batch_size: 8\n"
        "  num_workers: 0\n"
    )
    data = parser.instantiate_classes(parser.parse_args(["--config", str(config)])).data
    assert data.rotation == "y"
    assert next(iter(data.train_dataloader()))["points"].shape == (8, 24, 6)


def test_dataset_from_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(PointCloudData, "data")
    arguments = [f"--data.dataset={__name__}.Various", "--data.dataset.count=20", "--data.points=16",
                 "--data.features=0", "--data.batch_size=8", "--data.num_workers=0"]  # fmt: skip
    data = parser.instantiate_classes(parser.parse_args(arguments)).data
    assert next(iter(data.train_dataloader()))["points"].shape == (8, 16, 3)
