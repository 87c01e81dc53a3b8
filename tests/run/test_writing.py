"""Whoever writes a file that finds no room, the error names it."""

import errno
import os

import pytest
import torch
from no_room import no_room
from safetensors.torch import save_file

from jepa_lightning.pictures.files import write_picture
from jepa_lightning.run.writing import named, os_error

WRITERS = {
    "torch": lambda path: torch.save(torch.ones(1000), path.open("wb")),
    "safetensors": lambda path: save_file({"x": torch.ones(1000)}, path),
    "text": lambda path: path.write_text("x" * 10000),
    "png": lambda path: write_picture(torch.zeros(3, 64, 64, dtype=torch.uint8), path.parent, path.name),
    "gif": lambda path: write_picture(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), path.parent, path.name),
}


@pytest.mark.parametrize("how", WRITERS)
def test_no_room(tmp_path, how):
    with no_room(10), pytest.raises(OSError) as error, named(tmp_path / "out"):
        WRITERS[how](tmp_path / "out")
    assert error.value.errno == errno.EFBIG
    assert str(tmp_path / "out") in error.value.filename


def test_other_errors_pass(tmp_path):
    with pytest.raises(KeyError), named(tmp_path / "out"):
        raise KeyError
    with pytest.raises(FileNotFoundError) as error, named(tmp_path / "out"):
        (tmp_path / "not" / "there").read_text()
    assert error.value.filename == str(tmp_path / "not" / "there")
    assert os_error(ValueError("[Errno 28] from somewhere")).errno == errno.ENOSPC
    assert os_error(ValueError("os.error")) is None
    assert os.strerror(errno.ENOSPC) in str(os_error(RuntimeError("I/O error: x (os error 28)")))
