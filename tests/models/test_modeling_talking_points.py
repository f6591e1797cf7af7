import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_talking_points import PointDescriptorConfig, PointDescriptorProcessor, PointLocalizerConfig
from hf_talking_points.models.modeling_talking_points import (
    backbone_channels,
    run_with_shared_prefix,
    shared_prefix_length,
)

BACKBONES = ["swin", "convnext", "efficientnet_lite"]
LANGUAGE_MODELS = ["llama", "qwen"]


@settings(max_examples=150)
@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 8))
def test_shared_prefix_length(data, images, group, length):
    rows = data.draw(
        st.lists(
            st.lists(st.integers(0, 1), min_size=length, max_size=length),
            min_size=images * group,
            max_size=images * group,
        )
    )
    stop = data.draw(st.sampled_from([None, 1]))
    prefix = 0
    while prefix < length - 1:
        column = [row[prefix] for row in rows]
        shared = all(len(set(column[i : i + group])) == 1 for i in range(0, len(rows), group))
        if not shared or stop in column:
            break
        prefix += 1
    assert shared_prefix_length(torch.tensor(rows), group, stop) == prefix


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("text", LANGUAGE_MODELS)
def test_packed_rows_equal_separate_rows(make_language_model, text, padding_side, implementation):
    torch.manual_seed(0)
    model = make_language_model(text, attn_implementation=implementation).model.eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    images, group, length = 2, 3, 12
    ids = torch.randint(3, 300, (images * group, length))
    mask = torch.ones_like(ids)
    for row, pads in enumerate([0, 3, 1, 2, 0, 4]):
        if padding_side == "right":
            ids[row, :6] = ids[row // group * group, :6]
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
        ).last_hidden_state
    torch.testing.assert_close(packed[mask.bool()], separate[mask.bool()], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "config_class, fields, message",
    [
        (
            PointDescriptorConfig,
            {"point_mask": "round"},
            r"point_mask must be one of .*, got 'round'",
        ),
        (PointLocalizerConfig, {"head": "linear"}, r"head must be one of .*, got 'linear'"),
        (PointDescriptorConfig, {"token_strides": [16, 64]}, r"token_strides \[64\] are not among"),
        (
            PointLocalizerConfig,
            {"token_strides": [16], "image_size": 80},
            r"image_size 80 must be a multiple of 32",
        ),
    ],
)
def test_config_rejects(make_vision_tower, config_class, fields, message):
    with pytest.raises(ValueError, match=message):
        config_class(vision_config=make_vision_tower().config, **fields)


def test_paper_setting_has_256_image_tokens():
    assert PointDescriptorConfig().image_seq_length == 256


@pytest.mark.parametrize("kind", ["descriptor", "localizer"])
def test_config_survives_saving(request, tmp_path, kind):
    model, _ = request.getfixturevalue(f"make_{kind}")(
        "efficientnet_lite", "qwen", token_strides=(16, 32)
    )
    model.config.save_pretrained(tmp_path)
    loaded = type(model.config).from_pretrained(tmp_path)
    ignored = {"transformers_version", "architectures", "dtype", "_name_or_path"}
    one, other = (
        {k: v for k, v in c.to_dict().items() if k not in ignored} for c in (model.config, loaded)
    )
    assert one == other and loaded.image_seq_length == 4


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone_channels(make_vision_tower, backbone):
    tower = make_vision_tower(backbone)
    maps = tower.pixel_level_module.encoder(torch.zeros(1, 3, 64, 64)).feature_maps
    assert backbone_channels(tower.config) == [m.shape[1] for m in maps]


@pytest.mark.parametrize("kind", ["descriptor", "localizer"])
@pytest.mark.parametrize("tied", [True, False])
def test_composing_keeps_the_weights(
    request, make_tokenizer, make_vision_tower, make_language_model, tmp_path, kind, tied
):
    template, _ = request.getfixturevalue(f"make_{kind}")()
    processor = request.getfixturevalue(f"make_{kind}")()[1]
    torch.manual_seed(5)
    vision, text = (
        make_vision_tower(),
        make_language_model(vocab_size=300, tie_word_embeddings=tied),
    )
    vision.save_pretrained(tmp_path / "vision")
    text.save_pretrained(tmp_path / "text")
    model = type(template).from_vision_text_pretrained(
        str(tmp_path / "vision"), str(tmp_path / "text"), processor, token_strides=[8, 16]
    )
    for name, value in vision.state_dict().items():
        assert torch.equal(model.model.vision_tower.state_dict()[name], value), name
    for name, value in text.model.state_dict().items():
        found = model.model.language_model.state_dict()[name]
        assert torch.equal(found[: len(value)], value), name
    assert model.get_input_embeddings().num_embeddings == len(processor.tokenizer)
    if kind == "descriptor":
        assert torch.equal(model.lm_head.weight[:300], text.lm_head.weight)
        assert set(model.generation_config.suppress_tokens) == {
            processor.image_token_id,
            processor.region_token_id,
        }


def test_composing_checks_the_number_of_image_tokens(
    make_descriptor, make_tokenizer, make_vision_tower, make_language_model
):
    model, _ = make_descriptor()
    processor = PointDescriptorProcessor.from_tokenizer(
        make_tokenizer(), image_size=64, image_seq_length=9
    )
    with pytest.raises(ValueError, match="the processor makes 9 image tokens but the config 16"):
        type(model).from_vision_text_pretrained(
            make_vision_tower(), make_language_model(), processor, token_strides=[8, 16]
        )


@pytest.mark.parametrize("ratio", [1, 2])
def test_image_tokens_follow_the_image_row_by_row(make_descriptor, ratio):
    model, _ = make_descriptor("efficientnet_lite", token_strides=(8,), pixel_shuffle_ratio=ratio)
    maps = [
        torch.randn(1, channels, side, side) for channels, side in ((40, 8), (112, 4), (320, 2))
    ]
    side = 8 // ratio
    with torch.no_grad():
        tokens = model.get_image_features(feature_maps=maps).pooler_output[0]
        for row, column in [(0, 0), (0, 5), (6, 1), (7, 7)]:
            changed = maps[0].clone()
            changed[..., row, column] += 1
            other = model.get_image_features(feature_maps=[changed, *maps[1:]]).pooler_output[0]
            assert (other != tokens).any(1).nonzero().flatten().tolist() == [
                row // ratio * side + column // ratio
            ]


def test_fused_image_tokens_use_every_stride(make_descriptor):
    model, _ = make_descriptor("efficientnet_lite", token_strides=(8, 32))
    maps = [
        torch.randn(1, channels, side, side) for channels, side in ((40, 8), (112, 4), (320, 2))
    ]
    with torch.no_grad():
        tokens = model.get_image_features(feature_maps=maps).pooler_output[0]
        changes = []
        for level in range(3):
            changed = [m + (i == level) * torch.randn_like(m) for i, m in enumerate(maps)]
            other = model.get_image_features(feature_maps=changed).pooler_output[0]
            changes.append(float((other - tokens).abs().max()))
    assert changes[0] > 1e-3 and changes[1] == 0 and changes[2] > 1e-3


def test_batch_statistics_of_the_backbone_stand_still(make_descriptor):
    model, _ = make_descriptor("efficientnet_lite")
    before = {name: value.clone() for name, value in model.named_buffers()}
    with torch.no_grad():
        model.train().get_image_features(torch.randn(2, 3, 64, 64))
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_perception_prior_reaches_the_image_tokens(make_localizer):
    model, _ = make_localizer(use_perception_prior=True)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        tokens = model.get_image_features(pixels).pooler_output[0]
        model.model.vision_tower.transformer_module.queries_features.weight.add_(1)
        assert (
            float((model.get_image_features(pixels).pooler_output[0] - tokens).abs().max()) > 1e-4
        )
