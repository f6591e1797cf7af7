"""What annotation and pixels say of the points of one photo.

Position words are at most five for each axis and frame of reference, so that the words alone do not carry the
coordinates. "left" and "right" in the name of a part are the object's own side, everywhere else they are as seen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from ..data.names import SIDES
from ..data.photos import AnnotatedObject, Box, PartPoint, Photo
from .looks import PixelLooks, SpotLooks
from .relations import Landmark, Relation, relations_of

__all__ = [
    "HORIZONTAL",
    "SIZE_WORDS",
    "VERTICAL",
    "PointFacts",
    "Scene",
    "position",
    "position_in",
    "size_word",
    "without_side",
]

HORIZONTAL = ("far left", "left", "center", "right", "far right")
VERTICAL = ("very top", "top", "middle", "bottom", "very bottom")
SIZE_WORDS = ("small", "medium-sized", "large")
ORDINALS = ("second", "third", "fourth", "fifth")
PEOPLE_COUNT_TO = 2 + len(ORDINALS)

SIDES_APART = 0.06  # share of the object's size between the two of a pair that are called left and right as seen
OBJECTS_APART = (
    0.08  # share of the photo's width between objects that are counted from the left
)
# of the photo's longer side: far from a small object is not what is far only for its size
LEAST_SIZE = 0.4
CLEARLY_LARGER = 2.0  # ratio of areas
EDGE = 0.15  # share of a part's box that is its edge, or its end
MIDDLE = (0.35, 0.65)
LONG_PART = 2.5  # longer side over shorter side
SMALL_PART = 6  # pixels of the longer side, below which it has neither edge nor middle


def step_word(share: float, words: Sequence[str]) -> str:
    """The word for a share in [0, 1], in equal steps; what lies beyond an end gets the word of that end."""
    step = int(share * len(words))
    last = len(words) - 1
    return words[min(last, max(0, step))]


def position(u: float, v: float) -> str:
    """A place in words, such as "top and left", of (u, v) in shares of a frame's width and height."""
    down = step_word(v, VERTICAL)
    across = step_word(u, HORIZONTAL)
    return f"{down} and {across}"


def shares_of(point: PartPoint, box: Box) -> tuple[float, float]:
    """(u, v): where a point is in a box, both in pixels of one photo, in shares of the box's sides."""
    x1, y1, x2, y2 = box
    return (point.x - x1) / max(x2 - x1, 1), (point.y - y1) / max(y2 - y1, 1)


def position_in(point: PartPoint, box: Box) -> str:
    """[`position`] of a point in a box."""
    return position(*shares_of(point, box))


def size_word(box: Box, image_size: tuple[int, int]) -> str:
    """One of `SIZE_WORDS`, from the share of the image (width, height) that an object's box covers."""
    x1, y1, x2, y2 = box
    width, height = image_size
    share = (x2 - x1) * (y2 - y1) / (width * height)
    small, medium, large = SIZE_WORDS
    if share < 0.08:
        return small
    return medium if share < 0.35 else large


@lru_cache(maxsize=4096)
def without_side(part: str) -> str:
    """The name of a part less its side: "front paw" of "left front paw"."""
    return " ".join(word for word in part.split(" ") if word not in SIDES)


def center_of(box: Box) -> tuple[float, float]:
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2


def area_of(box: Box) -> float:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def longer_side(box: Box) -> float:
    """In pixels, at least 1."""
    x1, y1, x2, y2 = box
    return max(x2 - x1, y2 - y1, 1.0)


@dataclass(frozen=True)
class PointFacts:
    """What annotation and pixels say of one point.

    Args:
        in_image (`str`): "top and left", where the object (or the point beside all objects) is in the image.
        looks ([`SpotLooks`])
        object (`str`, *optional*): category, "dog"; None for a point that is not known to be on an object, which then
            has neither size, part nor place on it.
        size (`str`, *optional*): one of `SIZE_WORDS`.
        which (`str`, *optional*): which of several objects of the category: "leftmost", "second from the left",
            "rightmost", "larger", "smaller".
        part (`str`, *optional*): "left eye"; left and right are the object's own side. None where it is not known.
        seen (`str`, *optional*): "left" or "right", which of the object's two of this part it is as seen in the
            picture; None where there are not two of it, or where they do not lie apart.
        on_object (`str`, *optional*): where the point is in the object's box.
        in_part (`str`, *optional*): where the point is in the part's box; None where that is not known.
        part_place (`str`, *optional*): "middle", "upper edge", "lower edge", "left edge", "right edge", and of a long
            part "upper end", "lower end", "left end", "right end", or "tip", its end away from the object.
        relations (`tuple`): of [`Relation`] that hold, those to the nearest landmarks first.
        image_classes (`tuple`): what the whole photo shows, where the annotation says no more.
    """

    in_image: str
    looks: SpotLooks
    object: str | None = None
    size: str | None = None
    which: str | None = None
    part: str | None = None
    seen: str | None = None
    on_object: str | None = None
    in_part: str | None = None
    part_place: str | None = None
    relations: tuple[Relation, ...] = ()
    image_classes: tuple[str, ...] = ()


class Scene:
    """A photo, or a crop of one, as the words see it; what all its points share is computed once.

    Args:
        photo ([`Photo`]): its annotation, in pixels of `pixels`.
        pixels (`np.ndarray` of shape `(height, width, 3)`, uint8)

    Raises ValueError where the size of `pixels` is not that of the photo.
    """

    def __init__(self, photo: Photo, pixels: np.ndarray) -> None:
        height, width = pixels.shape[:2]
        if (width, height) != tuple(photo.size):
            raise ValueError(
                f"pixels of {photo.id}: expected {photo.size[0]} x {photo.size[1]}, got {width} x {height}"
            )
        self.photo = photo
        self.looks = PixelLooks(pixels)

    @cached_property
    def parts(self) -> list[list[Landmark]]:
        """The named points and parts of each object, those of a pair with their side as seen."""
        return [
            landmarks_on(number, annotated)
            for number, annotated in enumerate(self.photo.objects)
        ]

    @cached_property
    def nameable_parts(self) -> list[list[Landmark]]:
        """Those of `parts` that no other one of their object is called like."""
        nameable = []
        for landmarks in self.parts:
            names = Counter(bare_name(landmark) for landmark in landmarks)
            nameable.append([one for one in landmarks if names[bare_name(one)] == 1])
        return nameable

    @cached_property
    def which_words(self) -> list[str | None]:
        """For each object which of several of its category it is; None for the only one, or where they look alike."""
        numbers_of_category: dict[str, list[int]] = defaultdict(list)
        for number, annotated in enumerate(self.photo.objects):
            numbers_of_category[annotated.category].append(number)
        words: list[str | None] = [None] * len(self.photo.objects)
        for numbers in numbers_of_category.values():
            boxes = [self.photo.objects[number].box for number in numbers]
            for number, word in zip(numbers, which_of(boxes, self.photo.size[0])):
                words[number] = word
        return words

    @cached_property
    def nameable_objects(self) -> list[Landmark]:
        """The objects that a text can name: the only ones of their category, and those that can be told apart."""
        counts = Counter(annotated.category for annotated in self.photo.objects)
        landmarks = []
        for number, annotated in enumerate(self.photo.objects):
            category = annotated.category
            which = self.which_words[number]
            if counts[category] > 1 and which is None:
                continue
            whole = Landmark(
                category,
                annotated.box,
                number,
                max(longer_side(annotated.box), self.least_size),
                is_object=True,
                category=category,
                which=which,
            )
            landmarks.append(whole)
        return landmarks

    @property
    def least_size(self) -> float:
        """In pixels, what distances from an object that the point is not on are shares of, where that is smaller."""
        return LEAST_SIZE * max(self.photo.size)

    def number_of(self, annotated: AnnotatedObject) -> int:
        """The number of an object in the photo. Raises ValueError for one of another photo."""
        for number, other in enumerate(self.photo.objects):
            if other is annotated:
                return number
        return self.photo.objects.index(annotated)

    def landmarks_for(
        self, owner: int | None, part: str | None, seen: str | None
    ) -> list[Landmark]:
        """What a text on a point may be told from: the other parts of its object, or of each object that is the only
        one of its category, and the other objects.

        Of a name that several parts have, the text can only speak where left and right tell them apart.
        """
        landmarks = [
            landmark for landmark in self.nameable_objects if landmark.owner != owner
        ]
        if owner is None:
            owners = [one.owner for one in landmarks if one.which is None]
        else:
            owners = [owner]
        itself = None if part is None else (without_side(part), seen)
        for number in owners:
            for landmark in self.nameable_parts[number]:
                if (without_side(landmark.name), landmark.seen) == itself:
                    continue
                if owner is None and landmark.size < self.least_size:
                    landmark = replace(landmark, size=self.least_size)
                landmarks.append(landmark)
        return landmarks

    def facts(self, annotated: AnnotatedObject | None, point: PartPoint) -> PointFacts:
        """[`PointFacts`] of a point.

        An object's box is not the object: a point without a part is not known to be on it.

        Args:
            annotated ([`AnnotatedObject`], *optional*): of the photo.
            point ([`PartPoint`]): in pixels of the photo.
        """
        looks = self.looks.at(point.x, point.y)
        if annotated is None or point.part is None:
            return self.facts_beside(point, looks)
        owner = self.number_of(annotated)
        seen = self.seen_side(owner, point)
        width, height = self.photo.size
        x, y = center_of(annotated.box)
        landmarks = self.landmarks_for(owner, point.part, seen)
        has_box = point.box is not None and longer_side(point.box) >= SMALL_PART
        return PointFacts(
            in_image=position(x / width, y / height),
            looks=looks,
            object=annotated.category,
            size=size_word(annotated.box, self.photo.size),
            which=self.which_words[owner],
            part=point.part,
            seen=seen,
            on_object=position_in(point, annotated.box),
            in_part=None if point.box is None else position_in(point, point.box),
            part_place=part_place(point, annotated.box) if has_box else None,
            relations=tuple(relations_of(point.x, point.y, landmarks)),
        )

    def facts_beside(self, point: PartPoint, looks: SpotLooks) -> PointFacts:
        """[`PointFacts`] of a point that is not known to be on an object."""
        width, height = self.photo.size
        landmarks = self.landmarks_for(None, None, None)
        return PointFacts(
            in_image=position(point.x / width, point.y / height),
            looks=looks,
            relations=tuple(relations_of(point.x, point.y, landmarks)),
            image_classes=self.photo.classes,
        )

    def seen_side(self, owner: int, point: PartPoint) -> str | None:
        """Which of its object's two of a part a point is on, as seen in the picture."""
        assert point.part is not None
        for landmark in self.parts[owner]:
            if landmark.name == point.part and holds(landmark.box, point):
                return landmark.seen
        return None


def bare_name(landmark: Landmark) -> tuple[str, str | None]:
    """What a text can call a landmark: its name without the own side, and its side as seen."""
    if landmark.seen is None:
        return landmark.name, None
    return without_side(landmark.name), landmark.seen


def landmarks_on(number: int, annotated: AnnotatedObject) -> list[Landmark]:
    """The named points and parts of one object, each place once."""
    size = longer_side(annotated.box)
    places = named_places(annotated)
    pairs: dict[str, list[Box]] = defaultdict(list)
    for name, box in places:
        pairs[without_side(name)].append(box)
    landmarks = []
    for name, box in places:
        seen = seen_side(box, pairs[without_side(name)], size)
        landmarks.append(
            Landmark(name, box, number, size, seen=seen, category=annotated.category)
        )
    return landmarks


def named_places(annotated: AnnotatedObject) -> list[tuple[str, Box]]:
    """(name, box) of the points and parts of an object, a point that lies in a box of its name with that box."""
    boxes = [(part.name, part.box) for part in annotated.parts]
    spots = []
    for point in annotated.points:
        if point.part is None:
            continue
        if point.box is None:
            spots.append(point)
        else:
            boxes.append((point.part, point.box))
    places = dict.fromkeys(boxes)
    for spot in spots:
        name = without_side(spot.part or "")
        box = (spot.x, spot.y, spot.x, spot.y)
        for other, around in boxes:
            if without_side(other) == name and holds(around, spot):
                places.pop((other, around), None)
                box = around
                break
        places[spot.part or "", box] = None
    return list(places)


def holds(box: Box, point: PartPoint) -> bool:
    """Whether a point lies in a box."""
    x1, y1, x2, y2 = box
    return x1 <= point.x <= x2 and y1 <= point.y <= y2


def seen_side(box: Box, pair: Sequence[Box], size: float) -> str | None:
    """ "left" or "right" for one of two places that lie apart in the picture, else None."""
    if len(pair) != 2:
        return None
    (first, _), (second, _) = center_of(pair[0]), center_of(pair[1])
    if abs(first - second) < SIDES_APART * size:
        return None
    return "left" if center_of(box)[0] < (first + second) / 2 else "right"


def which_of(boxes: Sequence[Box], width: int) -> list[str | None]:
    """For each of several objects of a category which one it is, None where that cannot be told shortly."""
    count = len(boxes)
    if not 2 <= count <= PEOPLE_COUNT_TO:
        return [None] * count
    order = sorted(range(count), key=lambda number: center_of(boxes[number])[0])
    places = [center_of(boxes[number])[0] for number in order]
    gaps = np.diff(places) / width
    words: list[str | None] = [None] * count
    if (gaps >= OBJECTS_APART).all():
        for place, number in enumerate(order):
            words[number] = place_in_row(place, count)
    elif count == 2:
        areas = [area_of(box) for box in boxes]
        if max(areas) >= CLEARLY_LARGER * min(areas):
            words = ["larger" if area == max(areas) else "smaller" for area in areas]
    return words


def place_in_row(place: int, count: int) -> str:
    """What the object at a place, from 0, of a row of `count` is called."""
    if place == 0:
        return "leftmost"
    if place == count - 1:
        return "rightmost"
    if place <= (count - 1) / 2:
        return f"{ORDINALS[place - 1]} from the left"
    return f"{ORDINALS[count - place - 2]} from the right"


def part_place(point: PartPoint, object_box: Box) -> str | None:
    """Where a point is in its part's box: an edge, an end, the tip or the middle."""
    assert point.box is not None
    x1, y1, x2, y2 = point.box
    u, v = shares_of(point, point.box)
    if MIDDLE[0] <= u <= MIDDLE[1] and MIDDLE[0] <= v <= MIDDLE[1]:
        return "middle"
    is_wide = x2 - x1 >= LONG_PART * (y2 - y1)
    is_high = y2 - y1 >= LONG_PART * (x2 - x1)
    center_x, center_y = center_of(object_box)
    middle_x, middle_y = center_of(point.box)
    if is_wide and not EDGE <= u <= 1 - EDGE:
        outer = (middle_x > center_x) == (u > 0.5)
        return "tip" if outer else f"{'right' if u > 0.5 else 'left'} end"
    if is_high and not EDGE <= v <= 1 - EDGE:
        outer = (middle_y > center_y) == (v > 0.5)
        return "tip" if outer else f"{'lower' if v > 0.5 else 'upper'} end"
    shares = {"left": u, "right": 1 - u, "upper": v, "lower": 1 - v}
    nearest = min(shares, key=lambda side: shares[side])
    return f"{nearest} edge" if shares[nearest] < EDGE else None
