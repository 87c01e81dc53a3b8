"""Time reading clips from video files: `python -m benchmarks.decoding --repeats 20`.

Writes a short and a long synthetic video (H.264, moving noise) into a temporary folder, or takes your own with
`--root`, and prints clips per second for each decoder that can be imported: a random clip, against decoding the whole
file and picking its frames; and what a random clip of the long file costs against one of the short file.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from benchmarks import report
from modalities.video.files import find_videos
from modalities.video.reading import ClipSampler, Decoder, open_video, reader_class

DECODERS: tuple[Decoder, ...] = ("pyav", "torchcodec")
SIZE, RATE, FRAMES = (240, 320), 30, 16
STRIDES = (4, 1)


def write_video(path: Path, *, seconds: float) -> None:
    """Noise that moves to the right, H.264 with the encoder's usual distance of keyframes."""
    import av

    height, width = SIZE
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    noise = noise.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k in range(round(seconds * RATE)):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, 2 * k, 1), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def clip(path: str, decoder: Decoder, *, stride: int, start: float) -> None:
    """Open the file and read one clip."""
    with open_video(path, decoder=decoder) as reader:
        ClipSampler(frames=FRAMES, stride=stride).read(reader, start=start)


def whole(path: str, decoder: Decoder, *, stride: int, start: float) -> None:
    """Decode every frame, then pick the clip's."""
    with open_video(path, decoder=decoder) as reader:
        frames = reader.read_run(0.0, reader.count())
    first = int(start * max(0, len(frames) - (FRAMES - 1) * stride - 1))
    frames[first : first + FRAMES * stride : stride].copy()


def time_reading(
    read: Callable[..., None], paths: Sequence[str], *, repeats: int, **options: object
) -> dict[str, float]:
    """Clips a second, by the median time of one, and the quartiles in milliseconds."""
    starts = np.random.default_rng(0).random(repeats + 1)
    times = []
    for i, start in enumerate(starts):
        begin = time.perf_counter()
        read(paths[i % len(paths)], start=float(start), **options)
        times.append((time.perf_counter() - begin) * 1e3)
    low, median, high = report.quartiles(times[1:])
    return {"clips_per_second": 1e3 / median, "ms": median, "ms_q1": low, "ms_q3": high}


def importable() -> list[Decoder]:
    """The decoders that this machine has."""
    found: list[Decoder] = []
    for decoder in DECODERS:
        try:
            reader_class(decoder)
        except ImportError:
            continue
        found.append(decoder)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Time each decoder, print the table, write the JSON file."""
    parser = report.options(__doc__, "decoding")
    parser.add_argument("--root", help="folder or CSV file of videos in place of the synthetic ones")
    parser.add_argument("--seconds", type=int, nargs=2, default=[5, 60], help="lengths of the synthetic videos")
    parser.add_argument("--repeats", type=int, default=20, help="timed random clips of each kind")
    args = parser.parse_args(argv)
    report.at_least(parser, args, threads=1, repeats=1, seconds=1)
    torch.set_num_threads(args.threads)
    decoders = importable()
    if not decoders or (args.root is None and "pyav" not in decoders):
        parser.error('PyAV is needed: pip install "jepa-lightning[video]"')
    with tempfile.TemporaryDirectory() as folder:
        if args.root is None:
            sets = {}
            for seconds in args.seconds:
                path = Path(folder) / f"{seconds}.mp4"
                write_video(path, seconds=seconds)
                sets[f"{seconds} s"] = [str(path)]
        else:
            try:
                files = find_videos(args.root)["train"]
            except ValueError as error:
                parser.error(str(error))
            sets = {"files": [files.path(i) for i in range(len(files))]}
        results: dict[str, dict[str, float]] = {}
        for decoder in decoders:
            for stride in STRIDES:
                for name, paths in sets.items():
                    options = {"decoder": decoder, "stride": stride}
                    key = f"{decoder}, stride {stride}, {name}"
                    results[f"{key}, clip"] = time_reading(clip, paths, repeats=args.repeats, **options)
                    few = min(args.repeats, 3)
                    results[f"{key}, whole"] = time_reading(whole, paths, repeats=few, **options)
    rows = [(k, f"{r['clips_per_second']:.1f}", f"{r['ms']:.1f}", f"{r['ms_q1']:.1f}-{r['ms_q3']:.1f}")
            for k, r in results.items()]  # fmt: skip
    print(report.table((f"{FRAMES} frames", "clips/s", "ms/clip", "quartiles"), rows))
    if len(sets) == 2:
        short, long = sets
        for decoder in decoders:
            for stride in STRIDES:
                key = f"{decoder}, stride {stride}"
                ratio = results[f"{key}, {long}, clip"]["ms"] / results[f"{key}, {short}, clip"]["ms"]
                print(f"{key}: a random clip of the {long} file takes {ratio:.2f} times one of the {short} file")
    report.write_json(args.json, {"repeats": args.repeats, "threads": args.threads, **report.machine()}, results)


if __name__ == "__main__":
    main()
