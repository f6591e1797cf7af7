"""Descriptor through localizer: descriptions are judged by how well a panel of localizers finds their points.

A *describer* is called with `(image, points)` and returns a text for each (x, y), a *localizer* with `(image, texts)` and returns an array
of shape `(len(texts), 2)`, with rows of NaN where it has no answer; points are pixels of the PIL RGB image. Both have a `name` for reports
and a `fingerprint`, a string that changes when their answers may: answers are cached by it, the image's content, and the point or text.
"""

import hashlib
import json
import sqlite3
import time
from contextlib import closing
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm
from transformers import pipeline

from ..data.wording import describe_point, names_it, position
from .metrics import normalized_distances
from .vision_language import VisionLanguageDescriber, VisionLanguageLocalizer, model_version

FARTHEST = 2**0.5  # normalised distance of a miss: that of two opposite corners
NO_TEXT = "A point in the image."


class _Checkpoint:
    """A pipeline that is loaded when first asked.

    Args:
        checkpoint (`str`): folder or Hub id.
    """

    def __init__(self, checkpoint):
        self.checkpoint, self.name, self.fingerprint = checkpoint, Path(checkpoint).name, model_version(checkpoint)

    @cached_property
    def pipe(self):
        return pipeline(self.task, model=self.checkpoint)


class CheckpointDescriber(_Checkpoint):
    """A Point Descriptor as describer of the protocol."""

    task = "point-description"

    def __call__(self, image, points):
        return [row["description"] for row in self.pipe(image, points=points)]


class CheckpointLocalizer(_Checkpoint):
    """A Point Localizer as localizer of the protocol."""

    task = "point-localization"

    def __call__(self, image, texts):
        return np.array([row["point"] for row in self.pipe(image, text=texts)])


class WrittenDescriptions:
    """Descriptions from a JSONL file, as people or other programs write them: {"image": id, "point": [x, y], "description": text}."""

    def __init__(self, file):
        self.name, self.texts = Path(file).stem, {}
        content = Path(file).read_bytes()
        self.fingerprint = hashlib.sha256(content).hexdigest()
        for number, line in enumerate(content.decode().splitlines(), 1):
            try:
                row = json.loads(line)
                self.texts[row["image"], round(row["point"][0], 2), round(row["point"][1], 2)] = str(row["description"])
            except (json.JSONDecodeError, KeyError, TypeError, IndexError) as error:
                raise ValueError(
                    f'{file}, line {number}: expected {{"image": id, "point": [x, y], "description": text}}, found {line[:80]!r}'
                ) from error

    def of(self, view):
        """Texts of a view's points, None where the file has none."""
        return [self.texts.get((view.photo.id, round(p.x, 2), round(p.y, 2))) for _, p in view.points()]


def load_describer(spec):
    """ "point-descriptor:CHECKPOINT", "vlm:MODEL" or "jsonl:FILE" -> a describer, or [`WrittenDescriptions`]."""
    kind, _, where = spec.partition(":")
    kinds = {"point-descriptor": CheckpointDescriber, "vlm": VisionLanguageDescriber, "jsonl": WrittenDescriptions}
    if kind not in kinds or not where:
        raise ValueError(f"descriptions {spec!r}: expected ground-truth, point-descriptor:CHECKPOINT, vlm:MODEL or jsonl:FILE")
    return kinds[kind](where)


def load_localizer(spec):
    """A checkpoint (folder or Hub id), or "vlm:CONVENTION:MODEL" with a convention of [`parse_point`] -> a localizer."""
    if not spec.startswith("vlm:"):
        return CheckpointLocalizer(spec)
    _, convention, *model = spec.split(":", 2)
    if not model:
        raise ValueError(f"localizer {spec!r}: expected a checkpoint or vlm:CONVENTION:MODEL, such as vlm:0-1000:Qwen/Qwen3-VL-2B-Instruct")
    return VisionLanguageLocalizer(model[0], convention)


class AnswerCache:
    """Answers of describers and localizers in one SQLite file; a process that is killed loses at most one image's.

    Args:
        file: is made where there is none.
    """

    def __init__(self, file):
        self.connection = sqlite3.connect(file)
        self.connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT, seconds REAL)")

    def close(self):
        self.connection.close()

    def answers(self, model, image, asked):
        """What `model` answers to `asked` (list of points or of texts) about `image`, asking only for what is not there yet.

        Returns (list of answers, list of the seconds that each took when it was computed)."""
        digest = hashlib.sha256(np.asarray(image).tobytes() + str(image.size).encode()).hexdigest()
        keys = [hashlib.sha256(json.dumps([model.fingerprint, digest, what]).encode()).hexdigest() for what in asked]
        missing = {}
        for key, what in zip(keys, asked):
            if key not in missing and not self.connection.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone():
                missing[key] = what
        if missing:
            start = time.perf_counter()
            given = model(image, list(missing.values()))
            seconds = (time.perf_counter() - start) / len(missing)
            given = [answer if isinstance(answer, str) else list(map(float, answer)) for answer in given]
            if len(given) != len(missing):
                raise ValueError(f"{model.name} gave {len(given)} answers to {len(missing)} questions about one image")
            with self.connection:
                rows = [(key, json.dumps(answer), seconds) for key, answer in zip(missing, given)]
                self.connection.executemany("INSERT INTO answers VALUES (?, ?, ?)", rows)
        found = [self.connection.execute("SELECT answer, seconds FROM answers WHERE key = ?", (key,)).fetchone() for key in keys]
        return [json.loads(answer) for answer, _ in found], [seconds for _, seconds in found]


def describe_views(describe, views, batch_size=8, desc="Describing"):
    """Descriptions of every annotated point of `views` by a point-description pipeline: a list of texts for each view."""
    requests = ({"image": view.image(), "points": [(p.x, p.y) for _, p in view.points()]} for view in views)
    answers = tqdm(describe(requests, batch_size=batch_size), total=len(views), desc=desc)
    return [[answer["description"] for answer in row] for row in answers]


def localize_views(locate, views, descriptions, batch_size=8, image=lambda view: view.image(), desc="Localizing"):
    """Points, an array of shape `(n, 2)` in pixels, that a point-localization pipeline finds for the descriptions of each view."""
    requests = ({"image": image(view), "text": texts} for view, texts in zip(views, descriptions))
    answers = tqdm(locate(requests, batch_size=batch_size), total=len(views), desc=desc)
    return np.array([answer["point"] for row in answers for answer in row])


def true_points(views):
    """(points, image sizes, image ids), each with one row for every annotated point of `views`."""
    rows = [((p.x, p.y), view.photo.size, view.key) for view in views for _, p in view.points()]
    points, sizes, ids = zip(*rows)
    return np.array(points), np.array(sizes), np.array(ids)


def view_distances(views, found):
    """Normalised distances of found points (in the order of [`true_points`]) to the true ones; `FARTHEST` for rows of NaN, the misses."""
    points, sizes, _ = true_points(views)
    missed = np.isnan(found).any(1)
    return np.where(missed, FARTHEST, normalized_distances(np.where(missed[:, None], 0.0, found), points, sizes))


def naming_accuracy(views, descriptions):
    """Share of descriptions, in percent, that name the object's category and that name the part."""
    pairs = [(text, owner, part) for view, texts in zip(views, descriptions) for text, (owner, part) in zip(texts, view.points())]
    return {
        "category": 100.0 * float(np.mean([names_it(text, owner.category) for text, owner, _ in pairs])),
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
            [dict(p.texts).get(style) or describe_point(view.photo, owner, p, pixels, style, rng) for owner, p in view.points()]
        )
    return texts


def grid_phrases(views):
    """The place of each point in the image in the five words for each axis, nothing else."""
    return [[f"{position(p.x / view.photo.size[0], p.y / view.photo.size[1])} of the image" for _, p in view.points()] for view in views]


def other_texts(texts, seed=0):
    """The texts dealt out anew among all points."""
    flat = [text for row in texts for text in row]
    dealt = iter(np.random.default_rng(seed).permutation(len(flat)))
    return [[flat[next(dealt)] for _ in row] for row in texts]


def grey_image(view):
    return Image.new("RGB", view.photo.size, (127, 127, 127))
