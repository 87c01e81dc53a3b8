"""Masked prediction with a latent z: several predictions for one context."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from jepa_lightning.precision import autocast_in_half
from jepa_lightning.predictors.base import PredictorSpec
from jepa_lightning.pretexts.base import Networks, Outcome, Prediction
from jepa_lightning.pretexts.masked import Masked, ask
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Latents, Masks, Query, Tokens

if TYPE_CHECKING:
    from jepa_lightning.modality import Modality


class LatentCodes(Masked):
    """Predict the hidden tokens several times, once for each code of a small codebook; only the best must be right.

    A context does not decide what is hidden: a deterministic predictor learns the mean of what is possible. A latent z
    that the predictor is told besides the context selects one of the possibilities (LeCun 2022, "A path towards
    autonomous machine intelligence", section 4.5: energy-based models with latent variables; the energy is the minimum
    over z). Here z is one of `codes` learned vectors, given to the predictor as its condition, and the loss of a sample
    is that of its best code (multiple choice learning: Guzman-Rivera et al. 2012), plus a small share of the mean over
    codes, without which a code that is never the best would never be trained. All targets of a sample share one z; the
    number of codes bounds what it can tell, log2(codes) bits a sample.

    The codes belong to the pretext and are trained with the rest. The predictor must take a condition
    (`TransformerPredictor`, `AdaLNPredictor`, `MLPPredictor`), and is called with a batch `codes` times as large.

    Args:
        codes: number S of codes.
        width: channels of a code.
        mean: share of the mean over codes in the loss, from 0 to 1; the rest is that of the best.
        target_sees: see `Masked`.
        norm_targets: see `Masked`.

    Raises:
        ValueError: a setting is out of range.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.predictors import TransformerPredictor
        >>> from jepa_lightning.pretexts import LatentCodes
        >>> from modalities.image import Image
        >>> modality = Image(image_size=48, patch_size=8, encoder=partial(ViT, width=32, depth=2, heads=2))
        >>> predictor = partial(TransformerPredictor, width=16, depth=1, heads=2)
        >>> jepa = JEPA(modality, pretext=LatentCodes(codes=4), predictor=predictor)
        >>> outcome = jepa.step({"image": torch.randn(2, 3, 48, 48)}, torch.Generator().manual_seed(0))
        >>> outcome.predictions[0].predicted.shape[:3]  # codes, samples, blocks
        torch.Size([4, 2, 4])
    """

    def __init__(
        self,
        *,
        codes: int = 4,
        width: int = 32,
        mean: float = 0.05,
        target_sees: Literal["all", "targets"] = "all",
        norm_targets: bool = True,
    ) -> None:
        super().__init__(target_sees=target_sees, norm_targets=norm_targets)
        self.codes = codebook(codes, width, mean)
        self.mean = mean

    def predictor_spec(self, modality: Modality, target: Target) -> PredictorSpec | None:
        """Return the spec of a predictor that is told a code."""
        spec = super().predictor_spec(modality, target)
        return None if spec is None else replace(spec, condition=self.codes.shape[1])

    def predict(self, nets: Networks, tokens: Tokens, masks: list[Masks]) -> Outcome:
        """Encode the contexts, predict the hidden tokens with each code, and encode the targets."""
        with autocast_in_half(tokens.device):
            context = self.contexts(nets, tokens, masks)
            asked = [ask(tokens, mask, number) for number, mask in enumerate(masks)]
            guesses = [self.with_codes(nets, seen, query) for seen, query in zip(context, asked, strict=True)]
        targets, seen = self.targets(nets.target, tokens, masks)
        predictions = [
            Prediction(predicted=guess, target=target, valid=mask.targets_valid, over=self.mean)
            for guess, target, mask in zip(guesses, targets, masks, strict=True)
        ]
        return Outcome(predictions=predictions, context=context, target=seen)

    def with_codes(self, nets: Networks, context: Latents, query: Query) -> torch.Tensor:
        """Predict with each code: (S, B, M, T, D), in one call of the predictor."""
        count, batch = len(self.codes), len(context.values)

        def repeated(x: torch.Tensor | None) -> torch.Tensor | None:
            return None if x is None else x.expand(batch, *x.shape[1:]).repeat(count, *[1] * (x.ndim - 1))

        told = Latents(values=self.codes.repeat_interleave(batch, 0).unsqueeze(1))
        positions, valid = repeated(context.positions), repeated(context.valid)
        seen = Latents(values=repeated(context.values), positions=positions, valid=valid)  # type: ignore[arg-type]
        asked = replace(query, positions=repeated(query.positions), valid=repeated(query.valid))  # type: ignore[arg-type]
        return nets.predictor(seen, asked, told).unflatten(0, (count, batch))


def codebook(codes: int, width: int, mean: float) -> nn.Parameter:
    """Codes (S, width) of a latent z, drawn from a standard normal distribution.

    Raises:
        ValueError: a setting is out of range; `mean` is the share of the mean over codes in the loss.
    """
    if min(codes, width) < 1 or not 0 <= mean <= 1:
        raise ValueError(f"expected at least 1 code and channel, and mean from 0 to 1; got {codes}, {width}, {mean}")
    return nn.Parameter(torch.randn(codes, width))
