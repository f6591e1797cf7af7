"""Image-text-to-text models as describers and localizers of the protocol."""

import re
import shutil
import textwrap

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_models import save_vision_language_model
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from hf_talking_points.evaluation import vision_language
from hf_talking_points.evaluation.point_answers import CONVENTIONS
from hf_talking_points.evaluation.vision_language import (
    VisionLanguageDescriber,
    VisionLanguageLocalizer,
)
from hf_talking_points.prompts import LONGEST_SIDE


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_tokenizer):
    """Folder of a tiny untrained LLaVA."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    return save_vision_language_model(folder, make_tokenizer)


class FixedReplies:
    """A pipeline that gives fixed answers in turn; `asked` holds (image, text) of each question."""

    def __init__(self, answers):
        self.remaining = list(answers)
        self.asked = []
        self.tokenizer = type(
            "Tokenizer", (), {"pad_token": None, "eos_token": "</s>"}
        )()

    def __call__(self, chats, **options):
        assert options["return_full_text"] is False
        assert options["generate_kwargs"]["do_sample"] is False
        outputs = []
        for [message] in chats:
            assert message["role"] == "user"
            image, text = message["content"]
            assert (image["type"], text["type"]) == ("image", "text")
            self.asked.append((image["image"], text["text"]))
            outputs.append([{"generated_text": self.remaining.pop(0)}])
        return outputs


@pytest.fixture
def replies(monkeypatch):
    """A function that makes every pipeline give these answers in turn; -> the list of questions that it is asked."""

    def set_replies(*answers):
        fixed = FixedReplies(answers)
        monkeypatch.setattr(vision_language, "pipeline", lambda *args, **options: fixed)
        return fixed.asked

    return set_replies


def test_an_unknown_convention_is_an_error(folder):
    with pytest.raises(ValueError, match="'0-999'"):
        VisionLanguageLocalizer(folder, "0-999")


def test_an_untrained_model_describes(folder, random_image):
    image = random_image(width=90)
    points = [(3.5, 4), (80, 60), (45, 2)]
    options = dict(dtype="float32", max_new_tokens=8)
    texts = VisionLanguageDescriber(folder, batch_size=2, **options)(image, points)
    assert len(texts) == 3
    assert any(texts)
    for text in texts:
        assert text == " ".join(text.split())
    one_by_one = VisionLanguageDescriber(folder, batch_size=1, **options)
    assert one_by_one(image, points[::-1]) == texts[::-1]


def test_an_untrained_model_points_nowhere(folder, random_image):
    image = random_image(width=90)
    texts = ["the left eye", "a wheel of the red car", "the tail"]
    options = dict(dtype="float32", max_new_tokens=8)
    localizer = VisionLanguageLocalizer(folder, "0-1000", batch_size=2, **options)
    found = localizer(image, texts)
    assert found.shape == (3, 2)
    assert np.isnan(found).all()
    assert [text for text, _ in localizer.malformed] == texts
    alone = VisionLanguageLocalizer(folder, "0-1000", batch_size=1, **options)
    alone(image, texts[1:2])
    assert alone.malformed == localizer.malformed[1:2]
    assert localizer.name == "tiny-llava"
    assert localizer(image, []).shape == (0, 2)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("size", [(300, 200), (100, 61), (4000, 1500), (30, 900)])
def test_answers_come_back_in_pixels_of_the_image(folder, replies, convention, size):
    width, height = size
    image = Image.new("RGB", size)
    localizer = VisionLanguageLocalizer(folder, convention)
    shown = localizer.shown(image)
    limit = CONVENTIONS[convention]
    right = limit or shown.width
    bottom = limit or shown.height
    beyond = f"({right}, {bottom * 1.1})"
    asked = replies(
        f"({right / 4}, {bottom / 2})", "nowhere", f"[{right}, {bottom}]", beyond
    )
    found = localizer(image, ["the {left} eye", "no eye", "the corner", "beyond"])
    assert found[0] == pytest.approx((width / 4, height / 2))
    assert found[2] == pytest.approx(size)
    assert np.isnan(found[[1, 3]]).all()
    assert localizer.malformed == [("no eye", "nowhere"), ("beyond", beyond)]
    _, first_question = asked[0]
    assert "the {left} eye" in first_question
    assert f" {right} " in first_question
    assert f" {bottom} " in first_question
    for image, _ in asked:
        assert image.size == shown.size


@given(width=st.integers(20, 5000), height=st.integers(20, 5000))
def test_pixels_are_those_that_qwen_answers_in(width, height):
    localizer = VisionLanguageLocalizer.__new__(VisionLanguageLocalizer)
    localizer.convention = "pixels"
    shown = localizer.shown(Image.new("L", (width, height)))
    limits = dict(min_pixels=28 * 28, max_pixels=1280 * 28 * 28 * 2)
    assert smart_resize(shown.height, shown.width, **limits) == (
        shown.height,
        shown.width,
    )
    assert max(shown.size) <= LONGEST_SIDE + vision_language.PATCH // 2


def test_the_describer_shows_the_ring_and_cleans_the_text(folder, replies):
    points = [(20, 30), (70, 40), (0, 0)]
    asked = replies("<think>(3, 4)?</think>\n A dark\n spot. ", "", "<think>")
    describer = VisionLanguageDescriber(folder, batch_size=2)
    texts = describer(Image.new("RGB", (100, 80)), points)
    assert texts == ["A dark spot.", "", ""]
    for (image, text), (x, y) in zip(asked[:2], points[:2]):
        is_red = (np.asarray(image) == (255, 0, 0)).all(-1)
        red = np.argwhere(is_red) + 0.5  # (pixels, 2): y, x
        assert np.abs(red.mean(0) - (y, x)).max() < 1
        assert "Do not mention the ring" in text
        assert not re.search(r"[\d{}]", text)


def test_the_describer_refuses_a_point_beside_the_image(folder):
    describer = VisionLanguageDescriber(folder)
    with pytest.raises(ValueError, match=r"point 1 is \(101"):
        describer(Image.new("RGB", (100, 80)), [(20, 30), (101, 40)])


def fingerprints(model, **options):
    """Of a localizer and of a describer."""
    localizer = VisionLanguageLocalizer(model, "0-1", **options)
    describer = VisionLanguageDescriber(model, **options)
    return localizer.fingerprint, describer.fingerprint


def test_the_fingerprint_follows_weights_prompt_convention_and_precision(
    folder, tmp_path, monkeypatch
):
    before = fingerprints(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert fingerprints(folder) == before
    assert fingerprints(str(copy), batch_size=1) == before
    seen = set(before)
    seen.update(fingerprints(folder, dtype="float32"))
    seen.update(fingerprints(folder, max_new_tokens=9))
    seen.add(VisionLanguageLocalizer(folder, "0-100").fingerprint)
    weights_file = copy / "model.safetensors"
    weights = bytearray(weights_file.read_bytes())
    weights[-1] ^= 1
    weights_file.write_bytes(weights)
    seen.update(fingerprints(str(copy)))
    prompts = shutil.copytree(vision_language.PROMPTS, tmp_path / "prompts")
    for file in prompts.iterdir():
        file.write_text(file.read_text() + "!")
    monkeypatch.setattr(vision_language, "PROMPTS", prompts)
    seen.update(fingerprints(folder))
    assert len(seen) == 11


def test_the_adapter_of_the_docstring_runs(monkeypatch):
    class Moondream:
        @classmethod
        def from_pretrained(cls, *args, **kwargs):
            return cls()

        def point(self, image, text):
            return {"points": [{"x": 0.25, "y": 0.5}] if text == "the eye" else []}

    monkeypatch.setattr(transformers, "AutoModelForCausalLM", Moondream)
    code = re.search(r"\n\n((?:    .*\n|\n)+)", vision_language.__doc__)[1]
    assert len(code.strip().splitlines()) <= 20
    names = {}
    exec(textwrap.dedent(code), names)
    localizer = names["MoondreamLocalizer"]()
    found = localizer(Image.new("RGB", (100, 80)), ["the eye", "nothing"])
    assert found[0].tolist() == [25, 40]
    assert np.isnan(found[1]).all()
    assert localizer.name
    assert localizer.fingerprint
