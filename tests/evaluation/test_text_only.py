"""A predictor that reads only the words learns what the words give away, and no more."""

import numpy as np
import pytest

from hf_talking_points.evaluation.text_only import TextOnlyPredictor

PLACES = {
    "left top": (0.2, 0.2),
    "right top": (0.8, 0.2),
    "left bottom": (0.2, 0.8),
    "right bottom": (0.8, 0.8),
}


@pytest.fixture(scope="module")
def placed():
    """2048 texts that say in which quarter of the image their point is, and these points."""
    rng = np.random.default_rng(0)
    names = rng.choice(list(PLACES), 2048)
    noise = rng.normal(0, 0.02, (2048, 2))
    points = np.array([PLACES[name] for name in names]) + noise
    parts = rng.choice(["ear", "paw"], 2048)
    texts = [
        f"the {part} at the {name} of the image" for part, name in zip(parts, names)
    ]
    return texts, points


@pytest.fixture(scope="module")
def predictor(placed):
    return TextOnlyPredictor(seed=0).fit(*placed)


def test_words_give_their_place(predictor):
    asked = [
        "the ear at the left bottom of the image",
        "the paw at the right top of the image",
    ]
    found = predictor.predict(asked)
    np.testing.assert_allclose(
        found, [PLACES["left bottom"], PLACES["right top"]], atol=0.05
    )


def test_words_without_a_place_give_none(predictor):
    [found] = predictor.predict(["the ear"])
    assert (np.abs(found - 0.5) < 0.35).all()


def test_the_same_seed_gives_the_same_predictor(placed, predictor):
    texts, points = placed
    again = TextOnlyPredictor(seed=0).fit(texts, points)
    np.testing.assert_allclose(again.predict(texts[:9]), predictor.predict(texts[:9]))


def test_ngrams_are_of_one_to_so_many_words():
    found = TextOnlyPredictor(longest=2).ngrams("The Left eye, the left")
    assert found == {"the", "left", "eye", "the left", "left eye", "eye the"}


def test_rare_words_are_left_out(placed):
    texts, points = placed
    fitted = TextOnlyPredictor(longest=1, at_least=2000, epochs=1).fit(texts, points)
    assert set(fitted.vocabulary) == {"the", "at", "of", "image"}


@pytest.mark.parametrize("number", [1, 3, 255, 257])
def test_few_texts_are_enough(placed, number):
    texts, points = placed
    found = (
        TextOnlyPredictor(epochs=2)
        .fit(texts[:number], points[:number])
        .predict(texts[:5])
    )
    assert found.shape == (5, 2)
    assert np.isfinite(found).all()


def test_no_texts_are_an_error():
    with pytest.raises(ValueError, match="nothing to fit"):
        TextOnlyPredictor().fit([], np.zeros((0, 2)))
