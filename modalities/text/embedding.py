"""The embedding of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TokenEmbedding(nn.Embedding):
    """A learned vector for each token of the vocabulary: (B, K) int64 to (B, K, width).

    Initialised as a truncated normal of std 0.5, so that tokens tell as much as their positions (the root mean square
    of sin-cos embeddings is 0.7). It does not decay.

    Args:
        width: channels of a token.
        vocabulary: number of tokens.

    Raises:
        ValueError: when called: a token is no number of the vocabulary.

    Examples:
        >>> import torch
        >>> from modalities.text import TokenEmbedding
        >>> TokenEmbedding(16, vocabulary=300)(torch.tensor([[1, 2, 299]])).shape
        torch.Size([1, 3, 16])
    """

    def __init__(self, width: int, *, vocabulary: int) -> None:
        super().__init__(vocabulary, width)

    def reset_parameters(self) -> None:
        """Draw the vectors."""
        with torch.no_grad():
            nn.init.trunc_normal_(self.weight, std=0.5, a=-1.0, b=1.0)

    def forward(self, input: Tensor) -> Tensor:
        """Embed tokens."""
        if input.is_floating_point():
            raise ValueError(f"expected numbers of tokens as int64, got {input.dtype}: use the modality's tokenizer")
        return super().forward(input)
