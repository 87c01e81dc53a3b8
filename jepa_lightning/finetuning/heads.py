"""Heads: from an encoder's tokens to classes or values. A head begins where a probe of the frozen features ends."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.evaluation.probes.attentive_heads import forward, start
from jepa_lightning.evaluation.probes.classification import fit_linear, mean_and_scale
from jepa_lightning.evaluation.probes.probing import choose_stratified_c
from jepa_lightning.evaluation.probes.regression import choose_penalty, fit_ridge
from jepa_lightning.tokens import pool


class Head(nn.Module, ABC):
    """Maps tokens to outputs. Channels are standardised first, by the frozen features of the training samples."""

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def standardise(self, features: Tensor) -> None:
        """Take the statistics of channels from features (n, D); a constant channel is only shifted."""
        mean, scale = mean_and_scale(features)
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    @abstractmethod
    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map tokens (B, N, D), of which those are real where `valid` (B, N) is True, to outputs (B, outputs)."""


class LinearHead(Head):
    """A linear map of the mean of the real tokens.

    Args:
        dim: width D of a token.
        outputs: number of classes or values.
    """

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__(dim)
        self.linear = nn.Linear(dim, outputs)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map tokens (B, N, D) to outputs (B, outputs)."""
        return self.linear((pool(tokens, valid) - self.mean) / self.scale)

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Begin with the probe of frozen features, as LP-FT does (Kumar et al. 2022, arXiv:2202.10054).

        The probes are those of `jepa-probe`: logistic regression and ridge regression, their penalty chosen on a fifth
        of these samples.

        Args:
            features: (n, D), by which channels are standardised.
            labels: (n,) int64 classes, or (n, outputs) values.
        """
        self.standardise(features)
        scaled = (features - self.mean.cpu()) / self.scale.cpu()
        if labels.is_floating_point():
            weight, bias = fit_ridge(scaled, labels, penalty=choose_penalty(scaled, labels))
        else:
            weight, bias = fit_linear(scaled, labels, c=choose_stratified_c(scaled, labels))
        with torch.no_grad():
            self.linear.weight.zero_()[: len(weight)] = weight.to(self.linear.weight)  # the last classes may be absent
            self.linear.bias.zero_()[: len(bias)] = bias.to(self.linear.bias)


class AttentiveHead(Head):
    """A learned query per attention head attends over the real tokens, then a norm and a linear map.

    The head of V-JEPA's frozen evaluation, as `fit_attentive` simplifies it: it begins as mean pooling.

    Args:
        dim: width D of a token.
        outputs: number of classes or values.
        heads: attention heads.
    """

    def __init__(self, dim: int, outputs: int, *, heads: int = 4) -> None:
        super().__init__(dim)
        self.parts = nn.ParameterDict(start(1, heads, dim, outputs, like=torch.zeros(())))

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map tokens (B, N, D) to outputs (B, outputs)."""
        x = (tokens - self.mean) / self.scale
        x = x if valid is None else x.masked_fill(~valid.unsqueeze(-1), 0)
        with torch.autocast(x.device.type, enabled=False):
            return forward(dict(self.parts.items()), x.float(), valid)[0]


class DenseHead(Head):
    """A linear map of each token of a grid, interpolated to the pixels: the linear head of DINOv2's segmentation.

    Args:
        dim: width D of a token.
        outputs: number of classes or values.
    """

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__(dim)
        self.linear = nn.Linear(dim, outputs)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map tokens (B, N, D) to outputs of each (B, N, outputs)."""
        return self.linear((tokens - self.mean) / self.scale)

    def pixels(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Map feature maps (B, D, rows, columns) to outputs of pixels (B, outputs, height, width), bilinearly."""
        found = self(maps.flatten(2).mT).mT.unflatten(2, maps.shape[2:])
        return F.interpolate(found, size, mode="bilinear", align_corners=False)


HEADS: dict[str, type[LinearHead] | type[AttentiveHead] | type[DenseHead]] = {
    "linear": LinearHead,
    "attentive": AttentiveHead,
    "dense": DenseHead,
}


def loss_of(outputs: Tensor, goal: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Compute the mean cross-entropy with classes (B,), or the mean square error of values (B, outputs).

    Samples without a label (-1, NaN) are left out; none at all give 0.

    Args:
        outputs: (B, outputs).
        goal: (B,) int64 classes; or (B, outputs) float values.
        label_smoothing: of classes.
    """
    if not goal.is_floating_point():
        known = goal >= 0
        losses = F.cross_entropy(outputs, goal.clamp(min=0), label_smoothing=label_smoothing, reduction="none")
    else:
        known = goal.isfinite().all(1)
        losses = (outputs - goal.nan_to_num()).square().mean(1)
    return (losses * known).sum() / known.sum().clamp(min=1)


def loss_of_shares(outputs: Tensor, shares: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Compute the mean cross-entropy with shares of classes, of mixed samples; what has no label has no weight.

    Args:
        outputs: (B, classes).
        shares: (B, classes), of which a row sums to 1, to less where a sample without a label was mixed in, or to 0.
        label_smoothing: as of classes.
    """
    known = shares.sum(1)
    whole = shares / known.clamp(min=1e-12).unsqueeze(1)
    losses = F.cross_entropy(outputs, whole, label_smoothing=label_smoothing, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1e-12)
