"""Batches of several modalities to their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice, tee

from torch import nn

from jepa_lightning.joint_tokens import JointTokens, join_tokens
from jepa_lightning.modality import Batch, Tokenizer


class JointTokenizer(Tokenizer):
    """The tokens of several modalities, one behind the other, each cut by its own tokenizer.

    Args:
        tokenizers: by modality; each reads its own key of a batch.
    """

    def __init__(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        super().__init__()
        self.tokenizers = nn.ModuleDict(tokenizers)
        self.numbers = {name: number for number, name in enumerate(tokenizers)}

    @property
    def asking(self) -> list[Tokenizer]:
        """Return the tokenizers that still need statistics."""
        return [part for part in self.tokenizers.values() if part.needs_statistics]  # type: ignore[misc]

    @property
    def needs_statistics(self) -> bool:  # type: ignore[override]
        """Whether any of them needs statistics of the data."""
        return bool(self.asking)

    @property
    def statistics_batches(self) -> int:  # type: ignore[override]
        """The most batches that one of them looks at."""
        return max((part.statistics_batches for part in self.asking), default=Tokenizer.statistics_batches)

    def estimate(self, batches: Iterable[Batch]) -> None:
        """Let each estimate what it needs."""
        asking = self.asking
        for part, some in zip(asking, tee(batches, len(asking)), strict=True):
            part.estimate(islice(some, part.statistics_batches))

    def forward(self, batch: Batch) -> JointTokens:
        """Return the tokens of all modalities of a batch."""
        return join_tokens({name: part(batch) for name, part in self.tokenizers.items()}, numbers=self.numbers)
