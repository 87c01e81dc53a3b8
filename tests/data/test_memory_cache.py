"""Arrays of any shape, kept in a few large blocks, in memory or on disk."""

import multiprocessing
import pickle

import numpy as np
import pytest

from jepa_lightning.data import DataError, MemoryCache
from jepa_lightning.data import cache as module


def array(index, *, axes=2):
    shape = [1 + (index * (axis + 3)) % 5 for axis in range(axes)]
    return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_every_array_comes_back_as_it_was(monkeypatch, axes, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    cache = MemoryCache(13, lambda index: array(index, axes=axes))
    assert not cache.unreadable
    for kept in (cache, pickle.loads(pickle.dumps(cache))):
        for index in range(13):
            assert kept[index].dtype == np.uint8
            assert np.array_equal(kept[index], array(index, axes=axes))


def test_each_is_read_once():
    reads = []

    def read(index):
        reads.append(index)
        return array(index)

    cache = MemoryCache(5, read)
    for _ in range(3):
        assert np.array_equal(cache[2], array(2))
    assert sorted(reads) == [0, 1, 2, 3, 4]


def test_what_cannot_be_read_is_listed_and_refused():
    def read(index):
        if index % 3 == 0:
            raise (OSError if index else ValueError)(f"broken {index}")
        return array(index)

    cache = MemoryCache(7, read)
    assert cache.unreadable == {0: "ValueError: broken 0", 3: "OSError: broken 3", 6: "OSError: broken 6"}
    assert np.array_equal(cache[5], array(5))
    with pytest.raises(OSError, match="broken 3"):
        cache[3]
    nothing = MemoryCache(2, lambda index: read(3 * index))
    assert set(nothing.unreadable) == {0, 1}


def never(index):
    raise AssertionError("read again")


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_on_disk_they_are_read_once_for_all_runs(tmp_path, monkeypatch, axes, dtype):
    monkeypatch.setattr(module, "_CHUNK", 4)

    def read(index):
        if index in (3, 12):
            raise OSError("damaged")
        return array(index, axes=axes).astype(dtype)

    first = MemoryCache(13, read, path=tmp_path / "a" / "name")
    later = MemoryCache(13, never, path=tmp_path / "a" / "name")
    for kept in (first, later, pickle.loads(pickle.dumps(later))):
        assert kept.unreadable == {3: "OSError: damaged", 12: "OSError: damaged"}
        assert kept.dtype == dtype
        assert kept.shape is None
        for index in set(range(13)) - {3, 12}:
            assert np.array_equal(kept[index], read(index))
        with pytest.raises(OSError, match="damaged"):
            kept[3]
    assert len(pickle.dumps(later)) < 3000
    later[0][...] = 1  # what is changed in memory does not reach the file
    assert np.array_equal(MemoryCache(13, never, path=tmp_path / "a" / "name")[0], read(0))


def test_where_they_are_there_nothing_is_written(tmp_path):
    MemoryCache(3, array, path=tmp_path / "name")
    (tmp_path / "name.lock").unlink()
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    MemoryCache(3, never, path=tmp_path / "name")
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


def test_of_one_shape_many_are_taken_from_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4)
    for read in (lambda index: np.full((2, 3), index, np.uint8), never):
        kept = MemoryCache(10, read, path=tmp_path / "name")
        assert kept.shape == (2, 3)
        assert kept.take(np.array([9, 0, 5])).tolist() == [[[index] * 3] * 2 for index in (9, 0, 5)]


def test_another_process_does_not_find_what_was_removed(tmp_path):
    kept = pickle.dumps(MemoryCache(3, array, path=tmp_path / "name"))
    (tmp_path / "name.npz").unlink()
    with pytest.raises(RuntimeError, match="it was removed"):
        pickle.loads(kept)


@pytest.mark.parametrize("damage", ["no index", "cut", "not an archive", "another count", "empty index"])
def test_damaged_files_are_written_anew(tmp_path, damage):
    path = tmp_path / "name"
    MemoryCache(5, array, path=path)
    data, index = path.with_suffix(".bin"), path.with_suffix(".npz")
    if damage == "no index":
        index.unlink()
    elif damage == "cut":
        data.write_bytes(data.read_bytes()[:-1])
    elif damage == "another count":
        MemoryCache(6, array, path=path)
    else:
        index.write_bytes(b"" if damage == "empty index" else b"no archive at all" * 9)
    again = MemoryCache(5, array, path=path)
    assert all(np.array_equal(again[i], array(i)) for i in range(5))
    assert len(MemoryCache(5, never, path=path)._offsets) == 5
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".bin", ".lock", ".npz"]


def test_nothing_readable_and_nothing_at_all(tmp_path):
    def damaged(index):
        raise ValueError("damaged")

    assert len(MemoryCache(2, damaged, path=tmp_path / "a").unreadable) == 2
    assert len(MemoryCache(2, never, path=tmp_path / "a").unreadable) == 2
    assert MemoryCache(0, never, path=tmp_path / "b").shape is None


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"cannot write decoded files to .*file.*name another folder"):
        MemoryCache(2, array, path=tmp_path / "file" / "name")


def _fill(path, reads):
    def read(index):
        reads.put(index)
        return array(index)

    MemoryCache(20, read, path=path)


def test_of_several_processes_one_reads(tmp_path):
    context = multiprocessing.get_context("fork")
    reads = context.Queue()
    processes = [context.Process(target=_fill, args=(tmp_path / "name", reads)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [reads.get(timeout=60) for _ in range(20)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(found) == list(range(20))
    assert reads.empty()
