"""Time a training step of an image JEPA in a bare loop, part by part.

    python -m benchmarks.step_time --model vit_small --batch 16
    python -m benchmarks.step_time --model vit_huge --patch-size 14 --batch 64 --precision bf16 --device cuda

Prints the milliseconds of each part (median over the steps) and its share, samples per second, and the model FLOPs a
second; writes them to a JSON file. The images are random and already on the device: loading is not timed.

On a CUDA device each part is timed between two synchronisations. Samples per second come from further steps without
any, in which the CPU runs ahead, so the step takes less time than its parts together.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.optim import Optimizer

from benchmarks import report
from benchmarks.flops import PRECISIONS, model_flops, peak
from benchmarks.models import SIZES, build
from jepa_lightning import JEPA, Batch
from jepa_lightning.pretexts.masked import Masked, ask, encode_context

PARTS = ("tokenizer", "masker", "target", "context", "predictor", "objective", "backward", "optimiser", "ema")


class Stopwatch:
    """Milliseconds of each part of a step: call `start`, then `lap(part)` when a part is done.

    On a CUDA device it waits for the part to end, so a part is what it takes by itself.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: dict[str, list[float]] = {part: [] for part in PARTS}
        self._last = 0.0

    def start(self) -> None:
        """The step begins."""
        self._last = self._now()

    def lap(self, part: str) -> None:
        """The part is done, the next one begins."""
        now = self._now()
        self.laps[part].append((now - self._last) * 1e3)
        self._last = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def no_lap(part: str) -> None:
    """What stands in for `Stopwatch.lap` when the step is not split."""


def training_step(
    model: JEPA,
    optimizer: Optimizer,
    batch: Batch,
    step: int,
    *,
    bf16: bool = False,
    lap: Callable[[str], None] = no_lap,
) -> Tensor:
    """One step of training: the pieces of `Masked.predict`, then backward, optimiser and EMA; returns the loss.

    Masks and schedules are those of step `step` of a run of `model.total_steps`. As in a run, the next step's masks are
    drawn beside this one, on a GPU.
    """
    generator = model.mask_generator("train", step, 0)
    masked = model.pretext
    assert isinstance(masked, Masked)
    device_type = model.device.type
    with torch.autocast(device_type, torch.bfloat16) if bf16 else contextlib.nullcontext():
        tokens = model.tokenizer(batch)
        lap("tokenizer")
        masks = masked.masks(model.networks, tokens, generator)
        lap("masker")
        masked.ahead.prepare(model.derive_seed("train", step + 1, 0))
        if model.cuda_graphs:  # target, context and predictor are one
            outcome = model.pretext.predict(model.networks, tokens, masks)  # type: ignore[operator]
            lap("predictor")
            loss = model.losses(outcome, step)["prediction"]
            lap("objective")
            return _update(model, optimizer, loss, step, lap)
        targets, _ = masked.targets(model.target, tokens, masks)
        lap("target")
        nets = model.networks
        context = [encode_context(nets, tokens, mask) for mask in masks]
        lap("context")
        predicted = [nets.predictor(seen, ask(tokens, mask)) for seen, mask in zip(context, masks, strict=True)]
        lap("predictor")
        losses = [
            model.objective(guess, target, mask.targets_valid)
            for guess, target, mask in zip(predicted, targets, masks, strict=True)
        ]
        loss = torch.stack(losses).mean()
        lap("objective")
    return _update(model, optimizer, loss, step, lap)


def _update(model: JEPA, optimizer: Optimizer, loss: Tensor, step: int, lap: Callable[[str], None]) -> Tensor:
    loss.backward()
    lap("backward")
    for group in optimizer.param_groups:
        group["lr"] = model.scheduled("lr", step)
        if group["decays"]:
            group["weight_decay"] = model.scheduled("weight_decay", step)
    optimizer.step()
    optimizer.zero_grad()
    lap("optimiser")
    model.target.update(model.encoder, step, model.total_steps)
    lap("ema")
    return loss.detach()


def time_parts(run: Callable[..., Tensor], steps: range, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of each part at each of `steps`."""
    watch = Stopwatch(device)
    for step in steps:
        watch.start()
        run(step, lap=watch.lap)
    return watch.laps


def time_steps(run: Callable[..., Tensor], steps: range, device: torch.device) -> list[float]:
    """Milliseconds of each step on a CUDA device, without waiting for the device in between."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(steps) + 1)]
    torch.cuda.synchronize(device)
    marks[0].record()
    for step, mark in zip(steps, marks[1:], strict=True):
        run(step)
        mark.record()
    torch.cuda.synchronize(device)
    return [begin.elapsed_time(end) for begin, end in pairwise(marks)]


def parse(argv: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read and check the options."""
    parser = report.options(__doc__, "step_time", threads=None)
    parser.add_argument("--model", default="vit_tiny", help=f"{', '.join(SIZES)}, or a model name of timm")
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--patch-size", type=int, default=16, help="pixels")
    parser.add_argument("--batch", type=int, default=16, help="samples a batch")
    parser.add_argument("--predictor-width", type=int, default=384, help="a multiple of 32")
    parser.add_argument("--predictor-depth", type=int, help="by default 6, or 12 for encoders wider than 768")
    parser.add_argument("--precision", choices=PRECISIONS, default="32", help="bf16 is autocast, tf32 needs CUDA")
    parser.add_argument("--fixed-size", action="store_true", help="the same token counts at each step")
    parser.add_argument("--compile", action="store_true", help="torch.compile every block; use it with --fixed-size")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the timed ones")
    args = parser.parse_args(argv)
    report.at_least(parser, args, image_size=1, patch_size=1, batch=1, predictor_depth=1, steps=1, warmup=0, threads=1)
    return parser, args


def main(argv: Sequence[str] | None = None) -> None:
    """Time the step, print the table, write the JSON file."""
    parser, args = parse(argv)
    device = report.choose_device(parser, args.device)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.precision == "tf32":
        if device.type != "cuda":
            parser.error("--precision tf32 is a mode of CUDA cards; use 32 or bf16 with --device cpu")
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    shape = (args.batch, 3, args.image_size, args.image_size)
    timed = range(args.warmup, args.warmup + args.steps)
    try:
        model = build(
            args.model,
            image_size=args.image_size,
            patch_size=args.patch_size,
            predictor_width=args.predictor_width,
            predictor_depth=args.predictor_depth,
            fixed_size=args.fixed_size,
            compile=args.compile,
        )
        flops = model_flops(model, shape, timed)
    except ValueError as error:
        parser.error(str(error))
    model.to(device).train()
    model.configure_model()  # which compiles
    model.total_steps = timed.stop
    batch = {"image": torch.randn(shape, device=device)}
    optimizer = model.configure_optimizers()

    def run(step: int, lap: Callable[[str], None] = no_lap) -> Tensor:
        return training_step(model, optimizer, batch, step, bf16=args.precision == "bf16", lap=lap)

    for step in range(args.warmup):
        run(step)
    parts = time_parts(run, timed, device)
    whole = [sum(laps) for laps in zip(*parts.values(), strict=True)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        whole = time_steps(run, timed, device)
    show(args, parts, whole, flops, device)


def show(
    args: argparse.Namespace,
    parts: dict[str, list[float]],
    whole: list[float],
    flops: dict[str, float],
    device: torch.device,
) -> None:
    """Print the table and write the JSON file."""
    medians = {part: report.quartiles(laps)[1] for part, laps in parts.items()}
    together = sum(medians.values())
    low, step_ms, high = report.quartiles(whole)
    machine = report.machine(device)
    best = peak(machine["device"], args.precision) if device.type == "cuda" else None
    used = flops["step"] / step_ms * 1e3
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    settings = {name: value for name, value in vars(args).items() if name != "json"}
    settings["threads"] = torch.get_num_threads()

    print(
        f"{args.model}, {args.image_size} px in patches of {args.patch_size}, batch {args.batch}, precision "
        f"{args.precision}, {machine['device']} ({settings['threads']} CPU thread(s)), torch {machine['torch']}"
    )
    rows = [(part, f"{ms:.2f}", f"{ms / together:.1%}") for part, ms in medians.items()]
    print(report.table(("part", "ms", "share"), [*rows, ("together", f"{together:.2f}", "")]))
    print(f"step               {step_ms:.2f} ms (quartiles {low:.2f}-{high:.2f})")
    print(f"samples per second {args.batch / step_ms * 1e3:.1f}")
    print(f"model FLOPs a step {flops['step'] / 1e9:.1f} G, used {used / 1e9:.1f} GFLOP/s", end="")
    print(f", {used / best:.1%} of the card's peak" if best else "")
    if memory is not None:
        print(f"peak memory        {memory / 2**30:.2f} GiB")
    results = {
        "parts_ms": medians,
        "step_ms": step_ms,
        "step_ms_q1": low,
        "step_ms_q3": high,
        "samples_per_second": args.batch / step_ms * 1e3,
        "flops": flops,
        "flops_per_second": used,
        "peak_flops_per_second": best,
        "peak_share": used / best if best else None,
        "peak_memory_bytes": memory,
    }
    report.write_json(args.json, {**settings, **machine}, results)


if __name__ == "__main__":
    main()
