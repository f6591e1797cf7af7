"""COCO's polygons and run lengths as masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.data.masks import part_of_mask, polygon_mask, segmentation_mask


def packed(counts):
    """COCO's string of run lengths."""
    text = ""
    for index, count in enumerate(counts):
        number = count - counts[index - 2] if index > 2 else count
        is_last = False
        while not is_last:
            group = number & 31
            number >>= 5
            is_last = number == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if is_last else 32))
    return text


@given(st.data())
def test_run_lengths_are_read_down_the_columns(data):
    width, height = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    mask = rng.random((height, width)) < data.draw(st.sampled_from([0, 0.02, 0.5, 1]))
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(int), prepend=0)).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    for form in (counts, packed(counts)):
        found = segmentation_mask(
            {"size": [height, width], "counts": form}, (width, height)
        )
        assert (found == mask).all()


def test_a_packed_run_length_by_hand():
    # 300 = 12 + 9 * 32: groups 12 (more follow) and 9; then 5; 95 = 31 + 2 * 32; then 7 and -2, the differences to 5
    # and 95
    groups = [12 + 32, 9, 5, 31 + 32, 2, 7, 30]
    counts = "".join(chr(48 + group) for group in groups)
    mask = segmentation_mask({"size": [101, 5], "counts": counts}, (5, 101))
    flat = mask.T.ravel()
    assert np.flatnonzero(flat).tolist() == [*range(300, 305), *range(400, 412)]
    assert flat.size == 505


@given(st.data())
def test_a_polygon_holds_the_pixels_whose_center_it_holds(data):
    width, height = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    coordinate = st.floats(-5, 17).map(lambda value: round(value, 2))
    corner = st.tuples(coordinate, coordinate)
    corners = np.array(data.draw(st.lists(corner, min_size=3, max_size=6)))
    mask = polygon_mask(corners, (width, height))
    for y, x in np.argwhere(np.ones_like(mask)) + 0.5:
        inside, on_an_edge = False, False
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, 1, axis=0)):
            if (y1 > y) != (y2 > y):
                crossing = x1 + (y - y1) / (y2 - y1) * (x2 - x1)
                inside ^= bool(x < crossing)
                on_an_edge |= bool(abs(x - crossing) < 1e-9)
        assert on_an_edge or mask[int(y), int(x)] == inside


def test_polygons_that_share_an_edge_share_no_pixel():
    rng = np.random.default_rng(0)
    corners = [(0, 0), (12, 0), (12, 12), (0, 12)]
    for _ in range(50):
        inner = tuple(rng.integers(0, 13, 2))
        masks = []
        for number, corner in enumerate(corners):
            triangle = np.array([corner, corners[(number + 1) % 4], inner])
            masks.append(polygon_mask(triangle, (12, 12)))
        assert (np.sum(masks, 0) == 1).all()


def test_a_polygon_that_sticks_out_is_cut_to_the_photo():
    polygon = [-6, 4, 80, 4, 80, 60, -6, 60]
    mask = segmentation_mask([polygon], (64, 48))
    assert part_of_mask("head", mask).box == (0, 4, 64, 48)
    beside = segmentation_mask([[70, 4, 90, 4, 90, 30]], (64, 48))
    assert not beside.any()


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ("polygon", "expected polygons or run lengths, found 'polygon'"),
        (None, "expected polygons or run lengths, found None"),
        ([1, 2, 3, 4, 5, 6], "expected polygons as lists x1, y1"),
        ([[1, 2, 3, 4, 5]], "expected polygons as lists x1, y1"),
        ([[1, 2, 3, 4, 5, "6"]], "expected polygons as lists x1, y1"),
        ([[1, 2, 3, 4, 5, True]], "expected polygons as lists x1, y1"),
        ([[1, 2, 3, 4, 5, float("nan")]], "expected polygons as lists x1, y1"),
        ([[1, 2, 3, 4, 5, float("inf")]], "expected polygons as lists x1, y1"),
        ([[1, 2, 3, 4, 5, 1e300]], "expected polygons as lists x1, y1"),
        ({"counts": [200]}, r"size: expected \[10, 20\], found None"),
        (
            {"size": [20, 10], "counts": [200]},
            r"size: expected \[10, 20\], found \[20, 10\]",
        ),
        ({"size": [10, 20]}, "counts: expected runs of 200 pixels in all, found None"),
        (
            {"size": [10, 20], "counts": [100]},
            "counts: expected runs of 200 pixels in all",
        ),
        (
            {"size": [10, 20], "counts": [210, -10]},
            "counts: expected runs of 200 pixels",
        ),
        (
            {"size": [10, 20], "counts": [199, True]},
            "counts: expected runs of 200 pixels",
        ),
        (
            {"size": [10, 20], "counts": "1"},
            "counts: expected runs of 200 pixels in all",
        ),
        ({"size": [10, 20], "counts": "\x7f"}, "none of COCO's run lengths"),
    ],
)
def test_a_malformed_segmentation_is_an_error(segmentation, message):
    with pytest.raises(ValueError, match=message):
        segmentation_mask(segmentation, (20, 10))


def test_an_empty_mask_is_no_part():
    with pytest.raises(ValueError, match="its segmentation covers no pixel"):
        part_of_mask("head", np.zeros((4, 5), bool))
