"""(image, point, description) triplets for supervised training, grouped by photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .crops import Crop, crop_image, crop_photo, random_crop
from .photos import AnnotatedObject, PartPoint, Photo
from .wording import STYLES, describe_point, describe_surroundings

RULE_STYLE = "full"  # what the rule-based writer writes where it does not know a style
Owned = tuple[AnnotatedObject | None, PartPoint]


@dataclass(frozen=True)
class View:
    """A photo, or a crop of it, with its annotation in the crop's pixels.

    Args:
        photo ([`Photo`]): with the annotation of the view.
        source ([`Photo`]): the whole photo.
        crop (`tuple`, *optional*): (x1, y1, x2, y2) in whole pixels of the source.
        mirror (`bool`)
    """

    photo: Photo
    source: Photo
    crop: Crop | None = None
    mirror: bool = False

    @property
    def key(self) -> str:
        """What tells the view apart: the content of its photo, whatever its file is called, crop and mirror."""
        return f"{self.source.content_key}|{self.crop}|{self.mirror}"

    def image(self) -> Image.Image:
        """The pixels as displayed, in RGB."""
        return crop_image(self.source.open(), self.crop, self.mirror)

    def points(self) -> list[Owned]:
        """(object, point) pairs, those of points on no annotated object last and with None."""
        pairs: list[Owned] = []
        for annotated in self.photo.objects:
            pairs.extend((annotated, point) for point in annotated.points)
        pairs.extend((None, point) for point in self.photo.points)
        return pairs


def make_views(
    photos: Sequence[Photo], views_per_photo: int = 1, seed: int = 0
) -> list[View]:
    """The photos themselves and random crops of each, mirrored half the time. Views without points are left out.

    Args:
        photos (list of [`Photo`])
        views_per_photo (`int`): the photo itself and so many crops, less one.
        seed (`int`): of the crops.
    """
    views = []
    for number in range(views_per_photo):
        for index, photo in enumerate(photos):
            view = View(photo, photo)
            if number > 0:
                rng = np.random.default_rng([seed, number, index])
                crop, mirror = random_crop(photo, rng)
                view = View(crop_photo(photo, crop, mirror), photo, crop, mirror)
            if view.points():
                views.append(view)
    return views


def surrounding_point(
    photo: Photo, rng: np.random.Generator, tries: int = 20
) -> tuple[float, float] | None:
    """A random point at least a tenth of the photo away from every object's box, or None where none is found."""
    width, height = photo.size
    for _ in range(tries):
        x = rng.uniform(0, width)
        y = rng.uniform(0, height)
        if not any(is_near(x, y, annotated, photo.size) for annotated in photo.objects):
            return x, y
    return None


def is_near(
    x: float, y: float, annotated: AnnotatedObject, size: tuple[int, int]
) -> bool:
    """Whether a point lies in an object's box, or less than a tenth of the photo beside it."""
    x1, y1, x2, y2 = annotated.box
    margin_x = 0.1 * size[0]
    margin_y = 0.1 * size[1]
    return x1 - margin_x < x < x2 + margin_x and y1 - margin_y < y < y2 + margin_y


class TextChooser:
    """Descriptions of the points of one view, in the styles that are asked for.

    Args:
        photo ([`Photo`]): with the annotation of the view.
        pixels (`np.ndarray` of shape `(height, width, 3)`, uint8): of the view.
        style_weights (`dict[str, float]`, *optional*): chance of each style; the points' own texts without it.
        rng (`np.random.Generator`)
    """

    def __init__(
        self,
        photo: Photo,
        pixels: np.ndarray,
        style_weights: dict[str, float] | None,
        rng: np.random.Generator,
    ) -> None:
        self.photo = photo
        self.pixels = pixels
        self.rng = rng
        self.styles: list[str] | None = None
        if style_weights:
            self.styles = list(style_weights)
            weights = np.array(list(style_weights.values()))
            self.chances = weights / sum(weights)

    def draw(self) -> str | float:
        """What decides on the text of a point: a style, or a number in [0, 1) for one of its own texts."""
        if self.styles is None:
            return self.rng.random()
        return self.styles[self.rng.choice(len(self.styles), p=self.chances)]

    def text_of(
        self, owner: AnnotatedObject | None, point: PartPoint, drawn: str | float
    ) -> str:
        """A text that the source has, else one of the rule-based writer's."""
        texts = [text for _, text in point.texts]
        if not isinstance(drawn, str):
            if texts:
                return texts[int(drawn * len(texts))]
            return self.write(owner, point, RULE_STYLE)
        of_style = [text for style, text in point.texts if style == drawn]
        if of_style:
            return self.one_of(of_style)
        if texts and (owner is None or point.part is None):
            return self.one_of(texts)
        return self.write(owner, point, drawn)

    def one_of(self, texts: list[str]) -> str:
        """One of the texts, each as often."""
        return texts[0] if len(texts) == 1 else texts[self.rng.integers(len(texts))]

    def write(self, owner: AnnotatedObject | None, point: PartPoint, style: str) -> str:
        """A text of the rule-based writer: of object and part where both are known, else of the place alone."""
        if owner is None or point.part is None:
            return self.write_surroundings(point.x, point.y, style)
        known = style if style in STYLES else RULE_STYLE
        return describe_point(self.photo, owner, point, self.pixels, known, self.rng)

    def write_surroundings(self, x: float, y: float, style: str) -> str:
        """A text of the rule-based writer on a point beside all objects."""
        known = style if style in STYLES else RULE_STYLE
        return describe_surroundings(self.photo, x, y, self.pixels, known, self.rng)


def sample_triplets(
    view: View,
    count: int,
    rng: np.random.Generator,
    style_weights: dict[str, float] | None = None,
    surroundings: float = 0.0,
) -> tuple[list[tuple[float, float]], list[str], list[Owned | None]]:
    """Triplets of one view, each of its points once before any comes twice.

    Args:
        view ([`View`])
        count (`int`): of triplets.
        rng (`np.random.Generator`)
        style_weights (`dict[str, float]`, *optional*): chance of each style. A point's own text in the style is taken
            where its source has one, else the rule-based writer's; a style that this writer does not know becomes
            "full". Without it all texts of a point are as likely, and a point without any is described in "full".
            A point without object or part gets one of its own texts, and is described as surroundings without any.
        surroundings (`float`): chance of a point beside all objects instead of an annotated one.
    Returns:
        lists of points (x, y) in pixels of the view, of descriptions, and of (object, point) as [`View.points`] gives
        them, None for surroundings.
    """
    photo = view.photo
    chooser = TextChooser(photo, np.asarray(view.image()), style_weights, rng)
    annotated = view.points()
    order = rng.permutation(len(annotated))
    points: list[tuple[float, float]] = []
    texts: list[str] = []
    sources: list[Owned | None] = []
    for number in range(count):
        drawn = chooser.draw()
        free = surrounding_point(photo, rng) if rng.random() < surroundings else None
        if free is not None:
            style = drawn if isinstance(drawn, str) else RULE_STYLE
            points.append(free)
            texts.append(chooser.write_surroundings(*free, style))
            sources.append(None)
            continue
        owner, point = annotated[order[number % len(order)]]
        points.append((point.x, point.y))
        texts.append(chooser.text_of(owner, point, drawn))
        sources.append((owner, point))
    return points, texts, sources
