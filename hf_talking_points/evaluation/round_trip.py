"""From points to texts and back: describers and localizers over the annotated points of photos.

A *describer* is called with `(image, points)` and returns a text for each (x, y), a *localizer* with `(image, texts)`
and returns an array of shape `(len(texts), 2)`, with rows of NaN where it has no answer; points are pixels of the PIL
RGB image. Both have a `name` for reports and a `fingerprint`, a string that changes when their answers may. Loaded
pipelines take either place where no answers are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm
from transformers import Pipeline

from ..data.names import names_it
from ..data.triplets import View
from ..localization import locate_texts, points_of
from ..metrics import distances_with_misses
from .answer_cache import AnswerCache

Point = tuple[float, float]


class Describer(Protocol):
    name: str
    fingerprint: str

    def __call__(
        self, image: Image.Image, points: Sequence[Point]
    ) -> Sequence[str]: ...


class Localizer(Protocol):
    name: str
    fingerprint: str

    def __call__(self, image: Image.Image, texts: Sequence[str]) -> np.ndarray: ...


def describe_points(
    describer: Describer | Pipeline,
    views: Sequence[View],
    cache: AnswerCache | None = None,
    batch_size: int = 8,
    show_progress: bool = True,
) -> list[list[str]]:
    """Descriptions of every annotated point.

    Args:
        describer: of the protocol, or a loaded "point-description" pipeline.
        views (list of [`View`])
        cache ([`AnswerCache`], *optional*): holds the answers that are known; not for a pipeline, which has no
            fingerprint.
        batch_size (`int`): images of one forward pass of a pipeline.
        show_progress (`bool`): whether a bar counts the views.
    Returns:
        a list for each view with a text for each of its points.
    """
    name = name_of(describer, cache)
    if isinstance(describer, Pipeline):
        answers = describe_with_pipeline(describer, views, batch_size)
    else:
        answers = describe_view_by_view(describer, views, cache)
    label = f"Describing: {name}"
    bar = tqdm(answers, total=len(views), desc=label, disable=not show_progress)
    return list(bar)


def describe_with_pipeline(
    pipe: Pipeline, views: Sequence[View], batch_size: int
) -> Iterator[list[str]]:
    def requests():
        for view in views:
            yield {"image": view.image(), "points": places(view)}

    described = pipe(requests(), batch_size=batch_size, num_return_sequences=1)
    for answers in described:
        yield [answer["description"] for answer in answers]


def describe_view_by_view(
    describer: Describer, views: Sequence[View], cache: AnswerCache | None
) -> Iterator[list[str]]:
    for view in views:
        yield list(answers_to(describer, view.image(), places(view), cache))


def locate_points(
    localizer: Localizer | Pipeline,
    views: Sequence[View],
    texts: Sequence[Sequence[str]],
    cache: AnswerCache | None = None,
    image: Callable[[View], Image.Image] = View.image,
    batch_size: int = 8,
    label: str = "",
    show_progress: bool = True,
) -> np.ndarray:
    """Where a localizer finds the texts of points.

    Args:
        localizer: of the protocol, or a loaded "point-localization" pipeline.
        views (list of [`View`])
        texts (list of list of `str`): a list for each view.
        cache ([`AnswerCache`], *optional*): holds the answers that are known; not for a pipeline, which has no
            fingerprint.
        image (function): what the localizer is shown of a view.
        batch_size (`int`): images of one forward pass of a pipeline.
        label (`str`): of the progress bar, behind the localizer's name.
        show_progress (`bool`): whether a bar counts the views.
    Returns:
        array of shape `(n, 2)` in pixels, in the order of the texts; NaN for an empty text, which is not asked for,
        and for one without an answer.
    """
    name = name_of(localizer, cache)
    found: Iterator[np.ndarray]
    if isinstance(localizer, Pipeline):
        requests = ((image(view), row) for view, row in zip(views, texts))
        found = map(points_of, locate_texts(localizer, requests, batch_size))
    else:
        found = locate_view_by_view(localizer, views, texts, cache, image)
    label = f"Localizing: {name} {label}".rstrip()
    progress = tqdm(found, total=len(views), desc=label, disable=not show_progress)
    return np.concatenate(list(progress))


def locate_view_by_view(
    localizer: Localizer,
    views: Sequence[View],
    texts: Sequence[Sequence[str]],
    cache: AnswerCache | None,
    image: Callable[[View], Image.Image],
) -> Iterator[np.ndarray]:
    """Points `(len(row), 2)` for the texts of one view after the other."""
    for view, row in zip(views, texts):
        points = np.full((len(row), 2), np.nan)
        asked = [index for index, text in enumerate(row) if text.strip()]
        questions = [row[index] for index in asked]
        if questions:
            points[asked] = answers_to(localizer, image(view), questions, cache)
        yield points


def answers_to(
    model: Any, image: Image.Image, questions: Sequence, cache: AnswerCache | None
) -> Sequence:
    """The answers of a describer or localizer to questions about one image."""
    if cache is None:
        return model(image, questions)
    return cache.answers(model, image, questions)


def name_of(model: Describer | Localizer | Pipeline, cache: AnswerCache | None) -> str:
    """What a progress bar calls a model. Raises ValueError for a pipeline with a cache."""
    if not isinstance(model, Pipeline):
        return model.name
    if cache is not None:
        raise ValueError(
            "a loaded pipeline has no fingerprint to keep answers by: give its checkpoint to "
            "CheckpointDescriber or CheckpointLocalizer, or no cache"
        )
    return model.task or type(model).__name__


def places(view: View) -> list[Point]:
    """(x, y) of each point of a view, in pixels."""
    return [(point.x, point.y) for _, point in view.points()]


def true_points(views: Sequence[View]) -> tuple[np.ndarray, np.ndarray]:
    """Points and image sizes, two arrays of shape `(n, 2)` in pixels with a row for every annotated point."""
    points = []
    sizes = []
    for view in views:
        for place in places(view):
            points.append(place)
            sizes.append(view.photo.size)
    return np.array(points), np.array(sizes)


def view_distances(views: Sequence[View], found: np.ndarray) -> np.ndarray:
    """Normalized distances `(n,)` of found points (in the order of [`true_points`]) to the true ones; a miss counts as
    the farthest corner."""
    points, sizes = true_points(views)
    return distances_with_misses(found, points, sizes)


def naming_accuracy(
    views: Sequence[View], descriptions: Sequence[str]
) -> dict[str, float]:
    """How many descriptions name what they describe.

    Args:
        views (list of [`View`])
        descriptions (list of `str`): one for each point of the views.
    Returns:
        {"category": float, "part": float}: of the points whose object, or part, has a name, the share in percent whose
        description holds it; NaN where there is no such point.
    """
    named_objects = []
    named_parts = []
    annotated_points = [pair for view in views for pair in view.points()]
    for text, (annotated, point) in zip(descriptions, annotated_points):
        if annotated is not None:
            named_objects.append(names_it(text, annotated.category))
        if point.part is not None:
            named_parts.append(names_it(text, point.part))
    return {"category": percentage(named_objects), "part": percentage(named_parts)}


def percentage(hits: Sequence[bool]) -> float:
    """Share of hits in percent; NaN of none."""
    return 100.0 * float(np.mean(hits)) if hits else float("nan")


def flat(rows: Sequence[Sequence[str]]) -> list[str]:
    """The texts of all views in one list."""
    return [text for row in rows for text in row]
