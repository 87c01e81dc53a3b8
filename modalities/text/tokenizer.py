"""Texts to tokens of a vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jepa_lightning.config.stored import stored
from jepa_lightning.modality import Batch, Tokenizer
from jepa_lightning.tokens import Tokens, send
from modalities.text.vocabulary import BYTES, Vocabulary, fit_merges, from_file, from_merges

_MULTIPLE = 8  # N is one, so that fewer sizes occur
_LARGEST = 2**20  # tokens in a vocabulary


class TextTokenizer(Tokenizer):
    """Numbers of tokens, their positions in the text, and the words and sentences that they are parts of.

    A batch's `text` is a list of B texts. The vocabulary is byte-pair encoding on bytes, fitted on the first training
    batches (up to 2000) and kept in the checkpoint as a list of merges; or that of a file of Hugging Face tokenizers,
    whose content is kept in the checkpoint. A run's folder is thus all that is needed for the same tokens.

    N is the largest number of tokens of a text in the batch, rounded up to a multiple of 8, and `Tokens.valid` says
    which are real. `Tokens.units` has "word" (what the vocabulary cuts texts into first: words and punctuation) and
    "sentence" (a token that ends with a full stop, an exclamation or a question mark, or with a line break in it, is
    the last of one).

    Args:
        file: a file of Hugging Face tokenizers (tokenizer.json); None: a vocabulary fitted on the data.
        vocabulary: number of tokens of a fitted vocabulary; 256: bytes, nothing is fitted.
        length: largest number of tokens of a text; what is beyond is cut off.
        lowercase: make texts lower case; a file says so itself.
        special_tokens: add the file's special tokens to each text.
        fixed_size: N is always `length` (rounded up), for `torch.compile` and XLA.

    Raises:
        ValueError: a setting is out of range, or the file is no tokenizers file; when called: the batch holds no texts.
    """

    merges: Tensor
    content: Tensor
    estimated: Tensor
    statistics_batches = 2000

    def __init__(
        self,
        *,
        file: str | None = None,
        vocabulary: int = 2048,
        length: int = 128,
        lowercase: bool = False,
        special_tokens: bool = False,
        fixed_size: bool = False,
    ) -> None:
        super().__init__()
        if length < 2:
            raise ValueError(f"length must be at least 2 tokens, got {length}")
        if not BYTES <= vocabulary <= _LARGEST:
            raise ValueError(f"vocabulary must be from {BYTES}, the bytes, to {_LARGEST}, got {vocabulary}")
        for name, value in (("special_tokens", special_tokens and file is None), ("lowercase", lowercase and file)):
            if value:
                which = "without a file of tokenizers" if file is None else "with one, which says so itself"
                raise ValueError(f"{name} means nothing {which}: leave it out")
        self.file = file
        self.length = length
        self.lowercase = lowercase
        self.special_tokens = special_tokens
        self.fixed_size = fixed_size
        self._vocabulary: Vocabulary | None = None
        self.register_load_state_dict_post_hook(_forget)
        content = None if file is None else _content(file)
        if content is not None:
            self.register_buffer("content", content)
            self.size = self.vocabulary.size
        else:
            self.register_buffer("merges", torch.full((vocabulary - BYTES, 2), -1, dtype=torch.int32))
            self.register_buffer("estimated", torch.tensor(vocabulary == BYTES))
            self.size = vocabulary

    @property
    def needs_statistics(self) -> bool:  # type: ignore[override]
        """Whether a vocabulary is yet to be fitted."""
        return self.file is None and not bool(self.estimated)

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary: before it is fitted, bytes."""
        if self._vocabulary is None:
            if self.file is not None:
                content = self.content.cpu().numpy().tobytes()
                self._vocabulary = from_file(content, name=self.file, special_tokens=self.special_tokens)
            else:
                pairs = [(int(a), int(b)) for a, b in self.merges.cpu().tolist() if a >= 0]
                self._vocabulary = from_merges(pairs, lowercase=self.lowercase)
        return self._vocabulary

    def forget(self) -> None:
        """Make the vocabulary anew from the buffers when it is used next."""
        self._vocabulary = None

    @torch.no_grad()
    def estimate(self, batches: Iterable[Batch]) -> None:
        """Fit the vocabulary on the texts of the batches.

        Raises:
            ValueError: there is no text.
        """
        count = 0

        def texts() -> Iterable[str]:
            nonlocal count
            for batch in batches:
                for text in self._texts(batch):
                    count += 1
                    yield text

        merges = fit_merges(texts(), size=self.size, lowercase=self.lowercase)
        if not count:
            raise ValueError("no text to fit the vocabulary on: check the data, or set vocabulary to 256 for bytes")
        found = torch.tensor(merges, dtype=torch.int32).reshape(-1, 2)
        self.merges.fill_(-1)
        self.merges[: len(found)] = found.to(self.merges.device)
        self.estimated.fill_(True)
        self._vocabulary = None

    def forward(self, batch: Batch) -> Tokens:
        """Tokens with values (B, N) int64 from `batch["text"]`, a list of B strings."""
        ids, words, counts = self.vocabulary.encode(self._texts(batch), most=self.length)
        count = self.length if self.fixed_size else max(ids.shape[1], 1)
        count = -(-count // _MULTIPLE) * _MULTIPLE
        room = ((0, 0), (0, count - ids.shape[1]))
        ids, words = np.pad(ids, room), np.pad(words, room, constant_values=-1)
        ends = self.vocabulary.ends_sentence[ids]
        sentences = np.where(words >= 0, ends.cumsum(1) - ends, -1)
        device = self.device
        return Tokens(
            values=send(torch.from_numpy(ids), device),
            positions=torch.arange(count, device=device, dtype=torch.float32)[None, :, None],
            grid=(count,),
            valid=send(torch.from_numpy(np.arange(count) < counts[:, None]), device),
            units={
                "word": send(torch.from_numpy(words), device),
                "sentence": send(torch.from_numpy(sentences), device),
            },
        )

    @property
    def device(self) -> torch.device:
        """Where tokens are put."""
        return (self.merges if self.file is None else self.content).device

    @staticmethod
    def _texts(batch: Batch) -> Sequence[str]:
        if "text" not in batch:
            raise ValueError(f"a batch of texts needs the key 'text', this one has {sorted(batch)}")
        texts = batch["text"]
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
            kind = type(texts).__name__ if not isinstance(texts, list | tuple) or not texts else "of other things"
            raise ValueError(f"batch['text'] must be a list of at least one string, got a {kind}")
        return texts


def _forget(tokenizer: nn.Module, keys: Any) -> None:
    """Make the vocabulary anew from what was loaded, when it is used next."""
    assert isinstance(tokenizer, TextTokenizer)
    tokenizer.forget()


def _content(file: str) -> Tensor:
    """The bytes of a tokenizers file, (n,) uint8: those in the checkpoint that is loaded, or the file's.

    Raises:
        ValueError: there is no such file.
    """
    kept = stored("content", of="tokenizer.")
    if len(kept) == 1:
        return kept[0].clone()
    path = Path(file).expanduser()
    if path.is_dir():
        path = path / "tokenizer.json"
    try:
        return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"expected a file of Hugging Face tokenizers (tokenizer.json), cannot read {path}: {error}"
        ) from None
