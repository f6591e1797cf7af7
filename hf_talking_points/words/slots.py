"""What free texts can say of a point, each thing in words of its own.

A text has one frame of left and right: as "seen" in the picture, or the object's "own".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial

import numpy as np

from ..data.names import SIDES
from .english import indefinite, is_plural, plural, proper
from .facts import PointFacts, without_side
from .grammar import Grammar, Once, read_grammar
from .looks import Region
from .relations import Landmark, Relation

SEEN = "seen"
OWN = "own"
FRAMES = (SEEN, OWN)
MOST_RELATIONS = 4  # of one text
MOVE_SHARE = 0.4
NEAREST_FIRST = 1.6  # 1 for landmarks near and far as often

TINY_REGION = 0.01  # shares of the photo
LARGE_REGION = 0.2
LONG_REGION = 3.0
ROUND_REGION = 0.75
HOOFED = frozenset(["cow", "horse", "sheep"])
# of which an object has several: without a side it is one of them
SEVERAL = frozenset(
    "arm door ear ebrow eye foot hand headlight hoof horn leg mirror wheel window wing".split()
)


@cache
def free_grammar() -> Grammar:
    """Sentences of the styles of any length."""
    return read_grammar(["free", "looks", "names", "places", "relations"])


def object_slots(facts: PointFacts, called: str | None) -> dict[str, str | None]:
    """The names of the object, which is `called` so, or of what the photo shows where it has none."""
    slots: dict[str, str | None] = {}
    if called is None:
        if facts.image_classes:
            slots["a_class"] = indefinite(proper(facts.image_classes[0]))
        return slots
    several = is_plural(called)
    slots["object"] = called
    slots["size"] = facts.size
    if facts.which is not None:
        slots["which_object"] = which_object(facts.which, called)
        slots["which_one"] = which_object(facts.which, "one")
        slots["objects"] = plural(called)
    slots["a_object"] = indefinite(called)
    slots["a_size_object"] = indefinite(called, facts.size or "")
    slots["its"] = pronoun(called)
    slots["is"] = "are" if several else "is"
    slots["has"] = "have" if several else "has"
    return slots


def pronoun(name: str) -> str:
    """ "its" or "their"."""
    return "their" if is_plural(name) or name == "person" else "its"


def which_object(which: str, name: str) -> str:
    """ "leftmost dog", "second dog from the left"."""
    number, place, end = which.partition(" from ")
    return f"{number} {name}{place}{end}"


def side_of(name: str) -> str | None:
    """ "left" or "right" where the name of a part has one of them."""
    for word in name.split(" "):
        if word in SIDES:
            return word
    return None


class FreeSlots:
    """What free texts can say of a point, in one frame of left and right and one spelling.

    Args:
        facts ([`PointFacts`])
        frame (`str`): one of `FRAMES`. In the object's "own" frame nothing else on the object is left or right.
        rng (`np.random.Generator`): chooses the words.
        is_british (`bool`): whether a hood is a bonnet.
    """

    def __init__(
        self,
        facts: PointFacts,
        frame: str,
        rng: np.random.Generator,
        is_british: bool = False,
    ) -> None:
        self.facts = facts
        self.frame = frame
        self.rng = rng
        self.spelling: dict[str, str | None] = {"british": "" if is_british else None}
        self.names: dict[str, str] = {}
        self.object = None if facts.object is None else self.called(facts.object)

    def slots(self) -> dict[str, str | Sequence[str] | None]:
        """The words of each slot; what may be said once only is in a sequence."""
        slots: dict[str, str | Sequence[str] | None] = {}
        slots.update(object_slots(self.facts, self.object))
        slots.update(self.part_slots())
        slots.update(self.place_slots())
        slots.update(self.looks_slots())
        slots.update(self.relation_slots())
        return slots

    def expand(self, symbol: str, slots: Mapping[str, str | None]) -> str:
        """A phrase of the grammar."""
        words = free_grammar().expand(symbol, slots, self.rng)
        if words is None:
            raise ValueError(f"symbol {symbol!r} cannot say {slots}")
        return words

    def is_clear(self, phrase: str) -> bool:
        """Whether a phrase as seen in the picture can stand in the text."""
        return self.frame == SEEN or not ("left" in phrase or "right" in phrase)

    def called(self, category: str) -> str:
        """What the text calls an object, the same every time."""
        return self.one_name(f"object {category}", proper(category), self.spelling)

    def part_called(self, part: str, category: str | None) -> str:
        """What the text calls a part, less its side, the same every time."""
        bare = without_side(part)
        slots = dict(self.spelling)
        slots["hoofed"] = "" if category in HOOFED else None
        return self.one_name(f"part {bare}", bare, slots)

    def one_name(
        self, symbol: str, default: str, slots: Mapping[str, str | None]
    ) -> str:
        """A word that the grammar has for a name, drawn once for the text."""
        if symbol not in self.names:
            is_known = symbol in free_grammar().symbols
            self.names[symbol] = self.expand(symbol, slots) if is_known else default
        return self.names[symbol]

    def part_slots(self) -> dict[str, str | None]:
        """The name of the part, and how its side is told."""
        facts = self.facts
        if facts.part is None:
            return {}
        bare = self.part_called(facts.part, facts.object)
        slots: dict[str, str | None] = {"bare_part": bare, "bare_parts": plural(bare)}
        slots.update(self.side_slots(facts.part, facts.seen))
        return slots

    def side_slots(self, name: str, seen: str | None) -> dict[str, str | None]:
        """How the two of a part are told apart: by its own side, as seen, or not."""
        side = side_of(name)
        if self.frame == OWN and side is not None:
            return {"own": side}
        if self.frame == SEEN and seen is not None:
            return {"seen": seen}
        is_one_of = side is not None or name.split(" ")[-1] in SEVERAL
        return {"one_of": ""} if is_one_of else {"unsided": ""}

    def place_slots(self) -> dict[str, Sequence[str]]:
        """Where the object is in the photo, and the point on the object and in its part."""
        facts = self.facts
        in_image = Once([lambda: self.place_in_photo(facts.in_image)])
        if self.object is None:
            return {"point_place": in_image}
        slots: dict[str, Sequence[str]] = {"object_place": in_image}
        if facts.size is not None:
            verb = "are" if is_plural(self.object) else "is"
            slots["size_statement"] = (f"the {self.object} {verb} {facts.size}",)
        on_object = facts.on_object
        if on_object is not None and self.is_clear(on_object):
            slots["at_object"] = Once([lambda: self.place(on_object, self.object)])
        if facts.part is not None:
            slots.update(self.places_in_part(facts.part))
        return slots

    def places_in_part(self, part: str) -> dict[str, Sequence[str]]:
        """Where the point is in its part, in one of two ways."""
        facts = self.facts
        called = self.part_called(part, facts.object)
        slots: dict[str, Sequence[str]] = {}
        in_part = facts.in_part
        if in_part is not None and self.is_clear(in_part):
            slots["in_part"] = Once([lambda: self.place(in_part, called)])
        if facts.part_place is not None and self.is_clear(facts.part_place):
            preposition = "in" if facts.part_place == "middle" else "at"
            slots["part_place"] = (f"{preposition} the {facts.part_place}",)
        if len(slots) == 2:
            del slots["in_part" if self.rng.random() < 0.5 else "part_place"]
        return slots

    def place(self, position: str, frame: str | None) -> str:
        """A position such as "top and left" of a thing."""
        return self.expand(position, {"frame": f"the {frame}"})

    def place_in_photo(self, position: str) -> str:
        """A position of the photo."""
        return self.place(position, self.expand("photo", {}))

    def looks_slots(self) -> dict[str, str | Sequence[str]]:
        """Color, pattern, what borders the spot, and the form of its region."""
        looks = self.facts.looks
        slots: dict[str, str | Sequence[str]] = {"color": (self.color(looks.color),)}
        slots[looks.pattern] = ""
        borders = []
        other_colors = []
        for direction, color in looks.borders:
            if color == looks.color:
                continue
            color = self.color(color)
            other_colors.append(color)
            if self.is_clear(direction):
                borders.append(partial(self.border, direction, color))
        slots["other_color"] = tuple(other_colors[:1])
        slots["border"] = Once(borders)
        form = region_words(looks.region)
        if form:
            known: dict[str, str | None] = dict.fromkeys(form, "")
            slots["region"] = Once([lambda: self.expand("region", known)])
        return slots

    def color(self, name: str) -> str:
        """What the text calls a color, the same every time."""
        return self.one_name(f"color {name}", name, {})

    def border(self, direction: str, color: str) -> str:
        """What borders the spot: "white above"."""
        return self.expand(f"border {direction}", {"border_color": color})

    def relation_slots(self) -> dict[str, Sequence[str]]:
        """Where the point is from things that have a name, each landmark in one relation; one of them as a way that
        is gone to the point."""
        sayable = [
            relation for relation in self.facts.relations if self.can_say(relation)
        ]
        chosen: list[Relation] = []
        told: set[Landmark] = set()
        while sayable and len(chosen) < MOST_RELATIONS:
            # the nearest landmarks come first, and people choose them more often
            place = int(len(sayable) * self.rng.random() ** NEAREST_FIRST)
            chosen.append(sayable[place])
            told.update(sayable[place].landmarks)
            sayable = [other for other in sayable if told.isdisjoint(other.landmarks)]
        slots: dict[str, Sequence[str]] = {}
        if chosen and chosen[-1].kind == "beside" and self.rng.random() < MOVE_SHARE:
            slots["move"] = Once([partial(self.relation_phrase, chosen.pop(), "move")])
        phrases = [
            partial(self.relation_phrase, relation, relation.kind)
            for relation in chosen
        ]
        slots["relation"] = Once(phrases)
        return slots

    def can_say(self, relation: Relation) -> bool:
        """Whether a relation can be told in the text's frame of left and right."""
        if relation.kind == "beside" and not self.is_clear(relation.direction or ""):
            return False
        return all(self.can_name(landmark) for landmark in relation.landmarks)

    def can_name(self, landmark: Landmark) -> bool:
        """Whether a landmark can be told from the other of its pair."""
        if landmark.is_object:
            return landmark.which is None or self.is_clear(landmark.which)
        if side_of(landmark.name) is None:
            return True
        return self.frame == OWN or landmark.seen is not None

    def relation_phrase(self, relation: Relation, symbol: str) -> str:
        """One relation in words of a symbol, which has one for each direction."""
        slots: dict[str, str | None] = {
            "landmark": self.landmark_name(relation.landmarks[0])
        }
        if len(relation.landmarks) == 2:
            slots["second"] = self.landmark_name(relation.landmarks[1])
            return self.expand(symbol, slots)
        if self.is_clear(relation.direction or ""):
            symbol = f"{symbol} {relation.direction}"
        if relation.distance is not None:
            slots["distance"] = self.expand(f"distance {relation.distance}", {})
            slots[relation.distance] = ""
        return self.expand(symbol, slots)

    def landmark_name(self, landmark: Landmark) -> str:
        """ "the nose", "the eye on the left", "the dog's own left eye", "the leftmost dog"."""
        if landmark.is_object:
            called = self.called(landmark.name)
            if landmark.which is not None:
                called = which_object(landmark.which, called)
            return f"the {called}"
        bare = self.part_called(landmark.name, landmark.category)
        slots: dict[str, str | None] = {"bare_part": bare, "bare_parts": plural(bare)}
        if landmark.category is not None:
            slots["category"] = self.called(landmark.category)
        if self.object is not None:
            slots["its"] = pronoun(self.object)
        slots.update(self.side_slots(landmark.name, landmark.seen))
        return self.expand("landmark_name", slots)


def region_words(region: Region | None) -> list[str]:
    """What is worth saying of the size and form of a region."""
    if region is None:
        return []
    words = []
    if region.share >= LARGE_REGION:
        words.append("large")
    if region.share <= TINY_REGION:
        words.append("tiny")
    if region.elongation >= LONG_REGION:
        words.append("long")
        words.append("upright" if region.is_upright else "flat")
    elif region.roundness >= ROUND_REGION:
        words.append("round")
    return words
