"""A predictor that reads only the words learns what the words give away, and no more."""

import numpy as np

from hf_talking_points.evaluation.text_only import TextOnlyPredictor

PLACES = {
    "left top": (0.2, 0.2),
    "right top": (0.8, 0.2),
    "left bottom": (0.2, 0.8),
    "right bottom": (0.8, 0.8),
}


def test_words_give_their_place():
    rng = np.random.default_rng(0)
    names = rng.choice(list(PLACES), 2048)
    points = np.array([PLACES[n] for n in names]) + rng.normal(0, 0.02, (2048, 2))
    texts = [
        f"the {part} at the {name} of the image"
        for part, name in zip(rng.choice(["ear", "paw"], 2048), names)
    ]
    predictor = TextOnlyPredictor(seed=0).fit(texts, points)
    found = predictor.predict(
        [
            "the ear at the left bottom of the image",
            "the paw at the right top of the image",
            "the ear",
        ]
    )
    np.testing.assert_allclose(found[:2], [PLACES["left bottom"], PLACES["right top"]], atol=0.05)
    np.testing.assert_allclose(
        TextOnlyPredictor(seed=0).fit(texts, points).predict(texts[:9]),
        predictor.predict(texts[:9]),
    )
