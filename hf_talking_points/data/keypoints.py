"""Where the points of a dataset come from: strata of candidates inside annotated parts, and a balanced choice among them.

Strata: "sift", the highest responses of OpenCV's SIFT in the part (the paper); "uniform", anywhere in the part; "low_gradient", the
flattest of many uniform points; "boundary", on the part's rim; "given", the annotated keypoints themselves.
"""

import hashlib
from functools import cached_property

import cv2
import numpy as np

from .sources import PartPoint

STRATA = ("given", "sift", "uniform", "low_gradient", "boundary")


def part_mask(part, width, height):
    """The pixels of an annotated part, bool array of shape `(height, width)`: its mask, or its whole box where no mask is known."""
    whole = np.zeros((height, width), dtype=bool)
    left, top, right, bottom = part.pixel_box
    whole[top:bottom, left:right] = True if part.mask is None else part.mask
    return whole


class Candidates:
    """Candidates for points in one photo; SIFT and gradients are computed once for all its parts.

    Args:
        gray (`np.ndarray` of shape `(height, width)`, uint8)
    """

    def __init__(self, gray):
        self.gray = gray

    @cached_property
    def sift(self):
        """SIFT keypoints of the photo, the highest response first, float array of shape `(n, 2)`."""
        found = sorted(cv2.SIFT_create().detect(self.gray, None), key=lambda k: (-k.response, k.pt))
        places = dict.fromkeys(
            k.pt for k in found
        )  # OpenCV repeats a place for each of its orientations
        return np.array(list(places)).reshape(-1, 2) + 0.5  # its pixel centres are whole numbers

    @cached_property
    def gradient(self):
        smooth = cv2.GaussianBlur(self.gray, (0, 0), 1.5)
        return np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))

    def inside(self, mask, stratum, rng, count):
        """Up to `count` candidates of one stratum in one part, the best first.

        Args:
            mask (bool `np.ndarray` of shape `(height, width)`): the pixels of the part.
            stratum (`str`): "sift", "uniform", "low_gradient" or "boundary".
            rng (`np.random.Generator`)
        Returns:
            float array of shape `(n, 2)`: (x, y) in pixels; the centre of the first pixel is (0.5, 0.5).
        """
        if stratum not in STRATA[1:]:
            raise ValueError(f"stratum must be one of {STRATA[1:]}, got {stratum!r}")
        if stratum == "sift":
            columns, rows = (
                np.floor(self.sift.T)
                .astype(int)
                .clip(0, [[mask.shape[1] - 1], [mask.shape[0] - 1]])
            )
            return self.sift[mask[rows, columns]][:count]
        if stratum == "boundary":
            inner = cv2.erode(
                mask.astype(np.uint8),
                np.ones((3, 3), np.uint8),
                borderType=cv2.BORDER_CONSTANT,
                borderValue=0,
            )
            mask = mask & (inner == 0)
        rows, columns = np.nonzero(mask)
        chosen = rng.permutation(len(rows))[: 16 * count if stratum == "low_gradient" else count]
        if stratum == "low_gradient":
            chosen = chosen[
                np.argsort(self.gradient[rows[chosen], columns[chosen]], kind="stable")[:count]
            ]
        return np.stack([columns[chosen], rows[chosen]], 1) + 0.5


def choose_points(photo, gray, per_part, min_distance, rng):
    """Points of one photo: the annotated ones, and candidates inside its annotated parts.

    Args:
        photo ([`Photo`]): already reduced to the parts and points that the dataset wants.
        gray (`np.ndarray` of shape `(height, width)`, uint8): its pixels.
        per_part (`dict[str, int]`): stratum -> points of each part; strata without an entry are left out. "given" counts the annotated
            points of each part's name.
        min_distance (`float`): least distance between two points of the photo, as a share of its longer side.
    Returns:
        list of (object, [`PartPoint`], stratum).
    """
    height, width = gray.shape
    candidates = Candidates(gray)
    least = min_distance * max(width, height)
    chosen, places = [], []

    def take(annotated, name, box, stratum, points, count):
        for x, y in points:
            if count <= 0:
                return
            if all((x - u) ** 2 + (y - v) ** 2 >= least**2 for u, v in places):
                places.append((x, y))
                chosen.append((annotated, PartPoint(name, float(x), float(y), box), stratum))
                count -= 1

    for annotated in photo.objects:
        for point in annotated.points:
            take(
                annotated,
                point.part,
                point.box,
                "given",
                [(point.x, point.y)],
                min(1, per_part.get("given", 0)),
            )
        for part in annotated.parts:
            mask = part_mask(part, width, height)
            for stratum, count in per_part.items():
                if stratum != "given" and count:
                    # more than are wanted: some will lie too near to another point
                    take(
                        annotated,
                        part.name,
                        part.box,
                        stratum,
                        candidates.inside(mask, stratum, rng, 4 * count),
                        count,
                    )
    return chosen


def draw_number(seed, *key):
    """A number in [0, 1) that follows from seed and key alone, so that a choice does not depend on order or on the number of processes."""
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def balanced_thresholds(numbers, most):
    """What keeps at most `most` of each class, chosen at random.

    Args:
        numbers (`dict`): class -> list of the members' [`draw_number`].
        most (`int`)
    Returns:
        dict: class -> the largest number that is kept.
    """
    return {name: sorted(values)[min(most, len(values)) - 1] for name, values in numbers.items()}
