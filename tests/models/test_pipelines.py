"""Both pipelines: what goes in, what comes out, and repos that load without the package."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoModelForKeypointDetection, pipeline

import hf_talking_points  # noqa: F401  registers the pipelines

POINTS = [(10, 20), (60.5, 30), (95, 1)]
TEXTS = ["red green", "the cat", "a point on the front wheel of the car"]


@pytest.fixture(scope="module")
def describe(make_descriptor):
    model, processor = make_descriptor()
    return pipeline("point-description", model=model, processor=processor, max_new_tokens=8)


@pytest.fixture(scope="module")
def locate(make_localizer):
    model, processor = make_localizer(head="heatmap")
    return pipeline("point-localization", model=model, processor=processor)


def assert_same_points(found, expected):
    assert [f["description"] for f in found] == [e["description"] for e in expected]
    np.testing.assert_allclose(
        [f["point"] for f in found], [e["point"] for e in expected], atol=1e-3
    )


def test_description_of_points(describe, random_image):
    image = random_image()
    rows = describe(image, points=POINTS)
    assert [row["point"] for row in rows] == POINTS and all(
        set(row) == {"point", "description"} for row in rows
    )
    assert all(isinstance(row["description"], str) for row in rows)
    assert describe(image, points=POINTS[1]) == [rows[1]]
    normalized = [(x / image.width, y / image.height) for x, y in POINTS]
    assert [row["description"] for row in describe(image, points=normalized, normalized=True)] == [
        row["description"] for row in rows
    ]


def test_descriptions_of_several_images(describe, random_image):
    requests = [{"image": random_image(i), "points": POINTS[: 1 + i % 3]} for i in range(5)]
    rows = describe(requests, batch_size=3)
    assert rows == [describe(r["image"], points=r["points"]) for r in requests]


def test_one_vision_call_for_all_points(describe, random_image):
    calls = []
    hook = describe.model.model.backbone.register_forward_hook(
        lambda module, args, out: calls.append(len(args[0]))
    )
    describe(random_image(), points=POINTS)
    hook.remove()
    assert calls == [1]


def test_generation_options_pass_through(describe, random_image):
    [row] = describe(random_image(), points=POINTS[:1], max_new_tokens=1)
    assert len(describe.processor.tokenizer(row["description"])["input_ids"]) <= 1


def test_localization(locate, random_image):
    image = random_image()
    found = locate(image, text=TEXTS)
    assert [f["description"] for f in found] == TEXTS and all(
        0 <= f["confidence"] <= 1 for f in found
    )
    assert_same_points(locate(image, text=TEXTS[0]), found[:1])
    assert_same_points(locate(image, text=TEXTS[::-1]), found[::-1])
    heatmaps = [f["heatmap"] for f in locate(image, text=TEXTS, return_heatmaps=True)]
    assert all(h.ndim == 2 and abs(h.sum() - 1) < 1e-4 for h in heatmaps)


def test_localizations_in_several_images(locate, random_image):
    requests = [
        {"image": random_image(i), "text": TEXTS[: 1 + i % 3] if i else TEXTS[0]} for i in range(5)
    ]
    for row, request in zip(locate(requests, batch_size=3), requests):
        assert_same_points(row, locate(request["image"], text=request["text"]))


def test_mlp_head_has_no_confidence(make_localizer, random_image):
    model, processor = make_localizer(head="mlp")
    [found] = pipeline("point-localization", model=model, processor=processor)(
        random_image(), text="red"
    )
    assert found["confidence"] is None


@pytest.mark.parametrize("points", [None, [], [(1, 999)], [(1, float("nan"))], [(1, 2, 3)]])
def test_bad_points_are_errors(describe, random_image, points):
    with pytest.raises(ValueError, match="point"):
        describe(random_image(), points=points)


@pytest.mark.parametrize("text", [None, [], "", ["red", " "], "red green " * 100])
def test_bad_texts_are_errors(locate, random_image, text):
    with pytest.raises(ValueError, match="text|description"):
        locate(random_image(), text=text)


def test_a_checkpoint_of_the_other_kind_is_an_error(describe, locate):
    for one, other in ((describe, locate), (locate, describe)):
        with pytest.raises(ValueError, match="checkpoint, but got a"):
            type(one)(model=other.model, processor=other.processor)


def test_a_checkpoint_folder_of_the_other_kind_is_an_error(describe, tmp_path):
    describe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="(?i)point.?descriptor"):
        pipeline("point-localization", model=str(tmp_path), trust_remote_code=True)


def test_saved_repos_load_with_the_package(describe, locate, random_image, tmp_path):
    image = random_image()
    describe.save_pretrained(tmp_path / "descriptor")
    locate.save_pretrained(tmp_path / "localizer")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "descriptor")
    for name, value in describe.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    again = pipeline(
        "point-description",
        model=str(tmp_path / "descriptor"),
        trust_remote_code=True,
        max_new_tokens=8,
    )
    assert again(image, points=POINTS) == describe(image, points=POINTS)
    assert isinstance(
        AutoModelForKeypointDetection.from_pretrained(tmp_path / "localizer"), type(locate.model)
    )


WITHOUT_PACKAGE = """
import sys
sys.modules["hf_talking_points"] = None  # importing it fails, as where it is not installed
import numpy as np
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline
folder, points, texts = sys.argv[1], {points!r}, {texts!r}
image = Image.open(folder + "/image.png")
describe = pipeline("point-description", model=folder + "/descriptor", trust_remote_code=True, max_new_tokens=8)
locate = pipeline("point-localization", model=folder + "/localizer", trust_remote_code=True)
assert AutoModel.from_pretrained(folder + "/descriptor", trust_remote_code=True).can_generate()
AutoModel.from_pretrained(folder + "/localizer", trust_remote_code=True)
assert AutoProcessor.from_pretrained(folder + "/descriptor", trust_remote_code=True).region_token == "<region>"
describe.save_pretrained(folder + "/again")
pipeline("point-description", model=folder + "/again", trust_remote_code=True)
print(repr((describe(image, points=points), locate(image, text=texts))))
"""


def test_saved_repos_load_without_the_package(describe, locate, random_image, tmp_path):
    image = random_image()
    image.save(tmp_path / "image.png")
    describe.save_pretrained(tmp_path / "descriptor")
    locate.save_pretrained(tmp_path / "localizer")
    program = WITHOUT_PACKAGE.format(points=POINTS, texts=TEXTS)
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    described, located = eval(ran.stdout.strip().splitlines()[-1])
    assert described == describe(image, points=POINTS) and located == locate(image, text=TEXTS)
