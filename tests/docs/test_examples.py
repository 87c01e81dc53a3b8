"""The Examples in docstrings: each runs as it stands, without the names of its module; all that YAML names has one."""

import doctest
import importlib
import inspect
import re

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from pages import ROOT
from torch.utils.data import Dataset

import jepa_lightning
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.data import ViewTransform

FILES = [
    path
    for package in ("jepa_lightning", "modalities")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "    >>> " in path.read_text()
]
EXTRAS = {
    "audio": "torchaudio", "graph": "torch_geometric", "video": "av", "hub": "datasets", "shards": "webdataset",
    "text": "tokenizers", "hf_encoder": "transformers", "pusht": "gym_pusht",
}  # fmt: skip
NAMED = (  # what YAML builds
    *(jepa_lightning.encoders.Encoder, jepa_lightning.maskers.Masker, jepa_lightning.pretexts.Pretext),
    *(jepa_lightning.targets.Target, jepa_lightning.predictors.Predictor, jepa_lightning.regularizers.Regularizer),
    *(jepa_lightning.objectives.PredictionLoss, jepa_lightning.schedules.Schedule, jepa_lightning.Modality),
    *(Callback, LightningDataModule, ViewTransform, Dataset),
)
BASES = {"FrozenTarget", "NoPredictor", "PlainViews", "ArchiveSamples", "Records", "Samples", "MemoryCache"}


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_examples_run(path, tmp_path, monkeypatch):
    for word in (path.parent.name, path.stem):
        if word in EXTRAS:
            pytest.importorskip(EXTRAS[word])
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = importlib.import_module(name_of(path))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tests
    for test in tests:
        test.globs = {"__name__": "example"}  # not the module's names: a reader has none of them
        said = []
        runner.run(test, out=said.append)
        assert not said, "".join(said)


def public():
    """(package, name) of each class that is public and built from YAML."""
    found = []
    packages = [name for name, home in jepa_lightning._LAZY.items() if home is None and name != "evaluation"]
    names = [f"jepa_lightning.{name}" for name in packages]
    names += [f"modalities.{folder.parent.name}" for folder in (ROOT / "modalities").glob("*/__init__.py")]
    for package in names:
        module = importlib.import_module(package)
        for name, kind in vars(module).items():
            ours = inspect.isclass(kind) and kind.__module__.startswith(("jepa_lightning", "modalities"))
            if ours and issubclass(kind, NAMED) and not inspect.isabstract(kind) and name not in BASES:
                found.append(kind)
    return found


def test_all_that_yaml_names_has_an_example():
    load_plugins()
    kinds = set(public())
    assert len(kinds) > 50
    without = []
    for kind in kinds:
        text = kind.__doc__ or ""
        runs = ">>> " in text or ("```yaml" in text and issubclass(kind, ViewTransform))  # test_view_examples.py
        if not re.search(r"^    Examples:$", text, re.MULTILINE) or not runs:
            without.append(f"{kind.__module__}.{kind.__name__}")
    assert not without


def test_all_that_yaml_names_shows_how_it_was_made():
    """Its repr, or of a module what torch shows beside its parts, is not the address of an object."""
    plain = [kind for kind in public() if kind.__repr__ is object.__repr__]
    assert not plain
