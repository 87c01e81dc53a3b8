"""Files, a dataset or a generated set: which one is taken, and which settings do not go together."""

from __future__ import annotations

import pytest
import torch
from jsonargparse import ArgumentParser
from torch.utils.data import Dataset, TensorDataset

from jepa_lightning.data import DataError, FileDataModule, SourcedDataModule


class Doubled(Dataset):
    """Another dataset's numbers, doubled."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return 2 * self.dataset[index][0]


def numbers(*values):
    return TensorDataset(torch.tensor(values, dtype=torch.float32)[:, None])


class Numbers(SourcedDataModule):
    """Numbers: 1 from files, 2 generated, anyone's doubled."""

    name = "number"

    def __init__(self, *, scale: float = 1.0, samples: int = 64, **shared) -> None:
        super().__init__(samples=samples, **shared)
        self.scale = scale

    def load_files(self):
        return {"train": numbers(*[1] * 20)}

    def generate(self):
        return {"train": numbers(*[2] * self.samples), "val": numbers(2)}

    def wrap(self, dataset):
        return Doubled(dataset)

    def transforms(self):
        return None, None


class TableNumbers(Numbers, FileDataModule):
    """The same, from a CSV file too."""


class Plain(Numbers):
    """Takes datasets as they are."""

    wrap = SourcedDataModule.wrap


def first(loader):
    return next(iter(loader))["number"][0].item()


@pytest.mark.parametrize(
    ("settings", "value", "count", "in_memory"),
    [
        ({"root": "x"}, 1, 18, False),
        ({"csv": "x.csv"}, 1, 18, False),
        ({"root": "x", "csv": "x.csv", "labels": ["y"]}, 1, 18, False),
        ({}, 2, 64, True),
        ({"samples": 16}, 2, 16, True),
        ({"dataset": numbers(*[3] * 10)}, 6, 9, False),
    ],
)
def test_one_source_is_taken(settings, value, count, in_memory):
    data = TableNumbers(**settings, batch_size=4, num_workers=0)
    assert first(data.train_dataloader()) == value
    assert len(data.train_dataloader().dataset) == count
    assert data.in_memory == in_memory


def test_splits_of_a_dataset_are_wrapped_alike():
    given = {"dataset": numbers(*[3] * 8), "val_dataset": numbers(5), "test_dataset": numbers(7)}
    data = Numbers(**given, batch_size=4, num_workers=0)
    loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert [first(loader) for loader in loaders] == [6, 10, 14]
    assert Plain(**given).load() == {"train": given["dataset"], "val": given["val_dataset"],
                                     "test": given["test_dataset"]}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": "x", "dataset": numbers(1)}, "expected root or dataset, got both: leave one out"),
        ({"csv": "x.csv", "dataset": numbers(1)}, "expected csv or dataset, got both: leave one out"),
        ({"val_dataset": numbers(1)}, "expected a dataset beside val_dataset, got none: set dataset too"),
        ({"root": "x", "test_dataset": numbers(1)}, "expected a dataset beside test_dataset, got none"),
        ({"labels": ["y"]}, "expected labels only for files, got no files: set data.root, or leave labels out"),
        ({"labels": ["y"], "dataset": numbers(1)}, "expected labels only for files"),
        ({"samples": 15}, "expected at least 16 generated samples, got 15"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(DataError, match=message):
        TableNumbers(**settings)


def parse(module, *words):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(module, "data")
    return parser, parser.parse_args(list(words))


def test_yaml_sees_the_arguments_of_all_bases():
    _, config = parse(TableNumbers)
    assert {name: config.data[name] for name in ("root", "csv", "labels", "dataset", "samples", "batch_size")} == {
        "root": None, "csv": None, "labels": None, "dataset": None, "samples": 64, "batch_size": 128,
    }  # fmt: skip
    parser, config = parse(TableNumbers, "--data.csv=x.csv", "--data.labels=[y,z]", "--data.scale=2")
    data = parser.instantiate_classes(config).data
    assert (data.csv, data.labels, data.scale) == ("x.csv", ["y", "z"], 2.0)
    again = TableNumbers(**config.data.as_dict())
    assert (again.csv, again.labels, again.samples) == ("x.csv", ["y", "z"], 64)


def test_a_modality_without_csv_files_has_no_such_arguments():
    _, config = parse(Numbers)
    names = set(config.data.as_dict())
    assert {"root", "dataset", "val_dataset", "test_dataset", "samples", "scale"} <= names
    assert not {"csv", "labels"} & names
    with pytest.raises(TypeError, match="csv"):
        Numbers(csv="x.csv")


@pytest.mark.parametrize("base", [SourcedDataModule, FileDataModule])
def test_the_bases_cannot_be_built(base):
    with pytest.raises(TypeError, match="abstract"):
        base(samples=16)
