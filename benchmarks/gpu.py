"""Everything worth knowing of a CUDA card that is at hand for minutes, in one run: what is right, and how fast.

    python -m benchmarks.gpu --minutes 8
    python -m benchmarks.gpu --minutes 8 --ijepa DIR       (beside the official I-JEPA, of which DIR is a clone)
    python -m benchmarks.gpu --minutes 1 --device cpu --tiny

Rows come in the order of their importance: checks of the device's own paths, steps of ViT-S/16, L/16, a CIFAR-size
model and H/14 (bf16 autocast) with fixed mask sizes, compiled and recorded as CUDA graphs, and eager, beside the
official step; `jepa-fit` on generated images beside the bare step, and with five of the shipped configurations; the
step compiled alone, recorded alone, without the short cuts of this package ("plain"), in parts, and by the device's
kernels; the official step with SDPA, fused AdamW and a foreach EMA; a batch of two, whose time is what the CPU takes to
launch a step. A row starts only where its usual time is left. Each is printed when it is done and the JSON file is
written anew, so a run that is cut off keeps its rows; a row that fails holds its error.

Steps are timed one by one between CUDA events, without waiting for the device: the median of at least 20 after a
warm-up, drawing of masks included (the official masks are drawn before).
"""

from __future__ import annotations

import csv
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import report
from benchmarks.flops import model_flops, peak
from benchmarks.gpu_checks import CHECKS
from benchmarks.kernels import kernel_ms
from benchmarks.models import SIZES, build
from benchmarks.official import official_step
from benchmarks.step_time import no_lap, time_parts, time_steps, training_step
from jepa_lightning import JEPA
from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.targets import EMA

Found = dict[str, Any]
IMAGENET = 1_281_167  # training images
SHIPPED = ("image.yaml", "video.yaml", "audio.yaml", "pointcloud.yaml", "graph.yaml")


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model and its batch."""

    model: str
    image: int = 224
    patch: int = 16
    batch: int = 128
    predictor_width: int = 384
    predictor_depth: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a batch, (B, C, H, W)."""
        return self.batch, 3, self.image, self.image


@dataclass(frozen=True)
class Row:
    """What is measured, and the seconds it usually takes."""

    name: str
    seconds: float
    run: Callable[[], Found]


CARD = {
    "L/16 B128": Size(model="vit_large", batch=128),
    "S/16 B256": Size(model="vit_small", batch=256),
    "192x12 32 px B512": Size(model="vit_tiny", image=32, patch=4, batch=512, predictor_width=96, predictor_depth=6),
    "H/14 B64": Size(model="vit_huge", patch=14, batch=64),
    "S/16 B2": Size(model="vit_small", batch=2),
}
TINY = {
    "L/16 B128": Size(model="vit_mini", image=48, patch=8, batch=2, predictor_width=32, predictor_depth=1),
    "S/16 B256": Size(model="vit_mini", image=48, patch=8, batch=2, predictor_width=32, predictor_depth=1),
    "192x12 32 px B512": Size(model="vit_mini", image=32, patch=4, batch=2, predictor_width=32, predictor_depth=1),
    "H/14 B64": Size(model="vit_mini", image=48, patch=8, batch=2, predictor_width=32, predictor_depth=1),
    "S/16 B2": Size(model="vit_mini", image=48, patch=8, batch=2, predictor_width=32, predictor_depth=1),
}


class Bench:
    """The rows of a card.

    Args:
        device: the card, or the CPU.
        sizes: models by their names in the table.
        steps: timed steps of a row.
        clone: of the official repository, or None.
        seconds: of the whole run, from now.
        tiny: a trial on the CPU.
    """

    def __init__(
        self,
        device: torch.device,
        sizes: dict[str, Size],
        *,
        steps: int,
        clone: Path | None = None,
        seconds: float,
        tiny: bool = False,
    ) -> None:
        self.device, self.sizes, self.steps, self.clone, self.tiny = device, sizes, steps, clone, tiny
        self.end = time.monotonic() + seconds
        self.bf16 = True
        self.bare: dict[str, float] = {}  # samples a second of the bare step

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.end - time.monotonic()

    def rows(self) -> list[Row]:
        """All rows, the most important first."""
        large, small, cifar, huge, least = self.sizes
        rows = [Row(f"check: {name}", 2, partial(check, self.device)) for name, check in CHECKS.items()]

        def ours(size: str, seconds: float, **settings: Any) -> Row:
            words = [word.replace("_", " ") for word, on in settings.items() if on]
            name = f"{size} ours, {', '.join(words) or 'eager'}"
            return Row(name, seconds, lambda: self.step(size, **settings))

        def official(size: str, seconds: float, tuned: bool = False) -> list[Row]:
            if self.clone is None:
                return []
            name = f"{size} official, tuned" if tuned else f"{size} official"
            return [Row(name, seconds, lambda: self.official(size, tuned=tuned))]

        both = {"compiled": True, "graphs": True}
        rows += [ours(small, 35, **both), ours(large, 20, **both), ours(cifar, 25, **both), ours(huge, 30, **both)]
        rows += [ours(large, 8), ours(small, 6)]
        rows += [*official(small, 12), *official(large, 15), *official(huge, 15)]
        rows += [
            Row("192x12 jepa-fit, compiled, graphs", 45, lambda: self.fit(cifar, fast=True)),
            Row("S/16 jepa-fit, compiled, graphs", 60, lambda: self.fit(small, fast=True, samples=4096)),
            *(Row(f"jepa-fit {name}", 30, partial(self.shipped, name)) for name in SHIPPED),
        ]
        rows += [
            ours(large, 75, compiled=True),
            ours(small, 60, compiled=True),
            ours(cifar, 8),
            ours(cifar, 8, graphs=True),
        ]
        rows += [ours(huge, 20), ours(huge, 30, compiled=True), ours(cifar, 40, compiled=True)]
        rows += [*official(small, 12, tuned=True), *official(large, 15, tuned=True), *official(huge, 15, tuned=True)]
        rows += [ours(large, 15, plain=True), ours(small, 10, plain=True), ours(cifar, 8, plain=True)]
        rows += [ours(least, 5), ours(least, 5, plain=True)]  # what the CPU takes to launch a step
        rows += [
            ours(large, 15, parts=True),
            ours(small, 10, parts=True),
            ours(cifar, 8, parts=True),
            *(ours(size, 40, **both, kernels=True) for size in (large, small, cifar)),
            Row("192x12 jepa-fit, default threads", 60, lambda: self.fit(cifar)),
            Row("192x12 jepa-fit, one thread", 60, lambda: self.fit(cifar, threads="1")),
            ours(large, 15, variable_sizes=True),
            ours(small, 10, variable_sizes=True),
        ]
        return rows

    def step(
        self,
        size: str,
        *,
        compiled: bool = False,
        graphs: bool = False,
        parts: bool = False,
        kernels: bool = False,
        plain: bool = False,
        variable_sizes: bool = False,
    ) -> Found:
        """A training step in a bare loop: milliseconds, samples and FLOPs a second, memory.

        Args:
            size: name of the model.
            compiled: `torch.compile` every layer.
            graphs: recorded as CUDA graphs.
            parts: split into its parts, each by itself.
            kernels: split into the device's kernels, by their kind.
            plain: without LayerNorm in autocast's type, fused AdamW and the target's half-precision copy.
            variable_sizes: masks whose sizes change from step to step.
        """
        s = self.sizes[size]
        if compiled:
            torch.compiler.reset()
        if self.tiny:
            torch.compiler.set_stance("force_eager")  # to compile takes minutes on a CPU
        flops = _step_flops(s, variable_sizes)
        torch.manual_seed(0)
        with torch.device(self.device):
            model = _model(s, fixed_size=not variable_sizes, compile=compiled, cuda_graphs=graphs)
        model.to(self.device).train()
        model.total_steps = 10_000
        if plain:
            without_short_cuts(model)
        model.configure_model()
        optimizer = model.configure_optimizers()
        if plain:
            for group in optimizer.param_groups:
                group["fused"] = None
        batch = {"image": torch.randn(s.shape, device=self.device)}

        def run(step: int, lap: Callable[[str], None] = no_lap) -> Tensor:
            return training_step(model, optimizer, batch, step, bf16=self.bf16, lap=lap)

        found = self.timed(run, s.batch, warmup=2 if self.tiny else 8 if compiled or graphs else 6)
        if graphs and self.device.type == "cuda":  # whose memory is not counted as allocated
            found["gib"] = torch.cuda.max_memory_reserved(self.device) / 2**30
        found["tflops"] = flops / found["ms"] / 1e9
        best = peak(torch.cuda.get_device_name(self.device), "bf16") if self.device.type == "cuda" else None
        found["peak_share"] = found["tflops"] * 1e12 / best if best else None
        if parts:
            laps = time_parts(run, range(100, 102 if self.tiny else 112), self.device)
            found["parts_ms"] = {name: round(report.quartiles(times)[1], 3) for name, times in laps.items()}
        if kernels:
            found["kernels_ms"] = {
                kind: round(ms, 3) for kind, ms in kernel_ms(run, range(100, 103), self.device).items()
            }
        elif not plain and not variable_sizes and not parts:
            self.bare[size] = max(found["samples_per_second"], self.bare.get(size, 0.0))
        return found

    def official(self, size: str, *, tuned: bool) -> Found:
        """The official step."""
        s, clone = self.sizes[size], self.clone
        assert clone is not None
        words: dict[str, Any] = {"image_size": s.image, "patch_size": s.patch, "batch": s.batch}
        with official_step(clone, s.model, device=self.device, tuned=tuned, **words) as run:
            return self.timed(run, s.batch, warmup=2 if self.tiny else 6)

    def timed(self, run: Callable[[int], Any], batch: int, *, warmup: int) -> Found:
        """Median of the steps, memory, and the time until the first steps were done."""
        cuda = self.device.type == "cuda"
        started = time.monotonic()
        loss = 0.0
        for step in range(warmup):
            loss = float(run(step))
        begun = time.monotonic() - started
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        steps = range(warmup, warmup + self.steps)
        times = time_steps(run, steps, self.device) if cuda else _time_on_cpu(run, steps)
        low, ms, high = report.quartiles(times)
        found = {"ms": ms, "ms_q1": low, "ms_q3": high, "samples_per_second": batch / ms * 1e3, "steps": len(times)}
        found |= {"loss": loss, "warmup_seconds": round(begun, 1)}
        found["hours_300_epochs"] = round(300 * IMAGENET / found["samples_per_second"] / 3600, 1)
        if cuda:
            found["gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        return found

    def fit(self, size: str, *, threads: str | None = None, fast: bool = False, samples: int | None = None) -> Found:
        """`jepa-fit` on generated images in memory: samples a second, share of the step's.

        Args:
            size: name of the model.
            threads: value of OMP_NUM_THREADS, or None.
            fast: compiled and recorded as CUDA graphs.
            samples: generated images; None: a hundred batches.
        """
        s = self.sizes[size]
        width, depth, heads = SIZES[s.model]
        words = {
            "trainer.limit_val_batches": 0,
            "trainer.num_sanity_val_steps": 0,
            "trainer.enable_progress_bar": "false",
            "probe.enabled": "false",
            "pictures.enabled": "false",
            "model.regularizers": "null",
            "model.modality.image_size": s.image,
            "model.modality.patch_size": s.patch,
            "model.modality.encoder.width": width,
            "model.modality.encoder.depth": depth,
            "model.modality.encoder.heads": heads,
            "model.predictor.width": s.predictor_width,
            "model.predictor.depth": s.predictor_depth or 6,
            "model.predictor.heads": s.predictor_width // 32,
            "data.batch_size": s.batch,
            "data.samples": 8 * s.batch if self.tiny else samples or 100 * s.batch,
        }
        if fast:
            words |= {"model.compile": str(not self.tiny).lower(), "model.cuda_graphs": "true"}
        found = self.command("image.yaml", steps=2 if self.tiny else 300, threads=threads, **words)
        found["ms"] = s.batch / found["samples_per_second"] * 1e3
        if size in self.bare:
            found["share_of_the_step"] = found["samples_per_second"] / self.bare[size]
        return found

    def shipped(self, name: str) -> Found:
        """A shipped configuration as it is, for a few steps."""
        return self.command(name, steps=2 if self.tiny else 100)

    def command(self, config: str, *, steps: int, threads: str | None = None, **words: Any) -> Found:
        """`jepa-fit` in a process of its own.

        The rate is the median of those that are logged, without the first, in which workers start and torch compiles.
        """
        words |= {
            "trainer.accelerator": "cpu" if self.device.type == "cpu" else "gpu",
            "trainer.devices": 1,
            "trainer.precision": "bf16-mixed",
            "trainer.max_steps": steps,
            "trainer.max_epochs": -1,
            "trainer.log_every_n_steps": 1 if self.tiny else 25,
        }
        if self.tiny:
            words["data.num_workers"] = 0
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path]).strip(os.pathsep)}
        environment.pop("OMP_NUM_THREADS", None)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = threads
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", "from jepa_lightning.cli.fit import fit; fit()", "--config", config]
            command += [word for name, value in words.items() for word in (f"--{name}", str(value))]
            command += ["--trainer.default_root_dir", folder]
            started = time.monotonic()
            limit = max(self.left, 30.0)
            ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
            if ended.returncode:
                raise RuntimeError(f"jepa-fit ended with {ended.returncode}: {ended.stderr[-500:]}")
            summary = json.loads((Path(folder) / "summary.json").read_text())
            with (Path(folder) / "metrics.csv").open(newline="") as lines:
                logged = [row.get("train/samples_per_second") for row in csv.DictReader(lines)]
        rates = [float(value) for value in logged if value]
        return {
            "samples_per_second": statistics.median(rates[len(rates) // 3 :]),
            "steps": steps,
            "samples_per_second_of_the_run": summary["samples_per_second"],
            "seconds_in_all": round(time.monotonic() - started, 1),
        }


def _model(size: Size, **settings: Any) -> JEPA:
    words: dict[str, Any] = {"image_size": size.image, "patch_size": size.patch, **settings}
    return build(size.model, predictor_width=size.predictor_width, predictor_depth=size.predictor_depth, **words)


@cache  # the rows of a size differ in how the step is computed
def _step_flops(size: Size, variable_sizes: bool) -> float:
    with torch.device("meta"):
        twin = _model(size, fixed_size=not variable_sizes)
    return model_flops(twin, size.shape, range(4 if variable_sizes else 1))["step"]


def without_short_cuts(model: JEPA) -> None:
    """LayerNorm as autocast runs it, and no half-precision copy of the target."""
    for part in model.modules():
        if type(part) is LayerNorm:
            part.__class__ = nn.LayerNorm  # type: ignore[assignment]
    if isinstance(model.target, EMA):
        model.target.half_copy = False


def _time_on_cpu(run: Callable[[int], Any], steps: range) -> list[float]:
    times = []
    for step in steps:
        started = time.perf_counter()
        run(step)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def measure(bench: Bench, rows: list[Row], settings: dict[str, Any], file: Path) -> list[Found]:
    """Run the rows for which there is time; after each, print it and write the file."""
    results: list[Found] = []
    file.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        started = time.monotonic()
        found: Found = {"row": row.name}
        if not bench.tiny and bench.left < row.seconds:
            found["left_out"] = "no time"
        else:
            try:
                found |= row.run()
            except Exception as error:
                found |= {
                    "error": f"{type(error).__name__}: {error}"[:500],
                    "traceback": traceback.format_exc()[-1500:],
                }
            gc.collect()
            if bench.device.type == "cuda":
                torch.cuda.empty_cache()
        found["took"] = round(time.monotonic() - started, 1)
        results.append(found)
        beside = file.with_suffix(".part")
        beside.write_text(json.dumps({**settings, "results": results}, indent=2) + "\n")
        beside.replace(file)
        print("  ".join(cell for cell in cells(found) if cell), flush=True)
    return results


HEAD = ("row", "ms a step", "samples/s", "TFLOP/s", "of peak", "GiB", "note")


def cells(found: Found) -> tuple[str, ...]:
    """A row of the table."""

    def number(name: str, form: str) -> str:
        value = found.get(name)
        return "" if value is None else format(value, form)

    note = found.get("left_out", "")
    if "error" in found:
        note = found["error"].splitlines()[0][:100]
    elif "right" in found:
        note = f"{'right' if found['right'] else 'WRONG'}: off by {found['difference']:.1e}, limit {found['limit']:.0e}"
    elif "seconds_in_all" in found:
        share = f"{found['share_of_the_step']:.0%} of the bare step; " if "share_of_the_step" in found else ""
        note = f"{share}{found['steps']} steps, {found['seconds_in_all']:.0f} s in all"
    elif "parts_ms" in found:
        note = ", ".join(f"{name} {ms:.1f}" for name, ms in found["parts_ms"].items())
    elif "kernels_ms" in found:
        note = ", ".join(f"{kind} {ms:.1f}" for kind, ms in found["kernels_ms"].items())
    elif found["row"].startswith("H/14") and "hours_300_epochs" in found:
        note = f"{found['hours_300_epochs']:.0f} h for 300 epochs of ImageNet"
    return (
        found["row"],
        number("ms", ".2f"),
        number("samples_per_second", ".0f"),
        number("tflops", ".1f" if found.get("tflops", 0) >= 1 else ".3f"),
        number("peak_share", ".0%"),
        number("gib", ".2f"),
        note,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = report.options(__doc__, "gpu", threads=None)
    parser.add_argument("--minutes", type=float, default=8.0, help="no row starts that would end later")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models, every row: a trial of this script")
    parser.add_argument("--steps", type=int, help="timed steps of a row: 20 by default, 2 with --tiny")
    parser.add_argument("--only", nargs="+", metavar="WORDS", help="rows whose names hold one of these")
    parser.add_argument("--ijepa", type=Path, help="a clone of the official I-JEPA, to be timed beside ours")
    args = parser.parse_args(argv)
    report.at_least(parser, args, threads=1, steps=1)
    device = report.choose_device(parser, args.device)
    if device.type == "cpu" and not args.tiny:
        parser.error("--device cpu is a trial of this script: use it with --tiny, or benchmarks.step_time")
    if args.ijepa is not None and not args.ijepa.is_dir():
        parser.error(f"--ijepa: there is no folder {args.ijepa}")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items() if name != "json"}
    settings |= {**report.machine(device), "cpus": os.cpu_count(), "cpu_threads": torch.get_num_threads()}
    bench = Bench(
        device,
        TINY if args.tiny else CARD,
        steps=args.steps or (2 if args.tiny else 20),
        clone=args.ijepa,
        seconds=60 * args.minutes,
        tiny=args.tiny,
    )
    rows = [row for row in bench.rows() if not args.only or any(words in row.name for words in args.only)]
    if not rows:
        parser.error(f"--only: no row is called so; there are {', '.join(row.name for row in bench.rows())}")
    try:
        results = measure(bench, rows, settings, args.json)
    finally:
        if args.tiny:
            torch.compiler.set_stance("default")
    print(f"\n{settings['device']}, torch {settings['torch']}, {settings['cpus']} CPUs, bf16 autocast")
    print(report.table(HEAD, [cells(found) for found in results]))
    print(f"written to {args.json}")


if __name__ == "__main__":
    main()
