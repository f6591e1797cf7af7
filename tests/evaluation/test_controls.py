"""Texts of the ground truth, and controls."""

from dataclasses import replace

import numpy as np
import pytest
from dog_photos import names_in_split, write_dogs

from hf_talking_points.data.photos import PartPoint
from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.triplets import View, make_views
from hf_talking_points.evaluation.controls import (
    describable_views,
    gray_image,
    grid_phrases,
    ground_truth_texts,
    image_centers,
    other_texts,
    text_only_points,
)


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_dogs(folder, names_in_split("test", 4))
    return make_views(list(read_objects(folder)))


def with_points(view, **changes):
    """The view with its points changed."""
    objects = []
    for annotated in view.photo.objects:
        points = tuple(replace(point, **changes) for point in annotated.points)
        objects.append(replace(annotated, points=points))
    photo = replace(view.photo, objects=tuple(objects))
    return View(photo, photo)


def test_the_writer_says_what_sources_do_not(views):
    full = ground_truth_texts(views, "full")
    assert [len(row) for row in full] == [len(view.points()) for view in views]
    assert "left eye" in full[0][0] and "dog" in full[0][0]
    assert full == ground_truth_texts(views, "full")
    assert full != ground_truth_texts(views, "full", seed=1)
    assert full != ground_truth_texts(views, "terse")


def test_texts_of_the_source_come_first(views):
    described = with_points(
        views[0], texts=(("full", "own words"), ("people", "their words"))
    )
    assert ground_truth_texts([described], "full") == [["own words"] * 3]
    assert ground_truth_texts([described], "people") == [["their words"] * 3]
    [terse] = ground_truth_texts([described], "terse")
    assert "own words" not in terse


def test_a_style_that_nobody_writes_is_an_error_that_names_the_point(views):
    with pytest.raises(
        ValueError, match=r"png, point \(20, 12\): style must be one of"
    ):
        ground_truth_texts(views, "people")


def test_points_on_no_object_need_texts_of_their_own(views):
    point = PartPoint(None, 5.0, 6.0, texts=(("people", "a spot"),))
    photo = replace(views[0].photo, objects=(), points=(point,))
    bare = View(photo, photo)
    assert ground_truth_texts([bare], "people") == [["a spot"]]
    with pytest.raises(
        ValueError, match=r"point \(5, 6\) has no text in style 'full'.*'people'"
    ):
        ground_truth_texts([bare], "full")


def test_views_keep_the_points_that_all_styles_describe(views):
    point = PartPoint(None, 5.0, 6.0, texts=(("people", "a spot"),))
    photo = replace(views[0].photo, points=(point,))
    bare = replace(photo, objects=())
    mixed = [View(photo, photo), View(bare, bare)]
    counts = {}
    for styles in (["full"], ["people"], ["people", "free"], ["people", "full"]):
        chosen = describable_views(mixed, styles)
        counts[" ".join(styles)] = [len(view.points()) for view in chosen]
    assert counts == {
        "full": [3],
        "people": [1, 1],
        "people free": [1, 1],
        "people full": [],
    }
    described = describable_views(mixed, ["people", "free"])
    assert all(text for [text] in ground_truth_texts(described, "free"))
    assert described[0].photo == photo  # landmarks of the texts


def test_another_points_text_is_a_permutation():
    texts = [["a", "b", "c"], ["d"], ["e", "f"]]
    dealt = other_texts(texts)
    assert [len(row) for row in dealt] == [3, 1, 2]
    assert dealt != texts
    assert sorted(text for row in dealt for text in row) == list("abcdef")
    assert dealt == other_texts(texts)


def test_grid_phrases_say_the_place_alone(views):
    phrases = grid_phrases(views)
    # (20, 12) of 96 x 64 pixels
    assert phrases[0][0] == "very top and left of the image"
    assert [len(row) for row in phrases] == [len(view.points()) for view in views]


def test_gray_pictures_and_centers(views):
    picture = gray_image(views[0])
    assert picture.size == (96, 64)
    assert picture.getcolors() == [(96 * 64, (127, 127, 127))]
    centers = image_centers(views)
    assert (centers == (48, 32)).all()
    assert len(centers) == sum(len(view.points()) for view in views)


def test_the_text_only_control_needs_few_photos(views):
    texts = [text for row in ground_truth_texts(views, "full") for text in row]
    found = text_only_points(texts, views, views, "full", seed=0)
    assert found.shape == (len(texts), 2)
    assert ((found > 0) & (found < (96, 64))).all()
    np.testing.assert_array_equal(
        found, text_only_points(texts, views, views, "full", seed=0)
    )
