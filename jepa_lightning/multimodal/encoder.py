"""The encoders of several modalities as one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from jepa_lightning.encoders.base import Encoder
from jepa_lightning.encoders.transformer import init_weights
from jepa_lightning.joint_tokens import JointTokens
from jepa_lightning.tokens import Tokens


class MultimodalEncoder(Encoder):
    """Encode each modality's tokens with its own encoder; their outputs lie one behind the other, in one width.

    No modality sees another here: they meet in the predictor.

    Args:
        encoders: by modality.
        width: D. A number: each output goes through a linear map to it, as CLIP's do. None: the widest encoder's, and
            only what is narrower or frozen is mapped.
        frozen: modalities whose encoders are not trained, and stay in eval mode.

    Raises:
        ValueError: when called: tokens of a single modality, or `keep` in place of `JointTokens.only`.
    """

    def __init__(
        self, encoders: Mapping[str, Encoder], *, width: int | None = None, frozen: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        dims = {name: encoder.dim for name, encoder in encoders.items()}
        self.dim = width or max(dims.values())
        mapped = [name for name, dim in dims.items() if width is not None or dim != self.dim or name in frozen]
        self.maps = nn.ModuleDict({name: nn.Linear(dims[name], self.dim) for name in mapped})
        self.depth = min(encoder.depth for encoder in encoders.values())
        init_weights(self.maps)
        self.freeze(*map(self.part, frozen))

    def part(self, name: str) -> Encoder:
        """Return the encoder of a modality, without the linear map."""
        return self.encoders[name]  # type: ignore[return-value]

    @property
    def layers(self) -> Iterable[nn.Module]:
        """Return the layers of all encoders, one encoder after the other."""
        return list(chain.from_iterable(self.part(name).layers for name in self.encoders))

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return what gives the number of a parameter's layer; encoders of other depths end together."""
        deepest = max(self.part(name).depth for name in self.encoders)
        inner = {name: self.part(name).group_matcher(coarse) for name in self.encoders}

        def number(parameter: str) -> int:
            kind, name, rest = parameter.split(".", 2)
            if kind == "maps":
                return deepest
            found = inner[name](rest)
            return found and found + deepest - self.part(name).depth

        return number

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        keep_valid: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
    ) -> Tensor:
        """Encode what is seen of all modalities: (B, N, D), or (B, N, L, D). See `Encoder.forward`."""
        if not isinstance(tokens, JointTokens):
            raise ValueError(f"expected tokens of several modalities (JointTokens), got {type(tokens).__name__}")
        if keep is not None:
            tokens.take(keep, keep_valid)  # which says what to do
        if layers and self.maps:
            raise ValueError(
                "expected layers only of encoders of one width, whose outputs are not mapped: leave layers out, or "
                "give all encoders one width and leave width and frozen out"
            )
        found = []
        for name, own in tokens.parts.items():
            kept = tokens.kept.get(name, (None, None))
            encoder = self.part(name)
            if layers:
                found.append(encoder(own, *kept, layers=[i - self.depth + encoder.depth for i in layers]))
            else:
                encoded = encoder(own, *kept)
                found.append(self.maps[name](encoded) if name in self.maps else encoded)
        return torch.cat(found, dim=1)
