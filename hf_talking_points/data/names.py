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
_NEW_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # eyeL, leftEye, LEye
_SIDE_SUFFIX = re.compile(r"(?<=\w)[.-]([LlRr])$")  # eye.L
_SIDE_PREFIX = re.compile(r"^(left|right)-", re.IGNORECASE)
_GAP = re.compile(r"[ _\t]+")


def _words(raw: str) -> list[str]:
    spaced = _BRACKETS.sub(" ", raw)
    spaced = _NEW_WORD.sub(" ", spaced)
    words = _GAP.sub(" ", spaced).strip(" ").lower()
    return words.split(" ") if words else []


def normalize_category(raw: str) -> str:
    """The name of an object in words: "traffic_light" and "TrafficLight " are the "traffic light".

    Returns "" where nothing is left.
    """
    return " ".join(_words(raw))


def normalize_part(raw: str, category: str = "") -> str:
    """The name of a part in words, a side of the object first: "Left_Eye", "eyeL", "L_Eye" and "eye_left" are the "left eye".

    Args:
        raw (`str`): as the publisher spells it.
        category (`str`): of the object that it belongs to, as [`normalize_category`] gives it. The near side of a horse is its left one.
    Returns:
        `str`: "" where nothing is left.
    """
    raw = _SIDE_SUFFIX.sub(r" \1", raw.strip(" _\t"))
    raw = _SIDE_PREFIX.sub(r"\1 ", raw)
    spelled = _words(raw)
    if len(spelled) < 2:
        return " ".join(COMPOUNDS.get(word, word) for word in spelled)
    if RIDDEN.intersection(category.split(" ")):
        spelled[0] = NEAR_AND_OFF.get(spelled[0], spelled[0])
    has_side = any(ABBREVIATIONS.get(word, word) in SIDES for word in spelled)
    words = [ABBREVIATIONS.get(word, word) if has_side else word for word in spelled]

    # a side, and what else was abbreviated, may stand behind the part: paw_L_F
    start = len(words)
    while start and (words[start - 1] in SIDES or words[start - 1] != spelled[start - 1]):
        start -= 1
    ordered = words[start:] + words[:start]
    return " ".join(COMPOUNDS.get(word, word) for word in ordered)


def mirrored_part(part: str) -> str:
    """The name of a part, as [`normalize_part`] gives it, in a mirrored photo: an animal's left eye becomes a right eye."""
    return " ".join(SIDES.get(word, word) for word in part.split(" "))


def names_it(description: str, name: str) -> bool:
    """Whether a description contains the name of an object or part, as the readers give it, in whole words."""
    if not name:
        return False
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", description, re.IGNORECASE) is not None
