"""The one place that opens images: what is displayed, its size, what tells two images apart, and the errors of broken
files."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from transformers.image_transforms import to_pil_image
from transformers.image_utils import load_image

# what is raised for an image that cannot be shown
UNREADABLE = (OSError, ValueError)
# EXIF orientation -> what turns the stored pixels into the displayed ones
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPS_SIDES = (5, 6, 7, 8)  # EXIF orientations that swap width and height
# formats whose header holds the size of the pixels as they are stored; others may change it when they are decoded
SIZE_IN_HEADER = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM")


@contextmanager
def as_unreadable() -> Iterator[None]:
    """Makes what Pillow raises for a broken file, of whatever kind, one of `UNREADABLE`."""
    try:
        yield
    except (MemoryError, *UNREADABLE):
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(f"the image has too many pixels: {error}") from error
    except Exception as error:
        raise OSError(
            f"the image file is broken: {type(error).__name__}: {error}"
        ) from error


def open_file(file: str | os.PathLike | Any, **options: Any) -> Image.Image:
    """`Image.open`, whose errors of broken files are among `UNREADABLE`."""
    with as_unreadable():
        return Image.open(file, **options)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, from 1 (as it is displayed) to 8; 1 where its EXIF block is damaged."""
    try:
        with as_unreadable():
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except UNREADABLE:
        return 1  # the pixels may be whole
    return value if value in TURNS else 1


def as_displayed(image: Image.Image) -> Image.Image:
    """The image, turned and mirrored as its EXIF orientation says."""
    with as_unreadable():
        image.load()
    # not Pillow's exif_transpose, which writes the EXIF data anew and fails where an entry is of an unusual type
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def displayed_size(image: Image.Image | str | os.PathLike | Any) -> tuple[int, int]:
    """(width, height) in pixels of an image as it is displayed, from its header where that can be trusted.

    Args:
        image: PIL image as it was opened, path, or binary file object.

    Raises one of `UNREADABLE` for a broken file.
    """
    if not isinstance(image, Image.Image):
        with open_file(image) as opened:
            return displayed_size(opened)
    if image.format is not None and image.format not in SIZE_IN_HEADER:
        with as_unreadable():
            image.load()
    width, height = image.size
    return (height, width) if orientation(image) in SWAPS_SIDES else (width, height)


def to_rgb(
    image: Image.Image | str | os.PathLike | np.ndarray | torch.Tensor | dict,
    input_data_format: str | None = None,
) -> Image.Image:
    """An image as PIL RGB image as it is displayed.

    The EXIF orientation is applied, 16-bit values are scaled to 8 bits, transparency is shown on white; what else the
    file tells is left out.

    Args:
        image: of any kind that transformers' pipelines take (PIL, path, URL, array), or {"bytes", "path"}, as
            `datasets` stores an image.
        input_data_format (`str`, *optional*): "channels_first" or "channels_last", of an array; by default what its
            shape suggests.

    Raises TypeError for anything else, ValueError for an image without pixels, and one of `UNREADABLE` for a broken
    file.
    """
    if isinstance(image, dict) and {"bytes", "path"} <= image.keys():
        stored = image["bytes"]
        image = image["path"] if stored is None else open_file(io.BytesIO(stored))
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        image = open_file(path) if os.path.isfile(path) else load_image(path)
    elif isinstance(image, (np.ndarray, torch.Tensor)):
        array = np.asarray(image)
        if not array.size:
            raise ValueError(f"the image has no pixels: its shape is {array.shape}")
        if array.ndim == 2:
            array = array[..., None]
            input_data_format = "channels_last"
        if array.dtype == np.uint16:
            array = (array >> 8).astype(np.uint8)
        image = to_pil_image(array, input_data_format=input_data_format)
    elif not isinstance(image, Image.Image):
        given = type(image).__name__
        if isinstance(image, dict):
            given = f"a {given} of {list(image)}"
        raise TypeError(
            f"image must be a PIL image, a path, a URL or an array, got {given}"
        )
    if not (image.width and image.height):
        raise ValueError(
            f"the image has no pixels: it is {image.width} x {image.height}"
        )
    image = as_displayed(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(background, image.convert("RGBA"))
    rgb = image.convert("RGB")
    rgb.info = {}  # an orientation that was applied must not be applied again by who saves or shows the image
    return rgb


def content_key(image: Image.Image) -> str:
    """What tells images apart: SHA-256 of the size and the pixels of a PIL RGB image, as [`to_rgb`] gives it."""
    digest = hashlib.sha256(f"{image.width} {image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def distinct_images(images: Iterable[Any]) -> tuple[list[Image.Image], list[int]]:
    """The images that are displayed differently, and which of them each image is.

    Args:
        images: of any kind that [`to_rgb`] takes, many of them alike.
    Returns:
        (list of PIL RGB images, for each image given the index into that list).
    """
    distinct: list[Image.Image] = []
    positions: dict[str, int] = {}  # content key -> index into `distinct`
    opened: dict[
        Any, int
    ] = {}  # path, or identity of an object -> index into `distinct`
    given = list(images)  # keeps the objects alive whose identities are compared
    index = []
    for image in given:
        name = os.fspath(image) if isinstance(image, (str, os.PathLike)) else id(image)
        if name not in opened:
            rgb = to_rgb(image)
            position = positions.setdefault(content_key(rgb), len(distinct))
            if position == len(distinct):
                distinct.append(rgb)
            opened[name] = position
        index.append(opened[name])
    return distinct, index
