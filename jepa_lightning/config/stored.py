"""What a checkpoint holds, for parts that are built again from its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_STATE: ContextVar[Mapping[str, Tensor] | None] = ContextVar("state", default=None)


@contextmanager
def building_from(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, a model is built whose weights are then loaded from `state`, a state dict."""
    token = _STATE.set(state)
    try:
        yield
    finally:
        _STATE.reset(token)


def stored(name: str) -> Tensor | None:
    """Return what the checkpoint being loaded holds under `name`; None if there is no such thing, or no checkpoint.

    For a part that reads a file when it is built and keeps its content in a buffer (a vocabulary): a run's folder is
    then enough to build it again, on a machine that does not have the file.
    """
    return (_STATE.get() or {}).get(name)
