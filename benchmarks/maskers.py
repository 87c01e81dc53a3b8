"""Time the generic maskers on the CPU: `python -m benchmarks.maskers --batch 256 --grid 14 14 --threads 1`.

Prints milliseconds a batch and an image (median and quartiles over the repeats) and writes them to a JSON file. The
aim is at most 0.05 ms an image at a batch of 256 on a 14x14 grid with one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from pathlib import Path

import torch

from jepa_lightning.encoders.positions import grid_positions
from jepa_lightning.maskers import Masker, MultiBlock, Random
from jepa_lightning.tokens import Tokens

MASKERS: dict[str, Masker] = {
    "MultiBlock": MultiBlock(),
    "MultiBlock fixed_size": MultiBlock(fixed_size=True),
    "Random": Random(),
}


def time_masker(masker: Masker, tokens: Tokens, *, repeats: int, warmup: int = 10) -> dict[str, float]:
    """Median and quartiles of the milliseconds that one call takes."""
    generator = torch.Generator().manual_seed(0)
    times = []
    for _ in range(warmup + repeats):
        start = time.perf_counter()
        masker(tokens, generator)
        times.append((time.perf_counter() - start) * 1e3)
    low, median, high = statistics.quantiles(times[warmup:], n=4)
    size = tokens.batch_size
    return {"batch_ms": median, "batch_ms_q1": low, "batch_ms_q3": high, "image_ms": median / size}


def main() -> None:
    """Time each masker, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="samples a batch")
    parser.add_argument("--grid", type=int, nargs="+", default=[14, 14], help="tokens along each axis")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=100, help="timed calls of each masker, at least 2")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/maskers.json"), help="file to write")
    args = parser.parse_args()
    for name, least in (("batch", 1), ("threads", 1), ("repeats", 2)):
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(args, name)}")
    if min(args.grid) < 1:
        parser.error(f"--grid needs sizes of at least 1, got {args.grid}")

    torch.set_num_threads(args.threads)
    grid = tuple(args.grid)
    tokens = Tokens(values=torch.zeros(args.batch, math.prod(grid), 1), positions=grid_positions(grid), grid=grid)
    print(f"batch {args.batch}, grid {'x'.join(map(str, grid))}, {args.threads} thread(s), torch {torch.__version__}")
    print(f"{'masker':<24}{'ms/batch':>10}{'quartiles':>16}{'ms/image':>10}")
    results = {}
    try:
        for name, masker in MASKERS.items():
            row = results[name] = time_masker(masker, tokens, repeats=args.repeats)
            spread = f"{row['batch_ms_q1']:.2f}-{row['batch_ms_q3']:.2f}"
            print(f"{name:<24}{row['batch_ms']:>10.2f}{spread:>16}{row['image_ms']:>10.4f}")
    except ValueError as error:
        parser.error(str(error))

    settings = {"batch": args.batch, "grid": grid, "threads": args.threads, "repeats": args.repeats}
    machine = {"torch": torch.__version__, "machine": platform.machine(), "python": platform.python_version()}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({**settings, **machine, "results": results}, indent=2) + "\n")
    print(f"written to {args.json}")


if __name__ == "__main__":
    main()
