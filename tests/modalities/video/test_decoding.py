"""Frame accuracy, rotation, sizes and damaged files, for each decoder that this machine has."""

import math
import struct
from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av")

from modalities.video import reading as decoding  # noqa: E402
from modalities.video.reading import open_video, reader_class  # noqa: E402


def available(name):
    try:
        reader_class(name)
    except ImportError:
        return False
    return True


DECODERS = [
    "pyav",
    pytest.param("torchcodec", marks=pytest.mark.skipif(not available("torchcodec"), reason="torchcodec or FFmpeg")),
]
each_decoder = pytest.mark.parametrize("decoder", DECODERS)


def write(path, count=50, codec="libx264", rate=30, size=(64, 48), gop=12, times=None, options=None, picture=None):
    """A video whose frame k has the brightness 20 + 4 k, times in milliseconds if given."""
    base = Fraction(1, 1000) if times else Fraction(1, rate)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.gop_size, stream.bit_rate = gop, 4_000_000
        stream.codec_context.time_base = base
        for k in range(count):
            pixels = np.full((size[1], size[0], 3), 20 + 4 * k, np.uint8) if picture is None else picture
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = times[k] if times else k, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def numbers(frames):
    return np.rint((frames.mean((1, 2, 3)) - 20) / 4).astype(int).tolist()


@each_decoder
@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.mov", "x.webm"])
def test_every_frame_is_hit(tmp_path, decoder, name):
    path = write(tmp_path / name, codec="libvpx" if name == "x.webm" else "libx264")  # x264 makes B-frames
    with open_video(path, decoder=decoder) as video:
        assert video.fps == pytest.approx(30, rel=1e-2)
        assert video.duration == pytest.approx(5 / 3, abs=0.01)
        assert video.frames == video.count() == 50
        assert numbers(video.read_at([k / 30 for k in range(50)])) == list(range(50))
        for k in (0, 11, 12, 13, 25, 40):
            assert numbers(video.read_at([k / 30, k / 30 + 0.02, (k + 1) / 30])) == [k, k, k + 1]
            assert numbers(video.read_run(k / 30, 3, 4)) == [k, k + 4, k + 8]
        assert numbers(video.read_run(1.5, 5, 3)) == [37, 40, 43, 46, 49]  # 45 is too late for it
        with pytest.raises(OSError, match="50 frames, the clip needs 51"):
            video.read_run(0, 51)


@pytest.mark.parametrize("name", ["x.avi", "x.mpg", "x.h264", "x.gif"])
def test_files_without_times_or_index(tmp_path, name):
    codec = {"x.mpg": "mpeg2video", "x.gif": "gif"}.get(name, "libx264")
    path = write(tmp_path / name, codec=codec, rate=25)
    with open_video(path) as video:
        assert type(video).__name__ == "PyAVReader" or name == "x.gif"
        assert video.duration == pytest.approx(2, abs=0.05)
        assert numbers(video.read_run(1.0, 5, 2)) == [25, 27, 29, 31, 33]
        assert numbers(video.read_at([0.4, 1.6])) == [10, 40]
        assert numbers(video.read_run(1.9, 2, 9)) == [40, 49]


@each_decoder
@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_variable_frame_rate(tmp_path, decoder, name):
    times = [20 * k for k in range(25)] + [500 + 100 * k for k in range(15)]  # 50 a second, then 10
    path = write(tmp_path / name, count=40, times=times)
    with open_video(path, decoder=decoder) as video:
        assert video.duration == pytest.approx(1.9, abs=0.15)  # as the header says, which knows no last frame's end
        assert numbers(video.read_at([0.1, 0.49, 0.55, 0.6, 1.05])) == [5, 24, 25, 26, 30]
        for start, first in [(0.0, 0), (0.1, 5), (0.4, 20), (0.65, 26), (1.0, 30)]:
            assert numbers(video.read_run(start, 3, 2)) == [first, first + 2, first + 4]
        assert numbers(video.read_run(1.8, 5, 2)) == [31, 33, 35, 37, 39]


@pytest.mark.parametrize("angle", [90, 180, 270])
@each_decoder
def test_rotation_is_applied(tmp_path, decoder, angle):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 200  # top left
    path = tmp_path / "x.mp4"
    write(path, 5, picture=picture)
    data = path.read_bytes()
    cos, sin = round(math.cos(math.radians(angle))), round(math.sin(math.radians(angle)))
    at = data.index(b"tkhd") + 4 + 40  # the 3x3 matrix of the track's header
    matrix = [cos << 16, sin << 16, 0, -sin * 65536, cos << 16, 0, 0, 0, 1 << 30]
    path.write_bytes(data[:at] + struct.pack(">9i", *matrix) + data[at + 36 :])
    expected = np.rot90(picture, -angle // 90)  # the header's angle is clockwise
    with open_video(str(path), decoder=decoder) as video:
        assert (video.height, video.width) == expected.shape[:2]
        assert np.abs(video.read_at([0.0])[0].astype(int) - expected).mean() < 6


@each_decoder
def test_grey_and_reduced(tmp_path, decoder):
    path = write(tmp_path / "x.mp4", 20, size=(128, 96))
    with open_video(path, decoder=decoder, channels=1, smallest=24) as video:
        frames = video.read_run(0.0, 20)
        assert frames.shape == (20, 24, 32, 1)
        assert frames.dtype == np.uint8
        assert numbers(frames) == list(range(20))
    for smallest in (200, 65):  # a reduction by less than 1.5 is not worth it
        with open_video(path, decoder=decoder, smallest=smallest) as video:
            assert video.read_run(0.0, 2).shape == (2, 96, 128, 3)


@pytest.mark.skipif(not available("torchcodec"), reason="torchcodec or FFmpeg")
@pytest.mark.parametrize(("options", "limit"), [({}, 1.5), ({"channels": 1}, 1.5), ({"smallest": 40}, 8.0)])
def test_decoders_agree(tmp_path, options, limit):
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    path = write(tmp_path / "x.mp4", 10, size=(128, 96), picture=noise)
    frames = []
    for decoder in ("pyav", "torchcodec"):
        with open_video(path, decoder=decoder, **options) as video:
            frames.append(video.read_run(0.0, 4, 2).astype(int))
    assert np.abs(frames[0] - frames[1]).mean() < limit


@each_decoder
def test_truncated_files(tmp_path, decoder):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    write(tmp_path / "x.mp4", 150, picture=noise, options={"movflags": "faststart"})
    whole = (tmp_path / "x.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match=r".+"), open_video(str(cut), decoder=decoder) as video:
        video.read_at([4.0, 4.5])
    with pytest.raises(OSError, match=r".+"), open_video(str(cut), decoder=decoder) as video:
        video.read_run(4.0, 8)
    headless = tmp_path / "headless.mp4"
    write(headless, 30)
    headless.write_bytes(headless.read_bytes()[:-600])
    with pytest.raises(OSError, match=r".+"):
        open_video(str(headless), decoder=decoder)


@each_decoder
def test_files_that_are_no_videos(tmp_path, decoder):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for name in ("empty.mp4", "garbage.mp4", "absent.mp4"):
        with pytest.raises(OSError, match=r".+"):
            open_video(str(tmp_path / name), decoder=decoder)
    with pytest.raises(OSError, match="no video stream"):
        open_video(str(tmp_path / "sound.mp4"), decoder=decoder)


def test_without_a_decoder_the_error_names_the_extra(monkeypatch):
    def fail(name):
        raise RuntimeError("broken\nat length")

    monkeypatch.setattr(decoding.importlib, "import_module", fail)
    reader_class.cache_clear()
    with pytest.raises(
        ImportError, match=r'pip install "jepa-lightning\[video\]" \(torchcodec: broken; pyav: broken\)'
    ):
        reader_class("auto")
    with pytest.raises(ValueError, match="auto, pyav or torchcodec, got 'opencv'"):
        reader_class("opencv")
    reader_class.cache_clear()
