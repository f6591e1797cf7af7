"""Annotated photos: one record for every source, the readers, the split by photo, and views whose annotation moves with the pixels.

Coordinates are pixels of the photo as displayed, origin at the top-left corner of the top-left pixel, whose centre is (0.5, 0.5).

A file that does not fit its layout is a ValueError that names file, field, what was expected and what was found. A single record that
cannot be used goes to `on_reject(image_id, reason)`, and the rest is read; the default, [`reject`], raises ValueError.
"""

import hashlib
import io
import json
import math
import os
import re
import reprlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..models.images import UNREADABLE
from .names import mirrored_part, normalize_category, normalize_part
from .photos import (
    SPLITS,
    AnnotatedObject,
    Part,
    PartPoint,
    Photo,
    leave_out,
    reject,
    split_of,
    usable_photo,
)

NUMBER = (int, float)
SURROGATE = re.compile("[\ud800-\udfff]")


def misfit(where, name, expected, found):
    """The ValueError for a file that does not fit its layout."""
    return ValueError(f"{where}: field {name!r}: expected {expected}, found {reprlib.repr(found)}")


def value_of(record, name, kind, where):
    """`record[name]`, which must be a `kind`; `where` names file and record in the error."""
    if not isinstance(record, dict):
        raise ValueError(
            f"{where}: expected an object with field {name!r}, found {reprlib.repr(record)}"
        )
    expected = "a number" if kind is NUMBER else kind.__name__
    if name not in record:
        raise ValueError(f"{where}: field {name!r}: expected {expected}, found no such field")
    if not isinstance(record[name], kind):
        raise misfit(where, name, expected, record[name])
    return record[name]


def numbers_of(record, name, count, where):
    """`record[name]`, which must be a list of `count` numbers."""
    values = value_of(record, name, list, where)
    if len(values) != count or not all(isinstance(v, NUMBER) for v in values):
        raise misfit(where, name, f"a list of {count} numbers", values)
    return values


def printable(name):
    """A name with the bytes that are not UTF-8 escaped."""
    return name.encode(errors="backslashreplace").decode()


def is_utf8(name):
    """Whether a name, read with "surrogateescape", was UTF-8."""
    return SURROGATE.search(name) is None


def box_problem(box, size):
    """What is wrong with a box in a photo of `size`, or None. Publishers round: a box may stick out by up to a pixel."""
    x1, y1, x2, y2 = box
    if not (x1 < x2 and y1 < y2):
        return f"box {tuple(box)} has no area"
    if not (x1 >= -1 and y1 >= -1 and x2 <= size[0] + 1 and y2 <= size[1] + 1):
        return f"box {tuple(box)} lies outside the photo of {size[0]} x {size[1]} pixels"
    return None


def read_objects(folder, *, on_reject=reject):
    """Reads `folder/objects.jsonl`, one object a line:

        {"image": "images/a.jpg", "size": [width, height], "category": "dog", "object_box": [x1, y1, x2, y2],
         "points": [["left_eye", x, y], ["wheel", x, y, [x1, y1, x2, y2]], ...]}

    Returns a list of [`Photo`] in the file's order, split by [`split_of`] whatever other fields a line has. Points outside the photo are
    left out: nothing there can be described. Images are not looked at.
    Raises FileNotFoundError without the file, ValueError naming line and field where a line does not fit.
    """
    folder = Path(folder)
    file = folder / "objects.jsonl"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: data_dir must be a folder with an objects.jsonl and its images"
        )
    photos = {}
    with open(file, encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                width, height = row["size"]
                points = tuple(
                    PartPoint(
                        normalize_part(part, normalize_category(row["category"])),
                        float(x),
                        float(y),
                        tuple(map(float, box[0])) if box else None,
                    )
                    for part, x, y, *box in row["points"]
                    if 0 <= x <= width and 0 <= y <= height
                )
                annotated = AnnotatedObject(
                    normalize_category(row["category"]),
                    tuple(map(float, row["object_box"])),
                    points,
                )
                image_id = row["image"]
                names_fit = all(
                    map(is_utf8, (image_id, annotated.category, *(p.part for p in points)))
                )
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{file}, line {number}: {type(error).__name__}: {error}"
                ) from error
            for name, box in (
                ("object_box", annotated.box),
                *(("points", p.box) for p in points if p.box),
            ):
                if len(box) != 4:
                    raise misfit(f"{file}, line {number}", name, "x1, y1, x2, y2", box)
            if not names_fit:
                on_reject(printable(image_id), f"line {number} has a name that is not UTF-8")
                continue
            photo = photos.get(image_id) or Photo(
                image_id, str(folder / image_id), (width, height), ()
            )
            if photo.size != (width, height):
                raise misfit(
                    f"{file}, line {number}",
                    "size",
                    f"{photo.size} as in the photo's first line",
                    (width, height),
                )
            photos[image_id] = replace(photo, objects=photo.objects + (annotated,))
    return [
        photo for photo in (usable_photo(photo, on_reject) for photo in photos.values()) if photo
    ]


def read_json(file):
    """The content of a JSON file; bytes that are not UTF-8 stay in its strings as lone surrogates."""
    try:
        return json.loads(Path(file).read_text(encoding="utf-8", errors="surrogateescape"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: expected JSON, found {error}") from error


def coco_categories(content, file):
    """Category id -> category of a COCO file, each with its own place in the file as "where"."""
    categories = {}
    for number, category in enumerate(value_of(content, "categories", list, file)):
        where = f"{file}, categories[{number}]"
        if not is_utf8(value_of(category, "name", str, where)):
            raise misfit(where, "name", "UTF-8", category["name"])
        if value_of(category, "id", int, where) in categories:
            raise misfit(where, "id", "an id that no other category has", category["id"])
        categories[category["id"]] = {**category, "where": where}
    return categories


def coco_photos(content, file, categories, images, split, on_reject, by_synset=False):
    """Yields [`Photo`]s without objects, each with the list of its annotations: (where in the file, category, annotation).

    Photos that nothing is annotated on are left out, and crowd regions: they are no single object.
    """
    annotated, ids = {}, set()
    for number, annotation in enumerate(value_of(content, "annotations", list, file)):
        where = f"{file}, annotations[{number}]"
        category_id = value_of(annotation, "category_id", int, where)
        if category_id not in categories:
            raise misfit(
                where, "category_id", f"one of the {len(categories)} known ids", category_id
            )
        rows = annotated.setdefault(value_of(annotation, "image_id", int, where), [])
        if annotation.get("id") in ids:
            on_reject(
                f"image id {annotation['image_id']}",
                f"{where}: annotation id {annotation['id']} has come before",
            )
        elif not annotation.get("iscrowd"):
            rows.append((where, categories[category_id], annotation))
        if "id" in annotation:
            ids.add(annotation["id"])
    listed, names = set(), set()
    for number, record in enumerate(value_of(content, "images", list, file)):
        where = f"{file}, images[{number}]"
        image_id, name = (
            value_of(record, "id", int, where),
            value_of(record, "file_name", str, where),
        )
        size = value_of(record, "width", int, where), value_of(record, "height", int, where)
        if min(size) < 1:
            raise misfit(where, "width, height", "at least 1", size)
        path = Path(images) / name
        if by_synset and not path.is_file():
            path = Path(images) / name.partition("_")[0] / name
        if not is_utf8(name):
            on_reject(printable(name), "its name is not UTF-8")
        elif image_id in listed or name in names:
            on_reject(name, f"{where}: its id {image_id} or its name has come before")
        elif annotated.get(image_id) and not path.is_file():
            on_reject(name, f"{path} does not exist")
        elif annotated.get(image_id):
            yield Photo(name, str(path), size, (), split), annotated[image_id]
        listed.add(image_id)
        names.add(name)
    for image_id in sorted(annotated.keys() - listed):
        on_reject(f"image id {image_id}", f"{file} annotates it but does not list it")


def coco_box(annotation, where):
    """(x1, y1, x2, y2) of an annotation."""
    x, y, width, height = numbers_of(annotation, "bbox", 4, where)
    return x, y, x + width, y + height


SIDES = {"L": "left", "R": "right", "F": "front", "B": "back"}


def read_coco_keypoints(annotations, images, split=None, *, on_reject=reject):
    """Reads COCO keypoints: AP-10K, Animal-Pose in its COCO form, COCO person.

        {"images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}, ...],
         "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, y, width, height], "keypoints": [x, y, v, ...],
                          "iscrowd": 0}, ...],
         "categories": [{"id": 1, "name": "dog", "keypoints": ["left_eye", ...]}, ...]}

    A keypoint with v = 0 is not labelled. COCO counts a keypoint's pixel from 0 and measures boxes from the top-left corner of the
    photo: keypoints become the centre of their pixel (+ 0.5), boxes stay as they are. "L_F_Paw" is read as "left_front_paw".

    Args:
        annotations: the JSON file.
        images: folder that its file names are relative to.
        split (`str`, *optional*): of all its photos.
    Yields:
        [`Photo`] in the file's order.
    """
    content = read_json(annotations)
    categories = coco_categories(content, annotations)
    for category in categories.values():
        names = value_of(category, "keypoints", list, category["where"])
        if not all(isinstance(name, str) and is_utf8(name) for name in names):
            raise misfit(category["where"], "keypoints", "names in UTF-8", names)
    for photo, rows in coco_photos(content, annotations, categories, images, split, on_reject):
        objects = []
        for where, category, annotation in rows:
            names = category["keypoints"]
            values = numbers_of(annotation, "keypoints", 3 * len(names), where)
            points = tuple(
                PartPoint(
                    normalize_part(name, normalize_category(category["name"])),
                    x + 0.5,
                    y + 0.5,
                )
                for name, x, y, visibility in zip(names, values[::3], values[1::3], values[2::3])
                if visibility > 0
            )
            objects.append(
                AnnotatedObject(
                    normalize_category(category["name"]), coco_box(annotation, where), points
                )
            )
        if photo := usable_photo(replace(photo, objects=tuple(objects)), on_reject):
            yield photo


def read_coco_parts(annotations, images, split=None, *, on_reject=reject):
    """Reads COCO boxes, polygons or RLE of parts, as PartImageNet publishes them:

        train.json
            {"images": [{"id": 1, "file_name": "n02099601_3004.JPEG", "width": 500, "height": 375}, ...],
             "annotations": [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [x, y, width, height],
                              "segmentation": [[x1, y1, x2, y2, x3, y3, ...], ...]}, ...],
             "categories": [{"id": 0, "name": "Quadruped Head", "supercategory": "Quadruped"}, ...]}
        train/n02099601/n02099601_3004.JPEG

    An annotation does not say which object its part belongs to; the publisher chose photos of one object. All parts of a supercategory
    in a photo are one object here, whose box encloses them. Names lose their supercategory and capitals: the head of a quadruped.
    Boxes and polygons are measured from the top-left corner of the photo, as here. A pixel belongs to a polygon that holds its centre;
    polygons of fewer than three corners, of which PartImageNet has some, hold none. Where there is no "segmentation", the box is the part.

    Args:
        annotations: the JSON file.
        images: folder with the photos, either themselves or in folders of their synsets, the file name up to its first "_".
        split (`str`, *optional*): of all its photos.
    Yields:
        [`Photo`] in the file's order.
    """
    content = read_json(annotations)
    categories = coco_categories(content, annotations)
    for category in categories.values():
        owner = value_of(category, "supercategory", str, category["where"])
        category["part"] = category["name"].removeprefix(owner).strip().lower()
        if not category["part"] or not is_utf8(owner):
            raise misfit(
                category["where"],
                "name",
                f"the name of a part, after its supercategory {printable(owner)!r}",
                category["name"],
            )
    for photo, rows in coco_photos(
        content, annotations, categories, images, split, on_reject, by_synset=True
    ):
        parts = {}
        for where, category, annotation in rows:
            part = Part(category["part"], coco_box(annotation, where))
            if problem := box_problem(part.box, photo.size):
                on_reject(photo.id, f"{where}: {problem}")
                continue
            if "segmentation" in annotation:
                try:
                    part = part_of_mask(
                        part.name, segmentation_mask(annotation["segmentation"], photo.size)
                    )
                except ValueError as error:
                    on_reject(photo.id, f"{where}: {error}")
                    continue
            parts.setdefault(category["supercategory"].lower(), []).append(part)
        objects = tuple(
            AnnotatedObject(name, hull(some), (), tuple(some)) for name, some in parts.items()
        )
        if photo := usable_photo(replace(photo, objects=objects), on_reject):
            yield photo


def hull(parts):
    """The box around all parts."""
    x1, y1, x2, y2 = zip(*(part.box for part in parts))
    return min(x1), min(y1), max(x2), max(y2)


def part_of_mask(name, mask):
    """A [`Part`] from the mask of a whole photo; its box is the tightest."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(rows):
        raise ValueError("its segmentation covers no pixel")
    x1, y1, x2, y2 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return Part(
        name, (x1, y1, x2, y2), mask[y1:y2, x1:x2].copy()
    )  # a copy: a view would keep the whole mask in memory


def segmentation_mask(segmentation, size):
    """A COCO segmentation, polygons or run lengths, as a bool array of shape `(height, width)`; ValueError where it is malformed."""
    width, height = size
    if isinstance(segmentation, dict):
        return run_length_mask(segmentation, size)
    if not isinstance(segmentation, list):
        raise ValueError(
            f"segmentation: expected polygons or run lengths, found {reprlib.repr(segmentation)}"
        )
    mask = np.zeros((height, width), bool)
    for polygon in segmentation:
        if (
            not isinstance(polygon, list)
            or len(polygon) % 2
            or not all(isinstance(v, NUMBER) for v in polygon)
        ):
            raise ValueError(
                f"segmentation: expected polygons as lists x1, y1, x2, y2, …, found {reprlib.repr(polygon)}"
            )
        if len(polygon) >= 6:
            corners = np.array(polygon, dtype=float).reshape(-1, 2)
            if not (
                corners.min() >= -1
                and corners[:, 0].max() <= width + 1
                and corners[:, 1].max() <= height + 1
            ):
                raise ValueError(
                    f"segmentation: polygon {reprlib.repr(polygon)} lies outside the photo of {width} x {height} pixels"
                )
            mask |= polygon_mask(corners, size)
    return mask


def polygon_mask(corners, size):
    """The pixels whose centre lies in a polygon, by the even-odd rule.

    Args:
        corners (`np.ndarray` of shape `(n, 2)`): (x, y) in pixels.
    Returns:
        bool `np.ndarray` of shape `(height, width)`.
    """
    width, height = size
    crossings = np.zeros((height, width + 1), np.int32)
    for one, other in zip(corners, np.roll(corners, -1, axis=0)):
        (x1, y1), (x2, y2) = sorted(
            (one, other), key=lambda corner: (corner[1], corner[0])
        )  # an edge rounds alike in both directions
        first, last = np.clip(np.ceil(np.array([y1, y2]) - 0.5), 0, height).astype(int)
        rows = np.arange(first, last)
        if len(rows):
            x = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
            crossings[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] += 1
    return crossings.cumsum(1)[:, :width] % 2 == 1


def run_length_mask(segmentation, size):
    """COCO's run lengths, as a list or packed in a string, as a bool array of shape `(height, width)`.

    Runs of 0 and 1 alternate down the columns. In a string each run takes groups of five bits, the lowest first, one group a character:
    48 + the group, + 32 where more follow, the last group's highest bit being the sign; from the fourth run on it is the difference to
    the run before the last.
    """
    width, height = size
    if segmentation.get("size") != [height, width]:
        raise ValueError(
            f"segmentation: size: expected {[height, width]}, found {segmentation.get('size')}"
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        text, counts, value, shift = counts, [], 0, 0
        for character in text:
            group = ord(character) - 48
            if not 0 <= group < 64:
                raise ValueError(
                    f"segmentation: counts: character {character!r} is none of COCO's run lengths"
                )
            value |= (group & 31) << shift
            shift += 5
            if not group & 32:
                value -= (group & 16) << (shift - 4)
                counts.append(value + counts[-2] if len(counts) > 2 else value)
                value = shift = 0
    if (
        not isinstance(counts, list)
        or not all(isinstance(v, int) and v >= 0 for v in counts)
        or sum(counts) != width * height
    ):
        raise ValueError(
            f"segmentation: counts: expected runs of {width * height} pixels in all, found {reprlib.repr(counts)}"
        )
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def read_part_label_maps(folder, object_names, part_names, *, on_reject=reject):
    """Reads Pascal-Part-116 or ADE20K-Part-234 as the OV-PARTS release publishes them; which one, its folders tell.

        Pascal-Part-116/                                    ADE20K-Part-234/
            images/train/2008_000008.jpg                        images/training/ADE_train_00000001.jpg
            annotations_detectron2_obj/train/2008_000008.png    ade20k_instance_train.json
            annotations_detectron2_part/train/2008_000008.png   annotations_detectron2_part/training/ADE_train_00000001.png
            … val                                               … validation, ade20k_instance_val.json

    A label map holds each pixel's index in the list of names, 255 (8 bit) or 65535 (16 bit) where there is none. The release keeps the
    lists in its code (`OBJ_CLASS_NAMES` and `CLASS_NAMES` of `register_pascal_part_116.py` and `register_ade_part_234.py`), not beside the
    data; they must be given. Pascal-Part-116 has no instances: an object is a connected region of its object label map, so that objects of
    one class that touch are one, and an object cut in two by another is two. ADE20K-Part-234's JSON file is COCO's, with an object's index
    in the names as category_id and its mask as segmentation. In both a part is a connected region of its label inside its object: two
    legs are two parts. Labels of another class's parts inside an object are not its own.

    Args:
        folder: `Pascal-Part-116` or `ADE20K-Part-234`.
        object_names (`list[str]`): "aeroplane", …
        part_names (`list[str]`): "aeroplane's body", …
    Yields:
        [`Photo`]: all of train, then all of validation.
    """
    folder = Path(folder)
    for name in part_names:
        if name.partition("'s ")[0] not in object_names or not name.partition("'s ")[2]:
            raise ValueError(
                f'part_names: expected names like "dog\'s head" of objects in object_names, found {name!r}'
            )
    if (folder / "annotations_detectron2_obj").is_dir():
        for name, split in (("train", "train"), ("val", "validation")):
            yield from pascal_part_photos(folder, name, split, object_names, part_names, on_reject)
    elif (folder / "ade20k_instance_train.json").is_file():
        for short, name, split in (
            ("train", "training", "train"),
            ("val", "validation", "validation"),
        ):
            yield from ade20k_part_photos(
                folder, short, name, split, object_names, part_names, on_reject
            )
    else:
        raise ValueError(
            f"{folder}: expected annotations_detectron2_obj, of Pascal-Part-116, or ade20k_instance_train.json, of ADE20K-Part-234, "
            "found neither"
        )


def pascal_part_photos(folder, name, split, object_names, part_names, on_reject):
    for file in sorted(os.listdir(folder / "annotations_detectron2_part" / name)):
        part_file = folder / "annotations_detectron2_part" / name / file
        object_file = folder / "annotations_detectron2_obj" / name / file
        path = folder / "images" / name / f"{part_file.stem}.jpg"
        if not is_utf8(file):
            on_reject(printable(file), "its name is not UTF-8")
            continue
        if missing := [f for f in (path, object_file) if not f.is_file()]:
            on_reject(path.name, f"{missing[0]} does not exist")
            continue
        try:
            part_map, object_map = (
                read_label_map(part_file, part_names),
                read_label_map(object_file, object_names),
            )
        except OSError as error:
            on_reject(path.name, str(error))
            continue
        if object_map.shape != part_map.shape:
            on_reject(
                path.name,
                f"size: expected {object_map.shape[::-1]} of its object map, found {part_map.shape[::-1]} of {part_file}",
            )
            continue
        objects = tuple(
            object_of_maps(object_names[label], box, mask, part_map, part_names)
            for label in np.unique(object_map[object_map >= 0])
            for box, mask in connected_regions(object_map == label)
        )
        if photo := usable_photo(
            Photo(path.name, str(path), part_map.shape[::-1], objects, split), on_reject
        ):
            yield photo


def ade20k_part_photos(folder, short, name, split, object_names, part_names, on_reject):
    file = folder / f"ade20k_instance_{short}.json"
    categories = {number: {"name": object_name} for number, object_name in enumerate(object_names)}
    for photo, rows in coco_photos(
        read_json(file), file, categories, folder / "images" / name, split, on_reject
    ):
        part_file = (folder / "annotations_detectron2_part" / name / photo.id).with_suffix(".png")
        if not part_file.is_file():
            on_reject(photo.id, f"{part_file} does not exist")
            continue
        try:
            part_map = read_label_map(part_file, part_names)
        except OSError as error:
            on_reject(photo.id, str(error))
            continue
        if part_map.shape != photo.size[::-1]:
            on_reject(
                photo.id,
                f"size: expected {photo.size} of {file}, found {part_map.shape[::-1]} of {part_file}",
            )
            continue
        objects = []
        for where, category, annotation in rows:
            try:
                whole = part_of_mask(
                    category["name"], segmentation_mask(annotation.get("segmentation"), photo.size)
                )
            except ValueError as error:
                on_reject(photo.id, f"{where}: {error}")
                continue
            objects.append(object_of_maps(whole.name, whole.box, whole.mask, part_map, part_names))
        if photo := usable_photo(replace(photo, objects=tuple(objects)), on_reject):
            yield photo


def read_label_map(file, names):
    """Indices into `names`, int32 array of shape `(height, width)`, -1 where there is no label."""
    try:
        with Image.open(file) as image:
            mode, labels = image.mode, np.array(image)
    except UNREADABLE as error:
        raise OSError(f"{file} cannot be read as an image: {error}") from error
    if mode not in ("L", "P", "I", "I;16"):
        raise misfit(file, "mode", "one channel of 8 or 16 bit", mode)
    none = 255 if mode in ("L", "P") else 65535
    labels = labels.astype(np.int32)
    labels[labels == none] = -1
    if labels.max() >= len(names):
        raise misfit(
            file,
            "label",
            f"below {len(names)}, the number of names given, or {none}",
            int(labels.max()),
        )
    return labels


def connected_regions(mask):
    """Yields (x1, y1, x2, y2) and the pixels inside it, a bool array, of each region of a mask; neighbours may touch at a corner."""
    import cv2  # of the extra `data`, which the other sources do without

    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    for number in range(1, count):
        x, y, width, height = map(int, stats[number, :4])
        yield (x, y, x + width, y + height), labels[y : y + height, x : x + width] == number


def object_of_maps(category, box, mask, part_map, part_names):
    """The [`AnnotatedObject`] whose pixels are `mask` inside `box`, with all its own parts in a label map."""
    x1, y1, x2, y2 = box
    labels = np.where(mask, part_map[y1:y2, x1:x2], -1)
    parts = []
    for label in np.unique(labels[labels >= 0]):
        owner, _, part = part_names[label].partition("'s ")
        if owner == category:
            for (left, top, right, bottom), pixels in connected_regions(labels == label):
                parts.append(Part(part, (x1 + left, y1 + top, x1 + right, y1 + bottom), pixels))
    return AnnotatedObject(category, box, (), tuple(parts))


def read_dataset(dataset, split=None, *, on_reject=reject):
    """Reads a `datasets.Dataset`, in one of two forms that its columns tell apart.

    One row for each photo, with a column "objects":

        {"image": Image(), "image_id": "a.jpg", "split": "train",
         "objects": [{"category": "dog", "box": [x1, y1, x2, y2],
                      "points": [{"part": "left_eye", "x": x, "y": y, "box": [x1, y1, x2, y2]}, ...],
                      "parts": [{"name": "head", "box": [x1, y1, x2, y2]}, ...]}, ...]}

    One row for each point, as `build_dataset` writes them; a point that comes again, in another style, counts once:

        {"image": Image(), "image_id": "a.jpg", "split": "train", "object": "dog", "object_box": [x1, y1, x2, y2],
         "part": "left_eye", "point": [x, y], "part_box": [x1, y1, x2, y2], "style": "full", "description": "..."}

    "split", "points", "parts" and the box of a point may be missing or None; so may "image_id" where rows are photos: the row's number is
    the id then. Images stay in the dataset; only their headers are read.

    Args:
        dataset (`datasets.Dataset`)
        split (`str`, *optional*): of the photos whose row does not state one.
    Yields:
        [`Photo`] without a path, in the order of the rows.
    """
    import datasets  # slow to import, and the other sources do without it

    if "image" not in dataset.column_names:
        raise misfit("dataset", "image", "a column of this name", dataset.column_names)
    dataset = dataset.with_format(None)
    photos = (
        photos_of_rows(dataset) if "objects" in dataset.column_names else photos_of_points(dataset)
    )
    images = dataset.select_columns("image").cast_column("image", datasets.Image(decode=False))
    seen = set()
    for index, image_id, stated, objects in photos:
        if image_id in seen:
            on_reject(image_id, f"dataset, row {index}: its id has come before")
            continue
        seen.add(image_id)
        if images[index]["image"] is None:
            on_reject(image_id, f"dataset, row {index} has no image")
            continue
        photo = Photo(image_id, None, (), objects, stated or split, (images, index))
        try:
            with Image.open(photo.file()) as image:
                width, height = image.size
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        except UNREADABLE as error:
            on_reject(image_id, f"dataset, row {index}: its image cannot be read: {error}")
            continue
        if photo := usable_photo(
            replace(photo, size=(height, width) if turned else (width, height)), on_reject
        ):
            yield photo


def read_photos(source):
    """Photos of a folder with an `objects.jsonl`, or of a built dataset: its folder or Hub id."""
    if (Path(source) / "objects.jsonl").is_file():
        return read_objects(source)
    import datasets

    return [
        photo
        for split, rows in datasets.load_dataset(str(source)).items()
        for photo in read_dataset(rows, split)
    ]


def annotation_columns(dataset, needed, optional):
    """The dataset without other columns; reading its rows decodes no image then."""
    for name in needed:
        if name not in dataset.column_names:
            raise misfit(
                "dataset",
                name,
                "a column of this name, or a column 'objects'",
                dataset.column_names,
            )
    return dataset.select_columns(
        [*needed, *(name for name in optional if name in dataset.column_names)]
    )


def numbers_or_none(record, name, count, where):
    return None if record.get(name) is None else tuple(numbers_of(record, name, count, where))


def photos_of_rows(dataset):
    """Yields (row, image id, stated split, objects) of a dataset whose rows are photos."""
    for index, row in enumerate(annotation_columns(dataset, ("objects",), ("image_id", "split"))):
        objects = []
        for number, record in enumerate(value_of(row, "objects", list, f"dataset, row {index}")):
            where = f"dataset, row {index}, objects[{number}]"
            box = tuple(numbers_of(record, "box", 4, where))
            points = tuple(
                PartPoint(
                    normalize_part(value_of(point, "part", str, where)),
                    value_of(point, "x", NUMBER, where),
                    value_of(point, "y", NUMBER, where),
                    numbers_or_none(point, "box", 4, where),
                )
                for point in record.get("points") or ()
            )
            parts = tuple(
                Part(value_of(part, "name", str, where), tuple(numbers_of(part, "box", 4, where)))
                for part in record.get("parts") or ()
            )
            objects.append(
                AnnotatedObject(value_of(record, "category", str, where), box, points, parts)
            )
        image_id = row.get("image_id")
        yield index, str(index) if image_id is None else image_id, row.get("split"), tuple(objects)


def photos_of_points(dataset):
    """Yields (first row, image id, stated split, objects) of a dataset whose rows are points."""
    photos, optional = {}, ("part_box", "split", "style", "description", "stratum")
    for index, row in enumerate(
        annotation_columns(dataset, ("image_id", "object", "object_box", "part", "point"), optional)
    ):
        where = f"dataset, row {index}"
        owner = value_of(row, "object", str, where), tuple(numbers_of(row, "object_box", 4, where))
        point = PartPoint(
            normalize_part(value_of(row, "part", str, where)),
            *numbers_of(row, "point", 2, where),
            numbers_or_none(row, "part_box", 4, where),
            stratum=row.get("stratum") or "given",
        )
        first = photos.setdefault(
            value_of(row, "image_id", str, where), (index, row.get("split"), {})
        )
        texts = first[2].setdefault(owner, {}).setdefault(point, [])
        if row.get("description"):
            texts.append((row.get("style") or "full", row["description"]))
    for image_id, (index, stated, objects) in photos.items():
        yield (
            index,
            image_id,
            stated,
            tuple(
                AnnotatedObject(
                    category,
                    box,
                    tuple(replace(point, texts=tuple(texts)) for point, texts in points.items()),
                )
                for (category, box), points in objects.items()
            ),
        )


def view(photo, crop=None, mirror=False):
    """The photo cut to `crop` = (x1, y1, x2, y2) in whole pixels and mirrored, its annotation with it; texts, which say where things are in
    the whole photo, are dropped.

    Points outside the crop are dropped, boxes are cut to it, objects and parts of which less than a pixel is visible are dropped."""
    x1, y1, x2, y2 = crop or (0, 0, *photo.size)
    width, height = x2 - x1, y2 - y1

    def move_box(box):
        left, right = (min(max(v - x1, 0.0), width) for v in (box[0], box[2]))
        top, bottom = (min(max(v - y1, 0.0), height) for v in (box[1], box[3]))
        return (width - right, top, width - left, bottom) if mirror else (left, top, right, bottom)

    def move_part(part):
        box = move_box(part.box)
        moved = Part(mirrored_part(part.name) if mirror else part.name, box)
        if box[2] - box[0] < 1 or box[3] - box[1] < 1:
            return None
        if part.mask is None:
            return moved
        left, top, right, bottom = moved.pixel_box
        if mirror:
            left, right = width - right, width - left
        part_left, part_top, *_ = part.pixel_box
        mask = part.mask[
            top + y1 - part_top : bottom + y1 - part_top,
            left + x1 - part_left : right + x1 - part_left,
        ]
        mask = mask[:, ::-1] if mirror else mask
        return replace(moved, mask=mask) if mask.any() else None

    objects = []
    for annotated in photo.objects:
        box = move_box(annotated.box)
        if box[2] - box[0] < 1 or box[3] - box[1] < 1:
            continue
        points = tuple(
            PartPoint(
                mirrored_part(p.part) if mirror else p.part,
                width - (p.x - x1) if mirror else p.x - x1,
                p.y - y1,
                move_box(p.box) if p.box else None,
            )
            for p in annotated.points
            if x1 <= p.x <= x2 and y1 <= p.y <= y2
        )
        parts = (move_part(part) for part in annotated.parts)
        objects.append(
            AnnotatedObject(
                annotated.category, box, points, tuple(part for part in parts if part is not None)
            )
        )
    return replace(photo, size=(width, height), objects=tuple(objects))


def random_view(photo, rng, smallest=0.55):
    """(crop, mirror) with sides of `smallest` to 1 of the photo's, around one of its annotated points. `rng` is a numpy Generator."""
    width, height = photo.size
    crop_width, crop_height = (
        max(1, round(side * rng.uniform(smallest, 1))) for side in (width, height)
    )
    points = [(p.x, p.y) for o in photo.objects for p in o.points] or [(width / 2, height / 2)]
    x, y = points[rng.integers(len(points))]
    left = int(np.clip(round(x - rng.uniform(0.1, 0.9) * crop_width), 0, width - crop_width))
    top = int(np.clip(round(y - rng.uniform(0.1, 0.9) * crop_height), 0, height - crop_height))
    return (left, top, left + crop_width, top + crop_height), bool(rng.integers(2))


def view_image(image, crop=None, mirror=False):
    """The pixels that belong to [`view`]."""
    image = image.crop(crop) if crop else image
    return ImageOps.mirror(image) if mirror else image
