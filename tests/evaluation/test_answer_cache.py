"""Answers are asked for once, and belong to a model, an image and a question."""

from contextlib import closing

import pytest
from PIL import Image

from hf_talking_points.evaluation.answer_cache import AnswerCache


class Model:
    """Answers every question with one number and the color of the image."""

    def __init__(self, fingerprint, number):
        self.name = self.fingerprint = fingerprint
        self.number = number
        self.questions = []

    def __call__(self, image, questions):
        self.questions.extend(questions)
        red = image.getpixel((0, 0))[0]
        return [(self.number, red) for _ in questions]


@pytest.fixture
def cache(tmp_path):
    with closing(AnswerCache(tmp_path / "answers.sqlite")) as cache:
        yield cache


DARK = Image.new("RGB", (30, 20), (10, 10, 10))
LIGHT = Image.new("RGB", (30, 20), (200, 200, 200))


def test_a_question_is_asked_once(cache):
    model = Model("a", 1.0)
    answers = cache.answers(model, DARK, ["x", "y", "x"])
    assert answers == [[1.0, 10.0]] * 3
    assert model.questions == ["x", "y"]
    changed = Model("a", 2.0)
    assert cache.answers(changed, DARK, ["y"]) == [[1.0, 10.0]]
    assert changed.questions == []
    assert len(cache) == 2


def test_answers_belong_to_the_model(cache):
    cache.answers(Model("a", 1.0), DARK, ["y"])
    assert cache.answers(Model("b", 2.0), DARK, ["y"]) == [[2.0, 10.0]]


def test_answers_belong_to_the_question(cache):
    cache.answers(Model("a", 1.0), DARK, ["y"])
    assert cache.answers(Model("a", 3.0), DARK, ["z"]) == [[3.0, 10.0]]
    assert cache.answers(Model("a", 4.0), DARK, [(1.5, 2.0)]) == [[4.0, 10.0]]


@pytest.mark.parametrize(
    "other",
    [LIGHT, DARK.resize((20, 30)), DARK.resize((30, 10))],
    ids=["color", "turned", "half"],
)
def test_answers_belong_to_the_content_of_the_image(cache, other):
    cache.answers(Model("a", 1.0), DARK, ["y"])
    answers = cache.answers(Model("a", 3.0), other, ["y"])
    assert answers == [[3.0, float(other.getpixel((0, 0))[0])]]


def test_equal_images_share_their_answers(cache, tmp_path):
    cache.answers(Model("a", 1.0), DARK, ["y"])
    DARK.save(tmp_path / "another name.png")
    reread = Image.open(tmp_path / "another name.png")
    assert cache.answers(Model("a", 3.0), reread, ["y"]) == [[1.0, 10.0]]


def test_answers_outlive_the_process(tmp_path):
    file = tmp_path / "answers.sqlite"
    with closing(AnswerCache(file)) as cache:
        cache.answers(Model("a", 1.0), DARK, ["y"])
        [seconds] = cache.seconds["a"]
    with closing(AnswerCache(file)) as cache:
        assert cache.answers(Model("a", 2.0), DARK, ["y"]) == [[1.0, 10.0]]
        assert cache.seconds["a"] == [seconds]


def test_texts_are_answers_too(cache):
    class Describer:
        name = fingerprint = "describer"

        def __call__(self, image, points):
            return [f"the point at {x}" for x, _ in points]

    assert cache.answers(Describer(), DARK, [(1, 2), (3, 4)]) == [
        "the point at 1",
        "the point at 3",
    ]


def test_too_few_answers_are_an_error_and_not_stored(cache):
    class Lazy(Model):
        def __call__(self, image, questions):
            return super().__call__(image, questions)[:1]

    with pytest.raises(ValueError, match="c gave 1 answers to 2 questions"):
        cache.answers(Lazy("c", 1.0), DARK, ["x", "y"])
    assert len(cache) == 0
