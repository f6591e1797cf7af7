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
from PIL import Image, ImageOps
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
    return lambda *args, **kwargs: evaluate.load(
        LOCALIZATION_DISTANCE, *args, cache_dir=str(tmp_path / "cache"), **kwargs
    )


@pytest.fixture
def samples(random_image):
    """Columns of ten samples on three images of different sizes."""
    images = [
        random_image(i, width, height)
        for i, (width, height) in enumerate([(96, 64), (40, 80), (64, 64)])
    ]
    index = [0, 0, 1, 2, 1, 0, 2, 2, 2, 0]
    points = np.random.default_rng(0).uniform(size=(10, 2)) * [images[i].size for i in index]
    return {
        "predictions": WORDS * 2,
        "references": [tuple(p) for p in points.tolist()],
        "images": [images[i] for i in index],
    }


def plain(scores):
    return {name: value for name, value in scores.items() if name not in ("ci95", "per_sample")}


def assert_same(scores, expected):
    assert plain(scores) == pytest.approx(plain(expected), abs=1e-3)
    np.testing.assert_allclose(
        [s["point"] for s in scores["per_sample"]],
        [s["point"] for s in expected["per_sample"]],
        atol=1e-2,
    )


def oracle(requests, batch_size):
    """Reads the point off the text."""
    for request in requests:
        yield [{"point": tuple(map(float, text.split()))} for text in request["text"]]


def lost(requests, batch_size):
    return [[{"point": (float("nan"), 0.0)} for _ in request["text"]] for request in requests]


def test_scores_are_those_of_the_points_that_the_localizer_finds(load, samples, tiny):
    scores = load().compute(**samples, localizer=tiny)
    found = [
        tiny(image, text=text)[0] for image, text in zip(samples["images"], samples["predictions"])
    ]
    ids = [0, 0, 1, 2, 1, 0, 2, 2, 2, 0]
    sizes = [image.size for image in samples["images"]]
    expected = score_points([f["point"] for f in found], samples["references"], sizes, ids)
    assert plain(scores) == pytest.approx(
        {**plain(expected), "metric_version": METRIC_VERSION}, abs=1e-3
    )
    assert set(scores["ci95"]) == set(expected["ci95"])
    np.testing.assert_allclose(
        [scores["ci95"][name] for name in expected["ci95"]],
        list(expected["ci95"].values()),
        atol=1e-3,
    )
    for row, sample in enumerate(scores["per_sample"]):
        assert (sample["prediction"], sample["reference"]) == (
            samples["predictions"][row],
            samples["references"][row],
        )
        assert (sample["image"], sample["width"], sample["height"]) == (ids[row], *sizes[row])
        np.testing.assert_allclose(sample["point"], found[row]["point"], atol=1e-3)
        assert sample["pixels"] == pytest.approx(
            np.hypot(*np.subtract(sample["point"], sample["reference"]))
        )
        assert sample["confidence"] == pytest.approx(found[row]["confidence"], abs=1e-3)
    again = [sample[key] for sample in scores["per_sample"] for key in ("point", "reference")]
    assert (
        score_points(again[::2], again[1::2], sizes, ids)["mean_distance"]
        == scores["mean_distance"]
    )
    json.dumps(scores)


def test_oracle_and_control(load, random_image):
    rng = np.random.default_rng(0)
    images = [random_image(i, 60 + i, 50) for i in range(40)]
    column = [image for image in images for _ in range(50)]
    points = rng.uniform(size=(2000, 2)) * [image.size for image in column]
    shares = rng.permutation(points / [image.size for image in column])
    texts = [f"{x} {y}" for x, y in points]
    others = [f"{x} {y}" for x, y in shares * [image.size for image in column]]
    metric = load()
    right = metric.compute(predictions=texts, references=points, images=column, localizer=oracle)
    wrong = metric.compute(predictions=others, references=points, images=column, localizer=oracle)
    assert (
        right["mpck"] == right["pck@0.02"] == 100
        and right["median_pixels"] == 0
        and right["ci95"]["mpck"] == [100, 100]
    )
    assert (
        wrong["ci95"]["mpck"][0] <= 6.7 <= wrong["ci95"]["mpck"][1]
    )  # two independent uniform points
    assert max(sample["image"] for sample in right["per_sample"]) == 39


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
    predictions, references = [f"{text} {where}" for text in texts], list(texts.values())
    metric = load()
    true = metric.compute(predictions=predictions, references=references, images=[cat] * 5)
    shuffled = metric.compute(
        predictions=predictions, references=references[1:] + references[:1], images=[cat] * 5
    )
    assert true["mpck"] >= 80 and shuffled["mpck"] <= 20 and true["n"] == 5
    assert np.isnan(true["ci95"]["mpck"]).all()  # one image


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batch_size_changes_nothing(load, samples, tiny, batch_size):
    assert_same(
        load().compute(**samples, localizer=tiny, batch_size=batch_size),
        load().compute(**samples, localizer=tiny, batch_size=3),
    )


def test_each_distinct_image_is_encoded_once(load, samples, tiny):
    calls = []
    hook = tiny.model.model.backbone.register_forward_hook(
        lambda module, args, out: calls.append(len(args[0]))
    )
    samples["images"] = [image.copy() for image in samples["images"]]  # equal, not identical
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
        metric.add_batch(**{name: column[rows] for name, column in samples.items()})
    assert_same(metric.compute(localizer=Path(tiny_folder)), expected)
    assert_same(load(keep_in_memory=True).compute(**samples, localizer=tiny), expected)


def test_kinds_of_images_and_points(load, samples, tiny, tmp_path):
    expected = load().compute(**samples, localizer=tiny)
    paths = [tmp_path / f"{image.size[0]}.png" for image in samples["images"]]
    for path, image in zip(paths, samples["images"]):
        image.save(path)
    kinds = [
        paths,
        [str(path) for path in paths],
        [Image.open(path) for path in paths],
        [np.asarray(image) for image in samples["images"]],
    ]
    for images in kinds:
        columns = {**samples, "images": images, "references": np.array(samples["references"])}
        assert_same(load().compute(**columns, localizer=tiny), expected)


def test_images_are_scored_as_displayed(load, random_image, tmp_path):
    image, exif = random_image(0, 96, 64), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    opened = Image.open(tmp_path / "turned.jpg")
    shrunk = Image.open(tmp_path / "turned.jpg")
    shrunk.thumbnail((48, 48))
    assert ImageOps.exif_transpose(opened).size == (64, 96)
    for given, size in (
        (tmp_path / "turned.jpg", (64, 96)),
        (opened, (64, 96)),
        (shrunk, (32, 48)),
    ):
        [sample] = load().compute(
            predictions=["16 24"], references=[(16, 24)], images=[given], localizer=oracle
        )["per_sample"]
        assert (sample["width"], sample["height"]) == size and sample["distance"] == 0


def test_boxes(load, samples, tiny):
    corners = [
        None if row == 3 else (x - 9, y - 12, x + 9, y + 12)
        for row, (x, y) in enumerate(samples["references"])
    ]
    scores = load().compute(**samples, boxes=corners, localizer=tiny)
    assert (
        scores["box_n"] == 9
        and scores["per_sample"][3]["box"] is None
        and np.isnan(scores["per_sample"][3]["box_distance"])
    )
    assert scores["per_sample"][0]["box_distance"] == pytest.approx(
        scores["per_sample"][0]["pixels"] / 30
    )
    assert scores["box_pck@0.1"] == pytest.approx(
        100 * np.mean([s["box_distance"] < 0.1 for s in scores["per_sample"] if s["box"]])
    )
    metric = load("boxes")
    for text, point, image, box in zip(*samples.values(), corners):
        metric.add(prediction=text, reference=point, images=image, boxes=box)
    assert_same({**metric.compute(localizer=tiny), "box_n": 9}, scores)


def test_thresholds(load, samples, tiny):
    scores = load().compute(**samples, localizer=tiny, thresholds=(0.3, 0.5))
    assert {name for name in scores if name.startswith("pck")} == {"pck@0.3", "pck@0.5"}
    assert scores["mpck"] == load().compute(**samples, localizer=tiny)["mpck"]


OTHER_METRIC = """
import datasets
import evaluate


class WordCount(evaluate.Metric):
    def _info(self):
        columns = {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("float64"))}
        return evaluate.MetricInfo(description="", citation="", features=datasets.Features(columns))

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
    combined.add_batch(**{name: column[:6] for name, column in samples.items()})
    for text, point, image in list(zip(*samples.values()))[6:]:
        combined.add(text, point, images=image)
    scores = combined.compute(localizer=tiny)
    assert scores["mpck"] == pytest.approx(expected["mpck"]) and scores["words"] == sum(
        len(t.split()) for t in samples["predictions"]
    )
    assert scores["localization_distance_n"] == scores["word_count_n"] == 10


def run(script, *args, cwd, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
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
scores = metric.compute(predictions=["the cat", "its nose"], references=[(10, 20), (5, 6)], images=["photo.png", Image.open("photo.png")])
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
    here = load().compute(predictions=["the cat"], references=[(10, 20)], images=[random_image()])
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
    for image in samples["images"]:
        image.save(tmp_path / f"{image.width}.png")
    names = [f"{image.width}.png" for image in samples["images"]]
    own = {
        name: column[::2]
        for name, column in {**samples, "images": [str(tmp_path / name) for name in names]}.items()
    }
    others = {name: column[1::2] for name, column in {**samples, "images": names}.items()}
    (tmp_path / "samples.json").write_text(json.dumps(others))
    process = run(SHARE, cwd=tmp_path)
    metric = load(num_process=2, process_id=0, experiment_id="shared")
    metric.add_batch(**own)
    scores = metric.compute(localizer=tiny)
    output, _ = process.communicate(timeout=120)
    assert output.splitlines()[-1] == "null"
    expected = load().compute(
        **{name: column[::2] + column[1::2] for name, column in samples.items()}, localizer=tiny
    )
    assert_same(scores, expected)
    assert scores["ci95"]["mpck"] == pytest.approx(expected["ci95"]["mpck"], abs=1e-3)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"predictions": WORDS}, ValueError, "5 predictions, 10 references, 10 images"),
        ({"references": [(1, 1)] * 9}, ValueError, "10 predictions, 9 references"),
        ({"predictions": [], "references": [], "images": []}, ValueError, "no descriptions"),
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
        ({"references": [(1, 1)] * 9 + [(1, 2, 3)]}, ValueError, r"references\[9\] is \(1, 2, 3\)"),
        (
            {"references": [(1, 1)] * 9 + [(1, 65)]},
            ValueError,
            r"references\[9\] is \(1, 65\), outside its image of 96 x 64 pixels",
        ),
        ({"references": None}, ValueError, "references missing"),
        ({"images": ["nowhere.jpg"] * 10}, FileNotFoundError, r"images\[0\] is 'nowhere.jpg'"),
        ({"images": [3] * 10}, TypeError, "got int"),
        ({"boxes": [None] * 9 + [(1, 2, 3)]}, ValueError, r"boxes\[9\] is \(1, 2, 3\)"),
        (
            {"boxes": [(5, 5, 5, 9)] + [None] * 9},
            ValueError,
            r"boxes\[0\] is \(5.0, 5.0, 5.0, 9.0\)",
        ),
        ({"boxes": [None] * 9}, ValueError, r"boxes must have shape \(10, 4\), got \(9, 4\)"),
        ({"thresholds": (0.1, -1)}, ValueError, r"thresholds\[1\] is -1"),
        ({"localizer": "nobody/such-localizer"}, OSError, "'nobody/such-localizer'"),
        ({"localizer": "no/such/folder"}, OSError, "'no/such/folder'"),
        ({"localizer": MINI_DESCRIPTOR}, ValueError, "talking-points-descriptor"),
        ({"localizer": 3}, TypeError, "got int"),
        (
            {
                "localizer": lambda requests, batch_size: [
                    [{"point": (float("nan"), 0)}] * len(r["text"]) for r in requests
                ]
            },
            ValueError,
            "finite",
        ),
    ],
)
def test_errors_name_what_is_wrong(load, samples, tiny, change, error, message):
    metric = load()
    with pytest.raises(error, match=message):
        metric.compute(**{**samples, "localizer": tiny, **change})


def test_other_errors(load, samples, tiny):
    metric = load()
    with pytest.raises(ValueError, match="at least once before calling `compute`"):
        metric.compute()
    with pytest.raises(ValueError, match="images missing"):
        metric.add(prediction="a", reference=(1, 1))
    with pytest.raises(ValueError, match="'default' or 'boxes'"):
        load("box")
    assert (
        metric.compute(**samples, localizer=tiny)["n"] == 10
    )  # none of the refused samples stayed


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


def test_page_of_the_space(random_image):
    names = {"__file__": str(Path(LOCALIZATION_DISTANCE) / "app.py"), "__name__": "app"}
    exec(compile(Path(names["__file__"]).read_text(encoding="utf-8"), "app.py", "exec"), names)
    picture, text = names["judge"](random_image(), "the cat", 3, 4)
    picture.save(io.BytesIO(), "PNG")
    assert "pixels): found at (" in text
