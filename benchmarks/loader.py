"""Time the loader of training batches, in one process: `python -m benchmarks.loader`.

Prints milliseconds of CPU a sample, and samples a second and core, of each modality and layout: generated data in
memory, image files (JPEG, 500 x 375) against torchvision's ImageFolder with v2 transforms on the same files, and videos
(H.264, 640 x 480). Files are written into a temporary folder first. Images, audio and clouds in memory are timed sample
by sample, and in whole batches without and with crops and noise, which are done on the device that trains.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks import report
from jepa_lightning.data import JEPADataModule
from jepa_lightning.data.batched import finish

NAMES = ["image", "jpeg", "video", "audio", "pointcloud", "graph", "text"]
HELD = "gathered from a copy on the CPU"  # as from one on a GPU
Loader = Callable[[], Iterable[int]]


def batches(data: JEPADataModule) -> Iterator[int]:
    """Sizes of the batches of an epoch, one after the other as they are ready."""
    for batch in data.train_dataloader():
        yield len(batch["id"])


def unfinished(data: JEPADataModule) -> Iterator[int]:
    """The same, of whole batches that are left to the device."""
    loader = data.train_dataloader()
    loader.collate_fn = data.collate
    for batch in loader:
        yield len(batch["id"])


class Held:
    """Sizes of the batches of an epoch that are gathered from the training data on a device, here the CPU itself.

    Args:
        data: in memory.
    """

    def __init__(self, data: JEPADataModule) -> None:
        self.data = data
        self.loader: Any = None

    def __call__(self) -> Iterator[int]:
        """Give them; the data are moved before the first."""
        train = self.data.part("train")
        if self.loader is None:
            self.loader = self.data.train_dataloader()
            self.loader.collate_fn = self.data.collate
            train.hold(torch.device("cpu"))
        for batch in self.loader:
            yield len(finish(batch, train.batched, train.held)["id"])


def torchvision_batches(root: Path, size: int, batch_size: int) -> Iterator[int]:
    """What PyTorch users write: ImageFolder, RandomResizedCrop, normalisation."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(size, scale=(0.3, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    for images, _ in DataLoader(ImageFolder(str(root), transform), batch_size=batch_size, shuffle=True):
        yield len(images)


def write_images(root: Path, count: int) -> Path:
    """JPEG files of the mean size of ImageNet's, in two class folders: waves under noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:375, :500]
    for number in range(count):
        waves = 50 * np.sin(rows / (20 + number % 9))[..., None] + 40 * np.cos(columns / 15)[..., None]
        pixels = (128 + waves + rng.normal(0, 12, (375, 500, 3))).clip(0, 255).astype(np.uint8)
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=92)
    return root


def write_videos(root: Path, count: int) -> Path:
    """Videos of two seconds, 640 x 480: waves that move, under noise."""
    import av

    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:480, :640]
    noise = rng.normal(0, 9, (480, 640, 3))
    for number in range(count):
        with av.open(str(root / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "25"})
            stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
            for k in range(50):
                waves = 60 * np.sin(rows / 30 + k / 5)[..., None] + 40 * np.cos(columns / 20 - k / 7)[..., None]
                pixels = (128 + waves + noise).clip(0, 255).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return root


def both(name: str, kind: type[JEPADataModule], **settings: Any) -> dict[str, Loader]:
    """Loaders of samples one by one, and of whole batches without and with what is left to the device that trains."""
    one, whole = kind(batched=False, **settings), kind(batched=True, **settings)
    return {
        f"{name}, one by one": partial(batches, one),
        f"{name}, whole batches": partial(unfinished, whole),
        f"{name}, whole, all on the CPU": partial(batches, whole),
        f"{name}, whole, {HELD}": Held(kind(batched=True, **settings)),
    }


def loaders(folder: Path, names: Sequence[str], *, samples: int, files: int) -> dict[str, Loader]:
    """What is timed, by name; data are made and written here."""
    from modalities.image import ImageData

    shared: dict[str, Any] = {"num_workers": 0, "val_fraction": 0.0, "drop_last": False}
    found: dict[str, Loader] = {}
    if "image" in names:
        small: dict[str, Any] = {"image_size": 32, "channels": 3, "samples": samples, "batch_size": 512, **shared}
        found |= both("images 32 px in memory", ImageData, **small)
    if "jpeg" in names:
        root = write_images(folder / "images", files)
        data = ImageData(root=str(root), image_size=224, channels=3, cache=False, batch_size=16, **shared)
        found["JPEG 500x375 to 224 px"] = partial(batches, data)
        kept = ImageData(
            root=str(root), image_size=224, channels=3, cache_folder=str(folder / "kept"), batch_size=16, **shared
        )
        found["JPEG 500x375 to 224 px, decoded before"] = partial(batches, kept)
        found["JPEG 500x375 to 224 px, torchvision"] = partial(torchvision_batches, root, 224, 16)
    if "video" in names:
        from modalities.video import VideoData

        root = write_videos(folder / "videos", max(2, files // 16))
        clips: dict[str, Any] = {"frames": 16, "channels": 3, "batch_size": 2, **shared}
        found["H.264 640x480, 16 frames of 224 px"] = partial(
            batches, VideoData(root=str(root), image_size=224, **clips)
        )
        found["clips 16 x 64 px in memory"] = partial(batches, VideoData(samples=files, image_size=64, **clips))
    if "audio" in names:
        from modalities.audio import AudioData

        notes: dict[str, Any] = {"samples": samples // 8, "seconds": 2.0, "sample_rate": 16_000, **shared}
        found |= both("audio in memory", AudioData, gain=6.0, **notes)
        found |= both("audio in memory, two views", AudioData, views=2, **notes)
    if "pointcloud" in names:
        from modalities.pointcloud import PointCloudData

        clouds: dict[str, Any] = {"samples": samples // 8, "points": 1024, "features": 0, **shared}
        found |= both("clouds of 1024 points in memory", PointCloudData, **clouds)
        found |= both(
            "clouds, turned about any axis, with noise", PointCloudData, rotation="so3", jitter=0.01, **clouds
        )
    if "graph" in names:
        from modalities.graph import GraphData

        graph: dict[str, Any] = {"features": 4, "edge_features": 0, "patches": 8, "hops": 1, "walk": 8, **shared}
        found["graphs in memory"] = partial(batches, GraphData(samples=samples // 8, **graph))
    if "text" in names:
        from modalities.text import TextData

        found["texts in memory"] = partial(batches, TextData(samples=samples, characters=512, **shared))
    return found


def measure(loader: Loader, *, repeats: int) -> dict[str, float]:
    """Milliseconds of CPU a sample: the best of some epochs, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        count = sum(loader())
        times.append((time.process_time() - begin) / count * 1e3)
    best = min(times[1:])
    return {"ms_a_sample": best, "samples_a_second_and_core": 1e3 / best}


def main(words: Sequence[str] | None = None) -> None:
    """Time what was asked for, print a table and write the figures."""
    parser = report.options(__doc__, "loader")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--samples", type=int, default=8192, help="generated images; an eighth of it of other kinds")
    parser.add_argument("--files", type=int, default=64, help="JPEG files; a sixteenth of it videos")
    parser.add_argument("--on-device", action="store_true", help="also batches as data.on_device gathers them")
    parser.add_argument("--repeats", type=int, default=3, help="epochs, of which the quickest counts")
    args = parser.parse_args(words)
    report.at_least(parser, args, samples=64, files=4, repeats=1, threads=1)
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = loaders(Path(folder), args.only, samples=args.samples, files=args.files)
            kept = {name: loader for name, loader in made.items() if args.on_device or HELD not in name}
            found = {name: measure(loader, repeats=args.repeats) for name, loader in kept.items()}
    finally:
        logging.disable(logging.NOTSET)
    rows = [[name, f"{r['ms_a_sample']:.4f}", f"{r['samples_a_second_and_core']:,.0f}"] for name, r in found.items()]
    print(report.table(["data", "ms of CPU a sample", "samples/s and core"], rows))
    report.write_json(args.json, {**report.machine(), "threads": args.threads}, found)


if __name__ == "__main__":
    main()
