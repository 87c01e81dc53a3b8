"""Operations that a training step of 12 + 6 layers dispatches, and what dispatching them costs the CPU.

    python -m benchmarks.dispatch

The model is so small that its kernels take next to no time. Counted are the operations that launch a kernel (views are
not) in a step under bf16 autocast with this package's short cuts for CUDA, without them ("plain"), and with the
prediction recorded as CUDA graphs, of which a replay counts as one: a CPU cannot record, so what was computed once
stands in for it. Milliseconds are CPU time of the same steps in turn. Kernels of bfloat16 are slow on most CPUs, so the
time of the first two says less than the counts; that of the third lacks what the driver takes to launch two graphs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import report
from benchmarks.models import SIZES, build
from benchmarks.step_time import PARTS, training_step
from jepa_lightning import JEPA
from jepa_lightning.scale import graphs
from jepa_lightning.targets import half

SMALL = (32, 12, 2)
VIEWS = {"view", "_unsafe_view", "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "slice", "select"}
VIEWS |= {"detach", "alias", "unbind", "split", "split_with_sizes", "as_strided", "_reshape_alias", "unfold"}
VIEWS |= {"empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "lift_fresh", "_local_scalar_dense"}


class Dispatched(TorchDispatchMode):
    """Counts the operations of each part of a step that launch a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Counter[str]] = {part: Counter() for part in PARTS}
        self.now = PARTS[0]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.found[self.now][name] += 1
        return func(*args, **(kwargs or {}))

    def lap(self, part: str) -> None:
        """A part is done, the next one begins."""
        self.now = PARTS[min(PARTS.index(part) + 1, len(PARTS) - 1)]


def stand_in(module: torch.nn.Module, inputs: tuple[Tensor, ...], **words: Any) -> Callable[..., tuple[Tensor, ...]]:
    """In place of `torch.cuda.make_graphed_callables`: outputs and gradients are those of the first call, for ever."""
    outputs = module(*inputs)
    weights = [p for p in module.parameters() if p.requires_grad]
    total = torch.stack([t.float().sum() for t in outputs if t.requires_grad]).sum()
    gradients = torch.autograd.grad(total, weights, allow_unused=True)

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, ...]:
            return tuple(t.detach() for t in outputs)

        @staticmethod
        def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
            return *[None] * len(inputs), *[None if g is None else g.detach() for g in gradients]

    return lambda *given: Replay.apply(*given, *weights)


def small(*, plain: bool, recorded: bool = False) -> tuple[JEPA, torch.optim.Optimizer]:
    """Build 12 layers and a predictor of 6, with CUDA's short cuts on the CPU or without, recorded or not."""
    SIZES["dispatch"] = SMALL
    try:
        model = build(
            "dispatch", image_size=48, patch_size=8, predictor_width=32, fixed_size=True, cuda_graphs=recorded
        )
    finally:
        del SIZES["dispatch"]
    if not plain:
        model.configure_model()
    model.target.half_copy = not plain  # type: ignore[assignment]
    model.train()
    model.total_steps = 1000
    optimizer = model.configure_optimizers()
    for group in optimizer.param_groups:
        group["foreach" if plain else "fused"] = True
    return model, optimizer


def main(argv: Sequence[str] | None = None) -> None:
    """Count, time, print the table, write the JSON file."""
    parser = report.options(__doc__, "dispatch")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each")
    args = parser.parse_args(argv)
    report.at_least(parser, args, steps=1, threads=1)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    batch = {"image": torch.randn(1, 3, 48, 48)}
    built = {"plain": small(plain=True), "short cuts": small(plain=False)}
    built["recorded"] = small(plain=False, recorded=True)
    counts: dict[str, dict[str, int]] = {}
    times: dict[str, list[float]] = {name: [] for name in built}
    with (
        mock.patch.object(half, "DEVICES", {"cpu"}),
        mock.patch.object(graphs, "DEVICES", {"cpu"}),
        mock.patch.object(torch.cuda, "make_graphed_callables", stand_in),
    ):
        for number in range(args.steps + 2):
            for name, (model, optimizer) in built.items():
                start = time.process_time()
                training_step(model, optimizer, batch, number, bf16=True)
                times[name].append((time.process_time() - start) * 1e3)
        for name, (model, optimizer) in built.items():
            with Dispatched() as counted:
                training_step(model, optimizer, batch, args.steps + 2, bf16=True, lap=counted.lap)
            counts[name] = {part: found.total() for part, found in counted.found.items()}
    rows = [(part, *[str(counts[name][part]) for name in built]) for part in PARTS]
    rows.append(("together", *[str(sum(counts[name].values())) for name in built]))
    medians = {name: report.quartiles(own[2:])[1] for name, own in times.items()}
    ratio = {
        name: report.quartiles([b / a for a, b in zip(times["plain"][2:], own[2:], strict=True)])
        for name, own in times.items()
        if name != "plain"
    }
    rows.append(("CPU ms", *[f"{medians[name]:.1f}" for name in built]))
    print(report.table(("part", *[f"operations, {name}" for name in built]), rows))
    for name, quartiles in ratio.items():
        print("{0} / plain in CPU time, median of pairs: {2:.2f} (quartiles {1:.2f}-{3:.2f})".format(name, *quartiles))
    results = {"operations": counts, "ms": medians, "ratio": ratio}
    report.write_json(args.json, {"steps": args.steps, "threads": args.threads, **report.machine()}, results)


if __name__ == "__main__":
    main()
