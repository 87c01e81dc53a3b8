"""Nearest neighbours as small pictures, for the page of a report."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor

from jepa_lightning.data.errors import DataError
from jepa_lightning.evaluation.features.extraction import Extracted, Splits
from jepa_lightning.evaluation.report.results import Neighbours
from jepa_lightning.modality import Modality
from jepa_lightning.pictures.chosen import ChosenSamples
from jepa_lightning.pictures.neighbours import nearest

SIZE = 96  # pixels of a picture's longer side, at most
QUERIES, K = 6, 5


def draw_neighbours(
    splits: Splits, found: Mapping[str, Extracted], modality: Modality, notes: list[str]
) -> Neighbours | None:
    """Find and draw the nearest neighbours of a few samples in the last of the splits, by each encoder's features.

    Args:
        splits: that the features are from.
        found: of `extract_splits`.
        modality: draws the samples.
        notes: where there are no pictures, a line that says why is added.

    Returns:
        The neighbours, samples numbered through all splits behind each other, or None.
    """
    try:
        return _draw(splits, found, modality)
    except DataError as error:
        notes.append(f"neighbours: no pictures, since {error}")
        return None


def _draw(splits: Splits, found: Mapping[str, Extracted], modality: Modality) -> Neighbours:
    """The same.

    Raises:
        DataError: samples that cannot be told apart, read or drawn.
    """
    split = list(splits.samples)[-1]
    part, missing = splits.samples[split], splits.records[split].reasons
    ids = next(iter(found.values())).ids
    first = sum(len(names) for name, names in ids.items() if name != split)
    positions = [place for place, index in enumerate(part.indices) if part.sample_id(int(index)) not in missing]
    if len(positions) != len(ids[split]):
        raise DataError(f"several samples of the split {split} share a name")
    if len(positions) < 2:
        raise DataError(f"the split {split} has a single sample")
    rows = torch.linspace(0, len(positions) - 1, min(QUERIES, len(positions))).round().long().unique()
    near = {name: nearest(of.features[split].values, k=K, rows=rows) for name, of in found.items()}
    wanted = sorted({*rows.tolist(), *(row for indices, _ in near.values() for row in indices.flatten().tolist())})
    batch = ChosenSamples(splits.data, split).read([positions[row] for row in wanted])
    drawn = modality.draw_samples(batch)
    if not drawn:
        raise DataError(f"the modality {modality.name} draws no samples")
    by_position = dict(reversed(list(zip(batch["position"], drawn, strict=True))))  # of several clips, the first
    if any(positions[row] not in by_position for row in wanted):
        raise DataError(f"samples of the split {split} that could be read cannot be read any more")
    return Neighbours(
        rows=(rows + first).numpy(),
        nearest={name: (indices + first).numpy() for name, (indices, _) in near.items()},
        similarities={name: values.double().numpy() for name, (_, values) in near.items()},
        pictures={row + first: png(by_position[positions[row]]) for row in wanted},
    )


def png(picture: Tensor) -> bytes:
    """A small PNG file of uint8 (3, H, W), or of the middle frame of (F, 3, H, W)."""
    still = picture[len(picture) // 2] if picture.ndim == 4 else picture
    image = Image.fromarray(still.permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((2 * SIZE, SIZE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
