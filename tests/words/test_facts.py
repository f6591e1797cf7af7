"""Facts of a point: names, places, sides as seen and which of several objects is meant."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.data.crops import crop_photo
from hf_talking_points.data.names import mirrored_part
from hf_talking_points.data.photos import AnnotatedObject, Part, PartPoint, Photo
from hf_talking_points.words.facts import (
    HORIZONTAL,
    SIZE_WORDS,
    VERTICAL,
    Scene,
    part_place,
    position,
    size_word,
    without_side,
)
from hf_talking_points.words.relations import margin

SIZE = (200, 120)
GRAY = np.full((120, 200, 3), 127, np.uint8)


def scene_of(*objects, **more):
    return Scene(Photo("a.jpg", None, SIZE, objects, **more), GRAY)


def dog(left=20.0, points=()):
    return AnnotatedObject("dog", (left, 20.0, left + 80, 100.0), tuple(points))


def eyes(left):
    return [
        PartPoint("left eye", left + 40, 30.0),
        PartPoint("right eye", left + 10, 30.0),
        PartPoint("nose", left + 25, 45.0),
    ]


@given(st.floats(0, 1), st.floats(0, 1))
def test_places_have_five_words_an_axis(u, v):
    down, across = position(u, v).split(" and ")
    assert down in VERTICAL
    assert across in HORIZONTAL


def test_sizes():
    sizes = [size_word((0, 0, side, side), (100, 100)) for side in (20, 40, 80)]
    assert sizes == list(SIZE_WORDS)


def test_the_side_as_seen_is_not_the_own_side():
    points = eyes(20.0)
    scene = scene_of(dog(20.0, points))
    annotated = scene.photo.objects[0]
    facts = [scene.facts(annotated, point) for point in points]
    assert [fact.part for fact in facts] == ["left eye", "right eye", "nose"]
    assert [fact.seen for fact in facts] == ["right", "left", None]


def test_two_that_do_not_lie_apart_have_no_side_as_seen():
    points = [PartPoint("left ear", 50.0, 30.0), PartPoint("right ear", 52.0, 40.0)]
    scene = scene_of(dog(20.0, points))
    assert scene.facts(scene.photo.objects[0], points[0]).seen is None


def test_relations_do_not_speak_of_the_point_itself():
    points = eyes(20.0)
    scene = scene_of(dog(20.0, points))
    for point in points:
        facts = scene.facts(scene.photo.objects[0], point)
        assert facts.relations
        for relation in facts.relations:
            assert margin(relation, point.x, point.y) > 0
            for landmark in relation.landmarks:
                assert landmark.name != point.part


def test_which_of_several():
    scene = scene_of(dog(0.0), dog(60.0), dog(120.0))
    assert scene.which_words == ["leftmost", "second from the left", "rightmost"]
    assert scene_of(dog(0.0)).which_words == [None]
    near = AnnotatedObject("dog", (20.0, 20.0, 100.0, 100.0))
    small = AnnotatedObject("dog", (50.0, 50.0, 75.0, 75.0))
    assert scene_of(near, small).which_words == ["larger", "smaller"]
    assert scene_of(dog(20.0), dog(22.0)).which_words == [None, None]


def test_a_point_beside_several_is_told_from_the_one_that_is_meant():
    scene = scene_of(dog(0.0), dog(110.0))
    facts = scene.facts(None, PartPoint(None, 95.0, 60.0))
    found = {}
    for relation in facts.relations:
        if relation.kind == "beside":
            landmark = relation.landmarks[0]
            found[landmark.which] = relation.direction, relation.distance
    assert found == {
        "leftmost": ("right", "a little"),
        "rightmost": ("left", "a little"),
    }


@pytest.mark.parametrize(
    ("x", "word"), [(36, "just"), (45, "a little"), (60, "some way"), (120, "far")]
)
def test_what_is_far_from_a_small_object_is_far_in_the_photo(x, word):
    scene = scene_of(AnnotatedObject("cup", (20.0, 50.0, 30.0, 60.0)))
    facts = scene.facts(None, PartPoint(None, float(x), 55.0))
    (distance,) = [one.distance for one in facts.relations if one.kind == "beside"]
    assert distance == word


def test_a_point_without_a_part_is_not_known_to_be_on_the_object():
    annotated = dog(20.0, eyes(20.0))
    scene = scene_of(annotated)
    point = PartPoint(None, 150.0, 60.0)
    for owner in (None, annotated):
        facts = scene.facts(owner, point)
        assert facts.object is None
        assert facts.in_image == "middle and right"
        assert "dog" in [one.landmarks[0].name for one in facts.relations]


def test_the_class_of_a_photo_is_told():
    scene = scene_of(classes=("cup",))
    assert scene.facts(None, PartPoint(None, 5.0, 5.0)).image_classes == ("cup",)


def test_a_point_in_a_box_of_its_name_is_one_landmark():
    part = Part("eye", (55.0, 25.0, 65.0, 35.0))
    annotated = AnnotatedObject(
        "dog", (20.0, 20.0, 100.0, 100.0), (PartPoint("left eye", 60.0, 30.0),), (part,)
    )
    (landmark,) = scene_of(annotated).parts[0]
    assert (landmark.name, landmark.box) == ("left eye", part.box)


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [
        (60, 30, "middle"),
        (60, 11, "upper edge"),
        (60, 49, "lower edge"),
        (21, 30, "left edge"),
        (99, 30, "right edge"),
        (40, 20, None),
    ],
)
def test_places_in_a_part(x, y, place):
    point = PartPoint("head", float(x), float(y), (20.0, 10.0, 100.0, 50.0))
    assert part_place(point, (0.0, 0.0, 200.0, 120.0)) == place


@pytest.mark.parametrize(("x", "place"), [(118.0, "tip"), (62.0, "left end")])
def test_the_tip_is_the_end_away_from_the_object(x, place):
    tail = PartPoint("tail", x, 30.0, (60.0, 25.0, 120.0, 35.0))
    assert part_place(tail, (0.0, 0.0, 70.0, 100.0)) == place


def told(facts):
    """The relations of a point in a form that can be mirrored."""
    found = set()
    for relation in facts.relations:
        names = tuple(without_side(one.name) for one in relation.landmarks)
        seen = tuple(one.seen for one in relation.landmarks)
        found.add((relation.kind, names, seen, relation.direction, relation.distance))
    return found


def mirrored_told(facts):
    found = set()
    for kind, names, seen, direction, distance in told(facts):
        sides = tuple(side and mirrored_part(side) for side in seen)
        turned = direction and mirrored_part(direction)
        found.add((kind, names, sides, turned, distance))
    return found


@given(st.integers(5, 195), st.integers(5, 115))
def test_facts_of_a_mirrored_photo_are_mirrored(x, y):
    swapped = {"left": "right", "right": "left", None: None}
    points = [PartPoint("tail", x, y), *eyes(20.0)]
    photo = Photo("a.jpg", None, SIZE, (dog(20.0, points),))
    mirrored = crop_photo(photo, None, mirror=True)
    scene, other = Scene(photo, GRAY), Scene(mirrored, GRAY)
    for point, reflected in zip(points, mirrored.objects[0].points):
        facts = scene.facts(photo.objects[0], point)
        found = other.facts(mirrored.objects[0], reflected)
        assert found.seen == swapped[facts.seen]
        assert without_side(found.part) == without_side(facts.part)
        assert told(found) == mirrored_told(facts)


def test_pixels_of_another_size_are_an_error():
    with pytest.raises(ValueError, match="200 x 120"):
        Scene(Photo("a.jpg", None, SIZE, ()), GRAY[:50])
