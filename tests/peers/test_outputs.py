"""Forward passes and their outputs."""

import copy

import pytest
import torch
from peer_models import (
    DESCRIPTOR,
    answer,
    asked,
    assert_equal_answers,
    every_kind,
    gradients,
    loss_of,
    only_descriptor,
    targets,
)
from torch.utils import _pytree as pytree

pytestmark = pytest.mark.slow


@every_kind
def test_determinism(kind, model_and_inputs):
    """The same inputs give the same, to the last bit."""
    model, inputs = model_and_inputs(kind)
    first = answer(kind, model, inputs)
    assert torch.equal(answer(kind, model, inputs), first)


@every_kind
def test_batching(kind, make_pair, random_image):
    """A batch of images of different sizes gives what each gives alone."""
    model, processor = make_pair(kind)
    images = [random_image(0), random_image(1, 50, 90), random_image(2, 120, 40)]
    ((name, values),) = asked(kind, 3).items()
    together = processor(images=images, **{name: [[value] for value in values]})
    batched = answer(kind, model, together)
    for row, image in enumerate(images):
        alone = processor(images=image, **{name: [values[row]]})
        expected = answer(kind, model, alone)[0]
        found = batched[row]
        if kind == DESCRIPTOR:  # padded on the left
            found = found[-len(expected) :]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@every_kind
def test_rows_of_one_image(kind, make_pair, random_image):
    """Rows that share an image give what each gives alone."""
    model, processor = make_pair(kind)
    ((name, values),) = asked(kind, 3).items()
    image = random_image()
    batched = answer(kind, model, processor(images=image, **{name: values}))
    assert len(batched) == len(values)
    for row, value in enumerate(values):
        alone = processor(images=image, **{name: [value]})
        expected = answer(kind, model, alone)[0]
        found = batched[row]
        if kind == DESCRIPTOR:  # padded on the left
            found = found[-len(expected) :]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@every_kind
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(kind, side, make_pair, make_inputs):
    """Padding on the {side} changes nothing."""
    model, processor = make_pair(kind)
    plain = make_inputs(kind, processor)
    length = plain["input_ids"].shape[1]
    options = {"padding": "max_length", "max_length": length + 9, "padding_side": side}
    padded = make_inputs(kind, processor, **options)
    assert padded["input_ids"].shape[1] == length + 9
    expected = answer(kind, model, plain)
    found = answer(kind, model, padded)
    if kind == DESCRIPTOR:
        expected = expected[plain["attention_mask"].bool()]
        found = found[padded["attention_mask"].bool()]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@every_kind
def test_no_attention_mask(kind, model_and_inputs):
    """Without an attention mask everything is attended."""
    model, inputs = model_and_inputs(kind, count=1)
    expected = answer(kind, model, inputs)
    del inputs["attention_mask"]
    torch.testing.assert_close(answer(kind, model, inputs), expected)


@every_kind
def test_tuples(kind, model_and_inputs):
    """`return_dict=False` and `to_tuple` give the same values in the same order."""
    model, inputs = model_and_inputs(kind)
    inputs = {**inputs, **targets(kind, inputs)}
    with torch.no_grad():
        output = model(**inputs)
        values = model(**inputs, return_dict=False)
    assert isinstance(values, tuple) and len(values) == len(output.to_tuple())
    assert torch.equal(values[0], output.loss)
    assert list(output.keys())[0] == "loss"
    for value, expected in zip(values, output.to_tuple()):
        if torch.is_tensor(value):
            assert torch.equal(value, expected)


@every_kind
def test_output_is_a_mapping(kind, model_and_inputs):
    """Outputs unpack, copy and pass through pytrees, those of `get_image_features` too."""
    model, inputs = model_and_inputs(kind)
    points = {"input_points": inputs["input_points"]} if kind == DESCRIPTOR else {}
    with torch.no_grad():
        image = model.get_image_features(inputs["pixel_values"], **points)
        outputs = [model(**inputs), image]
    for output in outputs:
        assert list({**output}) == list(output.keys())
        assert copy.deepcopy(output).keys() == output.keys()
        leaves, spec = pytree.tree_flatten(output)
        assert pytree.tree_unflatten(leaves, spec).keys() == output.keys()
        assert len(output.to_tuple()) == len(output)


@every_kind
def test_encoded_images(kind, model_and_inputs):
    """`mm_encoder_outputs` of `get_image_features` instead of pixels."""
    model, inputs = model_and_inputs(kind)
    expected = answer(kind, model, inputs)
    points = {"input_points": inputs.pop("input_points")} if kind == DESCRIPTOR else {}
    with torch.no_grad():
        image = model.get_image_features(inputs.pop("pixel_values"), **points)
    found = answer(kind, model, inputs, mm_encoder_outputs={"image": image})
    torch.testing.assert_close(found, expected)


@every_kind
def test_hidden_states(kind, model_and_inputs):
    """`output_hidden_states`: of every layer, aligned with the rows."""
    model, inputs = model_and_inputs(kind, count=3)
    expected = answer(kind, model, inputs)
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    layers = model.config.get_text_config().num_hidden_layers
    assert len(output.hidden_states) == layers + 1
    for states in output.hidden_states:
        assert states.shape[:2] == inputs["input_ids"].shape
    found = output.logits if kind == DESCRIPTOR else output.points
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@every_kind
def test_attentions(kind, model_and_inputs):
    """`output_attentions` (eager): of every layer, rows that sum to 1."""
    model, inputs = model_and_inputs(kind, count=3)
    model.set_attn_implementation("eager")
    expected = answer(kind, model, inputs)
    with torch.no_grad():
        output = model(**inputs, output_attentions=True)
    rows, length = inputs["input_ids"].shape
    assert len(output.attentions) == model.config.get_text_config().num_hidden_layers
    for attention in output.attentions:
        assert attention.shape[0] == rows and attention.shape[2:] == (length, length)
        of_real = attention.sum(-1).transpose(1, 2)[inputs["attention_mask"].bool()]
        torch.testing.assert_close(of_real, torch.ones_like(of_real))
    found = output.logits if kind == DESCRIPTOR else output.points
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@every_kind
@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions"])
def test_options_of_the_config(kind, name, model_and_inputs):
    """`{name}` of the text config, as the argument."""
    model, inputs = model_and_inputs(kind)
    model.set_attn_implementation("eager")
    setattr(model.config.get_text_config(), name, True)
    with torch.no_grad():
        output = model(**inputs)
    assert output[name.removeprefix("output_")] is not None


@every_kind
def test_embeddings_instead_of_ids(kind, model_and_inputs):
    """`inputs_embeds` beside an image."""
    model, inputs = model_and_inputs(kind)
    expected = answer(kind, model, inputs)
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    found = answer(kind, model, inputs, inputs_embeds=embeds)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@only_descriptor
@pytest.mark.parametrize("count", [1, 2])
def test_logits_to_keep(kind, count, model_and_inputs):
    """`logits_to_keep={count}`."""
    model, inputs = model_and_inputs(kind)
    expected = answer(kind, model, inputs)[:, -count:]
    found = answer(kind, model, inputs, logits_to_keep=count)
    torch.testing.assert_close(found, expected)


@every_kind
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(kind, dtype, model_and_inputs):
    """Forward and backward in {dtype}, without autocast."""
    model, inputs = model_and_inputs(kind)
    model = model.to(getattr(torch, dtype))
    loss = loss_of(kind, model, inputs)
    loss.backward()
    assert loss.isfinite()
    for name, gradient in gradients(model).items():
        assert gradient.dtype == getattr(torch, dtype)
        assert gradient.isfinite().all(), name


@every_kind
def test_autocast(kind, model_and_inputs):
    """Forward and backward under autocast to bfloat16, near float32."""
    model, inputs = model_and_inputs(kind)
    expected = loss_of(kind, model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(kind, model, inputs)
    loss.backward()
    torch.testing.assert_close(loss.float(), expected, atol=0.05, rtol=0.05)


@every_kind
@pytest.mark.parametrize("variant", ["reentrant", "not reentrant"])
def test_gradient_checkpointing(kind, variant, model_and_inputs):
    """Gradient checkpointing ({variant}): the same loss and gradients."""
    model, inputs = model_and_inputs(kind)
    model.train()
    loss = loss_of(kind, model, inputs)
    loss.backward()
    expected = gradients(model)
    model.zero_grad()
    options = {"use_reentrant": variant == "reentrant"}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    assert model.is_gradient_checkpointing
    again = loss_of(kind, model, inputs)
    again.backward()
    torch.testing.assert_close(again, loss)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@every_kind
def test_training_mode_back_to_eval(kind, model_and_inputs):
    """A training step changes the weights, and `eval` answers as a loaded model does."""
    model, inputs = model_and_inputs(kind)
    before = answer(kind, model, inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_of(kind, model.train(), inputs).backward()
    optimizer.step()
    after = answer(kind, model.eval(), inputs)
    assert not torch.equal(after, before)
    assert_equal_answers(kind, model, copy.deepcopy(model), inputs, tolerance=0)


@every_kind
def test_memory_of_a_forward_pass(kind, model_and_inputs):
    """Inputs are left as they were."""
    model, inputs = model_and_inputs(kind)
    before = {name: value.clone() for name, value in inputs.items()}
    loss_of(kind, model, inputs).backward()
    assert inputs.keys() == before.keys()
    for name, value in inputs.items():
        torch.testing.assert_close(value, before[name], equal_nan=True, rtol=0, atol=0)
