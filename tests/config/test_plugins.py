"""Plug-ins are found as installed packages say, and a broken one does no harm."""

import sys
import warnings

import pytest

from jepa_lightning.config import needed
from jepa_lightning.config.messages import shorten
from jepa_lightning.config.plugins import GROUP, load_plugins


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package with an entry point where the interpreter looks for installed ones."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, source, *, module=None):
        module = module or f"strange_{name}"
        (tmp_path / f"strange_{name}.py").write_text(source)
        info = tmp_path / f"strange_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: strange-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {module}\n")
        monkeypatch.delitem(sys.modules, f"strange_{name}", raising=False)

    yield install
    for name in [name for name in sys.modules if name.startswith("strange_")]:
        del sys.modules[name]


SOUND = """
from jepa_lightning.modality import Modality
class Smell(Modality):
    name = "smell"
"""


def test_a_strangers_plugin_is_imported(install):
    from jepa_lightning.modality import Modality

    install("smell", SOUND)
    assert "smell" in load_plugins()
    assert "strange_smell" in sys.modules
    assert "Smell" in [cls.__name__ for cls in Modality.__subclasses__()]  # so the CLI knows its short name


def test_one_that_is_installed_later_is_found_too(install):
    install("smell", SOUND)
    assert {"smell"} <= set(load_plugins())
    install("taste", "")
    assert {"smell", "taste"} <= set(load_plugins())


BROKEN = {
    "missing": "import a_package_that_is_not_installed",
    "raising": "raise RuntimeError('no smell today\\nsecond line')",
    "silent": "raise ValueError",
    "syntax": "def (",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_costs_a_line(install, name):
    install("sound", SOUND)
    install(name, BROKEN[name])
    with pytest.warns(UserWarning, match=f"plug-in '{name}'") as caught:
        loaded = load_plugins()
    assert "sound" in loaded
    assert name not in loaded
    messages = [str(w.message) for w in caught if GROUP in str(w.message) or "plug-in" in str(w.message)]
    assert len(messages) == 1
    assert len(messages[0].splitlines()) == 1
    assert f"strange_{name}" in messages[0]


def test_an_entry_point_to_nowhere(install):
    install("lost", SOUND, module="strange_nowhere:Smell")
    with pytest.warns(UserWarning, match="'lost'.*strange_nowhere"):
        assert "lost" not in load_plugins()


def test_sound_plugins_give_no_warning(install):
    install("sound", SOUND)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="modality plug-in 'sound'")
        assert "sound" in load_plugins()


NEEDED = {  # words that follow `--model.learning_rate Constant`: the plug-ins that they need; None: all
    ("--data", "ImageData"): {"image"},
    ("--data=ImageData", "--trainer.max_steps=3"): {"image"},
    ("--data", "modalities.image.data.ImageData"): {"image"},
    ("--data", "{class_path: ImageData, init_args: {root: photos}}"): {"image"},
    ("--config", "image.yaml"): {"image"},
    ("--config=audio", "--data", "VideoData"): {"audio", "video"},
    ("--config", "image.yaml", "--model.modality", "Smell"): {"image", "smell"},
    ("--config", "image.yaml", "--model.modality.encoder", "ViiT"): None,
    ("--config", "image.yaml", "--data", "mine.yaml"): None,
    ("--config", "image.yaml", "--data.help"): None,
    ("--model.target", "EMA"): None,
    ("--help",): None,
}


@pytest.mark.parametrize("words", NEEDED, ids=" ".join)
def test_what_is_named_is_what_is_loaded(install, monkeypatch, words):
    install("smell", SOUND)
    asked = []
    monkeypatch.setattr(needed, "load_plugins", lambda names=None: asked.append(names) or [])
    needed.load_needed_plugins(["--model.learning_rate", "Constant", *words])
    assert asked[-1] == NEEDED[words]


@pytest.mark.parametrize("source", [SOUND + "register(Smell)", "from elsewhere import *", "def ("])
def test_a_plugin_whose_classes_are_not_seen_is_loaded_always(install, monkeypatch, source):
    install("smell", source)
    asked = []
    monkeypatch.setattr(needed, "load_plugins", lambda names=None: asked.append(names) or [])
    needed.load_needed_plugins(["--config", "image.yaml"])
    assert asked == [{"image", "smell"}]


def test_an_error_suggests_names_of_plugins_that_were_not_loaded(install):
    install("smell", SOUND)
    said = shorten('Parser key "model.modality": Expected a dot import path string: Smel')
    assert said == "model.modality: no class 'Smel'; did you mean Smell?"


@pytest.mark.parametrize("name", ["name", "spec", "tokenizer", "masker", "encoder"])
def test_what_a_modality_forgot_to_set_is_named(name):
    from jepa_lightning.modality import Modality

    class Forgetful(Modality):
        length = 3

    with pytest.raises(ValueError, match=f"Forgetful to set {name},"):
        getattr(Forgetful(), name)
    assert not hasattr(Forgetful(), name)
    assert Forgetful().length == 3
    with pytest.raises(AttributeError, match="no attribute 'width'"):
        Forgetful().width  # noqa: B018
