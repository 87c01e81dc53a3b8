"""`jepa-fit --init`: which weights a run begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info

from jepa_lightning.module import JEPA
from jepa_lightning.weights.start import initialise


def add_init(parser: LightningArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--init",
        type=str | None,
        default=None,
        help="weights to start from, with a fresh optimiser at step 0: a run or checkpoint, an official file of I-JEPA "
        "or V-JEPA, a Hugging Face folder or id, timm's weights (docs/released-weights.md); a resumed run has its own",
    )
    parser.add_argument(
        "--init_encoder",
        type=Literal["target", "context"] | None,
        default=None,
        help="which encoder of the source; null: its target encoder where it has one",
    )
    parser.add_argument(
        "--init_predictor",
        type=bool | None,
        default=None,
        help="whether the predictor starts from the source's, too; null: where it has one",
    )


def start_from(given: Mapping[str, Any], model: LightningModule) -> None:
    """Take the weights that the options name, if any, and say which.

    Raises:
        ValueError: they do not fit, or the model is no JEPA.
    """
    source = given.get("init")
    if source is None:
        return
    if not isinstance(model, JEPA):
        raise ValueError(f"expected a JEPA to start from init, got {type(model).__name__}: load them in it")
    which, predictor = given.get("init_encoder"), given.get("init_predictor")
    rank_zero_info(initialise(model, source, encoder=which, predictor=predictor))
