"""A checkpoint is whole or not there."""

import errno
import os
import resource

import pytest
import torch

from jepa_lightning.run.checkpoint_io import SafeCheckpointIO, publish, tidy
from jepa_lightning.run.writing import unfinished


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, value, size=10):
    SafeCheckpointIO().save_checkpoint({"state_dict": {"w": torch.full((size,), float(value))}}, path)


def value(path):
    return float(SafeCheckpointIO().load_checkpoint(path, weights_only=True)["state_dict"]["w"][0])


def test_written_and_replaced(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    for number in (1, 2):
        write(path, number)
        assert value(path) == number
        assert names(path.parent) == ["last.ckpt"]


def test_until_it_is_renamed_the_old_one_is_there(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    write(path, 1)
    replace, seen = os.replace, []

    def look(source, target):
        seen.append((value(path), torch.load(source, weights_only=True)["state_dict"]["w"][0].item()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write(path, 2)
    assert seen == [(1.0, 2.0)]


def test_a_file_that_may_not_grow(tmp_path):
    """A real limit of the operating system, in the place of a full disk."""
    path = tmp_path / "last.ckpt"
    write(path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"last\.ckpt") as error:
            write(path, 2, size=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert value(path) == 1
    assert names(tmp_path) == ["last.ckpt"]


def folder(path, content):
    path.mkdir()
    (path / "shard").write_text(content)


def test_a_folder_is_replaced_and_a_file_by_a_folder(tmp_path):
    target = tmp_path / "last.ckpt"
    target.write_text("a file")
    for content in ("one", "two"):
        folder(unfinished(target), content)
        publish(unfinished(target), target)
        assert (target / "shard").read_text() == content
        assert names(tmp_path) == ["last.ckpt"]
    write(target, 3)
    assert value(target) == 3
    assert names(tmp_path) == ["last.ckpt"]


def test_killed_between_the_two_moves_of_a_folder(tmp_path, monkeypatch):
    target = tmp_path / "last.ckpt"
    folder(target, "one")
    folder(unfinished(target), "two")
    replace = os.replace

    def once(source, destination):
        replace(source, destination)
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(KeyboardInterrupt):
        publish(unfinished(target), target)
    monkeypatch.setattr(os, "replace", replace)
    assert not target.exists()
    tidy(tmp_path)
    assert (target / "shard").read_text() == "one"
    assert names(tmp_path) == ["last.ckpt"]


def test_leftovers_are_cleared_away(tmp_path):
    write(tmp_path / "last.ckpt", 1)
    (tmp_path / ".last.ckpt.unfinished").write_text("half")
    (tmp_path / "mine.txt").write_text("stays")
    assert [path.name for path in tidy(tmp_path)] == [".last.ckpt.unfinished"]
    assert names(tmp_path) == ["last.ckpt", "mine.txt"]
    assert tidy(tmp_path / "not there") == []
