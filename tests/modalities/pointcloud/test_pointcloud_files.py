"""Reading clouds and meshes of every format, broken files, HDF5 in ModelNet's layout, and where splits come from."""

from __future__ import annotations

import os
import sys

import h5py
import numpy as np
import pytest
import torch
import trimesh

from jepa_lightning.data import DataError
from modalities.pointcloud.files import CloudFiles, find_clouds
from modalities.pointcloud.hdf5 import HDF5Clouds, find_hdf5
from modalities.pointcloud.reading import points_first, read, shifted
from modalities.pointcloud.transforms import as_cloud


def points(n=50, columns=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, columns)).astype(np.float32)


def box(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.creation.box((2.0, 2.0, 8.0)).export(path)
    return str(path)


def hdf5(path, n=6, count=30, label=True, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"] = np.stack([points(count, seed=i) for i in range(n)])
        if label:
            file["label"] = (np.arange(n) % 3).astype(np.uint8)
        for name, value in more.items():
            file[name] = value
    return path


# One file


def test_arrays_and_texts(tmp_path):
    want = points(columns=6)
    np.save(tmp_path / "a.npy", want)
    np.savez(tmp_path / "one.npz", whatever=want)
    np.savez(tmp_path / "named.npz", other=want[:3], points=want)
    for name, delimiter in [("s.xyz", " "), ("c.txt", ","), ("c.TXT", ", "), ("t.pts", "\t")]:
        np.savetxt(tmp_path / name, want, delimiter=delimiter, header="x y z and normals", footer="end")
    for file in tmp_path.iterdir():
        cloud = read(str(file))
        assert cloud.dtype == np.float32
        shift = 0 if file.suffix in (".npy", ".npz") else want.mean(0) * [1, 1, 1, 0, 0, 0]
        np.testing.assert_allclose(cloud + shift, want, atol=1e-5, err_msg=file.name)


P = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0, 1.25]]


def lines(separator=" ", *, comma=False):
    rows = [separator.join(f"{value:g}" for value in row) for row in P]
    return "\n".join(row.replace(".", ",") if comma else row for row in rows) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("leica.pts", "4\n" + lines()),
        ("count.xyz", "4\n" + lines(", ")),
        ("cloudcompare.asc", "//X Y Z\n4\n" + lines()),
        ("comments.xyz", "# made by hand\n" + lines() + "// the end\n"),
        ("header.txt", "x,y,z\n" + lines(",")),
        ("quoted.txt", '"x";"y";"z"\n' + lines(";")),
        ("bom.txt", "\ufeff" + lines()),
        ("bom_count.pts", "\ufeff4\r\n" + lines().replace("\n", "\r\n")),
        ("semicolon.txt", lines(";")),
        ("last.txt", lines(";").replace("\n", ";\n")),
        ("bar.txt", lines(" | ")),
        ("tab.txt", lines("\t")),
        ("comma.xyz", lines(comma=True)),
        ("comma.asc", "X;Y;Z\n" + lines(";", comma=True)),
        ("comma_tab.txt", lines("\t", comma=True)),
        ("comma_comma.txt", lines(", ", comma=True)),
        ("comma_count.pts", "4\n" + lines(comma=True)),
        ("mixed.txt", lines(", ").replace("1, 0, 0", "1 0,0")),
    ],
)
def test_text_clouds_as_programmes_write_them(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    np.testing.assert_allclose(read(str(tmp_path / name)), np.array(P) - np.mean(P, 0), atol=1e-6)


def test_text_clouds_that_are_cut(tmp_path):
    (tmp_path / "a.pts").write_text("5\n" + lines())
    with pytest.raises(OSError, match="it says that it holds 5 points, and 4 are there"):
        read(str(tmp_path / "a.pts"))


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "<i4", ">u2"])
@pytest.mark.parametrize("rows", [3, 6])
def test_clouds_stored_channels_first(tmp_path, dtype, rows):
    want = (points(100, rows) * 100 + 500).astype(dtype)
    np.save(tmp_path / "a.npy", want)
    np.save(tmp_path / "b.npy", want.T)
    np.testing.assert_array_equal(read(str(tmp_path / "a.npy")), read(str(tmp_path / "b.npy")))
    assert as_cloud(want.T).shape == (100, 3)
    assert as_cloud(torch.from_numpy(want.T.astype("f4"))).shape == (100, 3)
    for name, data in (("a.h5", want[None]), ("b.h5", want.T[None])):
        with h5py.File(tmp_path / name, "w") as file:
            file["data"] = data
        assert HDF5Clouds([tmp_path / name])[0]["points"].shape == (100, rows)
    assert points_first(points(4, 8)).shape == (4, 8)  # too few to tell


def test_complex_clouds_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((40, 3), complex))
    with pytest.raises(OSError, match=r"expected numbers \(n, 3 or more\), got complex128"):
        read(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("suffix", [".off", ".ply", ".obj", ".stl", ".OFF"])
def test_meshes_are_sampled_over_their_surface(tmp_path, suffix):
    path = box(tmp_path / f"box{suffix.lower()}")
    (tmp_path / f"box{suffix.lower()}").rename(tmp_path / f"box{suffix}")
    path = str(tmp_path / f"box{suffix}")
    cloud = read(path, surface=6000)
    assert cloud.shape == (6000, 6)
    xyz, normals = cloud[:, :3], cloud[:, 3:]
    xyz = xyz - (xyz.max(0) + xyz.min(0)) / 2
    np.testing.assert_allclose(np.ptp(xyz, axis=0), [2, 2, 8], atol=0.02)
    # Every point lies on the face that its normal says; each face has points by its area: 4 of 2 x 8 and 2 of 2 x 2.
    np.testing.assert_allclose((xyz * normals).sum(1), np.abs(normals) @ [1, 1, 4], atol=0.02)
    assert np.abs(normals[:, 2]).mean() == pytest.approx(8 / 72, abs=0.02)
    np.testing.assert_array_equal(cloud, read(path, surface=6000))


def test_off_files_with_modelnet_s_first_line(tmp_path):
    box(tmp_path / "box.off")
    text = (tmp_path / "box.off").read_text()
    (tmp_path / "glued.off").write_text(text.replace("OFF\n", "OFF", 1))
    assert read(str(tmp_path / "glued.off"), surface=100).shape == (100, 6)


def test_ply_files_of_points_with_normals_and_colours(tmp_path):
    header = "ply\nformat ascii 1.0\nelement vertex 3\n"
    header += "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue")) + "end_header\n"
    (tmp_path / "a.ply").write_text(header + "0 0 0 0 0 1 255 0 0\n1 1 1 0 1 0 0 255 0\n2 2 2 1 0 0 0 0 51\n")
    cloud = read(str(tmp_path / "a.ply"))
    want = [[-1, -1, -1, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0, 0, 1, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0.2]]
    np.testing.assert_allclose(cloud, want, atol=1e-6)
    trimesh.PointCloud(points(), colors=np.full((50, 4), 255, np.uint8)).export(tmp_path / "binary.ply")
    cloud = read(str(tmp_path / "binary.ply"))
    assert cloud.shape == (50, 6)
    assert (cloud[:, 3:] == 1).all()


def test_large_coordinates_keep_their_millimetres():
    local = points(200).astype(np.float64)
    moved = shifted(local + np.array([500_000.0, 5_900_000.0, 100.0]))
    np.testing.assert_allclose(moved - moved.mean(0), local - local.mean(0), atol=1e-5)


def broken(folder):
    np.save(folder / "flat.npy", np.zeros(30))
    np.save(folder / "narrow.npy", np.zeros((30, 2)))
    np.save(folder / "none.npy", np.zeros((0, 3)))
    np.save(folder / "nan.npy", np.full((9, 3), np.nan))
    np.save(folder / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.savez(folder / "two.npz", a=points(), b=points())
    (folder / "zip.npz").write_bytes(b"PK\x03\x04 but no more of it")
    (folder / "empty.xyz").write_bytes(b"")
    (folder / "comments.xyz").write_text("# nothing\n\n")
    (folder / "words.txt").write_text("this is a note\nand no cloud\n")
    (folder / "bytes.txt").write_bytes(bytes(range(256)))
    (folder / "text.off").write_text("OFF\nhello\n")
    box(folder / "cut.ply")
    (folder / "cut.ply").write_bytes((folder / "cut.ply").read_bytes()[:400])
    (folder / "junk.ply").write_bytes(b"junk" * 30)
    (folder / "flat.off").write_text("OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n")
    return sorted(file.name for file in folder.iterdir())


def test_broken_files_are_os_errors_with_a_short_reason(tmp_path):
    for name in broken(tmp_path):
        with pytest.raises(OSError, match=r"\w") as caught:
            read(str(tmp_path / name))
        assert len(str(caught.value)) < 200, name
        assert "\n" not in str(caught.value), name
    with pytest.raises(OSError, match="No such file"):
        read(str(tmp_path / "missing.npy"))


def test_missing_packages_are_named_in_one_line(tmp_path, monkeypatch):
    path, file = box(tmp_path / "a.off"), hdf5(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "trimesh", None)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r'^.off files need trimesh, .* pip install "jepa-lightning\[pointcloud\]"$'):
        read(path)
    with pytest.raises(DataError, match=r'^HDF5 files need h5py, .* pip install "jepa-lightning\[pointcloud\]"$'):
        HDF5Clouds([file])


# Folders


def ids(files):
    return [files.sample_id(i) for i in range(len(files))]


def test_modelnet_s_folders(tmp_path, caplog):
    for name in ("chair", "desk"):
        for split, count in (("train", 3), ("test", 2)):
            for i in range(count):
                box(tmp_path / name / split / f"{name}_{i}.off")
    found = find_clouds(str(tmp_path))
    assert {split: len(files) for split, files in found.items()} == {"train": 6, "test": 4}
    assert found["test"].targets.tolist() == [0, 0, 1, 1]
    assert found["test"].classes == ["chair", "desk"]
    assert all(f"/{split}/" in name for split, files in found.items() for name in ids(files))
    assert CloudFiles(found["test"], surface=64, features=3)[2]["points"].shape == (64, 6)
    box(tmp_path / "desk" / "extra.off")  # a stray
    assert {split: len(files) for split, files in find_clouds(str(tmp_path)).items()} == {"train": 6, "test": 4}
    assert "1 file in no folder of a split, such as desk/extra.off" in caplog.text


def test_txt_files_count_where_there_are_no_others(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.savetxt(tmp_path / name / "1.txt", points())
    assert len(find_clouds(str(tmp_path))["train"]) == 2
    np.save(tmp_path / "a" / "2.npy", points())
    np.save(tmp_path / "b" / "2.npy", points())
    (tmp_path / "README.txt").write_text("about these data")
    found = find_clouds(str(tmp_path))["train"]
    assert [name[-5:] for name in ids(found)] == ["2.npy", "2.npy"]
    assert found.classes == ["a", "b"]
    (tmp_path / "new").mkdir()
    with pytest.raises(DataError, match=r"expected point clouds in .*an empty one"):
        find_clouds(str(tmp_path / "new"))


def test_modelnet_as_texts_with_its_lists(tmp_path):
    for name in ("airplane", "bathtub"):
        (tmp_path / name).mkdir()
        for i in range(6):
            np.savetxt(tmp_path / name / f"{name}_{i:04d}.txt", points(columns=6), delimiter=",")
    (tmp_path / "modelnet40_shape_names.txt").write_text("airplane\nbathtub\n")
    (tmp_path / "filelist.txt").write_text(
        "".join(f"{c}/{c}_{i:04d}.txt\n" for c in ("airplane", "bathtub") for i in range(6))
    )
    for start, sizes in (("modelnet10", (2, 1)), ("modelnet40", (4, 2))):
        names = [
            [f"{c}_{i:04d}\n" for c in ("airplane", "bathtub") for i in r]
            for r in (range(sizes[0]), range(4, 4 + sizes[1]))
        ]
        (tmp_path / f"{start}_train.txt").write_text("".join(names[0]))
        (tmp_path / f"{start}_test.txt").write_text("".join(names[1]))
    found = find_clouds(str(tmp_path))
    assert {split: len(files) for split, files in found.items()} == {"train": 8, "test": 4}
    assert found["train"].classes == ["airplane", "bathtub"]
    assert all(int(name[-8:-4]) >= 4 for name in ids(found["test"]))
    trimesh.creation.box().export(tmp_path / "preview.ply")  # a stray of another format
    assert {split: len(files) for split, files in find_clouds(str(tmp_path)).items()} == {"train": 8, "test": 4}


def test_shapenetpart_s_layout(tmp_path):
    for synset in ("02691156", "02773838"):
        (tmp_path / synset).mkdir()
        for i in range(5):
            np.savetxt(tmp_path / synset / f"{synset[-2:]}f{i}.txt", points(columns=7))
    (tmp_path / "synsetoffset2category.txt").write_text("Airplane\t02691156\nBag\t02773838\nCap\t02954340\n")
    lists = tmp_path / "train_test_split"
    lists.mkdir()
    for split, numbers in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4,))):
        names = [f"shape_data/{s}/{s[-2:]}f{i}" for s in ("02691156", "02773838") for i in numbers]
        (lists / f"shuffled_{split}_file_list.json").write_text(str(names).replace("'", '"'))
    found = find_clouds(str(tmp_path))
    assert {split: len(files) for split, files in found.items()} == {"train": 6, "val": 2, "test": 2}
    assert found["test"].classes == ["Airplane", "Bag"]
    assert found["test"].targets.tolist() == [0, 1]
    assert CloudFiles(found["val"], surface=64, features=3)[0]["points"].shape == (50, 6)  # without the parts' labels


def test_cache_gives_the_same_clouds(tmp_path):
    np.save(tmp_path / "a.npy", points(20))
    np.save(tmp_path / "b.npy", points(30, columns=6))
    np.save(tmp_path / "c.npy", points(10, columns=6))
    (tmp_path / "d.npy").write_bytes(b"no array")
    np.save(tmp_path / "e.npy", points(7))
    clouds = CloudFiles(find_clouds(str(tmp_path))["train"], surface=100, features=3)
    before = [clouds.value(i) for i in (0, 1, 2, 4)]
    assert clouds.bytes_in_memory() == pytest.approx(4 * (60 + 180 + 60 + 21) / 4 * 5)
    clouds.cache()
    for path in tmp_path.iterdir():
        path.unlink()
    for cloud, index in zip(before, (0, 1, 2, 4), strict=True):
        np.testing.assert_array_equal(clouds.value(index), cloud)
    assert list(clouds.unreadable) == [3]
    assert "not an array" in clouds.unreadable[3]
    assert len(list(clouds.clouds())) == 4


def test_features_that_are_not_used_are_not_kept(tmp_path):
    box(tmp_path / "a.off")
    np.save(tmp_path / "b.npy", points(columns=7))
    clouds = CloudFiles(find_clouds(str(tmp_path))["train"], surface=20, features=1)
    assert [cloud.shape for cloud in clouds.clouds()] == [(20, 4), (50, 4)]
    clouds.cache()
    assert [cloud.shape for cloud in clouds.clouds()] == [(20, 4), (50, 4)]


# HDF5


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["bimnet10_train.h5", "bimnet10_test.h5"], {"train": 1, "test": 1}),
        (["ply_data_train0.h5", "ply_data_train1.h5", "ply_data_test0.h5"], {"train": 2, "test": 1}),
        (["train.hdf5", "val.hdf5", "test.hdf5"], {"train": 1, "val": 1, "test": 1}),
        (["training_objects.h5", "Validation.H5"], {"train": 1, "val": 1}),
        (["train/a.h5", "train/b.h5", "test/a.h5"], {"train": 2, "test": 1}),
        (["clouds.h5", "more.h5", ".hidden_test.h5"], {"train": 2}),
        (["restrained.h5", "contest.h5"], {"train": 2}),
    ],
)
def test_splits_by_name(tmp_path, names, expected):
    for name in names:
        hdf5(tmp_path / name)
    assert {split: len(files) for split, files in find_hdf5(str(tmp_path)).items()} == expected


def test_hdf5_that_does_not_fit_a_split(tmp_path):
    assert find_hdf5(str(tmp_path)) == find_hdf5(None) == find_hdf5(str(tmp_path / "none")) == {}
    test = hdf5(tmp_path / "test.h5")
    with pytest.raises(DataError, match=r"for training in .*got test.h5"):
        find_hdf5(str(tmp_path))
    assert find_hdf5(str(test)) == {"train": [test]}
    hdf5(tmp_path / "train.h5")
    hdf5(tmp_path / "other.h5")
    with pytest.raises(DataError, match=r"got also other.h5"):
        find_hdf5(str(tmp_path))


def test_several_hdf5_files_are_one_set(tmp_path):
    files = [hdf5(tmp_path / "a.h5", n=4), hdf5(tmp_path / "b.h5", n=5, count=20)]
    clouds = HDF5Clouds(files, classes=["x", "y", "z"])
    assert len(clouds) == 9
    assert clouds.targets.tolist() == [0, 1, 2, 0, 0, 1, 2, 0, 1]
    assert [clouds.sample_id(i) for i in (0, 3, 4, 8)] == ["a.h5[0]", "a.h5[3]", "b.h5[0]", "b.h5[4]"]
    assert [len(clouds[i]["points"]) for i in (3, 4)] == [30, 20]
    np.testing.assert_array_equal(clouds[6]["points"], points(20, seed=2))
    assert clouds[6]["labels"] == {"label": 2}
    assert clouds.classes == ["x", "y", "z"]
    assert HDF5Clouds(files, classes=["x"]).classes is None


def test_normals_labels_in_a_column_and_no_labels(tmp_path):
    normal = np.ones((6, 30, 3), np.float32)
    file = hdf5(tmp_path / "a.h5", label=False, normal=normal)
    assert HDF5Clouds([file])[0]["points"].shape == (30, 6)
    assert HDF5Clouds([file])[0]["labels"] == {}
    column = hdf5(tmp_path / "b.h5", label=False)
    with h5py.File(column, "a") as opened:
        opened["label"] = np.arange(6)[:, None]
    assert HDF5Clouds([column])[5]["labels"] == {"label": 5}
    with pytest.raises(DataError, match=r"no dataset label in .*a.h5"):
        HDF5Clouds([column, file])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "a dataset data .* got the datasets label"),
        ({"data": np.zeros((6, 30, 2))}, r"got data of float64 \(6, 30, 2\)"),
        ({"data": np.zeros((6, 30, 3)), "normal": np.zeros((6, 29, 3))}, r"normal \(6, 30, 3\), as data, got"),
        ({"data": np.zeros((5, 30, 3))}, r"a whole number as label for each of 5 clouds, got int64 \(6,\)"),
    ],
)
def test_hdf5_of_something_else(tmp_path, content, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in {"label": np.arange(6), **content}.items():
            file[name] = value
    with pytest.raises(DataError, match=message):
        HDF5Clouds([tmp_path / "a.h5"])


def test_damaged_hdf5(tmp_path):
    file = hdf5(tmp_path / "a.h5")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"expected an HDF5 file, got .*a.h5, which cannot be read"):
        HDF5Clouds([file])


def test_hdf5_that_declares_more_than_it_holds_is_refused(tmp_path):
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file.create_dataset("data", shape=(2**30, 20, 3), dtype="f4", chunks=(1, 20, 3))
    with pytest.raises(DataError, match="bytes, and 0 are there"):
        HDF5Clouds([tmp_path / "train.h5"])


def test_hdf5_with_a_group_for_a_dataset_is_refused(tmp_path):
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file.create_group("data")
    with pytest.raises(DataError, match="cannot be read"):
        HDF5Clouds([tmp_path / "train.h5"])


# HDF5 files that hold what lies in others.


@pytest.mark.parametrize(
    "kind", ["external link", "soft link", "soft link to an external one", "external storage", "virtual"]
)
@pytest.mark.parametrize("name", ["data", "label", "normal"])
def test_values_in_other_files_are_not_read(tmp_path, kind, name):
    """They would show any file that the user may read."""
    arrays = {
        "data": np.random.rand(8, 16, 3).astype("f4"),
        "label": np.arange(8) % 2,
        "normal": np.zeros((8, 16, 3), "f4"),
    }
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        for key, array in arrays.items():
            secret[key] = array
    (tmp_path / "secret.bin").write_bytes(arrays[name].tobytes())
    with h5py.File(tmp_path / "train.h5", "w") as file:
        for key, array in arrays.items():
            if key != name:
                file[key] = array
        if kind == "external link":
            file[name] = h5py.ExternalLink(str(tmp_path / "secret.h5"), name)
        elif kind == "soft link":
            file["other"] = arrays[name]
            file[name] = h5py.SoftLink("/other")
        elif kind == "soft link to an external one":
            file["out"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/")
            file[name] = h5py.SoftLink(f"/out/{name}")
        elif kind == "external storage":
            where = [(str(tmp_path / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset(name, shape=arrays[name].shape, dtype=arrays[name].dtype, external=where)
        else:
            layout = h5py.VirtualLayout(shape=arrays[name].shape, dtype=arrays[name].dtype)
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), name, shape=arrays[name].shape)
            file.create_virtual_dataset(name, layout)
    with pytest.raises(DataError, match=r"got a link, which was not followed|got some in other files") as caught:
        HDF5Clouds([tmp_path / "train.h5"])
    assert "\n" not in str(caught.value)


def test_a_link_to_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["data"] = h5py.ExternalLink(str(tmp_path / "pipe"), "data")
    with pytest.raises(DataError, match="got a link"):
        HDF5Clouds([tmp_path / "train.h5"])
