"""Known answers of the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.evaluation.metrics import clustered_interval, mpck_values, normalized_distances, pck, summary

UNIFORM = np.random.default_rng(0).uniform(size=(200_000, 2))
ONES = np.ones_like(UNIFORM)


def test_an_oracle_gives_100():
    result = summary(normalized_distances(UNIFORM, UNIFORM, ONES))
    assert result["mpck"] == result["pck@0.02"] == 100 and result["n"] == 200_000 and result["median_distance"] == 0


def test_the_centre_of_uniform_points():
    assert summary(normalized_distances(ONES / 2, UNIFORM, ONES))["mpck"] == pytest.approx(100 * np.pi * (0.01 + 0.04) / 2, abs=0.3)


@pytest.mark.parametrize("cells, mpck", [(2, 31.4), (3, 61.7), (4, 75.1), (5, 89.3)])
def test_oracles_that_know_the_cell_of_a_grid(cells, mpck):
    centres = (np.floor(UNIFORM * cells) + 0.5) / cells
    assert summary(normalized_distances(centres, UNIFORM, ONES))["mpck"] == pytest.approx(mpck, abs=0.4)


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1))
def test_distances_are_parts_of_the_sides(width, height, x, y):
    [distance] = normalized_distances([(0.5 * width, 0.5 * height)], [(x * width, y * height)], [(width, height)])
    assert distance == pytest.approx(np.hypot(x - 0.5, y - 0.5))


def test_mpck_is_the_mean_of_two():
    distances = np.array([0.01, 0.06, 0.15, 0.3])
    result = summary(distances)
    assert [result[f"pck@{t}"] for t in (0.02, 0.05, 0.1, 0.2)] == [25, 25, 50, 75] and result["mpck"] == 62.5
    assert mpck_values(distances).mean() == 62.5 and pck([0.1], 0.1) == 0


def test_interval_covers_the_truth_where_samples_of_an_image_go_together():
    covered, rng = 0, np.random.default_rng(1)
    for seed in range(300):
        values = np.repeat(rng.normal(size=60), 8) + 0.3 * rng.normal(size=480)  # truth: 0
        low, high = clustered_interval(values, np.repeat(np.arange(60), 8), resamples=400, seed=seed)
        covered += low < 0 < high
    assert 0.91 <= covered / 300 <= 0.98  # drawing samples one by one would give 0.5


def test_bad_input_is_an_error():
    with pytest.raises(ValueError, match=r"predicted\[1\] is not finite"):
        normalized_distances([(1, 1), (np.nan, 1)], [(1, 1)] * 2, [(2, 2)] * 2)
    with pytest.raises(ValueError, match="predicted must have shape"):
        normalized_distances([(1, 1)], [(1, 1)] * 2, [(2, 2)] * 2)
    with pytest.raises(ValueError, match="no distances"):
        summary([])
