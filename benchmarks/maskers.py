"""Time the generic maskers on the CPU: `python -m benchmarks.maskers --batch 256 --grid 14 14 --threads 1`.

A video of 16 frames in tubelets of 2 x 16 x 16 is `--grid 8 14 14` (the first axis is the time that `Tube` repeats in).
Masks are drawn on one thread, as in training; with `--threads` above 1 they are drawn on all of them as well, and with
`--busy` another process keeps each core busy meanwhile, as a loader's workers do.

Prints milliseconds a batch and a sample (median and quartiles over the repeats), the share of the tokens that are
targets, and the share of the context's slots that are real (the others are filler); writes them to a JSON file. The
aim is at most 0.05 ms an image at a batch of 256 on a 14x14 grid with one thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import torch

from benchmarks import report
from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import BlockUnion, Masker, MultiBlock, MultiMasker, Random, Tube
from jepa_lightning.scale.threads import one_thread
from jepa_lightning.tokens import Masks, Tokens

MASKERS: dict[str, Masker] = {
    "MultiBlock": MultiBlock(),
    "MultiBlock fixed_size": MultiBlock(fixed_size=True),
    "Random": Random(),
    "BlockUnion": BlockUnion(),
    "BlockUnion fixed_size": BlockUnion(fixed_size=True),
    "BlockUnion 2 x 0.7": BlockUnion(blocks=2, scale=(0.7, 0.7)),
    "BlockUnion 2 x 0.7 fixed_size": BlockUnion(blocks=2, scale=(0.7, 0.7), fixed_size=True),
    "MultiMasker (V-JEPA)": MultiMasker([BlockUnion(), BlockUnion(blocks=2, scale=(0.7, 0.7))]),
    "Tube": Tube(),
}


@contextlib.contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Inside, `count` other processes compute without a pause."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def time_masker(
    masker: Masker, tokens: Tokens, *, repeats: int, warmup: int = 10, single: bool = True
) -> dict[str, float]:
    """Median and quartiles of the milliseconds that one call takes, on one thread or on all; means of `shares`."""
    generator = torch.Generator().manual_seed(0)
    times, found = [], []
    for _ in range(warmup + repeats):
        start = time.perf_counter()
        with one_thread() if single else contextlib.nullcontext():
            masks = masker(tokens, generator)
        times.append((time.perf_counter() - start) * 1e3)
        found += [shares(mask, tokens.count) for mask in masks]
    low, median, high = report.quartiles(times[warmup:])
    size = tokens.batch_size
    hidden, real = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    cost = {"batch_ms": median, "batch_ms_q1": low, "batch_ms_q3": high, "image_ms": median / size}
    return {**cost, "hidden": hidden, "real_context": real}


def shares(masks: Masks, count: int) -> tuple[float, float]:
    """Share of `count` tokens that are a target of their sample, and of the context's slots that are real."""
    targets = masks.targets.flatten(1)
    valid = torch.ones_like(targets) if masks.targets_valid is None else masks.targets_valid.flatten(1).long()
    hidden = torch.zeros(len(targets), count, dtype=torch.long).scatter_reduce(1, targets, valid, "amax")
    real = 1.0 if masks.context_valid is None else float(masks.context_valid.float().mean())
    return float(hidden.float().mean()), real


def main(argv: Sequence[str] | None = None) -> None:
    """Time each masker, print the table, write the JSON file."""
    parser = report.options(__doc__, "maskers")
    parser.add_argument("--batch", type=int, default=256, help="samples a batch")
    parser.add_argument("--grid", type=int, nargs="+", default=[14, 14], help="tokens along each axis")
    parser.add_argument("--repeats", type=int, default=100, help="timed calls of each masker")
    parser.add_argument("--busy", action="store_true", help="keep every core busy meanwhile")
    args = parser.parse_args(argv)
    report.at_least(parser, args, batch=1, threads=1, repeats=1, grid=1)

    torch.set_num_threads(args.threads)
    grid = tuple(args.grid)
    tokens = Tokens(values=torch.zeros(args.batch, math.prod(grid), 1), positions=grid_positions(grid), grid=grid)
    try:
        with busy_cores(os.cpu_count() or 1 if args.busy else 0):
            results = {name: time_masker(masker, tokens, repeats=args.repeats) for name, masker in MASKERS.items()}
            if args.threads > 1:
                for name, masker in MASKERS.items():
                    together = time_masker(masker, tokens, repeats=args.repeats, single=False)
                    results[name]["all_threads_ms"] = together["batch_ms"]
    except ValueError as error:
        parser.error(str(error))
    print(f"batch {args.batch}, grid {'x'.join(map(str, grid))}, {args.threads} thread(s), torch {torch.__version__}")
    rows = [
        (
            name,
            f"{r['batch_ms']:.2f}",
            f"{r['batch_ms_q1']:.2f}-{r['batch_ms_q3']:.2f}",
            f"{r['image_ms']:.4f}",
            f"{r['hidden']:.3f}",
            f"{r['real_context']:.3f}",
            *([f"{r['all_threads_ms']:.2f}"] if args.threads > 1 else []),
        )
        for name, r in results.items()
    ]
    head = ["masker", "ms/batch", "quartiles", "ms/sample", "hidden", "real context"]
    print(report.table(head + [f"ms on {args.threads} threads"] * (args.threads > 1), rows))
    settings = {"batch": args.batch, "grid": grid, "threads": args.threads, "repeats": args.repeats, "busy": args.busy}
    report.write_json(args.json, {**settings, **report.machine()}, results)


if __name__ == "__main__":
    main()
