"""Pictures: marks lie on their points, whatever the size and brightness of the photo."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from hf_talking_points import visualization
from hf_talking_points.visualization import (
    MARK_COLORS,
    draw_comparison,
    draw_extremes,
    draw_round_trip,
    overlay_heatmap,
    plot_intervals,
    plot_learning_curves,
    plot_pck_curves,
    plot_reliability,
    stack,
    strip_window,
    text_font,
    wrap,
)

RED = (0xE6, 0x19, 0x4B)
WHITE = (255, 255, 255)
LIME = (0, 255, 0)
TEXT = "A small dog. " * 9


def row(point, found=None, description=TEXT):
    return {"point": point, "description": description, "found": found, "heatmap": None}


def item(size, point, found, color="gray"):
    return {
        "image": Image.new("RGB", size, color),
        "point": point,
        "found": found,
        "description": TEXT,
        "distance": 0.25,
    }


def pixels_of(image):
    return np.asarray(image).astype(int)


def is_colored(pixels, color):
    return np.abs(pixels - color).max(-1) < 12


def count_near(picture, x, y, color, reach=9):
    """How many pixels around (x, y) have this color."""
    left = max(0, round(x) - reach)
    top = max(0, round(y) - reach)
    patch = picture.crop((left, top, round(x) + reach, round(y) + reach))
    return is_colored(pixels_of(patch), color).sum()


def shown_at(size, point, column=640, radius=13):
    """Where a point of an image of `size` lies in the square of `column` pixels that it is fitted into."""
    scale = (column - 4 * radius) / max(size)
    left = (column - size[0] * scale) / 2
    top = 2 * radius
    return left + point[0] * scale, top + point[1] * scale


@pytest.mark.parametrize("color", ["black", "white", "red"])
@pytest.mark.parametrize("size", [(1, 1), (100, 60), (300, 900), (4000, 3000)])
@pytest.mark.parametrize("place", [(0.3, 0.7), (0, 0), (1, 1)])
def test_star_and_cross_are_seen_up_to_the_border(size, color, place):
    width, height = size
    point = (place[0] * width, place[1] * height)
    found = (0.6 * width, 0.4 * height)
    picture = draw_round_trip(Image.new("RGB", size, color), [row(point, found)])
    for mark in (point, found):
        x, y = shown_at(size, mark)
        assert count_near(picture, x, y, RED) > 60
        assert count_near(picture, x, y, WHITE, reach=16) > 60


def test_a_panorama_is_shown_around_each_point():
    photo = Image.new("RGB", (20000, 200), "black")
    photo.paste("lime", (11990, 0, 12010, 200))
    rows = [
        row((12000, 100)),
        row((19990, 10), (19800, 150)),
        row((0, 200), (20000, 0)),
    ]
    picture = draw_round_trip(photo, rows)
    assert picture.size == (1280, 3 * 248)
    stars = [(320, 124), (614 - 10 * 0.98, 36), (26, 222)]
    for index, (x, y) in enumerate(stars):
        code = MARK_COLORS[index]
        color = [int(code[start : start + 2], 16) for start in (1, 3, 5)]
        assert count_near(picture, x, 248 * index + y, color) > 60
    # what lies at the first point, in its own proportions
    assert count_near(picture, 320, 60, LIME) > 100


def test_an_upright_strip_is_shown_around_each_point():
    photo = Image.new("RGB", (200, 20000), "black")
    picture = draw_round_trip(photo, [row((100, 12000)), row((10, 19990))])
    assert picture.size == (1280, 2 * 640)
    assert count_near(picture, 320, 320, RED) > 60


@pytest.mark.parametrize(
    "size, title",
    [
        ((40, 30), "(3.2, 4.0)   found at (6.2, 8.0), 5.0 px away"),
        ((400, 300), "(3, 4)   found at (6, 8), 5 px away"),
    ],
)
def test_pixels_of_small_photos_have_decimals(monkeypatch, size, title):
    titles = []

    def record(draw, left, top, title, lines, color):
        titles.append(title)

    monkeypatch.setattr(visualization, "draw_text", record)
    draw_round_trip(Image.new("RGB", size), [row((3.25, 4), (6.25, 8))])
    assert titles == [title]


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="rows is empty"):
        draw_round_trip(Image.new("RGB", (40, 30)), [])


def halves_of_a_comparison(size, left_rows, right_rows):
    photo = Image.new("RGB", size, "black")
    picture = draw_comparison(photo, {"name": left_rows, "name ": right_rows})
    assert picture.width == 1280
    pixels = pixels_of(picture)
    return pixels[:, :640], pixels[:, 640:]


@pytest.mark.parametrize("size", [(90, 60), (6000, 60)])
def test_round_trips_are_compared_side_by_side(size):
    width, height = size
    point = (0.5 * width, 0.5 * height)
    found = (0.5 * width - 20, 0.8 * height)
    rows = [row(point, found), row(found)]

    left, right = halves_of_a_comparison(size, rows, rows)
    assert (left == right).all()
    assert is_colored(left, RED).sum() > 100

    wordy_rows = [row(point, found, "Many words. " * 40), row(found)]
    left, right = halves_of_a_comparison(size, wordy_rows, rows)
    assert (left != right).any()
    assert (left[-60:] == right[-60:]).all()  # the texts of a point are at one height


@pytest.mark.parametrize("round_trips", [{}, {"a": [row((1, 2))], "b": []}])
def test_comparisons_need_as_many_rows_each(round_trips):
    with pytest.raises(ValueError, match="same number of rows"):
        draw_comparison(Image.new("RGB", (40, 30)), round_trips)


def test_comparisons_need_rows():
    with pytest.raises(ValueError, match="rows is empty"):
        draw_comparison(Image.new("RGB", (40, 30)), {"a": [], "b": []})


@pytest.mark.parametrize("width", [400, 1280])
def test_texts_end_within_the_picture(width):
    photo = Image.new("RGB", (80, 60), "gray")
    picture = draw_round_trip(photo, [row((40, 30))], width=width)
    lightness = pixels_of(picture.convert("L"))
    assert (lightness[:, -6:] == 255).all()
    assert (lightness[:, width // 2 + 46 :] < 128).any()


def test_heat_lies_on_the_image_and_not_on_its_padding():
    heatmap = np.zeros((32, 32), dtype=np.float32)
    # a quarter of the width and half of the height of a wide image
    heatmap[16, 8] = 1.0
    blended = pixels_of(overlay_heatmap(Image.new("RGB", (200, 100), "white"), heatmap))
    hottest = (255 - blended[..., 2]).argmax()
    y, x = np.unravel_index(hottest, (100, 200))
    assert abs(x - 53) <= 3
    assert abs(y - 53) <= 3
    assert (blended[:, 120:] == 255).all()


def test_heat_of_a_part_is_the_part_of_the_heat():
    heatmap = np.random.default_rng(0).uniform(0, 1, (16, 16)).astype(np.float32)
    window = (150, 10, 250, 60)
    whole = overlay_heatmap(Image.new("RGB", (400, 100), "white"), heatmap)
    patch = Image.new("RGB", (100, 50), "white")
    part = overlay_heatmap(patch, heatmap, size=(400, 100), window=window)
    difference = pixels_of(whole.crop(window)) - pixels_of(part)
    assert np.abs(difference).max() <= 2


def test_pictures_are_stacked():
    result = stack([Image.new("RGB", (5, 3), "red"), Image.new("RGB", (7, 2), "blue")])
    assert result.size == (7, 5)
    assert result.getpixel((0, 4)) == (0, 0, 255)


@pytest.mark.parametrize("color", ["black", "white", "red"])
@pytest.mark.parametrize("size", [(100, 60), (4000, 2400)])
@pytest.mark.parametrize("place", [(0.25, 0.25), (0, 0), (1, 1), (0, 1)])
def test_extremes_show_both_points_up_to_the_border(size, color, place):
    width, height = size
    point = (place[0] * width, place[1] * height)
    found = (0.7 * width, 0.5 * height)
    picture = draw_extremes([item(size, point, found, color)])
    scale = 271 / width
    for x, y in (point, found):
        assert count_near(picture, x * scale + 18, y * scale + 18, RED) > 40
        assert count_near(picture, x * scale + 18, y * scale + 18, WHITE) > 20


@pytest.mark.parametrize("width, columns", [(500, 1), (1280, 2), (1800, 3)])
def test_extremes_fill_rows(width, columns):
    example = item((90, 60), (9, 9), (30, 30))
    single = draw_extremes([example], width)
    picture = draw_extremes([example] * (columns + 1), width)
    assert picture.size == (width, 2 * single.height)
    assert (pixels_of(picture)[:, -6:] == 255).all()


def test_no_extremes_is_an_error():
    with pytest.raises(ValueError, match="items is empty"):
        draw_extremes([])


@pytest.mark.parametrize("found", [(150, -60), (-1e15, 1e15), (3e9, 30), (90, 60)])
def test_points_found_outside_are_led_to(found):
    point = (45, 30)
    picture = draw_extremes([item((90, 60), point, found, "black")])
    without_found = draw_extremes([item((90, 60), point, None, "black")])
    assert picture.size == without_found.size
    changed = (pixels_of(picture) != pixels_of(without_found)).any(-1)
    on_photo = changed[:, :307]
    rows, columns = np.nonzero(on_photo)
    assert len(rows) > 200
    assert np.hypot(rows - 108, columns - 153).max() > 100


@pytest.mark.parametrize(
    "size, point, found, window",
    [
        ((300, 100), (0, 0), (300, 100), (0, 0, 300, 100)),
        ((4000, 100), (2000, 50), None, (1850, 0, 2150, 100)),
        ((4000, 100), (2000, 50), (2200, 3), (1950, 0, 2250, 100)),
        ((4000, 100), (2000, 50), (3900, 3), (1850, 0, 2150, 100)),
        ((10, 4000), (3, 3999), (2, -700), (0, 3970, 10, 4000)),
    ],
)
def test_a_strip_is_shown_around_its_points(size, point, found, window):
    assert strip_window(size, point, found) == window


def test_an_extreme_strip_keeps_its_proportions():
    picture = draw_extremes([item((100, 4000), (50, 3990), (50, 3800), "black")])
    is_dark = (pixels_of(picture)[:, :300] == 0).all(-1)
    dark = np.argwhere(is_dark)
    height, width = dark.max(0) - dark.min(0)
    assert abs(height - 271) < 3
    assert abs(width - 90) < 3


@given(st.text(), st.integers(20, 400))
def test_wrapped_lines_keep_every_letter_and_the_width(text, width):
    font = text_font()
    lines = wrap(text, font, width)
    written = "".join("".join(lines).split())
    assert written == "".join(text.split())
    for line in lines:
        assert len(line) <= 1 or font.getlength(line) <= width


@pytest.fixture
def figures(monkeypatch):
    """The figures that are written in the test."""
    written = []
    savefig = Figure.savefig

    def record(figure, *args, **kwargs):
        written.append(figure)
        return savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record)
    return written


def on_one_line(texts):
    return [text.get_text().replace("\n", " ") for text in texts]


def test_curves_are_drawn_with_their_bands(tmp_path, figures):
    thresholds = np.linspace(0, 0.3, 61)
    curves = {}
    for number in range(8):
        values = 100 * (1 - np.exp(-thresholds * (2 + 3 * number)))
        name = f"system $x_{number}$ with a name that goes on and on beyond one line"
        curves[name] = (thresholds, values, values - 5, values + 5)
    path = tmp_path / "pck.png"
    plot_pck_curves(curves, path)

    [axes] = figures[0].axes
    assert len(axes.lines) == len(axes.collections) == 8
    for line, (_, values, _, _) in zip(axes.lines, curves.values()):
        assert np.array_equal(line.get_xdata(), thresholds)
        assert np.array_equal(line.get_ydata(), values)
    assert axes.get_xlim() == (0, 0.3)
    assert axes.get_ylim() == (0, 100)
    assert on_one_line(figures[0].legends[0].get_texts()) == list(curves)
    assert path.stat().st_size <= 150_000
    assert Image.open(path).format == "PNG"


@pytest.mark.parametrize("number", [0, 9])
def test_curves_that_cannot_be_told_apart_are_an_error(tmp_path, number):
    thresholds = np.linspace(0, 0.3, 61)
    curves = {str(index): [thresholds] * 4 for index in range(number)}
    with pytest.raises(ValueError, match=f"got {number}"):
        plot_pck_curves(curves, tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_intervals_keep_their_order_and_say_their_values(tmp_path, figures):
    rows = {
        "text": (78.13, 76.0, 80.2),
        "a name that is so long that it takes more than one line $or$ two": (
            -3.0,
            -5.0,
            2.0,
        ),
        "all": (100.0, 100.0 + 1e-13, 100.0 + 1e-13),
    }
    plot_intervals(rows, tmp_path / "intervals.png", label="PCK@0.1")

    [axes] = figures[0].axes
    assert axes.get_xlabel() == "PCK@0.1"
    assert on_one_line(axes.get_yticklabels()) == list(rows)
    assert [patch.get_width() for patch in axes.patches] == [78.13, -3.0, 100.0]
    heights = [axes.transData.transform((0, y))[1] for y in axes.get_yticks()]
    assert heights == sorted(heights, reverse=True)
    values = [text.get_text() for text in axes.texts]
    assert values[:2] == ["78.1  [76.0, 80.2]", "-3.0  [-5.0, 2.0]"]
    text_bar, long_bar, _ = axes.collections[0].get_segments()
    assert text_bar[:, 0].tolist() == pytest.approx([76.0, 80.2])
    assert long_bar[:, 0].tolist() == pytest.approx([-5.0, 2.0])
    picture = pixels_of(Image.open(tmp_path / "intervals.png").convert("L"))
    assert picture[:, [0, -1]].min() > 250  # nothing is cut off at the sides


def test_no_intervals_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="rows is empty"):
        plot_intervals({}, tmp_path / "no.png")


def test_learning_curves_show_every_run(tmp_path):
    steps = [5, 10, 15]
    runs = [(steps, [3, 2, 1]), (steps, [3, 1, 1])]
    plot_learning_curves({"dogs": runs}, tmp_path / "curves.png", "distance")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height > 300
        assert len(picture.convert("RGB").getcolors(10_000)) > 3


def test_no_learning_curves_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="curves is empty"):
        plot_learning_curves({}, tmp_path / "none.png", "distance")


def test_reliability_shows_the_share_of_hits_over_the_confidence(tmp_path, figures):
    confidence = [0.05, 0.05, 0.95, 0.95, 1.0, 0.95]
    hits = [False, False, True, True, True, False]
    plot_reliability({"short": (confidence, hits)}, tmp_path / "reliability.png")
    [axes] = figures[0].axes
    _, line = axes.lines
    assert line.get_xdata() == pytest.approx([0.05, 0.9625])
    assert line.get_ydata() == pytest.approx([0, 0.75])
    assert (tmp_path / "reliability.png").is_file()


@pytest.mark.parametrize("count", [0, 9])
def test_too_few_or_many_reliability_curves(tmp_path, count):
    answers = {str(number): ([0.5], [True]) for number in range(count)}
    with pytest.raises(ValueError, match=f"1 to 8 entries, got {count}"):
        plot_reliability(answers, tmp_path / "none.png")
