"""The report of the protocol: Markdown, JSON, plots and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.triplets import View
from ..files import whole_file
from ..metrics import clustered_interval, pck_curve
from ..visualization import draw_extremes, plot_intervals, plot_pck_curves
from ..words.claims import KINDS

THRESHOLDS_OF_CURVE = np.linspace(0.005, 0.25, 50)
MOST_CURVES = 8  # that a plot can tell apart
PICTURED = 10  # best and worst points

Row = dict[str, Any]


def with_interval(row: Row, key: str) -> str:
    """A number with its interval."""
    low, high = row["ci95"][key]
    return f"{row[key]:.1f} [{low:.1f}, {high:.1f}]"


def difference(comparison: dict[str, Any]) -> str:
    """The difference of [`paired_difference`] with its interval."""
    low, high = comparison["ci95"]
    return f"{comparison['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"


def p_value(comparison: dict[str, Any]) -> str:
    """The p-value of [`paired_difference`] to three places, "< 0.001" below."""
    return (
        f"{comparison['p_value']:.3f}"
        if not comparison["p_value"] < 0.001
        else "< 0.001"
    )


def table_row(cells: Sequence[Any]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def labels(rows: Sequence[Row]) -> list[str]:
    """A short name for each row: its system, with the localizer where there are several."""
    several = len({row["localizer"] for row in rows} - {"-"}) > 1
    names = []
    for row in rows:
        named = several and row["localizer"] != "-"
        names.append(
            f"{row['system']} → {row['localizer']}" if named else row["system"]
        )
    return names


def scores_table(rows: Sequence[Row]) -> str:
    """Rows of a report as a Markdown table: mPCK and PCK@0.05 with intervals, PCK@0.02, PCK@0.1 of the object's box,
    median distance."""
    lines = [
        "| text | mPCK | PCK@0.05 | PCK@0.02 | box PCK@0.1 | median px | misses |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in zip(labels(rows), rows):
        cells = [
            name,
            with_interval(row, "mpck"),
            with_interval(row, "pck@0.05"),
            f"{row['pck@0.02']:.1f}",
            f"{row['box_pck@0.1']:.1f}",
            f"{row['median_pixels']:.1f}",
            row["misses"],
        ]
        lines.append(table_row(cells))
    return "\n".join(lines)


def results_table(report: dict[str, Any]) -> str:
    """What README and cards show of a report."""
    pieces = [
        f"{report['split']} split (by photo): {report['photos']} photos, {report['points']} points; "
        "shares in percent, [95 % interval, bootstrap over photos].",
        scores_table(report["rows"]),
    ]
    for row in report["rows"]:
        if "naming" in row and not row["system"].startswith("ground truth"):
            naming = row["naming"]
            pieces.append(
                f"The texts of {row['system']} name the object's category in {naming['category']:.1f} % "
                f"and the part in {naming['part']:.1f} %; "
                f"their mPCK less that of {report['reference']} is {difference(row['versus'])}."
            )
            if "false_claims" in row:
                false = row["false_claims"]
                low, high = false["ci95"]
                pieces[-1] += (
                    f" Of them {false['share']:.1f} % [{low:.1f}, {high:.1f}] say something that annotation or pixels "
                    "contradict."
                )
    return "\n\n".join(pieces)


def reading_table(rows: Sequence[Row]) -> str:
    """How well a localizer reads texts, as a Markdown table: a row for each group of photos and style of texts.

    Args:
        rows (list of `dict`): those of `benchmarks/reading.py`.
    """
    lines = [
        "| photos | texts | n | mPCK | PCK@0.05 | mPCK, gray picture | of another point | words alone "
        "| confidence | of another point | calibration error | by chance |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["group"],
            row["style"],
            row["n"],
            with_interval(row, "mpck"),
            with_interval(row, "pck@0.05"),
            f"{row['gray_picture']:.1f}",
            f"{row['of_another_point']:.1f}",
            f"{row['text_only']:.1f}",
            f"{row['confidence']:.2f}",
            f"{row['confidence_of_another_point']:.2f}",
            f"{row['calibration_error']:.3f}",
            f"{row['calibration_error_by_chance']:.3f}",
        ]
        lines.append(table_row(cells))
    return "\n".join(lines)


def describing_table(report: dict[str, Any]) -> str:
    """How true, findable and varied the texts of a descriptor are, as a Markdown table with a column for each group of
    points, and a line on the colors that its point tokens tell.

    Args:
        report (`dict`): that of `benchmarks/describing.py`.
    """
    groups = list(report["groups"].values())
    rows = [["", *report["groups"]], ["---"] * (len(groups) + 1)]
    rows.append(["points", *(f"{group['n']:,}" for group in groups)])
    for key, title in (("mpck", "mPCK"), ("pck@0.05", "PCK@0.05")):
        rows.append([title, *(with_interval(group, key) for group in groups)])
    for title in groups[0]["shares"]:
        cells = [share_cell(group["shares"][title]) for group in groups]
        rows.append([f"{title}, %", *cells])
    for title in groups[0]["variety"]:
        cells = [f"{group['variety'][title]:.2f}" for group in groups]
        rows.append([title, *cells])
    table = "\n".join(table_row(row) for row in rows)
    r2 = report["color_r2_of_point_tokens"]
    of_axes = ", ".join(f"{axis} {value:.2f}" for axis, value in r2.items())
    return f"{table}\n\nR² of the spots' colors, read from the point tokens: {of_axes}"


def share_cell(counted: dict[str, Any]) -> str:
    """A share with its interval and how many texts it is of."""
    if not counted["n"]:
        return "none"
    low, high = counted["ci95"]
    return f"{counted['share']:.1f} [{low:.1f}, {high:.1f}] of {counted['n']:,}"


def strata_table(rows: Sequence[Row]) -> str:
    """mPCK and PCK@0.05 of each stratum, as a Markdown table with a column for each row of the report."""
    lines = [
        table_row(["stratum", "n", *labels(rows)]),
        "|---|---|" + "---|" * len(rows),
    ]
    for name, stratum in rows[0]["strata"].items():
        cells = [name, stratum["n"]]
        for row in rows:
            numbers = row["strata"][name]
            cells.append(f"{numbers['mpck']:.1f} / {numbers['pck@0.05']:.1f}")
        lines.append(table_row(cells))
    return "\n".join(lines)


def comparison_table(report: dict[str, Any]) -> str:
    """Differences in mPCK from the reference text, with interval and p-value, and how often object and part are
    named."""
    lines = [
        "| text | mPCK less the reference's | p | names the object, % | names the part, % |",
        "|---|---|---|---|---|",
    ]
    for name, row in zip(labels(report["rows"]), report["rows"]):
        if "versus" not in row:
            continue
        cells = [name, difference(row["versus"]), p_value(row["versus"])]
        if "naming" in row:
            cells += [
                f"{row['naming']['category']:.1f}",
                f"{row['naming']['part']:.1f}",
            ]
        else:
            cells += ["-", "-"]
        lines.append(table_row(cells))
    return "\n".join(lines)


def claims_table(rows: Sequence[Row]) -> str:
    """The share of texts of each system that say something false, with its interval, and of each kind, as a Markdown
    table."""
    lines = [
        table_row(["text", "any", *KINDS]),
        "|---|---|" + "---|" * len(KINDS),
    ]
    shown = set()
    for row in rows:
        if row["system"] in shown or "false_claims" not in row:
            continue  # through another localizer a text is the same
        shown.add(row["system"])
        false = row["false_claims"]
        low, high = false["ci95"]
        cells = [row["system"], f"{false['share']:.1f} [{low:.1f}, {high:.1f}]"]
        for kind in KINDS:
            cells.append(f"{false['kinds'][kind]:.1f}")
        lines.append(table_row(cells))
    return "\n".join(lines)


def cost_table(report: dict[str, Any]) -> str:
    """Milliseconds of a description and of a localization."""
    lines = ["| | ms |", "|---|---|"]
    for name, seconds in report["seconds"].items():
        lines.append(table_row([name, f"{1000 * seconds:.0f}"]))
    return "\n".join(lines)


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    systems = [row for row in report["rows"] if not row["control"]]
    controls = [row for row in report["rows"] if row["control"]]
    pages = [
        "# Descriptions through localizers",
        f"{', '.join(report['dataset'])}, split {report['split']} (by photo): "
        f"{report['photos']} photos, {report['points']} points; metric version {report['metric_version']}. "
        "Shares in percent, [95 % interval, bootstrap over photos]. "
        "A distance counts after dividing x by the photo's width and y by its height; "
        "mPCK is the mean of PCK@0.1 and PCK@0.2. A text without a localized point is a miss.",
        scores_table(systems),
        "![mPCK](mpck.png)",
        "![PCK over thresholds](pck_curves.png)",
    ]
    if controls:
        pages += [
            "## Controls",
            "What the words alone, the picture alone and chance give.",
            scores_table(controls),
        ]
    pages += [
        f"## Against {report['reference']}",
        "Paired bootstrap over photos.",
        comparison_table(report),
        "## False claims",
        "Texts that say something of the point that annotation or pixels contradict, in percent, and of which kind. "
        "What neither of them tells is left open.",
        claims_table(report["rows"]),
    ]
    if report["agreement"] is not None:
        pages.append(
            f"Mean Spearman correlation of the localizers' rankings of these texts: {report['agreement']:.2f}."
        )
    pages += [
        "## Strata",
        "mPCK / PCK@0.05.",
        strata_table(systems),
        "## Cost",
        cost_table(report),
        f"Peak memory of the process: {report['peak_memory_gib']:.1f} GiB.",
        "## Best and worst",
        "![Nearest](best.jpg)",
        "![Farthest](worst.jpg)",
    ]
    return "\n\n".join(pages) + "\n"


def samples_of(samples: pd.DataFrame, row: Row) -> pd.DataFrame:
    """The per-sample rows that a row of the report sums up."""
    chosen = (samples.system == row["system"]) & (samples.localizer == row["localizer"])
    return samples[chosen]


def curve_of(samples: pd.DataFrame) -> tuple[np.ndarray, ...]:
    """(thresholds, PCK, lower and upper end of its interval) of one system, four arrays."""
    distances = samples.distance.to_numpy()
    ends = []
    for threshold in THRESHOLDS_OF_CURVE:
        hits = 100.0 * (distances < threshold)
        ends.append(clustered_interval(hits, samples.image_id, resamples=200))
    low, high = np.array(ends).T
    return THRESHOLDS_OF_CURVE, pck_curve(distances, THRESHOLDS_OF_CURVE), low, high


def pictured_items(
    samples: pd.DataFrame, views: Mapping[str, View]
) -> list[dict[str, Any]]:
    """What [`draw_extremes`] draws of per-sample rows."""
    items = []
    for sample in samples.itertuples():
        missed = np.isnan(sample.found_x)
        item = {
            "image": views[sample.image_id].image(),
            "point": (sample.x, sample.y),
            "found": None if missed else (sample.found_x, sample.found_y),
            "description": sample.description or "(no text)",
            "distance": sample.distance,
        }
        items.append(item)
    return items


def write_report(
    report: dict[str, Any],
    samples: pd.DataFrame,
    views: Mapping[str, View],
    output: Path,
) -> None:
    """Writes `report.json`, `report.md`, `mpck.png`, `pck_curves.png`, `best.jpg` and `worst.jpg` (ten points each of
    the last source of descriptions with the first localizer).

    Args:
        report (`dict`): of [`evaluate_descriptions`].
        samples (`pandas.DataFrame`): its per-sample rows.
        views (`dict`): image_id of the samples -> its [`View`].
        output (`Path`): folder.
    """
    content = json.dumps(report, indent=2) + "\n"
    with whole_file(output / "report.json") as file:
        file.write_text(content, encoding="utf-8")
    judged = [row for row in report["rows"] if not row["control"]]
    bars = {}
    for name, row in zip(labels(judged), judged):
        bars[name] = (row["mpck"], *row["ci95"]["mpck"])
    plot_intervals(bars, output / "mpck.png")
    curves = {}
    for name, row in list(zip(labels(judged), judged))[-MOST_CURVES:]:
        curves[name] = curve_of(samples_of(samples, row))
    plot_pck_curves(curves, output / "pck_curves.png")
    pictured = samples_of(samples, judged[-1]).sort_values("distance")
    nearest = pictured.head(PICTURED)
    farthest = pictured.tail(PICTURED)[::-1]
    for name, extremes in (("best", nearest), ("worst", farthest)):
        with whole_file(output / f"{name}.jpg") as file:
            picture = draw_extremes(pictured_items(extremes, views))
            picture.save(file, "JPEG", quality=85)
    with whole_file(output / "report.md") as file:
        file.write_text(markdown(report), encoding="utf-8")
