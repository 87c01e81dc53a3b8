"""Start training from weights: `jepa-fit --init SOURCE`."""

from __future__ import annotations

from typing import Any

from jepa_lightning.module import JEPA
from jepa_lightning.weights.formats.fit import fill_encoder, fill_predictor
from jepa_lightning.weights.formats.sources import WhichEncoder, read_weights


def initialise(module: JEPA, source: str, *, encoder: WhichEncoder | None = None, predictor: bool | None = None) -> str:
    """Put the weights of a source into a JEPA before training.

    Context encoder and moving average both get the encoder, the predictor its weights where the source has one. The
    optimiser, the schedules and the step are the new run's.

    Args:
        module: before training.
        source: see `read_weights`.
        encoder: "target" or "context"; None: the target encoder where the source has one.
        predictor: whether the predictor is loaded; None: where the source has one.

    Returns:
        One line: what was taken, and what was left out.

    Raises:
        ValueError: the weights are not there, or anything of them does not fit.
    """
    weights = read_weights(source, encoder=encoder)
    spec: Any = module.modality.spec
    fill_encoder(module.encoder, spec, weights)
    module.target.begin(module.encoder)
    if predictor is None:
        predictor = weights.predictor is not None
    if predictor:
        try:
            fill_predictor(module.predictor, spec, weights)
        except ValueError as error:
            raise ValueError(f"{error}; or leave the predictor out (init_predictor: false)") from None
    elif weights.predictor is not None:
        weights.predictor = None
        weights.left_out.append("the predictor")
    return weights.line()
