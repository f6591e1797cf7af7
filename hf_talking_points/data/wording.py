"""The rule-based writer: what a point's annotation and the pixels around it say, in words.

A full description goes from coarse to fine: the object and where it is in the image, the part and where it is on the
object, where the point is within the part if its box is known, the color and texture of the spot. Position words are
at most five for each axis and frame of reference and there are no digits or codes, so that the words alone do not
carry the coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .names import names_it
from .photos import AnnotatedObject, Box, PartPoint, Photo

__all__ = [
    "COLOR_PROTOTYPES",
    "HORIZONTAL",
    "PLANS",
    "STYLES",
    "SIZE_WORDS",
    "SURROUNDINGS_PLANS",
    "VERTICAL",
    "PointFacts",
    "capitalized",
    "describe_point",
    "describe_surroundings",
    "fact_lines",
    "names_it",
    "plans_for",
    "point_facts",
    "position",
    "position_in",
    "size_word",
    "spot",
    "spot_looks",
    "step_word",
    "write",
    "write_with_plan",
]

HORIZONTAL = ("far left", "left", "center", "right", "far right")
VERTICAL = ("very top", "top", "middle", "bottom", "very bottom")
SIZE_WORDS = ("small", "medium-sized", "large")

COLOR_PROTOTYPES = {  # name: RGB
    "red": (180, 40, 40),
    "green": (75, 120, 55),
    "blue": (55, 85, 175),
    "light blue": (150, 185, 225),
    "yellow": (215, 195, 70),
    "orange": (210, 130, 60),
    "brown": (120, 80, 50),
    "dark brown": (65, 45, 30),
    "tan": (180, 145, 105),
    "beige": (215, 200, 175),
    "pink": (220, 150, 150),
    "black": (25, 25, 25),
    "dark gray": (75, 75, 75),
    "gray": (125, 125, 125),
    "light gray": (180, 180, 180),
    "white": (240, 240, 240),
}
COLOR_RADIUS = 0.012  # of the patch whose mean is the spot's color, as a share of the photo's longer side
TEXTURE_RADIUS = 0.03  # of the patch whose contrast is the spot's texture

# {object}: "dog"; {size}: size of the object; {in_image}, {on_object}, {within}: positions; {spot}: color and texture.
# Every position names its frame of reference. "left" and "right" in a part's name are the object's own side.
# "unseen" says the same as "full" in sentences that are kept out of training, for tests.
PLANS: dict[str, tuple[str, ...]] = {
    "full": (
        "A {size} {object} in the {in_image} of the image. The point is on its {part}, at the "
        "{on_object} of the {object}{within}, {spot}.",
        "The point is on the {part} of a {size} {object} in the {in_image} of the image, at "
        "the {on_object} of the {object}{within}, {spot}.",
        "In the {in_image} of the image there is a {size} {object}; at the {on_object} of the "
        "{object} is its {part}{within}, {spot}.",
        "Look at the {size} {object} in the {in_image} of the image, then at the {on_object} "
        "of the {object}: the {part}{within}, {spot}.",
        "This is the {part}, at the {on_object} of the {object}{within}, {spot}. The {object} "
        "is {size}, in the {in_image} of the image.",
        "{size_capital} {object}, {in_image} of the image: {part}, {on_object} of the "
        "{object}{within}, {spot}.",
        "The {object}'s {part}{within}, {spot}. It is at the {on_object} of the {object}, "
        "which is {size}, in the {in_image} of the image.",
        "There is a {size} {object} in the {in_image} of the image, and the point marks its "
        "{part} at the {on_object} of the {object}{within}, {spot}.",
        "{spot_capital} on the {part}, at the {on_object} of the {object}{within}. The {size} "
        "{object} is in the {in_image} of the image.",
        "Of the {size} {object} in the {in_image} of the image, the {part} is meant, at the "
        "{on_object} of the {object}{within}, {spot}.",
        "A point at the {on_object} of the {object}{within}: {spot} on the {part}. The "
        "{object}, {size}, is in the {in_image} of the image.",
        "Find the {size} {object} in the {in_image} of the image. Its {part} is at the "
        "{on_object} of the {object}{within}, {spot}.",
        "On a {size} {object} in the {in_image} of the image, at the {on_object} of the "
        "{object}, lies the {part}{within}, {spot}.",
        "The {part}, {spot}, at the {on_object} of the {object}{within}. The {object} itself "
        "is {size}, in the {in_image} of the image.",
        "{spot_capital}. It belongs to the {part}, at the {on_object} of the "
        "{object}{within}; the {object} is {size}, in the {in_image} of the image.",
        "Someone pointing at the {part} of the {size} {object} in the {in_image} of the image "
        "would touch {spot}, at the {on_object} of the {object}{within}.",
    ),
    "terse": (
        "The {object}'s {part}.",
        "{part_capital} of the {object}.",
        "The {part} of the {object}.",
        "On the {object}, the {part}.",
        "{object_capital}, {part}.",
    ),
    "unseen": (
        "Where the {object} has its {part}, at the {on_object} of the {object}{within}, there "
        "is {spot}; the {object} is {size}, found in the {in_image} of the image.",
        "It is {spot} that is meant: the {part} of a {size} {object} in the {in_image} of the "
        "image, at the {on_object} of the {object}{within}.",
        "First the {object}, {size}, in the {in_image} of the image; next the {on_object} of "
        "the {object}; there the {part}{within}, {spot}.",
        "Among the things in the {in_image} of the image is a {size} {object}. Its {part} "
        "sits at the {on_object} of the {object}{within} and shows {spot}.",
        "{part_capital}{within}, {on_object} of the {object}, {spot}; {size} {object}, "
        "{in_image} of the image.",
        "Anyone looking for {spot} finds it on the {part}, at the {on_object} of the "
        "{object}{within}, a {size} one in the {in_image} of the image.",
    ),
    "colloquial": (
        "See that {size} {object} in the {in_image} of the photo? I mean its {part}, at the "
        "{on_object} of the {object}{within}. It's {spot}.",
        "So there's this {size} {object}, {in_image} of the picture, and what I'm after is "
        "its {part}, at the {on_object} of the {object}{within}. You'll find {spot} there.",
        "Got the {size} {object} in the {in_image} of the photo? Okay, now go to the {part}, "
        "at the {on_object} of the {object}{within}. It's just {spot}.",
        "It's the {object}'s {part} I'm talking about, at the {on_object} of the "
        "{object}{within}, you know, {spot}. The {object} is the {size} one in the {in_image} "
        "of the picture.",
        "Hey, check out the {part} on the {object}, at the {on_object} of the "
        "{object}{within}. That's {spot}, and it's the {size} {object} in the {in_image} of "
        "the photo.",
        "What I'm pointing at is {spot} on the {object}'s {part}, at the {on_object} of the "
        "{object}{within}. Oh, and the {object}'s {size}, in the {in_image} of the photo.",
    ),
    "no_position": (
        "A {size} {object}. The point is on its {part}, {spot}.",
        "The point is on the {part} of a {size} {object}, {spot}.",
        "There is a {size} {object}; its {part} is meant, {spot}.",
        "{spot_capital} on the {part} of a {size} {object}.",
        "The {object}'s {part}, {spot}. The {object} is {size}.",
        "Find the {size} {object} and then its {part}: {spot}.",
    ),
    "no_part": (
        "A {size} {object} in the {in_image} of the image. The point is at the {on_object} of "
        "the {object}, {spot}.",
        "The point is at the {on_object} of a {size} {object} in the {in_image} of the image, "
        "{spot}.",
        "Look at the {size} {object} in the {in_image} of the image, then at the {on_object} "
        "of the {object}: {spot}.",
        "There is a {size} {object} in the {in_image} of the image, and {spot} at the "
        "{on_object} of the {object} is meant.",
        "{spot_capital} at the {on_object} of the {object}. The {object} is {size}, in the "
        "{in_image} of the image.",
        "Find the {size} {object} in the {in_image} of the image and go to the {on_object} of "
        "the {object}: {spot}.",
    ),
    "caption": (
        "A {size} {object} in the {in_image} of the image.",
        "There is a {size} {object} in the {in_image} of the image.",
        "The photo shows a {size} {object} in the {in_image} of the image.",
        "In the {in_image} of the image one sees a {size} {object}.",
    ),
}
SURROUNDINGS_PLANS: dict[str, tuple[str, ...]] = {
    "full": (
        "The point is on an unnamed thing or surface in the {in_image} of the image, {spot}.",
        "Some thing or surface in the {in_image} of the image, {spot}.",
        "In the {in_image} of the image, on an unnamed thing or surface, {spot}.",
        "{spot_capital} on some thing or surface, in the {in_image} of the image.",
    ),
    "terse": ("A thing or surface, {spot}.", "An unnamed thing or surface, {spot}."),
    "unseen": (
        "It is {spot} that is meant, on an unnamed thing or surface in the {in_image} of the "
        "image.",
    ),
    "colloquial": (
        "It's not on anything I could name, just {spot} in the {in_image} of the photo.",
        "See {spot} in the {in_image} of the picture? I don't know what that thing is, but "
        "that's the one.",
        "There's some thing or other in the {in_image} of the photo, and I mean {spot} on it.",
        "Go to the {in_image} of the picture. Whatever that is, it's {spot} I'm after.",
    ),
    "no_position": (
        "The point is on an unnamed thing or surface, {spot}.",
        "It is {spot} on some thing or surface.",
        "{spot_capital}. It belongs to a thing or surface without a name.",
        "Find {spot} on a thing or surface that is not named.",
    ),
}
# without an object there is no part to leave out
SURROUNDINGS_PLANS["no_part"] = SURROUNDINGS_PLANS["full"]
SURROUNDINGS_PLANS["caption"] = SURROUNDINGS_PLANS["full"]
STYLES = tuple(PLANS)
PARTLESS_STYLES = ("no_part", "caption")


def step_word(share: float, words: Sequence[str]) -> str:
    """The word for a share in [0, 1], in equal steps; what lies beyond an end gets the word of that end."""
    step = int(share * len(words))
    last = len(words) - 1
    return words[min(last, max(0, step))]


def position(u: float, v: float) -> str:
    """A place in words, such as "top and left", of (u, v) in shares of a frame's width and height."""
    down = step_word(v, VERTICAL)
    across = step_word(u, HORIZONTAL)
    return f"{down} and {across}"


def position_in(point: PartPoint, box: Box) -> str:
    """Where a point is in a box, both in pixels of one photo, in words."""
    x1, y1, x2, y2 = box
    u = (point.x - x1) / max(x2 - x1, 1)
    v = (point.y - y1) / max(y2 - y1, 1)
    return position(u, v)


def size_word(box: Box, image_size: tuple[int, int]) -> str:
    """One of `SIZE_WORDS`, from the share of the image (width, height) that an object's box covers."""
    x1, y1, x2, y2 = box
    width, height = image_size
    share = (x2 - x1) * (y2 - y1) / (width * height)
    small, medium, large = SIZE_WORDS
    if share < 0.08:
        return small
    return medium if share < 0.35 else large


def patch_around(pixels: np.ndarray, x: float, y: float, radius: float) -> np.ndarray:
    """The square around (x, y) as far as it lies in the image, at least one pixel of it.

    Args:
        pixels (`np.ndarray` of shape `(height, width, 3)`)
        x, y, radius (`float`): in pixels.
    Returns:
        float32 `np.ndarray` of shape `(rows, columns, 3)`.
    """
    height, width = pixels.shape[:2]
    left = int(min(max(x - radius, 0), width - 1))
    top = int(min(max(y - radius, 0), height - 1))
    right = int(min(x + radius + 1, width))
    bottom = int(min(y + radius + 1, height))
    patch = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
    return patch.astype(np.float32)


def color_word(color: np.ndarray) -> str:
    """The name of the nearest of `COLOR_PROTOTYPES` to an RGB color of shape `(3,)`."""
    names = list(COLOR_PROTOTYPES)
    prototypes = np.array(list(COLOR_PROTOTYPES.values()), dtype=np.float32)
    squared_distances = ((prototypes - color) ** 2).sum(1)
    return names[squared_distances.argmin()]


def texture_words(contrast: float) -> str:
    """The texture of a patch whose gray values have this standard deviation, in [0, 128]."""
    if contrast < 8:
        return "smooth"
    return "lightly textured" if contrast < 25 else "strongly textured"


def spot(pixels: np.ndarray, x: float, y: float) -> str:
    """Color and texture at (x, y), such as "a dark brown, smooth spot".

    Args:
        pixels (`np.ndarray` of shape `(height, width, 3)`, uint8): the photo.
        x, y (`float`): in pixels.
    """
    height, width = pixels.shape[:2]
    longer_side = max(height, width)
    colored_patch = patch_around(pixels, x, y, COLOR_RADIUS * longer_side)
    color = color_word(colored_patch.mean((0, 1)))
    textured_patch = patch_around(pixels, x, y, TEXTURE_RADIUS * longer_side)
    texture = texture_words(textured_patch.mean(-1).std())
    article = "an" if color == "orange" else "a"
    return f"{article} {color}, {texture} spot"


def spot_looks(phrase: str) -> str:
    """Color and texture in a phrase of [`spot`]: "dark brown, smooth"."""
    return phrase.split(" ", 1)[1].removesuffix(" spot")


@dataclass(frozen=True)
class PointFacts:
    """What annotation and pixels say of one point, in words.

    Args:
        in_image (`str`): "top and left", where the object (or the point beside all objects) is in the image.
        spot (`str`): "a dark brown, smooth spot".
        object (`str`, *optional*): category, "dog"; None for a point beside all objects, which then has neither size,
            part nor place on the object.
        size (`str`, *optional*): one of `SIZE_WORDS`.
        part (`str`, *optional*): "left eye"; left and right are the object's own side. None where it is not known.
        on_object (`str`, *optional*): where the point is in the object's box.
        in_part (`str`, *optional*): where the point is in the part's box; None where that is not known.
    """

    in_image: str
    spot: str
    object: str | None = None
    size: str | None = None
    part: str | None = None
    on_object: str | None = None
    in_part: str | None = None


def point_facts(
    photo: Photo, annotated: AnnotatedObject, point: PartPoint, pixels: np.ndarray
) -> PointFacts:
    """[`PointFacts`] of `point` on `annotated` in `photo`.

    Args:
        photo ([`Photo`]), annotated ([`AnnotatedObject`]), point ([`PartPoint`]): coordinates in pixels of `pixels`.
        pixels (`np.ndarray` of shape `(height, width, 3)`, uint8): the photo.
    """
    width, height = photo.size
    x1, y1, x2, y2 = annotated.box
    return PointFacts(
        object=annotated.category,
        size=size_word(annotated.box, photo.size),
        part=point.part,
        in_image=position((x1 + x2) / 2 / width, (y1 + y2) / 2 / height),
        on_object=position_in(point, annotated.box),
        in_part=None if point.box is None else position_in(point, point.box),
        spot=spot(pixels, point.x, point.y),
    )


def fact_lines(facts: PointFacts) -> str:
    """[`PointFacts`] a phrase a line, as prompts show them to a model, which copies their words."""
    if facts.object is None:
        return f"in the {facts.in_image} of the image\n{facts.spot}"
    within = (
        f", in the {facts.in_part} within the {facts.part}" if facts.in_part else ""
    )
    return (
        f"a {facts.size} {facts.object} in the {facts.in_image} of the image\n"
        f"its {facts.part} at the {facts.on_object} of the {facts.object}{within}\n"
        f"{facts.spot}"
    )


def capitalized(words: str) -> str:
    """`words` as a sentence begins: the first letter a capital, if it has one that is read as the same letter."""
    first = words[:1]
    capital = first.upper()
    return capital + words[1:] if capital.lower() == first else words


def plans_for(facts: PointFacts, style: str) -> tuple[str, ...]:
    """The sentence plans of a style that can say these facts.

    Raises ValueError for an unknown style, and for one that names the part where that is not known.
    """
    if style not in PLANS:
        raise ValueError(f"style must be one of {STYLES}, got {style!r}")
    if facts.object is None:
        return SURROUNDINGS_PLANS[style]
    if not facts.part and style not in PARTLESS_STYLES:
        raise ValueError(
            f"style {style!r} names the part, which is not known of this point on a {facts.object}: "
            f"choose from {PARTLESS_STYLES}"
        )
    return PLANS[style]


def write_with_plan(
    facts: PointFacts, style: str = "full", rng: np.random.Generator | None = None
) -> tuple[int, str]:
    """As [`write`], with the number of the sentence plan among those of [`plans_for`]: (number, text)."""
    plans = plans_for(facts, style)
    number = 0 if rng is None else int(rng.integers(len(plans)))
    words = {}
    for name, value in asdict(facts).items():
        words[name] = value or ""
    for name in ("object", "size", "part", "spot"):
        words[f"{name}_capital"] = capitalized(words[name])
    words["within"] = (
        f", in the {facts.in_part} within the {facts.part}" if facts.in_part else ""
    )
    return number, plans[number].format(**words)


def write(
    facts: PointFacts, style: str = "full", rng: np.random.Generator | None = None
) -> str:
    """One sentence or more that say the `facts`.

    Args:
        facts ([`PointFacts`])
        style (`str`): one of `STYLES`: "full", "terse" (names only), "unseen" (as full, in sentences kept out of
            training), "colloquial" (as full, in everyday words), "no_position" (as full, less all positions),
            "no_part" (as full, less the part's name) or "caption" (the object alone).
        rng (`np.random.Generator`, *optional*): chooses the sentence plan; the first plan without it.

    Raises ValueError as [`plans_for`] does.
    """
    return write_with_plan(facts, style, rng)[1]


def describe_point(
    photo: Photo,
    annotated: AnnotatedObject,
    point: PartPoint,
    pixels: np.ndarray,
    style: str = "full",
    rng: np.random.Generator | None = None,
) -> str:
    """One description of `point`: [`point_facts`] in the words of [`write`]."""
    facts = point_facts(photo, annotated, point, pixels)
    return write(facts, style, rng)


def describe_surroundings(
    photo: Photo,
    x: float,
    y: float,
    pixels: np.ndarray,
    style: str = "full",
    rng: np.random.Generator | None = None,
) -> str:
    """A description of a point on nothing that the annotation names: only where it is in the image and what the spot
    looks like. Coordinates are pixels."""
    width, height = photo.size
    facts = PointFacts(
        in_image=position(x / width, y / height), spot=spot(pixels, x, y)
    )
    return write(facts, style, rng)
