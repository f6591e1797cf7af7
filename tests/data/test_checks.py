"""What a model got wrong in a text is told; a right text passes, whatever the names are."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_examples import BESIDE, EYE, GOOD, LIGHT

from hf_talking_points.data import fusing
from hf_talking_points.data.checks import check, fact_lines
from hf_talking_points.data.names import normalize_category, normalize_part
from hf_talking_points.prompts import read_prompt
from hf_talking_points.words.facts import HORIZONTAL, VERTICAL, PointFacts
from hf_talking_points.words.looks import COLORS, PATTERNS, SpotLooks
from hf_talking_points.words.writer import TEXTURES, write

# styles that say everything, of which a text is checked
COMPLETE_STYLES = ("full", "unseen", "colloquial")
TEXTS = 300  # of a style

# names that hold characters of expressions, capitals, words of position, color, size or of the sentences themselves
RAW_NAMES = (
    "dog",
    "dogs",
    "dog's",
    "small dog",
    "black dog",
    "Left_Eye",
    "eye",
    "left",
    "right",
    "top",
    "middle",
    "center",
    "very top",
    "far left",
    "top and left",
    "back",
    "front",
    "side",
    "edge",
    "rear wheel",
    "upper lip",
    "corner",
    "bear",
    "white bear",
    "console",
    "center console",
    "car",
    "car door",
    "door",
    "door handle",
    "light",
    "traffic_light",
    "Grevy's zebra ",
    "T-Shirt (collar)",
    "C++ key",
    "a.b*c?",
    "end.",
    "<b>",
    "x|y",
    "#1",
    "50% off",
    "3D printer",
    "747",
    "row",
    "grid",
    "pixel",
    "point",
    "spot",
    "image",
    "photo",
    "picture",
    "image frame",
    "photo frame",
    "thing",
    "object",
    "part",
    "facts",
    "scene",
    "black",
    "dark gray",
    "smooth",
    "small",
    "large",
    "medium-sized",
    "sitting dog",
    "the",
    "its",
    "in",
    "Éclair",
    "ßpitz",
    "ırmak",
    "İzmir",
    "犬",
    "very long name " * 12,
)
NAMES = st.sampled_from(RAW_NAMES) | st.text(
    "aeinot 'ßÉ.-+*()_0", min_size=1, max_size=8
)
POSITIONS = st.builds(
    "{} and {}".format, st.sampled_from(VERTICAL), st.sampled_from(HORIZONTAL)
)
LOOKS = st.builds(SpotLooks, st.sampled_from(list(COLORS)), st.sampled_from(PATTERNS))
FACTS = st.builds(
    PointFacts,
    in_image=POSITIONS,
    looks=LOOKS,
    object=NAMES.map(normalize_category).filter(bool),
    size=st.sampled_from(("small", "medium-sized", "large")),
    part=NAMES.map(normalize_part).filter(bool),
    on_object=POSITIONS,
    in_part=st.none() | POSITIONS,
)
VOCABULARY = [normalize_category(name) for name in RAW_NAMES]


def texts_of(facts, style):
    """Every text that the style has for these facts."""
    texts = set()
    for seed in range(TEXTS):
        texts.add(write(facts, style, np.random.default_rng(seed)))
    return texts


@pytest.mark.parametrize("style", COMPLETE_STYLES)
def test_rule_based_texts_pass_the_check(style):
    names = {"dog", "car", "left eye", "right eye", "front left light", "wheel"}
    for facts in (EYE, LIGHT, BESIDE):
        for text in texts_of(facts, style):
            assert check(text, facts, names) is None, text


@given(
    FACTS,
    st.sampled_from(COMPLETE_STYLES),
    st.integers(0, 999),
    st.sampled_from(((), VOCABULARY)),
)
def test_a_right_text_is_never_refused(facts, style, seed, vocabulary):
    text = write(facts, style, np.random.default_rng(seed))
    assert check(text, facts, vocabulary) is None, text


@pytest.mark.parametrize("name", RAW_NAMES)
@pytest.mark.parametrize("style", COMPLETE_STYLES)
def test_a_right_text_with_an_odd_name_is_never_refused(name, style):
    """As the object's, the part's and both."""
    category = normalize_category(name)
    part = normalize_part(name, category)
    for facts in (
        replace(LIGHT, object=category),
        replace(LIGHT, part=part),
        replace(EYE, object=category, part=part),
        replace(
            LIGHT, object=category, in_image="top and left", on_object="top and left"
        ),
    ):
        for seed in range(30):
            text = write(facts, style, np.random.default_rng(seed))
            assert check(text, facts, VOCABULARY) is None, text


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "empty"),
        (" \n", "empty"),
        (GOOD[:-1], "unfinished"),
        (GOOD + " It", "unfinished"),
        (GOOD[0].lower() + GOOD[1:], "unfinished"),
        (GOOD + " Yes." * 100, "longer"),
        (GOOD + "\nfacts", "prompt echoed"),
        ("facts: " + GOOD, "prompt echoed"),
        (GOOD.replace("dog", "<dog>"), "prompt echoed"),
        (GOOD + " It is at (12, 40).", "digits"),
        (GOOD + " See the third row.", "digits or coordinates: 'row'"),
        (GOOD.replace("dog", "cat"), "object dropped: 'dog'"),
        (GOOD.replace("dog", "hotdog"), "object dropped: 'dog'"),
        (GOOD.replace("left eye", "right eye"), "part dropped: 'left eye'"),
        (GOOD + " The right eye is meant.", "invented: 'right'"),
        (
            GOOD.replace("bottom and far left", "bottom and left"),
            "position dropped: 'bottom and far left of the image'",
        ),
        (GOOD.replace("far left of the image", "far left"), "position dropped"),
        (
            GOOD.replace(
                "very top and right of the dog", "very top and right of the image"
            ),
            "position dropped",
        ),
        (GOOD.replace("bottom and", "very bottom and"), "invented: 'very'"),
        (GOOD + " It is in the very top and right of the dog.", "position repeated"),
        (GOOD + " It is near the corner.", "invented: 'corner'"),
        (GOOD.replace("a small dog", "a large dog"), "invented: 'large'"),
        (GOOD.replace("black, smooth", "dark"), "spot dropped"),
        (GOOD + " It is a black, smooth spot.", "spot repeated"),
        (GOOD + " The fur is brown.", "invented: 'brown'"),
        (GOOD + " The fur is grey.", "invented: 'grey'"),
        (GOOD + " Its nose is wet.", "invented: 'nose'"),
        (GOOD + " Two cats watch.", "invented: 'cats'"),
        (GOOD.replace("Look for", "The point is"), "mistaken"),
        (GOOD.replace("A black, smooth spot", "The dog"), "mistaken: 'dog is on its'"),
        (
            GOOD.replace("A black, smooth spot is", "It is black, smooth spot"),
            "mistaken: 'is black, smooth spot'",
        ),
        (
            "The left eye of it is in the bottom and far left of the image: a black, smooth spot "
            "at the very top and right of the dog.",
            "said of the left eye",
        ),
    ],
)
def test_check_gives_the_reason(text, reason):
    found = check(text, EYE, {"cat", "nose", "left eye", "dog"})
    assert found is not None
    assert reason in found


@pytest.mark.parametrize(
    "change, reason",
    [
        (("back", "belly"), "part dropped: 'back'"),
        (("white bear", "polar bear"), "invented: 'bear'"),
        (("of the white bear", "of the bear"), "position dropped"),
        (("its back", "its back, a white one"), "invented: 'white'"),
        (("its back", "its back, near the tail"), "invented: 'tail'"),
        (("its back", "the back of its back leg"), "invented: 'leg'"),
        (("its back", "its back, on the left"), "invented: 'left'"),
        (("A small white bear", "A small white bear with a bear"), "invented: 'bear'"),
    ],
)
def test_names_of_position_and_color_hide_no_mistake(change, reason):
    facts = replace(EYE, object="white bear", part="back")
    text = write(facts, "full")
    vocabulary = ["white bear", "bear", "back", "leg", "tail"]
    assert check(text, facts, vocabulary) is None
    assert reason in check(text.replace(*change, 1), facts, vocabulary)


def test_check_of_a_point_beside_all_objects():
    right = "What we see in the top and center of the image is a green, lightly textured spot."
    assert check(right, BESIDE) is None
    mistaken = "The top and center of the image is a green, lightly textured spot."
    assert "mistaken" in check(mistaken, BESIDE)
    invented = "Look for a green, lightly textured spot in the top and center of the image, on a dog."
    assert "invented: 'dog'" in check(invented, BESIDE, {"dog"})


def test_check_accepts_a_true_text():
    assert check(GOOD, EYE, {"cat", "nose", "left eye", "dog", "eye"}) is None
    assert (
        check(GOOD.replace("bottom and far left", "far left and bottom"), EYE) is None
    )
    assert check(GOOD.replace("of the image", "of the photo"), EYE) is None
    assert check(GOOD.replace("small dog", "small Dog"), EYE) is None
    assert check(f" {GOOD}\n", EYE) is None


def test_check_lets_a_text_tell_what_a_model_saw_but_no_other_position():
    fused = (
        "A small white dog in the bottom and far left of the image lies beside a red sofa. "
        "The point is on its black left eye at the very top and right of the dog."
    )
    assert "spot dropped" in check(fused, EYE)
    assert check(fused, EYE, seen="A white dog beside a red sofa.") is None
    assert "invented: 'beside'" in check(fused, EYE, seen="A white dog and a red sofa.")
    assert "invented: 'red'" in check(fused, EYE, seen="A white dog beside a sofa.")
    higher = fused[:-1] + ", the upper one."
    assert "invented: 'upper'" in check(higher, EYE, seen=fused + " upper")


def facts_of_lines(lines):
    """The facts that a question of the prompts holds."""
    *named, spot = lines.split("\n")
    color, texture = re.fullmatch("an? (.*), (.*) spot", spot).groups()
    (pattern,) = [name for name, words in TEXTURES.items() if words == texture]
    looks = SpotLooks(color, pattern)
    in_image = re.search("in the (.*) of the image", named[0])[1]
    if len(named) == 1:
        return PointFacts(in_image, looks)
    size, category = re.match(r"a (\S+) (\S+) in the", named[0]).groups()
    part, on_object, in_part = re.match(
        r"its (.*) at the (.*) of the \w+(?:, in the (.*) within the .*)?$", named[1]
    ).groups()
    return PointFacts(
        in_image,
        looks,
        object=category,
        size=size,
        part=part,
        on_object=on_object,
        in_part=in_part,
    )


@pytest.mark.parametrize("name", ["reword", "reword_within", "reword_surroundings"])
def test_worked_examples_of_the_prompts_keep_to_the_rules(name):
    messages = read_prompt(fusing.PROMPTS, name)
    example_count = len(messages) // 2 - 1
    roles = [message["role"] for message in messages]
    assert roles == ["system", *["user", "assistant"] * example_count, "user"]
    for question, answer in zip(messages[1:-1:2], messages[2:-1:2]):
        facts = facts_of_lines(question["content"])
        assert fact_lines(facts) == question["content"]
        assert check(answer["content"], facts) is None, answer["content"]


def test_prompts_are_in_one_spelling():
    for file in Path(fusing.PROMPTS).glob("*.txt"):
        assert not re.search("colour|grey|centre", file.read_text())
