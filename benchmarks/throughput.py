"""What share of the bare step's speed `jepa-fit` reaches, from memory, from decoded files and from JPEG.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --device cuda
    python -m benchmarks.throughput --device cuda --fast    (both compiled and recorded as CUDA graphs)

Image models, each fed in three ways: generated images in memory; JPEG files (500 x 375, written first) that were
decoded before (`data.cache_folder`); the same files, decoded at each step. An epoch is as long as the run. `jepa-fit`
runs in this process as a user starts it, with its loggers and default callbacks, without validation, probe, pictures
and regularizers. The bare step is that of a bare loop (`benchmarks.step_time`) with a model of the same sizes on random
images that lie on the device.

On a CPU each step of the run is followed by a bare one, so that both meet the same noise, and the time is CPU time of
this process (loader workers, of which there are none unless `--workers` says so, are not in it). On a GPU the run's
time is by the clock between two batches some steps apart, the first after 60 steps, and the bare steps come after it.
Samples a second are of all timed steps together, so that steps that are logged count; the share is the run's over the
bare loop's.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from benchmarks import report
from benchmarks.loader import write_images
from benchmarks.overhead import quiet_log
from benchmarks.step_time import time_steps, training_step
from benchmarks.training import fit_watched
from jepa_lightning import JEPA
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.encoders import ViT
from jepa_lightning.maskers import MultiBlock
from jepa_lightning.predictors import TransformerPredictor
from modalities.image import Image

SOURCES = ("memory", "decoded before", "JPEG")
WARMUP = {"cpu": 3, "cuda": 60}
"""Steps that do not count: on a GPU until graphs are recorded and the first look at collapse has loaded a library."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model on square images, and its batch: (width, depth, heads) of encoder and predictor."""

    image: int
    patch: int
    encoder: tuple[int, int, int]
    predictor: tuple[int, int, int]
    batch: int

    def words(self) -> dict[str, Any]:
        """Settings of `jepa-fit`, over image.yaml's."""
        found: dict[str, Any] = {"modality.image_size": self.image, "modality.patch_size": self.patch}
        for part, sizes in (("modality.encoder", self.encoder), ("predictor", self.predictor)):
            found |= {f"{part}.{name}": size for name, size in zip(("width", "depth", "heads"), sizes, strict=True)}
        return {f"model.{name}": value for name, value in found.items()} | {"data.batch_size": self.batch}

    def model(self, *, fast: bool = False) -> JEPA:
        """The same, without a run."""
        (width, depth, heads), (narrow, few, split) = self.encoder, self.predictor
        encoder = partial(ViT, width=width, depth=depth, heads=heads)
        modality = Image(
            image_size=self.image, patch_size=self.patch, encoder=encoder, masker=MultiBlock(fixed_size=True)
        )
        predictor = partial(TransformerPredictor, width=narrow, depth=few, heads=split)
        return JEPA(modality, predictor=predictor, compile=fast, cuda_graphs=fast)


OF_IMAGE_YAML = Size(image=48, patch=8, encoder=(96, 3, 2), predictor=(48, 2, 2), batch=32)
SIZES = {
    "cpu": {
        "image.yaml": OF_IMAGE_YAML,
        "ViT-Ti/16, 224 px": Size(image=224, patch=16, encoder=(192, 12, 3), predictor=(192, 6, 6), batch=4),
    },
    "cuda": {
        "image.yaml": OF_IMAGE_YAML,
        "192x12, 32 px": Size(image=32, patch=4, encoder=(192, 12, 3), predictor=(96, 6, 3), batch=512),
        "ViT-S/16, 224 px": Size(image=224, patch=16, encoder=(384, 12, 6), predictor=(384, 6, 12), batch=256),
    },
}


class Bare:
    """A bare loop's step: call it with the number of the step."""

    def __init__(self, size: Size, steps: int, *, device: torch.device, bf16: bool, fast: bool = False) -> None:
        torch.manual_seed(0)
        self.model = size.model(fast=fast).to(device).train()
        self.model.configure_model()
        self.model.total_steps = steps
        self.optimizer = self.model.configure_optimizers()
        self.batch = {"image": torch.randn(size.batch, 3, size.image, size.image, device=device)}
        self.bf16 = bf16

    def __call__(self, step: int) -> torch.Tensor:
        """Make a step."""
        return training_step(self.model, self.optimizer, self.batch, step, bf16=self.bf16)


class Times(Callback):
    """Seconds of a run's steps; on a CPU each is followed by a bare one, of which it has the seconds, too.

    Args:
        bare: makes it; None on a GPU.
    """

    def __init__(self, bare: Callable[[int], Any] | None) -> None:
        self.bare = bare
        self.clock = time.perf_counter if bare is None else time.process_time
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self._last: float | None = None

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """A step is done, with all callbacks before this one."""
        if self.bare is None and len(self.ours) + 1 in (WARMUP["cuda"], trainer.max_steps):
            torch.cuda.synchronize()
        now = self.clock()
        self.ours.append(now - self._last if self._last is not None else 0.0)
        if self.bare is not None:
            self.bare(trainer.global_step - 1)
            self.theirs.append(self.clock() - now)
        self._last = self.clock()


def link_more(root: Path, count: int) -> None:
    """Give image files further names, until there are so many: an epoch is to be as long as the run."""
    files = sorted(root.glob("*/*.jpg"))
    for number in range(len(files), count):
        file = files[number % len(files)]
        os.link(file, file.with_name(f"{number}_{file.name}"))


def run(size: Size, source: str, bare: Bare | None, args: Any, *, root: Path, folder: Path) -> Times:
    """`jepa-fit` on a source of images."""
    words: dict[str, Any] = {
        **size.words(),
        "model.regularizers": "null",
        "probe.enabled": "false",
        "pictures.enabled": "false",
        "data.val_fraction": 0.0,
        "data.num_workers": args.workers if args.workers is not None else 0 if bare is not None else "null",
        "model.compile": str(args.fast).lower(),
        "model.cuda_graphs": str(args.fast).lower(),
        "trainer.accelerator": "cpu" if args.device == "cpu" else "gpu",
        "trainer.devices": 1,
        "trainer.precision": "32-true" if args.device == "cpu" else "bf16-mixed",
        "trainer.max_steps": WARMUP[args.device] + args.steps,
        "trainer.max_epochs": -1,
        "trainer.limit_val_batches": 0,
        "trainer.num_sanity_val_steps": 0,
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "trainer.default_root_dir": folder / "run",
    }
    if source == "memory":
        words["data.samples"] = max(size.batch * (WARMUP[args.device] + args.steps), 16)
    else:
        words |= {"data.root": root, "data.cache": "null" if source == "decoded before" else "false"}
        words["data.cache_folder"] = folder / "decoded" if source == "decoded before" else "null"
    times = Times(bare)
    fit_watched("image.yaml", words, times)
    return times


def measure(size: Size, source: str, args: Any, *, root: Path, device: torch.device) -> dict[str, float]:
    """Samples a second of the run and of the bare loop, and the share."""
    cuda, warm = device.type == "cuda", WARMUP[args.device]
    steps = warm + args.steps
    bare = Bare(size, steps, device=device, bf16=cuda, fast=args.fast)
    with (
        tempfile.TemporaryDirectory() as folder,
        quiet_log("lightning.pytorch"),
        warnings.catch_warnings(),
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()),
    ):
        warnings.simplefilter("ignore")
        times = run(size, source, None if cuda else bare, args, root=root, folder=Path(folder))
    theirs = times.theirs[warm:]
    if cuda:
        theirs = [ms / 1e3 for ms in time_steps(bare, range(steps), device)][warm:]
    ours = times.ours[warm:]
    fit, loop = (size.batch * len(each) / sum(each) for each in (ours, theirs))
    return {"samples_per_second": fit, "bare_samples_per_second": loop, "share": fit / loop, "steps": len(ours)}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the figures."""
    parser = report.options(__doc__, "throughput")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=30, help="timed steps of the run")
    parser.add_argument("--files", type=int, default=64, help="JPEG files, each read under several names")
    parser.add_argument("--workers", type=int, help="loader processes: none on a CPU, as jepa-fit chooses on a GPU")
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--model", nargs="+", metavar="NAME", help="models whose names begin so; all of the device")
    parser.add_argument("--fast", action="store_true", help="compile and record both as CUDA graphs")
    args = parser.parse_args(argv)
    report.at_least(parser, args, steps=2, files=4, workers=0, threads=1)
    device = report.choose_device(parser, args.device)
    if args.fast and device.type == "cpu":
        parser.error("--fast is for CUDA devices: there are no graphs on a CPU")
    torch.set_num_threads(args.threads)
    load_plugins()
    sizes = {n: size for n, size in SIZES[args.device].items() if not args.model or n.startswith(tuple(args.model))}
    if not sizes:
        parser.error(f"--model: expected one of {', '.join(SIZES[args.device])}, got {' '.join(args.model)}")
    results: dict[str, dict[str, float]] = {}
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, size in sizes.items():
                root = write_images(Path(folder) / f"jpeg{size.image}", args.files)
                link_more(root, size.batch * (WARMUP[args.device] + args.steps))
                for source in args.only:
                    results[f"{name}, {source}"] = measure(size, source, args, root=root, device=device)
    finally:
        logging.disable(logging.NOTSET)
    unit = "samples/s" if args.device == "cuda" else "samples/s of CPU"
    rows = [
        [name, f"{r['samples_per_second']:,.1f}", f"{r['bare_samples_per_second']:,.1f}", f"{r['share']:.0%}"]
        for name, r in results.items()
    ]
    print(report.table(["model, images", f"jepa-fit, {unit}", f"bare loop, {unit}", "share"], rows))
    settings = {name: value for name, value in vars(args).items() if name != "json"}
    report.write_json(args.json, {**settings, **report.machine(device)}, results)


if __name__ == "__main__":
    main()
