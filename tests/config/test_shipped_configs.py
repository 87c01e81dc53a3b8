"""Finding the configs that come with the package."""

from pathlib import Path

import pytest
import yaml

from jepa_lightning.config import shipped as shipped_configs
from jepa_lightning.config.plugins import GROUP
from jepa_lightning.config.shipped import find_config, find_configs, shipped


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """A package with two configs, seen from an empty folder."""
    folder, here = tmp_path / "configs", tmp_path / "here"
    (folder / "recipes").mkdir(parents=True)
    here.mkdir()
    (folder / "image.yaml").write_text("a: 1")
    (folder / "recipes" / "paper.yaml").write_text("a: 2")
    monkeypatch.setattr(shipped_configs, "FOLDERS", (tmp_path / "missing", folder))
    monkeypatch.chdir(here)
    return folder


@pytest.mark.parametrize("name", ["image.yaml", "image"])
def test_a_shipped_config_by_its_name(configs, name):
    assert find_config(name) == str(configs / "image.yaml")


@pytest.mark.parametrize("name", ["recipes/paper.yaml", "recipes/paper", "paper.yaml", "paper"])
def test_a_recipe_by_its_name(configs, name):
    assert find_config(name) == str(configs / "recipes" / "paper.yaml")


def test_a_file_here_comes_first(configs):
    Path("image.yaml").write_text("mine: 1")
    assert find_config("image.yaml") == "image.yaml"
    assert find_config(str(configs / "image.yaml")) == str(configs / "image.yaml")


@pytest.mark.parametrize("text", ["{a: 1}", "a: 1\nb: 2"])
def test_a_configs_text_is_left_alone(configs, text):
    assert find_config(text) == text


def test_a_mistyped_name_is_told_the_nearest(configs):
    with pytest.raises(ValueError, match=r"no config 'imgae.yaml'.*did you mean image.yaml\?.*list recipes"):
        find_config("imgae.yaml")


def test_a_strange_name_gets_the_list(configs):
    with pytest.raises(ValueError, match=r"shipped are image.yaml and the recipes") as error:
        find_config("qqqqqqqq")
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    "words",
    [["--config", "image.yaml"], ["-c", "image"], ["--config=image.yaml"], ["-c=image"], ["fit", "--config", "image"]],
)
def test_configs_among_words(configs, words):
    assert str(configs / "image.yaml") in " ".join(find_configs(words))
    rest = ["--data.batch_size", "8", "--model.compile=true"]
    assert find_configs([*words, *rest])[-3:] == rest


def test_other_words_are_left_alone(configs):
    words = ["fit", "--data.root", "image", "--print_config", "--trainer.logger=image", "image.yaml"]
    assert find_configs(words) == words


def test_several_configs(configs):
    found = find_configs(["--config", "image", "--config", "paper", "image"])
    assert found == [
        *("--config", str(configs / "image.yaml"), "--config", str(configs / "recipes" / "paper.yaml"), "image")
    ]


def test_a_plugins_configs(configs, tmp_path, monkeypatch):
    """Those of an installed package are found without importing it; of two with one name, ours counts."""
    site = tmp_path / "site"
    for name in ("smell.yaml", "image.yaml"):
        path = site / "strange_smells" / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a: 3")
    (site / "strange_smells" / "__init__.py").write_text("raise RuntimeError")
    for name, module in (("smells", "strange_smells.modality:Smell"), ("lost", "strange_nowhere")):
        info = site / f"strange_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: strange-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(site)
    assert find_config("smell.yaml") == str(site / "strange_smells" / "configs" / "smell.yaml")
    assert find_config("image.yaml") == str(configs / "image.yaml")
    with pytest.raises(ValueError, match=r"did you mean smell.yaml\?"):
        find_config("smel.yaml")


def test_what_is_shipped():
    found = shipped()
    assert "image.yaml" in found
    for name, path in found.items():
        assert find_config(name)
        settings = yaml.safe_load(path.read_text())
        assert {"model", "data", "trainer"} <= set(settings), name
