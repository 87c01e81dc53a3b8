"""A JEPA, data and a trainer that are small enough for a test, shared by all tests; conftest.py names this file."""

import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.connectors import callback_connector
from short_runs import fit_shortly

from jepa_lightning import JEPA
from jepa_lightning.cli.lightning_cli import JEPACLI
from jepa_lightning.encoders import ViT
from jepa_lightning.evaluation.probes import probing
from jepa_lightning.evaluation.probes.attentive import fit_attentive
from jepa_lightning.evaluation.report.results import Plots
from jepa_lightning.maskers import Random
from jepa_lightning.predictors import TransformerPredictor
from modalities.image import Image, ImageData

torch.set_num_threads(1)


@pytest.fixture
def make_jepa():
    """Builds a 2-layer JEPA, 32 wide, on 32 px images cut into 4x4 patches; the same weights at every call."""

    def make(*, encoder=None, seed=0, channels=3, masker=Random, **settings):
        torch.manual_seed(seed)
        modality = Image(
            image_size=32,
            patch_size=8,
            channels=channels,
            encoder=encoder or partial(ViT, width=32, depth=2, heads=2),
            masker=masker(target_ratio=0.5, targets=2),
        )
        return JEPA(modality, predictor=partial(TransformerPredictor, width=16, depth=1, heads=2), **settings)

    return make


@pytest.fixture(scope="session")
def short_run(tmp_path_factory):
    """Short runs by modality or by a name of their own, each trained once for all tests of a process.

    `short_run(name)` is the run's folder, which tests leave as it is but for `probe/` and `view/`, and the run.
    """
    runs = {}

    def get(modality, name=None, *words):
        key = name or modality
        if key not in runs:
            path = tmp_path_factory.mktemp("runs") / key
            runs[key] = path, fit_shortly(modality, path, *words)
        return runs[key]

    return get


@pytest.fixture(scope="session", autouse=True)
def _no_waiting():
    """Nothing waits for the disk, which only a loss of power would need, nor looks for Lightning's plug-ins in vain."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        patch.setattr(callback_connector, "_load_external_callbacks", lambda group: [])
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_parser():
    """The parsers of `jepa-fit` are built once, a sixth of a short run's time; each parse begins with the same one."""
    built = {}
    build = JEPACLI.setup_parser

    def setup_parser(self, *settings):
        key = type(self), self.model_class, self.command
        if key not in built:
            build(self, *settings)
            built[key] = self.parser, self.arguments, tuple(self.parser.callback_keys)
        self.parser, self.arguments, keys = built[key]
        self.parser.callback_keys = list(keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JEPACLI, "setup_parser", setup_parser)
        yield


@pytest.fixture(autouse=True)
def _no_seed_of_another_run(monkeypatch):
    """A run that an earlier test of this process began leaves its seed behind, which data and models then take."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture
def no_plots(monkeypatch):
    """Reports without plots, which take as long as all the rest, where a test asks for something else."""
    monkeypatch.setattr("jepa_lightning.evaluation.report.plots.draw_plots", lambda report, runs: Plots())


@pytest.fixture
def few_plots(monkeypatch):
    """Reports without confusion matrices, and with one encoder's embedding: most of the time that plots take."""
    from jepa_lightning.evaluation.report import plots

    draw = plots.draw_plots

    def draw_few(report, runs=None):
        return draw(replace(report, confusions=[], embeddings=report.embeddings[:1]), runs)

    monkeypatch.setattr(plots, "draw_plots", draw_few)


@pytest.fixture
def quick_logistic(monkeypatch):
    """Logistic regressions in reports with a choice of two penalties, of which the weaker takes little time."""
    monkeypatch.setattr(probing, "choose_stratified_c", partial(probing.choose_stratified_c, grid=(0.01, 0.1)))


@pytest.fixture
def quick_attentive(monkeypatch):
    """Fewer settings and epochs of attentive probes."""
    few = partial(fit_attentive, lrs=(5e-3, 2e-2), decays=(0.01,), epochs=6)
    for place in ("evaluation.probes.probing", "pictures.attention"):
        monkeypatch.setattr(f"jepa_lightning.{place}.fit_attentive", few)


@pytest.fixture
def make_data():
    """Generated images, 32 px: 96 for training, 12 for validation, all 96 for the probe."""

    few = {"samples": 96, "batch_size": 16, "image_size": 32, "channels": 3, "num_workers": 0}

    def make(**settings):
        return ImageData(**{**few, **settings})

    return make


@pytest.fixture
def make_trainer(tmp_path):
    """A trainer on one CPU that writes into `tmp_path`, quiet, and silent about Lightning's hints."""

    def make(*callbacks, **settings):
        defaults = {
            "default_root_dir": tmp_path,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 2,
        }
        for module in ("lightning", "torch"):
            warnings.filterwarnings("ignore", module=rf"{module}\..*")
        return Trainer(callbacks=list(callbacks), **{**defaults, **settings})

    return make
