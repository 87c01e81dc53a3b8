"""A frozen, pretrained encoder as target."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from jepa_lightning.config.stored import is_rebuilding
from jepa_lightning.encoders.base import Encoder, EncoderFactory, TokenSpec
from jepa_lightning.targets.base import FrozenTarget


class Pretrained(FrozenTarget):
    """Use a frozen encoder as target: that of another run, or one with released weights.

    The evaluated encoder is the context encoder, which is trained. The frozen weights are part of the checkpoint, so
    `load` and the commands need nothing else; training and resuming need the source.

    Args:
        encoder: the context encoder, given by the module.
        spec: the tokens' spec, given by the module.
        checkpoint: folder or checkpoint of the run whose evaluated encoder is used; None if `build` loads weights.
        build: builds the frozen encoder if its sizes differ from the context encoder's, or if it loads its own weights
            (`TimmEncoder` with `pretrained: true`). None: sizes of the context encoder.
        trust: packages whose classes the other run's configuration may name.

    Raises:
        ValueError: neither a checkpoint nor an encoder is given, or the weights do not fit it.

    Examples:
        >>> from functools import partial
        >>> from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
        >>> from jepa_lightning.targets import Pretrained
        >>> spec = TokenSpec(shape=(3, 8, 8), grid=(4, 4), positions=SinCosPositions)
        >>> encoder = ViT(spec, width=32, depth=2, heads=2)
        >>> target = Pretrained(encoder, spec, build=partial(ViT, width=64, depth=1, heads=2))
        >>> target.dim, any(p.requires_grad for p in target.parameters())
        (64, False)
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: TokenSpec,
        *,
        checkpoint: str | None = None,
        build: EncoderFactory | None = None,
        trust: Collection[str] = (),
    ) -> None:
        if checkpoint is None and build is None and not is_rebuilding():
            raise ValueError("Pretrained needs weights: give checkpoint (a run), or build (an encoder)")
        frozen = copy.deepcopy(encoder) if build is None else build(spec)
        if checkpoint is not None:
            _load(frozen, checkpoint, trust)
        super().__init__(frozen)

    def evaluated(self, encoder: Encoder) -> Encoder:
        """Return the context encoder, which is the trained one."""
        return encoder


def _load(encoder: Encoder, checkpoint: str, trust: Collection[str]) -> None:
    """Fill `encoder` with the evaluated encoder of another run."""
    from jepa_lightning.loading import load  # it imports this module

    state: dict[str, Any] = load(checkpoint, trust=trust).encoder.state_dict()
    own = encoder.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or [n for n, v in own.items() if v.shape != state[n].shape]
    if wrong:
        name = wrong[0]
        sizes = [tuple(d[name].shape) if name in d else "nothing" for d in (own, state)]
        raise ValueError(
            f"the encoder in {checkpoint} does not have the expected sizes: {name} is {sizes[1]} there and "
            f"{sizes[0]} here; set target.build (class and sizes as in that run's config.yaml)"
        )
    encoder.load_state_dict(state)
