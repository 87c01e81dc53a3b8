"""Attentive probe: a learned query attends over the tokens of a frozen encoder, many settings trained at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from jepa_lightning.evaluation.probes.attentive_heads import (
    BatchedAdamW,
    Parameters,
    attend,
    batch_order,
    forward,
    losses,
    start,
)
from jepa_lightning.evaluation.probes.held_out import held_out

LRS = (1e-3, 5e-3, 2e-2)
DECAYS = (0.01, 0.3, 3.0)

_NUMBERS = 2**24  # of features looked at at once where no gradient is kept


class AttentiveProbe:
    """A fitted probe; `fit_attentive` makes it.

    Args:
        parameters: of S = 1 probe.
        mean: (D,) of the features in training.
        scale: (D,) that they are divided by.
        target: mean and scale (d,) of continuous labels; None for classes.
        lr: learning rate that was chosen.
        decay: weight decay that was chosen.

    Attributes:
        lr: as given.
        decay: as given.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        mean: Tensor,
        scale: Tensor,
        target: tuple[Tensor, Tensor] | None,
        lr: float,
        decay: float,
    ) -> None:
        self.parameters, self.mean, self.scale, self.target = parameters, mean, scale, target
        self.lr, self.decay = lr, decay

    @torch.no_grad()
    def predict(self, tokens: Tensor, valid: Tensor | None = None, *, rows: Tensor | None = None) -> Tensor:
        """Predict classes (n,) int64 or values (n, d), on the device of the tokens.

        Args:
            tokens: (n, N, D); N need not be that of training.
            valid: (n, N) bool, False for padding, or None.
            rows: (m,) numbers of the samples to look at; None for all.
        """
        found = torch.cat([forward(self.parameters, x, mask)[0] for x, mask in self._chunks(tokens, valid, rows)])
        if self.target is None:
            return found.argmax(1).to(tokens.device)
        return (found * self.target[1] + self.target[0]).to(tokens.device)

    @torch.no_grad()
    def attention(self, tokens: Tensor, valid: Tensor | None = None, *, rows: Tensor | None = None) -> Tensor:
        """Compute how much the query looks at each token, the mean over attention heads: (n, N), which sums to 1.

        0 at padding; a sample of nothing but padding has zeros. Arguments as in `predict`.
        """
        found = [
            attend(self.parameters["query"], x, mask)[0].mean(1)[:, 0] for x, mask in self._chunks(tokens, valid, rows)
        ]
        return torch.cat(found).to(tokens.device)

    def _chunks(
        self, tokens: Tensor, valid: Tensor | None, rows: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        _check(tokens, valid, width=len(self.mean))
        rows = torch.arange(len(tokens)) if rows is None else rows
        for part in rows.split(max(1, _NUMBERS // math.prod(tokens.shape[1:]))):
            yield _take(tokens, valid, part, mean=self.mean, scale=self.scale)


def fit_attentive(
    tokens: Tensor,
    valid: Tensor | None,
    labels: Tensor,
    *,
    rows: Tensor | None = None,
    lrs: Sequence[float] = LRS,
    decays: Sequence[float] = DECAYS,
    heads: int = 4,
    epochs: int = 20,
    batch_size: int = 128,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> AttentiveProbe:
    """Fit an attentive probe, as V-JEPA is evaluated with (Bardes et al. 2024; after CAE, Chen et al. 2022).

    A learned query per attention head attends over all real tokens, the heads' values are joined and layer-normed, and
    a linear map gives classes (cross-entropy) or values (mean square error on standardised labels; the norm takes out
    how large the pooled vector is, so a value that lies in its length alone cannot be read). All combinations
    of `lrs` and `decays` are trained at once, on the same batches, with AdamW and a cosine schedule that ends at 0. The
    best one on a stratified fifth of the samples, held out at random, is then fitted anew on all of them, for as many
    epochs. Where nothing can be held out (a single sample of every class), it is the middle setting.

    Deviations: there is one cross attention and its norm, without the residual connection, output projection and MLP
    of V-JEPA's block, nor a key projection, which a learned query makes up for; no warmup. It begins as mean pooling
    (queries 0, values the channels themselves, linear map 0), so that no random number but the order of the samples
    plays a part. Channels are standardised by the real tokens of these samples first.

    Args:
        tokens: (n, N, D), float16, float32 or float64 (computed in float64 then); may be mapped from a file.
        valid: (n, N) bool, False for padding, which is never attended to; None where all are real.
        labels: (n,) int64 classes from 0, or (n, d) floats.
        rows: (m,) int64 numbers of the samples to fit on, whose `labels` are given; None for all. Nothing else of
            the tokens is looked at.
        lrs: learning rates to choose from.
        decays: weight decays to choose from, as of AdamW; the bias has none.
        heads: attention heads.
        epochs: passes over the samples.
        batch_size: samples a step; fewer where that would be more than an eighth of the samples, but at least 8.
        seed: of the held-out fifth and the order of the samples.
        device: where to compute; None: where the tokens are.

    Raises:
        ValueError: tensors that do not fit each other, features that are not finite, or a setting out of range.
    """
    rows = torch.arange(len(tokens)) if rows is None else rows.cpu()
    _check(tokens, valid)
    classes = not labels.is_floating_point()
    _check_labels(labels, len(rows))
    if min(heads, epochs, batch_size) < 1 or not lrs or not decays or min(lrs) <= 0 or min(decays) < 0:
        raise ValueError(
            f"expected at least one head, epoch, sample a batch, lr above 0 and decay from 0, got heads {heads}, "
            f"epochs {epochs}, batch_size {batch_size}, lrs {tuple(lrs)} and decays {tuple(decays)}"
        )
    with torch.inference_mode(False):
        mean, scale = statistics(tokens, valid, rows)
        target: tuple[Tensor, Tensor] | None = None
        goal = labels.clone()
        if not classes:
            goal = labels.to(mean.dtype)
            target = goal.mean(0), goal.std(0, correction=0).clamp(min=1e-12)
            goal = (goal - target[0]) / target[1]
        device = tokens.device if device is None else torch.device(device)
        mean, scale, goal = mean.to(device), scale.to(device), goal.to(device)
        target = None if target is None else (target[0].to(device), target[1].to(device))

        def train(of: Tensor, settings: Sequence[tuple[float, float]]) -> Parameters:
            order = batch_order(len(of), epochs=epochs, batch_size=batch_size, seed=seed)
            outputs = int(goal.max()) + 1 if classes else goal.shape[1]
            parameters = start(len(settings), heads, len(mean), outputs, like=mean)
            optimizer = BatchedAdamW(parameters, settings, steps=len(order))
            for batch in order:
                chosen = of[batch]
                x, mask = _take(tokens, valid, rows[chosen], mean=mean, scale=scale)
                optimizer.step(x, mask, goal[chosen.to(device)])
            return parameters

        settings = list(product(lrs, decays))
        best = (lrs[len(lrs) // 2], decays[len(decays) // 2])
        held = held_out(labels, seed=seed)
        if len(settings) == 1:
            best = settings[0]
        elif held.any():
            kept, asked = (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)
            probes = train(kept, settings)
            best = settings[_best(probes, tokens, valid, rows[asked], goal[asked.to(device)], mean=mean, scale=scale)]
        fitted = train(torch.arange(len(rows)), [best])
    return AttentiveProbe(fitted, mean=mean, scale=scale, target=target, lr=best[0], decay=best[1])


def statistics(tokens: Tensor, valid: Tensor | None, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and scale (D,) of the channels over the real tokens of some samples; a constant one's scale is 1.

    Raises:
        ValueError: they are not finite, or there is no real token.
    """
    width = tokens.shape[2]
    total, square, number = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64), 0
    shift: Tensor | None = None  # near the mean, so that the squares do not drown it
    for part in rows.split(max(1, _NUMBERS // (4 * math.prod(tokens.shape[1:])))):
        here = part.to(tokens.device)
        x = tokens[here].double()
        flat = (x.flatten(0, 1) if valid is None else x[valid[here]]).cpu()
        if len(flat):
            shift = flat.mean(0) if shift is None else shift
            total += (flat - shift).sum(0)
            square += (flat - shift).square().sum(0)
            number += len(flat)
    if shift is None:
        raise ValueError("expected at least one real token, got none")
    mean = total / number
    std = (square / number - mean.square()).clamp(min=0).sqrt()
    mean = mean + shift
    if not (mean.isfinite().all() and std.isfinite().all()):
        raise ValueError("expected finite features, got NaN or infinity: the model they come from has diverged")
    scale = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, 1.0)
    dtype = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    return mean.to(dtype), scale.to(dtype)


@torch.no_grad()
def _best(
    probes: Parameters,
    tokens: Tensor,
    valid: Tensor | None,
    rows: Tensor,
    goal: Tensor,
    *,
    mean: Tensor,
    scale: Tensor,
) -> int:
    """Find the probe with the most right answers, and of those the lowest loss; of values, the lowest loss."""
    size = max(1, _NUMBERS // math.prod(tokens.shape[1:]))
    outputs = torch.cat(
        [forward(probes, *_take(tokens, valid, part, mean=mean, scale=scale)) for part in rows.split(size)], dim=1
    )
    loss = losses(outputs, goal).nan_to_num(nan=math.inf).tolist()
    right = [0] * len(loss) if goal.is_floating_point() else (outputs.argmax(-1) == goal).sum(1).tolist()
    return min(range(len(loss)), key=lambda number: (-right[number], loss[number]))


def _take(
    tokens: Tensor, valid: Tensor | None, rows: Tensor, *, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Standardise the tokens of some samples, 0 at padding; and say which are real."""
    rows = rows.to(tokens.device)
    x = tokens[rows].to(mean.device, mean.dtype, copy=False).sub_(mean).div_(scale)  # the index has made a copy
    if valid is None:
        return x, None
    mask = valid[rows].to(mean.device)
    return x.masked_fill_(~mask.unsqueeze(-1), 0), mask


def _check(tokens: Tensor, valid: Tensor | None, *, width: int | None = None) -> None:
    if tokens.ndim != 3 or not tokens.is_floating_point() or not all(tokens.shape[1:]):
        raise ValueError(f"expected tokens (n, N, D) of floats, got {tokens.dtype} of the shape {tuple(tokens.shape)}")
    if valid is not None and (valid.shape != tokens.shape[:2] or valid.dtype != torch.bool):
        raise ValueError(
            f"expected valid (n, N) bool like the tokens {tuple(tokens.shape)}, got {valid.dtype} of the shape "
            f"{tuple(valid.shape)}"
        )
    if width is not None and tokens.shape[2] != width:
        raise ValueError(f"expected tokens of the {width} channels that the probe was fitted on, got {tokens.shape[2]}")


def _check_labels(labels: Tensor, count: int) -> None:
    fits = labels.ndim == 2 and labels.shape[1] > 0 if labels.is_floating_point() else labels.dtype == torch.int64
    if not fits or len(labels) != count or count < 2 or (labels.ndim != 1 and not labels.is_floating_point()):
        raise ValueError(
            f"expected labels (n,) int64 or (n, d) floats of n = {count} samples, at least 2, got {labels.dtype} of "
            f"the shape {tuple(labels.shape)}"
        )
    if labels.is_floating_point() and not labels.isfinite().all():
        raise ValueError("expected labels that are finite, got NaN or infinity: leave those samples out")
    if not labels.is_floating_point() and int(labels.min()) < 0:
        raise ValueError("expected classes from 0, got a negative one: leave those samples out")
