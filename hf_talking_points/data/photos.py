"""Annotated photos, the record that every reader gives: a photo with its objects, their named points and parts.

Coordinates are pixels of the photo as displayed, origin at the top-left corner of the top-left pixel, whose center is
(0.5, 0.5).
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import fsspec
import numpy as np
from PIL import Image

from ..models.images import (
    UNREADABLE,
    content_key,
    displayed_size,
    open_file,
    to_rgb,
)

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation", "test")
Box = tuple[float, float, float, float]
OnReject = Callable[[str, str], None]
StoredImage: TypeAlias = (
    dict[str, Any] | Image.Image
)  # as `datasets` stores it, or decoded
T = TypeVar("T")


@dataclass(frozen=True)
class PartPoint:
    """A point of a photo.

    Args:
        part (`str`, *optional*): the part that it lies on, as [`normalize_part`] gives it; None where that is not
            known.
        x, y (`float`): in pixels.
        box (`tuple`, *optional*): (x1, y1, x2, y2) of the part.
        texts (`tuple`): (style, description) pairs where the source describes the point.
        stratum (`str`): how the point was chosen.
    """

    part: str | None
    x: float
    y: float
    box: Box | None = None
    texts: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    stratum: str = field(default="given", compare=False)


@dataclass(frozen=True, eq=False)
class Part:
    """An annotated region of an object, without a point.

    Args:
        name (`str`): as [`normalize_part`] gives it.
        box (`tuple`): (x1, y1, x2, y2) in pixels.
        mask (bool `np.ndarray` of shape `(bottom - top, right - left)`, *optional*): which pixels of `pixel_box`
            belong to the part; None where only the box is known.
    """

    name: str
    box: Box
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.mask is None:
            return
        left, top, right, bottom = self.pixel_box
        expected = (bottom - top, right - left)
        if self.mask.dtype != bool or self.mask.shape != expected:
            raise ValueError(
                f"mask of part {self.name!r}: expected bool of shape {expected} for box {self.box}, "
                f"found {self.mask.dtype} of shape {self.mask.shape}"
            )

    @property
    def pixel_box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom): `box` in whole pixels, left and top rounded down, right and bottom up."""
        x1, y1, x2, y2 = self.box
        return math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)


@dataclass(frozen=True)
class AnnotatedObject:
    """An object of a photo; `category` is as [`normalize_category`] gives it, `box` is (x1, y1, x2, y2) in pixels."""

    category: str
    box: Box
    points: tuple[PartPoint, ...] = ()
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Photo:
    """One photo with all its annotated objects.

    Args:
        id (`str`): the image path exactly as the annotation file has it; no two photos of one reading have the same.
        path (`str`, *optional*): None where the photo is a row of a dataset.
        size (`tuple`): (width, height) in pixels, as displayed.
        objects (`tuple`): of [`AnnotatedObject`].
        given_split (`str`, *optional*): "train", "validation" (or "val") or "test", where the source states one.
        row (`tuple`, *optional*): (dataset, index) of the row whose column "image" holds the file of a photo without a
            path; the image stays in the dataset.
        points (`tuple`): of [`PartPoint`] on no annotated object.
        stored (`dict` or PIL image, *optional*): the image itself, of a row that cannot be asked for again: as
            `datasets` stores it, with "bytes" and "path", or decoded.
        classes (`tuple` of `str`): what the whole photo shows, where no box says which part of it.
    """

    id: str
    path: str | None
    size: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]
    given_split: str | None = None
    row: tuple[Dataset, int] | None = field(default=None, repr=False, compare=False)
    points: tuple[PartPoint, ...] = ()
    stored: StoredImage | None = field(default=None, repr=False, compare=False)
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.given_split not in (None, "val", *SPLITS):
            raise ValueError(
                f"given_split of {self.id}: expected one of {SPLITS}, 'val' or None, found {self.given_split!r}"
            )

    @property
    def split(self) -> str:
        """The source's own split, or that of [`split_of`]."""
        if self.given_split is None:
            return split_of(self.id)
        return "validation" if self.given_split == "val" else self.given_split

    def file(self) -> str | io.BytesIO:
        """The image file: its path, or its bytes in a `BytesIO`."""
        stored = self._stored()
        if isinstance(stored, str):
            return stored
        if isinstance(stored, Image.Image):
            content = io.BytesIO()
            to_rgb(stored).save(content, "PNG")
            content.seek(0)
            return content
        if stored["bytes"] is not None:
            return io.BytesIO(stored["bytes"])
        if "://" not in stored["path"]:
            return stored["path"]
        with fsspec.open(
            stored["path"]
        ) as remote:  # a file inside an archive, or on the Hub
            return io.BytesIO(remote.read())

    def _stored(self) -> str | StoredImage:
        """Where the image is: its path, or what a dataset stores of it."""
        if self.row is not None:
            dataset, index = self.row
            return dataset[index]["image"]
        if self.stored is not None:
            return self.stored
        if self.path is not None:
            return self.path
        raise ValueError(f"{self.id} has neither a path nor a stored image")

    def _read(self, read: Callable[[Image.Image], T]) -> T:
        """What a function makes of the opened image. Raises FileNotFoundError, or OSError naming the photo."""
        stored = self._stored()
        try:
            if isinstance(stored, Image.Image):
                return read(stored)
            with open_file(self.file()) as image:
                return read(image)
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            raise OSError(
                f"{self.path or self.id} cannot be read as an image: {error}"
            ) from error

    def displayed_size(self) -> tuple[int, int]:
        """(width, height) of the image.

        Raises FileNotFoundError, or OSError naming the photo where its file is broken.
        """
        return self._read(displayed_size)

    def open(self) -> Image.Image:
        """The image as displayed, in RGB.

        Raises FileNotFoundError, OSError naming the photo where its file is broken, and ValueError naming it where its
        size is not the stated one: the annotation would lie elsewhere.
        """
        image = self._read(to_rgb)
        check_size(self, image.size)
        return image

    @cached_property
    def content_key(self) -> str:
        """[`content_key`] of the photo: what tells it apart, whatever its file is called."""
        return content_key(self.open())


def check_size(photo: Photo, size: tuple[int, int]) -> None:
    """Raises ValueError where the size of a photo is not the stated one."""
    if tuple(size) != tuple(photo.size):
        raise ValueError(
            f"size of {photo.path or photo.id}: its annotation states {tuple(photo.size)}, "
            f"but as displayed it has {tuple(size)} pixels"
        )


def split_of(image_id: str) -> str:
    """The split of a photo, from the first byte of the SHA-1 of its id.

    Returns "test", "validation" or "train": about 10 %, 5 % and 85 % of the photos.
    """
    byte = hashlib.sha1(image_id.encode()).digest()[0]
    if byte < 26:
        return "test"
    return "validation" if byte < 39 else "train"


def reject(image_id: str, reason: str) -> None:
    """Raises ValueError: what readers do with a record that cannot be used unless they get another `on_reject`."""
    raise ValueError(f"{image_id}: {reason}")


def leave_out(on_reject: OnReject, image_id: str, reason: str) -> None:
    """Tells `on_reject` of what is usual in annotation files, such as a photo without a labeled point.

    A strict reading, with [`reject`], goes on.
    """
    if on_reject is not reject:
        on_reject(image_id, reason)


def clip_box(box: Box, size: tuple[int, int]) -> Box:
    """The part of a box that lies on a photo of `size`.

    Raises ValueError for a box without area, or beside the photo.
    """
    x1, y1, x2, y2 = box
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"box {tuple(box)} has no area")
    width, height = size
    clipped = (max(x1, 0), max(y1, 0), min(x2, width), min(y2, height))
    if not (clipped[0] < clipped[2] and clipped[1] < clipped[3]):
        raise ValueError(
            f"box {tuple(box)} lies outside the photo of {width} x {height} pixels"
        )
    return clipped


def usable_point(point: PartPoint, size: tuple[int, int]) -> PartPoint:
    """The point with its part's box clipped to the photo. Raises ValueError where point or box lie beside it."""
    width, height = size
    if not (0 <= point.x <= width and 0 <= point.y <= height):
        raise ValueError(
            f"at ({point.x}, {point.y}) lies outside the photo of {width} x {height} pixels"
        )
    if point.box is None:
        return point
    return replace(point, box=clip_box(point.box, size))


def usable_object(
    annotated: AnnotatedObject, photo: Photo, on_reject: OnReject
) -> AnnotatedObject:
    """The object with its boxes clipped to the photo, less the points and parts beside it, each of them rejected.

    Raises ValueError where its own box lies beside the photo.
    """
    box = clip_box(annotated.box, photo.size)
    points = usable_points(annotated.points, photo, on_reject)
    parts = []
    for part in annotated.parts:
        try:
            # a mask lies on the photo, and so does its box
            clipped = clip_box(part.box, photo.size) if part.mask is None else part.box
            parts.append(replace(part, box=clipped))
        except ValueError as error:
            on_reject(photo.id, f"{part.name}: {error}")
    return replace(annotated, box=box, points=points, parts=tuple(parts))


def usable_points(
    points: tuple[PartPoint, ...], photo: Photo, on_reject: OnReject
) -> tuple[PartPoint, ...]:
    """The points that lie on the photo, with their parts' boxes clipped to it; each other one is rejected."""
    kept = []
    for point in points:
        try:
            kept.append(usable_point(point, photo.size))
        except ValueError as error:
            on_reject(photo.id, f"{point.part or 'point'}: {error}")
    return tuple(kept)


def clipped_photo(photo: Photo, on_reject: OnReject) -> Photo:
    """The photo with all boxes clipped to it, less what lies beside it, each thing rejected."""
    objects = []
    for annotated in photo.objects:
        try:
            objects.append(usable_object(annotated, photo, on_reject))
        except ValueError as error:
            on_reject(photo.id, f"{annotated.category}: {error}")
    points = usable_points(photo.points, photo, on_reject)
    return replace(photo, objects=tuple(objects), points=points)


def usable_photo(photo: Photo, on_reject: OnReject) -> Photo | None:
    """[`clipped_photo`], or None where no point and no part is left."""
    photo = clipped_photo(photo, on_reject)
    if photo.points or any(one.points or one.parts for one in photo.objects):
        return photo
    leave_out(
        on_reject,
        photo.id,
        "no point and no part is annotated on it that could be used",
    )
    return None
