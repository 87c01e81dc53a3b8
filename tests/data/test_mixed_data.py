"""Several kinds of data in one run: the order of kinds, shares, resuming, what is asked of the data, refusals."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import Dataset, IterableDataset

from jepa_lightning import JEPA
from jepa_lightning.callbacks import LastCheckpoint
from jepa_lightning.config.rebuild import build_data
from jepa_lightning.data import DataError, MixedData
from jepa_lightning.data.mixed_loader import MixedLoader, order_of_kinds
from jepa_lightning.data.sampler import EpochSampler, ResumableLoader
from jepa_lightning.data.samples import Unreadable
from jepa_lightning.encoders import ViT
from jepa_lightning.evaluation.open_data import open_data
from jepa_lightning.maskers import Random
from jepa_lightning.predictors import TransformerPredictor
from modalities.image import ImageData
from modalities.video import Video, VideoData


def make_data(share=0.4, workers=0, *, video=None, image=None):
    parts = {
        "video": VideoData(samples=48, batch_size=8, num_workers=workers, **(video or {})),
        "image": ImageData(samples=40, batch_size=12, num_workers=workers, **(image or {})),
    }
    return MixedData(modalities=parts, shares={"image": share})


def make_video():
    encoder = partial(ViT, width=16, depth=1, heads=2)
    return Video(
        frames=4, image_size=16, patch_size=8, channels=1, images=True, encoder=encoder, masker=Random(target_ratio=0.5)
    )


def make_jepa(seed=0):
    torch.manual_seed(seed)
    return JEPA(make_video(), predictor=partial(TransformerPredictor, width=8, depth=1, heads=2))


def loaded(seed=0, ranks=1, rank=0, workers=0):
    """A loader of the numbers 0 to 19 in fours, and 100 to 112 in threes, two batches of these an epoch."""

    class Numbers(Dataset):
        def __init__(self, numbers):
            self.numbers = numbers

        def __len__(self):
            return len(self.numbers)

        def __getitem__(self, place):
            return {"id": str(self.numbers[place.position]), "seed": place.seed}

    def loader(numbers, size):
        samples = Numbers(numbers)
        return ResumableLoader(
            samples,
            batch_size=size,
            sampler=EpochSampler(samples, seed=seed, ranks=ranks, rank=rank, drop_last=True),
            drop_last=True,
            num_workers=workers,
            collate_fn=_collate,
            unreadable=Unreadable(total=len(samples)),
        )

    first = loader(range(20 * ranks), 4)
    return MixedLoader({"first": first, "other": loader(range(100, 100 + 13 * ranks), 3)}, counts=[len(first), 2])


def _collate(samples):
    return {key: [sample[key] for sample in samples] for key in samples[0]}


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("counts", [[5, 2], [30, 10, 20], [1, 1]])
def test_the_order_holds_each_kind_as_often_as_asked(counts):
    orders = [order_of_kinds(counts, seed=3, epoch=epoch) for epoch in range(20)]
    for order in orders:
        assert np.bincount(order).tolist() == counts
    assert np.array_equal(order_of_kinds(counts, seed=3, epoch=4), orders[4])
    assert len({tuple(order) for order in orders}) > 1
    assert any(not np.array_equal(order_of_kinds(counts, seed=4, epoch=e), orders[e]) for e in range(20))


def test_an_epoch_is_all_of_the_first_kind_and_the_others_follow_through_epochs_of_their_own():
    loader = loaded()
    assert len(loader) == 7
    assert len(loader.dataset) == 33
    found = [epoch_of(loader, epoch) for epoch in range(6)]
    for batches in found:
        first = [i for batch in batches if batch["kind"] == "first" for i in batch["id"]]
        assert sorted(map(int, first)) == list(range(20))
    others = [batch["id"] for batches in found for batch in batches if batch["kind"] == "other"]
    assert len(others) == 12  # three passes of four batches
    for start in (0, 4, 8):
        together = [i for ids in others[start : start + 4] for i in ids]
        assert len(set(together)) == 12
    assert others[:4] != others[4:8]


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_it_resumes_anywhere(workers):
    whole = loaded(workers=workers)
    expected = {epoch: epoch_of(whole, epoch) for epoch in range(3)}
    for epoch, done in [(0, 1), (1, 3), (1, 6), (2, 7)]:
        begun = loaded(workers=workers)
        begun.sampler.set_epoch(epoch)
        batches = iter(begun)
        for _ in range(done):
            next(batches)
        state = begun.state_dict()
        assert (state["epoch"], state["batches"]) == (epoch, done)
        again = loaded(seed=9, workers=workers)
        again.load_state_dict(state)
        assert again.state_dict() == state
        rest = epoch_of(again, epoch)
        assert rest == (expected[epoch][done:] if done < 7 else expected[epoch])
        if epoch < 2:
            assert epoch_of(again, epoch + 1) == expected[epoch + 1]


def test_another_form_in_the_middle_of_an_epoch_is_told():
    loader = loaded()
    next(iter(loader))
    state = loader.state_dict()
    other = loaded()
    other.counts = [5, 3]
    with pytest.warns(UserWarning, match="the rest of this epoch is not what it would have been"):
        other.load_state_dict(state)


def test_all_ranks_take_the_same_kind_and_other_samples():
    ranks = [[batch for e in range(3) for batch in epoch_of(loaded(ranks=2, rank=rank), e)] for rank in (0, 1)]
    assert [batch["kind"] for batch in ranks[0]] == [batch["kind"] for batch in ranks[1]]
    for one, other in zip(*ranks, strict=True):
        assert not set(one["id"]) & set(other["id"])


class Killed(BaseException):
    pass


class Watch(Callback):
    """What each batch was and what it lost; may end the run before a step."""

    def __init__(self, stop=None):
        self.seen, self.stop = {}, stop

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.stop:
            raise Killed

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        [kind] = {"video", "image"} & set(batch)
        assert "kind" not in batch
        self.seen[trainer.current_epoch, batch_idx] = kind, list(batch["id"]), float(outputs["loss"])


@pytest.fixture
def fit(make_trainer, tmp_path, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)

    def fit(name, *, stop=None, resume=False, seed=0, **settings):
        watch, model = Watch(stop), make_jepa(seed)
        folder = tmp_path / name
        trainer = make_trainer(
            LastCheckpoint(every_n_train_steps=1), watch, max_epochs=2, default_root_dir=folder, num_sanity_val_steps=0
        )
        last = folder / "checkpoints" / "last.ckpt"
        try:
            trainer.fit(model, datamodule=make_data(**settings), ckpt_path=last if resume else None)
        except Killed:
            assert stop is not None
        return model, watch.seen

    return fit


@pytest.mark.long
@pytest.mark.parametrize("settings", [{}, {"workers": 1}, {"image": {"batched": False}}], ids=str)
def test_a_resumed_run_is_the_whole_run(fit, settings):
    whole, seen = fit("whole", **settings)
    assert len(seen) == 20  # 6 batches of clips and 4 of images, twice
    assert [sum(kind == "image" for kind, *_ in list(seen.values())[s : s + 10]) for s in (0, 10)] == [4, 4]
    fit("stopped", stop=13, **settings)
    resumed, rest = fit("stopped", resume=True, seed=1, **settings)
    assert len(rest) == 7
    assert all(seen[place] == found for place, found in rest.items())
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    before = make_jepa().encoder.embed.state_dict()
    for name, value in whole.encoder.embed.state_dict().items():
        assert not torch.equal(value, before[name]), name  # both embeddings learn


def test_images_are_normalised_as_by_their_own_data_module():
    video = make_video()
    data = make_data().bind(video)
    images = [batch["image"] for batch in data.train_dataloader() if "image" in batch]
    alone = ImageData(samples=40, batch_size=12, num_workers=0).bind(video).train_dataloader()
    expected = []
    for epoch in (0, 1):
        alone.sampler.set_epoch(epoch)
        expected += [batch["image"] for batch in alone]
    assert len(images) == 4
    for one, other in zip(images, expected, strict=False):
        torch.testing.assert_close(one, other)


def test_a_few_batches_to_overfit_are_the_same_in_every_epoch(make_trainer):
    watch = Watch()
    trainer = make_trainer(watch, max_epochs=2, overfit_batches=5, limit_val_batches=0)
    trainer.fit(make_jepa(), datamodule=make_data())
    kinds = [[watch.seen[epoch, place][:2] for place in range(5)] for epoch in (0, 1)]
    assert kinds[0] == kinds[1]


def test_what_is_asked_of_the_data_is_of_the_main_kind():
    video = make_video()
    data = make_data().bind(video)
    assert (data.batch_size, data.name, data.label, data.labelled) == (8, "video", "direction", True)
    assert data.splits == ["train", "val"]
    assert {"video", "labels"} <= set(next(iter(data.val_dataloader())))
    assert "video" in next(iter(data.probe_dataloader()))
    assert "video" in next(iter(data.statistics_dataloader()))
    assert data.unreadable == {}
    with pytest.raises(DataError, match="expected a test split"):
        data.test_dataloader()
    assert data.for_evaluation is data.main
    config = {"class_path": "VideoData", "init_args": {"samples": 16, "batch_size": 4}}
    image = {"class_path": "ImageData", "init_args": {"samples": 16}}
    settings = {"modalities": {"video": config, "image": image}, "shares": {"image": 0.5}}
    opened = build_data({"class_path": "MixedData", "init_args": settings}, {}, video)
    assert isinstance(opened, VideoData)
    assert opened.modality is video


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield {"image": torch.zeros(1, 16, 16)}


def test_refusals():
    video, image = VideoData(frames=4, image_size=16, channels=1), ImageData(image_size=16, channels=1)
    mixed = partial(MixedData, modalities={"video": video, "image": image})
    with pytest.raises(DataError, match=r"at least two kinds in modalities, got \['video'\]"):
        MixedData(modalities={"video": video}, shares={})
    with pytest.raises(DataError, match=r"a key each in a batch, got \['video', 'video'\]"):
        MixedData(modalities={"video": video, "other": video}, shares={"other": 0.5})
    for shares in ({}, {"video": 0.5}, {"video": 0.5, "image": 0.5}):
        with pytest.raises(DataError, match=r"expected shares of \['image'\], and none of the main kind video"):
            mixed(shares=shares)
    for share in (0, -0.1, 1.0, float("nan")):
        with pytest.raises(DataError, match="shares above 0 that leave some batches to video"):
            mixed(shares={"image": share})
    views = ImageData(image_size=16, channels=1, views=2)
    with pytest.raises(DataError, match=r"as many views of each kind of data, got {'video': 1, 'image': 2}"):
        MixedData(modalities={"video": video, "image": views}, shares={"image": 0.5})
    with pytest.raises(DataError, match=r"at least half a batch an epoch, got 0.05 with 6 batches of video"):
        make_data(0.05).bind(make_video()).train_dataloader()
    stream = make_data(image={"dataset": Endless()}).bind(make_video())
    with pytest.raises(DataError, match="expected data with a length and indices as image of MixedData, got a stream"):
        stream.train_dataloader()


def test_open_data_takes_a_module_given_in_python():
    class Encoder:
        config = None
        modality = make_video()

    data = make_data()
    assert open_data(Encoder(), data).module is data.main
