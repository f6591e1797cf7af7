import pytest

from hf_talking_points import PointDescriptorConfig, PointLocalizerConfig

NOT_COMPARED = {"transformers_version", "architectures", "dtype", "_name_or_path"}


def compared_fields(config):
    fields = config.to_dict()
    for name in NOT_COMPARED:
        fields.pop(name, None)
    return fields


@pytest.mark.parametrize(
    "config_class, fields, message",
    [
        (
            PointDescriptorConfig,
            {"point_mask": "round"},
            r"point_mask must be one of .*, got 'round'",
        ),
        (
            PointLocalizerConfig,
            {"head": "linear"},
            r"head must be one of .*, got 'linear'",
        ),
        (
            PointDescriptorConfig,
            {"token_strides": [16, 64]},
            r"token_strides \[64\] are not among",
        ),
        (
            PointLocalizerConfig,
            {"token_strides": [16], "image_size": 80},
            r"image_size 80 must be a multiple of 32",
        ),
        (
            PointDescriptorConfig,
            {"pixel_shuffle_ratio": 0},
            "pixel_shuffle_ratio must be positive, got 0",
        ),
        (
            PointLocalizerConfig,
            {"image_size": -32},
            "image_size must be positive, got -32",
        ),
        (
            PointDescriptorConfig,
            {"projector_hidden_act": "gellu"},
            "projector_hidden_act must be one of .*, got 'gellu'",
        ),
        (PointLocalizerConfig, {"dtype": "float31"}, "dtype must .*, got 'float31'"),
        (PointLocalizerConfig, {"dtype": 16}, "dtype must .*, got 16"),
        (
            PointDescriptorConfig,
            {"text_config": {"model_type": "llama", "num_hidden_layers": 10**30}},
            "text_config.num_hidden_layers must be at most 1000",
        ),
        (
            PointDescriptorConfig,
            {"text_config": 3.5},
            "no PointDescriptorConfig can be made of these fields",
        ),
    ],
)
def test_config_rejects(make_vision_tower, config_class, fields, message):
    with pytest.raises(ValueError, match=message):
        config_class(vision_config=make_vision_tower().config, **fields)


def test_points_do_not_pass_layers_that_normalize_first(make_vision_tower):
    vision = make_vision_tower(pre_norm=True).config
    with pytest.raises(ValueError, match="pre_norm=True: use a vision model without"):
        PointDescriptorConfig(vision_config=vision)
    PointLocalizerConfig(vision_config=vision)


def test_paper_setting_has_256_image_tokens():
    assert PointDescriptorConfig().image_seq_length == 256


def test_token_strides_are_sorted(make_vision_tower):
    config = PointLocalizerConfig(
        vision_config=make_vision_tower().config, token_strides=[32, 8, 16]
    )
    assert config.token_strides == [8, 16, 32]


@pytest.mark.parametrize("config_class", [PointDescriptorConfig, PointLocalizerConfig])
def test_special_token_fields_are_fields(config_class):
    config = config_class()
    for name in config_class.special_token_fields:
        assert isinstance(getattr(config, name), int)
    assert len(config_class.special_token_fields) == 2


@pytest.mark.parametrize("kind", ["descriptor", "localizer"])
def test_config_survives_saving(request, tmp_path, kind):
    make = request.getfixturevalue(f"make_{kind}")
    model, _ = make("efficientnet_lite", "qwen", token_strides=(16, 32))
    model.config.save_pretrained(tmp_path)
    loaded = type(model.config).from_pretrained(tmp_path)
    assert compared_fields(loaded) == compared_fields(model.config)
    assert loaded.image_seq_length == 4


@pytest.mark.parametrize("config_class", [PointDescriptorConfig, PointLocalizerConfig])
def test_entries_of_remote_code_are_not_saved_without_their_files(
    config_class, tmp_path
):
    entries = {"auto_map": {"AutoConfig": "x.Y"}, "custom_pipelines": {"z": {}}}
    config = config_class(**entries)
    config.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert "auto_map" not in text and "custom_pipelines" not in text
