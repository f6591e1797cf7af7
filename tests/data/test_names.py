"""Names as publishers spell them, in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.data.names import (
    mirrored_part,
    names_it,
    normalize_category,
    normalize_part,
)

# what publishers' names are made of, in any order
PIECES = st.sampled_from(
    [
        "left",
        "Right",
        "L",
        "r",
        "F",
        "B",
        "eye",
        "Paw",
        "TailBase",
        "near",
        "off",
        "tip",
        "é",
        "İ",
    ]
    + ["_", " ", "-", ".", "(", ")", "[", "\u2028", "\u00a0", "'s", "3"]
)
RAW_NAMES = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=12)
CATEGORIES = st.sampled_from(["", "dog", "horse", "rocking horse"])

LEFT_EYE = [
    "left_eye",
    "Left_Eye",
    "left eye",
    " LEFT  EYE_",
    "left-eye",
    "leftEye",
    "L_Eye",
    "l_eye",
    "LEye",
    "eyeL",
    "eye_L",
    "eye.L",
    "eye-l",
    "eye_left",
    "eye-left",
    "Eye.Left",
    "eye (left)",
    "eye(L)",
    "left\u00a0eye",
]


@pytest.mark.parametrize("raw", LEFT_EYE)
def test_a_side_is_read_in_all_its_spellings(raw):
    assert normalize_part(raw) == "left eye"
    assert mirrored_part(normalize_part(raw)) == "right eye"


@given(RAW_NAMES, CATEGORIES)
def test_a_normalized_name_stays_as_it_is(raw, category):
    part = normalize_part(raw, category)
    assert normalize_part(part, category) == part
    name = normalize_category(raw)
    assert normalize_category(name) == name


@given(RAW_NAMES)
def test_a_name_that_is_mirrored_twice_is_the_same(raw):
    part = normalize_part(raw)
    assert mirrored_part(mirrored_part(part)) == part


@given(
    st.sampled_from(["left", "right"]),
    st.sampled_from(["eye", "ear base", "door", "wheel arch", "tail"]),
)
def test_spellings_of_a_part_agree(side, part):
    words = part.split(" ")
    joined = "_".join(words)
    capitals = [word.capitalize() for word in words]
    letter = side[0].upper()
    spellings = [
        f"{side}_{joined}",
        f"{side} {part}".title(),
        f"{joined}_{side}",
        f"{letter}_{joined}",
        f"{joined}_{letter}",
        f"{joined}.{letter}",
        side + "".join(capitals),
        "".join(capitals) + letter,
        f" {part} ({side}) ",
    ]
    for spelling in spellings:
        assert normalize_part(spelling) == f"{side} {part}", spelling


@pytest.mark.parametrize(
    "raw, name",
    [
        ("L_F_Paw", "left front paw"),
        ("Paw_R_B", "right back paw"),
        ("R_B_Elbow", "right back elbow"),
        ("TailBase", "tail base"),
        ("tailbase", "tail base"),
        ("nose (tip)", "nose tip"),
        ("withers__top", "withers top"),
        ("back", "back"),
        ("F_light", "f light"),
        ("front_left_door", "front left door"),
        ("eye-l)", "left eye"),
        ("back left", "left back"),
        ("right", "right"),
        ("left_right", "left right"),
    ],
)
def test_parts_in_words(raw, name):
    assert normalize_part(raw) == name


@pytest.mark.parametrize("raw", ["", " ", "__", "()", "[ ]_", "\t", "\u00a0"])
def test_nothing_is_left_of_a_name_without_words(raw):
    assert normalize_part(raw) == normalize_category(raw) == ""


def test_the_near_side_is_the_left_one_of_what_is_ridden_alone():
    assert normalize_part("near_fore", "horse") == "left fore"
    assert normalize_part("near-fore", "horse") == "left fore"
    assert normalize_part("off_eye", "shetland pony") == "right eye"
    assert normalize_part("eye (near)", "horse") == "left eye"
    assert normalize_part("hind_off_hoof", "horse") == "hind right hoof"
    assert normalize_part("offside_ear", "donkey") == "right ear"
    assert normalize_part("near_fore", "dog") == "near fore"
    assert normalize_part("off_switch", "lamp") == "off switch"


@pytest.mark.parametrize(
    "raw, name",
    [
        ("traffic_light", "traffic light"),
        ("TrafficLight ", "traffic light"),
        ("car_(automobile)", "car automobile"),
        ("Grevy's_zebra ", "grevy's zebra"),
        ("TV", "tv"),
    ],
)
def test_categories_in_words(raw, name):
    assert normalize_category(raw) == name


def test_mirroring_swaps_sides_alone():
    assert mirrored_part("left front paw") == "right front paw"
    assert mirrored_part("front right door") == "front left door"
    for part in ("nose", "leftover", "bright spot", "copyright sign", "upright"):
        assert mirrored_part(part) == part


def test_a_name_is_found_in_whole_words():
    assert names_it("The Left Eye, brown", "left eye")
    assert names_it("the t-shirt's sleeve", "t-shirt")
    assert not names_it("the spoon's glossy rim", "oo")
    assert not names_it("a cart", "car")
    assert not names_it("anything", "")
