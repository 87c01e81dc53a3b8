"""What Lightning imports and a command does not need is imported when it is first asked for."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


def postpone_metrics() -> None:
    """Import torchmetrics part by part: the parts that are used, and all of it when anything else is asked for.

    Lightning wants two of its classes and the probes two functions. The `__init__` files import scipy.signal,
    transformers and torchvision, for metrics of text, images and audio: seconds before the first line of a command.
    Nothing happens where torchmetrics has been imported already, is not installed, or is of other parts.
    """
    if "torchmetrics" in sys.modules:
        return
    with suppress(ImportError):
        whole, functional = _postponed("torchmetrics"), _postponed("torchmetrics.functional")
        whole.functional = functional
        import torchmetrics.utilities  # noqa: F401  it and torchmetrics.metric import each other, it first
        from torchmetrics.__about__ import __version__
        from torchmetrics.collections import MetricCollection
        from torchmetrics.metric import Metric

        whole.__version__, whole.Metric, whole.MetricCollection = __version__, Metric, MetricCollection
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchmetrics"]:
        del sys.modules[name]


class _Postponed(ModuleType):
    """A package whose `__init__` runs when something is asked for that is not there yet."""

    def __getattr__(self, name: str) -> Any:
        if name.endswith("logger"):  # which its parts take from it
            return logging.getLogger(self.__name__)
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _postponed(name: str) -> Any:
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(name)
    module = module_from_spec(spec)
    module.__class__ = _Postponed
    sys.modules[name] = module
    return module
