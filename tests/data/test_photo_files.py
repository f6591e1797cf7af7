"""What is stored of a photo's file: the same picture, and nothing that tells of its owner."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from hf_talking_points.data.photo_files import shareable_file
from hf_talking_points.models.images import to_rgb

SECRET = b"Jane Doe, 12 Sample Street"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "MPO": ("RGB",),
    "PNG": ("RGB", "RGBA", "L", "P", "1"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "L", "CMYK"),
    "GIF": ("P",),
    "BMP": ("RGB",),
}
KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


def picture(mode="RGB"):
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return (
        Image.fromarray(noise).resize((51, 37), Image.Resampling.BICUBIC).convert(mode)
    )


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x013B] = SECRET.decode()
    exif.get_ifd(0x8769)[0xA431] = SECRET.decode()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 12.345)})
    return exif


def telling_file(kind, mode, orientation=1, **options):
    """An image file with all that its format can hold beside the picture."""
    if kind in ("JPEG", "MPO", "GIF"):
        options["comment"] = SECRET
    if kind in ("JPEG", "WEBP"):
        options["xmp"] = b"<x:xmpmeta>" + SECRET + b"</x:xmpmeta>"
    if kind == "MPO":
        options["save_all"] = True
        options["append_images"] = [picture(mode)]
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Author", SECRET.decode())
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", SECRET.decode())
    file = io.BytesIO()
    picture(mode).save(file, kind, exif=exif_of(orientation), **options)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO file")
@pytest.mark.parametrize("orientation", [1, 2, 6])
@pytest.mark.parametrize("kind, mode", KINDS)
def test_the_picture_stays_and_nothing_else(kind, mode, orientation):
    trailing = b"" if kind in ("TIFF", "GIF", "BMP") else SECRET
    content = telling_file(kind, mode, orientation) + trailing
    if kind != "BMP":
        assert SECRET in content
    stored, _ = shareable_file(io.BytesIO(content), "a.img")
    assert SECRET not in stored
    with Image.open(io.BytesIO(stored)) as image:
        assert not image.getexif()
        assert not {"xmp", "comment", "Author", "XML:com.adobe.xmp"} & set(image.info)
        assert np.array_equal(to_rgb(image), to_rgb(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}]
)
def test_a_jpeg_file_is_not_compressed_again(options):
    plain = io.BytesIO()
    picture().save(plain, "JPEG", **options)
    content = telling_file("JPEG", "RGB", **options)
    stored, name = shareable_file(io.BytesIO(content), "a.jpg")
    assert stored == plain.getvalue()
    assert name == "a.jpg"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_tells_nothing_stays_as_it_is(tmp_path, kind):
    picture().save(tmp_path / "a.img", kind)
    stored, name = shareable_file(str(tmp_path / "a.img"), "a.img")
    assert stored == (tmp_path / "a.img").read_bytes()
    assert name == "a.img"


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_color_profile_stays(kind, orientation):
    content = telling_file(kind, "RGB", orientation, icc_profile=PROFILE)
    stored, _ = shareable_file(io.BytesIO(content), "a.img")
    with Image.open(io.BytesIO(stored)) as image:
        assert image.info["icc_profile"] == PROFILE


def test_a_turned_photo_is_stored_as_it_is_displayed():
    content = telling_file("JPEG", "RGB", 6)
    stored, name = shareable_file(io.BytesIO(content), "photo.jpg")
    assert name == "photo.png"
    with Image.open(io.BytesIO(stored)) as image:
        assert image.format == "PNG"
        assert image.size == (37, 51)


def test_of_an_animation_the_first_picture_stays():
    file = io.BytesIO()
    frames = [picture(), picture().rotate(180)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    stored, name = shareable_file(file, "a.webp")
    assert name == "a.png"
    with Image.open(io.BytesIO(stored)) as image:
        assert np.array_equal(to_rgb(image), picture())


def test_a_preview_in_the_head_of_a_jpeg_file_goes():
    file = io.BytesIO()
    picture().save(file, "JPEG")
    plain = file.getvalue()
    assert plain[2:4] == b"\xff\xe0"
    preview = bytes([1, 1]) + b"\x10\x20\x30"  # one pixel
    body = plain[6:18] + preview
    head = plain[:4] + (2 + len(body)).to_bytes(2, "big") + body
    stored, _ = shareable_file(io.BytesIO(head + plain[20:]), "a.jpg")
    assert stored == plain
