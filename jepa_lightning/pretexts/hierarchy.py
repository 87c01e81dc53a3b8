"""Two levels trained together: masked prediction within segments, and of whole segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from jepa_lightning.hierarchy.modality import Segments
from jepa_lightning.hierarchy.tokenizer import SegmentTokens, some_segments
from jepa_lightning.predictors import Predictor, PredictorFactory, TransformerPredictor
from jepa_lightning.predictors.base import NoPredictor, PredictorSpec
from jepa_lightning.pretexts.base import Networks, Outcome, Prediction
from jepa_lightning.pretexts.masked import Masked
from jepa_lightning.schedules import Schedule
from jepa_lightning.targets.base import Target

if TYPE_CHECKING:
    from jepa_lightning.modality import Batch, Modality


class Hierarchy(Masked):
    """Train two levels together: the first predicts hidden tokens of a segment, the second hidden segments.

    On `Segments` with `frozen: false`. The first level is masked prediction within segments, with its own masks and
    predictor; the second is masked prediction of whole segments from the others, over a longer horizon, with the
    model's predictor and masker. The second's gradient reaches the first through the pooled segments that it is given.
    The sum of both is what LeCun (2022, "A path towards autonomous machine intelligence", section 4.6) describes as
    H-JEPA, with masks in place of actions.

    Regularizers and the collapse monitor see the contexts of both levels, the second's first.

    Args:
        predictor: builds the first level's predictor; `model.predictor` is the second's.
        first_weight: weight of the first level's loss, a number or a schedule.
        first_segments: segments of each sample that the first level's loss is computed on, drawn anew at each step;
            None: all.
        norm_targets: see `Masked`; of both levels.

    Raises:
        ValueError: the modality is no `Segments`, its first level is frozen, or the levels have different widths.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning import JEPA
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.hierarchy import Segments
        >>> from jepa_lightning.predictors import TransformerPredictor
        >>> from jepa_lightning.pretexts import Hierarchy
        >>> from modalities.video import Video
        >>> small = partial(ViT, width=32, depth=1, heads=2)
        >>> predictor = partial(TransformerPredictor, width=16, depth=1, heads=2)
        >>> level = Video(frames=4, image_size=32, patch_size=8, encoder=small)
        >>> long = Segments(level=level, parts=[6, 1, 1], encoder=small, frozen=False)
        >>> jepa = JEPA(long, pretext=Hierarchy(predictor=predictor), predictor=predictor)
        >>> outcome = jepa.step({"video": torch.randn(2, 3, 24, 32, 32)}, torch.Generator().manual_seed(0))
        >>> [tuple(latents.values.shape) for latents in outcome.target]  # 6 segments a sample; 32 tokens a segment
        [(2, 6, 32), (12, 32, 32)]
    """

    recordable = False

    def __init__(
        self,
        *,
        predictor: PredictorFactory = TransformerPredictor,
        first_weight: float | Schedule = 1.0,
        first_segments: int | None = None,
        norm_targets: bool = True,
    ) -> None:
        super().__init__(norm_targets=norm_targets)
        if first_segments is not None and first_segments < 1:
            raise ValueError(f"expected first_segments of at least 1, or null for all, got {first_segments}")
        self.first_weight = first_weight
        self.first_segments = first_segments
        self.build_predictor = predictor
        self.first_predictor: Predictor = NoPredictor()
        self.within = Masked(norm_targets=norm_targets)

    def build(self, modality: Modality, target: Target) -> None:
        """Build the first level's predictor."""
        if not isinstance(modality, Segments) or modality.encoder.frozen:
            raise ValueError(
                f"Hierarchy trains both levels of Segments with frozen: false, got {type(modality).__name__}: set "
                "model.modality, or use Masked on a frozen first level"
            )
        level = modality.level
        if level.encoder.dim != modality.encoder.dim:
            raise ValueError(
                f"expected two levels of one width, whose regularizers are shared, got {level.encoder.dim} and "
                f"{modality.encoder.dim}: give both encoders the same width"
            )
        self.first_predictor = self.build_predictor(
            PredictorSpec(dim=level.encoder.dim, out=target.dim, token=level.spec)
        )

    def forward(self, nets: Networks, batch: Batch, generator: torch.Generator) -> Outcome:
        """Predict hidden segments, and hidden tokens within segments."""
        assert isinstance(nets.modality, Segments)
        tokens = nets.modality.tokenizer(batch)
        assert isinstance(tokens, SegmentTokens)
        above = self.predict(nets, tokens, self.masks(nets, tokens, generator))
        inner = some_segments(tokens, self.first_segments, generator).inner()
        first = Networks(nets.modality.level, nets.encoder, nets.target, self.first_predictor)
        below = self.within.predict(first, inner, self.within.masks(first, inner, generator))
        return Outcome(
            predictions=[*_shared(above.predictions, 1.0), *_shared(below.predictions, self.first_weight)],
            context=[*above.context, *below.context],
            target=[*above.target, *below.target],
        )


def _shared(predictions: Sequence[Prediction], weight: float | Schedule) -> list[Prediction]:
    """Give predictions equal shares of a weight."""
    return [replace(each, share=1 / len(predictions), ramp=weight) for each in predictions]
