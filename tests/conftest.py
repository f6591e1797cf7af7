"""Tiny models with fixed seeds and a local Hub, shared by all tests."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from hub_server import HubServer
from huggingface_hub import constants
from hypothesis import settings
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    ConvNextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Mask2FormerConfig,
    Mask2FormerModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    SwinConfig,
)

from hf_talking_points import (
    EfficientNetLiteConfig,
    PointDescriptorForConditionalGeneration,
    PointDescriptorProcessor,
    PointLocalizerForKeypointDetection,
    PointLocalizerProcessor,
)
from hf_talking_points.training.fresh import train_tokenizer

if "PYTEST_XDIST_WORKER" in os.environ:
    # a worker has one core, and so have the processes that it starts
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")

IMAGE_SIZE = 64
# the tokenizer is learned from these, to the letter: what the tiny models write follows from them
SENTENCES = [
    "the tip of the left ear of the cat in the middle of the image",
    "a point on the front wheel of the car, near its upper right edge",
    "the centre of the beak of the bird on the lower left, a dark spot",
    "red green blue yellow white black",
]
BACKBONE_CONFIGS = {
    "swin": SwinConfig(
        image_size=IMAGE_SIZE,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 4],
        window_size=4,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    ),
    "convnext": ConvNextConfig(
        image_size=IMAGE_SIZE,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    ),
    "efficientnet_lite": EfficientNetLiteConfig(
        out_features=["stage2", "stage3", "stage4"]
    ),
    "efficientnet_lite_and_pixels": EfficientNetLiteConfig(
        out_features=["pixels", "stage2", "stage3", "stage4"]
    ),
}
LANGUAGE_MODELS = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen": (Qwen3Config, Qwen3ForCausalLM),
    "bert": (BertConfig, BertModel),
}


def tiny_tokenizer(**kwargs):
    """A fresh copy each time: processors add their special tokens to it."""
    return train_tokenizer(
        SENTENCES, vocab_size=320, **{"model_max_length": 256, **kwargs}
    )


def tiny_vision_config(backbone="convnext", **kwargs):
    """Config of a Mask2Former-style model with two or more masked decoder layers."""
    backbone_config = copy.deepcopy(BACKBONE_CONFIGS[backbone])
    strides = [4, 8, 16, 32][-len(backbone_config.out_features) :]
    fields = {
        "feature_strides": strides,
        "common_stride": strides[0],
        "feature_size": 32,
        "mask_feature_size": 32,
        "hidden_dim": 32,
        "encoder_feedforward_dim": 48,
        "encoder_layers": 0 if "efficientnet_lite" in backbone else 1,
        "decoder_layers": 5,
        "dim_feedforward": 48,
        "num_attention_heads": 4,
        "num_queries": 3,
    }
    return Mask2FormerConfig(backbone_config=backbone_config, **{**fields, **kwargs})


def tiny_vision_tower(backbone="convnext", **kwargs):
    config = tiny_vision_config(backbone, **kwargs)
    config._attn_implementation = "eager"
    return Mask2FormerModel(config)


def tiny_text_config(text="llama", tokenizer=None, **kwargs):
    config_class, _ = LANGUAGE_MODELS[text]
    fields = {
        "vocab_size": 330 if tokenizer is None else len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return config_class(**{**fields, **kwargs})


def tiny_language_model(text="llama", tokenizer=None, **kwargs):
    _, model_class = LANGUAGE_MODELS[text]
    return model_class(tiny_text_config(text, tokenizer, **kwargs))


def widen_weights(model):
    """Draws the weights anew: the usual 0.02 leaves such small models almost constant."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                inputs = parameter[0].numel()
                parameter.normal_(0, inputs**-0.5)


def build_pair(
    model_class,
    processor_class,
    backbone="convnext",
    text="llama",
    token_strides=(8, 16),
    seed=0,
    vision_kwargs=None,
    text_kwargs=None,
    **config_fields,
):
    """-> (model in eval mode, processor)."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    ratio = config_fields.get("pixel_shuffle_ratio", 2)
    tokens_per_side = 0
    if token_strides:
        tokens_per_side = IMAGE_SIZE // min(token_strides) // ratio
    processor = processor_class.from_tokenizer(
        tokenizer, image_size=IMAGE_SIZE, image_seq_length=tokens_per_side**2
    )
    vision = tiny_vision_tower(backbone, **(vision_kwargs or {}))
    language_model = tiny_language_model(
        text, processor.tokenizer, **(text_kwargs or {})
    )
    model = model_class.from_vision_text_pretrained(
        vision,
        language_model,
        processor,
        token_strides=list(token_strides),
        **config_fields,
    )
    widen_weights(model)
    return model.eval(), processor


def build_descriptor(backbone="convnext", text="llama", **kwargs):
    """-> (model in eval mode, processor); further arguments as in `build_pair`."""
    return build_pair(
        PointDescriptorForConditionalGeneration,
        PointDescriptorProcessor,
        backbone,
        text,
        **{"mask_sigma": 0.1, **kwargs},
    )


def build_localizer(backbone="convnext", text="llama", **kwargs):
    """-> (model in eval mode, processor); further arguments as in `build_pair`."""
    return build_pair(
        PointLocalizerForKeypointDetection,
        PointLocalizerProcessor,
        backbone,
        text,
        **{"head_dim": 32, **kwargs},
    )


def noise_image(seed=0, width=96, height=64):
    """A PIL RGB image of smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def make_descriptor():
    """The function `build_descriptor`: a tiny descriptor and its processor."""
    return build_descriptor


@pytest.fixture(scope="session")
def make_localizer():
    """The function `build_localizer`: a tiny localizer and its processor."""
    return build_localizer


@pytest.fixture(scope="session")
def make_tokenizer():
    return tiny_tokenizer


@pytest.fixture(scope="session")
def make_vision_tower():
    return tiny_vision_tower


@pytest.fixture(scope="session")
def make_language_model():
    return tiny_language_model


@pytest.fixture(scope="session")
def random_image():
    """The function `noise_image`."""
    return noise_image


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A local Hub, to which the Hub clients of this process talk as "someone"."""
    with HubServer() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        file_url = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", file_url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
        monkeypatch.setenv("HF_TOKEN", "hf_x")
        yield hub


@pytest.fixture
def stranger(hub, tmp_path):
    """Runs a program in a process that has neither this package nor a token, with a cache of its own; returns what it
    prints."""

    def run(program, **variables):
        # importing the package fails, as where it is not installed
        without_package = "import sys; sys.modules['hf_talking_points'] = None\n"
        environment = dict(os.environ)
        for name in ("HF_TOKEN", "PYTHONPATH"):
            environment.pop(name, None)
        environment |= {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "stranger"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **variables,
        }
        result = subprocess.run(
            [sys.executable, "-c", without_package + program],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run
