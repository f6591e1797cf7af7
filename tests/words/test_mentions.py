"""Names of objects, parts and colors are found in a text, whatever their number and spelling."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.words.mentions import ANY_NAME, COLOR, OBJECT, PART, MarkedText


@pytest.mark.parametrize(
    ("text", "kind", "names"),
    [
        ("A Siberian husky and two kittens.", OBJECT, ["husky", "kittens"]),
        ("A golden retriever's muzzle", OBJECT, ["retriever"]),
        ("The base of the tail, not the tail.", PART, ["base of the tail", "tail"]),
        ("its back left door, on its back", PART, ["door", "back"]),
        ("a dark grey spot, greyish-brown below", COLOR, ["dark grey", "greyish-brown"]),
        ("catlike, eye-level, whitewashed", ANY_NAME, []),
        ("", ANY_NAME, []),
    ],
)  # fmt: skip
def test_names_are_found(text, kind, names):
    words = MarkedText(text)
    found = [words.original(match) for match in re.finditer(kind, words.marked)]
    assert found == names


@given(st.lists(st.sampled_from(["the ", "cat", "’s ", "left eye", ", ", "İ ", "."])))
def test_what_is_found_is_in_the_text(pieces):
    words = MarkedText("".join(pieces))
    whole = re.fullmatch(r".*", words.marked)
    assert words.original(whole) == words.text
