"""Quantized language models as parts of composed ones; a method is tried where its package is installed."""

import importlib

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPTQConfig,
    QuantoConfig,
    TorchAoConfig,
)
from transformers.quantizers.quantizers_utils import should_convert_module

from hf_talking_points.models.quantization import of_language_model
from hf_talking_points.training.lora import paper_lora_config

SIZES = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}


@pytest.fixture(params=["descriptor", "localizer"])
def pair(request):
    """A tiny model, its processor, and inputs that give a loss."""
    make = request.getfixturevalue(f"make_{request.param}")
    image = request.getfixturevalue("random_image")()
    model, processor = make(text_kwargs=SIZES)
    if request.param == "descriptor":
        inputs = processor(image, points=[(20, 30), (70, 10)])
        return model, processor, {**inputs, "labels": inputs["input_ids"]}
    inputs = processor(image, text=["an ear", "a wheel"])
    return model, processor, {**inputs, "target_points": torch.full((2, 2), 0.3)}


def torchao():
    quantization = importlib.import_module("torchao.quantization")
    return TorchAoConfig(quantization.Int8WeightOnlyConfig())


def bitsandbytes_4bit():
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)


def bitsandbytes_8bit():
    return BitsAndBytesConfig(load_in_8bit=True)


def quanto():
    return QuantoConfig(weights="int8")


PACKAGES = {
    torchao: "torchao",
    bitsandbytes_4bit: "bitsandbytes",
    bitsandbytes_8bit: "bitsandbytes",
    quanto: "optimum.quanto",
}


@pytest.fixture(params=PACKAGES, ids=lambda method: method.__name__)
def method(request):
    """The function that makes a method's config."""
    pytest.importorskip(PACKAGES[request.param])
    return request.param


def plain_linears(model):
    """Names of the linear layers with weights of floating point."""
    return {
        name
        for name, module in model.named_modules()
        if type(module)
        in (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)
        and type(module.weight.data) is torch.Tensor
        and module.weight.is_floating_point()
    }


def around_language_model(model):
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "language_model" not in name
    }


def loss_of(model, inputs):
    with torch.no_grad():
        return float(model(**inputs).loss)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (BitsAndBytesConfig(load_in_4bit=True), "llm_int8_skip_modules"),
        (QuantoConfig(), "modules_to_not_convert"),
    ],
)
def test_the_language_model_alone_is_converted(pair, config, field):
    model, _, _ = pair
    changed = of_language_model(config)
    assert getattr(config, field) is None
    for name, _ in model.named_modules():
        is_inside = "language_model." in name
        assert should_convert_module(name, getattr(changed, field)) == is_inside, name
    assert vars(of_language_model(changed)) == vars(changed)


def test_modules_left_out_by_name_are_left_out_of_a_composed_model():
    config = QuantoConfig(modules_to_not_convert=["lm_head", "model.layers.0"])
    names = of_language_model(config, prefix="model").modules_to_not_convert
    assert names[:2] == ["lm_head", "model.language_model.layers.0"]


def test_a_method_that_converts_everything_is_refused():
    with pytest.raises(ValueError, match="gptq converts all modules"):
        of_language_model(GPTQConfig(bits=4).to_dict())


def test_a_model_composed_of_a_quantized_one(
    pair, method, make_vision_tower, make_language_model, tmp_path
):
    template, processor, inputs = pair
    text = make_language_model(tokenizer=processor.tokenizer, **SIZES)
    text.save_pretrained(tmp_path / "text")
    text = AutoModelForCausalLM.from_pretrained(
        tmp_path / "text", quantization_config=method()
    )
    model = type(template).from_vision_text_pretrained(
        make_vision_tower(), text, processor, token_strides=[8, 16]
    )
    assert plain_linears(model) == around_language_model(model)
    loss = loss_of(model, inputs)
    if method is quanto:
        with pytest.raises(ValueError, match="not serializable"):
            model.save_pretrained(tmp_path / "composed")
    else:
        model.save_pretrained(tmp_path / "composed")
        loaded = type(model).from_pretrained(tmp_path / "composed")
        assert plain_linears(loaded) == plain_linears(model)
        assert loss_of(loaded, inputs) == pytest.approx(loss, abs=0.02)
    adapted = get_peft_model(model, paper_lora_config(4, 8))
    adapted.train()
    adapted(**inputs).loss.backward()
    for name, parameter in adapted.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name


def test_a_whole_checkpoint_is_quantized_in_its_language_model(pair, method, tmp_path):
    model, _, inputs = pair
    model.save_pretrained(tmp_path)
    quantized = type(model).from_pretrained(tmp_path, quantization_config=method())
    assert plain_linears(quantized) == around_language_model(quantized)
    assert loss_of(quantized, inputs) == pytest.approx(loss_of(model, inputs), rel=0.2)


def test_a_quantized_language_model_keeps_its_dtype(
    pair, method, make_vision_tower, make_language_model, tmp_path
):
    template, processor, _ = pair
    make_language_model(tokenizer=processor.tokenizer).save_pretrained(tmp_path)
    text = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=method())
    with pytest.raises(ValueError, match="load it with dtype=torch.bfloat16"):
        type(template).from_vision_text_pretrained(
            make_vision_tower(), text, processor, dtype="bfloat16", token_strides=[8]
        )
