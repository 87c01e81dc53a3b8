"""Graph-JEPA's predictor: an MLP."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from jepa_lightning.encoders.norm import LayerNorm
from jepa_lightning.predictors.base import Predictor, PredictorSpec, check_condition
from jepa_lightning.tokens import Latents, Query, pool


class MLPPredictor(Predictor):
    """Predict each target token with an MLP on the pooled context and the target's position, as in Graph-JEPA.

    Position embeddings are added to the context's real tokens, which are then averaged; the embedding of
    a target's position is added to the mean (Skenderi et al. 2023), and the sum goes through the layers. Targets
    do not see each other, nor do the tokens of a block. A condition, if any, is averaged over its tokens,
    projected to D, and also added. A context without positions is averaged without them.

    Deviation: in the paper, the context is one token, and only the encoder gets its position.

    Args:
        spec: widths and the tokens' spec, given by the module.
        width: width of the hidden layers.
        depth: number of linear layers; the hidden ones are followed by LayerNorm and GELU.

    Examples:
        >>> import torch
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec
        >>> from jepa_lightning.predictors import MLPPredictor, PredictorSpec
        >>> from jepa_lightning.tokens import Latents, Query
        >>> token = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> predictor = MLPPredictor(PredictorSpec(dim=32, out=32, token=token, condition=2), width=64)
        >>> context = Latents(values=torch.randn(2, 5, 32), positions=torch.rand(2, 5, 2))
        >>> action = Latents(values=torch.randn(2, 1, 2))
        >>> predictor(context, Query(positions=torch.rand(2, 4, 3, 2)), action).shape
        torch.Size([2, 4, 3, 32])
    """

    def __init__(self, spec: PredictorSpec, *, width: int = 384, depth: int = 2) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.condition = spec.condition
        self.positions = spec.token.positions(spec.dim)
        sizes = [spec.dim] + [width] * (depth - 1)
        self.layers = nn.ModuleList(  # type: ignore[misc]
            nn.Sequential(nn.Linear(before, after), LayerNorm(after), nn.GELU()) for before, after in pairwise(sizes)
        )
        self.project = nn.Linear(sizes[-1], spec.out)
        if spec.condition is not None:
            self.embed_condition = nn.Linear(spec.condition, spec.dim)

    def forward(self, context: Latents, query: Query, condition: Latents | None = None) -> Tensor:
        """Predict (B, M, T, out); see `Predictor.forward`."""
        check_condition(self.condition, condition, type(self).__name__)
        values = context.values
        if context.positions is not None:
            values = values + self.positions(context.positions).to(values.dtype)
        seen = pool(values, context.valid)
        if condition is not None:
            told = condition.values.to(self.embed_condition.weight.dtype)
            seen = seen + self.embed_condition(pool(told, condition.valid))
        x = seen[:, None, None] + self.positions(query.positions).to(seen.dtype)
        for layer in self.layers:
            x = layer(x)
        return self.project(x)
