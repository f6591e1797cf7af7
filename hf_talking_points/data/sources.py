"""The readers of annotated photos, all of which give [`Photo`]s, and the records that these are made of.

Coordinates are pixels of the photo as displayed, origin at the top-left corner of the top-left pixel, whose center is
(0.5, 0.5). Names are in words, as [`normalize_category`] and [`normalize_part`] give them.

A file that does not fit its layout is a ValueError that names file, field, what was expected and what was found. A
single record that cannot be used goes to `on_reject(image_id, reason)`, and the rest is read; the default, [`reject`],
raises ValueError. What is usual in annotation files, such as a photo without a labeled point, is left out without an
error.
"""

from __future__ import annotations

import logging
import reprlib
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from .coco import read_coco_keypoints, read_coco_parts
from .dataset_reader import read_dataset
from .fields import (
    box_of,
    box_or_none,
    misfit,
    number_of,
    printable,
    record_name,
    require_name,
    text_of,
    value_of,
    whole_number,
)
from .json_lines import parse_json, read_json_lines
from .names import normalize_category, normalize_part
from .part_label_maps import read_part_label_maps
from .photos import (
    SPLITS,
    AnnotatedObject,
    OnReject,
    Part,
    PartPoint,
    Photo,
    leave_out,
    reject,
    split_of,
    usable_photo,
)

__all__ = [
    "SPLITS",
    "AnnotatedObject",
    "Part",
    "PartPoint",
    "Photo",
    "read_coco_keypoints",
    "read_coco_parts",
    "read_dataset",
    "read_json_lines",
    "read_objects",
    "read_part_label_maps",
    "read_photos",
    "reject",
    "split_of",
]

logger = logging.getLogger(__name__)


def read_objects(
    folder: str | PathLike, *, on_reject: OnReject = reject
) -> list[Photo]:
    """Reads `folder/objects.jsonl`, one object a line:

        {"image": "images/a.jpg", "size": [width, height], "category": "dog", "object_box": [x1, y1, x2, y2],
         "points": [["left_eye", x, y], ["wheel", x, y, [x1, y1, x2, y2]], ...]}

    Points outside the photo are left out: nothing there can be described. Images are not looked at.

    Args:
        folder: with `objects.jsonl`, and with the images that it names.
        on_reject: is told of each line, point or photo that cannot be used.
    Returns:
        list of [`Photo`] in the file's order, split by [`split_of`] whatever other fields a line has.

    Raises FileNotFoundError without the file.
    """
    folder = Path(folder)
    file = folder / "objects.jsonl"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: data_dir must be a folder with an objects.jsonl and its images"
        )
    photos: dict[str, Photo] = {}
    for number, text in read_json_lines(file):
        where = f"line {number}"
        name = file.name  # of the line's photo, once that is known
        try:
            row = parse_object_line(text, where)
            name = record_name(row, "image", file.name)
            image_id = text_of(row, "image", where)
            size = size_of_line(row, where)
            photo = photos.get(image_id)
            if photo is None:
                photo = Photo(image_id, str(folder / image_id), size, ())
            if photo.size != size:
                raise misfit(
                    where, "size", f"{photo.size} as in the photo's first line", size
                )
            annotated = object_of_line(row, where)
        except ValueError as error:
            on_reject(name, str(error))
            continue
        annotated = without_points_beside(annotated, photo, on_reject)
        photos[image_id] = replace(photo, objects=(*photo.objects, annotated))
    candidates = [usable_photo(photo, on_reject) for photo in photos.values()]
    return [photo for photo in candidates if photo is not None]


def parse_object_line(text: str, where: str) -> Any:
    """The value of a line. Raises ValueError naming it where it is no JSON."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error


def size_of_line(row: Any, where: str) -> tuple[int, int]:
    """(width, height) of a line's photo."""
    values = value_of(row, "size", list, where)
    if len(values) != 2:
        raise misfit(where, "size", "two whole numbers", values)
    width = whole_number(values[0])
    height = whole_number(values[1])
    if width is None or height is None or min(width, height) < 1:
        raise misfit(where, "size", "two whole numbers of at least 1", values)
    return width, height


def object_of_line(row: Any, where: str) -> AnnotatedObject:
    """The object of a line, with all its points."""
    raw = text_of(row, "category", where)
    category = require_name(normalize_category(raw), "category", raw, where)
    box = box_of(row, "object_box", where)
    points = []
    for number, values in enumerate(value_of(row, "points", list, where)):
        points.append(point_of_line(values, category, f"{where}, points[{number}]"))
    return AnnotatedObject(category, box, tuple(points))


def point_of_line(values: Any, category: str, where: str) -> PartPoint:
    """The point of [part, x, y] or [part, x, y, box]."""
    if not isinstance(values, list) or len(values) not in (3, 4):
        raise ValueError(
            f"{where}: expected [part, x, y] or [part, x, y, box], found {reprlib.repr(values)}"
        )
    fields = dict(zip(("part", "x", "y", "box"), values))
    raw = text_of(fields, "part", where)
    part = require_name(normalize_part(raw, category), "part", raw, where)
    x = number_of(fields, "x", where)
    y = number_of(fields, "y", where)
    return PartPoint(part, x, y, box_or_none(fields, "box", where))


def without_points_beside(
    annotated: AnnotatedObject, photo: Photo, on_reject: OnReject
) -> AnnotatedObject:
    """The object less the points outside its photo, which are usual: a part may be named that the photo cuts off."""
    width, height = photo.size
    points = []
    for point in annotated.points:
        if 0 <= point.x <= width and 0 <= point.y <= height:
            points.append(point)
            continue
        place = f"at ({point.x}, {point.y}) lies outside the photo of {width} x {height} pixels"
        leave_out(on_reject, printable(photo.id), f"{point.part}: {place}")
    return replace(annotated, points=tuple(points))


class RejectLog:
    """An `on_reject` that warns at the end of a reading of how much was left out.

    Args:
        source (`str`): what is read.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.count = 0
        self.first = ""

    def __call__(self, image_id: str, reason: str) -> None:
        self.count += 1
        self.first = self.first or f"{image_id}: {reason}"

    def warn(self) -> None:
        """Logs the number of records and the first one's reason."""
        if self.count:
            logger.warning(
                "%s: %d left out, first %s", self.source, self.count, self.first
            )


def read_photos(source: str | PathLike) -> list[Photo]:
    """Photos of a folder with an `objects.jsonl`, or of a built dataset: its folder or Hub id.

    Records that cannot be used are left out, and a warning tells their number.
    """
    log = RejectLog(str(source))
    photos: list[Photo] = []
    if (Path(source) / "objects.jsonl").is_file():
        photos = read_objects(source, on_reject=log)
    else:
        import datasets  # slow to import, and the other readers do without it

        for split, rows in datasets.load_dataset(str(source)).items():
            photos.extend(read_dataset(rows, split, on_reject=log))
    log.warn()
    return photos
