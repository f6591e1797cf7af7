"""The one way in which points are found: order, laziness, and texts that a localizer cannot take."""

import numpy as np
import pytest
from transformers import pipeline

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER
from hf_talking_points.localization import (
    confidence_in_words,
    localization_pipeline,
    locate_texts,
    points_of,
    with_misses,
)

TEXTS = ["the tip of the left ear", "a dark spot", "the wheel of the car"]
REFUSED = ["", " ", "a <SEG> inside", "dark " * 400]


@pytest.fixture(scope="module")
def locate(make_localizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    for part in make_localizer(head="heatmap"):
        part.save_pretrained(folder)
    return pipeline("point-localization", model=str(folder))


@pytest.fixture(scope="module")
def images(random_image):
    return [random_image(seed, 60 + 10 * seed, 50) for seed in range(5)]


def all_points(answers):
    return [points_of(answers_of_image) for answers_of_image in answers]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_answers_are_those_of_the_pipeline(locate, images, batch_size):
    requests = [(image, TEXTS[: 1 + number % 3]) for number, image in enumerate(images)]
    found = list(locate_texts(locate, requests, batch_size))
    for (image, texts), answers in zip(requests, found, strict=True):
        expected = locate(image, text=texts)
        assert [answer["description"] for answer in answers] == texts
        np.testing.assert_allclose(points_of(answers), points_of(expected), atol=1e-3)
        for answer, alone in zip(answers, expected):
            assert answer["confidence"] == pytest.approx(alone["confidence"], abs=1e-3)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("places", [(0, 1), (3, 4), (0, 4), (1, 2, 3), (0, 1, 2, 3, 4)])
def test_images_without_a_text_that_is_taken(
    locate, images, refused, batch_size, places
):
    requests = []
    for number, image in enumerate(images):
        requests.append((image, [refused] * 2 if number in places else TEXTS))
    found = all_points(locate_texts(locate, requests, batch_size))
    assert [len(points) for points in found] == [len(texts) for _, texts in requests]
    for number, points in enumerate(found):
        assert np.isnan(points).all() if number in places else np.isfinite(points).all()


@pytest.mark.parametrize("refused", REFUSED)
def test_refused_texts_move_no_others(locate, images, refused):
    [whole] = all_points(locate_texts(locate, [(images[0], TEXTS)]))
    mixed = [refused, TEXTS[0], refused, refused, TEXTS[1], TEXTS[2], refused]
    [answers] = locate_texts(locate, [(images[0], mixed)])
    points = points_of(answers)
    missed = np.array([text == refused for text in mixed])
    assert np.isnan(points[missed]).all()
    np.testing.assert_allclose(points[~missed], whole, atol=1e-3)
    assert [answer["description"] for answer in answers] == mixed
    assert [answer["confidence"] is None for answer in answers] == missed.tolist()


def test_requests_without_texts(locate, images):
    requests = [(images[0], []), (images[1], TEXTS), (images[2], [])]
    assert [len(answers) for answers in locate_texts(locate, requests)] == [0, 3, 0]
    assert list(locate_texts(locate, [])) == []
    assert list(locate_texts(locate, [(images[0], [])])) == [[]]


def test_requests_are_drawn_as_they_are_needed(locate, images):
    drawn = []

    def requests():
        for number in range(100):
            drawn.append(number)
            yield images[number % 5], TEXTS

    next(locate_texts(locate, requests(), batch_size=2))
    assert len(drawn) <= 6


def test_images_that_are_only_refused_are_not_encoded(locate, images):
    encoded = []
    hook = locate.model.model.backbone.register_forward_hook(
        lambda module, args, output: encoded.append(len(args[0]))
    )
    requests = [(images[0], TEXTS), (images[1], ["", ""]), (images[2], TEXTS)]
    list(locate_texts(locate, requests, batch_size=8))
    hook.remove()
    assert encoded == [2]


def test_options_reach_the_pipeline(locate, images):
    [answers] = locate_texts(
        locate, [(images[0], [TEXTS[0], ""])], return_heatmaps=True
    )
    assert answers[0]["heatmap"].ndim == 2


def test_a_callable_without_a_processor_takes_every_text(images):
    def corner(requests, batch_size):
        for request in requests:
            yield [{"point": (0, len(text))} for text in request["text"]]

    found = all_points(
        locate_texts(corner, [(images[0], ["", "ab"]), (images[1], ["abc"])])
    )
    assert [points.tolist() for points in found] == [[[0, 0], [0, 2]], [[0, 3]]]


def test_misses_stand_where_their_texts_do():
    answers = with_misses(
        "abcd", [False, True, False, True], [{"point": (1, 2)}, {"point": (3, 4)}]
    )
    np.testing.assert_array_equal(
        points_of(answers), [[np.nan, np.nan], [1, 2], [np.nan, np.nan], [3, 4]]
    )
    assert points_of([]).shape == (0, 2)


def test_what_a_localizer_may_be(locate, tmp_path):
    assert localization_pipeline(locate) is locate
    loaded = localization_pipeline(MINI_LOCALIZER)
    assert loaded.model.config.model_type == "point_localizer"
    with pytest.raises(OSError, match="'nobody/such-localizer' is neither"):
        localization_pipeline("nobody/such-localizer")
    with pytest.raises(OSError, match="is neither a checkpoint folder"):
        localization_pipeline(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="got int"):
        localization_pipeline(3)
    with pytest.raises(ValueError, match="talking-points-descriptor|point_localizer"):
        localization_pipeline(MINI_DESCRIPTOR)


def test_confidence_is_told_in_words():
    told = [confidence_in_words(value) for value in (1.0, 0.72, 0.5, 0.049)]
    assert told == [
        "sure (100 %)",
        "fairly sure (72 %)",
        "unsure (50 %)",
        "guessing (5 %)",
    ]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="from 0 to 1"):
            confidence_in_words(wrong)
