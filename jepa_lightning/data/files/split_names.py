"""The names of splits: train, Training, train2017, seg_train, train-clean-100, and so on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words for a split, in lower case."""

ORDER = ("train", "val", "test")

_NEUTRAL = {
    *("set", "data", "dataset", "split", "part", "folder", "file", "files", "list", "all", "samples"),
    *("image", "images", "img", "imgs", "picture", "pictures", "photos", "frames", "video", "videos", "clips", "clip"),
    *("audio", "sound", "sounds", "wav", "wavs", "points", "clouds"),
}
_Item = TypeVar("_Item")


def split_of(name: str) -> tuple[str, str] | None:
    """Find the split that a name says, and what else it says: ("train", "seg") for Seg_Train; None where it says none.

    Digits, separators and words such as set, images, data say nothing. A name of two splits says none.
    """
    words = re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", name).lower())
    words = [part for word in words for part in _parted(word)]
    found = [word for word in words if word in SPLITS]
    if len(found) != 1:
        return None
    return SPLITS[found[0]], " ".join(word for word in words if word not in SPLITS and word not in _NEUTRAL)


def plain_split_of(name: str) -> str | None:
    """Find the split that a name says, if it says nothing else: train, Training, train_set, train2017."""
    found = split_of(name)
    return None if found is None or found[1] else found[0]


def group_by_split(named: Iterable[tuple[str, _Item]]) -> dict[str, list[_Item]]:
    """Group things whose names are splits, in the order train, val, test.

    A name that says more than a split counts only where the same is said of a training and of another split: seg_train
    beside seg_test, but not train_station beside test_tube.
    """
    found = [(split_of(name), item) for name, item in named]
    known = [(says, item) for says, item in found if says is not None]
    of_rest: dict[str, set[str]] = {}
    for (split, rest), _ in known:
        of_rest.setdefault(rest, set()).add(split)
    whole = {rest for rest, splits in of_rest.items() if not rest or ("train" in splits and len(splits) > 1)}
    return {
        split: items
        for split in ORDER
        if (items := [item for (says, rest), item in known if says == split and rest in whole])
    }


def _parted(word: str) -> list[str]:
    """Split trainset into train set, testlist into test list."""
    for end in ("set", "list", "data", "images"):
        if word.removesuffix(end) in SPLITS and word != end:
            return [word.removesuffix(end), end]
    return [word]
