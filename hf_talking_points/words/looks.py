"""What the pixels around a point look like, in words that people use.

Colors are named by the nearest of several prototypes of each name, in CIEDE2000: it keeps hues apart where the plain
distance in CIELAB does not (blue and purple), and counts a step of lightness or chroma as people see it. What lies
next to a point is read along eight rays from it; the region around it is one of Felzenszwalb and Huttenlocher's
graph-based segmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.measure import regionprops
from skimage.segmentation import felzenszwalb

__all__ = [
    "COLORS",
    "DIRECTIONS",
    "PATTERNS",
    "PixelLooks",
    "Region",
    "SpotLooks",
    "nearest_colors",
]

Color = tuple[int, int, int]
Pixels = tuple[np.ndarray, np.ndarray]  # columns and rows, int, of the same length

COLORS: dict[str, tuple[Color, ...]] = {  # name: RGB of its prototypes
    "black": ((10, 10, 10), (30, 28, 27), (22, 24, 32), (35, 28, 22)),
    "dark gray": ((62, 62, 62), (85, 85, 85), (75, 71, 66), (68, 73, 80)),
    "gray": ((112, 112, 112), (138, 138, 138), (130, 124, 117), (118, 124, 131)),
    "light gray": ((172, 172, 172), (198, 198, 198), (186, 182, 176), (175, 181, 188)),
    "white": ((245, 245, 245), (226, 226, 226), (236, 241, 248), (250, 248, 242)),
    "cream": ((250, 240, 210), (240, 228, 200), (246, 234, 218)),
    "beige": ((215, 200, 172), (200, 185, 160), (225, 210, 188), (190, 174, 152)),
    "tan": ((190, 150, 110), (178, 146, 108), (205, 168, 130), (164, 134, 102)),
    "light brown": ((168, 122, 82), (185, 135, 92), (204, 148, 105), (150, 112, 80)),
    "khaki": ((170, 160, 110), (150, 142, 100), (188, 178, 130)),
    "brown": (
        (120, 80, 50),
        (140, 92, 56),
        (105, 72, 50),
        (128, 97, 70),
        (110, 60, 36),
        (92, 64, 42),
    ),
    "dark brown": ((65, 45, 30), (50, 33, 22), (75, 50, 38), (58, 46, 36)),
    "gray-brown": ((115, 102, 88), (132, 117, 101), (95, 83, 72), (148, 134, 118)),
    "rust": ((160, 70, 32), (145, 60, 35), (178, 86, 52)),
    "orange": (
        (240, 130, 30),
        (225, 120, 60),
        (255, 165, 50),
        (205, 115, 48),
        (230, 152, 85),
        (215, 85, 42),
    ),
    "golden": ((210, 160, 60), (188, 138, 55), (226, 186, 92), (200, 156, 85)),
    "yellow": ((250, 225, 50), (235, 215, 90), (215, 195, 40), (250, 240, 130)),
    "peach": ((245, 197, 162), (236, 186, 154), (250, 210, 185)),
    "pink": (
        (240, 170, 180),
        (225, 140, 150),
        (250, 204, 208),
        (212, 156, 150),
        (230, 110, 150),
        (255, 105, 180),
    ),
    "dark pink": ((165, 55, 92), (190, 80, 120), (185, 90, 100)),
    "magenta": ((200, 30, 120), (190, 50, 140), (220, 40, 160)),
    "red": (
        (200, 30, 30),
        (230, 40, 40),
        (178, 30, 32),
        (190, 62, 54),
        (215, 40, 70),
    ),
    "dark red": ((145, 22, 24), (120, 14, 12), (138, 42, 42)),
    "maroon": ((110, 20, 38), (85, 16, 28), (96, 36, 42), (70, 18, 22)),
    "olive": ((112, 110, 50), (128, 124, 62), (90, 90, 44), (75, 74, 42)),
    "green": (
        (60, 140, 60),
        (75, 120, 55),
        (40, 160, 70),
        (95, 140, 60),
        (100, 150, 82),
        (85, 118, 72),
    ),
    "dark green": ((30, 70, 35), (46, 70, 40), (25, 50, 26), (52, 64, 44)),
    "light green": ((160, 200, 130), (146, 190, 108), (182, 216, 162), (168, 192, 144)),
    "lime": ((170, 212, 60), (190, 222, 88), (140, 210, 40)),
    "gray-green": ((120, 132, 110), (100, 112, 94), (142, 152, 132), (80, 90, 74)),
    "teal": (
        (0, 128, 128),
        (32, 110, 115),
        (42, 132, 130),
        (20, 90, 95),
        (8, 62, 72),
        (12, 46, 54),
    ),
    "turquoise": ((64, 200, 200), (60, 180, 175), (122, 212, 204), (90, 190, 182)),
    "light blue": ((150, 185, 225), (170, 206, 236), (128, 174, 216), (190, 210, 230)),
    "blue": (
        (40, 80, 180),
        (30, 60, 205),
        (70, 112, 186),
        (58, 98, 150),
        (84, 128, 180),
        (10, 110, 220),
        (70, 95, 132),
    ),
    "gray-blue": ((112, 124, 142), (134, 146, 162), (90, 102, 118), (70, 81, 96)),
    "dark blue": ((30, 55, 115), (45, 72, 108), (30, 50, 85), (20, 40, 120)),
    "navy": ((20, 30, 75), (30, 36, 64), (26, 42, 92), (14, 18, 48)),
    "purple": (
        (120, 50, 140),
        (102, 62, 142),
        (90, 40, 100),
        (132, 84, 160),
        (55, 28, 70),
    ),
    "lavender": ((190, 170, 220), (170, 150, 200), (206, 192, 230), (176, 162, 192)),
}
PATTERNS = (
    "plain",
    "fine texture",
    "coarse texture",
    "edge",
    "stripe",
    "light spot",
    "dark spot",
    "highlight",
    "shadow",
)
DIRECTIONS = ("above", "below", "left", "right")

WORK_SIDE = 256  # of the picture that colors are read from, longer side in pixels
SEGMENTED_SIDE = 96
STRIP = 3.0  # pixels of the segmented picture: thinner segments are blends of colors along an edge
# shares of the longer side
SPOT_RADIUS = 0.012  # the spot itself
NEAR_RADIUS = 0.025  # what a text may rightly name the color of
TEXTURE_RADIUS = 0.03
REACH = 0.07  # what borders the spot
NARROW = 0.04  # a small spot, from its middle; a stripe, from side to side
TINY = 0.015  # a highlight, from its middle
AT_EDGE = 0.012
BAND = 0.016  # how deep a bordering color must be
# distances in CIELAB
SAME = 14.0  # within one surface
DIFFERENT = 22.0  # clearly another color
# contrast of lightness, standard deviation; CIELAB stretches the dark, where cameras are noisy
UNSEEN = 1.5
SEEN = 3.0
SEEN_IN_THE_DARK = 6.0
CLEAR = 4.5
STRONG = 10.0
FINE = 0.7  # change from pixel to pixel, in contrasts
# differences in CIEDE2000 with half the weight on lightness, which shade and sun change
RIGHT_COLOR = 9.0
WRONG_COLOR = 13.0  # between the two, light and taste decide

RAYS = {  # step to the right and down
    "above": (0, -1),
    "below": (0, 1),
    "left": (-1, 0),
    "right": (1, 0),
    "upper left": (-1, -1),
    "upper right": (1, -1),
    "lower left": (-1, 1),
    "lower right": (1, 1),
}
AXES = (
    ("above", "below"),
    ("left", "right"),
    ("upper left", "lower right"),
    ("upper right", "lower left"),
)


def lab_of(rgb: np.ndarray) -> np.ndarray:
    """CIELAB, float32, of RGB colors of shape `(..., 3)` in [0, 255]."""
    return rgb2lab(np.asarray(rgb, dtype=np.float32) / 255)


def middle_colors(colors: np.ndarray) -> np.ndarray:
    """The medians of groups of CIELAB colors of shape `(groups, colors, 3)`, of each value by itself and without NaN.
    Of an even number, the upper middle one; NaN where there is none."""
    counts = (~np.isnan(colors[:, :, 0])).sum(1)
    middles = (counts // 2).clip(max=colors.shape[1] - 1)
    return np.sort(colors, axis=1)[np.arange(len(colors)), middles]


def squared_norm(differences: np.ndarray) -> np.ndarray:
    """Sum of squares along the last axis; NaN in, NaN out."""
    return np.einsum("...i,...i->...", differences, differences)


COLOR_NAMES = tuple(COLORS)
PROTOTYPE_NAMES = np.array(
    [name for name, prototypes in COLORS.items() for _ in prototypes]
)
FIRST_PROTOTYPES = [list(PROTOTYPE_NAMES).index(name) for name in COLOR_NAMES]
PROTOTYPES = lab_of(np.array([color for some in COLORS.values() for color in some]))


def ranked_colors(lab: np.ndarray, count: int) -> list[list[str]]:
    """The `count` names of `COLORS` nearest to every CIELAB color of shape `(colors, 3)`, nearest first."""
    differences = deltaE_ciede2000(lab[:, np.newaxis], PROTOTYPES[np.newaxis])
    of_names = np.minimum.reduceat(differences, FIRST_PROTOTYPES, axis=1)
    nearest = of_names.argsort(axis=1, kind="stable")[:, :count]
    return [[COLOR_NAMES[number] for number in row] for row in nearest.tolist()]


def nearest_colors(rgb: np.ndarray | Iterable, count: int = 1) -> np.ndarray:
    """Names of colors.

    Args:
        rgb (`np.ndarray` of shape `(..., 3)`): in [0, 255].
        count (`int`): how many names of each, nearest first.
    Returns:
        `np.ndarray` of strings of shape `(..., count)`.

    Raises ValueError where `rgb` has not three values, or `count` is not in 1 to the number of `COLORS`.
    """
    colors = np.asarray(rgb)
    if colors.ndim == 0 or colors.shape[-1] != 3:
        raise ValueError(
            f"rgb must have red, green and blue last, got shape {colors.shape}"
        )
    if not 1 <= count <= len(COLORS):
        raise ValueError(f"count must be in 1 to {len(COLORS)}, got {count}")
    names = ranked_colors(lab_of(colors.reshape(-1, 3)), count)
    return np.array(names, dtype=object).reshape(*colors.shape[:-1], count)


@dataclass(frozen=True)
class Region:
    """The even region of the photo that a point lies in, found by segmentation.

    Args:
        share (`float`): of the photo's area.
        elongation (`float`): longer axis over shorter axis of the ellipse with the same moments, at least 1.
        roundness (`float`): 4 pi area / perimeter², 1 for a disk, toward 0 for a thin or ragged region.
        is_upright (`bool`): whether the longer axis is nearer to the vertical.
        at_border (`bool`): whether it reaches the photo's border.
        center (`tuple`): (x, y) in pixels.
    """

    share: float
    elongation: float
    roundness: float
    is_upright: bool
    at_border: bool
    center: tuple[float, float]


FindRegion: TypeAlias = Callable[[], Region | None]


@dataclass(frozen=True)
class SpotLooks:
    """What one spot looks like.

    Args:
        color (`str`): one of `COLORS`.
        pattern (`str`): one of `PATTERNS`. "edge": another color begins next to the spot. "stripe": narrow, with one
            other color on two opposite sides; "shadow": such a stripe whose color is that of its sides in less light,
            as a fold or a gap. "light spot", "dark spot": small, lighter or darker than all that surrounds it;
            "highlight": such a light spot, tiny and near white on something even. Else what is said is the texture.
        borders (`tuple`): (direction, color) pairs where a clearly different color lies close by: ("above", "white").
            Directions are those of `DIRECTIONS`.
        find_region (callable, *optional*): gives the region; called when it is first asked for, as the segmentation of
            a photo takes longer than all else.
    """

    color: str
    pattern: str
    borders: tuple[tuple[str, str], ...] = ()
    find_region: FindRegion | None = field(default=None, repr=False, compare=False)

    @cached_property
    def region(self) -> Region | None:
        """The even region that the spot lies in; None where there is none, or nobody can find it."""
        return None if self.find_region is None else self.find_region()


@dataclass(frozen=True)
class Border:
    """Where another color begins on a ray: after `distance` pixels of the work picture, with this `lab` color."""

    distance: float
    lab: np.ndarray


class PixelLooks:
    """Looks of the spots of one photo, whose pictures are made once, when they are first asked for.

    Args:
        pixels (`np.ndarray` of shape `(height, width, 3)` or `(height, width)`, uint8): the photo, at least one pixel.

    Raises TypeError for pixels of another type and ValueError for another shape.
    """

    def __init__(self, pixels: np.ndarray):
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8:
            raise TypeError(f"pixels must be uint8, got {pixels.dtype}")
        is_color = pixels.ndim == 3 and pixels.shape[-1] == 3
        if not (is_color or pixels.ndim == 2) or pixels.size == 0:
            raise ValueError(
                f"pixels must have shape (height, width, 3) or (height, width), got {pixels.shape}"
            )
        self.image = Image.fromarray(pixels).convert("RGB")
        self.spots: dict[tuple[float, float], SpotLooks] = {}

    def scaled(self, longer_side: int) -> np.ndarray:
        """The photo as CIELAB of shape `(rows, columns, 3)`, float32, not larger than `longer_side`."""
        width, height = self.image.size
        scale = min(1.0, longer_side / max(width, height))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return lab_of(np.asarray(self.image.resize(size, Image.Resampling.BOX)))

    @cached_property
    def lab(self) -> np.ndarray:
        """The work picture: CIELAB of shape `(rows, columns, 3)`."""
        return self.scaled(WORK_SIDE)

    @cached_property
    def segments(self) -> np.ndarray:
        """Labels from 1, of shape `(rows, columns)`."""
        small = self.scaled(SEGMENTED_SIDE)
        return 1 + felzenszwalb(small / 100, scale=100, sigma=0.5, min_size=20)

    @cached_property
    def segment_shapes(self) -> list:
        """skimage's properties of the segment with each label; computed when they are read."""
        return regionprops(self.segments)

    def pixel(self, x: float, y: float, picture: np.ndarray) -> tuple[int, int]:
        """(column, row) of a picture at (x, y) in pixels of the photo; a point on the photo's right or lower border
        lies on the last one.

        Raises ValueError for a point beside the photo.
        """
        width, height = self.image.size
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(
                f"point ({x}, {y}) is not in the photo of {width} x {height} pixels"
            )
        rows, columns = picture.shape[:2]
        column = min(int(x / width * columns), columns - 1)
        row = min(int(y / height * rows), rows - 1)
        return column, row

    def pixels(self, points: Sequence[tuple[float, float]]) -> Pixels:
        """Where points are in the work picture."""
        places = [self.pixel(x, y, self.lab) for x, y in points]
        columns, rows = np.array(places).T
        return columns, rows

    def steps(self, share: float) -> int:
        """A share of the longer side in pixels of the work picture, at least 1."""
        return max(1, round(share * max(self.lab.shape[:2])))

    def patches(self, spots: Pixels, radius: int) -> np.ndarray:
        """The squares around spots, shape `(spots, side^2, 3)`, NaN beside the photo."""
        right, down = square_steps(radius)
        colors, is_inside = self.colors_at(spots, right, down)
        colors[~is_inside] = np.nan
        return colors.reshape(len(colors), -1, 3)

    def colors_at(
        self, spots: Pixels, right: np.ndarray, down: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The colors at some steps from spots, and whether they are in the photo; beside it, the nearest color.

        Args:
            spots (`tuple`): columns and rows of the work picture.
            right, down (int `np.ndarray` of one shape): steps.
        Returns:
            arrays of shape `(spots, *steps, 3)` and `(spots, *steps)`.
        """
        columns, rows = (along.reshape(-1, *[1] * right.ndim) for along in spots)
        columns, rows = columns + right, rows + down
        height, width = self.lab.shape[:2]
        nearest_columns = columns.clip(0, width - 1)
        nearest_rows = rows.clip(0, height - 1)
        is_inside = (columns == nearest_columns) & (rows == nearest_rows)
        return self.lab[nearest_rows, nearest_columns], is_inside

    def spot_labs(self, spots: Pixels) -> np.ndarray:
        """The colors of spots, shape `(spots, 3)`: the median of the pixels that are like the middle, so that an edge
        through a spot does not blend two colors."""
        middles = middle_colors(self.patches(spots, 1))
        pixels = self.patches(spots, self.steps(SPOT_RADIUS))
        differences = np.linalg.norm(pixels - middles[:, np.newaxis], axis=2)
        is_alike = differences < SAME
        pixels[~is_alike] = np.nan
        return np.where(is_alike.any(1)[:, np.newaxis], middle_colors(pixels), middles)

    @cached_property
    def ray_places(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps to the right and down from a spot to the places on the rays, as far as `REACH`: two int arrays of
        shape `(rays, places, 3)`, the last axis across the ray."""
        away = np.arange(1, self.steps(REACH) + 1)[:, np.newaxis]
        across = np.array([-1, 0, 1])
        right, down = np.array(list(RAYS.values())).T[:, :, np.newaxis, np.newaxis]
        return right * away - down * across, down * away + right * across

    def rays(self, spots: Pixels) -> np.ndarray:
        """The colors from the pixel next to each spot's middle outward on every ray, shape `(spots, rays, places, 3)`,
        NaN beside the photo. Each is the median of three pixels across the ray."""
        colors, is_inside = self.colors_at(spots, *self.ray_places)
        one, other, third = np.moveaxis(colors, 3, 0)
        # of three, the larger one of the smaller two
        colors = np.maximum(
            np.minimum(one, other), np.minimum(np.maximum(one, other), third)
        )
        colors[~is_inside[..., 1]] = np.nan
        return colors

    def borders(self, spots: Pixels, labs: np.ndarray) -> list[dict[str, Border]]:
        """For each spot, by ray, of those that have one within `REACH`: the first color that is clearly not the
        spot's, is even, and deep enough to be seen.

        Args:
            spots (`tuple`): columns and rows of the work picture.
            labs (`np.ndarray` of shape `(spots, 3)`): their colors.
        """
        colors = self.rays(spots)
        is_other = squared_norm(colors - labs[:, np.newaxis, np.newaxis]) > DIFFERENT**2
        depth = self.steps(BAND)
        found: list[dict[str, Border]] = [{} for _ in labs]
        # most rays never leave the surface
        may_end = sliding_window_view(is_other, depth, axis=2).all(-1)
        spot, ray, start = np.nonzero(may_end)
        bands = colors[
            spot[:, np.newaxis],
            ray[:, np.newaxis],
            start[:, np.newaxis] + np.arange(depth),
        ]
        means = bands.mean(1)
        is_even = (squared_norm(bands - means[:, np.newaxis]) < SAME**2).all(1)
        names = list(RAYS)
        steps = [float(np.hypot(*step)) for step in RAYS.values()]
        for number in np.flatnonzero(is_even):
            borders, direction = found[spot[number]], names[ray[number]]
            if direction not in borders:
                distance = (start[number] + 1) * steps[ray[number]]
                borders[direction] = Border(distance, means[number])
        return found

    def textures(self, spots: Pixels) -> tuple[np.ndarray, np.ndarray]:
        """How uneven the lightness is in the four quarters of the square around each spot, less its even slope. What
        has a texture has it in all of them, unlike what lies beside an edge.

        Returns:
            (contrasts, changes), both of shape `(spots, 4)`: standard deviation, and mean difference of neighboring
            pixels; NaN for a quarter of which half or more lies beside the photo.
        """
        radius = self.steps(TEXTURE_RADIUS)
        right, down = quarter_steps(radius)
        colors, is_inside = self.colors_at(spots, right, down)
        lightness = less_slope(colors[..., 0], is_inside)
        least = max(radius / 2, 1)
        is_seen = (is_inside.any(3).sum(2) > least) & (is_inside.any(2).sum(2) > least)
        contrasts = np.sqrt((lightness**2).sum((2, 3)) / is_inside.sum((2, 3)).clip(1))
        changes = mean_change(lightness, is_inside)
        return np.where(is_seen, contrasts, np.nan), np.where(is_seen, changes, np.nan)

    def region(self, x: float, y: float) -> Region | None:
        """The [`Region`] at (x, y) in pixels of the photo; None in a thin strip, as those along edges."""
        column, row = self.pixel(x, y, self.segments)
        shape = self.segment_shapes[self.segments[row, column] - 1]
        rows, columns = self.segments.shape
        width, height = self.image.size
        top, left, bottom, right = shape.bbox
        # a pixel is one wide, while the moments of a line of pixels have no width
        longer = max(shape.axis_major_length, 1)
        shorter = max(shape.axis_minor_length, 1)
        if shape.area / longer < STRIP:
            return None
        # skimage's runs through the middles of the outer pixels
        perimeter = shape.perimeter + np.pi
        center_row, center_column = shape.centroid
        return Region(
            share=float(shape.area / self.segments.size),
            elongation=float(longer / shorter),
            # of few pixels it is a rough estimate
            roundness=float(min(4 * np.pi * shape.area / perimeter**2, 1)),
            is_upright=bool(abs(shape.orientation) < np.pi / 4),
            at_border=top == 0 or left == 0 or bottom == rows or right == columns,
            center=(
                float((center_column + 0.5) / columns * width),
                float((center_row + 0.5) / rows * height),
            ),
        )

    def at(self, x: float, y: float) -> SpotLooks:
        """What the spot at (x, y), in pixels of the photo, looks like.

        Raises ValueError for a point beside the photo.
        """
        if (x, y) not in self.spots:
            self.look_at([(x, y)])
        return self.spots[x, y]

    def look_at(self, points: Sequence[tuple[float, float]]) -> None:
        """Looks at many spots at once, for [`at`] to give; much faster than one by one.

        Raises ValueError for a point beside the photo.
        """
        if not points:
            return
        spots = self.pixels(points)
        labs = self.spot_labs(spots)
        borders = self.borders(spots, labs)
        patterns = self.patterns(spots, labs, borders)
        named = [
            [name for name in DIRECTIONS if name in of_spot] for of_spot in borders
        ]
        border_labs = [
            of_spot[name].lab
            for of_spot, names in zip(borders, named)
            for name in names
        ]
        ranked = iter(ranked_colors(np.array([*labs, *border_labs]), 2))
        spot_names = [next(ranked) for _ in points]
        for (x, y), names, directions, pattern in zip(
            points, spot_names, named, patterns, strict=True
        ):
            around = [(direction, next(ranked)[0]) for direction in directions]
            self.spots[x, y] = SpotLooks(
                color=names[0],
                pattern=pattern,
                borders=tuple(border for border in around if border[1] not in names),
                find_region=partial(self.region, x, y),
            )

    def patterns(
        self, spots: Pixels, labs: np.ndarray, borders: Sequence[dict[str, Border]]
    ) -> list[str]:
        """One of `PATTERNS` for each spot, from its color, shape `(spots, 3)`, and its borders."""
        contrasts, changes = self.textures(spots)
        columns, rows = spots
        lightness = self.lab[rows, columns, 0]
        found = []
        for number, (lab, of_spot) in enumerate(zip(labs, borders, strict=True)):
            pattern = self.drawn_pattern(lab, of_spot)
            if pattern is None:
                pattern = texture_of(
                    contrasts[number], changes[number], lightness[number], bool(of_spot)
                )
            found.append(pattern)
        return found

    def drawn_pattern(self, lab: np.ndarray, borders: dict[str, Border]) -> str | None:
        """The pattern that a spot's borders make, None where they make none."""
        near = self.steps(NARROW)
        distances = [border.distance for border in borders.values()]
        if len(distances) == len(RAYS) and max(distances) <= near:
            around = np.array([border.lab for border in borders.values()])
            is_tiny = max(distances) <= self.steps(TINY)
            kind = small_spot(lab, around, is_tiny)
            if kind is not None:
                return kind
        sides = stripe_sides(borders, near)
        if sides is not None:
            return "shadow" if is_shaded(lab, sides) else "stripe"
        if distances and min(distances) <= self.steps(AT_EDGE):
            return "edge"
        return None

    def says_color(self, name: str, x: float, y: float) -> bool | None:
        """Whether a color may rightly be said of the spot at (x, y), in pixels of the photo.

        True where it is one of the two names nearest to the spot, or near to the color of a part of what lies in a
        small radius; False where it is far from all of that, in any light; None in between.

        Raises ValueError for a name that is not in `COLORS` and for a point beside the photo.
        """
        check_color(name)
        looked_at = self.spots.get((x, y))
        if looked_at is not None and looked_at.color == name:
            return True
        spot = self.pixels([(x, y)])
        if name in ranked_colors(self.spot_labs(spot), 2)[0]:
            return True
        (pixels,) = self.patches(spot, self.steps(NEAR_RADIUS))
        return shows_color(pixels[~np.isnan(pixels[:, 0])], name)

    def says_border(self, direction: str, name: str, x: float, y: float) -> bool | None:
        """As [`says_color`], of the color next to the spot in one of `DIRECTIONS`, as far as borders are looked for.

        Raises ValueError also for another direction.
        """
        check_color(name)
        if direction not in DIRECTIONS:
            raise ValueError(
                f"direction must be one of {DIRECTIONS}, got {direction!r}"
            )
        if (direction, name) in self.at(x, y).borders:
            return True
        colors = self.rays(self.pixels([(x, y)]))[0, list(RAYS).index(direction)]
        inside = colors[~np.isnan(colors[:, 0])]
        # at the photo's border nothing is seen there
        return shows_color(inside, name) if len(inside) else None

    def says_pattern(self, pattern: str, x: float, y: float) -> bool | None:
        """As [`says_color`], of one of `PATTERNS`. Only "plain" is False, of a strong texture, and a texture, of what
        is even; whether there is an edge, stripe or spot is left open where it is not what [`at`] says.

        Raises ValueError for a pattern that is not in `PATTERNS` and for a point beside the photo.
        """
        if pattern not in PATTERNS:
            raise ValueError(f"pattern must be one of {PATTERNS}, got {pattern!r}")
        if pattern == self.at(x, y).pattern:
            return True
        (contrasts,), _ = self.textures(self.pixels([(x, y)]))
        if np.isnan(contrasts).all():
            return None
        if pattern == "plain":
            return False if np.nanmin(contrasts) > STRONG else None
        if pattern in ("fine texture", "coarse texture"):
            return False if np.nanmax(contrasts) < UNSEEN else None
        return None


def spot_colors(
    pixels: np.ndarray, points: Sequence[tuple[float, float]]
) -> np.ndarray:
    """The colors of spots that the words are of: CIELAB of shape `(points, 3)`.

    Args:
        pixels (`np.ndarray` of shape `(height, width, 3)`, uint8): the photo.
        points (list of `(x, y)`): in pixels of the photo.
    """
    looks = PixelLooks(pixels)
    return looks.spot_labs(looks.pixels(points))


def spot_patterns(
    pixels: np.ndarray, points: Sequence[tuple[float, float]]
) -> list[str]:
    """Which of `PATTERNS` spots have.

    Args:
        pixels, points: as of [`spot_colors`].
    """
    looks = PixelLooks(pixels)
    looks.look_at(points)
    return [looks.at(x, y).pattern for x, y in points]


@cache
def square_steps(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps to the right and down to the pixels of the square around a spot, both of shape `(side, side)`."""
    along = np.arange(-radius, radius + 1)
    down, right = np.meshgrid(along, along, indexing="ij")
    return right, down


@cache
def quarter_steps(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """As [`square_steps`], in the four quarters that share the spot's row and column; shape `(4, side, side)`."""
    right, down = square_steps(radius)
    before, after = slice(0, radius + 1), slice(radius, None)
    quarters = [(down, right) for down in (before, after) for right in (before, after)]
    return (
        np.stack([right[quarter] for quarter in quarters]),
        np.stack([down[quarter] for quarter in quarters]),
    )


def less_slope(lightness: np.ndarray, is_inside: np.ndarray) -> np.ndarray:
    """Lightness of shape `(..., rows, columns)` less the plane that fits best the rectangle of it that is inside: what
    is left of it without shading, 0 outside."""
    counts = is_inside.sum((-2, -1), keepdims=True).clip(1)
    rest = np.where(is_inside, lightness, 0)
    rest = rest - is_inside * rest.sum((-2, -1), keepdims=True) / counts
    for along in np.ogrid[: rest.shape[-2], : rest.shape[-1]]:
        # on a full rectangle, the slopes along rows and columns are independent
        middle = (along * is_inside).sum((-2, -1), keepdims=True) / counts
        along = (along - middle) * is_inside
        spread = (along**2).sum((-2, -1), keepdims=True).clip(1)
        rest = rest - (rest * along).sum((-2, -1), keepdims=True) / spread * along
    return rest


def mean_change(lightness: np.ndarray, is_inside: np.ndarray) -> np.ndarray:
    """Mean difference of neighboring pixels inside of shape `(..., rows, columns)`, shape `(...)`."""
    total = np.zeros(lightness.shape[:-2])
    pairs = np.zeros(lightness.shape[:-2])
    for axis in (-2, -1):
        differences = np.abs(np.diff(lightness, axis=axis))
        count = is_inside.shape[axis]
        are_inside = is_inside.take(range(1, count), axis) & is_inside.take(
            range(count - 1), axis
        )
        total += (differences * are_inside).sum((-2, -1))
        pairs += are_inside.sum((-2, -1))
    return total / pairs.clip(1)


def texture_of(
    contrasts: np.ndarray, changes: np.ndarray, lightness: float, has_borders: bool
) -> str:
    """One of "plain", "fine texture" and "coarse texture". Coarse is only what is clearly seen, and has no borders
    close by: they are what one sees there.

    Args:
        contrasts, changes (`np.ndarray` of shape `(4,)`): of the quarters around the spot, [`PixelLooks.textures`].
        lightness (`float`): of the spot.
        has_borders (`bool`)
    """
    is_seen = ~np.isnan(contrasts)
    contrasts, changes = contrasts[is_seen], changes[is_seen]
    seen = SEEN_IN_THE_DARK if lightness < 20 else SEEN
    if not len(contrasts) or contrasts.min() < seen:
        return "plain"
    if np.mean(changes / contrasts) > FINE:
        return "fine texture"
    is_coarse = contrasts.min() > CLEAR and not has_borders
    return "coarse texture" if is_coarse else "plain"


def check_color(name: str) -> None:
    """Raises ValueError for a name that is not in `COLORS`."""
    if name not in COLORS:
        raise ValueError(f"color must be one of {list(COLORS)}, got {name!r}")


def shows_color(pixels: np.ndarray, name: str) -> bool | None:
    """Whether a tenth of CIELAB pixels of shape `(pixels, 3)`, a part that one sees, is near to a named color: True;
    far from it, in any light: False; None in between."""
    prototypes = PROTOTYPES[name == PROTOTYPE_NAMES]
    differences = deltaE_ciede2000(
        pixels[:, np.newaxis], prototypes[np.newaxis], kL=2
    ).min(1)
    least = np.quantile(differences, 0.1)
    if least < RIGHT_COLOR:
        return True
    return False if least > WRONG_COLOR else None


def small_spot(spot: np.ndarray, around: np.ndarray, is_tiny: bool) -> str | None:
    """The pattern of a small spot of one CIELAB color of shape `(3,)` in the midst of others, shape `(rays, 3)`; None
    where it is neither lighter nor darker than all of them."""
    lightness = spot[0]
    if lightness < around[:, 0].min():
        return "dark spot"
    if lightness < around[:, 0].max():
        return None
    is_white = lightness > 85 and np.hypot(*spot[1:]) < 15
    middle = np.median(around, axis=0)
    is_even = (np.linalg.norm(around - middle, axis=1) < DIFFERENT).all()
    return "highlight" if is_tiny and is_white and is_even else "light spot"


def is_shaded(spot: np.ndarray, lit: np.ndarray) -> bool:
    """Whether one CIELAB color is another one in less light, both with a hue."""
    share = spot[0] / max(lit[0], 1)
    # less light makes lightness and chroma smaller by the same share
    chroma = np.hypot(*spot[1:])
    is_its_hue = np.linalg.norm(spot[1:] - share * lit[1:]) < 3 + chroma / 4
    has_hue = min(chroma, np.hypot(*lit[1:])) > 10
    return bool(0.4 < share < 0.85 and is_its_hue and has_hue)


def stripe_sides(borders: dict[str, Border], near: float) -> np.ndarray | None:
    """The color, of shape `(3,)`, on both sides of a stripe not wider than `near`; None where two opposite sides are
    not alike, or other colors end the stripe as near."""
    for axis, (first, second) in enumerate(AXES):
        if first not in borders or second not in borders:
            continue
        one, other = borders[first], borders[second]
        along = AXES[axis ^ 1]
        ends = [borders[end].distance for end in along if end in borders]
        is_narrow = one.distance + other.distance <= near
        goes_on = not ends or min(ends) > near
        is_between = np.linalg.norm(one.lab - other.lab) < SAME
        if is_narrow and goes_on and is_between:
            return (one.lab + other.lab) / 2
    return None
