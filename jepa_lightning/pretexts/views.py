"""Pull views of a sample together: LeJEPA, VICReg, SimSiam."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.pooling import SEGMENTS, pool_tokens
from jepa_lightning.precision import autocast_in_half
from jepa_lightning.pretexts.base import Networks, Outcome, Prediction, Pretext
from jepa_lightning.targets.base import Target
from jepa_lightning.targets.online import Online
from jepa_lightning.tokens import Latents

if TYPE_CHECKING:
    from jepa_lightning.modality import Batch, Modality
    from jepa_lightning.predictors.base import PredictorSpec


class Views(Pretext):
    """Pull the views of a sample together: each should be near the mean of the global views.

    A view's tokens are encoded, averaged and projected by an MLP; there is no predictor and no teacher. With the
    target `Online` without a stopped gradient, `objective: MSE` and the regularizer `SIGReg` this is LeJEPA
    (Balestriero and LeCun 2025); with `VICReg` and two views it is VICReg (Bardes et al. 2022) up to the constants in
    front of its terms. With stop-gradient and an MLP on the predicting side (`head`) it is SimSiam (Chen and
    He 2021). The data module makes the views: `data.views`.

    Without a regularizer that spreads the projections, or stop-gradient with a `head`, the representations collapse.

    A batch without views (validation) has no predictions; regularizers see its samples unaugmented.

    Deviations: LeJEPA's projector has batch norm; here it is LayerNorm, which is batch-independent. A target with
    an encoder of its own (BYOL's) is refused: its projector would need an average, too.

    Args:
        projector: widths of the projector's linear layers, the last is that of the projections; empty for none.
        head: hidden width of the MLP on the predicting side; None for none.
        global_views: number of first views whose mean is the target of all views; None: all views.
        pooling: how a view's tokens become the projector's input: their "mean", or the means of four "segments" of time
            side by side (`pool_tokens`), which keep the order of what a recording or a text says. Views must then
            show a sample from end to end.

    Raises:
        ValueError: a setting is out of range, the target is not `Online`, or a training batch has fewer views.

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
        global_views: int | None = None,
        pooling: Literal["mean", "segments"] = "mean",
    ) -> None:
        super().__init__()
        if any(width < 1 for width in projector) or (head is not None and head < 1):
            raise ValueError(f"widths must be at least 1, got projector {list(projector)} and head {head}")
        if global_views is not None and global_views < 1:
            raise ValueError(f"global_views must be at least 1, or null for all views, got {global_views}")
        if pooling not in ("mean", "segments"):
            raise ValueError(f"expected the pooling mean or segments, got {pooling!r}")
        self.widths = tuple(projector)
        self.head_width = head
        self.global_views = global_views
        self.pooling: Literal["mean", "segments"] = pooling
        self.projector: nn.Module = nn.Identity()
        self.head: nn.Module = nn.Identity()

    def build(self, modality: Modality, target: Target) -> None:
        """Build the projector and the head."""
        if not isinstance(target, Online):
            raise ValueError(
                f"Views has no encoder besides the trained one, got the target {type(target).__name__}: set "
                "model.target to Online"
            )
        self.projector = mlp([self._pooled_width(modality), *self.widths])
        width = self.latent_dims(modality, target)[0]
        self.head = nn.Identity() if self.head_width is None else mlp([width, self.head_width, width])
        self.stop_gradient = target.stop_gradient

    def predictor_spec(self, modality: Modality, target: Target) -> PredictorSpec | None:
        """Return None: there is no predictor."""
        return None

    def latent_dims(self, modality: Modality, target: Target) -> tuple[int, int]:
        """Return the width of the projections, twice."""
        width = self.widths[-1] if self.widths else self._pooled_width(modality)
        return width, width

    def _pooled_width(self, modality: Modality) -> int:
        return modality.encoder.dim * (SEGMENTS if self.pooling == "segments" else 1)

    def forward(self, nets: Networks, batch: Batch, generator: torch.Generator) -> Outcome:
        """Encode and project all views, and pull them together."""
        views = batch.get("views")
        if self.training and (not isinstance(views, list) or len(views) < 2):
            raise ValueError("Views needs batches with at least 2 views of each sample: set data.views to 2 or more")
        projected = [self.project(nets, view) for view in (views or [batch])]  # (B, D) each
        context = [Latents(values=z.unsqueeze(1)) for z in projected]
        if len(projected) < 2:
            return Outcome(context=context)
        centre = torch.stack(projected[: self.global_views]).mean(0)
        if self.stop_gradient:
            centre = centre.detach()
        predictions = [
            Prediction(predicted=self.head(z)[:, None, None], target=centre[:, None, None]) for z in projected
        ]
        return Outcome(predictions=predictions, context=context, target=[Latents(values=centre.unsqueeze(1))])

    def project(self, nets: Networks, view: Batch) -> Tensor:
        """Project one view to (B, D)."""
        tokens = nets.modality.tokenizer(view)
        with autocast_in_half(tokens.device):
            pooled = pool_tokens(nets.encoder(tokens), tokens.valid, how=self.pooling, grid=tokens.grid)
            return self.projector(pooled)


def mlp(widths: Sequence[int]) -> nn.Module:
    """Build linear layers with LayerNorm and GELU between them; the identity for a single width."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.LayerNorm(before), nn.GELU()] if layers else []
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)
