"""The checkpoints that ship with the package, on photos that scikit-image packages and, where they are, on annotated photos."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForKeypointDetection,
    AutoProcessor,
    pipeline,
)

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER
from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.triplets import make_views
from hf_talking_points.data.wording import describe_point
from hf_talking_points.metrics import summary
from hf_talking_points.evaluation.protocol import (
    describe_views,
    localize_views,
    naming_accuracy,
    true_points,
    view_distances,
)
from hf_talking_points.evaluation.report import results_table

ROOT = Path(__file__).parent.parent
PAIR = (MINI_DESCRIPTOR, MINI_LOCALIZER)


@pytest.fixture(scope="module")
def describe():
    return pipeline("point-description")


@pytest.fixture(scope="module")
def locate():
    return pipeline("point-localization")


@pytest.fixture(scope="module")
def cat():
    return Image.fromarray(pytest.importorskip("skimage.data").chelsea())


@pytest.mark.parametrize("folder", PAIR)
def test_files_are_small_half_precision_and_plain(folder):
    assert sum(f.stat().st_size for f in Path(folder).iterdir()) <= 25e6
    config = json.loads((Path(folder) / "config.json").read_text())
    assert (
        config["dtype"] == "float32"
        and "custom_pipelines" not in config
        and "auto_map" not in config
    )
    with safe_open(Path(folder) / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} <= {"F16", "I64"}


@pytest.mark.parametrize(
    "auto, folder",
    [(AutoModel, MINI_DESCRIPTOR), (AutoModelForImageTextToText, MINI_DESCRIPTOR)]
    + [(AutoModel, MINI_LOCALIZER), (AutoModelForKeypointDetection, MINI_LOCALIZER)],
)
def test_auto_classes_load_the_whole_model_in_float32(auto, folder):
    model = auto.from_pretrained(folder)
    assert (
        model.dtype == torch.float32
        and model.config.model_type == AutoConfig.from_pretrained(folder).model_type
    )
    assert model.can_generate() == (folder == MINI_DESCRIPTOR)
    assert AutoProcessor.from_pretrained(folder).image_seq_length == model.config.image_seq_length


def test_cat_is_described_and_found_again(describe, locate, cat):
    points = [(172, 117), (321, 132), (266, 235)]  # both eyes and the nose
    rows = describe(cat, points=points)
    assert sum("cat" in row["description"] for row in rows) >= 2
    found = locate(cat, text=[row["description"] for row in rows])
    distances = [
        ((f["point"][0] - x) / cat.width) ** 2 + ((f["point"][1] - y) / cat.height) ** 2
        for f, (x, y) in zip(found, points)
    ]
    assert sum(d**0.5 < 0.15 for d in distances) >= 2
    assert all(0 <= f["confidence"] <= 1 for f in found)


def test_localizer_looks_at_the_picture(locate, cat):
    mirrored = cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    text = "A large cat in the middle and center of the image. The point is on its nose."
    (x, _), (mirrored_x, _) = (locate(image, text=text)[0]["point"] for image in (cat, mirrored))
    assert abs(x - (cat.width - mirrored_x)) < 0.1 * cat.width


@pytest.fixture(scope="module")
def views():
    folder = Path(os.environ.get("TALKING_POINTS_DATA", "")) / "animalpose_voc_256"
    if not (folder / "objects.jsonl").is_file():
        pytest.skip("set TALKING_POINTS_DATA to the folder that holds animalpose_voc_256")
    return make_views([photo for photo in read_objects(folder) if photo.split == "validation"])[:60]


@pytest.fixture(scope="module")
def texts(views):
    return [
        [describe_point(v.photo, owner, p, np.asarray(v.image())) for owner, p in v.points()]
        for v in views
    ]


@pytest.fixture(scope="module")
def truth(locate, views, texts):
    return summary(view_distances(views, localize_views(locate, views, texts)))


def test_true_texts_are_found(truth):
    assert truth["mpck"] >= 85 and truth["pck@0.05"] >= 55


def test_another_points_text_falls_to_the_level_of_chance(locate, views, texts, truth):
    words = [text for row in texts for text in row]
    shuffled = iter(np.random.default_rng(0).permutation(words))
    other = summary(
        view_distances(
            views,
            localize_views(locate, views, [[str(next(shuffled)) for _ in row] for row in texts]),
        )
    )
    _, sizes, _ = true_points(views)
    centre = summary(view_distances(views, sizes / 2))
    assert other["mpck"] <= centre["mpck"] + 10 and other["pck@0.05"] <= 0.2 * truth["pck@0.05"]


@pytest.mark.slow
def test_descriptions_are_found_and_name_things(describe, locate, views, truth):
    described = describe_views(describe, views)
    own = summary(view_distances(views, localize_views(locate, views, described)))
    assert own["mpck"] >= 0.8 * truth["mpck"]
    named = naming_accuracy(views, [text for row in described for text in row])
    assert named["category"] >= 80 and named["part"] >= 40


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "model_cards/talking-points-descriptor.md",
        "model_cards/talking-points-localizer.md",
    ],
)
def test_published_numbers_are_the_stored_results(page):
    results = json.loads((ROOT / "model_cards" / "mini_pair_test.json").read_text())
    assert results_table(results) in (ROOT / page).read_text()
