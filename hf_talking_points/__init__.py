"""Talking Points for transformers and TRL: describe a pixel in words, and find it again from the words alone.

Importing the package registers its models with the Auto classes and its pipelines with `pipeline`.
"""

import importlib
from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForKeypointDetection,
    AutoModelForMultimodalLM,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from ._version import __version__
from .models.configuration_talking_points import (
    EfficientNetLiteConfig,
    PointDescriptorConfig,
    PointLocalizerConfig,
)
from .models.modeling_efficientnet_lite import EfficientNetLiteBackbone
from .models.modeling_point_descriptor import PointDescriptorForConditionalGeneration
from .models.modeling_point_localizer import PointLocalizerForKeypointDetection
from .models.pipelines import PointDescriptionPipeline, PointLocalizationPipeline
from .models.processing_talking_points import PointDescriptorProcessor, PointLocalizerProcessor

MINI_DESCRIPTOR = str(Path(__file__).parent / "pretrained" / "talking-points-descriptor")
MINI_LOCALIZER = str(Path(__file__).parent / "pretrained" / "talking-points-localizer")
LOCALIZATION_DISTANCE = str(Path(__file__).parent / "evaluation" / "localization_distance")

_LAZY = {
    "LocalizerReward": ".rewards",
    "PointDescriptorTrainer": ".training.supervised",
    "PointGRPOConfig": ".training.grpo",
    "PointGRPOTrainer": ".training.grpo",
    "PointLocalizerTrainer": ".training.supervised",
    "PointRLOOConfig": ".training.grpo",
    "PointRLOOTrainer": ".training.grpo",
    "paper_lora_config": ".training.grpo",
}

AutoConfig.register("point_descriptor", PointDescriptorConfig, exist_ok=True)
AutoConfig.register("point_localizer", PointLocalizerConfig, exist_ok=True)
# AutoModelForCausalLM: trl loads the frozen reference model of a policy through it
for _auto in (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForCausalLM,
):
    _auto.register(PointDescriptorConfig, PointDescriptorForConditionalGeneration, exist_ok=True)
for _auto in (AutoModel, AutoModelForKeypointDetection):
    _auto.register(PointLocalizerConfig, PointLocalizerForKeypointDetection, exist_ok=True)
AutoProcessor.register(PointDescriptorConfig, PointDescriptorProcessor, exist_ok=True)
AutoProcessor.register(PointLocalizerConfig, PointLocalizerProcessor, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "point-description",
    pipeline_class=PointDescriptionPipeline,
    pt_model=AutoModelForImageTextToText,
    default={"model": (MINI_DESCRIPTOR, "main")},
    type="multimodal",
)
PIPELINE_REGISTRY.register_pipeline(
    "point-localization",
    pipeline_class=PointLocalizationPipeline,
    pt_model=AutoModelForKeypointDetection,
    default={"model": (MINI_LOCALIZER, "main")},
    type="multimodal",
)

__all__ = [
    "EfficientNetLiteBackbone",
    "EfficientNetLiteConfig",
    "LOCALIZATION_DISTANCE",
    "MINI_DESCRIPTOR",
    "MINI_LOCALIZER",
    "PointDescriptionPipeline",
    "PointDescriptorConfig",
    "PointDescriptorForConditionalGeneration",
    "PointDescriptorProcessor",
    "PointLocalizationPipeline",
    "PointLocalizerConfig",
    "PointLocalizerForKeypointDetection",
    "PointLocalizerProcessor",
    "__version__",
    *_LAZY,
]


def __getattr__(name):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
