"""Masked prediction with a loss on the context's tokens, too, and targets from several layers (V-JEPA 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.encoders.layers import check_layers, layer_numbers
from jepa_lightning.precision import autocast_in_half
from jepa_lightning.predictors.base import PredictorSpec
from jepa_lightning.pretexts.base import Networks, Outcome, Prediction
from jepa_lightning.pretexts.masked import Masked, ask
from jepa_lightning.schedules import DelayedRamp, Schedule
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Latents, Masks, Tokens, take

if TYPE_CHECKING:
    from jepa_lightning.modality import Modality


class Dense(Masked):
    """Predict the target's representations of all tokens: of the hidden ones, and of the context's own.

    V-JEPA 2.1 (Mur-Labadia et al. 2026, arXiv:2603.14482): without a loss on them, context tokens turn into registers
    of what is global, and dense features suffer. The loss is

        L = mean over hidden tokens of |predicted - target| + lambda mean over context tokens of |...| / sqrt(d)

    with the model's objective, where d is the distance of a context token to the nearest hidden one, in tokens, and
    lambda warms up from zero. With `layers` (deep supervision) the target is what these layers make of the sample,
    each layer-normed, side by side, and the predictor is given these layers of the context, fused by an MLP.

    The collapse monitor and regularizers of the context see the last layer; those of targets and predictions see all.

    Deviations: the inner layers of the context are layer-normed without learned weights before they are fused, where
    the official code learns them. There, distances can be scaled at other image sizes than 256.
    Weights of images and clips are one setting, since a run has one modality.

    Args:
        context_weight: lambda, a number or a schedule; 0.5 in the official code, zero for the first 15,000 steps, and
            whole after 30,000.
        by_distance: divide by sqrt(d); false for the same weight on all context tokens.
        layers: layers of the encoder that are predicted and given to the predictor, the last one at the end
            ([4, 11, 17, 23] of 24 in the official code); empty for the encoder's output alone.

    Raises:
        ValueError: the encoder has no such layers, the last one is missing, or the predictor does not predict the
            context.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.predictors import TransformerPredictor
        >>> from jepa_lightning.pretexts import Dense
        >>> from modalities.image import Image
        >>> modality = Image(image_size=48, patch_size=8, encoder=partial(ViT, width=32, depth=3, heads=2))
        >>> predictor = partial(TransformerPredictor, width=16, depth=1, heads=2)
        >>> jepa = JEPA(modality, pretext=Dense(context_weight=0.5, layers=[0, 2]), predictor=predictor)
        >>> outcome = jepa.step({"image": torch.randn(2, 3, 48, 48)}, torch.Generator().manual_seed(0))
        >>> len(outcome.predictions), outcome.predictions[0].target.shape[-1]
        (2, 64)
    """

    def __init__(
        self,
        *,
        context_weight: float | Schedule = DelayedRamp(start=0.0, end=0.5),
        by_distance: bool = True,
        layers: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.context_weight = context_weight
        self.by_distance = by_distance
        self.layers = tuple(layers)
        self.fuse: nn.Module = nn.Identity()

    def build(self, modality: Modality, target: Target) -> None:
        """Build the MLP that fuses the context's layers."""
        if not self.layers:
            return
        for encoder in (modality.encoder, target.encoder):
            check_layers(encoder, self.layers)
        depth = modality.encoder.depth
        if layer_numbers(self.layers, depth)[-1] != depth - 1:
            raise ValueError(
                f"expected layers that end with the encoder's last one, {depth - 1}, whose output is evaluated; got "
                f"{list(self.layers)}"
            )
        dim = modality.encoder.dim
        self.fuse = nn.Sequential(nn.Linear(len(self.layers) * dim, dim), nn.GELU())
        nn.init.trunc_normal_(self.fuse[0].weight, std=0.02)  # type: ignore[arg-type]
        nn.init.zeros_(self.fuse[0].bias)  # type: ignore[arg-type]

    def predictor_spec(self, modality: Modality, target: Target) -> PredictorSpec | None:
        """Return the spec of a predictor of all layers' representations, of the context's tokens, too."""
        out = self.latent_dims(modality, target)[1]
        return PredictorSpec(dim=modality.encoder.dim, out=out, token=modality.spec, predict_context=True)

    def latent_dims(self, modality: Modality, target: Target) -> tuple[int, int]:
        """Return the encoder's width, and that of all predicted layers side by side."""
        return modality.encoder.dim, target.dim * max(len(self.layers), 1)

    def predict(self, nets: Networks, tokens: Tokens, masks: list[Masks]) -> Outcome:
        """Encode the contexts, predict hidden tokens and then the context's, and encode the targets."""
        with autocast_in_half(tokens.device):
            encoded = [self.encode(nets, tokens, mask) for mask in masks]
            asked = [ask(tokens, mask, number) for number, mask in enumerate(masks)]
            predicted = [nets.predictor(fused, query) for (fused, _), query in zip(encoded, asked, strict=True)]
        targets, (target,) = self.targets(nets.target, tokens, masks)
        seen = target.values
        hidden, visible = [], []
        for guess, own, mask in zip(predicted, targets, masks, strict=True):
            kept, count = mask.context.shape[1], mask.targets.shape[2]
            if guess.shape[2] != kept + count:
                raise ValueError(
                    f"expected predictions of {kept} context tokens and {count} hidden ones, got {guess.shape[2]}: use "
                    "TransformerPredictor, or a predictor that obeys its spec's predict_context"
                )
            hidden.append(
                Prediction(
                    predicted=guess[:, :, kept:],
                    target=own,
                    valid=mask.targets_valid,
                    share=1 / len(masks),
                )
            )
            visible.append(self.of_context(guess[:, :, :kept], tokens, seen, mask, share=1 / len(masks)))
        return Outcome(predictions=hidden + visible, context=[last for _, last in encoded], target=[target])

    def encode(self, nets: Networks, tokens: Tokens, mask: Masks) -> tuple[Latents, Latents]:
        """Encode the kept tokens: what the predictor is given, and the encoder's output."""
        positions = take(tokens.positions, mask.context)
        if not self.layers:
            values = nets.encoder(tokens, mask.context, mask.context_valid)
            latents = Latents(values=values, positions=positions, valid=mask.context_valid)
            return latents, latents
        values = nets.encoder(tokens, mask.context, mask.context_valid, layers=self.layers)  # (B, K, L, D)
        last = values[:, :, -1]
        inner = F.layer_norm(values[:, :, :-1], values.shape[-1:])
        fused = self.fuse(torch.cat([inner, last.unsqueeze(2)], dim=2).flatten(2))
        given, last = (Latents(values=v, positions=positions, valid=mask.context_valid) for v in (fused, last))
        return given, last

    def targets(self, target: Target, tokens: Tokens, masks: list[Masks]) -> tuple[list[Tensor], list[Latents]]:
        """Encode all tokens, each layer normed, side by side: (B, M, T, L D) for each mask, and (B, N, L D) of all."""
        values = target(tokens, layers=self.layers) if self.layers else target(tokens).unsqueeze(2)
        seen = F.layer_norm(values, values.shape[-1:]).flatten(2)
        every = Latents(values=seen, positions=tokens.positions, valid=tokens.valid)
        return [take(seen, mask.targets) for mask in masks], [every]

    def of_context(self, guess: Tensor, tokens: Tokens, seen: Tensor, mask: Masks, *, share: float) -> Prediction:
        """Make the prediction of the context's tokens: `guess` (B, M, K, L D) beside each block."""
        blocks = guess.shape[1]
        weight = torch.ones_like(mask.context, dtype=torch.float32)
        if self.by_distance:
            weight = nearest_hidden(tokens, mask).rsqrt()
        valid = mask.context_valid
        kept = torch.ones_like(weight, dtype=torch.bool) if valid is None else valid
        # The objective divides by the sum of weights, the paper by the number of tokens.
        mean = weight.masked_fill(~kept, 0).sum() / kept.sum().clamp(min=1)
        target, kept, weight = (
            each.unsqueeze(1).expand(-1, blocks, *each.shape[1:]) for each in (take(seen, mask.context), kept, weight)
        )
        return Prediction(
            predicted=guess, target=target, valid=kept, weight=weight, share=share * mean, ramp=self.context_weight
        )


def nearest_hidden(tokens: Tokens, mask: Masks) -> Tensor:
    """Distance of each context token to the nearest hidden one, in the units of positions: (B, K), above zero."""
    context = take(tokens.positions, mask.context).float()
    hidden = take(tokens.positions, mask.targets).flatten(1, 2).float()
    apart = torch.cdist(context, hidden)  # (B, K, M T)
    if mask.targets_valid is not None:
        real = mask.targets_valid.flatten(1)
        real = real | ~real.any(1, keepdim=True)  # a sample without targets must not become infinite
        apart = apart.masked_fill(~real.unsqueeze(1), torch.inf)
    return apart.amin(-1).clamp(min=1e-6)
