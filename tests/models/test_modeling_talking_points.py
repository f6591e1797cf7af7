import copy

import pytest
import torch
from accelerate import cpu_offload
from script_runs import run_program
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    MambaConfig,
    Mask2FormerForUniversalSegmentation,
    PhiConfig,
)

from hf_talking_points import (
    PointDescriptorForConditionalGeneration,
    PointDescriptorProcessor,
)
from hf_talking_points.models.modeling_talking_points import backbone_channels

BACKBONES = ["swin", "convnext", "efficientnet_lite"]
LANGUAGE_MODELS = ["llama", "qwen"]


def run_rows(model, rows, mask, image_of_row, **kwargs):
    """-> (last hidden states of real positions, a gradient of the word embeddings, number of positions that the
    language model computed)."""
    computed = []

    def count(module, args, kwargs):
        computed.append(kwargs["inputs_embeds"].shape[:2].numel())

    language_model = model.model.language_model
    hook = language_model.register_forward_pre_hook(count, with_kwargs=True)
    model.zero_grad()
    embeds = language_model.get_input_embeddings()(rows)
    output = model.model.run_language_model(embeds, mask, image_of_row, **kwargs)
    hook.remove()
    states = output.last_hidden_state[mask.bool()]
    states.square().sum().backward()
    gradient = language_model.get_input_embeddings().weight.grad.clone()
    return states.detach(), gradient, sum(computed)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_packed_rows_equal_separate_rows(
    make_descriptor, make_language_model, text, padding_side, implementation
):
    torch.manual_seed(0)
    model, _ = make_descriptor(text=text)
    model.set_attn_implementation({"text_config": implementation})
    length = 12
    rows = torch.randint(3, 300, (6, length))
    mask = torch.ones_like(rows)
    for row, pads in enumerate([0, 3, 1, 2, 0, 4]):
        if padding_side == "right":
            rows[row, :6] = rows[row // 3 * 3, :6]
            mask[row, length - pads :] = 0
        elif pads:
            mask[row, :pads] = 0
    rows[1] = rows[0]
    mask[1] = mask[0]
    image_of_row = torch.tensor([0, 0, 0, 1, 1, 1])
    packed, gradient, positions = run_rows(model, rows, mask, image_of_row)
    separate, expected, separate_positions = run_rows(model, rows, mask, None)
    torch.testing.assert_close(packed, separate, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)
    assert separate_positions == 6 * length
    longest = 10 + 6 + 2  # of the second image: its first row, and what others add
    assert positions == (2 * longest if padding_side == "right" else 6 * length)


def test_a_part_that_cannot_be_built_is_named(make_descriptor):
    config = make_descriptor()[0].config
    config.text_config.num_attention_heads = 0
    config.text_config.head_dim = None
    with pytest.raises(ValueError, match="can be built of text_config: .*"):
        PointDescriptorForConditionalGeneration(config)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone_channels(make_vision_tower, backbone):
    tower = make_vision_tower(backbone)
    maps = tower.pixel_level_module.encoder(torch.zeros(1, 3, 64, 64)).feature_maps
    channels = [feature_map.shape[1] for feature_map in maps]
    assert backbone_channels(tower.config) == channels


@pytest.fixture(params=["descriptor", "localizer"])
def make(request):
    return request.getfixturevalue(f"make_{request.param}")


@pytest.mark.parametrize("tied", [True, False])
def test_composing_keeps_the_weights(
    make, make_vision_tower, make_language_model, tmp_path, tied
):
    template, processor = make()
    torch.manual_seed(5)
    vision = make_vision_tower()
    text = make_language_model(vocab_size=300, tie_word_embeddings=tied)
    vision.save_pretrained(tmp_path / "vision")
    text.save_pretrained(tmp_path / "text")
    model = type(template).from_vision_text_pretrained(
        str(tmp_path / "vision"),
        str(tmp_path / "text"),
        processor,
        token_strides=[8, 16],
    )
    vision_weights = model.model.vision_tower.state_dict()
    for name, value in vision.state_dict().items():
        assert torch.equal(vision_weights[name], value), name
    text_weights = model.model.language_model.state_dict()
    for name, value in text.model.state_dict().items():
        assert torch.equal(text_weights[name][: len(value)], value), name
    assert model.get_input_embeddings().num_embeddings == len(processor.tokenizer)
    if model.can_generate():
        assert torch.equal(model.lm_head.weight[:300], text.lm_head.weight)


@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_loaded_models_become_parts(make, make_vision_tower, make_language_model, text):
    template, processor = make()
    vision = make_vision_tower()
    language_model = make_language_model(text, processor.tokenizer)
    given = {
        **dict(vision.named_parameters()),
        **dict(language_model.named_parameters()),
    }
    values = {name: value.detach().clone() for name, value in given.items()}
    model = type(template).from_vision_text_pretrained(
        vision, language_model, processor, token_strides=[8, 16]
    )
    assert model.model.vision_tower is vision
    assert model.model.language_model is language_model.model
    assert not model.training
    for name, value in values.items():
        assert torch.equal(given[name], value), name


@pytest.mark.parametrize("tied", [True, False])
def test_a_composed_descriptor_writes_as_its_language_model(
    make_descriptor, make_vision_tower, make_language_model, tied
):
    template, processor = make_descriptor()
    torch.manual_seed(0)
    text = make_language_model(vocab_size=300, tie_word_embeddings=tied).eval()
    for parameter in text.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    ids = torch.randint(3, 300, (2, 7))
    with torch.no_grad():
        expected = text(ids).logits
        model = type(template).from_vision_text_pretrained(
            make_vision_tower(), text, processor, token_strides=[8, 16]
        )
        logits = model(ids).logits[..., :300]
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_composing_keeps_the_attention_implementation(
    make, make_vision_tower, make_language_model, implementation
):
    template, processor = make()
    text = make_language_model(
        tokenizer=processor.tokenizer, attn_implementation=implementation
    )
    model = type(template).from_vision_text_pretrained(
        make_vision_tower(), text, processor, token_strides=[8, 16]
    )
    assert model.config.text_config is model.model.language_model.config
    assert model.config.text_config._attn_implementation == implementation


DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize(
    ("text_dtype", "asked", "dtype"),
    [
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float16, "auto", torch.float16),
        (torch.bfloat16, "float32", torch.float32),
        (torch.float32, torch.bfloat16, torch.bfloat16),
    ],
)
def test_a_composed_model_has_one_dtype(
    make, make_vision_tower, make_language_model, tmp_path, text_dtype, asked, dtype
):
    template, processor = make()
    text = make_language_model(tokenizer=processor.tokenizer).to(text_dtype)
    model = type(template).from_vision_text_pretrained(
        make_vision_tower(), text, processor, dtype=asked, token_strides=[8, 16]
    )
    assert {value.dtype for value in model.parameters()} == {dtype}
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert {value.dtype for value in loaded.parameters()} == {dtype}


@pytest.mark.parametrize("parts_dtypes", [DTYPES[:2], DTYPES[1::-1]])
def test_parts_of_the_hub_take_the_dtype_of_the_text(
    make, make_vision_tower, make_language_model, tmp_path, parts_dtypes
):
    template, processor = make()
    vision_dtype, text_dtype = parts_dtypes
    make_vision_tower().to(vision_dtype).save_pretrained(tmp_path / "vision")
    make_language_model().to(text_dtype).save_pretrained(tmp_path / "text")
    model = type(template).from_vision_text_pretrained(
        tmp_path / "vision", tmp_path / "text", processor, token_strides=[8, 16]
    )
    assert {value.dtype for value in model.parameters()} == {text_dtype}


FAMILIES = {
    "gpt2": GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=300),
    "gpt_neox": GPTNeoXConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=300,
        tie_word_embeddings=True,
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_embeddings_of_any_name_stay_tied(
    make_descriptor, make_vision_tower, tmp_path, family
):
    template, processor = make_descriptor()
    text = AutoModelForCausalLM.from_config(FAMILIES[family])
    model = type(template).from_vision_text_pretrained(
        make_vision_tower(), text, processor, token_strides=[8, 16]
    )
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for some in (model, loaded):
        assert some.lm_head.weight is some.get_input_embeddings().weight
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    "config",
    [
        PhiConfig(**SIZES),
        Gemma2Config(**SIZES, head_dim=8),
        GraniteConfig(**SIZES, logits_scaling=4.0, initializer_range=0.5),
        CohereConfig(**SIZES, logit_scale=0.1, initializer_range=0.5),
    ],
    ids=lambda config: config.model_type,
)
def test_a_language_model_with_other_logits_cannot_write(
    make_descriptor, make_localizer, make_vision_tower, config
):
    localizer, processor = make_localizer()
    type(localizer).from_vision_text_pretrained(
        make_vision_tower(),
        AutoModelForCausalLM.from_config(config),
        processor,
        token_strides=[8, 16],
    )
    descriptor, processor = make_descriptor()
    text = AutoModelForCausalLM.from_config(config)
    name = type(text).__name__
    with pytest.raises(ValueError, match=f"logits of {name} are more than its head's"):
        type(descriptor).from_vision_text_pretrained(
            make_vision_tower(), text, processor, token_strides=[8, 16]
        )


def test_a_language_model_without_a_cache_of_the_past_cannot_write(
    make_descriptor, make_vision_tower
):
    template, processor = make_descriptor()
    config = MambaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, state_size=8
    )
    with pytest.raises(ValueError, match="MambaForCausalLM takes no past_key_values"):
        type(template).from_vision_text_pretrained(
            make_vision_tower(),
            AutoModelForCausalLM.from_config(config),
            processor,
            token_strides=[8, 16],
        )


@pytest.mark.parametrize("loaded", [True, False])
def test_the_perception_prior_reads_the_vision_models_own_classes(
    make, make_vision_tower, make_language_model, tmp_path, loaded
):
    template, processor = make()
    config = make_vision_tower(num_labels=5).config
    vision = Mask2FormerForUniversalSegmentation(config)
    vision.save_pretrained(tmp_path)
    weight = vision.class_predictor.weight.detach().clone()
    model = type(template).from_vision_text_pretrained(
        vision if loaded else tmp_path,
        make_language_model(tokenizer=processor.tokenizer),
        processor,
        token_strides=[8, 16],
        use_perception_prior=True,
    )
    assert torch.equal(model.model.class_predictor.weight, weight)
    tower = model.model.vision_tower.state_dict()
    for name, value in vision.model.state_dict().items():
        assert torch.equal(tower[name], value), name


def test_composing_takes_the_special_tokens_from_the_processor(make):
    model, processor = make()
    fields = model.config.special_token_fields
    ids = [getattr(model.config, field) for field in fields]
    assert ids == [getattr(processor, field) for field in fields]
    if model.can_generate():
        assert model.generation_config.suppress_tokens == ids


def test_composing_checks_the_number_of_image_tokens(
    make_descriptor, make_tokenizer, make_vision_tower, make_language_model
):
    model, _ = make_descriptor()
    processor = PointDescriptorProcessor.from_tokenizer(
        make_tokenizer(), image_size=64, image_seq_length=9
    )
    with pytest.raises(
        ValueError, match="the processor makes 9 image tokens but the config 16"
    ):
        type(model).from_vision_text_pretrained(
            make_vision_tower(), make_language_model(), processor, token_strides=[8, 16]
        )


def random_maps():
    """Feature maps of the backbone "efficientnet_lite" for one image, finest first."""
    shapes = [(40, 8), (112, 4), (320, 2)]
    return [torch.randn(1, channels, side, side) for channels, side in shapes]


@pytest.mark.parametrize("ratio", [1, 2])
def test_image_tokens_follow_the_image_row_by_row(make_descriptor, ratio):
    model, _ = make_descriptor(
        "efficientnet_lite", token_strides=(8,), pixel_shuffle_ratio=ratio
    )
    maps = random_maps()
    tokens_per_row = 8 // ratio

    def image_tokens(finest):
        feature_maps = [finest, *maps[1:]]
        return model.get_image_features(feature_maps=feature_maps).pooler_output[0]

    with torch.no_grad():
        tokens = image_tokens(maps[0])
        for row, column in [(0, 0), (0, 5), (6, 1), (7, 7)]:
            changed = maps[0].clone()
            changed[..., row, column] += 1
            differs = (image_tokens(changed) != tokens).any(1)
            index = row // ratio * tokens_per_row + column // ratio
            assert differs.nonzero().flatten().tolist() == [index]


def test_fused_image_tokens_use_every_stride(make_descriptor):
    model, _ = make_descriptor("efficientnet_lite", token_strides=(8, 32))
    maps = random_maps()
    changes = []
    with torch.no_grad():
        tokens = model.get_image_features(feature_maps=maps).pooler_output[0]
        for level in range(3):
            changed = list(maps)
            changed[level] = maps[level] + torch.randn_like(maps[level])
            other_tokens = model.get_image_features(feature_maps=changed).pooler_output[
                0
            ]
            changes.append(float((other_tokens - tokens).abs().max()))
    finest, middle, coarsest = changes
    assert finest > 1e-3 and coarsest > 1e-3
    assert middle == 0


def test_batch_statistics_of_the_backbone_stand_still(make_descriptor):
    model, _ = make_descriptor("efficientnet_lite")
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert any("running_mean" in name for name in before)
    with torch.no_grad():
        model.train().get_image_features(torch.randn(2, 3, 64, 64))
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name]), name


def test_perception_prior_reaches_the_image_tokens(make_localizer):
    model, _ = make_localizer(use_perception_prior=True)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        tokens = model.get_image_features(pixels).pooler_output[0]
        model.model.vision_tower.transformer_module.queries_features.weight.add_(1)
        other_tokens = model.get_image_features(pixels).pooler_output[0]
    assert float((other_tokens - tokens).abs().max()) > 1e-4


@pytest.mark.parametrize("prior", [False, True])
def test_what_precedes_the_language_model_is_all_but_it_and_the_head(make, prior):
    model, _ = make(
        "efficientnet_lite", token_strides=(16,), use_perception_prior=prior
    )
    before = {id(module) for module in model.model.modules_before_language_model()}
    others = [
        name
        for name, module in model.model.named_children()
        if id(module) not in before
    ]
    assert others == ["language_model"]


KINDS = {
    "descriptor": ("descriptor", {}),
    "descriptor, predicted masks": ("descriptor", {"point_mask": "predicted"}),
    "descriptor, prior": ("descriptor", {"use_perception_prior": True}),
    "localizer": ("localizer", {}),
    "localizer, heat map": ("localizer", {"head": "heatmap"}),
    "localizer, heat map, prior": (
        "localizer",
        {"head": "heatmap", "use_perception_prior": True, "standardize_states": True},
    ),
}


@pytest.fixture(params=KINDS)
def make_kind(request):
    """Function (backbone, fields) -> (model, training inputs), of each kind of model."""
    kind, kind_fields = KINDS[request.param]
    make_model = request.getfixturevalue(f"make_{kind}")
    photo = request.getfixturevalue("random_image")()

    def make(backbone="convnext", **fields):
        model, processor = make_model(backbone, **{**kind_fields, **fields})
        if kind == "descriptor":
            inputs = processor(images=photo, points=[(20, 30), (70, 10)])
            return model, {**inputs, "labels": inputs["input_ids"]}
        inputs = processor(images=photo, text=["the left ear", "the front wheel"])
        targets = torch.tensor([[0.3, 0.5], [0.7, 0.2]])
        return model, {**inputs, "target_points": targets}

    return make


def gradients_after(model, inputs):
    model.zero_grad()
    model(**inputs).loss.backward()
    return {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }


@torch.no_grad()
def test_all_weights_may_be_offloaded(make_kind):
    model, inputs = make_kind()
    expected = model(**inputs).loss
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert all(weight.device.type == "meta" for weight in model.parameters())
    torch.testing.assert_close(model(**inputs).loss, expected)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_classes_that_are_not_split_are_called(make_kind, backbone):
    model, inputs = make_kind(backbone)
    named = set(model._no_split_modules)
    present = [m for m in model.modules() if type(m).__name__ in named]
    assert {type(module).__name__ for module in present} == named
    assert named > set(model.model.backbone._no_split_modules)
    assert named > set(model.model.language_model._no_split_modules)
    called = []
    for module in present:
        module.register_forward_hook(lambda module, *_: called.append(module))
    model(**inputs)
    for module in present:
        is_trained = any(weight.requires_grad for weight in module.parameters())
        assert not is_trained or any(module is other for other in called), type(module)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("strides", [(8, 16), (16,), (32,)])
def test_what_asks_for_a_gradient_gets_one(make_kind, backbone, strides):
    model, inputs = make_kind(backbone, token_strides=strides)
    reached = gradients_after(model.train(), inputs)
    wanted = {n for n, weight in model.named_parameters() if weight.requires_grad}
    if getattr(model.config, "point_mask", None) == "predicted":
        # a loss on `point_mask_logits` reaches the head of the masks
        assert set(reached) < wanted
    else:
        assert set(reached) == wanted


def test_a_stage_that_nobody_reads_is_frozen(make_localizer):
    model, _ = make_localizer("convnext", token_strides=(8, 16))
    stages = model.model.backbone.encoder.stages
    trained = [
        any(weight.requires_grad for weight in stage.parameters()) for stage in stages
    ]
    assert trained == [True, True, True, False]


def parts_with_checkpoints(model):
    core = model.model
    parts = {"backbone": core.backbone, "image projector": core.image_projector}
    if core.reads_pixel_decoder:
        parts["pixel decoder"] = core.pixel_decoder
        parts["decoder layers"] = core.vision_tower.transformer_module.decoder.layers
    if getattr(model.config, "head", None) == "heatmap":
        parts["map keys"] = core.map_keys
    return parts


def count_runs(model):
    """{part: how often its layers have run}, filled from now on."""
    runs = {}

    def count(name):
        runs[name] = runs.get(name, 0) + 1

    for name, part in parts_with_checkpoints(model).items():
        for module in part.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.register_forward_hook(lambda *_, name=name: count(name))
    return runs


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backbone", ["swin", "efficientnet_lite"])
def test_gradient_checkpointing_reaches_all_that_is_trained(
    make_kind, backbone, reentrant
):
    model, inputs = make_kind(backbone)
    if reentrant and model.config.use_perception_prior:
        pytest.skip("Mask2Former gives its layers lists, which torch then does not see")
    runs = count_runs(model.train())
    before = copy.deepcopy(model.state_dict())
    plain = gradients_after(model, inputs)
    once = dict(runs)
    runs.clear()
    model.load_state_dict(before)  # running statistics have moved
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    checkpointed = gradients_after(model, inputs)
    for name, gradient in checkpointed.items():
        expected = plain.pop(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, expected, msg=name)
    assert not plain
    assert set(runs) == set(parts_with_checkpoints(model))
    for name in runs:
        assert runs[name] > once[name], name


def test_gradient_checkpointing_leaves_a_frozen_backbone_alone(make_kind):
    model, inputs = make_kind()
    model.freeze_backbone()
    runs = count_runs(model.train())
    gradients_after(model, inputs)
    once = dict(runs)
    runs.clear()
    model.gradient_checkpointing_enable()
    gradients_after(model, inputs)
    assert runs["backbone"] == once["backbone"]
    assert runs["image projector"] > once["image projector"]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_without_autocast(make_kind, dtype, checkpointing):
    model, inputs = make_kind()
    expected = model(**inputs).loss
    model.to(dtype).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    gradients = gradients_after(model, inputs)
    assert {gradient.dtype for gradient in gradients.values()} == {dtype}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    if not model.config.to_dict().get("standardize_states"):
        torch.testing.assert_close(model(**inputs).loss, expected, rtol=0.1, atol=0.1)


def implementations(model):
    vision = model.config.vision_config
    configs = (model.config, model.config.text_config, vision, vision.backbone_config)
    return [config._attn_implementation for config in configs]


@pytest.mark.parametrize("backbone", ["swin", "convnext"])
def test_switching_the_attention_is_loading_with_it(make, tmp_path, backbone):
    model, _ = make(backbone)
    model.save_pretrained(tmp_path)
    for name in ("eager", "sdpa", "flex_attention"):
        loaded = type(model).from_pretrained(tmp_path, attn_implementation=name)
        model.set_attn_implementation(name)
        assert implementations(model) == implementations(loaded)
        assert implementations(model) == [name, name, "eager", "eager"]


def test_parts_switch_by_a_dict(make):
    model, _ = make("swin")
    backbone = {"vision_config": {"backbone_config": "sdpa"}}
    model.set_attn_implementation({"text_config": "eager", **backbone})
    assert implementations(model)[1:] == ["eager", "eager", "sdpa"]
    model.set_attn_implementation("sdpa")
    assert implementations(model) == ["sdpa", "sdpa", "eager", "sdpa"]


def test_an_attention_that_a_part_lacks_changes_nothing(make):
    model, _ = make()
    before = implementations(model)
    for asked in ("no_such_attention", {"": "eager", "vision_config": "sdpa"}):
        with pytest.raises(ValueError, match="support|no_such_attention"):
            model.set_attn_implementation(asked)
        assert implementations(model) == before


SHARDED = """
import os
import sys
import torch
from accelerate import cpu_offload
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForKeypointDetection
import hf_talking_points

folder = sys.argv[1]
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
model = AutoModelForKeypointDetection.from_pretrained(folder).train()
for module in reversed(list(model.modules())):
    if type(module).__name__ in model._no_split_modules:
        fully_shard(module, mesh=mesh)
fully_shard(model, mesh=mesh)
inputs = torch.load(folder + "/inputs.pt")
rank = dist.get_rank()
share = {name: value[rank : rank + 1] for name, value in inputs.items()}
loss = model(**share).loss
loss.backward()
dist.all_reduce(loss)
results = {"loss": loss.detach() / 2}
for name, weight in model.named_parameters():
    if weight.grad is not None:
        results[name] = weight.grad.full_tensor()
for name, buffer in model.named_buffers():
    if "state_norm" in name:
        results[name] = buffer
if rank == 0:
    torch.save(results, folder + "/results.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_that_share_all_weights_give_what_one_gives(
    make_localizer, random_image, tmp_path
):
    """Loss, gradients and running statistics of the states, which follow the rows of both."""
    model, processor = make_localizer(
        head="heatmap", standardize_states=True, use_perception_prior=True
    )
    images = [random_image(0), random_image(1)]
    inputs = processor(images=images, text=[["the left ear"], ["the front wheel"]])
    del inputs["image_index"]
    inputs["target_points"] = torch.tensor([[0.3, 0.5], [0.7, 0.2]])
    model.save_pretrained(tmp_path)
    torch.save(dict(inputs), tmp_path / "inputs.pt")
    program = tmp_path / "run.py"
    program.write_text(SHARDED)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    run = run_program(program, tmp_path, launcher=launcher)
    assert run.returncode == 0, run.stderr
    expected = gradients_after(model.train(), inputs)
    found = torch.load(tmp_path / "results.pt")
    for name, buffer in model.named_buffers():
        if "state_norm" in name:
            torch.testing.assert_close(found.pop(name), buffer, msg=name)
    found.pop("loss")
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-3, rtol=1e-3)
