"""What a text says of a point, and which of it annotation and pixels confirm, contradict or leave open.

Contradicted is only what is clearly said of the point and clearly wrong. What has no annotation stays open: names of
things that nobody marked, colors that light may have changed, places between two words for them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..data.photos import AnnotatedObject, PartPoint
from .facts import (
    HORIZONTAL,
    VERTICAL,
    Scene,
    center_of,
    longer_side,
    shares_of,
    without_side,
)
from .lexicon import (
    ANIMAL_PARTS,
    ANIMALS,
    HORIZONTAL_WORDS,
    IMAGE_WORDS,
    VEHICLE_PARTS,
    VEHICLES,
    VERTICAL_WORDS,
    categories_called,
    color_names,
    is_a,
    parts_called,
    side_in,
    singular,
)
from .mentions import ANY_NAME, COLOR, OBJECT, PART, MarkedText
from .relations import ALIGNED, Landmark, along_way

__all__ = ["KINDS", "VERDICTS", "Claim", "check_claims", "false_claims"]

KINDS = ("object", "part", "side", "color", "texture", "relation", "place")
VERDICTS = ("confirmed", "contradicted", "open")
CONFIRMED, CONTRADICTED, OPEN = VERDICTS

# shares of the object's size
AT_PART = 0.1  # a point that near to a part may be said to be on it
OFF_BOX = 0.12  # one that far from every box of a part of that name is not on it
OFF_PLACE = 0.22  # the same of named points, which have no box
OFF_KNOWN = 0.15  # of a point that is known to be on another part
OFF_VAGUE = 0.45  # of words for what is large or has no clear border
WRONG_SIDE = 0.03  # so far on the other side of a landmark a direction is wrong
WRONG_LEVEL = 0.2
WRONG_HALF = 0.6  # share of the frame
IN_CORNER = 0.35
OFF_CORNER = 0.45
PLURAL_NAMES = frozenset(["handlebars", "headlights", "lips", "nostrils", "leaves"])
OTHER_MEANINGS = frozenset("foot head back crown face neck mouth shoulder".split())
# legs are long, and bend; where a shoulder or a rump ends nobody can say
VAGUE_WORDS = frozenset(
    "arm back belly body breast brow cheek chest chin face flank hair jaw lip mane neck plant rump shoulder spine "
    "thigh trunk underside".split()
)
# one of them may stand for the other, or beside it
LIKE_VEHICLES = VEHICLES - {"boat", "airplane"}

_ADJECTIVE = rf"(?:(?:[\w'-]|{ANY_NAME})+ ){{0,3}}?"
_MENTION = re.compile(
    rf"(?:(?P<determiner>one of (?:the|its|his|her|their)|one|the|an?|its|his|her|their) )?"
    rf"(?:(?P<before>{OBJECT})'s? )?"
    rf"(?P<adjectives>(?:(?:own|left|right|left-hand|right-hand|near|far|other"
    r"|front(?= left| right)|back(?= left| right)) )*)"
    rf"(?P<word>{PART})"
    rf"(?: on the (?P<seen>left|right)(?:(?! of)|(?= of (?:the|an?) {_ADJECTIVE}{OBJECT})))?"
    rf"(?: of (?:the|an?|this|that) {_ADJECTIVE}(?P<behind>{OBJECT}))?"
)
_OBJECT_MENTION = re.compile(OBJECT)
_ON_OBJECT = re.compile(
    rf"\b(?:(?:point|spot|pixel|target|it) (?:is|lies|sits)|marks|meant is|mean) (?:on )?(?:the|an?) {_ADJECTIVE}"
    rf"(?P<object>{OBJECT})(?!'s)"
)
_LANDMARK_BEFORE = re.compile(
    r"(?:above|below|beneath|under|underneath|over|beside|near|nearer|next to|close to|closer to|left of|right of"
    r"|between|and|toward|towards|behind|from|with|beyond|past|than|as|against|around|before|level|for|or|by"
    r"|(?<!go )(?<!move )(?<! on )(?<!belongs )to"
    r"|into|has|have|shows|showing|like)$"
)
_POINT_BEFORE = re.compile(
    r"(?:^|[:.]|\b(?:on|onto|at|of|in|marks|mean|meant|this is|that is|it's|after is"
    r"|check out|go to|look at|find|take|along|inside|touch|after|about|comes|move to|on to|lies"
    r"|there is|then|is its|is the|belongs to|pointing at|target is|meant is|pixel is"
    r"|photo))\s*$"
)
_BEGINS_SENTENCE = re.compile(r"(?<=[^.;])[.;]$")
_AFTER_OBJECT = re.compile(
    rf"^(?:on )?(?:(?:the|an?) )?(?:(?:\w+|{COLOR}) )?{OBJECT}[,:]$"
)
_AT_A_HEIGHT = re.compile(r"(?:'s)?[ -](?:height|level|length|width|end|side)\b")
# "the lamb with the red mark on its head": what another thing has
_WITH_MORE = re.compile(r"\bwith (?!(?:an? )?(?:\w+ )?texture)[^.;:,]*$")
_AS_HIGH = re.compile(r"\b(?:height|level|line|length|width|size|clear|front) of$")
_PLACE_OF = re.compile(r"\b(?:the|its|an?) (?:(?!(?:the|its|an?) )[^ .,;:]+ ){0,3}of$")
_VERTICAL = "|".join(sorted(VERTICAL, key=len, reverse=True))
_HORIZONTAL = "|".join(sorted(HORIZONTAL, key=len, reverse=True))
_FRAME = rf"(?P<frame>{'|'.join(IMAGE_WORDS)}|{OBJECT})"
_STEPS = re.compile(
    rf"\b(?:(?P<down>{_VERTICAL}) and (?P<across>{_HORIZONTAL})|(?P<across2>{_HORIZONTAL}) and (?P<down2>{_VERTICAL}))"
    rf" (?:of|in|within) (?:the|this) {_FRAME}"
)
_PLACE_WORD = "|".join(
    sorted([*VERTICAL_WORDS, *HORIZONTAL_WORDS], key=len, reverse=True)
)
_REGION_NOUN = r"(?:corner|edge|half|part|side|border|third|quarter|area|margin|end|portion|region|section)"
_PLACES = rf"(?P<words>(?:(?:{_PLACE_WORD})[ -]?(?:hand )?)+)"
_REGION = re.compile(
    rf"\b{_PLACES}{_REGION_NOUN}?,? ?of (?:the|this) (?P<frame>{'|'.join(IMAGE_WORDS)})\b"
    rf"|\b(?:at the (?:very|far|extreme) {_PLACES.replace('words', 'far')}|in the {_PLACES.replace('words', 'within')}"
    rf"{_REGION_NOUN} )of (?:the|this) (?P<thing>{OBJECT})(?!'s)"
)
_NAMED_SIDES = r"(?:(?:own|left|right|left-hand|right-hand) )*"
_ON_THE_SIDE = rf"(?: on the (?:left|right)(?:(?! of)| of the {OBJECT}))?"
_PART_LANDMARK = rf"(?:(?:the|its|his|her|their) )?(?:{OBJECT}'s? )?{_NAMED_SIDES}{PART}{_ON_THE_SIDE}"
_LANDMARK = rf"(?:{_PART_LANDMARK}|(?:the |this |that )?{OBJECT})"
_AND_SIDE = r"(?:,? and (?:\w+ )?(?:to the )?(?:left|right) of)?"
_DIRECTION = re.compile(
    r"(?P<words>level with|at the (?:height|level) of|(?:straight )?(?:up|down) from"
    rf"|(?:above|below|beneath|underneath|under){_AND_SIDE}"
    r"|(?:to the |on the |at the )?(?:(?:upper|lower|top|bottom)[ -])?(?:left|right) of)"
    rf" (?P<landmark>{_LANDMARK})"
)
_BETWEEN = re.compile(
    rf"between (?P<first>{_PART_LANDMARK}) and (?P<second>{_PART_LANDMARK})"
)
_SPOT_NOUN = r"(?:spot|patch|bit|area|fleck|dot|speck|stripe|strip|streak|line|highlight|glint|shadow|point|pixel)"
_POINT_LOOKS_BEFORE = (
    r"(?:^|[.:,;—-] |\b(?:(?:it|point|spot|pixel|target|this|meant) is|it's|see|find|shows|you are|on|at|mean|like"
    r"|after|would touch|and) )"
    r"(?:an? |some )?(?:(?:small|tiny|narrow|thin|slim|plain|even|smooth|uniform|flat|light|dark),? )*"
)
_SPOT_COLOR = re.compile(
    rf"(?:{_POINT_LOOKS_BEFORE}|\b(?:for|want|see there is|at|on|find|expect|see|shows|just|that's) an? (?:\w+,? )??)"
    rf"(?P<color>{COLOR})"
    rf"(?:,? (?:and )?(?:[\w]+ly )?(?:smooth|plain|even|uniform|flat|textured))*,? (?:shaded )?{_SPOT_NOUN}\b"
    rf"|\bwhere (?P<meeting>{COLOR}) (?:meets|borders on|gives way to)"
    rf"|\b(?:border|edge|line) between (?P<between>{COLOR}) and"
    rf"|\bthe (?P<edge>{COLOR}) side of an edge"
    rf"|\bcolou?r(?:'s| (?:there |of the spot |here )?is) (?P<said>{COLOR})"
    rf"|\b(?:it|spot|point|pixel)(?: itself)? is (?P<called>{COLOR})(?! (?:fur|hair|wool|background))"
    rf"|(?:^|[,;:] )(?:plain |even |smooth )?(?P<noted>{COLOR})"
    r"(?=,? (?:(?:[\w]+ly )?textured|with a (?:\w+ )?texture|plain|at an edge|no texture)|[.;,]|$)"
)
_BORDER = re.compile(
    rf"(?P<color>{COLOR})(?: (?:area|color|colour|patch|part))? (?:just |directly |immediately )?"
    r"(?P<direction>above|below|underneath|(?:to|on) the left|(?:to|on) the right|on the (?:upper|lower) side"
    r"|on its (?:left|right)-hand side)\b(?! (?:of|the|its|and|edge|side|half))"
)
BORDER_WORDS = {
    "above": re.compile("above|upper"),
    "below": re.compile("below|underneath|lower"),
    "left": re.compile("left"),
    "right": re.compile("right"),
}
_TEXTURE = re.compile(
    rf"\ban? (?P<texture>(?:[\w]+ly )?textured|smooth|plain|even)(?:,? (?:{COLOR}))? {_SPOT_NOUN}\b"
    rf"|(?:{COLOR}), (?P<said>(?:[\w]+ly )?textured|smooth|plain|even)\b"
)
_STRONG = re.compile(r"strongly|coarsely|roughly")


@dataclass(frozen=True)
class Claim:
    """One thing that a text says.

    Args:
        kind (`str`): one of `KINDS`.
        phrase (`str`): as the text has it, in small letters.
        verdict (`str`): one of `VERDICTS`.
    """

    kind: str
    phrase: str
    verdict: str


def check_claims(
    text: str, scene: Scene, annotated: AnnotatedObject | None, point: PartPoint
) -> list[Claim]:
    """What a text says of a point, each thing with what annotation and pixels say to it.

    Args:
        text (`str`)
        scene ([`Scene`]): the photo that the text is about.
        annotated ([`AnnotatedObject`], *optional*): of the scene's photo, which the point is on or in the box of.
        point ([`PartPoint`]): in pixels.
    """
    return list(_Reading(text, scene, annotated, point).claims())


def false_claims(claims: Sequence[Claim]) -> list[Claim]:
    """Those that are contradicted."""
    return [claim for claim in claims if claim.verdict == CONTRADICTED]


class _Reading:
    """One text about one point."""

    def __init__(
        self,
        text: str,
        scene: Scene,
        annotated: AnnotatedObject | None,
        point: PartPoint,
    ) -> None:
        self.words = MarkedText(text)
        self.text = self.words.marked
        self.scene = scene
        self.annotated = annotated
        self.point = point

    def claims(self) -> Iterator[Claim]:
        yield from self.object_claims()
        yield from self.part_claims()
        yield from self.color_claims()
        yield from self.texture_claims()
        yield from self.relation_claims()
        yield from self.place_claims()

    # ---------------------------------------------------------------- objects

    @cached_property
    def known_categories(self) -> set[str]:
        """All that the photo is known to show, and what these are kinds of."""
        names = [annotated.category for annotated in self.scene.photo.objects]
        known: set[str] = set()
        for name in [*names, *self.scene.photo.classes]:
            known |= is_a(name)
        return known

    def object_claims(self) -> Iterator[Claim]:
        owners = self.owner_starts()
        for found in _OBJECT_MENTION.finditer(self.text):
            categories = categories_called(self.words.original(found))
            if found.start() in owners or self.is_on_known_part:
                verdict = self.verdict_on_owner(categories)
            else:
                is_known = categories & self.known_categories
                verdict = CONFIRMED if is_known else OPEN
            yield Claim("object", self.words.original(found), verdict)

    @property
    def is_on_known_part(self) -> bool:
        return self.annotated is not None and self.point.part is not None

    def owner_starts(self) -> set[int]:
        """Where the text names the object that the point is on: whose part it is on, or what it is "on"."""
        starts = {found.start("object") for found in _ON_OBJECT.finditer(self.text)}
        for found in self.part_mentions:
            for group in ("before", "behind"):
                if found[group]:
                    starts.add(found.start(group))
            if found["determiner"] in (
                "its",
                "one of its",
                "their",
                "one of their",
                "his",
                "her",
            ):
                earlier = [
                    mention.start()
                    for mention in _OBJECT_MENTION.finditer(self.text, 0, found.start())
                ]
                starts.update(earlier[-1:])
        return starts

    def verdict_on_owner(self, categories: frozenset[str]) -> str:
        """Whether the point may be on one of these.

        Animals and vehicles are told apart without doubt; what else a photo shows nobody has listed.
        """
        known = frozenset(self.known_categories)
        if self.annotated is not None and self.point.part is not None:
            known = is_a(self.annotated.category)
        if categories & known:
            return CONFIRMED
        if categories & LIKE_VEHICLES and known & LIKE_VEHICLES:
            return OPEN
        if not known or not categories <= ANIMALS | VEHICLES:
            return OPEN
        return CONTRADICTED if self.names_nothing_known() else OPEN

    def names_nothing_known(self) -> bool:
        """Whether the text names nothing that the photo is known to show."""
        for found in _OBJECT_MENTION.finditer(self.text):
            if categories_called(self.words.original(found)) & self.known_categories:
                return False
        return True

    # ---------------------------------------------------------------- parts and sides

    @cached_property
    def part_mentions(self) -> list[re.Match[str]]:
        """The mentions of a part as the one that the point is on."""
        mentions = _MENTION.finditer(self.text)
        return [found for found in mentions if self.is_of_point(found)]

    def part_claims(self) -> Iterator[Claim]:
        for found in self.part_mentions:
            verdict = self.verdict_on_part(found)
            phrase = self.words.original(found)
            yield Claim("part", phrase, verdict)
            side = side_in(f"{found['adjectives']} {found['seen'] or ''}")
            if side is not None and verdict == CONFIRMED:
                yield Claim("side", phrase, self.verdict_on_side(found, side))

    def is_of_point(self, found: re.Match[str]) -> bool:
        """Whether a part is named as the one that the point is on, not as a landmark."""
        word = self.words.original(found, "word")
        if word in OTHER_MEANINGS and self.text.startswith(" of", found.end()):
            return found["behind"] is not None
        if _AT_A_HEIGHT.match(self.text, found.end()):
            return False
        is_one = (found["determiner"] or "").startswith("one of")
        if not is_one and word not in PLURAL_NAMES:
            if singular(word) != word:
                return False
        before = self.text[: found.start()].rstrip()
        if _AS_HIGH.search(before) or _WITH_MORE.search(before):
            return False
        if _AFTER_OBJECT.search(before):
            return True
        is_bare = not (found["determiner"] or found["before"] or found["behind"])
        if word in OTHER_MEANINGS and is_bare and not found["adjectives"]:
            return False
        # "level with the top of the head": what comes before the place of the part
        before_place = _PLACE_OF.sub("", before).rstrip()
        if _AS_HIGH.search(before_place):
            return False
        if _LANDMARK_BEFORE.search(before) or _LANDMARK_BEFORE.search(before_place):
            return False
        if _BEGINS_SENTENCE.search(before):
            # a later sentence may tell of something else
            if self.text.startswith(" is at", found.end()):
                return before.endswith(".")
            return self.text.startswith((" is meant", ",", ".", " sits"), found.end())
        return _POINT_BEFORE.search(before) is not None

    def verdict_on_part(self, found: re.Match[str]) -> str:
        word = self.words.original(found, "word")
        names = parts_called(word)
        own = self.point.part
        if own is not None and without_side(own) in names:
            return CONFIRMED
        if self.is_part_of_other_kind(names):
            return CONTRADICTED
        places = self.landmarks_called(word, self.owner_of(found))
        if not places:
            return OPEN
        distances = [
            math.hypot(*place.offset(self.point.x, self.point.y)) for place in places
        ]
        if min(distances) <= AT_PART:
            return CONFIRMED
        off = OFF_PLACE if any(is_spot(place) for place in places) else OFF_BOX
        if self.is_on_known_part:
            off = min(off, OFF_KNOWN)
        if "leg" in names or singular(word) in VAGUE_WORDS:
            off = OFF_VAGUE
        return CONTRADICTED if min(distances) > off else OPEN

    def owner_of(self, mention: re.Match[str]) -> str:
        """What the text calls the object whose part it names, "" where it does not say."""
        before = self.words.original(mention, "before")
        return before or self.words.original(mention, "behind")

    def is_part_of_other_kind(self, names: frozenset[str]) -> bool:
        """Whether only vehicles have such a part and only animals are annotated, or the other way round."""
        annotated = [is_a(one.category) for one in self.scene.photo.objects]
        if not annotated or not names:
            return False
        if names <= VEHICLE_PARTS:
            return all(categories & ANIMALS for categories in annotated)
        if names <= ANIMAL_PARTS:
            return all(categories & VEHICLES for categories in annotated)
        return False

    def landmarks_called(self, word: str, owner: str) -> list[Landmark]:
        """The annotated parts that a word may mean, of objects that another word may mean, if there is one."""
        names = parts_called(word)
        categories = categories_called(owner) if owner else frozenset()
        found = []
        for number, annotated in enumerate(self.scene.photo.objects):
            if categories and not categories & is_a(annotated.category):
                continue
            for landmark in self.scene.parts[number]:
                if without_side(landmark.name) in names:
                    found.append(landmark)
        return found

    def verdict_on_side(self, found: re.Match[str], side: str) -> str:
        own = None if self.point.part is None else side_in(self.point.part)
        if own is None:
            return OPEN
        assert self.annotated is not None
        seen = self.scene.seen_side(self.scene.number_of(self.annotated), self.point)
        if "own" in found["adjectives"]:
            return CONFIRMED if side == own else CONTRADICTED
        if found["seen"] or "-hand" in found["adjectives"]:
            if seen is None:
                return OPEN
            return CONFIRMED if side == seen else CONTRADICTED
        if side in (own, seen):
            return CONFIRMED
        return CONTRADICTED if seen is not None else OPEN

    # ---------------------------------------------------------------- looks

    def color_claims(self) -> Iterator[Claim]:
        for found in _SPOT_COLOR.finditer(self.text):
            groups = ("color", "meeting", "between", "edge", "said", "called", "noted")
            name = next(name for name in groups if found[name])
            words = self.words.original(found, name)
            yield Claim(
                "color",
                self.words.original(found),
                self.verdict_on_color(words),
            )
        for found in _BORDER.finditer(self.text):
            yield Claim(
                "color", self.words.original(found), self.verdict_on_border(found)
            )

    def verdict_on_color(self, words: str) -> str:
        x, y = self.point.x, self.point.y
        names = color_names(words)
        return verdict_of([self.scene.looks.says_color(name, x, y) for name in names])

    def verdict_on_border(self, found: re.Match[str]) -> str:
        """A color close by in a direction: contradicted where it is nowhere on the way."""
        x, y = self.point.x, self.point.y
        direction = next(
            name
            for name, words in BORDER_WORDS.items()
            if words.search(found["direction"])
        )
        names = color_names(self.words.original(found, "color"))
        looks = self.scene.looks
        return verdict_of([looks.says_border(direction, name, x, y) for name in names])

    def texture_claims(self) -> Iterator[Claim]:
        x, y = self.point.x, self.point.y
        seen = self.scene.looks.at(x, y).pattern
        for found in _TEXTURE.finditer(self.text):
            said = found["texture"] or found["said"]
            pattern = "plain"
            if "textured" in said:
                pattern = "coarse texture" if _STRONG.search(said) else "fine texture"
            answer = self.scene.looks.says_pattern(pattern, x, y)
            verdict = OPEN
            if {pattern, seen} == {"plain", "coarse texture"} or answer is False:
                verdict = CONTRADICTED
            elif answer or (pattern != "plain" and "texture" in seen):
                verdict = CONFIRMED
            yield Claim("texture", self.words.original(found), verdict)

    # ---------------------------------------------------------------- relations

    def relation_claims(self) -> Iterator[Claim]:
        sides = [
            found.span() for found in _MENTION.finditer(self.text) if found["seen"]
        ]
        for found in _DIRECTION.finditer(self.text):
            # "the eye on the left of the dog" says which eye
            if any(start < found.start() < end for start, end in sides):
                continue
            yield Claim(
                "relation", self.words.original(found), self.verdict_on_direction(found)
            )
        for found in _BETWEEN.finditer(self.text):
            yield Claim(
                "relation", self.words.original(found), self.verdict_on_between(found)
            )

    def named_landmarks(self, found: re.Match[str], group: str) -> list[Landmark]:
        """What the words of a landmark may mean."""
        mention = _MENTION.search(self.text, *found.span(group))
        if mention is None:
            landmarks = []
            named = _OBJECT_MENTION.search(self.text, *found.span(group))
            if named is None:
                return []
            categories = categories_called(self.words.original(named))
            for number, annotated in enumerate(self.scene.photo.objects):
                if categories & is_a(annotated.category):
                    size = longer_side(annotated.box)
                    landmarks.append(
                        Landmark(annotated.category, annotated.box, number, size, True)
                    )
            return landmarks
        word = self.words.original(mention, "word")
        is_followed = self.text.startswith(" of", mention.end())
        if word in OTHER_MEANINGS and is_followed and not mention["before"]:
            return []
        landmarks = self.landmarks_called(word, self.owner_of(mention))
        side = side_in(f"{mention['adjectives']} {mention['seen'] or ''}")
        if side is None:
            return landmarks
        is_own = "own" in mention["adjectives"]
        is_seen = bool(mention["seen"]) or "-hand" in mention["adjectives"]
        return [
            landmark
            for landmark in landmarks
            if (not is_own and landmark.seen in (side, None))
            or (not is_seen and side_in(landmark.name) in (side, None))
        ]

    def verdict_on_direction(self, found: re.Match[str]) -> str:
        landmarks = self.named_landmarks(found, "landmark")
        if not landmarks:
            return OPEN
        verdicts = [
            self.verdict_on_one(found["words"], landmark) for landmark in landmarks
        ]
        if CONFIRMED in verdicts:
            return CONFIRMED
        return OPEN if OPEN in verdicts else CONTRADICTED

    def verdict_on_one(self, words: str, landmark: Landmark) -> str:
        x1, y1, x2, y2 = landmark.box
        center_x, center_y = landmark.center
        tolerance = WRONG_SIDE * landmark.size
        x, y = self.point.x, self.point.y
        rights: list[bool] = []
        wrongs: list[bool] = []
        for word in re.findall(r"\w+", words):
            if word in ("level", "height"):
                off = max(y1 - y, y - y2, 0) / landmark.size
                rights.append(off < ALIGNED)
                wrongs.append(off > WRONG_LEVEL)
            elif word in ("above", "upper", "top", "up"):
                rights.append(y < center_y)
                wrongs.append(y > y2 + tolerance)
            elif word in (
                "below",
                "beneath",
                "under",
                "underneath",
                "lower",
                "bottom",
                "down",
            ):
                rights.append(y > center_y)
                wrongs.append(y < y1 - tolerance)
            elif word == "left":
                rights.append(x < center_x)
                wrongs.append(x > x2 + tolerance)
            elif word == "right":
                rights.append(x > center_x)
                wrongs.append(x < x1 - tolerance)
        if any(wrongs):
            return CONTRADICTED
        return CONFIRMED if rights and all(rights) else OPEN

    def verdict_on_between(self, found: re.Match[str]) -> str:
        firsts = self.named_landmarks(found, "first")
        seconds = self.named_landmarks(found, "second")
        shares = []
        for first in firsts:
            for second in seconds:
                if first.owner == second.owner and first.center != second.center:
                    x, y = self.point.x, self.point.y
                    shares.append(along_way(first, second, x, y))
        if not shares:
            return OPEN
        if any(0 <= along <= 1 and off < 0.5 for along, off in shares):
            return CONFIRMED
        is_off = all(not -0.4 <= along <= 1.4 or off > 1.0 for along, off in shares)
        return CONTRADICTED if is_off else OPEN

    # ---------------------------------------------------------------- places

    def place_claims(self) -> Iterator[Claim]:
        for found in _STEPS.finditer(self.text):
            yield Claim(
                "place", self.words.original(found), self.verdict_on_steps(found)
            )
        for found in _REGION.finditer(self.text):
            if _STEPS.search(found[0]) is None:
                yield Claim(
                    "place", self.words.original(found), self.verdict_on_region(found)
                )

    def places_in_image(self) -> list[tuple[float, float]]:
        """Where in the image a text may put something: the point, and the objects that it is near to."""
        width, height = self.scene.photo.size
        places = [(self.point.x / width, self.point.y / height)]
        objects = [self.annotated] if self.annotated else self.scene.photo.objects
        for annotated in objects:
            x, y = center_of(annotated.box)
            places.append((x / width, y / height))
        return places

    def places_in_object(self, word: str) -> list[tuple[float, float]]:
        """Where the point is in the boxes of the objects that a word may mean."""
        categories = categories_called(word)
        places = []
        objects = [self.annotated] if self.annotated else self.scene.photo.objects
        for annotated in objects:
            if categories & is_a(annotated.category):
                places.append(shares_of(self.point, annotated.box))
        return places

    def verdict_on_steps(self, found: re.Match[str]) -> str:
        """Five steps for each axis: a neighboring one is as good."""
        frame = self.words.original(found, "frame")
        places = (
            self.places_in_image()
            if frame in IMAGE_WORDS
            else self.places_in_object(frame)
        )
        if not places:
            return OPEN
        across = HORIZONTAL.index(found["across"] or found["across2"])
        down = VERTICAL.index(found["down"] or found["down2"])
        misses = []
        for u, v in places:
            off_across = abs(min(max(u, 0), 1) * 5 - (across + 0.5))
            off_down = abs(min(max(v, 0), 1) * 5 - (down + 0.5))
            misses.append(max(off_across, off_down))
        if min(misses) <= 0.75:
            return CONFIRMED
        return CONTRADICTED if min(misses) > 1.5 else OPEN

    def verdict_on_region(self, found: re.Match[str]) -> str:
        """A half or corner of the image: wrong where the other half is meant."""
        words = re.findall(r"[\w-]+", found["words"] or found["far"] or found["within"])
        places = self.places_in_image()
        if found["thing"]:
            places = self.places_in_object(self.words.original(found, "thing"))
        verdicts = []
        is_corner = "corner" in found[0] or self.text.endswith(
            ("extreme ", "very "), 0, found.start()
        )
        for u, v in places:
            shares = []
            for word in words:
                direction = VERTICAL_WORDS.get(word) or HORIZONTAL_WORDS.get(word)
                if direction is None:
                    continue
                share = {"above": v, "below": 1 - v, "left": u, "right": 1 - u}[
                    direction
                ]
                shares.append(share)
            if not shares:
                return OPEN
            if max(shares) <= (IN_CORNER if is_corner else 0.5):
                return CONFIRMED
            wrong = OFF_CORNER if is_corner else WRONG_HALF
            verdicts.append(CONTRADICTED if max(shares) > wrong else OPEN)
        return OPEN if OPEN in verdicts or not verdicts else CONTRADICTED


def verdict_of(answers: Sequence[bool | None]) -> str:
    """The verdict on what has several names, of which one that is right is enough; open for no name."""
    if True in answers:
        return CONFIRMED
    return OPEN if None in answers or not answers else CONTRADICTED


def is_spot(landmark: Landmark) -> bool:
    """Whether only a point of a landmark is known."""
    x1, y1, x2, y2 = landmark.box
    return x1 == x2 and y1 == y2
