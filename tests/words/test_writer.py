"""The writer says what is known of a point, in words that do not carry coordinates."""

import re
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.data.names import names_it, normalize_category, normalize_part
from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.words.facts import HORIZONTAL, VERTICAL, PointFacts, Scene
from hf_talking_points.words.looks import COLORS, PATTERNS, Region, SpotLooks
from hf_talking_points.words.mentions import COLOR, MarkedText
from hf_talking_points.words.relations import Landmark, Relation
from hf_talking_points.words.slots import FRAMES, FreeSlots, free_grammar
from hf_talking_points.words.writer import (
    PARTLESS_STYLES,
    PLAIN_STYLES,
    STYLES,
    WORD_LIMITS,
    describe_point,
    plain_grammar,
    plain_slots,
    skeleton,
    spot,
    write,
)

LOOKS = SpotLooks("orange", "plain", (("left", "white"), ("above", "dark brown")))
EAR = Landmark("right ear", (10, 10, 20, 30), 0, 90.0, seen="left", category="dog")
NOSE = Landmark("nose", (40, 40, 40, 40), 0, 90.0, category="dog")
EYE = PointFacts(
    in_image="top and left",
    looks=LOOKS,
    object="dog",
    size="small",
    which="second from the left",
    part="left eye",
    seen="right",
    on_object="very top and right",
    in_part="bottom and center",
    part_place="upper edge",
    relations=(
        Relation("beside", (NOSE,), "upper right", "a little"),
        Relation("level with", (EAR,), "right"),
        Relation("halfway", (EAR, NOSE)),
    ),
)
PANTS = replace(EYE, object="pants", size="large", part="pocket", seen=None)
SKY = PointFacts("very top and far left", SpotLooks("blue", "fine texture"))
CUP = replace(SKY, image_classes=("orange cup",))
# of where the dog is, where its eye is in it, and where that is from other parts
PLACE_PHRASES = (
    "left part",
    "upper left",
    "top left",
    "top right",
    "upper right",
    "nose",
    "ear",
    "of the dog",
)
FACTS = {"eye": EYE, "pants": PANTS, "sky": SKY, "cup": CUP}

# as publishers spell them, and as they might
ODD_NAMES = st.sampled_from(
    (
        "Grevy's zebra ",
        "T-Shirt (collar)",
        "C++ key",
        "a.b*c?",
        "vitamin a orange",
        "747",
        "end.",
        "50% off:",
        "x|y",
        "{spot}",
        "%s",
        "left",
        "center console",
        "ßpitz",
        "ırmak",
        "İzmir",
        "犬",
        "very long name " * 8,
    )
) | st.text(st.characters(codec="utf-8"), min_size=1)
POSITIONS = st.builds(
    "{} and {}".format, st.sampled_from(VERTICAL), st.sampled_from(HORIZONTAL)
)
SIDES = st.sampled_from(["left", "right"])
REGIONS = st.builds(
    Region,
    st.floats(0, 1),
    st.floats(1, 20),
    st.floats(0, 1),
    st.booleans(),
    st.booleans(),
    st.just((0.0, 0.0)),
)
ALL_LOOKS = st.builds(
    SpotLooks,
    st.sampled_from(sorted(COLORS)),
    st.sampled_from(PATTERNS),
    st.sampled_from([(), LOOKS.borders, (("right", "red"), ("below", "teal"))]),
    (st.none() | REGIONS).map(lambda region: lambda: region),
)
ALL_FACTS = st.builds(
    PointFacts,
    in_image=POSITIONS,
    looks=ALL_LOOKS,
    object=st.just("dog"),
    size=st.sampled_from(["small", "large"]),
    which=st.sampled_from([None, "leftmost", "third from the right", "smaller"]),
    part=st.sampled_from(["left eye", "nose", "right front paw"]),
    seen=st.none() | SIDES,
    on_object=POSITIONS,
    in_part=st.none() | POSITIONS,
    part_place=st.sampled_from([None, "middle", "left edge", "tip"]),
    relations=st.sampled_from([(), EYE.relations[:1], EYE.relations]),
)


def texts_of(facts: PointFacts, style: str, count: int = 100) -> list[str]:
    return [write(facts, style, np.random.default_rng(seed)) for seed in range(count)]


def test_the_old_sentences_live_on():
    assert write(EYE) == (
        "A small dog in the top and left of the image. The point is on its own left eye, at the very top and right of "
        "the dog, in the bottom and center within the left eye, an orange, smooth spot."
    )
    assert write(EYE, "terse") == "The dog's own left eye."
    assert write(PANTS, "caption") == (
        "A large pair of pants in the top and left of the image."
    )
    assert write(SKY) == (
        "The point is on some thing or surface in the very top and far left of the image, a blue, "
        "lightly textured spot."
    )


def test_the_own_side_is_named_whole_in_the_old_styles():
    for style in PLAIN_STYLES:
        for text in texts_of(EYE, style):
            assert names_it(text, "left eye") == (style not in PARTLESS_STYLES)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
def test_texts_are_good_english(facts, style):
    for text in texts_of(facts, style):
        assert text[0].isupper()
        assert not re.search(r"\d|[{}\[\]|()]|  | [,.;:?!]|[,.;:][,.;:?!]", text), text
        assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text
        assert not re.search(r"\ba [aeio]|\ban [^aeiouh]", text), text
        assert not re.search(r"[.?!] [a-z]", text), text
        assert "a pants" not in text


@given(ALL_FACTS, st.sampled_from(sorted(WORD_LIMITS)), st.integers(0, 2**32 - 1))
def test_texts_have_a_length_within_the_limits(facts, style, seed):
    text = write(facts, style, np.random.default_rng(seed))
    _, most = WORD_LIMITS[style]
    assert len(text.split()) <= most


@given(ALL_FACTS, st.sampled_from(sorted(WORD_LIMITS)), st.integers(0, 2**32 - 1))
def test_own_side_and_side_as_seen_are_not_mixed(facts, style, seed):
    text = write(facts, style, np.random.default_rng(seed)).lower()
    if " own " not in text:
        return
    # places in the picture, and which of several objects, are as seen in any text
    picture = r"(photo|picture|image|photograph|shot)"
    rest = re.sub(rf"[^.;:?]*\b{picture}\b[^.;:?]*", " ", text)
    rest = re.sub(r"own (left|right)|from the (left|right)", " ", rest)
    assert not re.search(r"\b(left|right)(-hand)?\b", rest), text


@given(ODD_NAMES, ODD_NAMES, st.sampled_from(PLAIN_STYLES), st.integers(0, 999))
def test_the_old_styles_keep_names_as_they_are(category, part, style, seed):
    category = normalize_category(category)
    part = normalize_part(part, category)
    if not category or not part:
        return
    facts = replace(EYE, object=category, part=part, which=None)
    text = write(facts, style, np.random.default_rng(seed))
    assert names_it(text, category)
    assert style in PARTLESS_STYLES or names_it(text, part)


def test_thorough_texts_say_more_places_than_free_ones():
    def mean_places(style):
        said = []
        for text in texts_of(EYE, style, 60):
            words = text.lower()
            said.append(sum(phrase in words for phrase in PLACE_PHRASES))
        return np.mean(said)

    assert mean_places("thorough") > mean_places("free") + 0.5


def test_each_frame_of_left_and_right():
    rng = np.random.default_rng(0)
    own = FreeSlots(EYE, "own", rng).slots()
    assert own["own"] == "left"
    assert own.get("seen") is None
    assert [color.split(" ")[:2] for color in own["border"]] == [["dark", "brown"]]
    assert own.get("at_object") is None
    seen = FreeSlots(EYE, "seen", rng).slots()
    assert seen["seen"] == "right"
    assert seen.get("own") is None
    assert len(seen["border"]) == 2


def test_relations_are_said_in_both_frames():
    for frame in FRAMES:
        phrases = set()
        for seed in range(60):
            slots = FreeSlots(EYE, frame, np.random.default_rng(seed)).slots()
            phrases |= {*slots["relation"], *slots.get("move", ())}
        text = "\n".join(phrases)
        assert ("ear on the left" in text) == (frame == "seen")
        assert ("own right ear" in text) == (frame == "own")
        assert "nose" in text


def test_an_object_of_several_is_told_apart():
    texts = " ".join(texts_of(EYE, "free", 300))
    assert "second dog from the left" in texts


def test_a_photo_of_a_class_says_it():
    assert any("an orange cup" in text.lower() for text in texts_of(CUP, "free"))
    assert any("an orange cup" in text.lower() for text in texts_of(CUP, "full"))


@pytest.mark.parametrize("style", ["free", "brief"])
def test_what_has_no_name_is_told_from_its_surroundings(style):
    for seed in range(300):
        text = write(SKY, style, np.random.default_rng(seed))
        assert COLOR in MarkedText(text).marked, text


def test_slots_of_the_grammars_are_those_of_the_writer():
    plain = set(plain_slots(EYE)) | set(plain_slots(CUP))
    assert plain_grammar().slots <= plain
    rng = np.random.default_rng(0)
    known = set(FreeSlots(EYE, "own", rng).slots())
    known |= set(FreeSlots(EYE, "seen", rng).slots())
    known |= set(FreeSlots(CUP, "seen", rng).slots())
    # of phrases that the writer puts together first
    known |= {"frame", "border_color", "landmark", "second", "distance", "category"}
    known |= {"move"}
    known |= {"unsided", "one_of", "just", "a little", "some way", "far", *PATTERNS}
    known |= {"large", "tiny", "long", "upright", "flat", "round", "region"}
    known |= {"british", "hoofed"}
    assert free_grammar().slots <= known


def test_skeleton():
    text = "The point is on the dog's own left eye, an orange, smooth spot."
    other = "The point is on the cow's own right ear, a dark brown, smooth spot."
    assert skeleton(text) == "the point is on the _'s own _, a _, _ spot."
    assert skeleton(text) == skeleton(other)
    assert skeleton("A cup, on the left.", ["cup"]) == "a _, on the _."
    assert skeleton("Nothing of that kind.") == "nothing of that kind."


def test_free_texts_are_put_in_many_ways():
    texts = texts_of(EYE, "free", 400)
    assert len({skeleton(text) for text in texts}) > 390


@pytest.mark.parametrize(("facts", "place"), [(EYE, "on_object"), (CUP, "in_image")])
def test_full_texts_are_put_by_the_place_and_now_and_then_otherwise(facts, place):
    favorites = []
    for down, across in product(VERTICAL, HORIZONTAL):
        placed = replace(facts, **{place: f"{down} and {across}"})
        rng = np.random.default_rng(0)
        counts = Counter(skeleton(write(placed, "full", rng)) for _ in range(60))
        (favorite, count), *others = counts.most_common()
        favorites.append(favorite)
        assert count > 30
        assert others
    assert len(set(favorites)) > 20


def test_spot():
    assert spot(LOOKS) == "an orange, smooth spot"
    assert spot(replace(LOOKS, pattern="edge")) == "an orange spot at an edge"
    for pattern in PATTERNS:
        assert "{" not in spot(replace(LOOKS, pattern=pattern))


def test_describe_point_of_a_scene():
    point = PartPoint("left eye", 30.0, 20.0)
    annotated = AnnotatedObject("dog", (0.0, 0.0, 60.0, 60.0), (point,))
    photo = Photo("a.jpg", None, (100, 80), (annotated,))
    scene = Scene(photo, np.zeros((80, 100, 3), np.uint8))
    assert describe_point(scene, annotated, point, "terse") == "The dog's own left eye."
    corner = PartPoint(None, 90.0, 70.0)
    texts = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        texts.append(describe_point(scene, None, corner, "brief", rng).lower())
    assert any("black" in text for text in texts)


def test_a_style_that_is_not_known():
    with pytest.raises(ValueError, match="style must be one of"):
        write(EYE, "long")


def test_a_style_that_names_the_part_where_it_is_not_known():
    with pytest.raises(ValueError, match=r"'full' names the part, .* on a dog"):
        write(replace(EYE, part=None), "full")
