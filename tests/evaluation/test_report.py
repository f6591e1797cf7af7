"""What the pages of a report say."""

import numpy as np
import pandas as pd
import pytest
from conftest import noise_image

from hf_talking_points.evaluation import report as report_module
from hf_talking_points.evaluation.report import (
    claims_table,
    comparison_table,
    curve_of,
    describing_table,
    labels,
    markdown,
    p_value,
    pictured_items,
    reading_table,
    results_table,
    scores_table,
    strata_table,
)
from hf_talking_points.metrics import pck
from hf_talking_points.words.claims import KINDS


def row(system, localizer="judge", control=False, **fields):
    """A row of a report."""
    intervals = {"mpck": [40.04, 60.06], "pck@0.05": [10.0, 30.0]}
    numbers = {"mpck": 50.04, "pck@0.05": 20.0, "pck@0.02": 5.55, "box_pck@0.1": 7.25}
    return {
        "system": system,
        "localizer": localizer,
        "control": control,
        "ci95": intervals,
        **numbers,
        "median_pixels": 12.34,
        "misses": 3,
        "strata": {"boundary points": {"n": 4, "mpck": 30.0, "pck@0.05": 10.0}},
        **fields,
    }


VERSUS = {"difference": -3.21, "ci95": [-5.0, -1.0], "p_value": 0.0004}
NAMING = {"category": 90.0, "part": 45.55}
FALSE_CLAIMS = {
    "share": 12.34,
    "ci95": [8.0, 17.0],
    "kinds": {**dict.fromkeys(KINDS, 0.0), "color": 11.11},
    "n": 34,
}


@pytest.fixture
def report():
    rows = [
        row("ground truth, full", naming={"category": 100.0, "part": 100.0}),
        row("people", naming=NAMING, versus=VERSUS, false_claims=FALSE_CLAIMS),
        row("image center", "-", control=True, versus={**VERSUS, "p_value": 0.04}),
    ]
    return {
        "metric_version": "1.0",
        "dataset": ["dogs", "cats"],
        "split": "test",
        "photos": 12,
        "points": 34,
        "reference": "ground truth, full",
        "rows": rows,
        "agreement": 0.5,
        "seconds": {"judge: a localization": 0.0123},
        "peak_memory_gib": 1.26,
    }


def test_rows_are_called_by_their_localizer_where_there_are_several():
    assert labels([row("a"), row("b", "-")]) == ["a", "b"]
    assert labels([row("a"), row("a", "two"), row("b", "-")]) == [
        "a → judge",
        "a → two",
        "b",
    ]


def test_scores_with_their_intervals():
    assert scores_table([row("people")]).splitlines()[2:] == [
        "| people | 50.0 [40.0, 60.1] | 20.0 [10.0, 30.0] | 5.5 | 7.2 | 12.3 | 3 |"
    ]


@pytest.mark.parametrize(
    "value, shown",
    [(0.04, "0.040"), (0.0004, "< 0.001"), (1.0, "1.000"), (float("nan"), "nan")],
)
def test_p_values(value, shown):
    assert p_value({"p_value": value}) == shown


def test_the_table_of_cards(report):
    pieces = results_table(report).split("\n\n")
    assert pieces[0] == (
        "test split (by photo): 12 photos, 34 points; shares in percent, [95 % interval, bootstrap over photos]."
    )
    assert pieces[1] == scores_table(report["rows"])
    assert pieces[2:] == [
        "The texts of people name the object's category in 90.0 % and the part in 45.5 %; "
        "their mPCK less that of ground truth, full is -3.2 [-5.0, -1.0]. "
        "Of them 12.3 % [8.0, 17.0] say something that annotation or pixels contradict."
    ]


def test_the_table_of_a_report_without_false_claims(report):
    del report["rows"][1]["false_claims"]
    assert results_table(report).endswith("full is -3.2 [-5.0, -1.0].")


def test_false_claims_have_a_row_for_each_source_of_texts():
    rows = [
        row("people", false_claims=FALSE_CLAIMS),
        row("people", "another judge", false_claims=FALSE_CLAIMS),
        row("image center", "-", control=True),
    ]
    assert claims_table(rows).splitlines() == [
        "| text | any | object | part | side | color | texture | relation | place |",
        "|---|---|---|---|---|---|---|---|---|",
        "| people | 12.3 [8.0, 17.0] | 0.0 | 0.0 | 0.0 | 11.1 | 0.0 | 0.0 | 0.0 |",
    ]


def test_differences_from_the_reference(report):
    assert comparison_table(report).splitlines()[2:] == [
        "| people | -3.2 [-5.0, -1.0] | < 0.001 | 90.0 | 45.5 |",
        "| image center | -3.2 [-5.0, -1.0] | 0.040 | - | - |",
    ]


def test_strata_have_a_column_for_each_row():
    rows = [
        row("a"),
        row("b", strata={"boundary points": {"n": 4, "mpck": 1.0, "pck@0.05": 2.0}}),
    ]
    assert strata_table(rows).splitlines() == [
        "| stratum | n | a | b |",
        "|---|---|---|---|",
        "| boundary points | 4 | 30.0 / 10.0 | 1.0 / 2.0 |",
    ]


def test_the_page_has_its_parts(report):
    page = markdown(report)
    titles = [line for line in page.splitlines() if line.startswith("#")]
    assert titles == [
        "# Descriptions through localizers",
        "## Controls",
        "## Against ground truth, full",
        "## False claims",
        "## Strata",
        "## Cost",
        "## Best and worst",
    ]
    assert "dogs, cats, split test (by photo): 12 photos, 34 points" in page
    assert "rankings of these texts: 0.50" in page
    assert "| judge: a localization | 12 |" in page
    assert "1.3 GiB" in page


def test_a_page_without_controls_and_without_agreement(report):
    report["rows"] = report["rows"][:2]
    report["agreement"] = None
    page = markdown(report)
    assert "## Controls" not in page and "rankings" not in page


def samples_frame(**columns):
    frame = {
        "image_id": ["1.png", "1.png (ab)"],
        "x": [1.0, 2.0],
        "y": [3.0, 4.0],
        "found_x": [5.0, np.nan],
        "found_y": [6.0, np.nan],
        "description": ["the nose", ""],
        "distance": [0.1, 1.2],
    }
    return pd.DataFrame({**frame, **columns})


class Picture:
    """A view of one photo."""

    def __init__(self, seed):
        self.pixels = noise_image(seed)

    def image(self):
        return self.pixels


def test_points_are_drawn_on_their_own_photos():
    views = {"1.png": Picture(0), "1.png (ab)": Picture(1)}
    hit, miss = pictured_items(samples_frame(), views)
    assert (
        hit["image"] is views["1.png"].pixels
        and miss["image"] is views["1.png (ab)"].pixels
    )
    assert hit["point"] == (1, 3) and miss["point"] == (2, 4)
    assert hit["found"] == (5, 6) and miss["found"] is None
    assert hit["description"] == "the nose" and miss["description"] == "(no text)"
    report_module.draw_extremes([hit, miss])


def test_curves_are_pck_with_intervals():
    rng = np.random.default_rng(0)
    distances = rng.uniform(0, 0.3, 200)
    frame = pd.DataFrame(
        {"distance": distances, "image_id": np.repeat(np.arange(20), 10)}
    )
    thresholds, values, low, high = curve_of(frame)
    assert thresholds.shape == values.shape == low.shape == high.shape
    assert values[10] == pytest.approx(pck(distances, thresholds[10]))
    assert (low <= values).all() and (values <= high).all()


def test_the_reading_table_has_a_row_for_each_group_and_style():
    row = {
        "group": "birds",
        "style": "short",
        "n": 9,
        "mpck": 61.25,
        "pck@0.05": 30.0,
        "ci95": {"mpck": [50.0, 70.0], "pck@0.05": [9.0, 40.0]},
        "gray_picture": 9.0,
        "of_another_point": 15.0,
        "text_only": 25.0,
        "confidence": 0.5,
        "confidence_of_another_point": 0.25,
        "calibration_error": 0.0625,
        "calibration_error_by_chance": 0.1,
    }
    heading, line, *rows = reading_table([row, {**row, "style": "rich"}]).split("\n")
    assert heading.count("|") == line.count("|") == rows[0].count("|")
    scored = (
        "| birds | short | 9 | 61.2 [50.0, 70.0] | 30.0 [9.0, 40.0] | 9.0 | 15.0 | 25.0"
    )
    assert rows[0] == f"{scored} | 0.50 | 0.25 | 0.062 | 0.100 |"
    assert rows[1].startswith("| birds | rich |")


def test_the_describing_table_has_a_column_for_each_group():
    group = {
        "n": 1200,
        "mpck": 91.0,
        "pck@0.05": 60.0,
        "ci95": {"mpck": [90.0, 92.0], "pck@0.05": [55.0, 65.0]},
        "shares": {
            "contradicted": {"n": 1200, "share": 8.0, "ci95": [7.0, 9.0]},
            "nearest color": {"n": 0},
        },
        "variety": {"distinct-2": 0.25},
    }
    report = {
        "groups": {"parts": group, "anywhere": group},
        "color_r2_of_point_tokens": {"L": 0.951, "a": 0.9, "b": 0.85},
    }
    table, colors = describing_table(report).split("\n\n")
    assert table.splitlines() == [
        "|  | parts | anywhere |",
        "| --- | --- | --- |",
        "| points | 1,200 | 1,200 |",
        "| mPCK | 91.0 [90.0, 92.0] | 91.0 [90.0, 92.0] |",
        "| PCK@0.05 | 60.0 [55.0, 65.0] | 60.0 [55.0, 65.0] |",
        "| contradicted, % | 8.0 [7.0, 9.0] of 1,200 | 8.0 [7.0, 9.0] of 1,200 |",
        "| nearest color, % | none | none |",
        "| distinct-2 | 0.25 | 0.25 |",
    ]
    assert colors.endswith("L 0.95, a 0.90, b 0.85")
