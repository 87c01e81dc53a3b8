"""The order of training samples, and the augmentation of each, follow from seed and epoch alone."""

import random
from typing import ClassVar

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import Dataset

from jepa_lightning.data import JEPADataModule
from jepa_lightning.data.sampler import EpochSampler


def order(count=20, *, epoch=0, start=0, **settings):
    sampler = EpochSampler(range(count), **settings)
    sampler.set_epoch(epoch)
    sampler.start = start
    return list(sampler)


def positions(draws):
    return [draw.position for draw in draws]


def test_every_sample_once_in_an_order_of_seed_and_epoch():
    first = order()
    assert sorted(positions(first)) == list(range(20))
    assert order() == first
    assert positions(order(epoch=1)) != positions(first)
    assert positions(order(seed=1)) != positions(first)
    assert len({draw.seed for draw in first}) == 20
    later = {draw.position: draw.seed for draw in order(epoch=1)}
    assert not any(later[draw.position] == draw.seed for draw in first)


def test_it_starts_anywhere():
    assert order(start=7) == order()[7:]
    assert order(start=20) == []


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_samples(ranks):
    shares = [order(ranks=ranks, rank=rank, drop_last=True) for rank in range(ranks)]
    assert {len(share) for share in shares} == {20 // ranks}
    together = [position for share in shares for position in positions(share)]
    assert len(set(together)) == len(together) == 20 // ranks * ranks
    # In turns, so that all ranks' batches together are those of one process with a batch as large.
    assert [share[0] for share in shares] == order()[:ranks]


def test_uneven_shares_are_filled_up_where_nothing_is_dropped():
    shares = [order(ranks=3, rank=rank) for rank in range(3)]
    assert [len(share) for share in shares] == [7, 7, 7]
    assert {position for share in shares for position in positions(share)} == set(range(20))
    assert [len(EpochSampler(range(20), ranks=3, rank=rank)) for rank in range(3)] == [7, 7, 7]
    assert len(EpochSampler(range(20), ranks=3, drop_last=True)) == 6
    assert [len(order(2, ranks=5, rank=rank)) for rank in range(5)] == [1] * 5


def test_a_few_batches_to_overfit_are_the_same_in_every_epoch(make_trainer, make_jepa, make_data):
    class Seen(Callback):
        batches: ClassVar = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.batches.append((list(batch["id"]), batch["image"]))

    trainer = make_trainer(Seen(), max_epochs=3, overfit_batches=1, limit_val_batches=0)
    trainer.fit(make_jepa(), datamodule=make_data())
    assert len(Seen.batches) == 3
    assert all(ids == Seen.batches[0][0] for ids, _ in Seen.batches)
    assert all(torch.equal(images, Seen.batches[0][1]) for _, images in Seen.batches)


class Draws(Dataset):
    """Sample i is i, and what three generators draw."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 40

    def __getitem__(self, i):
        if i == 7:
            torch.rand(3)
            raise OSError("broken")
        self.read.append(i)
        return torch.tensor([i, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


class DrawsData(JEPADataModule):
    name = "draws"

    def __init__(self, **settings):
        super().__init__(**{"batch_size": 4, "num_workers": 0, "val_fraction": 0.0, "max_unreadable": 0.5, **settings})

    def load(self):
        return {"train": Draws()}

    def transforms(self):
        return None, None


def epoch(loader, number):
    loader.sampler.set_epoch(number)
    return torch.stack([batch["draws"] for batch in loader])


def test_augmentation_does_not_depend_on_workers_nor_on_what_was_drawn_before():
    alone = DrawsData().train_dataloader()
    both = [epoch(alone, number) for number in (0, 1)]
    torch.manual_seed(5)
    assert torch.equal(epoch(DrawsData(num_workers=2).train_dataloader(), 1), both[1])
    assert torch.equal(epoch(alone, 0), both[0])
    assert not torch.equal(*both)
    number, *drawn = both[0].view(-1, 4).T
    assert len(number.unique()) == 39  # the broken one's neighbour is there twice ...
    assert [len(column.unique()) for column in drawn] == [40] * 3  # ... and drawn otherwise


def test_reading_in_this_process_leaves_its_generators_as_they_are():
    loader = DrawsData().train_dataloader()

    def drawn(read):
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        if read:
            list(loader)
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert drawn(True) == drawn(False)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_another_was(workers):
    whole = epoch(DrawsData().train_dataloader(), 3)
    first = DrawsData(num_workers=workers).train_dataloader()
    first.sampler.set_epoch(3)
    batches = iter(first)
    for _ in range(4):
        next(batches)
    state = first.state_dict()
    assert state == {"seed": 0, "epoch": 3, "batches": 4, "together": 4}
    second = DrawsData(num_workers=workers).train_dataloader()
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert len(second) == 10
    assert torch.equal(epoch(second, 3), whole[4:])
    assert second.state_dict() == {**state, "batches": 10}
    assert torch.equal(epoch(second, 4), epoch(DrawsData().train_dataloader(), 4))


def test_with_other_batches_a_loader_goes_on_behind_as_many_samples():
    loader = DrawsData(batch_size=8).train_dataloader()
    with pytest.warns(UserWarning, match="4 samples in the batches of all processes, now there are 8"):
        loader.load_state_dict({"seed": 0, "epoch": 0, "batches": 4, "together": 4})
    order = [draw.position for draw in DrawsData().train_dataloader().sampler]
    assert len(list(loader)) == 3
    assert [draw.position for draw in loader.sampler] == order[16:]


def test_skipped_samples_are_not_read():
    data = DrawsData()
    loader = data.train_dataloader()
    loader.load_state_dict({"seed": 0, "epoch": 0, "batches": 8})
    loader.dataset.dataset.read.clear()
    list(loader)
    assert len(loader.dataset.dataset.read) == 8


def test_an_epoch_that_was_over_is_not_gone_on_with():
    loader = DrawsData().train_dataloader()
    loader.load_state_dict({"seed": 0, "epoch": 0, "batches": 10})
    assert torch.equal(epoch(loader, 1), epoch(DrawsData().train_dataloader(), 1))


def test_statistics_see_the_same_on_every_rank_and_for_every_seed(monkeypatch):
    expected = [batch["draws"] for batch in DrawsData().statistics_dataloader()]
    monkeypatch.setenv("PL_GLOBAL_SEED", "9")
    found = [batch["draws"] for batch in DrawsData().statistics_dataloader()]
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert DrawsData().train_dataloader().sampler.seed == 9
