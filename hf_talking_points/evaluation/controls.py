"""Texts and pictures of the protocol: what the ground truth says, and controls that show what words or picture alone
give away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
from PIL import Image

from ..data.photos import AnnotatedObject, PartPoint
from ..data.triplets import View
from ..words.facts import Scene, position
from ..words.writer import WORD_LIMITS, describe_point
from .round_trip import flat, true_points
from .text_only import TextOnlyPredictor

NO_TEXT = "A point in the image."


def ground_truth_texts(
    views: Sequence[View], style: str, seed: int = 0
) -> list[list[str]]:
    """The texts of the points themselves in `style` where their source has them, else the rule-based writer's: a list
    for each view.

    Raises ValueError naming photo and point of which neither is to be had.
    """
    texts = []
    for index, view in enumerate(views):
        rng = np.random.default_rng([seed, index])
        scene = cache(partial(scene_of, view))
        row = []
        for annotated, point in view.points():
            text = dict(point.texts).get(style)
            if not text:
                text = written_text(scene(), annotated, point, style, rng)
            row.append(text)
        texts.append(row)
    return texts


def scene_of(view: View) -> Scene:
    """What the words see of a view."""
    return Scene(view.photo, np.asarray(view.image()))


def describable_views(views: Sequence[View], styles: Sequence[str]) -> list[View]:
    """The views with those of their points that can be described in every style, [`is_describable`], without views
    that have none.

    Args:
        views (list of [`View`])
        styles (list of `str`)
    """
    chosen = [replace(view, styles=tuple(styles)) for view in views]
    return [view for view in chosen if view.points()]


def written_text(
    scene: Scene,
    annotated: AnnotatedObject | None,
    point: PartPoint,
    style: str,
    rng: np.random.Generator,
) -> str:
    """The rule-based writer's text. Raises ValueError naming photo and point where it cannot write one."""
    where = f"{scene.photo.id}, point ({point.x:g}, {point.y:g})"
    if annotated is None and style not in WORD_LIMITS:
        known = [name for name, _ in point.texts]
        raise ValueError(
            f"{where} has no text in style {style!r} and lies on no object that one could be written from: "
            f"its styles are {known}"
        )
    try:
        return describe_point(scene, annotated, point, style, rng)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def grid_phrases(views: Sequence[View]) -> list[list[str]]:
    """The place of each point in the image in the five words for each axis, nothing else."""
    texts = []
    for view in views:
        width, height = view.photo.size
        row = []
        for _, point in view.points():
            row.append(f"{position(point.x / width, point.y / height)} of the image")
        texts.append(row)
    return texts


def other_texts(texts: Sequence[Sequence[str]], seed: int = 0) -> list[list[str]]:
    """The texts dealt out anew among all points."""
    all_texts = flat(texts)
    dealt = iter(np.random.default_rng(seed).permutation(len(all_texts)))
    rows = []
    for row in texts:
        rows.append([all_texts[next(dealt)] for _ in row])
    return rows


def gray_image(view: View) -> Image.Image:
    """A gray picture of the size of the view's."""
    return Image.new("RGB", view.photo.size, (127, 127, 127))


def image_centers(views: Sequence[View]) -> np.ndarray:
    """The center of its image for each point, array of shape `(n, 2)` in pixels."""
    _, sizes = true_points(views)
    return sizes / 2


def text_only_points(
    texts: Sequence[str],
    views: Sequence[View],
    train_views: Sequence[View],
    style: str,
    seed: int,
) -> np.ndarray:
    """Where a [`TextOnlyPredictor`] that was fitted on the train texts puts texts, without a look at the picture.

    Args:
        texts (list of `str`): one for each point of the views.
        views, train_views (lists of [`View`]): of the train views those points are used that have such a text.
        style (`str`): of the train texts.
        seed (`int`)
    Returns:
        array of shape `(n, 2)` in pixels.
    """
    train_views = describable_views(train_views, [style])
    train_points, train_sizes = true_points(train_views)
    train_texts = flat(ground_truth_texts(train_views, style, seed))
    predictor = TextOnlyPredictor(seed=seed).fit(
        train_texts, train_points / train_sizes
    )
    _, sizes = true_points(views)
    return predictor.predict(texts) * sizes
