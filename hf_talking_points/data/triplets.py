"""(image, point, description) triplets for supervised training, grouped by photo."""

from dataclasses import dataclass

import numpy as np

from .sources import random_view, view, view_image
from .wording import STYLES, describe_point, describe_surroundings


@dataclass(frozen=True)
class View:
    """A photo, or a crop of it, with its annotation in the crop's pixels."""

    photo: object
    source: object
    crop: tuple | None = None
    mirror: bool = False

    @property
    def key(self):
        return f"{self.source.id}|{self.crop}|{self.mirror}"

    def image(self):
        return view_image(self.source.open(), self.crop, self.mirror)

    def points(self):
        return [
            (annotated, point) for annotated in self.photo.objects for point in annotated.points
        ]


def make_views(photos, views_per_photo=1, seed=0):
    """The photos themselves and `views_per_photo - 1` random crops of each, mirrored half the time. Views without points are left out."""
    views = []
    for number in range(views_per_photo):
        for index, photo in enumerate(photos):
            if number == 0:
                candidate = View(photo, photo)
            else:
                crop, mirror = random_view(photo, np.random.default_rng([seed, number, index]))
                candidate = View(view(photo, crop, mirror), photo, crop, mirror)
            if candidate.points():
                views.append(candidate)
    return views


def surrounding_point(photo, rng, tries=20):
    """A random point at least a tenth of the photo away from every object's box, or None where there is none to be found."""
    width, height = photo.size
    margin_x, margin_y = 0.1 * width, 0.1 * height
    for _ in range(tries):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        inside = (
            o.box[0] - margin_x < x < o.box[2] + margin_x
            and o.box[1] - margin_y < y < o.box[3] + margin_y
            for o in photo.objects
        )
        if not any(inside):
            return x, y
    return None


def sample_triplets(chosen, count, rng, style_weights=None, surroundings=0.0):
    """`count` triplets of one view: lists of points (x, y), of descriptions, and of (object, part point), None for surroundings.

    A point's own text in the style is taken where its source has one, else the rule-based writer's; a style that this writer does not
    know then becomes "full".

    Args:
        chosen ([`View`])
        style_weights (`dict[str, float]`, *optional*): chance of each style; full only without it.
        surroundings (`float`): chance of a point beside all objects instead of an annotated one.
    """
    photo, pixels = chosen.photo, np.asarray(chosen.image())
    styles, weights = zip(*(style_weights or {"full": 1.0}).items())
    weights = np.array(weights) / sum(weights)
    annotated = chosen.points()
    order = rng.permutation(len(annotated))
    points, texts, sources = [], [], []
    for i in range(count):
        style = styles[rng.choice(len(styles), p=weights)]
        free = surrounding_point(photo, rng) if rng.random() < surroundings else None
        if free is not None:
            points.append(free)
            texts.append(
                describe_surroundings(
                    photo, *free, pixels, style if style in STYLES else "full", rng
                )
            )
            sources.append(None)
        else:
            owner, point = annotated[order[i % len(order)]]
            points.append((point.x, point.y))
            own = dict(point.texts).get(style)
            texts.append(
                own
                or describe_point(
                    photo, owner, point, pixels, style if style in STYLES else "full", rng
                )
            )
            sources.append((owner, point))
    return points, texts, sources
