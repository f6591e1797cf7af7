"""What the pixels around a point look like, in words that people use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """The even region of the photo that a point lies in, found by segmentation.

    Args:
        share (`float`): of the photo's area.
        elongation (`float`): longer axis over shorter axis, at least 1.
        roundness (`float`): 1 for a disk, toward 0 for a thin or ragged region.
        is_upright (`bool`): whether the longer axis is nearer to the vertical.
        at_border (`bool`): whether it reaches the photo's border.
        center (`tuple`): (x, y) in pixels.
    """

    share: float
    elongation: float
    roundness: float
    is_upright: bool
    at_border: bool
    center: tuple[float, float]


@dataclass(frozen=True)
class SpotLooks:
    """What one spot looks like.

    Args:
        color (`str`): one of `COLORS`.
        pattern (`str`): one of `PATTERNS`: "plain", "fine texture", "coarse texture", "edge", "stripe", "highlight",
            "shadow".
        borders (`tuple`): (direction, color) pairs where a clearly different color lies close by: ("above", "white").
            Directions are "above", "below", "left", "right".
        region ([`Region`], *optional*)
    """

    color: str
    pattern: str
    borders: tuple[tuple[str, str], ...] = ()
    region: Region | None = None
