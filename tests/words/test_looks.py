"""What the pixels around a point look like, in words."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

import hf_talking_points
from hf_talking_points.words.looks import (
    COLORS,
    DIRECTIONS,
    PATTERNS,
    PixelLooks,
    nearest_colors,
)

PROTOTYPES = [(name, rgb) for name, some in COLORS.items() for rgb in some]
PHOTOS = Path(hf_talking_points.__file__).parent / "space" / "photos"
OTHER_SIDE = {"left": "right", "right": "left", "above": "above", "below": "below"}


def photo(name):
    """A photo of the package or of scikit-image."""
    path = PHOTOS / f"{name}.jpg"
    if path.exists():
        return np.asarray(Image.open(path).convert("RGB"))
    return getattr(data, name)()


def drawn(color, size=(200, 200)):
    """A picture of one color."""
    width, height = size
    return np.full((height, width, 3), color, dtype=np.uint8)


def noise(seed, size, grain):
    """A gray picture of squares of `grain` pixels, each of another lightness."""
    rng = np.random.default_rng(seed)
    width, height = size
    squares = rng.integers(60, 200, (height // grain, width // grain), dtype=np.uint8)
    return np.kron(squares, np.ones((grain, grain), dtype=np.uint8))


@pytest.mark.parametrize(("name", "rgb"), PROTOTYPES)
def test_each_prototype_has_its_own_name(name, rgb):
    [nearest] = nearest_colors(rgb, count=1)
    assert nearest == name


@pytest.mark.parametrize(("name", "rgb"), PROTOTYPES)
def test_a_plain_picture_of_a_prototype_may_be_called_by_its_name(name, rgb):
    looks = PixelLooks(drawn(rgb, size=(40, 30)))
    assert looks.at(20, 15).color == name
    assert looks.at(20, 15).pattern == "plain"
    assert looks.at(20, 15).borders == ()
    assert looks.says_color(name, 20, 15) is True


def test_many_colors_are_named_at_once_nearest_first():
    rgb = np.array([[[250, 250, 250], [5, 5, 5]], [[210, 25, 25], [40, 80, 180]]])
    names = nearest_colors(rgb, count=2)
    assert names.shape == (2, 2, 2)
    assert names[..., 0].tolist() == [["white", "black"], ["red", "blue"]]
    assert (names[..., 0] != names[..., 1]).all()
    everything = nearest_colors([1, 2, 3], count=len(COLORS))
    assert sorted(everything) == sorted(COLORS)


def test_colors_that_cannot_be_named_are_refused():
    with pytest.raises(ValueError, match=r"red, green and blue last.*\(2,\)"):
        nearest_colors([1, 2], count=1)
    with pytest.raises(ValueError, match="count must be in 1 to"):
        nearest_colors([1, 2, 3], count=0)


# name and place of a photo, what a person calls the color there, what nobody would
SPOTS = [
    ("astronaut", (75, 325), {"orange", "rust"}, "blue"),  # the suit
    ("astronaut", (300, 30), {"light gray"}, "green"),  # the wall
    ("astronaut", (430, 320), {"black"}, "white"),
    ("astronaut", (10, 70), {"navy", "dark blue", "purple"}, "orange"),  # the flag
    ("astronaut", (66, 190), {"red", "dark red", "maroon"}, "green"),
    ("astronaut", (235, 60), {"tan", "golden", "khaki", "light brown"}, "blue"),  # hair
    ("astronaut", (425, 60), {"brown", "dark brown"}, "blue"),  # the tank
    ("astronaut", (215, 125), {"peach", "pink", "tan"}, "green"),  # the cheek
    ("astronaut", (170, 380), {"purple", "lavender", "gray-blue"}, "orange"),
    ("coffee", (110, 250), {"red", "rust", "dark red"}, "dark gray"),  # the saucer
    ("coffee", (290, 145), {"orange", "golden", "light brown"}, "gray"),
    ("coffee", (200, 60), {"cream", "white"}, "blue"),  # inside the cup
    ("coffee", (550, 60), {"light brown", "brown", "orange"}, "blue"),  # the table
    ("coffee", (20, 20), {"black", "dark brown"}, "cream"),
    ("chelsea", (150, 115), {"olive", "khaki", "gray-green"}, "purple"),  # the eye
    ("chelsea", (172, 117), {"black", "dark gray", "dark brown"}, "red"),  # pupil
    ("chelsea", (260, 238), {"rust", "brown", "dark red"}, "blue"),  # the nose
    ("chelsea", (240, 180), {"light brown", "brown", "orange"}, "dark gray"),
    ("rocket", (330, 50), {"dark blue", "navy", "blue"}, "orange"),  # the sky
    ("rocket", (322, 280), {"beige", "tan", "cream", "light gray"}, "red"),
    ("rocket", (151, 375), {"white", "cream"}, "red"),  # a lamp
]


@pytest.mark.parametrize(("name", "place", "people_say", "nobody_says"), SPOTS)
def test_colors_of_photos_are_those_that_people_say(
    name, place, people_say, nobody_says
):
    looks = PixelLooks(photo(name))
    assert looks.at(*place).color in people_say
    assert looks.says_color(looks.at(*place).color, *place) is True
    assert looks.says_color(nobody_says, *place) is False


def test_an_orange_cat_in_shade_is_orange_or_brown_but_not_blue_or_dark_gray():
    lit, shaded = PixelLooks(drawn((214, 134, 66))), PixelLooks(drawn((150, 92, 44)))
    for looks in (lit, shaded):
        assert looks.says_color("orange", 100, 100) is not False
        assert looks.says_color("brown", 100, 100) is not False
        assert looks.says_color("blue", 100, 100) is False
    assert lit.says_color("dark gray", 100, 100) is False
    assert shaded.says_color("dark gray", 100, 100) is False


def test_a_small_part_of_the_surroundings_may_give_the_color():
    pixels = drawn((20, 20, 20))
    pixels[100:103] = (220, 30, 30)
    looks = PixelLooks(pixels)
    assert looks.at(100, 97.5).color == "black"
    assert looks.says_color("red", 100, 99) is True
    assert looks.says_color("red", 100, 60) is False


def test_an_edge_does_not_blend_the_colors_beside_it():
    pixels = drawn((200, 30, 30))
    pixels[:, 100:] = (30, 60, 205)
    looks = PixelLooks(pixels)
    left, right = looks.at(98.5, 100), looks.at(101.5, 100)
    assert (left.color, left.pattern) == ("red", "edge")
    assert left.borders == (("right", "blue"),)
    assert (right.color, right.pattern) == ("blue", "edge")
    assert right.borders == (("left", "red"),)
    assert looks.at(30, 100).borders == ()
    assert looks.at(30, 100).pattern == "plain"


def test_a_border_has_its_color_in_its_direction_alone():
    pixels = drawn((200, 30, 30))
    pixels[:, 100:] = (30, 60, 205)
    looks = PixelLooks(pixels)
    assert looks.says_border("right", "blue", 95, 100) is True
    assert looks.says_border("right", "dark blue", 95, 100) is not False
    assert looks.says_border("left", "blue", 95, 100) is False
    assert looks.says_border("right", "yellow", 95, 100) is False
    assert looks.says_border("right", "blue", 60, 100) is False
    assert looks.says_border("right", "blue", 200, 100) is None
    with pytest.raises(ValueError, match="direction must be one of.*'beside'"):
        looks.says_border("beside", "blue", 95, 100)
    with pytest.raises(ValueError, match="color must be one of.*'mauve'"):
        looks.says_border("left", "mauve", 95, 100)


@pytest.mark.parametrize("is_upright", [False, True])
def test_a_stripe_has_one_color_on_both_sides(is_upright):
    pixels = drawn((245, 245, 245))
    pixels[98:102] = (10, 10, 10)
    if is_upright:
        pixels = pixels.swapaxes(0, 1)
    looks = PixelLooks(pixels).at(100, 100)
    sides = ("left", "right") if is_upright else ("above", "below")
    assert (looks.color, looks.pattern) == ("black", "stripe")
    assert looks.borders == tuple((side, "white") for side in sides)


def test_a_fold_is_a_shadow_and_a_stripe_of_another_hue_is_not():
    for stripe, pattern in (((110, 20, 20), "shadow"), ((20, 20, 110), "stripe")):
        pixels = drawn((200, 40, 40))
        pixels[98:102] = stripe
        assert PixelLooks(pixels).at(100, 100).pattern == pattern


@pytest.mark.parametrize(
    ("spot", "around", "radius", "pattern"),
    [
        ((255, 255, 255), (60, 40, 30), 2, "highlight"),
        ((255, 255, 255), (60, 40, 30), 5, "light spot"),
        ((230, 40, 40), (60, 40, 30), 4, "light spot"),
        ((20, 15, 10), (215, 200, 172), 4, "dark spot"),
    ],
)
def test_a_small_spot_is_lighter_or_darker_than_all_around(
    spot, around, radius, pattern
):
    pixels = drawn(around)
    rows, columns = np.ogrid[:200, :200]
    pixels[(rows - 100) ** 2 + (columns - 100) ** 2 <= radius**2] = spot
    looks = PixelLooks(pixels).at(100.5, 100.5)
    assert looks.pattern == pattern
    assert [direction for direction, _ in looks.borders] == list(DIRECTIONS)


def test_a_spot_between_dark_and_light_is_neither():
    pixels = drawn((10, 10, 10))
    pixels[:, 100:] = (245, 245, 245)
    pixels[97:104, 97:104] = (128, 128, 128)
    assert PixelLooks(pixels).at(100.5, 100.5).pattern not in (
        "light spot",
        "dark spot",
        "highlight",
    )


def test_textures_are_fine_or_coarse_and_a_slope_of_light_is_plain():
    size = (240, 240)
    fine = PixelLooks(noise(0, size, grain=1))
    grains = Image.fromarray(noise(0, (80, 80), grain=1) // 2 + 70)
    coarse = PixelLooks(np.asarray(grains.resize(size, Image.Resampling.BICUBIC)))
    slope = np.repeat(np.arange(240, dtype=np.uint8)[np.newaxis], 240, axis=0)
    places = [(x, y) for x in range(40, 200, 20) for y in range(40, 200, 20)]
    fine_patterns = [fine.at(x, y).pattern for x, y in places]
    coarse_patterns = [coarse.at(x, y).pattern for x, y in places]
    assert fine_patterns.count("fine texture") > 0.7 * len(places)
    assert "coarse texture" not in fine_patterns
    assert "coarse texture" in coarse_patterns
    assert "fine texture" not in coarse_patterns
    assert {PixelLooks(slope).at(x, y).pattern for x, y in places} == {"plain"}


def test_a_plain_surface_is_not_textured_and_a_texture_is_not_plain():
    even = PixelLooks(drawn((120, 80, 50)))
    rough = PixelLooks(noise(1, (200, 200), grain=1))
    assert even.says_pattern("plain", 100, 100) is True
    assert even.says_pattern("coarse texture", 100, 100) is False
    assert even.says_pattern("stripe", 100, 100) is None
    assert rough.says_pattern("plain", 100, 100) is False
    assert rough.says_pattern("fine texture", 100, 100) is not False
    with pytest.raises(ValueError, match="'furry'"):
        even.says_pattern("furry", 100, 100)


def test_the_region_of_a_disk_and_of_a_bar():
    pixels = drawn((30, 60, 205), size=(240, 120))
    rows, columns = np.ogrid[:120, :240]
    pixels[(rows - 60) ** 2 + (columns - 60) ** 2 <= 30**2] = (250, 225, 50)
    pixels[10:110, 175:190] = (200, 30, 30)
    looks = PixelLooks(pixels)
    disk, bar = looks.at(60, 60).region, looks.at(182, 60).region
    sky = looks.at(120, 20).region
    assert disk.share == pytest.approx(np.pi * 30**2 / (240 * 120), rel=0.25)
    assert disk.center == pytest.approx((60, 60), abs=3)
    assert disk.elongation < 1.2
    assert disk.roundness > 0.8
    assert not disk.at_border
    assert bar.center == pytest.approx((182.5, 60), abs=2)
    assert bar.elongation > 4
    assert bar.is_upright
    assert bar.roundness < 0.6
    assert sky.share > 0.6
    assert sky.at_border


def test_a_thin_strip_has_no_region():
    pixels = drawn((245, 245, 245), size=(192, 192))
    pixels[90:94] = (10, 10, 10)
    assert PixelLooks(pixels).at(96, 92).region is None
    assert PixelLooks(pixels).at(96, 30).region is not None
    assert PixelLooks(drawn((1, 2, 3), size=(1, 90))).at(0, 45).region is None


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_spot_of_a_mirrored_photo_has_the_same_looks(sampler):
    pixels = photo(sampler.draw(st.sampled_from(["chelsea", "coffee", "astronaut"])))
    pixels = pixels[:, : pixels.shape[1] // 2 * 2][:256, :256]
    height, width = pixels.shape[:2]
    column = sampler.draw(st.integers(0, width - 1))
    row = sampler.draw(st.integers(0, height - 1))
    here = PixelLooks(pixels).at(column + 0.5, row + 0.5)
    there = PixelLooks(pixels[:, ::-1]).at(width - column - 0.5, row + 0.5)
    assert here.color == there.color
    assert here.pattern == there.pattern
    mirrored = {(OTHER_SIDE[direction], color) for direction, color in there.borders}
    assert set(here.borders) == mirrored


def test_many_spots_at_once_look_as_one_by_one():
    pixels = photo("chelsea")
    height, width = pixels.shape[:2]
    rng = np.random.default_rng(0)
    points = [(0.0, 0.0), (float(width), float(height)), (width - 0.5, 1.0)]
    points += [tuple(point) for point in rng.uniform(0, [width, height], (60, 2))]
    together = PixelLooks(pixels)
    together.look_at(points)
    apart = PixelLooks(pixels)
    assert [together.at(*point) for point in points] == [
        apart.at(*point) for point in points
    ]
    together.look_at([])
    with pytest.raises(ValueError, match="is not in the photo"):
        together.look_at([(5.0, 5.0), (width + 1.0, 5.0)])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_picture_has_looks_everywhere(sampler):
    width = sampler.draw(st.sampled_from([1, 2, 3, 17, 300]))
    height = sampler.draw(st.sampled_from([1, 2, 5, 40, 700]))
    is_gray = sampler.draw(st.booleans())
    rng = np.random.default_rng(sampler.draw(st.integers(0, 99)))
    shape = (height, width) if is_gray else (height, width, 3)
    looks = PixelLooks(rng.integers(0, 256, shape, dtype=np.uint8))
    x = sampler.draw(st.floats(0, width))
    y = sampler.draw(st.floats(0, height))
    found = looks.at(x, y)
    assert found.color in COLORS
    assert found.pattern in PATTERNS
    assert looks.says_color(found.color, x, y) is True
    assert looks.says_pattern(found.pattern, x, y) is True
    for direction, color in found.borders:
        assert looks.says_border(direction, color, x, y) is True
    assert looks.at(x, y) == found
    if found.region is not None:
        assert 0 < found.region.share <= 1
        assert found.region.elongation >= 1
        assert 0 < found.region.roundness <= 1


def test_a_large_photo_looks_as_its_smaller_copy():
    pixels = photo("chelsea")[:256, :256]
    large = np.kron(pixels, np.ones((8, 8, 1), dtype=np.uint8))
    for x, y in ((40.5, 60.5), (172.5, 117.5), (200.5, 200.5)):
        assert (
            PixelLooks(large).at(x * 8, y * 8).color
            == PixelLooks(pixels).at(x, y).color
        )


def test_pixels_and_points_that_cannot_be_looked_at_are_refused():
    with pytest.raises(TypeError, match="uint8, got float64"):
        PixelLooks(np.zeros((4, 4, 3)))
    for shape in ((4, 4, 4), (4,), (0, 4, 3)):
        with pytest.raises(ValueError, match="pixels must have shape"):
            PixelLooks(np.zeros(shape, dtype=np.uint8))
    looks = PixelLooks(drawn((1, 2, 3), size=(20, 10)))
    for x, y in ((-1, 5), (5, 10.5), (21, 5), (float("nan"), 5)):
        with pytest.raises(ValueError, match="not in the photo of 20 x 10 pixels"):
            looks.at(x, y)
    with pytest.raises(ValueError, match="'mauve'"):
        looks.says_color("mauve", 5, 5)
