"""Talking Points for transformers and TRL: describe a pixel in words, and find it again from the words alone.

Importing the package registers its models with the Auto classes and its pipelines with `pipeline`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from .models.processing_talking_points import (
    PointDescriptorProcessor,
    PointLocalizerProcessor,
)

if TYPE_CHECKING:
    from .data.rows import load_points
    from .rewards import FalseClaimReward, LocalizerReward, SameWordingReward
    from .training.arguments import (
        PointDescriptorTrainingArguments,
        PointLocalizerTrainingArguments,
    )
    from .training.grpo import (
        PointGRPOConfig,
        PointGRPOTrainer,
        PointRLOOConfig,
        PointRLOOTrainer,
    )
    from .training.lora import paper_lora_config
    from .training.supervised import PointDescriptorTrainer, PointLocalizerTrainer

_PACKAGE = Path(__file__).parent
MINI_DESCRIPTOR = str(_PACKAGE / "pretrained" / "talking-points-descriptor")
MINI_LOCALIZER = str(_PACKAGE / "pretrained" / "talking-points-localizer")
LOCALIZATION_DISTANCE = str(_PACKAGE / "evaluation" / "localization_distance")

# imported at their first use: they bring trl, datasets and the trainers along
_LAZY = {
    "FalseClaimReward": ".rewards",
    "LocalizerReward": ".rewards",
    "PointDescriptorTrainer": ".training.supervised",
    "PointDescriptorTrainingArguments": ".training.arguments",
    "PointGRPOConfig": ".training.grpo",
    "PointGRPOTrainer": ".training.grpo",
    "PointLocalizerTrainer": ".training.supervised",
    "PointLocalizerTrainingArguments": ".training.arguments",
    "PointRLOOConfig": ".training.grpo",
    "PointRLOOTrainer": ".training.grpo",
    "SameWordingReward": ".rewards",
    "load_points": ".data.rows",
    "paper_lora_config": ".training.lora",
}

AutoConfig.register("point_descriptor", PointDescriptorConfig, exist_ok=True)
AutoConfig.register("point_localizer", PointLocalizerConfig, exist_ok=True)
for _auto_class in (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForCausalLM,  # through which trl loads the frozen reference model of a policy
):
    _auto_class.register(
        PointDescriptorConfig, PointDescriptorForConditionalGeneration, exist_ok=True
    )
for _auto_class in (AutoModel, AutoModelForKeypointDetection):
    _auto_class.register(
        PointLocalizerConfig, PointLocalizerForKeypointDetection, exist_ok=True
    )
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
    "FalseClaimReward",
    "LOCALIZATION_DISTANCE",
    "LocalizerReward",
    "MINI_DESCRIPTOR",
    "MINI_LOCALIZER",
    "PointDescriptionPipeline",
    "PointDescriptorConfig",
    "PointDescriptorForConditionalGeneration",
    "PointDescriptorProcessor",
    "PointDescriptorTrainer",
    "PointDescriptorTrainingArguments",
    "PointGRPOConfig",
    "PointGRPOTrainer",
    "PointLocalizationPipeline",
    "PointLocalizerConfig",
    "PointLocalizerForKeypointDetection",
    "PointLocalizerProcessor",
    "PointLocalizerTrainer",
    "PointLocalizerTrainingArguments",
    "PointRLOOConfig",
    "PointRLOOTrainer",
    "SameWordingReward",
    "__version__",
    "load_points",
    "paper_lora_config",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
