"""Masked prediction: the method of I-JEPA, V-JEPA, Audio-JEPA, Point-JEPA and Graph-JEPA."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lightning.precision import autocast_in_half
from jepa_lightning.pretexts.base import Networks, Outcome, Prediction, Pretext
from jepa_lightning.pretexts.contract import check_masks
from jepa_lightning.scale.ahead import MasksAhead
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Latents, Masks, Query, Tokens, take

if TYPE_CHECKING:
    from jepa_lightning.modality import Batch


class Masked(Pretext):
    """Hide some tokens, encode the rest, predict the target's representations of the hidden tokens.

    I-JEPA (Assran et al. 2023, section 3). Targets are layer-normed. With several masks (V-JEPA: Bardes et al. 2024,
    section 3.2) the target encodes a sample once, and all masks' predictions have the same weight.

    Args:
        target_sees: input of the target: "all" tokens of the sample, of which the hidden ones are selected (I-JEPA), or
            the "targets" only, separately for each mask (M2D: Niizumi et al. 2023, arXiv:2210.14648).
        norm_targets: whether to layer-norm the targets; false for a target with a scale of its own, or an objective
            without one (`Cosine`).
        one_call: encode the contexts of several masks in one call (V-JEPA 2), with as many samples as masks times the
            batch; shorter contexts are padded. Faster where single calls leave a GPU idle, slower where they do not.
            The values are the same, except of encoders that draw (stochastic depth) or normalise over the batch.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.predictors import TransformerPredictor
        >>> from jepa_lightning.pretexts import Masked
        >>> from modalities.image import Image
        >>> modality = Image(image_size=48, patch_size=8, encoder=partial(ViT, width=32, depth=2, heads=2))
        >>> predictor = partial(TransformerPredictor, width=16, depth=1, heads=2)
        >>> jepa = JEPA(modality, pretext=Masked(target_sees="all"), predictor=predictor)
        >>> outcome = jepa.step({"image": torch.randn(2, 3, 48, 48)}, torch.Generator().manual_seed(0))
        >>> outcome.target[0].values.shape
        torch.Size([2, 36, 32])
    """

    recordable = True

    def __init__(
        self,
        *,
        target_sees: Literal["all", "targets"] = "all",
        norm_targets: bool = True,
        one_call: bool = False,
    ) -> None:
        super().__init__()
        if target_sees not in ("all", "targets"):
            raise ValueError(f"target_sees must be all or targets, got {target_sees!r}")
        self.target_sees = target_sees
        self._checked = False  # the masker's masks
        self.ahead: MasksAhead = MasksAhead()
        self.norm_targets = norm_targets
        self.one_call = one_call

    def forward(self, nets: Networks, batch: Batch, generator: torch.Generator) -> Outcome:
        """Tokenize, draw masks, predict."""
        tokens = nets.modality.tokenizer(batch)
        return self.predict(nets, tokens, self.masks(nets, tokens, generator))

    def predict(self, nets: Networks, tokens: Tokens, masks: list[Masks]) -> Outcome:
        """Encode the contexts, predict the hidden tokens, and encode the targets."""
        with autocast_in_half(tokens.device):
            context = self.contexts(nets, tokens, masks)
            asked = [ask(tokens, mask, number) for number, mask in enumerate(masks)]
            predicted = [nets.predictor(c, query) for c, query in zip(context, asked, strict=True)]
        targets, seen = self.targets(nets.target, tokens, masks)
        predictions = [
            Prediction(predicted=guess, target=target, valid=mask.targets_valid)
            for guess, target, mask in zip(predicted, targets, masks, strict=True)
        ]
        return Outcome(predictions=predictions, context=context, target=seen)

    def masks(self, nets: Networks, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw masks with the modality's masker, or take those that were drawn ahead; see `MasksAhead`."""
        masks = self.ahead.draw(nets.modality.masker, tokens, generator)
        if not self._checked:
            check_masks(masks, tokens, nets.modality.masker)
            self._checked = True
        return masks

    def targets(self, target: Target, tokens: Tokens, masks: list[Masks]) -> tuple[list[Tensor], list[Latents]]:
        """Encode the targets, layer-normed or not: (B, M, T, D) for each mask, and all encoded tokens."""
        if self.target_sees == "all":
            seen = self._normed(target(tokens))
            return [take(seen, m.targets) for m in masks], [_latents(seen, tokens.positions, tokens.valid)]
        targets = [self._normed(encode_apart(target, tokens, m.targets, m.targets_valid)) for m in masks]
        places = [take(tokens.positions, m.targets).flatten(1, 2) for m in masks]
        valid = [None if m.targets_valid is None else m.targets_valid.flatten(1) for m in masks]
        return targets, [_latents(t.flatten(1, 2), p, v) for t, p, v in zip(targets, places, valid, strict=True)]

    def contexts(self, nets: Networks, tokens: Tokens, masks: list[Masks]) -> list[Latents]:
        """Encode the contexts of all masks, one after the other or in one call."""
        if self.one_call and len(masks) > 1:
            return encode_together(nets, tokens, masks)
        return [encode_context(nets, tokens, mask) for mask in masks]

    def _normed(self, targets: Tensor) -> Tensor:
        return F.layer_norm(targets, targets.shape[-1:]) if self.norm_targets else targets


def encode_context(nets: Networks, tokens: Tokens, mask: Masks) -> Latents:
    """Encode the kept tokens with the context encoder, with their positions."""
    values = nets.encoder(tokens, mask.context, mask.context_valid)
    return _latents(values, take(tokens.positions, mask.context), mask.context_valid)


def encode_together(nets: Networks, tokens: Tokens, masks: list[Masks]) -> list[Latents]:
    """Encode the contexts of several masks in one call, the shorter ones padded to the longest."""
    sizes = [mask.context.shape[1] for mask in masks]
    longest = max(sizes)
    keep = torch.cat([F.pad(mask.context, (0, longest - size)) for mask, size in zip(masks, sizes, strict=True)])
    valid = None
    if min(sizes) < longest or any(mask.context_valid is not None for mask in masks):
        every = (m.context_valid for m in masks)
        real = [
            torch.ones_like(m.context, dtype=torch.bool) if v is None else v for m, v in zip(masks, every, strict=True)
        ]
        valid = torch.cat([F.pad(each, (0, longest - each.shape[1])) for each in real])
    encoded = nets.encoder(repeat_samples(tokens, len(masks)), keep, valid).chunk(len(masks))
    return [
        _latents(values[:, :size], take(tokens.positions, mask.context), mask.context_valid)
        for values, size, mask in zip(encoded, sizes, masks, strict=True)
    ]


def repeat_samples(tokens: Tokens, times: int) -> Tokens:
    """Repeat a batch of tokens: all samples, then all again."""
    raw, positions, valid = tokens.values, tokens.positions, tokens.valid
    if not isinstance(raw, Tensor):
        raise ValueError("tokens of several sizes cannot be encoded in one call: set one_call to false")
    return replace(
        tokens,
        values=raw.repeat(times, *[1] * (raw.ndim - 1)),
        positions=positions if positions.shape[0] == 1 else positions.repeat(times, 1, 1),
        valid=None if valid is None else valid.repeat(times, 1),
    )


def ask(tokens: Tokens, mask: Masks, number: int = 0) -> Query:
    """Return the positions of the hidden tokens of a draw of masks, with its number."""
    return Query(positions=take(tokens.positions, mask.targets), valid=mask.targets_valid, mask=number)


def encode_apart(target: Target, tokens: Tokens, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Encode `targets` (B, M, T) without the other tokens of the sample: (B, M, T, D).

    The targets of a sample are encoded together; a token in several blocks is encoded once.
    """
    if targets.shape[1] == 1:
        return target(tokens, targets[:, 0], None if valid is None else valid[:, 0]).unsqueeze(1)
    count = tokens.count
    index = targets if valid is None else targets.masked_fill(~valid, count)
    ordered = index.flatten(1).sort(dim=1).values
    new = ordered < count
    new[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    kept = ordered.masked_fill(~new, 0)
    encoded = target(tokens, kept, new)
    place = ordered.masked_fill(~new, count).unsqueeze(-1).expand_as(encoded)  # filler goes to an extra slot
    every = encoded.new_zeros(encoded.shape[0], count + 1, encoded.shape[2]).scatter(1, place, encoded)
    return take(every, targets)


def _latents(values: Tensor, positions: Tensor, valid: Tensor | None) -> Latents:
    return Latents(values=values, positions=positions, valid=valid)
