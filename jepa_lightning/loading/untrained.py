"""A JEPA as it was before training."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from jepa_lightning.config.rebuild import Config, build_model
from jepa_lightning.config.stored import building_from
from jepa_lightning.loading.hub import to_build_again
from jepa_lightning.module import JEPA
from jepa_lightning.randomness import seeded
from jepa_lightning.weights.start import initialise


def untrained_jepa(
    config: Config | None,
    tokenizer: nn.Module,
    *,
    encoder: nn.Module | None = None,
    seed: int | None = None,
    pretrained: bool = True,
    predictor: bool | None = None,
    trust: Collection[str] = (),
) -> JEPA:
    """Build a run's JEPA with the weights that training began with.

    Args:
        config: of the run.
        tokenizer: of the trained JEPA, whose statistics come from the data and are kept.
        encoder: of the trained JEPA, whose buffers may hold what it was built from.
        seed: of the weights; None: the run's.
        pretrained: load again what the run began with (`init`, `weights`, `pretrained`); False: random weights.
        predictor: whether `init` gives the predictor's weights, too; None: where it has them.
        trust: packages whose classes `config` may name.

    Raises:
        ValueError: there is no configuration, or it does not hold what the run began with.
    """
    config = to_build_again(config, pretrained=pretrained)
    state = {f"tokenizer.{name}": value for name, value in tokenizer.state_dict().items()}
    if encoder is not None:
        state |= {f"encoder.{name}": value for name, value in encoder.named_buffers()}
    with seeded(config["seed_everything"] if seed is None else seed), building_from(state):
        jepa = build_model(config["model"], pretrained=pretrained, trust=trust)
    if pretrained and config.get("init"):
        initialise(jepa, config["init"], encoder=config.get("init_encoder"), predictor=predictor)
    jepa.tokenizer.load_state_dict(tokenizer.state_dict())
    return jepa
