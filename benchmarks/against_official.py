"""Our training step beside the official I-JEPA's on the CPU, step by step in turn.

    python -m benchmarks.against_official --ijepa DIR --model vit_tiny --batch 4 --threads 1

`DIR` is a clone of the official repository, which is imported for measurement only. The steps alternate, in float32,
and the CPU seconds of each are compared within a round, so that the machine's noise meets all. "exact" is I-JEPA's
function, "shared context" another one (`TransformerPredictor(shared_context=True)`). Our steps draw their masks, the
official ones were drawn before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.flops import model_flops
from benchmarks.models import SIZES, build
from benchmarks.official import official_step
from benchmarks.step_time import training_step

WARMUP = 2


def our_step(args: argparse.Namespace, *, shared_context: bool) -> tuple[Callable[[int], object], float]:
    """Our step, to be called with its number, and its mean FLOPs."""
    sizes = {"image_size": args.image_size, "patch_size": args.patch_size}
    model = build(args.model, **sizes, fixed_size=args.fixed_size, shared_context=shared_context)
    rounds = args.rounds + WARMUP
    shape = (args.batch, 3, args.image_size, args.image_size)
    flops = model_flops(model, shape, range(WARMUP, rounds))["step"]
    model.train()
    model.total_steps = rounds
    optimizer = model.configure_optimizers()
    batch = {"image": torch.randn(shape)}
    return lambda number: training_step(model, optimizer, batch, number), flops


def main(argv: Sequence[str] | None = None) -> None:
    """Time the steps in turn, print the table, write the JSON file."""
    parser = report.options(__doc__, "against_official")
    parser.add_argument("--ijepa", type=Path, help="a clone of the official repository; without it, ours alone")
    parser.add_argument("--model", default="vit_tiny", choices=list(SIZES))
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--patch-size", type=int, default=16, help="pixels")
    parser.add_argument("--batch", type=int, default=4, help="samples a batch")
    parser.add_argument("--rounds", type=int, default=12, help="timed steps of each")
    parser.add_argument("--fixed-size", action="store_true", help="ours with the same token counts at each step")
    args = parser.parse_args(argv)
    report.at_least(parser, args, image_size=1, patch_size=1, batch=1, rounds=1, threads=1)
    if args.ijepa is not None and args.model == "vit_mini":
        parser.error("the official repository has no vit_mini: use vit_tiny")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    exact, flops = our_step(args, shared_context=False)
    shared, shared_flops = our_step(args, shared_context=True)
    steps = {"exact": exact, "shared context": shared}
    if args.ijepa is None:
        times = alternate(steps, args.rounds)
    else:
        sizes = {"image_size": args.image_size, "patch_size": args.patch_size, "batch": args.batch}
        device = torch.device("cpu")
        with official_step(args.ijepa, args.model, **sizes, device=device, tuned=False, bf16=False) as official:
            times = alternate({"official": official, **steps}, args.rounds)
    first = next(iter(times))
    median = {name: report.quartiles(own)[1] for name, own in times.items()}
    ratios = {
        name: report.quartiles([a / b for a, b in zip(own, times[first], strict=True)]) for name, own in times.items()
    }
    counted = {"exact": flops, "shared context": shared_flops}
    rows = [
        (name, f"{ms:.0f}", "{1:.3f} ({0:.3f}-{2:.3f})".format(*ratios[name]), f"{counted.get(name, 0.0) / 1e9:.1f}")
        for name, ms in median.items()
    ]
    results = {name: {"ms": ms, "ratio": ratios[name], "flops": counted.get(name)} for name, ms in median.items()}
    print(report.table(("step", "CPU ms (median)", f"over {first}, of each round (quartiles)", "model GFLOP"), rows))
    settings = {name: str(value) for name, value in vars(args).items() if name != "json"}
    report.write_json(args.json, {**settings, **report.machine()}, results)


def alternate(steps: dict[str, Callable[[int], object]], rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of each step in each round, after a few rounds that are not timed."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARMUP + rounds):
        for name, step in steps.items():
            start = time.process_time()
            step(number)
            times[name].append((time.process_time() - start) * 1e3)
    return {name: own[WARMUP:] for name, own in times.items()}


if __name__ == "__main__":
    main()
