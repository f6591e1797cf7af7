"""Known answers of the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.metrics import (
    box_distances,
    clustered_interval,
    mpck_values,
    normalized_distances,
    paired_difference,
    pck,
    pck_curve,
    score_points,
    summary,
)

UNIFORM = np.random.default_rng(0).uniform(size=(200_000, 2))
ONES = np.ones_like(UNIFORM)


def test_an_oracle_gives_100():
    result = summary(normalized_distances(UNIFORM, UNIFORM, ONES))
    assert (
        result["mpck"] == result["pck@0.02"] == 100
        and result["n"] == 200_000
        and result["median_distance"] == 0
    )


def test_the_centre_of_uniform_points():
    assert summary(normalized_distances(ONES / 2, UNIFORM, ONES))["mpck"] == pytest.approx(
        100 * np.pi * (0.01 + 0.04) / 2, abs=0.3
    )


@pytest.mark.parametrize("cells, mpck", [(2, 31.4), (3, 61.7), (4, 75.1), (5, 89.3)])
def test_oracles_that_know_the_cell_of_a_grid(cells, mpck):
    centres = (np.floor(UNIFORM * cells) + 0.5) / cells
    assert summary(normalized_distances(centres, UNIFORM, ONES))["mpck"] == pytest.approx(
        mpck, abs=0.4
    )


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1))
def test_distances_are_parts_of_the_sides(width, height, x, y):
    [distance] = normalized_distances(
        [(0.5 * width, 0.5 * height)], [(x * width, y * height)], [(width, height)]
    )
    assert distance == pytest.approx(np.hypot(x - 0.5, y - 0.5))


def test_mpck_is_the_mean_of_two():
    distances = np.array([0.01, 0.06, 0.15, 0.3])
    result = summary(distances)
    assert [result[f"pck@{t}"] for t in (0.02, 0.05, 0.1, 0.2)] == [25, 25, 50, 75] and result[
        "mpck"
    ] == 62.5
    assert mpck_values(distances).mean() == 62.5 and pck([0.1], 0.1) == 0


def test_curve_is_pck_at_each_threshold():
    distances = np.random.default_rng(0).uniform(size=500)
    thresholds = np.array([0.05, 0.1, distances[0], 1.0, 2.0])
    np.testing.assert_allclose(
        pck_curve(distances, thresholds), [pck(distances, t) for t in thresholds]
    )
    assert pck_curve([0.1], 0.1) == 0 and list(summary(distances, (0.3,)))[:2] == [
        "pck@0.3",
        "mpck",
    ]
    assert summary(distances, (0.3,))["mpck"] == summary(distances)["mpck"]


def test_box_distance_is_a_part_of_the_diagonal():
    boxes = [(10, 20, 40, 60), (np.nan,) * 4, (0, 0, 3, 4)]
    distances = box_distances([(10, 20), (7, 7), (3, 4)], [(13, 24), (1, 1), (3, 4)], boxes)
    np.testing.assert_allclose(distances, [0.1, np.nan, 0])


def simulated(rng, images, mean_distance):
    """Distances of 1 to 20 points of each of many images, some of them harder than others; values of mPCK and image ids."""
    counts = rng.integers(1, 21, size=images)
    scale = np.repeat(mean_distance * np.exp(0.7 * rng.normal(size=images)), counts)
    return mpck_values(scale * rng.rayleigh(size=counts.sum())), np.repeat(
        np.arange(images), counts
    )


@pytest.mark.parametrize(
    "images, mean_distance", [(100, 0.12), (100, 0.04), (20, 0.12), (20, 0.04), (10, 0.12)]
)
def test_interval_holds_the_truth_of_1000_simulated_data_sets(images, mean_distance):
    rng = np.random.default_rng(1)
    truth = simulated(rng, 400_000, mean_distance)[0].mean()
    covered = 0
    for seed in range(1000):
        low, high = clustered_interval(*simulated(rng, images, mean_distance), seed=seed)
        covered += low <= truth <= high
    assert 930 <= covered <= 970


def test_interval_counts_images_not_samples():
    rng = np.random.default_rng(1)
    values, clusters = np.repeat(rng.normal(size=60), 8), np.repeat(np.arange(60), 8)
    low, high = clustered_interval(values, clusters)
    naive_low, naive_high = clustered_interval(values, np.arange(480))
    assert high - low == pytest.approx(8**0.5 * (naive_high - naive_low), rel=0.15)
    assert (
        clustered_interval(values, clusters, seed=1)
        == clustered_interval(values, [f"image {i:02}" for i in clusters], seed=1)
        != (low, high)
    )
    wide = clustered_interval(values, clusters, level=0.99)
    assert wide[0] < low < values.mean() < high < wide[1]


def test_interval_stays_in_the_range_of_the_values_and_says_where_there_is_none():
    low, high = clustered_interval([100.0, 100, 100, 100, 0], range(5))
    assert 0 <= low < 80 < high <= 100
    assert clustered_interval([100.0] * 5, range(5)) == (100, 100)
    assert clustered_interval([200 / 3, 200 / 3, 200 / 3], [0, 0, 1]) == pytest.approx(
        (200 / 3, 200 / 3), abs=1e-9
    )
    assert np.isnan(clustered_interval([0.0, 100], [7, 7])).all()


def test_many_images_are_drawn_in_chunks():
    values = np.random.default_rng(0).normal(size=300_000)
    low, high = clustered_interval(values, np.arange(300_000), resamples=200)
    assert (high - low) * 300_000**0.5 == pytest.approx(2 * 1.96, rel=0.25)


def test_paired_difference_sees_what_both_systems_have_in_common():
    rng = np.random.default_rng(0)
    hardness, clusters = np.repeat(rng.normal(size=40), 10), np.repeat(np.arange(40), 10)
    a = hardness + 0.2 * rng.normal(size=400) + 0.1
    b = hardness + 0.2 * rng.normal(size=400)
    result = paired_difference(a, b, clusters)
    low, high = result["ci95"]
    assert (
        result["difference"] == pytest.approx((a - b).mean())
        and 0 < low < result["difference"] < high < 0.2
    )
    assert result["p_value"] < 0.001  # the intervals of a and b by themselves overlap by far
    assert clustered_interval(a, clusters)[0] < clustered_interval(b, clusters)[1]
    turned = paired_difference(b, a, clusters)
    assert turned["difference"] == -result["difference"] and turned["p_value"] == pytest.approx(
        result["p_value"], abs=1e-3
    )
    assert paired_difference(a, a, clusters) == {
        "difference": 0.0,
        "ci95": [0.0, 0.0],
        "p_value": 1.0,
    }
    assert np.isnan(paired_difference(a, b, np.zeros(400))["p_value"])


def test_p_values_of_systems_that_are_equal_are_uniform():
    rng = np.random.default_rng(0)
    values, intervals = [], []
    for seed in range(1000):
        hardness = rng.normal(size=15)[:, None]
        a, b = (50.0 * (hardness + rng.normal(size=(15, 6)) > 0).ravel() for _ in range(2))
        result = paired_difference(a, b, np.repeat(np.arange(15), 6), resamples=500, seed=seed)
        values.append(result["p_value"])
        intervals.append(result["ci95"][0] <= 0 <= result["ci95"][1])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(values) < level) == pytest.approx(level, abs=0.05)
    assert 0.93 <= np.mean(intervals) <= 0.97
    assert np.mean(np.array(intervals) == (np.array(values) >= 0.05)) > 0.99


def test_score_points_gives_all_numbers():
    rng = np.random.default_rng(0)
    sizes = np.repeat([(200, 100), (50, 400), (64, 64)], 20, axis=0)
    true = rng.uniform(size=(60, 2)) * sizes
    predicted = true + rng.normal(size=(60, 2)) * 0.08 * sizes
    image_ids = np.repeat(["a", "b", "c"], 20)
    boxes = np.hstack([true - 20, true + 20])
    boxes[:15] = np.nan
    result = score_points(predicted, true, sizes, image_ids, boxes, thresholds=(0.1, 0.3))
    distances = normalized_distances(predicted, true, sizes)
    assert summary(distances, (0.1, 0.3)).items() <= result.items()
    assert (
        result["median_pixels"] == np.median(np.linalg.norm(predicted - true, axis=1))
        and result["box_n"] == 45
    )
    assert result["box_pck@0.1"] == pytest.approx(
        100 * np.mean(np.linalg.norm(predicted - true, axis=1)[15:] < 800**0.5 * 0.2)
    )
    assert set(result["ci95"]) == {"mpck", "pck@0.1", "pck@0.3", "box_pck@0.1"}
    assert result["ci95"]["mpck"] == list(clustered_interval(mpck_values(distances), image_ids))
    assert {type(v) for v in result.values()} == {float, int, dict}
    assert {type(end) for interval in result["ci95"].values() for end in interval} == {float}
    apart = score_points(predicted, true, sizes)
    assert (
        apart["ci95"]["pck@0.1"]
        == list(clustered_interval(100.0 * (distances < 0.1), np.arange(60)))
        and "box_n" not in apart
    )
    unknown = score_points(predicted, true, sizes, boxes=np.full((60, 4), np.nan))
    assert (
        unknown["box_n"] == 0
        and np.isnan(unknown["box_pck@0.1"])
        and np.isnan(unknown["ci95"]["box_pck@0.1"]).all()
    )


def test_texts_of_other_points_are_worth_what_two_independent_points_are():
    result = summary(
        normalized_distances(np.random.default_rng(1).permutation(UNIFORM), UNIFORM, ONES)
    )
    near = [np.pi * t**2 - 8 / 3 * t**3 + t**4 / 2 for t in (0.1, 0.2)]
    assert result["mpck"] == pytest.approx(100 * np.mean(near), abs=0.3)


def test_bad_input_is_an_error():
    with pytest.raises(ValueError, match=r"predicted\[1\] is not finite"):
        normalized_distances([(1, 1), (np.nan, 1)], [(1, 1)] * 2, [(2, 2)] * 2)
    with pytest.raises(ValueError, match="predicted must have shape"):
        normalized_distances([(1, 1)], [(1, 1)] * 2, [(2, 2)] * 2)
    with pytest.raises(ValueError, match=r"sizes\[1\] is \(0.0, 2.0\)"):
        normalized_distances([(1, 1)] * 2, [(1, 1)] * 2, [(2, 2), (0, 2)])
    for nothing in (
        lambda: summary([]),
        lambda: pck_curve([], [0.1]),
        lambda: score_points([], [], []),
    ):
        with pytest.raises(ValueError, match="no (distances|points)"):
            nothing()
    with pytest.raises(ValueError, match=r"boxes\[1\] is \(5.0, 5.0, 5.0, 9.0\)"):
        box_distances([(1, 1)] * 2, [(1, 1)] * 2, [(0, 0, 2, 2), (5, 5, 5, 9)])
    with pytest.raises(ValueError, match=r"boxes\[0\] is not finite"):
        box_distances([(1, 1)], [(1, 1)], [(0, np.nan, 2, 2)])
    with pytest.raises(ValueError, match=r"boxes must have shape \(1, 4\)"):
        box_distances([(1, 1)], [(1, 1)], [(0, 0, 2)])
    with pytest.raises(ValueError, match=r"thresholds\[1\] is 0 but must be positive"):
        score_points([(1, 1)], [(1, 1)], [(2, 2)], thresholds=(0.1, 0))
    with pytest.raises(ValueError, match="one length"):
        clustered_interval([1.0, 2.0], [0])
    with pytest.raises(ValueError, match=r"values\[1\] is not finite"):
        clustered_interval([1.0, np.nan], [0, 1])
    with pytest.raises(ValueError, match="10 resamples are too few"):
        clustered_interval([1.0, 2.0], [0, 1], resamples=10)
    with pytest.raises(ValueError, match="same samples"):
        paired_difference([1.0, 2.0], [1.0], [0, 1])
