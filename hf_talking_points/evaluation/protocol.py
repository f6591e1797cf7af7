"""Descriptor through localizer: descriptions are judged by how well a panel of localizers finds their points.

A *describer* is called with `(image, points)` and returns a text for each (x, y), a *localizer* with `(image, texts)` and returns an array
of shape `(len(texts), 2)`, with rows of NaN where it has no answer; points are pixels of the PIL RGB image. Both have a `name` for reports
and a `fingerprint`, a string that changes when their answers may: answers are cached by it, the image's content, and the point or text.
"""

import hashlib
import json
import resource
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm
from transformers import pipeline

from .. import MINI_DESCRIPTOR, MINI_LOCALIZER
from ..data.sources import SPLITS, read_photos
from ..data.triplets import View, make_views
from ..data.wording import describe_point, names_it, position, spot
from ..offline import package_folder
from ..metrics import (
    METRIC_VERSION,
    mpck_values,
    normalized_distances,
    paired_difference,
    score_points,
    summary,
)
from .report import write_report
from .text_only import TextOnlyPredictor
from .vision_language import VisionLanguageDescriber, VisionLanguageLocalizer, model_version

NO_TEXT = "A point in the image."


class _Checkpoint:
    """A pipeline that is loaded when first asked.

    Args:
        checkpoint (`str`): folder or Hub id.
    """

    def __init__(self, checkpoint):
        self.checkpoint, self.name, self.fingerprint = (
            checkpoint,
            Path(checkpoint).name,
            model_version(checkpoint),
        )

    @cached_property
    def pipe(self):
        return pipeline(self.task, model=self.checkpoint)


class CheckpointDescriber(_Checkpoint):
    """A Point Descriptor as describer of the protocol."""

    task = "point-description"

    def __call__(self, image, points):
        return [row["description"] for row in self.pipe(image, points=points)]


class CheckpointLocalizer(_Checkpoint):
    """A Point Localizer as localizer of the protocol. It has no answer to texts that its processor refuses: too long, special tokens."""

    task = "point-localization"

    def __call__(self, image, texts):
        found = np.full((len(texts), 2), np.nan)
        taken = [i for i, text in enumerate(texts) if self.pipe.processor.accepts(text)]
        if taken:
            found[taken] = [
                row["point"] for row in self.pipe(image, text=[texts[i] for i in taken])
            ]
        return found


class WrittenDescriptions:
    """Descriptions from a JSONL file, as people or other programs write them: {"image": id, "point": [x, y], "description": text}."""

    def __init__(self, file):
        self.name, self.texts = Path(file).stem, {}
        content = Path(file).read_bytes()
        self.fingerprint = hashlib.sha256(content).hexdigest()
        for number, line in enumerate(content.decode().splitlines(), 1):
            try:
                row = json.loads(line)
                self.texts[row["image"], round(row["point"][0], 2), round(row["point"][1], 2)] = (
                    str(row["description"])
                )
            except (json.JSONDecodeError, KeyError, TypeError, IndexError) as error:
                raise ValueError(
                    f'{file}, line {number}: expected {{"image": id, "point": [x, y], "description": text}}, found {line[:80]!r}'
                ) from error

    def of(self, view):
        """Texts of a view's points, "" where the file has none."""
        return [
            self.texts.get((view.photo.id, round(p.x, 2), round(p.y, 2)), "")
            for _, p in view.points()
        ]


def load_describer(spec):
    """ "point-descriptor:CHECKPOINT", "vlm:MODEL" or "jsonl:FILE" -> a describer, or [`WrittenDescriptions`]."""
    kind, _, where = spec.partition(":")
    kinds = {
        "point-descriptor": CheckpointDescriber,
        "vlm": VisionLanguageDescriber,
        "jsonl": WrittenDescriptions,
    }
    if kind not in kinds or not where:
        raise ValueError(
            f"descriptions {spec!r}: expected ground-truth, point-descriptor:CHECKPOINT, vlm:MODEL or jsonl:FILE"
        )
    return kinds[kind](where)


def load_localizer(spec):
    """A checkpoint (folder or Hub id), or "vlm:CONVENTION:MODEL" with a convention of [`parse_point`] -> a localizer."""
    if not spec.startswith("vlm:"):
        return CheckpointLocalizer(spec)
    _, convention, *model = spec.split(":", 2)
    if not model:
        raise ValueError(
            f"localizer {spec!r}: expected a checkpoint, or vlm:CONVENTION:MODEL, such as vlm:0-1000:Qwen/Qwen3-VL-2B-Instruct"
        )
    return VisionLanguageLocalizer(model[0], convention)


class AnswerCache:
    """Answers of describers and localizers in one SQLite file; a process that is killed loses at most one image's.

    Args:
        file: is made where there is none.
    """

    def __init__(self, file):
        self.connection = sqlite3.connect(file)
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT, seconds REAL)"
        )

    def close(self):
        self.connection.close()

    def answers(self, model, image, asked):
        """What `model` answers to `asked` (list of points or of texts) about `image`, asking only for what is not there yet.

        Returns (list of answers, list of the seconds that each took when it was computed)."""
        digest = hashlib.sha256(np.asarray(image).tobytes() + str(image.size).encode()).hexdigest()
        keys = [
            hashlib.sha256(json.dumps([model.fingerprint, digest, what]).encode()).hexdigest()
            for what in asked
        ]
        missing = {}
        for key, what in zip(keys, asked):
            if (
                key not in missing
                and not self.connection.execute(
                    "SELECT 1 FROM answers WHERE key = ?", (key,)
                ).fetchone()
            ):
                missing[key] = what
        if missing:
            start = time.perf_counter()
            given = model(image, list(missing.values()))
            seconds = (time.perf_counter() - start) / len(missing)
            given = [
                answer if isinstance(answer, str) else list(map(float, answer)) for answer in given
            ]
            if len(given) != len(missing):
                raise ValueError(
                    f"{model.name} gave {len(given)} answers to {len(missing)} questions about one image"
                )
            with self.connection:
                rows = [(key, json.dumps(answer), seconds) for key, answer in zip(missing, given)]
                self.connection.executemany("INSERT INTO answers VALUES (?, ?, ?)", rows)
        found = [
            self.connection.execute(
                "SELECT answer, seconds FROM answers WHERE key = ?", (key,)
            ).fetchone()
            for key in keys
        ]
        return [json.loads(answer) for answer, _ in found], [seconds for _, seconds in found]


def describe_views(describe, views, batch_size=8, desc="Describing"):
    """Descriptions of every annotated point of `views` by a point-description pipeline: a list of texts for each view."""
    requests = (
        {"image": view.image(), "points": [(p.x, p.y) for _, p in view.points()]} for view in views
    )
    answers = tqdm(describe(requests, batch_size=batch_size), total=len(views), desc=desc)
    return [[answer["description"] for answer in row] for row in answers]


def localize_views(
    locate, views, descriptions, batch_size=8, image=lambda view: view.image(), desc="Localizing"
):
    """Points, an array of shape `(n, 2)` in pixels, that a point-localization pipeline finds for the descriptions of each view; NaN where
    its processor refuses the text."""
    taken = [[locate.processor.accepts(text) for text in texts] for texts in descriptions]
    found = np.full((sum(map(len, descriptions)), 2), np.nan)
    requests = (
        {"image": image(view), "text": list(compress(texts, chosen))}
        for view, texts, chosen in zip(views, descriptions, taken)
        if any(chosen)
    )
    answers = tqdm(locate(requests, batch_size=batch_size), total=sum(map(any, taken)), desc=desc)
    found[np.concatenate(taken)] = np.reshape(
        [answer["point"] for row in answers for answer in row], (-1, 2)
    )
    return found


def true_points(views):
    """(points, image sizes, image ids), each with one row for every annotated point of `views`."""
    rows = [((p.x, p.y), view.photo.size, view.key) for view in views for _, p in view.points()]
    points, sizes, ids = zip(*rows)
    return np.array(points), np.array(sizes), np.array(ids)


def view_distances(views, found):
    """Normalised distances of found points (in the order of [`true_points`]) to the true ones; a miss counts as the farthest corner."""
    points, sizes, _ = true_points(views)
    return normalized_distances(place_misses(found, points, sizes), points, sizes)


def place_misses(found, true, sizes):
    """Found points with the farthest corner of the image in place of those that are NaN."""
    return np.where(np.isnan(found).any(1)[:, None], np.where(true < sizes / 2, sizes, 0), found)


def naming_accuracy(views, descriptions):
    """Share of descriptions (one for each point of the views), in percent, that name the object's category and that name the part."""
    pairs = [
        (text, owner, part)
        for text, (owner, part) in zip(
            descriptions, (pair for view in views for pair in view.points())
        )
    ]
    return {
        "category": 100.0
        * float(np.mean([names_it(text, owner.category) for text, owner, _ in pairs])),
        "part": 100.0 * float(np.mean([names_it(text, part.part) for text, _, part in pairs])),
    }


def describe_points(describer, views, cache):
    """(texts, seconds): one list for each view, of the describer's texts for its points and of what each took."""
    texts, seconds = [], []
    for view in tqdm(views, desc=f"Describing: {describer.name}"):
        some, took = cache.answers(describer, view.image(), [(p.x, p.y) for _, p in view.points()])
        texts.append(some)
        seconds.append(took)
    return texts, seconds


def locate_texts(localizer, views, texts, cache, image=lambda view: view.image(), desc=""):
    """(found, seconds): array of shape `(n, 2)` in pixels, NaN where there was no text or no answer; and what each answer took."""
    found, seconds = [], []
    for view, row in zip(tqdm(views, desc=f"Localizing: {localizer.name} {desc}"), texts):
        known = [i for i, text in enumerate(row) if text and text.strip()]
        points = np.full((len(row), 2), np.nan)
        if known:
            points[known], took = cache.answers(localizer, image(view), [row[i] for i in known])
            seconds += took
        found.append(points)
    return np.concatenate(found), np.array(seconds)


def written_texts(views, style, seed=0):
    """The views' own texts in `style` where their source has them, else the rule-based writer's: a list for each view."""
    texts = []
    for index, view in enumerate(views):
        rng, pixels = np.random.default_rng([seed, index]), np.asarray(view.image())
        texts.append(
            [
                dict(p.texts).get(style) or describe_point(view.photo, owner, p, pixels, style, rng)
                for owner, p in view.points()
            ]
        )
    return texts


def grid_phrases(views):
    """The place of each point in the image in the five words for each axis, nothing else."""
    return [
        [
            f"{position(p.x / view.photo.size[0], p.y / view.photo.size[1])} of the image"
            for _, p in view.points()
        ]
        for view in views
    ]


def other_texts(texts, seed=0):
    """The texts dealt out anew among all points."""
    flat = [text for row in texts for text in row]
    dealt = iter(np.random.default_rng(seed).permutation(len(flat)))
    return [[flat[next(dealt)] for _ in row] for row in texts]


def grey_image(view):
    return Image.new("RGB", view.photo.size, (127, 127, 127))


def points_table(views):
    """A `pandas.DataFrame` with a row for every annotated point of `views`: image_id, x, y, width, height, object, part, their boxes, what
    [`STRATA`] ask of it, and whether object and part alone say which point is meant (`unambiguous`)."""
    rows = []
    for view in views:
        photo, pixels, points = view.photo, np.asarray(view.image()), view.points()
        named = [(owner.category, p.part) for owner, p in points]
        for (owner, p), name in zip(points, named):
            x1, y1, x2, y2 = owner.box
            rows.append(
                {
                    "image_id": photo.id,
                    "x": p.x,
                    "y": p.y,
                    "width": photo.size[0],
                    "height": photo.size[1],
                    "object": owner.category,
                    "object_box": list(owner.box),
                    "part": p.part,
                    "part_box": list(p.box) if p.box is not None else None,
                    "stratum": p.stratum,
                    "object_area": (x2 - x1) * (y2 - y1) / (photo.size[0] * photo.size[1]),
                    "objects": len(photo.objects),
                    "spot": spot(pixels, p.x, p.y),
                    "unambiguous": named.count(name) == 1,
                }
            )
    return pd.DataFrame(rows)


STRATA = {
    "SIFT points": lambda points: points.stratum == "sift",
    "uniform points": lambda points: points.stratum == "uniform",
    "low-gradient points": lambda points: (
        (points.stratum == "low_gradient") | points.spot.str.contains("smooth")
    ),
    "boundary points": lambda points: points.stratum == "boundary",
    "small objects (< 5 % of the image)": lambda points: points.object_area < 0.05,
    "crowded images (3 objects or more)": lambda points: points.objects >= 3,
}


def scores(found, points):
    """The numbers of one system: [`score_points`] with the object's box, in which a miss counts as the farthest corner of the image;
    `misses`; and mPCK and PCK@0.05 of each of the [`STRATA`] that has points, and of the points that object and part alone tell apart.

    Args:
        found (array of shape `(n, 2)`): in pixels, NaN where there was no answer.
        points (`pandas.DataFrame`): of [`points_table`].
    Returns:
        (scores, normalised distances of shape `(n,)`)
    """
    true, sizes = points[["x", "y"]].to_numpy(), points[["width", "height"]].to_numpy()
    missed = np.isnan(found).any(1)
    found = place_misses(found, true, sizes)
    distances = normalized_distances(found, true, sizes)
    result = score_points(found, true, sizes, points.image_id, points.object_box.tolist())
    result["misses"] = int(missed.sum())
    subsets = {name: chosen(points).to_numpy() for name, chosen in STRATA.items()}
    subsets["unambiguous by object and part"] = points.unambiguous.to_numpy()
    result["strata"] = {
        name: {
            key: value
            for key, value in summary(distances[mask]).items()
            if key in ("n", "mpck", "pck@0.05")
        }
        for name, mask in subsets.items()
        if mask.any()
    }
    return result, distances


@dataclass
class EvaluationOptions:
    """What [`evaluate_descriptions`] evaluates.

    Args:
        dataset (`list[str]`): folders with an `objects.jsonl`, or built datasets (folder or Hub id).
        output (`str`): folder of the report; also holds the cache, with which a run that was cut off goes on.
        descriptions (`list[str]`): "ground-truth", "point-descriptor:CHECKPOINT", "vlm:MODEL", "jsonl:FILE".
        localizers (`list[str]`): checkpoints, or "vlm:CONVENTION:MODEL".
        styles (`list[str]`): of the ground truth; the first one is what all else is compared with.
        split (`str`): "test", "validation" or "train".
        controls (`bool`): also what the words alone give away, and what the picture alone.
        max_photos (`int`, *optional*): the first photos of the split; all of them if None.
        seed (`int`)
    """

    dataset: list
    output: str
    descriptions: list = field(
        default_factory=lambda: ["ground-truth", f"point-descriptor:{MINI_DESCRIPTOR}"]
    )
    localizers: list = field(default_factory=lambda: [MINI_LOCALIZER])
    styles: list = field(
        default_factory=lambda: ["full", "terse", "unseen", "colloquial", "no_position", "no_part"]
    )
    split: str = "test"
    controls: bool = True
    max_photos: int | None = None
    seed: int = 0

    def __post_init__(self):
        for name in ("dataset", "descriptions", "localizers", "styles"):
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one entry")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {self.split!r}")


def evaluate_descriptions(options):
    """Runs the protocol: every source of descriptions through every localizer, with controls.

    Writes `report.json`, `report.md`, plots, pictures and `samples.parquet` (a row for each system, localizer and point) to
    `options.output`.

    Args:
        options ([`EvaluationOptions`])
    Returns:
        `dict`: the content of `report.json`.
    """
    package_folder(
        "matplotlib", extra="evaluation"
    )  # the plots come last: what they need is looked for first
    output, seed = Path(options.output), options.seed
    describers = [load_describer(spec) for spec in options.descriptions if spec != "ground-truth"]
    localizers = [load_localizer(spec) for spec in options.localizers]
    for models in (describers, localizers):
        if twice := [
            name for name, count in Counter(model.name for model in models).items() if count > 1
        ]:
            raise ValueError(
                f"several models are called {twice[0]!r}, which reports could not tell apart: give their folders other names"
            )
    photos = [photo for source in options.dataset for photo in read_photos(source)]
    views = make_views([photo for photo in photos if photo.split == options.split])[
        : options.max_photos
    ]
    if not views:
        raise ValueError(
            f"{options.dataset} hold no annotated point in the split {options.split!r}"
        )
    output.mkdir(parents=True, exist_ok=True)
    truth = {
        f"ground truth, {style}": written_texts(views, style, seed) for style in options.styles
    }
    reference, words = next(iter(truth.items()))
    systems, answers, seconds = (
        dict(truth) if "ground-truth" in options.descriptions else {},
        {},
        {},
    )
    with closing(AnswerCache(output / "answers.sqlite")) as cache:
        for describer in describers:
            if isinstance(describer, WrittenDescriptions):
                systems[describer.name] = [describer.of(view) for view in views]
            else:
                systems[describer.name], took = describe_points(describer, views, cache)
                seconds[f"{describer.name}: a description"] = float(np.mean(flat(took)))
        asked = [(name, texts, View.image) for name, texts in systems.items()]
        if options.controls:
            asked += [
                (f"{reference}, grey picture", words, grey_image),
                ("no text", [[NO_TEXT] * len(row) for row in words], View.image),
                (f"{reference}, of another point", other_texts(words, seed), View.image),
                ("grid phrases", grid_phrases(views), View.image),
            ]
        for localizer in localizers:
            took = []
            for name, texts, image in asked:
                found, some = locate_texts(localizer, views, texts, cache, image, f"<- {name}")
                answers[name, localizer.name] = flat(texts), found
                took.extend(some)
            seconds[f"{localizer.name}: a localization"] = float(np.mean(took))
    if options.controls:
        answers |= answers_without_localizer(
            reference,
            flat(words),
            views,
            [photo for photo in photos if photo.split == "train"],
            options,
        )
    points, rows, samples = points_table(views), [], {}
    for (name, localizer), (texts, found) in answers.items():
        numbers, distances = scores(found, points)
        rows.append(
            {"system": name, "localizer": localizer, "control": name not in systems, **numbers}
        )
        if name in systems:
            rows[-1]["naming"] = naming_accuracy(views, texts)
        columns = {
            "system": name,
            "localizer": localizer,
            "description": texts,
            "distance": distances,
        }
        samples[name, localizer] = points.assign(
            **columns, found_x=found[:, 0], found_y=found[:, 1], metric_version=METRIC_VERSION
        )
    for row in rows:
        compared = reference, localizers[0].name if row["localizer"] == "-" else row["localizer"]
        if compared in samples and row["system"] != reference:
            values = [
                mpck_values(samples[key].distance)
                for key in ((row["system"], row["localizer"]), compared)
            ]
            row["versus"] = paired_difference(*values, points.image_id)
    report = {
        "metric_version": METRIC_VERSION,
        "dataset": [Path(source).name for source in options.dataset],
        **{name: getattr(options, name) for name in ("split", "styles", "max_photos", "seed")},
        "photos": len(views),
        "points": len(points),
        "reference": reference,
        "fingerprints": {model.name: model.fingerprint for model in [*describers, *localizers]},
        "rows": rows,
        "agreement": agreement(rows),
        "seconds": seconds,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    samples = pd.concat(samples.values(), ignore_index=True)
    samples.to_parquet(output / "samples.parquet")
    write_report(report, samples, views, output)
    return report


def answers_without_localizer(reference, texts, views, train_photos, options):
    """The image centre, and what [`TextOnlyPredictor`], fitted on the train split, makes of the texts: (system, "-") -> (texts, found)."""
    sizes = true_points(views)[1]
    answers = {("image centre", "-"): ([""] * len(texts), sizes / 2)}
    if train := make_views(train_photos):
        points, train_sizes, _ = true_points(train)
        train_texts = flat(written_texts(train, options.styles[0], options.seed))
        predictor = TextOnlyPredictor(seed=options.seed).fit(train_texts, points / train_sizes)
        answers[f"{reference}, text-only predictor", "-"] = texts, predictor.predict(texts) * sizes
    return answers


def agreement(rows):
    """How alike the localizers rank the systems: the mean Spearman correlation of their mPCKs; None with fewer than two localizers or
    three systems."""
    table = pd.DataFrame([row for row in rows if not row["control"]]).pivot(
        index="system", columns="localizer", values="mpck"
    )
    if table.shape[0] < 3 or table.shape[1] < 2:
        return None
    correlations = table.corr(method="spearman").to_numpy()
    return float(correlations[np.triu_indices(len(correlations), 1)].mean())


def flat(rows):
    return [value for row in rows for value in row]
