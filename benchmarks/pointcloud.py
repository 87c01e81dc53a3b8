"""Time what cuts clouds into tokens, against a training step: `python -m benchmarks.pointcloud --threads 1`.

Farthest point sampling, nearest neighbours and the greedy order are timed at each batch size; the step, in which they
are a part, at one (`--step-batch`), in a bare loop. The defaults are Point-JEPA's sizes: 1024 points, 64 groups of 32,
an encoder 12 blocks deep and 384 wide, a predictor 6 deep and 192 wide. Points are random, and already on the device.

Prints milliseconds a cloud (median and quartiles over the repeats) and the share of a step's time a cloud; writes them
to a JSON file. The aim is that the three together take less than 15 % of a step on the CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import report
from benchmarks.step_time import training_step
from jepa_lightning import JEPA
from jepa_lightning.encoders import ViT
from jepa_lightning.predictors import TransformerPredictor
from jepa_lightning.tokens import take
from modalities.pointcloud import PointCloud
from modalities.pointcloud.geometry import farthest_points, greedy_order, nearest

AIM = 0.15  # share of a step's time


def build(args: argparse.Namespace) -> JEPA:
    """The JEPA of the options."""
    encoder = partial(ViT, width=args.width, depth=args.depth, heads=args.heads, positions_at="every_layer")
    predictor = partial(
        TransformerPredictor, width=args.predictor_width, depth=args.predictor_depth, heads=args.predictor_heads
    )
    cloud = PointCloud(points=args.points, groups=args.groups, group_size=args.group_size, encoder=encoder)
    return JEPA(cloud, predictor=predictor)


def milliseconds(call: Callable[[], Any], device: torch.device, *, repeats: int, warmup: int) -> list[float]:
    """How long each of `repeats` calls takes."""
    times = []
    for _ in range(warmup + repeats):
        begin = _now(device)
        call()
        times.append((_now(device) - begin) * 1e3)
    return times[warmup:]


def time_geometry(xyz: Tensor, *, groups: int, group_size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds a cloud of each part, and of all parts as they follow each other."""
    centres = take(xyz, farthest_points(xyz, groups))
    start = torch.zeros(len(xyz), dtype=torch.int64, device=xyz.device)

    def together() -> None:
        chosen = take(xyz, farthest_points(xyz, groups, start))
        nearest(xyz, take(chosen, greedy_order(chosen)), group_size)

    parts: dict[str, Callable[[], Any]] = {
        "farthest points": lambda: farthest_points(xyz, groups, start),
        "nearest points": lambda: nearest(xyz, centres, group_size),
        "order": lambda: greedy_order(centres),
        "together": together,
    }
    return {
        name: _per_cloud(milliseconds(call, xyz.device, repeats=repeats, warmup=2), len(xyz))
        for name, call in parts.items()
    }


def time_step(args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Milliseconds a cloud of a training step."""
    model = build(args).to(device).train()
    optimizer = model.configure_optimizers()
    batch = {"points": torch.randn(args.step_batch, args.points, 3, device=device)}
    model.total_steps = args.steps + 1
    steps = iter(range(args.steps + 1))
    times = milliseconds(
        lambda: training_step(model, optimizer, batch, next(steps)), device, repeats=args.steps, warmup=1
    )
    return _per_cloud(times, args.step_batch)


def main(argv: Sequence[str] | None = None) -> None:
    """Time parts and step, print the table, write the JSON file."""
    parser = report.options(__doc__, "pointcloud")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256], help="clouds a batch")
    parser.add_argument("--points", type=int, default=1024, help="points of a cloud")
    parser.add_argument("--groups", type=int, default=64, help="tokens")
    parser.add_argument("--group-size", type=int, default=32, help="points in a group")
    parser.add_argument("--width", type=int, default=384, help="of the encoder")
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--predictor-width", type=int, default=192)
    parser.add_argument("--predictor-depth", type=int, default=6)
    parser.add_argument("--predictor-heads", type=int, default=6)
    parser.add_argument("--step-batch", type=int, default=32, help="clouds in the step that is timed")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that is not")
    parser.add_argument("--repeats", type=int, default=10, help="timed calls of each part")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args(argv)
    sizes = ("batch", "points", "groups", "group_size", "step_batch", "steps", "repeats", "threads")
    report.at_least(parser, args, **dict.fromkeys(sizes, 1))
    device = report.choose_device(parser, args.device)

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    try:
        step = time_step(args, device)
        results = {
            size: time_geometry(
                torch.randn(size, args.points, 3, device=device),
                groups=args.groups,
                group_size=args.group_size,
                repeats=args.repeats,
            )
            for size in args.batch
        }
    except ValueError as error:
        parser.error(str(error))

    machine = report.machine(device)
    print(
        f"{args.points} points, {args.groups} groups of {args.group_size}, {machine['device']}, {args.threads} CPU "
        f"thread(s), torch {machine['torch']}"
    )
    rows = [
        (f"{name}, batch {size}", f"{r['cloud_ms']:.3f}", _range(r), f"{r['cloud_ms'] / step['cloud_ms']:.1%}")
        for size, parts in results.items()
        for name, r in parts.items()
    ]
    rows.append((f"step, batch {args.step_batch}", f"{step['cloud_ms']:.3f}", _range(step), ""))
    print(report.table(("part", "ms/cloud", "quartiles", "of a step"), rows))
    share = max(parts["together"]["cloud_ms"] for parts in results.values()) / step["cloud_ms"]
    print(f"together at most {share:.1%} of a step; the aim is below {AIM:.0%} on the CPU")
    settings = {name: value for name, value in vars(args).items() if name != "json"}
    geometry = {str(size): parts for size, parts in results.items()}
    report.write_json(args.json, {**settings, **machine}, {"step": step, "geometry": geometry, "share": share})


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _per_cloud(times: list[float], batch: int) -> dict[str, float]:
    low, median, high = report.quartiles(times)
    return {"cloud_ms": median / batch, "cloud_ms_q1": low / batch, "cloud_ms_q3": high / batch}


def _range(result: dict[str, float]) -> str:
    return f"{result['cloud_ms_q1']:.3f}-{result['cloud_ms_q3']:.3f}"


if __name__ == "__main__":
    main()
