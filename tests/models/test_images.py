"""Images are opened in one way: as they are displayed."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image, features

from hf_talking_points.models.images import (
    TURNS,
    UNREADABLE,
    as_displayed,
    content_key,
    displayed_size,
    distinct_images,
    orientation,
    to_rgb,
)

SIZE = (64, 48)
ORIENTATION = 0x0112
FORMATS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
}


@pytest.fixture
def smooth():
    """An image without sharp edges: a JPEG file changes little of it."""
    corners = np.random.default_rng(1).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize(SIZE, Image.Resampling.BICUBIC)


def file_of(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    content.seek(0)
    return content


def far_apart(image, expected):
    """The largest difference of two images, of 255."""
    difference = np.asarray(image).astype(float) - np.asarray(expected).astype(float)
    return np.abs(difference).max()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("value", range(1, 9))
def test_the_displayed_size_is_that_of_the_displayed_image(smooth, kind, value):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    content = file_of(smooth, kind, exif=exif, **FORMATS[kind])
    size = displayed_size(content)
    shown = to_rgb(Image.open(content))
    expected = smooth.transpose(TURNS[value]) if value in TURNS else smooth
    assert size == shown.size == expected.size
    assert far_apart(shown, expected) < 8


@pytest.mark.parametrize("kind", FORMATS)
def test_the_size_may_be_asked_of_a_path_and_of_an_opened_image(tmp_path, smooth, kind):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / "a.img"
    path.write_bytes(file_of(smooth, kind, exif=exif).getvalue())
    assert displayed_size(path) == displayed_size(str(path)) == (48, 64)
    with Image.open(path) as image:
        assert displayed_size(image) == (48, 64)
    assert displayed_size(smooth) == SIZE


@pytest.mark.parametrize("kind", ["bytes", "path", "both"])
def test_images_as_datasets_stores_them(tmp_path, smooth, kind):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = file_of(smooth, "PNG", exif=exif).getvalue()
    path = tmp_path / "a.png"
    if kind != "bytes":
        path.write_bytes(content)
    stored = {
        "bytes": None if kind == "path" else content,
        "path": None if kind == "bytes" else str(path),
    }
    assert far_apart(to_rgb(stored), smooth.transpose(TURNS[6])) == 0


def test_the_layout_of_an_array_may_be_told():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    last = to_rgb(pixels, input_data_format="channels_last")
    first = to_rgb(pixels, input_data_format="channels_first")
    assert last.size == (5, 3)
    assert first.size == (3, 5)
    np.testing.assert_array_equal(np.asarray(last), pixels)
    np.testing.assert_array_equal(np.asarray(first), pixels.transpose(1, 2, 0))
    plane = to_rgb(pixels[0], input_data_format="channels_first")
    assert plane.size == (3, 5)


@pytest.mark.parametrize("value", [0, 9, "6", 300])
def test_an_orientation_that_does_not_exist_turns_nothing(smooth, value):
    exif = smooth.getexif()
    exif[ORIENTATION] = value
    assert orientation(smooth) == 1
    assert as_displayed(smooth) is smooth
    assert displayed_size(smooth) == SIZE


UNUSUAL_ENTRIES = {  # tag, type, count, value
    "a unit as text": (0x0128, 2, 4, b"abc\0"),
    "a unit too large": (0x0128, 4, 1, struct.pack("<I", 2**32 - 1)),
    "a negative resolution": (0x011A, 10, 1, struct.pack("<ii", -1, 3)),
    "a date as a fraction": (0x0132, 5, 1, struct.pack("<II", 1, 3)),
    "a copyright as a number": (0x8298, 3, 1, struct.pack("<H", 7)),
}


def exif_of(entry):
    """EXIF data that turn by 90 degrees, with one more entry."""
    entries = sorted([(ORIENTATION, 3, 1, struct.pack("<H", 6)), entry])
    start = 8 + 2 + 12 * len(entries) + 4
    data = b""
    table = b""
    for tag, kind, count, content in entries:
        if len(content) > 4:
            offset = struct.pack("<I", start + len(data))
            data += content
            content = offset
        table += struct.pack("<HHI", tag, kind, count) + content.ljust(4, b"\0")
    header = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return b"Exif\0\0" + header + table + struct.pack("<I", 0) + data


@pytest.mark.parametrize("name", UNUSUAL_ENTRIES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_data_that_cannot_be_written_turn_the_image(smooth, kind, name):
    content = file_of(smooth, kind, exif=exif_of(UNUSUAL_ENTRIES[name]))
    shown = to_rgb(Image.open(content))
    assert shown.size == displayed_size(content) == (48, 64)
    assert far_apart(shown, smooth.transpose(Image.Transpose.ROTATE_270)) < 40


DAMAGED_EXIF = {
    "cut off": b"Exif\0\0II*\0",
    "no header": b"Exif\0\0" + bytes(range(64)),
    "another header": b"Exif\0\0II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
    "nothing": b"",
    "an orientation as text": exif_of((0x0112, 2, 4, b"abc\0")),
    "a width as text": exif_of((0x0100, 2, 2, b"9\0")),
    "an artist as a number": exif_of((0x013B, 11, 1, struct.pack("<f", 1.5))),
}


@pytest.mark.parametrize("name", DAMAGED_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_pixels_of_a_photo_with_damaged_exif_data_are_used(smooth, kind, name):
    content = file_of(smooth, kind, exif=DAMAGED_EXIF[name])
    shown = to_rgb({"bytes": content.getvalue(), "path": None})
    assert displayed_size(content) == shown.size
    if shown.size == SIZE:
        assert far_apart(shown, smooth) < 40
    else:
        turned = smooth.transpose(Image.Transpose.ROTATE_270)
        assert far_apart(shown, turned) < 40


def gray_of(smooth):
    return smooth.convert("L")


def on_white(image, alpha):
    share = np.asarray(alpha)[..., None] / 255
    return np.asarray(image.convert("RGB")) * share + 255 * (1 - share)


def with_white(image, index):
    """The image with all pixels of one value in white."""
    pixels = np.array(image.convert("RGB"))
    pixels[np.asarray(image) == index] = 255
    return pixels


@pytest.mark.parametrize(
    "dtype, kind", [("uint16", "PNG"), ("uint16", "TIFF"), ("int32", "TIFF")]
)
def test_sixteen_bits_are_scaled_to_eight(smooth, dtype, kind):
    gray = gray_of(smooth)
    values = (np.asarray(gray).astype(dtype) << 8) + 37
    shown = to_rgb(Image.open(file_of(Image.fromarray(values), kind)))
    assert shown.mode == "RGB"
    assert far_apart(shown, gray.convert("RGB")) == 0


def test_an_array_of_sixteen_bits_is_scaled_to_eight(smooth):
    gray = gray_of(smooth)
    values = np.asarray(gray).astype(np.uint16) << 8
    assert far_apart(to_rgb(values), gray.convert("RGB")) == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_shown_on_white(smooth, mode, kind):
    ramp = np.linspace(0, 255, SIZE[0]).astype(np.uint8)
    alpha = Image.fromarray(np.tile(ramp, (SIZE[1], 1)))
    image = smooth if mode == "RGBA" else gray_of(smooth)
    image = image.convert(mode)
    image.putalpha(alpha)
    options = {"lossless": True} if kind == "WEBP" else {}
    shown = to_rgb(Image.open(file_of(image, kind, **options)))
    assert far_apart(shown, on_white(image.convert("RGBA").convert("RGB"), alpha)) <= 2


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_color_of_a_palette_is_white(smooth, kind):
    palette = smooth.quantize(32)
    plain = to_rgb(Image.open(file_of(palette, kind)))
    assert far_apart(plain, palette.convert("RGB")) == 0
    shown = to_rgb(Image.open(file_of(palette, kind, transparency=3)))
    assert far_apart(shown, with_white(palette, 3)) == 0


def test_a_transparent_gray_is_white(smooth):
    gray = gray_of(smooth)
    value = gray.getpixel((0, 0))
    shown = to_rgb(Image.open(file_of(gray, "PNG", transparency=value)))
    assert far_apart(shown, with_white(gray, value)) == 0


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "F"])
def test_other_modes_become_rgb(smooth, mode):
    assert to_rgb(smooth.convert(mode)).mode == "RGB"


def test_paths_arrays_and_tensors_are_images(tmp_path, smooth):
    path = tmp_path / "a.png"
    smooth.save(path)
    pixels = np.asarray(smooth)
    for image in (path, str(path), smooth, pixels, torch.from_numpy(pixels.copy())):
        assert far_apart(to_rgb(image), smooth) == 0


@pytest.mark.parametrize("image", [None, 3, b"bytes", [1, 2]])
def test_what_is_no_image_is_an_error(image):
    with pytest.raises(TypeError, match="image must be a PIL image"):
        to_rgb(image)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0, 0.01, 0.5])
def test_broken_files_raise_what_is_caught(smooth, kind, share):
    content = file_of(smooth, kind).getvalue()
    broken = io.BytesIO(content[: int(share * len(content))])
    with pytest.raises(UNREADABLE):
        to_rgb(Image.open(broken))


@pytest.mark.parametrize("kind", ["AVIF", "QOI", "WEBP", "JPEG"])
def test_files_damaged_anywhere_raise_what_is_caught(smooth, kind):
    """Whatever the decoder of the format raises."""
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    rng = np.random.default_rng(0)
    whole = file_of(smooth, kind).getvalue()
    for number in range(100):
        content = bytearray(
            whole[: rng.integers(1, len(whole))] if number % 2 else whole
        )
        for place in rng.integers(0, len(content), 8):
            content[place] = rng.integers(256)
        try:
            to_rgb({"bytes": bytes(content), "path": None})
        except UNREADABLE:
            pass


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (0, 0)),
        Image.new("L", (5, 0)),
        Image.new("RGB", (9, 9)).crop((5, 5, 5, 9)),
        np.zeros((0, 20, 3), np.uint8),
        torch.zeros(3, 4, 0),
    ],
    ids=["RGB", "L", "crop", "array", "tensor"],
)
def test_an_image_without_pixels_is_an_error_with_its_size(image):
    with pytest.raises(ValueError, match="no pixels: .*0"):
        to_rgb(image)


def test_the_content_key_is_that_of_the_pixels(smooth):
    lossless = to_rgb(Image.open(file_of(smooth, "PNG")))
    assert content_key(lossless) == content_key(smooth)
    changed = smooth.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    assert content_key(changed) != content_key(smooth)
    flat = Image.new("RGB", (2, 8))
    assert content_key(flat) != content_key(flat.resize((8, 2)))


def with_palette(colors):
    stripes = Image.fromarray(
        np.repeat(np.arange(2, dtype=np.uint8), 24).reshape(48, 1)
    )
    stripes = stripes.resize(SIZE, Image.Resampling.NEAREST)
    image = Image.frombytes("P", SIZE, stripes.tobytes())
    image.putpalette(colors)
    return image


def transparent(image, value):
    image = image.copy()
    image.info["transparency"] = value
    return image


def pairs(smooth):
    """Images that are displayed differently although their stored values are equal."""
    palette = smooth.quantize(16)
    gray = gray_of(smooth)
    corner = int(np.asarray(palette)[0, 0])
    solid = Image.new("RGB", SIZE, (10, 20, 30))
    turned = smooth.copy()
    turned.getexif()[ORIENTATION] = 3
    return {
        "palettes": (
            with_palette([0, 0, 0, 255, 0, 0]),
            with_palette([0, 0, 0, 0, 0, 255]),
        ),
        "a transparent color of a palette": (palette, transparent(palette, corner)),
        "two transparent colors": (transparent(palette, 1), transparent(palette, 2)),
        "a transparent gray": (gray, transparent(gray, gray.getpixel((0, 0)))),
        "a transparent color": (solid, transparent(solid, (10, 20, 30))),
        "orientations": (smooth, turned),
    }


def test_images_that_are_displayed_differently_are_distinct(smooth):
    for name, (first, second) in pairs(smooth).items():
        distinct, index = distinct_images([first, second, first, first.copy()])
        assert index == [0, 1, 0, 0], name
        for image, position in zip((first, second), index, strict=False):
            assert far_apart(distinct[position], to_rgb(image)) == 0, name


def test_equal_images_share_what_is_made_of_them(tmp_path, smooth):
    smooth.save(tmp_path / "a.png")
    smooth.save(tmp_path / "b.bmp")
    images = [tmp_path / "a.png", str(tmp_path / "b.bmp"), smooth, np.asarray(smooth)]
    distinct, index = distinct_images(images)
    assert len(distinct) == 1 and index == [0] * 4
    assert distinct_images([]) == ([], [])
