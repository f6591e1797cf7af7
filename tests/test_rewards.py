"""The localizer as a reward function."""

import copy
import math

import numpy as np
import pytest
import torch

from hf_talking_points import LocalizerReward
from hf_talking_points.models.coordinates import canvas_to_pixels
from hf_talking_points.rewards import distinct_images

TEXTS = ["the tip of the left ear", "a dark spot", "the wheel of the car", "red green blue"]


@pytest.fixture(scope="module")
def pair(make_localizer):
    return make_localizer(head="heatmap")


@pytest.fixture(scope="module")
def photos(random_image):
    wide, tall = random_image(0, 120, 40), random_image(1, 50, 90)
    return [wide, tall, wide.copy(), tall]


POINTS = [(10, 30), (40, 80), (110, 5), (25, 45)]


def distances(pair, photos, texts=TEXTS, points=POINTS):
    """One text at a time, by the definition."""
    model, processor = pair
    result = []
    for image, text, point in zip(photos, texts, points):
        with torch.no_grad():
            outputs = model(**processor(images=image, text=text))
        found = canvas_to_pixels(outputs.points.double()[0], *image.size, processor.image_size)
        result.append(
            math.hypot(*((float(f) - p) / side for f, p, side in zip(found, point, image.size)))
        )
    return np.array(result)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    "shape, formula",
    [
        ("mse", lambda d: -(d**2) / 2),
        ("exp", lambda d: np.exp(-d / 0.3)),
        ("pck", lambda d: (d < 0.3).astype(float)),
        ("log", lambda d: -np.log(1 + d / 0.3)),
    ],
)
def test_rewards_follow_the_distance_normalised_by_width_and_height(
    pair, photos, shape, formula, share
):
    reward = LocalizerReward(
        *pair, shape=shape, tau=0.3, reward_scale=5.0, share_encodings=share, batch_size=1
    )
    got = reward(completions=TEXTS, image=photos, point=POINTS)
    np.testing.assert_allclose(got, 5 * formula(distances(pair, photos)), atol=1e-5)


def test_each_image_is_encoded_once(pair, photos):
    model, processor = pair
    encoded = []
    hook = model.model.backbone.register_forward_hook(
        lambda module, args, out: encoded.append(len(args[0]))
    )
    conversations = [[{"role": "assistant", "content": text}] for text in TEXTS]
    LocalizerReward(model, processor)(completions=conversations, image=photos, point=POINTS)
    hook.remove()
    assert encoded == [2]


def test_texts_that_the_localizer_refuses_are_as_bad_as_can_be_and_counted(pair, photos):
    logged, extra = {}, {}
    texts = ["", "a <SEG> inside", "dark " * 400, TEXTS[3]]
    reward = LocalizerReward(*pair)
    got = reward(
        completions=texts,
        image=photos,
        point=POINTS,
        log_metric=logged.__setitem__,
        log_extra=extra.__setitem__,
    )
    assert got[:3] == pytest.approx([-1.0] * 3)
    assert got[3] == pytest.approx(-(distances(pair, photos)[3] ** 2) / 2, abs=1e-5)
    assert (
        logged["localizer/refused"] == 0.75 and logged["localizer/words"] == (0 + 3 + 400 + 3) / 4
    )
    assert set(logged) == {
        f"localizer/{key}"
        for key in ("distance", "pck@0.1", "pck@0.05", "refused", "words", "distinct_2")
    }
    assert extra["localizer_found"][:3] == [None] * 3 and len(extra["localizer_found"][3]) == 2
    assert extra["point"] == [list(map(float, point)) for point in POINTS]
    everything_refused = reward(
        completions=[""] * 4, image=photos, point=POINTS, log_metric=logged.__setitem__
    )
    assert everything_refused == pytest.approx([-1.0] * 4) and logged["localizer/distinct_2"] == 0


def test_several_localizers_are_averaged(pair, make_localizer, photos):
    other = make_localizer(head="mlp", seed=1)
    both = LocalizerReward([pair[0], other[0]], [pair[1], other[1]], name="judges")
    extra = {}
    got = both(completions=TEXTS, image=photos, point=POINTS, log_extra=extra.__setitem__)
    single = [
        LocalizerReward(*p)(completions=TEXTS, image=photos, point=POINTS) for p in (pair, other)
    ]
    np.testing.assert_allclose(got, np.mean(single, 0), rtol=1e-6)
    assert set(extra) == {"point", "judges_0_found", "judges_1_found"} and both.__name__ == "judges"


def test_a_path_loads_model_and_processor(pair, photos, tmp_path):
    for part in pair:
        part.save_pretrained(tmp_path)
    loaded = LocalizerReward(str(tmp_path))
    got = loaded(completions=TEXTS, image=photos, point=POINTS)
    np.testing.assert_allclose(
        got, LocalizerReward(*pair)(completions=TEXTS, image=photos, point=POINTS), atol=1e-6
    )
    assert (
        not any(p.requires_grad for p in loaded.localizers[0].parameters())
        and not loaded.localizers[0].training
    )


def test_scoring_leaves_the_weights_as_they_are(pair, photos):
    before = copy.deepcopy(pair[0].state_dict())
    LocalizerReward(*pair)(completions=TEXTS, image=photos, point=POINTS)
    assert all(torch.equal(value, before[name]) for name, value in pair[0].state_dict().items())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"shape": "rmse"}, "shape must be one of"),
        ({"tau": 0}, "tau must be positive, got 0"),
        ({"processor": None}, "localizer 0 is a loaded model"),
        ({"processor": [1, 2]}, "1 localizers but 2 processors"),
    ],
)
def test_wrong_arguments(pair, arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalizerReward(**{"localizer": pair[0], "processor": pair[1], **arguments})


def test_distinct_images_tell_apart_what_differs(random_image, tmp_path):
    image = random_image(0)
    turned = image.copy()
    turned.getexif()[0x0112] = 6
    path = tmp_path / "a.png"
    image.save(path)
    array = np.asarray(image)
    distinct, index = distinct_images(
        [image, image.copy(), turned, path, path, array, random_image(1)]
    )
    assert index == [0, 0, 1, 2, 2, 3, 4] and [i.size for i in distinct[:2]] == [(96, 64), (64, 96)]
