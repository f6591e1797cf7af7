"""Photos, points and texts of every kind, good and bad."""

import time

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from transformers import AutoTokenizer, BatchFeature

from hf_talking_points import PointDescriptorProcessor, PointLocalizerProcessor
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


@pytest.mark.parametrize("text", ["the nose \ud83d", "\udcff of the cat", "\ud800"])
def test_half_a_character_is_no_text(make_localizer, make_descriptor, quadrants, text):
    _, processor = make_localizer()
    with pytest.raises(ValueError, match="description 1 has a lone surrogate"):
        processor(quadrants, ["red", text])
    assert not processor.accepts(text)
    assert processor.accepts("the nose \U0001f600")
    _, processor = make_descriptor()
    with pytest.raises(ValueError, match="text 0 has a lone surrogate"):
        processor(quadrants, text=f"<image>{text} <region>", points=[(3, 4)])


@pytest.mark.parametrize("text", ["ab" * 600_000, "the eye " * 150_000])
def test_a_text_of_a_million_characters_is_refused_at_once(
    make_localizer, quadrants, text
):
    _, processor = make_localizer()
    start = time.process_time()
    assert not processor.accepts(text)
    with pytest.raises(ValueError, match="description 1 has 1200000 characters"):
        processor(quadrants, ["red", text])
    assert time.process_time() - start < 1


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


def test_an_encoder_gets_its_own_marks_around_the_texts(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    processor = PointLocalizerProcessor.from_tokenizer(
        tokenizer, image_size=64, image_seq_length=0
    )
    request = "[CLS]Please segment region1: the ear[SEP]"
    assert processor.render("the ear") == request + "<p> keypoint </p> <SEG>"


def test_of_several_templates_the_default_is_kept(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"tools": "another", "default": OWN_TEMPLATE}
    processor = PointDescriptorProcessor.from_tokenizer(
        tokenizer, image_size=64, image_seq_length=4
    )
    assert processor.render() == f"[user]{processor.request()}[assistant]"


def test_a_descriptor_is_asked_for_a_style(make_descriptor, random_image):
    _, processor = make_descriptor()
    assert processor.styles == ["rich", "short"]
    rich, short = (processor.request(style) for style in processor.styles)
    assert rich == processor.request() == "<image>Please describe region1 <region>."
    assert short == "<image>Please describe region1 <region> in a few words."
    inputs = processor(random_image(), points=[(3, 4)], style="short")
    by_hand = processor(
        random_image(), text=processor.render(style="short"), points=[(3, 4)]
    )
    assert torch.equal(inputs["input_ids"], by_hand["input_ids"])
    with pytest.raises(ValueError, match="'terse' cannot be asked for; .* rich, short"):
        processor(random_image(), points=[(3, 4)], style="terse")


@pytest.mark.parametrize(
    ("words", "style"), [(1, "short"), (20, "short"), (21, "rich")]
)
def test_the_style_of_a_description_is_its_length(make_descriptor, words, style):
    _, processor = make_descriptor()
    assert processor.style_of(" ".join(["red"] * words)) == style


def test_a_fixed_prompt_knows_no_style(make_descriptor, tmp_path):
    """As of checkpoints that are older than styles."""
    _, processor = make_descriptor()
    processor.prompt = "<image>What is <region>?"
    processor.save_pretrained(tmp_path)
    loaded = PointDescriptorProcessor.from_pretrained(tmp_path)
    assert loaded.styles == []
    assert loaded.style_of("red") is None
    assert loaded.request() == "<image>What is <region>?"
    with pytest.raises(ValueError, match="no style, its prompt is always the same"):
        loaded.request("rich")


def test_a_template_sees_all_fields_of_a_message(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{%- for m in messages -%}{{ m.reasoning_content }}{{ m.content }}{%- endfor -%}"
    processor = PointDescriptorProcessor.from_tokenizer(
        tokenizer, image_size=64, image_seq_length=4
    )
    content = [{"type": "text", "text": "a cat"}]
    message = {"role": "assistant", "content": content, "reasoning_content": "hm: "}
    assert processor.apply_chat_template([message]) == "hm: a cat"


def test_a_processor_is_made_from_a_saved_tokenizer(make_tokenizer, tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    processor = PointLocalizerProcessor.from_tokenizer(
        str(tmp_path), image_mean=(0.1, 0.2, 0.3), image_std=0.5
    )
    assert list(processor.image_processor.image_mean) == [0.1, 0.2, 0.3]
    assert list(processor.image_processor.image_std) == [0.5, 0.5, 0.5]
    assert processor.seg_token_id == len(processor.tokenizer) - 1


POINTS = [(5, 5), (33.3, 17.7)]
GIVEN = {"descriptor": {"points": POINTS}, "localizer": {"text": ["red", "the cat"]}}


@pytest.fixture(scope="module", params=GIVEN)
def kind_and_processor(request):
    """ "descriptor" or "localizer", and its processor."""
    _, processor = request.getfixturevalue(f"make_{request.param}")()
    return request.param, processor


CASTS = {
    "dtype": lambda inputs, dtype: inputs.to(dtype),
    "device and dtype": lambda inputs, dtype: inputs.to("cpu", dtype),
    "named": lambda inputs, dtype: inputs.to(device="cpu", dtype=dtype),
    "one after the other": lambda inputs, dtype: inputs.to("cpu").to(dtype),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cast", CASTS)
def test_half_precision_moves_no_point(make_descriptor, quadrants, cast, dtype):
    _, processor = make_descriptor()
    exact = processor(quadrants, points=POINTS)["input_points"]
    content = [{"type": "image", "image": quadrants}]
    content += [{"type": "point", "point": point} for point in POINTS]
    chat = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True
    )
    for inputs in (processor(quadrants, points=POINTS), chat):
        inputs = CASTS[cast](inputs, dtype)
        assert isinstance(inputs, BatchFeature)
        assert inputs["pixel_values"].dtype == dtype
        assert inputs["input_ids"].dtype == torch.int64
        assert torch.equal(inputs["input_points"], exact)


MEAN = [0.1, 0.2, 0.3]
IMAGE_OPTIONS = {
    "do_normalize": ({"do_normalize": False}, lambda raw: raw),
    "do_rescale": (
        {"do_rescale": False, "do_normalize": False},
        lambda raw: raw * 255,
    ),
    "rescale_factor": (
        {"rescale_factor": 1 / 510, "do_normalize": False},
        lambda raw: raw / 2,
    ),
    "image_mean": (
        {"image_mean": MEAN},
        lambda raw: (raw - torch.tensor(MEAN)[:, None, None]) / 0.5,
    ),
    "image_std": ({"image_std": [0.25] * 3}, lambda raw: (raw - 0.5) / 0.25),
    "as they are": (
        {"do_resize": True, "do_convert_rgb": True, "do_center_crop": False},
        lambda raw: (raw - 0.5) / 0.5,
    ),
}


@pytest.mark.parametrize("way", ["flat", "images_kwargs"])
@pytest.mark.parametrize("name", IMAGE_OPTIONS)
def test_options_of_the_image_processor(kind_and_processor, quadrants, name, way):
    kind, processor = kind_and_processor
    options, expected = IMAGE_OPTIONS[name]
    raw = processor(quadrants, **GIVEN[kind])["pixel_values"] * 0.5 + 0.5
    options = options if way == "flat" else {"images_kwargs": options}
    found = processor(quadrants, **GIVEN[kind], **options)["pixel_values"]
    torch.testing.assert_close(found.float(), expected(raw), atol=1e-4, rtol=1e-4)


def test_the_layout_of_arrays_may_be_told(kind_and_processor):
    kind, processor = kind_and_processor
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 3), dtype=np.uint8)
    given = {"points": [(1, 1)]} if kind == "descriptor" else {"text": "red"}
    found = processor(pixels, **given, input_data_format="channels_first")
    expected = processor(Image.fromarray(pixels.transpose(1, 2, 0)), **given)
    assert torch.equal(found["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize("as_array", [np.stack, lambda a: torch.tensor(np.stack(a))])
def test_an_array_of_images_is_a_list_of_them(kind_and_processor, as_array):
    kind, processor = kind_and_processor
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    given = {name: [values, values[:1]] for name, values in GIVEN[kind].items()}
    found = processor(as_array(pixels), **given)
    expected = processor([Image.fromarray(image) for image in pixels], **given)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], equal_nan=True)


@pytest.mark.parametrize("way", ["flat", "text_kwargs"])
def test_options_of_the_tokenizer(kind_and_processor, quadrants, way):
    kind, processor = kind_and_processor
    plain = processor(quadrants, **GIVEN[kind])
    rows, length = plain["input_ids"].shape

    def with_options(**options):
        options = options if way == "flat" else {"text_kwargs": options}
        return processor(quadrants, **GIVEN[kind], **options)

    for side in ("left", "right"):
        found = with_options(
            padding="max_length", max_length=length + 7, padding_side=side
        )
        assert found["input_ids"].shape == (rows, length + 7)
        padding = found["attention_mask"][0] == 0
        assert bool(padding[:7].all()) == (side == "left")
        assert bool(padding[-7:].all()) == (side == "right")
    assert with_options(pad_to_multiple_of=16)["input_ids"].shape[1] % 16 == 0
    assert "attention_mask" not in with_options(return_attention_mask=False)
    types = with_options(return_mm_token_type_ids=True)["mm_token_type_ids"]
    assert torch.equal(types == 1, plain["input_ids"] == processor.image_token_id)
    assert with_options(return_offsets_mapping=True)["offset_mapping"].shape[-1] == 2
    fits = with_options(truncation=True, max_length=length)
    assert torch.equal(fits["input_ids"], plain["input_ids"])
    for side in (length - 3, 10):
        with pytest.raises(ValueError, match="truncation"):
            with_options(truncation=True, max_length=side, padding_side="right")


def test_options_that_the_tokenizer_was_loaded_with(
    kind_and_processor, quadrants, tmp_path
):
    kind, processor = kind_and_processor
    processor.save_pretrained(tmp_path)
    padded = AutoTokenizer.from_pretrained(
        tmp_path, padding="max_length", max_length=117, padding_side="right"
    )
    processor = type(processor)(
        processor.image_processor,
        padded,
        chat_template=processor.chat_template,
        image_seq_length=processor.image_seq_length,
    )
    found = processor(quadrants, **GIVEN[kind])
    assert found["input_ids"].shape[1] == 117
    is_left = kind == "descriptor"
    assert bool(found["attention_mask"][0, 0] == 0) == is_left
    found = processor(quadrants, **GIVEN[kind], max_length=112)
    assert found["input_ids"].shape[1] == 112


@pytest.mark.parametrize("way", ["flat", "text_kwargs", "common_kwargs"])
@pytest.mark.parametrize("return_tensors", ["pt", "np", None])
def test_tensors_of_every_kind(kind_and_processor, quadrants, return_tensors, way):
    kind, processor = kind_and_processor
    expected = processor(quadrants, **GIVEN[kind])
    options = {"return_tensors": return_tensors}
    options = options if way == "flat" else {way: options}
    found = processor(quadrants, **GIVEN[kind], **options)
    value_type = {"pt": torch.Tensor, "np": np.ndarray, None: list}[return_tensors]
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert isinstance(value, value_type), name
        np.testing.assert_array_equal(np.asarray(value), expected[name])
        if return_tensors is not None:
            assert np.asarray(value).dtype == expected[name].numpy().dtype, name


@pytest.mark.parametrize(
    "options",
    [
        {"do_resize": False},
        {"size": {"height": 32, "width": 32}},
        {"do_center_crop": True},
        {"crop_size": {"height": 32, "width": 32}},
        {"do_pad": True},
        {"pad_size": {"height": 128, "width": 128}},
        {"resample": Image.Resampling.NEAREST},
        {"do_convert_rgb": False},
        {"data_format": "channels_last"},
        {"image_seq_length": 7},
        {"text_pair": "red"},
        {"is_split_into_words": True},
        {"return_overflowing_tokens": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_would_move_points_or_change_rows_are_refused(
    kind_and_processor, quadrants, options
):
    kind, processor = kind_and_processor
    [name] = options
    modality = "text_kwargs" if "text" in name or "is_" in name else "images_kwargs"
    modality = "text_kwargs" if "overflow" in name else modality
    for given in (options, {modality: options}):
        with pytest.raises(ValueError, match=f"{name}=.* is not possible"):
            processor(quadrants, **GIVEN[kind], **given)


@pytest.mark.parametrize(
    "options",
    [
        {"normalised": True},
        {"videos": ["a.mp4"]},
        {"fps": 2},
        {"audio_kwargs": {"sampling_rate": 8000}},
        {"images_kwargs": {"brightness": 2}},
    ],
    ids=str,
)
def test_options_that_nobody_knows_are_refused(kind_and_processor, quadrants, options):
    kind, processor = kind_and_processor
    name = "brightness" if "images_kwargs" in options else next(iter(options))
    with pytest.raises(TypeError, match=name):
        processor(quadrants, **GIVEN[kind], **options)


def test_an_image_processor_that_crops_the_canvas_is_an_error(
    make_descriptor, quadrants
):
    _, processor = make_descriptor()
    processor.image_processor.do_center_crop = True
    processor.image_processor.crop_size = {"height": 32, "width": 32}
    with pytest.raises(ValueError, match=r"\(3, 32, 32\) instead of \(3, 64, 64\)"):
        processor(quadrants, points=POINTS)


def test_the_image_processor_of_torchvision_gives_the_same(
    kind_and_processor, quadrants
):
    pytest.importorskip(
        "torchvision",
        reason="torchvision is not installed, or not for this torch",
        exc_type=ImportError,
    )
    from transformers import ViTImageProcessor

    kind, processor = kind_and_processor
    fields = processor.image_processor.to_dict()
    fast = type(processor)(
        ViTImageProcessor(**fields),
        processor.tokenizer,
        chat_template=processor.chat_template,
        image_seq_length=processor.image_seq_length,
    )
    expected = processor(quadrants, **GIVEN[kind])
    found = fast(quadrants, **GIVEN[kind])
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=0)


GENERATION_TEMPLATE = (
    "{%- for m in messages -%}{{- '[' + m['role'] + ']' -}}"
    "{%- if m['role'] == 'assistant' -%}{% generation %}{{- m['content'] + eos_token -}}"
    "{% endgeneration %}{%- else -%}{{- m['content'] -}}{%- endif -%}{%- endfor -%}"
)


def test_the_mask_of_the_assistants_tokens(make_tokenizer, quadrants):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = GENERATION_TEMPLATE
    processor = PointDescriptorProcessor.from_tokenizer(
        tokenizer, image_size=64, image_seq_length=4
    )
    content = [
        {"type": "image", "image": quadrants},
        {"type": "point", "point": (3, 4)},
    ]
    conversation = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "the red corner"},
    ]
    chat = processor.apply_chat_template(
        conversation,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    [ids] = chat["input_ids"].tolist()
    [mask] = chat["assistant_masks"]
    learned = [token for token, of_assistant in zip(ids, mask) if of_assistant]
    assert tokenizer.decode(learned) == "the red corner<eos>"


def test_control_tokens_of_a_user_stay_text(make_descriptor, quadrants):
    _, processor = make_descriptor()
    content = [
        {"type": "image", "image": quadrants},
        {"type": "text", "text": "what is <image> beside "},
        {"type": "point", "point": (3, 4)},
    ]
    chat = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        sanitize_control_tokens=True,
    )
    images = chat["input_ids"] == processor.image_token_id
    assert int(images.sum()) == processor.image_seq_length


def test_a_message_may_have_no_content(make_descriptor, quadrants):
    _, processor = make_descriptor()
    content = [
        {"type": "image", "image": quadrants},
        {"type": "point", "point": (3, 4)},
    ]
    conversation = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": None},
    ]
    chat = processor.apply_chat_template(conversation, tokenize=True, return_dict=True)
    assert chat["input_points"].shape == (1, 1, 2)
