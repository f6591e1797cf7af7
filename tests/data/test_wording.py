"""The rule-based writer says what is there, in words that do not carry coordinates."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.data.sources import AnnotatedObject, PartPoint, Photo
from hf_talking_points.data.wording import (
    COLOURS,
    HORIZONTAL,
    PLANS,
    STYLES,
    VERTICAL,
    describe_point,
    describe_surroundings,
    fifth,
    names_it,
    size_word,
    spot,
)

SIZE = (100, 80)
PIXELS = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)


def photo_of(box, *points):
    annotated = AnnotatedObject("dog", box, points)
    return Photo("a.jpg", "a.jpg", SIZE, (annotated,)), annotated


def every_text(photo, annotated, point, style, pixels=PIXELS):
    return {
        describe_point(photo, annotated, point, pixels, style, np.random.default_rng(seed))
        for seed in range(150)
    }


def test_a_full_description_goes_from_coarse_to_fine():
    point = PartPoint("left_eye", 12, 8, (10, 5, 20, 15))
    photo, annotated = photo_of((0, 0, 60, 40), point)
    pixels = np.zeros((80, 100, 3), dtype=np.uint8)
    text = describe_point(photo, annotated, point, pixels)
    assert text == (
        "A medium-sized dog in the top and left of the image. The point is on its left eye, at the top and left of the dog, "
        "in the top and left within the left eye, a black, smooth spot."
    )
    for text in every_text(photo, annotated, point, "full", pixels) | every_text(
        photo, annotated, point, "unseen", pixels
    ):
        for phrase in (
            "dog",
            "left eye",
            "top and left of the image",
            "top and left of the dog",
            "within the left eye",
            "black, smooth",
        ):
            assert phrase in text.lower(), text


def test_a_terse_description_names_and_places_nothing():
    point = PartPoint("tailbase", 12, 8)
    photo, annotated = photo_of((0, 0, 60, 40), point)
    texts = every_text(photo, annotated, point, "terse")
    assert (
        len(texts) == len(PLANS["terse"])
        and {"The dog's tail base.", "Tail base of the dog.", "Dog, tail base."} <= texts
    )
    for text in texts:
        assert not set(re.findall(r"\w+", text.lower())) & set(
            " ".join(HORIZONTAL + VERTICAL).split()
        )


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
    photo, annotated = photo_of(
        (x - width / 2, y - height / 2, x + width / 2, y + height / 2), point
    )
    rng = np.random.default_rng(seed)
    for text in (
        describe_point(photo, annotated, point, PIXELS, style, rng),
        describe_surroundings(photo, x, y, PIXELS, style, rng),
    ):
        assert not re.search(
            r"\d|\b(quarter|third|half|percent|grid|row|column|coordinates?)\b", text
        )


def test_five_words_an_axis():
    assert len(HORIZONTAL) == len(VERTICAL) == 5 and not set(HORIZONTAL) & set(VERTICAL)
    assert [fifth(v, HORIZONTAL) for v in (-0.1, 0, 0.19, 0.2, 0.5, 0.99, 1, 1.1)] == [
        "far left",
        "far left",
        "far left",
        "left",
        "center",
        "far right",
        "far right",
        "far right",
    ]


def test_a_quarter_of_the_plans_is_kept_out_of_training():
    full, unseen = set(PLANS["full"]), set(PLANS["unseen"])
    assert (
        len(full | unseen) >= 20
        and not full & unseen
        and 0.2 <= len(unseen) / len(full | unseen) <= 0.3
    )


def test_the_seed_chooses_the_plan():
    point = PartPoint("nose", 12, 8)
    photo, annotated = photo_of((0, 0, 60, 40), point)
    for style in STYLES:
        assert len(every_text(photo, annotated, point, style)) == len(PLANS[style])
        one, other = (
            describe_point(photo, annotated, point, PIXELS, style, np.random.default_rng(7))
            for _ in range(2)
        )
        assert one == other


def test_spot_reads_colour_and_texture_from_the_pixels():
    for name, colour in COLOURS.items():
        pixels = np.broadcast_to(np.array(colour, dtype=np.uint8), (50, 50, 3))
        assert spot(pixels, 25, 25) == f"{'an' if name[0] == 'o' else 'a'} {name}, smooth spot"
    checkered = np.zeros((100, 100, 3), dtype=np.uint8)
    checkered[::2, ::2] = checkered[1::2, 1::2] = 255
    assert "strongly textured" in spot(checkered, 50, 50)
    halves = np.zeros((100, 100, 3), dtype=np.uint8)
    halves[:, 50:] = (180, 40, 40)
    assert "black" in spot(halves, 20, 50) and "red" in spot(halves, 80, 50)
    assert "black" in spot(halves, 0, 0) and "red" in spot(
        halves, 100, 100
    )  # the borders of the photo


def test_sizes():
    assert [size_word((0, 0, 10, side), (100, 100)) for side in (10, 100)] == [
        "small",
        "medium-sized",
    ]
    assert size_word((0, 0, 90, 90), (100, 100)) == "large"


def test_surroundings_name_no_object():
    photo, _ = photo_of((0, 0, 60, 40))
    texts = {
        describe_surroundings(photo, 90, 70, PIXELS, "full", np.random.default_rng(s))
        for s in range(30)
    }
    assert (
        all("dog" not in t and "very bottom and far right of the image" in t for t in texts)
        and len(texts) == 4
    )


def test_unknown_style_is_an_error():
    point = PartPoint("nose", 12, 8)
    photo, annotated = photo_of((0, 0, 60, 40), point)
    with pytest.raises(ValueError, match="rhymed"):
        describe_point(photo, annotated, point, PIXELS, "rhymed")
    with pytest.raises(ValueError, match="rhymed"):
        describe_surroundings(photo, 1, 1, PIXELS, "rhymed")


def test_names_are_found_as_whole_words():
    assert names_it("The Dog's left eye.", "left_eye") and names_it("its tail base", "tailbase")
    assert not names_it("a hotdog", "dog") and not names_it("a dog", "cat")
