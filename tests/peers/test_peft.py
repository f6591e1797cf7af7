"""Methods of PEFT."""

import copy

import peft
import pytest
import torch
from peer_models import (
    DESCRIPTOR,
    answer,
    both_models,
    gradients,
    loss_of,
    only_descriptor,
)
from peft import PeftModel, get_peft_model
from transformers.utils import is_sklearn_available

pytestmark = pytest.mark.slow
LINEAR = r".*language_model.*\.(q|k|v|o)_proj"
NORMS = r".*language_model.*layernorm"
TOKENS = list(range(100, 300))  # some are in every text
GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
# each with what it needs on layers as small as these
ADAPTERS = {
    "LoRA": ("LoraConfig", {"r": 4}),
    "LoRA, DoRA": ("LoraConfig", {"r": 4, "use_dora": True}),
    "LoRA, rank-stabilized": ("LoraConfig", {"r": 4, "use_rslora": True}),
    "LoRA, PiSSA": ("LoraConfig", {"r": 4, "init_lora_weights": "pissa"}),
    "LoRA, OLoRA": ("LoraConfig", {"r": 4, "init_lora_weights": "olora"}),
    "LoRA, biases": ("LoraConfig", {"r": 4, "bias": "lora_only"}),
    "LoRA, `modules_to_save`": (
        "LoraConfig",
        {"r": 4, "modules_to_save": ["image_projector"]},
    ),
    "LoRA, `trainable_token_indices`": (
        "LoraConfig",
        {"r": 4, "trainable_token_indices": {"embed_tokens": TOKENS}},
    ),
    "AdaLoRA": ("AdaLoraConfig", {"total_step": 10}),
    "AdaMSS": ("AdamssConfig", {}),
    "BEFT": ("BeftConfig", {}),
    "BOFT": ("BOFTConfig", {"boft_block_size": 4}),
    "C3A": ("C3AConfig", {"block_size": 8}),
    "DEFT": ("DeftConfig", {}),
    "DeLoRA": ("DeloraConfig", {}),
    "FourierFT": ("FourierFTConfig", {"n_frequency": 64}),
    "FRoD": ("FrodConfig", {}),
    "GLoRA": ("GloraConfig", {}),
    "GraLoRA": ("GraloraConfig", {}),
    "HiRA": ("HiraConfig", {}),
    "HRA": ("HRAConfig", {}),
    "IA3": ("IA3Config", {"feedforward_modules": []}),
    "LILY": ("LilyConfig", {}),
    "LN tuning": ("LNTuningConfig", {"target_modules": NORMS}),
    "LoHa": ("LoHaConfig", {}),
    "LoKr": ("LoKrConfig", {}),
    "MiSS": ("MissConfig", {"r": 8}),
    "OFT": ("OFTConfig", {"oft_block_size": 8}),
    "OSF": ("OSFConfig", {}),
    "PEANuT": ("PeanutConfig", {}),
    "PSOFT": ("PsoftConfig", {"r": 8}),
    "PVeRA": ("PveraConfig", {}),
    "RandLoRA": ("RandLoraConfig", {}),
    "RoAd": ("RoadConfig", {"group_size": 8}),
    "SHiRA": ("ShiraConfig", {"r": 4}),
    "Supertuning": ("SupertuningConfig", {}),
    "TinyLoRA": ("TinyLoraConfig", {}),
    "Trainable tokens": (
        "TrainableTokensConfig",
        {"target_modules": ["embed_tokens"], "token_indices": TOKENS},
    ),
    "UniLoRA": ("UniLoraConfig", {}),
    "VB-LoRA": ("VBLoRAConfig", {"vector_length": 8, "num_vectors": 32}),
    "VeRA": ("VeraConfig", {}),
    "WaveFT": ("WaveFTConfig", {"n_frequency": 64}),
}
VIRTUAL_TOKENS = {
    "Prompt tuning": ("PromptTuningConfig", {}),
    "P-tuning": ("PromptEncoderConfig", {}),
    "Prefix tuning": ("PrefixTuningConfig", {}),
    "Cartridges": ("CartridgeConfig", {}),
}
# what PEFT itself cannot do with models such as these, and its message
REFUSED_BY_PEFT = {
    "Adaption prompt": ("AdaptionPromptConfig", "Unsupported model type"),
    "ShadowPEFT": ("ShadowConfig", "num_hidden_layers|shadow|decoder layers"),
}
# each row belongs to a task
OF_TASKS = {
    "Multitask prompt tuning": (
        "MultitaskPromptTuningConfig",
        {"num_tasks": 2, "num_virtual_tokens": 4},
    ),
    "Poly": ("PolyConfig", {"n_tasks": 2, "target_modules": LINEAR}),
}
# PEFT's messages where a method has no plain form
NOT_MERGED = {"BEFT": "no bias", "LILY": "not supported"}


def config_of(kind, method):
    """The config of a method; its module is the language model."""
    name, options = {**ADAPTERS, **VIRTUAL_TOKENS}[method]
    if name == "AdamssConfig" and not is_sklearn_available():
        pytest.skip("scikit-learn is not installed")
    fields = dict(options)
    if method in VIRTUAL_TOKENS:
        fields["num_virtual_tokens"] = 4
    else:
        fields.setdefault("target_modules", LINEAR)
    fields["task_type"] = "CAUSAL_LM" if kind == DESCRIPTOR else "FEATURE_EXTRACTION"
    return getattr(peft, name)(**fields)


@pytest.fixture
def adapt(model_and_inputs):
    """-> (plain model, model with a method, inputs)."""

    def make(kind, method):
        model, inputs = model_and_inputs(kind)
        torch.manual_seed(0)
        adapted = get_peft_model(copy.deepcopy(model), config_of(kind, method))
        return model, adapted.eval(), inputs

    return make


def shake(model):
    """Moves what is trained, as training would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


@both_models
@pytest.mark.parametrize("method", {**ADAPTERS, **VIRTUAL_TOKENS})
def test_training(kind, method, adapt):
    """{method}: a step of training moves what the method trains, and nothing else."""
    model, adapted, inputs = adapt(kind, method)
    trained = {
        name: value for name, value in adapted.named_parameters() if value.requires_grad
    }
    assert trained
    before = {name: value.detach().clone() for name, value in trained.items()}
    frozen = {
        name: value.detach().clone()
        for name, value in adapted.named_parameters()
        if name not in trained
    }
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):  # some gradients are 0 at first
        optimizer.zero_grad()
        loss_of(kind, adapted.train(), inputs).backward()
        optimizer.step()
    assert gradients(adapted).keys() <= trained.keys()
    moved = [name for name in trained if not torch.equal(trained[name], before[name])]
    assert moved
    for name, value in frozen.items():
        assert torch.equal(adapted.get_parameter(name), value), name


@both_models
@pytest.mark.parametrize("method", {**ADAPTERS, **VIRTUAL_TOKENS})
def test_saving(kind, method, adapt, tmp_path):
    """{method}: saved, and loaded onto the plain model."""
    model, adapted, inputs = adapt(kind, method)
    plain = answer(kind, model, inputs)
    shake(adapted)
    adapted.save_pretrained(tmp_path)
    expected = answer(kind, adapted, inputs)
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
    torch.testing.assert_close(answer(kind, loaded, inputs), expected)
    assert expected.shape != plain.shape or not torch.equal(expected, plain)


# their plain weights are no longer the model's
CHANGES_THE_BASE = {"LoRA, PiSSA", "LoRA, OLoRA", "OSF"}


@both_models
@pytest.mark.parametrize("method", {**ADAPTERS, **VIRTUAL_TOKENS})
def test_switching_off(kind, method, adapt, refused):
    """{method}: `disable_adapter` gives the answers of the plain model."""
    if method in CHANGES_THE_BASE:
        pytest.skip("the method changes the plain weights themselves")
    model, adapted, inputs = adapt(kind, method)
    shake(adapted)
    plain = answer(kind, model, inputs)
    if method in VIRTUAL_TOKENS and kind != DESCRIPTOR:
        # PEFT 0.21 expects every model with virtual tokens to generate
        with refused(UnboundLocalError, "prepare_inputs_for_generation"):
            with adapted.disable_adapter():
                pass
        return
    with adapted.disable_adapter():
        found = answer(kind, adapted, inputs)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)


@both_models
@pytest.mark.parametrize("method", ADAPTERS)
def test_merging(kind, method, adapt, refused):
    """{method}: `merge_and_unload` gives a plain model with the same answers."""
    model, adapted, inputs = adapt(kind, method)
    shake(adapted)
    expected = answer(kind, adapted, inputs)
    if method in NOT_MERGED:
        with refused((ValueError, NotImplementedError), NOT_MERGED[method]):
            adapted.merge_and_unload()
        return
    merged = adapted.merge_and_unload()
    assert type(merged) is type(model)
    found = answer(kind, merged, inputs)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@only_descriptor
@pytest.mark.parametrize("method", {**ADAPTERS, **VIRTUAL_TOKENS})
def test_generation(kind, method, adapt):
    """{method}: `generate`, whose first step is that of a forward pass."""
    if method == "LILY":
        pytest.skip("its router averages over all positions of a batch")
    _, adapted, inputs = adapt(kind, method)
    shake(adapted)
    output = adapted.generate(
        **inputs, **GREEDY, return_dict_in_generate=True, output_logits=True
    )
    new = output.sequences[:, -4:]
    assert len(new) == 2
    with torch.no_grad():
        first = adapted(**inputs).logits[:, -1]
    torch.testing.assert_close(output.logits[0], first, atol=1e-4, rtol=1e-4)


@both_models
@pytest.mark.parametrize("method", REFUSED_BY_PEFT)
def test_refused_by_peft(kind, method, model_and_inputs, refused):
    """{method}."""
    name, message = REFUSED_BY_PEFT[method]
    model, inputs = model_and_inputs(kind)
    with refused((ValueError, AttributeError), message):
        adapted = get_peft_model(model, getattr(peft, name)(task_type="CAUSAL_LM"))
        loss_of(kind, adapted, inputs)


@both_models
@pytest.mark.parametrize("method", OF_TASKS)
def test_tasks(kind, method, model_and_inputs, refused):
    """{method}: rows of two tasks (`task_ids`) train."""
    name, fields = OF_TASKS[method]
    task_type = "CAUSAL_LM" if kind == DESCRIPTOR else "FEATURE_EXTRACTION"
    config = getattr(peft, name)(task_type=task_type, **fields)
    model, inputs = model_and_inputs(kind)
    adapted = get_peft_model(model, config)
    task_ids = torch.tensor([0, 1])
    if method == "Multitask prompt tuning" and kind != DESCRIPTOR:
        # PEFT hands them on in its causal language models alone
        with refused(ValueError, "task_ids"):
            loss_of(kind, adapted, inputs, task_ids=task_ids)
        return
    loss = loss_of(kind, adapted, inputs, task_ids=task_ids)
    loss.backward()
    assert loss.isfinite()
    assert any(value.abs().sum() > 0 for value in gradients(adapted).values())


@both_models
def test_several_adapters(kind, adapt):
    """Several LoRA adapters: `add_adapter`, `set_adapter`, `add_weighted_adapter`, `delete_adapter`."""
    model, adapted, inputs = adapt(kind, "LoRA")
    adapted.add_adapter("second", config_of(kind, "LoRA"))
    shake(adapted)
    adapted.set_adapter("second")
    shake(adapted)
    second = answer(kind, adapted, inputs)
    adapted.set_adapter("default")
    assert not torch.equal(answer(kind, adapted, inputs), second)
    adapted.add_weighted_adapter(["default", "second"], [0.0, 1.0], "mixed")
    adapted.set_adapter("mixed")
    assert answer(kind, adapted, inputs).isfinite().all()
    adapted.delete_adapter("default")
    adapted.set_adapter("second")
    torch.testing.assert_close(answer(kind, adapted, inputs), second)


@both_models
def test_adapters_of_transformers(kind, model_and_inputs, tmp_path):
    """transformers' own `add_adapter`, `load_adapter`, `disable_adapters`."""
    model, inputs = model_and_inputs(kind)
    plain = answer(kind, model, inputs)
    other = copy.deepcopy(model)
    model.add_adapter(config_of(kind, "LoRA"))
    shake(model)
    expected = answer(kind, model, inputs)
    model.save_pretrained(tmp_path)
    other.load_adapter(str(tmp_path))
    torch.testing.assert_close(answer(kind, other.eval(), inputs), expected)
    other.disable_adapters()
    torch.testing.assert_close(answer(kind, other, inputs), plain)


@both_models
def test_all_linear_layers(kind, model_and_inputs):
    """LoRA of `target_modules="all-linear"`, of vision side and language model."""
    model, inputs = model_and_inputs(kind)
    plain = answer(kind, model, inputs)
    config = peft.LoraConfig(r=2, target_modules="all-linear")
    adapted = get_peft_model(model, config).eval()
    torch.testing.assert_close(answer(kind, adapted, inputs), plain)
    loss_of(kind, adapted, inputs).backward()
    assert any("vision_tower" in name for name in gradients(adapted))


@both_models
def test_gradient_checkpointing(kind, adapt):
    """LoRA with gradient checkpointing: the same gradients."""
    _, adapted, inputs = adapt(kind, "LoRA")
    shake(adapted)
    adapted.train()
    loss_of(kind, adapted, inputs).backward()
    expected = gradients(adapted)
    adapted.zero_grad()
    adapted.get_base_model().gradient_checkpointing_enable()
    adapted.get_base_model().enable_input_require_grads()
    loss_of(kind, adapted, inputs).backward()
    for name, gradient in gradients(adapted).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)


@both_models
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(kind, dtype, model_and_inputs):
    """LoRA on a model in {dtype}."""
    model, inputs = model_and_inputs(kind)
    model = model.to(getattr(torch, dtype))
    adapted = get_peft_model(model, config_of(kind, "LoRA"))
    loss_of(kind, adapted, inputs).backward()
    assert gradients(adapted)


NOT_APPLICABLE = {
    "CPT": "trains examples in the prompt, each token with a type, which there are none of",
    "X-LoRA": "mixes adapters that were trained before, by layers of a causal language model alone",
}


@both_models
@pytest.mark.parametrize("method", NOT_APPLICABLE)
def test_not_applicable(kind, method):
    """{method}."""
    pytest.skip(NOT_APPLICABLE[method])
