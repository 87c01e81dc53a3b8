"""Several modalities as one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor

from jepa_lightning.encoders.base import Encoder, TokenSpec
from jepa_lightning.joint_tokens import JointMasks, JointTokens, join_tokens
from jepa_lightning.modality import Batch, Modality, Tokenizer
from jepa_lightning.multimodal.encoder import MultimodalEncoder
from jepa_lightning.multimodal.masker import EachMasker
from jepa_lightning.multimodal.positions import JointPositions
from jepa_lightning.multimodal.tokenizer import JointTokenizer
from jepa_lightning.pictures.files import stack
from jepa_lightning.tokens import Masks, Tokens


class Multimodal(Modality):
    """Two or more modalities of the same samples, such as images and their captions.

    Each keeps its tokenizer, masker and encoder. A batch holds the input of each under its own key, as `PairedData`
    gives it, and features are those of each modality side by side. The pretext is `CrossModal`.

    Args:
        modalities: by name, in order; at least two.
        width: of all representations. A number: each encoder's output goes through a linear map to it, as in CLIP;
            None: the widest encoder's, to which narrower ones are mapped.
        frozen: names of modalities whose encoders keep the weights they begin with (`weights`, `pretrained`); a linear
            map of their output is trained.

    Raises:
        ValueError: fewer than two modalities, or an unknown one in `frozen`.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from jepa_lightning.encoders import ViT
        >>> from jepa_lightning.multimodal import Multimodal
        >>> from modalities.image import Image
        >>> from modalities.text import Text
        >>> small = partial(ViT, width=32, depth=1, heads=2)
        >>> image, text = Image(image_size=48, patch_size=8, encoder=small), Text(vocabulary=256, encoder=small)
        >>> both = Multimodal(modalities={"image": image, "text": text})
        >>> tokens = both.tokenizer({"image": torch.randn(2, 3, 48, 48), "text": ["A red ball.", "Two cats."]})
        >>> tokens.sizes, both.encoder(tokens).shape
        ({'image': 36, 'text': 16}, torch.Size([2, 52, 32]))
    """

    def __init__(
        self, *, modalities: dict[str, Modality], width: int | None = None, frozen: Sequence[str] = ()
    ) -> None:
        if len(modalities) < 2:
            raise ValueError(f"expected at least two modalities, got {list(modalities)}: name one as model.modality")
        wrong = [name for name in modalities if not name.isidentifier()]
        if wrong:
            raise ValueError(f"expected names of modalities without dots and blanks, got {wrong[0]!r}")
        unknown = sorted({*frozen} - {*modalities})
        if unknown:
            raise ValueError(f"expected frozen among the modalities {list(modalities)}, got {unknown}")
        if {*frozen} == {*modalities}:
            raise ValueError("expected at least one modality that is trained, got all of them in frozen")
        if width is not None and width < 1:
            raise ValueError(f"expected a width of at least 1, or null for the widest encoder's, got {width}")
        self.modalities = dict(modalities)
        self.name = "+".join(modalities)
        self.masks_legend = " ".join(f"{name.capitalize()}: {part.masks_legend}" for name, part in modalities.items())
        parts = list(modalities.values())
        self.tokenizer = JointTokenizer({name: part.tokenizer for name, part in modalities.items()})
        self.masker = EachMasker({name: part.masker for name, part in modalities.items()})
        positions = [part.spec.positions for part in parts]
        axes = [_axes(part) for part in parts]
        self.spec = TokenSpec(shape=(), grid=None, positions=partial(JointPositions, positions=positions, axes=axes))
        encoders = {name: part.encoder for name, part in modalities.items()}
        self.encoder = MultimodalEncoder(encoders, width=width, frozen=frozen)

    def using(self, tokenizer: Tokenizer, encoder: Encoder) -> Self:
        """Return the same modalities with other tokenizers and encoders."""
        found = super().using(tokenizer, encoder)
        assert isinstance(tokenizer, JointTokenizer)
        assert isinstance(encoder, MultimodalEncoder)
        found.modalities = {
            name: part.using(tokenizer.tokenizers[name], encoder.part(name))  # type: ignore[arg-type]
            for name, part in self.modalities.items()
        }
        return found

    def apart(self, features: Tensor) -> dict[str, Tensor]:
        """Cut pooled features (n, M D) of all modalities into those of each, (n, D)."""
        return dict(zip(self.modalities, features.chunk(len(self.modalities), dim=1), strict=True))

    def tokens_of(self, name: str, batch: Batch) -> JointTokens:
        """Return the tokens of one modality alone, for the encoder of all; the others may lack in the batch."""
        assert isinstance(self.tokenizer, JointTokenizer)
        part = self.tokenizer.tokenizers[name]
        return join_tokens({name: part(batch)}, numbers=self.tokenizer.numbers)

    def draw_masks(self, batch: Batch, masks: list[Masks]) -> list[Tensor] | None:
        """Draw each modality's masks, one below the other."""
        own = {name: [m.own for m in masks if isinstance(m, JointMasks) and m.part == name] for name in self.modalities}
        return _below([part.draw_masks(batch, own[n]) if own[n] else None for n, part in self.modalities.items()])

    @torch.no_grad()
    def draw_features(self, batch: Batch, tokens: Tokens, colours: Tensor) -> list[Tensor] | None:
        """Draw each modality's features, one below the other."""
        if not isinstance(tokens, JointTokens):
            raise ValueError(f"expected tokens of several modalities (JointTokens), got {type(tokens).__name__}")
        own = tokens.split(colours)
        parts = self.modalities.items()
        return _below([part.draw_features(batch, tokens.parts[name], own[name]) for name, part in parts])

    def draw_samples(self, batch: Batch) -> list[Tensor] | None:
        """Draw the sample of each modality, one below the other."""
        return _below([part.draw_samples(batch) for part in self.modalities.values()])

    def raw_features(self, batch: Batch) -> Tensor | None:
        """Return the raw features of all modalities side by side; None if one has none."""
        found = [part.raw_features(batch) for part in self.modalities.values()]
        return None if any(raw is None for raw in found) else torch.cat([raw.float() for raw in found], dim=1)  # type: ignore[union-attr]


def _axes(modality: Modality) -> int:
    """Count the coordinates of a modality's tokens."""
    spec = modality.spec
    if spec.axes is None and spec.grid is None:
        raise ValueError(
            f"expected the number of coordinates of {modality.name} tokens, which lie on no grid: set TokenSpec.axes"
        )
    return spec.axes if spec.axes is not None else len(spec.grid or ())


def _below(parts: Sequence[list[Tensor] | None]) -> list[Tensor] | None:
    drawn = [part for part in parts if part is not None]
    return [stack(pictures) for pictures in zip(*drawn, strict=True)] if drawn else None
