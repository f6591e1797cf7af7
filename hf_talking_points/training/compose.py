"""The model that a training script starts from: a checkpoint, or one composed of a vision and a language model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    ViTImageProcessorPil,
)

from ..checkpoints import last_checkpoint
from ..data.triplets import View, sample_triplets
from ..models.modeling_point_descriptor import PointDescriptorForConditionalGeneration
from ..models.modeling_point_localizer import PointLocalizerForKeypointDetection
from ..models.modeling_talking_points import load_text
from ..models.processing_talking_points import (
    PointDescriptorProcessor,
    PointLocalizerProcessor,
)
from .arguments import (
    ModelArguments,
    PointDescriptorModelArguments,
    PointDescriptorTrainingArguments,
    PointLocalizerModelArguments,
    PointLocalizerTrainingArguments,
    PointSamplingArguments,
)
from .fresh import small_language_model, small_vision_tower, train_tokenizer
from .triplet_dataset import training_views

CORPUS_VIEWS = 2000
CORPUS_POINTS = 4  # of each view
FIXED_PROMPTS = [
    "Please describe region1 .",
    " in a few words",
    "Please segment region1: ",
    " keypoint ",
]
PROMPT_REPEATS = 20  # so that the prompts' words are tokens
DESCRIPTOR_DECODER_LAYERS = 6
PRIOR_QUERIES = 100  # Mask2Former's default


def prepare_localizer(
    arguments: PointLocalizerModelArguments,
    rows: Dataset | None,
    training_args: PointLocalizerTrainingArguments,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The Point Localizer to train, frozen as the arguments say, and its processor.

    Args:
        arguments ([`PointLocalizerModelArguments`])
        rows (`Dataset`, *optional*): to train on, in the row format; a fresh tokenizer learns their words.
        training_args ([`PointLocalizerTrainingArguments`]): of the trainer, which say how points are drawn and whether
            a language model's own code may run.
    """
    if arguments.model_name_or_path:
        return load_checkpoint(
            PointLocalizerForKeypointDetection,
            PointLocalizerProcessor,
            arguments,
            training_args.trust_remote_code,
        )
    tokenizer = pretrained_or_fresh_tokenizer(arguments, rows, training_args)
    processor = compose_processor(PointLocalizerProcessor, arguments, tokenizer)
    model = PointLocalizerForKeypointDetection.from_vision_text_pretrained(
        small_or_named_vision(
            arguments,
            decoder_layers=0,
            finest="colors" if arguments.fusion_layers else None,
        ),
        small_or_pretrained_text(arguments, processor, training_args),
        processor,
        dtype=arguments.dtype,
        use_perception_prior=arguments.use_perception_prior,
        token_strides=arguments.token_strides,
        head=arguments.head,
        head_dim=arguments.head_dim,
        point_loss_weight=arguments.point_loss_weight,
        fusion_layers=arguments.fusion_layers,
        fusion_dropout=arguments.fusion_dropout,
        standardize_states=arguments.standardize_states,
    )
    return freeze(model, arguments), processor


def prepare_descriptor(
    arguments: PointDescriptorModelArguments,
    rows: Dataset | None,
    training_args: PointDescriptorTrainingArguments,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The Point Descriptor to train, frozen as the arguments say, and its processor; see [`prepare_localizer`].

    Raises ValueError where a quantized model would get adapters of another dtype."""
    if (
        arguments.is_quantized
        and arguments.dtype != "bfloat16"
        and not training_args.bf16
    ):
        raise ValueError(
            f"TRL trains adapters of quantized models in bfloat16, which do not go with dtype {arguments.dtype}: "
            "leave dtype out, or set bf16"
        )
    if arguments.model_name_or_path:
        return load_checkpoint(
            PointDescriptorForConditionalGeneration,
            PointDescriptorProcessor,
            arguments,
            training_args.trust_remote_code,
        )
    tokenizer = pretrained_or_fresh_tokenizer(arguments, rows, training_args)
    processor = compose_processor(PointDescriptorProcessor, arguments, tokenizer)
    model = PointDescriptorForConditionalGeneration.from_vision_text_pretrained(
        small_or_named_vision(
            arguments,
            DESCRIPTOR_DECODER_LAYERS,
            finest="pixels" if arguments.detail_level else None,
        ),
        small_or_pretrained_text(arguments, processor, training_args),
        processor,
        dtype=arguments.dtype,
        use_perception_prior=arguments.use_perception_prior,
        token_strides=arguments.token_strides,
        point_mask=arguments.point_mask,
        mask_sigma=arguments.mask_sigma,
        detail_level=arguments.detail_level,
    )
    return freeze(model, arguments), processor


def load_checkpoint(
    model_class: Any,
    processor_class: Any,
    arguments: ModelArguments,
    trust_remote_code: bool,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A checkpoint and its processor."""
    source = {
        "revision": arguments.model_revision,
        "trust_remote_code": trust_remote_code,
    }
    model = model_class.from_pretrained(
        arguments.model_name_or_path, **source, **arguments.loading_options()
    )
    processor = processor_class.from_pretrained(arguments.model_name_or_path, **source)
    return freeze(model, arguments), processor


def pretrained_or_fresh_tokenizer(
    arguments: ModelArguments,
    rows: Dataset | None,
    training_args: PointLocalizerTrainingArguments | PointDescriptorTrainingArguments,
) -> PreTrainedTokenizerBase:
    """The language model's tokenizer; for the small Llama that of the run which is resumed, or one that learns the
    descriptions' words."""
    if arguments.text:
        return AutoTokenizer.from_pretrained(
            arguments.text, trust_remote_code=training_args.trust_remote_code
        )
    checkpoint = last_checkpoint(training_args)
    if checkpoint is not None:
        return AutoTokenizer.from_pretrained(checkpoint)
    texts = corpus(training_views(rows, training_args), training_args)
    return train_tokenizer(texts, arguments.vocab_size)


def compose_processor(
    processor_class: Any, arguments: ModelArguments, tokenizer: PreTrainedTokenizerBase
) -> ProcessorMixin:
    """The processor of a fresh model, with image mean and deviation of its vision model."""
    side = 0  # image tokens in a row
    if arguments.token_strides:
        side = arguments.image_size // min(arguments.token_strides) // 2
    statistics = {}
    if arguments.vision:
        stated, _ = ViTImageProcessorPil.get_image_processor_dict(arguments.vision)
        statistics = {name: stated[name] for name in ("image_mean", "image_std")}
    return processor_class.from_tokenizer(
        tokenizer, arguments.image_size, side**2, **statistics
    )


def small_or_named_vision(
    arguments: ModelArguments, decoder_layers: int, finest: str | None = None
) -> str | PreTrainedModel:
    """The vision model that a fresh model is composed of: a path or Hub id, or the small tower, with one more stage of
    its backbone or without."""
    if arguments.vision:
        return arguments.vision
    queries = 1  # the model's own, which nobody reads
    if arguments.use_perception_prior:
        decoder_layers, queries = DESCRIPTOR_DECODER_LAYERS, PRIOR_QUERIES
    return small_vision_tower(
        arguments.backbone,
        decoder_layers=decoder_layers,
        queries=queries,
        finest=finest,
    )


def small_or_pretrained_text(
    arguments: ModelArguments,
    processor: ProcessorMixin,
    training_args: PointLocalizerTrainingArguments | PointDescriptorTrainingArguments,
) -> PreTrainedModel:
    """The language model that a fresh model is composed of: a pretrained one, or a small one from scratch."""
    if not arguments.text:
        text = small_language_model(processor.tokenizer, arguments.layers)
        if arguments.attn_implementation is not None:
            text.set_attn_implementation(arguments.attn_implementation)
        return text
    text = load_text(
        arguments.text,
        trust_remote_code=training_args.trust_remote_code,
        **arguments.loading_options(),
    )
    if "AutoModel" in (getattr(text.config, "auto_map", None) or {}):
        register_own_code(text)
    return text


def register_own_code(text: PreTrainedModel) -> None:
    """Tells transformers the classes of a language model that was loaded with code of its own, so that checkpoints of
    a model composed of it load in this process, and gives its base model the class that it has there."""
    with torch.device("meta"):
        base_class = type(AutoModel.from_config(text.config, trust_remote_code=True))
    config_class = type(text.config)
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, base_class, exist_ok=True)
    if issubclass(base_class, type(text.base_model)):
        text.base_model.__class__ = base_class


def freeze(model: PreTrainedModel, arguments: ModelArguments) -> PreTrainedModel:
    """The model with what is not to be trained frozen."""
    if arguments.freeze == "backbone":
        model.freeze_backbone()
    elif arguments.freeze == "vision":
        model.freeze_vision()
    if arguments.freeze_language_model:
        model.model.language_model.requires_grad_(False)
    return model


def corpus(views: list[View], sampling: PointSamplingArguments) -> list[str]:
    """Descriptions as those of training, for a fresh tokenizer, and the fixed prompts."""
    rng = np.random.default_rng(0)
    texts = FIXED_PROMPTS * PROMPT_REPEATS
    for index in rng.permutation(len(views))[:CORPUS_VIEWS]:
        _, descriptions, _ = sample_triplets(
            views[index],
            CORPUS_POINTS,
            rng,
            sampling.weighted_styles,
            sampling.surroundings,
        )
        texts = texts + descriptions
    return texts
