"""What a JEPA expects of the hidden part: the samples whose hidden part is nearest to each of its predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor

from jepa_lightning.joint_tokens import JointTokens
from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from jepa_lightning.pretexts import Masked
from jepa_lightning.tokens import Masks, Tokens


class DifferentTokens(ValueError):
    """The samples' hidden parts cannot be compared."""


@dataclass(frozen=True)
class Expected:
    """The predictions of a batch's hidden tokens, from one draw of masks.

    Attributes:
        masks: of the batch, on the CPU.
        values: (S, B, M, T, D) predictions, one for each of S codes of a latent z; S is 1 without any.
        errors: (S, B) mean distance of each from the sample's own target, by the JEPA's objective.
        middle: where the hidden tokens lie on average along the first axis of their grid, from 0 to 1.
    """

    masks: Masks
    values: Tensor
    errors: Tensor
    middle: float


@torch.no_grad()
def expected(jepa: JEPA, batch: Batch, *, seed: int = 0) -> Expected:
    """Predict the hidden tokens of each sample, under the first masks that the JEPA's masker draws.

    Args:
        jepa: of masked prediction, in eval mode.
        batch: on any device.
        seed: of the masks.

    Raises:
        DifferentTokens: the samples' tokens differ in number or place.
    """
    pretext = _masked(jepa)
    tokens = _tokens(jepa, batch)
    masks = pretext.masks(jepa.networks, tokens, torch.Generator().manual_seed(seed))[:1]
    found = pretext.predict(jepa.networks, tokens, masks).predictions[0]
    values = found.predicted.float()
    values = values if values.ndim == 5 else values.unsqueeze(0)
    errors = _distances(jepa, values, found.target, masks[0])
    return Expected(masks[0].to(torch.device("cpu")), values, errors, _middle(masks[0], tokens.grid))


@torch.no_grad()
def distances(jepa: JEPA, expected: Expected, batches: Iterable[Batch]) -> tuple[Tensor, list[int], list[str]]:
    """Measure how far the predictions are from what other samples have in the hidden part of each sample.

    Args:
        jepa: as before.
        expected: the predictions for B samples.
        batches: of `ChosenSamples`, n samples in all; several clips of one video are one sample, the nearest of them.

    Returns:
        (S, B, n) distances by the JEPA's objective; positions and ids of the n samples.

    Raises:
        DifferentTokens: as `expected` has it.
    """
    pretext = _masked(jepa)
    count = len(expected.masks.context)
    columns: dict[int, Tensor] = {}
    ids: dict[int, str] = {}
    for batch in batches:
        tokens = _tokens(jepa, batch)
        size = tokens.batch_size
        masks = [_repeated(expected.masks, row, size).to(tokens.device) for row in range(count)]
        targets = pretext.targets(jepa.target, tokens, masks)[0]
        found = torch.stack(
            [
                _distances(jepa, expected.values[:, row, None], target, mask)
                for row, (target, mask) in enumerate(zip(targets, masks, strict=True))
            ],
            dim=1,
        )  # (S, B, size)
        for place, name, column in zip(batch["position"], batch["id"], found.unbind(2), strict=True):
            columns[place] = column.minimum(columns.get(place, column))
            ids.setdefault(place, name)
    return torch.stack(list(columns.values()), dim=2).cpu(), list(columns), list(ids.values())


def nearest_samples(
    distances: Tensor, positions: Sequence[int], own: Sequence[int], *, k: int
) -> tuple[Tensor, Tensor]:
    """Find the k samples nearest to each prediction, other than the sample that it is of.

    Args:
        distances: (S, B, n) as `distances` gives them.
        positions: of the n samples.
        own: of the B samples.
        k: how many; no more than n - 1 are found.

    Returns:
        Their numbers among the n, and their distances, both (S, B, k), the nearest first.
    """
    itself = torch.tensor(own)[:, None] == torch.tensor(positions)
    others = len(positions) - int(itself.any(0).sum() > 0)
    found = distances.masked_fill(itself, torch.inf).topk(min(k, others), dim=2, largest=False)
    return found.indices, found.values


def _masked(jepa: JEPA) -> Masked:
    assert isinstance(jepa.pretext, Masked)
    return jepa.pretext


def _tokens(jepa: JEPA, batch: Batch) -> Tokens:
    """Tokenize a batch whose samples have the same tokens at the same places."""
    tokens = jepa.tokenizer(move_data_to_device(batch, jepa.device))
    if (
        isinstance(tokens, JointTokens)
        or tokens.valid is not None
        or tokens.positions.shape[0] != 1
        or not isinstance(tokens.values, Tensor)
    ):
        raise DifferentTokens("samples differ in the number or the places of their tokens")
    return tokens


def _repeated(masks: Masks, row: int, size: int) -> Masks:
    """Give `size` samples the masks of sample `row`."""

    def of(index: Tensor | None) -> Tensor | None:
        return None if index is None else index[row : row + 1].expand(size, *index.shape[1:])

    return Masks(
        context=of(masks.context),  # type: ignore[arg-type]
        targets=of(masks.targets),  # type: ignore[arg-type]
        context_valid=of(masks.context_valid),
        targets_valid=of(masks.targets_valid),
    )


def _middle(masks: Masks, grid: tuple[int, ...] | None) -> float:
    if grid is None:
        return 0.5
    step = masks.targets // math.prod(grid[1:])
    return (float(step.float().mean()) + 0.5) / grid[0]


def _distances(jepa: JEPA, predicted: Tensor, target: Tensor, mask: Masks) -> Tensor:
    """Mean distance over the hidden tokens of each sample: (S, B or 1, M, T, D) and (B, M, T, D) to (S, B)."""
    distance = jepa.objective.distance(*torch.broadcast_tensors(predicted, target.float()))
    valid = torch.ones_like(distance) if mask.targets_valid is None else mask.targets_valid.float()
    return (distance * valid).sum((-2, -1)) / (valid.expand_as(distance).sum((-2, -1))).clamp(min=1)
