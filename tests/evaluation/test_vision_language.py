"""Image-text-to-text models as describers and localizers: what they answer is read as it was meant, or counted as a miss."""

import re
import shutil
import textwrap

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from hf_talking_points.evaluation import vision_language
from hf_talking_points.evaluation.vision_language import (
    CONVENTIONS,
    VisionLanguageDescriber,
    VisionLanguageLocalizer,
    parse_point,
)

SIZE = (200, 100)
FORMS = (
    "({x}, {y})",
    "[{x}, {y}]",
    "[{x} {y}]",
    "{x}, {y}",
    "{x} {y}.",
    "x={x}, y={y}",
    "It lies at x: {x} and y: {y}.",
    '<point x="{x}" y="{y}" alt="the left eye (1 of 2)">the left eye</point>',
    '<points x1="{x}" y1="{y}" x2="1" y2="2" alt="eyes">eyes</points>',
    '<points coords="1 1 {x} {y} 2 7 8">eyes</points>',
    "<point>{x} {y}</point>",
    '{{"point_2d": [{x}, {y}], "label": "eye"}}',
    '```json\n[\n\t{{"point_2d": [{x}, {y}], "label": "eye"}},\n\t{{"point_2d": [0, 0], "label": "eye"}}\n]\n```',
    '{{"x": {x}, "y": {y}}}',
    '[{{"x": "{x}", "y": "{y}"}}]',
    "<think>Perhaps (1, 1), or rather [0, 0]?</think>\n\n({x}, {y})",
    "The point (x, y) is ({x}, {y}), and not (0, 0).",
    "<|begin_of_box|>[[{x},{y}]]<|end_of_box|>",
    "[{x}, {y}, {x}, {y}]",
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "convention, x, y",
    [
        ("0-1", "0.43", ".71"),
        ("0-100", "43.0", "71"),
        ("0-1000", "430", "710"),
        ("pixels", "86", "71.0"),
    ],
)
def test_every_form_is_read_in_every_convention(form, convention, x, y):
    assert parse_point(form.format(x=x, y=y), convention, SIZE) == pytest.approx((86, 71))


@pytest.mark.parametrize("form", FORMS)
@given(
    convention=st.sampled_from(list(CONVENTIONS)),
    point=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_round_trip(form, convention, point, size):
    x, y = (
        v * limit
        for v, limit in zip(
            point, size if convention == "pixels" else [CONVENTIONS[convention]] * 2
        )
    )
    found = parse_point(form.format(x=repr(x), y=repr(y)), convention, size)
    assert found == pytest.approx((point[0] * size[0], point[1] * size[1]), abs=1e-6)
    assert 0 <= found[0] <= size[0] and 0 <= found[1] <= size[1]


def test_of_a_box_the_centre_is_meant():
    assert parse_point(
        '[{"bbox_2d": [400, 600, 460, 820], "label": "eye"}]', "0-1000", SIZE
    ) == pytest.approx((86, 71))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "The left eye of the dog.",
        "There are 2 eyes at 14 and 20 of them.",
        "(x, y)",
        "(12)",
        "[1, 2, 3]",
        "[1, 2, 3, 4, 5]",
        "(nan, 0.5)",
        "(0.5, inf)",
        "(0.5, 1e999)",
        '<point x="0.5">eye</point>',
        "x=0.5",
        "<think>It might be (0.5, 0.5), but",
        "(-0.1, 0.5)",
        "(0.5, 1.0001)",
        "[0.5, 0.5, 0.9, 1.2]",
        "x=-0.5, y=0.5",
        "(43, 71)",
        "(43%, 71%)",
    ],
)
def test_malformed_answers_are_misses(answer):
    assert parse_point(answer, "0-1", SIZE) is None


@given(st.text(alphabet='()[]<>{},;:=."xy 0123456789-+eE%\npoint'))
def test_what_is_read_lies_in_the_image(answer):
    for convention in CONVENTIONS:
        found = parse_point(answer, convention, SIZE)
        assert found is None or (0 <= found[0] <= SIZE[0] and 0 <= found[1] <= SIZE[1])


def test_units_are_read_in_their_own_convention_alone():
    for form, own in (
        ("({x}%, {y} %)", "0-100"),
        ('<point x="{x}%" y="{y}%">', "0-100"),
        ("[{x}px, {y} px]", "pixels"),
    ):
        assert parse_point(form.format(x=43, y=71), own, SIZE) == pytest.approx(
            (43, 71) if own == "pixels" else (86, 71)
        )
        assert all(
            parse_point(form.format(x=43, y=71), other, SIZE) is None
            for other in CONVENTIONS
            if other != own
        )


def test_pixels_are_those_of_the_image():
    assert parse_point("(200, 100)", "pixels", SIZE) == SIZE
    assert (
        parse_point("(201, 100)", "pixels", SIZE) is None
        and parse_point("(100, 101)", "pixels", SIZE) is None
    )


def test_an_unknown_convention_is_an_error(folder):
    with pytest.raises(ValueError, match="'percent'"):
        parse_point("(1, 1)", "percent", SIZE)
    with pytest.raises(ValueError, match="'0-999'"):
        VisionLanguageLocalizer(folder, "0-999")


# --- models


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_tokenizer):
    """Folder of a tiny untrained LLaVA."""
    folder = str(tmp_path_factory.mktemp("models") / "tiny-llava")
    torch.manual_seed(0)
    tokenizer = make_tokenizer(model_max_length=4096)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.5,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-1,
        )
    ).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=(
            "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}"
            "{% endfor %}\n{% endfor %}assistant:"
        ),
    ).save_pretrained(folder)
    return folder


def replies(monkeypatch, *answers):
    """Makes every pipeline give these answers in turn; -> the list of questions (image, text) it was asked."""
    left, asked = list(answers), []

    class Reply:
        tokenizer = type("Tokenizer", (), {"pad_token": None, "eos_token": "</s>"})()

        def __call__(self, chats, **options):
            assert (
                options["return_full_text"] is False
                and options["generate_kwargs"]["do_sample"] is False
            )
            for [message] in chats:
                assert message["role"] == "user" and [
                    part["type"] for part in message["content"]
                ] == ["image", "text"]
                asked.append((message["content"][0]["image"], message["content"][1]["text"]))
            return [[{"generated_text": left.pop(0)}] for _ in chats]

    monkeypatch.setattr(vision_language, "pipeline", lambda *args, **kwargs: Reply())
    return asked


def test_an_untrained_model_describes_and_points_nowhere(folder, random_image):
    image, points = random_image(width=90), [(3.5, 4), (80, 60), (45, 2)]
    options = dict(dtype="float32", max_new_tokens=8)
    texts = VisionLanguageDescriber(folder, batch_size=2, **options)(image, points)
    assert len(texts) == 3 and any(texts) and all(text == " ".join(text.split()) for text in texts)
    assert (
        VisionLanguageDescriber(folder, batch_size=1, **options)(image, points[::-1]) == texts[::-1]
    )
    locate = VisionLanguageLocalizer(folder, "0-1000", batch_size=2, **options)
    found = locate(image, ["the left eye", "a wheel of the red car", "the tail"])
    assert found.shape == (3, 2) and np.isnan(found).all()
    assert [text for text, _ in locate.malformed] == [
        "the left eye",
        "a wheel of the red car",
        "the tail",
    ]
    one = VisionLanguageLocalizer(folder, "0-1000", batch_size=1, **options)
    one(image, ["a wheel of the red car"])
    assert one.malformed == locate.malformed[1:2]
    assert locate.name == "tiny-llava" and locate(image, []).shape == (0, 2)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("size", [(300, 200), (100, 61), (4000, 1500), (30, 900)])
def test_answers_come_back_in_pixels_of_the_image(folder, monkeypatch, convention, size):
    locate = VisionLanguageLocalizer(folder, convention)
    shown = locate.shown(Image.new("RGB", size))
    x, y = shown.size if convention == "pixels" else [CONVENTIONS[convention]] * 2
    asked = replies(
        monkeypatch, f"({x / 4}, {y / 2})", "nowhere", f"[{x}, {y}]", f"({x}, {y * 1.1})"
    )
    found = locate(Image.new("RGB", size), ["the {left} eye", "no eye", "the corner", "beyond"])
    assert found[[0, 2]] == pytest.approx(np.array([(size[0] / 4, size[1] / 2), size]))
    assert np.isnan(found[[1, 3]]).all() and locate.malformed == [
        ("no eye", "nowhere"),
        ("beyond", f"({x}, {y * 1.1})"),
    ]
    assert "the {left} eye" in asked[0][1] and f" {x} " in asked[0][1] and f" {y} " in asked[0][1]
    assert {image.size for image, _ in asked} == {shown.size}


@given(width=st.integers(20, 5000), height=st.integers(20, 5000))
def test_pixels_are_those_that_qwen_answers_in(width, height):
    locate = VisionLanguageLocalizer.__new__(VisionLanguageLocalizer)
    locate.convention = "pixels"
    shown = locate.shown(Image.new("L", (width, height)))
    assert (
        smart_resize(shown.height, shown.width, min_pixels=28 * 28, max_pixels=1280 * 28 * 28 * 2)
        == shown.size[::-1]
    )
    assert max(shown.size) <= vision_language.LONGEST_SIDE + vision_language.PATCH // 2


def test_the_describer_shows_the_ring_and_cleans_the_text(folder, monkeypatch):
    asked = replies(monkeypatch, "<think>(3, 4)?</think>\n A dark\n spot. ", "", "<think>")
    assert VisionLanguageDescriber(folder, batch_size=2)(
        Image.new("RGB", (100, 80)), [(20, 30), (70, 40), (0, 0)]
    ) == [
        "A dark spot.",
        "",
        "",
    ]
    for (image, text), (x, y) in zip(asked, [(20, 30), (70, 40)]):
        red = np.argwhere((np.asarray(image) == (255, 0, 0)).all(-1)) + 0.5
        assert np.abs(red.mean(0) - (y, x)).max() < 1
        assert "Do not mention the ring" in text and not re.search(r"[\d{}]", text)
    with pytest.raises(ValueError, match=r"point 1 is \(101"):
        VisionLanguageDescriber(folder)(Image.new("RGB", (100, 80)), [(20, 30), (101, 40)])


def test_the_fingerprint_follows_weights_prompt_convention_and_precision(
    folder, tmp_path, monkeypatch
):
    def fingerprints(model, **options):
        return VisionLanguageLocalizer(
            model, "0-1", **options
        ).fingerprint, VisionLanguageDescriber(model, **options).fingerprint

    before = fingerprints(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert fingerprints(folder) == before == fingerprints(str(copy), batch_size=1)
    seen = {
        *before,
        *fingerprints(folder, dtype="float32"),
        *fingerprints(folder, max_new_tokens=9),
    }
    seen.add(VisionLanguageLocalizer(folder, "0-100").fingerprint)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
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
    names = {}
    code = re.search(r"\n\n((?:    .*\n|\n)+)", vision_language.__doc__)[1]
    assert len(code.strip().splitlines()) <= 20
    exec(textwrap.dedent(code), names)
    locate = names["MoondreamLocalizer"]()
    found = locate(Image.new("RGB", (100, 80)), ["the eye", "nothing"])
    assert (
        found[0].tolist() == [25, 40]
        and np.isnan(found[1]).all()
        and locate.name
        and locate.fingerprint
    )
