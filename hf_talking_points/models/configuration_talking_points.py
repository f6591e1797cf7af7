"""Configurations of the Point Descriptor and the Point Localizer: what they share, and each one's own fields."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.configuration_utils import SubConfigSpec

from .modeling_efficientnet_lite import EfficientNetLiteConfig
from .remote_code import CompleteRepoMixin

POINT_MASKS = ("gaussian", "predicted", "none")
LOCALIZER_HEADS = ("mlp", "heatmap")
MOST_LAYERS = 1000
# what transformers raises of fields of which no config or model can be made
UNBUILDABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
)


def is_dtype(value: Any) -> bool:
    """Whether a value is a dtype of torch or the name of one."""
    if isinstance(value, str):
        value = getattr(torch, value, None)
    return isinstance(value, torch.dtype)


def check_layers(name: str, config: PreTrainedConfig) -> None:
    """Raises ValueError for more layers than any model has, which would take all memory before the weights show it."""
    for field, value in config.to_dict().items():
        if field.endswith("layers") and isinstance(value, int) and value > MOST_LAYERS:
            raise ValueError(
                f"{name}.{field} must be at most {MOST_LAYERS}, got {value}"
            )


def forget_places(content: dict[str, Any]) -> None:
    """Takes out of a config, and of those in it, where it came from."""
    content.pop("_name_or_path", None)
    for value in content.values():
        if isinstance(value, dict):
            forget_places(value)


class TalkingPointsConfig(CompleteRepoMixin, PreTrainedConfig):
    """Fields of both models: a Mask2Former-style vision model, a causal language model, the image tokens between them.

    Args:
        vision_config: config of a Mask2Former-style model (backbone, pixel decoder, masked decoder layers).
        text_config: config of any causal language model.
        image_token_id (`int`): placeholder that stands for one image token.
        image_size (`int`): side of the square canvas in pixels.
        token_strides (`list[int]`): strides of the backbone maps that are fused into image tokens. The coarsest alone
            at 1024 px is the paper's setting (256 tokens); at 256 px that leaves 16 tokens, so small models fuse 16
            and 32. An empty list leaves the image out of the prompt, see [`PointLocalizerConfig`].
        pixel_shuffle_ratio (`int`): space-to-depth factor before the projection to the language model.
        use_perception_prior (`bool`): adds OMG-LLaVA's object queries, painted back on the pixels, to the image
            tokens.
        projector_hidden_act (`str`): activation between the two layers of the projection to the language model.
        tie_word_embeddings (`bool`): whether the language model's head shares the weights of its embeddings.
    """

    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=AutoConfig, model_type="mask2former"
        ),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }
    auto_map: ClassVar[
        dict[str, str]
    ] = {}  # trl reads config.auto_map unguarded for classes outside transformers
    # fields that hold the ids of the special tokens, under the same names in config and processor
    special_token_fields: ClassVar[tuple[str, ...]] = ("image_token_id",)

    # may be given as a dict, or not at all, and are configs from then on
    vision_config: PreTrainedConfig = None
    text_config: PreTrainedConfig = None
    image_token_id: int = 1
    image_size: int = 1024
    token_strides: list[int] = None  # type: ignore[assignment]  # [32] if not given
    pixel_shuffle_ratio: int = 2
    use_perception_prior: bool = False
    projector_hidden_act: str = "gelu"
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if not __name__.startswith("transformers_modules"):
            # this package's own code is in use: a copy saved now would point at code files that are not beside it
            for name in ("auto_map", "custom_pipelines"):
                kwargs.pop(name, None)
        if self.dtype is not None and not is_dtype(self.dtype):
            raise ValueError(f"dtype must name one of torch's, got {self.dtype!r}")
        try:
            super().__post_init__(**kwargs)
        except UNBUILDABLE as error:
            raise ValueError(
                f"no {type(self).__name__} can be made of these fields: {type(error).__name__}: {error}"
            ) from error
        for name in self.sub_configs:
            check_layers(name, getattr(self, name))
        if self.projector_hidden_act not in ACT2FN:
            raise ValueError(
                f"projector_hidden_act must be one of transformers' activations, got {self.projector_hidden_act!r}"
            )
        for name in ("image_size", "pixel_shuffle_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.token_strides is None:
            self.token_strides = [32]
        self.token_strides = sorted(self.token_strides)
        feature_strides = self.vision_config.feature_strides
        unknown = set(self.token_strides) - set(feature_strides)
        if unknown:
            raise ValueError(
                f"token_strides {sorted(unknown)} are not among the vision model's feature_strides {feature_strides}"
            )
        if not self.token_strides:
            return
        if self.token_strides[0] < 1:
            raise ValueError(
                f"token_strides must be positive, got {self.token_strides}"
            )
        token_side = self.token_strides[0] * self.pixel_shuffle_ratio
        if self.image_size % token_side:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of {token_side} "
                f"(finest token stride times pixel_shuffle_ratio)"
            )

    def to_dict(self) -> dict[str, Any]:
        """As of the base class, without where the parts came from: often a folder of this machine."""
        content = super().to_dict()
        for name in self.sub_configs:
            forget_places(content[name])
        return content

    @property
    def image_seq_length(self) -> int:
        """Number of image tokens."""
        if not self.token_strides:
            return 0
        tokens_per_side = (
            self.image_size // self.token_strides[0] // self.pixel_shuffle_ratio
        )
        return tokens_per_side**2

    @property
    def special_token_ids(self) -> list[int]:
        """Ids of the special tokens, none of which is ever written."""
        return [getattr(self, name) for name in self.special_token_fields]

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        return self.text_config


class PointDescriptorConfig(TalkingPointsConfig):
    """Configuration of [`PointDescriptorForConditionalGeneration`], on top of [`TalkingPointsConfig`].

    Args:
        region_token_id (`int`): placeholder that stands for one point token.
        point_mask (`str`): "gaussian" (the paper), "predicted" (OMG-LLaVA's own mask per layer) or "none".
        mask_sigma (`float`): standard deviation of the Gaussian in units of the canvas side.
        mask_threshold (`float`): a cell is attended where exp(-d^2 / 2 sigma^2) >= mask_threshold.
        detail_level (`bool`): points see the backbone's finest map with nothing but linear projections: 5 x 5 samples
            of it at the point are part of the query, and its cells, of stride 4 at least, are one more level that is
            attended to, the last of each round. Color and fine texture are lost in the coarser ones.
        detail_sigma (`float`): standard deviation of that level's Gaussian, in units of the canvas side. With one as
            wide as the others', attention would have to find the spot among dozens of cells.
        point_box_size (`float`): side in canvas pixels of the box whose sinusoidal encoding is the point's position
            query (OMG-LLaVA encodes a point as a box of +-3 px).
    """

    model_type = "point_descriptor"
    special_token_fields: ClassVar[tuple[str, ...]] = (
        "image_token_id",
        "region_token_id",
    )

    region_token_id: int = 2
    point_mask: str = "gaussian"
    mask_sigma: float = 0.05
    mask_threshold: float = 0.5
    detail_level: bool = False
    detail_sigma: float = 0.02
    point_box_size: float = 6.0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if not self.token_strides:
            raise ValueError(
                "token_strides must name at least one stride: a descriptor sees the image by its tokens alone"
            )
        if self.vision_config.pre_norm:
            raise ValueError(
                "points pass decoder layers that normalize after each block, "
                "but this vision_config has pre_norm=True: use a vision model without it"
            )
        if self.point_mask not in POINT_MASKS:
            raise ValueError(
                f"point_mask must be one of {POINT_MASKS}, got {self.point_mask!r}"
            )


class PointLocalizerConfig(TalkingPointsConfig):
    """Configuration of [`PointLocalizerForKeypointDetection`], on top of [`TalkingPointsConfig`].

    Args:
        seg_token_id (`int`): token whose last hidden state gives the point.
        head (`str`): "mlp" (the paper: regression, MSE) or "heatmap" (the regressed point as a prior over a map of
            cells).
        head_dim (`int`): width of the text-to-vision projection and of the head.
        heatmap_sigma (`float`): standard deviation of the Gaussian target in units of the canvas side.
        heatmap_window (`float`): standard deviation, in cells, of the window of the local soft-argmax.
        point_loss_weight (`float`): weight of the regression beside the heat map's cross-entropy.
        standardize_states (`bool`): `<SEG>`'s states are standardized by running statistics before they are projected.
            Those of a pretrained language model have much in common and differ little between texts, which the
            projection alone is slow to find.
        fusion_layers (`int`): layers in which the language model's states and a coarse map of cells attend to each
            other before the cells are scored; for "heatmap". Without image tokens, the text meets the image there
            alone, so that a frozen encoder of sentences may be the language model.
        fusion_dropout (`float`): dropout in these layers.
        calibrated_confidence (`bool`): the confidence is the probability that the right point is within 0.1, by a head
            that [`~training.calibration.calibrate`] fits; for "heatmap". Otherwise it is the share of the heat map
            around its peak.
    """

    model_type = "point_localizer"
    special_token_fields: ClassVar[tuple[str, ...]] = ("image_token_id", "seg_token_id")

    seg_token_id: int = 2
    head: str = "mlp"
    head_dim: int = 256
    heatmap_sigma: float = 0.03
    heatmap_window: float = 2.5
    point_loss_weight: float = 30.0
    standardize_states: bool = False
    fusion_layers: int = 0
    fusion_dropout: float = 0.0
    calibrated_confidence: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.head not in LOCALIZER_HEADS:
            raise ValueError(
                f"head must be one of {LOCALIZER_HEADS}, got {self.head!r}"
            )
        for name in ("fusion_layers", "calibrated_confidence"):
            value = getattr(self, name)
            if value and self.head != "heatmap":
                raise ValueError(
                    f"{name}={value} needs a map, which head {self.head!r} has not: take head='heatmap', "
                    f"or leave {name} out"
                )
        if self.fusion_layers and self.standardize_states:
            raise ValueError(
                "standardize_states is for states that no fusion layer has changed: leave it or fusion_layers out"
            )
        if not (self.token_strides or self.fusion_layers):
            raise ValueError(
                "without token_strides and without fusion_layers the text would never meet the image: give one of them"
            )


__all__ = [
    "EfficientNetLiteConfig",
    "PointDescriptorConfig",
    "PointLocalizerConfig",
    "TalkingPointsConfig",
]
