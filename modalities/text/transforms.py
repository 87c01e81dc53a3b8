"""Passages of long texts, and views of texts."""

from __future__ import annotations

import re
from typing import Any

import torch

from jepa_lightning.data import DataError, Sample, ViewTransform

_BLANKS = " \n\t"
_WORD = 200  # characters in which the blank before a word is looked for


class Passage:
    """Cuts long texts: at a random word in training, else at the start.

    Args:
        characters: of a passage; texts that are not longer stay whole. What a tokenizer does not take is left to it.
        random: begin at a random word (by torch's global generator, seeded for each training sample).
    """

    def __init__(self, characters: int, *, random: bool = False) -> None:
        self.characters = characters
        self.random = random

    def __call__(self, sample: Sample) -> Sample:
        """Put the passage in the sample."""
        text: str = sample["text"]
        if len(text) > self.characters:
            start = int(torch.randint(len(text) - self.characters + 1, ())) if self.random else 0
            sample["text"] = passage(text, start, self.characters)
        return sample


def passage(text: str, start: int, characters: int) -> str:
    """Cut `characters` from a text, from the first letter of the word on that `start` lies in."""
    before = text[max(0, start - _WORD) : start]
    blank = max(map(before.rfind, _BLANKS))  # -1 at the start, and in scripts that have no blanks
    start -= len(before) - blank - 1 if blank >= 0 or start <= _WORD else 0
    return text[start : start + characters]


class TextViews(ViewTransform):
    """Views of texts: a random passage, of which some words are left out (Wei and Zou 2019, arXiv:1901.11196).

    Args:
        share: range of the passage's share of the text's words.
        drop: probability that a word is left out; one word always stays.

    Raises:
        DataError: a setting is out of range.

    Examples:
        ```yaml
        data:
          class_path: TextData
          init_args: {views: 2, view_transform: {class_path: TextViews, init_args: {drop: 0.2}}}
        ```
    """

    name = "text"
    cut: Passage

    def __init__(self, *, share: tuple[float, float] = (0.5, 1.0), drop: float = 0.1) -> None:
        if len(share) != 2 or not 0 < share[0] <= share[1] <= 1:
            raise DataError(f"expected share as two rising shares from above 0 to 1, got {tuple(share)}")
        if not 0 <= drop < 1:
            raise DataError(f"expected drop from 0 to below 1, got {drop:g}")
        self.share = share
        self.drop = drop

    def configure(self, data: Any) -> None:
        """Take the length of passages from the data module."""
        self.cut = data.transforms()[0]

    def __call__(self, sample: Sample, view: int = 0) -> Sample:
        """Make one view of the sample's `text`."""
        sample = self.cut(dict(sample))
        words = re.findall(r"\s*\S+", sample["text"]) or [sample["text"]]
        low, high = self.share
        kept = max(1, round(len(words) * (low + (high - low) * float(torch.rand(())))))
        start = int(torch.randint(len(words) - kept + 1, ()))
        words = words[start : start + kept]
        stay = torch.rand(len(words)) >= self.drop
        stay[int(torch.randint(len(words), ()))] = True
        return {**sample, "text": "".join(word for word, s in zip(words, stay.tolist(), strict=True) if s).lstrip()}
