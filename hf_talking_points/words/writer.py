"""The rule-based writer: what is known of a point, in the sentences of the grammars in `words/grammar`.

Position words are at most five for each axis and frame of reference and there are no digits or codes, so that the
words alone do not carry the coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ..data.names import SIDES
from ..data.photos import AnnotatedObject, PartPoint
from .english import british, indefinite, is_plural, plural, punctuated
from .facts import PointFacts, Scene, without_side
from .grammar import Grammar, read_grammar
from .looks import Region, SpotLooks
from .relations import Landmark, Relation

__all__ = ["STYLES", "describe_point", "spot", "write"]

PLAIN_STYLES = (
    "full",
    "terse",
    "unseen",
    "colloquial",
    "no_position",
    "no_part",
    "caption",
)
PARTLESS_STYLES = ("no_part", "caption")
WORD_LIMITS = {"free": (25, 70), "brief": (4, 20)}
STYLES = (*PLAIN_STYLES, *WORD_LIMITS)
TRIES = 8  # texts that are drawn until one has a length within the limits
TEXTURES = {
    "plain": "smooth",
    "fine texture": "lightly textured",
    "coarse texture": "strongly textured",
}
SPOTS = {
    "edge": "a {color} spot at an edge",
    "stripe": "a narrow {color} stripe",
    "light spot": "a small {color} spot",
    "dark spot": "a small {color} spot",
    "highlight": "a {color} highlight",
    "shadow": "a {color} shadow",
}
FRAMES = ("seen", "own")
OWN_SHARE = 0.3  # of the texts that could say the left or right of a part either way
BRITISH_SHARE = 0.4

MOST_RELATIONS = 3  # of one text

TINY_REGION = 0.01  # shares of the photo
LARGE_REGION = 0.2
LONG_REGION = 3.0
ROUND_REGION = 0.75


@cache
def plain_grammar() -> Grammar:
    """Sentences of `PLAIN_STYLES`."""
    return read_grammar(["plain_styles"])


@cache
def free_grammar() -> Grammar:
    """Sentences of the styles of any length."""
    return read_grammar(["free", "looks", "places", "relations"])


def write(
    facts: PointFacts, style: str = "full", rng: np.random.Generator | None = None
) -> str:
    """One sentence or more that say what is known of a point.

    Args:
        facts ([`PointFacts`])
        style (`str`): one of `STYLES`. "full" says object, part, their places and the looks; "terse" the names only;
            "unseen" as full, in sentences kept out of training; "colloquial" as full, in everyday words;
            "no_position" as full, less all positions; "no_part" as full, less the part's name; "caption" the object
            alone. "free" says whatever is true in 25 to 70 words, also relations and what borders the spot; "brief"
            in 4 to 20. Of a point beside all objects the styles say what is left.
        rng (`np.random.Generator`, *optional*): chooses the words; the first that apply without it.

    Raises ValueError for an unknown style, and for one that names the part where that is not known of an object.
    """
    if facts.object is not None and facts.part is None and style not in PARTLESS_STYLES:
        raise ValueError(
            f"style {style!r} names the part, which is not known of this point on a {facts.object}: "
            f"choose from {PARTLESS_STYLES}"
        )
    if style in PLAIN_STYLES:
        return write_plain(facts, style, rng)
    if style in WORD_LIMITS:
        return write_within(facts, style, rng or np.random.default_rng(0))
    raise ValueError(f"style must be one of {STYLES}, got {style!r}")


def spot(looks: SpotLooks) -> str:
    """Color and texture in a phrase: "a dark brown, smooth spot"."""
    texture = TEXTURES.get(looks.pattern)
    if texture is not None:
        return indefinite(f"{looks.color}, {texture} spot")
    return punctuated(SPOTS[looks.pattern].format(color=looks.color)).lower()


def describe_point(
    scene: Scene,
    annotated: AnnotatedObject | None,
    point: PartPoint,
    style: str = "full",
    rng: np.random.Generator | None = None,
) -> str:
    """One description of a point of a scene: its facts in the words of [`write`].

    Args:
        scene ([`Scene`])
        annotated ([`AnnotatedObject`], *optional*): of the scene's photo, that the point is on.
        point ([`PartPoint`]): in pixels of the scene.
        style (`str`), rng (`np.random.Generator`, *optional*): as [`write`] takes them.
    """
    return write(scene.facts(annotated, point), style, rng)


def write_plain(
    facts: PointFacts, style: str, rng: np.random.Generator | None = None
) -> str:
    """A text in one of `PLAIN_STYLES`."""
    words = plain_grammar().expand(plain_symbol(facts, style), plain_slots(facts), rng)
    if words is None:
        raise ValueError(f"no sentence of style {style!r} can say {facts}")
    names = [name for name in (facts.object, facts.part) if name]
    return punctuated(words, names)


def plain_symbol(facts: PointFacts, style: str) -> str:
    """The symbol of the grammar that says a style with what is known of a point."""
    if facts.object is None:
        return (
            f"{'full' if style in ('no_part', 'caption') else style} beside all objects"
        )
    return style


def plain_slots(facts: PointFacts) -> dict[str, str | None]:
    """What the sentences of `PLAIN_STYLES` can say."""
    slots = object_slots(facts)
    slots["in_image"] = facts.in_image
    slots["on_object"] = facts.on_object
    slots["in_part"] = facts.in_part
    slots["spot"] = spot(facts.looks)
    slots["part"] = facts.part
    slots["own_part"] = facts.part
    if facts.part and side_of(facts.part):
        slots["own_part"] = f"own {facts.part}"
    return slots


def object_slots(facts: PointFacts) -> dict[str, str | None]:
    """The names of the object, or of what the photo shows where it has none."""
    slots: dict[str, str | None] = {}
    if facts.object is None:
        if facts.image_classes:
            slots["a_class"] = indefinite(facts.image_classes[0])
        return slots
    several = is_plural(facts.object)
    slots["object"] = facts.object
    slots["size"] = facts.size
    if facts.which is not None:
        slots["which_object"] = which_object(facts.which, facts.object)
        slots["objects"] = plural(facts.object)
    slots["a_object"] = indefinite(facts.object)
    slots["a_size_object"] = indefinite(facts.object, facts.size or "")
    slots["its"] = pronoun(facts.object)
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


def write_within(facts: PointFacts, style: str, rng: np.random.Generator) -> str:
    """A text of a style in `WORD_LIMITS`; where no drawn one has such a length, the one that misses it least."""
    fewest, most = WORD_LIMITS[style]
    slots = FreeSlots(facts, frame_of_sides(facts, rng), rng).slots()
    nearest = ""
    least_miss = np.inf
    for _ in range(TRIES):
        words = free_grammar().expand(style, slots, rng)
        if words is None:
            raise ValueError(f"no sentence of style {style!r} can say {facts}")
        count = len(words.split())
        miss = max(fewest - count, count - most, 0)
        if miss < least_miss:
            nearest = words
            least_miss = miss
        if miss == 0:
            break
    text = punctuated(nearest)
    return british(text) if rng.random() < BRITISH_SHARE else text


def frame_of_sides(facts: PointFacts, rng: np.random.Generator) -> str:
    """Whose left and right a text speaks of: "seen" in the picture, or the object's "own"."""
    if facts.object is None:
        return "seen"
    if facts.part and side_of(facts.part) and facts.seen is None:
        return "own"
    return "own" if rng.random() < OWN_SHARE else "seen"


@dataclass(frozen=True)
class FreeSlots:
    """What free texts can say of a point, in one frame of left and right.

    Args:
        facts ([`PointFacts`])
        frame (`str`): one of `FRAMES`. In the object's "own" frame nothing else on the object is left or right.
        rng (`np.random.Generator`): chooses the words.
    """

    facts: PointFacts
    frame: str
    rng: np.random.Generator

    def slots(self) -> dict[str, str | tuple[str, ...] | None]:
        """The words of each slot; phrases that may be said once only are tuples."""
        facts = self.facts
        slots: dict[str, str | tuple[str, ...] | None] = dict(object_slots(facts))
        slots.update(self.part_slots())
        slots.update(self.place_slots())
        slots.update(self.looks_slots())
        slots["relation"] = self.relation_phrases()
        return slots

    def is_clear(self, phrase: str) -> bool:
        """Whether a phrase as seen in the picture can stand in the text."""
        return self.frame == "seen" or not ("left" in phrase or "right" in phrase)

    def place(self, position: str, frame: str) -> tuple[str, ...]:
        """A position such as "top and left" of a frame, "the photo", once; nothing in the wrong frame."""
        words = self.expand(position, {"frame": frame})
        return (words,)

    def expand(self, symbol: str, slots: dict[str, str | None]) -> str:
        """A phrase of the grammar."""
        words = free_grammar().expand(symbol, slots, self.rng)
        if words is None:
            raise ValueError(f"symbol {symbol!r} cannot say {slots}")
        return words

    def part_slots(self) -> dict[str, str | None]:
        """The name of the part, and how its side is told."""
        name = self.facts.part
        if name is None:
            return {}
        bare = without_side(name)
        slots: dict[str, str | None] = {"bare_part": bare, "bare_parts": plural(bare)}
        slots.update(self.side_slots(name, self.facts.seen))
        return slots

    def side_slots(self, name: str, seen: str | None) -> dict[str, str | None]:
        """How the two of a part are told apart: by its own side, as seen, or not."""
        side = side_of(name)
        if self.frame == "own" and side is not None:
            return {"own": side}
        if self.frame == "seen" and seen is not None:
            return {"seen": seen}
        return {"unsided": ""} if side is None else {"one_of": ""}

    def place_slots(self) -> dict[str, tuple[str, ...]]:
        """Where the object is in the photo, and the point on the object and in its part."""
        facts = self.facts
        photo = f"the {self.expand('photo', {})}"
        in_image = self.place(facts.in_image, photo)
        if facts.object is None:
            return {"point_place": in_image}
        slots: dict[str, tuple[str, ...]] = {"object_place": in_image}
        if facts.size is not None:
            verb = "are" if is_plural(facts.object) else "is"
            slots["size_statement"] = (f"the {facts.object} {verb} {facts.size}",)
        if facts.on_object is not None and self.is_clear(facts.on_object):
            slots["at_object"] = self.place(facts.on_object, f"the {facts.object}")
        if facts.part is not None:
            slots.update(self.places_in_part(without_side(facts.part)))
        return slots

    def places_in_part(self, bare_part: str) -> dict[str, tuple[str, ...]]:
        """Where the point is in its part."""
        facts = self.facts
        slots = {}
        if facts.in_part is not None and self.is_clear(facts.in_part):
            slots["in_part"] = self.place(facts.in_part, f"the {bare_part}")
        if facts.part_place is not None and self.is_clear(facts.part_place):
            preposition = "in" if facts.part_place == "middle" else "at"
            slots["part_place"] = (f"{preposition} the {facts.part_place}",)
        return slots

    def looks_slots(self) -> dict[str, str | tuple[str, ...]]:
        """Color, pattern, what borders the spot, and the form of its region."""
        looks = self.facts.looks
        slots: dict[str, str | tuple[str, ...]] = {"color": (looks.color,)}
        slots[looks.pattern] = ""
        borders = []
        for direction, color in looks.borders:
            if self.is_clear(direction):
                words = self.expand(f"border {direction}", {"border_color": color})
                borders.append(words)
        slots["border"] = tuple(borders)
        if looks.region is not None:
            form: dict[str, str | None] = dict.fromkeys(region_words(looks.region), "")
            if form:
                slots["region"] = (self.expand("region", form),)
        return slots

    def relation_phrases(self) -> tuple[str, ...]:
        """Where the point is from things that have a name, a phrase for each of some relations."""
        sayable = [
            relation for relation in self.facts.relations if self.can_say(relation)
        ]
        if len(sayable) > MOST_RELATIONS:
            # the nearest landmarks come first, and people choose them more often
            chances = 1 / (1.0 + np.arange(len(sayable)))
            chosen = self.rng.choice(
                len(sayable), MOST_RELATIONS, replace=False, p=chances / chances.sum()
            )
            sayable = [sayable[number] for number in chosen]
        return tuple(self.relation_phrase(relation) for relation in sayable)

    def can_say(self, relation: Relation) -> bool:
        """Whether a relation can be told in the text's frame of left and right."""
        if relation.kind == "beside" and not self.is_clear(relation.direction or ""):
            return False
        return all(self.can_name(landmark) for landmark in relation.landmarks)

    def can_name(self, landmark: Landmark) -> bool:
        """Whether a landmark can be told from the other of its pair."""
        if landmark.is_object or side_of(landmark.name) is None:
            return True
        return self.frame == "own" or landmark.seen is not None

    def relation_phrase(self, relation: Relation) -> str:
        """One relation in words."""
        slots: dict[str, str | None] = {
            "landmark": self.landmark_name(relation.landmarks[0])
        }
        if len(relation.landmarks) == 2:
            slots["second"] = self.landmark_name(relation.landmarks[1])
            return self.expand(relation.kind, slots)
        symbol = relation.kind
        if self.is_clear(relation.direction or ""):
            symbol = f"{relation.kind} {relation.direction}"
        if relation.distance is not None:
            slots["distance"] = self.expand(f"distance {relation.distance}", {})
            slots[relation.distance] = ""
        return self.expand(symbol, slots)

    def landmark_name(self, landmark: Landmark) -> str:
        """ "the nose", "the eye on the left", "the dog's own left eye"."""
        if landmark.is_object:
            return f"the {landmark.name}"
        slots: dict[str, str | None] = {
            "bare_part": without_side(landmark.name),
            "category": landmark.category,
        }
        if self.facts.object is not None:
            slots["its"] = pronoun(self.facts.object)
        slots.update(self.side_slots(landmark.name, landmark.seen))
        return self.expand("landmark_name", slots)


def region_words(region: Region) -> list[str]:
    """What is worth saying of the size and form of a region."""
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
