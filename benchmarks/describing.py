r"""Whether a descriptor's texts are true, are found again, and differ from each other.

    python benchmarks/describing.py --named DATA/animalpose_voc_256 DATA/cars_256 \
        --unknown DATA/grocery DATA/clothing --held_out bowl boat elephant --output describing --split test

Groups of points: annotated parts, pixels anywhere in the same photos, pixels anywhere in photos of things that the
descriptor was not trained on, and the points that others described, also in their own words. For each: the share of
texts that say something which annotation or pixels contradict; the share of colors, textures, objects, parts and sides
that are right; the share of texts that name a thing or a part which the photo is not known to show; how well a
localizer finds the texts; and how much they repeat each other. Besides, how much of the spots' colors a linear map,
fitted on points of the train split, reads from the point tokens. Writes `describing.json` and `texts.parquet`, a row
for each text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import HfArgumentParser, Pipeline, pipeline

import hf_talking_points
from hf_talking_points.checkpoints import model_version
from hf_talking_points.data.photos import PartPoint, Photo
from hf_talking_points.data.rows import load_photos
from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.triplets import Owned, View
from hf_talking_points.evaluation.report import describing_table
from hf_talking_points.evaluation.round_trip import (
    describe_points,
    flat,
    locate_points,
    true_points,
)
from hf_talking_points.metrics import (
    clustered_interval,
    distances_with_misses,
    distinct_n,
    score_points,
)
from hf_talking_points.words.claims import (
    CONFIRMED,
    CONTRADICTED,
    OPEN,
    Claim,
    check_claims,
    false_claims,
)
from hf_talking_points.words.facts import Scene
from hf_talking_points.words.lexicon import color_names
from hf_talking_points.words.looks import ranked_colors, spot_colors
from hf_talking_points.words.mentions import COLOR, MarkedText
from hf_talking_points.words.writer import skeleton

# kinds of claims of which the share is reported that is right
JUDGED = ("color", "texture", "object", "part", "side")
PROBED_PHOTOS = 500  # about so many of the train split
OTHERS_STYLE = "rich"  # of the texts that others wrote


@dataclass
class Arguments:
    named: list[str] = field(metadata={"help": "folders with named points"})
    output: str = field(metadata={"help": "folder of numbers and texts"})
    unknown: list[str] = field(
        default_factory=list,
        metadata={"help": "folders of things that were kept out of training"},
    )
    held_out: list[str] = field(
        default_factory=list,
        metadata={"help": "categories that were kept out of training"},
    )
    descriptor: str = hf_talking_points.MINI_DESCRIPTOR
    localizer: str = hf_talking_points.MINI_LOCALIZER
    style: str | None = field(
        default=None, metadata={"help": "that is asked for, such as short"}
    )
    points_per_photo: int = field(default=4, metadata={"help": "of each group"})
    split: str = field(default="validation", metadata={"help": "of the photos"})
    seed: int = 0


@dataclass
class Asked:
    """A photo, and the points of it that are described.

    Args:
        photo ([`Photo`]): with its whole annotation.
        points (list): (object of the photo or None, point).
    """

    photo: Photo
    points: list[Owned]

    @property
    def view(self) -> View:
        """The photo with these points alone."""
        points = tuple(point for _, point in self.points)
        photo = replace(self.photo, objects=(), points=points)
        return View(photo, self.photo)


def named_points(photo: Photo, count: int, rng: np.random.Generator) -> Asked:
    """Some of the points that have a part."""
    owned: list[Owned] = []
    for annotated in photo.objects:
        named = [point for point in annotated.points if point.part is not None]
        owned.extend((annotated, point) for point in named)
    return Asked(photo, [owned[index] for index in rng.permutation(len(owned))[:count]])


def points_anywhere(photo: Photo, count: int, rng: np.random.Generator) -> Asked:
    """Points that are drawn uniformly, of which nobody knows on what they are."""
    points: list[Owned] = []
    for x, y in rng.uniform(size=(count, 2)) * photo.size:
        points.append((None, PartPoint(None, float(x), float(y))))
    return Asked(photo, points)


def told_points(photo: Photo, count: int, rng: np.random.Generator) -> Asked:
    """Some of the points that others described."""
    told: list[Owned] = []
    for annotated in photo.objects:
        told.extend((annotated, point) for point in annotated.points)
    told.extend((None, point) for point in photo.points)
    told = [owned for owned in told if OTHERS_STYLE in dict(owned[1].texts)]
    return Asked(photo, [told[index] for index in rng.permutation(len(told))[:count]])


def shows_one_of(photo: Photo, categories: Sequence[str]) -> bool:
    """Whether a photo is annotated with one of the categories."""
    shown = {*photo.classes, *(annotated.category for annotated in photo.objects)}
    return not shown.isdisjoint(categories)


def colors_of(asked: Sequence[Asked]) -> np.ndarray:
    """The colors of all points, CIELAB, `(points, 3)`."""
    colors = []
    for of_photo in asked:
        places = [(point.x, point.y) for _, point in of_photo.points]
        colors.append(spot_colors(np.asarray(of_photo.photo.open()), places))
    return np.concatenate(colors)


@torch.no_grad()
def point_tokens(describe: Pipeline, asked: Sequence[Asked]) -> np.ndarray:
    """What the language model gets of each point, `(points, hidden)`."""
    model = describe.model
    tokens = []
    for of_photo in asked:
        places = [(point.x, point.y) for _, point in of_photo.points]
        inputs = describe.processor(of_photo.photo.open(), points=places)
        image = model.get_image_features(
            inputs["pixel_values"].to(model.device, model.dtype),
            inputs["input_points"].to(model.device),
        )
        tokens.append(image.point_embeds.float().cpu().numpy())
    return np.concatenate(tokens)


def read_colors(
    describe: Pipeline, train: Sequence[Asked], asked: Sequence[Asked]
) -> dict[str, float]:
    """R² of the spots' colors as a linear map reads them from the point tokens, for each axis of CIELAB.

    Args:
        describe: the descriptor.
        train (of [`Asked`]): points that the map is fitted on.
        asked (of [`Asked`]): points that it is tried on.
    """
    inputs, true = point_tokens(describe, asked), colors_of(asked)
    weights, *_ = np.linalg.lstsq(
        with_constant(point_tokens(describe, train)), colors_of(train)
    )
    errors = true - with_constant(inputs) @ weights
    r2 = 1 - (errors**2).mean(axis=0) / true.var(axis=0)
    return dict(zip(("L", "a", "b"), r2.tolist()))


def with_constant(values: np.ndarray) -> np.ndarray:
    """A column of ones beside the others."""
    return np.column_stack([values, np.ones(len(values))])


def color_place(text: str, lab: np.ndarray) -> int | None:
    """How many names are nearer to the spot's color than the first one that a text says, at most 2; None without a
    color.

    Args:
        text (`str`)
        lab (`np.ndarray` of shape `(3,)`): the spot's color.
    """
    words = MarkedText(text)
    found = re.search(COLOR, words.marked)
    if found is None:
        return None
    said = color_names(words.original(found))
    [nearest] = ranked_colors(lab[np.newaxis], 2)
    places = [nearest.index(name) for name in said if name in nearest]
    return min(places, default=2)


def right_of_kind(claims: Sequence[Claim], kind: str) -> bool | None:
    """Whether what a text claims of one kind is right; None where it claims nothing that can be decided."""
    verdicts = [claim.verdict for claim in claims if claim.kind == kind]
    decided = [verdict for verdict in verdicts if verdict != OPEN]
    return CONTRADICTED not in decided if decided else None


def judged_text(text: str, scene: Scene, owned: Owned, lab: np.ndarray) -> dict:
    """What of one text is right."""
    claims = check_claims(text, scene, *owned)
    names = [claim for claim in claims if claim.kind in ("object", "part")]
    return {
        **{kind: right_of_kind(claims, kind) for kind in JUDGED},
        "false": bool(false_claims(claims)),
        "absent": any(claim.verdict != CONFIRMED for claim in names),
        "color_place": color_place(text, lab),
    }


def judged_texts(asked: Sequence[Asked], texts: Sequence[Sequence[str]]) -> list[dict]:
    """What of each text is right."""
    judged = []
    for of_photo, row in zip(asked, texts):
        pixels = np.asarray(of_photo.photo.open())
        scene = Scene(of_photo.photo, pixels)
        places = [(point.x, point.y) for _, point in of_photo.points]
        labs = spot_colors(pixels, places)
        for text, owned, lab in zip(row, of_photo.points, labs):
            judged.append(judged_text(text, scene, owned, lab))
    return judged


def share(values: Sequence[bool | None], photos: Sequence[str]) -> dict[str, Any]:
    """How many of those that are not None are true, in percent, with an interval over photos."""
    known = [index for index, value in enumerate(values) if value is not None]
    if not known:
        return {"n": 0}
    percent = np.array([100.0 * values[index] for index in known])
    interval = clustered_interval(percent, [photos[index] for index in known])
    return {"n": len(known), "share": float(percent.mean()), "ci95": list(interval)}


def numbers_of(judged: pd.DataFrame) -> dict[str, Any]:
    """The shares of one group's texts."""
    photos = judged["image_id"].tolist()
    numbers = {
        "contradicted": share(judged["false"].tolist(), photos),
        "naming what is not known to be there": share(
            judged["absent"].tolist(), photos
        ),
    }
    places = judged["color_place"].tolist()
    for title, last in (("nearest color", 0), ("one of the two nearest colors", 1)):
        # a text without a color has NaN where others have numbers
        hits = [None if pd.isna(place) else place <= last for place in places]
        numbers[title] = share(hits, photos)
    for kind in JUDGED:
        numbers[f"{kind} not contradicted"] = share(judged[kind].tolist(), photos)
    return numbers


def variety(texts: Sequence[str]) -> dict[str, float]:
    """Different neighboring words, and the share of the most frequent skeleton, in percent."""
    counts = Counter(skeleton(text) for text in texts)
    return {
        "words": float(np.mean([len(text.split()) for text in texts])),
        "distinct-2": distinct_n(texts),
        "most frequent skeleton": 100.0 * max(counts.values()) / len(texts),
    }


def score_texts(
    locate: Pipeline, asked: Sequence[Asked], texts: Sequence[Sequence[str]]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """(numbers, a row for each text) of a group of points."""
    views = [of_photo.view for of_photo in asked]
    found = locate_points(locate, views, texts)
    true, sizes = true_points(views)
    ids = []
    for of_photo in asked:
        ids.extend([of_photo.photo.id] * len(of_photo.points))
    judged = pd.DataFrame(judged_texts(asked, texts))
    judged = judged.assign(
        image_id=ids,
        text=flat(texts),
        x=true[:, 0],
        y=true[:, 1],
        found_x=found[:, 0],
        found_y=found[:, 1],
        distance=distances_with_misses(found, true, sizes),
    )
    scored = score_points(found, true, sizes, ids)
    kept = ("mpck", "pck@0.05", "ci95")
    numbers = {
        "n": len(true),
        "photos": len(asked),
        **{key: scored[key] for key in kept},
        "shares": numbers_of(judged),
        "variety": variety(flat(texts)),
    }
    return numbers, judged


def others_texts(asked: Sequence[Asked]) -> list[list[str]]:
    """What others wrote of points of [`told_points`]."""
    texts = []
    for of_photo in asked:
        texts.append([dict(point.texts)[OTHERS_STYLE] for _, point in of_photo.points])
    return texts


def drawn(
    photos: Sequence[Photo],
    split: str,
    draw: Callable[[Photo, int, np.random.Generator], Asked],
    args: Arguments,
) -> list[Asked]:
    """The photos of a split with points, those that have any."""
    asked = []
    for index, photo in enumerate(photos):
        if photo.split == split:
            rng = np.random.default_rng([args.seed, index])
            asked.append(draw(photo, args.points_per_photo, rng))
    return [of_photo for of_photo in asked if of_photo.points]


def main() -> None:
    args = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    style = {} if args.style is None else {"style": args.style}
    describe = pipeline("point-description", model=args.descriptor, **style)
    locate = pipeline("point-localization", model=args.localizer)
    known = []
    unknown = []
    for folder in args.unknown:
        unknown.extend(read_objects(folder))  # also those without a point
    for photo in load_photos(args.named):
        (unknown if shows_one_of(photo, args.held_out) else known).append(photo)
    groups = {
        "annotated parts": (known, named_points),
        "anywhere": (known, points_anywhere),
    }
    if unknown:
        groups["anywhere, unknown things"] = (unknown, points_anywhere)
    groups["described by others"] = (known + unknown, told_points)
    numbers = {}
    frames = []
    for name, (photos, draw) in groups.items():
        asked = drawn(photos, args.split, draw, args)
        if not asked:
            continue
        texts = describe_points(describe, [of_photo.view for of_photo in asked])
        numbers[name], rows = score_texts(locate, asked, texts)
        frames.append(rows.assign(group=name))
        if draw is told_points:
            name = "the same, others' texts"
            numbers[name], rows = score_texts(locate, asked, others_texts(asked))
            frames.append(rows.assign(group=name))
    train = drawn(known, "train", points_anywhere, args)
    probed = train[:: max(1, len(train) // PROBED_PHOTOS)]
    anywhere = drawn(known, args.split, points_anywhere, args)
    colors = read_colors(describe, probed, anywhere)
    report = {
        "fingerprints": {
            Path(checkpoint).name: model_version(checkpoint)
            for checkpoint in (args.descriptor, args.localizer)
        },
        "split": args.split,
        "style": args.style,
        "groups": numbers,
        "color_r2_of_point_tokens": colors,
    }
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "describing.json").write_text(json.dumps(report, indent=2) + "\n")
    pd.concat(frames, ignore_index=True).to_parquet(output / "texts.parquet")
    print(describing_table(report))


if __name__ == "__main__":
    main()
