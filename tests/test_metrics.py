"""Known answers of the numbers."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.metrics import (
    box_distances,
    clustered_interval,
    distances_with_misses,
    distinct_n,
    mpck_values,
    normalized_distances,
    paired_difference,
    pck,
    pck_curve,
    pixel_distances,
    place_misses,
    score_points,
    summary,
)

UNIFORM = np.random.default_rng(0).uniform(size=(200_000, 2))
ONES = np.ones_like(UNIFORM)


def test_an_oracle_gives_100():
    result = summary(normalized_distances(UNIFORM, UNIFORM, ONES))
    assert result["mpck"] == result["pck@0.02"] == 100
    assert result["n"] == 200_000
    assert result["median_distance"] == 0


def test_the_center_of_uniform_points():
    result = summary(normalized_distances(ONES / 2, UNIFORM, ONES))
    areas = [np.pi * threshold**2 for threshold in (0.1, 0.2)]
    assert result["mpck"] == pytest.approx(100 * np.mean(areas), abs=0.3)


@pytest.mark.parametrize("cells, mpck", [(2, 31.4), (3, 61.7), (4, 75.1), (5, 89.3)])
def test_oracles_that_know_the_cell_of_a_grid(cells, mpck):
    centers = (np.floor(UNIFORM * cells) + 0.5) / cells
    result = summary(normalized_distances(centers, UNIFORM, ONES))
    assert result["mpck"] == pytest.approx(mpck, abs=0.4)


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1))
def test_distances_are_parts_of_the_sides(width, height, x, y):
    predicted = [(0.5 * width, 0.5 * height)]
    true = [(x * width, y * height)]
    [distance] = normalized_distances(predicted, true, [(width, height)])
    assert distance == pytest.approx(np.hypot(x - 0.5, y - 0.5))


def test_pixel_distances():
    np.testing.assert_allclose(
        pixel_distances([(3, 4), (1, 1)], [(0, 0), (1, 1)]), [5, 0]
    )


def test_a_miss_counts_as_the_farthest_corner():
    true = [(10, 10), (90, 10), (10, 40), (90, 40), (50, 25), (10, 10)]
    predicted = [(np.nan, np.nan)] * 4 + [(np.nan, 3.0), (20, 10)]
    sizes = [(100, 50)] * 6
    placed = place_misses(predicted, true, sizes)
    corners = [(100, 50), (0, 50), (100, 0), (0, 0), (0, 0), (20, 10)]
    np.testing.assert_array_equal(placed, corners)
    distances = distances_with_misses(predicted, true, sizes)
    np.testing.assert_allclose(distances, normalized_distances(placed, true, sizes))
    assert (distances[:5] >= 0.5**0.5).all() and distances[5] == pytest.approx(0.1)


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1))
def test_no_point_of_the_image_is_worse_than_a_miss(width, height, x, y):
    true = [(x * width, y * height)]
    sizes = [(width, height)]
    [missed] = distances_with_misses([(np.nan, np.nan)], true, sizes)
    for corner in [(0, 0), (width, 0), (0, height), (width, height)]:
        [distance] = distances_with_misses([corner], true, sizes)
        assert distance <= missed + 1e-9
    assert 0.5**0.5 - 1e-9 <= missed <= 2**0.5 + 1e-9


def test_what_is_infinite_is_no_miss():
    with pytest.raises(ValueError, match=r"predicted\[0\] is not finite"):
        distances_with_misses([(np.inf, 1)], [(1, 1)], [(2, 2)])


def test_mpck_is_the_mean_of_two():
    distances = np.array([0.01, 0.06, 0.15, 0.3])
    result = summary(distances)
    assert result["pck@0.02"] == result["pck@0.05"] == 25
    assert result["pck@0.1"] == 50
    assert result["pck@0.2"] == 75
    assert result["mpck"] == mpck_values(distances).mean() == 62.5


def test_a_distance_at_the_threshold_is_too_far():
    assert pck([0.1], 0.1) == pck_curve([0.1], 0.1) == 0


def test_curve_is_pck_at_each_threshold():
    distances = np.random.default_rng(0).uniform(size=500)
    thresholds = np.array([0.05, 0.1, distances[0], 1.0, 2.0])
    expected = [pck(distances, threshold) for threshold in thresholds]
    np.testing.assert_allclose(pck_curve(distances, thresholds), expected)


def test_mpck_does_not_depend_on_the_thresholds_that_are_asked_for():
    distances = np.random.default_rng(0).uniform(size=500)
    asked = summary(distances, (0.3,))
    assert list(asked)[:2] == ["pck@0.3", "mpck"]
    assert asked["mpck"] == summary(distances)["mpck"]


def test_box_distance_is_a_part_of_the_diagonal():
    boxes = [(10, 20, 40, 60), (np.nan,) * 4, (0, 0, 3, 4)]
    distances = box_distances(
        [(10, 20), (7, 7), (3, 4)], [(13, 24), (1, 1), (3, 4)], boxes
    )
    np.testing.assert_allclose(distances, [0.1, np.nan, 0])


def simulated(rng, images, mean_distance):
    """Values of mPCK and image ids of 1 to 20 points of each of many images, some of them harder than others."""
    counts = rng.integers(1, 21, size=images)
    difficulty = mean_distance * np.exp(0.7 * rng.normal(size=images))
    scale = np.repeat(difficulty, counts)
    distances = scale * rng.rayleigh(size=counts.sum())
    return mpck_values(distances), np.repeat(np.arange(images), counts)


@pytest.mark.parametrize(
    "images, mean_distance",
    [(100, 0.12), (100, 0.04), (20, 0.12), (20, 0.04), (10, 0.12)],
)
def test_interval_holds_the_truth_of_1000_simulated_data_sets(images, mean_distance):
    rng = np.random.default_rng(1)
    values, _ = simulated(rng, 400_000, mean_distance)
    truth = values.mean()
    covered = 0
    for seed in range(1000):
        low, high = clustered_interval(
            *simulated(rng, images, mean_distance), seed=seed
        )
        covered += low <= truth <= high
    assert 930 <= covered <= 970


def test_interval_counts_images_not_samples():
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(size=60), 8)
    clusters = np.repeat(np.arange(60), 8)
    low, high = clustered_interval(values, clusters)
    naive_low, naive_high = clustered_interval(values, np.arange(480))
    assert high - low == pytest.approx(8**0.5 * (naive_high - naive_low), rel=0.15)


def test_interval_follows_seed_and_level_and_not_the_names_of_images():
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(size=60), 8)
    clusters = np.repeat(np.arange(60), 8)
    names = [f"image {number:02}" for number in clusters]
    low, high = clustered_interval(values, clusters)
    seeded = clustered_interval(values, clusters, seed=1)
    assert seeded == clustered_interval(values, names, seed=1) != (low, high)
    wide_low, wide_high = clustered_interval(values, clusters, level=0.99)
    assert wide_low < low < values.mean() < high < wide_high


def test_interval_stays_in_the_range_of_the_values():
    low, high = clustered_interval([100.0, 100, 100, 100, 0], range(5))
    assert 0 <= low < 80 < high <= 100


def test_interval_where_no_image_differs():
    assert clustered_interval([100.0] * 5, range(5)) == (100, 100)
    third = 200 / 3
    low, high = clustered_interval([third, third, third], [0, 0, 1])
    assert (low, high) == pytest.approx((third, third), abs=1e-9)


def test_there_is_no_interval_of_one_image():
    assert np.isnan(clustered_interval([0.0, 100], [7, 7])).all()


def test_many_images_are_drawn_in_chunks():
    values = np.random.default_rng(0).normal(size=300_000)
    low, high = clustered_interval(values, np.arange(300_000), resamples=200)
    assert (high - low) * 300_000**0.5 == pytest.approx(2 * 1.96, rel=0.25)


def paired_systems(rng):
    """Values of two systems on ten samples of each of 40 images, hard or easy for both; the first is better by 0.1."""
    hardness = np.repeat(rng.normal(size=40), 10)
    clusters = np.repeat(np.arange(40), 10)
    better = hardness + 0.2 * rng.normal(size=400) + 0.1
    worse = hardness + 0.2 * rng.normal(size=400)
    return better, worse, clusters


def test_paired_difference_sees_what_both_systems_have_in_common():
    better, worse, clusters = paired_systems(np.random.default_rng(0))
    result = paired_difference(better, worse, clusters)
    low, high = result["ci95"]
    assert result["difference"] == pytest.approx((better - worse).mean())
    assert 0 < low < result["difference"] < high < 0.2
    assert result["p_value"] < 0.001
    # the intervals of each by itself overlap by far
    assert (
        clustered_interval(better, clusters)[0] < clustered_interval(worse, clusters)[1]
    )


def test_paired_difference_of_systems_the_other_way_round():
    better, worse, clusters = paired_systems(np.random.default_rng(0))
    result = paired_difference(better, worse, clusters)
    turned = paired_difference(worse, better, clusters)
    assert turned["difference"] == -result["difference"]
    assert turned["p_value"] == pytest.approx(result["p_value"], abs=1e-3)


def test_paired_difference_of_a_system_and_itself():
    better, worse, clusters = paired_systems(np.random.default_rng(0))
    nothing = {"difference": 0.0, "ci95": [0.0, 0.0], "p_value": 1.0}
    assert paired_difference(better, better, clusters) == nothing


def test_there_is_no_p_value_of_one_image():
    better, worse, _ = paired_systems(np.random.default_rng(0))
    assert np.isnan(paired_difference(better, worse, np.zeros(400))["p_value"])


def test_p_values_of_systems_that_are_equal_are_uniform():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(15), 6)
    p_values = []
    holds_zero = []
    for seed in range(1000):
        hardness = rng.normal(size=15)[:, None]
        first = 50.0 * (hardness + rng.normal(size=(15, 6)) > 0).ravel()
        second = 50.0 * (hardness + rng.normal(size=(15, 6)) > 0).ravel()
        result = paired_difference(first, second, clusters, resamples=500, seed=seed)
        low, high = result["ci95"]
        p_values.append(result["p_value"])
        holds_zero.append(low <= 0 <= high)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p_values) < level) == pytest.approx(level, abs=0.05)
    assert 0.93 <= np.mean(holds_zero) <= 0.97
    not_rejected = np.array(p_values) >= 0.05
    assert np.mean(np.array(holds_zero) == not_rejected) > 0.99


@dataclass
class Scored:
    """60 points on three images, 45 of them with a box of 40 x 40 pixels."""

    predicted: np.ndarray
    true: np.ndarray
    sizes: np.ndarray
    image_ids: np.ndarray
    boxes: np.ndarray


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    sizes = np.repeat([(200, 100), (50, 400), (64, 64)], 20, axis=0)
    true = rng.uniform(size=(60, 2)) * sizes
    predicted = true + rng.normal(size=(60, 2)) * 0.08 * sizes
    boxes = np.hstack([true - 20, true + 20])
    boxes[:15] = np.nan
    return Scored(predicted, true, sizes, np.repeat(["a", "b", "c"], 20), boxes)


def test_score_points_gives_all_numbers(scored):
    thresholds = (0.1, 0.3)
    result = score_points(
        scored.predicted,
        scored.true,
        scored.sizes,
        scored.image_ids,
        scored.boxes,
        thresholds,
    )
    distances = normalized_distances(scored.predicted, scored.true, scored.sizes)
    pixels = np.linalg.norm(scored.predicted - scored.true, axis=1)
    assert summary(distances, thresholds).items() <= result.items()
    assert result["median_pixels"] == np.median(pixels)
    assert result["box_n"] == 45
    hits = pixels[15:] < 0.1 * np.hypot(40, 40)
    assert result["box_pck@0.1"] == pytest.approx(100 * np.mean(hits))
    assert set(result["ci95"]) == {"mpck", "pck@0.1", "pck@0.3", "box_pck@0.1"}
    expected = clustered_interval(mpck_values(distances), scored.image_ids)
    assert result["ci95"]["mpck"] == list(expected)
    assert {type(value) for value in result.values()} == {float, int, dict}
    for interval in result["ci95"].values():
        assert [type(end) for end in interval] == [float, float]


def test_points_without_image_ids_are_of_different_images(scored):
    result = score_points(scored.predicted, scored.true, scored.sizes)
    distances = normalized_distances(scored.predicted, scored.true, scored.sizes)
    expected = clustered_interval(100.0 * (distances < 0.1), np.arange(60))
    assert result["ci95"]["pck@0.1"] == list(expected)
    assert "box_n" not in result


def test_score_points_where_no_box_is_known(scored):
    unknown = np.full((60, 4), np.nan)
    result = score_points(scored.predicted, scored.true, scored.sizes, boxes=unknown)
    assert result["box_n"] == 0
    assert np.isnan(result["box_pck@0.1"])
    assert np.isnan(result["ci95"]["box_pck@0.1"]).all()


def test_texts_of_other_points_are_worth_what_two_independent_points_are():
    others = np.random.default_rng(1).permutation(UNIFORM)
    result = summary(normalized_distances(others, UNIFORM, ONES))
    near = [np.pi * t**2 - 8 / 3 * t**3 + t**4 / 2 for t in (0.1, 0.2)]
    assert result["mpck"] == pytest.approx(100 * np.mean(near), abs=0.3)


@pytest.mark.parametrize(
    "texts, n, expected",
    [
        (["a b", "a b"], 2, 0.5),
        (["A b", "a B c"], 2, 2 / 3),
        (["a", "b"], 2, 0),
        ([], 2, 0),
        (["a a b"], 1, 2 / 3),
        (["a b c d", "a b c"], 3, 2 / 3),
    ],
)
def test_distinct_n(texts, n, expected):
    assert distinct_n(texts, n) == pytest.approx(expected)


ONE = [(1, 1)]
TWO = [(1, 1)] * 2


@pytest.mark.parametrize(
    "call, message",
    [
        (
            partial(normalized_distances, [(1, 1), (np.nan, 1)], TWO, TWO),
            r"predicted\[1\] is not finite",
        ),
        (partial(normalized_distances, ONE, TWO, TWO), "predicted must have shape"),
        (
            partial(normalized_distances, TWO, TWO, [(2, 2), (0, 2)]),
            r"sizes\[1\] is \(0.0, 2.0\)",
        ),
        (partial(place_misses, ONE, TWO, TWO), "predicted must have shape"),
        (partial(place_misses, TWO, TWO, ONE), "sizes must have shape"),
        (partial(summary, []), "no distances"),
        (partial(pck_curve, [], [0.1]), "no distances"),
        (partial(score_points, [], [], []), "no points"),
        (
            partial(box_distances, TWO, TWO, [(0, 0, 2, 2), (5, 5, 5, 9)]),
            r"boxes\[1\] is \(5.0, 5.0, 5.0, 9.0\)",
        ),
        (
            partial(box_distances, ONE, ONE, [(0, np.nan, 2, 2)]),
            r"boxes\[0\] is not finite",
        ),
        (
            partial(box_distances, ONE, ONE, [(0, 0, 2)]),
            r"boxes must have shape \(1, 4\)",
        ),
        (
            partial(score_points, ONE, ONE, [(2, 2)], thresholds=(0.1, 0)),
            r"thresholds\[1\] is 0 but must be positive",
        ),
        (
            partial(normalized_distances, [(1 + 2j, 3)], ONE, ONE),
            "predicted must be real numbers, got complex",
        ),
        (
            partial(score_points, ONE, [(10**400, 1)], ONE),
            "true must be real numbers, got object",
        ),
        (
            partial(place_misses, ONE, np.array([["2020", "2021"]], "M8[D]"), ONE),
            "true must be real numbers, got datetime64",
        ),
        (
            partial(normalized_distances, np.ma.masked_equal([(1, 2)], 2), ONE, ONE),
            r"predicted\[0\] is masked",
        ),
        (partial(clustered_interval, [1.0, 2.0], [0]), "one length"),
        (partial(clustered_interval, [], []), "not empty"),
        (
            partial(clustered_interval, [1.0, np.nan], [0, 1]),
            r"values\[1\] is not finite",
        ),
        (
            partial(clustered_interval, [1.0, 2.0], [0, 1], resamples=10),
            "10 resamples are too few",
        ),
        (partial(paired_difference, [1.0, 2.0], [1.0], [0, 1]), "same samples"),
    ],
)
def test_bad_input_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
