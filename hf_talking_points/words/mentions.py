"""Where a text names objects, parts and colors: found by looking words up, as expressions of all names are slow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from .lexicon import COLOR_WORDS, OBJECT_WORDS, PART_WORDS, SIDE_WORDS, color_names
from .looks import COLORS

__all__ = ["ANY_NAME", "COLOR", "OBJECT", "PART", "MarkedText"]

OBJECT_MARK, PART_MARK, OBJECT_OR_PART_MARK, COLOR_MARK = "\ue000\ue001\ue002\ue003"
OBJECT = f"[{OBJECT_MARK}{OBJECT_OR_PART_MARK}]"
PART = f"[{PART_MARK}{OBJECT_OR_PART_MARK}]"
COLOR = COLOR_MARK
ANY_NAME = f"[{OBJECT_MARK}-{COLOR_MARK}]"

_WORD = re.compile(r"(?<![\w-])[a-z]+(?:-[a-z]+)*(?![\w-])")
_SHADES = frozenset("bright dark dull light medium pale soft".split())


class MarkedText:
    """A text in small letters with one mark for each name of an object, a part or a color.

    `marked` is what expressions search; [`original`] gives the words of what they find.

    Args:
        text (`str`)
    """

    def __init__(self, text: str) -> None:
        self.text = text.lower().replace("’", "'")
        self.marked, self.origins = self.with_marks()

    def with_marks(self) -> tuple[str, list[int]]:
        """The marked text, and where each of its characters, and its end, lies in the text."""
        pieces: list[str] = []
        origins: list[int] = []
        done = 0
        for start, end, mark in self.names():
            pieces += (self.text[done:start], mark)
            origins += (*range(done, start), start)
            done = end
        pieces.append(self.text[done:])
        origins += range(done, len(self.text) + 1)
        return "".join(pieces), origins

    def names(self) -> list[tuple[int, int, str]]:
        """(start, end, mark) of each name in the text, the longest one where several begin at one word."""
        words = [(found[0], *found.span()) for found in _WORD.finditer(self.text)]
        marks = marks_of_phrases()
        most = words_of_longest()
        names = []
        number = 0
        while number < len(words):
            word, start, end = words[number]
            last = number
            mark = ""
            for count in range(most.get(word, 1), 1, -1):
                if number + count <= len(words):
                    last = number + count - 1
                    end = words[last][2]
                    mark = marks.get(self.text[start:end], "")
                    if mark:
                        break
            else:
                last = number
                end = words[number][2]
                mark = mark_of_word(word)
                # "the back left door"
                if word in ("back", "front") and number + 1 < len(words):
                    if words[number + 1][0] in SIDE_WORDS:
                        mark = ""
            if mark:
                names.append((start, end, mark))
            number = last + 1
        return names

    def original(self, found: re.Match[str], group: int | str = 0) -> str:
        """The words of what an expression found in `marked`, "" where a group has no part in it."""
        start, end = found.span(group)
        if start < 0:
            return ""
        return self.text[self.origins[start] : self.origins[end]]


@cache
def marks_of_phrases() -> dict[str, str]:
    """The mark of each name that the lexicon has, in singular and plural."""
    objects = with_plurals(word for words in OBJECT_WORDS.values() for word in words)
    parts = with_plurals(
        word for name, words in PART_WORDS.items() for word in (name, *words)
    )
    colors = set(COLOR_WORDS)
    for name in COLORS:
        colors |= {name, name.replace("gray", "grey")}
    marks = dict.fromkeys(colors, COLOR_MARK)
    marks |= dict.fromkeys(objects, OBJECT_MARK) | dict.fromkeys(parts, PART_MARK)
    return marks | dict.fromkeys(objects & parts, OBJECT_OR_PART_MARK)


def with_plurals(words: Iterable[str]) -> set[str]:
    """Words and their plurals."""
    names = set(words)
    return names | {f"{word}s" for word in names} | {f"{word}es" for word in names}


@cache
def words_of_longest() -> dict[str, int]:
    """For each first word of a name, how many words the longest such name has."""
    most: dict[str, int] = {}
    for phrase in marks_of_phrases():
        words = phrase.split(" ")
        most[words[0]] = max(len(words), most.get(words[0], 1))
    return most


@cache
def mark_of_word(word: str) -> str:
    """The mark of a name of one word, "" of another word. A color may be made up: "greyish", "blue-grey",
    "pale-brown"."""
    if word in marks_of_phrases():
        return marks_of_phrases()[word]
    pieces = word.split("-")
    said = [piece for piece in pieces if piece not in _SHADES]
    is_color = said and all(is_plain_color(piece) for piece in said)
    return COLOR_MARK if is_color else ""


def is_plain_color(word: str) -> bool:
    """Whether a word is a color, also with "ish"."""
    if word in marks_of_phrases():
        return marks_of_phrases()[word] == COLOR_MARK
    return word.endswith("ish") and bool(color_names(word))
