"""Which point a vision-language model means by its answer: the forms in which models write points and boxes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# what the right and the bottom edge of an image are called
CONVENTIONS = {"0-1": 1, "0-100": 100, "0-1000": 1000, "pixels": None}
UNITS = {"0-100": "%", "pixels": "px"}  # that an answer may write behind its numbers

# a model that repeats itself until its tokens run out: expressions would take long over what is no coordinate
LONG_NUMBER = re.compile(r"(\d{18})\d+")
LONG_GAP = re.compile(r"([ \t])[ \t]+|(\s)\s+")
REACH = 200  # characters before a list in which its name stands

NUMBER = r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)"
GAP = r"(?:\s*[,;]\s*|\s+)"
ASSIGN = r"[\"']?\s*[=:]\s*[\"']?"

# (x, y) and [x, y]
PAIR = rf"[\[(]\s*{NUMBER}{GAP}{NUMBER}\s*[\])]"
BRACKETED_PAIR = re.compile(PAIR)
# x=1, y=2 and the like, and also {"x": 1, "y": 2}
KEYED_NUMBERS = (
    rf"[\"']?x\d?{ASSIGN}{NUMBER}[\"']?{GAP}[\"']?y\d?{ASSIGN}{NUMBER}[\"']?"
)
KEYED_PAIR = rf"(?:{PAIR}|[\[({{]\s*{KEYED_NUMBERS}\s*[\])}}])"
POINT_TAG = re.compile(rf"<point>\s*{NUMBER}{GAP}{NUMBER}\s*(?:</point>|[\])])")
POINTS_ATTRIBUTE = re.compile(
    rf"<points?\b[^<>]*\bcoords=[\"']\s*\d+\s+\d+\s+{NUMBER}\s+{NUMBER}"
)
TWO_NUMBERS = re.compile(rf"\A\s*{NUMBER}{GAP}{NUMBER}\s*\.?\s*\Z")

# [x1, y1, x2, y2]
FOUR_IN_A_ROW = GAP.join([NUMBER] * 4)
BRACKETED_BOX = re.compile(rf"(?:[\[(]|<point>)\s*{FOUR_IN_A_ROW}\s*(?:[\])]|</point>)")
BOX_TAG = re.compile(rf"<\|?\w*box\w*\|?>\s*{FOUR_IN_A_ROW}\s*<", re.IGNORECASE)
FOUR_NUMBERS = re.compile(rf"\A\s*{FOUR_IN_A_ROW}\s*\.?\s*\Z")

# two or more corners behind the name of a region: <box>(x1, y1), (x2, y2)</box>, {"bbox": [[x1, y1], [x2, y2]]};
# <|begin_of_box|> frames any answer of GLM
REGION = r"(?:box|rect|quad|poly|region|bounds|area)"
REGION_NAME = (
    rf"(?:<\|?(?!begin_of)\w{{0,20}}{REGION}\w{{0,20}}\|?>|{REGION}\w{{0,20}}{ASSIGN}"
    r"|(?:bbox|bounding[ _-]?box)[^\d\[({<>]{0,40})"
)
BETWEEN_PAIRS = r"(?:[\s,;\[\](){}–-]|and|to|[\"']\w+[\"']\s*:)*?"
REGION_WITH_CORNERS = re.compile(
    rf"{REGION_NAME}{BETWEEN_PAIRS}(?P<corners>{KEYED_PAIR}(?:{BETWEEN_PAIRS}{KEYED_PAIR})+)",
    re.IGNORECASE,
)

# [[x1, y1], [x2, y2]], while [(x1, y1), (x2, y2)] is a list of points
LIST_OF_PAIRS = re.compile(
    r"\[\s*(?P<square>\[[^\[\]()]*\](?:\s*,\s*\[[^\[\]()]*\])+)\s*,?\s*\]"
    r"|\(\s*(?P<round>\([^\[\]()]*\)(?:\s*,\s*\([^\[\]()]*\))+)\s*,?\s*\)"
)
NAME_OF_POINTS = re.compile(
    r"(?:<points?\b[^<>]*|points?\w*[\"']?\s*[=:][\s\[{\"']*)\Z", re.IGNORECASE
)

# (x1, y1) to (x2, y2)
PAIR_TO_PAIR = re.compile(
    rf"{PAIR}[ \t]*(?:-+>?|–|—|→|to|through|and ends at)[ \t]*{PAIR}", re.IGNORECASE
)

# a corner and how far the box goes from there: "position": [x, y], "size": [width, height]
SIZE_NAME = r"[\"']?(?:size|dimensions?|extent)[\"']?\s*[=:]\s*"
IS_OF = rf"(?:{ASSIGN}|\s+(?:of|is)\s+)"
WIDTH = rf"(?:an?\s+|with\s+)*[\"']?w(?:idth)?{IS_OF}{NUMBER}[\"']?"
HEIGHT = rf"(?:an?\s+|and\s+)*[\"']?h(?:eight)?{IS_OF}{NUMBER}"
WIDTH_AND_HEIGHT = rf"{WIDTH}[\s,;]*{HEIGHT}"
PAIR_AND_SIZE = re.compile(
    rf"{PAIR}[\s,;]*(?:{SIZE_NAME}{PAIR}|(?:{SIZE_NAME}\{{)?\s*{WIDTH_AND_HEIGHT})",
    re.IGNORECASE,
)
SIZE_IN_BRACES = re.compile(rf"\}}\s*,\s*{SIZE_NAME}\{{", re.IGNORECASE)

# "top_left": [x1, y1], "bottom_right": {"x": x2, "y": y2}
CORNER_NAME = (
    r"(?<![a-z])(?:(?P<corner>(?:top|upper|bottom|lower)[ _-]?(?:left|right))"
    r"(?:[ _-]?(?:corner|point))?(?: of the [\w ]{1,20}?)?[\"'*]*\s*(?:is\s+|at\s+)*[=:]?[\"'*]*"
    r"|(?P<end>tl|tr|bl|br|min|max|start|end|from|to|\(x\d,\s*y\d\))[\"']?\s*[=:])"
)
NAMED_CORNER = re.compile(
    rf"{CORNER_NAME}\s*(?:{KEYED_PAIR}|{KEYED_NUMBERS})", re.IGNORECASE
)

# x: 100 to 300, y: 200 to 400
RANGE = rf"[\[(]?\s*{NUMBER}\s*(?:-|–|to|and|,|\.\.+)\s*{NUMBER}\s*[\])]?"
RANGE_NAME = r"(?:[_ ]?(?:range|axis))?[\"']?\s*[=:∈]\s*"
RANGES = re.compile(
    rf"\bx{RANGE_NAME}{RANGE}[\s,;]*(?:and\s+)?[\"']?y{RANGE_NAME}{RANGE}",
    re.IGNORECASE,
)

# "x": 100, or an attribute
KEY_AND_NUMBER = re.compile(rf"\b([A-Za-z][\w-]*){ASSIGN}{NUMBER}(?!\s*(?:%|px)|\.?\w)")
WITHOUT_BRACES = re.compile(r"[^{}<>]+")


class AxisKeys(NamedTuple):
    """What the numbers of one axis are called, in lower case without "_" and "-"."""

    center: tuple[str, ...]
    low: tuple[str, ...]
    high: tuple[str, ...]
    size: tuple[str, ...]
    point: tuple[str, ...]  # those of `low` that may stand alone


X_KEYS = AxisKeys(
    center=("cx", "xc", "xcenter", "centerx", "xmid"),
    low=("x0", "x1", "xmin", "minx", "left", "l", "xtl", "xstart", "startx", "x"),
    high=("x2", "xmax", "maxx", "right", "r", "xbr", "xend", "endx", "x1"),
    size=("width", "w", "boxwidth", "bboxwidth", "dx"),
    point=("x", "x1"),
)
Y_KEYS = AxisKeys(
    center=("cy", "yc", "ycenter", "centery", "ymid"),
    low=("y0", "y1", "ymin", "miny", "top", "t", "ytl", "ystart", "starty", "y"),
    high=("y2", "ymax", "maxy", "bottom", "b", "ybr", "yend", "endy", "y1"),
    size=("height", "h", "boxheight", "bboxheight", "dy"),
    point=("y", "y1"),
)


KEYS = {key for axis in (X_KEYS, Y_KEYS) for keys in axis for key in keys}


class Shape(NamedTuple):
    """A point or a box in an answer.

    Args:
        start (`int`): where in the answer it is named.
        x, y (`tuple`): one number of a point, the least and the greatest of a box, as the convention counts.
    """

    start: int
    x: tuple[float, ...]
    y: tuple[float, ...]


def axis_limits(convention: str, size: tuple[int, int]) -> tuple[int, int]:
    """What x is called at the right edge and y at the bottom edge of an image of `size`.

    Raises ValueError for an unknown convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(
            f"convention must be one of {tuple(CONVENTIONS)}, got {convention!r}"
        )
    limit = CONVENTIONS[convention]
    if limit is None:
        width, height = size
        return width, height
    return limit, limit


def without_reasoning(answer: str) -> str:
    """What a model says after its <think> block; nothing where that does not end."""
    return answer.rpartition("</think>")[2].partition("<think>")[0]


def shortened(text: str) -> str:
    """A text with digits and blanks that go on and on cut off, so that it is read in time about linear in its
    length."""
    return LONG_GAP.sub(r"\1\2", LONG_NUMBER.sub(r"\1", text))


def names_points(text: str, end: int) -> bool:
    """Whether what stands before `end` says that points follow."""
    return NAME_OF_POINTS.search(text[max(0, end - REACH) : end]) is not None


def parse_point(
    answer: str, convention: str, size: tuple[int, int]
) -> tuple[float, float] | None:
    """The first point that an answer names; of a box its center.

    Points are (x, y) and [x, y], also within JSON such as {"point_2d": [x, y]}; x and y as attributes
    (<point x="1" y="2">, <points x1="1" y1="2" ...>) or keys (x=1, y=2; {"x": 1, "y": 2});
    <points coords="image object x y ...">; <point>x y</point>; and two bare numbers. Boxes are [x1, y1, x2, y2]; two
    corners in a list, behind the name of a box, or each with its own name; one corner with width and height; and all
    of this as keys or attributes. <think> blocks are skipped.

    Args:
        answer (`str`)
        convention (`str`): "0-1", "0-100" or "0-1000" of width and height, or "pixels".
        size (`tuple`): (width, height) in pixels of the image that the model was shown.
    Returns:
        (x, y) in pixels of that image, or None for an answer without a point, or whose point or box leaves the
        convention's range.
    """
    limit_x, limit_y = axis_limits(convention, size)
    text = shortened(without_reasoning(answer).replace(UNITS.get(convention, ""), ""))
    shape = first_shape(text)
    if shape is None:
        return None
    if (
        min(shape.x) < 0
        or min(shape.y) < 0
        or max(shape.x) > limit_x
        or max(shape.y) > limit_y
    ):
        return None
    width, height = size
    center_x = sum(shape.x) / len(shape.x)
    center_y = sum(shape.y) / len(shape.y)
    return center_x / limit_x * width, center_y / limit_y * height


def first_shape(text: str) -> Shape | None:
    """The shape that is named first; a box before the point that its corner would be."""
    boxes = [
        four_numbers(text),
        region_with_corners(text),
        list_of_corners(text),
        pair_to_pair(text),
        pair_and_size(text),
        named_corners(text),
        ranges(text),
    ]
    points = [keyed_shape(text), pair(text)]
    shapes = [shape for shape in boxes + points if shape is not None]
    return min(shapes, key=start_of) if shapes else None


def start_of(shape: Shape) -> int:
    return shape.start


def first_match(text: str, *patterns: re.Pattern[str]) -> re.Match[str] | None:
    """The match of any of the patterns that begins first."""
    matches = [match for pattern in patterns if (match := pattern.search(text))]
    return min(matches, key=re.Match.start) if matches else None


def numbers_in(match: re.Match[str]) -> list[float]:
    """The numbers that a pattern without other groups has found."""
    return [float(number) for number in match.groups() if number is not None]


def pairs_in(text: str) -> list[tuple[float, float]]:
    """All (x, y) in a piece of an answer."""
    pairs = []
    for match in re.finditer(KEYED_PAIR, text, re.IGNORECASE):
        x, y = numbers_in(match)
        pairs.append((x, y))
    return pairs


def around(start: int, points: list[tuple[float, float]]) -> Shape:
    """The box around corners."""
    xs = [x for x, _ in points]
    ys = [y for _, y in points]
    return Shape(start, (min(xs), max(xs)), (min(ys), max(ys)))


def are_corners(points: list[tuple[float, float]]) -> bool:
    """Whether points are the four corners of an upright rectangle."""
    xs = {x for x, _ in points}
    ys = {y for _, y in points}
    return len(points) == len(set(points)) == 4 and len(xs) == len(ys) == 2


def pair(text: str) -> Shape | None:
    """(x, y) and its like."""
    match = first_match(text, BRACKETED_PAIR, POINT_TAG, POINTS_ATTRIBUTE, TWO_NUMBERS)
    if match is None:
        return None
    x, y = numbers_in(match)
    return Shape(match.start(), (x,), (y,))


def four_numbers(text: str) -> Shape | None:
    """[x1, y1, x2, y2]"""
    match = first_match(text, BRACKETED_BOX, BOX_TAG, FOUR_NUMBERS)
    if match is None:
        return None
    x1, y1, x2, y2 = numbers_in(match)
    return Shape(match.start(), (x1, x2), (y1, y2))


def region_with_corners(text: str) -> Shape | None:
    """<box>(x1, y1), (x2, y2)</box>"""
    match = REGION_WITH_CORNERS.search(text)
    if match is None:
        return None
    corners = pairs_in(match["corners"])
    name = match[0].lower()
    has_many_corners = "quad" in name or "poly" in name or are_corners(corners[:4])
    return around(match.start(), corners if has_many_corners else corners[:2])


def list_of_corners(text: str) -> Shape | None:
    """[[x1, y1], [x2, y2]], where nothing says that these are points."""
    for match in LIST_OF_PAIRS.finditer(text):
        corners = pairs_in(match["square"] or match["round"])
        is_box = len(corners) == 2 or are_corners(corners)
        if is_box and not names_points(text, match.start()):
            return around(match.start(), corners)
    return None


def pair_to_pair(text: str) -> Shape | None:
    """(x1, y1) to (x2, y2)"""
    match = PAIR_TO_PAIR.search(text)
    if match is None:
        return None
    x1, y1, x2, y2 = numbers_in(match)
    return Shape(match.start(), (x1, x2), (y1, y2))


def pair_and_size(text: str) -> Shape | None:
    """[x, y] with a width and a height"""
    match = PAIR_AND_SIZE.search(text)
    if match is None:
        return None
    x, y, width, height = numbers_in(match)
    return Shape(match.start(), (x, x + width), (y, y + height))


def named_corners(text: str) -> Shape | None:
    """ "top_left": [x1, y1], "bottom_right": [x2, y2]"""
    corners: dict[str, tuple[float, float]] = {}
    start = len(text)
    for match in NAMED_CORNER.finditer(text):
        name = (match["corner"] or match["end"]).lower()
        _, x, y = (group for group in match.groups() if group is not None)
        corners.setdefault(name, (float(x), float(y)))
        start = min(start, match.start())
    return around(start, list(corners.values())) if len(corners) > 1 else None


def ranges(text: str) -> Shape | None:
    """x: 100 to 300, y: 200 to 400"""
    match = RANGES.search(text)
    if match is None:
        return None
    x1, x2, y1, y2 = numbers_in(match)
    return Shape(match.start(), (x1, x2), (y1, y2))


def keyed_shape(text: str) -> Shape | None:
    """The first point or box whose numbers have keys of their own: {"x": 1, "y": 2}, <box left="1" ...>."""
    for start, values in keyed_numbers(text):
        if names_points(text, start):
            values = {
                key: values[key] for key in values if key in X_KEYS.point + Y_KEYS.point
            }
        x = along_axis(values, X_KEYS)
        y = along_axis(values, Y_KEYS)
        if x and y:
            return Shape(start, x, y)
    return None


def keyed_numbers(text: str) -> Iterator[tuple[int, dict[str, float]]]:
    """The numbers of each JSON object, tag or text between them by their keys, and where the first of them stands."""
    text = SIZE_IN_BRACES.sub(blank, text)
    for part in WITHOUT_BRACES.finditer(text):
        values: dict[str, float] = {}
        start = part.start()
        for match in KEY_AND_NUMBER.finditer(part[0]):
            key = re.sub("[_-]", "", match[1].lower())
            if key in KEYS and key not in values:
                start = start if values else part.start() + match.start()
                values[key] = float(match[2])
        yield start, values


def blank(match: re.Match[str]) -> str:
    """As many blanks as the match has characters."""
    return " " * len(match[0])


def along_axis(values: dict[str, float], keys: AxisKeys) -> tuple[float, ...] | None:
    """What the keyed numbers say of one axis: a coordinate, the least and the greatest one, or None for neither."""
    center_key = first_key(values, keys.center)
    if center_key:
        return (values[center_key],)
    low_key = first_key(values, keys.low)
    if low_key is None:
        return None
    low = values[low_key]
    high_key = first_key(values, [key for key in keys.high if key != low_key])
    if high_key:
        return low, values[high_key]
    size_key = first_key(values, keys.size)
    if size_key:
        return low, low + values[size_key]
    return (low,) if low_key in keys.point else None


def first_key(values: dict[str, float], keys: Iterable[str]) -> str | None:
    """The first of `keys` that has a value."""
    for key in keys:
        if key in values:
            return key
    return None
