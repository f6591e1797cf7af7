"""Scores descriptions of pixels by how far from the true pixel a localizer finds them."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
from PIL import Image
from tqdm import tqdm

from hf_talking_points import MINI_LOCALIZER
from hf_talking_points.data.fields import is_utf8
from hf_talking_points.localization import localization_pipeline, locate_texts
from hf_talking_points.metrics import (
    METRIC_VERSION,
    THRESHOLDS,
    box_distances,
    check_thresholds,
    normalized_distances,
    pixel_distances,
    place_misses,
    score_points,
)
from hf_talking_points.models.coordinates import is_real
from hf_talking_points.models.images import content_key, to_rgb

_DESCRIPTION = """
How well descriptions of pixels tell which pixel is meant: a localizer reads the image and the description and points
    at a pixel, and its
distance to the true one is measured after dividing x by the image's width and y by its height. PCK@t is the share of
distances below t in percent, mPCK = (PCK@0.1 + PCK@0.2) / 2.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[str]`): descriptions, one for each point.
    references (`list` of `(x, y)`): the described pixels of the image as displayed, origin at its top-left corner.
    images (`list`): the image of each point as PIL image, path, URL or array. Points of images with equal pixels form
        one cluster of the bootstrap; where such images were given in one way, they go to the localizer together.
    boxes (`list` of `(x1, y1, x2, y2)` or None, *optional*): the box of each point's part or object in pixels, None
        where it is unknown. For `add` and `add_batch` load the module with `config_name="boxes"`.
    localizer (path, Hub id or loaded "point-localization" pipeline, *optional*): finds the points; by default the one
        in the package.
    batch_size (`int`, *optional*, defaults to 8): images at a time.
    thresholds (*optional*): the t of the PCK@t, by default 0.02, 0.05, 0.1 and 0.2.
Returns:
    "mpck" and "pck@t" in percent, "mean_distance" and "median_distance" in parts of the sides, "median_pixels", the
    number of points "n"; with boxes "box_pck@0.1", the PCK at a tenth of the box's diagonal, and "box_n", the number
    of points with a box; "ci95" with 95 % bootstrap intervals clustered by image, NaN for a single image; "misses",
    the number of descriptions that the localizer cannot take (too long, with special tokens), which count as the
    farthest corner of their image; "metric_version"; and "per_sample", a list of dicts with "image" (number of the
    distinct image), "width", "height", "prediction", "reference", "point" (where it was found; NaN for a miss),
    "confidence", "distance", "pixels", with boxes also "box" and "box_distance".
Raises:
    ValueError: no descriptions, columns of different lengths, an empty description, a point that is not finite or
        outside its image.
    OSError: no such localizer, no such image file.
Example:
    >>> metric = evaluate.load(hf_talking_points.LOCALIZATION_DISTANCE)
    >>> scores = metric.compute(predictions=["the nose of the cat"], references=[(225, 150)], images=["cat.jpg"])
"""

_CITATION = """
@inproceedings{rusanovsky2026talking,
  title={Talking Points: Describing and Localizing Pixels},
  author={Rusanovsky, Matan and Malnick, Shimon and Avidan, Shai},
  booktitle={International Conference on Learning Representations},
  year={2026},
  url={https://arxiv.org/abs/2510.14583}
}
"""


CachedImage = dict[str, Any]  # {"path": str or None, "bytes": PNG or None}


def cached_image(index: int, image: Any, pngs: dict[str, bytes]) -> CachedImage:
    """What evaluate's cache holds of an image: path of a file or URL, else the displayed pixels as PNG.

    Args:
        index (`int`): of the image, for the error.
        image: PIL image, path, URL or array.
        pngs (`dict`): [`content_key`] -> PNG of those made before, one for all equal images; grows.

    Raises FileNotFoundError naming an image that is neither file nor URL.
    """
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        if os.path.isfile(path):
            return {"path": os.path.abspath(path), "bytes": None}
        if path.startswith(("http://", "https://")):
            return {"path": path, "bytes": None}
        raise FileNotFoundError(
            f"images[{index}] is {path!r}, which is neither a file nor a URL"
        )
    # not left to datasets.Image: it would store a picture that was opened, then resized in place, as the path of its
    # file
    rgb = to_rgb(image)
    key = content_key(rgb)
    if key not in pngs:
        file = io.BytesIO()
        rgb.save(file, "PNG", compress_level=1)
        pngs[key] = file.getvalue()
    return {"path": None, "bytes": pngs[key]}


def open_stored(stored: CachedImage) -> Image.Image:
    """The displayed pixels of what [`cached_image`] gives."""
    return to_rgb(stored)


def check_sample(index: int, prediction: Any, reference: Any) -> None:
    """Raises ValueError naming a description that is no text, or empty, or a point that is no finite (x, y)."""
    if not isinstance(prediction, str) or not prediction.strip():
        raise ValueError(
            f"predictions[{index}] is {prediction!r} but must be a text that is not empty"
        )
    if not is_utf8(prediction):
        raise ValueError(
            f"predictions[{index}] is {prediction!a}, which has a lone surrogate and is no text"
        )
    is_point = np.shape(reference) == (2,) and is_real(reference)
    if not is_point or not np.isfinite(np.asarray(reference, np.float64)).all():
        raise ValueError(
            f"references[{index}] is {reference!r} but must be a finite (x, y)"
        )


def box_corners(boxes: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
    """Boxes as an array of shape `(n, 4)`, NaN where there is none.

    Raises ValueError, before the localizer runs, for what is not a box."""
    rows = []
    for index, box in enumerate(boxes):
        if box is not None and np.shape(box) != (4,):
            raise ValueError(
                f"boxes[{index}] is {box!r} but must be (x1, y1, x2, y2) or None"
            )
        rows.append([np.nan] * 4 if box is None else box)
    corners = np.array(rows, dtype=np.float64)
    box_distances(references, references, corners)
    return corners


@dataclass
class Located:
    """What the localizer made of each sample.

    Args:
        points (array of shape `(n, 2)`): in pixels, NaN for a miss.
        confidences (list of `float` or None)
        sizes (array of shape `(n, 2)`): (width, height) of each sample's image.
        image_ids (array of shape `(n,)`): which of the different images it is.
    """

    points: np.ndarray
    confidences: list[float | None]
    sizes: np.ndarray
    image_ids: np.ndarray


def locate_samples(
    localizer: Any,
    predictions: Sequence[str],
    references: Sequence[Any],
    images: Sequence[CachedImage],
    batch_size: int,
) -> Located:
    """Where a localizer finds the descriptions; those of one stored image are asked for together.

    Raises ValueError naming a reference that lies outside its image."""
    number = len(images)
    located = Located(
        points=np.full((number, 2), np.nan),
        confidences=[None] * number,
        sizes=np.zeros((number, 2), dtype=int),
        image_ids=np.zeros(number, dtype=int),
    )
    rows_of_image: dict[tuple, list[int]] = defaultdict(list)
    for row, stored in enumerate(images):
        rows_of_image[stored["path"], stored["bytes"]].append(row)
    ids: dict[str, int] = {}  # content -> number of the image

    def requests() -> Iterator[tuple[Image.Image, list[str]]]:
        for rows in rows_of_image.values():
            image = open_stored(images[rows[0]])
            for row in rows:
                check_inside(row, references[row], image.size)
            located.sizes[rows] = image.size
            located.image_ids[rows] = ids.setdefault(content_key(image), len(ids))
            yield image, [predictions[row] for row in rows]

    answers = tqdm(
        locate_texts(localizer, requests(), batch_size),
        total=len(rows_of_image),
        desc="Localizing",
    )
    for rows, answers_of_image in zip(rows_of_image.values(), answers, strict=True):
        for row, answer in zip(rows, answers_of_image, strict=True):
            located.points[row] = answer["point"]
            located.confidences[row] = answer.get("confidence")
    return located


def check_inside(row: int, reference: Sequence[float], size: tuple[int, int]) -> None:
    """Raises ValueError naming a reference that lies outside its image."""
    x, y = reference
    width, height = size
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(
            f"references[{row}] is ({x:g}, {y:g}), outside its image of {width} x {height} pixels"
        )


class LocalizationDistance(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "boxes"):
            raise ValueError(
                f"config_name must be 'default' or 'boxes', got {self.config_name!r}"
            )
        columns = {
            "predictions": datasets.Value("string"),
            "references": datasets.List(datasets.Value("float64"), length=2),
            "images": datasets.Image(decode=False),
        }
        if self.config_name == "boxes":
            columns["boxes"] = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(columns),
            reference_urls=["https://arxiv.org/abs/2510.14583"],
        )

    def add(
        self, *, prediction: Any = None, reference: Any = None, **kwargs: Any
    ) -> None:
        """Adds one description. The columns besides prediction and reference keep their names: `images=image`,
        `boxes=box`."""
        # `evaluate.combine` passes predictions and references among the kwargs
        sample = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: [value] for name, value in sample.items()})

    def add_batch(
        self, *, predictions: Any = None, references: Any = None, **kwargs: Any
    ) -> None:
        """Adds descriptions with their points and images."""
        columns = {"predictions": predictions, "references": references, **kwargs}
        missing = [name for name in self._feature_names() if columns.get(name) is None]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} missing: each description needs {', '.join(self._feature_names())}"
            )
        columns = {name: list(column) for name, column in columns.items()}
        pngs: dict[str, bytes] = {}
        stored = []
        for index, image in enumerate(columns["images"]):
            stored.append(cached_image(index, image, pngs))
        columns["images"] = stored
        if len({len(column) for column in columns.values()}) > 1:
            lengths = ", ".join(
                f"{len(column)} {name}" for name, column in columns.items()
            )
            raise ValueError(f"columns must have one length, got {lengths}")
        samples = zip(columns["predictions"], columns["references"])
        for index, (prediction, reference) in enumerate(samples):
            check_sample(index, prediction, reference)
        super().add_batch(**columns)

    def _compute(
        self,
        predictions: list[str],
        references: list[Any],
        images: list[CachedImage],
        boxes: list[Any] | None = None,
        localizer: Any = MINI_LOCALIZER,
        batch_size: int = 8,
        thresholds: Sequence[float] = THRESHOLDS,
    ) -> dict[str, Any]:
        if not predictions:
            raise ValueError("no descriptions: add some before compute")
        check_thresholds(thresholds)
        corners = None if boxes is None else box_corners(boxes, references)
        pipe = localization_pipeline(localizer)
        located = locate_samples(pipe, predictions, references, images, batch_size)
        placed = place_misses(located.points, references, located.sizes)
        scores = score_points(
            placed, references, located.sizes, located.image_ids, corners, thresholds
        )
        scores["misses"] = int(np.isnan(located.points).any(axis=1).sum())
        scores["metric_version"] = METRIC_VERSION
        columns = {
            "image": located.image_ids.tolist(),
            "width": located.sizes[:, 0].tolist(),
            "height": located.sizes[:, 1].tolist(),
            "prediction": list(predictions),
            "reference": [tuple(reference) for reference in references],
            "point": [tuple(point) for point in located.points.tolist()],
            "confidence": located.confidences,
            "distance": normalized_distances(
                placed, references, located.sizes
            ).tolist(),
            "pixels": pixel_distances(placed, references).tolist(),
        }
        if boxes is not None:
            columns["box"] = list(boxes)
            columns["box_distance"] = box_distances(
                placed, references, corners
            ).tolist()
        scores["per_sample"] = rows_of_samples(columns)
        return scores


def rows_of_samples(columns: dict[str, list]) -> list[dict[str, Any]]:
    """Columns of equal length as a list of rows."""
    samples = []
    for values in zip(*columns.values()):
        samples.append(dict(zip(columns, values)))
    return samples
