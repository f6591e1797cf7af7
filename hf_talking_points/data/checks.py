"""Whether a text that a model wrote may stand for the facts of a point."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from ..words.english import capitalized
from ..words.facts import HORIZONTAL, SIZE_WORDS, VERTICAL, PointFacts
from ..words.looks import COLORS
from ..words.writer import plain_grammar, spot
from .names import names_it

MOST_WORDS = 90  # of a text; each name counts as one

# Words that a text may hold only where the facts, or what a model saw, have them, in US and British spelling
PLACES = set(
    "bottommost central centre centered corner corners half halfway horizontal leftmost lower "
    "quarter rightmost third topmost upper vertical".split()
)
for _step in HORIZONTAL + VERTICAL:
    PLACES.update(_step.split())
RELATIONS = set(
    "above against along alongside back behind below beneath beside between close edge edges "
    "facing front hind inside near nearby nearest opposite outside rear side sides under "
    "underneath".split()
)
LOOKS = set(
    "bright colored coloured grey lightly pale smooth strongly textured".split()
)
for _color in COLORS:
    LOOKS.update(_color.split())
POSES = set("flying lying resting running sitting sleeping standing walking".split())
SIZES = set(
    "big giant huge large little long medium medium-sized short small tall tiny wide".split()
)
GUARDED_WORDS = PLACES | RELATIONS | LOOKS | POSES | SIZES

IMAGE_NOUNS = ("image", "photo", "picture")

# Marks that stand in a text for what it says of the facts, so that a name may hold any words and characters
IN_IMAGE = "⟦in image⟧"
ON_OBJECT = "⟦on object⟧"
IN_PART = "⟦in part⟧"
LOOKS_OF_SPOT = "⟦looks⟧"
OBJECT = "⟦object⟧"
PART = "⟦part⟧"

_MARK = re.compile("⟦[^⟧]*⟧")
_ECHO = re.compile(
    r"[\[\]{}<>|#*_⟦⟧\n]|\b(?:object|where|part|point|scene|detail|facts|description):",
    re.IGNORECASE,
)
_SENTENCE_START = re.compile(r"[\"'“]?[A-Z]")
_SENTENCE_END = re.compile(r"[.!?][\"'”]?$")
_COORDINATES = re.compile(
    r"\d|%|\b(?:pixels?|percent|coordinates?|rows?|columns?|grid)\b", re.IGNORECASE
)
_CLAUSE_END = re.compile(r"[.;:!?]")
_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")


def check(
    text: str, facts: PointFacts, vocabulary: Iterable[str] = (), seen: str = ""
) -> str | None:
    """Why a text must not stand for the facts of a point, or None where nothing speaks against it.

    The object and the part must be named, each known position once, in its words and with its frame ("top and left of
    the image"), and nothing else may say where something is. Without `seen` the spot must be described too, and
    nothing else may have looks.

    Args:
        text (`str`), facts ([`PointFacts`])
        vocabulary (iterable of `str`): names of objects and parts; any but the point's own counts as invented.
        seen (`str`): what a model saw; sizes, looks, poses and relations to other things in it may be told as well.
    """
    text = text.strip()
    if not text:
        return "empty"
    marked = mark_facts(text, facts)
    return (
        fault_of_form(text, facts)
        or dropped_name(text, facts)
        or fault_of_positions(marked, facts)
        or false_statement(marked, facts)
        or invented_name(marked, vocabulary)
        or (None if seen else fault_of_spot(marked, facts))
        or invented_word(marked, facts, seen)
    )


def fact_lines(facts: PointFacts) -> str:
    """Object, part, their places and the looks of a point, a phrase a line, as prompts show them to a model, which
    copies their words."""
    looks = spot(facts.looks)
    if facts.object is None:
        return f"in the {facts.in_image} of the image\n{looks}"
    within = (
        f", in the {facts.in_part} within the {facts.part}" if facts.in_part else ""
    )
    return (
        f"a {facts.size} {facts.object} in the {facts.in_image} of the image\n"
        f"its {facts.part} at the {facts.on_object} of the {facts.object}{within}\n"
        f"{looks}"
    )


def spot_looks(facts: PointFacts) -> str:
    """Color and texture of the spot without article and noun: "dark brown, smooth"."""
    return spot(facts.looks).split(" ", 1)[1].removesuffix(" spot")


class Place(NamedTuple):
    """A position of the facts: its mark, its phrase ("top and left of the dog") and the expression that finds it."""

    mark: str
    phrase: str
    pattern: str


def whole_words(pattern: str) -> str:
    """The expression that finds `pattern` where no word goes on before or behind it."""
    return rf"(?<!\w)(?:{pattern})(?!\w)"


def place_of(mark: str, position: str, preposition: str, name: str) -> Place:
    """The place that `position` within the thing called `name` is. An image may be called by any of `IMAGE_NOUNS`."""
    down, across = position.split(" and ")
    is_image = mark != IN_PART and name in IMAGE_NOUNS
    frame = "|".join(IMAGE_NOUNS) if is_image else re.escape(name)
    either_order = f"{down} and {across}|{across} and {down}"
    pattern = whole_words(f"(?:{either_order}) {preposition} the (?:{frame})")
    return Place(mark, f"{position} {preposition} the {name}", pattern)


def places_of(facts: PointFacts) -> list[Place]:
    """The known positions of a point."""
    places = [place_of(IN_IMAGE, facts.in_image, "of", "image")]
    if facts.object and facts.on_object:
        places.append(place_of(ON_OBJECT, facts.on_object, "of", facts.object))
    if facts.part and facts.in_part:
        places.append(place_of(IN_PART, facts.in_part, "within", facts.part))
    return places


def any_of(phrases: Iterable[str]) -> str:
    """The expression that finds any of `phrases` in whole words, one that holds another before it."""
    longest_first = sorted(phrases, key=len, reverse=True)
    return whole_words("|".join(re.escape(phrase) for phrase in longest_first))


def names_in(facts: PointFacts) -> list[str]:
    """The names of the object and the part, as far as they are known."""
    return [name for name in (facts.object, facts.part) if name]


def mark_facts(text: str, facts: PointFacts) -> str:
    """The text with marks in the place of positions, looks of the spot and names.

    In this order, as a name may be a word of position or color, such as "left" or "white".
    """
    # "top and left of the image frame" before "top and left of the image"
    for place in sorted(places_of(facts), key=phrase_length, reverse=True):
        text = re.sub(place.pattern, place.mark, text, flags=re.IGNORECASE)
    looks = whole_words(re.escape(spot_looks(facts)))
    text = re.sub(looks, LOOKS_OF_SPOT, text, flags=re.IGNORECASE)
    object_name = facts.object
    if object_name is None:
        return text
    sized_object = (
        f"{facts.size} {object_name}"  # also where a part is called "small dog"
    )

    def mark_of(match: re.Match[str]) -> str:
        if _MARK.fullmatch(match[0]):
            return match[0]
        if is_same(match[0], sized_object):
            return f"{facts.size} {OBJECT}"
        return OBJECT if is_same(match[0], object_name) else PART

    names = any_of([sized_object, *names_in(facts)])
    return re.sub(f"{_MARK.pattern}|{names}", mark_of, text, flags=re.IGNORECASE)


def is_same(mention: str, name: str) -> bool:
    """Whether a mention of a name is one of `name`, whatever its capitals."""
    return re.fullmatch(re.escape(name), mention, re.IGNORECASE) is not None


def phrase_length(place: Place) -> int:
    return len(place.phrase)


def marks_in(marked: str) -> Counter[str]:
    """How often a marked text has each mark."""
    return Counter(_MARK.findall(marked))


def expected_marks(facts: PointFacts) -> Counter[str]:
    """How often a text should have each mark of a position and of the spot: as often as the facts themselves."""
    return marks_in(mark_facts(fact_lines(facts), facts))


def spelled_out(marked: str, facts: PointFacts) -> str:
    """A piece of a marked text in words again."""
    words = {
        LOOKS_OF_SPOT: spot_looks(facts),
        OBJECT: facts.object or "",
        PART: facts.part or "",
    }
    for place in places_of(facts):
        words[place.mark] = place.phrase
    for mark, phrase in words.items():
        marked = marked.replace(mark, phrase)
    return marked


def fault_of_form(text: str, facts: PointFacts) -> str | None:
    """Whether it is a finished text of acceptable length, without parts of the question, digits or coordinates."""
    plain = with_plain_nouns(text, facts)
    if len(plain.split()) > MOST_WORDS:
        return f"longer than {MOST_WORDS} words"
    if _ECHO.search(plain):
        return "prompt echoed"
    if not (_SENTENCE_START.match(plain) and _SENTENCE_END.search(plain)):
        return "unfinished sentence"
    if found := _COORDINATES.search(plain):
        return f"digits or coordinates: {found[0]!r}"
    return None


def with_plain_nouns(text: str, facts: PointFacts) -> str:
    """The text with the word "thing" for each name, which may hold digits, punctuation and many words."""
    names = names_in(facts)
    if not names:
        return text

    def noun(match: re.Match[str]) -> str:
        return "Thing" if capitalized(match[0]) == match[0] else "thing"

    return re.sub(any_of(names), noun, text, flags=re.IGNORECASE)


def dropped_name(text: str, facts: PointFacts) -> str | None:
    """Whether it names the object and the part."""
    for kind, name in (("object", facts.object), ("part", facts.part)):
        if name and not names_it(text, name):
            return f"{kind} dropped: {name!r}"
    return None


def fault_of_positions(marked: str, facts: PointFacts) -> str | None:
    """Whether it says each position once."""
    found = marks_in(marked)
    expected = expected_marks(facts)
    for place in places_of(facts):
        if found[place.mark] < expected[place.mark]:
            return f"position dropped: {place.phrase!r}"
        if found[place.mark] > expected[place.mark]:
            return f"position repeated: {place.phrase!r}"
    return None


def fault_of_spot(marked: str, facts: PointFacts) -> str | None:
    """Whether it says the looks of the spot once."""
    found = marks_in(marked)[LOOKS_OF_SPOT]
    expected = expected_marks(facts)[LOOKS_OF_SPOT]
    if found == expected:
        return None
    return (
        f"spot {'dropped' if found < expected else 'repeated'}: {spot_looks(facts)!r}"
    )


def false_statement(marked: str, facts: PointFacts) -> str | None:
    """Whether it says of one thing what the facts say of another.

    A name that the writer's sentences hold themselves, such as "point", tells nothing.
    """
    mistakes = [
        rf"(?:^|[.!?;:] )the {IN_IMAGE} is an? ",
        whole_words(rf"(?:has|is|on|shows|with) {LOOKS_OF_SPOT} spot"),
    ]
    if facts.object and not is_writers_word(facts.object):
        part_tells = facts.part and not is_writers_word(facts.part)
        noun = placed_in_image(marked, facts, part_tells=bool(part_tells))
        if noun is not None and noun != OBJECT:
            return f"the object's position said of the {spelled_out(noun, facts)}"
        things = [OBJECT, "point", "spot", "which", *IMAGE_NOUNS]
        if part_tells:
            things.append(PART)
        subject = whole_words("|".join(things))
        mistakes += [
            rf"{subject}(?: to look at)? is an? (?:[\w-]+ )?{OBJECT}",
            rf"{OBJECT} is (?:an? {LOOKS_OF_SPOT}|on its|on the)(?!\w)",
        ]
    if found := re.search("|".join(mistakes), marked, re.IGNORECASE):
        return f"mistaken: {spelled_out(found[0], facts)!r}"
    return None


def placed_in_image(marked: str, facts: PointFacts, part_tells: bool) -> str | None:
    """What the place in the image is said of: `OBJECT`, `PART`, "point", "spot", or None where nothing is near it.

    It is the last of them before the place in its clause, else the first behind it.
    """
    noun_of = {OBJECT: OBJECT, ON_OBJECT: OBJECT, f"{facts.size} one": OBJECT}
    noun_of |= {"point": "point", "spot": "spot"}
    if part_tells:
        noun_of |= {PART: PART, IN_PART: PART}
    noun_pattern = re.compile(whole_words("|".join(noun_of)), re.IGNORECASE)
    before, _, behind = marked.partition(IN_IMAGE)
    nouns_before = noun_pattern.findall(_CLAUSE_END.split(before)[-1])
    if nouns_before:
        return noun_of[nouns_before[-1].lower()]
    nouns_behind = noun_pattern.findall(_CLAUSE_END.split(behind)[0])
    return noun_of[nouns_behind[0].lower()] if nouns_behind else None


def invented_name(marked: str, vocabulary: Iterable[str]) -> str | None:
    """Whether it names another object or part."""
    others = vocabulary_pattern(frozenset(vocabulary))
    if others is None:
        return None
    found = others.search(_MARK.sub(" ", marked))
    return f"invented: {found[0].lower()!r}" if found else None


@lru_cache(maxsize=4)
def vocabulary_pattern(vocabulary: frozenset[str]) -> re.Pattern[str] | None:
    """The expression that finds names in singular or plural, but none that the writer's sentences hold themselves."""
    names = [name for name in vocabulary if name and not is_writers_word(name)]
    if not names:
        return None
    singular_and_plural = names + [f"{name}s" for name in names]
    return re.compile(any_of(singular_and_plural), re.IGNORECASE)


def invented_word(marked: str, facts: PointFacts, seen: str) -> str | None:
    """Whether it says more of places, relations, looks, poses and sizes than the facts and what a model saw."""
    allowed = set()
    if seen:
        allowed = words_of(f"{spot(facts.looks)} {seen}") - PLACES
    if facts.size:
        allowed.add(facts.size)
    words = words_of(_MARK.sub(" ", marked))
    invented = sorted(words & GUARDED_WORDS - allowed)
    return f"invented: {invented[0]!r}" if invented else None


def words_of(text: str) -> set[str]:
    """The words of a text in lower case; "medium-sized" is one."""
    return set(_WORD.findall(text.lower()))


def is_writers_word(name: str) -> bool:
    """Whether the rule-based writer's sentences hold a name, in singular or plural, whatever they are about."""
    return (
        re.search(whole_words(f"{re.escape(name)}s?"), writers_words(), re.IGNORECASE)
        is not None
    )


@lru_cache(maxsize=1)
def writers_words() -> str:
    """All that the sentences of the plain styles say, less what is filled in, and the words for sizes and spots."""
    filled_in = [*SIZE_WORDS, "spot", "own", "its", "their", "is", "are", "has", "have"]
    return " ".join([*filled_in, *plain_grammar().literals])
