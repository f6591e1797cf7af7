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
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from .coco import read_coco_keypoints, read_coco_parts
from .dataset_reader import read_dataset
from .fields import (
    box_of,
    box_or_none,
    file_inside,
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
from .names import SIDES, normalize_category, normalize_part
from .part_label_maps import read_part_label_maps
from .photos import (
    SPLITS,
    AnnotatedObject,
    Box,
    OnReject,
    Part,
    PartPoint,
    Photo,
    clipped_photo,
    leave_out,
    reject,
    split_of,
)
from .texts import read_texts, with_texts

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

SAME_OBJECT = 0.5  # intersection over union of the boxes of one object in two files


def read_objects(
    folder: str | PathLike,
    *,
    more: Sequence[str] = (),
    texts: Sequence[str] | None = None,
    on_reject: OnReject = reject,
) -> list[Photo]:
    """Reads `folder/objects.jsonl`, one object a line:

        {"image": "images/a.jpg", "size": [width, height], "category": "dog", "object_box": [x1, y1, x2, y2],
         "points": [["left_eye", x, y], ["wheel", x, y, [x1, y1, x2, y2]], ...], "fine_category": "basset"}

    An object without a box ("object_box": null) makes its category one of [`Photo.classes`], and so does a
    "fine_category", which may be missing. Points of such a line are on no object; a part's box without its object is
    rejected. Points outside the photo are left out: nothing there can be described. Images are not looked at. A photo
    is kept where it has a point, a box or a class.

    Args:
        folder: with `objects.jsonl`, and with the images that it names.
        more (sequence of `str`, *optional*): further files of the folder in the same layout, such as part boxes of
            the same photos. An object that two files have, told by its category and by boxes that overlap by half of
            their union, becomes one: a part's box is given to the point of the same name that lies in it.
        texts (sequence of `str`, *optional*): files with texts on points, in the folder or elsewhere, as
            [`read_texts`] takes them; by default the folder's `texts.jsonl` where there is one.
        on_reject: is told of each line, point, text or photo that cannot be used.
    Returns:
        list of [`Photo`] in the file's order, split by [`split_of`] whatever other fields a line has.

    Raises FileNotFoundError without one of the files.
    """
    folder = Path(folder)
    files = [folder / name for name in ("objects.jsonl", *more)]
    if texts is None:
        stated = folder / "texts.jsonl"
        text_files = [stated] if stated.is_file() else []
    else:
        text_files = [folder / name for name in texts]
    for file in [*files, *text_files]:
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} does not exist: data_dir must be a folder with an objects.jsonl and its images"
            )
    photos: dict[str, Photo] = {}
    for file in files:
        read_object_file(file, folder, photos, on_reject)
    read = list(photos.values())
    for file in text_files:
        read = with_texts(read, read_texts(file, file.name, on_reject), on_reject)
    usable = []
    for photo in read:
        photo = clipped_photo(photo, on_reject)
        if photo.objects or photo.points or photo.classes:
            usable.append(photo)
        else:
            leave_out(on_reject, photo.id, "nothing that could be used is annotated")
    return usable


def read_object_file(
    file: Path, folder: Path, photos: dict[str, Photo], on_reject: OnReject
) -> None:
    """Adds the objects of one file to the photos of a folder, by their ids."""
    is_first = not photos
    known = {photo.id: len(photo.objects) for photo in photos.values()}
    for number, text in read_json_lines(file):
        where = f"line {number}" if is_first else f"{file.name}, line {number}"
        name = file.name  # of the line's photo, once that is known
        try:
            row = parse_object_line(text, where)
            name = record_name(row, "image", file.name)
            image_id = text_of(row, "image", where)
            size = size_of_line(row, where)
            photo = photos.get(image_id)
            if photo is None:
                path = file_inside(folder, image_id, "image", where)
                photo = Photo(image_id, str(path), size, ())
            if photo.size != size:
                raise misfit(
                    where, "size", f"{photo.size} as in the photo's first line", size
                )
            before = known.get(image_id, 0)
            photos[image_id] = with_line(photo, row, where, before, on_reject)
        except ValueError as error:
            on_reject(name, str(error))


def with_line(
    photo: Photo, row: Any, where: str, before: int, on_reject: OnReject
) -> Photo:
    """The photo with the object, or the class, of a line.

    Args:
        photo ([`Photo`]), row, where (`str`), on_reject
        before (`int`): how many of the photo's objects earlier files have.
    """
    names, annotated = object_of_line(row, where)
    classes = tuple(dict.fromkeys((*photo.classes, *names)))
    photo = replace(photo, classes=classes)
    annotated = without_points_beside(annotated, photo, on_reject)
    if row.get("object_box") is not None:
        return replace(photo, objects=with_object(photo.objects, before, annotated))
    free = []
    for point in annotated.points:
        if point.box is None:
            free.append(point)
        else:
            reason = f"{where}: box of {point.part!r} without the box of its object"
            on_reject(photo.id, reason)
    return replace(photo, points=(*photo.points, *free))


def with_object(
    objects: tuple[AnnotatedObject, ...], before: int, new: AnnotatedObject
) -> tuple[AnnotatedObject, ...]:
    """The objects and a new one, which is joined with that of the first `before` objects that it is."""
    overlaps = []
    for known in objects[:before]:
        is_same_kind = known.category == new.category
        overlaps.append(overlap(known.box, new.box) if is_same_kind else 0.0)
    if not overlaps or max(overlaps) < SAME_OBJECT:
        return (*objects, new)
    number = overlaps.index(max(overlaps))
    joined = list(objects)
    joined[number] = joined_object(joined[number], new)
    return tuple(joined)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes; 0 where one of them has no area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (first, second)]
    return width * height / (sum(areas) - width * height)


def joined_object(known: AnnotatedObject, new: AnnotatedObject) -> AnnotatedObject:
    """An object with the points of a second annotation of it, boxes of parts to the points that lie in them."""
    points = list(known.points)
    for point in new.points:
        index = point_of_part(points, point)
        if index is None:
            points.append(point)
        else:
            points[index] = replace(points[index], box=point.box)
    return replace(known, points=tuple(points))


def point_of_part(points: Sequence[PartPoint], part: PartPoint) -> int | None:
    """The index of the point without a box that has the name of a part and lies nearest to the middle of its box."""
    if part.box is None:
        return None
    x1, y1, x2, y2 = part.box
    inside = []
    for index, point in enumerate(points):
        is_named_so = bare_name(point.part) == bare_name(part.part)
        is_inside = x1 <= point.x <= x2 and y1 <= point.y <= y2
        if point.box is None and is_named_so and is_inside:
            distance = abs(point.x - (x1 + x2) / 2) + abs(point.y - (y1 + y2) / 2)
            inside.append((distance, index))
    return min(inside)[1] if inside else None


def bare_name(part: str | None) -> str:
    """The name of a part without its side."""
    return " ".join(word for word in (part or "").split(" ") if word not in SIDES)


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


def object_of_line(row: Any, where: str) -> tuple[tuple[str, ...], AnnotatedObject]:
    """(classes of the whole photo, object) of a line, with all its points; one without a box has no area."""
    raw = text_of(row, "category", where)
    category = require_name(normalize_category(raw), "category", raw, where)
    classes = []
    if "object_box" in row and row["object_box"] is None:
        box = (0.0, 0.0, 0.0, 0.0)
        classes.append(category)
    else:
        box = box_of(row, "object_box", where)
    if row.get("fine_category") is not None:
        raw = text_of(row, "fine_category", where)
        fine = require_name(normalize_category(raw), "fine_category", raw, where)
        classes.append(fine)
    points = []
    for number, values in enumerate(value_of(row, "points", list, where)):
        points.append(point_of_line(values, category, f"{where}, points[{number}]"))
    return tuple(classes), AnnotatedObject(category, box, tuple(points))


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
