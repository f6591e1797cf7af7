"""Annotated photos: the `objects.jsonl` format, the split by photo, and augmented views whose annotation moves with the pixels."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PartPoint:
    """A named point in pixels; `box` is (x1, y1, x2, y2) of the part where the source knows it."""

    part: str
    x: float
    y: float
    box: tuple | None = None


@dataclass(frozen=True)
class AnnotatedObject:
    category: str
    box: tuple
    points: tuple


@dataclass(frozen=True)
class Photo:
    """One photo with all its annotated objects. `id` is the image path exactly as the annotation file has it."""

    id: str
    path: str
    size: tuple
    objects: tuple

    @property
    def split(self):
        return split_of(self.id)

    def open(self):
        return ImageOps.exif_transpose(Image.open(self.path)).convert("RGB")


def split_of(image_id):
    """ "test" | "validation" | "train" from the first byte of the SHA-1 of the image's id: about 10 %, 5 % and 85 % of the photos."""
    byte = hashlib.sha1(image_id.encode()).digest()[0]
    return "test" if byte < 26 else "validation" if byte < 39 else "train"


def read_objects(folder):
    """Reads `folder/objects.jsonl`, one object a line:

        {"image": "images/a.jpg", "size": [width, height], "category": "dog", "object_box": [x1, y1, x2, y2],
         "points": [["left_eye", x, y], ["wheel", x, y, [x1, y1, x2, y2]], ...]}

    Returns a list of [`Photo`] in the file's order. Points outside the photo are left out: nothing there can be described.
    Raises FileNotFoundError without the file, ValueError naming line and field where a line does not fit.
    """
    folder = Path(folder)
    file = folder / "objects.jsonl"
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: data_dir must be a folder with an objects.jsonl and its images")
    photos = {}
    with open(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                width, height = row["size"]
                points = tuple(
                    PartPoint(part, float(x), float(y), tuple(box[0]) if box else None)
                    for part, x, y, *box in row["points"]
                    if 0 <= x <= width and 0 <= y <= height
                )
                annotated = AnnotatedObject(row["category"], tuple(map(float, row["object_box"])), points)
                image_id = row["image"]
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{file}, line {number}: {type(error).__name__}: {error}") from error
            photo = photos.get(image_id) or Photo(image_id, str(folder / image_id), (width, height), ())
            photos[image_id] = replace(photo, objects=photo.objects + (annotated,))
    return list(photos.values())


def mirrored_part(part):
    """Mirroring an animal makes its left eye a right eye."""
    return part.replace("left", "\0").replace("right", "left").replace("\0", "right")


def view(photo, crop=None, mirror=False):
    """The photo cut to `crop` = (x1, y1, x2, y2) in whole pixels and mirrored, its annotation with it.

    Points outside the crop are dropped, boxes are cut to it, objects without a visible box are dropped."""
    x1, y1, x2, y2 = crop or (0, 0, *photo.size)
    width, height = x2 - x1, y2 - y1

    def move_box(box):
        left, right = (min(max(v - x1, 0.0), width) for v in (box[0], box[2]))
        top, bottom = (min(max(v - y1, 0.0), height) for v in (box[1], box[3]))
        return (width - right, top, width - left, bottom) if mirror else (left, top, right, bottom)

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
        objects.append(AnnotatedObject(annotated.category, box, points))
    return replace(photo, size=(width, height), objects=tuple(objects))


def random_view(photo, rng, smallest=0.55):
    """(crop, mirror) with sides of `smallest` to 1 of the photo's, around one of its annotated points. `rng` is a numpy Generator."""
    width, height = photo.size
    crop_width, crop_height = (max(1, round(side * rng.uniform(smallest, 1))) for side in (width, height))
    points = [(p.x, p.y) for o in photo.objects for p in o.points] or [(width / 2, height / 2)]
    x, y = points[rng.integers(len(points))]
    left = int(np.clip(round(x - rng.uniform(0.1, 0.9) * crop_width), 0, width - crop_width))
    top = int(np.clip(round(y - rng.uniform(0.1, 0.9) * crop_height), 0, height - crop_height))
    return (left, top, left + crop_width, top + crop_height), bool(rng.integers(2))


def view_image(image, crop=None, mirror=False):
    """The pixels that belong to [`view`]."""
    image = image.crop(crop) if crop else image
    return ImageOps.mirror(image) if mirror else image
