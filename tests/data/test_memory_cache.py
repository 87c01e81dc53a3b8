"""Arrays of any shape, kept in a few large blocks."""

import pickle

import numpy as np
import pytest

from jepa_lightning.data import MemoryCache
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
