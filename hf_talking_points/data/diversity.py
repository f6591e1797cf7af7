"""How different texts are from each other: in their pairs of words, and in what is left when the words that follow
from the point are masked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..words.writer import skeleton

MOST_TEXTS = 2000  # all measures fall with the number of texts, so it is the same one


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
