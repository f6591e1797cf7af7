"""What is stored of a photo's file: what is displayed, and nothing that tells of its owner.

EXIF (position, names, serial numbers), XMP, comments, previews and whatever follows the picture are left out. JPEG,
PNG and WebP files that need no turn lose these blocks and keep the rest byte for byte; everything else is stored as
PNG.
"""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

from PIL import Image

from ..models.images import open_file, orientation, to_rgb

# a marker that ends the coded data of a JPEG scan: no stuffed byte, restart or fill byte
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_START_OF_SCAN = 0xDA
_JPEG_END = 0xD9
_JPEG_COMMENT = 0xFE
_JPEG_APPLICATION = range(0xE0, 0xF0)
_JFIF = b"JFIF\0"
_JFIF_LENGTH = 14  # of its content without the preview
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# what changes how the pixels look
_PNG_CHUNKS = (
    b"IHDR",
    b"PLTE",
    b"IDAT",
    b"IEND",
    b"tRNS",
    b"gAMA",
    b"cHRM",
    b"sRGB",
    b"iCCP",
    b"cICP",
    b"sBIT",
)
_WEBP_CHUNKS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP")
_WEBP_EXIF_AND_XMP = 0b1100  # flags of the chunk VP8X


class UnknownLayout(ValueError):
    """The blocks of an image file are not as its format has them."""


def shareable_file(file: str | io.BytesIO, name: str) -> tuple[bytes, str]:
    """The image file as it may be passed on, and its name.

    Args:
        file: path, or binary file object, of an image that can be read.
        name (`str`): of the file.
    Returns:
        (bytes of the file, name): its suffix is ".png" where the picture had to be stored anew. [`to_rgb`] gives the
            same pixels as before.
    """
    content = Path(file).read_bytes() if isinstance(file, str) else file.getvalue()
    with open_file(io.BytesIO(content)) as image:
        strip = STRIPPERS.get(image.format)
        is_animated = getattr(image, "is_animated", False) and image.format != "MPO"
        if strip is not None and not is_animated and orientation(image) == 1:
            try:
                return strip(content), name
            except UnknownLayout:
                pass  # Pillow reads it nevertheless: its pixels are stored anew
        return as_png(image), Path(name).with_suffix(".png").name


def as_png(image: Image.Image) -> bytes:
    """A PNG file of an image as it is displayed, with its color profile where that still fits."""
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
    shown = to_rgb(image)
    shown.info = {}
    buffer = io.BytesIO()
    shown.save(buffer, "PNG", icc_profile=profile)
    return buffer.getvalue()


def strip_jpeg(content: bytes) -> bytes:
    """A JPEG file of the first picture in `content`, with nothing but what its decoding needs."""
    kept = [content[:2]]
    position = 2
    while True:
        if content[position : position + 1] != b"\xff":
            raise UnknownLayout(f"expected a marker at byte {position}")
        while content[position + 1 : position + 2] == b"\xff":
            position += 1  # fill bytes
        marker = content[position + 1 : position + 2]
        if marker == bytes([_JPEG_END]):
            kept.append(content[position : position + 2])
            return b"".join(kept)
        segment = jpeg_segment(content, position)
        kept.append(kept_segment(segment))
        position += len(segment)
        if marker == bytes([_JPEG_START_OF_SCAN]):
            found = _JPEG_MARKER.search(content, position)
            if found is None:
                raise UnknownLayout("the picture has no end")
            kept.append(content[position : found.start()])
            position = found.start()


def jpeg_segment(content: bytes, position: int) -> bytes:
    """Marker, length and content of the segment at `position`."""
    if len(content) < position + 4:
        raise UnknownLayout("the picture has no end")
    (length,) = struct.unpack_from(">H", content, position + 2)
    end = position + 2 + length
    if length < 2 or end > len(content):
        raise UnknownLayout(f"segment at byte {position} is {length} bytes long")
    return content[position:end]


def kept_segment(segment: bytes) -> bytes:
    """What is kept of a JPEG segment: nothing of comments and of most application data."""
    marker = segment[1]
    body = segment[4:]
    if marker == _JPEG_COMMENT:
        return b""
    if marker not in _JPEG_APPLICATION:
        return segment
    if marker == 0xE0 and body.startswith(_JFIF) and len(body) >= _JFIF_LENGTH:
        without_preview = body[: _JFIF_LENGTH - 2] + b"\0\0"
        return segment[:2] + struct.pack(">H", 2 + _JFIF_LENGTH) + without_preview
    is_color_profile = marker == 0xE2 and body.startswith(b"ICC_PROFILE\0")
    is_color_transform = marker == 0xEE and body.startswith(b"Adobe")
    return segment if is_color_profile or is_color_transform else b""


def strip_png(content: bytes) -> bytes:
    """A PNG file with the chunks of `content` that change how its pixels look."""
    kept = [_PNG_SIGNATURE]
    position = len(_PNG_SIGNATURE)
    while True:
        if len(content) < position + 12:
            raise UnknownLayout("the picture has no end")
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if end > len(content):
            raise UnknownLayout(f"chunk {kind!r} is {length} bytes long")
        if kind in _PNG_CHUNKS:
            kept.append(content[position:end])
        position = end
        if kind == b"IEND":
            return b"".join(kept)


def strip_webp(content: bytes) -> bytes:
    """A WebP file with the chunks of `content` that change how its pixels look."""
    (length,) = struct.unpack_from("<I", content, 4)
    end_of_file = 8 + length
    if end_of_file > len(content):
        raise UnknownLayout(f"{len(content)} bytes of {end_of_file}")
    kept = []
    position = 12
    while position + 8 <= end_of_file:
        kind, length = struct.unpack_from("<4sI", content, position)
        end = position + 8 + length + length % 2
        chunk = content[position:end]
        if kind == b"VP8X":
            flags = chunk[8] & ~_WEBP_EXIF_AND_XMP
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        if kind in _WEBP_CHUNKS:
            kept.append(chunk)
        position = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


STRIPPERS = {
    "JPEG": strip_jpeg,
    "MPO": strip_jpeg,
    "PNG": strip_png,
    "WEBP": strip_webp,
}
