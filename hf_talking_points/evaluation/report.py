"""The report of the protocol: Markdown, JSON, plots and pictures."""

import json

import numpy as np

from ..visualization import draw_extremes, plot_intervals, plot_pck_curves
from ..metrics import clustered_interval, pck_curve

CURVE = np.linspace(0.005, 0.25, 50)


def with_interval(row, key):
    low, high = row["ci95"][key]
    return f"{row[key]:.1f} [{low:.1f}, {high:.1f}]"


def p_value(comparison):
    """The p-value of [`paired_difference`] to three places, "< 0.001" below."""
    return f"{comparison['p_value']:.3f}" if not comparison["p_value"] < 0.001 else "< 0.001"


def labels(rows):
    """A short name for each row: its system, with the localizer where there are several."""
    several = len({row["localizer"] for row in rows} - {"-"}) > 1
    return [
        f"{row['system']} → {row['localizer']}"
        if several and row["localizer"] != "-"
        else row["system"]
        for row in rows
    ]


def scores_table(rows):
    """Rows of a report as a Markdown table: mPCK and PCK@0.05 with intervals, PCK@0.02, PCK@0.1 of the object's box, median distance."""
    lines = [
        "| text | mPCK | PCK@0.05 | PCK@0.02 | box PCK@0.1 | median px | misses |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {with_interval(row, 'mpck')} | {with_interval(row, 'pck@0.05')} | {row['pck@0.02']:.1f} | {row['box_pck@0.1']:.1f} "
        f"| {row['median_pixels']:.1f} | {row['misses']} |"
        for name, row in zip(labels(rows), rows)
    ]
    return "\n".join(lines)


def results_table(report):
    """What README and cards show of a report."""
    lines = [
        f"{report['split']} split (by photo): {report['photos']} photos, {report['points']} points; shares in percent, [95 % interval, "
        "bootstrap over photos].",
        "",
        scores_table(report["rows"]),
    ]
    for row in report["rows"]:
        if "naming" in row and not row["system"].startswith("ground truth"):
            low, high = row["versus"]["ci95"]
            lines += [
                "",
                f"The texts of {row['system']} name the object's category in {row['naming']['category']:.1f} % and the part in "
                f"{row['naming']['part']:.1f} %; their mPCK less that of {report['reference']} is {row['versus']['difference']:+.1f} "
                f"[{low:+.1f}, {high:+.1f}].",
            ]
    return "\n".join(lines)


def strata_table(rows):
    """mPCK and PCK@0.05 of each stratum, as a Markdown table with a column for each row of the report."""
    names = list(dict.fromkeys(name for row in rows for name in row["strata"]))
    head = " | ".join(labels(rows))
    lines = [f"| stratum | n | {head} |", "|---|---|" + "---|" * len(rows)]
    for name in names:
        cells = " | ".join(
            f"{row['strata'][name]['mpck']:.1f} / {row['strata'][name]['pck@0.05']:.1f}"
            for row in rows
        )
        lines.append(f"| {name} | {rows[0]['strata'][name]['n']} | {cells} |")
    return "\n".join(lines)


def comparison_table(report):
    """Differences in mPCK from the reference text, with interval and p-value, and how often object and part are named."""
    lines = [
        "| text | mPCK less the reference's | p | names the object, % | names the part, % |",
        "|---|---|---|---|---|",
    ]
    for name, row in zip(labels(report["rows"]), report["rows"]):
        if "versus" in row:
            low, high = row["versus"]["ci95"]
            named = (
                " | ".join(f"{row['naming'][key]:.1f}" for key in ("category", "part"))
                if "naming" in row
                else "- | -"
            )
            lines.append(
                f"| {name} | {row['versus']['difference']:+.1f} [{low:+.1f}, {high:+.1f}] | {p_value(row['versus'])} | {named} |"
            )
    return "\n".join(lines)


def markdown(report):
    """The report as a page."""
    rows = report["rows"]
    systems, controls = (
        [row for row in rows if not row["control"]],
        [row for row in rows if row["control"]],
    )
    pages = [
        "# Descriptions through localizers",
        f"{', '.join(report['dataset'])}, split {report['split']} (by photo): {report['photos']} photos, {report['points']} points; "
        f"metric version {report['metric_version']}. Shares in percent, [95 % interval, bootstrap over photos]. A distance counts after "
        "dividing x by the photo's width and y by its height; mPCK is the mean of PCK@0.1 and PCK@0.2. A text without a localized point is "
        "a miss.",
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
    ]
    if report["agreement"] is not None:
        pages.append(
            f"Mean Spearman correlation of the localizers' rankings of these texts: {report['agreement']:.2f}."
        )
    pages += ["## Strata", "mPCK / PCK@0.05.", strata_table(systems)]
    cost = "\n".join(
        f"| {name} | {1000 * seconds:.0f} |" for name, seconds in report["seconds"].items()
    )
    pages += [
        "## Cost",
        f"| | ms |\n|---|---|\n{cost}",
        f"Peak memory of the process: {report['peak_memory_gib']:.1f} GiB.",
    ]
    pages += ["## Best and worst", "![Nearest](best.jpg)", "![Farthest](worst.jpg)"]
    return "\n\n".join(pages) + "\n"


def write_report(report, samples, views, output):
    """Writes `report.json`, `report.md`, `mpck.png`, `pck_curves.png`, `best.jpg` and `worst.jpg` (ten points each of the last source of
    descriptions with the first localizer).

    Args:
        report (`dict`): of [`evaluate_descriptions`].
        samples (`pandas.DataFrame`): its per-sample rows.
        views (list of [`View`])
        output (`Path`): folder.
    """
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    shown = [row for row in report["rows"] if not row["control"]]
    plot_intervals(
        {name: (row["mpck"], *row["ci95"]["mpck"]) for name, row in zip(labels(shown), shown)},
        output / "mpck.png",
    )
    curves = {}
    for name, row in list(zip(labels(shown), shown))[-8:]:
        some = samples[(samples.system == row["system"]) & (samples.localizer == row["localizer"])]
        distances = some.distance.to_numpy()
        bands = np.array(
            [
                clustered_interval(100.0 * (distances < t), some.image_id, resamples=200)
                for t in CURVE
            ]
        )
        curves[name] = (CURVE, pck_curve(distances, CURVE), *bands.T)
    plot_pck_curves(curves, output / "pck_curves.png")
    pictured = samples[
        (samples.system == shown[-1]["system"]) & (samples.localizer == shown[-1]["localizer"])
    ].sort_values("distance")
    photos = {view.photo.id: view for view in views}
    for name, some in (("best", pictured.head(10)), ("worst", pictured.tail(10)[::-1])):
        items = [
            {
                "image": photos[row.image_id].image(),
                "point": (row.x, row.y),
                "found": None if np.isnan(row.found_x) else (row.found_x, row.found_y),
                "description": row.description or "(no text)",
                "distance": row.distance,
            }
            for row in some.itertuples()
        ]
        draw_extremes(items).save(output / f"{name}.jpg", quality=85)
    (output / "report.md").write_text(markdown(report), encoding="utf-8")
