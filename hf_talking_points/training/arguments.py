"""Arguments of the supervised trainers and of the scripts that run them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig
from transformers import TrainingArguments
from trl import SFTConfig
from trl.trainer.utils import get_quantization_config

from .lora import paper_lora_config


@dataclass
class PointSamplingArguments:
    """How a trainer draws points and descriptions from the photos of its datasets.

    Args:
        views_per_photo (`int`): a photo comes as it is and in this many - 1 random crops of it, mirrored half the
            time, of which about half show nearly all of it. Where a dataset's texts say where things are in the
            whole photo, descriptions of a smaller crop are written anew by rule; a warning counts them. A point
            without object or part, whose text cannot be written anew, comes on none of these.
        draws (`int`): times that each of them comes in an epoch, with other points and other sentences.
        points_per_image (`int`): points of a photo that share its encoding in a batch.
        styles (`list[str]`, *optional*): of the descriptions. A point's text in that style is taken where the dataset
            has one, else the rule-based writer's. By default the dataset's own descriptions are taken, each as often.
        style_weights (`list[float]`, *optional*): how often each of `styles` comes; equally often by default.
        told_share (`float`): chance that a row of training is of a photo with texts in those of `styles` that the
            rule-based writer does not know; otherwise of any photo. With 0 each photo comes as often.
        surroundings (`float`): chance of a point beside all objects, with a generic description, in training.
        eval_styles (`list[str]`, *optional*): evaluation is done once for each of these styles, with metrics
            `eval_{style}_…`; by default once, with the styles of training.
        max_eval_photos (`int`, *optional*): photos of an evaluation dataset that are used; all of them by default.
        feature_cache (`str`, *optional*): folder for the feature maps of a frozen backbone.
        view_seed (`int`): chooses the crops.
    """

    views_per_photo: int = field(
        default=1,
        metadata={
            "help": "a photo itself plus random crops of it, mirrored half the time"
        },
    )
    draws: int = field(
        default=1,
        metadata={
            "help": "times that each view comes in an epoch, with other points and other sentences"
        },
    )
    points_per_image: int = field(
        default=8,
        metadata={"help": "points of one photo that share its encoding in a batch"},
    )
    styles: list[str] | None = field(
        default=None,
        metadata={
            "help": "styles of the descriptions; the dataset's own, each as often, if not given"
        },
    )
    style_weights: list[float] | None = field(
        default=None,
        metadata={"help": "how often each style comes; equally often if not given"},
    )
    told_share: float = field(
        default=0.0,
        metadata={
            "help": "chance of a photo with texts in those of the styles that only the dataset has"
        },
    )
    surroundings: float = field(
        default=0.0,
        metadata={
            "help": "chance of a point beside all objects, with a generic description"
        },
    )
    eval_styles: list[str] | None = field(
        default=None,
        metadata={
            "help": "styles to evaluate one by one; those of training if not given"
        },
    )
    max_eval_photos: int | None = field(
        default=None,
        metadata={"help": "validation photos to evaluate on; all of them if not given"},
    )
    feature_cache: str | None = field(
        default=None,
        metadata={"help": "folder for the feature maps of a frozen backbone"},
    )
    view_seed: int = field(default=0, metadata={"help": "chooses the crops"})

    def __post_init__(self) -> None:
        for name in ("views_per_photo", "draws", "points_per_image"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        if self.max_eval_photos is not None and self.max_eval_photos < 1:
            raise ValueError(
                f"max_eval_photos must be at least 1, got {self.max_eval_photos}"
            )
        for name in ("told_share", "surroundings"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} is a chance from 0 to 1, got {getattr(self, name)}"
                )
        if self.told_share and self.styles is None:
            raise ValueError(
                "told_share is of photos with texts in styles, which is not given"
            )
        if self.styles is not None and not self.styles:
            raise ValueError("styles is empty: name one, or leave it out")
        if self.eval_styles is not None and not self.eval_styles:
            raise ValueError("eval_styles is empty: name one, or leave it out")
        self.check_style_weights()

    def check_style_weights(self) -> None:
        """Raises ValueError where `style_weights` do not say how often each of `styles` comes."""
        if self.style_weights is None:
            return
        if self.styles is None:
            raise ValueError("style_weights are those of styles, which is not given")
        if len(self.style_weights) != len(self.styles):
            raise ValueError(
                f"{len(self.styles)} styles but {len(self.style_weights)} style_weights"
            )
        if min(self.style_weights) < 0 or not sum(self.style_weights) > 0:
            raise ValueError(
                f"style_weights must not be negative, nor all 0, got {self.style_weights}"
            )

    @property
    def weighted_styles(self) -> dict[str, float] | None:
        """Style -> weight; None for the dataset's own descriptions."""
        if self.styles is None:
            return None
        weights = self.style_weights or [1.0] * len(self.styles)
        return dict(zip(self.styles, weights))


@dataclass
class PointDescriptorArguments(PointSamplingArguments):
    """Sampling, and what else [`PointDescriptorTrainer`] can do.

    Args:
        heads_weight (`float`): weight of the loss of [`AuxiliaryHeads`] on the point token; 0 leaves them out.
        localizer (`str`, *optional*): localizer checkpoint (path or Hub id). Evaluation then also describes points of
            the evaluation photos and reports the mPCK of finding them, and how often object and part are named.
        judged_photos (`int`): photos of an evaluation dataset whose points are described and localized.
    """

    heads_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of the auxiliary loss on the point token; 0 leaves it out"
        },
    )
    localizer: str | None = field(
        default=None,
        metadata={
            "help": "localizer checkpoint: evaluation then reports the mPCK of descriptions"
        },
    )
    judged_photos: int = field(
        default=60,
        metadata={"help": "validation photos whose points are described and localized"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads_weight < 0:
            raise ValueError(
                f"heads_weight must not be negative, got {self.heads_weight}"
            )
        if self.judged_photos < 1:
            raise ValueError(
                f"judged_photos must be at least 1, got {self.judged_photos}"
            )


@dataclass
class PointLocalizerTrainingArguments(PointSamplingArguments, TrainingArguments):
    """`TrainingArguments` of [`PointLocalizerTrainer`], with those of [`PointSamplingArguments`].

    `per_device_train_batch_size` counts photos, each with `points_per_image` points.

    Args:
        foreign_texts (`int`): so many of the `points_per_image` texts of each photo are those of another photo of the
            batch, in training. They have no place: what is learned of them is a low confidence, as a high one is
            learned where a text is found. The localizer needs `calibrated_confidence`.
        trust_remote_code (`bool`): runs the code that a language model brings along, as of `SFTConfig`.
    """

    foreign_texts: int = field(
        default=0,
        metadata={
            "help": "texts of each photo that are of another photo, for which a low confidence is learned"
        },
    )
    trust_remote_code: bool = field(
        default=False,
        metadata={"help": "run the code that a language model brings along"},
    )

    def __post_init__(self) -> None:
        PointSamplingArguments.__post_init__(self)
        TrainingArguments.__post_init__(self)
        if not 0 <= self.foreign_texts < self.points_per_image:
            raise ValueError(
                f"foreign_texts must be at least 0 and less than points_per_image={self.points_per_image}, "
                f"got {self.foreign_texts}"
            )


@dataclass
class PointDescriptorTrainingArguments(PointDescriptorArguments, SFTConfig):
    """`SFTConfig` of [`PointDescriptorTrainer`], with the arguments of [`PointDescriptorArguments`].

    `per_device_train_batch_size` counts photos, each with `points_per_image` points. Unless `bf16` is given, a CPU
    computes in float32.
    """

    bf16: bool | None = field(
        default=None,
        metadata={
            "help": "compute in bfloat16; by default where there is an accelerator"
        },
    )

    def __post_init__(self) -> None:
        PointDescriptorArguments.__post_init__(self)
        if self.bf16 is None and not torch.accelerator.is_available():
            self.bf16 = False  # most CPUs are several times slower with it
        SFTConfig.__post_init__(self)


@dataclass
class DataArguments:
    """Where a script finds its data."""

    data_dir: list[str] = field(
        metadata={
            "help": "folders with an objects.jsonl, or built datasets (folder or Hub id)"
        }
    )


@dataclass
class LoadingArguments:
    """How a script loads a pretrained model, under the names of TRL's `ModelConfig`."""

    model_revision: str = field(
        default="main",
        metadata={"help": "branch, tag or commit of model_name_or_path"},
    )
    dtype: str | None = field(
        default=None,
        metadata={
            "help": "of all weights, auto for the stored one; float32 if not given, beside 4 or 8 bits bfloat16",
            "choices": ["auto", "bfloat16", "float16", "float32"],
        },
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "attention of the language model"}
    )
    load_in_8bit: bool = field(
        default=False,
        metadata={"help": "language model in 8 bits, for LoRA; needs bitsandbytes"},
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "language model in 4 bits, for LoRA; needs bitsandbytes"},
    )
    bnb_4bit_quant_type: str = field(
        default="nf4", metadata={"help": "of 4 bits", "choices": ["fp4", "nf4"]}
    )
    use_bnb_nested_quant: bool = field(
        default=False, metadata={"help": "quantize the scales of 4 bits as well"}
    )
    bnb_4bit_quant_storage: str | None = field(
        default=None, metadata={"help": "dtype in which 4 bits are stored"}
    )

    def __post_init__(self) -> None:
        if self.load_in_8bit and self.load_in_4bit:
            raise ValueError("load_in_8bit and load_in_4bit exclude each other")
        if self.dtype is None:
            # TRL trains adapters of quantized models in bfloat16
            self.dtype = "bfloat16" if self.is_quantized else "float32"

    @property
    def is_quantized(self) -> bool:
        return self.load_in_4bit or self.load_in_8bit

    def loading_options(self) -> dict[str, Any]:
        """Arguments of `from_pretrained`, without the revision."""
        options: dict[str, Any] = {"dtype": self.dtype}
        if self.attn_implementation is not None:
            options["attn_implementation"] = self.attn_implementation
        quantization_config = get_quantization_config(self)
        if quantization_config is not None:
            options["quantization_config"] = quantization_config
        return options


@dataclass
class ModelArguments(LoadingArguments):
    """The model that a script trains: a checkpoint, or a fresh one composed of a vision and a language model."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "a checkpoint to train on; otherwise a fresh model is composed"
        },
    )
    vision: str | None = field(
        default=None,
        metadata={
            "help": "Mask2Former-style model (path or Hub id) with preprocessor_config.json; else the small CPU tower"
        },
    )
    text: str | None = field(
        default=None,
        metadata={
            "help": "causal language model (path or Hub id); otherwise a small Llama from scratch"
        },
    )
    backbone: str | None = field(
        default=None,
        metadata={"help": "folder of a pretrained backbone for the small CPU tower"},
    )
    image_size: int = field(
        default=256, metadata={"help": "side of the canvas in pixels"}
    )
    token_strides: list[int] = field(
        default_factory=lambda: [16, 32],
        metadata={"help": "strides fused into image tokens"},
    )
    use_perception_prior: bool = field(
        default=False,
        metadata={"help": "add OMG-LLaVA's object queries to the image tokens"},
    )
    layers: int = field(default=5, metadata={"help": "layers of the small Llama"})
    vocab_size: int = field(
        default=1024, metadata={"help": "tokens that the small Llama learns at most"}
    )
    freeze: str = field(
        default="backbone",
        metadata={
            "help": "backbone, vision (everything before the language model) or nothing"
        },
    )
    lora_rank: int = field(
        default=0,
        metadata={"help": "rank of LoRA on the language model; 0 trains it in full"},
    )
    freeze_language_model: bool = field(
        default=False,
        metadata={"help": "train only what lies around the language model"},
    )
    half_precision_dir: str | None = field(
        default=None,
        metadata={"help": "folder for a copy of the result with float16 weights"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze not in ("backbone", "vision", "nothing"):
            raise ValueError(
                f"freeze must be backbone, vision or nothing, got {self.freeze!r}"
            )
        if self.lora_rank and self.freeze_language_model:
            raise ValueError(
                "lora_rank adapts the language model, freeze_language_model leaves it as it is: choose one"
            )
        if self.lora_rank and self.model_name_or_path and self.half_precision_dir:
            raise ValueError(
                "lora_rank on a checkpoint gives an adapter, half_precision_dir is for a whole model: choose one"
            )
        if self.is_quantized and self.half_precision_dir:
            raise ValueError(
                "half_precision_dir is for weights of floating point, load_in_4bit and load_in_8bit for others: "
                "choose one"
            )
        if self.is_quantized and not (self.text or self.model_name_or_path):
            raise ValueError(
                "load_in_4bit and load_in_8bit are for a pretrained language model: give text, or leave them out"
            )
        if self.model_revision != "main" and not self.model_name_or_path:
            raise ValueError(
                f"model_revision {self.model_revision!r} is of model_name_or_path, which is not given"
            )

    def modules_around_language_model(self) -> list[str] | None:
        """Names of the modules that are trained in full beside adapters on the language model."""
        raise NotImplementedError

    def lora_config(self) -> LoraConfig | None:
        """The `peft_config` of a trainer, or None where the language model is not adapted."""
        if not self.lora_rank:
            return None
        return paper_lora_config(
            self.lora_rank,
            2 * self.lora_rank,
            modules_to_save=self.modules_around_language_model(),
        )


@dataclass
class PointLocalizerModelArguments(ModelArguments):
    """[`ModelArguments`] of a Point Localizer."""

    head: str = field(default="heatmap", metadata={"help": "heatmap or mlp"})
    standardize_states: bool = field(
        default=False,
        metadata={
            "help": "running statistics of the states of <SEG>, for a pretrained language model"
        },
    )
    point_loss_weight: float = field(
        default=30.0,
        metadata={"help": "weight of the regression beside the heat map's loss"},
    )
    head_dim: int = field(
        default=256,
        metadata={"help": "width of the projection to the map, and of fusion layers"},
    )
    fusion_layers: int = field(
        default=0,
        metadata={
            "help": "layers in which words and map attend to each other; with them token_strides may be empty"
        },
    )
    fusion_dropout: float = field(
        default=0.0, metadata={"help": "dropout in the fusion layers"}
    )

    def modules_around_language_model(self) -> list[str]:
        return [
            "image_projector",
            "map_keys",
            "fusion",
            "state_norm",
            "text_to_vision",
            "point_head",
            "heatmap_head",
        ]


@dataclass
class PointDescriptorModelArguments(ModelArguments):
    """[`ModelArguments`] of a Point Descriptor."""

    point_mask: str = field(
        default="gaussian", metadata={"help": "gaussian, predicted or none"}
    )
    mask_sigma: float = field(
        default=0.05,
        metadata={"help": "standard deviation of the mask in units of the canvas side"},
    )
    detail_level: bool = field(
        default=False,
        metadata={
            "help": "points see the backbone's finest map too, in the small CPU tower the pixels"
        },
    )

    def modules_around_language_model(self) -> list[str] | None:
        if self.freeze == "vision":
            return None
        modules = ["image_projector", "point_encoder", "point_projector"]
        if self.detail_level:
            modules += ["detail_projection", "spot_projection"]
        return modules
