"""Points, descriptions and heat maps drawn on photos, with Pillow alone, and plots of results, with matplotlib."""

import io
import math
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .models.coordinates import canvas_box

COLOURS = ("#e6194b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000075", "#808000")
LONGEST_STRIP = (
    3  # sides of a photo beyond this ratio are shown in part where it gets only a small place
)


def star(x, y, radius):
    """Corners of a five-pointed star."""
    angles = [math.pi * (i / 5 - 0.5) for i in range(10)]
    return [
        (x + r * math.cos(a), y + r * math.sin(a))
        for a, r in zip(angles, [radius, 0.45 * radius] * 5)
    ]


def draw_star(draw, x, y, radius, colour):
    draw.polygon(star(x, y, 1.45 * radius), fill="white")
    draw.polygon(star(x, y, radius), fill=colour)


def draw_cross(draw, x, y, radius, colour):
    for extra, width, fill in ((0.25, 0.75, "white"), (0.0, 0.35, colour)):
        r = radius * (0.75 + extra)
        for dx in (-r, r):
            draw.line(
                (x - dx, y - r, x + dx, y + r), fill=fill, width=max(2, round(radius * width))
            )


def draw_pair(draw, point, found, radius, colour):
    """A star at `point` and, where `found` is not None, a cross there and a line between them."""
    if found is not None:
        # far outside the picture Pillow's whole numbers would overflow
        reach = min(1.0, 2 * max(draw.im.size) / max(1.0, math.dist(point, found)))
        found = tuple(p + reach * (f - p) for p, f in zip(point, found))
        draw.line((*point, *found), fill="white", width=4)
        draw.line((*point, *found), fill=colour, width=2)
        draw_cross(draw, *found, radius, colour)
    draw_star(draw, *point, radius, colour)


def fonts():
    """Fonts of texts and of their titles."""
    return ImageFont.load_default(17), ImageFont.load_default(19)


def wrap(text, font, width):
    """Lines of `text` that are at most `width` pixels wide; a longer word is broken."""
    lines, line = [], ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".lstrip()
        while len(line) > 1 and font.getlength(line) > width:
            fitting = next(
                n
                for n in range(len(line) - 1, 0, -1)
                if n == 1 or font.getlength(line[:n]) <= width
            )
            lines.append(line[:fitting])
            line = line[fitting:]
    return [*lines, line]


def text_height(lines):
    return 30 + 22 * len(lines)


def draw_text(draw, left, top, title, lines, colour):
    """A star and a title in `colour`, the lines of a text below."""
    font, title_font = fonts()
    draw_star(draw, left + 10, top + 13, 10, colour)
    draw.text((left + 30, top), title, fill=colour, font=title_font)
    for number, line in enumerate(lines):
        draw.text((left + 30, top + 28 + 22 * number), line, fill="black", font=font)


def overlay_heatmap(image, heatmap, colour=(255, 60, 0), strength=0.65, size=None, window=None):
    """Blends a heat map over the photo it belongs to.

    Args:
        image (PIL RGB image)
        heatmap (array of shape (h, w)): on the square canvas of a model.
        size (`(width, height)`, *optional*): of the whole photo, of which `image` shows the `window` (left, top, right, bottom).
    """
    size = size or image.size
    side = 4 * max(heatmap.shape)
    left, top, width, height = canvas_box(*size, side)
    values = Image.fromarray(
        (255 * heatmap / max(float(heatmap.max()), 1e-12)).astype(np.uint8)
    ).resize((side, side), Image.Resampling.BICUBIC)
    x1, y1, x2, y2 = window or (0, 0, *size)
    box = (
        left + x1 * width / size[0],
        top + y1 * height / size[1],
        left + x2 * width / size[0],
        top + y2 * height / size[1],
    )
    alpha = values.resize(image.size, Image.Resampling.BICUBIC, box)
    return Image.composite(
        Image.new("RGB", image.size, colour), image, alpha.point(lambda v: int(v * strength))
    )


def strip_window(size, point, found):
    """(left, top, right, bottom) of what is shown of an image: all, or of a strip a part with `point` in it, and with `found` where both
    fit."""
    box = [0, 0, *size]
    for axis in (0, 1):
        length = LONGEST_STRIP * size[1 - axis]
        if size[axis] > length:
            middle = point[axis]
            if found is not None and abs(found[axis] - middle) < 0.9 * length:
                middle = (middle + found[axis]) / 2
            start = round(min(max(middle - length / 2, 0), size[axis] - length))
            box[axis], box[axis + 2] = start, start + length
    return box


def draw_marks(image, window, rows, side, radius):
    """A photo with its points, in a white margin in which marks at its border are seen whole.

    Args:
        image (PIL RGB image)
        window (left, top, right, bottom): what is shown of it.
        rows (list of dict): "point" and optionally "found" (x, y), "heatmap", and "colour".
        side (`int`): of the square that the photo is scaled to fit into, margin included.
        radius (`int`): of the marks.
    """
    margin, (left, top, right, bottom) = 2 * radius, window
    scale = (side - 2 * margin) / max(right - left, bottom - top)
    size = [max(1, round(v * scale)) for v in (right - left, bottom - top)]
    photo = image.resize(size, Image.Resampling.LANCZOS, window, reducing_gap=3.0)
    heatmaps = [
        row["heatmap"] / row["heatmap"].max() for row in rows if row.get("heatmap") is not None
    ]
    if heatmaps:
        photo = overlay_heatmap(photo, np.max(heatmaps, axis=0), size=image.size, window=window)
    picture = Image.new("RGB", [v + 2 * margin for v in size], "white")
    picture.paste(photo, (margin, margin))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((margin - 1, margin - 1, margin + size[0], margin + size[1]), outline="silver")
    for row in rows:
        point, found = (
            ((p[0] - left) * scale + margin, (p[1] - top) * scale + margin)
            if p is not None
            else None
            for p in (row["point"], row.get("found"))
        )
        draw_pair(draw, point, found, radius, row["colour"])
    return picture


def draw_row(row, width, decimals=0):
    """A picture of `width` pixels of a row's point, its description and where this was found."""
    x, y = row["point"]
    title = f"({x:.{decimals}f}, {y:.{decimals}f})"
    if row.get("found") is not None:
        found_x, found_y = row["found"]
        distance = math.dist(row["point"], row["found"])
        title += f"   found at ({found_x:.{decimals}f}, {found_y:.{decimals}f}), {distance:.{decimals}f} px away"
    lines = wrap(row["description"], fonts()[0], width - 60)
    picture = Image.new("RGB", (width, text_height(lines) + 14), "white")
    draw_text(ImageDraw.Draw(picture), 16, 14, title, lines, row["colour"])
    return picture


def views(image, rows):
    """(window, rows with a "colour" each) of every photo that is shown: the image, or of a strip the surroundings of one row's point."""
    if not rows:
        raise ValueError("rows is empty: there is nothing to draw")
    rows = [{**row, "colour": COLOURS[index % len(COLOURS)]} for index, row in enumerate(rows)]
    if max(image.size) <= LONGEST_STRIP * min(image.size):
        return [((0, 0, *image.size), rows)]
    return [(strip_window(image.size, row["point"], row.get("found")), [row]) for row in rows]


def decimals_of(image):
    """Decimals with which its pixels are told apart in titles."""
    return 0 if max(image.size) > 100 else 1


def draw_round_trip(image, rows, width=1280):
    """A picture of points, their descriptions and where these were found.

    Args:
        image (PIL RGB image)
        rows (list of dict): "point" (x, y), "description", and optionally "found" (x, y) and "heatmap" (array on the model's canvas).
        width (`int`): of the whole picture in pixels.
    Returns:
        PIL image: the photo with a star at each point and a cross where its description was found, the texts beside it. Of a photo
        with one side more than three times the other, each point's surroundings are shown instead.

    Raises ValueError for no rows.
    """
    photo_width, blocks = width // 2, []
    for window, some in views(image, rows):
        photo = draw_marks(image, window, some, photo_width, max(8, round(0.02 * photo_width)))
        texts = stack([draw_row(row, width - photo_width, decimals_of(image)) for row in some])
        blocks.append(Image.new("RGB", (width, max(photo.height, texts.height)), "white"))
        blocks[-1].paste(photo, ((photo_width - photo.width) // 2, 0))
        blocks[-1].paste(texts, (photo_width, 0))
    return stack(blocks)


def draw_comparison(image, round_trips, width=1280):
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
    bands = [[title_bar(name, column) for name in round_trips]]
    for group in zip(*(views(image, rows) for rows in round_trips.values())):
        bands.append(
            [
                draw_marks(image, window, some, column, max(8, round(0.02 * column)))
                for window, some in group
            ]
        )
        bands += [
            [draw_row(row, column, decimals_of(image)) for row in same]
            for same in zip(*(some for _, some in group))
        ]
    return stack([beside(pictures, column) for pictures in bands])


def title_bar(title, width):
    font = fonts()[1]
    lines = wrap(title, font, width - 32)
    picture = Image.new("RGB", (width, 14 + 24 * len(lines)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((16, 10 + 24 * number), line, fill="black", font=font)
    return picture


def beside(pictures, column):
    """Pictures next to each other, each centred in its column of `column` pixels."""
    result = Image.new(
        "RGB", (column * len(pictures), max(picture.height for picture in pictures)), "white"
    )
    for index, picture in enumerate(pictures):
        result.paste(picture, (index * column + (column - picture.width) // 2, 0))
    return result


def draw_extremes(items, width=1280):
    """A picture of single points of many images, such as the best or the worst localized ones.

    Args:
        items (list of dict): "image" (PIL RGB image), "point" (x, y), "found" (x, y) or None, both in pixels, "description" and
            "distance" (`float`): between both, in the unit of the normalised distances.
        width (`int`): of the whole picture in pixels.
    Returns:
        PIL image: row by row each item's photo, a star at its point and a cross where its description was found, the text beside it.

    Raises ValueError for no items.
    """
    if not items:
        raise ValueError("items is empty: there is nothing to draw")
    columns = max(1, width // 600)
    cell, radius, font = width // columns, 9, fonts()[0]
    side = round(0.48 * cell)
    cells = []
    for number, item in enumerate(items, start=1):
        window = strip_window(item["image"].size, item["point"], item["found"])
        photo = draw_marks(item["image"], window, [{**item, "colour": COLOURS[0]}], side, radius)
        lines = wrap(item["description"], font, cell - side - 54)
        picture = Image.new(
            "RGB", (cell, max(photo.height, text_height(lines) + 4 * radius)), "white"
        )
        picture.paste(photo, ((side - photo.width) // 2, 0))
        title = f"{number}.  " + (
            "no point found" if item["found"] is None else f"distance {item['distance']:.3f}"
        )
        draw_text(ImageDraw.Draw(picture), side + 10, 2 * radius, title, lines, COLOURS[0])
        cells.append(picture)
    return stack(
        [beside(cells[start : start + columns], cell) for start in range(0, len(cells), columns)]
    )


def stack(pictures):
    """Pictures of one width below each other."""
    result = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white"
    )
    top = 0
    for picture in pictures:
        result.paste(picture, (0, top))
        top += picture.height
    return result


def write_png(figure, path):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    # 256 colours: a third of the bytes
    Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        path, format="png", optimize=True
    )


def plot_pck_curves(curves, path):
    """Writes a PNG of the share of points found within each distance. Needs the extra "evaluation".

    Args:
        curves (`dict`): name -> (thresholds as a share of the image's sides, PCK, lower and upper end of its interval, all three in
            percent), four arrays of one length. None at all, and more than 8, which cannot be told apart, raise ValueError.
        path (`str` or `Path`)
    """
    import matplotlib
    from matplotlib.figure import Figure

    if not 1 <= len(curves) <= len(COLOURS):
        raise ValueError(f"curves must hold 1 to {len(COLOURS)} curves, got {len(curves)}")
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(7.5, 4.8 + 0.12 * len(curves)), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        for index, (name, (thresholds, values, low, high)) in enumerate(curves.items()):
            style = {"color": COLOURS[index], "linestyle": ("-", "--", "-.", ":")[index % 4]}
            axes.plot(thresholds, values, label=textwrap.fill(name, 42), linewidth=1.8, **style)
            axes.fill_between(thresholds, low, high, color=COLOURS[index], alpha=0.15, linewidth=0)
        axes.set(xlabel="threshold (share of the image's sides)", ylabel="PCK (%)", ylim=(0, 100))
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
        write_png(figure, path)


def plot_intervals(rows, path, label="mPCK"):
    """Writes a PNG of bars with intervals, in the order of `rows` from top to bottom. Needs the extra "evaluation".

    Args:
        rows (`dict`): name -> (value, lower and upper end of its interval). None at all raise ValueError.
        path (`str` or `Path`)
        label (`str`): what the values are.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("rows is empty: there is nothing to plot")
    names = [textwrap.fill(name, 40) for name in rows]
    values, low, high = np.array(list(rows.values()), dtype=float).T
    heights = [0.24 + 0.16 * (name.count("\n") + 1) for name in names]
    middles = np.cumsum(heights) - np.array(heights) / 2
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(7.5, 0.7 + sum(heights)), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        axes.barh(middles, values, height=0.24, color=COLOURS[1], alpha=0.55)
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
        axes.set(xlabel=label, ylim=(sum(heights), 0))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.spines[["top", "left", "right"]].set_visible(False)
        write_png(figure, path)


def plot_learning_curves(curves, path, label):
    """Writes a PNG of one line for each run and their mean over the training's steps. Needs the extra "evaluation".

    Args:
        curves (`dict`): name -> list of runs, each (steps, values) of the same steps. None at all raise ValueError.
        path (`str` or `Path`)
        label (`str`): what the values are.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if not curves:
        raise ValueError("curves is empty: there is nothing to plot")
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(7.5, 4.2), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        for (name, runs), colour in zip(curves.items(), COLOURS):
            for steps, values in runs:
                axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1)
            axes.plot(
                runs[0][0],
                np.mean([values for _, values in runs], 0),
                color=colour,
                linewidth=2,
                label=name,
            )
        axes.set(xlabel="step", ylabel=label)
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        write_png(figure, path)
