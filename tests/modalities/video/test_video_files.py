"""Clips from folders and CSV files, and what becomes of broken files."""

from fractions import Fraction

import numpy as np
import pytest
import torch

av = pytest.importorskip("av")

from jepa_lightning.data import Collate, DataError  # noqa: E402
from jepa_lightning.data.samples import Samples  # noqa: E402
from modalities.video.files import VideoFiles, find_videos  # noqa: E402
from modalities.video.reading import ClipSampler  # noqa: E402
from modalities.video.transforms import CentreCrop, TakeClips, separate_clips  # noqa: E402


def write(path, count=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 20 + 8 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def first(sample):
    """Number of a clip's first frame (C, T, H, W), as its brightness says."""
    return round((float(sample["video"][:, 0].float().mean()) - 20) / 8)


@pytest.fixture
def files(tmp_path):
    for name in ("run/a", "run/b", "sit/c"):
        write(tmp_path / f"{name}.mp4")
    return find_videos(str(tmp_path))["train"]


def clips(files, sampler, *, clips=1, channels=3, **settings):
    transform = TakeClips(sampler, CentreCrop((16, 32), channels=channels), clips=clips)
    return Samples(VideoFiles(files, channels=channels, **settings), name="video", transform=transform)


def test_a_file_is_not_opened_before_its_clip_is_taken(files, tmp_path):
    videos = VideoFiles(files)
    assert videos.targets.tolist() == [0, 0, 1]
    assert videos.classes == ["run", "sit"]
    (tmp_path / "sit" / "c.mp4").unlink()
    sample = videos[2]
    assert sample["labels"] == {"label": 1}
    assert videos.sample_id(2).endswith("sit/c.mp4")
    with pytest.raises(OSError, match="No such file"):
        sample["video"].open()


def test_training_clips_are_drawn_and_others_centred(files):
    sampler = ClipSampler(frames=4, stride=2)
    sample = clips(files, sampler, decoder="pyav")[2]
    assert sample["video"].shape == (3, 4, 16, 32)
    assert sample["video"].dtype == torch.uint8
    assert first(sample) == 6  # of the starts 0 to 13
    drawn = clips(files, sampler, clips=None)
    torch.manual_seed(0)
    starts = [first(drawn[0]) for _ in range(60)]
    assert set(starts) <= set(range(14))
    assert len(set(starts)) > 8
    torch.manual_seed(0)
    assert [first(drawn[0]) for _ in range(5)] == starts[:5]


def test_several_clips_of_each_file_become_samples_of_one_source(files):
    several = clips(files, ClipSampler(frames=4), clips=3)
    batch = Collate(separate_clips)([several[0], several[2]])
    assert batch["video"].shape == (6, 3, 4, 16, 32)
    assert [round((float(v[:, 0].float().mean()) - 20) / 8) for v in batch["video"]] == [0, 8, 16] * 2
    assert batch["labels"]["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert batch["source"] == batch["id"] == [several[0]["id"]] * 3 + [several[2]["id"]] * 3
    one = Collate(separate_clips)([clips(files, ClipSampler(frames=4))[0]])
    assert one["video"].shape == (1, 3, 4, 16, 32)
    assert "source" not in one


def test_csv_columns_are_labels(files, tmp_path):
    (tmp_path / "x.csv").write_text("video,speed,move\nrun/a.mp4,0.5,go\nsit/c.mp4,0,stay\n")
    listed = find_videos(str(tmp_path / "x.csv"), labels=["speed", "move"])["train"]
    assert VideoFiles(listed).targets is None  # the primary label is continuous
    sample = clips(listed, ClipSampler(frames=2, fps=5), channels=1)[1]
    assert sample["video"].shape == (1, 2, 16, 32)
    assert sample["labels"]["speed"].dtype == torch.float32
    assert sample["labels"]["move"].item() == 1
    assert sample["id"] == "sit/c.mp4"


def test_broken_and_short_files_are_unreadable_samples(files, tmp_path):
    write(tmp_path / "run" / "short.mp4", 3)
    (tmp_path / "run" / "empty.mp4").write_bytes(b"")
    (tmp_path / "run" / "half.mp4").write_bytes((tmp_path / "run" / "a.mp4").read_bytes()[:1000])
    found = find_videos(str(tmp_path))["train"]
    refused = clips(found, ClipSampler(frames=8, short="refuse"))
    bad = {name: why for i in range(len(refused)) for name, why in refused[i].get("unreadable", [])}
    assert sorted(name.rpartition("/")[2] for name in bad) == ["empty.mp4", "half.mp4", "short.mp4"]
    assert any("3 frames, the clip needs 8" in why for why in bad.values())
    looped = clips(found, ClipSampler(frames=8))
    names = [name for i in range(len(looped)) for name, _ in looped[i].get("unreadable", [])]
    assert not [name for name in names if name.endswith("short.mp4")]


def test_arguments_out_of_range(files):
    with pytest.raises(DataError, match=r"1 \(grey\) or 3 \(RGB\) channels for video files, got 4"):
        VideoFiles(files, channels=4)
    with pytest.raises(DataError, match="decoder to be auto"):
        VideoFiles(files, decoder="opencv")
