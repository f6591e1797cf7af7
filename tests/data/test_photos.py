"""The record of annotated photos: splits, files, sizes, and what of an annotation lies on the photo."""

import io
import pickle
import zipfile

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_talking_points.data.photos import (
    AnnotatedObject,
    Part,
    PartPoint,
    Photo,
    clip_box,
    leave_out,
    reject,
    split_of,
    usable_photo,
)

SIZE = (64, 48)
SIDE = st.floats(-200, 200, allow_nan=False)
LENGTH = st.floats(0.01, 200)


def noise(size=SIZE, seed=0):
    width, height = size
    values = np.random.default_rng(seed).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    return Image.fromarray(values)


def file_of(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def test_split_is_that_of_the_published_rule():
    splits = [split_of(f"images/{number}.jpg") for number in range(4000)]
    assert abs(splits.count("test") / 4000 - 26 / 256) < 0.02
    assert abs(splits.count("validation") / 4000 - 13 / 256) < 0.02
    # sha1("images/2007_000063.jpg") starts with 0x64
    assert split_of("images/2007_000063.jpg") == "train"


@pytest.mark.parametrize(
    "given_split, split",
    [
        ("train", "train"),
        ("val", "validation"),
        ("validation", "validation"),
        ("test", "test"),
        (None, split_of("a")),
    ],
)
def test_a_given_split_is_kept(given_split, split):
    assert Photo("a", "a", (1, 1), (), given_split).split == split


def test_another_split_is_an_error():
    with pytest.raises(ValueError, match="'dev'"):
        Photo("a", "a", (1, 1), (), "dev")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_broken_file_is_named(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    noise().save(path)
    photo = Photo(f"a.{ending}", str(path), SIZE, ())
    assert photo.open().size == photo.displayed_size() == SIZE
    content = path.read_bytes()
    for length in (len(content) // 2, 10, 0):
        path.write_bytes(content[:length])
        with pytest.raises(OSError, match=rf"a\.{ending} cannot be read as an image"):
            photo.open()
    with pytest.raises(OSError, match=rf"a\.{ending} cannot be read as an image"):
        photo.displayed_size()
    path.unlink()
    for read in (photo.open, photo.displayed_size):
        with pytest.raises(FileNotFoundError, match=rf"a\.{ending}"):
            read()


@pytest.mark.parametrize("size", [(128, 96), (32, 24), (64, 96), (48, 64)])
def test_another_size_than_the_stated_one_is_an_error(tmp_path, size):
    noise(size).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: its annotation states \(64, 48\)"):
        Photo("a", str(tmp_path / "a.png"), SIZE, ()).open()


def test_the_stated_size_is_that_of_the_turned_photo(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise().save(tmp_path / "a.jpg", exif=exif)
    path = str(tmp_path / "a.jpg")
    assert Photo("a", path, (48, 64), ()).open().size == (48, 64)
    with pytest.raises(ValueError, match="but as displayed it has"):
        Photo("a", path, SIZE, ()).open()


def test_a_photo_is_its_content_whatever_it_is_called(tmp_path):
    noise().save(tmp_path / "a.png")
    noise().save(tmp_path / "b.bmp")
    noise(seed=1).save(tmp_path / "c.png")
    keys = []
    for name in ("a.png", "b.bmp", "c.png"):
        keys.append(Photo(name, str(tmp_path / name), SIZE, ()).content_key)
    assert keys[0] == keys[1] != keys[2]


def test_an_image_may_be_stored_in_many_ways(tmp_path):
    image = noise()
    image.save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    stored = {"bytes": file_of(image), "path": None}
    rows = datasets.Dataset.from_dict({"image": [stored]})
    photos = [
        Photo("a", str(tmp_path / "a.png"), SIZE, ()),
        Photo("a", None, SIZE, (), row=(rows, 0)),
        Photo("a", None, SIZE, (), stored=stored),
        Photo(
            "a", None, SIZE, (), stored={"bytes": None, "path": str(tmp_path / "a.png")}
        ),
        Photo("a", None, SIZE, (), stored=image),
        Photo(
            "a",
            None,
            SIZE,
            (),
            stored={"bytes": None, "path": f"zip://a.png::{tmp_path / 'all.zip'}"},
        ),
    ]
    for photo in photos:
        for copied in (photo, pickle.loads(pickle.dumps(photo))):
            assert copied.open().tobytes() == image.tobytes()
            assert copied.displayed_size() == SIZE
            assert Image.open(copied.file()).tobytes() == image.tobytes()


def test_a_photo_without_an_image_is_an_error():
    with pytest.raises(ValueError, match="a has neither a path nor a stored image"):
        Photo("a", None, SIZE, ()).open()


def test_a_mask_must_fit_its_box():
    part = Part("ear", (1.2, 2, 3.1, 4.9), np.ones((3, 3), bool))
    assert part.pixel_box == (1, 2, 4, 5)
    for mask in (np.ones((2, 3), bool), np.ones((3, 3), np.uint8)):
        with pytest.raises(ValueError, match="'ear'.*expected bool of shape"):
            Part("ear", (1.2, 2, 3.1, 4.9), mask)


@given(SIDE, SIDE, LENGTH, LENGTH)
def test_a_clipped_box_is_what_lies_on_the_photo(x1, y1, box_width, box_height):
    width, height = SIZE
    x2 = x1 + box_width
    y2 = y1 + box_height
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        with pytest.raises(
            ValueError, match="lies outside the photo of 64 x 48 pixels"
        ):
            clip_box((x1, y1, x2, y2), SIZE)
        return
    left, top, right, bottom = clip_box((x1, y1, x2, y2), SIZE)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert (left, right) == (max(x1, 0), min(x2, width))
    assert (top, bottom) == (max(y1, 0), min(y2, height))
    assert clip_box((left, top, right, bottom), SIZE) == (left, top, right, bottom)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 5, 9), (1, 1, float("nan"), 9)])
def test_a_box_without_area_is_an_error(box):
    with pytest.raises(ValueError, match="has no area"):
        clip_box(box, SIZE)


def records_of(photo):
    """The photo as it can be used, and what is rejected of it."""
    records = []

    def on_reject(image_id, reason):
        records.append((image_id, reason))

    return usable_photo(photo, on_reject), records


def test_what_lies_beside_the_photo_is_rejected_alone():
    dog = AnnotatedObject(
        "dog",
        (-6, 4, 70, 30),
        points=(
            PartPoint("nose", 5, 6, (-2, 4, 8, 9)),
            PartPoint("ear", 70, 6),
            PartPoint("tail", 6, 6, (80, 1, 90, 9)),
        ),
        parts=(Part("head", (10, -5, 20, 9)), Part("paw", (10, 50, 20, 60))),
    )
    cat = AnnotatedObject("cat", (70, 4, 90, 30), (PartPoint("nose", 5, 6),))
    free = (PartPoint(None, 1, 2), PartPoint(None, -1, 2))
    photo, records = records_of(Photo("a", "a", SIZE, (dog, cat), points=free))
    [left] = photo.objects
    assert left.box == (0, 4, 64, 30)
    assert left.points == (PartPoint("nose", 5, 6, (0, 4, 8, 9)),)
    assert [(part.name, part.box) for part in left.parts] == [("head", (10, 0, 20, 9))]
    assert photo.points == (PartPoint(None, 1, 2),)
    assert [reason.partition(" ")[0] for _, reason in records] == [
        "ear:",
        "tail:",
        "paw:",
        "cat:",
        "point:",
    ]
    assert {image_id for image_id, _ in records} == {"a"}


def test_a_photo_without_anything_is_left_out_with_its_reason():
    bare = Photo("a", "a", SIZE, (AnnotatedObject("dog", (1, 1, 9, 9)),))
    photo, records = records_of(bare)
    assert photo is None
    assert records == [
        ("a", "no point and no part is annotated on it that could be used")
    ]
    assert usable_photo(bare, reject) is None  # usual, so that a strict reading goes on


def test_points_on_no_object_are_enough():
    photo = Photo("a", "a", SIZE, (), points=(PartPoint(None, 1, 2),))
    assert usable_photo(photo, reject) == photo


def test_rejecting_raises_and_leaving_out_does_not():
    with pytest.raises(ValueError, match="a.png: no box"):
        reject("a.png", "no box")
    leave_out(reject, "a.png", "no keypoint")
