"""Points, descriptions and heat maps drawn on photos, with Pillow alone."""

import math
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .models.coordinates import canvas_box

COLOURS = ("#e6194b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000075", "#808000")


def star(x, y, radius):
    """Corners of a five-pointed star."""
    angles = [math.pi * (i / 5 - 0.5) for i in range(10)]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for a, r in zip(angles, [radius, 0.45 * radius] * 5)]


def draw_star(draw, x, y, radius, colour):
    draw.polygon(star(x, y, 1.45 * radius), fill="white")
    draw.polygon(star(x, y, radius), fill=colour)


def draw_cross(draw, x, y, radius, colour):
    for extra, width, fill in ((0.25, 0.75, "white"), (0.0, 0.35, colour)):
        r = radius * (0.75 + extra)
        for dx in (-r, r):
            draw.line((x - dx, y - r, x + dx, y + r), fill=fill, width=max(2, round(radius * width)))


def overlay_heatmap(image, heatmap, colour=(255, 60, 0), strength=0.65):
    """Blends a heat map on the square canvas of a model (array of shape (h, w)) over the image it belongs to."""
    side = 4 * max(heatmap.shape)
    left, top, width, height = canvas_box(*image.size, side)
    values = Image.fromarray((255 * heatmap / max(float(heatmap.max()), 1e-12)).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    alpha = values.crop((left, top, left + width, top + height)).resize(image.size, Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", image.size, colour), image, alpha.point(lambda v: int(v * strength)))


def draw_round_trip(image, rows, width=1280):
    """A picture of points, their descriptions and where these were found.

    Args:
        image (PIL RGB image)
        rows (list of dict): "point" (x, y), "description", and optionally "found" (x, y) and "heatmap".
        width (`int`): of the whole picture in pixels.
    Returns:
        PIL image: the photo with a star at each point and a cross where its description was found, the texts beside it.
    """
    photo_width = width // 2
    scale = photo_width / image.width
    photo = image.resize((photo_width, max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
    heatmaps = [row["heatmap"] / row["heatmap"].max() for row in rows if row.get("heatmap") is not None]
    if heatmaps:
        photo = overlay_heatmap(photo, np.max(heatmaps, axis=0))
    font, bold = ImageFont.load_default(17), ImageFont.load_default(19)
    blocks, texts_height = [], 14
    for row in rows:
        lines = textwrap.wrap(row["description"], max(8, int((width - photo_width - 60) / font.getlength("e"))))
        blocks.append((texts_height, lines))
        texts_height += 30 + 22 * len(lines) + 14
    picture = Image.new("RGB", (width, max(photo.height, texts_height)), "white")
    picture.paste(photo, (0, 0))
    draw = ImageDraw.Draw(picture)
    radius = 0.02 * photo_width
    for row, colour in zip(rows, (COLOURS[i % len(COLOURS)] for i in range(len(rows)))):
        x, y = (v * scale for v in row["point"])
        if row.get("found") is not None:
            found_x, found_y = (v * scale for v in row["found"])
            draw.line((x, y, found_x, found_y), fill="white", width=4)
            draw.line((x, y, found_x, found_y), fill=colour, width=2)
            draw_cross(draw, found_x, found_y, radius, colour)
        draw_star(draw, x, y, radius, colour)
    for index, (row, (top, lines)) in enumerate(zip(rows, blocks)):
        colour = COLOURS[index % len(COLOURS)]
        draw_star(draw, photo_width + 26, top + 13, 10, colour)
        title = f"({row['point'][0]:.0f}, {row['point'][1]:.0f})"
        if row.get("found") is not None:
            distance = math.dist(row["point"], row["found"])
            title += f"   found at ({row['found'][0]:.0f}, {row['found'][1]:.0f}), {distance:.0f} px away"
        draw.text((photo_width + 46, top), title, fill=colour, font=bold)
        for number, line in enumerate(lines):
            draw.text((photo_width + 46, top + 28 + 22 * number), line, fill="black", font=font)
    return picture


def stack(pictures):
    """Pictures of one width below each other."""
    result = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        result.paste(picture, (0, top))
        top += picture.height
    return result
