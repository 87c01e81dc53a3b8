"""A configuration of a few lines neither fills the memory nor overflows the stack, wherever it is read."""

import pickle
import time

import pytest
import torch
import yaml
from short_runs import fit_shortly

from jepa_lightning import load
from jepa_lightning.cli.embed import embed
from jepa_lightning.cli.fit import fit
from jepa_lightning.config.bounded_yaml import DEPTH, VALUES, OutOfBounds, check_values, check_yaml, load_yaml

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
DEEP = "deep: " + "[" * 20_000 + "]" * 20_000 + "\n"
BLOCKS = "".join("  " * i + f"k{i}:\n" for i in range(200)) + "  " * 200 + "x\n"
AROUND = "a: &a [1, *a]\n"
MERGED = "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{a: [*m{i - 1}, *m{i - 1}]}}\n" for i in range(1, 40))
MANY = "a: [" + "1," * (VALUES + 1) + "]\n"
HOSTILE = {"laughs": LAUGHS, "deep": DEEP, "blocks": BLOCKS, "around": AROUND, "merged": MERGED, "many": MANY}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    fit_shortly("image", folder)
    return folder, (folder / "config.yaml").read_text()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_refused_in_a_moment(text):
    started = time.process_time()
    with pytest.raises(OutOfBounds, match="expected") as caught:
        load_yaml(text)
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_wherever_a_configuration_is_read(text, run, tmp_path, capsys, monkeypatch):
    folder, stored = run
    (folder / "config.yaml").write_text(text + stored)
    try:
        with pytest.raises(ValueError, match=r"cannot read .*config\.yaml") as caught:
            load(folder)
        assert "\n" not in str(caught.value)
        with pytest.raises(SystemExit):
            embed(["--checkpoint", str(folder), "--out", str(tmp_path / "f.npz")])
        assert "cannot read" in capsys.readouterr().err
        (tmp_path / "mine.yaml").write_text(text + stored)
        with pytest.raises(SystemExit) as stop:
            fit(["fit", "--config", str(tmp_path / "mine.yaml")])
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert len(message.strip().splitlines()) == 1
        assert "expected" in message
    finally:
        (folder / "config.yaml").write_text(stored)


def test_what_a_checkpoint_stores(run, tmp_path):
    """Pickles have references, too, and texts that a parser takes for YAML."""
    many = ["x"]
    for _ in range(30):
        many = [many, many]
    deep = []
    for _ in range(300):
        deep = [deep]
    for value in (many, deep, LAUGHS, DEEP):
        content = torch.load(run[0] / "checkpoints" / "last.ckpt", weights_only=True)
        content["hyper_parameters"]["objective"] = value
        torch.save(content, tmp_path / "last.ckpt")
        with pytest.raises(ValueError, match="expected") as caught:
            load(tmp_path / "last.ckpt")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a: 1\nb: [2]\na: 3\n", "x: {y: [{a: 1, b: {}, a: 1}]}", "a: &a {b: 1}\nc: *a\na: 2\n"]
)
def test_a_setting_that_stands_twice(text):
    with pytest.raises(ValueError, match=r"^expected each setting once, got a again in line \d: leave one out$"):
        load_yaml(text)


def test_usual_ones_are_read_as_before(run):
    shared = yaml.safe_load(run[1])
    assert load_yaml(run[1]) == shared
    aliases = "base: &base {width: 16, depth: 1}\none: *base\ntwo: {<<: *base, depth: 2}\nrate: 1e-3\n"
    assert load_yaml(aliases) == {
        "base": {"width": 16, "depth": 1},
        "one": {"width": 16, "depth": 1},
        "two": {"width": 16, "depth": 2},
        "rate": 1e-3,
    }
    check_yaml("[" * DEPTH + "]" * DEPTH)
    check_values({"a": [1, (2, "x: [")], "b": None})
    row = [0.5] * 10
    check_values(pickle.loads(pickle.dumps([row] * 100)))
    with pytest.raises(yaml.YAMLError):
        load_yaml("a: [1, 2\nb: " + "x" * 50)
    assert load_yaml("- {a: 1, b: {a: 2}}\n- {a: 3}\n") == [{"a": 1, "b": {"a": 2}}, {"a": 3}]
    looped = {}
    looped["self"] = [looped]
    with pytest.raises(OutOfBounds):
        check_values(looped)
