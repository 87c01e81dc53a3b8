"""A folder or a file that one process writes into, and no other."""

import os
import signal

import pytest
from processes import holding

from jepa_lightning.run.locks import locked


def test_another_process_is_refused_until_the_first_ends(tmp_path):
    path = tmp_path / "run" / ".lock"
    with holding(path) as holder:
        for _ in range(2):
            with pytest.raises(ValueError, match=rf"^one is under way there \(process {holder.pid} on "):
                locked(path, "one is under way").__enter__()
    with locked(path, "one is under way"):
        assert str(os.getpid()) in path.read_text()
    assert not path.exists()


def test_a_kill_gives_the_lock_back(tmp_path):
    path = tmp_path / "run" / ".lock"
    with holding(path) as holder:
        holder.kill()
        holder.wait()
    assert path.exists()
    with locked(path, "one is under way"):
        pass


def test_a_child_does_not_hold_it(tmp_path):
    """As a data worker that lives on for a moment after its run was killed."""
    path = tmp_path / ".lock"
    with locked(path, "x"):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with holding(path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_it_is_given_back_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path / ".lock", "x"):
            raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_made_for_it_go_again(tmp_path):
    with locked(tmp_path / "runs" / "image" / ".lock", "x"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "runs" / "image" / ".lock", "x"):
        (tmp_path / "runs" / "other").mkdir()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError), locked(tmp_path / "run" / ".lock", "x"):
        pass
