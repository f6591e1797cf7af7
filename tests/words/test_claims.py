"""What a text claims of a point, and which of it is false."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.words.claims import check_claims, false_claims
from hf_talking_points.words.facts import Scene
from hf_talking_points.words.writer import STYLES, write

SIZE = (240, 160)
WIDTH, HEIGHT = SIZE
# an orange animal on a green meadow, its head on the left
PARTS = {
    "nose": (50, 70),
    "right eye": (58, 58),
    "left eye": (76, 56),
    "right ear": (60, 44),
    "left ear": (84, 42),
    "withers": (110, 60),
    "tail base": (170, 66),
    "left front paw": (100, 125),
    "right front paw": (84, 126),
    "left back paw": (165, 124),
}


@pytest.fixture(scope="module")
def scene():
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:] = (60, 140, 60)
    pixels[36:130, 44:180] = (235, 125, 40)
    points = tuple(
        PartPoint(part, float(x), float(y)) for part, (x, y) in PARTS.items()
    )
    cat = AnnotatedObject("cat", (44.0, 36.0, 180.0, 130.0), points)
    return Scene(Photo("cat.jpg", None, SIZE, (cat,)), pixels)


@pytest.fixture(scope="module")
def verdicts(scene):
    """(kind, verdict) of each claim of a text on a part of the cat."""

    def check(text, part):
        (cat,) = scene.photo.objects
        (point,) = [point for point in cat.points if point.part == part]
        claims = check_claims(text, scene, cat, point)
        return [(claim.kind, claim.verdict) for claim in claims]

    return check


@pytest.mark.parametrize(
    ("part", "true", "false", "kind"),
    [
        ("left eye", "The cat's left eye.", "The dog's left eye.", "object"),
        ("left eye", "A kitten; on its left eye.", "A horse; on its left eye.", "object"),
        ("left eye", "The point is on its left eye.", "The point is on its nose.", "part"),
        ("nose", "The cat's snout.", "The cat's ear.", "part"),
        ("tail base", "At the base of the tail of the cat.", "At the nose of the cat.", "part"),
        ("nose", "On the nose of the cat.", "On the hood of the cat.", "part"),
        ("left eye", "The cat's own left eye.", "The cat's own right eye.", "side"),
        ("left eye", "The eye on the right of the cat.", "The eye on the left of the cat.", "side"),
        ("left eye", "Its right-hand eye.", "Its left-hand eye.", "side"),
        ("nose", "An orange spot.", "A dark gray spot.", "color"),
        ("nose", "The color there is orange.", "The colour there is navy.", "color"),
        ("withers", "A plain orange patch.", "A grey, strongly textured spot.", "color"),
        ("nose", "It is at the nose of the cat; its eye is above.", "The spot: its left back paw.", "part"),
        ("nose", "A smooth, orange spot.", "An orange, strongly textured spot.", "texture"),
        ("left ear", "It is above the left eye.", "It is below the left eye.", "relation"),
        ("tail base", "To the right of the withers.", "To the left of the withers.", "relation"),
        ("nose", "Just beneath the right eye.", "Just above the ear on the left.", "relation"),
        ("tail base", "Level with its nose.", "Level with its left front paw.", "relation"),
        (
            "withers",
            "Between the left eye and the tail base.",
            "Between the right eye and its right ear.",
            "relation",
        ),
        (
            "nose",
            "A cat in the middle and center of the image; middle and far left of the cat.",
            "A cat in the middle and center of the image; top and far right of the cat.",
            "place",
        ),
        ("nose", "In the left half of the photo.", "Very bottom and far right of the photo.", "place"),
    ],
)  # fmt: skip
def test_true_and_false(verdicts, part, true, false, kind):
    assert (kind, "confirmed") in verdicts(true, part)
    assert "contradicted" not in [verdict for _, verdict in verdicts(true, part)]
    assert (kind, "contradicted") in verdicts(false, part)


@pytest.mark.parametrize(
    "text",
    [
        "A goat, perhaps.",
        "The cat, about the length of its tail from the lamb with a red mark on its ear.",
        "At ear height, clear of the left back paw.",
        "Just above the collar, left of the bell.",
        "Level with the top of its ear, the nose; the tail is far away on the right.",
        "A white fence runs behind the cat, and there is a red line under a gray strip.",
        "The dark background of the photo is not meant.",
        "Katze, vorne links.",
        "",
    ],
)
def test_what_is_not_of_the_point_or_not_annotated_is_open(verdicts, text):
    assert "contradicted" not in [verdict for _, verdict in verdicts(text, "nose")]


@pytest.mark.parametrize("left", [True, False])
def test_a_plain_side_is_right_as_seen_and_as_the_own_one(verdicts, left):
    side = "left" if left else "right"
    assert ("side", "confirmed") in verdicts(f"The cat's {side} eye.", "left eye")


def test_a_photo_of_one_class_shows_no_other_animal_or_vehicle():
    pixels = np.full((60, 60, 3), 200, np.uint8)
    scene = Scene(Photo("cup.jpg", None, (60, 60), (), classes=("cup",)), pixels)
    point = PartPoint(None, 30.0, 30.0)

    def kinds_of_false(text):
        claims = check_claims(text, scene, None, point)
        return [claim.kind for claim in false_claims(claims)]

    assert kinds_of_false("The point is on the hood of a large car.") == ["object"]
    assert kinds_of_false("The left front knee of the dog.") == ["object"]
    assert kinds_of_false("On the rim of a cup, behind which a dog is.") == []
    assert kinds_of_false("A light gray spot.") == []
    assert kinds_of_false("A maroon spot.") == ["color"]


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=40, deadline=None)
@given(part=st.sampled_from(list(PARTS)), seed=st.integers(0, 2**31))
def test_what_is_written_is_not_false(scene, style, part, seed):
    (cat,) = scene.photo.objects
    (point,) = [point for point in cat.points if point.part == part]
    text = write(scene.facts(cat, point), style, np.random.default_rng(seed))
    assert false_claims(check_claims(text, scene, cat, point)) == [], text


@pytest.mark.parametrize("style", ["full", "free", "brief"])
@settings(max_examples=40, deadline=None)
@given(x=st.floats(0, WIDTH), y=st.floats(0, HEIGHT), seed=st.integers(0, 2**31))
def test_what_is_written_of_any_place_is_not_false(scene, style, x, y, seed):
    point = PartPoint(None, x, y)
    text = write(scene.facts(None, point), style, np.random.default_rng(seed))
    assert false_claims(check_claims(text, scene, None, point)) == [], text
