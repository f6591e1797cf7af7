"""(image, point, description) triplets for supervised training, grouped by photo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle

import numpy as np
from PIL import Image

from ..words.facts import Scene
from ..words.writer import STYLES, WORD_LIMITS, describe_point
from .crops import (
    NEARLY_ALL,
    Crop,
    crop_image,
    crop_photo,
    random_crop,
    shows_nearly_all,
)
from .moved_texts import is_about_frame
from .photos import AnnotatedObject, PartPoint, Photo

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
        styles (`tuple` of `str`, *optional*): only points that can be described in all of them are its points; the
            others stay in the annotation.
    """

    photo: Photo
    source: Photo
    crop: Crop | None = None
    mirror: bool = False
    styles: tuple[str, ...] | None = None

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
        if self.styles is None:
            return pairs
        return [pair for pair in pairs if is_describable(*pair, self.styles)]


def is_describable(
    annotated: AnnotatedObject | None, point: PartPoint, styles: Sequence[str]
) -> bool:
    """Whether a point can be described in every one of the styles.

    That is where its source has a text in that style. The rule-based writer's styles describe the points of annotated
    parts, and "free" and "brief" also those that have a text in another one of the styles.
    """
    own_styles = {style for style, _ in point.texts}
    has_part = annotated is not None and point.part is not None
    is_told = not own_styles.isdisjoint(styles)
    for style in styles:
        is_written = style in STYLES and has_part
        is_free = style in WORD_LIMITS and is_told
        if not (style in own_styles or is_written or is_free):
            return False
    return True


def make_views(
    photos: Sequence[Photo], views_per_photo: int = 1, seed: int = 0
) -> list[View]:
    """The photos themselves and random crops of each, [`crop_view`]. Views without points are left out.

    Args:
        photos (list of [`Photo`])
        views_per_photo (`int`): the photo itself and so many crops, less one.
        seed (`int`): of the crops.
    """
    views = []
    for number in range(views_per_photo):
        for index, photo in enumerate(photos):
            view = make_view(photo, number, index, seed)
            if view.points():
                views.append(view)
    return views


def make_view(photo: Photo, number: int, index: int, seed: int) -> View:
    """The view with a number, 0 for the whole photo, of the photo that comes at an index."""
    if number == 0:
        return View(photo, photo)
    return crop_view(photo, np.random.default_rng([seed, number, index]))


def crop_view(photo: Photo, rng: np.random.Generator) -> View:
    """A random crop of a photo, mirrored half the time, with those of its texts that are true of it, [`crop_photo`].

    Half of the crops show nearly all of the photo. A point comes along where one of its texts does, where it can be
    described anew, or where it had no text.
    """
    if rng.integers(2):
        crop, mirror = random_crop(photo, rng, smallest=NEARLY_ALL)
    else:
        crop, mirror = random_crop(photo, rng)
    kept = photo if shows_nearly_all(crop, photo.size) else describable_on_crops(photo)
    return View(crop_photo(kept, crop, mirror), photo, crop, mirror)


def describable_on_crops(photo: Photo) -> Photo:
    """A photo with those of its points that have a part, no text, or one that stays true of a crop."""
    objects = []
    for annotated in photo.objects:
        named = [point for point in annotated.points if point.part is not None]
        nameless = [point for point in annotated.points if point.part is None]
        points = (*named, *told_on_crops(nameless))
        objects.append(replace(annotated, points=points))
    return replace(photo, objects=tuple(objects), points=told_on_crops(photo.points))


def told_on_crops(points: Sequence[PartPoint]) -> tuple[PartPoint, ...]:
    """Those of points that have no text, or one that stays true of a crop."""
    return tuple(point for point in points if not is_only_on_photo(point))


def has_text_about_frame(point: PartPoint) -> bool:
    """Whether a text of a point does not hold on crops."""
    return any(is_about_frame(text) for _, text in point.texts)


def is_only_on_photo(point: PartPoint) -> bool:
    """Whether a point has texts, and each of them says where it is in the whole photo."""
    about_frame = [is_about_frame(text) for _, text in point.texts]
    return bool(about_frame) and all(about_frame)


@dataclass
class TextCount:
    """Whose words the points of views are described in, a text for each point and style.

    Args:
        described (`int`): points of whole photos that the dataset describes, in whatever style.
        own (`int`): texts of the dataset, also on crops where they stay true.
        on_crops (`int`): of other points on crops, which the rule-based writer describes anew.
        without_text (`int`): of points on whole photos that the dataset does not describe in that style.
        only_on_photos (`int`): points that come on no smaller crop, because nothing but their own text describes them.
    """

    described: int = 0
    own: int = 0
    on_crops: int = 0
    without_text: int = 0
    only_on_photos: int = 0

    @property
    def total(self) -> int:
        return self.own + self.on_crops + self.without_text


def count_texts(
    views: Sequence[View], style_weights: dict[str, float] | None
) -> TextCount:
    """Counts the texts of views; `style_weights` as in [`sample_triplets`]."""
    styles: list[str | None] = [None]
    if style_weights:
        styles = [style for style, weight in style_weights.items() if weight > 0]
    count = TextCount()
    for view in views:
        for owner, point in view.points():
            is_nameless = owner is None or point.part is None
            if point.texts and view.crop is None:
                count.described += 1
                count.only_on_photos += is_nameless and is_only_on_photo(point)
            for style in styles:
                if has_own_text(point, style, is_nameless):
                    count.own += 1
                elif view.crop is not None:
                    count.on_crops += 1
                else:
                    count.without_text += 1
    return count


def has_own_text(point: PartPoint, style: str | None, is_nameless: bool) -> bool:
    """Whether a point gets one of its own texts in a style; of all styles for None."""
    if style is None or is_nameless and style not in WORD_LIMITS:
        return bool(point.texts)
    return any(style == own_style for own_style, _ in point.texts)


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
        image (function): gives the pixels of the view. It is called once, where the rule-based writer has to look.
        style_weights (`dict[str, float]`, *optional*): chance of each style; the points' own texts without it.
        rng (`np.random.Generator`)
    """

    def __init__(
        self,
        photo: Photo,
        image: Callable[[], Image.Image],
        style_weights: dict[str, float] | None,
        rng: np.random.Generator,
    ) -> None:
        self.scene = cache(lambda: Scene(photo, np.asarray(image())))
        self.rng = rng
        self.styles: list[str] | None = None
        if style_weights:
            possible = possible_styles(photo, style_weights)
            self.styles = list(possible)
            weights = np.array(list(possible.values()))
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
        is_nameless = owner is None or point.part is None
        if texts and is_nameless and drawn not in WORD_LIMITS:
            return self.one_of(texts)
        return self.write(owner, point, drawn)

    def one_of(self, texts: list[str]) -> str:
        """One of the texts, each as often."""
        return texts[0] if len(texts) == 1 else texts[self.rng.integers(len(texts))]

    def write(self, owner: AnnotatedObject | None, point: PartPoint, style: str) -> str:
        """A text of the rule-based writer, in "full" where it does not know the style."""
        known = style if style in STYLES else RULE_STYLE
        return describe_point(self.scene(), owner, point, known, self.rng)


def possible_styles(photo: Photo, style_weights: dict[str, float]) -> dict[str, float]:
    """Those styles that the rule-based writer knows, or a point of a photo has a text in; all where that leaves none
    that is ever drawn."""
    owned = [point for annotated in photo.objects for point in annotated.points]
    told = {style for point in [*owned, *photo.points] for style, _ in point.texts}
    possible = {
        style: weight
        for style, weight in style_weights.items()
        if style in STYLES or style in told
    }
    return possible if sum(possible.values()) > 0 else style_weights


def told_in(points: Sequence[Owned], style: str | float) -> list[Owned]:
    """Those of points that have a text in a style which the rule-based writer does not know; none for its own."""
    if style in STYLES:
        return []
    return [pair for pair in points if style in dict(pair[1].texts)]


def sample_triplets(
    view: View,
    count: int,
    rng: np.random.Generator,
    style_weights: dict[str, float] | None = None,
    surroundings: float = 0.0,
    image: Callable[[], Image.Image] | None = None,
) -> tuple[list[tuple[float, float]], list[str], list[Owned | None]]:
    """Triplets of one view, each of its points once before any comes twice.

    Args:
        view ([`View`])
        count (`int`): of triplets.
        rng (`np.random.Generator`)
        style_weights (`dict[str, float]`, *optional*): chance of each style. A point's own text in the style is taken
            where its source has one, else the rule-based writer's. A style that this writer does not know is drawn
            where a point of the view has a text in it, and for such a point; where all styles are such and no point
            has one, it becomes "full". Without weights all texts of a point are as likely, and a point without any is
            described in "full". A point without object or part gets one of its own texts, but in "free" and "brief",
            which tell any point from its surroundings; without texts the rule-based writer says what is left.
        surroundings (`float`): chance of a point beside all objects instead of an annotated one.
        image (function, *optional*): gives the pixels of the view, by default [`View.image`]. Called at most once.
    Returns:
        lists of points (x, y) in pixels of the view, of descriptions, and of (object, point) as [`View.points`] gives
        them, None for surroundings.
    """
    photo = view.photo
    chooser = TextChooser(photo, image or view.image, style_weights, rng)
    annotated = view.points()
    shuffled = [annotated[index] for index in rng.permutation(len(annotated))]
    everything = cycle(shuffled)
    of_style: dict[str | float, Iterator[Owned]] = {}
    points: list[tuple[float, float]] = []
    texts: list[str] = []
    sources: list[Owned | None] = []
    for _ in range(count):
        drawn = chooser.draw()
        free = surrounding_point(photo, rng) if rng.random() < surroundings else None
        if free is not None:
            style = drawn if isinstance(drawn, str) else RULE_STYLE
            points.append(free)
            texts.append(chooser.write(None, PartPoint(None, *free), style))
            sources.append(None)
            continue
        if drawn not in of_style:
            told = told_in(shuffled, drawn)
            of_style[drawn] = cycle(told) if told else everything
        owner, point = next(of_style[drawn])
        points.append((point.x, point.y))
        texts.append(chooser.text_of(owner, point, drawn))
        sources.append((owner, point))
    return points, texts, sources
