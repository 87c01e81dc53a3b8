"""Which classes a stored configuration may name: nothing else is imported while one is read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import jsonargparse
from jsonargparse._common import parsing_settings

from jepa_lightning.plugins import packages

TRUSTED = (  # the parts of libraries that hold what a configuration names, not those that load files or run code
    *("jepa_lightning", "timm.layers", "timm.models", "timm.optim"),
    *("torch.nn", "torch.optim", "torch.utils.data", "torchvision.datasets", "torchvision.transforms"),
    *("torch_geometric.data", "torch_geometric.datasets", "torch_geometric.nn", "torch_geometric.transforms"),
)
_settings_are_changed = Lock()  # they belong to the whole process


class Untrusted(ValueError):
    """A configuration names a class of a package that is not trusted; nothing of it was imported."""


def trusted(trust: Collection[str] = ()) -> list[str]:
    """Packages, or parts of them, whose classes may be named: ours, the registered plug-ins' and `trust`.

    Raises:
        ValueError: `trust` holds something else than names of packages.
    """
    if isinstance(trust, str) or not all(part.isidentifier() for name in trust for part in name.split(".")):
        raise ValueError(f"expected trust to be a list of package names, such as ['mypackage'], got {trust!r}")
    return sorted({*TRUSTED, *packages(), *trust})


@contextmanager
def only_trusted(trust: Collection[str] = ()) -> Iterator[None]:
    """Inside, jsonargparse imports what `trusted` lists and nothing else, whatever a configuration says.

    Raises:
        Untrusted: a configuration named another class; the message says which, and what to do.
    """
    allowed = trusted(trust)
    with _settings_are_changed:
        # jsonargparse has a setting for this, and none to take it back. It would hold for all that the process parses.
        before: dict[str, Any] = dict(parsing_settings)
        try:
            jsonargparse.set_parsing_settings(
                import_path_denylist=["*"], import_path_allowlist=allowed, instantiate_subclass_spec_in_any=False
            )
            yield
        except Exception as error:
            refused = re.search(r"Importing '([\w.]+)' is not allowed", str(error))
            if refused is None:
                raise
            package = refused[1].split(".")[0]
            raise Untrusted(
                f"expected classes of jepa_lightning, its plug-ins, torch, torchvision, torch_geometric or timm, got "
                f"{refused[1]}, which was not imported: if you trust that package, say so with trust=[{package!r}] "
                f"(--trust {package})"
            ) from None
        finally:
            parsing_settings.clear()
            parsing_settings.update(before)
