"""Pictures: marks lie on their points, whatever the size and brightness of the photo."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from hf_talking_points import visualization
from hf_talking_points.visualization import (
    COLOURS,
    draw_comparison,
    draw_extremes,
    draw_round_trip,
    fonts,
    overlay_heatmap,
    plot_intervals,
    plot_pck_curves,
    stack,
    strip_window,
    wrap,
)

RED = (0xE6, 0x19, 0x4B)


def row(point, found=None, heatmap=None):
    return {"point": point, "description": "A small dog. " * 9, "found": found, "heatmap": heatmap}


def near(picture, x, y, colour, reach=9):
    """How many pixels around (x, y) have this colour."""
    box = (max(0, round(x) - reach), max(0, round(y) - reach), round(x) + reach, round(y) + reach)
    patch = np.asarray(picture.crop(box)).astype(int)
    return (np.abs(patch - colour).max(-1) < 12).sum()


def shown_at(size, point, column=640, radius=13):
    """Where a point of an image of `size` lies in the square of `column` pixels that its photo is fitted into."""
    scale = (column - 4 * radius) / max(size)
    return (column - size[0] * scale) / 2 + point[0] * scale, 2 * radius + point[1] * scale


@pytest.mark.parametrize("colour", ["black", "white", "red"])
@pytest.mark.parametrize("size", [(1, 1), (100, 60), (300, 900), (4000, 3000)])
def test_star_and_cross_are_seen_up_to_the_border(size, colour):
    for at in ((0.3, 0.7), (0, 0), (1, 1)):
        point, found = [a * v for a, v in zip(at, size)], (0.6 * size[0], 0.4 * size[1])
        picture = draw_round_trip(Image.new("RGB", size, colour), [row(point, found)])
        for mark in (point, found):
            assert near(picture, *shown_at(size, mark), RED) > 60
            assert near(picture, *shown_at(size, mark), (255, 255, 255), reach=16) > 60


def test_a_panorama_is_shown_around_each_point():
    photo = Image.new("RGB", (20000, 200), "black")
    photo.paste("lime", (11990, 0, 12010, 200))
    rows = [row((12000, 100)), row((19990, 10), (19800, 150)), row((0, 200), (20000, 0))]
    picture = draw_round_trip(photo, rows)
    assert picture.size == (1280, 3 * 248)
    for index, (x, y) in enumerate(((320, 124), (614 - 10 * 0.98, 36), (26, 222))):
        colour = [int(COLOURS[index][i : i + 2], 16) for i in (1, 3, 5)]
        assert near(picture, x, 248 * index + y, colour) > 60
    assert (
        near(picture, 320, 60, (0, 255, 0)) > 100
    )  # what lies at the first point, in its own proportions
    upright = draw_round_trip(
        photo.transpose(Image.Transpose.TRANSPOSE), [row((100, 12000)), row((10, 19990))]
    )
    assert upright.size == (1280, 2 * 640) and near(upright, 320, 320, RED) > 60


def test_pixels_of_small_photos_have_decimals(monkeypatch):
    titles = []
    monkeypatch.setattr(
        visualization,
        "draw_text",
        lambda draw, left, top, title, lines, colour: titles.append(title),
    )
    for size in ((40, 30), (400, 300)):
        draw_round_trip(Image.new("RGB", size), [row((3.25, 4), (6.25, 8))])
    assert titles == [
        "(3.2, 4.0)   found at (6.2, 8.0), 5.0 px away",
        "(3, 4)   found at (6, 8), 5 px away",
    ]


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="rows is empty"):
        draw_round_trip(Image.new("RGB", (40, 30)), [])


@pytest.mark.parametrize("size", [(90, 60), (6000, 60)])
def test_round_trips_are_compared_side_by_side(size):
    def halves(one, other):
        picture = draw_comparison(Image.new("RGB", size, "black"), {"name": one, "name ": other})
        assert picture.width == 1280
        return np.asarray(picture.crop((0, 0, 640, picture.height))), np.asarray(
            picture.crop((640, 0, 1280, picture.height))
        )

    point, found = (0.5 * size[0], 0.5 * size[1]), (0.5 * size[0] - 20, 0.8 * size[1])
    left, right = halves([row(point, found), row(found)], [row(point, found), row(found)])
    assert (left == right).all() and (np.abs(left.astype(int) - RED).max(-1) < 12).sum() > 100
    wordy = {**row(point, found), "description": "Many words. " * 40}
    left, right = halves([wordy, row(found)], [row(point, found), row(found)])
    assert (left != right).any() and (
        left[-60:] == right[-60:]
    ).all()  # the texts of a point are at one height


def test_comparisons_need_as_many_rows_each():
    photo = Image.new("RGB", (40, 30))
    for wrong in ({}, {"a": [row((1, 2))], "b": []}):
        with pytest.raises(ValueError, match="same number of rows"):
            draw_comparison(photo, wrong)
    with pytest.raises(ValueError, match="rows is empty"):
        draw_comparison(photo, {"a": [], "b": []})


@pytest.mark.parametrize("width", [400, 1280])
def test_texts_end_within_the_picture(width):
    picture = np.asarray(
        draw_round_trip(Image.new("RGB", (80, 60), "gray"), [row((40, 30))], width=width).convert(
            "L"
        )
    )
    assert (picture[:, -6:] == 255).all() and (picture[:, width // 2 + 46 :] < 128).any()


def test_heat_lies_on_the_image_and_not_on_its_padding():
    heatmap = np.zeros((32, 32), dtype=np.float32)
    heatmap[16, 8] = (
        1.0  # the middle of the left half: a quarter of the width, half of the height of a wide image
    )
    blended = np.asarray(overlay_heatmap(Image.new("RGB", (200, 100), "white"), heatmap)).astype(
        int
    )
    y, x = np.unravel_index((255 - blended[..., 2]).argmax(), (100, 200))
    assert abs(x - 53) <= 3 and abs(y - 53) <= 3
    assert (blended[:, 120:] == 255).all()


def test_heat_of_a_part_is_the_part_of_the_heat():
    heatmap = np.random.default_rng(0).uniform(0, 1, (16, 16)).astype(np.float32)
    window = (150, 10, 250, 60)
    whole = overlay_heatmap(Image.new("RGB", (400, 100), "white"), heatmap).crop(window)
    part = overlay_heatmap(
        Image.new("RGB", (100, 50), "white"), heatmap, size=(400, 100), window=window
    )
    assert np.abs(np.asarray(whole).astype(int) - np.asarray(part)).max() <= 2


def test_pictures_are_stacked():
    result = stack([Image.new("RGB", (5, 3), "red"), Image.new("RGB", (7, 2), "blue")])
    assert result.size == (7, 5) and result.getpixel((0, 4)) == (0, 0, 255)


def item(size, point, found, colour="gray", description="A small dog. " * 9):
    return {
        "image": Image.new("RGB", size, colour),
        "point": point,
        "found": found,
        "description": description,
        "distance": 0.25,
    }


@pytest.mark.parametrize("colour", ["black", "white", "red"])
@pytest.mark.parametrize("size", [(100, 60), (4000, 2400)])
def test_extremes_show_both_points_up_to_the_border(size, colour):
    for at in ((0.25, 0.25), (0, 0), (1, 1), (0, 1)):
        point, found = [a * v for a, v in zip(at, size)], [0.7 * size[0], 0.5 * size[1]]
        picture = draw_extremes([item(size, point, found, colour)])
        scale = 271 / size[0]
        for x, y in (point, found):
            assert near(picture, x * scale + 18, y * scale + 18, RED) > 40
            assert near(picture, x * scale + 18, y * scale + 18, (255, 255, 255)) > 20


@pytest.mark.parametrize("width, columns", [(500, 1), (1280, 2), (1800, 3)])
def test_extremes_fill_rows(width, columns):
    one = draw_extremes([item((90, 60), (9, 9), (30, 30))], width)
    picture = draw_extremes([item((90, 60), (9, 9), (30, 30))] * (columns + 1), width)
    assert picture.size == (width, 2 * one.height)
    assert (np.asarray(picture)[:, -6:] == 255).all()
    with pytest.raises(ValueError, match="items is empty"):
        draw_extremes([])


@pytest.mark.parametrize("found", [(150, -60), (-1e15, 1e15), (3e9, 30), (90, 60)])
def test_points_found_outside_are_led_to(found):
    picture = draw_extremes([item((90, 60), (45, 30), found, "black")])
    alone = draw_extremes([item((90, 60), (45, 30), None, "black")])
    assert picture.size == alone.size
    rows, columns = np.nonzero(
        (np.asarray(picture) != np.asarray(alone)).any(-1) & (np.arange(picture.width) < 307)
    )
    assert len(rows) > 200 and np.hypot(rows - 108, columns - 153).max() > 100


def test_a_strip_is_shown_around_its_points():
    assert strip_window((300, 100), (0, 0), (300, 100)) == [0, 0, 300, 100]
    assert strip_window((4000, 100), (2000, 50), None) == [1850, 0, 2150, 100]
    assert strip_window((4000, 100), (2000, 50), (2200, 3)) == [1950, 0, 2250, 100]
    assert strip_window((4000, 100), (2000, 50), (3900, 3)) == [1850, 0, 2150, 100]
    assert strip_window((10, 4000), (3, 3999), (2, -700)) == [0, 3970, 10, 4000]
    picture = draw_extremes([item((100, 4000), (50, 3990), (50, 3800), "black")])
    dark = np.argwhere((np.asarray(picture)[:, :300] == 0).all(-1))
    height, width = dark.max(0) - dark.min(0)
    assert abs(height - 271) < 3 and abs(width - 90) < 3


@given(st.text(), st.integers(20, 400))
def test_wrapped_lines_keep_every_letter_and_the_width(text, width):
    lines = wrap(text, fonts()[0], width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(len(line) <= 1 or fonts()[0].getlength(line) <= width for line in lines)


def recorded(monkeypatch):
    """The list of figures that are written from now on."""
    figures, savefig = [], Figure.savefig

    def record(figure, *args, **kwargs):
        figures.append(figure)
        return savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record)
    return figures


def test_curves_are_drawn_with_their_bands(tmp_path, monkeypatch):
    figures, thresholds = recorded(monkeypatch), np.linspace(0, 0.3, 61)
    curves = {}
    for i in range(8):
        values = 100 * (1 - np.exp(-thresholds * (2 + 3 * i)))
        curves[f"system $x_{i}$ with a name that goes on and on beyond one line"] = (
            thresholds,
            values,
            values - 5,
            values + 5,
        )
    plot_pck_curves(curves, tmp_path / "pck.png")
    [axes] = figures[0].axes
    assert len(axes.lines) == len(axes.collections) == 8
    for line, (_, values, _, _) in zip(axes.lines, curves.values()):
        assert np.array_equal(line.get_xdata(), thresholds) and np.array_equal(
            line.get_ydata(), values
        )
    assert axes.get_xlim() == (0, 0.3) and axes.get_ylim() == (0, 100)
    assert [
        text.get_text().replace("\n", " ") for text in figures[0].legends[0].get_texts()
    ] == list(curves)
    assert (tmp_path / "pck.png").stat().st_size <= 150_000 and Image.open(
        tmp_path / "pck.png"
    ).format == "PNG"
    for wrong in ({}, {str(i): [thresholds] * 4 for i in range(9)}):
        with pytest.raises(ValueError, match=f"got {len(wrong)}"):
            plot_pck_curves(wrong, tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_intervals_keep_their_order_and_say_their_values(tmp_path, monkeypatch):
    figures = recorded(monkeypatch)
    rows = {
        "text": (78.13, 76.0, 80.2),
        "a name that is so long that it takes more than one line $or$ two": (-3.0, -5.0, 2.0),
    }
    rows["all"] = (100.0, 100.0 + 1e-13, 100.0 + 1e-13)
    plot_intervals(rows, tmp_path / "intervals.png", label="PCK@0.1")
    [axes] = figures[0].axes
    assert [text.get_text().replace("\n", " ") for text in axes.get_yticklabels()] == list(rows)
    assert [patch.get_width() for patch in axes.patches] == [78.13, -3.0, 100.0]
    heights = [axes.transData.transform((0, y))[1] for y in axes.get_yticks()]
    assert heights == sorted(heights, reverse=True)
    assert [text.get_text() for text in axes.texts][:2] == [
        "78.1  [76.0, 80.2]",
        "-3.0  [-5.0, 2.0]",
    ] and axes.get_xlabel() == "PCK@0.1"
    segments = axes.collections[0].get_segments()
    assert [segment[:, 0].tolist() for segment in segments][:2] == [
        pytest.approx([76.0, 80.2]),
        pytest.approx([-5.0, 2.0]),
    ]
    picture = np.asarray(Image.open(tmp_path / "intervals.png").convert("L"))
    assert picture[:, [0, -1]].min() > 250  # nothing is cut off at the sides
    with pytest.raises(ValueError, match="rows is empty"):
        plot_intervals({}, tmp_path / "no.png")


def test_learning_curves_show_every_run(tmp_path):
    pytest.importorskip("matplotlib")
    steps = [5, 10, 15]
    visualization.plot_learning_curves(
        {"dogs": [(steps, [3, 2, 1]), (steps, [3, 1, 1])]}, tmp_path / "curves.png", "distance"
    )
    with Image.open(tmp_path / "curves.png") as picture:
        assert (
            picture.width > picture.height > 300
            and len(picture.convert("RGB").getcolors(10_000)) > 3
        )
    with pytest.raises(ValueError, match="curves is empty"):
        visualization.plot_learning_curves({}, tmp_path / "none.png", "distance")
