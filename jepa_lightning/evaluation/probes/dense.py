"""A probe of single tokens: what a linear map of each says of the pixels of its patch (segmentation, depth)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.evaluation.probes.classification import C_GRID, best_c, fit_linear, mean_and_scale
from jepa_lightning.evaluation.probes.held_out import random_fifth
from jepa_lightning.evaluation.probes.regression import PENALTIES, fit_ridge

MOST = 100_000
"""Tokens that a probe is fitted on, at most."""

_CHUNK = 256  # samples at a time
_NEVER = -1e9  # logit of a class that fills no patch


@dataclass(frozen=True)
class DenseProbe:
    """A linear map of each token, interpolated bilinearly to the pixels.

    Attributes:
        weight: (outputs, D) of the map, for standardised tokens; an output is a class, or the value.
        bias: (outputs,).
        mean: (D,) of the tokens that it was fitted on.
        scale: (D,) of the same.
        classes: whether outputs are classes.
        chosen: C of the logistic regression, or the ridge's penalty.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    classes: bool
    chosen: float

    def outputs(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (n, N, D) to logits (n, classes, H, W), or to values (n, 1, H, W), of the pixels."""
        found = F.linear((tokens.float() - self.mean) / self.scale, self.weight, self.bias)
        maps = found.transpose(1, 2).unflatten(2, grid_of(tokens.shape[1], size))
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def fit_dense(tokens: Tensor, maps: Tensor, *, classes: int | None = None, seed: int = 0) -> DenseProbe:
    """Fit a linear map of tokens to what is on their patches: the linear probe of DINOv2 for segmentation and depth.

    (Oquab et al. 2023, arXiv:2304.07193, section 7.4, "lin.") Of classes it is a multinomial logistic regression on the
    class that most pixels of the patch have; of values a ridge regression on their mean. The penalty is chosen on a
    fifth of the samples, then the probe is fitted on all, of which at most `MOST` tokens are drawn.

    Deviation: there, the map is trained by gradient descent on pixels, behind the interpolation, and depth is a mixture
    of bins. This one has a single solution, and nothing to tune.

    Args:
        tokens: (n, N, D) of tokens that fill a grid in raster order.
        maps: (n, H, W) int64 classes from 0, -1 for none; or floats, NaN for none.
        classes: number of classes, of which some may be in no patch; None: those of the maps.
        seed: of the tokens drawn.

    Raises:
        ValueError: tokens that fill no grid of the map's shape, are not finite, or a map without labels.

    Examples:
        >>> import torch
        >>> from jepa_lightning.evaluation.probes.dense import fit_dense
        >>> depth = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> tokens = depth.flatten(2).transpose(1, 2)  # (40, 16, 1): each token is what its patch shows
        >>> maps = depth.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, 0]
        >>> probe = fit_dense(tokens, maps)
        >>> bool((probe.outputs(tokens, (4, 4)) - depth).abs().max() < 0.01)
        True
    """
    if tokens.ndim != 3 or maps.ndim != 3 or len(tokens) != len(maps):
        raise ValueError(
            f"expected tokens (n, N, D) and maps (n, H, W), got {tuple(tokens.shape)} and {tuple(maps.shape)}"
        )
    continuous = maps.is_floating_point()
    targets = patch_labels(maps, grid_of(tokens.shape[1], (maps.shape[1], maps.shape[2]))).flatten(1)  # (n, N)
    known = (targets.isfinite() if continuous else targets >= 0).flatten().nonzero().squeeze(1)
    if len(known) < 2:
        raise ValueError(f"expected labels on at least 2 patches of the {len(maps)} training samples, got {len(known)}")
    drawn = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:MOST].to(known.device)
    known = known[drawn]
    features = tokens.reshape(-1, tokens.shape[2])[known].float()
    if not features.isfinite().all():
        raise ValueError("expected finite tokens, got NaN or infinity: the model they come from has diverged")
    mean, scale = mean_and_scale(features)
    features, wanted = (features - mean) / scale, targets.flatten()[known]
    held_samples, _ = random_fifth(len(tokens), tokens.device)
    held = torch.isin(known // tokens.shape[1], held_samples)  # whole samples: neighbours in an image are alike
    chooses = bool(held.any() and not held.all())
    if not continuous:
        split = features[~held], wanted[~held], features[held], wanted[held]
        chosen = best_c(*split, grid=C_GRID) if chooses else 1.0
        weight, bias = fit_linear(features, wanted, c=chosen)
        missing = max(int(maps.max()) + 1, classes or 0) - len(bias)  # the last ones, which fill no patch
        weight, bias = F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing), value=_NEVER)
        return DenseProbe(weight, bias, mean, scale, True, chosen)
    middle, spread = wanted.double().mean(), wanted.double().std(correction=0).clamp(min=1e-12)
    values = ((wanted.double() - middle) / spread).float()[:, None]
    chosen = _best_penalty(features, values, held) if chooses else PENALTIES[0]
    weight, bias = fit_ridge(features, values, penalty=chosen)
    return DenseProbe(weight * spread.float(), bias * spread.float() + middle.float(), mean, scale, False, chosen)


def _best_penalty(features: Tensor, values: Tensor, held: Tensor) -> float:
    errors = []
    for penalty in PENALTIES:
        weight, bias = fit_ridge(features[~held], values[~held], penalty=penalty)
        errors.append(float((F.linear(features[held], weight, bias) - values[held]).square().mean()))
    return PENALTIES[errors.index(min(errors))]


@torch.no_grad()
def count_pixels(probe: DenseProbe, tokens: Tensor, maps: Tensor) -> Tensor:
    """Count what the score of a probe is made of, for each sample: `moments_of` of its predictions.

    Args:
        probe: fitted.
        tokens: (m, N, D).
        maps: (m, H, W).
    """
    size = maps.shape[1], maps.shape[2]
    found = []
    for few, goal in zip(tokens.split(_CHUNK), maps.split(_CHUNK), strict=True):
        found.append(moments_of(probe.outputs(few, size), goal if probe.classes else goal[:, None].float()))
    return torch.cat(found)


def moments_of(outputs: Tensor, goal: Tensor) -> Tensor:
    """Count what scores of pixels are made of, for each sample; see `Moments`.

    Args:
        outputs: logits (B, C, H, W), or values (B, 1, H, W).
        goal: classes (B, H, W), -1 for none: the result is (B, 2 C). Or values (B, 1, H, W), NaN for none: (B, 4).
    """
    if goal.is_floating_point():
        known, goal = goal.isfinite(), goal.nan_to_num()
        errors = (outputs - goal).square()
        parts = [
            (part * known).double().sum((1, 2, 3)) for part in (errors, goal, goal.square(), torch.ones_like(goal))
        ]
        return torch.stack(parts, 1)
    known, said = goal >= 0, outputs.argmax(1)
    inside, union = [], []
    for number in range(outputs.shape[1]):
        there, guessed = goal == number, (said == number) & known
        inside.append((there & guessed).sum((1, 2)))
        union.append((there | guessed).sum((1, 2)))
    return torch.stack([*inside, *union], 1).double()


def grid_of(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """Find the grid (rows, columns) of `count` tokens that has the shape of a map of this size (H, W).

    Raises:
        ValueError: there is none.
    """
    rows = round(math.sqrt(count * size[0] / size[1]))
    if rows < 1 or count % rows or rows * size[1] != count // rows * size[0]:
        raise ValueError(
            f"expected tokens on a grid of the shape of the maps, {size[0]} x {size[1]} pixels, got {count} tokens: "
            "the probe dense is for images whose tokens fill a grid"
        )
    return rows, count // rows


def patch_labels(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Say what is on each patch of maps (n, H, W): (n, rows, columns).

    Args:
        maps: int64 classes, -1 for none: the class of most pixels, the lowest of equals; -1 for none. Or floats, NaN
            for none: their mean; NaN for none.
        grid: (rows, columns); patches of sides that are no multiples overlap by a pixel.
    """
    pooled = []
    for few in maps.split(_CHUNK):
        if maps.is_floating_point():
            known = few.isfinite()
            share = F.adaptive_avg_pool2d(known.double(), grid)
            pooled.append(F.adaptive_avg_pool2d(few.double().nan_to_num() * known, grid) / share)  # 0 / 0 is NaN
            continue
        best, found = few.new_zeros(len(few), *grid).double(), few.new_full((len(few), *grid), -1)
        for number in range(int(maps.max()) + 1):
            share = F.adaptive_avg_pool2d((few == number).double(), grid)
            more = share > best
            best, found = torch.where(more, share, best), torch.where(more, number, found)
        pooled.append(found)
    return torch.cat(pooled)
