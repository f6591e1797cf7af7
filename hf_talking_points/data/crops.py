"""Crops of photos, mirrored or not, whose annotation moves with the pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps

from .moved_texts import moved_texts
from .names import mirrored_part
from .photos import AnnotatedObject, Box, Part, PartPoint, Photo

Crop = tuple[int, int, int, int]
LEAST = 1  # pixels of an object or part, in each direction, that a crop must show of it
NEARLY_ALL = (
    0.92  # of each side: where things are in such a crop, they are in the photo
)


@dataclass(frozen=True)
class _Frame:
    """Where a crop lies on its photo, in whole pixels, whether it is mirrored, and whether it shows nearly all."""

    left: int
    top: int
    width: int
    height: int
    mirror: bool
    is_nearly_whole: bool

    def name(self, part: str | None) -> str | None:
        """The name of a part in the crop."""
        return mirrored_part(part) if part and self.mirror else part

    def holds(self, point: PartPoint) -> bool:
        """Whether a point of the photo lies on the crop."""
        right = self.left + self.width
        bottom = self.top + self.height
        return self.left <= point.x <= right and self.top <= point.y <= bottom

    def column(self, x: float) -> float:
        """The nearest x of the crop before it is mirrored."""
        return min(max(x - self.left, 0.0), self.width)

    def row(self, y: float) -> float:
        """The nearest y of the crop."""
        return min(max(y - self.top, 0.0), self.height)

    def box(self, box: Box) -> Box:
        """What the crop shows of a box, in its own pixels; without area where it shows nothing."""
        x1, y1, x2, y2 = box
        left = self.column(x1)
        right = self.column(x2)
        if self.mirror:
            left, right = self.width - right, self.width - left
        return left, self.row(y1), right, self.row(y2)

    def point(self, point: PartPoint) -> PartPoint:
        """A point in the crop's pixels, with those of its texts that are true of the crop."""
        x = point.x - self.left
        return PartPoint(
            part=self.name(point.part),
            x=self.width - x if self.mirror else x,
            y=point.y - self.top,
            box=None if point.box is None else self.box(point.box),
            texts=moved_texts(point.texts, self.is_nearly_whole, self.mirror),
        )

    def points(self, points: tuple[PartPoint, ...]) -> tuple[PartPoint, ...]:
        """Those of the points that lie on the crop."""
        return tuple(self.point(point) for point in points if self.holds(point))

    def mask(self, mask: np.ndarray, part: Part, shown: Part) -> np.ndarray:
        """What the crop shows of a part's mask, for the pixels of `shown.pixel_box`."""
        left, top, right, bottom = shown.pixel_box
        if self.mirror:
            left, right = self.width - right, self.width - left
        mask_left, mask_top, _, _ = part.pixel_box
        # from pixels of the crop to those of the mask
        right_by = self.left - mask_left
        down_by = self.top - mask_top
        rows = slice(top + down_by, bottom + down_by)
        columns = slice(left + right_by, right + right_by)
        visible = mask[rows, columns]
        return visible[:, ::-1] if self.mirror else visible

    def part(self, part: Part) -> Part | None:
        """A part in the crop's pixels; None where too little of it is seen."""
        shown = Part(self.name(part.name) or part.name, self.box(part.box))
        if is_too_small(shown.box):
            return None
        if part.mask is None:
            return shown
        mask = self.mask(part.mask, part, shown)
        return replace(shown, mask=mask) if mask.any() else None

    def object(self, annotated: AnnotatedObject) -> AnnotatedObject | None:
        """An object in the crop's pixels; None where too little of it is seen."""
        box = self.box(annotated.box)
        if is_too_small(box):
            return None
        parts = []
        for part in annotated.parts:
            shown = self.part(part)
            if shown is not None:
                parts.append(shown)
        points = self.points(annotated.points)
        return AnnotatedObject(annotated.category, box, points, tuple(parts))


def is_too_small(box: Box) -> bool:
    """Whether less than a pixel is left of a box."""
    return box[2] - box[0] < LEAST or box[3] - box[1] < LEAST


def shows_nearly_all(crop: Crop, size: tuple[int, int]) -> bool:
    """Whether a crop takes so little off a photo of a size that what is said of its corners and sides stays true."""
    x1, y1, x2, y2 = crop
    width, height = size
    return x2 - x1 >= NEARLY_ALL * width and y2 - y1 >= NEARLY_ALL * height


def crop_photo(photo: Photo, crop: Crop | None = None, mirror: bool = False) -> Photo:
    """The annotation of a photo that is cut out and mirrored.

    Left and right swap in the texts of a mirrored photo. Texts that say where things are in the whole photo are
    dropped, [`is_about_frame`], unless nearly all of it is left; what the others name may lie outside the crop. Points
    outside the crop are dropped, and so are objects and parts of which less than a pixel is visible. Boxes are cut to
    the crop.

    Args:
        photo ([`Photo`])
        crop (`tuple`, *optional*): (x1, y1, x2, y2) in whole pixels; the whole photo without it.
        mirror (`bool`)
    Returns:
        [`Photo`] in the pixels of [`crop_image`].
    """
    x1, y1, x2, y2 = crop or (0, 0, *photo.size)
    is_nearly_whole = crop is None or shows_nearly_all(crop, photo.size)
    frame = _Frame(x1, y1, x2 - x1, y2 - y1, mirror, is_nearly_whole)
    objects = []
    for annotated in photo.objects:
        shown = frame.object(annotated)
        if shown is not None:
            objects.append(shown)
    return replace(
        photo,
        size=(frame.width, frame.height),
        objects=tuple(objects),
        points=frame.points(photo.points),
    )


def crop_image(
    image: Image.Image, crop: Crop | None = None, mirror: bool = False
) -> Image.Image:
    """The pixels that belong to [`crop_photo`]."""
    if crop is not None:
        image = image.crop(crop)
    return ImageOps.mirror(image) if mirror else image


def random_crop(
    photo: Photo, rng: np.random.Generator, smallest: float = 0.55
) -> tuple[Crop, bool]:
    """A crop around one of the annotated points, or around the center of a photo without any.

    Args:
        photo ([`Photo`])
        rng (`np.random.Generator`)
        smallest (`float`): the crop's sides are `smallest` to 1 of the photo's.
    Returns:
        (crop, mirror), as [`crop_photo`] takes them.
    """
    width, height = photo.size
    crop_width = max(1, round(width * rng.uniform(smallest, 1)))
    crop_height = max(1, round(height * rng.uniform(smallest, 1)))
    points = [point for annotated in photo.objects for point in annotated.points]
    places = [(point.x, point.y) for point in [*points, *photo.points]]
    if not places:
        places = [(width / 2, height / 2)]
    x, y = places[rng.integers(len(places))]
    left = round(x - rng.uniform(0.1, 0.9) * crop_width)
    left = min(max(left, 0), width - crop_width)
    top = round(y - rng.uniform(0.1, 0.9) * crop_height)
    top = min(max(top, 0), height - crop_height)
    mirror = bool(rng.integers(2))
    return (left, top, left + crop_width, top + crop_height), mirror
