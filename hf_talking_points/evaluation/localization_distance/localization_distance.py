"""Scores descriptions of pixels by how far from the true pixel a localizer finds them."""

import hashlib
import io
import os

import datasets
import evaluate
import numpy as np
from PIL import Image
from tqdm import tqdm
from transformers import pipeline

from hf_talking_points import MINI_LOCALIZER
from hf_talking_points.metrics import (
    METRIC_VERSION,
    THRESHOLDS,
    box_distances,
    check_thresholds,
    normalized_distances,
    score_points,
)
from hf_talking_points.models.processing_talking_points import to_rgb

_DESCRIPTION = """
How well descriptions of pixels tell which pixel is meant: a localizer reads the image and the description and points at a pixel, and its
distance to the true one is measured after dividing x by the image's width and y by its height. PCK@t is the share of distances below t in
percent, mPCK = (PCK@0.1 + PCK@0.2) / 2.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[str]`): descriptions, one for each point.
    references (`list` of `(x, y)`): the described pixels of the image as displayed, origin at its top-left corner.
    images (`list`): the image of each point as PIL image, path, URL or array. Points of one image go to the localizer together and form one
        cluster of the bootstrap; give such an image in one way, either as path or as pixels.
    boxes (`list` of `(x1, y1, x2, y2)` or None, *optional*): the box of each point's part or object in pixels, None where it is unknown.
        For `add` and `add_batch` load the module with `config_name="boxes"`.
    localizer (path, Hub id or loaded "point-localization" pipeline, *optional*): finds the points; by default the one in the package.
    batch_size (`int`, *optional*, defaults to 8): images at a time.
    thresholds (*optional*): the t of the PCK@t, by default 0.02, 0.05, 0.1 and 0.2.
Returns:
    "mpck" and "pck@t" in percent, "mean_distance" and "median_distance" in parts of the sides, "median_pixels", the number of points "n";
    with boxes "box_pck@0.1", the PCK at a tenth of the box's diagonal, and "box_n", the number of points with a box; "ci95" with 95 %
    bootstrap intervals clustered by image, NaN for a single image; "metric_version"; and "per_sample", a list of dicts with "image"
    (number of the distinct image), "width", "height", "prediction", "reference", "point" (where it was found), "confidence", "distance",
    "pixels", with boxes also "box" and "box_distance".
Raises:
    ValueError: no descriptions, columns of different lengths, an empty description, a point that is not finite or outside its image.
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


def stored_image(index, image, known):
    """What evaluate's cache holds of an image: path of a file or URL, else the displayed pixels as PNG, made once for all equal ones."""
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        if not os.path.isfile(path) and not path.startswith(("http://", "https://")):
            raise FileNotFoundError(
                f"images[{index}] is {path!r}, which is neither a file nor a URL"
            )
        return {"path": os.path.abspath(path) if os.path.isfile(path) else path, "bytes": None}
    # not left to datasets.Image: it would store a picture that was opened, then resized in place, as the path of its file
    image = to_rgb(image)
    key = (image.size, hashlib.sha256(image.tobytes()).digest())
    if key not in known:
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        known[key] = file.getvalue()
    return {"path": None, "bytes": known[key]}


def load_localizer(localizer):
    if isinstance(localizer, (str, os.PathLike)):
        try:
            return pipeline("point-localization", model=os.fspath(localizer))
        except OSError as error:
            raise OSError(
                f"localizer {os.fspath(localizer)!r} is neither a checkpoint folder nor a model that the Hub gives"
            ) from error
    if not callable(localizer):
        raise TypeError(
            f"localizer must be a path, a Hub id or a loaded point-localization pipeline, got {type(localizer).__name__}"
        )
    return localizer


def box_corners(boxes, references):
    """-> array of shape `(n, 4)`, NaN where there is no box. Raises ValueError before the localizer runs for what is not a box."""
    for index, box in enumerate(boxes):
        if box is not None and np.shape(box) != (4,):
            raise ValueError(f"boxes[{index}] is {box!r} but must be (x1, y1, x2, y2) or None")
    corners = np.array([[np.nan] * 4 if box is None else box for box in boxes], dtype=np.float64)
    box_distances(references, references, corners)
    return corners


class LocalizationDistance(evaluate.Metric):
    def _info(self):
        if self.config_name not in ("default", "boxes"):
            raise ValueError(f"config_name must be 'default' or 'boxes', got {self.config_name!r}")
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

    def add(self, *, prediction=None, reference=None, **kwargs):
        """Adds one description. The columns besides prediction and reference keep their names: `images=image`, `boxes=box`."""
        # `evaluate.combine` passes predictions and references among the kwargs
        sample = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: [value] for name, value in sample.items()})

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Adds descriptions with their points and images."""
        columns = {"predictions": predictions, "references": references, **kwargs}
        missing = [name for name in self._feature_names() if columns.get(name) is None]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} missing: each description needs {', '.join(self._feature_names())}"
            )
        known = {}
        columns["images"] = [
            stored_image(index, image, known) for index, image in enumerate(columns["images"])
        ]
        columns = {name: list(column) for name, column in columns.items()}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"columns must have one length, got {', '.join(f'{n} {name}' for name, n in lengths.items())}"
            )
        for index, (prediction, reference) in enumerate(
            zip(columns["predictions"], columns["references"])
        ):
            if not isinstance(prediction, str) or not prediction.strip():
                raise ValueError(
                    f"predictions[{index}] is {prediction!r} but must be a text that is not empty"
                )
            if (
                np.shape(reference) != (2,)
                or not np.isfinite(np.asarray(reference, dtype=np.float64)).all()
            ):
                raise ValueError(
                    f"references[{index}] is {reference!r} but must be a finite (x, y)"
                )
        super().add_batch(**columns)

    def _compute(
        self,
        predictions,
        references,
        images,
        boxes=None,
        localizer=MINI_LOCALIZER,
        batch_size=8,
        thresholds=THRESHOLDS,
    ):
        if not predictions:
            raise ValueError("no descriptions: add some before compute")
        check_thresholds(thresholds)
        corners = None if boxes is None else box_corners(boxes, references)
        locate = load_localizer(localizer)
        rows = {}
        for row, image in enumerate(images):
            rows.setdefault((image["path"], image["bytes"]), []).append(row)
        sizes, image_ids, found = (
            np.zeros((len(images), 2), dtype=int),
            np.zeros(len(images), dtype=int),
            {},
        )

        def requests():
            for image_id, ((path, png), members) in enumerate(rows.items()):
                image = to_rgb(path if png is None else Image.open(io.BytesIO(png)))
                sizes[members], image_ids[members] = image.size, image_id
                for row in members:
                    x, y = references[row]
                    if not (0 <= x <= image.width and 0 <= y <= image.height):
                        raise ValueError(
                            f"references[{row}] is ({x:g}, {y:g}), outside its image of {image.width} x {image.height} pixels"
                        )
                yield {"image": image, "text": [predictions[row] for row in members]}

        answers = tqdm(
            locate(requests(), batch_size=batch_size), total=len(rows), desc="Localizing"
        )
        for members, answer in zip(rows.values(), answers, strict=True):
            found.update(zip(members, answer, strict=True))
        points = np.array([found[row]["point"] for row in range(len(images))], dtype=np.float64)
        per_sample = {
            "image": image_ids.tolist(),
            "width": sizes[:, 0].tolist(),
            "height": sizes[:, 1].tolist(),
            "prediction": list(predictions),
            "reference": [tuple(reference) for reference in references],
            "point": [tuple(point) for point in points.tolist()],
            "confidence": [found[row].get("confidence") for row in range(len(images))],
            "distance": normalized_distances(points, references, sizes).tolist(),
            "pixels": np.linalg.norm(points - np.asarray(references), axis=1).tolist(),
        }
        if boxes is not None:
            per_sample["box"] = list(boxes)
            per_sample["box_distance"] = box_distances(points, references, corners).tolist()
        return {
            **score_points(points, references, sizes, image_ids, corners, thresholds),
            "metric_version": METRIC_VERSION,
            "per_sample": [dict(zip(per_sample, values)) for values in zip(*per_sample.values())],
        }
