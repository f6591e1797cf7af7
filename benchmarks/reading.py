r"""How well a localizer reads texts, the writer's own and others', beside what picture and words alone give away.

    python benchmarks/reading.py --animals DATA/animalpose_voc_256 \
        --others DATA/clothing DATA/coco_mini DATA/cub_birds --output reading --split test

For each group of folders and each style: mPCK and PCK@0.05 with their intervals, what is left of the mPCK with a gray
picture, with the text of another point, and for a predictor that sees no picture; and how far the confidence is the
probability of a point within 0.1. Writes `reading.json`, `reliability.png` and `answers.parquet`, a row for each text.

Last comes what one text of a photo costs, and eight of them, on one core.

In the writer's styles some points of each photo are read, of those that object and part alone tell apart.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm
from transformers import HfArgumentParser, Pipeline, pipeline

import hf_talking_points
from hf_talking_points.checkpoints import model_version
from hf_talking_points.data.photos import Photo
from hf_talking_points.data.rows import load_photos
from hf_talking_points.data.triplets import View, make_views
from hf_talking_points.evaluation.controls import (
    describable_views,
    gray_image,
    ground_truth_texts,
    other_texts,
    text_only_points,
)
from hf_talking_points.evaluation.report import reading_table
from hf_talking_points.evaluation.round_trip import flat, true_points
from hf_talking_points.evaluation.scores import image_ids, name_pair
from hf_talking_points.localization import locate_texts, points_of
from hf_talking_points.metrics import distances_with_misses, score_points, summary
from hf_talking_points.training.calibration import RADIUS, expected_calibration_error
from hf_talking_points.visualization import plot_reliability
from hf_talking_points.words.writer import STYLES

TIMED_TEXTS = 8


@dataclass
class Arguments:
    animals: list[str] = field(
        metadata={"help": "folders with named points, read in all styles"}
    )
    output: str = field(metadata={"help": "folder of table, answers and plot"})
    others: list[str] = field(
        default_factory=list, metadata={"help": "folders read in the styles of others"}
    )
    localizer: str = hf_talking_points.MINI_LOCALIZER
    styles: list[str] = field(
        default_factory=lambda: ["rich", "short"], metadata={"help": "of others"}
    )
    writers_styles: list[str] = field(
        default_factory=lambda: [
            "full",
            "unseen",
            "terse",
            "colloquial",
            "no_position",
            "no_part",
        ],
        metadata={"help": "of the rule-based writer"},
    )
    points_per_photo: int = field(
        default=4, metadata={"help": "in the writer's styles"}
    )
    split: str = field(default="validation", metadata={"help": "that is read"})
    seed: int = 0


@dataclass
class Located:
    """Where a localizer found texts: pixels `(n, 2)`, and confidences `(n,)`; NaN and 0 for texts that it cannot
    take."""

    points: np.ndarray
    confidence: np.ndarray


def located(
    localizer: Pipeline,
    views: Sequence[View],
    texts: Sequence[Sequence[str]],
    image: Callable[[View], Image.Image] = View.image,
    title: str = "",
) -> Located:
    """Where the localizer finds the texts of each view."""
    requests = ((image(view), row) for view, row in zip(views, texts))
    points = []
    confidences = []
    answered = locate_texts(localizer, requests)
    for answers in tqdm(answered, total=len(views), desc=title, mininterval=10):
        points.append(points_of(answers))
        confidences.extend(answer["confidence"] for answer in answers)
    found = np.concatenate(points)
    confidence = np.array(confidences, dtype=float)
    is_miss = np.isnan(found).any(axis=1)
    return Located(found, np.where(is_miss, 0.0, confidence))


def asked_points(
    views: Sequence[View], count: int | None, seed: int
) -> list[np.ndarray]:
    """Which points of each view are asked for, bool arrays: all of them, or with a count at most so many of those that
    no other point of the photo shares object and part with."""
    masks = []
    for index, view in enumerate(views):
        names = [name_pair(*pair) for pair in view.points()]
        mask = np.full(len(names), count is None)
        if count is not None:
            single = [
                number for number, name in enumerate(names) if names.count(name) == 1
            ]
            shuffled = np.random.default_rng([seed, index]).permutation(single)
            mask[shuffled[:count].astype(int)] = True
        masks.append(mask)
    return masks


def mpck(found: np.ndarray, true: np.ndarray, sizes: np.ndarray) -> float:
    """mPCK in percent, in which a point that is NaN is missed."""
    return summary(distances_with_misses(found, true, sizes))["mpck"]


def error_by_chance(confidence: torch.Tensor, seed: int, draws: int = 200) -> float:
    """The calibration error that so few answers would have by chance, if each confidence were the probability."""
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for _ in range(draws):
        is_hit = torch.rand(confidence.shape, generator=generator) < confidence
        errors.append(expected_calibration_error(confidence, is_hit))
    return float(np.mean(errors))


def median_seconds(call: Callable[[], Any], repeats: int = 9) -> float:
    """How long a call takes."""
    call()  # the first one is slower
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


@torch.inference_mode()
def seconds_on_one_core(
    localizer: Pipeline, image: Image.Image, texts: Sequence[str]
) -> dict[str, float]:
    """Seconds of a photo's encoding alone, and of the whole pipeline with one text and with all of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pixels = localizer.processor(image, list(texts))["pixel_values"]
    seconds = {
        "encoding": median_seconds(lambda: localizer.model.get_image_features(pixels))
    }
    for count in (1, len(texts)):
        asked = {"image": image, "text": list(texts[:count])}
        seconds[f"with {count}"] = median_seconds(partial(localizer, asked))
    torch.set_num_threads(threads)
    return seconds


def read_style(
    localizer: Pipeline,
    photos: Sequence[Photo],
    style: str,
    args: Arguments,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """(numbers, answers) of the points that can be described in a style, of photos of all splits."""
    all_views = make_views([photo for photo in photos if photo.split == args.split])
    train_views = make_views([photo for photo in photos if photo.split == "train"])
    views = describable_views(all_views, [style])
    count = args.points_per_photo if style in STYLES else None
    masks = asked_points(views, count, args.seed)
    mask = np.concatenate(masks)
    all_texts = ground_truth_texts(views, style, args.seed)
    texts = [list(compress(row, chosen)) for row, chosen in zip(all_texts, masks)]
    true, sizes = (values[mask] for values in true_points(views))
    ids = []
    for image_id, chosen in zip(image_ids(views), masks):
        ids.extend([image_id] * int(chosen.sum()))

    found = located(localizer, views, texts, title=style)
    gray = located(localizer, views, texts, gray_image, f"{style}, gray picture")
    dealt_out = other_texts(texts, args.seed)
    other = located(localizer, views, dealt_out, title=f"{style}, of another point")
    blind = text_only_points(flat(all_texts), views, train_views, style, args.seed)

    distances = distances_with_misses(found.points, true, sizes)
    confidence = torch.tensor(found.confidence)
    scored = score_points(found.points, true, sizes, ids)
    numbers = {
        "style": style,
        "n": len(true),
        "photos": len(set(ids)),
        "mpck": scored["mpck"],
        "pck@0.05": scored["pck@0.05"],
        "ci95": {key: list(scored["ci95"][key]) for key in ("mpck", "pck@0.05")},
        "gray_picture": mpck(gray.points, true, sizes),
        "of_another_point": mpck(other.points, true, sizes),
        "text_only": mpck(blind[mask], true, sizes),
        "calibration_error": expected_calibration_error(
            confidence, torch.tensor(distances < RADIUS)
        ),
        "calibration_error_by_chance": error_by_chance(confidence, args.seed),
        "confidence": found.confidence.mean(),
        "confidence_of_another_point": other.confidence.mean(),
    }
    answers = pd.DataFrame(
        {
            "style": style,
            "image_id": ids,
            "text": flat(texts),
            "x": true[:, 0],
            "y": true[:, 1],
            "found_x": found.points[:, 0],
            "found_y": found.points[:, 1],
            "confidence": found.confidence,
            "distance": distances,
        }
    )
    return numbers, answers


def main() -> None:
    args = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    localizer = pipeline("point-localization", model=args.localizer)
    if localizer.model.config.head != "heatmap":
        raise ValueError(
            f"{args.localizer} has head {localizer.model.config.head!r}, which gives no confidence: take a heat map"
        )
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    groups = {"animals": (args.animals, [*args.writers_styles, *args.styles])}
    if args.others:
        groups["other things"] = (args.others, args.styles)
    rows = []
    frames = []
    for group, (folders, styles) in groups.items():
        photos = load_photos(folders)
        for style in styles:
            numbers, answers = read_style(localizer, photos, style, args)
            rows.append({"group": group, **numbers})
            frames.append(answers.assign(group=group))
            print(reading_table(rows[-1:]), flush=True)
    answers = pd.concat(frames, ignore_index=True)
    photo = next(photo for photo in photos if photo.split == args.split)
    timed = answers["text"].sample(TIMED_TEXTS, random_state=args.seed)
    seconds = seconds_on_one_core(localizer, photo.open(), timed.tolist())
    report = {
        "fingerprints": {Path(args.localizer).name: model_version(args.localizer)},
        "split": args.split,
        "rows": rows,
        "seconds_on_one_core": seconds,
    }
    (output / "reading.json").write_text(json.dumps(report, indent=2) + "\n")
    answers.to_parquet(output / "answers.parquet")
    # one curve for all styles of the writer: more than eight could not be told apart
    texts = answers["style"].where(~answers["style"].isin(STYLES), "the writer's")
    curves = {}
    for name, of_curve in answers.groupby([answers["group"], texts], sort=False):
        curves[", ".join(name)] = (of_curve.confidence, of_curve.distance < RADIUS)
    plot_reliability(curves, output / "reliability.png")
    print(reading_table(rows))
    costs = ", ".join(f"{name} {value:.3f}" for name, value in seconds.items())
    print(f"seconds on one core for texts of a photo: {costs}")


if __name__ == "__main__":
    main()
