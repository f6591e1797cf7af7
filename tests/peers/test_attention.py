"""Attention implementations."""

import pytest
import torch
from peer_models import (
    answer,
    both_models,
    every_kind,
    gradients,
    load,
    loss_of,
    saved,
)
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

pytestmark = pytest.mark.slow
# what the machine of the tests cannot run, with the package that transformers misses
WITHOUT_PACKAGE = {
    "flash_attention_2": "flash_attn|kernels|FlashAttention",
    "flash_attention_3": "flash_attn|kernels|FlashAttention",
    "kernels-community/flash-attn2": "kernels|flash",
}


def implementation_of(model):
    return model.config.get_text_config()._attn_implementation


def expected_answer(kind, make_pair, make_inputs, padded):
    """-> (eager model, processor, inputs, its answer)."""
    model, processor = make_pair(kind)
    model.set_attn_implementation("eager")
    options = {}
    if padded:
        options = {"padding": "max_length", "max_length": 70}
    inputs = make_inputs(kind, processor, 3, **options)
    return model, processor, inputs, answer(kind, model, inputs)


def assert_as_expected(kind, model, inputs, expected):
    """Beside padding."""
    found = answer(kind, model, inputs)
    if found.ndim == 3:
        mask = inputs["attention_mask"].bool()
        found = found[mask]
        expected = expected[mask]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@every_kind
@pytest.mark.parametrize("padded", ["without padding", "padded"])
def test_sdpa(kind, padded, make_pair, make_inputs, tmp_path):
    """`from_pretrained(attn_implementation="sdpa")` is as "eager", rows of one image {padded}."""
    model, processor, inputs, expected = expected_answer(
        kind, make_pair, make_inputs, padded == "padded"
    )
    folder = saved(model, processor, tmp_path)
    loaded = load(kind, folder, attn_implementation="sdpa")
    assert implementation_of(loaded) == "sdpa"
    assert_as_expected(kind, loaded, inputs, expected)


@both_models
def test_flex_attention(kind, make_pair, make_inputs, tmp_path):
    """`from_pretrained(attn_implementation="flex_attention")` is as "eager", padded rows of one image."""
    model, processor, inputs, expected = expected_answer(
        kind, make_pair, make_inputs, True
    )
    folder = saved(model, processor, tmp_path)
    loaded = load(kind, folder, attn_implementation="flex_attention")
    # torch 2.13 does not compile it a second time on a CPU
    torch._dynamo.reset()
    assert implementation_of(loaded) == "flex_attention"
    assert_as_expected(kind, loaded, inputs, expected)


@every_kind
@pytest.mark.parametrize("implementation", ["sdpa", "flex_attention"])
def test_switching(kind, implementation, make_pair, make_inputs, tmp_path):
    """`set_attn_implementation("{implementation}")` does what `from_pretrained` does with it."""
    model, processor = make_pair(kind)
    folder = saved(model, processor, tmp_path)
    loaded = load(kind, folder, attn_implementation=implementation)
    model.set_attn_implementation("eager")
    model.set_attn_implementation(implementation)
    assert implementation_of(model) == implementation_of(loaded) == implementation
    for name, module in model.named_modules():
        if hasattr(module, "config") and hasattr(module, "set_attn_implementation"):
            other = loaded.get_submodule(name).config._attn_implementation
            assert module.config._attn_implementation == other, name


@every_kind
def test_switching_by_part(kind, make_pair, make_inputs):
    """`set_attn_implementation` of a dictionary of parts."""
    model, _, inputs, expected = expected_answer(kind, make_pair, make_inputs, False)
    model.set_attn_implementation({"text_config": "sdpa"})
    assert implementation_of(model) == "sdpa"
    found = answer(kind, model, inputs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@every_kind
def test_gradients(kind, make_pair, make_inputs):
    """Gradients with "sdpa" are those with "eager"."""
    model, _, inputs, _ = expected_answer(kind, make_pair, make_inputs, False)
    loss_of(kind, model, inputs).backward()
    expected = gradients(model)
    model.zero_grad()
    model.set_attn_implementation("sdpa")
    loss_of(kind, model, inputs).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)


@every_kind
def test_registered(kind, make_pair, make_inputs):
    """An implementation of one's own (`AttentionInterface.register`)."""
    calls = []

    def attention(*args, **kwargs):
        calls.append(args)
        return sdpa_attention_forward(*args, **kwargs)

    AttentionInterface.register("counted", attention)
    AttentionMaskInterface.register("counted", sdpa_mask)
    model, _, inputs, expected = expected_answer(kind, make_pair, make_inputs, False)
    model.set_attn_implementation({"text_config": "counted"})
    found = answer(kind, model, inputs)
    assert calls
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@every_kind
@pytest.mark.parametrize("implementation", WITHOUT_PACKAGE)
def test_not_installed(kind, implementation, checkpoint, refused):
    """`attn_implementation="{implementation}"` without its package."""
    with refused(Exception, WITHOUT_PACKAGE[implementation]):
        load(kind, checkpoint(kind), attn_implementation=implementation)


@every_kind
def test_unknown(kind, checkpoint, refused):
    """An `attn_implementation` that does not exist."""
    with refused(ValueError, "nonsense"):
        load(kind, checkpoint(kind), attn_implementation="nonsense")


@every_kind
def test_sdpa_kernels(kind, make_pair, make_inputs):
    """Any kernel of `torch.nn.attention.sdpa_kernel`."""
    model, _, inputs, expected = expected_answer(kind, make_pair, make_inputs, False)
    model.set_attn_implementation("sdpa")
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found = answer(kind, model, inputs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@every_kind
@pytest.mark.parametrize("window", [8, 512])
def test_sliding_window(kind, window, make_pair, make_inputs):
    """A language model that looks back {window} tokens: rows of one image as alone."""
    fields = {"use_sliding_window": True, "sliding_window": window}
    fields["max_window_layers"] = 0
    model, processor = make_pair(kind, text="qwen", text_kwargs=fields)
    inputs = make_inputs(kind, processor, 1)
    alone = answer(kind, model, inputs)
    length = inputs["input_ids"].shape[1]
    together = make_inputs(kind, processor, 3)
    found = answer(kind, model, together)[:1]
    if found.ndim == 3:
        found = found[:, -length:]
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)
