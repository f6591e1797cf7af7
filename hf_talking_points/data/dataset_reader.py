"""Datasets whose rows are points, or photos with all their objects, as annotated photos."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..models.images import UNREADABLE, content_key, to_rgb
from .fields import (
    box_of,
    box_or_none,
    misfit,
    number_of,
    numbers_of,
    require_name,
    text_of,
    value_of,
)
from .names import normalize_category, normalize_part
from .photos import (
    SPLITS,
    AnnotatedObject,
    Box,
    OnReject,
    Part,
    PartPoint,
    Photo,
    StoredImage,
    reject,
    usable_photo,
)
from .texts import DEFAULT_STYLE

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

ROWS_AT_A_TIME = 32  # each with its image as it is stored
ID_LENGTH = 16  # characters of the id of an image whose row does not state one
POINT_COLUMNS = (
    "image_id",
    "point",
    "description",
    "style",
    "object",
    "object_box",
    "part",
    "part_box",
    "stratum",
    "split",
)
PHOTO_COLUMNS = ("image_id", "objects", "split")

Owner = tuple[str, Box]  # category and box of an object


@dataclass
class PhotoRows:
    """What the rows of one photo have said so far.

    Args:
        place (`str`): of the first of them, such as "dataset, row 3".
        index (`int`): of the first of them.
        id (`str`): that no other photo has.
        stored: the image, where the dataset cannot be asked for it again.
        split (`str`, *optional*): as it is stated.
        objects (`list`): of rows that hold them.
        points (`dict`): object, or None for points on none -> points -> (style, description) pairs.
    """

    place: str
    index: int
    id: str
    stored: StoredImage | None
    split: str | None
    objects: list[AnnotatedObject] = field(default_factory=list)
    points: dict[Owner | None, dict[PartPoint, list[tuple[str, str]]]] = field(
        default_factory=dict
    )

    def add_point(
        self, owner: Owner | None, point: PartPoint, row: dict[str, Any]
    ) -> None:
        """Adds the point of a row, or its description where the point has come before."""
        texts = self.points.setdefault(owner, {}).setdefault(point, [])
        description = row.get("description")
        if description and description.strip():
            texts.append((row.get("style") or DEFAULT_STYLE, description))

    def annotation(self) -> tuple[tuple[AnnotatedObject, ...], tuple[PartPoint, ...]]:
        """The objects, and the points on none."""
        objects = list(self.objects)
        free: tuple[PartPoint, ...] = ()
        for owner, texts_of_points in self.points.items():
            points = []
            for point, texts in texts_of_points.items():
                points.append(replace(point, texts=tuple(texts)))
            if owner is None:
                free = tuple(points)
            else:
                category, box = owner
                objects.append(AnnotatedObject(category, box, tuple(points)))
        return tuple(objects), free


class PhotoIds:
    """Tells the photos of a dataset apart, by the ids that rows state and by what is stored of their images."""

    def __init__(self) -> None:
        self.ids: dict[tuple[str | None, str], str] = {}  # (stated id, image key) -> id
        self.taken: set[str] = set()
        self.last: StoredImage | None = None
        self.last_key = ""

    def image_key(self, stored: StoredImage) -> str:
        """A hash of a stored image. The rows of a photo mostly follow each other: most images are only compared."""
        if self.last is None or stored != self.last:
            self.last_key = stored_image_key(stored)
            self.last = stored
        return self.last_key

    def id_of(self, stated: str | None, stored: StoredImage) -> str:
        """The photo's id: the stated one, "<id>#2" for the second image under it, or a hash where none is stated."""
        photo = (stated, self.image_key(stored))
        if photo not in self.ids:
            first = stated or self.last_key[:ID_LENGTH]
            image_id = first
            number = 1
            while image_id in self.taken:
                number += 1
                image_id = f"{first}#{number}"
            self.ids[photo] = image_id
            self.taken.add(image_id)
        return self.ids[photo]


def stored_image(value: Any, where: str) -> StoredImage:
    """The image of a row as it is stored. Raises ValueError where there is none."""
    if isinstance(value, str):
        value = {"bytes": None, "path": value}
    is_stored = isinstance(value, dict) and {"bytes", "path"} <= value.keys()
    if value is None or is_stored and not (value["bytes"] or value["path"]):
        raise ValueError(f"{where} has no image")
    if not is_stored and not isinstance(value, Image.Image):
        raise misfit(where, "image", "an image", value)
    return value


def stored_image_key(stored: StoredImage) -> str:
    """SHA-256 of what is stored of an image: of its file, of its remote address, or of decoded pixels."""
    if isinstance(stored, Image.Image):
        return content_key(to_rgb(stored))
    content = stored["bytes"]
    if content is None:
        path = stored["path"]
        content = path.encode() if "://" in path else Path(path).read_bytes()
    return hashlib.sha256(content).hexdigest()


def read_dataset(
    dataset: Dataset | IterableDataset,
    split: str | None = None,
    *,
    on_reject: OnReject = reject,
) -> Iterator[Photo]:
    """Reads a dataset, streaming or not, in one of two forms that its columns tell apart.

    One row for each point and description, as `build_dataset` writes them:

        {"image": Image(), "image_id": "a.jpg", "point": [x, y], "description": "...", "style": "full",
         "object": "dog", "object_box": [x1, y1, x2, y2], "part": "left eye", "part_box": [x1, y1, x2, y2],
         "stratum": "given", "split": "train"}

    Only "image" and "point" are needed. A point that comes again adds its description. A description without a style
    is "full". A point whose row has no object, or no box of it, is one of [`Photo.points`].

    One row for each photo, with a column "objects":

        {"image": Image(), "image_id": "a.jpg", "split": "train",
         "objects": [{"category": "dog", "box": [x1, y1, x2, y2],
                      "points": [{"part": "left eye", "x": x, "y": y, "box": [x1, y1, x2, y2]}, ...],
                      "parts": [{"name": "head", "box": [x1, y1, x2, y2]}, ...]}, ...]}

    "image_id", "split", "points", "parts" and the box of a point may be missing or None.

    An image without an id gets a hash of what is stored as its id. Different images under one id are different photos:
    the second one's id becomes "<id>#2". Images of a `Dataset` stay in it; only their headers are read. Of an
    `IterableDataset` each photo holds its stored image, and a photo ends with the last of its rows that follow each
    other: where they are scattered, it is yielded again under its id.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`)
        split (`str`, *optional*): of the photos whose row does not state one.
        on_reject: is told of each row or photo that cannot be used.
    Yields:
        [`Photo`] without a path, in the order of the rows.

    Raises ValueError without the columns of one of the forms, TypeError for another kind of dataset.
    """
    check_split(split, "split")
    rows = DatasetRows(dataset, on_reject)
    for rows_of_photo in rows.photos():
        photo = rows.photo_of(rows_of_photo, split)
        try:
            photo = replace(photo, size=photo.displayed_size())
        except OSError as error:
            on_reject(
                photo.id, f"{rows_of_photo.place}: its image cannot be read: {error}"
            )
            continue
        usable = usable_photo(photo, on_reject)
        if usable is not None:
            yield usable


def each_row(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of a dataset, one after the other, decoded several at a time, which is faster than iterating."""
    for batch in dataset.iter(batch_size=ROWS_AT_A_TIME):
        for values in zip(*batch.values()):
            yield dict(zip(batch, values))


def check_split(split: Any, where: str) -> None:
    """Raises ValueError for what is no name of a split."""
    if split not in (None, "val", *SPLITS):
        raise ValueError(
            f"{where}: expected one of {SPLITS}, 'val' or None, found {split!r}"
        )


class DatasetRows:
    """The rows of a dataset, with images as they are stored.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`)
        on_reject: is told of each row that cannot be used.
    """

    def __init__(self, dataset: Dataset | IterableDataset, on_reject: OnReject) -> None:
        import datasets  # slow to import, and the other readers do without it

        if not isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
            hint = ": choose one of its splits" if isinstance(dataset, dict) else ""
            raise TypeError(
                f"expected a Dataset or IterableDataset, got {type(dataset).__name__}{hint}"
            )
        self.is_streaming = isinstance(dataset, datasets.IterableDataset)
        self.on_reject = on_reject
        self.ids = PhotoIds()
        dataset = dataset.with_format(None)
        columns = dataset.column_names
        if columns is None:  # a stream that nobody has looked into
            columns = list(next(iter(dataset), {}))
        self.has_objects = "objects" in columns
        self.rows = self._without_other_columns(dataset, columns)
        if dataset.features is not None:
            stored = datasets.Image(decode=False)
            self.rows = self.rows.cast_column("image", stored)
        self.images = None if self.is_streaming else self.rows.select_columns("image")

    def _without_other_columns(self, dataset: Any, columns: list[str]) -> Any:
        """The dataset without the columns that are not read."""
        needed = "objects" if self.has_objects else "point"
        for name in ("image", needed):
            if columns and name not in columns:
                expected = "a column of this name"
                if name == "point":
                    expected += ", or a column 'objects'"
                raise misfit("dataset", name, expected, columns)
        read = PHOTO_COLUMNS if self.has_objects else POINT_COLUMNS
        return dataset.select_columns(
            [name for name in ("image", *read) if name in columns]
        )

    def photo_of(self, rows_of_photo: PhotoRows, split: str | None) -> Photo:
        """The photo of its rows, whose size is not known yet."""
        objects, points = rows_of_photo.annotation()
        row = None if self.images is None else (self.images, rows_of_photo.index)
        return Photo(
            id=rows_of_photo.id,
            path=None,
            size=(0, 0),
            objects=objects,
            given_split=rows_of_photo.split or split,
            row=row,
            points=points,
            stored=rows_of_photo.stored,
        )

    def photos(self) -> Iterator[PhotoRows]:
        """Yields the rows of each photo together."""
        if self.has_objects:
            yield from self._photos_of_object_rows()
        elif self.is_streaming:
            yield from self._consecutive_photos()
        else:
            photos: dict[str, PhotoRows] = {}
            for started in self._point_rows(photos):
                photos[started.id] = started
            yield from photos.values()

    def _each_row(self) -> Iterator[dict[str, Any]]:
        """A stream row by row, since the next one may be long in coming."""
        return iter(self.rows) if self.is_streaming else each_row(self.rows)

    def _photos_of_object_rows(self) -> Iterator[PhotoRows]:
        """Each row is a photo; one that comes again is rejected."""
        seen: set[str] = set()
        for index, row in enumerate(self._each_row()):
            try:
                started = self._start(index, row)
                if started.id in seen:
                    raise ValueError(
                        f"{started.place}: its id has come before, with this image"
                    )
                started.objects = objects_of_row(row, started.place)
            except ValueError as error:
                self.on_reject(row_name(index, row), str(error))
                continue
            seen.add(started.id)
            yield started

    def _consecutive_photos(self) -> Iterator[PhotoRows]:
        """The rows of a photo that follow each other are one photo."""
        current: dict[str, PhotoRows] = {}
        for started in self._point_rows(current):
            yield from current.values()
            current.clear()
            current[started.id] = started
        yield from current.values()

    def _point_rows(self, photos: dict[str, PhotoRows]) -> Iterator[PhotoRows]:
        """Adds each row to its photo among `photos`. Yields each photo that is not among them, with its first row."""
        for index, row in enumerate(self._each_row()):
            try:
                started = self._start(index, row)
                owner = owner_of_row(row, started.place)
                point = point_of_row(row, owner, started.place)
            except ValueError as error:
                self.on_reject(row_name(index, row), str(error))
                continue
            if started.id in photos:
                photos[started.id].add_point(owner, point, row)
            else:
                started.add_point(owner, point, row)
                yield started

    def _start(self, index: int, row: dict[str, Any]) -> PhotoRows:
        """A photo with nothing but the id, image and split of its row."""
        place = f"dataset, row {index}"
        stored = stored_image(row.get("image"), place)
        stated = (
            None if row.get("image_id") is None else text_of(row, "image_id", place)
        )
        check_split(row.get("split"), f"{place}: field 'split'")
        try:
            image_id = self.ids.id_of(stated, stored)
        except UNREADABLE as error:
            raise ValueError(f"{place}: its image cannot be read: {error}") from error
        kept = stored if self.is_streaming else None
        return PhotoRows(place, index, image_id, kept, row.get("split"))


def row_name(index: int, row: dict[str, Any]) -> str:
    """What a row is called where it is rejected."""
    return str(row.get("image_id") or f"row {index}")


def owner_of_row(row: dict[str, Any], where: str) -> Owner | None:
    """Category and box of the object that a row's point lies on; None where the row does not have both."""
    if row.get("object") is None or row.get("object_box") is None:
        return None
    raw = text_of(row, "object", where)
    category = require_name(normalize_category(raw), "object", raw, where)
    return category, box_of(row, "object_box", where)


def point_of_row(row: dict[str, Any], owner: Owner | None, where: str) -> PartPoint:
    """The point of a row, without its description."""
    x, y = numbers_of(row, "point", 2, where)
    part = None
    if row.get("part") is not None:
        raw = text_of(row, "part", where)
        part = require_name(
            normalize_part(raw, owner[0] if owner else ""), "part", raw, where
        )
    for name in ("description", "style", "stratum"):
        if row.get(name) is not None:
            text_of(row, name, where)
    stratum = row.get("stratum") or "given"
    return PartPoint(part, x, y, box_or_none(row, "part_box", where), stratum=stratum)


def objects_of_row(row: dict[str, Any], where: str) -> list[AnnotatedObject]:
    """The objects of a row that is a photo."""
    objects = []
    for number, record in enumerate(value_of(row, "objects", list, where)):
        place = f"{where}, objects[{number}]"
        raw = text_of(record, "category", place)
        category = require_name(normalize_category(raw), "category", raw, place)
        points = []
        for point in listed(record, "points", place):
            points.append(point_of_record(point, category, place))
        parts = []
        for part in listed(record, "parts", place):
            raw_name = text_of(part, "name", place)
            name = require_name(
                normalize_part(raw_name, category), "name", raw_name, place
            )
            parts.append(Part(name, box_of(part, "box", place)))
        box = box_of(record, "box", place)
        objects.append(AnnotatedObject(category, box, tuple(points), tuple(parts)))
    return objects


def listed(record: dict[str, Any], name: str, where: str) -> Iterable[Any]:
    """The list in an optional field; empty where the field is missing or None."""
    return value_of(record, name, list, where) if record.get(name) is not None else ()


def point_of_record(record: Any, category: str, where: str) -> PartPoint:
    """A point of an object of a row that is a photo."""
    raw = text_of(record, "part", where)
    part = require_name(normalize_part(raw, category), "part", raw, where)
    x = number_of(record, "x", where)
    y = number_of(record, "y", where)
    return PartPoint(part, x, y, box_or_none(record, "box", where))
