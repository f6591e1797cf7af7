"""Pascal-Part-116 and ADE20K-Part-234: images whose pixels are indices of objects and parts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from ..models.images import UNREADABLE, as_unreadable, open_file
from .coco import CocoFile, CocoRecord
from .fields import is_utf8, misfit, printable
from .masks import part_of_mask, segmentation_mask
from .names import normalize_category, normalize_part
from .opencv import require_opencv
from .photos import AnnotatedObject, OnReject, Part, Photo, reject, usable_photo

EIGHT_BIT = ("L", "P")
SIXTEEN_BIT = ("I", "I;16")
PixelBox = tuple[int, int, int, int]


@dataclass(frozen=True)
class LabelNames:
    """What the labels of the maps mean.

    Args:
        objects (`tuple`): categories in words.
        parts (`tuple`): (category, part) in words.
    """

    objects: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]


def label_names(object_names: Sequence[str], part_names: Sequence[str]) -> LabelNames:
    """The names in words. Raises ValueError for a part that is not named as "dog's head" is, with its object."""
    categories = {}  # raw name -> in words
    for name in object_names:
        categories[name] = normalize_category(name)
        if not categories[name]:
            raise ValueError(f"object_names: expected names, found {name!r}")
    parts = []
    for name in part_names:
        owner, raw_part = split_part_name(name, categories)
        part = normalize_part(raw_part, categories.get(owner, ""))
        if not part:
            raise ValueError(
                'part_names: expected names like "dog\'s head" of objects in object_names, '
                f"found {name!r}"
            )
        parts.append((categories[owner], part))
    return LabelNames(tuple(categories[name] for name in object_names), tuple(parts))


def split_part_name(name: str, categories: dict[str, str]) -> tuple[str, str]:
    """Object and part of a name such as "dog's head"; ("", "") where no object has such a part."""
    possessive = "'s "
    end = name.find(possessive)
    while end >= 0:
        if name[:end] in categories:
            return name[:end], name[end + len(possessive) :]
        end = name.find(possessive, end + 1)  # Grevy's zebra's head
    return "", ""


def read_part_label_maps(
    folder: str | PathLike,
    object_names: Sequence[str],
    part_names: Sequence[str],
    *,
    on_reject: OnReject = reject,
) -> Iterator[Photo]:
    """Reads Pascal-Part-116 or ADE20K-Part-234 as the OV-PARTS release publishes them; which one, its folders tell.

        Pascal-Part-116/
            images/train/2008_000008.jpg                        … val
            annotations_detectron2_obj/train/2008_000008.png    … val
            annotations_detectron2_part/train/2008_000008.png   … val
        ADE20K-Part-234/
            images/training/ADE_train_00000001.jpg                           … validation
            ade20k_instance_train.json                                       ade20k_instance_val.json
            annotations_detectron2_part/training/ADE_train_00000001.png      … validation

    A label map holds each pixel's index in the list of names, 255 (8 bit) or 65535 (16 bit) where there is none. The
    release keeps the lists in its code (`OBJ_CLASS_NAMES` and `CLASS_NAMES` of `register_pascal_part_116.py` and
    `register_ade_part_234.py`), not beside the data; they must be given. Pascal-Part-116 has no instances: an object
    is a connected region of its object label map, so that objects of one class that touch are one, and an object cut
    in two by another is two. ADE20K-Part-234's JSON file is COCO's, with an object's index in the names as category_id
    and its mask as segmentation. In both a part is a connected region of its label inside its object: two legs are two
    parts. Labels of another class's parts inside an object are not its parts.

    Args:
        folder: `Pascal-Part-116` or `ADE20K-Part-234`.
        object_names (`list[str]`): "aeroplane", …
        part_names (`list[str]`): "aeroplane's body", …
        on_reject: is told of each photo or annotation that cannot be used.
    Yields:
        [`Photo`]: all of train, then all of validation.
    Raises:
        ValueError where names or folder are of another layout, ModuleNotFoundError without OpenCV.
    """
    folder = Path(folder)
    names = label_names(object_names, part_names)
    if (folder / "annotations_detectron2_obj").is_dir():
        yield from pascal_part_photos(folder, "train", "train", names, on_reject)
        yield from pascal_part_photos(folder, "val", "validation", names, on_reject)
    elif (folder / "ade20k_instance_train.json").is_file():
        for short, split in (("train", "train"), ("val", "validation")):
            file = folder / f"ade20k_instance_{short}.json"
            coco = CocoFile(file, categories_of(names), on_reject)
            yield from ade20k_part_photos(folder, coco, split, names)
    else:
        either = "annotations_detectron2_obj, of Pascal-Part-116, or ade20k_instance_train.json"
        raise ValueError(
            f"{folder}: expected {either}, of ADE20K-Part-234, found neither"
        )


def categories_of(names: LabelNames) -> dict[int, CocoRecord]:
    """The objects' names as categories of a COCO file that has none."""
    categories = {}
    for number, name in enumerate(names.objects):
        categories[number] = CocoRecord({"name": name}, f"object_names[{number}]")
    return categories


def pascal_part_photos(
    folder: Path, subfolder: str, split: str, names: LabelNames, on_reject: OnReject
) -> Iterator[Photo]:
    """Yields the photos of one split of Pascal-Part-116."""
    part_maps = folder / "annotations_detectron2_part" / subfolder
    for file_name in sorted(os.listdir(part_maps)):
        if not file_name.endswith(".png"):
            continue
        if not is_utf8(file_name):
            on_reject(printable(file_name), "its name is not UTF-8")
            continue
        image_name = f"{Path(file_name).stem}.jpg"
        try:
            photo = pascal_part_photo(folder, subfolder, file_name, split, names)
        except (OSError, ValueError) as error:
            on_reject(image_name, str(error))
            continue
        usable = usable_photo(photo, on_reject)
        if usable is not None:
            yield usable


def pascal_part_photo(
    folder: Path, subfolder: str, file_name: str, split: str, names: LabelNames
) -> Photo:
    """A photo of Pascal-Part-116. Raises OSError or ValueError where a file is missing, broken or does not fit."""
    part_file = folder / "annotations_detectron2_part" / subfolder / file_name
    object_file = folder / "annotations_detectron2_obj" / subfolder / file_name
    path = folder / "images" / subfolder / f"{part_file.stem}.jpg"
    for file in (path, object_file):
        if not file.is_file():
            raise FileNotFoundError(f"{file.relative_to(folder)} does not exist")
    part_map = read_label_map(part_file, len(names.parts))
    object_map = read_label_map(object_file, len(names.objects))
    if object_map.shape != part_map.shape:
        raise ValueError(
            f"size: expected {object_map.shape[::-1]} of its object map, "
            f"found {part_map.shape[::-1]} of {part_file.relative_to(folder)}"
        )
    height, width = part_map.shape
    objects = []
    for label in np.unique(object_map[object_map >= 0]):
        category = names.objects[label]
        for box, mask in connected_regions(object_map == label):
            objects.append(object_of_maps(category, box, mask, part_map, names))
    return Photo(path.name, str(path), (width, height), tuple(objects), split)


def ade20k_part_photos(
    folder: Path, coco: CocoFile, split: str, names: LabelNames
) -> Iterator[Photo]:
    """Yields the photos of one split of ADE20K-Part-234."""
    subfolder = "training" if split == "train" else split
    for photo, records in coco.photos(folder / "images" / subfolder, split):
        part_file = folder / "annotations_detectron2_part" / subfolder / photo.id
        part_file = part_file.with_suffix(".png")
        try:
            part_map = part_map_of_size(part_file, photo.size, names)
        except (OSError, ValueError) as error:
            coco.on_reject(photo.id, str(error))
            continue
        objects = []
        for record in records:
            try:
                whole = whole_object(record, coco.category_of(record), photo.size)
            except ValueError as error:
                coco.on_reject(photo.id, str(error))
                continue
            assert whole.mask is not None
            annotated = object_of_maps(
                whole.name, whole.pixel_box, whole.mask, part_map, names
            )
            objects.append(annotated)
        usable = usable_photo(replace(photo, objects=tuple(objects)), coco.on_reject)
        if usable is not None:
            yield usable


def part_map_of_size(
    file: Path, size: tuple[int, int], names: LabelNames
) -> np.ndarray:
    """The part label map of a photo whose annotation states its size."""
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent.name}/{file.name} does not exist")
    part_map = read_label_map(file, len(names.parts))
    if part_map.shape != size[::-1]:
        raise ValueError(
            f"size: expected {size} of its annotation, "
            f"found {part_map.shape[::-1]} of {file.parent.name}/{file.name}"
        )
    return part_map


def whole_object(
    record: CocoRecord, category: CocoRecord, size: tuple[int, int]
) -> Part:
    """An annotated object of ADE20K-Part-234, with its mask."""
    try:
        mask = segmentation_mask(record.fields.get("segmentation"), size)
        return part_of_mask(category.fields["name"], mask)
    except ValueError as error:
        raise ValueError(f"{record.where}: {error}") from error


def read_label_map(file: Path, count: int) -> np.ndarray:
    """The labels of a map, int32 array of shape `(height, width)`, -1 where there is none.

    Args:
        file (`Path`)
        count (`int`): of the names that its labels are indices into.

    Raises OSError where the file is broken, ValueError for another kind of image or a label without a name.
    """
    place = f"{file.parent.name}/{file.name}"
    try:
        # indices, no colors: not as it would be displayed
        with as_unreadable(), open_file(file) as image:
            mode = image.mode
            labels = np.array(image)
    except UNREADABLE as error:
        raise OSError(f"{place} cannot be read as an image: {error}") from error
    if mode not in (*EIGHT_BIT, *SIXTEEN_BIT):
        raise misfit(place, "mode", "one channel of 8 or 16 bit", mode)
    none = 255 if mode in EIGHT_BIT else 65535
    labels = labels.astype(np.int32)
    labels[labels == none] = -1
    largest = int(labels.max())
    if largest >= count:
        expected = f"below {count}, the number of names given, or {none}"
        raise misfit(place, "label", expected, largest)
    return labels


def connected_regions(mask: np.ndarray) -> Iterator[tuple[PixelBox, np.ndarray]]:
    """Yields (x1, y1, x2, y2) and the pixels inside it, a bool array, of each region of a mask.

    Neighbors may touch at a corner.
    """
    cv2 = require_opencv()
    regions = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    count, labels, stats, _ = regions
    for number in range(1, count):  # 0 is what lies outside the mask
        x, y, width, height, _ = stats[number].tolist()
        pixels = labels[y : y + height, x : x + width] == number
        yield (x, y, x + width, y + height), pixels


def object_of_maps(
    category: str,
    box: PixelBox,
    mask: np.ndarray,
    part_map: np.ndarray,
    names: LabelNames,
) -> AnnotatedObject:
    """The [`AnnotatedObject`] whose pixels are `mask` inside `box`, with its parts in a label map."""
    x1, y1, x2, y2 = box
    labels = np.where(mask, part_map[y1:y2, x1:x2], -1)
    parts = []
    for label in np.unique(labels[labels >= 0]):
        owner, name = names.parts[label]
        if owner != category:
            continue
        for (left, top, right, bottom), pixels in connected_regions(labels == label):
            on_photo = (x1 + left, y1 + top, x1 + right, y1 + bottom)
            parts.append(Part(name, on_photo, pixels))
    return AnnotatedObject(category, box, (), tuple(parts))
