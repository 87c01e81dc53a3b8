"""The video data module: every source of clips, crops, and settings that do not fit."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from jepa_lightning.cli.fit import fit
from jepa_lightning.data import DataError
from modalities.video import ArrayClips, VideoData
from modalities.video.reading import ClipSampler
from modalities.video.transforms import CentreCrop, RandomCrop, TakeClips, standard

FEW = {"frames": 4, "image_size": 16, "channels": 1, "batch_size": 8, "num_workers": 0, "crop_scale": (1.0, 1.0)}


def data(**settings):
    return VideoData(**{**FEW, **settings})


def archive(folder, **sizes):
    rng = np.random.default_rng(0)
    for split, count in sizes.items():
        np.savez(
            folder / f"{split}.npz",
            video=rng.integers(0, 256, (count, 6, 16, 16), dtype=np.uint8),
            digit=np.arange(count, dtype=np.uint8) % 10,
            velocity=rng.normal(size=(count, 2)).astype(np.float32),
            names=np.arange(3),
        )


def test_generated_by_default():
    some = data(samples=64)
    batch = next(iter(some.train_dataloader()))
    assert batch["video"].shape == (8, 1, 4, 16, 16)
    assert batch["video"].dtype == torch.uint8
    assert set(batch["labels"]) == {"direction", "shape", "velocity"}
    assert some.label == "direction"
    assert len(some.classes) == 8
    assert sum(len(b["id"]) for b in some.val_dataloader()) == 16


def test_archives(tmp_path):
    archive(tmp_path, train=30, test=10)
    some = data(root=str(tmp_path), labels=["velocity", "digit"])
    batch = next(iter(some.test_dataloader()))
    assert list(batch["labels"]) == ["velocity", "digit"]
    assert batch["labels"]["digit"].dtype == torch.int64
    assert batch["labels"]["velocity"].shape == (8, 2)
    with np.load(tmp_path / "test.npz") as saved:
        assert np.array_equal(batch["video"][:, 0], saved["video"][:8, 1:5])  # the middle four of six frames
    assert batch["id"][0] == "test[0]"
    every = data(root=str(tmp_path / "train.npz"))
    assert list(next(iter(every.train_dataloader()))["labels"]) == ["digit", "velocity"]
    assert every.label == "digit"


def test_archives_that_do_not_fit(tmp_path):
    archive(tmp_path, train=30)
    with pytest.raises(DataError, match=r"a label 'velocty' in .*did you mean velocity\?"):
        ArrayClips(str(tmp_path / "train.npz"), labels=["velocty"])
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 3, 3)))
    with pytest.raises(DataError, match=r"an array 'video' \(N, T, H, W\).*got images \(2, 3, 3\)"):
        ArrayClips(str(tmp_path / "x.npz"))
    (tmp_path / "y.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"expected .*y.npz to be a .npz file"):
        ArrayClips(str(tmp_path / "y.npz"))
    with pytest.raises(DataError, match="there is no file"):
        data(root=str(tmp_path / "z.npz")).setup()


def test_any_dataset():
    clips = torch.randn(24, 1, 9, 16, 16, generator=torch.Generator().manual_seed(0))
    some = data(dataset=TensorDataset(clips, torch.arange(24) % 3), stride=2, val_fraction=0.25)
    batch = next(iter(some.val_dataloader()))
    assert batch["video"].dtype == torch.float32
    index = int(batch["id"][0].partition("[")[2][:-1])
    assert torch.equal(batch["video"][0], clips[index, :, 1:9:2])
    assert some.label == "label"


def test_training_clips_of_a_dataset_begin_anywhere():
    frames = torch.arange(12, dtype=torch.float32).view(1, 1, 12, 1, 1).expand(16, 1, 12, 16, 16)
    some = data(dataset=TensorDataset(frames))
    loader, starts = some.train_dataloader(), []
    for epoch in range(20):
        loader.sampler.set_epoch(epoch)
        starts += [int(v) for b in loader for v in b["video"][:, 0, 0, 0, 0]]
    assert set(starts) == set(range(9))
    assert {int(v) for b in some.val_dataloader() for v in b["video"][:, 0, 0, 0, 0]} == {4}


def test_several_clips_in_evaluation():
    frames = torch.arange(12, dtype=torch.float32).view(1, 1, 12, 1, 1).expand(20, 1, 12, 16, 16)
    some = data(dataset=TensorDataset(frames, torch.arange(20)), eval_clips=3)
    batch = next(iter(some.val_dataloader()))
    assert batch["video"].shape == (6, 1, 4, 16, 16)  # two samples held out
    assert batch["video"][:, 0, 0, 0, 0].tolist() == [0, 4, 8] * 2
    assert batch["labels"]["label"].tolist() == [x for x in batch["labels"]["label"][::3].tolist() for _ in range(3)]
    assert next(iter(some.train_dataloader()))["video"].shape[0] == 8


def test_short_clips_are_looped_or_refused():
    frames = torch.arange(3, dtype=torch.float32).view(1, 1, 3, 1, 1).expand(20, 1, 3, 16, 16)
    batch = next(iter(data(dataset=TensorDataset(frames)).val_dataloader()))
    assert batch["video"][0, 0, :, 0, 0].tolist() == [0, 1, 2, 0]
    with pytest.raises(DataError, match="3 frames, the clip needs 4"):
        data(dataset=TensorDataset(frames), short="refuse").setup()
    with pytest.raises(DataError, match="expected stride in place of fps"):
        data(dataset=TensorDataset(frames), fps=5.0).setup()


def test_one_crop_and_one_flip_for_all_frames():
    """Each pixel holds its own number, the same in all frames: so must the crops."""
    clip = torch.arange(30 * 40, dtype=torch.float32).view(1, 1, 30, 40).expand(1, 6, 30, 40)
    torch.manual_seed(0)
    take = TakeClips(ClipSampler(frames=6), RandomCrop((12, 16), channels=1, flip=True), clips=None)
    flips = 0
    seen = set()
    for _ in range(40):
        video = take({"video": clip})["video"]
        assert video.shape == (1, 6, 12, 16)
        assert torch.equal(video, video[:, :1].expand_as(video))
        flips += bool(video[0, 0, 0, 0] > video[0, 0, 0, -1])
        seen.add(float(video[0, 0, 6, 8]))
    assert 8 < flips < 32
    assert len(seen) > 30


def test_centre_crop_takes_the_middle():
    clip = torch.arange(20 * 40, dtype=torch.uint8).view(1, 1, 20, 40).expand(2, 1, 20, 40)
    assert torch.equal(CentreCrop((20, 20), channels=1)(clip), clip[..., 10:30])
    assert CentreCrop((10, 10), channels=1)(clip).dtype == torch.uint8


def test_arrays_and_tensors_alike():
    array = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    tensor = torch.from_numpy(array).permute(3, 0, 1, 2)
    assert torch.equal(standard(array, 3), standard(tensor, 3))
    assert standard(array[..., 0], 3).shape == (5, 3, 8, 9)
    assert standard(tensor[0].double(), 1).dtype == torch.float32
    with pytest.raises(DataError, match=r"clips with 1 channels, got 3 \(shape \(5, 8, 9, 3\)\)"):
        standard(array, 1)
    with pytest.raises(DataError, match="expected a clip as an array"):
        standard("clip.mp4", 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_scale": (0.5, 0.2)}, "crop_scale as two rising shares"),
        ({"stride": 2, "fps": 4.0}, "stride or fps, got both"),
        ({"eval_clips": 0}, "at least 1 clip"),
    ],
)
def test_arguments_that_do_not_fit(settings, message):
    with pytest.raises(DataError, match=message):
        data(**settings)


def test_sizes_come_from_the_model(tmp_path):
    with pytest.raises(DataError, match=r"expected image_size, got none and there is no model .* set data.image_size"):
        data(image_size=None).setup()


class Files(Dataset):
    """Stands in for files of which some cannot be read, in a worker."""

    def __len__(self):
        return 200

    def __getitem__(self, index):
        if index == 7:
            raise OSError("moov atom not found")
        return torch.zeros(1, 4, 16, 16), index % 2


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_clips_are_counted_and_named(workers, caplog):
    some = data(dataset=Files(), num_workers=workers)
    batches = list(some.train_dataloader()) + list(some.val_dataloader())
    assert sum(len(batch["id"]) for batch in batches) >= 176
    assert list(some.unreadable) == ["train[7]"]
    assert "moov atom not found" in caplog.text


@pytest.mark.long
def test_from_yaml(tmp_path, monkeypatch, capsys):
    """mp4 files end to end: class folders, a run of the shipped config, the closing table."""
    av = pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    for i in range(40):
        path = tmp_path / "clips" / ("left" if i % 2 else "right") / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for k in range(18):
                pixels = np.zeros((32, 48, 3), np.uint8)
                at = (2 * k + i) % 40 if i % 2 else (40 - 2 * k - i) % 40
                pixels[10:20, at : at + 8] = 255
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    words = ["--data.root=clips", "--data.batch_size=8", "--data.val_fraction=0.2", "--data.num_workers=0"]
    words += ["--data.decoder=pyav", "--data.eval_clips=2", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    words += ["--model.modality.encoder.depth=1", "--model.predictor.depth=1", "--probe.c=1", "--pictures.samples=2"]
    fit(["--config", "video.yaml", *words, "--trainer.check_val_every_n_epoch=1"])
    printed = capsys.readouterr().out
    assert "modality           video" in printed
    assert (tmp_path / "runs" / "video" / "pictures" / "masks.gif").is_file()
    assert float(next(line for line in printed.splitlines() if line.startswith("linear")).split()[1]) >= 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_clips_without_usable_values_are_unreadable(value):
    clips = torch.rand(3, 1, 4, 16, 16)
    clips[1, 0, 2, 3, 3] = value
    some = data(dataset=TensorDataset(clips), frames=2, stride=1, val_fraction=0, max_unreadable=1.0, batch_size=3)
    (batch,) = list(some.train_dataloader())
    assert batch["video"].float().isfinite().all()
    assert ["[1]" in name for name in some.unreadable] == [True]
