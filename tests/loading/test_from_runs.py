"""A checkpoint becomes a frozen encoder, and runs nothing that it holds."""

import copy
import json
import os
import pickle
import sys
import zipfile

import jsonargparse
import pytest
import timm
import torch
import yaml
from short_runs import fit_shortly

import jepa_lightning
from jepa_lightning import JEPA, Frozen, load
from jepa_lightning.config.rebuild import build_model
from jepa_lightning.config.trust import only_trusted, trusted
from jepa_lightning.encoders.pooling import pool_tokens
from jepa_lightning.maskers import MultiBlock


@pytest.fixture(scope="module")
def image_run(short_run):
    return short_run("image")


@pytest.fixture
def content(image_run):
    """What the image run's checkpoint holds, to be changed."""
    return torch.load(image_run[0] / "checkpoints" / "last.ckpt", weights_only=True)


IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_loads_the_encoder_that_was_trained(image_run):
    folder, run = image_run
    encoder = load(folder)
    assert torch.equal(encoder.embed({"image": IMAGES}), run.model.embed({"image": IMAGES}))
    assert encoder.dim == 16
    assert encoder.modality.name == "image"
    assert encoder.config["model"]["modality"]["init_args"]["image_size"] == 32
    assert encoder.config["trainer"]["max_steps"] == 2
    context = load(folder / "checkpoints" / "last.ckpt", encoder="context")
    assert same(context.encoder, run.model.encoder)
    assert not same(context.encoder, encoder.encoder)


def test_is_frozen(image_run):
    encoder = load(image_run[0]).train()
    assert not any(part.training for part in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    features, valid = encoder.tokens({"image": IMAGES.requires_grad_()})
    assert features.shape == (3, 16, 16)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert valid is None
    both = encoder.embed({"image": IMAGES}, pooling="mean+max")
    assert torch.equal(both, torch.cat([features.mean(1), features.amax(1)], dim=1))


def test_last_or_best(image_run, content, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    torch.save(content, tmp_path / "checkpoints" / "last.ckpt")
    content["state_dict"] = {name: torch.zeros_like(value) for name, value in content["state_dict"].items()}
    torch.save(content, tmp_path / "checkpoints" / "best.ckpt")
    assert load(tmp_path).embed({"image": IMAGES}).any()
    assert not load(tmp_path, which="best").embed({"image": IMAGES}).any()
    with pytest.raises(ValueError, match="last or best, got 'first'"):
        load(tmp_path, which="first")


def test_untrained_is_what_training_began_with(image_run):
    folder, run = image_run
    trained = load(folder)
    state = torch.get_rng_state()
    untrained = trained.untrained()
    assert torch.equal(torch.get_rng_state(), state)
    assert same(untrained.encoder, run.before.target.encoder)
    assert not same(untrained.encoder, trained.encoder)
    assert not same(trained.untrained(seed=1).encoder, untrained.encoder)
    assert same(load(folder, encoder="context").untrained().encoder, run.before.encoder)


def test_untrained_of_another_seed(tmp_path):
    run = fit_shortly("image", tmp_path, "--seed_everything", "7", "--model.regularizers", "null")
    assert same(load(tmp_path).untrained().encoder, run.before.target.encoder)


@pytest.mark.parametrize("name", ["graph", "audio", "pointcloud", "text"])
def test_other_modalities(name, short_run):
    folder, run = short_run(name)
    encoder = load(folder)
    data = encoder.data(batch_size=4)
    assert type(data) is type(run.datamodule)
    batch = next(iter(data.val_dataloader()))
    tokens = run.model.tokenizer(batch)
    expected = run.model.target(tokens)
    features, valid = encoder.tokens(batch)
    assert torch.equal(features, expected)
    assert (valid is None) == (tokens.valid is None)
    assert torch.equal(encoder.embed(batch, pooling="max"), pool_tokens(expected, tokens.valid, how="max"))
    untrained = encoder.untrained()
    assert same(untrained.encoder, run.before.target.encoder)
    # Statistics of the data belong to the input, not to what was learned.
    for one, other in zip(untrained.tokenizer.buffers(), run.model.tokenizer.buffers(), strict=True):
        assert torch.equal(one, other)


def test_data_of_the_run_with_other_settings(image_run, tmp_path):
    encoder = load(image_run[0])
    data = encoder.data(samples=64, batch_size=8)
    assert len(data.train_dataloader().dataset) == 64
    assert next(iter(data.val_dataloader()))["image"].shape == (8, 3, 32, 32)
    given = torch.utils.data.TensorDataset(torch.zeros(20, 3, 32, 32), torch.zeros(20).long())
    assert len(encoder.data(dataset=given, val_fraction=0.0, batch_size=4).train_dataloader().dataset) == 20
    with pytest.raises(ValueError, match="no option 'sampels'; did you mean samples"):
        encoder.data(sampels=32)
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((image_run[0] / "checkpoints" / "last.ckpt").read_bytes())
    with pytest.raises(ValueError, match=r"expected the run's config\.yaml beside its checkpoints"):
        load(alone).data()


# Checkpoints of runs made in Python.


@pytest.fixture
def python_run(make_jepa, make_data, make_trainer, tmp_path):
    module = make_jepa()
    trainer = make_trainer(max_steps=2)
    trainer.fit(module, make_data())
    trainer.save_checkpoint(tmp_path / "python.ckpt")
    return module.eval(), tmp_path / "python.ckpt"


def test_module_of_a_run_in_python(python_run, make_jepa):
    trained, path = python_run
    with pytest.raises(ValueError, match=r"run in Python.*module="):
        load(path)
    encoder = load(path, module=make_jepa(seed=5))
    assert torch.equal(encoder.embed({"image": IMAGES}), trained.embed({"image": IMAGES}))
    assert encoder.config is None
    with pytest.raises(ValueError, match=r"wrap it as jepa_lightning\.Frozen"):
        encoder.untrained()
    with pytest.raises(ValueError, match="found none with a data section"):
        encoder.data()


def test_frozen_leaves_the_module_as_it_was(make_jepa):
    module = make_jepa()
    frozen = Frozen(module, encoder="context")
    assert module.training
    assert all(parameter.requires_grad for parameter in module.encoder.parameters())
    assert same(frozen.encoder, module.encoder)
    with pytest.raises(ValueError, match="target or context, got 'student'"):
        Frozen(module, encoder="student")


def test_weights_that_do_not_fit(python_run, make_jepa):
    _, path = python_run
    with pytest.raises(ValueError, match=r"of another shape: encoder\.\S+ is \(32, 192\) and not \(32, 64\)") as caught:
        load(path, module=make_jepa(channels=1))
    assert "\n" not in str(caught.value)


# Checkpoints that are none, or broken.


def refused(path, **settings) -> str:
    with pytest.raises(ValueError) as caught:
        load(path, **settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_nothing_there(tmp_path):
    assert "does not exist" in refused(tmp_path / "no_such_run")
    assert "train first" in refused(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step3.ckpt").write_bytes(b"x")
    assert "there are checkpoints/step3.ckpt" in refused(tmp_path)
    (tmp_path / "checkpoints" / "last.ckpt").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt" / ".metadata").write_bytes(b"x")
    assert "cannot read" in refused(tmp_path)  # a checkpoint in shards, but nothing else of it is there


def test_damaged_files(image_run, tmp_path):
    whole = (image_run[0] / "checkpoints" / "last.ckpt").read_bytes()
    path = tmp_path / "broken.ckpt"
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut off" in refused(path)
    path.write_bytes(b"")
    assert "empty" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}")
    assert "damaged" in refused(path)


def test_a_flipped_bit_in_a_tensor_is_noticed(image_run, tmp_path):
    """torch.load does not look at the checksums of the zip file that a checkpoint is."""
    file = image_run[0] / "checkpoints" / "last.ckpt"
    state = torch.load(file, weights_only=True)["state_dict"]
    stored = max(state.values(), key=torch.numel).numpy().tobytes()
    content = bytearray(file.read_bytes())
    content[content.index(stored) + len(stored) // 2] ^= 1
    path = tmp_path / "flipped.ckpt"
    path.write_bytes(content)
    flipped = torch.load(path, weights_only=True)["state_dict"]
    assert any(not torch.equal(value, flipped[name]) for name, value in state.items())
    message = refused(path)
    assert "expected a whole checkpoint, got a damaged one" in message
    assert "checksum of " in message
    assert "\n" not in message


def test_a_name_in_the_archive_that_is_no_text(tmp_path):
    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("last/dätä.pkl", b"\x80\x02}")
    content = path.read_bytes()
    path.write_bytes(content.replace("dätä".encode(), b"d\xe1\xe1t\xe1\xe1"))
    message = refused(path)
    assert "damaged" in message
    assert str(path) in message


def test_files_of_something_else(tmp_path):
    path = tmp_path / "other.ckpt"
    path.write_text("epoch 3: loss 0.2\n")
    assert "torch.save did not write" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "a zip file of something else" in refused(path)
    torch.save({"weight": torch.zeros(2)}, path)
    assert "plain state dict" in refused(path)
    torch.save(torch.zeros(2), path)
    assert "got a Tensor" in refused(path)
    torch.save({"state_dict": {"backbone.weight": torch.zeros(2)}}, path)
    assert "it has no encoder" in refused(path)


def test_another_version(content, tmp_path):
    path = tmp_path / "old.ckpt"
    assert content["jepa_lightning_version"] == jepa_lightning.__version__
    content["jepa_lightning_version"] = "0.0.7"
    state = content["state_dict"]
    renamed = next(key for key in state if key.startswith("target.encoder."))
    state["target.old_name"] = state.pop(renamed)
    torch.save(content, path)
    message = refused(path)
    assert f"missing: {renamed}; unexpected: target.old_name" in message
    assert f"0.0.7, this is {jepa_lightning.__version__}" in message
    content["hyper_parameters"]["modality"]["init_args"]["hue"] = 3
    torch.save(content, path)
    assert "Image has no option 'hue'" in refused(path)


def test_checkpoints_of_the_first_version_are_refused(content, tmp_path, make_jepa, make_trainer, make_data):
    """By `load` and by a resumed run, whose weights would otherwise be said to be missing one by one."""
    path = tmp_path / "first.ckpt"
    state = content["state_dict"]
    content["state_dict"] = {name.replace("target.", "teacher."): value for name, value in state.items()}
    content["jepa_lightning_version"] = "0.1.3"
    torch.save(content, path)
    says = "written by jepa-lightning 0.1.3, whose checkpoints this version cannot read"
    assert says in refused(path)
    with pytest.raises(ValueError, match=says):
        make_trainer(max_steps=4).fit(make_jepa(), datamodule=make_data(), ckpt_path=path)


def test_settings_that_are_not_stored_have_their_defaults(content):
    """As in a checkpoint of a version that did not have them yet, at any depth."""
    stored = content["hyper_parameters"]
    few = copy.deepcopy(stored)
    few["modality"]["init_args"]["encoder"]["init_args"] = {"width": 16, "depth": 1, "heads": 2}
    few["modality"]["init_args"]["masker"] = {"class_path": "jepa_lightning.maskers.MultiBlock"}
    few["target"] = {"class_path": "jepa_lightning.targets.EMA"}
    for name in ("pretext", "objective", "regularizers", "base_batch"):
        del few[name]
    whole, found = (build_model(config, pretrained=True) for config in (stored, few))
    assert {name: value.shape for name, value in found.state_dict().items()} == {
        name: value.shape for name, value in whole.state_dict().items()
    }
    assert repr(found.encoder) == repr(whole.encoder)
    assert found.masker.min_context == MultiBlock().min_context != whole.masker.min_context
    plain = JEPA(copy.deepcopy(whole.modality))
    assert repr(found.target) == repr(plain.target) != repr(whole.target)
    assert repr(found.pretext) == repr(plain.pretext)


def test_missing_extra(content, tmp_path, monkeypatch):
    content["hyper_parameters"]["modality"] = {"class_path": "modalities.graph.Graph", "init_args": {"features": 4}}
    torch.save(content, tmp_path / "graph.ckpt")
    for name in [name for name in sys.modules if name.startswith("modalities.graph")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    assert 'pip install "jepa-lightning[graph]"' in refused(tmp_path / "graph.ckpt")


# Nothing is run.


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", ["state_dict", "anything"])
def test_pickle_with_code_in_it(content, tmp_path, key, legacy):
    target, path = tmp_path / "created", tmp_path / "evil.ckpt"
    content[key] = {"weight": Bomb(target)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert "can run code" in refused(path)
    path.write_bytes(pickle.dumps(Bomb(target)))
    assert refused(path)
    assert not target.exists()


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported; and that file."""
    trace = tmp_path / "imported"
    source = f"""
import pathlib
pathlib.Path({str(trace)!r}).touch()
from modalities.image import Image
from torch.utils.data import Dataset
class Evil(Image):
    pass
class Data(Dataset):
    pass
def make(*args, **kwargs):
    pass
"""
    (tmp_path / "strange_package.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield trace
    sys.modules.pop("strange_package", None)


EVIL = {"class_path": "strange_package.Evil", "init_args": {"image_size": 32}}
PLACES = {
    "class path": lambda h: h.update(modality={**h["modality"], "class_path": "strange_package.Evil"}),
    "subclass of JEPA": lambda h: h.update(_class_path="strange_package.Evil"),
    "string": lambda h: h["modality"]["init_args"].update(encoder="strange_package.make"),
    "function": lambda h: h.update(predictor="strange_package.make"),
    "yaml in a string": lambda h: h.update(objective=json.dumps(EVIL)),
    "list": lambda h: h.update(regularizers=[EVIL]),
    "in an untyped place": lambda h: h["modality"]["init_args"].update(
        encoder={
            "class_path": "jepa_lightning.encoders.TimmEncoder",
            "init_args": {"name": "vit_tiny_patch16_224", "options": {"depth": 1, "norm_layer": EVIL}},
        }
    ),
    "path of a config": lambda h: h.update(objective=h.pop("path")),
    "instantiator": lambda h: h.update(_instantiator="strange_package.make"),
}


@pytest.mark.parametrize("place", PLACES)
def test_class_paths_are_not_followed(content, tmp_path, strange, place):
    path = tmp_path / "evil.ckpt"
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(EVIL))
    if place == "path of a config":
        content["hyper_parameters"]["path"] = str(tmp_path / "evil.yaml")
    PLACES[place](content["hyper_parameters"])
    torch.save(content, path)
    if place == "instantiator":
        load(path)
    else:
        message = refused(path)
        if place not in ("path of a config", "in an untyped place"):
            assert "strange_package." in message
            assert "trust=['strange_package']" in message
    assert not strange.exists()
    assert "strange_package" not in sys.modules


def test_class_paths_of_the_standard_library(content, tmp_path):
    content["hyper_parameters"]["predictor"] = "os.system"
    torch.save(content, tmp_path / "evil.ckpt")
    assert "got os.system, which was not imported" in refused(tmp_path / "evil.ckpt")


def test_config_yaml_is_no_more_trusted(image_run, content, tmp_path, strange):
    (tmp_path / "checkpoints").mkdir()
    torch.save(content, tmp_path / "checkpoints" / "last.ckpt")
    config = yaml.safe_load((image_run[0] / "config.yaml").read_text())
    config["data"]["init_args"]["dataset"] = {"class_path": "strange_package.Data"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"got strange_package\.Data, which was not imported"):
        load(tmp_path).data()
    (tmp_path / "config.yaml").write_text(f"data: !!python/object/apply:os.mkdir [{str(tmp_path / 'made')!r}]")
    assert "cannot read" in refused(tmp_path)
    assert not (tmp_path / "made").exists()
    assert not strange.exists()


@pytest.mark.parametrize("section", ["data", "model", "trainer"])
@pytest.mark.parametrize(("value", "kind"), [(3, "an int"), ("ImageData", "a str"), ([1], "a list"), (True, "a bool")])
def test_sections_of_config_yaml_hold_settings(image_run, content, tmp_path, section, value, kind):
    (tmp_path / "checkpoints").mkdir()
    torch.save(content, tmp_path / "checkpoints" / "last.ckpt")
    config = yaml.safe_load((image_run[0] / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, section: value}))
    assert f"expected settings under {section} in {tmp_path / 'config.yaml'}, got {kind}" in refused(tmp_path)


def test_a_package_that_is_trusted(content, tmp_path, strange):
    content["hyper_parameters"]["modality"]["class_path"] = "strange_package.Evil"
    torch.save(content, tmp_path / "mine.ckpt")
    encoder = load(tmp_path / "mine.ckpt", trust=["strange_package"])
    assert type(encoder.modality).__name__ == "Evil"
    assert strange.exists()
    assert encoder.untrained().dim == 16


def test_trust_names_packages():
    assert {"jepa_lightning", "modalities", "mine"} <= set(trusted(["mine"]))
    for wrong in ("mine", ["my package"], [""]):
        with pytest.raises(ValueError, match="expected trust to be a list of package names"):
            trusted(wrong)


def test_other_parsers_of_the_process_are_as_before(strange):
    from modalities.image import Image

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Image, "modality")
    with pytest.raises(ValueError, match="not imported"), only_trusted():
        parser.parse_object({"modality": EVIL})
    assert not strange.exists()
    assert parser.parse_object({"modality": EVIL}).modality.class_path == "strange_package.Evil"


def test_names_of_the_package():
    assert jepa_lightning.load is load
    assert jepa_lightning.JEPA is JEPA
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = jepa_lightning.lode


def test_no_part_looks_for_the_weights_that_a_run_began_with(content, monkeypatch):
    """They are overwritten: loading a run needs no network and no file of another's, whatever the part's class."""
    stored = content["hyper_parameters"]
    stored["modality"]["init_args"] |= {"image_size": 32, "patch_size": 32, "masker": None}
    small = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    stored["modality"]["init_args"]["encoder"] = {
        "class_path": "jepa_lightning.encoders.TimmConvNet",
        "init_args": {"name": "resnet18", "pretrained": True, "options": small},
    }
    stored["predictor"]["init_args"] |= {"weights": "nowhere.pt"}
    asked = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: asked.append(k.get("pretrained")) or create(*a, **k))
    build_model(stored, pretrained=False)
    assert asked == [False]
    with pytest.raises(ValueError, match=r"nowhere\.pt|cannot create resnet18"):
        build_model(stored, pretrained=True)
