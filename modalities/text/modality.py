"""The text modality: tokens of a vocabulary, spans as targets and a ViT."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from jepa_lightning.encoders import SinCosPositions, TokenSpec, ViT
from jepa_lightning.maskers import Masker, TimeSpans
from jepa_lightning.modality import Batch, EncoderFactory, Modality
from jepa_lightning.tokens import Masks, Tokens
from modalities.text import pictures
from modalities.text.embedding import TokenEmbedding
from modalities.text.tokenizer import TextTokenizer
from modalities.text.vocabulary import BYTES

_CHARACTERS = 4  # of a token, on average in English
_COUNTED = 2048  # tokens that the raw features count; of larger vocabularies several are counted together


class Text(Modality):
    """Texts as sequences of tokens: I-JEPA (Assran et al. 2023) and data2vec (Baevski et al. 2022) on words.

    Batches hold `text`, a list of strings; see `TextTokenizer`. Tokens are embedded by a table. Several spans are
    hidden and predicted from the rest, each as a target block of its own: I-JEPA's masks on a line. `WholeUnits` hides
    whole words or sentences, `Random` single tokens.

    data2vec differs: its encoder sees hidden tokens as mask tokens and predicts them itself, without a predictor. Its
    targets, averaged over the last layers, are `target: EMA` with `average_layers`.

    Args:
        tokenizer: a file of Hugging Face tokenizers (tokenizer.json, or the folder that holds it); its content is kept
            in the run. None: byte-pair encoding on bytes, fitted on the training data and kept in the run.
        vocabulary: number of tokens of a fitted vocabulary, 256 for bytes. None: 2048.
        length: largest number of tokens of a text; what is beyond is cut off.
        lowercase: make texts lower case, for a fitted vocabulary.
        special_tokens: add the file's special tokens to each text, as pretrained encoders want them.
        fixed_size: pad each batch to `length`, for `torch.compile` and XLA.
        encoder: builds the encoder from the token spec: `ViT` (also with `rotary: interleaved`), `HFTextEncoder` or
            your own `Encoder`.
        masker: draws contexts and targets; four spans, each a target block, by default.

    Raises:
        ValueError: a setting is out of range, or the file is no tokenizers file.

    Examples:
        >>> from functools import partial
        >>> from jepa_lightning.encoders import ViT
        >>> from modalities.text import Text
        >>> text = Text(vocabulary=256, length=64, encoder=partial(ViT, width=32, depth=1, heads=2))
        >>> tokens = text.tokenizer({"text": ["A cat sat.", "Why?"]})
        >>> tokens.values.shape, tokens.valid.sum(1), text.encoder(tokens).shape
        (torch.Size([2, 16]), tensor([11,  5]), torch.Size([2, 16, 32]))
    """

    name = "text"
    masks_legend = (
        "Above: what the context encoder sees, hidden tokens as boxes. Below: all tokens. Blue: "
        "context. Orange, red, yellow, purple: target blocks. Grey: neither."
    )

    def __init__(
        self,
        *,
        tokenizer: str | None = None,
        vocabulary: int | None = None,
        length: int = 128,
        lowercase: bool = False,
        special_tokens: bool = False,
        fixed_size: bool = False,
        encoder: EncoderFactory = ViT,
        masker: Masker | None = None,
    ) -> None:
        if tokenizer is not None and vocabulary is not None:
            raise ValueError(f"expected tokenizer or vocabulary, got {tokenizer} and {vocabulary}: leave one out")
        self.tokenizer: TextTokenizer = TextTokenizer(
            file=tokenizer,
            vocabulary=2048 if vocabulary is None else vocabulary,
            length=length,
            lowercase=lowercase,
            special_tokens=special_tokens,
            fixed_size=fixed_size,
        )
        self.length = length
        self.characters = length * (1 if vocabulary == BYTES else _CHARACTERS)
        embed = partial(TokenEmbedding, vocabulary=self.tokenizer.size)
        self.spec = TokenSpec(shape=(), grid=(length,), positions=SinCosPositions, embed=embed)
        self.masker = masker or TimeSpans(spans=4, scale=(0.1, 0.15), separate=True)
        self.encoder = encoder(self.spec)

    def example(self, count: int, generator: torch.Generator) -> Batch:
        """Make texts of random letters."""
        drawn = torch.randint(ord("a"), ord("z") + 1, (count, min(self.length, 24)), generator=generator)
        return {"text": ["".join(map(chr, row)) for row in drawn.tolist()]}

    @torch.no_grad()
    def draw_masks(self, batch: Batch, masks: list[Masks]) -> list[Tensor]:
        """A column a sample: for each draw the text, hidden tokens as boxes, and below it the text with its targets."""
        tokens = self.tokenizer(batch)
        return pictures.masks(self._written(tokens), masks, tokens.count)

    @torch.no_grad()
    def draw_features(self, batch: Batch, tokens: Tokens, colours: Tensor) -> list[Tensor]:
        """The text, each token on its colour."""
        return pictures.features(self._written(self.tokenizer(batch)), colours)

    @torch.no_grad()
    def draw_samples(self, batch: Batch) -> list[Tensor]:
        """The text of each sample."""
        return pictures.samples(self._written(self.tokenizer(batch)))

    @torch.no_grad()
    def raw_features(self, batch: Batch) -> Tensor:
        """Square roots of the shares of each token in a text: (B, V), of larger vocabularies (B, 2048)."""
        tokens = self.tokenizer(batch)
        ids = torch.as_tensor(tokens.values) % _COUNTED
        shares = torch.zeros(len(ids), min(self.tokenizer.size, _COUNTED), device=ids.device)
        shares.scatter_add_(1, ids, tokens.valid.float())
        return (shares / shares.sum(1, keepdim=True).clamp(min=1)).sqrt()

    def _written(self, tokens: Tokens) -> list[list[str]]:
        """The text of each token, for each sample."""
        pieces = self.tokenizer.vocabulary.pieces
        ids, valid = tokens.values.tolist(), tokens.valid.tolist()  # type: ignore[union-attr]
        return [[pieces[i] for i, real in zip(*row, strict=True) if real] for row in zip(ids, valid, strict=True)]
