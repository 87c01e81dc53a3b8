"""All processes of a run see the same samples, or it does not start."""

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import Dataset, TensorDataset

from jepa_lightning.data import DataError, Samples
from jepa_lightning.data.ranks import names_hash, require_same_samples
from modalities.image import ImageData


class Named(Dataset):
    def __init__(self, *names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return torch.zeros(1)

    def sample_id(self, index):
        return self.names[index]


def part(*names):
    return Samples(Named(*names), name="image")


@pytest.fixture
def ranks(monkeypatch):
    """As if other processes had these parts."""

    def ranks(*others):
        def gather(found, own):
            found[:] = [own, *({"train": (len(other), names_hash(other))} for other in others)]

        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_world_size", lambda: 1 + len(others))
        monkeypatch.setattr(dist, "all_gather_object", gather)

    return ranks


def test_the_same_samples(ranks):
    require_same_samples({"train": part("a", "b")})
    ranks(part("a", "b"), part("a", "b"))
    require_same_samples({"train": part("a", "b")})


@pytest.mark.parametrize("other", [("a",), ("a", "b", "c"), ("b", "a"), ("a", "\udce9.png")])
def test_other_samples(ranks, other):
    ranks(part("a", "b"), part(*other))
    with pytest.raises(DataError, match=rf"others on rank 2 \(train {len(other)}\) than on rank 0 \(train 2\)"):
        require_same_samples({"train": part("a", "b")})


def test_training_does_not_start_with_others(ranks):
    images = TensorDataset(torch.rand(16, 3, 8, 8))
    data = ImageData(dataset=images, image_size=8, channels=3, batch_size=4, num_workers=0)
    data.setup()
    ranks(part("a", "b"))
    with pytest.raises(DataError, match="see that all machines have the same files"):
        data.train_dataloader()
