"""Whoever writes a file that finds no room, the error names it."""

import errno
import json
import os

import numpy as np
import pytest
import torch
from no_room import no_room
from safetensors.torch import save_file

from jepa_lightning.pictures.files import write_picture
from jepa_lightning.run.writing import named, os_error, plain, replacing

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


def test_a_file_is_replaced_as_a_whole_or_stays(tmp_path):
    path = tmp_path / "out.txt"
    for content in ("one", "two"):
        with replacing(path) as beside:
            beside.write_text(content)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == content
    with no_room(10), pytest.raises(OSError, match=str(path)), replacing(path) as beside:
        beside.write_text("x" * 10000)
    with pytest.raises(KeyError), replacing(path) as beside:
        beside.write_text(f"half {os.environ['THERE IS NONE']}")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_each_of_several_writers_has_a_file_of_its_own(tmp_path):
    path = tmp_path / "out.txt"
    with replacing(path, unique=True) as one, replacing(path, unique=True) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"  # which was moved last
    assert list(tmp_path.iterdir()) == [path]


def test_what_json_knows():
    value = {1: (np.float32(0.5), np.arange(2)), "nan": float("nan"), "inf": [np.inf], "none": None, "type": int}
    expected = {"1": [0.5, [0, 1]], "nan": None, "inf": [None], "none": None, "type": "<class 'int'>"}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected
    assert plain({"x": [1 / 3, True, 2]}, digits=3) == {"x": [0.333, True, 2]}
