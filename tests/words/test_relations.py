"""Relations: what is told of a point holds, and turns around in the mirror."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.words.relations import (
    DIRECTIONS,
    KINDS,
    Landmark,
    Relation,
    direction_of,
    distance_word,
    margin,
    relations_of,
)

WIDTH = 200.0
MIRRORED = {"left": "right", "right": "left"}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
places = st.floats(0, WIDTH)
NAMES = ("head", "tail", "left eye", "right eye")


@st.composite
def landmarks(draw):
    """Landmarks of one object, some of them boxes."""
    found = []
    for name in NAMES:
        x, y = draw(places), draw(places)
        side = draw(st.sampled_from([0.0, 10.0, 40.0]))
        box = (x, y, min(x + side, WIDTH), min(y + side, WIDTH))
        found.append(Landmark(name, box, 0, draw(st.floats(20, WIDTH))))
    return found


def mirrored_direction(direction):
    if direction is None:
        return None
    return " ".join(MIRRORED.get(word, word) for word in direction.split(" "))


def mirrored_landmark(landmark):
    x1, y1, x2, y2 = landmark.box
    return replace(landmark, box=(WIDTH - x2, y1, WIDTH - x1, y2))


def mirrored(relation):
    return replace(
        relation,
        landmarks=tuple(mirrored_landmark(one) for one in relation.landmarks),
        direction=mirrored_direction(relation.direction),
    )


@given(places, places, landmarks())
def test_what_is_told_holds(x, y, some):
    for relation in relations_of(x, y, some):
        assert relation.kind in KINDS
        assert margin(relation, x, y) > 0


@given(places, places, landmarks())
def test_what_is_told_holds_in_the_mirror(x, y, some):
    for relation in relations_of(x, y, some):
        assert margin(mirrored(relation), WIDTH - x, y) == pytest.approx(
            margin(relation, x, y), abs=1e-6
        )


@given(places, places, landmarks())
def test_the_opposite_of_what_is_told_does_not_hold(x, y, some):
    for relation in relations_of(x, y, some):
        if relation.direction in OPPOSITE:
            opposite = replace(relation, direction=OPPOSITE[relation.direction])
            assert margin(opposite, x, y) < 0


@given(places, places, landmarks())
def test_nearer_to_one_is_not_nearer_to_the_other(x, y, some):
    for relation in relations_of(x, y, some):
        if len(relation.landmarks) == 2:
            other_way = replace(relation, landmarks=relation.landmarks[::-1])
            is_nearer = relation.kind == "between"
            assert (margin(other_way, x, y) > 0) != is_nearer


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_step_in_a_direction_lies_in_it(name):
    landmark = Landmark("head", (100, 100, 100, 100), 0, 100.0)
    step_x, step_y = DIRECTIONS[name]
    x, y = 100 + 15 * step_x, 100 + 15 * step_y
    assert direction_of(step_x, step_y) == name
    for other in DIRECTIONS:
        relation = Relation("beside", (landmark,), other)
        assert (margin(relation, x, y) > 0) == (other == name)


@pytest.mark.parametrize(
    ("share", "word"),
    [(0.05, "just"), (0.2, "a little"), (0.4, "some way"), (2.0, "far")],
)
def test_distances_are_shares_of_the_object(share, word):
    assert distance_word(share) == word
    for size in (50.0, 100.0):
        landmark = Landmark("tail", (0, 0, 0, 0), 0, size)
        relation = Relation("beside", (landmark,), "right", word)
        assert margin(relation, share * size, 0) > 0


def test_from_a_box_the_distance_is_that_to_its_rim():
    landmark = Landmark("dog", (50, 50, 150, 100), 0, 100.0, is_object=True)
    (relation,) = [
        one for one in relations_of(155, 75, [landmark]) if one.kind == "beside"
    ]
    assert (relation.direction, relation.distance) == ("right", "just")
    assert relations_of(100, 75, [landmark]) == []


def test_halfway_and_nearer_to_one():
    ear = Landmark("ear", (0, 0, 0, 0), 0, 100.0)
    nose = Landmark("nose", (100, 0, 100, 0), 0, 100.0)

    def ways(x, y):
        found = []
        for relation in relations_of(x, y, [ear, nose]):
            if len(relation.landmarks) == 2:
                names = [one.name for one in relation.landmarks]
                found.append((relation.kind, *names))
        return found

    assert ways(50, 3) == [("halfway", "ear", "nose")]
    assert ways(30, 3) == [("between", "ear", "nose")]
    assert ways(70, 3) == [("between", "nose", "ear")]
    assert ways(50, 30) == []
    assert ways(5, 0) == []


def test_what_is_in_a_landmark_is_not_on_the_way_from_it():
    head = Landmark("head", (0, 0, 60, 60), 0, 200.0)
    tail = Landmark("tail", (200, 30, 200, 30), 0, 200.0)
    assert relations_of(58, 30, [head, tail])[0].landmarks == (tail,)
    for x, is_between in ((55, False), (75, True)):
        kinds = [one.kind for one in relations_of(x, 30, [head, tail])]
        assert ("between" in kinds) == is_between


def test_nothing_is_between_an_object_and_its_own_part():
    dog = Landmark("dog", (0, 0, 60, 60), 0, 60.0, is_object=True)
    for owner, is_between in ((0, False), (1, True)):
        tail = Landmark("tail", (200, 30, 200, 30), owner, 60.0)
        kinds = [one.kind for one in relations_of(110, 30, [dog, tail])]
        assert ("halfway" in kinds) == is_between


def test_an_unknown_kind_is_an_error_that_names_it():
    landmark = Landmark("ear", (0, 0, 0, 0), 0, 100.0)
    with pytest.raises(ValueError, match="'around'"):
        margin(Relation("around", (landmark,)), 0, 0)
