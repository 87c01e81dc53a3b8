"""Inputs that a user hands over, in a batch as the evaluation would read them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from torch.utils.data import Dataset

from jepa_lightning.data.batch import Collate
from jepa_lightning.data.errors import DataError
from jepa_lightning.data.module import JEPADataModule
from jepa_lightning.data.samples import READ_ERRORS, Samples
from jepa_lightning.modality import Batch


def is_batch(inputs: Any) -> bool:
    """Tell a batch dict from one input: of several modalities it is a dict, too, of a text or a path among others."""
    return isinstance(inputs, dict) and not any(isinstance(value, str | PathLike) for value in inputs.values())


def batch_of(data: JEPADataModule, inputs: Sequence[Any]) -> Batch:
    """Make a batch of inputs that are not among the data, with the evaluation transform.

    The data themselves are not read.

    Args:
        data: bound to a modality, where it needs one.
        inputs: at least one; each a file's path, or what a dataset may give for these data (an image of Pillow, an
            array, a tensor, a sample dict); forms may be mixed.

    Raises:
        DataError: an input cannot be read or does not fit; the message names it.
    """
    if not inputs:
        raise DataError("expected at least one input, got an empty list")
    items = []
    for number, value in enumerate(inputs):
        try:
            items.append(data.as_item(value))
        except READ_ERRORS as error:
            raise DataError(f"{_name(value, number, len(inputs))}: {error}") from error
    samples = Samples(
        data.prepared(_Given(items)), name=data.name, split="input", transform=data.evaluation_transform()
    )
    read = []
    for number, value in enumerate(inputs):
        try:
            read.append(samples.read(number))
        except READ_ERRORS as error:
            raise DataError(f"{_name(value, number, len(inputs))}: {error}") from error
    return Collate(data.batch_transform())(read)


class _Given(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def _name(value: Any, number: int, count: int) -> str:
    if isinstance(value, str | PathLike):
        return f"cannot use {value}"
    return "cannot use the input" if count == 1 else f"cannot use input {number}"
