"""`import jepa_lightning`: every public name, imported when it is first used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from processes import fresh

import jepa_lightning

SOURCE = Path(jepa_lightning.__file__).read_text()
PACKAGES = (
    *("encoders", "maskers", "pretexts", "targets", "predictors", "regularizers", "objectives", "schedules"),
    *("callbacks", "data", "evaluation"),
)


def seen_by_type_checkers():
    """Names and modules of the imports under TYPE_CHECKING."""
    block = next(n for n in ast.parse(SOURCE).body if isinstance(n, ast.If) and n.test.id == "TYPE_CHECKING")
    return {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}


def test_editors_see_the_names_that_there_are():
    for name, (module, original) in seen_by_type_checkers().items():
        home = jepa_lightning._LAZY[name]
        assert (module, original) == ("jepa_lightning" if home is None else f"jepa_lightning.{home}", name)
    assert sorted(seen_by_type_checkers()) == sorted(jepa_lightning.__all__) == sorted(jepa_lightning._LAZY)
    assert set(PACKAGES) <= set(jepa_lightning.__all__)


@pytest.mark.parametrize("name", jepa_lightning.__all__)
def test_every_name_is_there(name):
    found = getattr(jepa_lightning, name)
    home = jepa_lightning._LAZY[name]
    module = sys.modules[f"jepa_lightning.{home or name}"]
    assert found is (module if home is None else getattr(module, name))
    assert name in dir(jepa_lightning)


def test_the_import_loads_nothing_heavy():
    code = """
import sys
import jepa_lightning
assert set(jepa_lightning.__all__) <= set(dir(jepa_lightning))
assert not {"torch", "lightning", "numpy"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_in_a_fresh_process(tmp_path):
    """All names are listed and found before anything else of ours was imported."""
    code = f"""
import sys
import jepa_lightning
assert set(jepa_lightning.__all__) <= set(dir(jepa_lightning))
assert not {{"jepa_lightning.encoders", "jepa_lightning.module"}} & set(sys.modules)
assert jepa_lightning.encoders.ViT.__name__ == "ViT"
from jepa_lightning import {", ".join(PACKAGES)}
from jepa_lightning import *
assert JEPA is jepa_lightning.JEPA
"""
    fresh(code, tmp_path)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'encoder'"):
        jepa_lightning.encoder  # noqa: B018
    assert not hasattr(jepa_lightning, "import_modules")
