"""Runs of `jepa-fit` of two steps, with the files that they leave."""

import copy

from jepa_lightning.cli.lightning_cli import JEPACLI
from jepa_lightning.config.plugins import load_plugins

SHORT = [
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_steps", "2"),
    *("--trainer.num_sanity_val_steps", "0", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"),
    *("--trainer.enable_model_summary", "false", "--probe.enabled", "false", "--pictures.enabled", "false"),
    *("--model.modality.encoder.width", "16", "--model.modality.encoder.depth", "1"),
    *("--model.modality.encoder.heads", "2", "--model.predictor.width", "8", "--model.predictor.depth", "1"),
    *("--model.predictor.heads", "2", "--data.samples", "48", "--data.batch_size", "16"),
]
_ENCODER = SHORT.index("--model.modality.encoder.width")
PAIRS = [*SHORT[:_ENCODER], *SHORT[_ENCODER + 6 :]]  # without sizes of a single modality's encoder
IMAGE = ["--model.modality.image_size", "32", "--model.modality.masker.min_context", "2"]


class Run(JEPACLI):
    """`jepa-fit` that keeps the model as it was before training."""

    def before_fit(self):
        super().before_fit()
        fit = self.trainer.fit

        def remember_and_fit(model, **settings):
            self.before = copy.deepcopy(model)
            fit(model, **settings)

        self.trainer.fit = remember_and_fit


class Built(JEPACLI):
    """`jepa-fit` that builds everything and runs nothing."""

    def start(self):
        pass


class Parsed(Built):
    """`jepa-fit` as far as its settings: nothing is built, nothing runs."""

    def instantiate_classes(self):
        pass


def fit_shortly(name, folder, *words):
    load_plugins()
    more = IMAGE if name == "image" else []
    run = Run(["fit", "--config", f"{name}.yaml", *SHORT, *more, "--trainer.default_root_dir", str(folder), *words])
    run.model.eval()
    return run
