"""Shipped configs with numbers that make no sense: all is built, or a few lines say what is wrong."""

import functools
from pathlib import Path

import pytest
import yaml
from fuzz_helpers import bounded, folder, fuzz
from hypothesis import given
from hypothesis import strategies as st
from short_runs import IMAGE, SHORT, Built

from jepa_lightning.cli.errors import short_errors
from jepa_lightning.config.plugins import load_plugins

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ["image", "video", "audio", "pointcloud", "graph", "text"]
VALUES = [
    "0",
    "-1",
    "1",
    "7",
    "0.5",
    "-0.5",
    "1e-30",
    "1e9",
    "1000000",
    "nan",
    "inf",
    "-inf",
    "x",
    "null",
    "[1, 2]",
    "{}",
]
HARMLESS = ("seed_everything", "samples")  # more samples are generated than memory holds: what was asked for


def numbers(content, key=""):
    """The settings with a number, by their dotted names on the command line."""
    if isinstance(content, dict):
        for name, value in content.items():
            inner = key if name == "init_args" else f"{key}.{name}".lstrip(".")
            yield from numbers(value, inner)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield key


@functools.cache
def settings_of(name):
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    found = [*numbers(content), "model.base_batch", "data.val_fraction", "data.max_unreadable", "data.probe_samples"]
    found += ["model.modality.encoder.mlp_ratio", "model.modality.encoder.drop_path", "trainer.gradient_clip_val"]
    return sorted({key for key in found if not key.endswith(HARMLESS)})


def build(name, words):
    """Exit code of building a config, 0 where it is built."""
    with folder() as where, bounded(20):
        try:
            with short_errors("jepa-fit"):
                load_plugins()
                more = IMAGE if name == "image" else []
                tiny = [*SHORT, *more, "--trainer.default_root_dir", str(where)]
                Built(["fit", "--config", f"{name}.yaml", *tiny, *words])
        except SystemExit as end:
            return end.code
        except (MemoryError, RuntimeError) as error:  # a size that makes sense somewhere else
            if "alloc" not in str(error).lower():
                raise
    return 0


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_numbers_that_make_no_sense(name, capsys):
    @fuzz(4)
    @given(st.sampled_from(settings_of(name)), st.sampled_from(VALUES))
    def run(key, value):
        code = build(name, [f"--{key}={value}"])
        said = capsys.readouterr().err.strip()
        assert code in (0, 2)
        if code:
            assert said.startswith("jepa-fit: error: ")
            assert len(said.splitlines()) <= 8
            assert "Traceback" not in said
        assert code or value != "nan" or not key.startswith(("model", "data")), f"{key} is nan, and nobody minds"

    run()
