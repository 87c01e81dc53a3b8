"""Some images of a dataset, looked at to find the range of their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from jepa_lightning.data.samples import READ_ERRORS
from jepa_lightning.data.sources.records import Decoded, Encoded, Record

_LOOKED_AT = 64


def deep(dataset: Decoded) -> Iterator[NDArray[Any]]:
    """Read up to 64 images in shards or a table, those of other than 8 bits."""
    count = len(dataset)
    for index in np.linspace(0, count - 1, min(_LOOKED_AT, count)).astype(int).tolist():
        try:
            item = dataset.records[index]
            if isinstance(item, Record) and isinstance(item.input, Encoded):
                with Image.open(item.input.open()) as image:
                    if image.mode.startswith("I") or image.mode == "F":
                        yield np.asarray(image)
        except Exception:  # an array, or a damaged file: met again, and reported, when it is read
            continue


def arrays(dataset: Dataset[Any]) -> Iterator[NDArray[Any]]:
    """Take up to 64 images of a dataset as arrays, as it gives them; the first tells whether more are looked at."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        return
    count = len(dataset)
    for number, index in enumerate(np.linspace(0, count - 1, min(_LOOKED_AT, count)).astype(int).tolist()):
        try:
            item = dataset[index]
        except READ_ERRORS:  # met again, and reported, when it is read
            continue
        image = item.get("image") if isinstance(item, dict) else item[0] if isinstance(item, tuple | list) else item
        array = image.numpy() if isinstance(image, torch.Tensor) and not image.is_complex() else image
        if isinstance(image, Image.Image) and (image.mode.startswith("I") or image.mode == "F"):
            array = np.asarray(image)
        if isinstance(array, np.ndarray) and array.dtype.kind in "iuf":
            yield array
        if number == 0 and (not isinstance(array, np.ndarray) or array.dtype == np.uint8):
            return
