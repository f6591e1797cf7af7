"""Texts on points as people or programs write them, one point a line of a JSON Lines file.

A line has one text or several, each with the name of its style:

    {"image": "images/a.jpg", "point": [x, y], "description": "The dog's left ear.", "style": "mine"}
    {"image": "images/a.jpg", "point": [x, y], "texts": {"rich": "A brown dog …", "short": "The dog's left ear."}}

"point" is in pixels of the photo. A description without a style is "full". "size" ([width, height]), "part" and
"category" may be there: of several annotated points at one place the text is that of the named one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from .fields import is_utf8, record_name
from .json_lines import parse_json, read_json_lines
from .language import fault_of_text
from .names import normalize_category, normalize_part
from .photos import AnnotatedObject, OnReject, PartPoint, Photo, usable_points

DEFAULT_STYLE = "full"  # of a description that states none
TEXT_STRATUM = "given"


@dataclass(frozen=True)
class TextLine:
    """What a line says.

    Args:
        image (`str`): id of the photo, or its end behind a slash.
        x, y (`float`): in pixels.
        texts (`tuple`): (style, text) pairs.
        category, part (`str`, *optional*): which annotated point is meant where several are at one place.
    """

    image: str
    x: float
    y: float
    texts: tuple[tuple[str, str], ...]
    category: str | None = None
    part: str | None = None


def parse_text_line(line: str) -> TextLine:
    """The [`TextLine`] of a line. Raises ValueError for anything else."""
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError("no object in braces")
    for name in ("image", "point"):
        if name not in row:
            raise ValueError(f"{name} is missing")
    if not is_text(row["image"]):
        raise ValueError("image is no text")
    point = row["point"]
    if (
        not isinstance(point, list)
        or len(point) != 2
        or not all(map(is_coordinate, point))
    ):
        raise ValueError("point is no (x, y)")
    hints = {}
    for name in ("category", "part"):
        if row.get(name) is not None and not is_text(row[name]):
            raise ValueError(f"{name} is no text")
        hints[name] = row.get(name)
    x, y = point
    return TextLine(row["image"], float(x), float(y), texts_of_row(row), **hints)


def texts_of_row(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The (style, text) pairs of a line."""
    if "texts" in row:
        texts = row["texts"]
        if not isinstance(texts, dict) or not texts:
            raise ValueError("texts is no object of styles and texts")
        for style, text in texts.items():
            if not style or not is_text(text):
                raise ValueError(f"texts: that of style {style!r} is no text")
        return tuple(texts.items())
    if "description" not in row:
        raise ValueError("description is missing")
    style = DEFAULT_STYLE if row.get("style") is None else row["style"]
    for name, value in (("description", row["description"]), ("style", style)):
        if not is_text(value):
            raise ValueError(f"{name} is no text")
    if not style:
        raise ValueError("style is empty")
    return ((style, row["description"]),)


def is_text(value: Any) -> bool:
    """Whether a value is a string in UTF-8."""
    return isinstance(value, str) and is_utf8(value)


def is_coordinate(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def called(names: Iterable[str], ids: Iterable[str]) -> dict[str, list[str]]:
    """Name -> the id of a photo that equals it, or without one those that end with the name behind a slash."""
    exact = set()
    by_ending: dict[str, list[str]] = defaultdict(list)
    for image_id in dict.fromkeys(ids):
        exact.add(image_id)
        folders = image_id.split("/")
        for start in range(1, len(folders)):
            by_ending["/".join(folders[start:])].append(image_id)
    found = {}
    for name in names:
        found[name] = [name] if name in exact else by_ending.get(name, [])
    return found


def read_texts(
    file: str | PathLike, name: str, on_reject: OnReject
) -> list[tuple[str, TextLine]]:
    """The lines of a file whose texts can be used.

    Empty texts, those of more than [`language.MOST_WORDS`] words and those that are not English are rejected, and so
    are lines that do not fit.

    Args:
        file (`str` or `PathLike`)
        name (`str`): of the file, for messages.
        on_reject: is told of each line or text that cannot be used.
    Returns:
        list of (place, [`TextLine`]), such as "texts.jsonl, line 3".
    """
    lines = []
    for number, content in read_json_lines(file):
        place = f"{name}, line {number}"
        try:
            line = parse_text_line(content)
        except ValueError as error:
            on_reject(name_of_line(content, name), f"{place}: {error}")
            continue
        usable = []
        for style, text in line.texts:
            fault = fault_of_text(text)
            if fault is None:
                usable.append((style, text))
            else:
                on_reject(line.image, f"{place}: text in style {style!r} {fault}")
        if usable:
            lines.append((place, replace(line, texts=tuple(usable))))
    return lines


def name_of_line(content: str, name: str) -> str:
    """What a line is called that does not fit: its image, or the name of its file."""
    try:
        return record_name(parse_json(content), "image", name)
    except ValueError:
        return name


def with_texts(
    photos: Sequence[Photo],
    lines: Sequence[tuple[str, TextLine]],
    on_reject: OnReject,
) -> list[Photo]:
    """The photos with texts on their points.

    A text belongs to the annotated point at its place, to two decimals. At any other place it brings a point of its
    own, which is on no object: a text says more than one word, and a box is not the object.

    Args:
        photos (list of [`Photo`])
        lines (list): as [`read_texts`] gives them.
        on_reject: is told of each text that is of no photo, of one of several, or that lies beside its photo.
    """
    names = [line.image for _, line in lines]
    ids = called(names, [photo.id for photo in photos])
    lines_of_photo: dict[str, list[TextLine]] = defaultdict(list)
    for place, line in lines:
        found = ids[line.image]
        if len(found) == 1:
            lines_of_photo[found[0]].append(line)
        elif not found:
            on_reject(line.image, f"{place}: no photo has this name")
        else:
            on_reject(line.image, f"{place}: may be any of the photos {found}")
    described = []
    for photo in photos:
        for line in lines_of_photo.get(photo.id, []):
            photo = with_text(photo, line, on_reject)
        described.append(photo)
    return described


def with_text(photo: Photo, line: TextLine, on_reject: OnReject) -> Photo:
    """The photo with the texts of one line."""
    place = place_of(line.x, line.y)
    candidates = []
    for number, annotated in enumerate(photo.objects):
        for index, point in enumerate(annotated.points):
            if place_of(point.x, point.y) == place:
                agrees = agreement(line, annotated, point)
                candidates.append((agrees, -number, -index))
    if candidates:
        _, number, index = max(candidates)
        return with_text_on_object(photo, -number, -index, line.texts)
    points = list(photo.points)
    for index, point in enumerate(points):
        if place_of(point.x, point.y) == place:
            points[index] = described_point(point, line.texts)
            return replace(photo, points=tuple(points))
    new = PartPoint(None, line.x, line.y, texts=line.texts, stratum=TEXT_STRATUM)
    usable = usable_points((new,), photo, on_reject)
    return replace(photo, points=(*points, *usable))


def place_of(x: float, y: float) -> tuple[float, float]:
    """A place to two decimals, as programs write it."""
    return round(x, 2), round(y, 2)


def agreement(line: TextLine, annotated: AnnotatedObject, point: PartPoint) -> int:
    """How many of the names of a line are those of an annotated point."""
    agrees = 0
    if line.category is not None:
        agrees += normalize_category(line.category) == annotated.category
    if line.part is not None:
        agrees += normalize_part(line.part, annotated.category) == point.part
    return agrees


def with_text_on_object(
    photo: Photo, number: int, index: int, texts: tuple[tuple[str, str], ...]
) -> Photo:
    """The photo with texts on one point of one of its objects."""
    objects = list(photo.objects)
    points = list(objects[number].points)
    points[index] = described_point(points[index], texts)
    objects[number] = replace(objects[number], points=tuple(points))
    return replace(photo, objects=tuple(objects))


def described_point(point: PartPoint, texts: tuple[tuple[str, str], ...]) -> PartPoint:
    """The point with further texts, each of them once."""
    return replace(point, texts=tuple(dict.fromkeys((*point.texts, *texts))))
