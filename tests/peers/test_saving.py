"""Saving and loading."""

import copy
import io

import pytest
import torch
from accelerate import init_empty_weights
from peer_models import (
    AUTO_CLASSES,
    answer,
    assert_equal_answers,
    every_kind,
    load,
    load_processor,
    only_descriptor,
    saved,
)
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, GenerationConfig

pytestmark = pytest.mark.slow
WAYS = {
    "one file": {},
    "several files (`max_shard_size`)": {"max_shard_size": "100KB"},
    "a `variant`": {"variant": "fp32"},
}


@every_kind
@pytest.mark.parametrize("way", WAYS)
def test_round_trip(kind, way, make_pair, make_inputs, tmp_path):
    """`save_pretrained` and `from_pretrained`, {way}."""
    model, processor = make_pair(kind)
    folder = saved(model, processor, tmp_path, **WAYS[way])
    loaded = load(kind, folder, variant=WAYS[way].get("variant"))
    inputs = make_inputs(kind, load_processor(folder))
    assert_equal_answers(kind, model, loaded, inputs, tolerance=0)


@every_kind
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(kind, dtype, make_pair, tmp_path):
    """Saved in {dtype}, loaded in it by `dtype="auto"` and in float32 by `dtype=`."""
    model, processor = make_pair(kind)
    folder = saved(model.to(getattr(torch, dtype)), processor, tmp_path)
    half = load(kind, folder, dtype="auto")
    whole = load(kind, folder, dtype=torch.float32)
    assert {value.dtype for value in half.parameters()} == {getattr(torch, dtype)}
    assert {value.dtype for value in whole.parameters()} == {torch.float32}
    for name, value in half.state_dict().items():
        assert torch.equal(value.float(), whole.state_dict()[name].float()), name


@every_kind
def test_keys(kind, checkpoint):
    """No missing, unexpected or mismatched keys."""
    folder = checkpoint(kind)
    _, info = AUTO_CLASSES[kind].from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info


@every_kind
def test_state_dict(kind, model_and_inputs, make_pair):
    """`state_dict` into a fresh model, strictly."""
    model, inputs = model_and_inputs(kind)
    other, _ = make_pair(kind, seed=1)
    other.load_state_dict(model.state_dict(), strict=True)
    assert_equal_answers(kind, model, other, inputs, tolerance=0)


@every_kind
def test_torch_save(kind, model_and_inputs):
    """The whole model by `torch.save` and `torch.load`."""
    # hooks of transformers' own ConvNeXt and Swin backbones cannot be pickled
    model, inputs = model_and_inputs(kind, backbone="efficientnet_lite")
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert_equal_answers(kind, model, loaded, inputs, tolerance=0)


@every_kind
def test_deep_copy(kind, model_and_inputs):
    """`copy.deepcopy`, whose weights are its own."""
    model, inputs = model_and_inputs(kind)
    expected = answer(kind, model, inputs)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(answer(kind, model, inputs), expected)


@every_kind
def test_missing_weights_are_drawn(kind, checkpoint):
    """Weights that a file lacks are reported, and drawn as in a fresh model."""
    folder = checkpoint(kind)
    file = f"{folder}/model.safetensors"
    weights = load_file(file)
    missing = "model.image_projector.fc1.weight"
    del weights[missing]
    save_file(weights, file, metadata={"format": "pt"})
    model, info = AUTO_CLASSES[kind].from_pretrained(folder, output_loading_info=True)
    assert missing in info["missing_keys"]
    drawn = model.get_parameter(missing)
    assert drawn.isfinite().all() and drawn.std() > 0


@every_kind
def test_mismatched_sizes(kind, checkpoint):
    """Weights of another shape are an error, or drawn anew by `ignore_mismatched_sizes=True`."""
    folder = checkpoint(kind)
    file = f"{folder}/model.safetensors"
    weights = load_file(file)
    name = "model.image_projector.fc1.weight"
    weights[name] = weights[name][:, :-1].clone()
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(
        ValueError,
        match="image_projector.fc1.weight it says .* ignore_mismatched_sizes",
    ):
        load(kind, folder)
    model = load(kind, folder, ignore_mismatched_sizes=True)
    assert model.get_parameter(name).isfinite().all()


@every_kind
def test_state_dict_argument(kind, make_pair, make_inputs):
    """`from_pretrained(None, config=, state_dict=)`."""
    model, processor = make_pair(kind)
    options = {"config": model.config, "state_dict": model.state_dict()}
    loaded = type(model).from_pretrained(None, **options).eval()
    inputs = make_inputs(kind, processor)
    assert_equal_answers(kind, model, loaded, inputs, tolerance=0)


@every_kind
def test_core_loads_from_whole(kind, make_pair, tmp_path):
    """`AutoModel` gives the core of a checkpoint, with its weights."""
    model, processor = make_pair(kind)
    core = AutoModel.from_pretrained(saved(model, processor, tmp_path))
    assert type(core) in (type(model.base_model), type(model))
    for name, value in model.base_model.state_dict().items():
        found = core.base_model.state_dict()[name]
        assert torch.equal(found, value), name


@every_kind
def test_config(kind, make_pair, tmp_path):
    """The config: saved, loaded by `AutoConfig`, equal, and changed by arguments."""
    model, _ = make_pair(kind)
    model.config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    expected = model.config.to_dict()
    found = loaded.to_dict()
    differing = {name for name in expected if found.get(name) != expected[name]}
    assert differing <= {"_name_or_path", "architectures", "dtype"}
    changed = AutoConfig.from_pretrained(tmp_path, projector_hidden_act="relu")
    assert changed.projector_hidden_act == "relu"


@every_kind
def test_meta_device(kind, make_pair):
    """Built without memory (`init_empty_weights`, the device "meta")."""
    model, _ = make_pair(kind)
    with init_empty_weights():
        empty = type(model)(copy.deepcopy(model.config))
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    with torch.device("meta"):
        empty = type(model)(copy.deepcopy(model.config))
    assert empty.state_dict().keys() == model.state_dict().keys()


@only_descriptor
def test_generation_config(kind, make_pair, tmp_path):
    """The generation config, with its suppressed placeholders."""
    model, processor = make_pair(kind)
    model.generation_config.max_new_tokens = 7
    folder = saved(model, processor, tmp_path)
    loaded = load(kind, folder)
    assert loaded.generation_config.max_new_tokens == 7
    own = {processor.image_token_id, processor.region_token_id}
    assert own <= set(loaded.generation_config.suppress_tokens)
    assert GenerationConfig.from_pretrained(folder).max_new_tokens == 7


@every_kind
def test_push(kind, make_pair, make_inputs, hub):
    """`push_to_hub` of model and processor, loaded from the Hub again."""
    model, processor = make_pair(kind)
    model.push_to_hub("someone/pushed")
    processor.push_to_hub("someone/pushed")
    loaded = load(kind, "someone/pushed")
    inputs = make_inputs(kind, load_processor("someone/pushed"))
    assert_equal_answers(kind, model, loaded, inputs, tolerance=0)
