import pytest

from hf_talking_points.words.english import (
    british,
    indefinite,
    plural,
    proper,
    punctuated,
)


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("dog", "a dog"),
        ("orange cat", "an orange cat"),
        ("umbrella", "an umbrella"),
        ("uniform", "a uniform"),
        ("unimportant thing", "an unimportant thing"),
        ("hourglass", "an hourglass"),
        ("one-way street", "a one-way street"),
        ("pants", "a pair of pants"),
        ("baby sunglasses", "a pair of baby sunglasses"),
        ("soy milk", "some soy milk"),
        ("carrots", "some carrots"),
    ],
)
def test_indefinite(noun, expected):
    assert indefinite(noun) == expected


def test_indefinite_with_an_adjective():
    assert indefinite("orange", "large") == "a large orange"
    assert indefinite("dog", "orange") == "an orange dog"
    assert indefinite("pants", "olive") == "an olive pair of pants"


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("eye", "eyes"),
        ("front paw", "front paws"),
        ("box", "boxes"),
        ("tooth", "teeth"),
        ("white sheep", "white sheep"),
        ("berry", "berries"),
        ("toy", "toys"),
        ("pants", "pants"),
    ],
)
def test_plural(noun, expected):
    assert plural(noun) == expected


def test_proper():
    assert proper("siberian husky") == "Siberian husky"
    assert proper("dog") == "dog"


def test_punctuated():
    words = "a  orange spot , below the ear;. it is white,, and a edge. the end ."
    expected = "An orange spot, below the ear. It is white, and an edge. The end."
    assert punctuated(words) == expected


def test_owners():
    assert punctuated("Above the cat's base of the tail.") == (
        "Above the base of the cat's tail."
    )
    assert punctuated("The pants's pocket.") == "The pants' pocket."


def test_punctuated_text_stays_as_it_is():
    text = "See that dog? It's an ear, I mean: the tip."
    assert punctuated(text) == text


def test_british():
    text = "Gray-brown, left of center; the color is gray."
    assert british(text) == "Grey-brown, left of centre; the colour is grey."
    assert british("Grayling") == "Grayling"
