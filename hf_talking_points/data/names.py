"""Names of objects and parts as words: publishers spell them in many ways, and each is read once, here.

"left" and "right" in a name are the object's own side.
"""

from __future__ import annotations

import re

SIDES = {"left": "right", "right": "left"}
ABBREVIATIONS = {"l": "left", "r": "right", "f": "front", "b": "back"}
# riders and farriers call a horse's left side its near side
NEAR_AND_OFF = {"near": "left", "nearside": "left", "off": "right", "offside": "right"}
RIDDEN = {"horse", "pony", "foal", "mare", "stallion", "gelding", "donkey", "mule"}
COMPOUNDS = {"tailbase": "tail base"}

_BRACKETS = re.compile(r"[()\[\]{}]")
_NEW_WORD = re.compile(
    r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
)  # eyeL, leftEye, LEye
_SIDE = r"(?:left|right|[lr])"
_SIDE_SUFFIX = re.compile(  # eye.L, eye-left
    rf"(?<=\w)[.-](?={_SIDE}(?:[.-]{_SIDE})*(?:[\s_]|$))", re.IGNORECASE
)
_SIDE_PREFIX = re.compile(r"^(left|right)-(?=\w)", re.IGNORECASE)
_RIDDEN_PREFIX = re.compile(
    r"^(left|right|near|off|nearside|offside)-(?=\w)", re.IGNORECASE
)
_GAP = re.compile(r"[ _\t\n\r\f\v\u00a0\u3000]+")


def _spaced(raw: str) -> str:
    """A name with single spaces for brackets, underscores and other gaps, also before a capital that begins a word."""
    without_brackets = _BRACKETS.sub(" ", raw)
    return _GAP.sub(" ", _NEW_WORD.sub(" ", without_brackets)).strip(" ")


def _words(spaced: str) -> list[str]:
    """The words of a name in small letters."""
    return spaced.lower().split(" ") if spaced else []


def normalize_category(raw: str) -> str:
    """The name of an object in words: "traffic_light" and "TrafficLight " are the "traffic light".

    Returns "" where nothing is left.
    """
    return " ".join(_words(_spaced(raw)))


def normalize_part(raw: str, category: str = "") -> str:
    """The name of a part in words, a side of the object first: "Left_Eye", "eyeL" and "eye_left" are the "left eye".

    Args:
        raw (`str`): as the publisher spells it.
        category (`str`): of the object that it belongs to, as [`normalize_category`] gives it. The near side of a
            horse is its left one.
    Returns:
        `str`: "" where nothing is left. A name that is normalized already stays as it is.
    """
    is_ridden = not RIDDEN.isdisjoint(category.split(" "))
    prefix = _RIDDEN_PREFIX if is_ridden else _SIDE_PREFIX
    spaced = _SIDE_SUFFIX.sub(" ", _spaced(raw))
    spelled = _words(prefix.sub(r"\1 ", spaced))
    if len(spelled) > 1:
        if is_ridden:
            spelled = [NEAR_AND_OFF.get(word, word) for word in spelled]
        spelled = _side_first(spelled)
    return " ".join(COMPOUNDS.get(word, word) for word in spelled)


def _side_first(spelled: list[str]) -> list[str]:
    """The words of a part with its side written out, and before the part where it stood behind it."""
    words = [ABBREVIATIONS.get(word, word) for word in spelled]
    if not SIDES.keys() & set(words):
        return spelled
    # "paw_L_F": what else was abbreviated belongs to the side
    last = len(words)
    while last and (words[last - 1] in SIDES or words[last - 1] != spelled[last - 1]):
        last -= 1
    if last == 0:  # nothing but sides and abbreviations
        last = len(words)
        while last and words[last - 1] in SIDES:
            last -= 1
    return words[last:] + words[:last]


def mirrored_part(part: str) -> str:
    """The name of a part, as [`normalize_part`] gives it, in a mirrored photo: a left eye becomes a right eye."""
    return " ".join(SIDES.get(word, word) for word in part.split(" "))


def names_it(description: str, name: str) -> bool:
    """Whether a description contains the name of an object or part, as the readers give it, in whole words."""
    if not name:
        return False
    return (
        re.search(rf"(?<!\w){re.escape(name)}(?!\w)", description, re.IGNORECASE)
        is not None
    )
