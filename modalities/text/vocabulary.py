"""Vocabularies: byte-pair encoding (BPE) on bytes, fitted on the data, or that of a Hugging Face tokenizers file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalities.text.reading import without_surrogates
from modalities.text.requirements import tokenizers

BYTES = 256
_CUT = 64  # characters of a text for each token that is kept of it; what is beyond is not looked at
_ENDS = (".", "!", "?", "…", "\u3002", "\uff01", "\uff1f", "\u061f", "\u0964")  # full-width, Arabic and Hindi ones, too


class Vocabulary:
    """From texts to numbers of tokens.

    Args:
        tokenizer: of the package tokenizers.
        special_tokens: whether the file's own special tokens ([CLS], [SEP]) are added to each text.

    Attributes:
        size: one more than the largest number of a token.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, *, special_tokens: bool = False) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._special_tokens = special_tokens
        self.size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode(
        self, texts: Sequence[str], *, most: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Encode texts: tokens and the numbers of their words (B, N), and the numbers of tokens (B,).

        Args:
            texts: B of them. Characters that UTF-8 does not have become question marks.
            most: tokens of a text; what is beyond is left out.

        Returns:
            N is the largest number of tokens. Behind a text's end tokens are 0 and words -1, as words of special tokens
            are.
        """
        self._tokenizer.enable_truncation(most)
        cut = [without_surrogates(text[: _CUT * most]) for text in texts]
        found = self._tokenizer.encode_batch(cut, add_special_tokens=self._special_tokens)
        counts = np.array([len(one) for one in found], dtype=np.int64)
        ids = np.zeros((len(texts), int(counts.max(initial=0))), dtype=np.int64)
        words = np.full_like(ids, -1)
        for row, one in enumerate(found):
            ids[row, : counts[row]] = one.ids
            words[row, : counts[row]] = [-1 if word is None else word for word in one.word_ids]
        return ids, words, counts

    @cached_property
    def pieces(self) -> list[str]:
        """The text of each token, with its blanks; "" for numbers of no token."""
        known = {number: token for token, number in self._tokenizer.get_vocab(with_added_tokens=True).items()}
        special = {n for n, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        found = []
        for number in range(self.size):
            token = known.get(number, "")
            if number in special or not token:
                found.append(token)
            elif token.startswith("##"):  # how WordPiece marks what continues a word
                found.append(token[2:])
            else:
                piece = self._tokenizer.decode([number], skip_special_tokens=False)
                found.append(" " + piece.lstrip(" ") if token[0] in "Ġ▁" else piece)  # which decoders may leave out
        return found

    @cached_property
    def ends_sentence(self) -> NDArray[np.bool_]:
        """Whether a sentence ends with a token, (size,): one of full stops, or with a line break in it."""
        return np.array([piece.strip().endswith(_ENDS) or "\n" in piece for piece in self.pieces], dtype=bool)


def from_file(content: bytes, *, name: str, special_tokens: bool = False) -> Vocabulary:
    """Read the content of a tokenizers file (tokenizer.json).

    Raises:
        ValueError: it is none.
    """
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # the package raises plain ones
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"expected a file of Hugging Face tokenizers (tokenizer.json), cannot read {name}: {reason}"
        ) from None
    return Vocabulary(tokenizer, special_tokens=special_tokens)


def from_merges(merges: Sequence[tuple[int, int]], *, lowercase: bool = False) -> Vocabulary:
    """Build the byte-level BPE (Radford et al. 2019, section 2.2) of a list of merges.

    Tokens 0 to 255 are the bytes. Each merge makes the next token of two, unless that is one already.

    Args:
        merges: pairs of numbers of tokens, in order.
        lowercase: make texts lower case first.
    """
    symbols = _byte_symbols()
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    pairs = []
    for left, right in merges:
        pairs.append((symbols[left], symbols[right]))
        joined = symbols[left] + symbols[right]
        if joined not in numbers:
            numbers[joined] = len(symbols)
            symbols.append(joined)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=numbers, merges=pairs))
    return Vocabulary(_byte_level(tokenizer, lowercase=lowercase))


def fit_merges(texts: Iterable[str], *, size: int, lowercase: bool = False) -> list[tuple[int, int]]:
    """Fit byte-pair encoding (Sennrich et al. 2016) on texts.

    Args:
        texts: the texts.
        size: number of tokens, bytes included; there are fewer where the texts have fewer pairs that occur twice.
        lowercase: make texts lower case first.

    Returns:
        The merges, for `from_merges`.
    """
    tokenizer = _byte_level(tokenizers.Tokenizer(tokenizers.models.BPE()), lowercase=lowercase)
    settings: dict[str, Any] = {"vocab_size": size, "min_frequency": 2, "show_progress": False}
    trainer = tokenizers.trainers.BpeTrainer(initial_alphabet=_byte_symbols(), **settings)
    tokenizer.train_from_iterator(map(without_surrogates, texts), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    symbols = _byte_symbols()
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    found = []
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge  # a string before tokenizers 0.20
        found.append((numbers[left], numbers[right]))
        numbers.setdefault(left + right, len(numbers))
    return found[: size - BYTES]


def _byte_level(tokenizer: tokenizers.Tokenizer, *, lowercase: bool) -> tokenizers.Tokenizer:
    """Cut texts into words, and these into bytes. A text begins with a blank, as its other words do."""
    if lowercase:
        tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _byte_symbols() -> list[str]:
    """The character that stands for each byte: itself where it can be seen, else one from 256 on, in order."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(BYTES) if byte not in seen]
    return [chr(byte if byte in seen else 256 + others.index(byte)) for byte in range(BYTES)]
