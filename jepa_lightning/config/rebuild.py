"""From a stored configuration to the model and the data that it describes."""

from __future__ import annotations

import copy
import textwrap
from argparse import ArgumentError
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jsonargparse
from lightning.pytorch import LightningDataModule

from jepa_lightning.config.bounded_yaml import MODE, check_values
from jepa_lightning.config.messages import shorten
from jepa_lightning.config.stored import rebuilding
from jepa_lightning.config.trust import Untrusted, library_classes, only_trusted
from jepa_lightning.data import JEPADataModule
from jepa_lightning.modality import Modality
from jepa_lightning.module import BY_CLI, JEPA

Config = dict[str, Any]

_BUILD_ERRORS = (ArgumentError, ValueError, TypeError, ImportError, AttributeError, KeyError, RuntimeError)
_ONLY_TO_TRAIN = ("optimizer", "checkpoint_activations", "compile", "cuda_graphs")


def build_model(hyperparameters: Mapping[str, Any], *, pretrained: bool, trust: Collection[str] = ()) -> JEPA:
    """The JEPA of a configuration, with fresh weights drawn from the global random state, as `jepa-fit` draws them.

    What only training needs (the optimiser, compilation) is left at its defaults.

    Args:
        hyperparameters: as `jepa-fit` stores them in a checkpoint.
        pretrained: also load the weights that parts began with; else they are left random, to be overwritten.
        trust: packages whose classes may be named, beside ours, the plug-ins' and those of the usual libraries.

    Raises:
        ValueError: the configuration does not fit this version, a package is missing, or one is not trusted.
    """
    check_values(hyperparameters)
    config = copy.deepcopy({k: v for k, v in hyperparameters.items() if k not in (*_ONLY_TO_TRAIN, BY_CLI)})
    target = _inside(config, "target")
    if str(target.get("class_path", "")).endswith(".Pretrained"):  # its weights are in the checkpoint
        settings = target.setdefault("init_args", {})
        settings.pop("checkpoint", None)
        _without_weights(settings.get("build") or {})
    if not pretrained:
        for part in ("modality", "predictor"):
            _without_weights(_inside(config, part))
    model = {"class_path": config.pop("_class_path", "jepa_lightning.JEPA"), "init_args": config}
    with rebuilding():
        return _build(JEPA, model, what="model", trust=trust)


def build_data(
    config: Mapping[str, Any], overrides: Mapping[str, Any], modality: Modality, *, trust: Collection[str] = ()
) -> LightningDataModule:
    """The data module of a configuration, which takes sizes that are not given (`image_size: null`) from `modality`.

    Of several kinds of data it is that of the main kind; see `JEPADataModule.for_evaluation`.

    Args:
        config: `class_path` and `init_args`.
        overrides: settings that replace those in `init_args`; classes of the usual libraries that they
            name are trusted.
        modality: of the model that the data are for.
        trust: as in `build_model`.

    Raises:
        ValueError: as `build_model`, or the data module refuses its settings.
    """
    check_values(config)
    settings = {**(config.get("init_args") or {}), **overrides}
    trust = [*trust, *library_classes(strings(overrides))]
    data = _build(LightningDataModule, {**config, "init_args": settings}, what="data", trust=trust)
    if isinstance(data, JEPADataModule):
        return data.bind(modality).for_evaluation
    return data


class _Parser(jsonargparse.ArgumentParser):
    """Checks settings as it reads them, and not a second time as a whole, which takes as long as the rest.

    Settings that are missing are thus noticed by the constructor that needs them.
    """

    whole = False  # those of classes within have parsers of this class, too, which look for settings of other names

    def validate(self, *args: Any, **kwargs: Any) -> None:
        """Check what was read, as jsonargparse does, but for the whole."""
        if not self.whole:
            super().validate(*args, **kwargs)


def _build(base: type, config: Mapping[str, Any], *, what: str, trust: Collection[str]) -> Any:
    parser = _Parser(exit_on_error=False, parser_mode=MODE)
    parser.whole = True
    parser.add_subclass_arguments(base, what, fail_untyped=False, required=True)
    try:
        with only_trusted(trust):
            # without jsonargparse's copy of all defaults, which takes twice as long as the rest: constructors have them
            found = parser.parse_object({what: _containers(config)}, defaults=False)
            return parser.instantiate_classes(found)[what]
    except Untrusted:
        raise
    except _BUILD_ERRORS as error:
        raise ValueError(_in_a_line(error)) from error


def _containers(value: Any) -> Any:
    """Copy dicts and lists, for a parser that writes into them; what they hold stays, such as a dataset."""
    if isinstance(value, Mapping):
        return {name: _containers(item) for name, item in value.items()}
    return [_containers(item) for item in value] if isinstance(value, list) else value


def _in_a_line(error: BaseException) -> str:
    """What was wrong: above all, a package that is missing, which a parser buries under what it would have liked."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ImportError):
        cause = cause.__cause__ or cause.__context__
    error = cause or error
    lines = [line.strip() for line in shorten(str(error) or repr(error)).splitlines()]
    return lines[0] if len(lines) == 1 else textwrap.shorten(" ".join(lines), 300)


def _without_weights(part: dict[str, Any]) -> None:
    """Have a part, and all parts within, begin with random weights: `pretrained` and `weights` name others.

    `jepa-fit` stores all settings, also those that are defaults.
    """
    for name, value in part.items():
        if isinstance(value, dict):
            _without_weights(value)
        elif name == "pretrained" and value is True:
            part[name] = False
        elif name == "weights" and isinstance(value, str):
            part[name] = None


def strings(value: Any) -> Iterator[str]:
    """All strings in lists and dicts within each other."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def _inside(config: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config if isinstance(config, dict) else {}
