"""Photos with their annotation as plain files, which a build goes on from: Parquet with one row for each photo.

A photo that lies in a file of its own is named by its path, the image of any other one is stored along. Nothing in
such a file is run when it is read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..files import whole_file
from .photos import AnnotatedObject, Box, Part, PartPoint, Photo

__all__ = ["read_unit", "write_unit"]

SCHEMA = pa.schema([("photo", pa.string()), ("image", pa.binary())])


def write_unit(file: Path, photos: Iterable[Photo]) -> None:
    """Writes photos so that a kill leaves either the whole file or none."""
    rows = [photo_row(photo) for photo in photos]
    with whole_file(file) as unfinished:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), unfinished)


def read_unit(file: Path) -> list[Photo]:
    """The photos of a file. Raises ValueError naming it where it is not one of [`write_unit`], or damaged."""
    try:
        rows = pq.read_table(file, schema=SCHEMA).to_pylist()
        return [photo_of(json.loads(row["photo"]), row["image"]) for row in rows]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged or no unit of a build: remove its folder, and build again ({error})"
        ) from error


def photo_row(photo: Photo) -> dict[str, Any]:
    """A row of the file."""
    source = photo.file()
    path = source if isinstance(source, str) else photo.path
    entry = {
        "id": photo.id,
        "path": path,
        "size": [int(side) for side in photo.size],
        "given_split": photo.given_split,
        "classes": list(photo.classes),
        "points": [point_entry(point) for point in photo.points],
        "objects": [object_entry(annotated) for annotated in photo.objects],
    }
    image = source.getvalue() if isinstance(source, BytesIO) else None
    return {"photo": json.dumps(entry), "image": image}


def photo_of(entry: dict[str, Any], image: bytes | None) -> Photo:
    """The photo of a row."""
    return Photo(
        id=entry["id"],
        path=entry["path"],
        size=tuple(entry["size"]),
        objects=tuple(object_of(annotated) for annotated in entry["objects"]),
        given_split=entry["given_split"],
        points=tuple(point_of(point) for point in entry["points"]),
        stored=None if image is None else {"bytes": image, "path": entry["path"]},
        classes=tuple(entry["classes"]),
    )


def object_entry(annotated: AnnotatedObject) -> dict[str, Any]:
    return {
        "category": annotated.category,
        "box": numbers(annotated.box),
        "points": [point_entry(point) for point in annotated.points],
        "parts": [part_entry(part) for part in annotated.parts],
    }


def object_of(entry: dict[str, Any]) -> AnnotatedObject:
    return AnnotatedObject(
        category=entry["category"],
        box=box_of(entry["box"]),
        points=tuple(point_of(point) for point in entry["points"]),
        parts=tuple(part_of(part) for part in entry["parts"]),
    )


def point_entry(point: PartPoint) -> dict[str, Any]:
    return {
        "part": point.part,
        "place": numbers((point.x, point.y)),
        "box": None if point.box is None else numbers(point.box),
        "texts": [list(pair) for pair in point.texts],
        "stratum": point.stratum,
    }


def point_of(entry: dict[str, Any]) -> PartPoint:
    x, y = entry["place"]
    return PartPoint(
        part=entry["part"],
        x=x,
        y=y,
        box=None if entry["box"] is None else box_of(entry["box"]),
        texts=tuple((style, text) for style, text in entry["texts"]),
        stratum=entry["stratum"],
    )


def part_entry(part: Part) -> dict[str, Any]:
    mask = None
    if part.mask is not None:
        mask = base64.b64encode(np.packbits(part.mask).tobytes()).decode()
    return {"name": part.name, "box": numbers(part.box), "mask": mask}


def part_of(entry: dict[str, Any]) -> Part:
    part = Part(entry["name"], box_of(entry["box"]))
    if entry["mask"] is None:
        return part
    left, top, right, bottom = part.pixel_box
    shape = (bottom - top, right - left)
    packed = np.frombuffer(base64.b64decode(entry["mask"]), np.uint8)
    bits = np.unpackbits(packed, count=shape[0] * shape[1])
    return Part(part.name, part.box, bits.reshape(shape).astype(bool))


def numbers(values: Sequence[float]) -> list[float]:
    """Plain numbers, as JSON takes them."""
    return [float(value) for value in values]


def box_of(values: Sequence[float]) -> Box:
    x1, y1, x2, y2 = values
    return x1, y1, x2, y2
