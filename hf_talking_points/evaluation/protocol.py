"""Descriptor through localizer: descriptions are judged by how well a panel of localizers finds their points.

[`evaluate_descriptions`] runs the whole protocol; `round_trip` says what a describer and a localizer are and asks
them, `controls` has the ground truth's texts and the controls, `scores` the numbers, `report` the pages. Answers are
cached by the model's fingerprint, the image's content, and the point or text.
"""

from __future__ import annotations

import logging
import os
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
from PIL import Image

from .. import MINI_DESCRIPTOR, MINI_LOCALIZER
from ..data.photos import SPLITS, Photo
from ..data.rows import RejectCounts, load_photos
from ..data.sources import read_dataset
from ..data.triplets import View, make_views
from ..files import only_writer, whole_file
from ..metrics import METRIC_VERSION
from ..offline import package_folder
from ..options import check_kinds
from ..words.writer import STYLES
from .answer_cache import AnswerCache
from .controls import (
    NO_TEXT,
    describable_views,
    gray_image,
    grid_phrases,
    ground_truth_texts,
    image_centers,
    other_texts,
    text_only_points,
)
from .describers import (
    CheckpointDescriber,
    CheckpointLocalizer,
    load_describer,
    load_localizer,
)
from .report import write_report
from .round_trip import (
    describe_points,
    flat,
    locate_points,
    naming_accuracy,
    true_points,
    view_distances,
)
from .scores import (
    agreement,
    claim_scores,
    claims_of_systems,
    compare_with_reference,
    image_ids,
    points_table,
    scores,
)
from .written_descriptions import WrittenDescriptions

__all__ = [
    "AnswerCache",
    "CheckpointDescriber",
    "CheckpointLocalizer",
    "EvaluationOptions",
    "WrittenDescriptions",
    "agreement",
    "describe_points",
    "evaluate_descriptions",
    "load_describer",
    "load_localizer",
    "locate_points",
    "naming_accuracy",
    "points_table",
    "scores",
    "true_points",
    "view_distances",
]

logger = logging.getLogger(__name__)

NO_LOCALIZER = "-"
Streams = (datasets.IterableDataset, datasets.IterableDatasetDict)


@dataclass
class EvaluationOptions:
    """What [`evaluate_descriptions`] evaluates.

    Args:
        dataset (one or a list): folders with an `objects.jsonl`, built datasets (folder or Hub id), or loaded datasets
            of the row format: `Dataset`, `DatasetDict`, or their streaming forms. A loaded dataset that names no split
                is taken for `split`.
        output (`str` or `os.PathLike`): folder of the report; also holds the cache, with which a run that was cut off
            goes on.
        descriptions (`list[str]`): "ground-truth", "point-descriptor:CHECKPOINT", "vlm:MODEL", "jsonl:FILE".
        localizers (`list[str]`): checkpoints, or "vlm:CONVENTION:MODEL".
        styles (`list[str]`): of the ground truth; the first one is what all else is compared with.
        split (`str`): "test", "validation" or "train".
        controls (`bool`): also what the words alone give away, and what the picture alone.
        max_photos (`int`, *optional*): the first photos of the split; all of them if None.
        seed (`int`)
    """

    dataset: Any
    output: str | os.PathLike
    descriptions: list[str] = field(
        default_factory=lambda: ["ground-truth", f"point-descriptor:{MINI_DESCRIPTOR}"]
    )
    localizers: list[str] = field(default_factory=lambda: [MINI_LOCALIZER])
    styles: list[str] = field(
        default_factory=lambda: [
            "full",
            "terse",
            "unseen",
            "colloquial",
            "no_position",
            "no_part",
        ]
    )
    split: str = "test"
    controls: bool = True
    max_photos: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds(self)
        if not isinstance(self.dataset, (list, tuple)):
            self.dataset = [self.dataset]
        for name in ("dataset", "descriptions", "localizers", "styles"):
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one entry")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {self.split!r}")
        if self.max_photos is not None and self.max_photos < 1:
            raise ValueError(
                f"max_photos must be positive or None, got {self.max_photos}"
            )


@dataclass
class System:
    """Texts for all points, and what the localizers are shown with them.

    Args:
        name (`str`): in reports.
        texts (list of list of `str`): a list for each view.
        control (`bool`): whether it is there to show what words or picture alone give away.
        image (function): view -> what is shown of it.
    """

    name: str
    texts: list[list[str]]
    control: bool = False
    image: Callable[[View], Image.Image] = View.image


@dataclass
class Answers:
    """Where a system's points were found.

    Args:
        system, localizer (`str`): names; "-" where no localizer was asked.
        control (`bool`): of the system.
        texts (list of `str`): one for each point.
        found (array of shape `(n, 2)`): in pixels, NaN where there was no answer.
    """

    system: str
    localizer: str
    control: bool
    texts: list[str]
    found: np.ndarray


def evaluate_descriptions(options: EvaluationOptions) -> dict[str, Any]:
    """Runs the protocol: every source of descriptions through every localizer, with controls.

    Writes `report.json`, `report.md`, plots, pictures and `samples.parquet` (a row for each system, localizer and
    point) to `options.output`.

    Args:
        options ([`EvaluationOptions`])
    Returns:
        `dict`: the content of `report.json`.

    The points of a run are those that can be described in all of its styles, [`is_describable`].

    Raises ValueError where no annotated point is left in the split, with the reasons; BlockingIOError where another
    run writes to the folder.
    """
    # the plots come last: what they need is looked for first
    package_folder("matplotlib", extra="evaluation")
    describers = [
        load_describer(spec) for spec in options.descriptions if spec != "ground-truth"
    ]
    localizers = [load_localizer(spec) for spec in options.localizers]
    check_names(describers)
    check_names(localizers)
    photos, views = photos_and_views(options)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    with only_writer(output):
        return run_protocol(options, describers, localizers, photos, views)


def run_protocol(
    options: EvaluationOptions,
    describers: Sequence[Any],
    localizers: Sequence[Any],
    photos: Sequence[Photo],
    views: Sequence[View],
) -> dict[str, Any]:
    """[`evaluate_descriptions`] with what it has loaded, in a folder that nobody else writes to."""
    output = Path(options.output)
    truth = ground_truth_systems(views, options)
    reference = truth[0]
    with closing(AnswerCache(output / "answers.sqlite")) as cache:
        systems = truth if "ground-truth" in options.descriptions else []
        systems = systems + described_systems(describers, views, photos, cache)
        if options.controls:
            systems = systems + control_systems(reference, views, options.seed)
        answers = located(systems, localizers, views, cache)
        seconds = mean_seconds(describers, localizers, cache)
    if options.controls:
        train_photos = [photo for photo in photos if photo.split == "train"]
        answers += answers_without_localizer(
            reference, views, make_views(train_photos), options
        )

    points = points_table(views)
    rows, samples = judged(answers, points, views)
    compare_with_reference(rows, samples, reference.name, localizers[0].name)
    report = {
        **run_of(options),
        "photos": len(views),
        "points": len(points),
        "reference": reference.name,
        "fingerprints": {
            model.name: model.fingerprint for model in [*describers, *localizers]
        },
        "rows": rows,
        "agreement": agreement(rows),
        "seconds": seconds,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    all_samples = pd.concat(samples.values(), ignore_index=True)
    with whole_file(output / "samples.parquet") as file:
        all_samples.to_parquet(file)
    write_report(report, all_samples, dict(zip(image_ids(views), views)), output)
    return report


def run_of(options: EvaluationOptions) -> dict[str, Any]:
    """What a report says of how it was made."""
    return {
        "metric_version": METRIC_VERSION,
        "dataset": [dataset_title(source) for source in options.dataset],
        "split": options.split,
        "styles": options.styles,
        "max_photos": options.max_photos,
        "seed": options.seed,
    }


def check_names(models: Sequence[Any]) -> None:
    """Raises ValueError where two models have one name."""
    names = Counter(model.name for model in models)
    for name, count in names.items():
        if count > 1:
            raise ValueError(
                f"several models are called {name!r}, which reports could not tell apart: "
                "give their folders other names"
            )


def dataset_title(source: Any) -> str:
    """What reports call a dataset."""
    return Path(source).name if isinstance(source, (str, Path)) else "rows"


def photos_of_datasets(
    options: EvaluationOptions, rejected: RejectCounts
) -> list[Photo]:
    """The photos of all splits of all datasets."""
    stored: list[Any] = []
    photos: list[Photo] = []
    for source in options.dataset:
        if isinstance(source, Streams):
            streams = source if isinstance(source, dict) else {options.split: source}
            for split, rows in streams.items():
                photos.extend(read_dataset(rows, split, on_reject=rejected))
        elif isinstance(source, datasets.Dataset) and source.split is None:
            stored.append(datasets.DatasetDict({options.split: source}))
        else:
            stored.append(source)
    if stored:
        photos = [*load_photos(stored, rejected), *photos]
    return photos


def photos_and_views(options: EvaluationOptions) -> tuple[list[Photo], list[View]]:
    """(the photos of all splits, the views to be evaluated).

    Raises ValueError where there is none, with the reasons."""
    rejected = RejectCounts()
    photos = photos_of_datasets(options, rejected)
    reasons = rejected.lines()
    for reason in reasons:
        logger.warning("left out %s", reason)
    in_split = [photo for photo in photos if photo.split == options.split]
    all_views = make_views(in_split)
    views = describable_views(all_views, options.styles)[: options.max_photos]
    if all_views and not views:
        raise ValueError(
            f"no point of the split {options.split!r} can be described in all of the styles {list(options.styles)}: "
            f"sources have texts in {styles_of_views(all_views)}, the rule-based writer's are {list(STYLES)}"
        )
    if not views:
        names = ", ".join(dataset_title(source) for source in options.dataset)
        splits = Counter(photo.split for photo in photos)
        found = ", ".join(
            f"{count} photos in {split}" for split, count in splits.items()
        )
        raise ValueError(
            f"{names}: no annotated point in the split {options.split!r}; found "
            + "; ".join([found or "no photo", *reasons])
        )
    return photos, views


def styles_of_views(views: Sequence[View]) -> list[str]:
    """The styles of the texts that points have of their own."""
    styles: set[str] = set()
    for view in views:
        for _, point in view.points():
            styles.update(style for style, _ in point.texts)
    return sorted(styles)


def ground_truth_systems(
    views: Sequence[View], options: EvaluationOptions
) -> list[System]:
    """A system for each style of the ground truth."""
    systems = []
    for style in options.styles:
        texts = ground_truth_texts(views, style, options.seed)
        systems.append(System(f"ground truth, {style}", texts))
    return systems


def described_systems(
    describers: Sequence[Any],
    views: Sequence[View],
    photos: Sequence[Photo],
    cache: AnswerCache,
) -> list[System]:
    """A system for each describer and each file of descriptions."""
    systems = []
    for describer in describers:
        if isinstance(describer, WrittenDescriptions):
            texts = describer.of(views, photos)
        else:
            texts = describe_points(describer, views, cache)
        systems.append(System(describer.name, texts))
    return systems


def control_systems(
    reference: System, views: Sequence[View], seed: int
) -> list[System]:
    """The controls that localizers are asked about."""
    no_text = [[NO_TEXT] * len(row) for row in reference.texts]
    dealt_out = other_texts(reference.texts, seed)
    return [
        System(
            f"{reference.name}, gray picture",
            reference.texts,
            control=True,
            image=gray_image,
        ),
        System("no text", no_text, control=True),
        System(f"{reference.name}, of another point", dealt_out, control=True),
        System("grid phrases", grid_phrases(views), control=True),
    ]


def located(
    systems: Sequence[System],
    localizers: Sequence[Any],
    views: Sequence[View],
    cache: AnswerCache,
) -> list[Answers]:
    """Every system's texts through every localizer."""
    answers = []
    for localizer in localizers:
        for system in systems:
            found = locate_points(
                localizer,
                views,
                system.texts,
                cache,
                system.image,
                label=f"<- {system.name}",
            )
            answers.append(
                Answers(
                    system.name,
                    localizer.name,
                    system.control,
                    flat(system.texts),
                    found,
                )
            )
    return answers


def mean_seconds(
    describers: Sequence[Any], localizers: Sequence[Any], cache: AnswerCache
) -> dict[str, float]:
    """What a description and a localization of each model that was asked took."""
    seconds = {}
    for what, models in (("a description", describers), ("a localization", localizers)):
        for model in models:
            taken = cache.seconds.get(model.fingerprint)
            if taken:
                seconds[f"{model.name}: {what}"] = float(np.mean(taken))
    return seconds


def answers_without_localizer(
    reference: System,
    views: Sequence[View],
    train_views: Sequence[View],
    options: EvaluationOptions,
) -> list[Answers]:
    """The controls that need no localizer: the image's center, and what a predictor that reads only the words makes of
    the reference's texts, where there are train photos to fit it on."""
    texts = flat(reference.texts)
    centers = image_centers(views)
    answers = [Answers("image center", NO_LOCALIZER, True, [""] * len(texts), centers)]
    if not train_views:
        logger.warning(
            "no text-only predictor: the train split, which it is fitted on, is empty"
        )
        return answers
    found = text_only_points(texts, views, train_views, options.styles[0], options.seed)
    name = f"{reference.name}, text-only predictor"
    answers.append(Answers(name, NO_LOCALIZER, True, texts, found))
    return answers


def judged(
    answers: Sequence[Answers], points: pd.DataFrame, views: Sequence[View]
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], pd.DataFrame]]:
    """(the rows of the report, (system, localizer) -> its rows of `samples.parquet`)."""
    rows = []
    samples = {}
    texts = {answer.system: answer.texts for answer in answers}
    claims = claims_of_systems(views, texts)
    for answer in answers:
        numbers, distances = scores(answer.found, points)
        row = {
            "system": answer.system,
            "localizer": answer.localizer,
            "control": answer.control,
            **numbers,
        }
        if not answer.control:
            row["naming"] = naming_accuracy(views, answer.texts)
        false = claim_scores(answer.texts, claims[answer.system], points.image_id)
        if false is not None:
            row["false_claims"] = false
        rows.append(row)
        samples[answer.system, answer.localizer] = points.assign(
            system=answer.system,
            localizer=answer.localizer,
            description=answer.texts,
            false_claims=claims[answer.system],
            distance=distances,
            found_x=answer.found[:, 0],
            found_y=answer.found[:, 1],
            metric_version=METRIC_VERSION,
        )
    return rows, samples
