"""The checkpoints that ship with the package, on photos that scikit-image packages and, where they are, on annotated
photos."""

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
from hf_talking_points.evaluation.controls import (
    describable_views,
    ground_truth_texts,
    image_centers,
)
from hf_talking_points.evaluation.report import (
    describing_table,
    reading_table,
    results_table,
)
from hf_talking_points.evaluation.round_trip import (
    describe_points,
    flat,
    locate_points,
    naming_accuracy,
    view_distances,
)
from hf_talking_points.evaluation.scores import claims_of_systems
from hf_talking_points.metrics import summary

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


def test_files_are_small():
    files = [file for folder in PAIR for file in Path(folder).iterdir()]
    assert sum(file.stat().st_size for file in files) <= 90e6


@pytest.mark.parametrize("folder", PAIR)
def test_files_are_half_precision_and_plain(folder):
    config = json.loads((Path(folder) / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert "custom_pipelines" not in config and "auto_map" not in config
    with safe_open(Path(folder) / "model.safetensors", "pt") as weights:
        stored_types = {weights.get_slice(name).get_dtype() for name in weights.keys()}
    assert stored_types <= {"F16", "I64"}


@pytest.mark.parametrize(
    "auto_class, folder",
    [
        (AutoModel, MINI_DESCRIPTOR),
        (AutoModelForImageTextToText, MINI_DESCRIPTOR),
        (AutoModel, MINI_LOCALIZER),
        (AutoModelForKeypointDetection, MINI_LOCALIZER),
    ],
)
def test_auto_classes_load_the_whole_model_in_float32(auto_class, folder):
    model = auto_class.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.config.model_type == AutoConfig.from_pretrained(folder).model_type
    assert model.can_generate() == (folder == MINI_DESCRIPTOR)
    assert (
        AutoProcessor.from_pretrained(folder).image_seq_length
        == model.config.image_seq_length
    )


def test_cat_is_described_and_found_again(describe, locate, cat):
    points = np.array([(172, 117), (321, 132), (266, 235)])  # both eyes and the nose
    texts = [row["description"] for row in describe(cat, points=points.tolist())]
    assert sum("cat" in text for text in texts) >= 2
    answers = locate(cat, text=texts)
    found = np.array([answer["point"] for answer in answers])
    distances = np.linalg.norm((found - points) / cat.size, axis=1)
    assert (distances < 0.15).sum() >= 2
    assert all(0 <= answer["confidence"] <= 1 for answer in answers)


def test_localizer_looks_at_the_picture(locate, cat):
    mirrored = cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    text = (
        "A large cat in the middle and center of the image. The point is on its nose."
    )
    x, _ = locate(cat, text=text)[0]["point"]
    mirrored_x, _ = locate(mirrored, text=text)[0]["point"]
    assert abs(x - (cat.width - mirrored_x)) < 0.1 * cat.width


FITTING = [
    "the tip of the cat's nose",
    "the cat's left eye",
    "The pupil of the eye on the right side of the picture, green, in the cat's face.",
    "the inside of the ear in the upper right corner",
]
NOWHERE = {
    "what is not in the photo": [
        "the minute hand of the clock on the church tower",
        "the front wheel of the red bus on the left",
        "the tip of the airplane's tail",
    ],
    "another language": [
        "die Spitze des Mastes vom Segelboot",
        "la rueda delantera del coche rojo",
        "кнопка лифта на стене",
    ],
    "400 words": ["of the table on the bus near a lighthouse " * 44],
    "contradicting places": [
        "The rim of the cup in the top left corner, at the bottom right edge.",
    ],
}


@pytest.mark.parametrize("kind", NOWHERE)
def test_a_text_that_fits_nothing_gets_a_low_confidence(locate, cat, kind):
    odd = [answer["confidence"] for answer in locate(cat, text=NOWHERE[kind])]
    fitting = [answer["confidence"] for answer in locate(cat, text=FITTING)]
    assert max(odd) < 0.5
    assert max(odd) < min(fitting)


@pytest.fixture(scope="module")
def views():
    folder = Path(os.environ.get("TALKING_POINTS_DATA", "")) / "animalpose_voc_256"
    if not (folder / "objects.jsonl").is_file():
        pytest.skip(
            "set TALKING_POINTS_DATA to the folder that holds animalpose_voc_256"
        )
    photos = [photo for photo in read_objects(folder) if photo.split == "validation"]
    return describable_views(make_views(photos), ["full"])[:60]


@pytest.fixture(scope="module")
def texts(views):
    return ground_truth_texts(views, "full")


@pytest.fixture(scope="module")
def truth(locate, views, texts):
    return summary(view_distances(views, locate_points(locate, views, texts)))


def test_true_texts_are_found(truth):
    assert truth["mpck"] >= 85
    assert truth["pck@0.05"] >= 55


def test_another_points_text_falls_to_the_level_of_chance(locate, views, texts, truth):
    shuffled = iter(np.random.default_rng(0).permutation(flat(texts)).tolist())
    others = [[next(shuffled) for _ in row] for row in texts]
    other = summary(view_distances(views, locate_points(locate, views, others)))
    center = summary(view_distances(views, image_centers(views)))
    assert other["mpck"] <= center["mpck"] + 10
    assert other["pck@0.05"] <= 0.2 * truth["pck@0.05"]


@pytest.mark.slow
def test_descriptions_are_found_and_true(describe, locate, views, truth):
    descriptions = describe_points(describe, views)
    described = summary(
        view_distances(views, locate_points(locate, views, descriptions))
    )
    assert described["mpck"] >= 0.8 * truth["mpck"]
    assert naming_accuracy(views, flat(descriptions))["category"] >= 70
    claims = claims_of_systems(views, {"descriptor": flat(descriptions)})
    assert np.mean([bool(found) for found in claims["descriptor"]]) <= 0.25


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


@pytest.mark.parametrize(
    "page", ["docs/evaluation.md", "model_cards/talking-points-localizer.md"]
)
def test_published_readings_are_the_stored_ones(page):
    file = ROOT / "model_cards" / "mini_localizer_reading_test.json"
    reading = json.loads(file.read_text())
    assert reading_table(reading["rows"]) in (ROOT / page).read_text()


@pytest.mark.parametrize(
    "page", ["docs/evaluation.md", "model_cards/talking-points-descriptor.md"]
)
def test_published_judgements_of_texts_are_the_stored_ones(page):
    file = ROOT / "model_cards" / "mini_descriptor_describing_test.json"
    describing = json.loads(file.read_text())
    assert describing_table(describing) in (ROOT / page).read_text()
