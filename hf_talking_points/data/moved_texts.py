"""Texts on points of a photo that is mirrored or cut out: what they become, and which of them stay true."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["is_about_frame", "mirrored_text", "moved_texts"]

Texts = tuple[tuple[str, str], ...]

REMEMBERED = 2**16  # texts, since each crop of a photo asks for the same ones
OTHER_SIDE = {"left": "right", "right": "left"}
SIDE = re.compile(
    r"(?<![^\W_])(left|right)(?=(?:most|wards?|ish|hand(?:ed)?)?(?![^\W_]))",
    re.IGNORECASE,
)
# what stands after "right" where it only means "exactly"
PLACES = (
    "above across after against along alongside amid among around at atop before behind below beneath beside between "
    "beyond by down here in inside into near next off on onto opposite outside over past there through under "
    "underneath up where within"
).split()
EXACTLY = re.compile(rf"\s+(?:{'|'.join(PLACES)})\b", re.IGNORECASE)
FIXED_AFTER_RIGHT = re.compile(r"\s+(?:angles?|angled|away|now|side up)\b", re.I)
# "left" of "to leave"
REMAINING = re.compile(
    r"\s+(?:alone|bare|behind|blank|empty|open|over|uncovered|unpainted)\b", re.I
)
WHAT_IS_LEFT = re.compile(r"\bwhat(?:'s|’s| is| was) $", re.IGNORECASE)
ALL_RIGHT = re.compile(r"\ball $", re.IGNORECASE)
IN_PICTURE = re.compile(
    r"\s+in (?:the|this) (?:frame|image|photo|picture|shot|view)\b", re.IGNORECASE
)
# what stands before a side that is not "exactly", whatever follows: "to the right under the tree"
BEFORE_SIDE = re.compile(
    r"(?:"
    r"\b(?:the|its|their|his|her|at|to|on|upper|lower|top|bottom|far|farther|farthest|further|furthest|extreme|more"
    r"|outermost|slightly|straight|diagonally|up|down|way|turned"
    r"|(?:bend|climb|dash|faces?|fac|go|gallop|graz|grazes|head|lean|look|mov|moves?|point|reach|run|runn|slide|slid"
    r"|slope|sit|step|stretch|sweep|travel|trot|turn|walk)(?:e?s|ing)?)[ -]"
    r"|\ba (?:tiny |wee )?(?:bit|hair|little|shade|step|tad|touch) "
    r"|\b(?:above|below|beneath|down|higher|lower|up|under)(?:wards)? and (?:a (?:bit|little) |slightly )?"
    r")$",
    re.IGNORECASE,
)
CLOCKWISE = re.compile(r"(?<!\w)(counter-?|anti-?)?clockwise(?!\w)", re.IGNORECASE)
HOURS = "one two three four five six seven eight nine ten eleven".split()
CLOCK = re.compile(
    rf"\b(?:({'|'.join(HOURS)}) (or|to) )?({'|'.join(HOURS)})([ -]o['’]clock)",
    re.IGNORECASE,
)

FRAME = re.compile(
    r"(?<!\w)(?:photo|photograph|picture|image|frame|shot|scene|view|snapshot|corner|foreground|leftmost|rightmost"
    r"|topmost|uppermost|lowermost|bottommost|cropped|cut off)s?(?!\w)",
    re.IGNORECASE,
)
# "at the top, …", "the one on the left is …": a side of nothing else than the photo
REGIONS = "area border edge end half hand margin part portion quarter section side third".split()
GOES_ON = (
    "a an and are at as behind below above beneath but by close for has here in is it its just level near next on one "
    "or over that the there there's this to under where which while with you"
).split()
UNANCHORED = re.compile(
    rf"(?<!\w)(?:left|right|top|bottom|middle|center|centre)"
    rf"(?:[ -](?:left|right|center|centre|middle))?(?:[ -](?:{'|'.join(REGIONS)}))*"
    rf"(?=\s*(?:$|[.,;:!?)—–]|(?:{'|'.join(GOES_ON)})(?!\w)))",
    re.IGNORECASE,
)


def like(word: str, example: str) -> str:
    """A word in small letters, in capitals or with a capital letter, as the example is."""
    if example.isupper():
        return word.upper()
    return word.capitalize() if example[0].isupper() else word


def is_side(text: str, start: int, end: int) -> bool:
    """Whether "left" or "right" at `text[start:end]` says a side, and not "exactly" or "what remains"."""
    before = text[:start]
    after = text[end:]
    if IN_PICTURE.match(after):
        return True
    if text[start:end].lower() == "right":
        if ALL_RIGHT.search(before) or FIXED_AFTER_RIGHT.match(after):
            return False
        is_other_word = EXACTLY.match(after)
    else:
        if WHAT_IS_LEFT.search(before) and not after.startswith(" of"):
            return False
        is_other_word = REMAINING.match(after)
    return is_other_word is None or BEFORE_SIDE.search(before) is not None


@lru_cache(maxsize=REMEMBERED)
def mirrored_text(text: str) -> str:
    """What a text on a photo says of the mirrored photo: left and right swap.

    So do compounds ("left-hand", "rightmost", "leftwards"), "clockwise" and hours of a clock face. Words that only
    look so stay: "right under the table", "all right", "left behind". Nothing else changes: what is written in a
    photo, and quoted, is not mirrored.
    """
    pieces = []
    last = 0
    for match in SIDE.finditer(text):
        start, end = match.span()
        if not is_side(text, start, end):
            continue
        word = match.group()
        other = like(OTHER_SIDE[word.lower()], word)
        before = text[:start]
        if other == "right" and EXACTLY.match(text[end:]):
            # "right under" would mean "exactly under"
            is_clear = BEFORE_SIDE.search(before) or IN_PICTURE.match(text[end:])
            other = other if is_clear else f"to the {other}"
        pieces.extend([text[last:start], other])
        last = end
    pieces.append(text[last:])
    return mirrored_clock("".join(pieces))


def mirrored_clock(text: str) -> str:
    """The text with turns and hours of a clock face mirrored."""

    def turned(match: re.Match) -> str:
        word = "clockwise" if match.group(1) else "counterclockwise"
        return like(word, match.group())

    def hours(match: re.Match) -> str:
        first, joint, second, end = match.groups()
        start = "" if first is None else f"{mirrored_hour(first)} {joint} "
        return f"{start}{mirrored_hour(second)}{end}"

    return CLOCK.sub(hours, CLOCKWISE.sub(turned, text))


def mirrored_hour(hour: str) -> str:
    """Eleven for one."""
    return like(HOURS[-1 - HOURS.index(hour.lower())], hour)


@lru_cache(maxsize=REMEMBERED)
def is_about_frame(text: str) -> bool:
    """Whether a text says something of the frame of the photo, which is not true of a crop.

    That is where it speaks of the photo itself, of its corners, of the leftmost of several things, or of a side that
    is that of nothing else ("at the top", "the dog on the left"). The sides of things ("the left end of the rail", "to
    the right of the ear") stay true. A doubtful text is taken to be about the frame.
    """
    if FRAME.search(text):
        return True
    for match in UNANCHORED.finditer(text):
        word = match.group().lower()
        if word not in OTHER_SIDE or is_side(text, *match.span()):
            return True
    return False


def moved_texts(texts: Texts, is_nearly_whole: bool, mirror: bool) -> Texts:
    """The (style, text) pairs of a point that are true of a crop of its photo.

    Args:
        texts (`tuple`): true of the photo.
        is_nearly_whole (`bool`): whether the crop is the photo or nearly all of it.
        mirror (`bool`): whether it is mirrored.
    """
    moved = []
    for style, text in texts:
        if is_nearly_whole or not is_about_frame(text):
            moved.append((style, mirrored_text(text) if mirror else text))
    return tuple(moved)
