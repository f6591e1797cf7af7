"""Models that the training scripts start from: composed of others, or a checkpoint."""

import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, ViTImageProcessorPil

from hf_talking_points.training.arguments import (
    PointDescriptorModelArguments,
    PointDescriptorTrainingArguments,
    PointLocalizerModelArguments,
    PointLocalizerTrainingArguments,
)
from hf_talking_points.training.compose import (
    prepare_descriptor,
    prepare_localizer,
    pretrained_or_fresh_tokenizer,
)

PREPARE = {
    "descriptor": (
        prepare_descriptor,
        PointDescriptorModelArguments,
        PointDescriptorTrainingArguments,
    ),
    "localizer": (
        prepare_localizer,
        PointLocalizerModelArguments,
        PointLocalizerTrainingArguments,
    ),
}
KINDS = list(PREPARE)
OWN_CONFIG = """
from transformers import LlamaConfig


class OwnConfig(LlamaConfig):
    model_type = "own_llama"
"""
OWN_MODEL = """
from transformers import LlamaForCausalLM, LlamaModel

from .configuration_own import OwnConfig


class OwnModel(LlamaModel):
    config_class = OwnConfig


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory, make_vision_tower, make_language_model, make_tokenizer):
    """Folder of the models "vision" and "text", the latter in bfloat16."""
    folder = tmp_path_factory.mktemp("parts")
    make_vision_tower(num_labels=3).save_pretrained(folder / "vision")
    size = {"height": 64, "width": 64}
    ViTImageProcessorPil(size=size).save_pretrained(folder / "vision")
    tokenizer = make_tokenizer()
    text = make_language_model(tokenizer=tokenizer).to(torch.bfloat16)
    text.save_pretrained(folder / "text")
    tokenizer.save_pretrained(folder / "text")
    return folder


@pytest.fixture
def prepare(parts, tmp_path):
    """Prepares a model with options of its arguments; -> (model, processor)."""

    def run(kind, trust_remote_code=False, **options):
        function, model_arguments, training_arguments = PREPARE[kind]
        chosen = {
            "vision": str(parts / "vision"),
            "text": str(parts / "text"),
            "image_size": 64,
            "token_strides": [16],
            **options,
        }
        training_args = training_arguments(
            str(tmp_path / "run"),
            use_cpu=True,
            report_to="none",
            trust_remote_code=trust_remote_code,
        )
        return function(model_arguments(**chosen), None, training_args)

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", torch.float32),
        ("auto", torch.bfloat16),
        ("float16", torch.float16),
    ],
)
def test_dtype_is_that_of_all_weights(prepare, kind, dtype, expected):
    model, _ = prepare(kind, dtype=dtype)
    assert {value.dtype for value in model.parameters()} == {expected}


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_does_not_tell_where_its_parts_came_from(
    prepare, kind, parts, tmp_path
):
    model, processor = prepare(kind)
    assert str(parts) in model.config.text_config._name_or_path
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    for file in (tmp_path / "model").glob("*.json"):
        assert str(parts.parent) not in file.read_text(), file.name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementation_reaches_the_language_model(
    prepare, kind, implementation
):
    model, _ = prepare(kind, attn_implementation=implementation)
    config = model.model.language_model.config
    assert config._attn_implementation == implementation


@pytest.mark.parametrize("kind", KINDS)
def test_options_reach_a_checkpoint(prepare, kind, tmp_path):
    model, processor = prepare(kind)
    model.save_pretrained(tmp_path / "checkpoint")
    processor.save_pretrained(tmp_path / "checkpoint")
    loaded, _ = prepare(
        kind,
        vision=None,
        text=None,
        model_name_or_path=str(tmp_path / "checkpoint"),
        dtype="bfloat16",
        attn_implementation="eager",
    )
    assert {value.dtype for value in loaded.parameters()} == {torch.bfloat16}
    assert loaded.model.language_model.config._attn_implementation == "eager"


@pytest.mark.parametrize("kind", KINDS)
def test_the_perception_prior_has_the_classes_of_the_vision_model(prepare, kind):
    model, _ = prepare(kind, use_perception_prior=True)
    assert model.config.use_perception_prior
    assert model.model.class_predictor.out_features == 3 + 1  # "no object"


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_tower_has_queries_for_the_perception_prior(prepare, kind):
    model, _ = prepare(kind, vision=None, use_perception_prior=True)
    vision = model.config.vision_config
    assert vision.num_queries == 100
    assert len(model.model.vision_tower.transformer_module.decoder.layers) == 6


def test_a_language_model_with_code_of_its_own(prepare, parts, tmp_path, monkeypatch):
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    # another test may have imported the package of remote code from elsewhere
    monkeypatch.delitem(sys.modules, "transformers_modules", raising=False)
    monkeypatch.syspath_prepend(modules)
    own = tmp_path / "own"
    text = AutoModelForCausalLM.from_pretrained(parts / "text")
    text.save_pretrained(own)
    for file in (parts / "text").glob("token*"):
        (own / file.name).write_bytes(file.read_bytes())
    config = json.loads((own / "config.json").read_text())
    config["model_type"] = "own_llama"
    config["auto_map"] = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModel": "modeling_own.OwnModel",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    (own / "config.json").write_text(json.dumps(config))
    (own / "configuration_own.py").write_text(OWN_CONFIG)
    (own / "modeling_own.py").write_text(OWN_MODEL)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        prepare("descriptor", text=str(own))
    model, _ = prepare("descriptor", text=str(own), trust_remote_code=True)
    model.save_pretrained(tmp_path / "composed")
    loaded = type(model).from_pretrained(tmp_path / "composed")
    for some in (model, loaded):
        assert type(some.model.language_model).__name__ == "OwnModel"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_in_4bit": True, "load_in_8bit": True}, "exclude each other"),
        ({"load_in_4bit": True, "text": None}, "give text, or leave them out"),
        ({"load_in_8bit": True, "half_precision_dir": "half"}, "choose one"),
        ({"model_revision": "v2"}, "model_revision 'v2' is of model_name_or_path"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_options_that_say_nothing_together_are_refused(prepare, kind, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(kind, **options)


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_a_quantized_model_is_of_the_dtype_of_its_adapters(prepare, bits):
    assert PointDescriptorModelArguments().dtype == "float32"
    arguments = PointDescriptorModelArguments(text="someone/text", **{bits: True})
    assert arguments.dtype == "bfloat16"
    with pytest.raises(ValueError, match="do not go with dtype float32"):
        prepare("descriptor", dtype="float32", **{bits: True})


def test_four_bits_reach_the_quantization_config():
    arguments = PointDescriptorModelArguments(
        text="someone/text",
        load_in_4bit=True,
        dtype="bfloat16",
        bnb_4bit_quant_type="fp4",
        use_bnb_nested_quant=True,
    )
    config = arguments.loading_options()["quantization_config"]
    assert config.load_in_4bit
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert config.bnb_4bit_quant_type == "fp4"
    assert config.bnb_4bit_use_double_quant


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_resumed_keeps_its_tokenizer(kind, make_tokenizer, tmp_path):
    _, model_arguments, training_arguments = PREPARE[kind]
    checkpoint = tmp_path / "checkpoint-3"
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(checkpoint)
    (checkpoint / "trainer_state.json").write_text("{}\n")
    training_args = training_arguments(str(tmp_path), use_cpu=True)
    # without photos there is no text that a fresh one could learn
    kept = pretrained_or_fresh_tokenizer(model_arguments(), None, training_args)
    assert kept.get_vocab() == tokenizer.get_vocab()
