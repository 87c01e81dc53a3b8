"""Count the places where Python asks for a tensor's value: on a GPU, each makes the CPU wait for the device."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_READING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2"}
_COPYING = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu}
_TORCH = str(Path(torch.__file__).parent)
# These read tensors that lie on the CPU on every machine: masks are drawn there, Adam counts its steps there.
_ON_CPU = (str(Path("jepa_lightning", "maskers")), str(Path(_TORCH, "optim")))


class HostReads(TorchDispatchMode):
    """Count host reads of tensors while it is entered, by the line that asked.

    Operations that give Python a value or a size that depends on one (`item`, `bool`, `float`, `nonzero`, ...), and
    `tolist`, `numpy`, `cpu`. Reads in maskers and in torch's optimisers are counted apart: what they read lies on the
    CPU on every machine, so they wait for nothing.

    Attributes:
        device: reads that would wait for a GPU.
        cpu: reads in maskers and optimisers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.device: Counter[str] = Counter()
        self.cpu: Counter[str] = Counter()
        self._copies = _Copies(self)

    def __enter__(self) -> HostReads:
        """Start counting."""
        self._copies.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop counting."""
        super().__exit__(*error)
        self._copies.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation that reads."""
        if func.overloadpacket.__name__ in _READING:
            self.count(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    def count(self, operation: str) -> None:
        """Note who asks: the innermost line outside torch."""
        frame: FrameType | None = sys._getframe(1)
        place, on_cpu = None, False
        while frame is not None:
            file = frame.f_code.co_filename
            on_cpu = on_cpu or any(part in file for part in _ON_CPU)
            if place is None and not file.startswith(_TORCH) and file != __file__:
                place = f"{operation} in {_short(file)}:{frame.f_lineno} {frame.f_code.co_name}"
            frame = frame.f_back
        (self.cpu if on_cpu else self.device)[place or operation] += 1


class _Copies(TorchFunctionMode):
    """Sees the methods that copy a tensor to Python, which a tensor on the CPU makes no operation of."""

    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _COPYING:
            self.reads.count(func.__name__)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def cuda_waits(waits: Counter[str]) -> Iterator[None]:
    """On a CUDA device: count what torch itself sees as a wait of the CPU for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        waits.update(
            f"{_short(warning.filename)}:{warning.lineno}"
            for warning in caught
            if "synchronizing CUDA operation" in str(warning.message)
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _short(file: str) -> str:
    """The path from the package on."""
    return "/".join(Path(file).parts[-3:])
