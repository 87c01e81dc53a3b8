"""Anyone's dataset under one of ours."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from jepa_lightning.data.split import known_targets


class WrappedDataset(Dataset[Any]):
    """A dataset that changes another's samples: it has the other's length, classes, targets and names of samples.

    Args:
        dataset: any torch dataset with a length.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset
        self.targets = known_targets(dataset)
        self.classes = getattr(dataset, "classes", None)
        if hasattr(dataset, "sample_id"):
            self.sample_id = dataset.sample_id

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]
