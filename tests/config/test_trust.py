"""A stranger's run folder runs nothing: what its configuration may name, and what its data may hold."""

import io
import os
import subprocess
import tarfile
import time
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from short_runs import fit_shortly

from jepa_lightning import load
from jepa_lightning.cli.embed import embed
from jepa_lightning.cli.fit import fit
from jepa_lightning.cli.probe import probe
from jepa_lightning.cli.view import view
from jepa_lightning.config.rebuild import build_data
from jepa_lightning.config.trust import Untrusted, only_trusted, trusted, weights_only
from modalities.image import ImageData

IMAGES = SimpleNamespace(name="image", image_size=16, channels=3)
FIT = [*("--trainer.accelerator", "cpu", "--trainer.max_steps", "1", "--trainer.default_root_dir")]
EXTRACT = "torchvision.datasets.utils.extract_archive"


class Popen:
    """What PyG's own unpickling does not know, and so tries again without a net."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return subprocess.Popen, (["touch", str(self.target)],)


def build(dataset, *, trust=(), overrides=None, cls="modalities.image.ImageData"):
    config = {"class_path": cls, "init_args": {"dataset": dataset}}
    return build_data(config, overrides or {}, IMAGES, trust=trust)


@pytest.fixture
def archives(tmp_path):
    """Class folders of tar files whose member lies outside; and the file that it would be."""
    for name in "ab":
        (tmp_path / "root" / name).mkdir(parents=True)
        for number in range(2):
            with tarfile.open(tmp_path / "root" / name / f"{number}.tar", "w") as tar:
                member = tarfile.TarInfo("../../written")
                member.size = 2
                tar.addfile(member, io.BytesIO(b"hi"))
    return tmp_path / "root", tmp_path / "written"


@pytest.mark.parametrize("trust", [(), ("torchvision",), ("torchvision.datasets.DatasetFolder",)])
def test_a_function_that_unpacks_archives(archives, trust):
    root, written = archives
    folder = {"root": str(root), "loader": EXTRACT, "extensions": [".tar"]}
    with pytest.raises(ValueError, match="which was not"):
        build({"class_path": "torchvision.datasets.DatasetFolder", "init_args": folder}, trust=trust).setup()
    assert not written.exists()


@pytest.mark.parametrize(
    "path",
    [
        "torchvision.datasets.CIFAR10", "torchvision.datasets.ImageFolder", "torchvision.datasets.folder.DatasetFolder",
        "torch_geometric.datasets.TUDataset", "torch_geometric.datasets.ZINC", "torch_geometric.data.InMemoryDataset",
        "torch.utils.data.TensorDataset", "datasets.Dataset", "numpy.load", "torch.load", "torch.hub.load",
    ],
)  # fmt: skip
def test_data_sets_of_libraries_need_trust(path):
    with pytest.raises(Untrusted, match=rf"got {path}, which was not imported.*--trust {path.split('.')[0]}") as caught:
        build({"class_path": path, "init_args": {"root": "nowhere"}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("trust", [[], ["torch"], ["torchvision"], ["numpy"], ["torch_geometric"], ["timm"]])
@pytest.mark.parametrize(
    "path",
    [
        EXTRACT,
        "torchvision.datasets.utils.download_url",
        "torch.hub.load",
        "torch.load",
        "numpy.load",
        "numpy.fromfile",
        "torch.nn.init.normal_",
        "torch.nn.functional.gelu",
        "torch.utils.data.random_split",
        "timm.models.create_model",
        "timm.models.load_checkpoint",
        "torch_geometric.io.fs.torch_load",
        "torch_geometric.nn.summary",
        "torch.nn",
        "torch.nn.Module.load_state_dict",
        "torch.package.PackageImporter",
        "torch.nn.parallel.comm.warnings.warn",
        "jepa_lightning.load",
        "jepa_lightning.run.checkpoints.read_config",
        "jepa_lightning.cli.fit.fit",
        "jepa_lightning.data.workers.os.system",
        "modalities.image.files.read_image",
        "modalities.image.ImageData.setup",
        "jepa_lightning.config.rebuild.jsonargparse.ArgumentParser",
        "modalities.image",
        "os.system",
        "subprocess.Popen",
        "posix.system",
        "builtins.eval",
        "pickle.loads",
        "shutil.rmtree",
        "jsonargparse.set_parsing_settings",
    ],
)
def test_nothing_but_classes(path, trust):
    """Where a configuration may say any callable: torchvision's transform."""
    data_set = {"class_path": "torchvision.datasets.FakeData", "init_args": {"transform": path, "size": 20}}
    with pytest.raises(ValueError) as caught:
        build(data_set, trust=[*trust, "torchvision.datasets.FakeData"])
    assert "which was not" in str(caught.value) or "no attribute" in str(caught.value)


def test_what_is_left_with_trust(tmp_path):
    fake = {"class_path": "torchvision.datasets.FakeData", "init_args": {"size": 20, "image_size": [3, 16, 16]}}
    fake["init_args"]["transform"] = {"class_path": "torchvision.transforms.ToTensor"}
    assert build(fake, trust=["torchvision"]).dataset[0][0].shape == (3, 16, 16)
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name / "0.png")
    # As it is stored, with the loader that is its default.
    loader = {"root": str(tmp_path), "loader": "torchvision.datasets.folder.default_loader"}
    folder = {"class_path": "torchvision.datasets.ImageFolder", "init_args": loader}
    assert len(build(folder, trust=["torchvision"]).dataset) == 2


def test_what_the_user_names_is_trusted():
    given = {"class_path": "torchvision.datasets.FakeData", "init_args": {"size": 20}}
    assert isinstance(build(None, overrides={"dataset": given}), ImageData)
    with pytest.raises(Untrusted):
        build(None, overrides={"dataset": {"class_path": "strange.Data"}})


@pytest.mark.parametrize("name", ["os", "subprocess", "pickle", "builtins", "jsonargparse", "os.path"])
def test_packages_that_nobody_can_trust(name):
    with pytest.raises(ValueError, match="no run needs it"):
        trusted([name])
    with pytest.raises(Untrusted, match="no run needs it") as caught:
        build({"class_path": f"{name}.system"})
    assert "--trust" not in str(caught.value)


# Data that hold code.


@pytest.fixture
def poisoned(tmp_path):
    """A TUDataset whose cache runs a command; and the file which that leaves."""
    raw, processed = (tmp_path / "EVIL" / name for name in ("raw", "processed"))
    raw.mkdir(parents=True)
    processed.mkdir()
    for name, text in (("A", "1, 2\n2, 1\n"), ("graph_indicator", "1\n1\n"), ("graph_labels", "1\n")):
        (raw / f"EVIL_{name}.txt").write_text(text)
    torch.save(Popen(tmp_path / "ran"), processed / "data.pt")
    return tmp_path, tmp_path / "ran"


def ran(trace):
    time.sleep(0.2)  # a process that was started needs a moment
    return trace.exists()


def test_the_commands_on_a_strangers_run(tmp_path, poisoned, capsys):
    root, trace = poisoned
    folder = tmp_path / "run"
    fit_shortly("graph", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"] = {"class_path": "modalities.graph.GraphData", "init_args": {"root": str(root), "name": "EVIL"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    common = ["--checkpoint", str(folder), "--device", "cpu", "--data.num_workers", "0", "--out"]
    for command, words in ((embed, []), (probe, []), (view, ["neighbours"])):
        with pytest.raises(SystemExit) as stop:
            command([*words, *common, str(tmp_path / "out.npz")])
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert "expected tensors and plain values" in message
        assert "Popen" in message
    with pytest.raises(ValueError, match="such a file can run code"):
        load(folder).data().setup()
    assert not ran(trace)
    with pytest.raises(SystemExit):
        fit(
            [
                "fit",
                "--config",
                "graph.yaml",
                "--data.root",
                str(root),
                "--data.name",
                "EVIL",
                *FIT,
                str(tmp_path / "f"),
            ]
        )
    assert not ran(trace)


def test_weights_only_holds_and_is_taken_back(tmp_path, monkeypatch):
    torch.save(Popen(tmp_path / "ran"), tmp_path / "evil.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    before = dict(os.environ)
    with weights_only(), pytest.raises(Exception, match="Popen"):
        torch.load(tmp_path / "evil.pt", weights_only=False)
    assert dict(os.environ) == before
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    with only_trusted(), pytest.raises(Exception, match="Popen"):
        torch.load(tmp_path / "evil.pt", weights_only=False)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert not ran(tmp_path / "ran")


def test_a_data_set_of_pyg_in_the_shell(tmp_path, poisoned):
    root, trace = poisoned
    words = ["--data.dataset", "torch_geometric.datasets.TUDataset", "--data.dataset.root", str(root)]
    with pytest.raises(SystemExit):
        fit(["fit", "--config", "graph.yaml", *words, "--data.dataset.name", "EVIL", *FIT, str(tmp_path / "run")])
    assert not ran(trace)


@pytest.mark.parametrize("moved", ["all settings", "what it may import", "whether it asks", "the meaning"])
def test_a_jsonargparse_that_does_not_ask_loads_nothing(monkeypatch, moved):
    """Its settings have private names, which another version may not have."""
    from jsonargparse import _common

    if moved == "all settings":
        monkeypatch.setattr(_common, "parsing_settings", {}, raising=True)
    elif moved == "the meaning":
        monkeypatch.setattr(_common, "import_path_denied", lambda *args: False, raising=False)
        monkeypatch.setattr("jepa_lightning.config.trust._Policy.__getitem__", lambda self, path: True)
    else:
        gone = {"what it may import": "import_path_verdicts", "whether it asks": "import_paths_enforced"}[moved]
        left = {name: value for name, value in _common.parsing_settings.items() if name != gone}
        monkeypatch.setattr(_common, "parsing_settings", left)
    before = dict(_common.parsing_settings)
    said = r"jsonargparse [\d.]+ no longer asks before it imports .* nothing stored is loaded"
    with pytest.raises(Untrusted, match=said), only_trusted():
        pytest.fail("something could be loaded")
    assert _common.parsing_settings == before
