"""Features of a data set."""

import pytest
import torch

from jepa_lightning.evaluation import Features, extract


def batches():
    yield {"x": torch.ones(3, 2), "labels": {"shape": torch.tensor([0, 1, 2]), "size": torch.rand(3)}}
    yield {"x": 2 * torch.ones(1, 2), "labels": {"shape": torch.tensor([1]), "size": torch.rand(1)}}


def test_all_batches_in_order():
    found = extract(lambda batch: batch["x"].bfloat16(), batches())
    assert found.values.dtype == torch.float32
    assert found.values.tolist() == [[1, 1], [1, 1], [1, 1], [2, 2]]
    assert found.labels["shape"].tolist() == [0, 1, 2, 1]
    assert found.labels["size"].shape == (4,)


def test_no_gradient_is_kept():
    weight = torch.ones(2, requires_grad=True)
    assert not extract(lambda batch: batch["x"] * weight, batches()).values.requires_grad


def test_data_without_labels():
    found = extract(lambda batch: batch["x"], [{"x": torch.ones(3, 2)}, {"x": torch.ones(3, 2), "labels": {}}])
    assert found.labels == {}
    with pytest.raises(ValueError, match=r"no class label '' in the data"):
        found.class_label()


def test_labels_that_some_samples_lack_are_filled():
    """A label that is missing in one batch is "no label" there; one that comes as a list cannot be aligned."""
    some = [
        {"x": torch.ones(2, 2), "labels": {"a": torch.tensor([0, 1]), "b": torch.tensor([0, 1])}},
        {"x": torch.ones(2, 2), "labels": {"a": torch.tensor([0, 1])}},
        {"x": torch.ones(2, 2), "labels": {"a": torch.tensor([0, 1]), "boxes": [torch.ones(1), torch.ones(2)]}},
    ]
    found = extract(lambda batch: batch["x"], some)
    assert set(found.labels) == {"a", "b"}
    assert found.labels["b"].tolist() == [0, 1, -1, -1, -1, -1]
    assert len(found.labels["a"]) == len(found.values) == 6


def test_an_empty_data_set_is_an_error():
    with pytest.raises(ValueError, match="no batch to extract features from"):
        extract(lambda batch: batch["x"], [])


def test_the_first_label_that_holds_classes():
    labels = {
        "position": torch.rand(4, 2),
        "count": torch.rand(4),
        "many": torch.zeros(4, 3, dtype=torch.int64),
        "shape": torch.tensor([0, 1, 0, 2], dtype=torch.int32),
        "other": torch.zeros(4, dtype=torch.int64),
    }
    some = Features(values=torch.zeros(4, 2), labels=labels)
    assert some.class_label().tolist() == [0, 1, 0, 2]
    assert some.class_label().dtype == torch.int64
    assert some.class_label("other").tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"no class label 'position'.*\['shape', 'other'\]"):
        some.class_label("position")


def test_views_of_one_thing_are_one_sample():
    """Over batches, whatever their order: the mean of the features, the labels of the first view."""
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    sources, classes = list("abacba"), torch.tensor([0, 1, 0, 2, 1, 0])
    some = [{"x": values[i : i + 2], "source": sources[i : i + 2], "labels": {"y": classes[i : i + 2]}}
            for i in (0, 2, 4)]  # fmt: skip
    found = extract(lambda batch: batch["x"], some)
    expected = [values[[0, 2, 5]].mean(0), values[[1, 4]].mean(0), values[3]]
    assert torch.allclose(found.values, torch.stack(expected))
    assert found.labels["y"].tolist() == [0, 1, 2]
