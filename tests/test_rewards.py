"""The localizer as a reward function."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from hf_talking_points import FalseClaimReward, LocalizerReward, SameWordingReward
from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.models.coordinates import canvas_to_pixels
from hf_talking_points.rewards import distinct_images

TEXTS = [
    "the tip of the left ear",
    "a dark spot",
    "the wheel of the car",
    "red green blue",
]
POINTS = [(10, 30), (40, 80), (110, 5), (25, 45)]
LOGGED = ("distance", "pck@0.1", "pck@0.05", "refused", "words", "distinct_2")


@pytest.fixture(scope="module")
def pair(make_localizer):
    return make_localizer(head="heatmap")


@pytest.fixture(scope="module")
def photos(random_image):
    """Of 120 x 40, 50 x 90, 120 x 40 and 50 x 90 pixels: two images, each twice."""
    wide = random_image(0, 120, 40)
    tall = random_image(1, 50, 90)
    return [wide, tall, wide.copy(), tall]


def distance_of_one(pair, image, text, point):
    """By the definition."""
    model, processor = pair
    with torch.no_grad():
        outputs = model(**processor(images=image, text=text))
    canvas = outputs.points.double()[0]
    found = canvas_to_pixels(canvas, *image.size, processor.image_size)
    shares = (found.numpy() - point) / image.size
    return np.linalg.norm(shares)


def distances(pair, photos):
    """Of [`TEXTS`], one text at a time."""
    return np.array(
        [distance_of_one(pair, *sample) for sample in zip(photos, TEXTS, POINTS)]
    )


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
def test_rewards_follow_the_distance_normalized_by_width_and_height(
    pair, photos, shape, formula, share
):
    reward = LocalizerReward(
        *pair,
        shape=shape,
        tau=0.3,
        reward_scale=5.0,
        share_encodings=share,
        batch_size=1,
    )
    rewards = reward(completions=TEXTS, image=photos, point=POINTS)
    np.testing.assert_allclose(rewards, 5 * formula(distances(pair, photos)), atol=1e-5)


@pytest.mark.parametrize(
    "share, batch_size, encoded_together",
    [(True, 8, [2]), (True, 1, [1, 1]), (False, 8, [4]), (False, 3, [3, 1])],
)
def test_each_image_is_encoded_once_where_encodings_are_shared(
    pair, photos, share, batch_size, encoded_together
):
    model, processor = pair
    encoded = []
    hook = model.model.backbone.register_forward_hook(
        lambda module, args, out: encoded.append(len(args[0]))
    )
    conversations = [[{"role": "assistant", "content": text}] for text in TEXTS]
    reward = LocalizerReward(
        model, processor, batch_size=batch_size, share_encodings=share
    )
    reward(completions=conversations, image=photos, point=POINTS)
    hook.remove()
    assert encoded == encoded_together


# texts that the localizer cannot take, with the farthest corners of the points of [`POINTS`]
REFUSED = ["", "a <SEG> inside", "dark " * 400]
FARTHEST = [(120, 0), (0, 0), (0, 40)]


def test_texts_that_the_localizer_refuses_count_as_the_farthest_corner(pair, photos):
    rewards = LocalizerReward(*pair)(
        completions=[*REFUSED, TEXTS[3]], image=photos, point=POINTS
    )
    sizes = np.array([photo.size for photo in photos])
    shares = (np.array(FARTHEST) - POINTS[:3]) / sizes[:3]
    corner_distances = np.linalg.norm(shares, axis=1)
    assert (corner_distances > 0.5**0.5).all() and (corner_distances < 2**0.5).all()
    assert rewards[:3] == pytest.approx(-(corner_distances**2) / 2)
    assert rewards[3] == pytest.approx(-(distances(pair, photos)[3] ** 2) / 2, abs=1e-5)


def test_no_text_is_worse_than_one_that_is_refused(pair, photos):
    reward = LocalizerReward(*pair)
    refused = reward(completions=[""] * 4, image=photos, point=POINTS)
    taken = reward(completions=TEXTS, image=photos, point=POINTS)
    assert (np.array(refused) <= taken).all()


def test_logs(pair, photos):
    logged = {}
    extra = {}
    reward = LocalizerReward(*pair)
    reward(
        completions=[*REFUSED, TEXTS[3]],
        image=photos,
        point=POINTS,
        log_metric=logged.__setitem__,
        log_extra=extra.__setitem__,
    )
    assert set(logged) == {f"localizer/{key}" for key in LOGGED}
    assert logged["localizer/refused"] == 0.75
    assert logged["localizer/words"] == (0 + 3 + 400 + 3) / 4
    assert extra["localizer_found"][:3] == [None] * 3
    assert len(extra["localizer_found"][3]) == 2
    assert extra["point"] == [[float(x), float(y)] for x, y in POINTS]


def test_logs_of_refused_texts_alone(pair, photos):
    logged = {}
    reward = LocalizerReward(*pair)
    reward(
        completions=[""] * 4, image=photos, point=POINTS, log_metric=logged.__setitem__
    )
    assert logged["localizer/refused"] == 1
    assert logged["localizer/distinct_2"] == logged["localizer/words"] == 0
    assert logged["localizer/pck@0.1"] == 0 and logged["localizer/distance"] > 0.5**0.5


def test_several_localizers_are_averaged(pair, make_localizer, photos):
    other = make_localizer(head="mlp", seed=1)
    both = LocalizerReward([pair[0], other[0]], [pair[1], other[1]], name="judges")
    extra = {}
    got = both(
        completions=TEXTS, image=photos, point=POINTS, log_extra=extra.__setitem__
    )
    alone = []
    for localizer in (pair, other):
        alone.append(
            LocalizerReward(*localizer)(completions=TEXTS, image=photos, point=POINTS)
        )
    np.testing.assert_allclose(got, np.mean(alone, 0), rtol=1e-6)
    assert set(extra) == {"point", "judges_0_found", "judges_1_found"}
    assert both.__name__ == "judges"


def test_locate_gives_a_point_of_each_localizer_for_each_text(
    pair, make_localizer, photos
):
    other = make_localizer(head="mlp", seed=1)
    reward = LocalizerReward([pair[0], other[0]], [pair[1], other[1]])
    found, sizes = reward.locate(photos, [TEXTS[0], "", TEXTS[2], TEXTS[3]])
    assert found.shape == (2, 4, 2)
    assert np.isnan(found[:, 1]).all() and np.isfinite(found[:, [0, 2, 3]]).all()
    assert [tuple(size) for size in sizes] == [photo.size for photo in photos]


def test_a_path_loads_model_and_processor(pair, photos, tmp_path):
    for part in pair:
        part.save_pretrained(tmp_path)
    loaded = LocalizerReward(str(tmp_path))
    got = loaded(completions=TEXTS, image=photos, point=POINTS)
    expected = LocalizerReward(*pair)(completions=TEXTS, image=photos, point=POINTS)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    [localizer] = loaded.localizers
    assert not any(
        parameter.requires_grad for parameter in localizer.model.parameters()
    )
    assert not localizer.model.training


def test_a_localizer_stays_on_its_device(make_localizer):
    reward = LocalizerReward(*make_localizer(head="heatmap"))
    [localizer] = reward.localizers
    assert localizer.device == localizer.model.device == torch.device("cpu")
    assert reward.to("meta") is reward
    assert localizer.device == localizer.model.device == torch.device("meta")


def test_scoring_leaves_the_weights_as_they_are(pair, photos):
    before = copy.deepcopy(pair[0].state_dict())
    LocalizerReward(*pair)(completions=TEXTS, image=photos, point=POINTS)
    for name, value in pair[0].state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"shape": "rmse"}, "shape must be one of"),
        ({"tau": 0}, "tau must be positive, got 0"),
        ({"reward_scale": float("nan")}, "reward_scale must be finite, got nan"),
        ({"processor": None}, "localizer 0 is a loaded model"),
        ({"processor": [1, 2]}, "1 localizers but 2 processors"),
        ({"localizer": []}, "0 localizers"),
    ],
)
def test_wrong_arguments(pair, arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalizerReward(**{"localizer": pair[0], "processor": pair[1], **arguments})


def test_images_that_are_displayed_alike_are_one(random_image, tmp_path):
    image = random_image(0)
    path = tmp_path / "a.png"
    image.save(path)
    again = [image.copy(), path, str(path), np.asarray(image)]
    distinct, index = distinct_images([image, *again, random_image(1), image])
    assert index == [0, 0, 0, 0, 0, 1, 0]
    assert [shown.size for shown in distinct] == [(96, 64), (96, 64)]


def test_images_that_are_displayed_differently_are_told_apart(random_image):
    image = random_image(0)
    turned = image.copy()
    turned.getexif()[ExifTags.Base.Orientation] = 6
    indexed = image.quantize(16)
    other_palette = indexed.copy()
    other_palette.putpalette(list(reversed(indexed.getpalette())))
    transparent = indexed.copy()
    transparent.info["transparency"] = int(np.asarray(indexed)[0, 0])
    images = [image, turned, indexed, other_palette, transparent]
    distinct, index = distinct_images([*images, *images])
    assert index == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert distinct[1].size == (64, 96)


def test_rewards_tell_images_of_equal_indices_apart(pair, random_image):
    indexed = random_image(0).quantize(16)
    other_palette = indexed.copy()
    other_palette.putpalette(list(reversed(indexed.getpalette())))
    images = [indexed, other_palette]
    sample = {"completions": TEXTS[:2], "image": images, "point": POINTS[:2]}
    shared = LocalizerReward(*pair)(**sample)
    apart = LocalizerReward(*pair, share_encodings=False)(**sample)
    np.testing.assert_allclose(shared, apart, atol=1e-6)


def meadow():
    """(image, annotation) of an orange dog on a green meadow."""
    pixels = np.zeros((100, 160, 3), np.uint8)
    pixels[:] = (60, 140, 60)
    pixels[30:80, 30:120] = (235, 125, 40)
    points = (PartPoint("nose", 40.0, 50.0), PartPoint("tail", 110.0, 50.0))
    dog = AnnotatedObject("dog", (30.0, 30.0, 120.0, 80.0), points)
    return Image.fromarray(pixels), Photo("dog.png", None, (160, 100), (dog,))


def test_false_claims_cost_what_is_said_and_wrong():
    image, photo = meadow()
    texts = {
        "The nose of the dog, an orange spot.": 0,
        "The nose of the dog, a navy spot.": 1,
        "The nose of the cat, a navy spot.": 2,
        "The tail of the cat, a navy, strongly textured spot.": 3,
    }
    logged = {}
    rewards = FalseClaimReward([photo], penalty=0.5)(
        completions=list(texts),
        image=[image] * len(texts),
        image_id=["dog.png"] * len(texts),
        point=[[40.0, 50.0]] * len(texts),
        log_metric=logged.__setitem__,
    )
    assert rewards == [-0.5 * count for count in texts.values()]
    assert logged == {
        "false_claims/count": np.mean(list(texts.values())),
        "false_claims/unknown_names": 0.25,  # the tail
        "false_claims/right_names": 1.25,
    }


def test_false_claims_of_a_point_that_nobody_named_are_those_of_its_looks():
    image, photo = meadow()
    reward = FalseClaimReward([photo], penalty=1.0)
    texts = ["A green spot.", "A navy spot.", "Something odd."]
    of_sky = reward(texts, [image] * 3, ["dog.png"] * 3, [(80.5, 10.5)] * 3)
    assert of_sky == [0, -1, 0]


def test_names_of_what_nobody_annotated_cost_what_is_asked():
    image, photo = meadow()
    texts = ["A green spot.", "A green spot on the handle of the door."]
    columns = [image] * 2, ["dog.png"] * 2, [(80.5, 10.5)] * 2
    photo = replace(photo, objects=())
    assert FalseClaimReward([photo])(texts, *columns) == [0, 0]
    assert FalseClaimReward([photo], name_penalty=0.2)(texts, *columns) == [0, -0.2]


def test_right_names_are_worth_what_is_asked():
    image, photo = meadow()
    texts = [
        "The nose of the dog, an orange spot.",
        "The nose of the dog, a navy spot.",
        "An orange spot on the dog.",
        "The tail of the dog, an orange spot.",
    ]
    reward = FalseClaimReward([photo], penalty=0.5, name_reward=0.25)
    columns = [image] * 4, ["dog.png"] * 4, [(40.0, 50.0)] * 4
    assert reward(texts, *columns) == [0.5, 0, 0.25, -0.25]


def test_false_claims_need_the_annotation_of_each_image():
    image, photo = meadow()
    with pytest.raises(ValueError, match="image_id 'cat.png' is none of the 1 photos"):
        FalseClaimReward([photo])(["A cat."], [image], ["cat.png"], [(1, 1)])
    with pytest.raises(ValueError, match="penalty must be positive, got 0"):
        FalseClaimReward([photo], penalty=0)
    with pytest.raises(ValueError, match="name_penalty must be 0 or more, got -1"):
        FalseClaimReward([photo], name_penalty=-1)
    with pytest.raises(ValueError, match="name_reward must be 0 or more, got -1"):
        FalseClaimReward([photo], name_reward=-1)


def test_same_wording_costs_what_others_share():
    texts = [
        "The nose of the dog, an orange spot.",
        "The left ear of the cat, a light gray spot.",
        "The tail of the dog, a navy spot.",
        "A green spot lies there.",
        [{"role": "assistant", "content": "An orange spot lies there."}],
    ]
    logged = {}
    rewards = SameWordingReward(penalty=2.0)(texts, log_metric=logged.__setitem__)
    assert rewards == [-1.0, -1.0, -1.0, -0.5, -0.5]
    assert logged == {"same_wording/most_frequent": 0.6}
    assert SameWordingReward()(texts[:1]) == [0]
    with pytest.raises(ValueError, match="penalty must be positive, got 0"):
        SameWordingReward(penalty=0)
