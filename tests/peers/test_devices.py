"""Offloading, several processes and quantization."""

import json

import pytest
import torch
from accelerate import cpu_offload, disk_offload, infer_auto_device_map
from peer_models import (
    DESCRIPTOR,
    FIELDS,
    answer,
    assert_equal_answers,
    every_kind,
    gradients,
    load,
    loss_of,
    only_descriptor,
    saved,
)
from peft import LoraConfig, get_peft_model
from script_runs import TESTS, run_program
from transformers import QuantoConfig, TorchAoConfig
from transformers.utils import (
    is_bitsandbytes_available,
    is_optimum_quanto_available,
    is_torchao_available,
)

pytestmark = pytest.mark.slow
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
# MultiheadAttention reads the weights of its output projection by itself
PRELOADED = ["MultiheadAttention"]
GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
PARTS = ["language_model", "image_projector", "vision_tower"]


def parts_on_disk(model, part):
    """A device map that puts one part of the core on the disk, the rest into memory."""
    names = [name for name, _ in model.named_children() if name != "model"]
    names += [f"model.{name}" for name, _ in model.model.named_children()]
    places = {}
    for name in names:
        places[name] = "disk" if name == f"model.{part}" else "cpu"
    return places


@every_kind
@pytest.mark.parametrize("part", PARTS)
def test_device_map_of_parts(kind, part, make_pair, make_inputs, tmp_path):
    """`device_map` with the `{part}` on the disk."""
    text_kwargs = {"tie_word_embeddings": False}
    model, processor = make_pair(kind, text_kwargs=text_kwargs)
    folder = saved(model, processor, tmp_path / "checkpoint")
    places = parts_on_disk(model, part)
    offloaded = load(kind, folder, device_map=places, offload_folder=tmp_path / "disk")
    inputs = make_inputs(kind, processor)
    assert_equal_answers(kind, model, offloaded, inputs)


@every_kind
def test_device_map_with_a_limit(kind, make_pair, make_inputs, tmp_path):
    """`device_map="auto"` with little memory (`max_memory`)."""
    model, processor = make_pair(kind)
    folder = saved(model, processor, tmp_path / "checkpoint")
    offloaded = load(
        kind,
        folder,
        device_map="auto",
        max_memory={"cpu": "400KB"},
        offload_folder=tmp_path / "disk",
    )
    assert "disk" in offloaded.hf_device_map.values()
    inputs = make_inputs(kind, processor)
    assert_equal_answers(kind, model, offloaded, inputs)


@every_kind
def test_no_split_modules(kind, make_pair):
    """`infer_auto_device_map` never splits what `_no_split_modules` names."""
    model, _ = make_pair(kind)
    names = model._no_split_modules
    places = infer_auto_device_map(
        model, max_memory={"cpu": "300KB", "disk": "1GB"}, no_split_module_classes=names
    )
    classes = {type(module).__name__ for module in model.modules()}
    assert set(names) & classes
    for name, module in model.named_modules():
        if type(module).__name__ in names:
            inside = [place for place in places if place.startswith(f"{name}.")]
            assert not inside, inside


@every_kind
@pytest.mark.parametrize("way", ["cpu_offload", "disk_offload"])
def test_offload_of_every_weight(kind, way, model_and_inputs, tmp_path):
    """accelerate's `{way}` of every weight."""
    model, inputs = model_and_inputs(kind)
    expected = answer(kind, model, inputs)
    options = {"execution_device": torch.device("cpu")}
    options["preload_module_classes"] = PRELOADED
    if way == "cpu_offload":
        cpu_offload(model, **options)
    else:
        disk_offload(model, str(tmp_path), **options)
    found = answer(kind, model, inputs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@only_descriptor
@pytest.mark.parametrize("search", ["greedy", "beams", "samples"])
def test_generation_of_offloaded(kind, search, model_and_inputs):
    """`generate` of an offloaded model: {search}."""
    searches = {
        "greedy": {},
        "beams": {"num_beams": 2},
        "samples": {"do_sample": True, "num_return_sequences": 2},
    }
    options = {**GREEDY, **searches[search]}
    model, inputs = model_and_inputs(kind)
    torch.manual_seed(0)
    expected = model.generate(**inputs, **options)
    device = torch.device("cpu")
    cpu_offload(model, execution_device=device, preload_module_classes=PRELOADED)
    torch.manual_seed(0)
    assert torch.equal(model.generate(**inputs, **options), expected)


@pytest.fixture(scope="module")
def two_processes(make_pair, tmp_path_factory):
    """What two processes found wrong, by (way, kind)."""
    folder = tmp_path_factory.mktemp("parallel")
    for number, kind in enumerate(FIELDS):
        model, processor = make_pair(kind)
        saved(model, processor, folder / str(number))
    program = TESTS / "peers" / "parallel_program.py"
    ran = run_program(program, folder, launcher=TORCHRUN)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


WAYS = {
    "`DistributedDataParallel` without `find_unused_parameters`": "ddp",
    "`fully_shard` (FSDP2) of what `_no_split_modules` names": "fsdp2",
    "FSDP2 of accelerate, with its saving": "fsdp2 of accelerate",
}


@every_kind
@pytest.mark.parametrize("way", WAYS)
def test_two_processes(kind, way, two_processes):
    """Two processes have loss and gradients of one: {way}."""
    found = two_processes[WAYS[way]][kind]
    if found != "right":
        pytest.fail(found)


def quantization(name):
    """The config of a way to quantize, or a skip where its library is missing."""
    if name == "torchao int8":
        if not is_torchao_available():
            pytest.skip("torchao is not installed")
        from torchao.quantization import Int8WeightOnlyConfig

        kept = ["vision_tower", "image_projector", "lm_head"]
        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=kept)
    if not is_optimum_quanto_available():
        pytest.skip("optimum-quanto is not installed")
    return QuantoConfig(weights="int8")


QUANTIZED = ["torchao int8", "quanto int8"]


@every_kind
@pytest.mark.parametrize("way", QUANTIZED)
def test_quantized(kind, way, make_pair, make_inputs, tmp_path):
    """`quantization_config`, {way}: answers near those of the whole model."""
    config = quantization(way)
    model, processor = make_pair(kind)
    folder = saved(model, processor, tmp_path)
    quantized = load(kind, folder, quantization_config=config)
    inputs = make_inputs(kind, processor)
    name = "logits" if kind == DESCRIPTOR else "regressed_points"
    with torch.no_grad():
        expected = model(**inputs)[name]
        found = quantized(**inputs)[name]
    assert (found - expected).norm() < 0.2 * expected.norm()


@every_kind
@pytest.mark.parametrize("way", QUANTIZED)
def test_lora_on_quantized(kind, way, make_pair, make_inputs, tmp_path):
    """LoRA on a model quantized by {way}: its adapters alone are trained."""
    config = quantization(way)
    model, processor = make_pair(kind)
    folder = saved(model, processor, tmp_path)
    quantized = load(kind, folder, quantization_config=config)
    targets = r".*language_model.*\.(q|v)_proj"
    adapted = get_peft_model(quantized, LoraConfig(r=4, target_modules=targets))
    loss_of(kind, adapted, make_inputs(kind, processor)).backward()
    found = gradients(adapted)
    assert found and all("lora_" in name for name in found)


@every_kind
@pytest.mark.parametrize("way", QUANTIZED)
def test_saving_quantized(kind, way, make_pair, make_inputs, tmp_path, refused):
    """A model quantized by {way}, saved and loaded."""
    config = quantization(way)
    model, processor = make_pair(kind)
    folder = saved(model, processor, tmp_path / "whole")
    quantized = load(kind, folder, quantization_config=config)
    if way == "quanto int8":
        with refused(ValueError, "not serializable"):
            quantized.save_pretrained(tmp_path / "quantized")
        return
    again = load(kind, saved(quantized, processor, tmp_path / "quantized"))
    inputs = make_inputs(kind, processor)
    assert_equal_answers(kind, quantized, again, inputs, tolerance=1e-4)


@every_kind
def test_bitsandbytes(kind, make_pair, tmp_path):
    """`load_in_4bit` of bitsandbytes."""
    if not torch.cuda.is_available():
        pytest.skip("bitsandbytes needs an NVIDIA GPU")
    if not is_bitsandbytes_available():
        pytest.skip("bitsandbytes is not installed")
    from transformers import BitsAndBytesConfig

    model, processor = make_pair(kind)
    folder = saved(model, processor, tmp_path)
    config = BitsAndBytesConfig(load_in_4bit=True)
    quantized = load(kind, folder, quantization_config=config)
    assert quantized.get_memory_footprint() < model.get_memory_footprint()
