"""Views of videos: a clip of its own, alike in all frames."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from view_checks import check_views

from modalities.video import VideoData, VideoViews

OFF = {"jitter": 0.0, "grey": 0.0, "blur": 0.0, "solarise": 0.0, "flip": False}
WHOLE = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}


def make(**settings):
    few = {"samples": 16, "batch_size": 4, "image_size": 32, "channels": 3, "frames": 4, "num_workers": 0}
    return VideoData(**{**few, **settings})


class Counting(Dataset):
    """Videos of 20 frames, all pixels of frame t are 10 t."""

    def __len__(self):
        return 16

    def __getitem__(self, i):
        return np.broadcast_to((10 * np.arange(20, dtype=np.uint8))[:, None, None, None], (20, 40, 40, 3)).copy()


class Still(Dataset):
    """Videos of which all frames are one picture of noise."""

    def __len__(self):
        return 16

    def __getitem__(self, i):
        picture = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        return np.broadcast_to(picture, (20, 40, 40, 3)).copy()


def test_views_are_draws_of_one_pipeline():
    assert check_views(make)["video"].shape == (4, 3, 4, 32, 32)
    assert isinstance(make(views=2).viewing, VideoViews)


def test_each_view_has_a_clip_of_its_own():
    data = make(dataset=Counting(), views=8, view_transform=VideoViews(**OFF, **WHOLE), stride=2)
    batch = next(iter(data.train_dataloader()))
    first = torch.stack([view["video"][:, 0, :, 0, 0] for view in batch["views"]]).float()
    assert torch.equal(first.diff(dim=2), torch.full((8, 4, 3), 20.0))
    starts = first[:, :, 0] / 10
    assert starts.min() >= 0
    assert starts.max() <= 20 - 7
    assert all(len(sample.unique()) > 3 for sample in starts.T)


def test_all_frames_of_a_clip_are_changed_alike():
    data = make(dataset=Still(), views=2, view_transform=VideoViews(jitter=1.0, blur=1.0, solarise=0.5))
    batch = next(iter(data.train_dataloader()))
    for view in batch["views"]:
        frames = view["video"].unbind(2)
        assert all(torch.equal(frame, frames[0]) for frame in frames)
    assert not torch.equal(*(view["video"] for view in batch["views"]))
    assert batch["video"].dtype == torch.uint8


def test_local_views_and_the_size_of_decoded_frames():
    local = VideoViews(scale=(0.3, 1.0), local_views=2, local_size=16, local_scale=(0.01, 0.3))
    data = make(views=3, view_transform=local)
    batch = next(iter(data.train_dataloader()))
    assert [view["video"].shape[3] for view in batch["views"]] == [32, 16, 16]
    assert data.smallest == 185  # 16 / sqrt(0.01 * 3/4)
    assert make().smallest == 68


def test_video_files(tmp_path):
    av = pytest.importorskip("av")
    for i in range(8):
        with av.open(str(tmp_path / f"{i}.mp4"), "w") as file:
            stream = file.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
            for t in range(20):
                frame = np.full((48, 48, 3), 10 * t, dtype=np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(stream.encode())
    data = make(root=str(tmp_path), views=4, view_transform=VideoViews(**OFF, **WHOLE), batch_size=4)
    batch = next(iter(data.train_dataloader()))
    starts = torch.stack([view["video"][:, 0, 0].float().mean((1, 2)) for view in batch["views"]])
    assert starts.shape == (4, 4)
    assert float(starts.std(0).mean()) > 5
