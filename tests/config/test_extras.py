"""What is said where a package beyond the core is missing or does not load."""

import sys

import pytest

from jepa_lightning.config.extras import extra


def needs(error):
    with extra("sound", who="sound needs", packages=("lib_one", "lib.two"), broken=lambda why: f"it breaks ({why})"):
        raise error


@pytest.mark.parametrize(("name", "package"), [("lib_one", "lib-one"), ("lib.two", "lib")])
def test_a_missing_package_is_named(name, package):
    with pytest.raises(ImportError) as found:
        needs(ModuleNotFoundError(f"No module named {name!r}", name=name))
    assert str(found.value) == f'sound needs {package}, which is not installed: pip install "jepa-lightning[sound]"'


@pytest.mark.parametrize(
    "error",
    [
        OSError("undefined symbol\nand more"),
        RuntimeError("undefined symbol"),
        ModuleNotFoundError("undefined symbol", name="lib_one.inner"),
    ],
)
def test_one_that_does_not_load_says_why(error):
    with pytest.raises(ImportError) as found:
        needs(error)
    assert str(found.value) == 'it breaks (undefined symbol): pip install "jepa-lightning[sound]"'
    assert found.value.__cause__ is error


def test_what_loads_passes():
    with extra("sound", who="sound needs", packages=("json",), broken=str):
        import json
    assert sys.modules["json"] is json
