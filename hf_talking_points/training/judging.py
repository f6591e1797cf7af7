"""How well a localizer finds what a descriptor says while it is trained; the processes of a run share the work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import Pipeline

from ..data.triplets import View
from ..evaluation.round_trip import (
    describe_points,
    flat,
    locate_points,
    naming_accuracy,
    view_distances,
)
from ..metrics import summary

Answers = tuple[int, list[str], np.ndarray]


def judged_descriptions(
    describe: Pipeline,
    locate: Pipeline,
    views: Sequence[View],
    batch_size: int,
    in_step: bool = False,
    show_progress: bool = True,
) -> dict[str, float]:
    """How well the points of views are found by their descriptions, and how often these name object and part.

    Each process describes and locates the points of its share of the views, and has the scores of all afterwards.

    Args:
        describe, locate: loaded pipelines on the device of this process.
        views (list of [`View`])
        batch_size (`int`): images of one forward pass.
        in_step (`bool`): whether every process needs as many passes, as it does where they share one model's weights.
        show_progress (`bool`)
    """
    indexed = list(enumerate(views))
    with PartialState().split_between_processes(indexed, in_step) as share:
        mine = answers_to(describe, locate, share, batch_size, show_progress)
    answers = {}
    for index, texts, found in gather_object(mine):
        answers[index] = (texts, found)
    texts = [answers[index][0] for index in range(len(views))]
    found = np.concatenate([answers[index][1] for index in range(len(views))])
    return {
        **summary(view_distances(views, found)),
        **naming_accuracy(views, flat(texts)),
    }


def answers_to(
    describe: Pipeline,
    locate: Pipeline,
    share: Sequence[tuple[int, View]],
    batch_size: int,
    show_progress: bool,
) -> list[Answers]:
    """(index, descriptions, points found) of each view of a share."""
    if not share:
        return []
    views = [view for _, view in share]
    texts = describe_points(
        describe, views, batch_size=batch_size, show_progress=show_progress
    )
    found = locate_points(
        locate, views, texts, batch_size=batch_size, show_progress=show_progress
    )
    ends = np.cumsum([len(row) for row in texts])
    rows = np.split(found, ends[:-1])
    indices = [index for index, _ in share]
    return list(zip(indices, texts, rows))
