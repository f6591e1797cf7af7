"""Reading annotated photos, the split by photo, and views whose annotation moves with the pixels."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_talking_points.data.sources import (
    AnnotatedObject,
    PartPoint,
    Photo,
    mirrored_part,
    random_view,
    read_objects,
    split_of,
    view,
    view_image,
)

ROW = {"image": "images/a.png", "size": [40, 20], "category": "dog", "object_box": [1, 2, 30, 18], "points": [["left_eye", 5, 6]]}


def write(folder, *lines):
    (folder / "objects.jsonl").write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return folder


def test_objects_of_one_photo_come_together(tmp_path):
    wheel = ["wheel", 7, 8, [5, 6, 9, 10]]
    folder = write(tmp_path, ROW, {**ROW, "image": "images/b.png"}, {**ROW, "category": "cat", "points": [wheel, ["nose", 99, 3]]})
    photos = read_objects(folder)
    assert [p.id for p in photos] == ["images/a.png", "images/b.png"]
    dog, cat = photos[0].objects
    assert (dog.category, cat.category) == ("dog", "cat") and dog.points == (PartPoint("left_eye", 5.0, 6.0),)
    assert cat.points == (PartPoint("wheel", 7.0, 8.0, (5, 6, 9, 10)),)  # the nose lies outside the photo


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 2: JSONDecodeError"),
        ({**ROW, "size": [40]}, "line 2: ValueError"),
        ({k: v for k, v in ROW.items() if k != "object_box"}, "line 2: KeyError: 'object_box'"),
        ({**ROW, "points": [["left_eye", "x", 6]]}, "line 2"),
        ({**ROW, "points": 3}, "line 2: TypeError"),
    ],
)
def test_what_does_not_fit_names_its_line(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        read_objects(write(tmp_path, ROW, line))


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="objects.jsonl"):
        read_objects(tmp_path)


def test_split_is_that_of_the_published_rule():
    ids = [f"images/{i}.jpg" for i in range(4000)]
    shares = {split: sum(split_of(i) == split for i in ids) / len(ids) for split in ("train", "validation", "test")}
    assert abs(shares["test"] - 26 / 256) < 0.02 and abs(shares["validation"] - 13 / 256) < 0.02
    # sha1("images/2007_000063.jpg") starts with 0x64
    assert split_of("images/2007_000063.jpg") == "train"


def marked_photo(x, y, size):
    """A black image with one white pixel, and its annotation at the centre of that pixel."""
    image = Image.new("RGB", size)
    image.putpixel((x, y), (255, 255, 255))
    point = PartPoint("left_eye", x + 0.5, y + 0.5, (x, y, x + 1, y + 1))
    return Photo("a", "a", size, (AnnotatedObject("dog", (0, 0, *size), (point,)),)), image


@given(st.data())
def test_annotation_moves_with_the_pixels(data):
    width, height = data.draw(st.integers(4, 60)), data.draw(st.integers(4, 60))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    photo, image = marked_photo(x, y, (width, height))
    crop, mirror = random_view(photo, np.random.default_rng(data.draw(st.integers(0, 2**31))))
    moved, pixels = view(photo, crop, mirror), np.asarray(view_image(image, crop, mirror))
    assert moved.size == (pixels.shape[1], pixels.shape[0])
    [point] = moved.objects[0].points  # the crop is drawn around it
    assert pixels[int(point.y), int(point.x)].tolist() == [255, 255, 255]
    assert point.box == (point.x - 0.5, point.y - 0.5, point.x + 0.5, point.y + 0.5)
    assert point.part == ("right_eye" if mirror else "left_eye")


def test_what_a_crop_leaves_out_is_dropped():
    far = AnnotatedObject("cat", (50, 50, 60, 60), (PartPoint("nose", 55, 55),))
    near = AnnotatedObject("dog", (5, 5, 40, 40), (PartPoint("nose", 10, 10), PartPoint("tailbase", 35, 35)))
    moved = view(Photo("a", "a", (64, 64), (far, near)), (0, 0, 20, 20))
    [annotated] = moved.objects
    assert annotated.box == (5, 5, 20, 20) and [p.part for p in annotated.points] == ["nose"]


def test_mirrored_names():
    assert mirrored_part("left_front_paw") == "right_front_paw" and mirrored_part("front_right_door") == "front_left_door"
    assert mirrored_part("nose") == "nose"
