"""The rule-based writer: what is known of a point, in the sentences of the grammars in `words/grammar`.

Position words are at most five for each axis and frame of reference and there are no digits or codes, so that the
words alone do not carry the coordinates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache

import numpy as np

from ..data.photos import AnnotatedObject, PartPoint
from .english import british, indefinite, punctuated
from .facts import HORIZONTAL, VERTICAL, PointFacts, Scene
from .grammar import Grammar, read_grammar
from .lexicon import (
    COLOR_WORDS,
    HORIZONTAL_WORDS,
    OBJECT_WORDS,
    PART_WORDS,
    VERTICAL_WORDS,
    phrase_pattern,
)
from .looks import COLORS, SpotLooks
from .slots import OWN, SEEN, FreeSlots, free_grammar, object_slots, side_of

__all__ = ["STYLES", "describe_point", "skeleton", "spot", "write"]

PLAIN_STYLES = (
    "full",
    "terse",
    "unseen",
    "colloquial",
    "no_position",
    "no_part",
    "caption",
)
PARTLESS_STYLES = ("no_part", "caption")
WORD_LIMITS = {"free": (25, 70), "thorough": (25, 70), "brief": (4, 20)}
STYLES = (*PLAIN_STYLES, *WORD_LIMITS)
TRIES = 8  # texts that are drawn until one has a length within the limits
TEXTURES = {
    "plain": "smooth",
    "fine texture": "lightly textured",
    "coarse texture": "strongly textured",
}
SPOTS = {
    "edge": "a {color} spot at an edge",
    "stripe": "a narrow {color} stripe",
    "light spot": "a small {color} spot",
    "dark spot": "a small {color} spot",
    "highlight": "a {color} highlight",
    "shadow": "a {color} shadow",
}
# beside the lexicon's names, colors and sides
CONTENT_WORDS = frozenset(
    (
        "above below beneath under underneath over middle center centre central mid-height halfway far "
        "upward downward end tip edge corner side small medium-sized large big tiny "
        "plain even smooth uniform fine finely faint slight slightly lightly light coarse coarsely rough roughly "
        "strong strongly textured texture stripe strip streak line fleck dot highlight glint shadow dark"
    ).split()
)
PLACED_SHARE = 0.8  # of the texts in "full" whose sentence is that of the place
OWN_SHARE = 0.3  # of the texts that could say the left or right of a part either way
BRITISH_SHARE = 0.4


@cache
def plain_grammar() -> Grammar:
    """Sentences of `PLAIN_STYLES`."""
    return read_grammar(["plain_styles"])


def write(
    facts: PointFacts, style: str = "full", rng: np.random.Generator | None = None
) -> str:
    """One sentence or more that say what is known of a point.

    Args:
        facts ([`PointFacts`])
        style (`str`): one of `STYLES`. "full" says object, part, their places and the looks, mostly in the sentence
            of the place; "terse" the names only; "unseen" as full, in sentences kept out of training; "colloquial" as
            full, in everyday words; "no_position" as full, less all positions; "no_part" as full, less the part's
            name; "caption" the object alone. "free" says whatever is true in 25 to 70 words, also relations and what
            borders the spot; "thorough" as free, with all that is known of where the object and the point are; "brief"
            in 4 to 20 words. Of a point beside all objects the styles say what is left.
        rng (`np.random.Generator`, *optional*): chooses the words; the first that apply without it.

    Raises ValueError for an unknown style, and for one that names the part where that is not known of an object.
    """
    if facts.object is not None and facts.part is None and style not in PARTLESS_STYLES:
        raise ValueError(
            f"style {style!r} names the part, which is not known of this point on a {facts.object}: "
            f"choose from {PARTLESS_STYLES}"
        )
    if style in PLAIN_STYLES:
        return write_plain(facts, style, rng)
    if style in WORD_LIMITS:
        return write_within(facts, style, rng or np.random.default_rng(0))
    raise ValueError(f"style must be one of {STYLES}, got {style!r}")


def spot(looks: SpotLooks) -> str:
    """Color and texture in a phrase: "a dark brown, smooth spot"."""
    texture = TEXTURES.get(looks.pattern)
    if texture is not None:
        return indefinite(f"{looks.color}, {texture} spot")
    return punctuated(SPOTS[looks.pattern].format(color=looks.color)).lower()


def describe_point(
    scene: Scene,
    annotated: AnnotatedObject | None,
    point: PartPoint,
    style: str = "full",
    rng: np.random.Generator | None = None,
) -> str:
    """One description of a point of a scene: its facts in the words of [`write`].

    Args:
        scene ([`Scene`])
        annotated ([`AnnotatedObject`], *optional*): of the scene's photo, that the point is on.
        point ([`PartPoint`]): in pixels of the scene.
        style (`str`), rng (`np.random.Generator`, *optional*): as [`write`] takes them.
    """
    return write(scene.facts(annotated, point), style, rng)


def skeleton(text: str, names: Iterable[str] = ()) -> str:
    """What is left of a text without names, colors, positions, directions, sizes and textures, for each of which a
    "_" stands: how it is put, whatever it is about.

    Args:
        text (`str`): by the writer or by anyone.
        names (list of `str`): of objects and parts beside those of the lexicon.
    """
    masked = _content(frozenset(names)).sub("_", text.lower())
    masked = re.sub(r"_(?:[ -]_)+", "_", masked)
    return re.sub(r"\ban _", "a _", masked)


@lru_cache(maxsize=8)
def _content(names: frozenset[str]) -> re.Pattern[str]:
    """The expression that finds the words that [`skeleton`] leaves out."""
    words = {*names, *COLOR_WORDS, *VERTICAL_WORDS, *HORIZONTAL_WORDS, *CONTENT_WORDS}
    for color in COLORS:
        words |= {color, color.replace("gray", "grey")}
    for table in (OBJECT_WORDS, PART_WORDS):
        for name, called in table.items():
            words.update((name, *called))
    return re.compile(phrase_pattern(words))


def write_plain(
    facts: PointFacts, style: str, rng: np.random.Generator | None = None
) -> str:
    """A text in one of `PLAIN_STYLES`."""
    first = None
    if style == "full" and rng is not None and rng.random() < PLACED_SHARE:
        first = sentence_of_place(facts)
    words = plain_grammar().expand(
        plain_symbol(facts, style), plain_slots(facts), rng, first
    )
    if words is None:
        raise ValueError(f"no sentence of style {style!r} can say {facts}")
    names = [name for name in (facts.object, facts.part) if name]
    return punctuated(words, names)


def sentence_of_place(facts: PointFacts) -> int:
    """Number of the sentence that a place has: of the point on its object, or in the photo beside all objects.

    A language model that has learned all sentences as equals says the same one of every point, the likeliest by a
    little. Of sentences that depend on what it sees it says many.
    """
    down, across = (facts.on_object or facts.in_image).split(" and ")
    return len(HORIZONTAL) * VERTICAL.index(down) + HORIZONTAL.index(across)


def plain_symbol(facts: PointFacts, style: str) -> str:
    """The symbol of the grammar that says a style with what is known of a point."""
    if facts.object is not None:
        return style
    # without an object there is no part to leave out
    said = "full" if style in PARTLESS_STYLES else style
    return f"{said} beside all objects"


def plain_slots(facts: PointFacts) -> dict[str, str | None]:
    """What the sentences of `PLAIN_STYLES` can say."""
    slots = object_slots(facts, facts.object)
    slots["in_image"] = facts.in_image
    slots["on_object"] = facts.on_object
    slots["in_part"] = facts.in_part
    slots["spot"] = spot(facts.looks)
    slots["part"] = facts.part
    slots["own_part"] = facts.part
    if facts.part and side_of(facts.part):
        slots["own_part"] = f"own {facts.part}"
    return slots


def write_within(facts: PointFacts, style: str, rng: np.random.Generator) -> str:
    """A text of a style in `WORD_LIMITS`; where no drawn one has such a length, the one that misses it least."""
    fewest, most = WORD_LIMITS[style]
    is_british = rng.random() < BRITISH_SHARE
    # in the object's own frame less can be said of where the point is on it
    own_share = 0.0 if style == "thorough" else OWN_SHARE
    frame = frame_of_sides(facts, own_share, rng)
    slots = FreeSlots(facts, frame, rng, is_british).slots()
    nearest = ""
    least_miss = np.inf
    for _ in range(TRIES):
        words = free_grammar().expand(style, slots, rng)
        if words is None:
            raise ValueError(f"no sentence of style {style!r} can say {facts}")
        count = len(words.split())
        miss = max(fewest - count, count - most, 0)
        if miss < least_miss:
            nearest = words
            least_miss = miss
        if miss == 0:
            break
    text = punctuated(nearest)
    return british(text) if is_british else text


def frame_of_sides(
    facts: PointFacts, own_share: float, rng: np.random.Generator
) -> str:
    """Whose left and right a text speaks of: `SEEN` in the picture, or the object's `OWN`."""
    if facts.object is None:
        return SEEN
    if facts.part and side_of(facts.part) and facts.seen is None:
        return OWN
    return OWN if rng.random() < own_share else SEEN
