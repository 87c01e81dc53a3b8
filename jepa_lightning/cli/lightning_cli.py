"""`jepa-fit`: LightningCLI on the JEPA module, with plug-ins, shipped configs and short errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from jepa_lightning.callbacks import (
    BestCheckpoint,
    CollapseMonitor,
    LastCheckpoint,
    LossBar,
    NonFiniteGuard,
    OnlineProbe,
    Pictures,
    RunSummary,
)
from jepa_lightning.cli.checks import check_trainer
from jepa_lightning.cli.errors import fail, short_errors
from jepa_lightning.cli.init import add_init, start_from
from jepa_lightning.cli.parser import Parser
from jepa_lightning.config.bounded_yaml import load_yaml
from jepa_lightning.config.needed import load_needed_plugins
from jepa_lightning.config.own_classes import find_own_classes
from jepa_lightning.config.shipped import find_config, find_configs
from jepa_lightning.config.trust import weights_only
from jepa_lightning.config.words import class_names, read_configs, spell_out
from jepa_lightning.module import JEPA
from jepa_lightning.run.folder import LOCK, default_loggers, keep_config, outputs, put_back, set_aside
from jepa_lightning.run.interruption import stops_before_training
from jepa_lightning.run.locks import Lock
from jepa_lightning.run.loggers import SaveConfig, keep_in_folder, with_metrics
from jepa_lightning.run.resume import (
    changed_settings,
    earlier_settings,
    find_resumable,
    is_remote,
    nothing_left,
    read_resumable,
    read_weights,
    refuse_other_weights,
)
from jepa_lightning.run.signals import asks_for_resume
from jepa_lightning.scale.strategies import refuse_fsdp1

COMMANDS = {"fit": "Train a model.", "validate": "Compute the losses of a trained model on validation data."}
INSTEAD = {
    "predict": "jepa-embed --checkpoint RUN --out features.npz writes the features of a data set",
    "test": "jepa-probe --checkpoint RUN evaluates the encoder on the test split",
}

NOT_BARE = {  # what Lightning refuses in a barebones run, and a shipped config may set
    **dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "profiler")),
    **{"log_every_n_steps": 0, "num_sanity_val_steps": 0, "detect_anomaly": False},
}


class JEPACLI(LightningCLI):
    """The command line: `jepa-fit [fit|validate] --config image.yaml [--key value ...]`.

    The model is a `JEPA`, whose settings stand right below `model`. Where a config or an option names another class
    (`model: {class_path: ..., init_args: {...}}`), any LightningModule is trained in its place.
    """

    def __init__(self, args: Sequence[str] | None = None) -> None:
        self._held = ExitStack()  # the lock of the run's folder
        self._moved: Path | None = None  # where files of an earlier run went
        self._before: set[Path] | None = None  # what a new run found in its folder
        words = list(sys.argv[1:] if args is None else args)
        named = names_model_class(words)
        self.command = words[0] if words and words[0] in COMMANDS else "fit"
        super().__init__(
            LightningModule if named else JEPA,
            LightningDataModule,
            subclass_mode_model=named,
            subclass_mode_data=True,
            parser_class=Parser,
            save_config_callback=SaveConfig,  # an earlier run's files are set aside, see before_fit
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={"default_root_dir": "runs"},
            parser_kwargs={"prog": f"jepa-fit {self.command}", "description": COMMANDS[self.command]},
            args=None if args is None else list(args),
            run=False,  # parsers within a parser, one for each command of Lightning's, take twice as long
        )
        self.start()

    def start(self) -> None:
        """Train or validate, as the command says."""
        getattr(self, f"before_{self.command}")()
        given = {name: self.config_init[name] for name in self.arguments}
        owner = self if self.command == "fit" else self.trainer
        getattr(owner, self.command)(model=self.model, datamodule=self.datamodule, **given)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What watches a run is always on and has its own settings; the pretext is `Masked` unless another is named."""
        if not self.subclass_mode_model:
            parser.set_defaults({"model.pretext": {"class_path": "jepa_lightning.pretexts.Masked"}})
        for watcher, key in (
            (CollapseMonitor, "collapse"),
            (OnlineProbe, "probe"),
            (Pictures, "pictures"),
            (NonFiniteGuard, "non_finite"),
            (LastCheckpoint, "checkpoint"),
        ):
            parser.add_lightning_class_args(watcher, key)
        parser.add_argument(
            "--process_timeout",
            type=float,
            default=30.0,
            help="minutes that the processes of a run wait for each other, before those that wait end",
        )
        add_init(parser)
        parser.add_argument(
            "--auto_resume",
            type=bool,
            default=False,
            help="resume from checkpoints/last.ckpt of the run's folder if it holds an unfinished run; start anew "
            "where it holds none; do nothing where the run is finished",
        )
        skipped: set[str | int] = {*LightningCLI.subcommands()[self.command]}
        self.arguments = parser.add_method_arguments(Trainer, self.command, skip=skipped)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Find shipped configs, and parse what was typed. sys.argv stays: DDP's child processes read it too."""
        words = find_configs(sys.argv[1:] if args is None else args)
        if words[:1] and words[0] in INSTEAD:
            fail(f"there is no jepa-fit {words[0]}: {INSTEAD[words[0]]}")
        if words[:1] == [self.command]:
            del words[0]
        assert isinstance(parser, Parser)
        parser.typed = words
        self.config: Any = parser.parse_args(words)

    def before_instantiate_classes(self) -> None:
        """The loggers' files go into the run's folder."""
        keep_in_folder(self.config["trainer"].get("logger"), self.config["trainer"]["default_root_dir"])

    def instantiate_classes(self) -> None:
        """Build what the configuration names; files that PyG's datasets read meanwhile are data, and run nothing."""
        data = self.config.get("data") or {}
        datasets = [(data.get("init_args") or {}).get(f"{part}dataset") for part in ("", "val_", "test_")]
        ours = all("torch_geometric" not in str((dataset or {}).get("class_path")) for dataset in datasets)
        text = self.parser.dump(self.config, skip_none=False)  # once: it takes as long as to build the model
        self.config_dump = load_yaml(text)  # from which Lightning takes the hyperparameters
        self.save_config_kwargs = {"text": text}
        with nullcontext() if ours else weights_only():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the default loggers, checkpoints, summary and a progress bar that does not sync at each step.

        Only `fit` writes into the run's folder: validating a run changes nothing of it.
        """
        config = self.config_init["trainer"]
        check_trainer(config)
        refuse_fsdp1(config.get("strategy"))  # which Lightning would refuse on a CPU only
        callbacks = config.get("callbacks") or []
        callbacks = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        if config.get("barebones"):  # steps and nothing else, to see how fast they are
            self.save_config_callback = None
            self.parser.callback_keys = []
            bare = [callback for callback in callbacks if not isinstance(callback, (Checkpoint, ProgressBar))]
            return super().instantiate_trainer(callbacks=bare, logger=False, **NOT_BARE, **kwargs)
        callbacks += [BestCheckpoint(), RunSummary()]
        if config.get("enable_checkpointing") is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
            self.parser.callback_keys.remove("checkpoint")
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(LossBar())
        if self.command != "fit":
            self.save_config_callback = None
            kwargs["logger"] = config.get("logger") or False
        elif config.get("logger") in (None, True) and not config.get("fast_dev_run"):
            kwargs["logger"] = default_loggers(config["default_root_dir"])
        elif config.get("logger") and not config.get("fast_dev_run"):
            kwargs["logger"] = with_metrics(config["logger"], config["default_root_dir"])
        if config.get("enable_model_summary") is None and not self.subclass_mode_model:
            kwargs["enable_model_summary"] = False  # RunSummary's lines say what the parts are
        trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        minutes = self.config_init["process_timeout"]
        if not minutes > 0:
            raise ValueError(f"expected a process_timeout of more than 0 minutes, got {minutes:g}")
        if getattr(trainer.strategy, "_timeout", None) == default_pg_timeout:  # else it was set with the strategy
            trainer.strategy._timeout = timedelta(minutes=minutes)  # type: ignore[attr-defined]
        return trainer

    def fit(self, **kwargs: Any) -> None:
        """Train; the run's folder is locked until the end. It is as it was before if no step was made."""
        with self._held:
            failed = True
            try:
                self.trainer.fit(**kwargs)
                failed = False
            finally:
                if self._before is not None and self.trainer.global_step == 0:
                    folder = self.trainer.default_root_dir
                    if put_back(folder, self._moved, before=self._before) and (self._moved or not failed):
                        rank_zero_info(f"No step was made: {folder} is as it was before")

    def before_fit(self) -> None:
        """Find the checkpoint to resume from, or set aside the files of an earlier run in the same folder.

        Nothing is touched where no step is left to make: the program ends.
        """
        if any(self.config["trainer"].get(name) for name in ("fast_dev_run", "barebones")):
            start_from(self.config, self.model)
            return
        folder = Path(self.trainer.default_root_dir)
        first = getattr(rank_zero_only, "rank", 0) == 0
        with ExitStack() as held:
            if first:
                lock = Lock(folder / LOCK, f"expected {folder} for this run, but one is under way")
                lock.acquire()
                held.callback(lock.release)
            self._prepare(folder, auto=bool(self.config.get("auto_resume")), first=first)
            self._held = held.pop_all()

    def _prepare(self, folder: Path, *, auto: bool, first: bool) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, LastCheckpoint):
                callback.requeue = auto
        path = find_resumable(folder, "last" if auto else self.config.get("ckpt_path"), tidied=first)
        self.config_init["ckpt_path"] = None if path is None else str(path)
        if path is None:
            start_from(self.config, self.model)  # which may name the run that is about to be set aside
            if first:
                self._moved, self._before = set_aside(folder), outputs(folder)
            if self._moved is not None:
                rank_zero_info(f"The files of an earlier run were moved to {self._moved}")
        elif not is_remote(path):
            self._resume(Path(path), folder)

    def _resume(self, path: Path, folder: Path) -> None:
        content = read_resumable(path)
        if nothing_left(self.trainer, content, path):
            rank_zero_info(
                f"The run of {path} is finished, after {content['global_step']} steps: nothing is left to train. Raise "
                "trainer.max_epochs or trainer.max_steps to train on"
            )
            sys.exit(0)
        changed = changed_settings(earlier_settings(path, content), self.config_dump)
        refuse_other_weights(path, content, self.model, changed)
        if changed:
            kept = keep_config(folder) if getattr(rank_zero_only, "rank", 0) == 0 else None
            where = "" if kept is None else f" (the earlier ones are kept in {kept.name})"
            rank_zero_info("\n  ".join([f"Resuming {path} with other settings than before{where}:", *changed]))

    def before_validate(self) -> None:
        """Find the checkpoint, and see that it is one for this model."""
        folder = Path(self.trainer.default_root_dir)
        path = find_resumable(folder, self.config["ckpt_path"], tidied=False, needed=True)
        self.config_init["ckpt_path"] = None if path is None else str(path)
        if path is not None and not is_remote(path):
            refuse_other_weights(Path(path), read_weights(Path(path)), self.model)


def names_model_class(words: Sequence[str]) -> bool:
    """Whether command-line words, or a config that they name, say which LightningModule to train."""
    if any(word.partition("=")[0] in ("--model", "--model.class_path") for word in words):
        return True
    models = [config.get("model") for _, config in read_configs(words) if isinstance(config, dict)]
    return any(isinstance(model, dict) and "class_path" in model for model in models)


def run(args: Sequence[str] | None = None) -> None:
    """Train or validate as the words say; see `jepa_lightning.cli.fit.fit`."""
    words = sys.argv[1:] if args is None else args
    with short_errors("jepa-fit"), stops_before_training(requeue=asks_for_resume(words)):
        try:
            words = spell_out(words, subcommands=(*COMMANDS, *INSTEAD))
            folders = [Path(find_config(config)).parent for config, _ in read_configs(words)]
        except ValueError as error:  # there is no such config, or it is no YAML
            fail(str(error))
        find_own_classes(class_names(words) or {word.rpartition("=")[2] for word in words}, folders)
        load_needed_plugins(words)
        JEPACLI(words)
