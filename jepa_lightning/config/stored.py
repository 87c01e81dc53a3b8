"""What a checkpoint holds, for parts that are built again from its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_STATE: ContextVar[Mapping[str, Tensor] | None] = ContextVar("state", default=None)
_REBUILDING: ContextVar[bool] = ContextVar("rebuilding", default=False)


@contextmanager
def building_from(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, a model is built whose weights are then loaded from `state`, a state dict."""
    token = _STATE.set(state)
    try:
        yield
    finally:
        _STATE.reset(token)


def stored(name: str, *, of: str = "") -> list[Tensor]:
    """Return what the checkpoint being loaded holds under `name` in any part; empty without a checkpoint.

    For a part that reads a file when it is built and keeps its content in a buffer (a vocabulary): a run's folder is
    then enough to build it again, on a machine that does not have the file. Of several modalities, the part lies
    deeper than of one.

    Args:
        name: of the buffer.
        of: what the part lies in, such as tokenizer.
    """
    found = (_STATE.get() or {}).items()
    return [value for key, value in found if key.startswith(of) and key.rpartition(".")[2] == name]


@contextmanager
def rebuilding() -> Iterator[None]:
    """Inside, a model is built from a stored configuration, without files that training began with."""
    token = _REBUILDING.set(True)
    try:
        yield
    finally:
        _REBUILDING.reset(token)


def is_rebuilding() -> bool:
    """Return whether a model is being built from a stored configuration."""
    return _REBUILDING.get()
