"""Weights and embeddings."""

import copy

import pytest
import torch
from peer_models import (
    DESCRIPTOR,
    answer,
    assert_equal_answers,
    every_kind,
    gradients,
    load,
    loss_of,
    only_descriptor,
    saved,
)

pytestmark = pytest.mark.slow
MORE_TOKENS = 7
# every part that a config can switch on
CONFIGS = {
    "default": {},
    "the perception prior": {"use_perception_prior": True},
    "a backbone without a level of its own for every stride": {
        "backbone": "efficientnet_lite"
    },
    "Swin": {"backbone": "swin"},
    "one token stride": {"token_strides": (16,)},
    "Qwen3": {"text": "qwen"},
    "untied embeddings": {"text_kwargs": {"tie_word_embeddings": False}},
}


@every_kind
@pytest.mark.parametrize("config", CONFIGS)
def test_initialization(kind, config, make_pair):
    """Every weight is initialized, and by the seed alone: {config}."""
    drawn, _ = make_pair(kind, **CONFIGS[config])
    weights = []
    for filler in (1.0, float("nan")):
        # memory that is not initialized may hold anything
        model = copy.deepcopy(drawn)
        for value in [*model.parameters(), *model.buffers()]:
            if value.is_floating_point():
                value.data.fill_(filler)
        torch.manual_seed(0)
        fresh = type(model)(copy.deepcopy(model.config))
        weights.append(fresh.state_dict())
    assert weights[0].keys() == drawn.state_dict().keys()
    for name, value in weights[0].items():
        assert value.isfinite().all(), name
        assert torch.equal(value, weights[1][name]), name


@every_kind
@pytest.mark.parametrize("config", CONFIGS)
def test_every_trained_weight_gets_a_gradient(kind, config, model_and_inputs):
    """Exactly what asks for a gradient gets one: {config}."""
    model, inputs = model_and_inputs(kind, **CONFIGS[config])
    loss_of(kind, model.train(), inputs).backward()
    asking = {name for name, value in model.named_parameters() if value.requires_grad}
    assert gradients(model).keys() == asking


@every_kind
def test_no_weight_without_dimensions(kind, make_pair):
    """No weight lacks dimensions, which sharding could not cut."""
    model, _ = make_pair(kind)
    assert [name for name, value in model.named_parameters() if value.ndim == 0] == []


@every_kind
def test_embeddings_are_the_language_models(kind, make_pair):
    """`get_input_embeddings` and `set_input_embeddings`."""
    model, _ = make_pair(kind)
    old = model.get_input_embeddings()
    new = torch.nn.Embedding(*old.weight.shape)
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is new
    assert new in list(model.modules()) and old not in list(model.modules())


@every_kind
@pytest.mark.parametrize("tied", ["tied", "untied"])
def test_resizing(kind, tied, model_and_inputs):
    """`resize_token_embeddings`, {tied}: larger and back, answers unchanged."""
    text_kwargs = {"tie_word_embeddings": tied == "tied"}
    model, inputs = model_and_inputs(kind, text_kwargs=text_kwargs)
    expected = answer(kind, model, inputs)
    size = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(size + MORE_TOKENS)
    assert model.config.get_text_config().vocab_size == size + MORE_TOKENS
    larger = answer(kind, model, inputs)
    if kind == DESCRIPTOR:
        assert larger.shape[-1] == size + MORE_TOKENS
        head = model.get_output_embeddings().weight
        is_tied = head is model.get_input_embeddings().weight
        assert is_tied == (tied == "tied")
        larger = larger[..., :size]
    torch.testing.assert_close(larger, expected)
    loss_of(kind, model, inputs).backward()
    model.resize_token_embeddings(size)
    torch.testing.assert_close(answer(kind, model, inputs), expected)


@every_kind
def test_resized_model_is_saved(kind, make_pair, make_inputs, tmp_path):
    """A resized model, saved and loaded."""
    model, processor = make_pair(kind)
    model.resize_token_embeddings(model.get_input_embeddings().num_embeddings + 7)
    loaded = load(kind, saved(model, processor, tmp_path))
    inputs = make_inputs(kind, processor)
    assert_equal_answers(kind, model, loaded, inputs, tolerance=0)


@only_descriptor
@pytest.mark.parametrize("tied", ["tied", "untied"])
def test_tied_weights(kind, tied, make_pair, tmp_path):
    """The head: {tied}, also after saving and loading."""
    text_kwargs = {"tie_word_embeddings": tied == "tied"}
    model, processor = make_pair(kind, text_kwargs=text_kwargs)
    loaded = load(kind, saved(model, processor, tmp_path))
    for candidate in (model, loaded):
        head = candidate.get_output_embeddings().weight
        embeddings = candidate.get_input_embeddings().weight
        assert (head is embeddings) == (tied == "tied")
    head = loaded.get_output_embeddings().weight
    assert torch.equal(head, model.get_output_embeddings().weight)


@every_kind
def test_freezing(kind, model_and_inputs):
    """`requires_grad_(False)` of a part: no gradient reaches it, the others are as before."""
    model, inputs = model_and_inputs(kind)
    loss_of(kind, model, inputs).backward()
    expected = gradients(model)
    model.zero_grad()
    model.get_input_embeddings().requires_grad_(False)
    model.model.language_model.requires_grad_(False)
    loss_of(kind, model, inputs).backward()
    found = gradients(model)
    assert found and not any("language_model" in name for name in found)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])
