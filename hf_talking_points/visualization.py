"""Points, descriptions and heat maps drawn on photos, with Pillow alone, and plots of results, with matplotlib.

A star marks a described point, a cross where the localizer found its description.
"""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .files import whole_file
from .models.coordinates import canvas_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
Window = tuple[int, int, int, int]

MARK_COLORS = (
    "#e6194b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#008080",
    "#9a6324",
    "#000075",
    "#808000",
)
LINE_STYLES = ("-", "--", "-.", ":")
LONGEST_STRIP = 3  # sides of a photo beyond this ratio are shown in part where it gets only a small place
LINE_HEIGHT = 22


def star_corners(x: float, y: float, radius: float) -> list[Point]:
    """The ten corners of a five-pointed star around (x, y), in pixels."""
    corners = []
    for number in range(10):
        angle = math.pi * (number / 5 - 0.5)
        reach = radius if number % 2 == 0 else 0.45 * radius
        corners.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    return corners


def draw_star(
    draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: str
) -> None:
    """Draws a star with a white rim."""
    draw.polygon(star_corners(x, y, 1.45 * radius), fill="white")
    draw.polygon(star_corners(x, y, radius), fill=color)


def draw_cross(
    draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: str
) -> None:
    """Draws a diagonal cross with a white rim."""
    draw_diagonals(draw, x, y, radius, 0.75 * radius, "white")
    draw_diagonals(draw, x, y, 0.75 * radius, 0.35 * radius, color)


def draw_diagonals(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    reach: float,
    width: float,
    color: str,
) -> None:
    """Draws the two diagonals of the square that reaches `reach` pixels from (x, y)."""
    width = max(2, round(width))
    draw.line((x - reach, y - reach, x + reach, y + reach), fill=color, width=width)
    draw.line((x - reach, y + reach, x + reach, y - reach), fill=color, width=width)


def draw_pair(
    draw: ImageDraw.ImageDraw,
    point: Point,
    found: Point | None,
    radius: float,
    color: str,
) -> None:
    """Draws a star at `point` and, where `found` is not None, a cross there and a line between them."""
    if found is not None:
        # far outside the picture Pillow's whole numbers would overflow
        longest_line = 2 * max(draw.im.size)
        share = min(1.0, longest_line / max(1.0, math.dist(point, found)))
        end_x = point[0] + share * (found[0] - point[0])
        end_y = point[1] + share * (found[1] - point[1])
        draw.line((*point, end_x, end_y), fill="white", width=4)
        draw.line((*point, end_x, end_y), fill=color, width=2)
        draw_cross(draw, end_x, end_y, radius, color)
    draw_star(draw, *point, radius, color)


def text_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of descriptions."""
    return ImageFont.load_default(17)


def title_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of titles."""
    return ImageFont.load_default(19)


def wrap(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float
) -> list[str]:
    """Lines of `text` that are at most `width` pixels wide; a longer word is broken."""
    lines = []
    line = ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".lstrip()
        while len(line) > 1 and font.getlength(line) > width:
            fitting = len(line) - 1
            while fitting > 1 and font.getlength(line[:fitting]) > width:
                fitting -= 1
            lines.append(line[:fitting])
            line = line[fitting:]
    lines.append(line)
    return lines


def text_height(lines: Sequence[str]) -> int:
    """Pixels that [`draw_text`] needs."""
    return 30 + LINE_HEIGHT * len(lines)


def draw_text(
    draw: ImageDraw.ImageDraw,
    left: int,
    top: int,
    title: str,
    lines: Sequence[str],
    color: str,
) -> None:
    """Draws a star and a title in `color`, the lines of a text below."""
    draw_star(draw, left + 10, top + 13, 10, color)
    draw.text((left + 30, top), title, fill=color, font=title_font())
    for number, line in enumerate(lines):
        position = (left + 30, top + 28 + LINE_HEIGHT * number)
        draw.text(position, line, fill="black", font=text_font())


def overlay_heatmap(
    image: Image.Image,
    heatmap: np.ndarray,
    color: tuple[int, int, int] = (255, 60, 0),
    strength: float = 0.65,
    size: tuple[int, int] | None = None,
    window: Window | None = None,
) -> Image.Image:
    """Blends a heat map over the photo it belongs to.

    Args:
        image (PIL RGB image)
        heatmap (array of shape `(height, width)`): on the square canvas of a model.
        size (`(width, height)`, *optional*): of the whole photo, of which `image` shows the `window` (left, top,
            right, bottom).
    """
    image_width, image_height = size or image.size
    shown_left, shown_top, shown_right, shown_bottom = window or (
        0,
        0,
        image_width,
        image_height,
    )
    side = 4 * max(heatmap.shape)
    shares = heatmap / max(float(heatmap.max()), 1e-12)
    canvas = Image.fromarray((255 * shares).astype(np.uint8))
    canvas = canvas.resize((side, side), Image.Resampling.BICUBIC)

    left, top, width, height = canvas_box(image_width, image_height, side)
    scale_x = width / image_width
    scale_y = height / image_height
    box = (
        left + shown_left * scale_x,
        top + shown_top * scale_y,
        left + shown_right * scale_x,
        top + shown_bottom * scale_y,
    )
    alpha = canvas.resize(image.size, Image.Resampling.BICUBIC, box)
    alpha = alpha.point(lambda value: int(value * strength))
    return Image.composite(Image.new("RGB", image.size, color), image, alpha)


def strip_window(size: tuple[int, int], point: Point, found: Point | None) -> Window:
    """(left, top, right, bottom) of what is shown of an image: all, or of a strip a part with `point` in it, and with
    `found` where both fit."""
    starts = [0, 0]
    ends = list(size)
    for axis in (0, 1):
        length = LONGEST_STRIP * size[1 - axis]
        if size[axis] <= length:
            continue
        middle = point[axis]
        if found is not None and abs(found[axis] - middle) < 0.9 * length:
            middle = (middle + found[axis]) / 2
        start = min(max(middle - length / 2, 0), size[axis] - length)
        starts[axis] = round(start)
        ends[axis] = starts[axis] + length
    return starts[0], starts[1], ends[0], ends[1]


def draw_marks(
    image: Image.Image,
    window: Window,
    rows: Sequence[Mapping[str, Any]],
    side: int,
    radius: int,
) -> Image.Image:
    """A photo with its points, in a white margin in which marks at its border are seen whole.

    Args:
        image (PIL RGB image)
        window (left, top, right, bottom): what is shown of it.
        rows (list of dict): "point" and optionally "found" (x, y), "heatmap", and "color".
        side (`int`): of the square that the photo is scaled to fit into, margin included.
        radius (`int`): of the marks.
    """
    left, top, right, bottom = window
    margin = 2 * radius
    scale = (side - 2 * margin) / max(right - left, bottom - top)
    width = max(1, round((right - left) * scale))
    height = max(1, round((bottom - top) * scale))
    photo = image.resize(
        (width, height), Image.Resampling.LANCZOS, window, reducing_gap=3.0
    )
    heatmaps = [row["heatmap"] for row in rows if row.get("heatmap") is not None]
    if heatmaps:
        brightest = np.max([heatmap / heatmap.max() for heatmap in heatmaps], axis=0)
        photo = overlay_heatmap(photo, brightest, size=image.size, window=window)
    picture = Image.new("RGB", (width + 2 * margin, height + 2 * margin), "white")
    picture.paste(photo, (margin, margin))
    draw = ImageDraw.Draw(picture)
    draw.rectangle(
        (margin - 1, margin - 1, margin + width, margin + height), outline="silver"
    )

    def on_picture(point: Point) -> Point:
        return (point[0] - left) * scale + margin, (point[1] - top) * scale + margin

    for row in rows:
        found = row.get("found")
        cross = None if found is None else on_picture(found)
        draw_pair(draw, on_picture(row["point"]), cross, radius, row["color"])
    return picture


def draw_row(row: Mapping[str, Any], width: int, decimals: int = 0) -> Image.Image:
    """A picture of `width` pixels of a row's point, its description and where this was found."""
    x, y = row["point"]
    title = f"({x:.{decimals}f}, {y:.{decimals}f})"
    if row.get("found") is not None:
        found_x, found_y = row["found"]
        distance = math.dist(row["point"], row["found"])
        title += f"   found at ({found_x:.{decimals}f}, {found_y:.{decimals}f})"
        title += f", {distance:.{decimals}f} px away"
    lines = wrap(row["description"], text_font(), width - 60)
    picture = Image.new("RGB", (width, text_height(lines) + 14), "white")
    draw_text(ImageDraw.Draw(picture), 16, 14, title, lines, row["color"])
    return picture


def visible_windows(
    image: Image.Image, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[Window, list[dict[str, Any]]]]:
    """(window, rows with a "color" each) of all that is shown: the image, or of a strip the surroundings of each row's
    point.

    Raises ValueError for no rows.
    """
    if not rows:
        raise ValueError("rows is empty: there is nothing to draw")
    colored = []
    for index, row in enumerate(rows):
        colored.append({**row, "color": MARK_COLORS[index % len(MARK_COLORS)]})
    if max(image.size) <= LONGEST_STRIP * min(image.size):
        return [((0, 0, *image.size), colored)]
    return [
        (strip_window(image.size, row["point"], row.get("found")), [row])
        for row in colored
    ]


def decimals_of(image: Image.Image) -> int:
    """Decimals with which its pixels are told apart in titles."""
    return 0 if max(image.size) > 100 else 1


def mark_radius(width: int) -> int:
    """Radius of the marks on a photo of `width` pixels."""
    return max(8, round(0.02 * width))


def draw_round_trip(
    image: Image.Image, rows: Sequence[Mapping[str, Any]], width: int = 1280
) -> Image.Image:
    """A picture of points, their descriptions and where these were found.

    Args:
        image (PIL RGB image)
        rows (list of dict): "point" (x, y), "description", and optionally "found" (x, y) and "heatmap" (array on the
            model's canvas).
        width (`int`): of the whole picture in pixels.
    Returns:
        PIL image: the photo with a star at each point and a cross where its description was found, the texts beside
        it. Of a photo with one side more than three times the other, each point's surroundings are shown instead.

    Raises ValueError for no rows.
    """
    photo_width = width // 2
    text_width = width - photo_width
    blocks = []
    for window, shown_rows in visible_windows(image, rows):
        photo = draw_marks(
            image, window, shown_rows, photo_width, mark_radius(photo_width)
        )
        texts = stack(
            [draw_row(row, text_width, decimals_of(image)) for row in shown_rows]
        )
        block = Image.new("RGB", (width, max(photo.height, texts.height)), "white")
        block.paste(photo, ((photo_width - photo.width) // 2, 0))
        block.paste(texts, (photo_width, 0))
        blocks.append(block)
    return stack(blocks)


def draw_comparison(
    image: Image.Image,
    round_trips: Mapping[str, Sequence[Mapping[str, Any]]],
    width: int = 1280,
) -> Image.Image:
    """A picture of round trips of the same points side by side, such as those of two checkpoints.

    Args:
        image (PIL RGB image)
        round_trips (`dict`): name -> rows as for [`draw_round_trip`]; the same number for each name.
        width (`int`): of the whole picture in pixels.
    Returns:
        PIL image: a column for each name, with the photo and its marks above the texts.

    Raises ValueError for no round trips, none with rows, or unequal numbers of rows.
    """
    counts = {name: len(rows) for name, rows in round_trips.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(
            f"round_trips must hold the same number of rows for each name, got {counts}"
        )
    column = width // len(round_trips)
    bands = [beside([title_bar(name, column) for name in round_trips], column)]
    windows_of_names = [visible_windows(image, rows) for rows in round_trips.values()]
    for number in range(len(windows_of_names[0])):
        shown = [windows[number] for windows in windows_of_names]
        radius = mark_radius(column)
        photos = [
            draw_marks(image, window, rows, column, radius) for window, rows in shown
        ]
        bands.append(beside(photos, column))
        for index in range(len(shown[0][1])):
            texts = [
                draw_row(rows[index], column, decimals_of(image)) for _, rows in shown
            ]
            bands.append(beside(texts, column))
    return stack(bands)


def title_bar(title: str, width: int) -> Image.Image:
    """A picture of `width` pixels of a title."""
    font = title_font()
    lines = wrap(title, font, width - 32)
    picture = Image.new("RGB", (width, 14 + 24 * len(lines)), "white")
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((16, 10 + 24 * number), line, fill="black", font=font)
    return picture


def beside(pictures: Sequence[Image.Image], column: int) -> Image.Image:
    """Pictures next to each other, each centered in its column of `column` pixels."""
    height = max(picture.height for picture in pictures)
    result = Image.new("RGB", (column * len(pictures), height), "white")
    for index, picture in enumerate(pictures):
        left = index * column + (column - picture.width) // 2
        result.paste(picture, (left, 0))
    return result


def draw_extremes(items: Sequence[Mapping[str, Any]], width: int = 1280) -> Image.Image:
    """A picture of single points of many images, such as the best or the worst localized ones.

    Args:
        items (list of dict): "image" (PIL RGB image), "point" (x, y), "found" (x, y) or None, both in pixels,
            "description" and "distance" (`float`): between both, in the unit of the normalized distances.
        width (`int`): of the whole picture in pixels.
    Returns:
        PIL image: row by row each item's photo, a star at its point and a cross where its description was found, the
        text beside it.

    Raises ValueError for no items.
    """
    if not items:
        raise ValueError("items is empty: there is nothing to draw")
    columns = max(1, width // 600)
    column = width // columns
    cells = [
        draw_extreme(number, item, column) for number, item in enumerate(items, start=1)
    ]
    bands = []
    for start in range(0, len(cells), columns):
        bands.append(beside(cells[start : start + columns], column))
    return stack(bands)


def draw_extreme(number: int, item: Mapping[str, Any], width: int) -> Image.Image:
    """One item of [`draw_extremes`]: its photo on the left, its text on the right."""
    radius = 9
    color = MARK_COLORS[0]
    photo_width = round(0.48 * width)
    window = strip_window(item["image"].size, item["point"], item["found"])
    photo = draw_marks(
        item["image"], window, [{**item, "color": color}], photo_width, radius
    )
    lines = wrap(item["description"], text_font(), width - photo_width - 54)
    height = max(photo.height, text_height(lines) + 4 * radius)
    picture = Image.new("RGB", (width, height), "white")
    picture.paste(photo, ((photo_width - photo.width) // 2, 0))
    outcome = (
        "no point found"
        if item["found"] is None
        else f"distance {item['distance']:.3f}"
    )
    draw = ImageDraw.Draw(picture)
    draw_text(draw, photo_width + 10, 2 * radius, f"{number}.  {outcome}", lines, color)
    return picture


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures below each other, as wide as the widest."""
    width = max(picture.width for picture in pictures)
    height = sum(picture.height for picture in pictures)
    result = Image.new("RGB", (width, height), "white")
    top = 0
    for picture in pictures:
        result.paste(picture, (0, top))
        top += picture.height
    return result


@contextmanager
def plot(path: str | os.PathLike, width: float, height: float) -> Iterator[Axes]:
    """The axes of a figure that is written as PNG at the end. Needs the extra "evaluation"."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        yield axes
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    # 256 colors: a third of the bytes
    picture = Image.open(buffer).convert("RGB")
    picture = picture.quantize(256, dither=Image.Dither.NONE)
    with whole_file(path) as file:
        picture.save(file, format="png", optimize=True)


def plot_pck_curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    path: str | os.PathLike,
) -> None:
    """Writes a PNG of the share of points found within each distance. Needs the extra "evaluation".

    Args:
        curves (`dict`): name -> (thresholds as a share of the image's sides, PCK, lower and upper end of its interval,
            all three in percent), four arrays of one length. None at all, and more than 8, which cannot be told apart,
            raise ValueError.
        path (`str` or `Path`)
    """
    if not 1 <= len(curves) <= len(MARK_COLORS):
        raise ValueError(
            f"curves must hold 1 to {len(MARK_COLORS)} curves, got {len(curves)}"
        )
    with plot(path, 7.5, 4.8 + 0.12 * len(curves)) as axes:
        for index, (name, (thresholds, values, low, high)) in enumerate(curves.items()):
            color = MARK_COLORS[index]
            style = LINE_STYLES[index % len(LINE_STYLES)]
            label = textwrap.fill(name, 42)
            axes.plot(
                thresholds,
                values,
                label=label,
                linewidth=1.8,
                color=color,
                linestyle=style,
            )
            axes.fill_between(
                thresholds, low, high, color=color, alpha=0.15, linewidth=0
            )
        axes.set(
            xlabel="threshold (share of the image's sides)",
            ylabel="PCK (%)",
            ylim=(0, 100),
        )
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        axes.figure.legend(
            loc="outside lower center", ncols=2, fontsize=9, frameon=False
        )


def plot_intervals(
    rows: Mapping[str, tuple[float, float, float]],
    path: str | os.PathLike,
    label: str = "mPCK",
) -> None:
    """Writes a PNG of bars with intervals, in the order of `rows` from top to bottom. Needs the extra "evaluation".

    Args:
        rows (`dict`): name -> (value, lower and upper end of its interval). None at all raise ValueError.
        path (`str` or `Path`)
        label (`str`): what the values are.
    """
    if not rows:
        raise ValueError("rows is empty: there is nothing to plot")
    names = [textwrap.fill(name, 40) for name in rows]
    values, low, high = np.array(list(rows.values()), dtype=float).T
    heights = np.array([0.4 + 0.16 * name.count("\n") for name in names])
    middles = np.cumsum(heights) - heights / 2
    with plot(path, 7.5, 0.7 + heights.sum()) as axes:
        axes.barh(middles, values, height=0.24, color=MARK_COLORS[1], alpha=0.55)
        axes.errorbar(
            (low + high) / 2,
            middles,
            xerr=(high - low) / 2,
            fmt="none",
            ecolor="black",
            elinewidth=1.2,
            capsize=3,
        )
        for value, start, end, middle in zip(values, low, high, middles):
            axes.annotate(
                f"{value:.1f}  [{start:.1f}, {end:.1f}]",
                (max(end, 0), middle),
                (7, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.set_yticks(middles, names, fontsize=9)
        axes.set(xlabel=label, ylim=(heights.sum(), 0))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.spines["left"].set_visible(False)


def plot_learning_curves(
    curves: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]],
    path: str | os.PathLike,
    label: str,
) -> None:
    """Writes a PNG of one line for each run and their mean over the training's steps. Needs the extra "evaluation".

    Args:
        curves (`dict`): name -> list of runs, each (steps, values) of the same steps. None at all raise ValueError.
        path (`str` or `Path`)
        label (`str`): what the values are.
    """
    if not curves:
        raise ValueError("curves is empty: there is nothing to plot")
    with plot(path, 7.5, 4.2) as axes:
        for (name, runs), color in zip(curves.items(), MARK_COLORS):
            for steps, values in runs:
                axes.plot(steps, values, color=color, alpha=0.3, linewidth=1)
            steps = runs[0][0]
            mean = np.mean([values for _, values in runs], axis=0)
            axes.plot(steps, mean, color=color, linewidth=2, label=name)
        axes.set(xlabel="step", ylabel=label)
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)


def plot_reliability(
    answers: Mapping[str, tuple[Sequence[float], Sequence[bool]]],
    path: str | os.PathLike,
    bins: int = 10,
) -> None:
    """Writes a PNG of the share of points found against the confidence in them. Needs the extra "evaluation".

    Args:
        answers (`dict`): name -> (confidences in [0, 1], whether each point was found). None at all, and more than 8,
            which cannot be told apart, raise ValueError.
        path (`str` or `Path`)
        bins (`int`): of equal width; the dots stand at the mean confidence of the answers of each, and are as large as
            there are many.
    """
    if not 1 <= len(answers) <= len(MARK_COLORS):
        raise ValueError(
            f"answers must hold 1 to {len(MARK_COLORS)} entries, got {len(answers)}"
        )
    with plot(path, 6, 5.6) as axes:
        axes.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle=":")
        for (name, (confidences, hits)), color in zip(answers.items(), MARK_COLORS):
            confidence = np.asarray(confidences, dtype=float)
            is_hit = np.asarray(hits, dtype=float)
            number = np.minimum((confidence * bins).astype(int), bins - 1)
            filled = np.unique(number)
            x = [confidence[number == one].mean() for one in filled]
            y = [is_hit[number == one].mean() for one in filled]
            size = [300 * np.mean(number == one) for one in filled]
            axes.plot(x, y, color=color, linewidth=1.2)
            axes.scatter(x, y, s=size, color=color, alpha=0.6, label=name)
        axes.set(
            xlabel="confidence",
            ylabel="share found within 0.1",
            xlim=(0, 1),
            ylim=(0, 1),
        )
        axes.grid(alpha=0.3)
        axes.figure.legend(
            loc="outside lower center", ncols=2, fontsize=9, frameon=False
        )
