"""Candidates lie where their stratum says, the choice is balanced, seeded and spread out."""

import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.data.keypoints import (
    CANDIDATE_STRATA,
    Candidates,
    balanced_thresholds,
    choose_points,
    draw_number,
    part_mask,
)
from hf_talking_points.data.photos import AnnotatedObject, Part, PartPoint, Photo

WIDTH, HEIGHT = 120, 80
EVERYWHERE = np.ones((HEIGHT, WIDTH), bool)


@pytest.fixture
def gray():
    """Flat on the left, textured on the right, one bright disc at (90, 40)."""
    image = np.full((HEIGHT, WIDTH), 90, np.uint8)
    image[:, 60:] = np.random.default_rng(0).integers(60, 120, (HEIGHT, 60))
    cv2.circle(image, (90, 40), 6, 255, -1)
    return image


def rng(seed=0):
    return np.random.default_rng(seed)


def photo_with(*parts, points=()):
    dog = AnnotatedObject("dog", (0, 0, WIDTH, HEIGHT), tuple(points), tuple(parts))
    return Photo("a", "a", (WIDTH, HEIGHT), (dog,))


@pytest.mark.parametrize("stratum", CANDIDATE_STRATA)
def test_candidates_lie_in_the_mask(gray, stratum):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[20:60, 50:110] = True
    points = Candidates(gray).inside(mask, stratum, rng(), 12)
    assert 1 <= len(points) <= 12
    assert len(np.unique(points, axis=0)) == len(points)
    columns, rows = points.astype(int).T
    assert mask[rows, columns].all()


def test_sift_finds_the_disc_first_and_in_our_coordinates(gray):
    [(x, y)] = Candidates(gray).inside(EVERYWHERE, "sift", rng(), 1)
    assert np.hypot(x - 90.5, y - 40.5) < 2  # the disc's center pixel is (90, 40)


def test_a_flat_photo_has_no_sift_keypoint():
    flat = np.full((HEIGHT, WIDTH), 90, np.uint8)
    assert Candidates(flat).inside(EVERYWHERE, "sift", rng(), 5).shape == (0, 2)


def test_low_gradient_is_flat_and_boundary_is_the_rim(gray):
    flat = Candidates(gray).inside(EVERYWHERE, "low_gradient", rng(), 10)
    assert (flat[:, 0] < 60).all()
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 10:30] = True
    rim = Candidates(gray).inside(mask, "boundary", rng(), 100)
    assert len(rim) == 76
    assert (np.abs(rim - 20).max(1) == 9.5).all()


def test_uniform_covers_the_part_evenly(gray):
    points = Candidates(gray).inside(EVERYWHERE, "uniform", rng(), 2000)
    np.testing.assert_allclose(points.mean(0), (WIDTH / 2, HEIGHT / 2), atol=2)


@given(st.integers(0, 100), st.floats(0.02, 0.2))
def test_points_keep_their_distance(seed, min_distance):
    gray = rng(seed).integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)
    photo = photo_with(
        Part("head", (0, 0, 60, 80)),
        Part("tail", (50, 0, 120, 80)),
        points=[
            PartPoint("nose", 30, 30),
            PartPoint("chin", 30.5, 30.5),
            PartPoint("ear", 70, 10),
        ],
    )
    wanted = {"given": 1, "sift": 2, "uniform": 2, "low_gradient": 2, "boundary": 2}
    chosen = choose_points(photo, gray, wanted, {}, min_distance, rng(seed))
    places = np.array([(point.x, point.y) for _, point, _ in chosen])
    differences = places[:, None] - places[None]  # (n, n, 2)
    distances = np.linalg.norm(differences, axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() >= min_distance * WIDTH
    parts = [point.part for _, point, _ in chosen]
    assert (
        parts[0] == "nose" and "chin" not in parts
    )  # the first of two too near is kept
    assert choose_points(photo, gray, wanted, {}, min_distance, rng(seed)) == chosen


def test_every_point_has_its_stratum_and_the_box_of_its_part(gray):
    head = Part("head", (10, 10, 110, 70))
    photo = photo_with(head, points=[PartPoint("nose", 30, 30)])
    wanted = {"given": 1, "uniform": 3, "boundary": 2}
    nose, *others = choose_points(photo, gray, wanted, {}, 0.01, rng())
    assert nose[1].part == "nose" and nose[2] == "given"
    assert [stratum for _, _, stratum in others] == ["uniform"] * 3 + ["boundary"] * 2
    for annotated, point, _ in others:
        assert annotated is photo.objects[0]
        assert (point.part, point.box) == ("head", head.box)


def test_a_mask_is_preferred_to_its_box(gray):
    mask = np.zeros((40, 30), bool)
    mask[10:14, 10:14] = True
    photo = photo_with(Part("paw", (30, 20, 60, 60), mask))
    for _, point, _ in choose_points(photo, gray, {"uniform": 9}, {}, 0.0, rng()):
        assert 40 <= point.x <= 44 and 30 <= point.y <= 34
    assert part_mask(Part("paw", (30, 20, 60, 60)), WIDTH, HEIGHT).sum() == 30 * 40


def test_points_anywhere_need_no_annotation(gray):
    bare = Photo("a", "a", (WIDTH, HEIGHT), ())
    chosen = choose_points(bare, gray, {"given": 1}, {"anywhere": 400}, 0.0, rng())
    places = np.array([(point.x, point.y) for _, point, _ in chosen])
    assert len(places) == 400
    assert (places % 1 == 0.5).all()
    assert (places > 0).all() and (places < (WIDTH, HEIGHT)).all()
    np.testing.assert_allclose(places.mean(0), (WIDTH / 2, HEIGHT / 2), atol=6)
    for annotated, point, stratum in chosen:
        assert annotated is None and point.part is None and point.box is None
        assert stratum == "anywhere"


def test_described_points_on_no_object_are_given_with_their_texts(gray):
    free = PartPoint(None, 7.0, 8.0, texts=(("rich", "A gray wall."),))
    bare = Photo("a", "a", (WIDTH, HEIGHT), (), points=(free,))
    [(annotated, point, stratum)] = choose_points(
        bare, gray, {"given": 1}, {}, 0, rng()
    )
    assert annotated is None and stratum == "given"
    assert point.texts == free.texts
    assert choose_points(bare, gray, {"given": 0}, {}, 0, rng()) == []


def test_unknown_stratum_is_an_error(gray):
    with pytest.raises(ValueError, match="corner"):
        Candidates(gray).inside(EVERYWHERE, "corner", rng(), 1)


@pytest.fixture
def without_opencv(monkeypatch):
    """OpenCV cannot be imported, as where it is not installed."""
    monkeypatch.setitem(sys.modules, "cv2", None)


def test_uniform_points_need_no_opencv(without_opencv):
    gray = np.zeros((8, 8), np.uint8)
    mask = np.ones((8, 8), bool)
    rng = np.random.default_rng(0)
    assert len(Candidates(gray).inside(mask, "uniform", rng, 3)) == 3


@pytest.mark.parametrize("stratum", ["sift", "low_gradient", "boundary"])
def test_opencv_is_asked_for_where_it_is_needed(without_opencv, stratum):
    gray = np.zeros((8, 8), np.uint8)
    mask = np.ones((8, 8), bool)
    rng = np.random.default_rng(0)
    with pytest.raises(ModuleNotFoundError, match=r"hf-talking-points\[data\]"):
        Candidates(gray).inside(mask, stratum, rng, 3)


def test_balance_keeps_a_random_share_of_frequent_classes():
    numbers = {}
    for name, count in (("nose", 1000), ("tail", 3)):
        numbers[name] = [draw_number(0, name, index) for index in range(count)]
    thresholds = balanced_thresholds(numbers, 50)
    kept = {}
    for name, values in numbers.items():
        kept[name] = [i for i, value in enumerate(values) if value <= thresholds[name]]
    assert (len(kept["nose"]), len(kept["tail"])) == (50, 3)
    assert 300 < np.mean(kept["nose"]) < 700
    assert draw_number(0, "a") != draw_number(1, "a")
