"""Triplets drawn from views of annotated photos."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hf_talking_points.data.crops import shows_nearly_all
from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.data.triplets import (
    TextCount,
    count_texts,
    make_views,
    sample_triplets,
    surrounding_point,
)

SIZE = (60, 40)
DOG_BOX = (2, 2, 20, 20)
PARTS = {"left eye", "nose", "tail base"}


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", SIZE, "red").save(tmp_path / "a.png")
    points = (
        PartPoint("left eye", 8, 8),
        PartPoint("nose", 10, 12),
        PartPoint("tail base", 18, 15),
    )
    dog = AnnotatedObject("dog", DOG_BOX, points)
    return Photo("a.png", str(tmp_path / "a.png"), SIZE, (dog,))


@pytest.fixture
def free_photo(photo):
    """The photo with points on no object, one of them described."""
    texts = (("short", "A stone."), ("long", "A gray stone on the right."))
    points = (PartPoint(None, 50, 30, texts=texts), PartPoint("handle", 30, 35))
    return replace(photo, objects=(), points=points)


def rng(seed=0):
    return np.random.default_rng(seed)


def keys(views):
    return [view.key for view in views]


def test_views_are_seeded_and_hold_points(photo):
    views = make_views([photo], views_per_photo=5, seed=3)
    assert views[0].crop is None and views[0].photo is photo
    assert (
        keys(views)
        == keys(make_views([photo], 5, 3))
        != keys(make_views([photo], 5, 4))
    )
    assert len(set(keys(views))) == len(views)
    for view in views:
        assert view.points()
        assert view.image().size == view.photo.size


def test_a_view_is_told_apart_by_content_not_by_name(photo, tmp_path):
    shutil.copy(photo.path, tmp_path / "b.png")
    Image.new("RGB", SIZE, "blue").save(tmp_path / "c.png")
    renamed = replace(photo, id="b.png", path=str(tmp_path / "b.png"))
    other = replace(photo, path=str(tmp_path / "c.png"))
    same, again, different = keys(make_views([photo, renamed, other]))
    assert same == again != different


def test_points_on_no_object_are_points_of_the_view(photo, free_photo):
    mixed = replace(photo, points=free_photo.points)
    [view] = make_views([mixed])
    owners = [owner for owner, _ in view.points()]
    assert owners == [photo.objects[0]] * 3 + [None] * 2
    assert make_views([replace(photo, objects=())]) == []


def test_every_annotated_point_comes_before_any_comes_twice(photo):
    [view] = make_views([photo])
    points, texts, sources = sample_triplets(view, 6, rng())
    parts = [point.part for _, point in sources]
    assert set(parts[:3]) == set(parts[3:]) == PARTS
    for place, text, (_, point) in zip(points, texts, sources, strict=True):
        assert place == (point.x, point.y)
        assert "dog" in text and "red, smooth spot" in text


def test_styles_are_drawn_by_weight(photo):
    [view] = make_views([photo])
    _, texts, _ = sample_triplets(view, 300, rng(), {"full": 0.75, "terse": 0.25})
    terse = [text for text in texts if len(text) < 40]
    assert 0.15 < len(terse) / 300 < 0.35


def with_texts(photo, *texts):
    [dog] = photo.objects
    points = tuple(replace(point, texts=texts) for point in dog.points)
    return replace(photo, objects=(replace(dog, points=points),))


def test_without_styles_the_texts_of_a_point_are_as_likely(photo):
    texts = (("short", "One."), ("short", "Two."), ("long", "Three."))
    [view] = make_views([with_texts(photo, *texts)])
    _, found, _ = sample_triplets(view, 600, rng())
    assert set(found) == {"One.", "Two.", "Three."}
    for text in set(found):
        assert 150 < found.count(text) < 250


def test_without_texts_and_styles_the_writer_says_all(photo):
    [view] = make_views([photo])
    given = sample_triplets(view, 9, rng(), {"full": 1.0})
    assert sample_triplets(view, 9, rng()) == given


def test_a_text_of_the_style_is_taken_where_there_is_one(photo):
    [view] = make_views([with_texts(photo, ("short", "One."), ("short", "Two."))])
    _, short, _ = sample_triplets(view, 40, rng(), {"short": 1.0})
    assert set(short) == {"One.", "Two."}
    _, full, _ = sample_triplets(view, 9, rng(), {"full": 1.0})
    _, unknown, _ = sample_triplets(view, 9, rng(), {"rich": 1.0})
    for text in full + unknown:
        assert "dog" in text and "red, smooth spot" in text


ON_THE_LEFT = "A dog on the left."


def test_a_style_of_the_source_is_drawn_for_points_that_have_it(photo):
    told = replace(photo.objects[0].points[1], texts=(("rich", "Its wet nose."),))
    others = photo.objects[0].points[::2]
    dog = replace(photo.objects[0], points=(*others, told))
    [view] = make_views([replace(photo, objects=(dog,))])
    _, texts, sources = sample_triplets(view, 40, rng(), {"rich": 1, "terse": 1})
    is_rich = [text == "Its wet nose." for text in texts]
    assert 10 < sum(is_rich) < 30
    assert all(source[1] == told for source, rich in zip(sources, is_rich) if rich)
    # the writer's style comes for all points
    terse = {source[1].part for source, rich in zip(sources, is_rich) if not rich}
    assert terse == PARTS


def test_a_style_that_no_point_has_is_not_drawn_beside_others(photo):
    [view] = make_views([photo])
    _, texts, _ = sample_triplets(view, 20, rng(), {"rich": 9, "terse": 1})
    # "full", which stands for unknown styles, is longer
    assert all(len(text) < 40 for text in texts)


def is_small(view):
    return view.crop is not None and not shows_nearly_all(view.crop, view.source.size)


def test_texts_of_the_whole_photo_are_not_those_of_a_small_crop(photo, free_photo):
    for described in (with_texts(photo, ("full", ON_THE_LEFT)), free_photo):
        whole, *crops = make_views([described], views_per_photo=8)
        assert any(point.texts for _, point in whole.points())
        small = [crop for crop in crops if is_small(crop)]
        assert small
        for crop in small:
            _, texts, _ = sample_triplets(crop, 6, rng())
            assert not {ON_THE_LEFT, "A gray stone on the right."} & set(texts)


def test_half_of_the_crops_show_nearly_all_and_keep_its_texts(photo):
    described = with_texts(photo, ("full", ON_THE_LEFT))
    _, *crops = make_views([described], views_per_photo=80)
    large = [crop for crop in crops if not is_small(crop)]
    assert 25 < len(large) < 55
    assert {crop.mirror for crop in large} == {False, True}
    for crop in large:
        _, texts, _ = sample_triplets(crop, 3, rng())
        side = "right" if crop.mirror else "left"
        assert set(texts) == {f"A dog on the {side}."}


def test_texts_that_stay_true_come_along_on_crops(photo):
    described = with_texts(photo, ("full", "Right under the left ear."))
    _, *crops = make_views([described], views_per_photo=4)
    for crop in crops:
        _, texts, _ = sample_triplets(crop, 6, rng())
        side = "right" if crop.mirror else "left"
        assert set(texts) == {f"Right under the {side} ear."}


def test_points_without_facts_have_their_texts(free_photo):
    [view] = make_views([free_photo])
    for weights in (None, {"full": 1.0}):
        points, texts, sources = sample_triplets(view, 40, rng(), weights)
        described = set()
        for place, text, (owner, point) in zip(points, texts, sources, strict=True):
            assert owner is None and place == (point.x, point.y)
            if point.texts:
                described.add(text)
            else:
                assert "of the image" in text and "red, smooth spot" in text
        assert described == {"A stone.", "A gray stone on the right."}
    _, texts, _ = sample_triplets(view, 40, rng(), {"short": 1.0})
    assert "A stone." in texts and "A gray stone on the right." not in texts


def test_a_point_of_an_object_without_a_part_is_described_by_its_place(photo):
    [dog] = photo.objects
    unnamed = replace(dog, points=(PartPoint(None, 8, 8),))
    [view] = make_views([replace(photo, objects=(unnamed,))])
    _, [text], [(owner, _)] = sample_triplets(view, 1, rng())
    assert owner is unnamed and "of the image" in text and "dog" not in text


def test_surroundings_lie_beside_all_objects(photo):
    [view] = make_views([photo])
    points, texts, sources = sample_triplets(view, 200, rng(), surroundings=0.5)
    beside = 0
    for (x, y), text, source in zip(points, texts, sources, strict=True):
        if source is None:
            beside += 1
            assert x >= 26 or y >= 24
            assert 0 <= x <= 60 and 0 <= y <= 40
            assert "dog" not in text
    assert 60 < beside < 140


def test_a_photo_filled_by_its_object_has_no_surroundings(photo):
    filled = replace(photo, objects=(replace(photo.objects[0], box=(0, 0, 60, 40)),))
    assert surrounding_point(filled, rng()) is None
    [view] = make_views([filled])
    _, _, sources = sample_triplets(view, 10, rng(), surroundings=1.0)
    assert None not in sources


def test_free_texts_tell_any_point_from_its_surroundings(free_photo):
    [view] = make_views([free_photo])
    _, texts, _ = sample_triplets(view, 10, rng(), {"free": 0.5, "brief": 0.5})
    assert not {"A stone.", "A gray stone on the right."} & set(texts)
    assert all("red" in text for text in texts)


def test_a_point_that_cannot_be_described_anew_is_on_no_small_crop(photo, free_photo):
    [dog] = with_texts(photo, ("full", ON_THE_LEFT)).objects
    nameless = PartPoint(None, 9, 9, texts=(("full", "A speck at the top."),))
    bare = PartPoint(None, 12, 9)
    dog = replace(dog, points=(*dog.points, nameless, bare))
    mixed = replace(free_photo, objects=(dog,))
    whole, *views = make_views([mixed], views_per_photo=12)
    assert len(whole.points()) == 7
    crops = [view for view in views if is_small(view)]
    assert crops
    for crop in crops:
        for owner, point in crop.points():
            assert point.texts in ((), (("short", "A stone."),))
            assert point.part is not None or owner is not None or point.texts
            assert owner is None or len(owner.points) <= 4


def test_the_texts_of_views_are_counted(photo, free_photo):
    one = with_texts(photo, ("full", ON_THE_LEFT))
    short, long = free_photo.points[0].texts
    lost = replace(free_photo.points[0], texts=(long,))
    free_photo = replace(free_photo, points=(lost, free_photo.points[1]))
    views = make_views([one, free_photo], views_per_photo=6)
    views = views[:2] + [view for view in views if is_small(view)]
    on_crops = sum(len(view.points()) for view in views[2:])
    assert on_crops
    counted = count_texts(views, None)
    assert counted == TextCount(4, 4, on_crops, 1, 1)
    assert counted.total == 4 + on_crops + 1
    both = count_texts(views, {"full": 0.5, "terse": 0.5, "unseen": 0.0})
    # the described stone has no facts, so that it gets its own texts in every style
    assert both == TextCount(4, 3 + 2, 2 * on_crops, 3 + 2, 1)
    assert count_texts(make_views([photo]), None).described == 0


def test_texts_on_crops_are_counted(photo):
    one = with_texts(photo, ("full", "The ear."))
    views = make_views([one], views_per_photo=3)
    points = sum(len(view.points()) for view in views)
    assert count_texts(views, None) == TextCount(3, points, 0, 0, 0)


def test_the_points_of_a_view_can_be_described_in_its_styles(photo, free_photo):
    mixed = replace(photo, points=free_photo.points)
    [view] = make_views([mixed])

    def count(*styles):
        return len(replace(view, styles=styles).points())

    assert count("full") == count("free") == count("full", "free") == 3
    assert count("short") == count("short", "free") == count("short", "long") == 1
    assert count("short", "full") == count("nobody") == 0


def test_the_photo_is_opened_only_where_the_writer_has_to_look(photo):
    opened = []

    def image():
        opened.append(1)
        return Image.open(photo.path)

    [told] = make_views([with_texts(photo, ("full", "One."))])
    sample_triplets(told, 6, rng(), image=image)
    assert not opened
    sample_triplets(told, 6, rng(), {"terse": 1.0}, image=image)
    assert len(opened) == 1
    sample_triplets(told, 40, rng(), surroundings=0.5, image=image)
    assert len(opened) == 2
