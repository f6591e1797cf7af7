"""English as it is written: articles, plurals, capital letters, spaces, British spelling."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

BRITISH = {
    "gray": "grey",
    "center": "centre",
    "centered": "centred",
    "color": "colour",
    "colors": "colours",
    "colored": "coloured",
}
PAIRS = {
    "binoculars",
    "glasses",
    "goggles",
    "jeans",
    "leggings",
    "pajamas",
    "pants",
    "scissors",
    "shorts",
    "skis",
    "sunglasses",
    "swimming trunks",
    "tights",
    "trousers",
}
PLURALS = {"carrots", "satsumas", "shoes"}
UNCOUNTED = {
    "asparagus",
    "brass",
    "broccoli",
    "carbonara",
    "chain mail",
    "chocolate sauce",
    "consomme",
    "corn",
    "dough",
    "eggnog",
    "espresso",
    "face powder",
    "garlic",
    "ginger",
    "guacamole",
    "hair spray",
    "hay",
    "ice cream",
    "juice",
    "lotion",
    "milk",
    "oat milk",
    "oatghurt",
    "outerwear",
    "perfume",
    "rapeseed",
    "sour cream",
    "sour milk",
    "soy milk",
    "soyghurt",
    "sunscreen",
    "thatch",
    "toilet tissue",
    "velvet",
    "wool",
    "yoghurt",
}
# that begin with a capital letter: "a Siberian husky"
PROPER = {
    "african",
    "airedale",
    "american",
    "appenzeller",
    "arabian",
    "arctic",
    "australian",
    "bedlington",
    "blenheim",
    "boston",
    "brabancon",
    "brittany",
    "chesapeake",
    "china",
    "christmas",
    "dane",
    "doberman",
    "dungeness",
    "dutch",
    "egyptian",
    "english",
    "entlebucher",
    "eskimo",
    "european",
    "french",
    "german",
    "gordon",
    "granny",
    "ibizan",
    "indian",
    "irish",
    "italian",
    "japanese",
    "kerry",
    "komodo",
    "labrador",
    "lhasa",
    "madagascar",
    "maltese",
    "mexican",
    "newfoundland",
    "norfolk",
    "norwegian",
    "norwich",
    "pekinese",
    "pembroke",
    "pomeranian",
    "pyrenees",
    "rhodesian",
    "rottweiler",
    "samoyed",
    "scotch",
    "scottish",
    "sealyham",
    "shetland",
    "siamese",
    "siberian",
    "smith",
    "staffordshire",
    "sussex",
    "tibetan",
    "welsh",
    "windsor",
    "yorkshire",
}
IRREGULAR_PLURALS = {
    "calf": "calves",
    "child": "children",
    "foot": "feet",
    "goose": "geese",
    "half": "halves",
    "knife": "knives",
    "leaf": "leaves",
    "loaf": "loaves",
    "man": "men",
    "mouse": "mice",
    "ox": "oxen",
    "person": "people",
    "sheep": "sheep",
    "shelf": "shelves",
    "tooth": "teeth",
    "wolf": "wolves",
    "woman": "women",
}

FIRST_PRIVATE_CHARACTER = 0xE000  # of Unicode: no name holds one

# "a uniform", "a one-way street", but "an uninvited guest"
_A_BEFORE_VOWEL = r"uni(?![dmn])|us(?:e|ual|er)|one\b|once|eu|ewe|ukulele|utensil"
_AN_BEFORE_CONSONANT = r"hour|honest|heir"
_ARTICLE = re.compile(
    rf"\b(a|A)(?= (?:(?!{_A_BEFORE_VOWEL})[aeiou]|{_AN_BEFORE_CONSONANT}))",
)
_PLAIN_NAME = re.compile(r"[\w'-]+(?: [\w'-]+)*")
_SPACES = re.compile(r" {2,}")
_SPACE_BEFORE = re.compile(r" +([,.;:?!])")
_MARKS = re.compile(r"[,;:](?=\s*[.;:?!])|,(?=,)")
# "its base of the tail"
_OWNER_OF_PART = re.compile(
    r"\b(its|their|the (?:\w+ )?\w+'s) (base|root|top|back) of the(?= )", re.IGNORECASE
)
_PLURAL_OWNER = re.compile(rf"\b({'|'.join(sorted(PAIRS | PLURALS))})'s\b")
_SENTENCE = re.compile(r"(^|[.!?] )([^\W\d_])")
_BRITISH = re.compile(rf"\b({'|'.join(BRITISH)})\b", re.IGNORECASE)


def is_plural(noun: str) -> bool:
    """Whether a noun, such as "pants", is followed by "are"."""
    return noun in PLURALS or is_pair(noun)


def is_pair(noun: str) -> bool:
    """Whether one of it is a pair: pants, baby sunglasses."""
    return noun in PAIRS or noun.split(" ")[-1] in PAIRS


def proper(noun: str) -> str:
    """A name with the capital letters of what is called after a place or person: "Siberian husky"."""
    words = [word.capitalize() if word in PROPER else word for word in noun.split(" ")]
    return " ".join(words)


@lru_cache(maxsize=4096)
def indefinite(noun: str, adjective: str = "") -> str:
    """A noun at its first mention: "an orange", "a small pair of pants", "some milk"."""
    if noun in PLURALS or noun in UNCOUNTED:
        return f"some {adjective} {noun}" if adjective else f"some {noun}"
    words = f"pair of {noun}" if is_pair(noun) else noun
    return _ARTICLE.sub(r"\1n", f"a {adjective} {words}" if adjective else f"a {words}")


@lru_cache(maxsize=4096)
def plural(noun: str) -> str:
    """Several of a noun: "eyes", "front paws", "knives"."""
    before, _, last = noun.rpartition(" ")
    if is_plural(noun):
        several = last
    elif last in IRREGULAR_PLURALS:
        several = IRREGULAR_PLURALS[last]
    elif re.search(r"(?:s|x|z|ch|sh)$", last):
        several = f"{last}es"
    elif re.search(r"[^aeiou]y$", last):
        several = f"{last[:-1]}ies"
    else:
        several = f"{last}s"
    return f"{before} {several}" if before else several


def punctuated(words: str, names: Sequence[str] = ()) -> str:
    """Words of a grammar as they are written: one space, no mark before a stronger one, "the base of its tail" for
    "its base of the tail", "the pants' pocket", "an" before vowels, capital letters at the beginning of sentences.

    Args:
        words (`str`)
        names (list of `str`): that stay as they are but for a capital letter, whatever marks they hold.
    """
    stand_ins = {}
    for number, name in enumerate(names):
        if not _PLAIN_NAME.fullmatch(name) or _ARTICLE.search(name):
            stand_in = chr(FIRST_PRIVATE_CHARACTER + number)
            stand_ins[stand_in] = name
            words = words.replace(name, stand_in)
    text = _SPACES.sub(" ", words).strip()
    text = _SPACE_BEFORE.sub(r"\1", text)
    text = _MARKS.sub("", text)
    text = _PLURAL_OWNER.sub(r"\1'", text)
    text = _OWNER_OF_PART.sub(r"the \2 of \1", text)
    text = _ARTICLE.sub(r"\1n", text)
    text = _SENTENCE.sub(_capital, text)
    for stand_in, name in reversed(stand_ins.items()):
        if text.startswith(stand_in):
            text = capitalized(name) + text[1:]
        for end in ".!?":
            text = text.replace(f"{end} {stand_in}", f"{end} {capitalized(name)}")
        text = text.replace(stand_in, name)
    return text


def capitalized(words: str) -> str:
    """`words` as a sentence begins: the first letter a capital, if it has one that is read as the same letter."""
    first = words[:1]
    capital = first.upper()
    return capital + words[1:] if capital.lower() == first else words


def _capital(found: re.Match[str]) -> str:
    return found[1] + capitalized(found[2])


def british(text: str) -> str:
    """A text in British spelling."""
    return _BRITISH.sub(_british_word, text)


def _british_word(found: re.Match[str]) -> str:
    word = BRITISH[found[0].lower()]
    return word.capitalize() if found[0][0].isupper() else word
