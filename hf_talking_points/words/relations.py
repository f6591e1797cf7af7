"""Where a point is from things that have a name, each relation defined once."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.photos import Box


@dataclass(frozen=True)
class Landmark:
    """A thing of a photo that has a name and a place.

    Args:
        name (`str`): of the object ("dog") or of the part, with the object's own side ("left eye").
        box (`tuple`): (x1, y1, x2, y2) in pixels; without area where only a point is known.
        owner (`int`): number of the object in its photo, itself or the one that the part belongs to.
        is_object (`bool`)
        seen (`str`, *optional*): "left" or "right", which of the object's two it is as seen in the picture; None where
            there are not two of it, or where they do not lie apart.
    """

    name: str
    box: Box
    owner: int
    is_object: bool = False
    seen: str | None = None


@dataclass(frozen=True)
class Relation:
    """Where a point is from one landmark or from two.

    Args:
        kind (`str`): one of `KINDS`.
        landmarks (`tuple`): of [`Landmark`].
        direction (`str`, *optional*): "left", "right", "above", "below", "upper left", …, as seen.
        distance (`str`, *optional*): one of `DISTANCES`, a share of the object's size.
    """

    kind: str
    landmarks: tuple[Landmark, ...]
    direction: str | None = None
    distance: str | None = None
