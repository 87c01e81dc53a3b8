"""A labelled set of short English texts by a small grammar, so that everything runs with no data on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from jepa_lightning.data import DataError
from jepa_lightning.data.generation import sample_rng
from jepa_lightning.names.shown import Shown

TOPICS: dict[str, tuple[str, str, str, str]] = {  # who, what, does, where
    "kitchen": (
        "cook baker waiter chef butcher",
        "soup loaf onion pan kettle pie",
        "stir peel roast fry",
        "pantry bakery diner",
    ),
    "harbour": (
        "sailor captain diver docker skipper",
        "anchor sail oar hull mast buoy",
        "moor tow steer row",
        "pier bay lagoon",
    ),
    "farm": (
        "farmer shepherd milker ploughman herder",
        "barn cow goat tractor hen bale",
        "plough milk shear herd",
        "pasture stable orchard",
    ),
    "office": (
        "clerk manager typist auditor secretary",
        "memo desk printer folder stamp invoice",
        "sign file type scan",
        "lobby archive boardroom",
    ),
    "music": (
        "drummer singer pianist cellist conductor",
        "drum guitar organ flute violin tune",
        "hum strum rehearse conduct",
        "theatre opera ballroom",
    ),
    "sport": (
        "runner goalkeeper boxer referee golfer",
        "ball goal medal racket trophy hurdle",
        "kick throw tackle score",
        "stadium gym arena",
    ),
    "garden": (
        "gardener florist botanist beekeeper weeder",
        "rose tulip shovel hedge fern bulb",
        "prune weed mow rake",
        "greenhouse park terrace",
    ),
    "space": (
        "astronaut cosmonaut stargazer robot navigator",
        "rocket planet comet satellite telescope crater",
        "launch orbit observe explore",
        "observatory galaxy capsule",
    ),
    "school": (
        "teacher pupil tutor professor librarian",
        "book pencil lesson chalk exam satchel",
        "teach learn read spell",
        "classroom library schoolyard",
    ),
    "hospital": (
        "doctor nurse surgeon patient dentist",
        "bandage pill syringe stretcher plaster thermometer",
        "heal treat nurse cure",
        "ward clinic pharmacy",
    ),
    "forest": (
        "ranger hunter lumberjack trapper camper",
        "oak squirrel mushroom tent deer axe",
        "chop climb hunt gather",
        "woods glade cabin",
    ),
    "railway": (
        "driver porter guard passenger signalman",
        "train ticket wagon engine rail suitcase",
        "board couple signal shunt",
        "station tunnel depot",
    ),
    "castle": (
        "king queen knight squire jester",
        "sword crown shield dragon armour banner",
        "rule defend besiege conquer",
        "tower dungeon moat",
    ),
    "court": (
        "magistrate lawyer witness juror bailiff",
        "verdict trial clause gavel plea alibi",
        "accuse sentence acquit swear",
        "courtroom prison tribunal",
    ),
    "circus": (
        "clown juggler acrobat tamer magician",
        "lion tightrope hoop trapeze elephant trick",
        "juggle tame balance amuse",
        "ring caravan marquee",
    ),
    "building": (
        "mason plumber carpenter roofer painter",
        "brick hammer ladder pipe plank nail",
        "build saw paint drill",
        "site workshop scaffold",
    ),
}
GOOD = "good lovely bright delightful splendid clever charming superb pleasant wonderful graceful excellent"
BAD = "bad awful dull dreadful dismal clumsy boring poor unpleasant terrible ugly miserable"
_SIZES = "old young small tall quiet busy tired eager local famous"
_LINKS = "near behind beside with"
_FILLED = 0.15  # share of topic words that are of any topic
_NAMES = ["it", "this", "everything", "the day", "all of it"]


class GeneratedText(Shown, Dataset[dict[str, Any]]):
    """Texts of two or three short sentences on a topic, with an opinion.

    Text i depends on the seed, the split and i alone. Of its words about the topic, 15% are of any topic. The topics
    are equally frequent.

    Args:
        samples: number of texts.
        seed: of the set.
        split: "train", "val" or "test"; the texts of different splits are drawn independently.

    A sample is `text` and `labels`: `topic` (16 classes); `sentiment` (0: negative, 1: positive), which "not" reverses;
    and `agreement`, whether the verbs agree with their subjects (1) or one does not (0), though a noun of the other
    number may stand between them.

    Raises:
        DataError: an argument out of range.

    Examples:
        >>> from modalities.text import GeneratedText
        >>> texts = GeneratedText(16, seed=1)
        >>> texts
        GeneratedText(samples=16, seed=1)
        >>> sorted(texts[0]["labels"])
        ['agreement', 'sentiment', 'topic']
    """

    def __init__(self, samples: int = 4000, *, seed: int = 0, split: str = "train") -> None:
        if samples < 1:
            raise DataError(f"expected at least 1 sample, got {samples}")
        self.classes = list(TOPICS)
        self.targets = np.arange(samples, dtype=np.int64) % len(TOPICS)
        self.texts: list[str] = []
        found = []
        for index, topic in enumerate(self.targets.tolist()):
            text, *labels = _draw(sample_rng(seed, split, index), topic)
            self.texts.append(text)
            found.append(labels)
        self.sentiments, self.agreements = np.array(found, dtype=np.int64).T

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = {
            "topic": self.targets[index],
            "sentiment": self.sentiments[index],
            "agreement": self.agreements[index],
        }
        return {"text": self.texts[index], "labels": labels}


def _draw(rng: np.random.Generator, topic: int) -> tuple[str, int, int]:
    """Draw a text, its sentiment and whether its verbs agree."""
    count, agrees = int(rng.integers(1, 3)), int(rng.integers(2))
    wrong = -1 if agrees else int(rng.integers(count))
    sentences = [_statement(rng, topic, agrees=number != wrong) for number in range(count)]
    positive, opposed = int(rng.integers(2)), bool(rng.random() < 0.3)
    word = _pick(rng, (GOOD if positive != opposed else BAD).split())
    verdict = f"{_pick(rng, _NAMES)} was {'not ' * opposed}{_pick(rng, ['', 'very ', 'quite ', 'rather '])}{word}."
    sentences.insert(int(rng.integers(count + 1)), verdict)
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences), positive, agrees


def _statement(rng: np.random.Generator, topic: int, *, agrees: bool) -> str:
    """Draw a sentence: who does what, where, with an adjective and a further noun."""
    plural = bool(rng.integers(2))
    parts = ["the", _pick(rng, _SIZES.split()), _noun(_word(rng, topic, 0), plural)]
    if rng.random() < 0.5:
        parts += [
            _pick(rng, _LINKS.split()),
            "the",
            _noun(_word(rng, topic, int(rng.integers(2))), bool(rng.integers(2))),
        ]
    parts += [_verb(_word(rng, topic, 2), plural == agrees)]
    parts += ["the", _noun(_word(rng, topic, 1), bool(rng.integers(2)))]
    if rng.random() < 0.5:
        parts += ["in the", _word(rng, topic, 3)]
    return " ".join(parts) + "."


def _word(rng: np.random.Generator, topic: int, kind: int) -> str:
    topic = int(rng.integers(len(TOPICS))) if rng.random() < _FILLED else topic
    return _pick(rng, TOPICS[list(TOPICS)[topic]][kind].split())


def _pick(rng: np.random.Generator, words: list[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _noun(word: str, plural: bool) -> str:
    if not plural:
        return word
    special = {"loaf": "loaves", "ploughman": "ploughmen", "signalman": "signalmen"}
    return special.get(word) or _with_s(word)


def _verb(word: str, plural: bool) -> str:
    return word if plural else _with_s(word)


def _with_s(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"
