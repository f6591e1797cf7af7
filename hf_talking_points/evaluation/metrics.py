"""The numbers, in plain NumPy: normalised distances, PCK, mPCK, and bootstrap intervals clustered by image."""

import numpy as np

THRESHOLDS = (0.02, 0.05, 0.1, 0.2)


def normalized_distances(predicted, true, sizes):
    """Distance of predicted and true points after dividing x by the image's width and y by its height.

    Args:
        predicted, true (array of shape `(n, 2)`): (x, y) in pixels.
        sizes (array of shape `(n, 2)`): (width, height) of each point's image.
    """
    predicted, true, sizes = (np.asarray(a, dtype=np.float64) for a in (predicted, true, sizes))
    for name, array in (("predicted", predicted), ("true", true), ("sizes", sizes)):
        if array.ndim != 2 or array.shape[1] != 2 or len(array) != len(true):
            raise ValueError(f"{name} must have shape ({len(true)}, 2), got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}[{int(np.argwhere(~np.isfinite(array))[0, 0])}] is not finite")
    return np.linalg.norm((predicted - true) / sizes, axis=1)


def pck(distances, threshold):
    """Share of distances below `threshold`, in percent."""
    return 100.0 * float((np.asarray(distances) < threshold).mean())


def summary(distances):
    """mPCK = (PCK@0.1 + PCK@0.2) / 2 (section 4 of the paper), PCK at all thresholds, mean and median distance, n."""
    distances = np.asarray(distances, dtype=np.float64)
    if distances.size == 0:
        raise ValueError("no distances: a mean over nothing is not a number")
    result = {f"pck@{t}": pck(distances, t) for t in THRESHOLDS}
    result["mpck"] = (result["pck@0.1"] + result["pck@0.2"]) / 2
    return {**result, "mean_distance": float(distances.mean()), "median_distance": float(np.median(distances)), "n": int(distances.size)}


def clustered_interval(values, clusters, level=0.95, resamples=1000, seed=0):
    """Percentile bootstrap interval of a mean, drawing whole clusters (images) with replacement.

    Args:
        values (array of shape `(n,)`), clusters (array of shape `(n,)`): value and image id of each sample.
    """
    values = np.asarray(values, dtype=np.float64)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    tail = (1 - level) / 2
    return tuple(float(v) for v in np.quantile(means, [tail, 1 - tail]))


def mpck_values(distances):
    """Each sample's contribution to mPCK, in percent, so that their mean is the mPCK."""
    distances = np.asarray(distances)
    return 50.0 * ((distances < 0.1).astype(float) + (distances < 0.2))
