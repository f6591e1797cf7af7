"""The rule-based writer: what a point's annotation and the pixels around it say, in words.

A full description goes from coarse to fine: the object and where it is in the image, the part and where it is on the object, where the
point is within the part if its box is known, the colour and texture of the spot. Position words are at most five for each axis and
frame of reference and there are no digits or codes, so that the words alone do not carry the coordinates.
"""

import re
from dataclasses import asdict, dataclass

import numpy as np

HORIZONTAL = ("far left", "left", "center", "right", "far right")
VERTICAL = ("very top", "top", "middle", "bottom", "very bottom")

COLOURS = {
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
_PROTOTYPES = np.array(list(COLOURS.values()), dtype=np.float32)

# {object}: "dog"; {size}: size of the object; {in_image}, {on_object}, {within}: positions; {spot}: colour and texture.
# Every position names its frame of reference. "left" and "right" in a part's name are the object's own side.
# "unseen" says the same as "full" in sentences that are kept out of training, for tests.
PLANS = {
    "full": (
        "A {size} {object} in the {in_image} of the image. The point is on its {part}, at the {on_object} of the {object}{within}, {spot}.",
        "The point is on the {part} of a {size} {object} in the {in_image} of the image, at the {on_object} of the {object}{within}, "
        "{spot}.",
        "In the {in_image} of the image there is a {size} {object}; at the {on_object} of the {object} is its {part}{within}, {spot}.",
        "Look at the {size} {object} in the {in_image} of the image, then at the {on_object} of the {object}: the {part}{within}, {spot}.",
        "This is the {part}, at the {on_object} of the {object}{within}, {spot}. The {object} is {size}, in the {in_image} of the image.",
        "{size_capital} {object}, {in_image} of the image: {part}, {on_object} of the {object}{within}, {spot}.",
        "The {object}'s {part}{within}, {spot}. It is at the {on_object} of the {object}, which is {size}, in the {in_image} of the image.",
        "There is a {size} {object} in the {in_image} of the image, and the point marks its {part} at the {on_object} of the "
        "{object}{within}, {spot}.",
        "{spot_capital} on the {part}, at the {on_object} of the {object}{within}. The {size} {object} is in the {in_image} of the image.",
        "Of the {size} {object} in the {in_image} of the image, the {part} is meant, at the {on_object} of the {object}{within}, {spot}.",
        "A point at the {on_object} of the {object}{within}: {spot} on the {part}. The {object}, {size}, is in the {in_image} of the "
        "image.",
        "Find the {size} {object} in the {in_image} of the image. Its {part} is at the {on_object} of the {object}{within}, {spot}.",
        "On a {size} {object} in the {in_image} of the image, at the {on_object} of the {object}, lies the {part}{within}, {spot}.",
        "The {part}, {spot}, at the {on_object} of the {object}{within}. The {object} itself is {size}, in the {in_image} of the image.",
        "{spot_capital}. It belongs to the {part}, at the {on_object} of the {object}{within}; the {object} is {size}, in the "
        "{in_image} of the image.",
        "Someone pointing at the {part} of the {size} {object} in the {in_image} of the image would touch {spot}, at the {on_object} of "
        "the {object}{within}.",
    ),
    "terse": (
        "The {object}'s {part}.",
        "{part_capital} of the {object}.",
        "The {part} of the {object}.",
        "On the {object}, the {part}.",
        "{object_capital}, {part}.",
    ),
    "unseen": (
        "Where the {object} has its {part}, at the {on_object} of the {object}{within}, there is {spot}; the {object} is {size}, found in "
        "the {in_image} of the image.",
        "It is {spot} that is meant: the {part} of a {size} {object} in the {in_image} of the image, at the {on_object} of the "
        "{object}{within}.",
        "First the {object}, {size}, in the {in_image} of the image; next the {on_object} of the {object}; there the {part}{within}, "
        "{spot}.",
        "Among the things in the {in_image} of the image is a {size} {object}. Its {part} sits at the {on_object} of the {object}{within} "
        "and shows {spot}.",
        "{part_capital}{within}, {on_object} of the {object}, {spot}; {size} {object}, {in_image} of the image.",
        "Anyone looking for {spot} finds it on the {part}, at the {on_object} of the {object}{within}, a {size} one in the {in_image} of "
        "the image.",
    ),
    "colloquial": (
        "See that {size} {object} in the {in_image} of the photo? I mean its {part}, at the {on_object} of the {object}{within}. "
        "It's {spot}.",
        "So there's this {size} {object}, {in_image} of the picture, and what I'm after is its {part}, at the {on_object} of the "
        "{object}{within}. You'll find {spot} there.",
        "Got the {size} {object} in the {in_image} of the photo? Okay, now go to the {part}, at the {on_object} of the {object}{within}. "
        "It's just {spot}.",
        "It's the {object}'s {part} I'm talking about, at the {on_object} of the {object}{within}, you know, {spot}. The {object} is the "
        "{size} one in the {in_image} of the picture.",
        "Hey, check out the {part} on the {object}, at the {on_object} of the {object}{within}. That's {spot}, and it's the {size} "
        "{object} in the {in_image} of the photo.",
        "What I'm pointing at is {spot} on the {object}'s {part}, at the {on_object} of the {object}{within}. Oh, and the {object}'s "
        "{size}, in the {in_image} of the photo.",
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
        "A {size} {object} in the {in_image} of the image. The point is at the {on_object} of the {object}, {spot}.",
        "The point is at the {on_object} of a {size} {object} in the {in_image} of the image, {spot}.",
        "Look at the {size} {object} in the {in_image} of the image, then at the {on_object} of the {object}: {spot}.",
        "There is a {size} {object} in the {in_image} of the image, and {spot} at the {on_object} of the {object} is meant.",
        "{spot_capital} at the {on_object} of the {object}. The {object} is {size}, in the {in_image} of the image.",
        "Find the {size} {object} in the {in_image} of the image and go to the {on_object} of the {object}: {spot}.",
    ),
    "caption": (
        "A {size} {object} in the {in_image} of the image.",
        "There is a {size} {object} in the {in_image} of the image.",
        "The photo shows a {size} {object} in the {in_image} of the image.",
        "In the {in_image} of the image one sees a {size} {object}.",
    ),
}
SURROUNDINGS_PLANS = {
    "full": (
        "The point is on an unnamed thing or surface in the {in_image} of the image, {spot}.",
        "Some thing or surface in the {in_image} of the image, {spot}.",
        "In the {in_image} of the image, on an unnamed thing or surface, {spot}.",
        "{spot_capital} on some thing or surface, in the {in_image} of the image.",
    ),
    "terse": ("A thing or surface, {spot}.", "An unnamed thing or surface, {spot}."),
    "unseen": (
        "It is {spot} that is meant, on an unnamed thing or surface in the {in_image} of the image.",
    ),
    "colloquial": (
        "It's not on anything I could name, just {spot} in the {in_image} of the photo.",
        "See {spot} in the {in_image} of the picture? I don't know what that thing is, but that's the one.",
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
for _style in ("no_part", "caption"):  # without an object there is no part to leave out
    SURROUNDINGS_PLANS[_style] = SURROUNDINGS_PLANS["full"]
STYLES = tuple(PLANS)


def fifth(value, words):
    """The word for a value in [0, 1], in five equal steps."""
    return words[min(4, max(0, int(value * 5)))]


def position(u, v):
    return f"{fifth(v, VERTICAL)} and {fifth(u, HORIZONTAL)}"


def position_in(point, box):
    x1, y1, x2, y2 = box
    return position((point.x - x1) / max(x2 - x1, 1), (point.y - y1) / max(y2 - y1, 1))


def readable(part):
    return part.replace("tailbase", "tail base").replace("_", " ")


def size_word(box, image_size):
    area = (box[2] - box[0]) * (box[3] - box[1]) / (image_size[0] * image_size[1])
    return "small" if area < 0.08 else "medium-sized" if area < 0.35 else "large"


def spot(pixels, x, y):
    """Colour and texture at (x, y) of an RGB array of shape (height, width, 3), such as "a dark brown, smooth spot"."""
    height, width = pixels.shape[:2]

    def patch(radius):
        left, top = (
            int(min(max(v - radius, 0), side - 1)) for v, side in ((x, width), (y, height))
        )
        right, bottom = (int(min(v + radius + 1, side)) for v, side in ((x, width), (y, height)))
        return pixels[top : max(bottom, top + 1), left : max(right, left + 1)].astype(np.float32)

    side = max(height, width)
    colour = list(COLOURS)[((_PROTOTYPES - patch(0.012 * side).mean((0, 1))) ** 2).sum(1).argmin()]
    contrast = patch(0.03 * side).mean(-1).std()
    texture = (
        "smooth" if contrast < 8 else "lightly textured" if contrast < 25 else "strongly textured"
    )
    return f"{'an' if colour[0] == 'o' else 'a'} {colour}, {texture} spot"


@dataclass(frozen=True)
class PointFacts:
    """What annotation and pixels say of one point, in words.

    Args:
        object (`str`): category, "dog"; None for a point beside all objects, which then has neither size, part nor place on the object.
        size (`str`): "small", "medium-sized" or "large".
        part (`str`): "left eye"; left and right are the object's own side.
        in_image (`str`): "top and left", where the object (or the point beside all objects) is in the image.
        on_object (`str`): where the point is in the object's box.
        in_part (`str`): where the point is in the part's box; None where that is not known.
        spot (`str`): "a dark brown, smooth spot".
    """

    in_image: str
    spot: str
    object: str | None = None
    size: str | None = None
    part: str | None = None
    on_object: str | None = None
    in_part: str | None = None


def point_facts(photo, annotated, point, pixels):
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
        part=readable(point.part),
        in_image=position((x1 + x2) / 2 / width, (y1 + y2) / 2 / height),
        on_object=position_in(point, annotated.box),
        in_part=position_in(point, point.box) if point.box is not None else None,
        spot=spot(pixels, point.x, point.y),
    )


def write(facts, style="full", rng=None):
    """One sentence or more that say the `facts`.

    Args:
        facts ([`PointFacts`])
        style (`str`): one of `STYLES`: "full", "terse" (names only), "unseen" (as full, in sentences kept out of training), "colloquial"
            (as full, in everyday words), "no_position" (as full, less all positions), "no_part" (as full, less the part's name) or
            "caption" (the object alone).
        rng (`np.random.Generator`, *optional*): chooses the sentence plan; the first plan without it.
    """
    plans = SURROUNDINGS_PLANS if facts.object is None else PLANS
    if style not in plans:
        raise ValueError(f"style must be one of {STYLES}, got {style!r}")
    words = {name: value or "" for name, value in asdict(facts).items()}
    words["within"] = f", in the {facts.in_part} within the {facts.part}" if facts.in_part else ""
    words |= {
        f"{name}_capital": words[name].capitalize() for name in ("object", "size", "part", "spot")
    }
    return plans[style][0 if rng is None else rng.integers(len(plans[style]))].format(**words)


def describe_point(photo, annotated, point, pixels, style="full", rng=None):
    """One description of `point`: [`point_facts`] in the words of [`write`]."""
    return write(point_facts(photo, annotated, point, pixels), style, rng)


def describe_surroundings(photo, x, y, pixels, style="full", rng=None):
    """A description of a point on nothing that the annotation names: only where it is in the image and what the spot looks like."""
    return write(
        PointFacts(
            in_image=position(x / photo.size[0], y / photo.size[1]), spot=spot(pixels, x, y)
        ),
        style,
        rng,
    )


def names_it(description, name):
    """Whether `description` contains the object or part `name` as whole words."""
    return re.search(rf"\b{re.escape(readable(name))}\b", description, re.IGNORECASE) is not None
