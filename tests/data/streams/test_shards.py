"""WebDataset shards at random places and as a stream: fields, sharing out, shuffling, resuming, damage."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image as PILImage
from torch.utils.data import IterableDataset

from jepa_lightning.cli.embed import embed
from jepa_lightning.data import DataError, JEPADataModule, Shards, ShardStream, Unreadable
from jepa_lightning.data.sources.tar_files import expand
from jepa_lightning.data.streams.base import shuffled
from modalities.audio import AudioData
from modalities.image import ImageData

pytest.importorskip("webdataset")


def write_tar(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def array(value):
    file = io.BytesIO()
    np.save(file, np.full(1, value, np.float32))
    return file.getvalue()


def png(shade):
    file = io.BytesIO()
    PILImage.new("RGB", (40, 36), (shade, 255 - shade, 60)).save(file, "png")
    return file.getvalue()


def number_shards(folder, *, shards=6, each=20, broken=()):
    """Sample i is the number i, its class i % 4; those that are `broken` are no arrays."""
    for shard in range(shards):
        members = []
        for i in range(shard * each, (shard + 1) * each):
            members += [
                (f"s{i:04d}.npy", b"broken" if i in broken else array(i)),
                (f"s{i:04d}.cls", str(i % 4).encode()),
            ]
        write_tar(folder / f"train-{shard:06d}.tar", members)
    return f"{folder}/train-{{000000..{shards - 1:06d}}}.tar"


class Numbers(JEPADataModule):
    name = "number"

    def __init__(self, dataset, val=None, **kwargs):
        super().__init__(**{"num_workers": 0, "batch_size": 5} | kwargs)
        self.sets = {k: v for k, v in {"train": dataset, "val": val}.items() if v is not None}

    def load(self):
        streams = {k: v for k, v in self.sets.items() if isinstance(v, IterableDataset)}
        return {k: self.prepared(v) for k, v in self.sets.items()} | streams

    def transforms(self):
        return draw, None


def draw(sample):
    return sample | {"drawn": torch.rand(())}


def values(batches):
    return [int(value) for batch in batches for value in batch["number"].flatten()]


def test_shards_are_a_dataset_like_any_other(tmp_path):
    urls = number_shards(tmp_path)
    shards = Shards(urls)
    assert len(shards) == 120
    assert shards.targets.tolist() == [i % 4 for i in range(120)]
    assert shards.sample_id(45) == "train-000002.tar/s0045"
    data = Numbers(shards, drop_last=False)
    train, val = values(data.train_dataloader()), values(data.val_dataloader())
    assert sorted(train + val) == list(range(120))
    assert np.bincount(np.array(val) % 4).tolist() == [3] * 4
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"]["label"].tolist() == [int(i) % 4 for i in batch["number"]]
    assert batch["id"] == [shards.sample_id(int(i)) for i in batch["number"]]
    assert sorted(values(Numbers(shards, num_workers=2, drop_last=False, val_fraction=0).train_dataloader())) == [
        *range(120)
    ]


def test_fields(tmp_path):
    info = json.dumps({"age": 3.5, "kind": "cat"}).encode()
    write_tar(tmp_path / "a.tar", [("x/1.seg.png", b"no"), ("x/1.JPG", b"jpg"), ("x/1.json", info), ("x/1.txt", b"hi")])
    path = str(tmp_path / "a.tar")
    chosen = {"input": "png;jpg", "labels": ["json.age", "json.kind"], "classes": ["dog", "cat"]}
    for dataset in (Shards(path, **chosen), ShardStream(path, **chosen)):
        (record,) = list(dataset)
        assert (record.input.name, record.input.data) == ("x/1.jpg", b"jpg")
        assert record.labels == {"age": 3.5, "kind": 1}
        assert record.id == "a.tar/x/1"
    assert next(iter(ShardStream(path))).input.data == b"no"  # the first that is no text
    assert next(iter(ShardStream(path))).labels == {}
    assert Shards(path, labels=["json.age"]).targets is None
    for kind in (Shards, ShardStream):
        with pytest.raises(DataError, match="expected label 'kind' to be a number, got 'cat': list the names"):
            list(kind(path, labels=["json.kind"]))
    missing = "expected a file flac in the sample, found seg.png, jpg, json, txt"
    assert Shards(path, input="flac").unreadable == {0: f"ValueError: {missing}"}
    assert next(iter(ShardStream(path, input="flac"))) == ("a.tar/x/1", f"ValueError: {missing}")


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (2, 0), (2, 2), (4, 3)])
def test_a_pass_reads_each_sample_once_whatever_the_number_of_readers(tmp_path, ranks, workers):
    stream = ShardStream(number_shards(tmp_path), shuffle_buffer=7)  # 6 shards: fewer than 12 readers
    parts = ranks * max(1, workers)
    found = [[record.id for record in stream.records(part, parts, seed=3)] for part in range(parts)]
    assert sorted(name for part in found for name in part) == [record.id for record in stream]
    assert {len(part) for part in found} <= {120 // parts, 40, 20}
    assert found == [[record.id for record in stream.records(part, parts, seed=3)] for part in range(parts)]
    assert found != [[record.id for record in stream.records(part, parts, seed=4)] for part in range(parts)]


@pytest.mark.parametrize(("ranks", "workers", "shards"), [(2, 0, 6), (2, 2, 6), (2, 2, 3)])
def test_loaders_of_all_ranks_share_an_epoch(tmp_path, monkeypatch, ranks, workers, shards):
    urls = number_shards(tmp_path, shards=shards, each=120 // shards)
    found = []
    for rank in range(ranks):
        data = Numbers(ShardStream(urls, shuffle_buffer=10), num_workers=workers, epoch_samples=80)
        place = {"seed": 1, "ranks": ranks, "rank": rank}
        monkeypatch.setattr("jepa_lightning.data.loaders.run_place", lambda trainer, place=place: place)
        loader = data.train_dataloader()
        assert len(loader) == 80 // 5 // ranks
        batches = list(loader)
        assert len(batches) == len(loader)
        found += values(batches)
    assert len(set(found)) == 80
    assert found[:40] != sorted(found[:40])


def test_epochs_go_on_after_the_last_sample_and_differ(tmp_path):
    data = Numbers(ShardStream(number_shards(tmp_path)), epoch_samples=240)
    loader = data.train_dataloader()
    first = values(loader)
    assert first == values(loader)  # without a trainer it is always epoch 0
    assert sorted(first[:120]) == sorted(first[120:]) == list(range(120))
    assert first[:120] != first[120:]
    loader._current = lambda: 1
    assert values(loader) != first


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 4, 7])
def test_resuming_goes_on_where_it_was(tmp_path, workers, done):
    stream = ShardStream(number_shards(tmp_path), shuffle_buffer=10)
    whole = Numbers(stream, num_workers=workers, epoch_samples=60).train_dataloader()
    iterator, batches = iter(whole), []
    for _ in range(done):
        batches.append(next(iterator))
    state = whole.state_dict()
    batches += list(iterator)
    again = Numbers(stream, num_workers=workers, epoch_samples=60).train_dataloader()
    again.load_state_dict(state)
    rest = list(again)
    assert [b["id"] for b in rest] == [b["id"] for b in batches[done:]]
    assert all(torch.equal(a["drawn"], b["drawn"]) for a, b in zip(rest, batches[done:], strict=True))
    assert len(list(again)) == 12  # the next iteration is a whole epoch


def test_resuming_with_other_workers_says_so(tmp_path):
    loader = Numbers(ShardStream(number_shards(tmp_path)), epoch_samples=60).train_dataloader()
    with pytest.warns(UserWarning, match=r"another order.*were \(2, 4\), and are \(1, 0\)"):
        loader.load_state_dict({"seed": 0, "epoch": 0, "batches": 3, "readers": (2, 4)})
    assert len(list(loader)) == 9


def test_what_a_stream_has_beside_training_batches(tmp_path):
    urls = number_shards(tmp_path)
    alone = Numbers(ShardStream(urls), epoch_samples=60)
    assert alone.val_dataloader() == []
    assert alone.labelled
    data = Numbers(ShardStream(urls, classes=list("abcd")), Shards(urls), probe_samples=30, epoch_samples=60)
    assert data.classes == list("abcd")
    probe = values(data.probe_dataloader())
    assert len(set(probe)) == 30
    assert probe == values(data.probe_dataloader())
    assert "drawn" not in next(iter(data.probe_dataloader()))
    assert values(data.val_dataloader()) == list(range(120))
    both = Numbers(ShardStream(urls), ShardStream(urls), probe_samples=30)
    assert len(both.val_dataloader().dataset) == 30
    statistics = [iter(Numbers(ShardStream(urls)).statistics_dataloader()) for _ in range(2)]
    assert values([next(statistics[0])]) == values([next(statistics[1])])


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_samples_are_skipped_and_named(tmp_path, workers):
    urls = number_shards(tmp_path, broken=(3, 77))
    data = Numbers(ShardStream(urls), epoch_samples=220, num_workers=workers)
    assert not {3, 77} & set(values(data.train_dataloader()))
    assert set(data.unreadable) == {"train-000000.tar/s0003", "train-000003.tar/s0077"}
    assert "ValueError" in data.unreadable["train-000000.tar/s0003"]
    data = Numbers(ShardStream(urls), epoch_samples=220, max_unreadable=0.001)
    with pytest.raises(DataError, match=r"2 of 1000 samples cannot be read, more than max_unreadable = 0\.001"):
        list(data.train_dataloader())
    data = Numbers(Shards(urls), max_unreadable=0.05, val_fraction=0)
    assert not {3, 77} & set(values(data.train_dataloader()))
    assert set(data.unreadable) == {"train-000000.tar/s0003", "train-000003.tar/s0077"}


def test_the_share_of_unreadable_samples_is_that_of_those_met():
    record = Unreadable(total=None, limit=0.01)
    record.add([(str(i), "broken") for i in range(10)])
    with pytest.raises(DataError, match="11 of 1000"):
        record.add([("10", "broken")])
    record = Unreadable(total=None, limit=0.01)
    record.take({"id": ["x"] * 2000})
    record.add([(str(i), "broken") for i in range(20)])
    with pytest.raises(DataError, match="21 of 2000"):
        record.add([("20", "broken")])


def test_damaged_and_compressed_shards(tmp_path):
    urls = number_shards(tmp_path)
    first = tmp_path / "train-000000.tar"
    first.write_bytes(first.read_bytes()[:6000])
    data = Numbers(ShardStream(urls), epoch_samples=100)
    assert set(range(20, 120)) <= set(values(data.train_dataloader())) | {*range(120)}
    assert "the shard ends early" in data.unreadable["train-000000.tar"]
    with pytest.raises(DataError, match=r"expected a whole tar file, got .*train-000000\.tar"):
        Shards(urls)
    write_tar(tmp_path / "z.tar.gz", [("1.npy", array(1))], mode="w:gz")
    packed = str(tmp_path / "z.tar.gz")
    assert len(list(ShardStream(packed))) == 1
    with pytest.raises(DataError, match="which is compressed: take ShardStream"):
        Shards(packed)
    for path in tmp_path.glob("train*"):
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="expected samples in the"):
        list(Numbers(ShardStream(urls), epoch_samples=100).train_dataloader())


def test_mistakes(tmp_path):
    urls = number_shards(tmp_path)
    with pytest.raises(DataError, match=r"expected a tar file nowhere\.tar, but there is none"):
        Shards("nowhere.tar")
    with pytest.raises(DataError, match="got the shell command"):
        ShardStream("pipe:touch hacked")
    with pytest.raises(DataError, match="take ShardStream in place of Shards"):
        Shards("https://example.org/a.tar")
    with pytest.raises(DataError, match="expected shuffle_buffer of at least 1"):
        ShardStream(urls, shuffle_buffer=0)
    with pytest.raises(DataError, match="expected epoch_samples of at least 5, a batch on each process, got 4"):
        Numbers(ShardStream(urls), epoch_samples=4).train_dataloader()
    write_tar(tmp_path / "one.tar", [("1.npy", array(1))])
    with pytest.raises(DataError, match="for each of 2 loader workers"):
        list(Numbers(ShardStream(str(tmp_path / "one.tar")), num_workers=2, epoch_samples=20).train_dataloader())
    assert expand([str(tmp_path / "one.tar"), urls])[-1].endswith("train-000005.tar")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    with pytest.raises(DataError, match=re.escape('pip install "jepa-lightning[shards]"')):
        ShardStream("a.tar")


def test_the_buffer_mixes_and_loses_nothing():
    import random

    mixed = list(shuffled(iter(range(1000)), 100, random.Random(0)))
    assert sorted(mixed) == list(range(1000))
    assert max(mixed[:50]) < 150
    assert mixed != sorted(mixed)
    assert list(shuffled(iter(range(9)), 1, random.Random(0))) == list(range(9))


class Count(IterableDataset):
    """Anyone's iterable dataset."""

    def __iter__(self):
        return ((torch.tensor([float(i)]), i % 2) for i in range(50))


@pytest.mark.parametrize("workers", [0, 2])
def test_any_iterable_dataset_is_shared_out(workers):
    data = Numbers(Count(), epoch_samples=50, num_workers=workers)
    assert data.labelled
    assert sorted(values(data.train_dataloader())) == list(range(50))


def test_graphs_and_clouds_come_as_streams_too():
    torch_data = pytest.importorskip("torch_geometric.data")
    from modalities.graph import GraphData
    from modalities.pointcloud import PointCloudData

    class Rings(IterableDataset):
        def __iter__(self):
            for n in range(4, 14):
                ring = torch.stack([torch.arange(n), torch.arange(1, n + 1) % n])
                yield torch_data.Data(x=torch.ones(n, 2), edge_index=torch.cat([ring, ring.flip(0)], 1), y=n % 2)

    sizes = {"features": 2, "edge_features": 0, "patches": 4, "hops": 1, "walk": 3}
    data = GraphData(dataset=Rings(), batch_size=5, num_workers=0, epoch_samples=10, **sizes)
    batches = list(data.train_dataloader())
    assert sum(len(batch["graph"].nodes) for batch in batches) == sum(range(4, 14))  # each another one

    class Clouds(IterableDataset):
        def __iter__(self):
            return ((torch.randn(40, 3), i % 2) for i in range(10))

    data = PointCloudData(dataset=Clouds(), points=32, features=0, batch_size=5, num_workers=0, epoch_samples=10)
    assert next(iter(data.train_dataloader()))["points"].shape == (5, 32, 3)


class Plain(LightningModule):
    """A model that counts samples."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, index):
        self.seen += values([batch])
        return (self.weight * batch["number"]).sum() * 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_trainer_needs_to_know_how_long(tmp_path):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    urls = number_shards(tmp_path)
    with pytest.raises(DataError, match=r"expected trainer.max_steps or data.epoch_samples with a stream"):
        Trainer(max_epochs=1, **quiet).fit(Plain(), datamodule=Numbers(ShardStream(urls)))
    model = Plain()
    Trainer(max_steps=30, **quiet).fit(model, datamodule=Numbers(ShardStream(urls)))
    assert len(model.seen) == 150
    assert set(model.seen) == set(range(120))
    model = Plain()
    Trainer(max_epochs=2, **quiet).fit(model, datamodule=Numbers(ShardStream(urls), epoch_samples=60))
    assert len(model.seen) == 120
    assert model.seen[:60] != model.seen[60:]


@pytest.mark.parametrize("steps", [13, 20])
def test_a_resumed_run_sees_what_it_would_have_seen(tmp_path, steps):
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "max_steps": 24}
    urls = number_shards(tmp_path)

    def run(**settings):
        model = Plain()
        saving = ModelCheckpoint(tmp_path, filename="at", every_n_train_steps=steps, save_last=False)
        trainer = Trainer(callbacks=saving, **quiet)
        trainer.fit(model, datamodule=Numbers(ShardStream(urls), epoch_samples=60), **settings)
        return model.seen

    whole = run()  # two epochs of 12 batches
    assert run(ckpt_path=tmp_path / "at.ckpt", weights_only=False) == whole[5 * steps :]


TWO = """
import sys
sys.path[:0] = {paths}
from lightning.pytorch import Trainer
from jepa_lightning.data import ShardStream
from test_shards import Numbers, Plain
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = Trainer(max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", **quiet)
model = Plain()
trainer.fit(model, datamodule=Numbers(ShardStream({urls!r}), epoch_samples=65, num_workers=1))
open("seen" + str(trainer.global_rank), "w").write(" ".join(map(str, [trainer.global_step, *model.seen])))
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    """Unequal shards: 1, 2 and 3 of 20 samples; both ranks take as many steps, and share no sample in an epoch."""
    urls = number_shards(tmp_path, shards=3)
    here = Path(__file__).parent
    code = TWO.format(paths=[str(here), str(here.parents[2])], urls=urls)
    (tmp_path / "two.py").write_text(code)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, tmp_path / "two.py"],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    seen = {rank: list(map(int, (tmp_path / f"seen{rank}").read_text().split())) for rank in "01"}
    assert [seen[rank][0] for rank in "01"] == [12, 12]
    for epoch in range(2):
        part = slice(1 + 30 * epoch, 31 + 30 * epoch)
        assert len(seen["0"][part]) == len(seen["1"][part]) == 30
        assert not set(seen["0"][part][:20]) & set(seen["1"][part][:20])


def image_shards(folder, *, broken=()):
    for shard in range(3):
        members = []
        for i in range(16):
            name = f"{shard}{i:02d}"
            members += [(f"{name}.png", b"x" if i in broken else png(5 * i)), (f"{name}.cls", b"%d" % (i % 2))]
        write_tar(folder / f"images-{shard}.tar", members)
    return f"{folder}/images-{{0..2}}.tar"


def test_images_are_decoded_as_files_are(tmp_path):
    urls = image_shards(tmp_path, broken=(4,))
    shape = {"image_size": 32, "channels": 3, "batch_size": 8, "num_workers": 0, "max_unreadable": 0.1, "mean": "auto"}
    data = ImageData(dataset=ShardStream(urls), val_dataset=Shards(urls), epoch_samples=45, **shape)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.probe_dataloader()):
        batch = next(iter(loader))
        assert batch["image"].shape == (8, 3, 32, 32)
        assert batch["labels"]["label"].shape == (8,)
    assert "images-0.tar/004" in data.unreadable


def test_sounds_are_decoded_as_files_are(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    members, waves = [], []
    for i in range(20):
        waves.append(np.sin(np.arange(3000) * (0.1 + 0.01 * i)).astype(np.float32) * 0.5)
        file = io.BytesIO()
        soundfile.write(file, waves[-1], 8000, format="FLAC")
        members.append((f"{i:02d}.flac", b"" if i == 3 else b"junk" if i == 4 else file.getvalue()))
    write_tar(tmp_path / "sounds.tar", members)
    path = str(tmp_path / "sounds.tar")
    shape = {"seconds": 0.125, "sample_rate": 8000, "batch_size": 4, "num_workers": 0, "max_unreadable": 0.2}
    data = AudioData(dataset=ShardStream(path), val_dataset=Shards(path), epoch_samples=40, **shape)
    batches = list(data.train_dataloader())
    assert [b["waveform"].shape for b in batches] == [(4, 1000)] * 10
    assert {"sounds.tar/03", "sounds.tar/04"} == set(data.unreadable)
    assert "the file is empty" in data.unreadable["sounds.tar/03"]
    middle = next(iter(data.val_dataloader()))["waveform"][0]
    assert torch.allclose(middle, torch.from_numpy(waves[0][1000:2000]), atol=1e-3)


@pytest.mark.parametrize("decoder", ["pyav", "torchcodec"])
def test_videos_are_decoded_as_files_are(tmp_path, decoder):
    av = pytest.importorskip("av")
    if decoder == "torchcodec":
        try:
            import torchcodec.decoders  # noqa: F401
        except Exception as error:
            pytest.skip(str(error)[:80])
    from modalities.video import VideoData

    members = []
    for i in range(4):
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for k in range(12):
                pixels = np.full((32, 48, 3), 20 * k, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        members.append((f"{i}.mp4", (tmp_path / "a.mp4").read_bytes()))
    write_tar(tmp_path / "clips.tar", members)
    path = str(tmp_path / "clips.tar")
    shape = {"frames": 4, "image_size": 32, "channels": 3, "batch_size": 2, "num_workers": 0, "decoder": decoder}
    data = VideoData(dataset=ShardStream(path), val_dataset=Shards(path), epoch_samples=4, **shape)
    assert next(iter(data.train_dataloader()))["video"].shape == (2, 3, 4, 32, 32)
    shades = next(iter(data.val_dataloader()))["video"][0].float().mean((0, 2, 3))
    assert torch.allclose(shades.diff(), torch.full((3,), 20.0), atol=4)


def test_from_the_shell(tmp_path, monkeypatch, capsys):
    from short_runs import fit_shortly

    monkeypatch.chdir(tmp_path)
    image_shards(tmp_path / "shards")
    stream = ["--data.dataset", "ShardStream", "--data.dataset.urls", "shards/images-{0..2}.tar"]
    val = ["--data.val_dataset", "Shards", "--data.val_dataset.urls", "shards/images-0.tar"]
    run = fit_shortly("image", tmp_path / "run", *stream, "--data.dataset.shuffle_buffer", "10", *val)
    assert run.trainer.global_step == 2
    with pytest.raises(SystemExit):
        embed(["--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "f.npz")])
    assert "the stream ShardStream: read them with --data.dataset Shards" in capsys.readouterr().err
    shards = ["--data.dataset", "Shards", "--data.dataset.urls", "shards/images-{1..2}.tar"]
    embed(["--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "f.npz"), *shards])
    assert np.load(tmp_path / "f.npz")["features"].shape == (48, 16)
    with pytest.raises(DataError, match=r"expected trainer.max_steps or data.epoch_samples"):
        fit_shortly("image", tmp_path / "endless", *stream, "--trainer.max_steps=-1")
