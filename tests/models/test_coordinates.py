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
CANVAS_SIDES = st.integers(16, 2048)
UNIT = st.floats(0, 1)


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=300)
@given(SIDES, SIDES, CANVAS_SIDES, UNIT, UNIT)
def test_pixels_return_from_the_canvas(width, height, canvas_size, x, y):
    point = float64([[x * width, y * height]])
    on_canvas = pixels_to_canvas(point, width, height, canvas_size)
    back = canvas_to_pixels(on_canvas, width, height, canvas_size)
    torch.testing.assert_close(back, point, atol=1e-4, rtol=0)


@settings(max_examples=300)
@given(SIDES, SIDES, CANVAS_SIDES)
def test_the_box_of_the_image_is_centered_on_the_canvas(width, height, canvas_size):
    left, top, inner_width, inner_height = canvas_box(width, height, canvas_size)
    assert max(inner_width, inner_height) == canvas_size
    for start, side in ((left, inner_width), (top, inner_height)):
        assert 0 <= start and start + side <= canvas_size
        assert abs(canvas_size - side - 2 * start) <= 1


@settings(max_examples=300)
@given(SIDES, SIDES, CANVAS_SIDES, UNIT, UNIT)
def test_points_land_in_the_box_of_the_image(width, height, canvas_size, x, y):
    left, top, inner_width, inner_height = canvas_box(width, height, canvas_size)
    point = float64([x * width, y * height])
    u, v = (pixels_to_canvas(point, width, height, canvas_size) * canvas_size).tolist()
    assert u == pytest.approx(left + x * inner_width, abs=1e-6)
    assert v == pytest.approx(top + y * inner_height, abs=1e-6)


@settings(max_examples=100)
@given(SIDES, SIDES, CANVAS_SIDES)
def test_corners_map_to_corners(width, height, canvas_size):
    left, top, inner_width, inner_height = canvas_box(width, height, canvas_size)
    corners = float64([[0, 0], [width, height]])
    box_corners = float64([[left, top], [left + inner_width, top + inner_height]])
    on_canvas = pixels_to_canvas(corners, width, height, canvas_size)
    torch.testing.assert_close(on_canvas, box_corners / canvas_size)


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
    points = parts if normalized else pixels
    canvas = descriptor_processor.points_to_canvas(points, (width, height), normalized)
    found = localizer_processor.post_process_keypoint_detection(
        PointLocalizerOutput(points=canvas), [(height, width)] * len(parts)
    )
    step = (
        max(width, height) * 2**-23 + 1e-4
    )  # the model's canvas coordinates are float32
    for result, pixel in zip(found, pixels):
        assert result["point"] == pytest.approx(pixel, abs=step)
        assert result["confidence"] is None


@pytest.fixture(scope="module")
def descriptor_processor(make_descriptor):
    _, processor = make_descriptor()
    return processor


@pytest.fixture(scope="module")
def localizer_processor(make_localizer):
    _, processor = make_localizer()
    return processor


@settings(max_examples=60)
@given(st.integers(8, 400), st.integers(8, 400), st.integers(32, 256), UNIT, UNIT)
def test_letterbox_puts_a_block_where_its_point_goes(width, height, canvas_size, x, y):
    scale = canvas_size / max(width, height)
    half = max(1, round(3 / scale))  # six canvas pixels or more
    assume(min(width, height) > 4 * half)
    column = half + round(x * (width - 2 * half))
    row = half + round(y * (height - 2 * half))
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[row - half : row + half, column - half : column + half] = (255, 0, 0)
    canvas = letterbox(Image.fromarray(pixels), canvas_size, (0, 0, 0))
    red = np.asarray(canvas).astype(float)[..., 0]
    on_canvas = pixels_to_canvas(float64([column, row]), width, height, canvas_size)
    u, v = (on_canvas * canvas_size).tolist()
    last = canvas_size - 1
    assert red[min(int(v), last), min(int(u), last)] > 128
    rows, columns = np.mgrid[:canvas_size, :canvas_size] + 0.5
    assert (red * columns).sum() / red.sum() == pytest.approx(u, abs=0.5)
    assert (red * rows).sum() / red.sum() == pytest.approx(v, abs=0.5)


def test_letterbox_fills_the_padding_only():
    color, fill = (10, 200, 30), (1, 2, 3)
    canvas = np.asarray(letterbox(Image.new("RGB", (40, 20), color), 64, fill))
    left, top, width, height = canvas_box(40, 20, 64)
    assert (left, top, width, height) == (0, 16, 64, 32)
    inside = np.zeros((64, 64), bool)
    inside[top : top + height, left : left + width] = True
    assert (canvas[inside] == color).all()
    assert (canvas[~inside] == fill).all()


@pytest.mark.parametrize(
    "point",
    [(-0.1, 5), (5, -1), (10.1, 5), (5, 20.5), (float("nan"), 3), (3, float("inf"))],
)
def test_point_outside_names_index_and_value(point):
    x, y = map(float, point)
    message = (
        rf"point 1 is \({x}, {y}\) but must lie in \[0, 10\] x \[0, 20\] pixels "
        "of an image of 10 x 20"
    )
    with pytest.raises(ValueError, match=message):
        check_points([(1, 1), point, (-5, -5)], 10, 20)


@pytest.mark.parametrize(
    "points, shape",
    [
        ([1.0, 2.0], r"\(2,\)"),
        ([[1, 2, 3]], r"\(1, 3\)"),
        ([[[1, 2]]], r"\(1, 1, 2\)"),
    ],
)
def test_wrong_shape_is_named(points, shape):
    with pytest.raises(
        ValueError, match=rf"shape \(number of points, 2\), got {shape}"
    ):
        check_points(points, 10, 20)


@pytest.mark.parametrize(
    "points",
    [
        "left",
        b"12",
        None,
        3.0,
        {"x": 1},
        np.array(3),
        [("a", "b")],
        [(1, 2), (3,)],
        [[(1, 2)], (3, 4)],
    ],
)
def test_what_is_no_list_of_points_is_an_error(points):
    with pytest.raises(ValueError, match="points must"):
        check_points(points, 10, 20)


@pytest.mark.parametrize(
    "point",
    [
        (None, 1),
        (True, 1),
        ("1", 2),
        b"12",
        (10**400, 1),
        (1 + 2j, 3),
        torch.tensor([1 + 2j, 3]),
        torch.tensor([True, False]),
        np.array([True, False]),
        np.array(["1970-01-06", "1970-01-07"], dtype="datetime64[D]"),
        np.array([5, 6], dtype="timedelta64[s]"),
        np.ma.masked_array([5.0, 6.0], mask=[True, False]),
    ],
    ids=repr,
)
def test_what_is_no_number_is_named(point):
    with pytest.raises(ValueError, match="but point 1 is "):
        check_points([(1, 2), point], 10, 20)
    if isinstance(point, (np.ndarray, torch.Tensor)):
        stack = torch.stack if isinstance(point, torch.Tensor) else np.ma.stack
        with pytest.raises(ValueError, match="but point . is "):
            check_points(stack([point, point]), 10, 20)


@pytest.mark.parametrize(
    "points",
    [
        np.array([[1, 2]], np.int16),
        np.array([[1, 2]], np.float16),
        np.ma.masked_array([[1.0, 2.0]], mask=False),
        torch.tensor([[1, 2]]),
        torch.tensor([[1, 2]], dtype=torch.bfloat16),
        [np.array([1, 2])],
        [torch.tensor([1.0, 2.0])],
        [(np.float32(1), torch.tensor(2))],
        ((1, 2),),
    ],
    ids=repr,
)
def test_numbers_of_every_kind_are_points(points):
    assert check_points(points, 10, 20).tolist() == [[1, 2]]


def test_borders_are_inside():
    corners = [(0, 0), (10, 20)]
    torch.testing.assert_close(check_points(corners, 10, 20), float64(corners))


@settings(max_examples=50)
@given(SIDES, SIDES, UNIT, UNIT)
def test_normalized_points_are_parts_of_the_sides(width, height, x, y):
    points = check_points([(x, y)], width, height, normalized=True)
    torch.testing.assert_close(points, float64([[x * width, y * height]]))


def test_normalized_points_outside_are_named():
    message = (
        r"point 0 is \(1.5, 0.5\) but must lie in \[0, 1\] x \[0, 1\] normalized units "
        "of an image of 10 x 20"
    )
    with pytest.raises(ValueError, match=message):
        check_points([(1.5, 0.5)], 10, 20, normalized=True)
