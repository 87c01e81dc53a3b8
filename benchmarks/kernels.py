"""Where a device's time goes in a step: milliseconds of its kernels, by their kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "attention": ("flash", "fmha", "sdpa", "attention"),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "::mm", "::addmm", "::bmm"),
    "optimiser, EMA": ("multi_tensor", "foreach", "adam"),
    "fused": ("triton",),
}
"""Parts of a kernel's name, by its kind; the first kind counts. Others are "other": copies, sums, gathers."""


def kind_of(name: str) -> str:
    """Name a kernel's kind.

    Examples:
        >>> from benchmarks.kernels import kind_of
        >>> kind_of("triton_poi_fused_gelu_view_2"), kind_of("nvjet_sm90_tst_256x128"), kind_of("Memcpy DtoD")
        ('fused', 'matrix products', 'other')
    """
    name = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")


def kernel_ms(run: Callable[[int], Any], steps: range, device: torch.device) -> dict[str, float]:
    """Run steps under torch's profiler: milliseconds a step of each kind of kernel, the longest first.

    On a CPU, which has no kernels of its own, they are the operations.

    Args:
        run: makes a step.
        steps: their numbers.
        device: that computes.
    """
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        for step in steps:
            run(step)
        if cuda:
            torch.cuda.synchronize(device)
    found: dict[str, float] = {}
    for event in profiler.events() or ():
        micros = event.device_time if cuda else event.self_cpu_time_total
        found[kind_of(event.name)] = found.get(kind_of(event.name), 0.0) + micros / 1e3 / len(steps)
    return dict(sorted(found.items(), key=lambda item: -item[1]))
