"""From what a user says of the data to a data module that fits an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningDataModule

from jepa_lightning.config.rebuild import Config, build_data
from jepa_lightning.data import JEPADataModule
from jepa_lightning.loading import Frozen

_PLAIN = (str, int, float, bool, type(None), list, tuple, dict)


@dataclass(frozen=True)
class OpenedData:
    """A data module and where it is from.

    Attributes:
        module: bound to the encoder's modality.
        config: `class_path` and `init_args`, for the record.
        prefix: of errors about data other than the run's own, which name them; else empty.
    """

    module: JEPADataModule
    config: Config
    prefix: str = ""


def open_data(
    encoder: Frozen, data: LightningDataModule | Mapping[str, Any] | None = None, *, trust: Sequence[str] = ()
) -> OpenedData:
    """Build the data module of a run, or another one, and bind it to the encoder's modality.

    Args:
        encoder: of the run.
        data: settings that replace the run's; a configuration with a `class_path`; a data module; None: the run's own.
        trust: packages whose classes a configuration may name.

    Raises:
        ValueError: the run's configuration is not known, the settings do not fit, or it is no JEPADataModule.
    """
    stored = (encoder.config or {}).get("data")
    stored = stored if isinstance(stored, dict) else {}
    if isinstance(data, LightningDataModule):
        module = _with_order(data).bind(encoder.modality)
        path = f"{type(data).__module__}.{type(data).__qualname__}"
        return OpenedData(module, {"class_path": path, "init_args": _settings(data)}, _prefix(path, encoder))
    overrides = dict(data or {})
    if "class_path" in overrides:
        config: Config = {**overrides, "init_args": dict(overrides.get("init_args") or {})}
        overrides = {}
    elif "class_path" not in stored:
        raise ValueError(
            "the run's config.yaml is not beside its checkpoint, so its data are not known: name the run's folder, or "
            "a data module, such as --data ImageData --data.root DIR"
        )
    else:
        config = {"class_path": stored["class_path"], "init_args": dict(stored.get("init_args") or {})}
    prefix = "" if config["class_path"] == stored.get("class_path") else _prefix(config["class_path"], encoder)
    with errors_with(prefix):
        module = _with_order(build_data(config, overrides, encoder.modality, trust=trust))
    return OpenedData(module, {**config, "init_args": {**config["init_args"], **overrides}}, prefix)


@contextmanager
def errors_with(prefix: str) -> Iterator[None]:
    """Inside, errors begin with `prefix`, where there is one."""
    try:
        yield
    except ValueError as error:
        if not prefix:
            raise
        raise ValueError(f"{prefix}{error}") from error


def _with_order(data: LightningDataModule) -> JEPADataModule:
    if not isinstance(data, JEPADataModule):
        raise ValueError(f"expected a JEPADataModule, got {type(data).__name__}: only their splits have an order")
    return data.for_evaluation


def _prefix(class_path: str, encoder: Frozen) -> str:
    return f"{class_path.rpartition('.')[2]}, for a run of the modality {encoder.modality.name}: "


def _settings(data: LightningDataModule) -> Config:
    """The settings of a data module that are plain values, as its attributes have them."""
    inherited = vars(LightningDataModule())
    return {
        name: value
        for name, value in vars(data).items()
        if not name.startswith("_") and name not in inherited and isinstance(value, _PLAIN)
    }
