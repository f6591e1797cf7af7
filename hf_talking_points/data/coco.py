"""COCO files: keypoints, and parts with boxes, polygons or run lengths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from .fields import (
    box_of,
    file_inside,
    is_utf8,
    misfit,
    numbers_of,
    record_name,
    require_name,
    text_of,
    value_of,
    whole_number_of,
)
from .json_lines import read_json
from .masks import part_of_mask, segmentation_mask
from .names import normalize_category, normalize_part
from .photos import (
    AnnotatedObject,
    Box,
    OnReject,
    Part,
    PartPoint,
    Photo,
    check_size,
    clip_box,
    leave_out,
    reject,
    usable_photo,
)


@dataclass(frozen=True)
class CocoRecord:
    """An image, annotation or category of a COCO file.

    Args:
        fields (`dict`): as the file has them.
        where (`str`): its place, such as "train.json, annotations[3]".
    """

    fields: dict[str, Any]
    where: str


class UsualLack(ValueError):
    """A record lacks what a reader wants, as is usual: a whole object in a file of parts."""


class CocoFile:
    """A COCO file. Raises ValueError where it is no JSON, or without one of the lists that make it a COCO file.

    Args:
        file: the JSON file.
        category_ids (`dict`, *optional*): category id -> category, where the file has none.
        on_reject: is told of each record that cannot be used.
    """

    def __init__(
        self,
        file: str | PathLike,
        category_ids: dict[int, CocoRecord] | None = None,
        on_reject: OnReject = reject,
    ) -> None:
        self.file = file
        self.name = Path(file).name
        self.on_reject = on_reject
        content = read_json(file)
        self.images = value_of(content, "images", list, str(file))
        self.annotations = value_of(content, "annotations", list, str(file))
        self.repeated_categories: set[int] = set()
        if category_ids is None:
            category_ids = self._category_ids(
                value_of(content, "categories", list, str(file))
            )
        self.category_ids = category_ids

    def _category_ids(self, categories: list[Any]) -> dict[int, CocoRecord]:
        """Category id -> category. One without an id of its own is told of where an annotation asks for it."""
        category_ids: dict[int, CocoRecord] = {}
        for number, fields in enumerate(categories):
            where = f"{self.name}, categories[{number}]"
            try:
                category_id = value_of(fields, "id", int, where)
            except ValueError:
                continue
            if category_id in category_ids:
                self.repeated_categories.add(category_id)
                where = f"{where}, whose id {category_id} has come before"
            category_ids[category_id] = CocoRecord(fields, where)
        return category_ids

    def category_of(self, annotation: CocoRecord) -> CocoRecord:
        """The category of an annotation. Raises ValueError where the file has none of its id, or several."""
        category_id = value_of(annotation.fields, "category_id", int, annotation.where)
        if category_id not in self.category_ids:
            known = f"one of the {len(self.category_ids)} known ids"
            raise misfit(annotation.where, "category_id", known, category_id)
        category = self.category_ids[category_id]
        if category_id in self.repeated_categories:
            expected = "an id that no other category has"
            raise misfit(category.where, "id", expected, category_id)
        return category

    def photos(
        self, folder: str | PathLike, split: str | None, by_synset: bool = False
    ) -> Iterator[tuple[Photo, list[CocoRecord]]]:
        """Yields the [`Photo`]s that something is annotated on, without objects, each with its annotations.

        Args:
            folder: with the photos.
            split (`str`, *optional*): of all of them.
            by_synset (`bool`): whether they may be in folders, named by what stands before the first "_".
        """
        listed = self._listed_photos(Path(folder), split, by_synset)
        for image_id, records in self._annotations_by_image(listed).items():
            photo_of_id = listed[image_id]
            if photo_of_id is None:
                continue
            # false for a name too long for a file, of which pathlib raises
            if not os.path.isfile(str(photo_of_id.path)):
                place = f"{Path(folder).name}/{photo_of_id.id}"
                self.on_reject(photo_of_id.id, f"{place} does not exist")
                continue
            yield photo_of_id, records

    def _listed_photos(
        self, folder: Path, split: str | None, by_synset: bool
    ) -> dict[int, Photo | None]:
        """Image id -> [`Photo`] without objects; None for an image that cannot be used."""
        listed: dict[int, Photo | None] = {}
        names: set[str] = set()
        for number, fields in enumerate(self.images):
            where = f"{self.name}, images[{number}]"
            try:
                image_id = value_of(fields, "id", int, where)
                if image_id in listed:
                    raise ValueError(f"{where}: its id {image_id} has come before")
                listed[image_id] = None
                photo = listed_photo(
                    CocoRecord(fields, where), folder, split, by_synset
                )
                if photo.id in names:
                    raise ValueError(f"{where}: its name has come before")
            except ValueError as error:
                self.on_reject(record_name(fields, "file_name", where), str(error))
                continue
            names.add(photo.id)
            listed[image_id] = photo
        return listed

    def _annotations_by_image(
        self, listed: dict[int, Photo | None]
    ) -> dict[int, list[CocoRecord]]:
        """Image id -> annotations, in the order of the images, less crowd regions, which are no single object."""
        by_image: dict[int, list[CocoRecord]] = {image_id: [] for image_id in listed}
        seen: set[int | str] = set()
        for number, fields in enumerate(self.annotations):
            where = f"{self.name}, annotations[{number}]"
            image_name = where
            try:
                image_id = value_of(fields, "image_id", int, where)
                photo = listed.get(image_id)
                image_name = f"image id {image_id}" if photo is None else photo.id
                if image_id not in listed:
                    raise ValueError(
                        f"{where}: {self.name} annotates it but does not list it"
                    )
                annotation_id = fields.get("id")
                if not isinstance(annotation_id, (int, str, type(None))):
                    raise misfit(where, "id", "int", annotation_id)
                if annotation_id is not None and annotation_id in seen:
                    raise ValueError(
                        f"{where}: annotation id {annotation_id} has come before"
                    )
            except ValueError as error:
                self.on_reject(image_name, str(error))
                continue
            if annotation_id is not None:
                seen.add(annotation_id)
            if not fields.get("iscrowd"):
                by_image[image_id].append(CocoRecord(fields, where))
        annotated = {}
        for image_id, records in by_image.items():
            if records:
                annotated[image_id] = records
        return annotated


def listed_photo(
    image: CocoRecord, folder: Path, split: str | None, by_synset: bool
) -> Photo:
    """The [`Photo`] of an image's record, without objects."""
    name = text_of(image.fields, "file_name", image.where)
    width = whole_number_of(image.fields, "width", image.where)
    height = whole_number_of(image.fields, "height", image.where)
    if min(width, height) < 1:
        raise misfit(image.where, "width, height", "at least 1", (width, height))
    path = file_inside(folder, name, "file_name", image.where)
    if by_synset and not os.path.isfile(path):
        in_synset = f"{name.partition('_')[0]}/{name}"
        path = file_inside(folder, in_synset, "file_name", image.where)
    return Photo(name, str(path), (width, height), (), split)


def coco_box(annotation: CocoRecord) -> Box:
    """(x1, y1, x2, y2) of an annotation."""
    x, y, width, height = box_of(annotation.fields, "bbox", annotation.where)
    return x, y, x + width, y + height


def category_name(category: CocoRecord, field: str = "name") -> str:
    """The name of a category in words."""
    raw = text_of(category.fields, field, category.where)
    return require_name(normalize_category(raw), field, raw, category.where)


def keypoint_names(category: CocoRecord) -> list[str]:
    """The names of a category's keypoints in words. Raises [`UsualLack`] where it has none."""
    if not category.fields.get("keypoints"):
        raise UsualLack(f"{category.where} has no keypoints")
    raw_names = value_of(category.fields, "keypoints", list, category.where)
    category_in_words = category_name(category)
    names = []
    for raw in raw_names:
        name = ""
        if isinstance(raw, str) and is_utf8(raw):
            name = normalize_part(raw, category_in_words)
        if not name:
            raise misfit(category.where, "keypoints", "names in UTF-8", raw_names)
        names.append(name)
    return names


def keypoint_object(annotation: CocoRecord, category: CocoRecord) -> AnnotatedObject:
    """The object of an annotation, with its labeled keypoints."""
    names = keypoint_names(category)
    values = numbers_of(
        annotation.fields, "keypoints", 3 * len(names), annotation.where
    )
    points = []
    for number, name in enumerate(names):
        x, y, visibility = values[3 * number : 3 * number + 3]
        if visibility > 0:
            points.append(PartPoint(name, x + 0.5, y + 0.5))
    return AnnotatedObject(category_name(category), coco_box(annotation), tuple(points))


def read_coco_keypoints(
    annotations: str | PathLike,
    images: str | PathLike,
    split: str | None = None,
    *,
    on_reject: OnReject = reject,
) -> Iterator[Photo]:
    """Reads COCO keypoints: AP-10K, Animal-Pose in its COCO form, COCO person.

        {"images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}, ...],
         "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, y, width, height],
                          "keypoints": [x, y, v, ...], "iscrowd": 0}, ...],
         "categories": [{"id": 1, "name": "dog", "keypoints": ["left_eye", ...]}, ...]}

    A keypoint with v = 0 is not labeled. COCO counts a keypoint's pixel from 0 and measures boxes from the top-left
    corner of the photo: keypoints become the center of their pixel (+ 0.5), boxes stay as they are. Objects of
    categories without keypoints are left out.

    Args:
        annotations: the JSON file.
        images: folder that its file names are relative to.
        split (`str`, *optional*): of all its photos.
        on_reject: is told of each image or annotation that cannot be used.
    Yields:
        [`Photo`] in the file's order.

    Raises ValueError where the file is no JSON, or without images, annotations or categories.
    """
    coco = CocoFile(annotations, on_reject=on_reject)
    for photo, records in coco.photos(images, split):
        objects = []
        for record in records:
            try:
                objects.append(keypoint_object(record, coco.category_of(record)))
            except UsualLack as lack:
                leave_out(on_reject, photo.id, f"{record.where}: {lack}")
            except ValueError as error:
                on_reject(photo.id, str(error))
        usable = usable_photo(replace(photo, objects=tuple(objects)), on_reject)
        if usable is not None:
            yield usable


def part_name(category: CocoRecord) -> str:
    """The name of a part in words, without its supercategory. Raises [`UsualLack`] for the object itself."""
    raw_owner = text_of(category.fields, "supercategory", category.where)
    raw_name = text_of(category.fields, "name", category.where)
    owner = category_name(category, "supercategory")
    beside_owner = raw_name
    if raw_name.lower().startswith(raw_owner.lower()):
        beside_owner = raw_name[len(raw_owner) :]
    name = normalize_part(beside_owner, owner)
    if name == owner or not name and normalize_category(raw_name) == owner:
        raise UsualLack(f"{category.where} is a whole {owner}, no part")
    return require_name(
        name.removeprefix(f"{owner} "), "name", raw_name, category.where
    )


def annotated_part(
    annotation: CocoRecord, category: CocoRecord, size: tuple[int, int]
) -> Part:
    """The part of an annotation, cut to a photo of `size`."""
    name = part_name(category)
    box = coco_box(annotation)
    segmentation = annotation.fields.get("segmentation")
    try:
        on_photo = clip_box(box, size)
        if is_empty(segmentation):
            return Part(name, on_photo)
        return part_of_mask(name, segmentation_mask(segmentation, size))
    except ValueError as error:
        raise ValueError(f"{annotation.where}: {error}") from error


def is_empty(segmentation: Any) -> bool:
    """Whether there is no segmentation, or one without any polygon."""
    if isinstance(segmentation, list):
        return all(polygon == [] for polygon in segmentation)
    return segmentation is None or segmentation == {}


def read_coco_parts(
    annotations: str | PathLike,
    images: str | PathLike,
    split: str | None = None,
    *,
    on_reject: OnReject = reject,
) -> Iterator[Photo]:
    """Reads COCO boxes, polygons or RLE of parts, as PartImageNet publishes them:

        train.json
            {"images": [{"id": 1, "file_name": "n02099601_3004.JPEG", "width": 500, "height": 375}, ...],
             "annotations": [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [x, y, width, height],
                              "segmentation": [[x1, y1, x2, y2, x3, y3, ...], ...]}, ...],
             "categories": [{"id": 0, "name": "Quadruped Head", "supercategory": "Quadruped"}, ...]}
        train/n02099601/n02099601_3004.JPEG

    An annotation does not say which object its part belongs to; the publisher chose photos of one object. All parts of
    a supercategory in a photo are one object here, whose box encloses them. Names lose their supercategory: the head
    of a quadruped. Whole objects, whose name is their supercategory, are left out.
    Boxes and polygons are measured from the top-left corner of the photo, as here. A pixel belongs to a polygon that
    holds its center; polygons of fewer than three corners, of which PartImageNet has some, hold none. Where there is
    no "segmentation", or an empty one, the box is the part.

    Args:
        annotations: the JSON file.
        images: folder with the photos, either themselves or in folders of their synsets, the file name up to its
            first "_".
        split (`str`, *optional*): of all its photos.
        on_reject: is told of each image or annotation that cannot be used.
    Yields:
        [`Photo`] in the file's order.

    Raises ValueError where the file is no JSON, or without images, annotations or categories.
    """
    coco = CocoFile(annotations, on_reject=on_reject)
    for photo, records in coco.photos(images, split, by_synset=True):
        try:
            check_size(photo, photo.displayed_size())  # before masks of it are made
        except (OSError, ValueError) as error:
            on_reject(photo.id, str(error))
            continue
        objects = objects_of_parts(coco, photo, records)
        usable = usable_photo(replace(photo, objects=objects), on_reject)
        if usable is not None:
            yield usable


def objects_of_parts(
    coco: CocoFile, photo: Photo, records: list[CocoRecord]
) -> tuple[AnnotatedObject, ...]:
    """The parts that are annotated on a photo, those of a supercategory as one object."""
    parts: dict[str, list[Part]] = {}  # category of the object -> its parts
    for record in records:
        try:
            category = coco.category_of(record)
            part = annotated_part(record, category, photo.size)
            owner = category_name(category, "supercategory")
        except UsualLack as lack:
            leave_out(coco.on_reject, photo.id, f"{record.where}: {lack}")
            continue
        except ValueError as error:
            coco.on_reject(photo.id, str(error))
            continue
        parts.setdefault(owner, []).append(part)
    objects = []
    for owner, found in parts.items():
        objects.append(AnnotatedObject(owner, hull(found), (), tuple(found)))
    return tuple(objects)


def hull(parts: list[Part]) -> Box:
    """The box around all parts."""
    x1 = min(part.box[0] for part in parts)
    y1 = min(part.box[1] for part in parts)
    x2 = max(part.box[2] for part in parts)
    y2 = max(part.box[3] for part in parts)
    return x1, y1, x2, y2
