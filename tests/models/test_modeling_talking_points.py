import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_talking_points import PointDescriptorProcessor
from hf_talking_points.models.modeling_talking_points import (
    backbone_channels,
    pack_rows,
    packed_attention_mask,
    run_with_shared_prefix,
    shared_prefix_length,
    unpack_rows,
)

BACKBONES = ["swin", "convnext", "efficientnet_lite"]
LANGUAGE_MODELS = ["llama", "qwen"]


@settings(max_examples=150)
@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 8))
def test_shared_prefix_length(data, images, group, length):
    count = images * group
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    rows = data.draw(st.lists(row, min_size=count, max_size=count))
    stop = data.draw(st.sampled_from([None, 1]))
    prefix = 0
    while prefix < length - 1:
        column = [row[prefix] for row in rows]
        groups = [column[start : start + group] for start in range(0, count, group)]
        shared = all(len(set(tokens)) == 1 for tokens in groups)
        if not shared or stop in column:
            break
        prefix += 1
    assert shared_prefix_length(torch.tensor(rows), group, stop) == prefix


@pytest.mark.parametrize("prefix", [1, 3, 4])
@pytest.mark.parametrize("group", [1, 2, 3])
def test_packed_rows_are_unpacked_again(group, prefix):
    rows = torch.randn(2 * group, 5, 4)
    grouped = rows.view(2, group, 5, 4)
    grouped[:, :, :prefix] = grouped[:, :1, :prefix]
    packed = pack_rows(rows, group, prefix)
    assert packed.shape == (2, prefix + group * (5 - prefix), 4)
    assert torch.equal(unpack_rows(packed, group, prefix), rows)


def test_a_suffix_sees_the_prefix_and_itself():
    valid = torch.ones(1, 6, dtype=torch.bool)
    valid[0, 5] = False
    attended = packed_attention_mask(valid, group=2, prefix=2)
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 1, 0],
    ]
    assert attended[0].int().tolist() == expected


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_packed_rows_equal_separate_rows(
    make_language_model, text, padding_side, implementation
):
    torch.manual_seed(0)
    model = make_language_model(text, attn_implementation=implementation).model.eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    images, group, length = 2, 3, 12
    ids = torch.randint(3, 300, (images * group, length))
    mask = torch.ones_like(ids)
    for row, pads in enumerate([0, 3, 1, 2, 0, 4]):
        if padding_side == "right":
            first_of_image = row // group * group
            ids[row, :6] = ids[first_of_image, :6]
            mask[row, length - pads :] = 0
        elif pads:
            mask[row, :pads] = 0
    ids = ids.masked_fill(mask == 0, 0)
    prefix = shared_prefix_length(ids, group)
    assert prefix == (6 if padding_side == "right" else 0)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    embeds = model.get_input_embeddings()(ids)
    with torch.no_grad():
        packed = run_with_shared_prefix(model, embeds, mask, group, prefix)
        separate = model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions
        )
    real = mask.bool()
    torch.testing.assert_close(
        packed[real], separate.last_hidden_state[real], atol=1e-5, rtol=1e-5
    )


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
