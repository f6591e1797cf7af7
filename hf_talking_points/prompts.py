"""What models are asked about a point: prompt files as chats, and the pictures that show which point is meant."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Message = dict[str, Any]  # {"role": str, "content": str or list of content parts}

# worked examples shown with each question: a prompt file holds sets of so many that a small model copes with together
SHOTS = 3
LONGEST_SIDE = 1024  # pixels of what a vision model is shown
GRAY = (127, 127, 127)


def read_prompt(folder: Path, name: str) -> list[Message]:
    """The prompt file `name`.txt as chat messages.

    In the file each message starts with a line [system], [user] or [assistant]; the last one is the question.
    """
    text = (folder / f"{name}.txt").read_text(encoding="utf-8")
    blocks = re.split(r"^\[(system|user|assistant)\]\n", text, flags=re.MULTILINE)
    roles = blocks[1::2]
    contents = blocks[2::2]
    return [
        {"role": role, "content": content.strip()}
        for role, content in zip(roles, contents)
    ]


def ask(
    folder: Path,
    name: str,
    rng: np.random.Generator | None = None,
    image: Image.Image | None = None,
    **words: Any,
) -> list[Message]:
    """The chat that asks the question of a prompt file.

    Args:
        folder (`Path`), name (`str`): as of [`read_prompt`].
        rng (`np.random.Generator`, *optional*): draws the set of `SHOTS` worked examples that is shown, of which the
            last is filled from the first; not needed for a file without any.
        image (PIL image, *optional*): shown with the question.
        words: fill the {places} of the question.
    """
    *preceding, last = read_prompt(folder, name)
    has_system_message = bool(preceding) and preceding[0]["role"] == "system"
    chat = preceding[:1] if has_system_message else []
    examples = preceding[len(chat) :]
    if examples:
        if rng is None:
            raise ValueError(
                f"the prompt {name!r} has worked examples: rng must draw among them"
            )
        chat = chat + draw_examples(examples, rng)
    question = last["content"].format(**words)
    if image is None:
        return [*chat, {"role": "user", "content": question}]
    shown = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return [*chat, {"role": "user", "content": shown}]


def draw_examples(messages: list[Message], rng: np.random.Generator) -> list[Message]:
    """One set of `SHOTS` worked examples, each a message of the user and one of the assistant."""
    example_count = len(messages) // 2
    set_count = -(-example_count // SHOTS)
    start = SHOTS * int(rng.integers(set_count))
    drawn = []
    for number in range(start, start + min(SHOTS, example_count)):
        question = 2 * (number % example_count)
        drawn += messages[question : question + 2]
    return drawn


def prompt_hash(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 over the prompt files of these names."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / f"{name}.txt").read_bytes())
    return digest.hexdigest()


def ring_point(image: Image.Image, point: tuple[float, float]) -> Image.Image:
    """A copy of an image with a red ring in a white one around a point, which stays free.

    Args:
        image (PIL RGB image): shrunk to `LONGEST_SIDE` where it is larger.
        point (`tuple`): (x, y) in pixels of `image`.
    """
    ringed = image.copy()
    ringed.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    longer_side = max(ringed.size)
    x = point[0] * longer_side / max(image.size)
    y = point[1] * longer_side / max(image.size)
    radius = max(6.0, 0.035 * longer_side)
    width = max(2, round(radius / 4))
    draw = ImageDraw.Draw(ringed)
    for ring_radius, color in ((radius + width, "white"), (radius, "red")):
        corners = (x - ring_radius, y - ring_radius, x + ring_radius, y + ring_radius)
        draw.ellipse(corners, outline=color, width=width)
    return ringed


def fading_crop(
    image: Image.Image, point: tuple[float, float], sigma: float = 0.08
) -> Image.Image:
    """The surroundings of a point, faded to gray by exp(-d^2 / 2 sigma^2) (arXiv 2510.14583).

    Args:
        image (PIL RGB image)
        point (`tuple`): (x, y) in pixels.
        sigma (`float`): as a share of the image's longer side. The crop is a square with a side of 6 sigma, the point
            in its center, shrunk to `LONGEST_SIDE` where it is larger; what lies outside the image is gray.
    """
    sigma = sigma * max(image.size)  # in pixels
    half = max(1, round(3 * sigma))
    side = 2 * half + 1
    left = int(np.floor(point[0])) - half
    top = int(np.floor(point[1])) - half
    x = left + np.arange(side) + 0.5
    y = top + np.arange(side) + 0.5
    squared_distance = (y[:, None] - point[1]) ** 2 + (
        x[None] - point[0]
    ) ** 2  # (side, side)
    weight = np.exp(-squared_distance / (2 * sigma**2))
    row_in_image = (y >= 0) & (y < image.height)
    column_in_image = (x >= 0) & (x < image.width)
    weight *= row_in_image[:, None] & column_in_image[None]

    crop = image.crop((left, top, left + side, top + side))
    background = Image.new("RGB", crop.size, GRAY)
    mask = Image.fromarray(np.round(255 * weight).astype(np.uint8))
    faded = Image.composite(crop, background, mask)
    faded.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return faded
