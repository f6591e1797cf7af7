"""Descriptions from a file, as people or other programs write them."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..data.json_lines import read_json_lines
from ..data.photos import Photo
from ..data.texts import TextLine, called, parse_text_line
from ..data.triplets import View

logger = logging.getLogger(__name__)

LAYOUT = '{"image": id, "point": [x, y], "description": text}'
# image, x, y; pixels to two places, as programs write them
Place = tuple[str, float, float]


class WrittenDescriptions:
    """Descriptions from a JSON Lines file of {"image": id, "point": [x, y], "description": text}.

    Args:
        file (`str` or `Path`)
    Attributes:
        texts (`dict`): (image, x, y) -> description, as the file has them.

    Raises ValueError naming the line for another layout, for a point that is no finite (x, y), and for a second, other
    description of one point.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = file
        self.name = Path(file).stem
        self.fingerprint = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        self.texts: dict[Place, str] = {}
        for number, line in read_json_lines(file):
            try:
                written = parse_text_line(line)
                description = only_text(written)
            except ValueError as error:
                raise ValueError(
                    f"{file}, line {number}: expected {LAYOUT}, found {line[:80]!r}: {error}"
                ) from error
            image, x, y = written.image, written.x, written.y
            place = key_of_point(image, x, y)
            if self.texts.setdefault(place, description) != description:
                raise ValueError(
                    f"{file}, line {number}: describes point ({x:g}, {y:g}) of {image!r} "
                    "for a second time, in other words"
                )

    def of(self, views: Sequence[View], photos: Sequence[Photo]) -> list[list[str]]:
        """Texts of the points of views, "" where the file has none.

        An image of the file is the photo of that id, else the one whose id ends with it behind a slash. Texts that
        belong to no point of the photos are counted in a warning.

        Args:
            views (list of [`View`])
            photos (list of [`Photo`]): all of the dataset, of whichever split.
        Returns:
            a list for each view with a text for each of its points.

        Raises ValueError naming an image of the file that may be one of several photos.
        """
        texts = self._texts_of_photos(photos)
        texts_of_views = []
        for view in views:
            row = []
            for _, point in view.points():
                row.append(
                    texts.get(key_of_point(view.source.id, point.x, point.y), "")
                )
            texts_of_views.append(row)
        return texts_of_views

    def _texts_of_photos(self, photos: Sequence[Photo]) -> dict[Place, str]:
        """The texts by the ids of the photos that their images are."""
        names = dict.fromkeys(image for image, _, _ in self.texts)
        photos_of_name = {}
        for name, found in photos_called(names, photos).items():
            photos_of_name[name] = self._photos_called(name, found)
        annotated = annotated_places(photos)
        texts: dict[Place, str] = {}
        unused = []
        for (image, x, y), description in self.texts.items():
            places = [key_of_point(photo.id, x, y) for photo in photos_of_name[image]]
            for place in places:
                texts[place] = description
            if not annotated.intersection(places):
                unused.append((image, x, y))
        if unused:
            image, x, y = unused[0]
            logger.warning(
                "%s: %d of %d descriptions are of no annotated point of the dataset, such as that of (%g, %g) in %r",
                self.file,
                len(unused),
                len(self.texts),
                x,
                y,
                image,
            )
        return texts

    def _photos_called(self, name: str, photos: list[Photo]) -> list[Photo]:
        """The photos that a name of the file stands for: several only where they are one by their content."""
        if len(photos) > 1 and len({photo.content_key for photo in photos}) > 1:
            ids = ", ".join(sorted(repr(photo.id) for photo in photos))
            raise ValueError(
                f"{self.file}: image {name!r} may be any of several photos, {ids}: "
                "write the id of the one that is meant"
            )
        return photos


def key_of_point(image: str, x: float, y: float) -> Place:
    return image, round(x, 2), round(y, 2)


def only_text(line: TextLine) -> str:
    """The text of a line. Raises ValueError where it has several, in styles of their own."""
    if len(line.texts) > 1:
        styles = [style for style, _ in line.texts]
        raise ValueError(f"texts in several styles {styles}: write a file for each")
    return line.texts[0][1]


def photos_called(
    names: Iterable[str], photos: Sequence[Photo]
) -> dict[str, list[Photo]]:
    """Name -> the photos that it may stand for, as [`called`] finds their ids."""
    by_id: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        by_id[photo.id].append(photo)
    found = {}
    for name, ids in called(names, by_id).items():
        found[name] = [photo for image_id in ids for photo in by_id[image_id]]
    return found


def annotated_places(photos: Sequence[Photo]) -> set[Place]:
    """Where photos have an annotated point."""
    places = set()
    for photo in photos:
        points = list(photo.points)
        for annotated in photo.objects:
            points.extend(annotated.points)
        for point in points:
            places.add(key_of_point(photo.id, point.x, point.y))
    return places
