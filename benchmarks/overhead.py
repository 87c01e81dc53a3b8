"""What Lightning costs: the same training step in `Trainer.fit` and in a bare loop.

    python -m benchmarks.overhead --steps 60
    python -m benchmarks.overhead --syncs

The bare loop makes its step between two batches of the Trainer, on the same batch and the same masks, with a model of
the same first weights; so the two alternate step by step and meet the same noise of the machine. The Trainer is set up
as `jepa-fit` does it (CSV and TensorBoard loggers, progress bar every 20 steps), first alone, then with the default
callbacks. Its time is that from one batch asked for to the next: set-up, validation and the run's end do not count.

The overhead is the median over the pairs of steps, with an interval of 95% (1.57 interquartile ranges over the root of
their number). Beside it stand the quartiles of the pairs, the ratio of the two medians, and that of the two sums, which
alone shows what the few logged steps cost more.

Then it counts the host syncs of a step: with `--syncs`, that alone.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import logging
import math
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from benchmarks import report
from benchmarks.models import SIZES, build
from benchmarks.step_time import training_step
from benchmarks.syncs import HostReads, cuda_waits
from jepa_lightning import JEPA, Batch
from jepa_lightning.callbacks import LossBar, default_callbacks
from jepa_lightning.run.folder import default_loggers

TARGET = 0.05
REFRESH = 20  # steps between two looks of the progress bar, as in jepa-fit


class Alternating:
    """A Trainer's batches; between two of them `bare` makes the same step. Holds the milliseconds of both.

    It has a length, as the loaders of data sets have: without one, Lightning asks for batches ahead of time.
    """

    def __init__(self, batches: Sequence[Batch], steps: int, bare: Callable[[Batch, int], object]) -> None:
        self.batches, self.steps, self.bare = batches, steps, bare
        self.trainer_ms: list[float] = []
        self.bare_ms: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.steps):
            batch = self.batches[step % len(self.batches)]
            start = _now()
            yield batch
            middle = _now()
            self.bare(batch, step)
            self.trainer_ms.append((middle - start) * 1e3)
            self.bare_ms.append((_now() - middle) * 1e3)


class Counted:
    """A Trainer's batches; counts the host reads of each step."""

    def __init__(self, batches: Sequence[Batch], steps: int, *, cuda: bool) -> None:
        self.batches, self.steps, self.cuda = batches, steps, cuda
        self.device: list[Counter[str]] = []
        self.cpu: list[Counter[str]] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.steps):
            batch = self.batches[step % len(self.batches)]
            if self.cuda:
                waits: Counter[str] = Counter()
                with cuda_waits(waits):
                    yield batch
                self.device.append(waits)
                self.cpu.append(Counter())
            else:
                with HostReads() as reads:
                    yield batch
                self.device.append(reads.device)
                self.cpu.append(reads.cpu)


def fit(model: JEPA, loader: Any, *, steps: int, callbacks: list[Callback], log_every: int, device: str) -> None:
    """Train as `jepa-fit` does, silently and in a folder that is thrown away."""
    quiet = io.StringIO()
    with (
        quiet_log("lightning.pytorch"),
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        warnings.simplefilter("ignore")
        Trainer(
            accelerator=device,
            devices=1,
            max_steps=steps,
            default_root_dir=folder,
            logger=default_loggers(folder),
            callbacks=[*callbacks, LossBar(refresh_rate=REFRESH)],
            enable_checkpointing=bool(callbacks),
            enable_model_summary=False,
            log_every_n_steps=log_every,
            limit_val_batches=0,
        ).fit(model, train_dataloaders=loader)


@contextlib.contextmanager
def quiet_log(name: str) -> Iterator[None]:
    """Let the logger called `name` report errors only."""
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def time_pairs(
    model: JEPA, batches: Sequence[Batch], args: argparse.Namespace, callbacks: list[Callback]
) -> dict[str, Any]:
    """Milliseconds of a step in the Trainer and in the bare loop, and how much more the Trainer takes.

    `largest_weight_difference` of the two models at the end says whether both did the same (0 on one CPU thread).
    """
    trained, bare = copy.deepcopy(model), copy.deepcopy(model).to(args.device).train()
    steps = args.warmup + args.steps + 1  # the last one ends the run, no batch is asked for after it
    bare.total_steps = steps
    optimizer = bare.configure_optimizers()

    def bare_step(batch: Batch, step: int) -> Tensor:
        moved = {name: value.to(args.device) for name, value in batch.items()}
        return training_step(bare, optimizer, moved, step)

    loader = Alternating(batches, steps, bare_step)
    fit(trained, loader, steps=steps, callbacks=callbacks, log_every=args.log_every, device=args.device)
    bare_step(batches[(steps - 1) % len(batches)], steps - 1)
    pairs = list(zip(trained.parameters(), bare.parameters(), strict=True))
    trainer_ms, bare_ms = loader.trainer_ms[args.warmup :], loader.bare_ms[args.warmup :]
    low, middle, high = report.quartiles([t / b for t, b in zip(trainer_ms, bare_ms, strict=True)])
    return {
        "trainer_ms": report.quartiles(trainer_ms)[1],
        "bare_ms": report.quartiles(bare_ms)[1],
        "overhead": middle - 1,
        "uncertainty": 1.57 * (high - low) / math.sqrt(args.steps),
        "overhead_q1": low - 1,
        "overhead_q3": high - 1,
        "overhead_of_medians": report.quartiles(trainer_ms)[1] / report.quartiles(bare_ms)[1] - 1,
        "overhead_of_sums": sum(trainer_ms) / sum(bare_ms) - 1,
        "largest_weight_difference": max(float((a.to(b.device) - b).detach().abs().max()) for a, b in pairs),
    }


def count_syncs(model: JEPA, batches: Sequence[Batch], args: argparse.Namespace) -> dict[str, Any]:
    """Host reads of the steps that are neither logged nor shown in the progress bar, and of the others."""
    steps = min(args.steps, REFRESH + 5) + 1
    loader = Counted(batches, steps, cuda=args.device == "cuda")
    fit(
        copy.deepcopy(model),
        loader,
        steps=steps,
        callbacks=default_callbacks(),
        log_every=args.log_every,
        device=args.device,
    )
    done = range(2, len(loader.device) + 1)  # after the first step, which sets up the optimiser and the bar
    plain = [step for step in done if step % args.log_every and step % REFRESH]
    if not plain:
        raise ValueError(f"every step of {steps} is logged: raise --steps or --log-every")

    def total(counts: list[Counter[str]], wanted: Sequence[int]) -> dict[str, float]:
        summed = sum((counts[step - 1] for step in wanted), Counter())
        return {place: number / len(wanted) for place, number in summed.items()}

    return {
        "plain_steps": len(plain),
        "a_plain_step": total(loader.device, plain),
        "a_logged_step": total(loader.device, [step for step in done if step not in plain]),
        "on_cpu_a_plain_step": sum(total(loader.cpu, plain).values()),
    }


def parse(argv: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read and check the options."""
    parser = report.options(__doc__, "overhead")
    parser.add_argument("--model", default="vit_mini", help=f"{', '.join(SIZES)}, or a model name of timm")
    parser.add_argument("--image-size", type=int, default=32, help="pixels")
    parser.add_argument("--patch-size", type=int, default=4, help="pixels")
    parser.add_argument("--batch", type=int, default=32, help="samples a batch")
    parser.add_argument("--predictor-width", type=int, default=96, help="a multiple of 32")
    parser.add_argument("--predictor-depth", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=60, help="timed steps")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the timed ones")
    parser.add_argument("--log-every", type=int, default=10, help="steps between two logged ones")
    parser.add_argument("--syncs", action="store_true", help="only count the host syncs")
    args = parser.parse_args(argv)
    least = {"image_size": 1, "patch_size": 1, "batch": 1, "predictor_depth": 1, "log_every": 1, "threads": 1}
    report.at_least(parser, args, steps=2, warmup=0, **least)
    return parser, args


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, count, print, write the JSON file."""
    parser, args = parse(argv)
    device = report.choose_device(parser, args.device)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    sizes = ("image_size", "patch_size", "predictor_width", "predictor_depth")
    try:
        model = build(args.model, **{name: getattr(args, name) for name in sizes})
        results = measure(model, args)
    except ValueError as error:
        parser.error(str(error))
    settings = {name: value for name, value in vars(args).items() if name != "json"}
    report.write_json(args.json, {**settings, **report.machine(device)}, results)


def measure(model: JEPA, args: argparse.Namespace) -> dict[str, Any]:
    """Compare and count as `args` say, and print it."""
    batches = [{"image": torch.randn(args.batch, 3, args.image_size, args.image_size)} for _ in range(4)]
    print(
        f"{args.model}, {args.image_size} px in patches of {args.patch_size}, batch {args.batch}, "
        f"{args.threads} CPU thread(s), torch {torch.__version__}"
    )
    results: dict[str, Any] = {}
    if not args.syncs:
        results["trainer"] = time_pairs(model, batches, args, [])
        results["with_callbacks"] = time_pairs(model, batches, args, default_callbacks())
        results["target"] = TARGET
        show(results)
    results["syncs"] = count_syncs(model, batches, args)
    show_syncs(results["syncs"])
    return results


def show(results: dict[str, Any]) -> None:
    """Print the table of times."""
    rows = [
        (
            label,
            f"{r['bare_ms']:.2f}",
            f"{r['trainer_ms']:.2f}",
            f"{r['overhead']:+.1%} ± {r['uncertainty']:.1%}",
            f"{r['overhead_q1']:+.1%} to {r['overhead_q3']:+.1%}",
            f"{r['overhead_of_medians']:+.1%}",
            f"{r['overhead_of_sums']:+.1%}",
        )
        for label, r in (("Trainer", results["trainer"]), ("with callbacks", results["with_callbacks"]))
    ]
    header = ("", "bare ms", "Trainer ms", "overhead", "quartiles", "of medians", "of sums")
    print(report.table(header, rows))
    met = max(results[arm]["overhead"] for arm in ("trainer", "with_callbacks")) <= TARGET
    print(f"at most {TARGET:.0%} (median of the pairs): {'yes' if met else 'no'}")


def show_syncs(syncs: dict[str, Any]) -> None:
    """Print where a step waits for the device."""
    print(f"host syncs a step that is not logged: {sum(syncs['a_plain_step'].values()):g}")
    for name in ("a_plain_step", "a_logged_step"):
        for place, number in syncs[name].items():
            print(f"  {number:g} {name.replace('_', ' ')}: {place}")


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
