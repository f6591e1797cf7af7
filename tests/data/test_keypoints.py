"""Candidates lie where their stratum says, the choice is balanced, seeded and spread out."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.data.keypoints import (
    STRATA,
    Candidates,
    balanced_thresholds,
    choose_points,
    draw_number,
    part_mask,
)
from hf_talking_points.data.sources import AnnotatedObject, Part, PartPoint, Photo

WIDTH, HEIGHT = 120, 80


@pytest.fixture
def gray():
    """Flat on the left, textured on the right, one bright disc at (90, 40)."""
    image = np.full((HEIGHT, WIDTH), 90, np.uint8)
    image[:, 60:] = np.random.default_rng(0).integers(60, 120, (HEIGHT, 60))
    cv2.circle(image, (90, 40), 6, 255, -1)
    return image


def photo_with(*parts, points=()):
    return Photo(
        "a",
        "a",
        (WIDTH, HEIGHT),
        (AnnotatedObject("dog", (0, 0, WIDTH, HEIGHT), tuple(points), tuple(parts)),),
    )


@pytest.mark.parametrize("stratum", STRATA[1:])
def test_candidates_lie_in_the_mask(gray, stratum):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[20:60, 50:110] = True
    points = Candidates(gray).inside(mask, stratum, np.random.default_rng(0), 12)
    assert 1 <= len(points) <= 12 and len(np.unique(points, axis=0)) == len(points)
    assert mask[points[:, 1].astype(int), points[:, 0].astype(int)].all()


def test_sift_finds_the_disc_first_and_in_our_coordinates(gray):
    [point] = Candidates(gray).inside(
        np.ones((HEIGHT, WIDTH), bool), "sift", np.random.default_rng(0), 1
    )
    assert np.hypot(point[0] - 90.5, point[1] - 40.5) < 2  # the disc's centre pixel is (90, 40)


def test_low_gradient_is_flat_and_boundary_is_the_rim(gray):
    mask = np.ones((HEIGHT, WIDTH), bool)
    flat = Candidates(gray).inside(mask, "low_gradient", np.random.default_rng(0), 10)
    assert (flat[:, 0] < 60).all()
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 10:30] = True
    rim = Candidates(gray).inside(mask, "boundary", np.random.default_rng(0), 100)
    assert len(rim) == 76 and (np.abs(rim - 20).max(1) == 9.5).all()


def test_uniform_covers_the_part_evenly(gray):
    points = Candidates(gray).inside(
        np.ones((HEIGHT, WIDTH), bool), "uniform", np.random.default_rng(0), 2000
    )
    np.testing.assert_allclose(points.mean(0), (WIDTH / 2, HEIGHT / 2), atol=2)


@given(st.integers(0, 100), st.floats(0.02, 0.2))
def test_points_keep_their_distance(seed, min_distance):
    gray = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)
    photo = photo_with(
        Part("head", (0, 0, 60, 80)),
        Part("tail", (50, 0, 120, 80)),
        points=[PartPoint("nose", 30, 30), PartPoint("chin", 30.5, 30.5), PartPoint("ear", 70, 10)],
    )
    wanted = {"given": 1, "sift": 2, "uniform": 2, "low_gradient": 2, "boundary": 2}
    chosen = choose_points(photo, gray, wanted, min_distance, np.random.default_rng(seed))
    places = np.array([(p.x, p.y) for _, p, _ in chosen])
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(len(places))
    assert distances.min() >= min_distance * WIDTH
    assert chosen[0][1].part == "nose" and "chin" not in [
        p.part for _, p, _ in chosen
    ]  # the first of two too near is kept
    again = choose_points(photo, gray, wanted, min_distance, np.random.default_rng(seed))
    assert [(p, s) for _, p, s in chosen] == [(p, s) for _, p, s in again]


def test_every_point_has_its_stratum_and_the_box_of_its_part(gray):
    photo = photo_with(Part("head", (10, 10, 110, 70)), points=[PartPoint("nose", 30, 30)])
    chosen = choose_points(
        photo, gray, {"given": 1, "uniform": 3, "boundary": 2}, 0.01, np.random.default_rng(0)
    )
    assert [s for _, _, s in chosen] == ["given"] + ["uniform"] * 3 + ["boundary"] * 2
    assert all(
        p.part == "head" and p.box == (10, 10, 110, 70) for _, p, s in chosen if s != "given"
    )


def test_a_mask_is_preferred_to_its_box(gray):
    mask = np.zeros((40, 30), bool)
    mask[10:14, 10:14] = True
    photo = photo_with(Part("paw", (30, 20, 60, 60), mask))
    for _, point, _ in choose_points(photo, gray, {"uniform": 9}, 0.0, np.random.default_rng(0)):
        assert 40 <= point.x <= 44 and 30 <= point.y <= 34
    assert part_mask(Part("paw", (30, 20, 60, 60)), WIDTH, HEIGHT).sum() == 30 * 40


def test_unknown_stratum_is_an_error(gray):
    with pytest.raises(ValueError, match="corner"):
        Candidates(gray).inside(
            np.ones((HEIGHT, WIDTH), bool), "corner", np.random.default_rng(0), 1
        )


def test_balance_keeps_a_random_share_of_frequent_classes():
    numbers = {
        "nose": [draw_number(0, "nose", i) for i in range(1000)],
        "tail": [draw_number(0, "tail", i) for i in range(3)],
    }
    thresholds = balanced_thresholds(numbers, 50)
    kept = {
        name: [i for i, v in enumerate(values) if v <= thresholds[name]]
        for name, values in numbers.items()
    }
    assert len(kept["nose"]) == 50 and len(kept["tail"]) == 3
    assert 300 < np.mean(kept["nose"]) < 700 and draw_number(0, "a") != draw_number(1, "a")
