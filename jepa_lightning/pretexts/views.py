"""Pull views of a sample together: LeJEPA, VICReg, SimSiam, BYOL, DINO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lightning.encoders.pooling import SEGMENTS, pool_tokens
from jepa_lightning.precision import autocast_in_half
from jepa_lightning.pretexts.base import Networks, Outcome, Prediction, Pretext
from jepa_lightning.pretexts.view_heads import Centering, Norm, Prototypes, mlp
from jepa_lightning.targets.base import Target
from jepa_lightning.targets.ema import EMA
from jepa_lightning.targets.online import Online
from jepa_lightning.tokens import Latents, Tokens

if TYPE_CHECKING:
    from jepa_lightning.modality import Batch, Modality
    from jepa_lightning.predictors.base import PredictorSpec


class Views(Pretext):
    """Pull the views of a sample together: each should be near the global views.

    A view's tokens are encoded, averaged and projected by an MLP; there is no predictor. The target decides the method:

    - `Online`, no teacher: each view should be near the mean of the global views. Without a stopped gradient, with
      `objective: MSE` and the regularizer `SIGReg` this is LeJEPA (Balestriero and LeCun 2025); with `VICReg` and two
      views it is VICReg (Bardes et al. 2022) up to the constants in front of its terms. With stop-gradient and an MLP
      on the predicting side (`head`) it is SimSiam (Chen and He 2021).
    - `EMA`, a teacher: each view should be near each *other* global view as encoded by the teacher, whose projector is
      an average, too. With a `head`, two views and `objective: Cosine` this is BYOL (Grill et al. 2020,
      arXiv:2006.07733, section 3.1, both ways); with `prototypes`, `centering` and `objective: CrossEntropy` it is DINO
      (Caron et al. 2021, arXiv:2104.14294, section 3.1). The teacher encodes the global views only.

    The data module makes the views: `data.views`. Without a regularizer that spreads the projections, stop-gradient
    with a `head`, or `centering` beside a sharpened target, the representations collapse.

    A batch without views (validation) has no predictions; regularizers see its samples unaugmented.

    Deviations: the projectors of LeJEPA, VICReg, SimSiam and BYOL have batch norm (`norm: batch`); here it is by
    default LayerNorm, which is batch-independent, and DINO's, which has no norm, has it as well. An EMA copy of a batch
    norm uses the running statistics. DINO does not train the prototypes in its first epoch; here they are trained. The
    loss is the mean over pairs of views: of BYOL's a quarter, of DINO's of two global and no local views a half.

    Args:
        projector: widths of the projector's linear layers, the last is that of the projections; empty for none.
        head: hidden width of the MLP on the predicting side; None for none.
        norm: between the layers of projector and head: "layer", with GELU, or "batch", with ReLU, of the samples of
            this process.
        global_views: number of first views that are targets of all views; None: all views.
        pooling: how a view's tokens become the projector's input: their "mean", or the means of four "segments" of time
            side by side (`pool_tokens`), which keep the order of what a recording or a text says. Views must then
            show a sample from end to end.
        prototypes: number of learned unit vectors whose cosines with the unit projection end the projector, DINO's
            last layer with weights of norm one; None for none.
        centering: momentum of the mean that is subtracted from a teacher's projections, 0.9 in DINO. It moves at each
            training batch, over the samples of all ranks; None for none.

    Raises:
        ValueError: a setting is out of range, the target is neither `Online` nor `EMA`, `centering` is set without a
            teacher, or a training batch has fewer views.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.objectives import MSE
        >>> from jepa_lightning.pretexts import Views
        >>> from jepa_lightning.regularizers import SIGReg
        >>> from jepa_lightning.targets import Online
        >>> from modalities.image import Image
        >>> modality = Image(image_size=32, patch_size=8, encoder=partial(ViT, width=32, depth=1, heads=2))
        >>> online = partial(Online, stop_gradient=False)
        >>> views = Views(projector=(64, 16))
        >>> jepa = JEPA(modality, pretext=views, target=online, objective=MSE(), regularizers=[SIGReg])
        >>> batches = [{"image": torch.randn(4, 3, 32, 32)} for _ in range(2)]
        >>> outcome = jepa.step({**batches[0], "views": batches}, torch.Generator())
        >>> len(outcome.predictions), outcome.context[0].values.shape
        (2, torch.Size([4, 1, 16]))
    """

    def __init__(
        self,
        *,
        projector: Sequence[int] = (512, 512, 64),
        head: int | None = None,
        norm: Norm = "layer",
        global_views: int | None = None,
        pooling: Literal["mean", "segments"] = "mean",
        prototypes: int | None = None,
        centering: float | None = None,
    ) -> None:
        super().__init__()
        if any(width < 1 for width in projector) or (head is not None and head < 1):
            raise ValueError(f"widths must be at least 1, got projector {list(projector)} and head {head}")
        if global_views is not None and global_views < 1:
            raise ValueError(f"global_views must be at least 1, or null for all views, got {global_views}")
        if pooling not in ("mean", "segments"):
            raise ValueError(f"expected the pooling mean or segments, got {pooling!r}")
        if prototypes is not None and prototypes < 2:
            raise ValueError(f"prototypes must be at least 2, or null for none, got {prototypes}")
        if centering is not None and not 0 <= centering < 1:
            raise ValueError(f"centering is a momentum, at least 0 and below 1, or null for none; got {centering:g}")
        if norm not in ("layer", "batch"):
            raise ValueError(f"expected the norm layer or batch, got {norm!r}")
        self.widths = tuple(projector)
        self.norm: Norm = norm
        self.head_width = head
        self.global_views = global_views
        self.pooling: Literal["mean", "segments"] = pooling
        self.prototypes = prototypes
        self.momentum = centering
        self.projector: nn.Module = nn.Identity()
        self.head: nn.Module = nn.Identity()
        self.centering: nn.Module = nn.Identity()

    def build(self, modality: Modality, target: Target) -> None:
        """Build the projector and the head."""
        if not isinstance(target, Online | EMA):
            raise ValueError(
                f"Views compares encoded views, got the target {type(target).__name__}: set model.target to Online, or "
                "to EMA for a teacher"
            )
        self.averages = target.owns_encoder
        if self.momentum is not None and not self.averages:
            raise ValueError("centering is of a teacher's projections, and Online has no teacher: set it to null")
        self.projector = mlp([self._pooled_width(modality), *self.widths], self.norm)
        if self.prototypes is not None:
            dim = self.widths[-1] if self.widths else self._pooled_width(modality)
            self.projector = nn.Sequential(self.projector, Prototypes(dim, self.prototypes))
        width = self.latent_dims(modality, target)[0]
        self.head = nn.Identity() if self.head_width is None else mlp([width, self.head_width, width], self.norm)
        if self.momentum is not None:
            self.centering = Centering(width, self.momentum)
        self.stop_gradient = getattr(target, "stop_gradient", True)
        self._target_projector = (target.counterpart(self.projector),)  # in a tuple: it is the target's to save

    def predictor_spec(self, modality: Modality, target: Target) -> PredictorSpec | None:
        """Return None: there is no predictor."""
        return None

    def latent_dims(self, modality: Modality, target: Target) -> tuple[int, int]:
        """Return the width of the projections, twice."""
        width = self.prototypes or (self.widths[-1] if self.widths else self._pooled_width(modality))
        return width, width

    def _pooled_width(self, modality: Modality) -> int:
        return modality.encoder.dim * (SEGMENTS if self.pooling == "segments" else 1)

    def forward(self, nets: Networks, batch: Batch, generator: torch.Generator) -> Outcome:
        """Encode and project all views, and pull them together."""
        views = batch.get("views")
        if self.training and (not isinstance(views, list) or len(views) < 2):
            raise ValueError("Views needs batches with at least 2 views of each sample: set data.views to 2 or more")
        views = views or [batch]
        count = len(views) if self.global_views is None else self.global_views
        projected, targets = [], []  # (B, D) each
        for number, view in enumerate(views):
            tokens = nets.modality.tokenizer(view)
            projected.append(self.project(tokens, nets.encoder, self.projector))
            if self.averages and number < count and len(views) > 1:
                with torch.no_grad():
                    targets.append(self.project(tokens, nets.target, self._target_projector[0]))
        context = [Latents(values=z.unsqueeze(1)) for z in projected]
        if len(projected) < 2:
            return Outcome(context=context)
        if self.averages:
            return self.predict_others(projected, targets, context)
        centre = torch.stack(projected[: self.global_views]).mean(0)
        if self.stop_gradient:
            centre = centre.detach()
        predictions = [
            Prediction(predicted=self.head(z)[:, None, None], target=centre[:, None, None]) for z in projected
        ]
        return Outcome(predictions=predictions, context=context, target=[Latents(values=centre.unsqueeze(1))])

    def predict_others(self, projected: list[Tensor], targets: list[Tensor], context: list[Latents]) -> Outcome:
        """Predict from each view what the teacher makes of each other global view, of projections (B, D)."""
        predicted = [self.head(z)[:, None, None] for z in projected]
        centred = self.centering(torch.stack(targets))[:, :, None, None]  # (views, B, 1, 1, D)
        predictions = [
            Prediction(predicted=guess, target=target)
            for place, target in enumerate(centred)
            for number, guess in enumerate(predicted)
            if number != place
        ]
        if not predictions:
            raise ValueError("expected a view that is not the only global one")
        seen = F.layer_norm(torch.stack(targets).float().mean(0), (targets[0].shape[-1],))  # of any scale
        return Outcome(predictions=predictions, context=context, target=[Latents(values=seen.unsqueeze(1))])

    def project(self, tokens: Tokens, encoder: nn.Module, projector: nn.Module) -> Tensor:
        """Encode the tokens of a view, pool them, and project to (B, D)."""
        with autocast_in_half(tokens.device):
            pooled = pool_tokens(encoder(tokens), tokens.valid, how=self.pooling, grid=tokens.grid)
            projected: Tensor = projector(pooled)
        return projected
