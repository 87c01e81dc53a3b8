"""What a stored configuration may name: harmless classes, and no function. Nothing else is imported."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pydoc import ErrorDuringImport, locate
from threading import Lock
from typing import Any

import jsonargparse
from jsonargparse import _common
from lightning.pytorch import LightningDataModule
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset, Sampler

from jepa_lightning.config.plugins import packages

TRUSTED = (  # what a model is made of; data sets of libraries unpack archives and read pickles, so they need trust
    *("jepa_lightning", "timm.layers", "timm.models", "timm.optim"),
    *("torch.nn", "torch.optim", "torch_geometric.nn"),
)
LIBRARIES = (  # of which parts and data sets may be named, even when trusted, and no more
    *("torch", "torchvision", "torchaudio", "torch_geometric", "timm", "lightning", "lightning_fabric"),
    *("pytorch_lightning", "torchmetrics", "torchdata", "torchcodec", "numpy", "scipy", "sklearn", "pandas", "PIL"),
    *("datasets", "transformers", "huggingface_hub", "webdataset", "fsspec", "h5py", "trimesh", "soundfile", "av"),
)
REFUSED = ("jsonargparse", "pip", "setuptools", "pkg_resources", "yaml")  # no package of parts, whoever trusts it
HARMLESS = frozenset({"torchvision.datasets.folder.default_loader"})  # functions; a default that is stored by its name
_TRANSFORMS = ("torchvision.transforms.", "torch_geometric.transforms.", "torchaudio.transforms.")
_settings_are_changed = Lock()  # they belong to the whole process
_WEIGHTS_ONLY, _ANYTHING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


_ENFORCED = {"import_paths_enforced": True, "instantiate_subclass_spec_in_any": False}
_CANARY = "shutil.disk_usage"


class Untrusted(ValueError):
    """A configuration names something that is not trusted; nothing of it was run."""


def trusted(trust: Collection[str] = ()) -> list[str]:
    """Packages, or parts of them, whose classes may be named: ours, the registered plug-ins' and `trust`.

    Raises:
        ValueError: `trust` holds something else than names of packages, or one that holds no parts of models or data.
    """
    if isinstance(trust, str) or not all(part.isidentifier() for name in trust for part in name.split(".")):
        raise ValueError(f"expected trust to be a list of package names, such as ['mypackage'], got {trust!r}")
    for name in trust:
        if _root(name) in sys.stdlib_module_names or _root(name) in REFUSED:
            raise ValueError(f"expected packages of models or data to trust, got {name}: no run needs it, leave it out")
    return sorted({*TRUSTED, *packages(), *trust})


@contextmanager
def only_trusted(trust: Collection[str] = ()) -> Iterator[None]:
    """Inside, jsonargparse imports what a stored configuration may name and nothing else, whatever it says.

    Ours and the plug-ins' classes, and `nn.Module`s and optimisers of torch, timm and torch_geometric. Of what `trust`
    lists: data sets, modules and transforms of the usual libraries, and anything of other packages. A function is
    named by no configuration, unless it is of such a package.

    Files that torch loads meanwhile may hold tensors and plain values alone.

    Raises:
        Untrusted: a configuration named something else; the message says what, and what to do.
    """
    policy = _Policy(trusted(trust), own=trust)
    with _settings_are_changed, weights_only():
        # jsonargparse has a setting for this, and none to take it back. It would hold for all that the process parses.
        settings: dict[str, Any] = getattr(_common, "parsing_settings", {})
        before = dict(settings)
        try:
            settings.update(_ENFORCED, import_path_verdicts=policy)
            _require_asked(policy, before)
            yield
        except Exception as error:
            refused = re.search(r"Importing '([\w.]+)' is not allowed", str(error))
            if refused is None:
                raise
            raise Untrusted(policy.reasons.get(refused[1]) or _reason(refused[1])) from None
        finally:
            settings.clear()
            settings.update(before)


def _require_asked(policy: _Policy, settings: Mapping[str, Any]) -> None:
    """See that this jsonargparse asks before it imports; its settings have private names.

    Raises:
        Untrusted: it does not.
    """
    with suppress(Exception):
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--canary", type=Callable)
        parser.parse_object({"canary": _CANARY})
    if not policy.reasons.pop(_CANARY, None) or not settings.keys() >= {*_ENFORCED, "import_path_verdicts"}:
        raise Untrusted(
            f"jsonargparse {version('jsonargparse')} no longer asks before it imports what a configuration names "
            "(parsing_settings of jsonargparse._common), so nothing stored is loaded: install jsonargparse 4.53"
        )


@contextmanager
def weights_only() -> Iterator[None]:
    """Inside, `torch.load` makes tensors and plain values alone, even where a library asks it to run what files say.

    PyG tries again with pickle where a file holds more than that. It is told by an environment variable, so this holds
    for the whole process.
    """
    before = {name: os.environ.pop(name, None) for name in (_WEIGHTS_ONLY, _ANYTHING)}  # torch refuses to see both
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        del os.environ[_WEIGHTS_ONLY]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def library_classes(words: Iterable[str]) -> list[str]:
    """Which of the words that a user typed are import paths of the usual libraries: those, the user trusts."""
    found = (word for word in words if "." in word and all(part.isidentifier() for part in word.split(".")))
    return [word for word in found if _root(word) in LIBRARIES]


class _Policy(dict[str, bool]):
    """What jsonargparse looks up for an import path, from the whole path to its first part: the whole decides.

    It asks before it imports, and once more for where the object was defined.

    Attributes:
        reasons: why paths were refused.
    """

    def __init__(self, allowed: Collection[str], *, own: Collection[str]) -> None:
        super().__init__({"*": False})  # all that is left of it if it is copied
        self.allowed = list(allowed)
        self.own = own
        self.reasons: dict[str, str] = {}
        self._found: set[str] = set()  # classes that may be used: each is asked for many times

    def __contains__(self, path: object) -> bool:
        return True

    def __getitem__(self, path: str) -> bool:
        reason = self._refusal(path)
        if reason is not None:
            self.reasons[path] = reason
        return reason is None

    def _refusal(self, path: str) -> str | None:
        if path in self._found:
            return None
        if path in HARMLESS and _below(path, [*self.allowed, "torchvision"]):
            return None
        if not _below(path, self.allowed):
            return _reason(path)
        if _below(path, self.own) and _root(path) not in LIBRARIES:
            return None
        try:
            named = locate(path)
        except ErrorDuringImport:
            named = None
        if named is None:
            return None  # the parser does not find it either, and says which package or class is missing
        if not inspect.isclass(named):
            kind = "module" if inspect.ismodule(named) else "function" if callable(named) else "object"
            return (
                f"expected classes in a stored configuration, got the {kind} {path}, which was not used: write a class "
                "in its place, or build the model or the data in Python"
            )
        if _root(path) in LIBRARIES and not _is_part(named):
            return (
                f"expected data sets, modules or transforms of {_root(path)} in a stored configuration, got {path}, "
                "which was not used: build the model or the data in Python"
            )
        if _below(path, self.own) and _root(named.__module__) == _root(path):
            self.allowed.append(f"{named.__module__}.{named.__qualname__}")  # where the class that was named is defined
        self._found.add(path)
        return None


def _is_part(named: type) -> bool:
    where = f"{named.__module__}."
    if where.startswith(_TRANSFORMS):
        return True
    return issubclass(named, (nn.Module, Optimizer, LRScheduler, Dataset, Sampler, LightningDataModule))


def _below(path: str, packages: Collection[str]) -> bool:
    return any(path == package or path.startswith(f"{package}.") for package in packages)


def _root(path: str) -> str:
    return path.partition(".")[0]


def _reason(path: str) -> str:
    if _root(path) in sys.stdlib_module_names or _root(path) in REFUSED:
        advice = "no run needs it, so do not use this one"
    else:
        advice = f"if you trust that package, say so with trust=[{_root(path)!r}] (--trust {_root(path)})"
    return (
        "expected classes of jepa_lightning and its plug-ins, and modules of torch, torch_geometric or timm, got "
        f"{path}, which was not imported: {advice}"
    )
