"""Pictures: marks lie on their points, whatever the size and brightness of the photo."""

import numpy as np
import pytest
from PIL import Image

from hf_talking_points.visualization import draw_round_trip, overlay_heatmap, stack


def row(point, found=None, heatmap=None):
    return {"point": point, "description": "A small dog. " * 9, "found": found, "heatmap": heatmap}


@pytest.mark.parametrize("colour", ["black", "white"])
@pytest.mark.parametrize("size", [(100, 60), (300, 900), (4000, 3000)])
def test_star_and_cross_are_seen_at_their_points(size, colour):
    photo = Image.new("RGB", size, colour)
    x, y = 0.3 * size[0], 0.7 * size[1]
    picture = np.asarray(draw_round_trip(photo, [row((x, y), (0.6 * size[0], 0.2 * size[1]))]).convert("RGB")).astype(int)
    scale = 640 / size[0]
    for px, py in ((x, y), (0.6 * size[0], 0.2 * size[1])):
        patch = picture[int(py * scale) - 9 : int(py * scale) + 9, int(px * scale) - 9 : int(px * scale) + 9]
        assert (np.abs(patch - [0xE6, 0x19, 0x4B]).max(-1) < 12).sum() > 20
    corner = picture[2, 2]
    assert np.abs(corner - (0 if colour == "black" else 255)).max() < 3


@pytest.mark.parametrize("width", [400, 1280])
def test_texts_end_within_the_picture(width):
    picture = np.asarray(draw_round_trip(Image.new("RGB", (80, 60), "gray"), [row((40, 30))], width=width).convert("L"))
    assert (picture[:, -6:] == 255).all() and (picture[:, width // 2 + 46 :] < 128).any()


def test_heat_lies_on_the_image_and_not_on_its_padding():
    heatmap = np.zeros((32, 32), dtype=np.float32)
    heatmap[16, 8] = 1.0  # the middle of the left half: a quarter of the width, half of the height of a wide image
    blended = np.asarray(overlay_heatmap(Image.new("RGB", (200, 100), "white"), heatmap)).astype(int)
    y, x = np.unravel_index((255 - blended[..., 2]).argmax(), (100, 200))
    assert abs(x - 53) <= 3 and abs(y - 53) <= 3
    assert (blended[:, 120:] == 255).all()


def test_pictures_are_stacked():
    result = stack([Image.new("RGB", (5, 3), "red"), Image.new("RGB", (7, 2), "blue")])
    assert result.size == (7, 5) and result.getpixel((0, 4)) == (0, 0, 255)
