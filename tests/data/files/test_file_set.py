"""Files of one split as a dataset, read each time or kept in memory."""

import numpy as np
import pytest

from jepa_lightning.data import CachedFileSet, DataError, FileList, cache_sets


class Arrays(CachedFileSet):
    key = "array"
    examined = 3

    def read(self, index):
        return np.load(self.files.regular(index))


@pytest.fixture
def files(tmp_path):
    for number in range(5):
        np.save(tmp_path / f"{number}.npy", np.full(number + 1, number, dtype=np.float32))
    return FileList(tmp_path, [f"{number}.npy" for number in range(5)], name="data", targets=[0, 1, 0, 1, -1])


def test_samples_have_their_labels_and_names(files):
    arrays = Arrays(files)
    assert len(arrays) == 5
    assert arrays.targets.tolist() == [0, 1, 0, 1, -1]
    assert arrays.sample_id(2) == "data/2.npy"
    assert arrays[2]["array"].tolist() == [2, 2, 2]
    assert arrays[2]["labels"] == {"label": 0}


def test_the_size_is_that_of_some_evenly_spaced(files, tmp_path):
    arrays = Arrays(files)
    assert arrays.spaced(3) == [0, 2, 4]
    assert arrays.spaced(9) == [0, 1, 2, 3, 4]
    assert arrays.bytes_in_memory() == 4 * (1 + 3 + 5) / 3 * 5
    (tmp_path / "2.npy").write_bytes(b"damaged")
    assert arrays.bytes_in_memory() == 4 * (1 + 5) / 2 * 5


def test_a_fault_of_the_whole_set_is_no_damaged_file(files):
    class Wrong(Arrays):
        def read(self, index):
            raise DataError("no reader is installed")

    with pytest.raises(DataError, match="no reader"):
        Wrong(files).bytes_in_memory()


@pytest.mark.parametrize(("keep", "limit", "kept"), [(None, 1000, True), (None, 10, False), (True, 10, True),
                                                     (False, 1000, False)])  # fmt: skip
def test_small_sets_are_kept_in_memory(files, tmp_path, monkeypatch, keep, limit, kept):
    monkeypatch.setattr("jepa_lightning.data.files.file_set.CACHE_BYTES", limit)
    (tmp_path / "1.npy").write_bytes(b"damaged")
    arrays = Arrays(files)
    assert cache_sets(iter([arrays]), keep) is kept
    assert list(arrays.unreadable) == ([1] if kept else [])
    (tmp_path / "4.npy").unlink()
    if kept:
        assert arrays[4]["array"].tolist() == [4] * 5
    else:
        with pytest.raises(FileNotFoundError):
            arrays[4]


class Scaled(Arrays):
    def __init__(self, files, *, by):
        super().__init__(files)
        self.by = by

    def read(self, index):
        return super().read(index) * self.by


def test_sets_of_any_size_are_kept_in_a_folder_by_what_they_are_read_with(files, tmp_path, monkeypatch):
    monkeypatch.setattr("jepa_lightning.data.files.file_set.CACHE_BYTES", 1)
    folder = str(tmp_path / "kept")
    for by in (1, 2, 1):
        scaled = Scaled(files, by=by)
        assert cache_sets([scaled], None, folder)
        assert scaled[4]["array"].tolist() == [4 * by] * 5
    assert len(list((tmp_path / "kept").glob("*.bin"))) == 2
    with pytest.raises(DataError, match="expected cache: true or null with cache_folder"):
        cache_sets([scaled], False, folder)
