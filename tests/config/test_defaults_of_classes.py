"""A class that is named in a default's place has its own defaults, and not those of the class that was there."""

import inspect

import pytest
import torch
import yaml

import jepa_lightning.encoders
import jepa_lightning.predictors
import jepa_lightning.regularizers
from jepa_lightning.cli.fit import fit


def settings(capsys, words):
    """What a command would run with."""
    with pytest.raises(SystemExit) as ended:
        fit([*words, "--print_config"])
    assert not ended.value.code
    return yaml.safe_load(capsys.readouterr().out)


def of(found, path):
    """The class of a setting below `model`, and its settings."""
    found = found["model"]
    for name in path.split("."):
        found = found[name] if name in found else found["init_args"][name]
    return found["class_path"].rpartition(".")[2], found.get("init_args", {})


def own_defaults(kind):
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


CONV, MLP = jepa_lightning.encoders.ConvEncoder, jepa_lightning.predictors.MLPPredictor
CASES = {  # setting: the class, and words before
    "predictor": (MLP, ["--model.modality", "Image"]),
    "modality.encoder": (CONV, ["--model.modality", "Image"]),
    "pretext.predictor": (MLP, ["--model.modality", "Image", "--model.pretext", "Hierarchy"]),
    "optimizer": (torch.optim.Adam, ["--model.modality", "Image"]),
}


@pytest.mark.parametrize("path", CASES)
def test_named_in_the_shell(path, capsys):
    kind, before = CASES[path]
    name = f"torch.optim.{kind.__name__}" if path == "optimizer" else kind.__name__
    found, given = of(settings(capsys, [*before, f"--model.{path}", name]), path)
    expected = own_defaults(kind)
    assert found == kind.__name__
    assert {name: value for name, value in given.items() if not isinstance(value, list)} == {
        name: expected[name] for name, value in given.items() if not isinstance(value, list)
    }
    assert {"ConvEncoder": "width", "MLPPredictor": "depth", "Adam": "weight_decay"}[found] in given


@pytest.mark.parametrize("given", [{}, {"dim": 32}])
def test_named_in_a_file(given, capsys, tmp_path):
    parts = {"class_path": "ConvEncoder", **({"init_args": given} if given else {})}
    pretext = {"class_path": "Hierarchy", "init_args": {"predictor": {"class_path": "MLPPredictor"}}}
    image = {"class_path": "Image", "init_args": {"image_size": 32, "encoder": parts}}
    content = {"model": {"modality": image, "pretext": pretext, "predictor": {"class_path": "MLPPredictor"}}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(content))
    found = settings(capsys, ["--config", str(tmp_path / "my.yaml")])
    usual = {name: value for name, value in own_defaults(CONV).items() if name != "spec"}
    assert of(found, "modality.encoder") == ("ConvEncoder", {**usual, **given})
    for path in ("predictor", "pretext.predictor"):
        assert of(found, path) == ("MLPPredictor", {"width": 384, "depth": 2})


def test_named_in_a_part_of_a_list(capsys):
    upper = '[{"class_path": "UpperLevels", "init_args": {"regularizer": {"class_path": "VICReg"}}}]'
    found = settings(capsys, ["--model.modality", "Image", "--model.regularizers", upper])
    given = found["model"]["regularizers"][0]["init_args"]["regularizer"]["init_args"]
    usual = own_defaults(jepa_lightning.regularizers.VICReg)
    assert given == {name: usual[name] for name in given}
    assert given["weight"] != own_defaults(jepa_lightning.regularizers.SIGReg)["weight"]


def test_what_a_file_has_set_stays_where_the_class_in_its_place_has_it_too(capsys):
    found = settings(capsys, ["--config", "image.yaml", "--model.predictor", "MLPPredictor"])
    assert of(found, "predictor") == ("MLPPredictor", {"width": 48, "depth": 2})


def test_a_setting_of_the_default_alone(capsys):
    found = settings(capsys, ["--model.modality", "Image", "--model.predictor.depth", "3"])
    name, given = of(found, "predictor")
    usual = own_defaults(jepa_lightning.predictors.TransformerPredictor)
    assert (name, given["depth"], given["width"]) == ("TransformerPredictor", 3, usual["width"])
    assert given["heads"] == usual["heads"]


@pytest.mark.parametrize("path", CASES)
def test_the_next_command_of_a_process_has_the_defaults_again(path, capsys):
    kind, before = CASES[path]
    usual = settings(capsys, before)
    name = f"torch.optim.{kind.__name__}" if path == "optimizer" else kind.__name__
    changed = settings(capsys, [*before, f"--model.{path}", name])
    assert of(changed, path)[0] != of(usual, path)[0]
    assert settings(capsys, before) == usual
    assert of(settings(capsys, ["--model.modality", "Image"]), "pretext")[0] == "Masked"
