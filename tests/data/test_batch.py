from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_lightning.data import Collate, DataError, to_sample


def sample(item):
    return to_sample(item, name="image", sample_id="train[0]")


def test_integer_label_becomes_int64_class():
    got = sample((torch.zeros(2), 3))
    assert set(got) == {"image", "labels", "id"}
    assert got["labels"]["label"].dtype == torch.int64
    assert got["labels"]["label"].item() == 3
    assert got["id"] == "train[0]"


@pytest.mark.parametrize("label", [0.25, np.float64(0.25), torch.tensor(0.25, dtype=torch.float64)])
def test_float_label_is_regression(label):
    got = sample((torch.zeros(2), label))["labels"]["label"]
    assert got.dtype == torch.float32
    assert got.item() == 0.25


@pytest.mark.parametrize("item", [torch.zeros(2), (torch.zeros(2),), (torch.zeros(2), None), {"image": torch.zeros(2)}])
def test_unlabelled_items_have_empty_labels(item):
    assert sample(item)["labels"] == {}


def test_dicts_pass_with_their_labels_and_id():
    item = {"image": torch.zeros(2), "labels": {"shape": 1, "size": 0.5}, "id": "mine", "extra": 7}
    got = sample(item)
    assert list(got["labels"]) == ["shape", "size"]
    assert (got["id"], got["extra"]) == ("mine", 7)
    assert "shape" in item["labels"]  # the dataset's own dict is left alone


def test_single_label_of_a_dict():
    assert sample({"image": 0, "label": 4})["labels"]["label"].item() == 4


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((1, 2, 3), "got a tuple of 3"),
        ({"video": 1}, "expected a sample dict with the key 'image', got the keys"),
        ((1, "cat"), "expected label 'label' to be a class number.*got str 'cat'"),
    ],
)
def test_other_items_are_refused(item, message):
    with pytest.raises(DataError, match=message):
        sample(item)


def test_collate_stacks_and_lists():
    items = [{"image": np.full((2, 3), i, np.float32), "note": f"n{i}", "label": i} for i in range(4)]
    batch = Collate(lambda b: b | {"image": b["image"] + 1})([sample(item) for item in items])
    assert batch["image"].shape == (4, 2, 3)
    assert batch["image"][2, 0, 0] == 3
    assert batch["labels"]["label"].tolist() == [0, 1, 2, 3]
    assert batch["note"] == ["n0", "n1", "n2", "n3"]
    assert batch["id"] == ["train[0]"] * 4
    assert "unreadable" not in batch


def test_collate_keeps_labels_that_some_samples_lack():
    samples = [to_sample((torch.zeros(2), label), name="x", sample_id="i") for label in (None, 3, None)]
    assert Collate()(samples)["labels"]["label"].tolist() == [-1, 3, -1]
    samples = [to_sample({"x": 0, "labels": labels}, name="x", sample_id="i") for labels in ({"a": 0.5}, {})]
    assert Collate()(samples)["labels"]["a"].isnan().tolist() == [False, True]


def test_collate_lists_tensors_of_different_shapes():
    batch = Collate()([sample(torch.zeros(2)), sample(torch.zeros(3))])
    assert [len(value) for value in batch["image"]] == [2, 3]
    assert batch["labels"] == {}
