"""Several views of a sample: what each is drawn from, where they lie in a batch, and who never sees them."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from jepa_lightning import Frozen
from jepa_lightning.data import DataError, JEPADataModule, PlainViews, ViewTransform, view_seed
from jepa_lightning.data.in_order import splits_in_order
from jepa_lightning.randomness import derive_seed, reseed


class Numbers(Dataset):
    """Sample i is (i, 0, 0, 0); one cannot be read. It counts how often it is asked."""

    def __init__(self, broken=7):
        self.read = []
        self.broken = broken

    def __len__(self):
        return 24

    def __getitem__(self, i):
        if i == self.broken:
            raise OSError("broken")
        self.read.append(i)
        return torch.tensor([i, 0, 0, 0], dtype=torch.float64), i % 3


class Drawing(ViewTransform):
    """Puts what three generators draw behind the sample's number, and counts its views."""

    def configure(self, data):
        self.size = data.batch_size

    def __call__(self, sample, view=0):
        assert self.size
        number = sample["x"][0]
        sample["x"] = torch.stack(
            [number, *torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)]
        )
        sample["note"] = f"view {view}"
        return sample


class NumberData(JEPADataModule):
    name = "x"
    source = Numbers

    def __init__(self, **settings):
        super().__init__(**{"batch_size": 4, "num_workers": 0, "val_fraction": 0.0, "max_unreadable": 0.5, **settings})

    def load(self):
        return {"train": self.source(), "val": Numbers(), "test": Numbers()}

    def transforms(self):
        return None, None


def epoch(data, number=0, loader=None):
    loader = loader or data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def views_of(batches):
    """(views, samples, 4)."""
    return torch.stack([torch.cat([batch["views"][v]["x"] for batch in batches]) for v in range(3)])


def test_each_view_is_a_draw_of_the_pipeline_with_one_view():
    """Read and transformed anew, with the seeds that the docs name."""
    data = NumberData(views=3, view_transform=Drawing())
    batches = epoch(data, 2)
    drawn = list(data.train_dataloader().sampler)  # of epoch 0
    sampler = data.train_dataloader().sampler
    sampler.set_epoch(2)
    assert drawn != list(sampler)
    single = NumberData(view_transform=Drawing())
    single.setup()
    part = single.part("train")
    for view in range(3):
        alone = torch.stack([part[position, view_seed(seed, view)]["x"] for position, seed in sampler])
        assert torch.equal(views_of(batches)[view], alone)
    assert torch.equal(
        torch.cat([b["x"] for b in epoch(NumberData(view_transform=Drawing()), 2)]), views_of(batches)[0]
    )
    assert view_seed(5, 0) == 5
    assert view_seed(5, 2) == derive_seed(5, "view", 2)
    assert len(views_of(batches)[:, :, 1:].flatten(0, 1).unique(dim=0)) == 3 * 24
    assert len(torch.cat([views_of(epoch(data, e))[:, :, 3] for e in (0, 1)]).unique()) == 2 * 3 * 24


def test_seeding_is_that_of_a_loop_by_hand():
    data = NumberData(views=2, view_transform=Drawing())
    (batch, *_) = epoch(data)
    position, seed = next(iter(data.train_dataloader().sampler))
    for view, wanted in ((0, seed), (1, derive_seed(seed, "view", 1))):
        reseed(wanted)
        by_hand = [random.random(), np.random.rand(), torch.rand(()).item()]
        assert batch["views"][view]["x"][0].tolist() == pytest.approx([float(position), *by_hand], abs=0)


def test_the_batch_is_its_first_view():
    batch = epoch(NumberData(views=3, view_transform=Drawing()))[0]
    assert list(batch) == ["x", "id", "note", "labels", "views"]
    assert [list(view) for view in batch["views"]] == [["x", "note"]] * 3
    assert batch["views"][0]["x"] is batch["x"]
    assert batch["views"][0]["note"] is batch["note"]
    assert [view["note"][0] for view in batch["views"]] == ["view 0", "view 1", "view 2"]
    assert torch.equal(batch["views"][2]["x"][:, 0], batch["x"][:, 0])
    assert batch["x"][:, 0].remainder(3).long().tolist() == batch["labels"]["label"].tolist()


def test_a_sample_is_read_once():
    data = NumberData(views=3, view_transform=Drawing())
    loader = data.train_dataloader()
    loader.dataset.dataset.read.clear()
    epoch(data, loader=loader)
    assert len(loader.dataset.dataset.read) == 24


@pytest.mark.parametrize("settings", [{}, {"view_transform": Drawing()}])
def test_one_view_is_no_view(settings):
    batch = epoch(NumberData(**settings))[0]
    assert list(batch) == (["x", "id", "note", "labels"] if settings else ["x", "id", "labels"])


def test_a_datasets_own_entry_called_views_passes_as_before():
    class Own(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return {"x": torch.zeros(2), "views": torch.ones(3)}

    class Data(NumberData):
        def load(self):
            return {"train": Own()}

    data = Data()
    batch = next(iter(data.train_dataloader()))
    assert batch["views"].shape == (4, 3)
    assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0)["views"].shape == (4, 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    alone, others = (
        views_of(epoch(NumberData(views=3, view_transform=Drawing(), num_workers=n))) for n in (0, workers)
    )
    assert torch.equal(alone, others)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_in_the_middle_of_an_epoch(workers):
    whole = views_of(epoch(NumberData(views=3, view_transform=Drawing()), 3))
    first = NumberData(views=3, view_transform=Drawing(), num_workers=workers).train_dataloader()
    first.sampler.set_epoch(3)
    batches = iter(first)
    for _ in range(2):
        next(batches)
    second = NumberData(views=3, view_transform=Drawing(), num_workers=workers)
    loader = second.train_dataloader()
    loader.load_state_dict(first.state_dict())
    assert torch.equal(views_of(epoch(second, 3, loader)), whole[:, 8:])


def test_ranks_see_what_one_process_sees():
    data = NumberData(views=2, view_transform=Drawing())
    whole = torch.cat([batch["views"][1]["x"] for batch in epoch(data)])
    from jepa_lightning.data.sampler import EpochSampler

    for rank in (0, 1):
        share = EpochSampler(data.part("train"), ranks=2, rank=rank)
        loader = data._train_loader(share, data.part("train"))
        assert torch.equal(torch.cat([batch["views"][1]["x"] for batch in epoch(data, loader=loader)]), whole[rank::2])


def test_nobody_but_training_has_views():
    data = NumberData(views=3, view_transform=Drawing())
    for loader in (
        data.val_dataloader(),
        data.test_dataloader(),
        data.probe_dataloader(),
        data.statistics_dataloader(),
    ):
        assert "views" not in next(iter(loader))
        assert "other_views" not in next(iter(loader))
    plain = [batch["x"] for batch in NumberData(view_transform=Drawing()).statistics_dataloader()]
    assert torch.equal(torch.stack([batch["x"] for batch in data.statistics_dataloader()]), torch.stack(plain))
    assert "views" in next(iter(data.train_dataloader()))
    ordered = NumberData(views=3, view_transform=Drawing())
    batch = ordered.collate([splits_in_order(ordered)["train"][i] for i in range(4)])
    assert list(batch) == ["x", "id", "labels"]
    assert not batch["x"][:, 1:].any()


def test_on_another_device_the_first_view_still_is_the_batch():
    data = NumberData(views=3, view_transform=Drawing())
    batch = epoch(data)[0]
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert list(moved) == list(batch)
    assert moved["views"][0]["x"] is moved["x"]
    assert [view["x"].device.type for view in moved["views"]] == ["meta"] * 3
    assert len(batch["views"]) == 3
    assert batch["x"].device.type == "cpu"


def test_an_unreadable_sample_has_a_substitute_with_all_its_views():
    class Fails(Drawing):
        def __call__(self, sample, view=0):
            if view == 1 and sample["x"][0] == 3:
                raise OSError("no second view")
            return super().__call__(sample, view)

    data = NumberData(views=3, view_transform=Fails())
    batches = epoch(data)
    assert {name: why for name, why in data.unreadable.items() if "3" in name} == {
        "train[3]": "OSError: no second view"
    }
    numbers = torch.cat([batch["x"][:, 0] for batch in batches])
    assert len(numbers) == 24
    assert 3 not in numbers
    assert torch.equal(views_of(batches)[1][:, 0], numbers)
    assert torch.equal(views_of(batches)[2][:, 0], numbers)


class Endless(IterableDataset):
    def __iter__(self):
        for i in range(20):
            yield torch.tensor([i, 0, 0, 0], dtype=torch.float64), i % 3


class Stream(NumberData):
    source = Endless


def test_a_stream_has_views():
    def run(**settings):
        data = Stream(view_transform=Drawing(), epoch_samples=40, **settings)
        return data, list(data.train_dataloader())

    data, batches = run(views=3)
    assert len(batches) == 10
    assert torch.equal(torch.cat([b["x"] for b in run()[1]]), views_of(batches)[0])
    single = Stream(view_transform=Drawing(), epoch_samples=40)
    single.setup()
    order = torch.cat([b["x"][:, 0] for b in batches])
    for view in (1, 2):
        for place in (0, 5, 21):
            seed = view_seed(derive_seed(0, 0, 0, place), view)
            reseed(seed)
            alone = single._stream.read((torch.tensor([order[place], 0, 0, 0]), 0), "a")["x"]
            assert torch.equal(alone, views_of(batches)[view][place])
    assert "views" not in next(iter(data.statistics_dataloader()))
    state = data.train_dataloader()
    state.load_state_dict({"seed": 0, "epoch": 0, "batches": 4, "readers": (1, 0)})
    assert torch.equal(views_of(list(state)), views_of(batches)[:, 16:])
    readers = Stream(view_transform=Drawing(), epoch_samples=40, views=3, num_workers=2)
    assert all(batch["views"][0]["x"] is batch["x"] for batch in readers.train_dataloader())


def test_the_training_transform_serves_where_there_is_no_other():
    class Plain(NumberData):
        def transforms(self):
            return shifted, None

    data = Plain(views=3)
    batch = epoch(data)[0]
    assert isinstance(data.training_transform, PlainViews)
    assert torch.equal(torch.cat([b["x"] for b in epoch(Plain())]), torch.cat([b["x"] for b in epoch(data)]))
    assert len(torch.stack([view["x"][0, 1] for view in batch["views"]]).unique()) == 3


def shifted(sample):
    return {**sample, "x": sample["x"] + torch.rand(())}


def test_settings_that_do_not_fit():
    with pytest.raises(DataError, match="at least 1 view of each sample, got views 0"):
        NumberData(views=0)
    with pytest.raises(DataError, match="NumberData has no augmentation, so all views would be the same"):
        NumberData(views=2).setup()
    with pytest.raises(DataError, match="expected view_transform to be a ViewTransform, got function"):
        NumberData(view_transform=shifted)

    class Other(Drawing):
        name = "image"

    with pytest.raises(DataError, match="for the input 'x', got Other, which is for 'image'"):
        NumberData(view_transform=Other())


def test_a_view_transform_is_copied_for_each_data_module():
    transform = Drawing()
    data = NumberData(views=2, view_transform=transform)
    data.setup()
    assert not hasattr(transform, "size")
    assert pickle.loads(pickle.dumps(data.training_transform)).size == 4
    assert copy.deepcopy(data).views == 2


def test_a_frozen_encoder_does_not_look_at_views(make_jepa, make_data):
    frozen = Frozen(make_jepa())
    batch = next(iter(make_data(views=2).train_dataloader()))
    alone = {key: value for key, value in batch.items() if key != "views"}
    batch["views"] = "not moved, not read"
    assert torch.equal(frozen.embed(batch), frozen.embed(alone))
