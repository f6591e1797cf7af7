"""The numbers of the protocol: annotated points as a table, what each system's answers are worth, and how systems
compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..data.false_claims import false_claim_rows, false_shares
from ..data.photos import AnnotatedObject, PartPoint, Photo
from ..data.triplets import View
from ..metrics import (
    clustered_interval,
    mpck_values,
    normalized_distances,
    paired_difference,
    place_misses,
    score_points,
    summary,
)
from ..words.facts import Scene
from ..words.looks import PixelLooks

UNKNOWN_BOX = [float("nan")] * 4
STRATUM_NUMBERS = ("pck@0.05", "mpck", "n")


def image_ids(views: Sequence[View]) -> list[str]:
    """An id for the photo of each view that it shares with photos of the same content alone.

    It is the photo's own, with the beginning of its [`content_key`] where another photo has the same one.
    """
    id_of_content: dict[str, str] = {}
    taken = set()
    ids = []
    for view in views:
        content = view.source.content_key
        if content not in id_of_content:
            image_id = view.source.id
            if image_id in taken:
                image_id = f"{image_id} ({content[:12]})"
            taken.add(image_id)
            id_of_content[content] = image_id
        ids.append(id_of_content[content])
    return ids


def points_table(views: Sequence[View]) -> pd.DataFrame:
    """A row for every annotated point of `views`.

    Returns:
        `pandas.DataFrame`: image_id (see [`image_ids`]), x, y, width, height, object, part, their boxes, what
        [`subsets`] asks of it, and whether object and part alone say which point is meant (`unambiguous`).
    """
    rows = []
    for view, image_id in zip(views, image_ids(views)):
        looks = PixelLooks(np.asarray(view.image()))
        points = view.points()
        looks.look_at([(point.x, point.y) for _, point in points])
        names = [name_pair(annotated, point) for annotated, point in points]
        for (annotated, point), name in zip(points, names):
            spot = looks.at(point.x, point.y)
            row = {
                "image_id": image_id,
                "x": point.x,
                "y": point.y,
                "width": view.photo.size[0],
                "height": view.photo.size[1],
                "object": None if annotated is None else annotated.category,
                "object_box": None if annotated is None else list(annotated.box),
                "part": point.part,
                "part_box": None if point.box is None else list(point.box),
                "stratum": point.stratum,
                "object_area": object_area(annotated, view.photo),
                "objects": len(view.photo.objects),
                "color": spot.color,
                "pattern": spot.pattern,
                "unambiguous": None not in name and names.count(name) == 1,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def name_pair(
    annotated: AnnotatedObject | None, point: PartPoint
) -> tuple[str | None, str | None]:
    """(object, part): what a text that only names both says of a point."""
    return (None if annotated is None else annotated.category), point.part


def object_area(annotated: AnnotatedObject | None, photo: Photo) -> float:
    """The share of the photo that an object's box covers; NaN without an object."""
    if annotated is None:
        return float("nan")
    x1, y1, x2, y2 = annotated.box
    width, height = photo.size
    return (x2 - x1) * (y2 - y1) / (width * height)


def subsets(points: pd.DataFrame) -> dict[str, np.ndarray]:
    """Name -> which points of [`points_table`] belong to it, bool arrays of shape `(n,)`."""
    flat_places = (points.stratum == "low_gradient") | (points.pattern == "plain")
    masks = {
        "SIFT points": points.stratum == "sift",
        "uniform points": points.stratum == "uniform",
        "low-gradient points": flat_places,
        "boundary points": points.stratum == "boundary",
        "small objects (< 5 % of the image)": points.object_area < 0.05,
        "crowded images (3 objects or more)": points.objects >= 3,
        "unambiguous by object and part": points.unambiguous,
    }
    return {name: mask.to_numpy(dtype=bool) for name, mask in masks.items()}


def scores(
    found: np.ndarray, points: pd.DataFrame
) -> tuple[dict[str, Any], np.ndarray]:
    """The numbers of one system.

    Args:
        found (array of shape `(n, 2)`): in pixels, NaN where there was no answer.
        points (`pandas.DataFrame`): of [`points_table`].
    Returns:
        (`dict` of [`score_points`] with the object's box, in which a miss counts as the farthest corner of the image,
        with `misses`, and with `strata`: mPCK and PCK@0.05 of each of the [`subsets`] that has points; normalized
            distances of shape `(n,)`)
    """
    true = points[["x", "y"]].to_numpy()
    sizes = points[["width", "height"]].to_numpy()
    boxes = [UNKNOWN_BOX if box is None else box for box in points.object_box]
    placed = place_misses(found, true, sizes)
    distances = normalized_distances(placed, true, sizes)
    numbers = score_points(placed, true, sizes, points.image_id, boxes)
    numbers["misses"] = int(np.isnan(found).any(axis=1).sum())
    numbers["strata"] = {}
    for name, mask in subsets(points).items():
        if mask.any():
            summarized = summary(distances[mask])
            numbers["strata"][name] = {key: summarized[key] for key in STRATUM_NUMBERS}
    return numbers, distances


def claims_of_systems(
    views: Sequence[View], texts: Mapping[str, Sequence[str]]
) -> dict[str, list[list[dict[str, str]]]]:
    """What the texts of systems say that annotation or pixels contradict.

    Args:
        views (list of [`View`])
        texts (`dict`): system -> a text for each point of the views.
    Returns:
        `dict`: system -> the [`false_claim_rows`] of each text.
    """
    claims: dict[str, list[list[dict[str, str]]]] = {system: [] for system in texts}
    number = 0
    for view in views:
        scene = Scene(view.photo, np.asarray(view.image()))
        points = view.points()
        scene.looks.look_at([(point.x, point.y) for _, point in points])
        for annotated, point in points:
            for system, of_system in texts.items():
                found = false_claim_rows(of_system[number], scene, annotated, point)
                claims[system].append(found)
            number += 1
    return claims


def claim_scores(
    texts: Sequence[str],
    claims: Sequence[Sequence[dict[str, str]]],
    image_ids: Sequence[str],
) -> dict[str, Any] | None:
    """How many texts of a system say something false, in percent; None where it has no text.

    Args:
        texts (list of `str`): one for each point; empty ones count for nothing.
        claims (list): the [`false_claim_rows`] of each text.
        image_ids (list of `str`): of the photo of each point.
    Returns:
        `dict`: "share" with its interval "ci95", "kinds" with the share of texts that have a false claim of each kind,
        and "n", the number of texts.
    """
    written = [index for index, text in enumerate(texts) if text]
    if not written:
        return None
    kept = [claims[index] for index in written]
    having = np.array([100.0 * bool(found) for found in kept])
    photos = [image_ids[index] for index in written]
    return {
        "share": float(having.mean()),
        "ci95": list(clustered_interval(having, photos)),
        "kinds": false_shares(kept),
        "n": len(written),
    }


def compare_with_reference(
    rows: Sequence[dict[str, Any]],
    samples: dict[tuple[str, str], pd.DataFrame],
    reference: str,
    first_localizer: str,
) -> None:
    """Adds to each row of a report its difference in mPCK from the reference text through the same localizer.

    Args:
        rows (list of `dict`): "system" and "localizer" of each; "versus" is added. Where no localizer was asked, "-",
            that of the first one is compared with.
        samples (`dict`): (system, localizer) -> its points with their distances.
        reference (`str`): system that the others are compared with.
        first_localizer (`str`)
    """
    for row in rows:
        localizer = first_localizer if row["localizer"] == "-" else row["localizer"]
        compared = samples.get((reference, localizer))
        if compared is None or row["system"] == reference:
            continue
        judged = samples[row["system"], row["localizer"]]
        row["versus"] = paired_difference(
            mpck_values(judged.distance),
            mpck_values(compared.distance),
            compared.image_id,
        )


def agreement(rows: Sequence[dict[str, Any]]) -> float | None:
    """How alike the localizers rank the systems: the mean Spearman correlation of their mPCKs; None with fewer than
    two localizers or three systems."""
    judged = pd.DataFrame([row for row in rows if not row["control"]])
    table = judged.pivot(index="system", columns="localizer", values="mpck")
    systems, localizers = table.shape
    if systems < 3 or localizers < 2:
        return None
    correlations = table.corr(method="spearman").to_numpy()
    pairs = np.triu_indices(localizers, 1)
    return float(correlations[pairs].mean())
