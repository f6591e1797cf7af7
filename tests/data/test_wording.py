"""The rule-based writer says what is there, in words that do not carry coordinates."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_examples import BESIDE, EYE, LIGHT

from hf_talking_points.data.names import names_it, normalize_category, normalize_part
from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.data.wording import (
    COLOR_PROTOTYPES,
    HORIZONTAL,
    PARTLESS_STYLES,
    PLANS,
    STYLES,
    SURROUNDINGS_PLANS,
    VERTICAL,
    PointFacts,
    capitalized,
    describe_point,
    describe_surroundings,
    fact_lines,
    plans_for,
    point_facts,
    size_word,
    spot,
    spot_looks,
    step_word,
    write,
    write_with_plan,
)

SIZE = (100, 80)
PIXELS = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
POSITION_WORDS = set(" ".join(HORIZONTAL + VERTICAL).split())

# as publishers spell them, and as they might
RAW_NAMES = (
    "dog",
    "Left_Eye",
    "traffic_light",
    "Grevy's zebra ",
    "t-shirt",
    "T-Shirt (collar)",
    "C++ key",
    "a.b*c?",
    "[wheel]",
    "3D printer",
    "747",
    "l_1",
    "end.",
    "50% off",
    "<b>",
    "x|y",
    "{0}",
    "{spot}",
    "%s",
    "back",
    "left",
    "white bear",
    "center console",
    "point",
    "image",
    "the thing",
    "Éclair",
    "ßpitz",
    "ırmak",
    "İzmir",
    "дом",
    "犬",
    "very long name " * 8,
)
ODD_NAMES = st.sampled_from(RAW_NAMES) | st.text(
    st.characters(codec="utf-8"), min_size=1
)


def photo_of(box, *points):
    annotated = AnnotatedObject("dog", box, points)
    return Photo("a.jpg", "a.jpg", SIZE, (annotated,)), annotated


def every_text(photo, annotated, point, style, pixels=PIXELS):
    texts = set()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        texts.add(describe_point(photo, annotated, point, pixels, style, rng))
    return texts


def texts_of(facts, style):
    """Every text that the style has for these facts."""
    texts = set()
    for seed in range(40 * len(plans_for(facts, style))):
        texts.add(write(facts, style, np.random.default_rng(seed)))
    return texts


def words_of(text):
    return set(re.findall(r"\w+", text.lower()))


def test_a_full_description_goes_from_coarse_to_fine():
    point = PartPoint("left eye", 12, 8, (10, 5, 20, 15))
    photo, annotated = photo_of((0, 0, 60, 40), point)
    pixels = np.zeros((80, 100, 3), dtype=np.uint8)
    assert describe_point(photo, annotated, point, pixels) == (
        "A medium-sized dog in the top and left of the image. The point is on its left eye, at the top and left of "
        "the dog, in the top and left within the left eye, a black, smooth spot."
    )
    phrases = (
        "dog",
        "left eye",
        "top and left of the image",
        "top and left of the dog",
        "within the left eye",
        "black, smooth",
    )
    for style in ("full", "unseen"):
        for text in every_text(photo, annotated, point, style, pixels):
            for phrase in phrases:
                assert phrase in text.lower(), text


def test_facts_of_a_point():
    point = PartPoint("left eye", 59, 39, (50, 30, 60, 40))
    photo, annotated = photo_of((40, 0, 100, 80), point)
    facts = point_facts(photo, annotated, point, np.zeros((80, 100, 3), dtype=np.uint8))
    assert facts == PointFacts(
        object="dog",
        size="large",
        part="left eye",
        in_image="middle and right",
        on_object="middle and left",
        in_part="very bottom and far right",
        spot="a black, smooth spot",
    )


def test_a_terse_description_names_and_places_nothing():
    point = PartPoint("tail base", 12, 8)
    photo, annotated = photo_of((0, 0, 60, 40), point)
    texts = every_text(photo, annotated, point, "terse")
    assert len(texts) == len(PLANS["terse"])
    assert {"The dog's tail base.", "Tail base of the dog.", "Dog, tail base."} <= texts
    for text in texts:
        assert not words_of(text) & POSITION_WORDS


@given(
    st.floats(0, 100),
    st.floats(0, 80),
    st.floats(1, 100),
    st.floats(1, 80),
    st.sampled_from(STYLES),
    st.integers(0, 99),
)
def test_no_text_carries_coordinates(x, y, width, height, style, seed):
    point = PartPoint("nose", x, y, (max(x - 5, 0), max(y - 5, 0), x + 5, y + 5))
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    photo, annotated = photo_of(box, point)
    rng = np.random.default_rng(seed)
    texts = (
        describe_point(photo, annotated, point, PIXELS, style, rng),
        describe_surroundings(photo, x, y, PIXELS, style, rng),
    )
    coordinates = r"\d|\b(quarter|third|half|percent|grid|row|column|coordinates?)\b"
    for text in texts:
        assert not re.search(coordinates, text)


@pytest.mark.parametrize("style", STYLES)
def test_no_style_carries_coordinates_or_loses_the_names(style):
    coordinates = r"\d|[{}]|\b(quarter|third|half|percent|pixels?|grid|rows?|columns?|coordinates?)\b"
    for facts in (EYE, LIGHT, BESIDE):
        for text in texts_of(facts, style):
            assert not re.search(coordinates, text)
            if facts.object is not None:
                assert facts.object in text.lower()
                assert (facts.part in text.lower()) == (style not in PARTLESS_STYLES)


@given(
    ODD_NAMES, ODD_NAMES, st.sampled_from(STYLES), st.booleans(), st.integers(0, 999)
)
def test_a_text_contains_the_names_that_are_looked_for(
    category, part, style, has_box, seed
):
    category = normalize_category(category)
    part = normalize_part(part, category)
    if not category or not part:
        return
    facts = PointFacts(
        object=category,
        size="small",
        part=part,
        in_image="top and left",
        on_object="middle and center",
        in_part="bottom and right" if has_box else None,
        spot="an orange, smooth spot",
    )
    text = write(facts, style, np.random.default_rng(seed))
    assert names_it(text, category)
    if style not in PARTLESS_STYLES:
        assert names_it(text, part)


def test_no_position_says_everything_but_positions():
    forbidden = POSITION_WORDS | {"upper", "lower", "corner", "side"}
    for facts in (EYE, LIGHT, BESIDE):
        texts = texts_of(facts, "no_position")
        assert len(texts) >= 4
        for text in texts:
            text = text.lower()
            assert facts.spot in text
            if facts.object is not None:
                assert facts.size in text
                text = text.replace(
                    facts.part, ""
                )  # its left and right are the object's own
            assert not words_of(text) & forbidden, text


def test_colloquial_names_every_position_with_its_frame():
    for facts in (EYE, LIGHT, BESIDE):
        texts = texts_of(facts, "colloquial")
        assert len(texts) >= 4
        for text in texts:
            assert re.search(f"{facts.in_image} of the (photo|picture)", text)
            assert facts.spot in text
            if facts.object is not None:
                assert f"{facts.on_object} of the {facts.object}" in text
                assert facts.size in text
            if facts.in_part is not None:
                assert f"{facts.in_part} within the {facts.part}" in text


def test_five_words_an_axis():
    assert len(HORIZONTAL) == len(VERTICAL) == 5
    assert not set(HORIZONTAL) & set(VERTICAL)
    words = {
        -0.1: "far left",
        0: "far left",
        0.19: "far left",
        0.2: "left",
        0.5: "center",
        0.99: "far right",
        1: "far right",
        1.1: "far right",
    }
    for share, word in words.items():
        assert step_word(share, HORIZONTAL) == word


def test_a_quarter_of_the_plans_is_kept_out_of_training():
    full = set(PLANS["full"])
    unseen = set(PLANS["unseen"])
    plan_count = len(full | unseen)
    assert plan_count >= 20
    assert not full & unseen
    assert 0.2 <= len(unseen) / plan_count <= 0.3


def test_the_seed_chooses_the_plan():
    point = PartPoint("nose", 12, 8)
    photo, annotated = photo_of((0, 0, 60, 40), point)
    for style in STYLES:
        assert len(every_text(photo, annotated, point, style)) == len(PLANS[style])
        texts = set()
        for _ in range(2):
            rng = np.random.default_rng(7)
            texts.add(describe_point(photo, annotated, point, PIXELS, style, rng))
        assert len(texts) == 1


@pytest.mark.parametrize("style", STYLES)
def test_the_number_is_that_of_the_plan(style):
    for facts in (EYE, BESIDE):
        plans = (PLANS if facts.object else SURROUNDINGS_PLANS)[style]
        assert write_with_plan(facts, style) == (0, write(facts, style))
        text_of_plan = {}
        for seed in range(40 * len(plans)):
            number, text = write_with_plan(facts, style, np.random.default_rng(seed))
            assert text == write(facts, style, np.random.default_rng(seed))
            assert text_of_plan.setdefault(number, text) == text
        assert sorted(text_of_plan) == list(range(len(plans)))
        assert len(set(text_of_plan.values())) == len(plans)


def test_a_sentence_begins_with_a_capital():
    assert capitalized("left eye of Rex") == "Left eye of Rex"
    assert capitalized("éclair") == "Éclair"
    for unchanged in ("", "3d printer", "ßpitz", "ırmak", "犬", "Dog"):
        assert capitalized(unchanged) == unchanged


def test_spot_reads_color_and_texture_from_the_pixels():
    for name, color in COLOR_PROTOTYPES.items():
        pixels = np.broadcast_to(np.array(color, dtype=np.uint8), (50, 50, 3))
        article = "an" if name == "orange" else "a"
        assert spot(pixels, 25, 25) == f"{article} {name}, smooth spot"
    checkered = np.zeros((100, 100, 3), dtype=np.uint8)
    checkered[::2, ::2] = 255
    checkered[1::2, 1::2] = 255
    assert "strongly textured" in spot(checkered, 50, 50)
    halves = np.zeros((100, 100, 3), dtype=np.uint8)
    halves[:, 50:] = (180, 40, 40)
    assert "black" in spot(halves, 20, 50)
    assert "red" in spot(halves, 80, 50)
    # the borders of the photo
    assert "black" in spot(halves, 0, 0)
    assert "red" in spot(halves, 100, 100)


def test_looks_of_a_spot():
    assert (
        spot_looks("a dark brown, lightly textured spot")
        == "dark brown, lightly textured"
    )
    assert spot_looks("an orange, smooth spot") == "orange, smooth"


def test_sizes():
    assert size_word((0, 0, 10, 10), (100, 100)) == "small"
    assert size_word((0, 0, 10, 100), (100, 100)) == "medium-sized"
    assert size_word((0, 0, 90, 90), (100, 100)) == "large"


def test_facts_a_phrase_a_line():
    assert fact_lines(LIGHT) == (
        "a small car in the bottom and far left of the image\n"
        "its front left light at the very top and right of the car, "
        "in the middle and center within the front left light\n"
        "a black, smooth spot"
    )
    assert fact_lines(BESIDE) == (
        "in the top and center of the image\na green, lightly textured spot"
    )


def test_surroundings_name_no_object():
    photo, _ = photo_of((0, 0, 60, 40))
    texts = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        texts.add(describe_surroundings(photo, 90, 70, PIXELS, "full", rng))
    assert len(texts) == 4
    for text in texts:
        assert "dog" not in text
        assert "very bottom and far right of the image" in text


def test_unknown_style_is_an_error():
    point = PartPoint("nose", 12, 8)
    photo, annotated = photo_of((0, 0, 60, 40), point)
    with pytest.raises(ValueError, match="rhymed"):
        describe_point(photo, annotated, point, PIXELS, "rhymed")
    with pytest.raises(ValueError, match="rhymed"):
        describe_surroundings(photo, 1, 1, PIXELS, "rhymed")


def test_an_unknown_part_is_not_named():
    point = PartPoint(None, 12, 8)
    photo, annotated = photo_of((0, 0, 60, 40), point)
    for style in STYLES:
        if style in PARTLESS_STYLES:
            assert "dog" in describe_point(photo, annotated, point, PIXELS, style)
        else:
            with pytest.raises(ValueError, match=f"'{style}' names the part"):
                describe_point(photo, annotated, point, PIXELS, style)
