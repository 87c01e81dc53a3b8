"""Where a JEPA predicts badly: the prediction error of every token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor

from jepa_lightning.modality import Batch
from jepa_lightning.module import JEPA
from jepa_lightning.pretexts import Masked
from jepa_lightning.tokens import Tokens

DRAWS = 64
ENOUGH = 8  # times that every token was a target, after which no more masks are drawn
_AT_ONCE = 8  # draws whose contexts and targets are held at once


@dataclass(frozen=True)
class TokenErrors:
    """Prediction errors of a batch's tokens.

    Attributes:
        tokens: of the batch.
        values: (B, N) float32, the mean of the objective's distance over the times when a token was a target; NaN for
            those that never were.
        times: (B, N) how often each was.
        draws: of masks.
        mean: over all targets of all draws; NaN without any.
    """

    tokens: Tokens
    values: Tensor
    times: Tensor
    draws: int
    mean: float


@torch.no_grad()
def token_errors(
    jepa: JEPA, batch: Batch | Tokens, *, draws: int = DRAWS, enough: int = ENOUGH, seed: int = 0
) -> TokenErrors:
    """The error of predicting each token, under masks of the JEPA's own masker.

    A token is scored when it is a target, by the JEPA's objective, whose distance is one number a token (smooth L1 or
    whatever the run was trained with, the mean over the channels). Masks are drawn until every real token was a target
    `enough` times, and `draws` times at most. Regularizers play no part.

    Args:
        jepa: in eval mode, as `load_jepa` gives it.
        batch: on any device, or its tokens on the JEPA's.
        draws: of masks, at most.
        enough: how often each token is scored at least, if `draws` allow it.
        seed: of the masks.

    Raises:
        ValueError: fewer than one draw, or a pretext that hides nothing.
    """
    if draws < 1:
        raise ValueError(f"expected at least 1 draw of masks, got {draws}")
    pretext = jepa.pretext
    if not isinstance(pretext, Masked):
        raise ValueError(
            f"errors of tokens are those of masked prediction, and this model's pretext is {type(pretext).__name__}"
        )
    tokens = batch if isinstance(batch, Tokens) else jepa.tokenizer(move_data_to_device(batch, jepa.device))
    generator = torch.Generator().manual_seed(seed)
    summed = torch.zeros(tokens.batch_size, tokens.count, device=tokens.device)
    times = torch.zeros_like(summed)
    real = torch.ones_like(summed, dtype=torch.bool) if tokens.valid is None else tokens.valid
    done = 0
    while done < draws and bool((times[real] < enough).any()):
        several = min(_AT_ONCE, draws - done)
        masks = [mask for _ in range(several) for mask in pretext.masks(jepa.networks, tokens, generator)]
        done += several
        predictions = pretext.predict(jepa.networks, tokens, masks).predictions[
            : len(masks)
        ]  # first the hidden tokens'
        for mask, found in zip(masks, predictions, strict=True):
            distance = jepa.objective.distance(found.predicted.float(), found.target.float())  # (B, M, T)
            distance = distance.flatten(0, -4).amin(0) if distance.ndim > 3 else distance  # of draws of z the best
            evaluated = torch.ones_like(distance) if mask.targets_valid is None else mask.targets_valid.float()
            where = mask.targets.flatten(1)
            times.scatter_add_(1, where, evaluated.flatten(1))
            summed.scatter_add_(1, where, torch.where(evaluated > 0, distance, 0.0).flatten(1))
    total = times.sum()
    return TokenErrors(
        tokens=tokens,
        values=torch.where(times > 0, summed / times.clamp(min=1), torch.nan),
        times=times.long(),
        draws=done,
        mean=float(summed.sum() / total) if total > 0 else float("nan"),
    )
