"""Photos of every kind, points and texts of every kind, good and bad."""

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from hf_talking_points.models.modeling_point_localizer import PointLocalizerOutput
from hf_talking_points.models.processing_talking_points import to_rgb


@pytest.fixture
def quadrants():
    """40 x 20: red, green / blue, white."""
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:10, :20, 0] = pixels[:10, 20:, 1] = pixels[10:, :20, 2] = 255
    pixels[10:, 20:] = 255
    return Image.fromarray(pixels)


def test_exif_orientation_is_applied(quadrants, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise for display
    quadrants.save(tmp_path / "turned.png", exif=exif)
    for source in (
        tmp_path / "turned.png",
        str(tmp_path / "turned.png"),
        Image.open(tmp_path / "turned.png"),
    ):
        image = to_rgb(source)
        assert image.size == (20, 40)
        assert [image.getpixel(p) for p in ((2, 2), (17, 2))] == [(0, 0, 255), (255, 0, 0)]


@pytest.mark.parametrize("mode", ["CMYK", "P", "L", "LA", "1", "YCbCr", "HSV", "RGBA"])
def test_modes_become_rgb(quadrants, mode):
    image = to_rgb(quadrants.convert(mode))
    assert image.mode == "RGB" and image.size == quadrants.size
    expected = quadrants.convert("L").convert("RGB") if mode in ("L", "LA") else quadrants
    if mode != "1":
        assert np.abs(np.asarray(image).astype(int) - np.asarray(expected)).max() <= 3


def test_cmyk_jpeg(quadrants, tmp_path):
    quadrants.convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    assert (
        np.abs(np.asarray(to_rgb(tmp_path / "print.jpg")).astype(int)[5, 5] - [255, 0, 0]).max()
        < 20
    )


def test_transparency_is_shown_on_white(quadrants, tmp_path):
    palette = quadrants.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((2, 2)))
    image = to_rgb(tmp_path / "palette.png")
    assert image.getpixel((2, 2)) == (255, 255, 255) and image.getpixel((2, 15)) == (0, 0, 255)


@pytest.mark.parametrize("kind", ["file", "image", "array"])
def test_sixteen_bits_are_scaled(tmp_path, kind):
    deep = np.array([[0, 0x8000], [0xFFFF, 0x1234]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    source = {"file": tmp_path / "deep.png", "image": Image.fromarray(deep), "array": deep}[kind]
    np.testing.assert_array_equal(
        np.asarray(to_rgb(source)), np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, -1)
    )


@pytest.mark.parametrize("make", [np.asarray, lambda i: torch.from_numpy(np.array(i))])
def test_arrays(quadrants, make):
    np.testing.assert_array_equal(np.asarray(to_rgb(make(quadrants))), np.asarray(quadrants))


@pytest.mark.parametrize("size", [(1, 1), (20_000, 3), (3, 20_000)])
def test_extreme_sizes(make_descriptor, make_localizer, size):
    model, processor = make_descriptor()
    image, corners = Image.new("RGB", size, "red"), [(0, 0), size]
    inputs = processor(image, points=corners)
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert bool(((inputs["input_points"] >= 0) & (inputs["input_points"] <= 1)).all())
    assert torch.isfinite(model(**inputs).logits).all()
    locate, processor = make_localizer()
    with torch.no_grad():
        [found] = processor.post_process_keypoint_detection(
            locate(**processor(image, "red")), [size[::-1]]
        )
    assert np.isfinite(found["point"]).all()


def test_broken_files_and_wrong_types(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(UnidentifiedImageError):
        to_rgb(tmp_path / "text.jpg")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-200])
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


def test_placeholders_and_lists_must_match(make_descriptor, make_localizer, quadrants):
    _, processor = make_descriptor()
    with pytest.raises(ValueError, match="2 <region> placeholders but there are 1"):
        processor(quadrants, text="<image><region><region>", points=[(1, 1)])
    with pytest.raises(ValueError, match="2 images but 1"):
        processor([quadrants, quadrants], points=[[(1, 1)]])
    with pytest.raises(ValueError, match="images are required"):
        processor(points=[(1, 1)])
    _, processor = make_localizer()
    with pytest.raises(ValueError, match="2 images but 1"):
        processor([quadrants, quadrants], ["one"])
    with pytest.raises(ValueError, match="1 rows but 2"):
        processor.post_process_keypoint_detection(
            PointLocalizerOutput(points=torch.zeros(1, 2)), [(1, 1), (2, 2)]
        )


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "description 0 is ''"),
        ("  ", "not empty"),
        ([], "at least one"),
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
    with pytest.raises(ValueError, match="text 1 has .* context holds 256"):
        processor(quadrants, ["red", "red green " * 100])
    assert [processor.accepts(text) for text in ("red", "red green " * 100, " ", "a <SEG>")] == [
        True,
        False,
        False,
        False,
    ]


def test_chat_template_with_a_point(make_descriptor, quadrants):
    _, processor = make_descriptor()
    content = [
        {"type": "image", "image": quadrants},
        {"type": "text", "text": "What is "},
        {"type": "point", "point": (30, 5)},
    ]
    conversation = [{"role": "user", "content": content}]
    assert processor.apply_chat_template(conversation).startswith("<image>What is <region>")
    chat = processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_tensors="pt"
    )
    direct = processor(quadrants, text="<image>What is <region>\n", points=[(30, 5)])
    for name in ("input_ids", "input_points", "pixel_values"):
        torch.testing.assert_close(chat[name].view_as(direct[name]), direct[name])


def test_prompts_come_from_the_saved_processor(make_descriptor, make_localizer, tmp_path):
    for make, field in ((make_descriptor, "prompt"), (make_localizer, "reply")):
        _, processor = make()
        setattr(processor, field, getattr(processor, field) + " please")
        processor.save_pretrained(tmp_path / field)
        loaded = type(processor).from_pretrained(tmp_path / field)
        assert loaded.render("red") == processor.render("red") and getattr(loaded, field).endswith(
            " please"
        )
        assert (
            loaded.image_seq_length == processor.image_seq_length
            and loaded.image_size == processor.image_size
        )


def test_feature_order_of_a_tokenizer_with_its_own_template(make_tokenizer):
    from hf_talking_points import PointLocalizerProcessor

    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{%- for m in messages -%}{{ '[' + m['role'] + ']' + m['content'] }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '[assistant]' }}{%- endif -%}"
    )
    processor = PointLocalizerProcessor.from_tokenizer(tokenizer, image_size=64, image_seq_length=4)
    assert (
        processor.render("the ear")
        == "[user]<image>Please segment region1: the ear[assistant]<p> keypoint </p> <SEG>"
    )
