"""Pipes, sockets and devices among the data are named as unreadable, and never opened: reading them could hang."""

import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jepa_lightning.data import DataError, FileList
from jepa_lightning.data.files.file_list import regular_file
from jepa_lightning.data.sources.records import open_file
from modalities.graph.files import open_graphs
from modalities.image import ImageData
from modalities.pointcloud import PointCloudData
from modalities.video import VideoData


@pytest.fixture(autouse=True)
def alarm():
    """A read that hangs ends the test."""

    def late(*_):
        pytest.fail("it hangs")  # no Exception, which what reads files would take for a damaged one

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def link_to_a_pipe(path):
    os.mkfifo(path.parent.parent.parent / "pipe")
    path.symlink_to(path.parent.parent.parent / "pipe")


@pytest.fixture
def listening(tmp_path_factory, monkeypatch):
    made = []

    def bind(path):
        monkeypatch.chdir(path.parent)  # the path of a socket is short
        made.append(socket.socket(socket.AF_UNIX))
        made[0].bind(path.name)

    yield bind
    for opened in made:
        opened.close()


KINDS = {"pipe": pipe, "device": device, "link": link_to_a_pipe}


@pytest.mark.parametrize("kind", [*KINDS, "socket"])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [True, False])
def test_images(kind, workers, cache, tmp_path, listening):
    for name in "ab":
        (tmp_path / "root" / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(np.full((16, 16, 3), number, dtype=np.uint8)).save(
                tmp_path / "root" / name / f"{number}.png"
            )
    KINDS.get(kind, listening)(tmp_path / "root" / "a" / "odd.png")
    data = ImageData(root=str(tmp_path / "root"), image_size=16, channels=3, batch_size=4, num_workers=workers,
                     max_unreadable=0.5, cache=cache, drop_last=False)  # fmt: skip
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        list(loader)
    assert ["which was not opened" in why for why in data.unreadable.values()] in ([True], [])
    assert data.unreadable or not cache


def test_other_kinds_of_data(tmp_path):
    clouds, videos = tmp_path / "clouds", tmp_path / "videos"
    for folder in (clouds, videos):
        folder.mkdir()
    for number in range(8):
        np.save(clouds / f"{number}.npy", np.random.default_rng(number).random((64, 3), dtype=np.float32))
    pipe(clouds / "odd.npy")
    data = PointCloudData(root=str(clouds), points=32, features=0, batch_size=4, num_workers=0, max_unreadable=0.5)
    data.setup()
    assert ["a named pipe" in why for why in data.unreadable.values()] == [True]
    pipe(videos / "odd.mp4")
    with pytest.raises(DataError, match="a named pipe, which was not opened"):
        VideoData(root=str(videos), image_size=16, frames=2, channels=3, num_workers=0, val_fraction=0.0).setup()
    pytest.importorskip("soundfile")
    from modalities.audio import AudioData

    (tmp_path / "sounds").mkdir()
    pipe(tmp_path / "sounds" / "odd.wav")
    with pytest.raises(DataError, match="a named pipe, which was not opened"):
        AudioData(root=str(tmp_path / "sounds"), num_workers=0, val_fraction=0.0, sample_rate=8000, seconds=1.0).setup()


def test_graphs(tmp_path):
    (tmp_path / "SET" / "raw").mkdir(parents=True)
    pipe(tmp_path / "SET" / "raw" / "SET_A.txt")
    with pytest.raises(DataError, match="a named pipe, which was not opened: remove it"):
        open_graphs(str(tmp_path), "SET")


def test_one_file(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    pipe(tmp_path / "pipe")
    files = FileList(tmp_path, ["a", "link", "pipe", "none"])
    assert files.regular(0) == str(tmp_path / "a")
    assert files.regular(1) == str(tmp_path / "link")
    for path, what in ((files.path(2), "named pipe"), (str(tmp_path), "folder"), ("/dev/zero", "device")):
        with pytest.raises(OSError, match=what):
            regular_file(path)
    with pytest.raises(OSError, match="named pipe"):
        open_file(files.path(2))
    with pytest.raises(FileNotFoundError):
        Path(files.regular(3)).read_bytes()
