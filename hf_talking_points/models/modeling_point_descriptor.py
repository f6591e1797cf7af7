"""Point Descriptor: image + pixel -> text. Talking Points (arXiv 2510.14583), section 3."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import Cache, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation import CandidateGenerator, GenerationMode
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import torch_compilable_check
from transformers.utils.generic import can_return_tuple

from .configuration_talking_points import PointDescriptorConfig
from .modeling_masked_decoder import FeatureLevel, rows_of
from .modeling_talking_points import (
    TalkingPointsModel,
    TalkingPointsPreTrainedModel,
    backbone_channels,
    even_image_of_row,
    number_of_images,
)

SPOT_SIDE = 5  # cells of the finest map that a point is sampled in
DETAIL_STRIDE = 4  # least one of a level: attention to more cells is slow


def kept(states: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
    """The hidden states of the positions that get logits, see [`PointDescriptorForConditionalGeneration`]."""
    if isinstance(logits_to_keep, int) or logits_to_keep.dtype != torch.bool:
        return slice_logits_to_keep(states, logits_to_keep)
    return states[logits_to_keep][None]


@dataclass
class PointDescriptorImageOutput(BaseModelOutputWithPooling):
    """What precedes the language model.

    Args:
        pooler_output (`torch.FloatTensor` of shape `(images, image_seq_length, hidden)`):
            The image tokens; or a list with an entry per image.
        point_embeds (`torch.FloatTensor` of shape `(points, hidden)`, *optional*):
            Point tokens, image after image, padding left out.
        point_features (`torch.FloatTensor` of shape `(points, 2 * hidden_dim)`, *optional*):
            [query; query_pos] before the projection.
        point_mask_logits (list of `torch.FloatTensor` of shape `(points, height, width)`, *optional*):
            Masks predicted before each decoder layer and after the last one; only with `point_mask="predicted"`.
        point_counts (`torch.LongTensor` of shape `(images,)`, *optional*):
            Number of points of each image.
    """

    point_embeds: torch.FloatTensor | None = None
    point_features: torch.FloatTensor | None = None
    point_mask_logits: list[torch.FloatTensor] | None = None
    point_counts: torch.LongTensor | None = None


@dataclass
class PointDescriptorModelOutputWithPast(BaseModelOutputWithPast):
    """`BaseModelOutputWithPast`, and what the image's points gave.

    Args:
        point_embeds (`torch.FloatTensor` of shape `(points, hidden)`, *optional*):
            The point tokens, which the language model reads.
        point_features (`torch.FloatTensor` of shape `(points, 2 * hidden_dim)`, *optional*):
            [query; query_pos] of every point before the projection.
        point_mask_logits (list of `torch.FloatTensor` of shape `(points, height, width)`, *optional*):
            Masks predicted before each decoder layer and after the last one; only with `point_mask="predicted"`.
    """

    point_embeds: torch.FloatTensor | None = None
    point_features: torch.FloatTensor | None = None
    point_mask_logits: list[torch.FloatTensor] | None = None


@dataclass
class PointDescriptorCausalLMOutputWithPast(CausalLMOutputWithPast):
    """`CausalLMOutputWithPast`, and what the image's points gave.

    Args:
        point_features (`torch.FloatTensor` of shape `(points, 2 * hidden_dim)`, *optional*):
            [query; query_pos] of every point before the projection.
        point_mask_logits (list of `torch.FloatTensor` of shape `(points, height, width)`, *optional*):
            Masks predicted before each decoder layer and after the last one; only with `point_mask="predicted"`.
    """

    point_features: torch.FloatTensor | None = None
    point_mask_logits: list[torch.FloatTensor] | None = None


def gaussian_attention_mask(
    points: torch.Tensor, height: int, width: int, sigma: float, threshold: float
) -> torch.Tensor:
    """Cells of one feature level that a point may not attend to (section 3.1 of the paper).

    A cell at distance d is open where exp(-d^2 / 2 sigma^2) >= threshold; the nearest cell always is, since a Gaussian
    narrower than a cell would otherwise block everything.

    Args:
        points (`torch.Tensor` of shape `(batch, points, 2)`): (x, y) on the canvas, in [0, 1].
        height (`int`), width (`int`): cells of the level.
        sigma (`float`): standard deviation in units of the canvas side.
        threshold (`float`): in [0, 1].
    Returns:
        bool `torch.Tensor` of shape `(batch, points, height * width)`, True = blocked (the convention of
        `nn.MultiheadAttention`).
    """
    y = (torch.arange(height, device=points.device) + 0.5) / height
    x = (torch.arange(width, device=points.device) + 0.5) / width
    point_x, point_y = points.float()[..., None, None].unbind(
        2
    )  # (batch, points, 1, 1) each
    distance = (y[:, None] - point_y) ** 2 + (
        x - point_x
    ) ** 2  # (batch, points, height, width)
    distance = distance.flatten(2)
    blocked = torch.exp(-distance / (2 * sigma**2)) < threshold
    nearest = distance.argmin(-1, keepdim=True)
    return blocked.scatter(2, nearest, False)


def spot_samples(feature_map: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The cells of a map around points, between which values are interpolated.

    Args:
        feature_map (`torch.Tensor` of shape `(images, channels, height, width)`)
        points (`torch.Tensor` of shape `(images, points, 2)`): (x, y) on the canvas, in [0, 1].
    Returns:
        float32 `torch.Tensor` of shape `(images, points, channels * SPOT_SIDE**2)`.
    """
    size = torch.tensor(feature_map.shape[:1:-1], device=points.device)  # width, height
    steps = torch.arange(SPOT_SIDE, device=points.device) - SPOT_SIDE // 2
    offsets = torch.cartesian_prod(steps, steps) / size
    places = points[:, :, None] + offsets  # (images, points, samples, 2)
    samples = nn.functional.grid_sample(
        feature_map.float(),
        2 * places.float() - 1,
        padding_mode="border",
        align_corners=False,
    )  # (images, channels, points, samples)
    return samples.transpose(1, 2).flatten(2)


class PointPromptEncoder(nn.Module):
    """A point's content query (learned) and position query (sinusoidal encoding of a small box around it + linear)."""

    def __init__(self, config: PointDescriptorConfig) -> None:
        super().__init__()
        self.dim = config.vision_config.hidden_dim
        self.box = config.point_box_size / config.image_size
        self.prompt_embedding = nn.Embedding(1, self.dim)
        self.position_projection = nn.Linear(2 * self.dim, self.dim)

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            points (`torch.Tensor` of shape `(images, points, 2)`): (x, y) on the canvas, in [0, 1].
        Returns:
            (query, query_pos), each a `torch.Tensor` of shape `(images, points, hidden_dim)`.
        """
        box_sides = torch.full_like(points, self.box)
        box = torch.cat([points.flip(-1), box_sides], -1)  # (y, x, height, width)
        half = self.dim // 2
        frequency = torch.arange(half, device=points.device) // 2
        period = 10000 ** (2 * frequency.float() / half)
        angle = (box.float() * (2 * math.pi))[
            ..., None
        ] / period  # (images, points, 4, half)
        encoding = torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), -1)
        encoding = encoding.flatten(-3)  # (images, points, 4 * half)
        query = rows_of(self.prompt_embedding, 1, points.device)
        query_pos = self.position_projection(encoding.to(query.dtype))
        return query.expand_as(query_pos), query_pos


class PointProjector(nn.Module):
    """[query; query_pos] -> one token of the language model."""

    def __init__(self, config: PointDescriptorConfig) -> None:
        super().__init__()
        hidden = config.text_config.hidden_size
        self.fc1 = nn.Linear(2 * config.vision_config.hidden_dim, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """features (`torch.Tensor` of shape `(points, 2 * hidden_dim)`) -> `(points, hidden)`."""
        return self.fc2(nn.functional.gelu(self.fc1(features)))


def real_points(input_points: torch.Tensor) -> torch.Tensor:
    """input_points (`torch.Tensor` of shape `(images, points, 2)`) -> bool `(images, points)`, False = padding."""
    return ~input_points.isnan().any(-1)


class PointDescriptorModel(TalkingPointsModel):
    config: PointDescriptorConfig

    def __init__(
        self,
        config: PointDescriptorConfig,
        vision_tower: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config, vision_tower, language_model)
        self.point_encoder = PointPromptEncoder(config)
        self.point_projector = PointProjector(config)
        if config.detail_level:
            vision = config.vision_config
            finest_channels = backbone_channels(vision)[0]
            self.detail_projection = nn.Conv2d(finest_channels, vision.hidden_dim, 1)
            samples = finest_channels * SPOT_SIDE**2
            self.spot_projection = nn.Linear(samples, vision.hidden_dim)
        self.post_init()
        self.freeze_unreached()

    def modules_before_language_model(self) -> list[nn.Module]:
        modules = [
            *super().modules_before_language_model(),
            self.point_encoder,
            self.point_projector,
        ]
        if self.config.detail_level:
            modules += [self.detail_projection, self.spot_projection]
        return modules

    def reached_strides(self) -> set[int]:
        strides = super().reached_strides()
        if self.config.detail_level:
            strides.add(self.config.vision_config.feature_strides[0])
        return strides

    @property
    def predicts_masks(self) -> bool:
        return super().predicts_masks or self.config.point_mask == "predicted"

    def get_image_features(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_points: torch.FloatTensor | None = None,
        feature_maps: list[torch.FloatTensor] | None = None,
        **kwargs: Any,
    ) -> PointDescriptorImageOutput:
        """Encodes images, and their points if given, once.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(images, 3, image_size, image_size)`)
            input_points (`torch.FloatTensor` of shape `(images, points, 2)`): (x, y) on the canvas, in [0, 1]; NaN
                rows are padding.
            feature_maps (list of `torch.FloatTensor`): the backbone's maps instead of `pixel_values`.
        """
        maps, decoded, tokens = self.encode_image(pixel_values, feature_maps)
        if input_points is None:
            return PointDescriptorImageOutput(pooler_output=tokens)
        features, mask_logits = self.perceive_points(maps, decoded, input_points)
        real = real_points(input_points)
        features = features[real]  # (points of all images, 2 * hidden_dim)
        return PointDescriptorImageOutput(
            pooler_output=tokens,
            point_embeds=self.point_projector(features),
            point_features=features,
            point_mask_logits=mask_logits,
            point_counts=real.sum(1),
        )

    def blocked_cells(
        self, points: torch.Tensor, size: tuple[int, int], sigma: float
    ) -> torch.Tensor | None:
        """Where points may not attend in a feature level; None where that does not follow from the points.

        Args:
            points (`torch.Tensor` of shape `(images, points, 2)`): (x, y) on the canvas, in [0, 1].
            size (`tuple[int, int]`): height and width of the level.
            sigma (`float`): standard deviation of the Gaussian in units of the canvas side.
        Returns:
            bool `torch.Tensor` of shape `(images * attention heads, points, height * width)`.
        """
        config = self.config
        if config.point_mask != "gaussian":
            return None
        blocked = gaussian_attention_mask(points, *size, sigma, config.mask_threshold)
        return blocked.repeat_interleave(config.vision_config.num_attention_heads, 0)

    def predict_masks(
        self, query: torch.Tensor, decoded: Any, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks of the points as OMG-LLaVA's decoder predicts them.

        Args:
            query (`torch.Tensor` of shape `(points, images, hidden_dim)`)
            decoded: output of the pixel decoder.
            size (`tuple[int, int]`): of the level that is attended next.
        Returns:
            (logits of shape `(images, points, mask height, mask width)`, bool `torch.Tensor` of shape
            `(images * attention heads, points, height * width)`, True = blocked).
        """
        decoder = self.vision_tower.transformer_module.decoder
        states = decoder.layernorm(query)
        logits, blocked = decoder.mask_predictor(states, decoded.mask_features, size)
        nothing_open = blocked.all(-1, keepdim=True)
        return logits, blocked & ~nothing_open  # nothing predicted: look everywhere

    def point_levels(
        self, feature_maps: list[torch.FloatTensor], decoded: Any
    ) -> list[FeatureLevel]:
        """The maps that decoder layers attend to in turn around points; arguments as of [`perceive_points`]."""
        levels = self.feature_levels(decoded)
        if self.config.detail_level:
            finest = feature_maps[0]
            factor = DETAIL_STRIDE // self.config.vision_config.feature_strides[0]
            if factor > 1:
                finest = nn.functional.avg_pool2d(finest, factor, ceil_mode=True)
            levels.append(self.feature_level(self.detail_projection(finest)))
        return levels

    def perceive_points(
        self,
        feature_maps: list[torch.FloatTensor],
        decoded: Any,
        input_points: torch.FloatTensor,
    ) -> tuple[torch.FloatTensor, list[torch.FloatTensor] | None]:
        """Decoder layers over the points. Points of one image share its keys and values and do not see each other.

        Args:
            feature_maps (list of `torch.FloatTensor`): of the backbone, finest first.
            decoded: output of the pixel decoder.
            input_points (`torch.FloatTensor` of shape `(images, points, 2)`): (x, y) on the canvas, in [0, 1]; NaN
                rows are padding.
        Returns:
            ([query; query_pos] of shape `(images, points, 2 * hidden_dim)`, `point_mask_logits` as in
            [`PointDescriptorImageOutput`] or None).
        """
        points = input_points.float().nan_to_num(
            0.5
        )  # half precision would move a point by pixels
        query, query_pos = self.point_encoder(points)
        if self.config.detail_level:
            samples = spot_samples(feature_maps[0], points)
            query = query + self.spot_projection(samples.to(query.dtype))
        query = query.transpose(0, 1)  # (points, images, hidden_dim)
        query_pos = query_pos.transpose(0, 1)
        levels = self.point_levels(feature_maps, decoded)
        sigmas = [self.config.mask_sigma] * len(levels)
        if self.config.detail_level:
            sigmas[-1] = self.config.detail_sigma
        blocked_of_levels = [
            self.blocked_cells(points, level.size, sigma)
            for level, sigma in zip(levels, sigmas)
        ]
        predicts = self.config.point_mask == "predicted"
        mask_logits = []
        for index, layer in enumerate(
            self.vision_tower.transformer_module.decoder.layers
        ):
            level = levels[index % len(levels)]
            blocked = blocked_of_levels[index % len(levels)]
            if predicts:
                logits, blocked = self.predict_masks(query, decoded, level.size)
                mask_logits.append(logits)
            query = layer(
                query, query_pos, level.keys, level.positions, blocked, apart=True
            )
        features = torch.cat([query, query_pos], -1).transpose(0, 1)
        if not predicts:
            return features, None
        last_logits, _ = self.predict_masks(query, decoded, levels[0].size)
        real = real_points(input_points)
        return features, [logits[real] for logits in [*mask_logits, last_logits]]

    def image_of_row(
        self, image: PointDescriptorImageOutput, regions: torch.Tensor
    ) -> torch.LongTensor:
        """The image of each row: every image has as many consecutive rows, unless the points tell otherwise.

        Args:
            image ([`PointDescriptorImageOutput`])
            regions (bool `torch.Tensor` of shape `(rows, length)`): marks the region placeholders.
        Returns:
            `torch.LongTensor` of shape `(rows,)`.
        Raises:
            ValueError: the rows cannot be shared evenly, and nobody knows whose points they have.
        """
        rows, images = regions.shape[0], number_of_images(image.pooler_output)
        counts = image.point_counts
        if counts is None or counts.shape[0] != images:
            return even_image_of_row(rows, images, regions.device)
        counts = counts.to(regions.device)
        points_of_row = regions.sum(1)
        evenly = torch.arange(rows, device=regions.device) * images // rows
        evenly_counted = torch.zeros_like(counts).scatter_add(0, evenly, points_of_row)
        last_point = (points_of_row.cumsum(0) - 1).clamp(min=0)
        by_points = torch.searchsorted(counts.cumsum(0), last_point, right=True)
        by_points = by_points.clamp(max=images - 1)
        return torch.where((evenly_counted == counts).all(), evenly, by_points)

    def embed_points(
        self,
        inputs_embeds: torch.FloatTensor,
        regions: torch.Tensor,
        image: PointDescriptorImageOutput,
    ) -> torch.FloatTensor:
        """Puts point tokens at the region placeholders.

        Args:
            inputs_embeds (`torch.FloatTensor` of shape `(rows, length, hidden)`)
            regions (bool `torch.Tensor` of shape `(rows, length)`): marks the region placeholders.
            image ([`PointDescriptorImageOutput`])
        Raises:
            ValueError: numbers of placeholders and points differ.
        """
        if image.point_embeds is not None:
            return self.scatter(inputs_embeds, regions, image.point_embeds, "region")
        torch_compilable_check(
            ~regions.any(),
            "the text has region placeholders but no points were given: pass input_points",
        )
        return inputs_embeds

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        input_points: torch.FloatTensor | None = None,
        feature_maps: list[torch.FloatTensor] | None = None,
        attention_mask: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict[str, PointDescriptorImageOutput] | None = None,
        **kwargs: Any,
    ) -> PointDescriptorModelOutputWithPast:
        """Arguments as in [`PointDescriptorForConditionalGeneration`]."""
        embeds = self.embed_text(input_ids, inputs_embeds)
        image = (mm_encoder_outputs or {}).get("image")
        if image is None and (pixel_values is not None or feature_maps is not None):
            image = self.get_image_features(pixel_values, input_points, feature_maps)
        image_of_row = None
        if image is not None:
            config = self.config
            regions = self.placeholders(config.region_token_id, input_ids, embeds)
            images = self.placeholders(config.image_token_id, input_ids, embeds)
            image_of_row = self.image_of_row(image, regions)
            embeds = self.scatter_images(
                embeds, images, image.pooler_output, image_of_row
            )
            embeds = self.embed_points(embeds, regions, image)
            if not self.gradients_may_be_shared(inputs_embeds):
                image_of_row = None
        output = self.run_language_model(
            embeds,
            attention_mask,
            image_of_row,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return PointDescriptorModelOutputWithPast(
            last_hidden_state=kept(output.last_hidden_state, logits_to_keep),
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            point_embeds=None if image is None else image.point_embeds,
            point_features=None if image is None else image.point_features,
            point_mask_logits=None if image is None else image.point_mask_logits,
        )


class PointDescriptorForConditionalGeneration(
    TalkingPointsPreTrainedModel, GenerationMixin
):
    """Describes points: `generate(**processor(images, text, points))`.

    Rows of text that belong to one image stand together; `pixel_values` holds each image once, `input_points` its
    points, and the region placeholders of the rows take them in order."""

    config: PointDescriptorConfig
    # the embeddings' name depends on the language model
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(
        self,
        config: PointDescriptorConfig,
        vision_tower: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        head = None
        if language_model is not None:
            head = language_model.get_output_embeddings()
            language_model = language_model.base_model
        self.model = PointDescriptorModel(config, vision_tower, language_model)
        if head is None:
            text = config.text_config
            head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.lm_head = head
        embeddings = self.get_input_embeddings()
        for name, module in self.named_modules():
            if module is embeddings:
                self._tied_weights_keys = {"lm_head.weight": f"{name}.weight"}
        self.post_init()
        self.freeze_unreached()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def get_image_features(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_points: torch.FloatTensor | None = None,
        feature_maps: list[torch.FloatTensor] | None = None,
        **kwargs: Any,
    ) -> PointDescriptorImageOutput:
        """Encodes images, and their points if given, once. Arguments as in [`PointDescriptorModel`]."""
        return self.model.get_image_features(
            pixel_values, input_points, feature_maps, **kwargs
        )

    def _prepare_multimodal_encoder_kwargs_for_generation(
        self, model_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        # the inherited one drops these in silence when there are no pixel_values
        names = ("input_points", "feature_maps")
        given = [name for name in names if model_kwargs.get(name) is not None]
        if given and model_kwargs.get("pixel_values") is None:
            raise ValueError(
                f"generate() takes {given} only with pixel_values: "
                f"encode with get_image_features and pass mm_encoder_outputs alone"
            )
        return super()._prepare_multimodal_encoder_kwargs_for_generation(model_kwargs)

    def _expand_multimodal_outputs(
        self,
        input_ids: torch.LongTensor,
        mm_encoder_output: dict[str, Any],
        expand_size: int = 1,
        inputs_embeds: torch.FloatTensor | None = None,
    ) -> dict[str, Any]:
        image = mm_encoder_output.get("image")
        if image is None or image.point_embeds is None:
            return mm_encoder_output  # every image has as many rows, of any number
        has_ids = input_ids is not None and input_ids.shape[1] > 0
        regions = self.model.placeholders(
            self.config.region_token_id, input_ids if has_ids else None, inputs_embeds
        )
        counts = regions.sum(1).tolist()
        if sum(counts) != len(image.point_embeds):
            raise ValueError(
                f"the text has {sum(counts)} region placeholders "
                f"but there are {len(image.point_embeds)} region features"
            )
        points_of_rows = image.point_embeds.split(counts)
        expanded_points = []
        for points in points_of_rows:
            expanded_points += [points] * expand_size
        # a copy: the caller may use what was given again
        image = replace(image, point_embeds=torch.cat(expanded_points))
        if image.point_counts is not None:
            image.point_counts = image.point_counts * expand_size
        return {**mm_encoder_output, "image": image}

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if inputs_embeds is not None and kwargs.get("is_first_iteration"):
            # what assisted decoding drafts stands behind the ids alone
            drafted = self.get_input_embeddings()(
                input_ids[:, inputs_embeds.shape[1] :]
            )
            inputs_embeds = torch.cat([inputs_embeds, drafted], 1)
        model_inputs = super().prepare_inputs_for_generation(
            input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        if kwargs.get("prefill_chunk_size") is not None:
            # every chunk makes its own mask of all pairs of positions
            model_inputs["attention_mask"] = attention_mask
        return model_inputs

    def _prefill(
        self,
        input_ids: torch.LongTensor,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> Any:
        chunk_size = generation_config.prefill_chunk_size
        if chunk_size is not None:
            if model_kwargs.get("past_key_values") is None:
                raise ValueError("prefill_chunk_size needs a cache: leave use_cache on")
            # images and points are put in place before the text is cut into chunks
            generation_config = copy.copy(generation_config)
            generation_config.prefill_chunk_size = None
            model_kwargs = {**model_kwargs, "prefill_chunk_size": chunk_size}
        return super()._prefill(
            input_ids, generation_config, model_kwargs, is_first_iteration
        )

    def _validate_generation_mode(
        self,
        generation_mode: GenerationMode,
        generation_config: GenerationConfig,
        generation_mode_kwargs: dict[str, Any],
    ) -> None:
        super()._validate_generation_mode(
            generation_mode, generation_config, generation_mode_kwargs
        )
        if generation_config.token_healing:
            raise ValueError(
                "token_healing writes the prompt anew without its special tokens, "
                "and the image and its points with them: leave it out"
            )
        if generation_config.assistant_early_exit is not None:
            raise ValueError(
                "assistant_early_exit needs a language model that stands alone: "
                "leave it out, or give an assistant_model"
            )

    def _get_candidate_generator(self, **kwargs: Any) -> CandidateGenerator:
        if kwargs["assistant_model"] is not None and not kwargs["input_ids"].shape[1]:
            raise ValueError(
                "an assistant_model reads the prompt's input_ids: "
                "give them beside inputs_embeds"
            )
        return super()._get_candidate_generator(**kwargs)

    def generate_batch(self, inputs: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        """[`~GenerationMixin.generate_batch`] of texts without images.

        Raises:
            ValueError: a text has an image or a point, which continuous batching does not pass on.
        """
        placeholders = {self.config.image_token_id, self.config.region_token_id}
        for index, input_ids in enumerate(inputs):
            if placeholders.intersection(input_ids):
                raise ValueError(
                    f"text {index} has placeholders of an image or a point, but continuous batching "
                    f"(also cache_implementation='paged') takes token ids alone: use generate()"
                )
        return super().generate_batch(inputs, *args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        input_points: torch.FloatTensor | None = None,
        feature_maps: list[torch.FloatTensor] | None = None,
        attention_mask: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict[str, PointDescriptorImageOutput] | None = None,
        **kwargs: Any,
    ) -> PointDescriptorCausalLMOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(rows, length)`)
            pixel_values (`torch.FloatTensor` of shape `(images, 3, image_size, image_size)`): rows must be a multiple
                of images.
            input_points (`torch.FloatTensor` of shape `(images, points, 2)`): (x, y) on the canvas, in [0, 1]; NaN
                rows are padding.
            feature_maps (list of `torch.FloatTensor`): the backbone's maps instead of `pixel_values`.
            attention_mask (`torch.LongTensor` of shape `(rows, length)`): 0 = padding.
            position_ids (`torch.LongTensor` of shape `(rows, length)`)
            past_key_values (`Cache`)
            inputs_embeds (`torch.FloatTensor` of shape `(rows, length, hidden)`): in the place of the embeddings of
                `input_ids`; without ids, placeholders are found by their own embeddings.
            labels (`torch.LongTensor` of shape `(rows, length)`): -100 where no loss is taken.
            logits_to_keep (`int` or `torch.Tensor`): number of last positions, or the positions, that get logits; 0
                means all. Of a bool mask of shape `(rows, length)` the positions become one row.
            mm_encoder_outputs (`dict`): {"image": output of `get_image_features`} instead of images and points.
        """
        output = self.model(
            return_dict=True,
            input_ids=input_ids,
            pixel_values=pixel_values,
            input_points=input_points,
            feature_maps=feature_maps,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            logits_to_keep=logits_to_keep,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        logits = self.lm_head(
            output.last_hidden_state
        )  # (rows, positions kept, vocabulary)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                **kwargs,
            )
        return PointDescriptorCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            point_features=output.point_features,
            point_mask_logits=output.point_mask_logits,
        )


__all__ = ["PointDescriptorForConditionalGeneration", "PointDescriptorModel"]
