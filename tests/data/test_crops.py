"""Crops, whose annotation moves with the pixels."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_talking_points.data.crops import crop_image, crop_photo, random_crop
from hf_talking_points.data.photos import AnnotatedObject, Part, PartPoint, Photo


def marked_photo(x, y, size):
    """A black image with one white pixel, and its annotation at the center of that pixel, on an object and on none."""
    image = Image.new("RGB", size)
    image.putpixel((x, y), (255, 255, 255))
    point = PartPoint("left eye", x + 0.5, y + 0.5, (x, y, x + 1, y + 1))
    free = PartPoint(None, x + 0.5, y + 0.5)
    dog = AnnotatedObject("dog", (0, 0, *size), (point,))
    return Photo("a", "a", size, (dog,), points=(free,)), image


@given(st.data())
def test_annotation_moves_with_the_pixels(data):
    width, height = data.draw(st.integers(4, 60)), data.draw(st.integers(4, 60))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    photo, image = marked_photo(x, y, (width, height))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    crop, mirror = random_crop(photo, rng)
    moved = crop_photo(photo, crop, mirror)
    pixels = np.asarray(crop_image(image, crop, mirror))
    assert moved.size == (pixels.shape[1], pixels.shape[0])
    [point] = moved.objects[0].points  # the crop is drawn around it
    [free] = moved.points
    assert pixels[int(point.y), int(point.x)].tolist() == [255, 255, 255]
    assert (free.part, free.x, free.y) == (None, point.x, point.y)
    assert point.box == (point.x - 0.5, point.y - 0.5, point.x + 0.5, point.y + 0.5)
    assert point.part == ("right eye" if mirror else "left eye")


def test_mirroring_twice_gives_the_photo_again():
    photo, _ = marked_photo(3, 4, (20, 10))
    assert crop_photo(crop_photo(photo, mirror=True), mirror=True) == photo


def test_what_a_crop_leaves_out_is_dropped():
    far = AnnotatedObject("cat", (50, 50, 60, 60), (PartPoint("nose", 55, 55),))
    points = (PartPoint("nose", 10, 10), PartPoint("tail base", 35, 35))
    near = AnnotatedObject("dog", (5, 5, 40, 40), points)
    free = (PartPoint(None, 19, 3), PartPoint(None, 3, 21))
    photo = Photo("a", "a", (64, 64), (far, near), points=free)
    moved = crop_photo(photo, (0, 0, 20, 20))
    [annotated] = moved.objects
    assert annotated.box == (5, 5, 20, 20)
    assert [point.part for point in annotated.points] == ["nose"]
    assert moved.points == (PartPoint(None, 19, 3),)


def test_texts_that_speak_of_the_whole_photo_are_dropped_from_a_crop():
    texts = (("full", "The nose on the left."), ("mine", "Nose, left of the ball."))
    point = PartPoint("nose", 10, 10, texts=texts)
    free = PartPoint(None, 5, 5, texts=texts)
    dog = AnnotatedObject("dog", (5, 5, 40, 40), (point,))
    photo = Photo("a", "a", (64, 64), (dog,), points=(free,))

    def seen(crop, mirror):
        moved = crop_photo(photo, crop, mirror)
        assert moved.objects[0].points[0].texts == moved.points[0].texts
        return moved.points[0].texts

    assert seen((0, 0, 20, 20), False) == (("mine", "Nose, left of the ball."),)
    assert seen((0, 0, 20, 20), True) == (("mine", "Nose, right of the ball."),)
    mirrored = (
        ("full", "The nose on the right."),
        ("mine", "Nose, right of the ball."),
    )
    assert seen(None, True) == seen((0, 0, 64, 64), True) == mirrored
    assert seen(None, False) == texts


def test_a_mask_moves_with_the_pixels():
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = rng.integers(4, 30, 2).tolist()
        x1, y1 = rng.uniform(0, width - 2), rng.uniform(0, height - 2)
        x2, y2 = rng.uniform(x1 + 1, width), rng.uniform(y1 + 1, height)
        whole = np.zeros((height, width), bool)
        inside = np.s_[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
        whole[inside] = rng.random(whole[inside].shape) < 0.5
        part = Part("left ear", (x1, y1, x2, y2), whole[inside])
        dog = AnnotatedObject("dog", (0, 0, width, height), (), (part,))
        photo = Photo("a", "a", (width, height), (dog,))
        crop, mirror = random_crop(photo, rng)
        moved = crop_photo(photo, crop, mirror)
        expected = whole[crop[1] : crop[3], crop[0] : crop[2]]
        expected = expected[:, ::-1] if mirror else expected
        box_width = min(x2, crop[2]) - max(x1, crop[0])
        box_height = min(y2, crop[3]) - max(y1, crop[1])
        if min(box_width, box_height) < 1 or not expected.any():
            assert not any(annotated.parts for annotated in moved.objects)
            continue
        [seen] = moved.objects[0].parts
        left, top, right, bottom = seen.pixel_box
        found = np.zeros_like(expected)
        found[top:bottom, left:right] = seen.mask
        assert (found == expected).all()
        assert seen.name == ("right ear" if mirror else "left ear")
        shown = (seen.box[2] - seen.box[0], seen.box[3] - seen.box[1])
        assert np.allclose(shown, (box_width, box_height))


def test_a_part_of_which_less_than_a_pixel_is_seen_is_dropped():
    parts = (Part("ear", (0, 0, 10.5, 10)), Part("tail", (5, 5, 20, 20)))
    dog = AnnotatedObject("dog", (0, 0, 30, 30), (), parts)
    moved = crop_photo(Photo("a", "a", (30, 30), (dog,)), (10, 0, 30, 30))
    [seen] = moved.objects[0].parts
    assert (seen.name, seen.box, seen.mask) == ("tail", (0, 5, 10, 20), None)


def test_a_crop_of_a_photo_without_points_is_drawn_around_its_center():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        (left, top, right, bottom), _ = random_crop(Photo("a", "a", (64, 48), ()), rng)
        assert 0 <= left <= 32 <= right <= 64
        assert 0 <= top <= 24 <= bottom <= 48
