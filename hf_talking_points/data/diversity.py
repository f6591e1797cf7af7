"""How different texts are from each other: in their pairs of words, and in what is left when the words that follow
from the point are masked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

from ..words.facts import HORIZONTAL, SIZE_WORDS, VERTICAL
from ..words.lexicon import (
    COLOR_WORDS,
    HORIZONTAL_WORDS,
    OBJECT_WORDS,
    PART_WORDS,
    VERTICAL_WORDS,
    phrase_pattern,
)
from ..words.looks import COLORS
from ..words.relations import DIRECTIONS

MOST_TEXTS = 2000  # all measures fall with the number of texts, so it is the same one


TEXTURES = ("smooth", "plain", "textured", "fine", "coarse")


@cache
def masked_words() -> re.Pattern[str]:
    """The expression that finds what a text says of its point in words of the lexicon: names, colors, places, sizes,
    textures."""
    phrases = {*HORIZONTAL, *VERTICAL, *SIZE_WORDS, *DIRECTIONS, *TEXTURES}
    phrases |= {*HORIZONTAL_WORDS, *VERTICAL_WORDS, *COLOR_WORDS}
    for color in COLORS:
        phrases |= {color, color.replace("gray", "grey")}
    for table in (OBJECT_WORDS, PART_WORDS):
        for name, called in table.items():
            phrases |= {name, *called}
    return re.compile(phrase_pattern(phrases))


def skeleton(text: str) -> str:
    """What is left of a text when the words that follow from its point are masked, neighbors of them as one.

    "The dog's left ear, dark brown." and "The cat's right eye, black." both are "the _'s _, _.".
    """
    masked = masked_words().sub("_", text.lower())
    masked = re.sub(r"\ban\b", "a", masked)
    return re.sub(r"_(?:[ -]_)+", "_", masked)


def spread_sample(texts: Sequence[str], count: int = MOST_TEXTS) -> list[str]:
    """Up to `count` of the texts, spread evenly over them."""
    if len(texts) <= count:
        return list(texts)
    places = np.linspace(0, len(texts) - 1, count).round().astype(int)
    return [texts[place] for place in places]


def repeated_skeletons(texts: Sequence[str]) -> float:
    """The share of texts, in percent, whose [`skeleton`] another one of them has too; 0 for no texts."""
    counts = Counter(skeleton(text) for text in texts)
    repeated = sum(count for count in counts.values() if count > 1)
    return 100 * repeated / max(len(texts), 1)
