"""Describers and localizers over the points of views, with and without a cache, pipelines among them."""

from contextlib import closing

import numpy as np
import pytest
from dog_photos import Oracle, codes, names_in_split, write_dogs
from transformers import pipeline

from hf_talking_points.data.photos import PartPoint, Photo
from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.triplets import View, make_views
from hf_talking_points.evaluation.answer_cache import AnswerCache
from hf_talking_points.evaluation.describers import CheckpointDescriber
from hf_talking_points.evaluation.round_trip import (
    describe_points,
    locate_points,
    naming_accuracy,
    true_points,
    view_distances,
)
from hf_talking_points.metrics import summary


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_dogs(folder, names_in_split("test", 6))
    return make_views(list(read_objects(folder)))


@pytest.fixture(scope="module")
def describer_folder(make_descriptor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-descriptor"
    for part in make_descriptor():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def locate(make_localizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-localizer"
    for part in make_localizer(head="heatmap"):
        part.save_pretrained(folder)
    return pipeline("point-localization", model=str(folder))


@pytest.fixture
def cache(tmp_path):
    with closing(AnswerCache(tmp_path / "answers.sqlite")) as cache:
        yield cache


def number_of_points(views):
    return sum(len(view.points()) for view in views)


def test_an_oracle_gets_everything_right_and_is_asked_once(views, cache):
    texts = codes(views)
    oracle = Oracle(views, texts)
    for _ in range(2):
        found = locate_points(oracle, views, texts, cache)
        distances = view_distances(views, found)
        assert (distances == 0).all()
        assert summary(distances)["mpck"] == 100
    assert oracle.asked == len(distances) == number_of_points(views)
    assert len(cache.seconds["oracle"]) == 2 * oracle.asked


def test_without_a_cache_everything_is_asked_anew(views):
    texts = codes(views)
    oracle = Oracle(views, texts)
    for _ in range(2):
        assert (view_distances(views, locate_points(oracle, views, texts)) == 0).all()
    assert oracle.asked == 2 * number_of_points(views)


@pytest.mark.parametrize("with_cache", [True, False])
def test_texts_that_are_empty_are_misses_and_never_asked(views, cache, with_cache):
    texts = codes(views)
    oracle = Oracle(views, texts)
    texts[0][0] = ""
    texts[1] = [" "] * len(texts[1])
    found = locate_points(oracle, views, texts, cache if with_cache else None)
    missed = np.isnan(found).any(axis=1)
    assert missed.sum() == 1 + len(texts[1]) == number_of_points(views) - oracle.asked
    assert missed[0] and not missed[1]


@pytest.mark.parametrize("refused", ["", "<SEG>", "the nose " * 400])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_pipeline_locates_around_refused_texts(views, locate, refused, batch_size):
    texts = codes(views)
    whole = locate_points(locate, views, texts, batch_size=batch_size)
    texts[0][1] = refused
    texts[1] = [refused] * len(texts[1])
    found = locate_points(locate, views, texts, batch_size=batch_size)
    missed = np.arange(len(found)) == 1
    missed[len(texts[0]) : len(texts[0]) + len(texts[1])] = True
    assert np.isnan(found[missed]).all()
    np.testing.assert_allclose(found[~missed], whole[~missed], atol=1e-3)
    assert (view_distances(views, found)[missed] >= 0.5**0.5).all()


def test_a_pipeline_that_takes_no_text_at_all(views, locate):
    texts = [["" for _ in view.points()] for view in views]
    assert np.isnan(locate_points(locate, views, texts)).all()


def test_a_localizer_may_be_shown_another_image(views):
    shown = []

    class Watcher:
        name = fingerprint = "watcher"

        def __call__(self, image, texts):
            shown.append(image.size)
            return np.zeros((len(texts), 2))

    locate_points(
        Watcher(), views, codes(views), image=lambda view: view.image().resize((7, 5))
    )
    assert shown == [(7, 5)] * len(views)


def test_a_pipeline_and_its_checkpoint_describe_alike(views, describer_folder, cache):
    pipe = pipeline("point-description", model=describer_folder, max_new_tokens=8)
    adapter = CheckpointDescriber(describer_folder)
    adapter.pipe = pipe
    described = describe_points(pipe, views, batch_size=1)
    assert [len(row) for row in described] == [len(view.points()) for view in views]
    assert (
        described
        == describe_points(adapter, views)
        == describe_points(adapter, views, cache)
    )
    assert described == describe_points(pipe, views, batch_size=4)


def test_a_describer_is_asked_for_the_points_of_each_view(views, cache):
    class Describer:
        name = fingerprint = "describer"

        def __call__(self, image, points):
            return [f"{image.width}: {x:g}, {y:g}" for x, y in points]

    expected = []
    for view in views:
        expected.append([f"96: {point.x:g}, {point.y:g}" for _, point in view.points()])
    assert describe_points(Describer(), views) == expected
    assert describe_points(Describer(), views, cache) == expected
    assert describe_points(Describer(), views, cache) == expected


def test_a_pipeline_has_no_cache(views, locate, cache):
    with pytest.raises(ValueError, match="CheckpointLocalizer, or no cache"):
        locate_points(locate, views, codes(views), cache)


def test_true_points_are_in_the_order_of_the_texts(views):
    points, sizes = true_points(views)
    assert len(points) == number_of_points(views)
    assert tuple(points[0]) == (20, 12)
    assert (sizes == (96, 64)).all()


def test_naming_counts_points_whose_names_are_known(views):
    named = [["the dog's left eye", "the right eye", "a dog"]]
    assert naming_accuracy(views[:1], named[0]) == {
        "category": pytest.approx(200 / 3),
        "part": pytest.approx(200 / 3),
    }
    nameless = Photo(
        "a.png", "a.png", (96, 64), (), points=(PartPoint(None, 1.0, 2.0),)
    )
    accuracy = naming_accuracy([View(nameless, nameless)], ["the dog"])
    assert np.isnan(accuracy["category"]) and np.isnan(accuracy["part"])
