"""COCO's segmentations, polygons or run lengths, as masks: bool arrays of shape `(height, width)`."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np

from .fields import is_number
from .photos import Part

FEWEST_CORNERS = 3  # polygons of fewer hold no pixel
# of a character of packed run lengths, less 48
GROUP_BITS = 5
SIGN = 16  # the highest of the bits, in a run's last character
MORE_FOLLOW = 32


def segmentation_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """A COCO segmentation as a mask. What sticks out of the photo is cut off.

    Args:
        segmentation (`list` or `dict`): polygons, each a list x1, y1, x2, y2, …, or run lengths.
        size (`tuple`): (width, height) of the photo in pixels.
    Returns:
        bool `np.ndarray` of shape `(height, width)`.

    Raises ValueError where it is malformed.
    """
    if isinstance(segmentation, dict):
        return run_length_mask(segmentation, size)
    if not isinstance(segmentation, list):
        raise ValueError(
            f"segmentation: expected polygons or run lengths, found {reprlib.repr(segmentation)}"
        )
    width, height = size
    mask = np.zeros((height, width), bool)
    for polygon in segmentation:
        corners = polygon_corners(polygon)
        if len(corners) >= FEWEST_CORNERS:
            mask |= polygon_mask(corners, size)
    return mask


def polygon_corners(polygon: Any) -> np.ndarray:
    """The corners of a COCO polygon, float array of shape `(n, 2)`."""
    is_list = isinstance(polygon, list) and len(polygon) % 2 == 0
    if not is_list or not all(is_number(value) for value in polygon):
        raise ValueError(
            "segmentation: expected polygons as lists x1, y1, x2, y2, …, "
            f"found {reprlib.repr(polygon)}"
        )
    return np.array(polygon, dtype=float).reshape(-1, 2)


def polygon_mask(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose center lies in a polygon, by the even-odd rule.

    Args:
        corners (`np.ndarray` of shape `(n, 2)`): (x, y) in pixels.
        size (`tuple`): (width, height) of the photo in pixels.
    Returns:
        bool `np.ndarray` of shape `(height, width)`.
    """
    width, height = size
    crossings = np.zeros(
        (height, width + 1), np.int32
    )  # edges left of a pixel, by column
    for number, corner in enumerate(corners):
        # from top to bottom, so that an edge rounds alike in both directions
        edge = sorted(
            [tuple(corner), tuple(corners[number - 1])],
            key=lambda end: (end[1], end[0]),
        )
        (top_x, top_y), (bottom_x, bottom_y) = edge
        first, last = np.clip(
            np.ceil(np.array([top_y, bottom_y]) - 0.5), 0, height
        ).astype(int)
        if first >= last:
            continue
        rows = np.arange(first, last)
        x = top_x + (rows + 0.5 - top_y) * (bottom_x - top_x) / (bottom_y - top_y)
        columns = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
        crossings[rows, columns] += 1
    return crossings.cumsum(1)[:, :width] % 2 == 1


def run_length_mask(segmentation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """COCO's run lengths as a mask. Runs of 0 and 1 alternate down the columns.

    Args:
        segmentation (`dict`): "size", [height, width], and "counts", the runs as a list or packed in a string.
        size (`tuple`): (width, height) of the photo in pixels.
    Returns:
        bool `np.ndarray` of shape `(height, width)`.
    """
    width, height = size
    if segmentation.get("size") != [height, width]:
        raise ValueError(
            f"segmentation: size: expected {[height, width]}, "
            f"found {reprlib.repr(segmentation.get('size'))}"
        )
    counts: Any = segmentation.get("counts")
    if isinstance(counts, str):
        counts = unpack_run_lengths(counts)
    if not is_runs(counts, width * height):
        raise ValueError(
            f"segmentation: counts: expected runs of {width * height} pixels in all, "
            f"found {reprlib.repr(counts)}"
        )
    is_inside = np.arange(len(counts)) % 2 == 1
    columns = np.repeat(is_inside, counts).reshape(width, height)
    return columns.T  # (height, width)


def is_runs(counts: Any, pixels: int) -> bool:
    """Whether these are lengths of runs that make up so many pixels."""
    if not isinstance(counts, list):
        return False
    for count in counts:
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            return False
    return sum(counts) == pixels


def unpack_run_lengths(text: str) -> list[int]:
    """The run lengths that COCO packs in a string.

    Each run takes groups of five bits, the lowest first, one group a character: 48 + the group, + 32 where more
    follow, the last group's highest bit being the sign. From the fourth run on it is the difference to the run before
    the last.
    """
    counts: list[int] = []
    value = 0
    shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 2 * MORE_FOLLOW:
            raise ValueError(
                f"segmentation: counts: character {character!r} is none of COCO's run lengths"
            )
        value |= (group & ~MORE_FOLLOW) << shift
        shift += GROUP_BITS
        if group & MORE_FOLLOW:
            continue
        if group & SIGN:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
        value = 0
        shift = 0
    return counts


def part_of_mask(name: str, mask: np.ndarray) -> Part:
    """A [`Part`] from the mask of a whole photo; its box is the tightest. Raises ValueError for an empty mask."""
    columns = np.flatnonzero(mask.any(0))
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        raise ValueError("its segmentation covers no pixel")
    left, right = int(columns[0]), int(columns[-1]) + 1
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    # a copy, as a slice would keep the whole mask in memory
    return Part(name, (left, top, right, bottom), mask[top:bottom, left:right].copy())
