"""What a vision-language model answers is read as it was meant: a point, or the center of a box."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_talking_points.evaluation.point_answers import CONVENTIONS, parse_point

SIZE = (200, 100)
FORMS = (
    "({x}, {y})",
    "[{x}, {y}]",
    "[{x} {y}]",
    "{x}, {y}",
    "{x} {y}.",
    "x={x}, y={y}",
    "It lies at x: {x} and y: {y}.",
    '<point x="{x}" y="{y}" alt="the left eye (1 of 2)">the left eye</point>',
    '<points x1="{x}" y1="{y}" x2="1" y2="2" alt="eyes">eyes</points>',
    '<points coords="1 1 {x} {y} 2 7 8">eyes</points>',
    "<point>{x} {y}</point>",
    '{{"point_2d": [{x}, {y}], "label": "eye"}}',
    '```json\n[\n\t{{"point_2d": [{x}, {y}], "label": "eye"}},\n\t{{"point_2d": [0, 0], "label": "eye"}}\n]\n```',
    '{{"x": {x}, "y": {y}}}',
    '[{{"x": "{x}", "y": "{y}"}}]',
    "<think>Perhaps (1, 1), or rather [0, 0]?</think>\n\n({x}, {y})",
    "The point (x, y) is ({x}, {y}), and not (0, 0).",
    "<|begin_of_box|>[[{x},{y}]]<|end_of_box|>",
    "[{x}, {y}, {x}, {y}]",
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "convention, x, y",
    [
        ("0-1", "0.43", ".71"),
        ("0-100", "43.0", "71"),
        ("0-1000", "430", "710"),
        ("pixels", "86", "71.0"),
    ],
)
def test_every_form_is_read_in_every_convention(form, convention, x, y):
    assert parse_point(form.format(x=x, y=y), convention, SIZE) == pytest.approx(
        (86, 71)
    )


@pytest.mark.parametrize("form", FORMS)
@given(
    convention=st.sampled_from(list(CONVENTIONS)),
    point=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_round_trip(form, convention, point, size):
    width, height = size
    limit = CONVENTIONS[convention]
    x = point[0] * (limit or width)
    y = point[1] * (limit or height)
    found = parse_point(form.format(x=repr(x), y=repr(y)), convention, size)
    assert found == pytest.approx((point[0] * width, point[1] * height), abs=1e-6)
    assert 0 <= found[0] <= width
    assert 0 <= found[1] <= height


BOXES = (  # from (100, 200) to (300, 400)
    "[100, 200, 300, 400]",
    "(100, 200, 300, 400)",
    "100, 200, 300, 400",
    '{"bbox_2d": [100, 200, 300, 400], "label": "eye"}',
    '{"bbox_2d": [[100, 200, 300, 400]]}',
    '[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [1, 2, 3, 4]}]',
    '{\n "bbox": [\n  100,\n  200,\n  300,\n  400\n ]\n}',
    "<box>[[100, 200, 300, 400]]</box>",
    "<box>100, 200, 300, 400</box>",
    "<bbox>100 200 300 400</bbox>",
    "<|det|>[[100, 200, 300, 400]]<|/det|>",
    # two corners
    "<box>(100,200),(300,400)</box>",
    "<box>(100, 200) (300, 400)</box>",
    "<box>[[100,200],[300,400]]</box>",
    "<ref>the nose</ref><box>(100,200),(300,400)</box>",
    "<|box_start|>(100,200),(300,400)<|box_end|>",
    "<|box_start|>(100,200),(300,400)<|box_end|><|box_start|>(500,600),(700,800)<|box_end|>",
    "[[100, 200], [300, 400]]",
    "((100, 200), (300, 400))",
    '{"bbox": [[100, 200], [300, 400]]}',
    '{"bbox": [{"x": 100, "y": 200}, {"x": 300, "y": 400}]}',
    '{"bbox": {"p1": [100, 200], "p2": [300, 400]}}',
    "Bounding box: [(100, 200), (300, 400)]",
    "The bounding box is (100, 200), (300, 400).",
    "A bounding box with corners (100, 200) and (300, 400).",
    "(100,200)-(300,400)",
    "The box goes from (100, 200) to (300, 400).",
    "It starts at (100, 200) and ends at (300, 400).",
    # four corners
    "<quad>(100,200),(300,200),(300,400),(100,400)</quad>",
    "[[100, 200], [300, 200], [300, 400], [100, 400]]",
    '{"bbox": [[100, 200], [300, 200], [300, 400], [100, 400]]}',
    # corners with names
    '{"top_left": [100, 200], "bottom_right": [300, 400]}',
    '{"top_left": {"x": 100, "y": 200}, "bottom_right": {"x": 300, "y": 400}}',
    '{"topLeft": {"x1": 100, "y1": 200}, "bottomRight": {"x2": 300, "y2": 400}}',
    '{"bottom-left": [100, 400], "top-right": [300, 200]}',
    '{"min": [100, 200], "max": [300, 400]}',
    '{"start": {"x": 100, "y": 200}, "end": {"x": 300, "y": 400}}',
    "(x1, y1) = (100, 200), (x2, y2) = (300, 400)",
    "top left: (100, 200)\nbottom right: (300, 400)",
    "**Top-left**: (100, 200)\n**Bottom-right**: (300, 400)",
    "Top-left corner: x=100, y=200; bottom-right corner: x=300, y=400",
    "Its top-left corner is (100, 200) and its bottom-right corner is (300, 400).",
    # each number with a key
    '{"x1": 100, "y1": 200, "x2": 300, "y2": 400}',
    "{'x1': 100, 'y1': 200, 'x2': 300, 'y2': 400}",
    '{\n "x1": 100,\n "y1": 200,\n "x2": 300,\n "y2": 400\n}',
    '{"x0": 100, "y0": 200, "x1": 300, "y1": 400}',
    '{"xmin": 100, "ymin": 200, "xmax": 300, "ymax": 400}',
    '{"x_min": 100, "x_max": 300, "y_min": 200, "y_max": 400}',
    '{"left": 100, "top": 200, "right": 300, "bottom": 400}',
    '{"bounding_box": {"top": 200, "left": 100, "bottom": 400, "right": 300}}',
    '{"coordinates": {"x1": 100, "y1": 200, "x2": 300, "y2": 400}}',
    "x1=100, y1=200, x2=300, y2=400",
    "x1: 100\ny1: 200\nx2: 300\ny2: 400",
    "- left: 100\n- top: 200\n- right: 300\n- bottom: 400",
    "bbox(x1=100, y1=200, x2=300, y2=400)",
    '<box x1="100" y1="200" x2="300" y2="400">',
    '<box left="100" top="200" right="300" bottom="400">',
    "<bbox left=100 top=200 right=300 bottom=400 />",
    # a corner with width and height
    '{"x": 100, "y": 200, "w": 200, "h": 200}',
    '{"x": "100", "y": "200", "width": "200", "height": "200"}',
    '{"width": 200, "height": 200, "x": 100, "y": 200}',
    '{"label": "nose", "x": 100, "y": 200, "score": 0.5, "width": 200, "height": 200}',
    '{"box": {"x": 100, "y": 200, "width": 200, "height": 200}}',
    '{"left": 100, "top": 200, "width": 200, "height": 200}',
    '{"position": {"x": 100, "y": 200}, "size": {"width": 200, "height": 200}}',
    '{"position": [100, 200], "size": [200, 200]}',
    '<rect x="100" y="200" width="200" height="200"/>',
    "x: 100, y: 200, width: 200, height: 200",
    "Its top left corner is at (100, 200), with a width of 200 and a height of 200.",
    # ranges and centers
    '{"x": [100, 300], "y": [200, 400]}',
    "x: 100-300, y: 200-400",
    "x: 100 to 300, y: 200 to 400",
    '{"cx": 200, "cy": 300, "w": 200, "h": 200}',
)


@pytest.mark.parametrize("answer", BOXES)
def test_of_a_box_the_center_is_meant(answer):
    assert parse_point(answer, "0-1000", (1000, 1000)) == (200, 300)


@pytest.mark.parametrize(
    "answer",
    [
        '<box coords="100 200 300 400">',
        '<area shape="rect" coords="100,200,300,400">',
        "{<100><200><300><400>}",
        "<loc_100><loc_200><loc_300><loc_400>",
        "<box><x1>100</x1><y1>200</y1><x2>300</x2><y2>400</y2></box>",
        '{"left": 100, "top": 200}',
    ],
)
def test_a_box_in_an_unknown_form_is_a_miss(answer):
    assert parse_point(answer, "0-1000", (1000, 1000)) is None


@pytest.mark.parametrize(
    "answer",
    [
        "(100, 200), (300, 400)",
        "(100, 200) and (300, 400)",
        "(100, 200);(300, 400)",
        "[100, 200], [300, 400]",
        "[(100, 200), (300, 400)]",
        "[[100, 200]]",
        "[[100, 200], [300, 400], [5, 6]]",
        "- (100, 200)\n- (300, 400)",
        "1. (100, 200)\n2. (300, 400)",
        "Point 1: (100, 200), Point 2: (300, 400)",
        '{"point_2d": [100, 200], "label": "nose"}',
        '{"point_2d": [[100, 200], [300, 400]]}',
        '{"points": [[100, 200], [300, 400]]}',
        '{"keypoints": [[100, 200], [300, 400]]}',
        '{"points": [{"x": 100, "y": 200}, {"x": 300, "y": 400}]}',
        '[{"x": 100, "y": 200}, {"x": 300, "y": 400}]',
        '[{"point_2d": [100, 200]}, {"point_2d": [300, 400]}]',
        '{"left_eye": [100, 200], "right_eye": [300, 400]}',
        '{"x": 100, "y": 200, "label": "nose", "confidence": 0.9}',
        "x=100, y=200; x=300, y=400",
        "<point>100 200</point><point>300 400</point>",
        '<point x="100" y="200" alt="a">a</point><point x="300" y="400" alt="b">b</point>',
        '<points x1="100" y1="200" x2="300" y2="400" alt="eyes">eyes</points>',
        '<points coords="1 1 100 200 2 300 400">eyes</points>',
        # a box is spoken of, but the answer is a point
        "click(start_box='(100,200)')",
        "<|box_start|>(100,200)<|box_end|>",
        "<|begin_of_box|>(100, 200), (300, 400)<|end_of_box|>",
        "\\boxed{(100, 200)}",
        "The box of tea is at (100, 200).",
        "It is at the top left of the box, (100, 200).",
        "It lies at the bottom right: (100, 200).",
        "The point is (100, 200), to the left of (300, 400).",
        "With x from 0 to 1000 and y from 0 to 1000, it is (100, 200).",
    ],
)
def test_of_several_points_the_first_is_meant(answer):
    assert parse_point(answer, "0-1000", (1000, 1000)) == (100, 200)


@given(
    form=st.sampled_from(BOXES),
    convention=st.sampled_from(list(CONVENTIONS)),
    size=st.tuples(st.integers(400, 5000), st.integers(400, 5000)),
)
def test_a_box_is_read_in_every_convention_or_leaves_its_range(form, convention, size):
    found = parse_point(form, convention, size)
    limit = CONVENTIONS[convention]
    if limit is not None and limit < 400:
        assert found is None
    elif limit is None:
        assert found == pytest.approx((200, 300))
    else:
        assert found == pytest.approx((200 / limit * size[0], 300 / limit * size[1]))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "The left eye of the dog.",
        "There are 2 eyes at 14 and 20 of them.",
        "(x, y)",
        "(12)",
        "[1, 2, 3]",
        "[1, 2, 3, 4, 5]",
        "(nan, 0.5)",
        "(0.5, inf)",
        "(0.5, 1e999)",
        '<point x="0.5">eye</point>',
        "x=0.5",
        "<think>It might be (0.5, 0.5), but",
        "(-0.1, 0.5)",
        "(0.5, 1.0001)",
        "[0.5, 0.5, 0.9, 1.2]",
        '{"x": 0.5, "y": 0.5, "width": 0.6, "height": 0.1}',
        "x=-0.5, y=0.5",
        "(43, 71)",
        "(43%, 71%)",
        "x=0.5%, y=0.71%",
    ],
)
def test_malformed_answers_are_misses(answer):
    assert parse_point(answer, "0-1", SIZE) is None


@given(st.text(alphabet='()[]<>{},;:=."xy 0123456789-+eE%\npoint'))
def test_what_is_read_lies_in_the_image(answer):
    for convention in CONVENTIONS:
        found = parse_point(answer, convention, SIZE)
        if found is not None:
            assert 0 <= found[0] <= SIZE[0]
            assert 0 <= found[1] <= SIZE[1]


PIECES = (
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "<box>",
        "</box>",
        '"bbox": ',
        "top left: ",
        "bottom right: ",
    ),
    *(
        ", ",
        " ",
        "\n",
        " to ",
        " and ",
        "x=",
        "y=",
        "width=",
        "1",
        "20",
        ".5",
        "-3",
        "size: ",
    ),
)


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_pieces_of_boxes_are_read_or_missed(answer):
    found = parse_point(answer, "pixels", SIZE)
    if found is not None:
        assert 0 <= found[0] <= SIZE[0]
        assert 0 <= found[1] <= SIZE[1]


LONG_PIECES = (
    "(",
    "[[",
    "<box>",
    "box",
    "(1, 2",
    "(1, 2) ",
    "x=1 ",
    "bbox: ",
    "1",
    "1 ",
)


@pytest.mark.parametrize("piece", LONG_PIECES)
def test_long_answers_are_read_at_once(piece):
    parse_point(piece * 2000, "0-1000", SIZE)


ENDLESS = (
    "[" + ", ".join(["3" * 5000] * 4),
    "(" + "7" * 5000 + ", " + "7" * 5000 + " and",
    "9" * 5000 + " " + "9" * 5000 + " px",
    "0." + "9" * 5000 + " " * 5000 + "0." + "9" * 5000,
    "x=" + "5" * 10_000 + " " * 10_000,
    "x=5" + "\n\t" * 10_000,
    '{"a": 1}' * 5000,
    "[[1], [2]] " * 3000,
)


@pytest.mark.parametrize("answer", ENDLESS)
def test_answers_that_repeat_themselves_are_read_at_once(answer):
    start = time.process_time()
    parse_point(answer, "0-1000", SIZE)
    assert time.process_time() - start < 1


def test_digits_beyond_all_precision_change_nothing():
    thirds = "0." + "3" * 40
    x, y = parse_point(f"({thirds},{' ' * 50}{thirds})", "0-1", SIZE)
    assert (x, y) == pytest.approx((SIZE[0] / 3, SIZE[1] / 3))


@pytest.mark.parametrize(
    "form, convention",
    [
        ("({x}%, {y} %)", "0-100"),
        ('<point x="{x}%" y="{y}%">', "0-100"),
        ("[{x}px, {y} px]", "pixels"),
    ],
)
def test_units_are_read_in_their_own_convention_alone(form, convention):
    answer = form.format(x=43, y=71)
    expected = (43, 71) if convention == "pixels" else (86, 71)
    assert parse_point(answer, convention, SIZE) == pytest.approx(expected)
    for foreign in CONVENTIONS:
        if foreign != convention:
            assert parse_point(answer, foreign, SIZE) is None


def test_pixels_are_those_of_the_image():
    assert parse_point("(200, 100)", "pixels", SIZE) == SIZE
    assert parse_point("(201, 100)", "pixels", SIZE) is None
    assert parse_point("(100, 101)", "pixels", SIZE) is None


def test_an_unknown_convention_is_an_error():
    with pytest.raises(ValueError, match="'percent'"):
        parse_point("(1, 1)", "percent", SIZE)
