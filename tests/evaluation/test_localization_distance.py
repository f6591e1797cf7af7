"""The metric module as `evaluate` loads it: what it scores, how samples reach it, and what it refuses."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from transformers import pipeline

from hf_talking_points import LOCALIZATION_DISTANCE, MINI_DESCRIPTOR
from hf_talking_points.metrics import METRIC_VERSION, score_points

WORDS = [
    "red green",
    "the cat",
    "a point on the front wheel of the car",
    "a dark spot",
    "the beak of the bird",
]
IMAGE_IDS = [0, 0, 1, 2, 1, 0, 2, 2, 2, 0]  # of the samples


@pytest.fixture(scope="module")
def tiny_folder(make_localizer, tmp_path_factory):
    model, processor = make_localizer(head="heatmap")
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tiny(tiny_folder):
    return pipeline("point-localization", model=tiny_folder)


@pytest.fixture
def load(tmp_path):
    """Loads the metric, with a cache of its own."""

    def load(*args, **kwargs):
        cache = str(tmp_path / "cache")
        return evaluate.load(LOCALIZATION_DISTANCE, *args, cache_dir=cache, **kwargs)

    return load


@pytest.fixture
def samples(random_image):
    """Columns of ten samples on three images of different sizes."""
    sizes = [(96, 64), (40, 80), (64, 64)]
    images = [random_image(seed, *size) for seed, size in enumerate(sizes)]
    column = [images[index] for index in IMAGE_IDS]
    shares = np.random.default_rng(0).uniform(size=(10, 2))
    points = shares * [image.size for image in column]
    return {
        "predictions": WORDS * 2,
        "references": [tuple(point) for point in points.tolist()],
        "images": column,
    }


def plain(scores):
    """The numbers."""
    return {
        name: value
        for name, value in scores.items()
        if name not in ("ci95", "per_sample")
    }


def column_of(scores, name):
    """A column of the samples."""
    return [sample[name] for sample in scores["per_sample"]]


def assert_same(scores, expected):
    assert plain(scores) == pytest.approx(plain(expected), abs=1e-3)
    points = column_of(scores, "point")
    np.testing.assert_allclose(points, column_of(expected, "point"), atol=1e-2)


def oracle(requests, batch_size):
    """Reads the point off the text."""
    for request in requests:
        yield [{"point": tuple(map(float, text.split()))} for text in request["text"]]


def lost(requests, batch_size):
    """Finds nothing."""
    for request in requests:
        yield [{"point": (float("nan"), 0.0)} for _ in request["text"]]


def far_away(requests, batch_size):
    """Finds a point that no image has."""
    for request in requests:
        yield [{"point": (float("inf"), 0.0)} for _ in request["text"]]


def rows_of(columns, rows):
    """Some of the rows of columns."""
    return {name: column[rows] for name, column in columns.items()}


def test_scores_are_those_of_the_points_that_the_localizer_finds(load, samples, tiny):
    scores = load().compute(**samples, localizer=tiny)
    found = []
    for image, text in zip(samples["images"], samples["predictions"]):
        found.append(tiny(image, text=text)[0])
    points = [answer["point"] for answer in found]
    sizes = [image.size for image in samples["images"]]
    expected = score_points(points, samples["references"], sizes, IMAGE_IDS)
    expected_numbers = {
        **plain(expected),
        "misses": 0,
        "metric_version": METRIC_VERSION,
    }
    assert plain(scores) == pytest.approx(expected_numbers, abs=1e-3)
    assert set(scores["ci95"]) == set(expected["ci95"])
    for name, interval in expected["ci95"].items():
        np.testing.assert_allclose(scores["ci95"][name], interval, atol=1e-3)
    json.dumps(scores)


def test_samples_are_those_that_were_given(load, samples, tiny):
    scores = load().compute(**samples, localizer=tiny)
    assert column_of(scores, "prediction") == samples["predictions"]
    assert column_of(scores, "reference") == samples["references"]
    assert column_of(scores, "image") == IMAGE_IDS
    sizes = [image.size for image in samples["images"]]
    assert list(zip(column_of(scores, "width"), column_of(scores, "height"))) == sizes
    for sample, image in zip(scores["per_sample"], samples["images"]):
        [answer] = tiny(image, text=sample["prediction"])
        np.testing.assert_allclose(sample["point"], answer["point"], atol=1e-3)
        assert sample["confidence"] == pytest.approx(answer["confidence"], abs=1e-3)
        pixels = np.hypot(*np.subtract(sample["point"], sample["reference"]))
        assert sample["pixels"] == pytest.approx(pixels)


def test_samples_give_the_numbers_again(load, samples, tiny):
    scores = load().compute(**samples, localizer=tiny)
    sizes = list(zip(column_of(scores, "width"), column_of(scores, "height")))
    again = score_points(
        column_of(scores, "point"),
        column_of(scores, "reference"),
        sizes,
        column_of(scores, "image"),
    )
    assert again["mean_distance"] == scores["mean_distance"]
    np.testing.assert_array_equal(again["ci95"]["mpck"], scores["ci95"]["mpck"])


@pytest.mark.parametrize("refused", ["the cat " * 400, "a <SEG> inside"])
def test_texts_that_the_localizer_cannot_take_are_misses(load, samples, tiny, refused):
    whole = load().compute(**samples, localizer=tiny)
    samples["predictions"][1] = refused
    scores = load().compute(**samples, localizer=tiny)
    missed = scores["per_sample"].pop(1)
    assert scores["misses"] == 1 and np.isnan(missed["point"]).all()
    assert missed["confidence"] is None
    corners = [(0, 0), (96, 0), (0, 64), (96, 64)]
    to_corners = np.subtract(corners, samples["references"][1])
    assert missed["distance"] == max(np.linalg.norm(to_corners / (96, 64), axis=1))
    farthest = np.argmax(np.linalg.norm(to_corners / (96, 64), axis=1))
    assert missed["pixels"] == pytest.approx(np.hypot(*to_corners[farthest]))
    del whole["per_sample"][1]
    others = column_of(whole, "point")
    np.testing.assert_allclose(column_of(scores, "point"), others, atol=1e-2)


def test_a_localizer_that_finds_nothing(load, samples):
    scores = load().compute(**samples, localizer=lost)
    assert scores["misses"] == 10 and scores["mpck"] == 0
    assert min(column_of(scores, "distance")) >= 0.5**0.5


def test_oracle_and_control(load, random_image):
    rng = np.random.default_rng(0)
    images = [random_image(number, 60 + number, 50) for number in range(40)]
    column = [image for image in images for _ in range(50)]
    sizes = np.array([image.size for image in column])
    points = rng.uniform(size=(2000, 2)) * sizes
    shuffled = rng.permutation(points / sizes) * sizes
    texts = [f"{x} {y}" for x, y in points]
    others = [f"{x} {y}" for x, y in shuffled]
    metric = load()
    right = metric.compute(
        predictions=texts, references=points, images=column, localizer=oracle
    )
    wrong = metric.compute(
        predictions=others, references=points, images=column, localizer=oracle
    )
    assert right["mpck"] == right["pck@0.02"] == 100
    assert right["median_pixels"] == 0
    assert right["ci95"]["mpck"] == [100, 100]
    low, high = wrong["ci95"]["mpck"]
    assert low <= 6.7 <= high  # two independent uniform points
    assert max(column_of(right, "image")) == 39


def test_embedded_localizer_tells_true_texts_from_shuffled_ones(load):
    cat = pytest.importorskip("skimage.data").chelsea()
    where = "The large cat is in the middle and center of the image."
    texts = {
        "A spot on the right eye, at the top and center of the cat.": (172, 117),
        "A spot on the left eye, at the middle and right of the cat.": (318, 134),
        "A spot on the nose, at the bottom and center of the cat.": (264, 226),
        "A spot on the left ear, at the very top and right of the cat.": (345, 30),
        "A spot on the right ear, at the top and left of the cat.": (84, 30),
    }
    predictions, references = (
        [f"{text} {where}" for text in texts],
        list(texts.values()),
    )
    metric = load()
    true = metric.compute(
        predictions=predictions, references=references, images=[cat] * 5
    )
    others = references[1:] + references[:1]
    shuffled = metric.compute(
        predictions=predictions, references=others, images=[cat] * 5
    )
    assert true["mpck"] >= 80 and shuffled["mpck"] <= 20 and true["n"] == 5
    assert np.isnan(true["ci95"]["mpck"]).all()  # one image


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batch_size_changes_nothing(load, samples, tiny, batch_size):
    scores = load().compute(**samples, localizer=tiny, batch_size=batch_size)
    assert_same(scores, load().compute(**samples, localizer=tiny, batch_size=3))


def test_each_distinct_image_is_encoded_once(load, samples, tiny):
    calls = []
    hook = tiny.model.model.backbone.register_forward_hook(
        lambda module, args, out: calls.append(len(args[0]))
    )
    samples["images"] = [
        image.copy() for image in samples["images"]
    ]  # equal, not identical
    load().compute(**samples, localizer=tiny, batch_size=2)
    hook.remove()
    assert calls == [2, 1]


def test_add_and_add_batch_are_compute(load, samples, tiny_folder, tiny):
    expected = load().compute(**samples, localizer=tiny)
    metric = load()
    for text, point, image in zip(*samples.values()):
        metric.add(prediction=text, reference=point, images=image)
    assert len(metric) == 10
    assert_same(metric.compute(localizer=tiny_folder), expected)
    for rows in (slice(4), slice(4, None)):
        metric.add_batch(**rows_of(samples, rows))
    assert_same(metric.compute(localizer=Path(tiny_folder)), expected)
    assert_same(load(keep_in_memory=True).compute(**samples, localizer=tiny), expected)


def test_kinds_of_images_and_points(load, samples, tiny, tmp_path):
    expected = load().compute(**samples, localizer=tiny)
    paths = [tmp_path / f"{image.width}.png" for image in samples["images"]]
    for path, image in zip(paths, samples["images"]):
        image.save(path)
    kinds = [
        paths,
        [str(path) for path in paths],
        [Image.open(path) for path in paths],
        [np.asarray(image) for image in samples["images"]],
    ]
    references = np.array(samples["references"])
    for images in kinds:
        columns = {**samples, "images": images, "references": references}
        assert_same(load().compute(**columns, localizer=tiny), expected)


def test_an_image_is_its_pixels_however_it_is_given(load, samples, tiny, tmp_path):
    expected = load().compute(**samples, localizer=tiny)
    mixed = []
    for row, image in enumerate(samples["images"]):
        path = tmp_path / f"{row}.png"
        image.save(path)
        mixed.append(path if row % 2 else image)
    scores = load().compute(**{**samples, "images": mixed}, localizer=tiny)
    assert_same(scores, expected)
    assert column_of(scores, "image") == IMAGE_IDS
    np.testing.assert_allclose(
        scores["ci95"]["mpck"], expected["ci95"]["mpck"], atol=1e-3
    )


def test_images_are_scored_as_displayed(load, random_image, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turned by a quarter
    file = tmp_path / "turned.jpg"
    random_image(0, 96, 64).save(file, exif=exif, quality=95)
    shrunk = Image.open(file)
    shrunk.thumbnail((48, 48))
    turned = (64, 96)
    assert ImageOps.exif_transpose(Image.open(file)).size == turned
    for image, size in ((file, turned), (Image.open(file), turned), (shrunk, (32, 48))):
        columns = {
            "predictions": ["16 24"],
            "references": [(16, 24)],
            "images": [image],
        }
        [sample] = load().compute(**columns, localizer=oracle)["per_sample"]
        assert (sample["width"], sample["height"]) == size
        assert sample["distance"] == 0


def test_boxes(load, samples, tiny):
    corners = [(x - 9, y - 12, x + 9, y + 12) for x, y in samples["references"]]
    corners[3] = None
    scores = load().compute(**samples, boxes=corners, localizer=tiny)
    assert scores["box_n"] == 9
    unknown = scores["per_sample"].pop(3)
    assert unknown["box"] is None and np.isnan(unknown["box_distance"])
    for sample in scores["per_sample"]:
        assert sample["box_distance"] == pytest.approx(sample["pixels"] / 30)
    hits = np.array(column_of(scores, "box_distance")) < 0.1
    assert scores["box_pck@0.1"] == pytest.approx(100 * hits.mean())


def test_boxes_are_a_column_of_a_configuration(load, samples, tiny):
    corners = [None] + [
        (x - 9, y - 12, x + 9, y + 12) for x, y in samples["references"][1:]
    ]
    metric = load("boxes")
    for text, point, image, box in zip(*samples.values(), corners):
        metric.add(prediction=text, reference=point, images=image, boxes=box)
    assert_same(
        metric.compute(localizer=tiny),
        load().compute(**samples, boxes=corners, localizer=tiny),
    )


def test_thresholds(load, samples, tiny):
    scores = load().compute(**samples, localizer=tiny, thresholds=(0.3, 0.5))
    assert {name for name in scores if name.startswith("pck")} == {"pck@0.3", "pck@0.5"}
    assert scores["mpck"] == load().compute(**samples, localizer=tiny)["mpck"]


OTHER_METRIC = """
import datasets
import evaluate


class WordCount(evaluate.Metric):
    def _info(self):
        columns = {
            "predictions": datasets.Value("string"),
            "references": datasets.List(datasets.Value("float64")),
        }
        features = datasets.Features(columns)
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references, **kwargs):
        return {"words": sum(len(text.split()) for text in predictions), "n": len(predictions)}
"""


def test_combine(load, samples, tiny, tmp_path):
    script = tmp_path / "word_count" / "word_count.py"
    script.parent.mkdir()
    script.write_text(OTHER_METRIC)
    other = evaluate.load(str(script), cache_dir=str(tmp_path / "cache"))
    combined = evaluate.combine([load(), other])
    expected = load().compute(**samples, localizer=tiny)
    combined.add_batch(**rows_of(samples, slice(6)))
    for text, point, image in list(zip(*samples.values()))[6:]:
        combined.add(text, point, images=image)
    scores = combined.compute(localizer=tiny)
    assert scores["mpck"] == pytest.approx(expected["mpck"])
    assert scores["words"] == sum(len(text.split()) for text in samples["predictions"])
    assert scores["localization_distance_n"] == scores["word_count_n"] == 10


def run(script, *args, cwd, **environment):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, "-c", script, *args],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


FRESH = """
import json
import sys
import evaluate
from PIL import Image

metric = evaluate.load(sys.argv[1], cache_dir="cache")
scores = metric.compute(
    predictions=["the cat", "its nose"],
    references=[(10, 20), (5, 6)],
    images=["photo.png", Image.open("photo.png")],
)
print(json.dumps([scores["per_sample"][0]["point"], scores["n"], "hf_talking_points" in sys.modules]))
"""


def test_fresh_process_and_copied_folder(load, random_image, tmp_path):
    random_image().save(tmp_path / "photo.png")
    shutil.copytree(LOCALIZATION_DISTANCE, tmp_path / "copy" / "localization_distance")
    process = run(
        FRESH,
        "copy/localization_distance",
        cwd=tmp_path,
        HF_MODULES_CACHE=str(tmp_path / "modules"),
    )
    output, _ = process.communicate(timeout=120)
    point, n, imported = json.loads(output.splitlines()[-1])
    here = load().compute(
        predictions=["the cat"], references=[(10, 20)], images=[random_image()]
    )
    assert n == 2 and imported
    np.testing.assert_allclose(point, here["per_sample"][0]["point"], atol=1e-2)


SHARE = """
import json
import evaluate

from hf_talking_points import LOCALIZATION_DISTANCE

metric = evaluate.load(LOCALIZATION_DISTANCE, num_process=2, process_id=1, experiment_id="shared", cache_dir="cache")
with open("samples.json") as file:
    metric.add_batch(**json.load(file))
print(json.dumps(metric.compute()))
"""


def test_two_processes(load, samples, tiny, tmp_path):
    names = [f"{image.width}.png" for image in samples["images"]]
    for name, image in zip(names, samples["images"]):
        image.save(tmp_path / name)
    absolute = {**samples, "images": [str(tmp_path / name) for name in names]}
    relative = {**samples, "images": names}
    even = slice(None, None, 2)
    odd = slice(1, None, 2)
    (tmp_path / "samples.json").write_text(json.dumps(rows_of(relative, odd)))
    process = run(SHARE, cwd=tmp_path)
    metric = load(num_process=2, process_id=0, experiment_id="shared")
    metric.add_batch(**rows_of(absolute, even))
    scores = metric.compute(localizer=tiny)
    output, _ = process.communicate(timeout=120)
    assert output.splitlines()[-1] == "null"
    in_order = {name: column[even] + column[odd] for name, column in samples.items()}
    expected = load().compute(**in_order, localizer=tiny)
    assert_same(scores, expected)
    assert scores["ci95"]["mpck"] == pytest.approx(expected["ci95"]["mpck"], abs=1e-3)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"predictions": WORDS}, ValueError, "5 predictions, 10 references, 10 images"),
        ({"references": [(1, 1)] * 9}, ValueError, "10 predictions, 9 references"),
        (
            {"predictions": [], "references": [], "images": []},
            ValueError,
            "no descriptions",
        ),
        (
            {"predictions": WORDS + ["a", "b", " ", "c", "d"]},
            ValueError,
            r"predictions\[7\] is ' '",
        ),
        ({"predictions": WORDS + [None] * 5}, ValueError, r"predictions\[5\] is None"),
        (
            {"references": [(1, 1)] * 9 + [(1, float("nan"))]},
            ValueError,
            r"references\[9\] is \(1, nan\)",
        ),
        (
            {"references": [(1, 1)] * 9 + [(1, 2, 3)]},
            ValueError,
            r"references\[9\] is \(1, 2, 3\)",
        ),
        (
            {"references": [(1, 1)] * 9 + [(1, 65)]},
            ValueError,
            r"references\[9\] is \(1, 65\), outside its image of 96 x 64 pixels",
        ),
        ({"references": None}, ValueError, "references missing"),
        (
            {"images": ["nowhere.jpg"] * 10},
            FileNotFoundError,
            r"images\[0\] is 'nowhere.jpg'",
        ),
        ({"images": [3] * 10}, TypeError, "got int"),
        ({"boxes": [None] * 9 + [(1, 2, 3)]}, ValueError, r"boxes\[9\] is \(1, 2, 3\)"),
        (
            {"boxes": [(5, 5, 5, 9)] + [None] * 9},
            ValueError,
            r"boxes\[0\] is \(5.0, 5.0, 5.0, 9.0\)",
        ),
        (
            {"boxes": [None] * 9},
            ValueError,
            r"boxes must have shape \(10, 4\), got \(9, 4\)",
        ),
        ({"thresholds": (0.1, -1)}, ValueError, r"thresholds\[1\] is -1"),
        ({"localizer": "nobody/such-localizer"}, OSError, "'nobody/such-localizer'"),
        ({"localizer": "no/such/folder"}, OSError, "'no/such/folder'"),
        ({"localizer": MINI_DESCRIPTOR}, ValueError, "talking-points-descriptor"),
        ({"localizer": 3}, TypeError, "got int"),
        ({"localizer": far_away}, ValueError, "finite"),
    ],
)
def test_errors_name_what_is_wrong(load, samples, tiny, change, error, message):
    metric = load()
    with pytest.raises(error, match=message):
        metric.compute(**{**samples, "localizer": tiny, **change})


def test_nothing_was_added(load):
    with pytest.raises(ValueError, match="at least once before calling `compute`"):
        load().compute()


def test_a_sample_that_was_refused_does_not_stay(load, samples, tiny):
    metric = load()
    with pytest.raises(ValueError, match="images missing"):
        metric.add(prediction="a", reference=(1, 1))
    assert metric.compute(**samples, localizer=tiny)["n"] == 10


def test_half_a_character_is_no_prediction(load, samples, tiny):
    texts = [*samples["predictions"][:-1], "the nose \ud83d"]
    with pytest.raises(ValueError, match=r"predictions\[9\] .* lone surrogate"):
        load().compute(**{**samples, "predictions": texts}, localizer=tiny)


def test_there_are_two_configurations(load):
    with pytest.raises(ValueError, match="'default' or 'boxes'"):
        load("box")


def test_folder_is_a_space():
    folder = Path(LOCALIZATION_DISTANCE)
    assert {"app.py", "README.md", "requirements.txt", "localization_distance.py"} <= {
        file.name for file in folder.iterdir()
    }
    front, text = (folder / "README.md").read_text(encoding="utf-8").split("---", 2)[1:]
    for line in (
        "title: Localization Distance",
        "sdk: gradio",
        "app_file: app.py",
        "- evaluate",
        "- metric",
    ):
        assert line in front.splitlines()
    assert "hf-talking-points" in (folder / "requirements.txt").read_text().splitlines()
    example = text.split("```python\n", 1)[1].split("```", 1)[0]
    pytest.importorskip("skimage")
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["scores"]["mpck"] == 100


@pytest.fixture(scope="module")
def page():
    """The names of the Space's program."""
    file = Path(LOCALIZATION_DISTANCE) / "app.py"
    names = {"__file__": str(file), "__name__": "app"}
    exec(compile(file.read_text(encoding="utf-8"), "app.py", "exec"), names)
    return names


def test_page_of_the_space(page, random_image):
    picture, text = page["judge"](random_image(), "the cat", 3, 4)
    picture.save(io.BytesIO(), "PNG")
    assert "pixels): found at (" in text


def test_page_of_the_space_says_what_cannot_be_taken(page, random_image):
    with pytest.raises(ValueError, match="cannot take this description"):
        page["judge"](random_image(), "the cat " * 800, 3, 4)
