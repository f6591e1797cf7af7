"""What texts say of a mirrored photo and of a crop."""

import json
import os
from pathlib import Path

import pytest

from hf_talking_points.data.moved_texts import (
    is_about_frame,
    mirrored_text,
    moved_texts,
)

SWAPPED = [
    ("The left eye of the dog.", "The right eye of the dog."),
    ("Left of the collar", "Right of the collar"),
    ("LEFT WHEEL", "RIGHT WHEEL"),
    ("its left-hand ear, to the right", "its right-hand ear, to the left"),
    ("the lefthand side", "the righthand side"),
    ("the leftmost of the cups", "the rightmost of the cups"),
    ("a badger walking leftwards", "a badger walking rightwards"),
    ("the upper-left rim", "the upper-right rim"),
    ("its own right front paw", "its own left front paw"),
    ("at the lower right, under the bench", "at the lower left, under the bench"),
    ("on the right where it ends", "on the left where it ends"),
    ("further left in the row", "further right in the row"),
    ("the man at right in the picture", "the man at left in the picture"),
    ("up and right over the rail", "up and left over the rail"),
    ("a bit left beside the nose", "a bit right beside the nose"),
    ("a dog walking right past the tree", "a dog walking left past the tree"),
    ("a cat on the left behind the pot", "a cat on the right behind the pot"),
    ("at two o'clock on the dial", "at ten o'clock on the dial"),
    ("Clockwise from the stem", "Counterclockwise from the stem"),
    ("counterclockwise from the stem", "clockwise from the stem"),
]
KEPT = [
    "right under the top border",
    "Right where the tail begins",
    "the point is right at the glint",
    "grass right over the dog's head",
    "the spot is right there",
    "it looks all right",
    "a toy left behind on the grass",
    "the part left bare by the snow",
    "what is left, a brown core",
    "a right angle in the fence",
    "the brighter, upright post",
    "at twelve o'clock, near the copyright sign",
    "clefts of the leftover bread",
]


@pytest.mark.parametrize("text, other", SWAPPED)
def test_left_and_right_swap(text, other):
    assert mirrored_text(text) == other
    assert mirrored_text(other) == text


@pytest.mark.parametrize("text", KEPT)
def test_words_that_only_look_like_a_side_stay(text):
    assert mirrored_text(text) == text


def test_a_side_does_not_become_exactly():
    text = "rear of the car, just left below its plate"
    expected = "rear of the car, just to the right below its plate"
    assert mirrored_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Grass near the top of the picture",
        "the dog on the left",
        "At the bottom, a stone.",
        "the man at left with a hat",
        "the leftmost flower",
        "a bush in the lower left corner",
        "somewhere in the middle",
        "sky at the upper right, above the roof",
        "the left one is on the right-hand side",
    ],
)
def test_texts_about_the_frame(text):
    assert is_about_frame(text)
    assert moved_texts((("a", text),), is_nearly_whole=False, mirror=False) == ()


@pytest.mark.parametrize(
    "text",
    [
        "The dog's left ear, a bit to the right of its tip",
        "Upper edge of the dog's back, right of the collar",
        "the left end of the rail, right at the bolt",
        "Right in the middle of her torso",
        "the top edge of the cat's pink nose, right above it",
        "White fur just above-left of the blue eye.",
    ],
)
def test_texts_about_things_are_true_of_a_crop(text):
    assert not is_about_frame(text)
    moved = moved_texts((("a", text),), is_nearly_whole=False, mirror=True)
    assert moved == (("a", mirrored_text(text)),)


def test_texts_of_the_data_mirrored_twice_are_themselves():
    folder = os.environ.get("TALKING_POINTS_DATA")
    if folder is None:
        pytest.skip("TALKING_POINTS_DATA names no folder with texts.jsonl files")
    texts = []
    for file in sorted(Path(folder).glob("*/texts.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            texts.extend(json.loads(line)["texts"].values())
    changed = [text for text in texts if mirrored_text(mirrored_text(text)) != text]
    # "just left below" comes back as "just to the left below"
    assert len(changed) <= 0.002 * len(texts)
