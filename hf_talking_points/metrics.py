"""The numbers, in plain NumPy: normalized distances, PCK, mPCK, bootstrap intervals and comparisons clustered by
image.

With d = ||(predicted - true) / (width, height)|| of each point (section 4 of the paper):

    PCK@t = 100 * share of points with d < t
    mPCK = (PCK@0.1 + PCK@0.2) / 2

On points spread uniformly over the image, always answering the center gives mPCK 7.9, the center of the right cell of
a grid of 2 x 2, 3 x 3, 4 x 4 or 5 x 5 cells gives 31.4, 61.7, 75.1 or 89.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

METRIC_VERSION = "1.0"  # rises when the same predictions may get other numbers
THRESHOLDS = (0.02, 0.05, 0.1, 0.2)
BOX_THRESHOLD = 0.1  # part of a box's diagonal
REAL_KINDS = (
    "fiu"  # of NumPy's types: neither complex numbers, booleans, dates nor objects
)
NO_INTERVAL = (float("nan"), float("nan"))
DRAWS_AT_ONCE = 2_000_000  # of clusters: all resamples of thousands of images do not fit into memory


def _rows(name: str, rows: ArrayLike, width: int, length: int) -> np.ndarray:
    array = np.asarray(rows)
    if array.shape != (length, width):
        raise ValueError(
            f"{name} must have shape ({length}, {width}), got {array.shape}"
        )
    if array.size and array.dtype.kind not in REAL_KINDS:
        raise ValueError(f"{name} must be real numbers, got {array.dtype}")
    if np.ma.is_masked(rows):
        index = _first_row(np.ma.getmaskarray(rows))
        raise ValueError(f"{name}[{index}] is masked, so it has no value")
    return array.astype(np.float64)


def _first_row(wrong: np.ndarray) -> int:
    """Index of the first row that holds a True."""
    return int(np.argwhere(wrong)[0, 0])


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    finite = np.isfinite(array)
    if not finite.all():
        raise ValueError(f"{name}[{_first_row(~finite)}] is not finite")
    return array


def normalized_distances(
    predicted: ArrayLike, true: ArrayLike, sizes: ArrayLike
) -> np.ndarray:
    """Distance of predicted and true points after dividing x by the image's width and y by its height.

    Args:
        predicted, true (array of shape `(n, 2)`): (x, y) in pixels.
        sizes (array of shape `(n, 2)`): (width, height) of each point's image.
    Returns:
        array of shape `(n,)`.

    Raises ValueError for a wrong shape, for what is not finite, and for a size that is not positive.
    """
    length = len(np.asarray(true))
    predicted = _finite("predicted", _rows("predicted", predicted, 2, length))
    true = _finite("true", _rows("true", true, 2, length))
    sizes = _finite("sizes", _rows("sizes", sizes, 2, length))
    positive = sizes > 0
    if not positive.all():
        index = _first_row(~positive)
        size = tuple(sizes[index].tolist())
        raise ValueError(
            f"sizes[{index}] is {size} but width and height must be positive"
        )
    return np.linalg.norm((predicted - true) / sizes, axis=1)


def place_misses(predicted: ArrayLike, true: ArrayLike, sizes: ArrayLike) -> np.ndarray:
    """Predicted points with the farthest corner of the image in place of those that are NaN: what a miss counts as.

    Args:
        predicted, true (array of shape `(n, 2)`): (x, y) in pixels.
        sizes (array of shape `(n, 2)`): (width, height) of each point's image.
    Returns:
        array of shape `(n, 2)`.
    """
    length = len(np.asarray(true))
    predicted = _rows("predicted", predicted, 2, length)
    true = _rows("true", true, 2, length)
    sizes = _rows("sizes", sizes, 2, length)
    missed = np.isnan(predicted).any(axis=1)
    farthest_corner = np.where(true < sizes / 2, sizes, 0.0)
    return np.where(missed[:, None], farthest_corner, predicted)


def distances_with_misses(
    predicted: ArrayLike, true: ArrayLike, sizes: ArrayLike
) -> np.ndarray:
    """[`normalized_distances`] in which a predicted point that is NaN counts as the farthest corner of its image."""
    return normalized_distances(place_misses(predicted, true, sizes), true, sizes)


def pixel_distances(predicted: ArrayLike, true: ArrayLike) -> np.ndarray:
    """Distance of predicted and true points, arrays of shape `(n, 2)`, in pixels: an array of shape `(n,)`."""
    difference = np.asarray(predicted, dtype=np.float64) - np.asarray(
        true, dtype=np.float64
    )
    return np.linalg.norm(difference, axis=1)


def box_distances(
    predicted: ArrayLike, true: ArrayLike, boxes: ArrayLike
) -> np.ndarray:
    """Distance of predicted and true points in pixels, as part of the diagonal of the box of the part or object.

    Args:
        predicted, true (array of shape `(n, 2)`): (x, y) in pixels.
        boxes (array of shape `(n, 4)`): (x1, y1, x2, y2) in pixels; a row of NaN where no box is known.
    Returns:
        array of shape `(n,)`, NaN where no box is known.

    Raises ValueError for a wrong shape, for what is not finite, and for a box without area.
    """
    length = len(np.asarray(true))
    predicted = _finite("predicted", _rows("predicted", predicted, 2, length))
    true = _finite("true", _rows("true", true, 2, length))
    boxes = _rows("boxes", boxes, 4, length)
    unknown = np.isnan(boxes).all(axis=1)
    stand_in = (0.0, 0.0, 1.0, 1.0)
    boxes = _finite("boxes", np.where(unknown[:, None], stand_in, boxes))
    sides = boxes[:, 2:] - boxes[:, :2]
    positive = sides > 0
    if not positive.all():
        index = _first_row(~positive)
        box = tuple(boxes[index].tolist())
        raise ValueError(
            f"boxes[{index}] is {box} but must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2"
        )
    diagonals = np.linalg.norm(sides, axis=1)
    return np.where(unknown, np.nan, pixel_distances(predicted, true) / diagonals)


def check_thresholds(thresholds: Iterable[float]) -> None:
    """Raises ValueError naming a threshold that is not positive."""
    for index, threshold in enumerate(thresholds):
        if not threshold > 0:
            raise ValueError(
                f"thresholds[{index}] is {threshold!r} but must be positive"
            )


def pck(distances: ArrayLike, threshold: float) -> float:
    """Share of distances below `threshold`, in percent."""
    return 100.0 * float((np.asarray(distances) < threshold).mean())


def pck_curve(distances: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """[`pck`] at each of many thresholds: an array of the shape of `thresholds`, in percent.

    Raises ValueError for no distances."""
    ordered = np.sort(np.asarray(distances, dtype=np.float64), axis=None)
    if ordered.size == 0:
        raise ValueError("no distances: a share of nothing is not a number")
    below = np.searchsorted(
        ordered, np.asarray(thresholds, dtype=np.float64), side="left"
    )
    return 100.0 * below / ordered.size


def summary(
    distances: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, Any]:
    """mPCK = (PCK@0.1 + PCK@0.2) / 2 (section 4 of the paper), PCK at all thresholds, mean and median distance, n.

    Raises ValueError for no distances."""
    distances = np.asarray(distances, dtype=np.float64)
    if distances.size == 0:
        raise ValueError("no distances: a mean over nothing is not a number")
    numbers: dict[str, Any] = {f"pck@{t}": pck(distances, t) for t in thresholds}
    numbers["mpck"] = (pck(distances, 0.1) + pck(distances, 0.2)) / 2
    numbers["mean_distance"] = float(distances.mean())
    numbers["median_distance"] = float(np.median(distances))
    numbers["n"] = int(distances.size)
    return numbers


def mpck_values(distances: ArrayLike) -> np.ndarray:
    """Each sample's contribution to mPCK, in percent, so that their mean is the mPCK."""
    distances = np.asarray(distances)
    return 50.0 * ((distances < 0.1).astype(float) + (distances < 0.2))


def _cluster_totals(
    values: ArrayLike, clusters: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, the sum of the values of each cluster, its size).

    Raises ValueError for lists of different lengths, no values, and NaN."""
    values = np.asarray(values, dtype=np.float64)
    clusters = np.asarray(clusters)
    if values.ndim != 1 or values.size == 0 or clusters.shape != values.shape:
        raise ValueError(
            f"values and clusters must be two lists of one length, not empty, "
            f"got shapes {values.shape} and {clusters.shape}"
        )
    _finite("values", values)
    _, cluster_of_value = np.unique(clusters, return_inverse=True)
    return values, np.bincount(cluster_of_value, values), np.bincount(cluster_of_value)


def _standard_error(
    sums: np.ndarray, counts: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """The linearized standard error of a ratio of cluster totals.

    With C clusters of sums S_c and sizes n_c it is sqrt(C / (C - 1) * sum_c (S_c - mean * n_c)^2) / sum_c n_c.

    Args:
        sums, counts (arrays of shape `(..., C)`)
        mean (array of shape `(...)`)
    """
    number = sums.shape[-1]
    residuals = sums - mean[..., None] * counts
    variance = (residuals**2).sum(-1) * number / (number - 1)
    return np.sqrt(variance) / counts.sum(-1)


def _studentized_bootstrap(
    values: ArrayLike, clusters: ArrayLike, resamples: int, seed: int
) -> tuple[float, float, np.ndarray]:
    """The mean, its standard error, and the t of each resample, which draws whole clusters.

    t is (resampled mean - mean) / the resample's own [`_standard_error`]: -inf, 0 or inf for a resample without
    variation between its clusters. With one cluster standard error and t are NaN."""
    values, sums, counts = _cluster_totals(values, clusters)
    number = len(sums)
    mean = float(values.mean())
    if number == 1:
        return mean, float("nan"), np.full(resamples, np.nan)
    zero = 1e-12 * np.abs(values).max()  # below is rounding
    rng = np.random.default_rng(seed)
    rows_at_once = max(1, DRAWS_AT_ONCE // number)
    t = []
    for start in range(0, resamples, rows_at_once):
        rows = min(rows_at_once, resamples - start)
        drawn = rng.integers(number, size=(rows, number))
        drawn_sums = sums[drawn]
        drawn_counts = counts[drawn]
        means = drawn_sums.sum(1) / drawn_counts.sum(1)
        errors = _standard_error(drawn_sums, drawn_counts, means)
        difference = means - mean
        difference[np.abs(difference) <= zero] = 0.0
        without_variation = np.where(
            difference == 0, 0.0, np.copysign(np.inf, difference)
        )
        t.append(
            np.divide(difference, errors, out=without_variation, where=errors > zero)
        )
    standard_error = float(_standard_error(sums, counts, np.asarray(mean)))
    return mean, standard_error if standard_error > zero else 0.0, np.concatenate(t)


def _interval(
    values: ArrayLike, mean: float, standard_error: float, t: np.ndarray, level: float
) -> tuple[float, float]:
    """The bootstrap-t interval of [`clustered_interval`] from what [`_studentized_bootstrap`] gives."""
    if np.isnan(standard_error):
        return NO_INTERVAL
    if standard_error == 0:
        return mean, mean
    rank = int((len(t) + 1) * (1 - level) / 2)
    if rank < 1:
        raise ValueError(
            f"{len(t)} resamples are too few for a {100 * level:g} % interval"
        )
    ordered = np.sort(t)
    lowest = np.min(values)
    highest = np.max(values)
    low = np.clip(mean - ordered[-rank] * standard_error, lowest, highest)
    high = np.clip(mean - ordered[rank - 1] * standard_error, lowest, highest)
    return float(low), float(high)


def clustered_interval(
    values: ArrayLike,
    clusters: ArrayLike,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap-t interval of a mean, drawing whole clusters (images) with replacement.

    With the mean m of the sample, its standard error s, and t* = (m* - m) / s* of each resample, the interval is
    [m - t*_(1 - a/2) s, m - t*_(a/2) s] (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, section
    12.5), cut to the range of the values. A mean of few images is skewed and its spread is underestimated, so
    percentile intervals of 10 to 20 images hold the truth of a 95 % interval in 80 to 90 % of cases; these do in 93 to
    97 %, unless almost all images agree (a PCK near 0 or 100), where the images that differ are too few to tell.

    Args:
        values (array of shape `(n,)`), clusters (array of shape `(n,)`): value and image id of each sample.
        level (`float`): share of intervals that hold the truth.
        resamples (`int`), seed (`int`): of the bootstrap.
    Returns:
        (low, high); both NaN with a single cluster, both the mean where no cluster differs from another.

    Raises ValueError for lists of different lengths, no values, NaN, and too few resamples for the level.
    """
    mean, standard_error, t = _studentized_bootstrap(values, clusters, resamples, seed)
    return _interval(values, mean, standard_error, t, level)


def paired_difference(
    values_a: ArrayLike,
    values_b: ArrayLike,
    clusters: ArrayLike,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares two systems on the same samples: mean of a - b with the interval and test of a bootstrap-t over whole
    clusters (images).

    Both systems are drawn together, so what makes an image easy or hard for both cancels out. The two-sided p-value
    belongs to the interval: with t = mean / standard error of the differences it is 2 (1 + min(#{t* >= t}, #{t* <=
        t})) / (resamples + 1), at most 1
    (Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, section 4.4).

    Args:
        values_a, values_b, clusters (arrays of shape `(n,)`): each sample's value for either system and its image id.
        resamples (`int`), seed (`int`): of the bootstrap.
    Returns:
        `{"difference": float, "ci95": [low, high], "p_value": float}`; the p-value is 1 where the systems never
        differ, and NaN where the difference is the same in all clusters, or there is but one.

    Raises ValueError for lists of different lengths, no values, and NaN.
    """
    values_a = np.asarray(values_a, dtype=np.float64)
    values_b = np.asarray(values_b, dtype=np.float64)
    if values_a.shape != values_b.shape:
        raise ValueError(
            f"values_a and values_b must belong to the same samples, "
            f"got shapes {values_a.shape} and {values_b.shape}"
        )
    differences = values_a - values_b
    mean, standard_error, t = _studentized_bootstrap(
        differences, clusters, resamples, seed
    )
    low, high = _interval(differences, mean, standard_error, t, 0.95)
    if standard_error > 0:
        observed = mean / standard_error
        above = int((t >= observed).sum())
        below = int((t <= observed).sum())
        p_value = min(1.0, 2 * (1 + min(above, below)) / (resamples + 1))
    elif differences.any():
        p_value = float("nan")
    else:
        p_value = 1.0
    return {"difference": mean, "ci95": [low, high], "p_value": p_value}


def score_points(
    predicted: ArrayLike,
    true: ArrayLike,
    sizes: ArrayLike,
    image_ids: ArrayLike | None = None,
    boxes: ArrayLike | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, Any]:
    """All numbers of predicted points.

    Args:
        predicted, true (array of shape `(n, 2)`): (x, y) in pixels of the displayed image.
        sizes (array of shape `(n, 2)`): (width, height) of each point's image.
        image_ids (array of shape `(n,)`, *optional*): the image of each point, for the intervals; by default each has
            its own.
        boxes (array of shape `(n, 4)`, *optional*): (x1, y1, x2, y2) of each point's part or object in pixels, NaN
            where it is unknown.
        thresholds (`tuple[float]`): the t of the PCK@t, parts of the image's sides.
    Returns:
        `dict` of floats: "mpck" and "pck@t" in percent, "mean_distance" and "median_distance" in parts of the sides,
            "median_pixels", the
        number of points "n", and "ci95" with [low, high] of "mpck" and each "pck@t" ([`clustered_interval`]). With
        boxes also "box_pck@0.1" ([`box_distances`] below 0.1, in percent, NaN if no box is known), its interval, and
        the number of points with a box "box_n".

    Raises ValueError for a wrong shape, no points, what is not finite, and a threshold that is not positive.
    """
    check_thresholds(thresholds)
    if len(np.asarray(true)) == 0:
        raise ValueError("no points: a mean over nothing is not a number")
    distances = normalized_distances(predicted, true, sizes)
    clusters = np.arange(len(distances)) if image_ids is None else np.asarray(image_ids)
    scores = summary(distances, thresholds)
    scores["median_pixels"] = float(np.median(pixel_distances(predicted, true)))
    intervals = {"mpck": list(clustered_interval(mpck_values(distances), clusters))}
    for threshold in thresholds:
        hits = 100.0 * (distances < threshold)
        intervals[f"pck@{threshold}"] = list(clustered_interval(hits, clusters))
    scores["ci95"] = intervals
    if boxes is not None:
        _add_box_scores(scores, box_distances(predicted, true, boxes), clusters)
    return scores


def _add_box_scores(
    scores: dict[str, Any], distances: np.ndarray, clusters: np.ndarray
) -> None:
    """Adds the PCK at a tenth of a box's diagonal, its interval, and the number of points with a box, to the scores of
    all points.

    Args:
        scores (`dict`): of [`score_points`]; is changed.
        distances (array of shape `(n,)`): of [`box_distances`].
        clusters (array of shape `(n,)`): the image of each point.
    """
    known = ~np.isnan(distances)
    name = f"box_pck@{BOX_THRESHOLD}"
    scores["box_n"] = int(known.sum())
    if known.any():
        hits = 100.0 * (distances[known] < BOX_THRESHOLD)
        scores[name] = float(hits.mean())
        scores["ci95"][name] = list(clustered_interval(hits, clusters[known]))
    else:
        scores[name] = float("nan")
        scores["ci95"][name] = list(NO_INTERVAL)


def distinct_n(texts: Iterable[str], n: int = 2) -> float:
    """Share of different word n-grams among all word n-grams of `texts`, in [0, 1]; 0 where there is none."""
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.lower().split()
        for start in range(len(words) - n + 1):
            counts[tuple(words[start : start + n])] += 1
    return len(counts) / max(counts.total(), 1)
