"""The benchmark of what a descriptor's texts say."""

import pandas as pd
import pytest
from example_scripts import load_example

TEXT = {
    "image_id": "a",
    "false": False,
    "absent": False,
    "color": None,
    "texture": None,
    "object": None,
    "part": None,
    "side": None,
}


@pytest.mark.parametrize(
    ("places", "count", "nearest", "two_nearest"),
    [([0, 1, 2, None], 3, 100 / 3, 200 / 3), ([0, 0, 1, 1], 4, 50, 100)],
)
def test_colors_are_scored_in_texts_that_say_one(places, count, nearest, two_nearest):
    script = load_example("describing", "benchmarks")
    texts = [{**TEXT, "color_place": place} for place in places]
    numbers = script.numbers_of(pd.DataFrame(texts))
    for title, share in (
        ("nearest color", nearest),
        ("one of the two nearest colors", two_nearest),
    ):
        assert numbers[title]["n"] == count
        assert numbers[title]["share"] == pytest.approx(share)


def test_without_any_color_there_is_no_share():
    script = load_example("describing", "benchmarks")
    numbers = script.numbers_of(pd.DataFrame([{**TEXT, "color_place": None}]))
    assert numbers["nearest color"] == {"n": 0}
