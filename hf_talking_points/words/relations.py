"""Where a point is from things that have a name, each relation defined once.

A definition is a margin in shares of an object's size: how far a point is inside the place that a relation means, 0 on
its rim, negative outside. Directions are as seen in the picture. The size of an object is the longer side of its box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from ..data.photos import Box

__all__ = [
    "DIRECTIONS",
    "DISTANCES",
    "KINDS",
    "Landmark",
    "Relation",
    "along_way",
    "margin",
    "relations_of",
]

KINDS = ("beside", "level with", "straight", "between", "halfway")
DIRECTIONS = {  # unit steps to the right and down, clockwise
    "right": (1, 0),
    "lower right": (1, 1),
    "below": (0, 1),
    "lower left": (-1, 1),
    "left": (-1, 0),
    "upper left": (-1, -1),
    "above": (0, -1),
    "upper right": (1, -1),
}
DISTANCES = {  # shares of the object's size
    "just": (0.0, 0.1),
    "a little": (0.1, 0.25),
    "some way": (0.25, 0.6),
    "far": (0.6, math.inf),
}
CLOCKWISE = tuple(DIRECTIONS)
ANGLES = {name: math.atan2(down, right) for name, (right, down) in DIRECTIONS.items()}
OCTANT = math.tau / len(DIRECTIONS)  # what a direction spans
APART = 0.03  # what lies nearer to a landmark is at it
ALIGNED = 0.04  # what differs by less is level with it, or straight above or below
ALIGNED_APART = 0.12
BETWEEN = (0.15, 0.85)  # of the way from one landmark to the other
HALFWAY = (0.42, 0.58)
BESIDE_WAY = 0.2  # most distance from the way, as a share of it
SHORTEST_WAY = 0.15
CLEAR = 0.005  # margin of what may be told
MOST_LANDMARKS = 6  # the nearest ones that relations are looked for with


@dataclass(frozen=True)
class Landmark:
    """A thing of a photo that has a name and a place.

    Args:
        name (`str`): of the object ("dog") or of the part, with the object's own side ("left eye").
        box (`tuple`): (x1, y1, x2, y2) in pixels; without area where only a point is known.
        owner (`int`): number of the object in its photo, itself or the one that the part belongs to.
        size (`float`): of that object, in pixels; more where a point beside a small object is told from it.
        is_object (`bool`)
        seen (`str`, *optional*): "left" or "right", which of the object's two it is as seen in the picture; None where
            there are not two of it, or where they do not lie apart.
        category (`str`, *optional*): of the object.
        which (`str`, *optional*): of an object, which of several of its category it is: "leftmost".
    """

    name: str
    box: Box
    owner: int
    size: float
    is_object: bool = False
    seen: str | None = None
    category: str | None = None
    which: str | None = None

    @cached_property
    def center(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    def offset(self, x: float, y: float) -> tuple[float, float]:
        """(dx, dy) from the nearest place of the landmark to a point, in shares of the object's size."""
        x1, y1, x2, y2 = self.box
        dx = x - min(max(x, x1), x2)
        dy = y - min(max(y, y1), y2)
        return dx / self.size, dy / self.size


@dataclass(frozen=True)
class Relation:
    """Where a point is from one landmark or from two.

    Args:
        kind (`str`): one of `KINDS`. "beside": in a direction and at a distance from the landmark; "level with": as
            high in the picture, to its left or right; "straight": straight above or below; "between": on the way from
            the first landmark to the second, in neither of them, nearer to the first; "halfway": in the middle of that
            way.
        landmarks (`tuple`): of [`Landmark`], two for "between" and "halfway".
        direction (`str`, *optional*): one of `DIRECTIONS`.
        distance (`str`, *optional*): one of `DISTANCES`; of "beside" alone.
    """

    kind: str
    landmarks: tuple[Landmark, ...]
    direction: str | None = None
    distance: str | None = None


def margin(relation: Relation, x: float, y: float) -> float:
    """How far a point is inside the place that a relation means, in shares of the object's size; negative outside.

    Args:
        relation ([`Relation`])
        x, y (`float`): in pixels.

    Raises ValueError for a kind that is none of `KINDS`.
    """
    landmark = relation.landmarks[0]
    if relation.kind == "beside":
        offset = landmark.offset(x, y)
        return margin_beside(relation.direction, relation.distance, *offset)
    if relation.kind == "level with":
        return margin_level(landmark, relation.direction == "right", x, y)
    if relation.kind == "straight":
        return margin_straight(landmark, relation.direction == "below", x, y)
    if relation.kind == "between":
        return margin_on_way(relation.landmarks, (BETWEEN[0], HALFWAY[0]), x, y)
    if relation.kind == "halfway":
        return margin_on_way(relation.landmarks, HALFWAY, x, y)
    raise ValueError(f"kind must be one of {KINDS}, got {relation.kind!r}")


def margin_beside(
    direction: str | None, distance: str | None, dx: float, dy: float
) -> float:
    """The margin of a direction and a distance, either of which may be left open."""
    away = math.hypot(dx, dy)
    margins = [away - APART]
    if direction is not None:
        turn = abs(math.remainder(math.atan2(dy, dx) - ANGLES[direction], math.tau))
        # how far the nearest point of the octant's rim is
        margins.append(away * math.sin(max(OCTANT / 2 - turn, -math.pi / 2)))
    if distance is not None:
        least, most = DISTANCES[distance]
        margins += [away - least, most - away]
    return min(margins)


def margin_level(landmark: Landmark, is_right: bool, x: float, y: float) -> float:
    """The margin of a point as high as a landmark's center, to the right of it or to the left."""
    off = abs(y - landmark.center[1]) / landmark.size
    dx, _ = landmark.offset(x, y)
    return min(ALIGNED - off, (dx if is_right else -dx) - ALIGNED_APART)


def margin_straight(landmark: Landmark, is_below: bool, x: float, y: float) -> float:
    """The margin of a point straight below or above a landmark's center."""
    off = abs(x - landmark.center[0]) / landmark.size
    _, dy = landmark.offset(x, y)
    return min(ALIGNED - off, (dy if is_below else -dy) - ALIGNED_APART)


def margin_on_way(
    ends: Sequence[Landmark], shares: tuple[float, float], x: float, y: float
) -> float:
    """The margin of some shares of the way between the centers of two landmarks."""
    first, second = ends
    size = min(first.size, second.size)
    way = math.dist(first.center, second.center)
    if way < SHORTEST_WAY * size:
        return way / size - SHORTEST_WAY
    along, off = along_way(first, second, x, y)
    least, most = shares
    on_way = min(along - least, most - along, BESIDE_WAY - off) * way / size
    if on_way <= 0:
        return on_way
    first_distance = math.hypot(*first.offset(x, y))
    second_distance = math.hypot(*second.offset(x, y))
    return min(on_way, first_distance - APART, second_distance - APART)


def along_way(
    first: Landmark, second: Landmark, x: float, y: float
) -> tuple[float, float]:
    """Where a point is from the way between the centers of two landmarks, in shares of the way.

    Returns:
        (along, off): 0 at the first center and 1 at the second, and the distance from the straight line.

    Raises ZeroDivisionError where the centers are the same.
    """
    x1, y1 = first.center
    x2, y2 = second.center
    squared_way = (x2 - x1) ** 2 + (y2 - y1) ** 2
    along = ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / squared_way
    off = abs((x - x1) * (y2 - y1) - (y - y1) * (x2 - x1)) / squared_way
    return along, off


def relations_of(x: float, y: float, landmarks: Sequence[Landmark]) -> list[Relation]:
    """All relations of a point that clearly hold, those to the nearest landmarks first.

    Args:
        x, y (`float`): in pixels.
        landmarks (list of [`Landmark`]): those that a text may speak of.
    """

    def distance(landmark: Landmark) -> float:
        return math.hypot(*landmark.offset(x, y))

    nearest = sorted(landmarks, key=distance)[:MOST_LANDMARKS]
    found: list[Relation] = []
    for landmark in nearest:
        found.extend(relations_to(landmark, x, y))
    for first, second in combinations(nearest, 2):
        way = way_between(first, second, x, y)
        if way is not None and margin(way, x, y) > CLEAR:
            found.append(way)
    return found


def relations_to(landmark: Landmark, x: float, y: float) -> Iterator[Relation]:
    """Relations to one landmark that clearly hold."""
    only = (landmark,)
    dx, dy = landmark.offset(x, y)
    direction, distance = direction_of(dx, dy), distance_word(math.hypot(dx, dy))
    if margin_beside(direction, distance, dx, dy) > CLEAR:
        yield Relation("beside", only, direction, distance)
    if margin_level(landmark, dx > 0, x, y) > CLEAR:
        yield Relation("level with", only, "right" if dx > 0 else "left")
    if margin_straight(landmark, dy > 0, x, y) > CLEAR:
        yield Relation("straight", only, "below" if dy > 0 else "above")


def way_between(
    first: Landmark, second: Landmark, x: float, y: float
) -> Relation | None:
    """The relation to two landmarks that may hold.

    None where the point is beside the way from one to the other, and for an object and its own part.
    """
    is_own_part = first.owner == second.owner and first.is_object != second.is_object
    if is_own_part or first.center == second.center:
        return None
    along, off = along_way(first, second, x, y)
    if off > BESIDE_WAY or not BETWEEN[0] < along < BETWEEN[1]:
        return None
    if HALFWAY[0] < along < HALFWAY[1]:
        return Relation("halfway", (first, second))
    nearer_first = (first, second) if along < HALFWAY[0] else (second, first)
    return Relation("between", nearer_first)


def direction_of(dx: float, dy: float) -> str:
    """The nearest of `DIRECTIONS` to an offset to the right and down."""
    octant = round(math.atan2(dy, dx) / OCTANT)
    return CLOCKWISE[octant % len(CLOCKWISE)]


def distance_word(distance: float) -> str:
    """The word for a distance, a share of the object's size."""
    for word, (_, most) in DISTANCES.items():
        if distance < most:
            return word
    raise ValueError(f"distance must be finite, got {distance}")
