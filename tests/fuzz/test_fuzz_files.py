"""Damaged files of every format: read, or counted and named, or refused shortly; never another end."""

import functools
import io
import struct
import zipfile
import zlib

import av
import h5py
import numpy as np
import pytest
import soundfile
import torch
from fuzz_helpers import bounded, damaged, folder, fuzz, must_be_ours, short
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jepa_lightning.data import DataError
from modalities.audio import AudioData
from modalities.graph import GraphData
from modalities.image import ImageData
from modalities.pointcloud import PointCloudData
from modalities.video import VideoData

SHARED = {"batch_size": 3, "num_workers": 0, "max_unreadable": 1.0, "val_fraction": 0.0, "drop_last": False}


def picture(kind):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 15, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def array(values, *, name=None):
    file = io.BytesIO()
    np.save(file, values) if name is None else np.savez_compressed(
        file, **{name: values, "label": np.arange(len(values))}
    )
    return file.getvalue()


def numbers(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def clip(kind, codec):
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for i in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 25 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def sound(kind, subtype=None):
    file = io.BytesIO()
    tone = 0.3 * np.sin(np.arange(2000) / 8)
    soundfile.write(file, tone, 8000, format=kind, subtype=subtype)
    return file.getvalue()


def mesh(kind):
    import trimesh

    found = trimesh.creation.box().export(file_type=kind)
    return found if isinstance(found, bytes) else found.encode()


def points_ply(encoding):
    import trimesh

    return trimesh.PointCloud(numbers(40, 3), colors=np.full((40, 4), 9, np.uint8)).export(
        file_type="ply", encoding=encoding
    )


def hdf5():
    file = io.BytesIO()
    with h5py.File(file, "w") as content:
        content["data"] = numbers(6, 20, 3)
        content.create_dataset("normal", data=numbers(6, 20, 3), compression="gzip")
        content["label"] = np.arange(6).reshape(6, 1)
    return file.getvalue()


MADE = {
    "png": lambda: picture("png"),
    "jpg": lambda: picture("jpeg"),
    "gif": lambda: picture("gif"),
    "tif": lambda: picture("tiff"),
    "webp": lambda: picture("webp"),
    "ppm": lambda: picture("ppm"),
    "bmp": lambda: picture("bmp"),
    "image.npy": lambda: array(np.abs(numbers(3, 12, 15))),
    "images.npz": lambda: array(np.zeros((6, 12, 15, 3), np.uint8), name="image"),
    "clips.npz": lambda: array(np.zeros((6, 8, 12, 15), np.uint8), name="video"),
    "mp4": lambda: clip("mp4", "mpeg4"),
    "h264.mp4": lambda: clip("mp4", "libx264"),
    "mkv": lambda: clip("matroska", "mpeg4"),
    "avi": lambda: clip("avi", "mpeg4"),
    "mpg": lambda: clip("mpeg", "mpeg1video"),
    "wav": lambda: sound("wav"),
    "float.wav": lambda: sound("wav", "FLOAT"),
    "flac": lambda: sound("flac"),
    "ogg": lambda: sound("ogg"),
    "aiff": lambda: sound("aiff"),
    "au": lambda: sound("au"),
    "caf": lambda: sound("caf"),
    "w64": lambda: sound("w64"),
    "mp3": lambda: sound("mp3"),
    "cloud.npy": lambda: array(numbers(40, 4)),
    "cloud.npz": lambda: array(numbers(40, 4), name="points"),
    "cloud.txt": lambda: b"".join(b"%f %f,%f\n" % tuple(row) for row in numbers(40, 3)),
    "cloud.ply": lambda: points_ply("binary"),
    "ascii.ply": lambda: points_ply("ascii"),
    "mesh.ply": lambda: mesh("ply"),
    "off": lambda: mesh("off"),
    "obj": lambda: mesh("obj"),
    "stl": lambda: mesh("stl"),
    "h5": hdf5,
}


@functools.cache
def made(name):
    """Bytes of a whole file."""
    return MADE[name]()


def images(root):
    return ImageData(root=root, image_size=8, channels=3, **SHARED), "image", (3, 8, 8)


def videos(root):
    settings = {"frames": 4, "stride": 1, "image_size": 8, "channels": 3, **SHARED}
    return VideoData(root=root, **settings), "video", (3, 4, 8, 8)


def sounds(root):
    return AudioData(root=root, seconds=0.1, sample_rate=8000, **SHARED), "waveform", (800,)


def resampled_sounds(root):
    return AudioData(root=root, seconds=0.1, sample_rate=5000, cache=False, **SHARED), "waveform", (500,)


def clouds(root):
    return PointCloudData(root=root, points=16, features=0, **SHARED), "points", (16, 3)


READERS = {
    images: ["png", "jpg", "gif", "tif", "webp", "ppm", "bmp", "image.npy"],
    videos: ["mp4", "h264.mp4", "mkv", "avi", "mpg"],
    sounds: ["wav", "float.wav", "flac", "ogg", "aiff", "au", "caf", "w64", "mp3"],
    resampled_sounds: ["wav", "flac", "ogg", "mp3"],
    clouds: ["cloud.npy", "cloud.npz", "cloud.txt", "cloud.ply", "ascii.ply", "mesh.ply", "off", "obj", "stl"],
}
CASES = [pytest.param(make, kind, id=f"{make.__name__}-{kind}") for make, kinds in READERS.items() for kind in kinds]


def read_beside_whole_ones(make, ending, data):
    """Read a file between two whole ones. Whatever comes of it is a batch, with or without it, or a short error."""
    whole = made(ending)
    suffix = ending.split(".")[-1]
    with folder() as root, bounded():
        for name, content in (("a", whole), ("b", data), ("c", whole)):
            (root / f"{name}.{suffix}").write_bytes(content)
        module, key, shape = make(str(root))
        try:
            batches = list(module.train_dataloader())
        except DataError as error:
            must_be_ours(error)
            return
        values = torch.cat([batch[key] for batch in batches])
        assert values.shape == (3, *shape)
        assert values.is_floating_point() is False or bool(values.isfinite().all())
        for sample_id, reason in module.unreadable.items():
            assert sample_id.endswith(f"b.{suffix}"), f"{sample_id} is whole: {reason}"
            assert short(reason)
        read = [sample_id for batch in batches for sample_id in batch["id"]]
        assert module.unreadable or sorted(read)[1].endswith(f"b.{suffix}")


@pytest.mark.parametrize(("make", "ending"), CASES)
def test_a_damaged_file_is_read_or_named(make, ending):
    others = tuple(made(name) for name in ("png", "wav", "cloud.npy", "mp4", "images.npz"))

    @fuzz(3)
    @given(damaged(made(ending), others=others))
    def run(data):
        read_beside_whole_ones(make, ending, data)

    run()


@pytest.mark.parametrize(("make", "ending"), CASES)
def test_whole_files_are_all_read(make, ending):
    with folder() as root:
        for name in "abc":
            (root / f"{name}.{ending.split('.')[-1]}").write_bytes(made(ending))
        module, key, shape = make(str(root))
        batch = next(iter(module.train_dataloader()))
        assert batch[key].shape == (3, *shape)
        assert not module.unreadable


@pytest.mark.parametrize(
    ("make", "kind", "name"),
    [(images, "images.npz", "train.npz"), (videos, "clips.npz", "train.npz"), (clouds, "h5", "train.h5")],
    ids=["images.npz", "clips.npz", "h5"],
)
def test_a_damaged_archive_is_read_or_refused(make, kind, name):
    @fuzz(12)
    @given(damaged(made(kind), others=(made("png"), made("cloud.npy"), made("mp4"))))
    def run(data):
        with folder() as root, bounded():
            (root / name).write_bytes(data)
            try:
                module, key, shape = make(str(root))
                batches = list(module.train_dataloader())
            except DataError as error:
                must_be_ours(error)
                return
            assert all(batch[key].shape[1:] == shape for batch in batches)
            assert all(batch[key].float().isfinite().all() for batch in batches)

    run()


@given(st.data())
@fuzz(10)
def test_a_damaged_table_is_read_or_refused(data):
    table = b"path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,cat,val\n"
    with folder() as root, bounded():
        for name in "abc":
            (root / f"{name}.png").write_bytes(made("png"))
        (root / "list.csv").write_bytes(data.draw(damaged(table, others=(made("png"), b"path\n\0\n", b"path,label\n"))))
        module, key, shape = images(str(root / "list.csv"))
        try:
            batches = list(module.train_dataloader())
        except DataError as error:
            must_be_ours(error)
            return
        assert all(batch[key].shape[1:] == shape for batch in batches)


def ply_of(faces):
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {2**40}\nproperty float x\nproperty float y\n"
    head += "property float z\n" + (f"element face {2**40}\nproperty list uchar int vertex_indices\n" if faces else "")
    return (head + "end_header\n").encode() + bytes(600)


def npy_of(size):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": size})
    return file.getvalue() + bytes(4000)


def npz_of(name, size):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", npy_of(size))
    return file.getvalue()


def png_of(side):
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return body + made("png")[33:]


def wav_of(size, rate):
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size
    )
    return head + bytes(3000)


HUGE = {
    "png of 40000 a side": (images, "png", lambda: png_of(40_000)),
    "png of 2**31 a side": (images, "png", lambda: png_of(2**31 - 1)),
    "npy image": (images, "image.npy", lambda: npy_of((3, 2**20, 2**20))),
    "npy cloud": (clouds, "cloud.npy", lambda: npy_of((2**40, 3))),
    "npz cloud": (clouds, "cloud.npz", lambda: npz_of("points", (2**40, 3))),
    "ply points": (clouds, "cloud.ply", lambda: ply_of(False)),
    "ply mesh": (clouds, "mesh.ply", lambda: ply_of(True)),
    "ascii ply": (clouds, "ascii.ply", lambda: ply_of(True).replace(b"binary_little_endian", b"ascii")),
    "off": (clouds, "off", lambda: b"OFF\n%d %d 0\n" % (2**40, 2**40) + b"0 0 1\n" * 20),
    "stl": (clouds, "stl", lambda: bytes(80) + b"\xff\xff\xff\xff" + bytes(500)),
    "text cloud": (clouds, "cloud.txt", lambda: b"1e999999999 2 3\n" * 30),
    "wav": (sounds, "wav", lambda: wav_of(0xFFFFFF00, 8000)),
    "wav of half its size": (sounds, "wav", lambda: wav_of(0x7FFFF000 - 1, 8000)),
    "wav of 1 Hz": (sounds, "wav", lambda: wav_of(3000, 1)),
    "wav of 2**31 Hz": (sounds, "wav", lambda: wav_of(3000, 2**31 - 1)),
    "resampled wav of 1 Hz": (resampled_sounds, "wav", lambda: wav_of(3000, 1)),
    "resampled wav of 2**31 Hz": (resampled_sounds, "wav", lambda: wav_of(3000, 2**31 - 1)),
}


@pytest.mark.parametrize("what", HUGE)
def test_a_header_that_declares_a_huge_size_does_no_harm(what):
    make, ending, data = HUGE[what]
    read_beside_whole_ones(make, ending, data())


@pytest.mark.parametrize("make", [images, clouds])
def test_an_archive_that_declares_a_huge_size_is_refused(make, tmp_path):
    if make is images:
        (tmp_path / "train.npz").write_bytes(npz_of("image", (2**40, 8, 8)))
    else:
        with h5py.File(tmp_path / "train.h5", "w") as file:
            file.create_dataset("data", shape=(2**30, 20, 3), dtype="f4", chunks=(1, 20, 3))
    with bounded(), pytest.raises(DataError, match="train"):
        make(str(tmp_path))[0].setup()


RINGS = {"A": [], "graph_indicator": [], "graph_labels": [], "node_labels": []}
for number in range(6):
    first = len(RINGS["node_labels"]) + 1
    for place in range(number + 3):
        RINGS["A"].append(f"{first + place}, {first + (place + 1) % (number + 3)}")
        RINGS["graph_indicator"].append(f"{number + 1}")
        RINGS["node_labels"].append(f"{place % 3}")
    RINGS["graph_labels"].append(f"{number % 2}")


@pytest.mark.parametrize("part", RINGS)
def test_damaged_graph_files_are_read_or_refused(part):
    whole = "".join(f"{line}\n" for line in RINGS[part]).encode()

    @fuzz(6)
    @given(
        damaged(whole, others=(b"1e30\n", b"1\n99999999999\n", b"nan\n", b"-5\n", whole.replace(b"2", b"2000000000")))
    )
    def run(data):
        with folder() as root, bounded():
            raw = root / "RINGS" / "raw"
            raw.mkdir(parents=True)
            for name, lines in RINGS.items():
                (raw / f"RINGS_{name}.txt").write_text("".join(f"{line}\n" for line in lines))
            (raw / f"RINGS_{part}.txt").write_bytes(data)
            read_graphs(root)

    run()


@fuzz(12)
@given(st.data())
def test_a_damaged_cache_of_graphs_is_read_or_refused(data):
    with folder() as root, bounded():
        raw = root / "RINGS" / "raw"
        raw.mkdir(parents=True)
        for name, lines in RINGS.items():
            (raw / f"RINGS_{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        read_graphs(root)
        cache = root / "RINGS" / "processed" / "data.pt"
        cache.write_bytes(data.draw(damaged(cache.read_bytes(), others=(made("png"), made("wav")))))
        read_graphs(root)


def read_graphs(root):
    settings = {"name": "RINGS", "features": 3, "edge_features": 0, "patches": 4, "hops": 1, "walk": 3}
    module = GraphData(root=str(root), **settings, **SHARED)
    try:
        batches = list(module.train_dataloader())
    except DataError as error:
        must_be_ours(error)
        return
    for batch in batches:
        assert batch["graph"].nodes.isfinite().all()
        assert batch["graph"].walks.isfinite().all()
    assert all(short(reason) for reason in module.unreadable.values())
