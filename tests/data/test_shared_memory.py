"""Data workers get as much shared memory as they need, or are refused before they start: without it they hang."""

import gc
import multiprocessing
import os
import signal
import types

import pytest
import torch
from torch.utils.data import Dataset, get_worker_info

from jepa_lightning.cli.errors import explain
from jepa_lightning.data import DataError, shared_memory
from jepa_lightning.data.shared_memory import workers_that_fit

MB = 10**6


@pytest.fixture
def free(monkeypatch):
    def free(size):
        found = types.SimpleNamespace(f_bavail=size // 1000, f_frsize=1000)
        monkeypatch.setattr(shared_memory.os, "statvfs", lambda path: found)

    return free


@pytest.mark.parametrize(
    ("room", "processes", "workers"), [(0, 1, 0), (2, 1, 0), (3, 1, 1), (4, 1, 1), (5, 1, 2), (17, 1, 8), (10, 2, 2)]
)
def test_two_batches_a_worker_and_one_more(free, room, processes, workers):
    free(room * MB)
    example = {"image": torch.zeros(250, dtype=torch.float32), "labels": {"a": 3}, "id": "x"}
    assert workers_that_fit(example, batch_size=1000, processes=processes).workers == workers


def test_nothing_to_go_by(free, monkeypatch):
    free(0)
    assert workers_that_fit({"graph": object()}, batch_size=8) is None

    def missing(path):
        raise FileNotFoundError

    monkeypatch.setattr(os, "statvfs", missing)
    assert workers_that_fit({"image": torch.zeros(3)}, batch_size=8) is None


def test_too_many_workers_are_refused_before_they_start(make_data, free):
    data = make_data(num_workers=2)
    data.setup()
    size = shared_memory.size(next(iter(make_data(num_workers=0).train_dataloader())))
    free(6 * size)
    assert data.train_dataloader().num_workers == 2
    free(4 * size)
    for loader in (data.train_dataloader, data.val_dataloader, data.probe_dataloader):
        with pytest.raises(DataError, match=r"shared memory for num_workers 2: a batch takes .*--shm-size 8g"):
            loader()
    free(0)
    assert make_data(num_workers=0).train_dataloader().num_workers == 0
    with pytest.raises(DataError, match="enough for 0"):
        make_data(num_workers=1).train_dataloader()


def test_views_take_their_share(make_data, free):
    size = shared_memory.size(next(iter(make_data(num_workers=0).train_dataloader())))
    free(10 * size)
    make_data(num_workers=2).train_dataloader()
    with pytest.raises(DataError, match="shared memory"):
        make_data(num_workers=2, views=4).train_dataloader()


def test_a_number_chosen_by_itself_is_lowered(make_data, free, monkeypatch):
    data = make_data(num_workers=None, batched=False)
    monkeypatch.setattr("jepa_lightning.data.loaders.choose_workers", lambda **known: 4)
    free(6 * shared_memory.size(next(iter(make_data(num_workers=0).train_dataloader()))))
    with pytest.warns(UserWarning, match="2 data workers in place of 4: a batch takes"):
        assert data.train_dataloader().num_workers == 2


@pytest.mark.parametrize(("workers", "given", "expected"), [(0, 5.0, 0), (1, 5.0, 5.0), (2, 0, 0)])
def test_the_timeout_is_the_loaders(make_data, workers, given, expected):
    data = make_data(num_workers=workers, timeout=given)
    assert data.train_dataloader().timeout == data.val_dataloader().timeout == expected


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
def test_no_timeout(make_data, timeout):
    with pytest.raises(DataError, match="expected a timeout of at least 0 seconds"):
        make_data(timeout=timeout)


class Hanging(Dataset):
    """A disk that hangs at the ninth file."""

    def __len__(self):
        return 32

    def __getitem__(self, index):
        if index >= 8 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGSTOP)
        return torch.zeros(3, 32, 32)


def test_a_worker_that_hangs_ends_the_run(make_data):
    loader = make_data(dataset=Hanging(), num_workers=1, timeout=1, batch_size=4, val_fraction=0).probe_dataloader()
    assert loader is None  # it has no labels
    loader = make_data(
        dataset=Hanging(), val_dataset=Hanging(), num_workers=1, timeout=1, batch_size=4
    ).val_dataloader()
    with pytest.raises(RuntimeError, match="timed out after 1 seconds") as error:
        list(loader)
    assert "data.timeout" in explain(error.value)
    assert not [child for child in multiprocessing.active_children() if "Worker" in child.name]
    assert loader._iterator is None
    del error  # with its traceback, which holds the iterator
    gc.collect()
