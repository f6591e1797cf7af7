"""Half-precision checkpoints."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from hf_talking_points.hub import save_half_precision


def test_half_precision_is_half_the_size_and_computes_in_full(make_localizer, random_image, tmp_path):
    model, processor = make_localizer(head="heatmap")
    full = {name: value.clone() for name, value in model.state_dict().items()}
    save_half_precision(model, processor, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}
    loaded = AutoModel.from_pretrained(tmp_path)
    for name, value in loaded.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64) and torch.equal(value, full[name].to(full[name].dtype).half().to(value.dtype))
    assert loaded(**processor(random_image(), "red")).points.dtype == torch.float32
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == config["text_config"]["dtype"] == config["vision_config"]["dtype"] == "float32"


def test_weights_too_large_for_half_precision_are_an_error(make_localizer, tmp_path):
    model, processor = make_localizer()
    torch.nn.init.constant_(model.point_head[1].weight, 1e6)
    with pytest.raises(ValueError, match="point_head.1.weight"):
        save_half_precision(model, processor, tmp_path / "new")
    assert not (tmp_path / "new").exists()
