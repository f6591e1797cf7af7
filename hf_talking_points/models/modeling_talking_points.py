"""What both models share: vision tower, image tokens, language model, how two pretrained ones are composed."""

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForUniversalSegmentation,
    Cache,
    DynamicCache,
    Mask2FormerModel,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.activations import ACT2FN
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderOutput,
)
from transformers.utils import is_tracing, logging, torch_compilable_check
from transformers.utils.loading_report import LoadStateDictInfo

from .configuration_talking_points import UNBUILDABLE, TalkingPointsConfig
from .modeling_masked_decoder import (
    FeatureLevel,
    call_by_name,
    let_points_pass,
    rows_of,
)
from .quantization import of_language_model, take_quantization
from .remote_code import CompleteRepoMixin
from .shared_prefix import (
    PackedRows,
    RowsMask,
    layers_know_rows,
    packed_rows,
    reason_for_whole_rows,
    rows_alike,
)

logger = logging.get_logger(__name__)


def number_of_images(
    image_tokens: torch.FloatTensor | list[torch.FloatTensor],
) -> int:
    """Number of entries, which `len` of a tensor would make a constant of an exported program."""
    if isinstance(image_tokens, (list, tuple)):
        return len(image_tokens)
    return image_tokens.shape[0]


def even_image_of_row(rows: int, images: int, device: torch.device) -> torch.LongTensor:
    """The image of each row of text, `(rows,)`, where every image has as many consecutive rows.

    Raises:
        ValueError: `rows` is no multiple of `images`.
    """
    torch_compilable_check(
        rows % images == 0,
        f"{rows} text rows cannot be shared evenly by {images} images",
    )
    return torch.arange(rows, device=device) * images // rows


def backbone_channels(vision_config: PreTrainedConfig) -> list[int]:
    """Channels of the backbone's feature maps, finest first."""
    backbone = vision_config.backbone_config
    if getattr(backbone, "hidden_sizes", None):
        channels = backbone.hidden_sizes
    else:  # Swin states the first stage's width and doubles it
        channels = [
            backbone.embed_dim * 2**stage for stage in range(len(backbone.depths))
        ]
    stem, *stages = backbone.stage_names
    of_stage = dict(zip(stages, channels, strict=True))
    return [of_stage[name] for name in backbone.out_features]


def resized(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """maps (`torch.Tensor` of shape `(images, channels, height, width)`) -> the same at `size` = (height, width)."""
    return nn.functional.interpolate(
        maps, size=size, mode="bilinear", align_corners=False
    )


class ImageProjector(nn.Module):
    """Backbone maps -> image tokens: [fusion of strides,] space-to-depth, [perception prior,] two linear layers."""

    def __init__(self, config: TalkingPointsConfig) -> None:
        super().__init__()
        vision = config.vision_config
        hidden = config.text_config.hidden_size
        channels = backbone_channels(vision)
        self.ratio = config.pixel_shuffle_ratio
        self.levels = [
            vision.feature_strides.index(stride) for stride in config.token_strides
        ]
        self.fuse = nn.ModuleList()
        width = channels[self.levels[-1]]
        if len(self.levels) > 1:
            width = vision.hidden_dim
            for level in self.levels:
                projection = nn.Conv2d(channels[level], width, 1)
                self.fuse.append(nn.Sequential(projection, nn.GroupNorm(8, width)))
            self.mix = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(width, width, 1),
            )
        prior_width = 2 * vision.hidden_dim if config.use_perception_prior else 0
        self.fc1 = nn.Linear(width * self.ratio**2 + prior_width, hidden)
        self.act = ACT2FN[config.projector_hidden_act]
        self.fc2 = nn.Linear(hidden, hidden)
        self.position_embedding = nn.Embedding(config.image_seq_length, hidden)

    def fused_maps(self, feature_maps: list[torch.Tensor]) -> torch.Tensor:
        """The maps of the token strides as one at the finest of them, `(images, channels, height, width)`."""
        maps = [feature_maps[level] for level in self.levels]
        if not self.fuse:
            return maps[0]
        size = maps[0].shape[-2:]
        fused = sum(
            resized(project(level), size) for project, level in zip(self.fuse, maps)
        )
        return fused + self.mix(fused)

    def size(self, feature_maps: list[torch.Tensor]) -> tuple[int, int]:
        """Height and width in image tokens."""
        height, width = feature_maps[self.levels[0]].shape[-2:]
        return height // self.ratio, width // self.ratio

    def cells(self, feature_maps: list[torch.Tensor]) -> torch.Tensor:
        """-> `(images, height * width, ratio^2 * channels)` at the resolution of the image tokens."""
        fused = self.fused_maps(feature_maps)
        # (images, channels, height, ratio, width, ratio): each cell's rows and columns of pixels apart
        cells = fused.unflatten(3, (-1, self.ratio)).unflatten(2, (-1, self.ratio))
        return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def forward(
        self, feature_maps: list[torch.Tensor], prior: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            feature_maps (list of `torch.Tensor` of shape `(images, channels, height, width)`): of the backbone.
            prior (`torch.Tensor` of shape `(images, tokens, 2 * hidden_dim)`, *optional*)
        Returns:
            `torch.Tensor` of shape `(images, tokens, hidden)`: the image tokens.
        """
        tokens = self.cells(feature_maps)
        if prior is not None:
            tokens = torch.cat([tokens, prior], -1)
        positions = rows_of(self.position_embedding, tokens.shape[1], tokens.device)
        return self.fc2(self.act(self.fc1(tokens))) + positions


def chosen_implementations(config: PreTrainedConfig, name: str) -> dict[str, Any]:
    """What `config` and the configs in it say under `name`, such as `_attn_implementation`, in the form in which
    another config that takes them in keeps it."""
    chosen = {"": getattr(config, name)}
    for key in config.sub_configs:
        sub_config = getattr(config, key, None)
        if sub_config is not None:
            chosen[key] = chosen_implementations(sub_config, name)
    return chosen


def check_language_model(text: PreTrainedModel, writes: bool) -> None:
    """Raises ValueError where a language model computes in a way that a model composed of it does not.

    Args:
        text (`PreTrainedModel`): in evaluation mode.
        writes (`bool`): whether its logits are used.
    """
    if text.device.type == "meta" or is_deepspeed_zero3_enabled():
        return  # there are no weights to compute with
    name = type(text).__name__
    if writes and "past_key_values" not in signature(text.forward).parameters:
        raise ValueError(
            f"{name} takes no past_key_values, with which a descriptor writes: take a language model that does"
        )
    ids = torch.arange(4, device=text.device)[None]
    embeds = text.get_input_embeddings()(ids)
    with torch.no_grad():
        states = text.base_model(inputs_embeds=embeds, use_cache=False)[0]
        states_of_ids = text.base_model(ids, use_cache=False)[0]
    if not torch.allclose(states, states_of_ids, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"{name} makes more of ids than of their embeddings, among which images and points stand: "
            "take a language model without embeddings in every layer"
        )
    if not writes:
        return
    head = text.get_output_embeddings()
    if head is None:
        raise ValueError(
            f"{name} has no head, with which a descriptor writes: take a causal language model"
        )
    with torch.no_grad():
        expected = text(ids, use_cache=False).logits
        logits = head(states).to(expected.dtype)
    # small logits are hardly changed by a cap
    is_capped = getattr(text.config, "final_logit_softcapping", None) is not None
    is_plain = torch.allclose(logits, expected, rtol=1e-3, atol=1e-3)
    if is_capped or not is_plain or head.bias is not None:
        raise ValueError(
            f"the logits of {name} are more than its head's weights times the last hidden states: "
            "take a language model without a bias of the head and without scaled or capped logits"
        )


def load_text(name: str | os.PathLike, **kwargs: Any) -> PreTrainedModel:
    """A language model; without a head where its checkpoint has none, as those of sentence encoders.

    Args:
        name: Hub id or path.
        kwargs: of `from_pretrained`.
    """
    remote = {"trust_remote_code": kwargs.get("trust_remote_code", False)}
    config = AutoConfig.from_pretrained(name, **remote)
    [architecture, *_] = config.architectures or [""]
    auto_class = AutoModelForCausalLM
    if architecture.endswith("Model"):
        auto_class = AutoModel
    return auto_class.from_pretrained(name, **kwargs)


def load_vision(
    name: str | os.PathLike, dtype: torch.dtype, with_classes: bool
) -> PreTrainedModel:
    """A vision model by path or Hub id, with its class predictor where it has one and that is wanted."""
    architectures = AutoConfig.from_pretrained(name).architectures or []
    segments = "Mask2FormerForUniversalSegmentation" in architectures
    if with_classes and segments:
        return AutoModelForUniversalSegmentation.from_pretrained(name, dtype=dtype)
    return AutoModel.from_pretrained(name, dtype=dtype)


def part_of(config: TalkingPointsConfig, name: str) -> PreTrainedModel:
    """A fresh model of one of a config's own configs.

    Raises:
        ValueError: its fields do not fit each other.
    """
    try:
        return AutoModel.from_config(getattr(config, name))
    except UNBUILDABLE as error:
        raise ValueError(
            f"no model can be built of {name}: {type(error).__name__}: {error}"
        ) from error


def keep_weights(pretrained: PreTrainedModel) -> None:
    """Marks a model so that the initialization of another one that it becomes part of leaves its weights as they
    are."""
    for module in pretrained.modules():
        module._is_hf_initialized = True


class TalkingPointsPreTrainedModel(CompleteRepoMixin, PreTrainedModel):
    config: TalkingPointsConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    # names of the weights that a checkpoint lacked and nothing has trained since
    fresh_weights: list[str] = []
    supports_gradient_checkpointing = True
    # classes that are called as a whole: devices get them, and FSDP gathers them, in one piece
    _no_split_modules = [
        "Mask2FormerPixelDecoder",
        "MaskedDecoderLayer",
        "ImageProjector",
        "PointPromptEncoder",
        "MapKeys",
        "HeatmapHead",
        "TextMapFusion",
    ]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            # what lies between two models starts at the scale of its inputs, not at a language model's 0.02
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def post_init(self) -> None:
        super().post_init()
        backbone = self.base_model.backbone
        names = {*self._no_split_modules, *(backbone._no_split_modules or [])}
        # accelerate raises at the name of a class that is not in the model
        present = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = sorted(names & present)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As of the base class. A `quantization_config` is for the language model alone. What the checkpoint lacks is
        drawn at random and told by `fresh_weights`: the pipelines refuse such a model until it was trained."""
        if kwargs.get("quantization_config") is not None:
            quantization_config = of_language_model(kwargs["quantization_config"])
            kwargs["quantization_config"] = quantization_config
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model.fresh_weights = sorted(info["missing_keys"])
        model.freeze_unreached()
        return (model, info) if wants_info else model

    @staticmethod
    def _finalize_model_loading(
        model: "TalkingPointsPreTrainedModel",
        load_config: Any,
        loading_info: LoadStateDictInfo,
    ) -> LoadStateDictInfo:
        # before memory is taken for what would stand in their place, which may be far more than the file's
        if loading_info.mismatched_keys and not load_config.ignore_mismatched_sizes:
            name = load_config.pretrained_model_name_or_path
            key, found, expected = min(loading_info.mismatched_keys)
            raise ValueError(
                f"the weights in {name} do not fit its config: of {key} it says {tuple(expected)}, they are "
                f"{tuple(found)}; pass ignore_mismatched_sizes=True to have such weights drawn anew"
            )
        return PreTrainedModel._finalize_model_loading(model, load_config, loading_info)

    def train(self, mode: bool = True) -> "TalkingPointsPreTrainedModel":
        if mode:
            self.fresh_weights = []
        return super().train(mode)

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision: str | os.PathLike | PreTrainedModel,
        text: str | os.PathLike | PreTrainedModel,
        processor: ProcessorMixin,
        dtype: str | torch.dtype | None = None,
        **config_fields: Any,
    ) -> "TalkingPointsPreTrainedModel":
        """Composes a fresh model of two pretrained ones; only what lies between them is new.

        Loaded models that are passed in become parts of the new one: their weights are not copied, the word embeddings
        grow, and both take its dtype.

        Args:
            vision, text: Hub id or path, or a loaded model, of a Mask2Former-style model and of a causal language
                model. One for universal segmentation brings the class predictor that the perception prior reads.
            processor: made by `from_tokenizer` of this model's processor class; the embeddings grow by its special
                tokens.
            dtype (`str` or `torch.dtype`, *optional*): of all weights; by default that of the language model.
            config_fields: further fields of this class's config, such as `head` or `point_mask`.
        Returns:
            the model in evaluation mode, as of `from_pretrained`.
        Raises:
            ValueError: processor and config disagree about the number of image tokens, or the language model computes
                in a way that the composed model does not.
        """
        if isinstance(text, (str, os.PathLike)):
            text = load_text(text, dtype=dtype or "auto")
        if dtype is None or dtype == "auto":
            dtype = text.dtype
        elif isinstance(dtype, str):
            dtype = getattr(torch, dtype)
        reads_classes = config_fields.get("use_perception_prior", False)
        if isinstance(vision, (str, os.PathLike)):
            vision = load_vision(vision, dtype, reads_classes)
        class_predictor = getattr(vision, "class_predictor", None)
        vision = vision.base_model
        vision.to(dtype).eval()
        text.eval()
        is_quantized = getattr(text, "hf_quantizer", None) is not None
        if not is_quantized:
            text.to(dtype)
        elif text.dtype != dtype:
            raise ValueError(
                f"the quantized language model computes in {text.dtype} and cannot change to {dtype}: "
                f"load it with dtype={dtype}"
            )
        check_language_model(text, writes=cls.can_generate())
        if len(processor.tokenizer) > text.get_input_embeddings().num_embeddings:
            text.resize_token_embeddings(len(processor.tokenizer))
        config = cls.composed_config(vision, text, processor, config_fields)
        for part in (vision, text):
            keep_weights(part)
        model = cls._from_config(
            config, dtype=dtype, vision_tower=vision, language_model=text
        )
        if reads_classes and class_predictor is not None:
            model.base_model.class_predictor = class_predictor.to(dtype)
        if is_quantized:
            take_quantization(model, text)
        if model.can_generate():
            model.generation_config = text.generation_config
            model.generation_config.suppress_tokens = config.special_token_ids
        return model.eval()

    @classmethod
    def composed_config(
        cls,
        vision: PreTrainedModel,
        text: PreTrainedModel,
        processor: ProcessorMixin,
        config_fields: dict[str, Any],
    ) -> TalkingPointsConfig:
        """The config of a model composed of two; arguments and errors as in [`from_vision_text_pretrained`]."""
        config_class = cls.config_class
        fields = {"image_size": processor.image_size}
        for name in config_class.special_token_fields:
            fields[name] = getattr(processor, name)
        sub_configs = {"vision_config": vision.config, "text_config": text.config}
        for name in ("attn_implementation", "experts_implementation"):
            chosen = {}
            for key, sub_config in sub_configs.items():
                chosen[key] = chosen_implementations(sub_config, f"_{name}")
            fields[name] = chosen
        tied = text.config.tie_word_embeddings
        fields = {**sub_configs, "tie_word_embeddings": tied, **fields, **config_fields}
        config = config_class(**fields)
        if config.image_seq_length != processor.image_seq_length:
            raise ValueError(
                f"the processor makes {processor.image_seq_length} image tokens "
                f"but the config {config.image_seq_length}"
            )
        return config

    def freeze_unreached(self) -> None:
        """Takes the gradient from parameters that no loss reaches."""
        for parameter in self.base_model.unreached_parameters():
            parameter.requires_grad_(False)

    def freeze_backbone(self) -> None:
        """Freezes the backbone, whose feature maps can then be computed once and given to `forward` as
        `feature_maps`."""
        self.base_model.backbone.requires_grad_(False)

    def freeze_vision(self) -> None:
        """Freezes everything that precedes the language model."""
        for module in self.base_model.modules_before_language_model():
            module.requires_grad_(False)

    def set_attn_implementation(
        self, attn_implementation: str | dict, allow_all_kernels: bool = False
    ) -> None:
        """Changes the attention as `from_pretrained(attn_implementation=...)` does.

        Args:
            attn_implementation (`str` or `dict`): a name is for the language model, since a Mask2Former takes eager
                attention alone; a `dict` has a name for each sub-config, as in the base class.
            allow_all_kernels (`bool`): as in the base class.
        Raises:
            ValueError or ImportError: a part does not support what is asked for; then nothing has changed.
        """
        vision = self.config.vision_config
        if isinstance(attn_implementation, str):
            backbone = {"backbone_config": vision.backbone_config._attn_implementation}
            attn_implementation = {
                "": attn_implementation,
                "text_config": attn_implementation,
                "vision_config": backbone,
            }
        configs = (self.config, self.config.text_config, vision, vision.backbone_config)
        before = [config._attn_implementation_internal for config in configs]
        try:
            super().set_attn_implementation(attn_implementation, allow_all_kernels)
        except (ValueError, ImportError):
            for config, implementation in zip(configs, before):
                config._attn_implementation_internal = implementation
            raise

    def enable_input_require_grads(self) -> None:
        # the inherited one also hooks Swin's patch embedding, which returns a tuple
        def require_grad(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            output.requires_grad_(True)

        hook = self.get_input_embeddings().register_forward_hook(require_grad)
        self._require_grads_hooks = [hook]

    def get_input_embeddings(self) -> nn.Module:
        return self.base_model.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.base_model.language_model.set_input_embeddings(value)


class TalkingPointsModel(TalkingPointsPreTrainedModel):
    """Vision tower, image projector and language model: image tokens and text in, last hidden states out.

    Args:
        config ([`TalkingPointsConfig`])
        vision_tower, language_model (`PreTrainedModel`, *optional*): loaded models that become parts of this one; by
            default fresh ones of `config`.
    """

    vision_tower: Mask2FormerModel
    language_model: PreTrainedModel
    gradient_checkpointing = False  # transformers sets it, and the function below

    def __init__(
        self,
        config: TalkingPointsConfig,
        vision_tower: Mask2FormerModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        config.vision_config._attn_implementation = (
            "eager"  # Mask2FormerModel raises for any other
        )
        if vision_tower is None:
            vision_tower = part_of(config, "vision_config")
        self.vision_tower = vision_tower
        let_points_pass(vision_tower)
        call_by_name(vision_tower)
        if config.token_strides:
            self.image_projector = ImageProjector(config)
        if config.use_perception_prior:
            classes = config.vision_config.num_labels + 1
            self.class_predictor = nn.Linear(config.vision_config.hidden_dim, classes)
        if language_model is None:
            language_model = part_of(config, "text_config")
        if getattr(language_model, "pooler", None) is not None:
            language_model.pooler = None  # a summary of the text that nobody reads
        self.language_model = language_model

    @property
    def backbone(self) -> Any:
        return self.vision_tower.pixel_level_module.encoder

    @property
    def hidden_size(self) -> int:
        """Of the language model."""
        return self.config.text_config.hidden_size

    @property
    def pixel_decoder(self) -> Any:
        return self.vision_tower.pixel_level_module.decoder

    def train(self, mode: bool = True) -> "TalkingPointsModel":
        super().train(mode)
        # a few images a batch are too few for batch statistics, and frozen features must not drift
        self.backbone.eval()
        if not any(weight.requires_grad for weight in self.language_model.parameters()):
            self.language_model.eval()  # no dropout in what does not learn
        return self

    def modules_before_language_model(self) -> list[nn.Module]:
        """What stands between an image and the language model's inputs."""
        modules: list[nn.Module] = [self.vision_tower]
        if self.config.token_strides:
            modules.append(self.image_projector)
        if self.config.use_perception_prior:
            modules.append(self.class_predictor)
        return modules

    @property
    def reads_pixel_decoder(self) -> bool:
        """Whether a forward pass needs more of the vision tower than its backbone."""
        return True

    @property
    def predicts_masks(self) -> bool:
        """Whether masks predicted by the vision tower take part in a forward pass."""
        return self.config.use_perception_prior

    def unreached_modules(self) -> list[nn.Module]:
        """Modules that no loss reaches."""
        transformer = self.vision_tower.transformer_module
        unreached = []
        if not self.config.use_perception_prior:
            unreached += [transformer.queries_embedder, transformer.queries_features]
        if not self.predicts_masks:
            decoder = self.pixel_decoder
            unreached += [
                transformer.decoder.layernorm,
                transformer.decoder.mask_predictor,
                decoder.mask_projection,
                *decoder.lateral_convolutions,
                *decoder.output_convolutions,
            ]
        return unreached

    def reached_strides(self) -> set[int]:
        """Strides of the backbone maps that reach a loss."""
        strides = self.config.vision_config.feature_strides
        if self.predicts_masks:
            return set(strides)
        # the decoder layers attend to the three coarsest maps
        return {*strides[-3:], *self.config.token_strides}

    def unreached_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that no loss reaches; which these are follows from the config."""
        for module in self.unreached_modules():
            yield from module.parameters()
        for name, parameter in self.backbone.named_parameters():
            if name in self.unreached_in_backbone:
                yield parameter
        if not self.config.vision_config.encoder_layers:
            yield self.pixel_decoder.level_embed
        if not self.config.use_perception_prior:
            # a softmax over a single point has no gradient
            for layer in self.vision_tower.transformer_module.decoder.layers:
                yield from layer.self_attn.q_proj.parameters()
                yield from layer.self_attn.k_proj.parameters()

    @cached_property
    def unreached_in_backbone(self) -> set[str]:
        """Names of the backbone's parameters that no feature map of [`reached_strides`] depends on, which autograd
        tells on the meta device: a norm of a map that nobody reads, a whole stage behind the last one that is read."""
        backbone = self.backbone
        weights = {
            name: torch.empty_like(weight, device="meta", requires_grad=True)
            for name, weight in backbone.named_parameters()
        }
        buffers = {
            name: torch.empty_like(buffer, device="meta")
            for name, buffer in backbone.named_buffers()
        }
        side = self.config.image_size
        pixels = torch.empty(1, 3, side, side, dtype=backbone.dtype, device="meta")
        with torch.enable_grad():
            maps = torch.func.functional_call(
                backbone, {**weights, **buffers}, pixels
            ).feature_maps
            strides = self.config.vision_config.feature_strides
            read = [
                level.sum()
                for level, stride in zip(maps, strides)
                if stride in self.reached_strides()
            ]
            gradients = torch.autograd.grad(
                sum(read), list(weights.values()), allow_unused=True
            )
        return {name for name, gradient in zip(weights, gradients) if gradient is None}

    def checkpointed(
        self, module: nn.Module, function: Callable[..., Any], *inputs: Any
    ) -> Any:
        """`function(*inputs)`, computed again in the backward pass where gradient checkpointing is on.

        Args:
            module (`nn.Module`): what `function` calls.
            function: takes the inputs one by one; gives a tensor or a tuple of tensors.
            inputs (`torch.Tensor` or None)
        """
        if not (self.gradient_checkpointing and self.training):
            return function(*inputs)
        trained = any(weight.requires_grad for weight in module.parameters())
        tensors = [value for value in inputs if value is not None]
        if not trained and not any(value.requires_grad for value in tensors):
            return function(*inputs)
        if trained and not any(value.requires_grad for value in tensors):
            # reentrant checkpoints give weights a gradient only where an input asks for one
            first, *others = inputs
            inputs = (first.detach().requires_grad_(), *others)
        return self._gradient_checkpointing_func(function, *inputs)

    def run_backbone(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """pixel_values (`torch.Tensor` of shape `(images, 3, image_size, image_size)`) -> feature maps, finest
        first."""
        return tuple(self.backbone(pixel_values).feature_maps)

    def run_pixel_decoder(
        self, *feature_maps: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """-> (features of the masks, multi-scale features, coarsest first)."""
        decoded = self.pixel_decoder(feature_maps)
        return decoded.mask_features, *decoded.multi_scale_features

    def project_image(self, *inputs: torch.Tensor) -> torch.Tensor:
        """(feature maps, then the perception prior or None) -> image tokens."""
        *feature_maps, prior = inputs
        return self.image_projector(feature_maps, prior)

    def encode_image(
        self,
        pixel_values: torch.FloatTensor | None = None,
        feature_maps: list[torch.FloatTensor] | None = None,
    ) -> tuple[list[torch.FloatTensor], Any, torch.FloatTensor]:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(images, 3, image_size, image_size)`)
            feature_maps (list of `torch.FloatTensor`): the backbone's maps instead of `pixel_values`.
        Returns:
            (backbone feature maps, pixel decoder output or None where it is not read, image tokens of shape
            `(images, image_seq_length, hidden)`).
        Raises:
            ValueError: neither or both are given.
        """
        if pixel_values is not None and feature_maps is None:
            maps = self.checkpointed(
                self.backbone, self.run_backbone, pixel_values.to(self.dtype)
            )
        elif feature_maps is not None and pixel_values is None:
            maps = feature_maps
        else:
            raise ValueError("give either pixel_values or feature_maps")
        # one layout, whatever the backbone's, so that rounding does not depend on it
        maps = [level.to(self.dtype).contiguous() for level in maps]
        decoded = None
        if self.reads_pixel_decoder:
            mask_features, *levels = self.checkpointed(
                self.pixel_decoder, self.run_pixel_decoder, *maps
            )
            decoded = Mask2FormerPixelDecoderOutput(levels, mask_features)
        if not self.config.token_strides:
            return maps, decoded, maps[0].new_empty(len(maps[0]), 0, self.hidden_size)
        prior = None
        if self.config.use_perception_prior:
            prior = self.perception_prior(decoded, self.image_projector.size(maps))
        tokens = self.checkpointed(
            self.image_projector, self.project_image, *maps, prior
        )
        return maps, decoded, tokens

    def feature_levels(self, decoded: Any) -> list[FeatureLevel]:
        """The maps that decoder layers attend to in turn, coarsest first.

        Args:
            decoded: output of the pixel decoder.
        """
        transformer = self.vision_tower.transformer_module
        count = transformer.num_feature_levels
        device = decoded.mask_features.device
        level_embeds = rows_of(transformer.level_embed, count, device)
        levels = []
        for index in range(count):
            keys = transformer.input_projections[index](
                decoded.multi_scale_features[index]
            )
            keys = keys + level_embeds[index][None, :, None, None]
            levels.append(self.feature_level(keys))
        return levels

    def feature_level(self, keys: torch.Tensor) -> FeatureLevel:
        """A map of keys, `(images, hidden_dim, height, width)`, with the encoding of its cells' positions."""
        positions = self.vision_tower.transformer_module.position_embedder(
            keys.shape, keys.device, keys.dtype, None
        )
        return FeatureLevel(
            keys=keys.flatten(2).permute(2, 0, 1),
            positions=positions.flatten(2).permute(2, 0, 1),
            size=keys.shape[-2:],
        )

    def decode_queries(self, decoded: Any) -> tuple[Any, torch.Tensor]:
        """Decoder layers over the object queries.

        Args:
            decoded: output of the pixel decoder.
        Returns:
            (output of Mask2Former's decoder, position queries of shape `(images, queries, hidden_dim)`).
        """
        transformer = self.vision_tower.transformer_module
        levels = self.feature_levels(decoded)
        images, device = decoded.mask_features.shape[0], decoded.mask_features.device
        count = self.config.vision_config.num_queries
        query = rows_of(transformer.queries_features, count, device)
        query_pos = rows_of(transformer.queries_embedder, count, device)
        output = transformer.decoder(
            inputs_embeds=query[:, None].expand(-1, images, -1),
            multi_stage_positional_embeddings=[level.positions for level in levels],
            pixel_embeddings=decoded.mask_features,
            encoder_hidden_states=[level.keys for level in levels],
            query_position_embeddings=query_pos[:, None].expand(-1, images, -1),
            feature_size_list=[level.size for level in levels],
            return_dict=True,
        )
        return output, query_pos.expand(images, -1, -1)

    def perception_prior(
        self, decoded: Any, size: tuple[int, int]
    ) -> torch.FloatTensor:
        """OMG-LLaVA's prior: object queries painted back on the pixels.

        Args:
            decoded: output of the pixel decoder.
            size (`tuple[int, int]`): height and width in image tokens.
        Returns:
            `torch.FloatTensor` of shape `(images, height * width, 2 * hidden_dim)`.
        """
        output, query_pos = self.decode_queries(decoded)
        query = output.last_hidden_state  # (images, queries, hidden_dim)
        last_states = output.intermediate_hidden_states[-1].transpose(0, 1)
        class_probabilities = self.class_predictor(last_states).softmax(-1)
        score = class_probabilities[..., :-1].amax(-1)  # the last class is "no object"
        masks = output.masks_queries_logits[
            -1
        ].sigmoid()  # (images, queries, height, width)
        weight = (0.5 + 0.5 * score)[..., None, None] * masks
        weight = resized(weight.float(), size).softmax(1)  # over the queries
        weight = weight.flatten(2).transpose(1, 2)  # (images, cells, queries)
        return weight.to(query.dtype) @ torch.cat([query, query_pos], -1)

    def embed_text(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.FloatTensor | None,
    ) -> torch.FloatTensor:
        """The embeddings that are given, or else those of the ids, `(rows, length, hidden)`.

        Raises:
            ValueError: neither is given.
        """
        if inputs_embeds is not None:
            return inputs_embeds
        if input_ids is None:
            raise ValueError("give input_ids or inputs_embeds")
        return self.get_input_embeddings()(input_ids)

    def placeholders(
        self,
        token_id: int,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.FloatTensor,
    ) -> torch.Tensor:
        """Where a text has a placeholder.

        Args:
            token_id (`int`): of the placeholder.
            input_ids (`torch.LongTensor` of shape `(rows, length)`, *optional*): without them, the placeholder's own
                embedding is looked for.
            inputs_embeds (`torch.FloatTensor` of shape `(rows, length, hidden)`)
        Returns:
            bool `torch.Tensor` of shape `(rows, length)`.
        """
        if input_ids is not None:
            return input_ids == token_id
        token = torch.full((1, 1), token_id, device=inputs_embeds.device)
        return (inputs_embeds == self.get_input_embeddings()(token)).all(-1)

    def scatter(
        self,
        inputs_embeds: torch.Tensor,
        where: torch.Tensor,
        values: torch.Tensor,
        name: str,
    ) -> torch.Tensor:
        """Puts features at the placeholders of a text.

        Args:
            inputs_embeds (`torch.Tensor` of shape `(rows, length, hidden)`)
            where (bool `torch.Tensor` of shape `(rows, length)`): marks n placeholders.
            values (`torch.Tensor` of shape `(n, hidden)`)
            name (`str`): of the features, in the error.
        Raises:
            ValueError: the numbers of placeholders and features differ.
        """
        placeholders = where.sum()
        torch_compilable_check(
            placeholders == values.shape[0],
            lambda: (
                f"the text has {int(placeholders)} {name} placeholders "
                f"but there are {values.shape[0]} {name} features"
            ),
        )
        return inputs_embeds.masked_scatter(where[..., None], values.to(inputs_embeds))

    def scatter_images(
        self,
        inputs_embeds: torch.FloatTensor,
        where: torch.Tensor,
        image_tokens: torch.FloatTensor | list[torch.FloatTensor],
        image_of_row: torch.LongTensor,
    ) -> torch.FloatTensor:
        """Puts image tokens at their placeholders.

        Args:
            inputs_embeds (`torch.FloatTensor` of shape `(rows, length, hidden)`)
            where (bool `torch.Tensor` of shape `(rows, length)`): marks the placeholders.
            image_tokens (`torch.FloatTensor` of shape `(images, image_seq_length, hidden)`): or a list of them.
            image_of_row (`torch.LongTensor` of shape `(rows,)`): the image of each row.
        Raises:
            ValueError: the number of placeholders is wrong.
        """
        if isinstance(image_tokens, (list, tuple)):
            image_tokens = torch.stack(image_tokens)
        tokens = image_tokens.to(inputs_embeds.device)[image_of_row]
        return self.scatter(inputs_embeds, where, tokens.flatten(0, 1), "image")

    def needs_every_row(self, kwargs: dict[str, Any]) -> bool:
        """Whether the language model must see the rows as they are."""
        config = self.language_model.config
        for name in ("output_hidden_states", "output_attentions"):
            if kwargs.get(name, getattr(config, name, False)):
                return True
        return is_tracing() or layers_know_rows(self.language_model)

    def gradients_may_be_shared(self, inputs_embeds: torch.FloatTensor | None) -> bool:
        """Whether the caller's embeddings ask for no gradient: of a prefix that rows share, the first gets that of
        all."""
        if inputs_embeds is None or not inputs_embeds.requires_grad:
            return True
        logger.warning_once(
            "inputs_embeds ask for a gradient: rows of one image are computed as a whole, "
            "without sharing their prefix, so that each row has its own"
        )
        return False

    def may_share_rows(
        self,
        inputs_embeds: torch.FloatTensor,
        attention_mask: torch.LongTensor | None,
        kwargs: dict[str, Any],
    ) -> bool:
        """Whether what is asked of the language model can be had from packed rows."""
        if kwargs.get("past_key_values") is not None or self.needs_every_row(kwargs):
            return False
        if attention_mask is None:
            # position_ids alone may hold several texts in a row
            return kwargs.get("position_ids") is None
        return attention_mask.shape == inputs_embeds.shape[:2]

    def packed_attention_mask(
        self, packed: PackedRows, embeds: torch.FloatTensor, length: int
    ) -> Any:
        """The mask of packed rows in the form that the attention implementation takes.

        Args:
            packed ([`PackedRows`])
            embeds (`torch.FloatTensor` of shape `(runs, packed_length, hidden)`)
            length (`int`): of the rows.
        Returns:
            mask of every pair of positions; None, with a warning, where the language model cannot take one.
        """
        config = self.language_model.config
        reason = reason_for_whole_rows(self.language_model, length)
        if reason is None:
            mask = create_causal_mask(
                config,
                embeds,
                packed.valid,
                past_key_values=None,
                and_mask_function=packed.connected(),
            )
            if mask is not None and len(mask.shape) == 4:
                is_flags = isinstance(mask, torch.Tensor) and mask.dtype == torch.bool
                return RowsMask.of(mask, packed) if is_flags else mask
            reason = "no mask of every pair of positions"
        logger.warning_once(
            f"{type(self.language_model).__name__} with attention implementation "
            f"{config._attn_implementation!r} has {reason}: rows of one image are computed "
            f"as a whole, without sharing their prefix"
        )
        return None

    def run_language_model(
        self,
        inputs_embeds: torch.FloatTensor,
        attention_mask: torch.LongTensor | None,
        image_of_row: torch.LongTensor | None = None,
        prefill_chunk_size: int | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Runs the language model. Consecutive rows of one image that begin alike are packed into one sequence, where
        their prefix stands once, unless they go on from a cache; rows that are equal are put into an empty one once.

        Args:
            inputs_embeds (`torch.FloatTensor` of shape `(rows, length, hidden)`)
            attention_mask (`torch.LongTensor` of shape `(rows, length)`, *optional*): 0 = padding.
            image_of_row (`torch.LongTensor` of shape `(rows,)`, *optional*): the image of each row.
            prefill_chunk_size (`int`, *optional*): positions that are put into the cache at a time.
        """
        kwargs["return_dict"] = True
        if image_of_row is not None and self.may_share_rows(
            inputs_embeds, attention_mask, kwargs
        ):
            output = self.run_packed_rows(
                inputs_embeds, attention_mask, image_of_row, **kwargs
            )
            if output is not None:
                return output
        equal_rows = self.equal_rows(inputs_embeds, attention_mask, kwargs)
        if equal_rows > 1:
            return self.run_equal_rows(
                equal_rows, inputs_embeds, attention_mask, prefill_chunk_size, **kwargs
            )
        if prefill_chunk_size is not None:
            return self.run_chunks(
                prefill_chunk_size, inputs_embeds, attention_mask, **kwargs
            )
        return self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs
        )

    def run_packed_rows(
        self,
        inputs_embeds: torch.FloatTensor,
        attention_mask: torch.LongTensor | None,
        image_of_row: torch.LongTensor,
        position_ids: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        past_key_values: None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast | None:
        """[`run_language_model`] with packed rows, or None where rows cannot be packed or that would save nothing."""
        rows, length = inputs_embeds.shape[:2]
        device = inputs_embeds.device
        if attention_mask is None:
            attention_mask = torch.ones(rows, length, dtype=torch.long, device=device)
        if position_ids is None:
            position_ids = torch.arange(length, device=device)
        position_ids = position_ids.expand(rows, length)
        packed = packed_rows(image_of_row, attention_mask, position_ids, inputs_embeds)
        if packed.source.numel() >= rows * length:
            return None
        packed_embeds = packed.pack(inputs_embeds)
        mask = self.packed_attention_mask(packed, packed_embeds, length)
        if mask is None:
            return None
        if use_cache is None:
            # nobody goes on from a step of training
            use_cache = not self.training and self.language_model.config.use_cache
        cache = DynamicCache() if use_cache else None
        output = self.language_model(
            inputs_embeds=packed_embeds,
            attention_mask=mask,
            position_ids=packed.pack(position_ids),
            past_key_values=cache,
            use_cache=use_cache,
            **kwargs,
        )
        if cache is not None:
            packed.unpack_cache(cache)
        return BaseModelOutputWithPast(
            last_hidden_state=packed.unpack(output.last_hidden_state),
            past_key_values=cache,
        )

    def equal_rows(
        self,
        inputs_embeds: torch.FloatTensor,
        attention_mask: torch.LongTensor | None,
        kwargs: dict[str, Any],
    ) -> int:
        """Number of consecutive rows that are equal throughout and can be put into an empty cache as one."""
        cache: Any = kwargs.get("past_key_values")
        if type(cache) is not DynamicCache or cache.get_seq_length():
            return 1
        # a layer of linear attention cannot repeat its rows, an offloaded one moves while it would
        repeats = [hasattr(layer, "batch_repeat_interleave") for layer in cache.layers]
        if cache.offloading or not all(repeats) or self.needs_every_row(kwargs):
            return 1
        aligned = [attention_mask, kwargs.get("position_ids")]
        for values in aligned:
            if values is not None and values.shape != inputs_embeds.shape[:2]:
                return 1
        return rows_alike(inputs_embeds, *aligned)

    def run_equal_rows(
        self,
        count: int,
        inputs_embeds: torch.FloatTensor,
        attention_mask: torch.LongTensor | None,
        prefill_chunk_size: int | None,
        past_key_values: Cache,
        position_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """[`run_language_model`] with the first of every `count` rows, whose results are those of all."""
        output = self.run_language_model(
            inputs_embeds[::count],
            None if attention_mask is None else attention_mask[::count],
            position_ids=None if position_ids is None else position_ids[::count],
            past_key_values=past_key_values,
            prefill_chunk_size=prefill_chunk_size,
            **kwargs,
        )
        past_key_values.batch_repeat_interleave(count)
        states = output.last_hidden_state.repeat_interleave(count, 0)
        return BaseModelOutputWithPast(
            last_hidden_state=states, past_key_values=past_key_values
        )

    def run_chunks(
        self,
        chunk_size: int,
        inputs_embeds: torch.FloatTensor,
        attention_mask: torch.LongTensor | None,
        past_key_values: Cache,
        position_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """[`run_language_model`] with `chunk_size` positions at a time. All hidden states and attentions are those of
        the last chunk, as wherever transformers fills a cache in chunks."""
        length = inputs_embeds.shape[1]
        past = past_key_values.get_seq_length()
        states = []
        for start in range(0, length, chunk_size):
            stop = min(start + chunk_size, length)
            mask = None if attention_mask is None else attention_mask[:, : past + stop]
            positions = None if position_ids is None else position_ids[..., start:stop]
            output = self.language_model(
                inputs_embeds=inputs_embeds[:, start:stop],
                attention_mask=mask,
                position_ids=positions,
                past_key_values=past_key_values,
                **kwargs,
            )
            states.append(output.last_hidden_state)
        output.last_hidden_state = torch.cat(states, 1)
        return output
