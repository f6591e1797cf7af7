"""Where the points of a dataset come from: strata of candidates inside annotated parts, and a balanced choice.

Strata: "sift", the highest responses of OpenCV's SIFT in the part (the paper); "uniform", anywhere in the part;
"low_gradient", the flattest of many uniform points; "boundary", on the part's rim; "given", the annotated keypoints
and the points that texts of the source are about; "anywhere", in the whole photo, whatever is annotated on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from functools import cached_property

import numpy as np

from .opencv import require_opencv
from .photos import AnnotatedObject, Box, Part, PartPoint, Photo

STRATA = ("given", "sift", "uniform", "low_gradient", "boundary")
CANDIDATE_STRATA = STRATA[1:]
PHOTO_STRATA = ("anywhere",)
FLATTEST_OF = 16  # uniform points for each one of low gradient
SPARE = 4  # candidates for each point that is wanted: some lie too near to another one

ChosenPoint = tuple[AnnotatedObject | None, PartPoint, str]


def part_mask(part: Part, width: int, height: int) -> np.ndarray:
    """The pixels of an annotated part: its mask, or its whole box where no mask is known.

    Returns:
        bool `np.ndarray` of shape `(height, width)`.
    """
    whole = np.zeros((height, width), dtype=bool)
    left, top, right, bottom = part.pixel_box
    whole[top:bottom, left:right] = True if part.mask is None else part.mask
    return whole


class Candidates:
    """Candidates for points in one photo; SIFT and gradients are computed once for all its parts.

    Args:
        gray (`np.ndarray` of shape `(height, width)`, uint8)
    """

    def __init__(self, gray: np.ndarray) -> None:
        self.gray = gray

    @cached_property
    def sift(self) -> np.ndarray:
        """SIFT keypoints of the photo, the highest response first, float array of shape `(n, 2)`."""
        detector = require_opencv().SIFT_create()
        found = detector.detect(self.gray, None)
        found = sorted(found, key=lambda keypoint: (-keypoint.response, keypoint.pt))
        # OpenCV repeats a place for each of its orientations
        places = dict.fromkeys(keypoint.pt for keypoint in found)
        return (
            np.array(list(places)).reshape(-1, 2) + 0.5
        )  # its pixel centers are whole numbers

    @cached_property
    def gradient(self) -> np.ndarray:
        """Strength of the gradient, float array of shape `(height, width)`."""
        cv2 = require_opencv()
        smooth = cv2.GaussianBlur(self.gray, (0, 0), 1.5)
        along_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
        along_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
        return np.hypot(along_x, along_y)

    def inside(
        self, mask: np.ndarray, stratum: str, rng: np.random.Generator, count: int
    ) -> np.ndarray:
        """Up to `count` candidates of one stratum in one part, the best first.

        Args:
            mask (bool `np.ndarray` of shape `(height, width)`): the pixels of the part.
            stratum (`str`): "sift", "uniform", "low_gradient" or "boundary".
            rng (`np.random.Generator`)
            count (`int`)
        Returns:
            float `np.ndarray` of shape `(n, 2)`: (x, y) in pixels; the center of the first pixel is (0.5, 0.5).
        """
        if stratum not in CANDIDATE_STRATA:
            raise ValueError(
                f"stratum must be one of {CANDIDATE_STRATA}, got {stratum!r}"
            )
        if stratum == "sift":
            return self._sift_inside(mask)[:count]
        if stratum == "boundary":
            mask = rim_of(mask)
        rows, columns = np.nonzero(mask)
        order = rng.permutation(len(rows))
        if stratum == "low_gradient":
            order = order[: FLATTEST_OF * count]
            gradients = self.gradient[rows[order], columns[order]]
            order = order[np.argsort(gradients, kind="stable")]
        chosen = order[:count]
        return np.stack([columns[chosen], rows[chosen]], axis=1) + 0.5  # (n, 2)

    def _sift_inside(self, mask: np.ndarray) -> np.ndarray:
        """The SIFT keypoints whose pixel belongs to a mask."""
        height, width = mask.shape
        pixels = np.floor(self.sift).astype(int)
        columns = pixels[:, 0].clip(0, width - 1)
        rows = pixels[:, 1].clip(0, height - 1)
        return self.sift[mask[rows, columns]]


def rim_of(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that have a neighbor outside it."""
    cv2 = require_opencv()
    neighborhood = np.ones((3, 3), np.uint8)
    inner = cv2.erode(
        mask.astype(np.uint8),
        neighborhood,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return mask & (inner == 0)


class SpreadPoints:
    """Points of one photo that keep a distance from each other; of two that are too near the first is kept.

    Args:
        least (`float`): distance in pixels.
    """

    def __init__(self, least: float) -> None:
        self.least = least
        self.chosen: list[ChosenPoint] = []

    def is_free(self, x: float, y: float) -> bool:
        """Whether no point that has been taken is too near."""
        for _, point, _ in self.chosen:
            if (x - point.x) ** 2 + (y - point.y) ** 2 < self.least**2:
                return False
        return True

    def take(
        self,
        annotated: AnnotatedObject | None,
        points: Iterable[PartPoint],
        stratum: str,
        count: int,
    ) -> None:
        """Takes up to `count` of the points, the first ones first."""
        taken = 0
        for point in points:
            if taken >= count:
                return
            if self.is_free(point.x, point.y):
                self.chosen.append((annotated, point, stratum))
                taken += 1


def points_at(
    places: np.ndarray, part: str | None = None, box: Box | None = None
) -> list[PartPoint]:
    """Points of a part at places, an array of shape `(n, 2)`."""
    return [PartPoint(part, float(x), float(y), box) for x, y in places]


def places_anywhere(
    width: int, height: int, rng: np.random.Generator, count: int
) -> np.ndarray:
    """Centers of random pixels, float array of shape `(count, 2)`: (x, y)."""
    return np.floor(rng.uniform((0, 0), (width, height), (count, 2))) + 0.5


def choose_points(
    photo: Photo,
    gray: np.ndarray,
    per_part: dict[str, int],
    per_photo: dict[str, int],
    min_distance: float,
    rng: np.random.Generator,
) -> list[ChosenPoint]:
    """Points of one photo: the annotated and described ones, candidates inside its annotated parts, and anywhere.

    Args:
        photo ([`Photo`]): already reduced to the parts and points that the dataset wants.
        gray (`np.ndarray` of shape `(height, width)`, uint8): its pixels.
        per_part (`dict[str, int]`): stratum -> points of each part; strata without an entry are left out. "given"
            counts the annotated points of each part's name, and those on no annotated object.
        per_photo (`dict[str, int]`): stratum -> points of the photo.
        min_distance (`float`): least distance between two points of the photo, as a share of its longer side.
        rng (`np.random.Generator`)
    Returns:
        list of (object or None, [`PartPoint`], stratum).
    """
    height, width = gray.shape
    candidates = Candidates(gray)
    spread = SpreadPoints(min_distance * max(width, height))
    given = min(1, per_part.get("given", 0))
    for annotated in photo.objects:
        for point in annotated.points:
            spread.take(annotated, [point], "given", given)
        for part in annotated.parts:
            mask = part_mask(part, width, height)
            for stratum, count in per_part.items():
                if stratum == "given" or not count:
                    continue
                places = candidates.inside(mask, stratum, rng, SPARE * count)
                points = points_at(places, part.name, part.box)
                spread.take(annotated, points, stratum, count)
    for point in photo.points:
        spread.take(None, [point], "given", given)
    for stratum, count in per_photo.items():
        places = places_anywhere(width, height, rng, SPARE * count)
        spread.take(None, points_at(places), stratum, count)
    return spread.chosen


def draw_number(seed: int, *key: Hashable) -> float:
    """A number in [0, 1) that follows from seed and key alone, whatever the order or the number of processes."""
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def balanced_thresholds(
    numbers: dict[Hashable, list[float]], most: int
) -> dict[Hashable, float]:
    """What keeps at most `most` of each class, chosen at random.

    Args:
        numbers (`dict`): class -> list of the members' [`draw_number`].
        most (`int`)
    Returns:
        dict: class -> the largest number that is kept.
    """
    thresholds = {}
    for name, values in numbers.items():
        kept = min(most, len(values))
        thresholds[name] = sorted(values)[kept - 1]
    return thresholds
