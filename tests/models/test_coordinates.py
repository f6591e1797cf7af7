import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_talking_points.models.coordinates import (
    canvas_box,
    canvas_to_pixels,
    check_points,
    letterbox,
    pixels_to_canvas,
)
from hf_talking_points.models.modeling_point_localizer import PointLocalizerOutput

SIDES = st.integers(1, 20000)
UNIT = st.floats(0, 1)


@settings(max_examples=300)
@given(SIDES, SIDES, st.integers(16, 2048), UNIT, UNIT)
def test_pixels_return_from_the_canvas(width, height, canvas_size, x, y):
    point = torch.tensor([[x * width, y * height]], dtype=torch.float64)
    back = canvas_to_pixels(
        pixels_to_canvas(point, width, height, canvas_size), width, height, canvas_size
    )
    torch.testing.assert_close(back, point, atol=1e-4, rtol=0)


@settings(max_examples=300)
@given(SIDES, SIDES, st.integers(16, 2048), UNIT, UNIT)
def test_points_land_in_the_box_of_the_image(width, height, canvas_size, x, y):
    left, top, inner_width, inner_height = canvas_box(width, height, canvas_size)
    assert (
        0 <= left
        and left + inner_width <= canvas_size
        and 0 <= top
        and top + inner_height <= canvas_size
    )
    assert max(inner_width, inner_height) == canvas_size
    assert (
        abs(canvas_size - inner_width - 2 * left) <= 1
        and abs(canvas_size - inner_height - 2 * top) <= 1
    )
    point = torch.tensor([x * width, y * height], dtype=torch.float64)
    u, v = (pixels_to_canvas(point, width, height, canvas_size) * canvas_size).tolist()
    assert u == pytest.approx(left + x * inner_width, abs=1e-6) and v == pytest.approx(
        top + y * inner_height, abs=1e-6
    )


@settings(max_examples=100)
@given(SIDES, SIDES, st.integers(16, 2048))
def test_corners_map_to_corners(width, height, canvas_size):
    left, top, inner_width, inner_height = canvas_box(width, height, canvas_size)
    corners = torch.tensor([[0, 0], [width, height]], dtype=torch.float64)
    expected = (
        torch.tensor([[left, top], [left + inner_width, top + inner_height]], dtype=torch.float64)
        / canvas_size
    )
    torch.testing.assert_close(pixels_to_canvas(corners, width, height, canvas_size), expected)


@settings(max_examples=100)
@given(
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=5),
    st.booleans(),
)
def test_pixels_return_through_both_processors(
    descriptor_processor, localizer_processor, width, height, parts, normalized
):
    pixels = [(x * width, y * height) for x, y in parts]
    canvas = descriptor_processor.points_to_canvas(
        parts if normalized else pixels, (width, height), normalized
    )
    found = localizer_processor.post_process_keypoint_detection(
        PointLocalizerOutput(points=canvas), [(height, width)] * len(parts)
    )
    step = max(width, height) * 2**-23 + 1e-4  # the model's canvas coordinates are float32
    for result, pixel in zip(found, pixels):
        assert result["point"] == pytest.approx(pixel, abs=step) and result["confidence"] is None


@pytest.fixture(scope="module")
def descriptor_processor(make_descriptor):
    return make_descriptor()[1]


@pytest.fixture(scope="module")
def localizer_processor(make_localizer):
    return make_localizer()[1]


@settings(max_examples=60)
@given(st.integers(8, 400), st.integers(8, 400), st.integers(32, 256), UNIT, UNIT)
def test_letterbox_puts_a_block_where_its_point_goes(width, height, canvas_size, x, y):
    scale = canvas_size / max(width, height)
    half = max(1, round(3 / scale))  # six canvas pixels or more
    assume(min(width, height) > 4 * half)
    column, row = half + round(x * (width - 2 * half)), half + round(y * (height - 2 * half))
    array = np.zeros((height, width, 3), dtype=np.uint8)
    array[row - half : row + half, column - half : column + half] = (255, 0, 0)
    canvas = np.asarray(letterbox(Image.fromarray(array), canvas_size, (0, 0, 0))).astype(float)[
        ..., 0
    ]
    u, v = (
        pixels_to_canvas(
            torch.tensor([column, row], dtype=torch.float64), width, height, canvas_size
        )
        * canvas_size
    ).tolist()
    assert canvas[min(int(v), canvas_size - 1), min(int(u), canvas_size - 1)] > 128
    ys, xs = np.mgrid[:canvas_size, :canvas_size] + 0.5
    assert (canvas * xs).sum() / canvas.sum() == pytest.approx(u, abs=0.5)
    assert (canvas * ys).sum() / canvas.sum() == pytest.approx(v, abs=0.5)


def test_letterbox_fills_the_padding_only():
    canvas = np.asarray(letterbox(Image.new("RGB", (40, 20), (10, 200, 30)), 64, (1, 2, 3)))
    left, top, width, height = canvas_box(40, 20, 64)
    assert (left, top, width, height) == (0, 16, 64, 32)
    inside = np.zeros((64, 64), bool)
    inside[top : top + height, left : left + width] = True
    assert (canvas[inside] == (10, 200, 30)).all() and (canvas[~inside] == (1, 2, 3)).all()


@pytest.mark.parametrize(
    "point", [(-0.1, 5), (5, -1), (10.1, 5), (5, 20.5), (float("nan"), 3), (3, float("inf"))]
)
def test_point_outside_names_index_and_value(point):
    message = rf"point 1 is \({float(point[0])}, {float(point[1])}\) but must lie in \[0, 10\] x \[0, 20\] pixels of an image of 10 x 20"
    with pytest.raises(ValueError, match=message):
        check_points([(1, 1), point, (-5, -5)], 10, 20)


@pytest.mark.parametrize(
    "points, shape",
    [
        ([1.0, 2.0], r"\(2,\)"),
        ([[1, 2, 3]], r"\(1, 3\)"),
        ([[[1, 2]]], r"\(1, 1, 2\)"),
        (3.0, r"\(\)"),
    ],
)
def test_wrong_shape_is_named(points, shape):
    with pytest.raises(ValueError, match=rf"shape \(number of points, 2\), got {shape}"):
        check_points(points, 10, 20)


@pytest.mark.parametrize("points", ["left", [("a", "b")], [(1, 2), (3,)], [(None, 1)]])
def test_what_is_no_number_is_an_error(points):
    with pytest.raises(ValueError, match="must be a list of"):
        check_points(points, 10, 20)


def test_borders_are_inside():
    corners = [(0, 0), (10, 20)]
    torch.testing.assert_close(
        check_points(corners, 10, 20), torch.tensor(corners, dtype=torch.float64)
    )


@settings(max_examples=50)
@given(SIDES, SIDES, UNIT, UNIT)
def test_normalized_points_are_parts_of_the_sides(width, height, x, y):
    expected = torch.tensor([[x * width, y * height]], dtype=torch.float64)
    torch.testing.assert_close(check_points([(x, y)], width, height, normalized=True), expected)


def test_normalized_points_outside_are_named():
    with pytest.raises(
        ValueError,
        match=r"point 0 is \(1.5, 0.5\) but must lie in \[0, 1\] x \[0, 1\] normalized units of an image of 10 x 20",
    ):
        check_points([(1.5, 0.5)], 10, 20, normalized=True)
