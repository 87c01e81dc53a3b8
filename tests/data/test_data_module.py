"""The base class on a small in-memory modality, and what happens to unreadable samples."""

from __future__ import annotations

import itertools
import logging
import os
import re
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import Dataset

from jepa_lightning.data import DataError, JEPADataModule
from jepa_lightning.data.in_order import splits_in_order


class Numbers(Dataset):
    """Sample i is the number i; those in `broken` cannot be read."""

    def __init__(self, count=1000, *, labelled=True, broken=(), error=None):
        self.count, self.broken, self.error = count, set(broken), error or OSError("broken pipe")
        if labelled:
            self.targets = [i % 4 for i in range(count)]
            self.classes = list("abcd")

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if i in self.broken:
            raise self.error
        value = torch.tensor([float(i)])
        return (value, self.targets[i]) if hasattr(self, "targets") else value


def negate(sample):
    return sample | {"number": -sample["number"]}


class NumberData(JEPADataModule):
    name = "number"

    def __init__(self, dataset, val=None, test=None, **kwargs):
        super().__init__(**{"num_workers": 0, "batch_size": 10} | kwargs)
        self.sets = {k: v for k, v in {"train": dataset, "val": val, "test": test}.items() if v is not None}

    def load(self):
        return self.sets

    def transforms(self):
        return negate, None


def numbers(loader):
    return [int(value) for batch in loader for value in batch["number"]]


def test_held_out_part_is_disjoint_stratified_and_fixed():
    data = NumberData(Numbers(), seed=1, drop_last=False)
    train, val = numbers(data.train_dataloader()), numbers(data.val_dataloader())
    assert all(value <= 0 for value in train)  # augmented
    assert all(value >= 0 for value in val)  # not
    assert sorted([-value for value in train] + val) == list(range(1000))
    assert torch.bincount(torch.tensor(val) % 4).tolist() == [25] * 4
    assert numbers(NumberData(Numbers(), seed=1).val_dataloader()) == val
    assert numbers(NumberData(Numbers(), seed=2).val_dataloader()) != val


def test_probe_is_a_fixed_stratified_unaugmented_part_of_train():
    data = NumberData(Numbers(), probe_samples=100)
    probe = numbers(data.probe_dataloader())
    assert len(probe) == 100
    assert torch.bincount(torch.tensor(probe) % 4).tolist() == [25] * 4
    assert not set(probe) & set(numbers(data.val_dataloader()))
    assert probe == numbers(data.probe_dataloader())
    assert len(numbers(NumberData(Numbers(), probe_samples=5000).probe_dataloader())) == 900


def test_labels_and_classes():
    data = NumberData(Numbers())
    assert (data.labelled, data.label, data.classes) == (True, "label", list("abcd"))
    bare = NumberData(Numbers(labelled=False))
    assert (bare.labelled, bare.label, bare.classes) == (False, None, None)
    assert bare.probe_dataloader() is None
    assert next(iter(bare.train_dataloader()))["labels"] == {}


def test_targets_of_minus_one_are_no_labels():
    stl = Numbers()
    stl.targets = [-1] * 1000
    assert not NumberData(stl).labelled
    stl.targets = [-1] * 600 + [0, 1] * 200
    data = NumberData(stl)
    assert data.labelled
    assert min(numbers(data.probe_dataloader())) >= 600


def test_given_splits_are_used_whole():
    data = NumberData(Numbers(50), Numbers(30), Numbers(20), drop_last=False)
    assert len(numbers(data.train_dataloader())) == 50
    assert len(numbers(data.val_dataloader())) == 30
    assert len(numbers(data.test_dataloader())) == 20
    assert data.has_test


def test_no_validation_and_no_test():
    data = NumberData(Numbers(), val_fraction=0)
    assert data.val_dataloader() == []
    assert len(data.train_dataloader()) == 100
    with pytest.raises(DataError, match="expected a test split, but these data have none"):
        data.test_dataloader()


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_is_substituted_counted_and_named(workers, caplog):
    data = NumberData(Numbers(broken=[3, 500, 501]), val_fraction=0, num_workers=workers)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            batches = list(data.train_dataloader())
    assert [len(batch["id"]) for batch in batches] == [10] * 100
    assert not any("unreadable" in batch for batch in batches)
    values = sorted(-int(value) for batch in batches for value in batch["number"])
    assert values.count(4) == 2
    assert values.count(502) == 3
    assert data.unreadable == {f"train[{i}]": "OSError: broken pipe" for i in (3, 500, 501)}
    named = [record.getMessage() for record in caplog.records if "unreadable" in record.getMessage()]
    assert len(named) == 3
    assert "skipped an unreadable sample: train[3] (OSError: broken pipe)" in named


@pytest.mark.parametrize("workers", [0, 2])
def test_more_than_the_limit_ends_with_the_list(workers, caplog):
    data = NumberData(Numbers(broken=range(100, 250, 5)), val_fraction=0, num_workers=workers, max_unreadable=0.025)
    with pytest.raises(
        DataError, match=r"(2[6-9]|30) of 1000 samples cannot be read, more than max_unreadable = 0.025"
    ) as error:
        numbers(data.train_dataloader())
    assert str(error.value).count("  train[") == 20
    assert "(OSError: broken pipe)" in str(error.value)
    assert re.search(r"  and ([6-9]|10) more$", str(error.value))
    assert len([record for record in caplog.records if "unreadable" in record.getMessage()]) <= 25  # not the last ones


def test_exactly_the_limit_passes():
    data = NumberData(Numbers(broken=range(10)), val_fraction=0)
    assert len(list(data.train_dataloader())) == 100
    assert len(data.unreadable) == 10


def test_held_out_and_training_part_share_one_count():
    data = NumberData(Numbers(broken=range(5, 500, 45)))
    loaders = itertools.chain(data.train_dataloader(), data.val_dataloader())
    with pytest.raises(DataError, match="11 of 1000"):
        list(loaders)


@pytest.mark.parametrize("workers", [0, 2])
def test_everything_unreadable(workers):
    data = NumberData(Numbers(300), max_unreadable=1.0, val_fraction=0, num_workers=workers)
    data.setup()
    data.sets["train"].broken = set(range(300))
    with pytest.raises(DataError, match="100 samples in a row, or the whole data set, cannot be read"):
        list(data.train_dataloader())


def test_other_errors_are_not_swallowed():
    data = NumberData(Numbers(broken=[5], error=KeyError("a mistake in the dataset")))
    with pytest.raises(KeyError, match="a mistake"):
        list(data.train_dataloader())


def test_broken_samples_known_beforehand_end_the_run_at_setup():
    dataset = Numbers()
    dataset.unreadable = dict.fromkeys(range(11), "OSError: gone")
    with pytest.raises(DataError, match="11 of 1000"):
        NumberData(dataset).setup()


def test_too_few_samples_for_a_batch():
    with pytest.raises(DataError, match=r"got 90 samples with batch_size 128: lower batch_size, add data, or set drop"):
        NumberData(Numbers(100), batch_size=128).train_dataloader()
    assert len(NumberData(Numbers(100), batch_size=128, drop_last=False).train_dataloader()) == 1


class NoLength(Dataset):
    def __getitem__(self, i):
        return i


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NumberData(Numbers(0)).setup(), "expected samples in the train dataset, got none"),
        (lambda: NumberData(Numbers(1)).setup(), "expected at least 2 training samples"),
        (lambda: NumberData(NoLength()).setup(), "expected the train dataset to have a length.* got NoLength"),
        (lambda: NumberData(Numbers(), epoch_samples=9).setup(), "expected epoch_samples only for streams"),
        (lambda: NumberData(Numbers(), batch_size=0), "expected batch_size of at least 1, got 0"),
        (lambda: NumberData(Numbers(), num_workers=-1), "expected num_workers from 0 to 512"),
        (lambda: NumberData(Numbers(), val_fraction=1.0), "expected val_fraction from 0 to below 1, got 1.0"),
        (lambda: NumberData(Numbers(), max_unreadable=2), "expected max_unreadable from 0 to 1, got 2"),
        (lambda: NumberData(Numbers(), probe_samples=0), "expected probe_samples of at least 1"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_workers_follow_cores_and_data(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(24)), raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = NumberData(Numbers(), num_workers=None)
    assert data.val_dataloader().num_workers == 16
    assert not data.val_dataloader().pin_memory
    data.in_memory = True
    assert data.val_dataloader().num_workers == 0
    data.in_memory = False
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert data.val_dataloader().num_workers == 0


class Adder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], 0

    def training_step(self, batch, _):
        self.seen += [-int(value) for value in batch["number"]]
        return (self.weight * batch["number"]).sum()

    def validation_step(self, batch, _):
        self.validated += len(batch["id"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_in_a_trainer():
    data, module = NumberData(Numbers(broken=[7])), Adder()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", num_sanity_val_steps=0, enable_model_summary=False, **options)
    trainer.fit(module, datamodule=data)
    assert len(module.seen) == 900
    assert module.validated == 100
    assert data.unreadable == {"train[7]": "OSError: broken pipe"}


def test_a_data_module_that_lacks_a_piece_is_told_which():
    class Nameless(JEPADataModule):
        def load(self):
            return {}

        def transforms(self):
            return None, None

    class Untransformed(JEPADataModule):
        name = "thing"

        def load(self):
            return {}

    with pytest.raises(DataError, match=r"`name`.*Nameless has none"):
        Nameless()
    with pytest.raises(TypeError, match="transforms"):
        Untransformed()


def test_parts_are_public():
    data = NumberData(Numbers(50), test=Numbers(5))
    assert data.splits == ["train", "val", "test"]
    assert [len(data.part(split)) for split in data.splits] == [45, 5, 5]
    assert data.part("train")[0]["number"] <= 0  # as it is trained on
    assert data.workers == 0
    with pytest.raises(DataError, match="a split val, but these data have only train"):
        NumberData(Numbers(), val_fraction=0).part("val")


def test_to_list_samples_in_order_needs_no_full_batch():
    few = NumberData(Numbers(8), val_fraction=0, batch_size=100)
    with pytest.raises(DataError, match="at least one batch"):
        few.train_dataloader()
    part = splits_in_order(few)["train"]
    assert few.collate([part[i] for i in range(8)])["number"].tolist() == [[float(i)] for i in range(8)]


def test_sizes_come_from_the_modality_that_data_are_bound_to():
    data = NumberData(Numbers())
    with pytest.raises(DataError, match="expected size, got none and there is no model to take it from"):
        data.or_model("size", None)
    assert data.bind(SimpleNamespace(size=3)) is data
    assert (data.or_model("size", None), data.or_model("size", 4)) == (3, 4)
    trained = NumberData(Numbers())
    trained.trainer = SimpleNamespace(lightning_module=SimpleNamespace(modality=SimpleNamespace(size=5)))
    assert trained.or_model("size", None) == 5
    trained.bind(SimpleNamespace(size=6))
    assert trained.or_model("size", None) == 6
