"""Command-line arguments that the supervised training examples share."""

from dataclasses import dataclass, field

import numpy as np
from peft import LoraConfig
from transformers import AutoTokenizer, ViTImageProcessorPil

from ..data.sources import read_photos
from ..data.triplets import make_views, sample_triplets
from .fresh import small_language_model, small_vision_tower, train_tokenizer

LANGUAGE_MODEL_PROJECTIONS = r".*language_model.*\.(q|k|v|o)_proj"


@dataclass
class DataArguments:
    data_dir: list[str] = field(
        metadata={"help": "folders with an objects.jsonl, or built datasets (folder or Hub id)"}
    )
    views_per_photo: int = field(
        default=3,
        metadata={"help": "a photo itself plus random crops of it, mirrored half the time"},
    )
    draws: int = field(
        default=4,
        metadata={
            "help": "times that each view comes in an epoch, with other points and other sentences"
        },
    )
    points_per_image: int = field(
        default=8, metadata={"help": "points of one photo that share its encoding in a batch"}
    )
    styles: list[str] = field(
        default_factory=lambda: ["full"], metadata={"help": "styles of the descriptions"}
    )
    style_weights: list[float] | None = field(
        default=None, metadata={"help": "how often each style comes; equally often if not given"}
    )
    surroundings: float = field(
        default=0.06,
        metadata={"help": "chance of a point beside all objects, with a generic description"},
    )
    feature_cache: str | None = field(
        default=None, metadata={"help": "folder for the feature maps of a frozen backbone"}
    )
    view_seed: int = field(default=0, metadata={"help": "chooses the crops"})
    max_eval_photos: int | None = field(
        default=None,
        metadata={"help": "validation photos to evaluate on; all of them if not given"},
    )

    def views(self):
        """Train views and validation views, split by photo."""
        photos = [photo for source in self.data_dir for photo in read_photos(source)]
        train = make_views(
            [p for p in photos if p.split == "train"], self.views_per_photo, self.view_seed
        )
        validation = make_views([p for p in photos if p.split == "validation"])
        return train, validation[: self.max_eval_photos]

    def __post_init__(self):
        if self.style_weights is not None and len(self.style_weights) != len(self.styles):
            raise ValueError(
                f"{len(self.styles)} styles but {len(self.style_weights)} style_weights"
            )

    @property
    def weighted_styles(self):
        return dict(zip(self.styles, self.style_weights or [1.0] * len(self.styles)))


@dataclass
class ModelArguments:
    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "a checkpoint to train on; otherwise a fresh model is composed"},
    )
    vision: str | None = field(
        default=None,
        metadata={
            "help": "Mask2Former-style model (path or Hub id), with its preprocessor_config.json; otherwise the small CPU tower"
        },
    )
    text: str | None = field(
        default=None,
        metadata={
            "help": "causal language model (path or Hub id); otherwise a small Llama from scratch"
        },
    )
    backbone: str | None = field(
        default=None, metadata={"help": "folder of a pretrained backbone for the small CPU tower"}
    )
    image_size: int = field(default=256, metadata={"help": "side of the canvas in pixels"})
    token_strides: list[int] = field(
        default_factory=lambda: [16, 32], metadata={"help": "strides fused into image tokens"}
    )
    layers: int = field(default=5, metadata={"help": "layers of the small Llama"})
    freeze: str = field(
        default="backbone",
        metadata={"help": "backbone, vision (everything before the language model) or nothing"},
    )
    lora_rank: int = field(
        default=0, metadata={"help": "rank of LoRA on the language model; 0 trains it in full"}
    )
    freeze_language_model: bool = field(
        default=False, metadata={"help": "train only what lies around the language model"}
    )
    half_precision_dir: str | None = field(
        default=None, metadata={"help": "folder for a copy of the result with float16 weights"}
    )

    def __post_init__(self):
        if self.lora_rank and self.freeze_language_model:
            raise ValueError(
                "lora_rank adapts the language model, freeze_language_model leaves it as it is: choose one"
            )

    def lora_config(self, modules_to_save=None):
        if not self.lora_rank:
            return None
        return LoraConfig(
            r=self.lora_rank,
            lora_alpha=2 * self.lora_rank,
            target_modules=LANGUAGE_MODEL_PROJECTIONS,
            modules_to_save=modules_to_save,
        )

    def load(self, model_class, processor_class, views, decoder_layers, **config_fields):
        """(model, processor): a checkpoint, or a fresh model, frozen as asked."""
        if self.model_name_or_path:
            model = model_class.from_pretrained(self.model_name_or_path)
            processor = processor_class.from_pretrained(self.model_name_or_path)
        else:
            tokenizer = (
                AutoTokenizer.from_pretrained(self.text)
                if self.text
                else train_tokenizer(corpus(views))
            )
            tokens = (self.image_size // min(self.token_strides) // 2) ** 2
            statistics = {}
            if self.vision:
                stated, _ = ViTImageProcessorPil.get_image_processor_dict(self.vision)
                statistics = {name: stated[name] for name in ("image_mean", "image_std")}
            processor = processor_class.from_tokenizer(
                tokenizer, self.image_size, tokens, **statistics
            )
            vision = self.vision or small_vision_tower(self.backbone, decoder_layers=decoder_layers)
            text = self.text or small_language_model(processor.tokenizer, self.layers)
            model = model_class.from_vision_text_pretrained(
                vision, text, processor, token_strides=self.token_strides, **config_fields
            )
        if self.freeze not in ("backbone", "vision", "nothing"):
            raise ValueError(f"freeze must be backbone, vision or nothing, got {self.freeze!r}")
        if self.freeze == "backbone":
            model.freeze_backbone()
        elif self.freeze == "vision":
            model.freeze_vision()
        if self.freeze_language_model:
            model.model.language_model.requires_grad_(False)
        return model, processor


def corpus(views, limit=2000):
    """Descriptions for a fresh tokenizer, and the fixed prompts."""
    rng = np.random.default_rng(0)
    texts = ["Please describe region1 .", "Please segment region1: ", " keypoint "] * 20
    for index in rng.permutation(len(views))[:limit]:
        texts += sample_triplets(views[index], 4, rng, {"full": 0.5, "terse": 0.5}, 0.1)[1]
    return texts
