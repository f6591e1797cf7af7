"""Photos, points and texts of every kind, good and bad."""

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from hf_talking_points import PointLocalizerProcessor
from hf_talking_points.models.modeling_point_localizer import PointLocalizerOutput
from hf_talking_points.models.processing_talking_points import to_rgb

OWN_TEMPLATE = (
    "{%- for m in messages -%}{{ '[' + m['role'] + ']' + m['content'] }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '[assistant]' }}{%- endif -%}"
)


@pytest.fixture
def quadrants():
    """40 x 20: red, green / blue, white."""
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:10, :20] = (255, 0, 0)
    pixels[:10, 20:] = (0, 255, 0)
    pixels[10:, :20] = (0, 0, 255)
    pixels[10:, 20:] = (255, 255, 255)
    return Image.fromarray(pixels)


def as_integers(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("mode", ["CMYK", "P", "L", "LA", "1", "YCbCr", "HSV", "RGBA"])
def test_modes_become_rgb(quadrants, mode):
    image = to_rgb(quadrants.convert(mode))
    assert image.mode == "RGB"
    assert image.size == quadrants.size
    if mode != "1":
        expected = (
            quadrants.convert("L").convert("RGB") if mode in ("L", "LA") else quadrants
        )
        assert np.abs(as_integers(image) - as_integers(expected)).max() <= 3


def test_cmyk_jpeg(quadrants, tmp_path):
    quadrants.convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    color = as_integers(to_rgb(tmp_path / "print.jpg"))[5, 5]
    assert np.abs(color - (255, 0, 0)).max() < 20


@pytest.mark.parametrize("kind", ["path", "string", "image"])
def test_the_processor_sees_images_as_displayed(
    make_descriptor, quadrants, tmp_path, kind
):
    _, processor = make_descriptor()
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise for display
    quadrants.save(path, exif=exif)
    source = {"path": path, "string": str(path), "image": Image.open(path)}[kind]
    displayed = quadrants.transpose(Image.Transpose.ROTATE_270)
    point = (19, 39)  # outside the stored pixels, which are 40 x 20
    inputs = processor(source, points=[point])
    expected = processor(displayed, points=[point])
    assert torch.equal(inputs["pixel_values"], expected["pixel_values"])
    assert torch.equal(inputs["input_points"], expected["input_points"])


@pytest.mark.parametrize("size", [(1, 1), (20_000, 3), (3, 20_000)])
def test_extreme_sizes_of_a_described_image(make_descriptor, size):
    model, processor = make_descriptor()
    corners = [(0, 0), size]
    inputs = processor(Image.new("RGB", size, "red"), points=corners)
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    points = inputs["input_points"]
    assert bool(((points >= 0) & (points <= 1)).all())
    assert torch.isfinite(model(**inputs).logits).all()


@pytest.mark.parametrize("size", [(1, 1), (20_000, 3), (3, 20_000)])
def test_extreme_sizes_of_a_searched_image(make_localizer, size):
    model, processor = make_localizer()
    width, height = size
    with torch.no_grad():
        outputs = model(**processor(Image.new("RGB", size, "red"), "red"))
    [found] = processor.post_process_keypoint_detection(outputs, [(height, width)])
    assert np.isfinite(found["point"]).all()


def test_broken_files_and_wrong_types(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(UnidentifiedImageError):
        to_rgb(tmp_path / "text.jpg")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[:-200])
    with pytest.raises(OSError, match="(?i)truncated"):
        to_rgb(tmp_path / "cut.jpg")
    with pytest.raises(TypeError, match="dict"):
        to_rgb({})
    with pytest.raises(ValueError, match="missing.jpg"):
        to_rgb(str(tmp_path / "missing.jpg"))


@pytest.mark.parametrize(
    "points, message",
    [
        ([(5, 5), (41, 3)], r"point 1 is \(41.0, 3.0\)"),
        ([(float("nan"), 3)], "point 0"),
        ([(1, 2, 3)], "shape"),
        ([], "at least one"),
        (None, "at least one"),
    ],
)
def test_bad_points(make_descriptor, quadrants, points, message):
    _, processor = make_descriptor()
    with pytest.raises(ValueError, match=message):
        processor(quadrants, points=points)


def test_placeholders_and_lists_of_points_must_match(make_descriptor, quadrants):
    _, processor = make_descriptor()
    with pytest.raises(ValueError, match="2 <region> placeholders but there are 1"):
        processor(quadrants, text="<image><region><region>", points=[(1, 1)])
    with pytest.raises(ValueError, match="2 images but 1"):
        processor([quadrants, quadrants], points=[[(1, 1)]])
    with pytest.raises(ValueError, match="images are required"):
        processor(points=[(1, 1)])


def test_lists_of_texts_and_sizes_must_match(make_localizer, quadrants):
    _, processor = make_localizer()
    with pytest.raises(ValueError, match="2 images but 1"):
        processor([quadrants, quadrants], ["one"])
    with pytest.raises(ValueError, match="1 images but 0"):
        processor([quadrants])
    outputs = PointLocalizerOutput(points=torch.zeros(1, 2))
    with pytest.raises(ValueError, match="1 rows but 2"):
        processor.post_process_keypoint_detection(outputs, [(1, 1), (2, 2)])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "description 0 is ''"),
        ("  ", "not empty"),
        ([], "at least one"),
        (None, "at least one"),
        (["a", 3], "description 1"),
    ],
)
def test_bad_texts(make_localizer, quadrants, text, message):
    _, processor = make_localizer()
    with pytest.raises(ValueError, match=message):
        processor(quadrants, text)


def test_special_tokens_in_a_description_are_an_error(make_localizer, quadrants):
    _, processor = make_localizer()
    with pytest.raises(ValueError, match="<SEG>"):
        processor(quadrants, "the <SEG> eye")


def test_a_text_over_the_context_is_an_error_and_never_cut(make_localizer, quadrants):
    _, processor = make_localizer()
    too_long = "red green " * 100
    with pytest.raises(ValueError, match="text 1 has .* context holds 256"):
        processor(quadrants, ["red", too_long])
    assert processor.accepts("red")
    for text in (too_long, " ", "a <SEG>"):
        assert not processor.accepts(text)


def test_rows_know_their_images(make_localizer, quadrants):
    _, processor = make_localizer()
    inputs = processor(
        [quadrants, quadrants, quadrants], ["red", ["green", "blue"], ["white"]]
    )
    assert inputs["image_index"].tolist() == [0, 1, 1, 2]
    assert len(inputs["pixel_values"]) == 3


def test_chat_template_with_a_point(make_descriptor, quadrants):
    _, processor = make_descriptor()
    content = [
        {"type": "image", "image": quadrants},
        {"type": "text", "text": "What is "},
        {"type": "point", "point": (30, 5)},
    ]
    conversation = [{"role": "user", "content": content}]
    assert processor.apply_chat_template(conversation).startswith(
        "<image>What is <region>"
    )
    chat = processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_tensors="pt"
    )
    direct = processor(quadrants, text="<image>What is <region>\n", points=[(30, 5)])
    for name in ("input_ids", "input_points", "pixel_values"):
        torch.testing.assert_close(chat[name].view_as(direct[name]), direct[name])


@pytest.mark.parametrize(
    "kind, field", [("descriptor", "prompt"), ("localizer", "reply")]
)
def test_prompts_come_from_the_saved_processor(request, tmp_path, kind, field):
    _, processor = request.getfixturevalue(f"make_{kind}")()
    changed = getattr(processor, field) + " please"
    setattr(processor, field, changed)
    processor.save_pretrained(tmp_path)
    loaded = type(processor).from_pretrained(tmp_path)
    assert getattr(loaded, field) == changed
    assert loaded.render("red") == processor.render("red")
    assert loaded.image_seq_length == processor.image_seq_length
    assert loaded.image_size == processor.image_size


def test_a_tokenizer_keeps_its_own_template(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = OWN_TEMPLATE
    processor = PointLocalizerProcessor.from_tokenizer(
        tokenizer, image_size=64, image_seq_length=4
    )
    request = "[user]<image>Please segment region1: the ear"
    assert processor.render("the ear") == request + "[assistant]<p> keypoint </p> <SEG>"


def test_a_processor_is_made_from_a_saved_tokenizer(make_tokenizer, tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    processor = PointLocalizerProcessor.from_tokenizer(
        str(tmp_path), image_mean=(0.1, 0.2, 0.3), image_std=0.5
    )
    assert list(processor.image_processor.image_mean) == [0.1, 0.2, 0.3]
    assert list(processor.image_processor.image_std) == [0.5, 0.5, 0.5]
    assert processor.seg_token_id == len(processor.tokenizer) - 1
