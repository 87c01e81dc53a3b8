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
from modalities.image.reading import as_stored, is_wide

_LOOKED_AT = 64


def pictures(dataset: Dataset[Any]) -> Iterator[NDArray[Any]]:
    """Read up to 64 images in shards or a table, or Pillow images of a dataset: those of other than 8 bits.

    Of a dataset, the first image tells whether more are looked at.
    """
    if not isinstance(dataset, Decoded):
        for number, image in enumerate(_items(dataset)):
            if isinstance(image, Image.Image) and is_wide(image):
                yield np.asarray(as_stored(image))
            elif number == 0:
                return
        return
    for index in _spaced(dataset):
        try:
            item = dataset.records[index]
            if isinstance(item, Record) and isinstance(item.input, Encoded):
                with Image.open(item.input.open()) as image:
                    if is_wide(image):
                        yield np.asarray(as_stored(image))
        except Exception:  # an array, or a damaged file: met again, and reported, when it is read
            continue


def arrays(dataset: Dataset[Any]) -> Iterator[NDArray[Any]]:
    """Take up to 64 images of a dataset as arrays, as it gives them; the first tells whether more are looked at."""
    for number, image in enumerate(_items(dataset)):
        if isinstance(image, torch.Tensor) and not image.is_complex():
            image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
        if isinstance(image, np.ndarray) and image.dtype.kind in "iuf":
            yield image
        if number == 0 and (not isinstance(image, np.ndarray) or image.dtype == np.uint8):
            return


def _items(dataset: Dataset[Any]) -> Iterator[Any]:
    """Take up to 64 inputs of a dataset that has a length."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        return
    for index in _spaced(dataset):
        try:
            item = dataset[index]
        except READ_ERRORS:  # met again, and reported, when it is read
            continue
        yield item.get("image") if isinstance(item, dict) else item[0] if isinstance(item, tuple | list) else item


def _spaced(dataset: Dataset[Any]) -> list[int]:
    count = len(dataset)  # type: ignore[arg-type]
    return np.linspace(0, count - 1, min(_LOOKED_AT, count)).astype(int).tolist()
