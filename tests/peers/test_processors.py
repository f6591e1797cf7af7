"""Processors."""

import numpy as np
import pytest
import torch
from peer_models import (
    DESCRIPTOR,
    POINTS,
    TEXTS,
    asked,
    load_processor,
)
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.utils import is_torchvision_available

pytestmark = pytest.mark.slow
both_processors = pytest.mark.parametrize("kind", [DESCRIPTOR, "localizer"])
MODELS = {DESCRIPTOR: DESCRIPTOR, "localizer": "localizer, mlp"}


@pytest.fixture(scope="module")
def make_processor(make_pair):
    """Makes the processor of a kind of model."""
    return lambda kind: make_pair(MODELS[kind])[1]


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value, expected[name], rtol=0, atol=0, equal_nan=True
        )


@both_processors
def test_round_trip(kind, make_processor, random_image, tmp_path):
    """`save_pretrained`, and `AutoProcessor` gives the same inputs."""
    processor = make_processor(kind)
    processor.save_pretrained(tmp_path)
    loaded = load_processor(tmp_path)
    assert type(loaded) is type(processor)
    assert loaded.to_dict() == processor.to_dict()
    question = asked(kind)
    found = loaded(images=random_image(), **question)
    equal(found, processor(images=random_image(), **question))


@both_processors
def test_parts(kind, make_processor, tmp_path):
    """`AutoTokenizer` and `AutoImageProcessor` of a saved processor."""
    processor = make_processor(kind)
    processor.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == len(processor.tokenizer)
    image_processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert image_processor.size == processor.image_processor.size


@both_processors
@pytest.mark.parametrize("tensors", ["pt", "np", None])
def test_return_tensors(kind, tensors, make_processor, random_image):
    """`return_tensors={tensors!r}`."""
    processor = make_processor(kind)
    inputs = processor(images=random_image(), **asked(kind, 3), return_tensors=tensors)
    classes = {"pt": torch.Tensor, "np": np.ndarray}
    for name, value in inputs.items():
        if tensors is not None:
            assert isinstance(value, classes[tensors]), name
        else:
            assert isinstance(value, (list, torch.Tensor, np.ndarray)), name


@both_processors
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side(kind, side, make_processor, random_image):
    """`padding_side="{side}"`."""
    processor = make_processor(kind)
    length = 80
    inputs = processor(
        images=random_image(),
        **asked(kind),
        padding="max_length",
        max_length=length,
        padding_side=side,
    )
    mask = inputs["attention_mask"]
    assert mask.shape == (2, length)
    padding = mask[:, 0] if side == "left" else mask[:, -1]
    assert not padding.any()


@both_processors
def test_nested_options(kind, make_processor, random_image):
    """`text_kwargs` and `images_kwargs` as the options themselves."""
    processor = make_processor(kind)
    question = asked(kind)
    padding = {"padding": "max_length", "max_length": 80}
    mean = {"image_mean": [0.1, 0.2, 0.3]}
    nested = processor(
        images=random_image(), **question, text_kwargs=padding, images_kwargs=mean
    )
    flat = processor(images=random_image(), **question, **padding, **mean)
    assert nested["input_ids"].shape == (2, 80)
    equal(nested, flat)
    plain = processor(images=random_image(), **question)
    assert not torch.equal(plain["pixel_values"], flat["pixel_values"])


@both_processors
@pytest.mark.parametrize("option", ["do_rescale", "do_normalize"])
def test_switches(kind, option, make_processor, random_image):
    """`{option}=False`."""
    processor = make_processor(kind)
    question = asked(kind)
    plain = processor(images=random_image(), **question)["pixel_values"]
    found = processor(images=random_image(), **question, **{option: False})
    assert not torch.equal(found["pixel_values"], plain)
    if option == "do_normalize":
        expected = (found["pixel_values"] - 0.5) / 0.5
        torch.testing.assert_close(expected, plain)


MOVES = {
    "size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "do_resize": False,
}


@both_processors
@pytest.mark.parametrize("option", MOVES)
def test_options_that_move_points(
    kind, option, make_processor, random_image, record_property
):
    """`{option}`, which would move points on the canvas."""
    processor = make_processor(kind)
    question = asked(kind)
    plain = processor(images=random_image(), **question)
    try:
        found = processor(images=random_image(), **question, **{option: MOVES[option]})
    except (TypeError, ValueError) as error:
        assert option in str(error)
        record_property("refused", f"`{type(error).__name__}: {error}`")
    else:
        equal(found, plain)


@both_processors
def test_unknown_option(kind, make_processor, random_image):
    """An option that no part takes: an error or a warning, as in transformers."""
    processor = make_processor(kind)
    plain = processor(images=random_image(), **asked(kind))
    try:
        found = processor(images=random_image(), **asked(kind), nonsense=1)
    except (TypeError, ValueError) as error:
        assert "nonsense" in str(error)
    else:
        equal(found, plain)


@both_processors
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_to_dtype(kind, dtype, make_processor, random_image):
    """`.to(torch.{dtype})` changes pixels, never points or ids."""
    inputs = make_processor(kind)(images=random_image(), **asked(kind))
    expected = dict(inputs)
    found = inputs.to(getattr(torch, dtype))
    assert found["pixel_values"].dtype == getattr(torch, dtype)
    for name, value in found.items():
        if name != "pixel_values":
            assert torch.equal(value, expected[name]), name


@both_processors
def test_to_device(kind, make_processor, random_image):
    """`.to(device)` and `.to(device, dtype=)`."""
    inputs = make_processor(kind)(images=random_image(), **asked(kind))
    found = inputs.to("cpu", dtype=torch.float16)
    assert found["pixel_values"].dtype == torch.float16
    assert {value.device.type for value in found.values()} == {"cpu"}


@both_processors
def test_decoding(kind, make_processor):
    """`decode` and `batch_decode` are the tokenizer's."""
    processor = make_processor(kind)
    ids = processor.tokenizer(TEXTS)["input_ids"]
    assert processor.batch_decode(ids) == processor.tokenizer.batch_decode(ids)
    assert processor.decode(ids[0]) == processor.tokenizer.decode(ids[0])


@both_processors
def test_input_names(kind, make_processor, random_image):
    """`model_input_names` names what a call gives."""
    processor = make_processor(kind)
    inputs = processor(images=random_image(), **asked(kind))
    assert set(inputs) == set(processor.model_input_names)


@both_processors
@pytest.mark.parametrize("form", ["array", "tensor", "path", "gray", "RGBA"])
def test_forms_of_images(kind, form, make_processor, random_image, tmp_path):
    """Images as {form}."""
    processor = make_processor(kind)
    image = random_image()
    image.save(tmp_path / "image.png")
    pixels = np.asarray(image)
    forms = {
        "array": pixels,
        "tensor": torch.tensor(pixels).permute(2, 0, 1),
        "path": str(tmp_path / "image.png"),
        "gray": image.convert("L"),
        "RGBA": image.convert("RGBA"),
    }
    question = asked(kind)
    found = processor(images=forms[form], **question)["pixel_values"]
    expected = processor(images=image, **question)["pixel_values"]
    assert found.shape == expected.shape
    if form != "gray":
        assert torch.equal(found, expected)


@both_processors
def test_chat_template(kind, make_processor):
    """`apply_chat_template` to text, and the template saved with the processor."""
    processor = make_processor(kind)
    content = [{"type": "image"}, {"type": "text", "text": "Where?"}]
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert text.count("<image>") == 1 and "Where?" in text


@pytest.mark.parametrize("kind", [DESCRIPTOR])
def test_chat_template_with_tensors(kind, make_processor, random_image):
    """`apply_chat_template(tokenize=True, return_dict=True)` of a message with image and point."""
    processor = make_processor(kind)
    content = [
        {"type": "image", "image": random_image()},
        {"type": "text", "text": "What is at "},
        {"type": "point", "point": POINTS[0]},
    ]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    assert inputs["input_points"].shape == (1, 1, 2)
    assert (inputs["input_ids"] == processor.region_token_id).sum() == 1


@both_processors
def test_truncation(kind, make_processor, random_image, refused):
    """`truncation=True`, which would cut placeholders."""
    processor = make_processor(kind)
    with refused(ValueError, "."):
        processor(images=random_image(), **asked(kind), truncation=True, max_length=9)


@both_processors
def test_fast_image_processor(kind):
    """The image processor of torchvision."""
    if not is_torchvision_available():
        pytest.skip("torchvision is not installed; the PIL one gives the same points")


@both_processors
def test_no_images(kind, make_processor, refused):
    """Text without images."""
    with refused(ValueError, "images are required"):
        make_processor(kind)(**asked(kind))


@both_processors
def test_push(kind, make_processor, hub):
    """`push_to_hub`, loaded from the Hub again."""
    processor = make_processor(kind)
    processor.push_to_hub("someone/processor")
    loaded = load_processor("someone/processor")
    assert loaded.to_dict() == processor.to_dict()
