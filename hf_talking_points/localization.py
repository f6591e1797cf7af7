"""A localizer over images and texts: the one way in which reward, metric, protocol, builder and command line find
points.

A text that the localizer cannot take (empty, longer than its context, with special tokens) has no point: NaN. In
distances it counts as the farthest corner of its image ([`distances_with_misses`]).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers import pipeline

from .models.pipelines import PointLocalizationPipeline

NO_POINT = (float("nan"), float("nan"))
# from so high a confidence on
WORDS_OF_CONFIDENCE = {
    0.85: "sure",
    0.6: "fairly sure",
    0.35: "unsure",
    0.0: "guessing",
}


def locate_texts(
    localizer: PointLocalizationPipeline
    | Callable[..., Iterable[list[dict[str, Any]]]],
    requests: Iterable[tuple[Image.Image, Sequence[str]]],
    batch_size: int = 8,
    **options: Any,
) -> Iterator[list[dict[str, Any]]]:
    """Where a localizer finds texts, image after image.

    Args:
        localizer ([`PointLocalizationPipeline`]): or a callable that answers like one; without a processor it takes
            every text.
        requests (iterable of `(image, texts)`): a PIL image, or whatever else the pipeline takes, and descriptions of
            its points. They are drawn as they are needed.
        batch_size (`int`): images of one forward pass.
        options: of the pipeline, such as `return_heatmaps`.
    Yields:
        for each request a list with an answer for each text: {"description": str, "point": (x, y) in pixels,
            "confidence": float or None},
        with the keys that `options` add. The point of a text that the localizer cannot take is (NaN, NaN), its
        confidence None.
    """
    accepts = acceptance_of(localizer)
    waiting: deque[tuple[Sequence[str], list[bool]]] = deque()

    def acceptable_requests() -> Iterator[dict[str, Any]]:
        for image, texts in requests:
            accepted = [accepts(text) for text in texts]
            waiting.append((texts, accepted))
            if any(accepted):
                taken = [
                    text for text, is_accepted in zip(texts, accepted) if is_accepted
                ]
                yield {"image": image, "text": taken}

    for answers in localizer(acceptable_requests(), batch_size=batch_size, **options):
        while not any(waiting[0][1]):
            yield with_misses(*waiting.popleft(), [])
        yield with_misses(*waiting.popleft(), answers)
    while waiting:
        yield with_misses(*waiting.popleft(), [])


def acceptance_of(localizer: Any) -> Callable[[str], bool]:
    """What tells whether a localizer takes a text."""
    if hasattr(localizer, "processor"):
        return localizer.processor.accepts
    return lambda text: True


def with_misses(
    texts: Sequence[str], accepted: Sequence[bool], answers: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The answers of the accepted texts, and in between an answer without a point for each other text."""
    remaining = iter(answers)
    completed = []
    for text, is_accepted in zip(texts, accepted):
        if is_accepted:
            completed.append(next(remaining))
        else:
            completed.append(
                {"description": text, "point": NO_POINT, "confidence": None}
            )
    return completed


def confidence_in_words(confidence: float) -> str:
    """What a localizer's confidence, in [0, 1], is called: "fairly sure (72 %)".

    Of a calibrated localizer it is how many of such answers are within 0.1 of the right point. Raises ValueError for
    any other number.
    """
    if not 0 <= confidence <= 1:
        raise ValueError(f"confidence must be from 0 to 1, got {confidence}")
    words = next(
        words for lowest, words in WORDS_OF_CONFIDENCE.items() if confidence >= lowest
    )
    return f"{words} ({100 * confidence:.0f} %)"


def points_of(answers: Sequence[dict[str, Any]]) -> np.ndarray:
    """The points of answers, array of shape `(n, 2)` in pixels; rows of NaN where there is none."""
    return np.array([answer["point"] for answer in answers], dtype=np.float64).reshape(
        -1, 2
    )


def localization_pipeline(localizer: Any) -> Any:
    """A localizer that [`locate_texts`] takes.

    Args:
        localizer: path or Hub id of a checkpoint, or a loaded "point-localization" pipeline, which is returned as it
            is.

    Raises OSError where there is no such checkpoint, TypeError for anything else that cannot be called.
    """
    if isinstance(localizer, (str, os.PathLike)):
        checkpoint = os.fspath(localizer)
        try:
            return pipeline("point-localization", model=checkpoint)
        except OSError as error:
            raise OSError(
                f"localizer {checkpoint!r} is neither a checkpoint folder nor a model that the Hub gives"
            ) from error
    if not callable(localizer):
        raise TypeError(
            "localizer must be a path, a Hub id or a loaded point-localization pipeline, "
            f"got {type(localizer).__name__}"
        )
    return localizer
