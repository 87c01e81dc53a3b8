"""Predict the hidden tokens of one modality from the rest of it and all of another: TI-JEPA."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch

from jepa_lightning.joint_tokens import JointMasks, JointTokens
from jepa_lightning.multimodal.modality import Multimodal
from jepa_lightning.pretexts.alignment import Alignment, InfoNCE
from jepa_lightning.pretexts.base import Networks, Outcome
from jepa_lightning.pretexts.masked import Masked
from jepa_lightning.targets.base import Target
from jepa_lightning.tokens import Latents, Masks, Tokens, take

if TYPE_CHECKING:
    from jepa_lightning.modality import Modality

_log = logging.getLogger(__name__)


class CrossModal(Masked):
    """Predict hidden tokens of one modality from its other tokens and all of another, and align the two.

    TI-JEPA (Vo et al. 2025, arXiv:2503.06380) on a `Multimodal`: what is kept of an image and its whole caption predict
    the representations of the image's hidden patches; here also the other way round, hidden words from the rest of the
    caption and the whole image. The predictor sees the tokens of all modalities, told apart by a learned vector each.
    Targets are those of each modality's own target encoder, layer-normed.

    Latent prediction alone does not align the modalities: X-JEPA measured that retrieval fails with it and works with
    a small weight on an alignment. `alignment` is thus a second term of the loss (`train/loss_alignment`), on the
    pooled representations of whole samples.

    Deviations: TI-JEPA freezes both encoders and trains cross-attention modules on top of them, for the context and for
    the target. Here the encoders are trained (`Multimodal` freezes those that it is told to), and modalities meet in
    the predictor, by attention over all tokens; the target does not see the other modality. Both directions share one
    predictor. The reverse direction and the alignment are not in the paper.

    Args:
        predict: modalities whose tokens are hidden and predicted; None: all. Of those that are not, all is seen.
        alignment: the term that aligns them; None: `InfoNCE` with weight 0.1; false: none.
        norm_targets: see `Masked`.

    Raises:
        ValueError: the model has a single modality, or `predict` names none of its own.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.multimodal import Multimodal
        >>> from jepa_lightning.predictors import TransformerPredictor
        >>> from jepa_lightning.pretexts import CrossModal
        >>> from modalities.image import Image
        >>> from modalities.text import Text
        >>> small = partial(ViT, width=32, depth=1, heads=2)
        >>> image, text = Image(image_size=48, patch_size=8, encoder=small), Text(vocabulary=256, encoder=small)
        >>> predictor = partial(TransformerPredictor, width=16, depth=1, heads=2)
        >>> both = Multimodal(modalities={"image": image, "text": text})
        >>> jepa = JEPA(both, pretext=CrossModal(), predictor=predictor)
        >>> batch = {"image": torch.randn(2, 3, 48, 48), "text": ["A red ball on the grass.", "Two cats asleep."]}
        >>> outcome = jepa.step(batch, torch.Generator().manual_seed(0))
        >>> len(outcome.predictions), sorted(jepa.losses(outcome))  # of the image, and of the text
        (2, ['alignment', 'prediction'])
    """

    recordable = False

    def __init__(
        self,
        *,
        predict: Sequence[str] | None = None,
        alignment: Alignment | Literal[False] | None = None,
        norm_targets: bool = True,
    ) -> None:
        super().__init__(norm_targets=norm_targets)
        self.predict_parts = None if predict is None else tuple(predict)
        self.alignment: Alignment | None = InfoNCE() if alignment is None else alignment or None
        self._told = False

    @property
    def needs_regularizer(self) -> bool:  # type: ignore[override]
        """Whether the alignment collapses without one."""
        return self.alignment is not None and self.alignment.collapses

    def build(self, modality: Modality, target: Target) -> None:
        """Check that there are several modalities, and those to predict."""
        if not isinstance(modality, Multimodal):
            raise ValueError(
                f"CrossModal is for several modalities in one module, got {modality.name} alone: set model.modality to "
                "Multimodal"
            )
        unknown = sorted({*(self.predict_parts or ())} - {*modality.modalities})
        if unknown or self.predict_parts == ():
            raise ValueError(f"expected predict among {list(modality.modalities)}, got {unknown or 'none'}")

    def masks(self, nets: Networks, tokens: Tokens, generator: torch.Generator) -> list[Masks]:
        """Draw the masks of the modalities that are predicted."""
        drawn = super().masks(nets, tokens, generator)
        asked = self.predict_parts
        return [mask for mask in drawn if asked is None or (isinstance(mask, JointMasks) and mask.part in asked)]

    def contexts(self, nets: Networks, tokens: Tokens, masks: list[Masks]) -> list[Latents]:
        """Encode, for each draw of masks, what is kept of one modality and all of the others."""
        return [self.context(nets, tokens, mask) for mask in masks]

    def context(self, nets: Networks, tokens: Tokens, mask: Masks) -> Latents:
        """Encode the context of one draw."""
        assert isinstance(tokens, JointTokens)
        assert isinstance(mask, JointMasks)
        values = nets.encoder(tokens.only({mask.part: (mask.own.context, mask.own.context_valid)}))
        return Latents(values=values, positions=take(tokens.positions, mask.context), valid=mask.context_valid)

    def predict(self, nets: Networks, tokens: Tokens, masks: list[Masks]) -> Outcome:
        """Encode the contexts, predict the hidden tokens, encode the targets, and align the modalities.

        The outcome's context and target are those of each modality: of the context all tokens where a draw of masks
        shows them, else what is kept.
        """
        assert isinstance(tokens, JointTokens)
        found = super().predict(nets, tokens, masks)
        seen: dict[str, Latents] = {}
        for mask, encoded in zip(masks, found.context, strict=True):
            assert isinstance(mask, JointMasks)
            sizes = tokens.sizes | {mask.part: mask.own.context.shape[1]}
            for name, part in _split(encoded, sizes).items():
                if name not in seen or name != mask.part:
                    seen[name] = part
        context = [seen[name] for name in tokens.parts]
        target = [*_split(found.target[0], tokens.sizes).values()]
        terms = {}
        if self.alignment is not None:
            terms["alignment"] = self.alignment([part.pooled() for part in context]), self.alignment.weight
        elif self.training and not self._told:
            self._told = True
            _log.warning(
                "no alignment: latent prediction alone does not bring the modalities into one space, so expect "
                "retrieval near chance; leave model.pretext.alignment out for one"
            )
        return replace(found, context=context, target=target, terms=terms)


def _split(latents: Latents, sizes: dict[str, int]) -> dict[str, Latents]:
    """Cut the latents of all modalities into those of each."""
    found, start = {}, 0
    for name, size in sizes.items():
        run = slice(start, start + size)
        valid, positions = latents.valid, latents.positions
        found[name] = Latents(
            values=latents.values[:, run],
            positions=None if positions is None else positions[:, run],
            valid=None if valid is None else valid[:, run],
        )
        start += size
    return found
