"""Point Localizer: image + text -> pixel, in one forward pass. Talking Points (arXiv 2510.14583), section 3.2."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput, is_tracing, torch_compilable_check
from transformers.utils.generic import can_return_tuple

from .configuration_talking_points import PointLocalizerConfig
from .modeling_fusion import TextMapFusion
from .modeling_masked_decoder import rows_of
from .modeling_talking_points import (
    TalkingPointsModel,
    TalkingPointsPreTrainedModel,
    backbone_channels,
    even_image_of_row,
    number_of_images,
    resized,
)

TEXTS_AT_ONCE = 16


@dataclass
class PointLocalizerImageOutput(ModelOutput):
    """Encoded images.

    Args:
        pooler_output (`torch.FloatTensor` of shape `(images, image_seq_length, hidden)`):
            The image tokens; of length 0 without `token_strides`.
        cell_keys (`torch.FloatTensor` of shape `(images, height * width, head_dim)`, *optional*):
            What the heat map is scored against; None for "mlp".
    """

    pooler_output: torch.FloatTensor
    cell_keys: torch.FloatTensor | None = None


@dataclass
class PointLocalizerOutput(ModelOutput):
    """Where texts point to.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `target_points` are given):
            Mean squared error of the regressed points; for "heatmap" the cross-entropy of the map is added.
        points (`torch.FloatTensor` of shape `(rows, 2)`):
            (x, y) on the canvas, in [0, 1].
        confidence (`torch.FloatTensor` of shape `(rows,)`, *optional*):
            Share of the heat map around its peak, or with `calibrated_confidence` the probability that the right point
            is within 0.1 of the image's sides; in [0, 1]. None for "mlp".
        heatmaps (`torch.FloatTensor` of shape `(rows, height, width)`, *optional*):
            Probabilities that sum to 1; None for "mlp".
        regressed_points (`torch.FloatTensor` of shape `(rows, 2)`):
            The regression, which is `points` for "mlp".
        hidden_states (`tuple` of `torch.FloatTensor` of shape `(rows, length, hidden)`, *optional*):
            Of the language model's layers; with `output_hidden_states`.
        attentions (`tuple` of `torch.FloatTensor` of shape `(rows, attention heads, length, length)`, *optional*):
            Of the language model's layers; with `output_attentions`.
    """

    loss: torch.FloatTensor | None = None
    points: torch.FloatTensor = None
    confidence: torch.FloatTensor | None = None
    heatmaps: torch.FloatTensor | None = None
    regressed_points: torch.FloatTensor = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


def squared_distances(points: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """points (`torch.Tensor` of shape `(rows, 2)`) -> squared distances on the canvas to the centers of the cells,
    `(rows, height, width)`."""
    y = (torch.arange(height, device=points.device) + 0.5) / height
    x = (torch.arange(width, device=points.device) + 0.5) / width
    point_x, point_y = points[:, :, None, None].unbind(1)  # (rows, 1, 1) each
    return (y[:, None] - point_y) ** 2 + (x - point_x) ** 2


class MapKeys(nn.Module):
    """Backbone maps fused at the finest stride: the high-resolution side of the heat-map head."""

    def __init__(self, config: PointLocalizerConfig) -> None:
        super().__init__()
        vision = config.vision_config
        dim = config.head_dim
        self.projections = nn.ModuleList()
        for channels in backbone_channels(vision):
            projection = nn.Conv2d(channels, dim, 1)
            self.projections.append(nn.Sequential(projection, nn.GroupNorm(8, dim)))
        self.mix = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, groups=8),
            nn.GELU(),
            nn.Conv2d(dim, dim, 1),
        )
        finest_stride = vision.feature_strides[-len(self.projections)]
        self.side = config.image_size // finest_stride
        self.position_embedding = nn.Embedding(self.side**2, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, *feature_maps: torch.Tensor) -> torch.Tensor:
        """-> `(images, side^2, head_dim)`."""
        size = feature_maps[0].shape[-2:]
        fused = sum(
            resized(project(level), size)
            for project, level in zip(self.projections, feature_maps)
        )
        fused = fused + self.mix(fused)  # (images, head_dim, side, side)
        cells = fused.flatten(2).transpose(1, 2)
        positions = rows_of(self.position_embedding, self.side**2, cells.device)
        return self.norm(cells + positions)


class HeatmapHead(nn.Module):
    """Scores every cell against the text, with a Gaussian prior of learned width at the regressed point.

    Args:
        dim (`int`): width of vector, keys and cells.
        scores_cells (`bool`): whether there are coarse cells that have seen the text, which are scored too.
    """

    def __init__(self, dim: int, scores_cells: bool = False) -> None:
        super().__init__()
        self.query_projection = nn.Linear(dim, dim)
        self.log_prior_width = nn.Parameter(torch.tensor([-1.6]))
        if scores_cells:
            self.cell_query_projection = nn.Linear(dim, dim)
            self.cell_projection = nn.Linear(dim, dim)
            self.cell_bias = nn.Linear(dim, 1)

    def forward(
        self,
        vector: torch.Tensor,
        regressed: torch.Tensor,
        keys: torch.Tensor,
        cells: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            vector (`torch.Tensor` of shape `(rows, head_dim)`): of each text; as many rows for every image.
            regressed (`torch.Tensor` of shape `(rows, 2)`): (x, y) on the canvas.
            keys (`torch.Tensor` of shape `(images, side^2, head_dim)`)
            cells (`torch.Tensor` of shape `(rows, coarse_side^2, head_dim)`, *optional*)
        Returns:
            `torch.Tensor` of shape `(rows, side, side)`: logits.
        """
        images, key_count, dim = keys.shape
        side = math.isqrt(key_count)
        query = self.query_projection(vector).view(images, -1, dim)
        scores = (
            query @ keys.transpose(1, 2)
        ).float()  # (images, rows of an image, key_count)
        scores = scores.view(-1, side, side) / dim**0.5
        if cells is not None:
            scores = scores + self.coarse_scores(vector, cells, side)
        doubled_variance = 2 * torch.exp(2 * self.log_prior_width.float())
        return scores - squared_distances(regressed, side, side) / doubled_variance

    def coarse_scores(
        self, vector: torch.Tensor, cells: torch.Tensor, side: int
    ) -> torch.Tensor:
        """The scores of coarse cells at the resolution of the map, `(rows, side, side)`."""
        query = self.cell_query_projection(vector)[:, None]
        scores = query @ self.cell_projection(cells).transpose(1, 2)
        scores = scores[:, 0] / vector.shape[1] ** 0.5 + self.cell_bias(cells)[..., 0]
        coarse_side = math.isqrt(scores.shape[1])
        coarse = scores.float().unflatten(1, (1, coarse_side, coarse_side))
        return resized(coarse, (side, side))[:, 0]


class ConfidenceHead(nn.Module):
    """The probability that the right point is within 0.1, from what the text says and how the map is spread."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim + 1, 1)

    def forward(self, vector: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """
        Args:
            vector (`torch.Tensor` of shape `(rows, head_dim)`): of each text.
            share (`torch.Tensor` of shape `(rows,)`): of the heat map around its peak.
        Returns:
            `torch.Tensor` of shape `(rows,)`.
        """
        spread = share.logit(eps=1e-4)[:, None].to(vector)
        return self.linear(torch.cat([vector, spread], 1)).float().sigmoid()[:, 0]


class StateNorm(nn.Module):
    """Standardizes states by running statistics, in training too, so that a batch may be a single row.

    The statistics follow the training batches, all processes' rows together, and give no gradient.

    Args:
        dim (`int`): width of the states.
        momentum (`float`): share of a batch in the running statistics; the first batches have more, as in an average.
        eps (`float`): added to the variance.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    @torch.no_grad()
    def update(self, states: torch.Tensor) -> None:
        """Takes the rows of a batch into the running statistics."""
        deviations = states.float() - self.running_mean
        rows = deviations.new_full((1, states.shape[1]), len(states))
        sums = torch.cat(
            [rows, deviations.sum(0)[None], deviations.pow(2).sum(0)[None]]
        )
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        mean = sums[1] / sums[0]  # of the deviations
        variance = sums[2] / sums[0] - mean**2
        batches = self.num_batches_tracked
        share = (1 / (batches + 1)).clamp(min=self.momentum)
        # the variance that it begins with counts as a batch: a single row has none
        variance_share = (1 / (batches + 2)).clamp(min=self.momentum)
        spread = variance + (1 - share) * mean**2
        self.running_var.lerp_(spread.to(self.running_var), variance_share)
        self.running_mean.add_(share * mean)
        batches.add_(1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """states (`torch.Tensor` of shape `(rows, dim)`) -> the same with mean 0 and variance 1 in each column."""
        if self.training:
            self.update(states)
        scale = (self.running_var.float() + self.eps).rsqrt()
        standardized = (states.float() - self.running_mean) * scale
        return standardized.to(states.dtype)


class WithOneDimension(ConversionOps):
    """Gives a parameter without dimensions, as older checkpoints store it, the one that FSDP needs."""

    def convert(
        self,
        input_dict: dict[str, list[torch.Tensor]],
        source_patterns: list[str],
        target_patterns: list[str],
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        (tensor,) = input_dict[source_patterns[0]]
        return {target_patterns[0]: tensor.reshape(1)}

    @property
    def reverse_op(self) -> ConversionOps:
        return self


PRIOR_WIDTH = "heatmap_head.log_prior_width"
register_checkpoint_conversion_mapping(
    PointLocalizerConfig.model_type,
    [WeightConverter(PRIOR_WIDTH, PRIOR_WIDTH, [WithOneDimension()])],
    overwrite=True,
)


class PointLocalizerModel(TalkingPointsModel):
    config: PointLocalizerConfig

    def __init__(
        self,
        config: PointLocalizerConfig,
        vision_tower: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config, vision_tower, language_model)
        if config.head == "heatmap":
            self.map_keys = MapKeys(config)
        self.post_init()
        self.freeze_unreached()

    @property
    def reads_pixel_decoder(self) -> bool:
        return self.config.use_perception_prior

    def unreached_modules(self) -> list[nn.Module]:
        if self.reads_pixel_decoder:
            return super().unreached_modules()
        return [self.pixel_decoder, self.vision_tower.transformer_module]

    def reached_strides(self) -> set[int]:
        if self.config.head == "heatmap":
            return set(self.config.vision_config.feature_strides)
        if self.config.use_perception_prior:
            return super().reached_strides()
        return set(self.config.token_strides)

    def get_image_features(
        self,
        pixel_values: torch.FloatTensor | None = None,
        feature_maps: list[torch.FloatTensor] | None = None,
        **kwargs: Any,
    ) -> PointLocalizerImageOutput:
        """Encodes images once, however many texts are located in them.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(images, 3, image_size, image_size)`)
            feature_maps (list of `torch.FloatTensor`): the backbone's maps instead of `pixel_values`.
        """
        maps, _, tokens = self.encode_image(pixel_values, feature_maps)
        keys = None
        if self.config.head == "heatmap":
            keys = self.checkpointed(self.map_keys, self.map_keys, *maps)
        return PointLocalizerImageOutput(pooler_output=tokens, cell_keys=keys)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        feature_maps: list[torch.FloatTensor] | None = None,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        image_index: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, PointLocalizerImageOutput] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Arguments as in [`PointLocalizerForKeypointDetection`]."""
        image = (mm_encoder_outputs or {}).get("image")
        if image is None:
            image = self.get_image_features(pixel_values, feature_maps)
        embeds = self.embed_text(input_ids, inputs_embeds)
        rows, images = embeds.shape[0], number_of_images(image.pooler_output)
        image_of_row = image_index
        if image_of_row is None:
            image_of_row = even_image_of_row(rows, images, embeds.device)
        torch_compilable_check(
            image_of_row.shape[0] == rows,
            lambda: (
                f"image_index names the images of {image_of_row.shape[0]} rows, but there are {rows} rows of text"
            ),
        )
        if self.config.token_strides:
            where = self.placeholders(self.config.image_token_id, input_ids, embeds)
            embeds = self.scatter_images(
                embeds, where, image.pooler_output, image_of_row
            )
        kwargs["use_cache"] = False
        if not self.config.token_strides:
            return self.run_texts(embeds, attention_mask, **kwargs)
        if not self.gradients_may_be_shared(inputs_embeds):
            image_of_row = None
        return self.run_language_model(embeds, attention_mask, image_of_row, **kwargs)

    def run_texts(
        self,
        inputs_embeds: torch.FloatTensor,
        attention_mask: torch.LongTensor | None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Runs the language model on texts without an image, some of like length at a time, so that short ones need
        not be as long as the longest.

        Args:
            inputs_embeds (`torch.FloatTensor` of shape `(rows, length, hidden)`)
            attention_mask (`torch.LongTensor` of shape `(rows, length)`, *optional*): 0 = padding.
        Returns:
            with states that are 0 at the padding.
        """
        rows = len(inputs_embeds)
        is_whole = rows <= TEXTS_AT_ONCE or self.needs_every_row(kwargs)
        # further inputs, such as token types, are as long as the longest text
        is_whole = is_whole or any(map(torch.is_tensor, kwargs.values()))
        # padding on the left would move the texts
        if is_whole or attention_mask is None or not attention_mask[:, 0].all():
            return self.run_language_model(inputs_embeds, attention_mask, **kwargs)
        lengths = attention_mask.sum(1)
        order = lengths.argsort()
        states = []
        for chosen in order.split(TEXTS_AT_ONCE):
            longest = int(lengths[chosen].max())
            output = self.run_language_model(
                inputs_embeds[chosen, :longest],
                attention_mask[chosen, :longest],
                **kwargs,
            )
            missing = inputs_embeds.shape[1] - longest
            padding = [0, 0, 0, missing]
            states.append(nn.functional.pad(output.last_hidden_state, padding))
        return BaseModelOutputWithPast(
            last_hidden_state=torch.cat(states)[order.argsort()]
        )


class PointLocalizerForKeypointDetection(TalkingPointsPreTrainedModel):
    """Finds the pixel that a text describes.

    Rows of text that belong to one image stand together, `pixel_values` holds each image once; the image is encoded
    once and the rows share the prompt's prefix."""

    config: PointLocalizerConfig

    def __init__(
        self,
        config: PointLocalizerConfig,
        vision_tower: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        if language_model is not None:
            language_model = language_model.base_model  # a localizer writes no text
        self.model = PointLocalizerModel(config, vision_tower, language_model)
        hidden = config.text_config.hidden_size
        dim = config.head_dim
        if config.standardize_states:
            self.state_norm = StateNorm(hidden)
        if config.fusion_layers:
            self.fusion = TextMapFusion(config)
            hidden = dim
        self.text_to_vision = nn.Sequential(
            nn.Linear(hidden, dim),
            nn.GELU(),
            nn.Linear(dim, dim),
        )
        self.point_head = nn.Sequential(
            nn.GELU(),
            nn.Linear(dim, dim),
            nn.GELU(),
            nn.Linear(dim, 2),
        )
        if config.head == "heatmap":
            self.heatmap_head = HeatmapHead(dim, bool(config.fusion_layers))
        if config.calibrated_confidence:
            self.confidence_head = ConfidenceHead(dim)
        self.post_init()
        self.freeze_unreached()

    def get_image_features(
        self,
        pixel_values: torch.FloatTensor | None = None,
        feature_maps: list[torch.FloatTensor] | None = None,
        **kwargs: Any,
    ) -> PointLocalizerImageOutput:
        """Encodes images once, however many texts are located in them. Arguments as in [`PointLocalizerModel`]."""
        return self.model.get_image_features(pixel_values, feature_maps, **kwargs)

    def freeze_unreached(self) -> None:
        super().freeze_unreached()
        if self.config.calibrated_confidence:
            self.confidence_head.requires_grad_(False)  # fitted afterwards

    def segment_states(
        self, states: torch.FloatTensor, segment: torch.Tensor
    ) -> torch.FloatTensor:
        """The last hidden states of `<SEG>`.

        Args:
            states (`torch.FloatTensor` of shape `(rows, length, hidden)`): the last hidden states.
            segment (bool `torch.Tensor` of shape `(rows, length)`): marks `<SEG>`.
        Returns:
            `torch.FloatTensor` of shape `(rows, hidden)`.
        Raises:
            ValueError: a row has no `<SEG>`, or more than one.
        """
        segments_per_row = segment.sum(1)
        torch_compilable_check(
            (segments_per_row == 1).all(),
            lambda: (
                f"every row needs exactly one <SEG> token (id {self.config.seg_token_id}), "
                f"got {segments_per_row.tolist()}"
            ),
        )
        position = segment.long().argmax(1)
        return states[torch.arange(states.shape[0], device=states.device), position]

    def coarse_cells(
        self,
        cell_keys: torch.FloatTensor,
        image_index: torch.LongTensor | None,
        rows: int,
    ) -> torch.FloatTensor:
        """What the fusion layers look at: the cells of each row's image, two by two averaged.

        Args:
            cell_keys (`torch.FloatTensor` of shape `(images, side^2, head_dim)`)
            image_index (`torch.LongTensor` of shape `(rows,)`, *optional*): the image of each row.
            rows (`int`): of text.
        Returns:
            `torch.FloatTensor` of shape `(rows, (side / 2)^2, head_dim)`.
        """
        if image_index is None:
            image_index = even_image_of_row(rows, len(cell_keys), cell_keys.device)
        side = math.isqrt(cell_keys.shape[1])
        maps = cell_keys.transpose(1, 2).unflatten(2, (side, side))
        pooled = nn.functional.avg_pool2d(maps, 2)
        return pooled.flatten(2).transpose(1, 2)[image_index]

    def cell_keys_of_rows(
        self,
        cell_keys: torch.FloatTensor | None,
        image_index: torch.LongTensor | None,
    ) -> torch.FloatTensor | None:
        """The keys of the heat map where every image has as many consecutive rows, else one entry for each row."""
        if cell_keys is None or image_index is None:
            return cell_keys
        rows, images = image_index.shape[0], cell_keys.shape[0]
        if not is_tracing() and rows % images == 0:
            evenly = even_image_of_row(rows, images, image_index.device)
            if torch.equal(image_index, evenly):
                return cell_keys
        return cell_keys[image_index]

    def point_loss(
        self,
        target_points: torch.FloatTensor,
        regressed: torch.FloatTensor,
        logits: torch.FloatTensor | None,
    ) -> torch.FloatTensor:
        """
        Args:
            target_points (`torch.FloatTensor` of shape `(rows, 2)`): true (x, y) on the canvas; NaN in rows that give
                no loss.
            regressed (`torch.FloatTensor` of shape `(rows, 2)`)
            logits (`torch.FloatTensor` of shape `(rows, height, width)`): of the heat map; None for "mlp".
        """
        has_place = ~target_points.isnan().any(1)
        share = has_place / has_place.sum().clamp(min=1)  # of each row in the mean
        target_points = target_points.float().nan_to_num()
        squared_error = (regressed - target_points).pow(2).mean(1)
        if logits is None:
            return (share * squared_error).sum()
        distances = squared_distances(target_points, *logits.shape[1:])
        target = torch.exp(-distances / (2 * self.config.heatmap_sigma**2)).flatten(1)
        target = target / target.sum(1, keepdim=True)
        cross_entropy = nn.functional.cross_entropy(
            logits.flatten(1), target, reduction="none"
        )
        losses = cross_entropy + self.config.point_loss_weight * squared_error
        return (share * losses).sum()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        feature_maps: list[torch.FloatTensor] | None = None,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        image_index: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, PointLocalizerImageOutput] | None = None,
        target_points: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> PointLocalizerOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(rows, length)`): each row with exactly one `<SEG>`.
            pixel_values (`torch.FloatTensor` of shape `(images, 3, image_size, image_size)`)
            feature_maps (list of `torch.FloatTensor`): the backbone's maps instead of `pixel_values`.
            attention_mask (`torch.LongTensor` of shape `(rows, length)`): 0 = padding.
            inputs_embeds (`torch.FloatTensor` of shape `(rows, length, hidden)`): in the place of the embeddings of
                `input_ids`; without ids, placeholders and `<SEG>` are found by their own embeddings.
            image_index (`torch.LongTensor` of shape `(rows,)`): the image of each row. Without it every image has as
                many consecutive rows.
            mm_encoder_outputs (`dict`): {"image": output of `get_image_features`} instead of images.
            target_points (`torch.FloatTensor` of shape `(rows, 2)`): true (x, y) on the canvas; gives the loss. NaN in
                rows of texts that fit nothing, which are left out of it.
        """
        image = (mm_encoder_outputs or {}).get("image")
        if image is None:
            image = self.get_image_features(pixel_values, feature_maps)
        output = self.model(
            return_dict=True,
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            image_index=image_index,
            mm_encoder_outputs={"image": image},
            **kwargs,
        )
        segment = self.model.placeholders(
            self.config.seg_token_id, input_ids, inputs_embeds
        )
        states = output.last_hidden_state
        cells = None
        if self.config.fusion_layers:
            cells = self.coarse_cells(image.cell_keys, image_index, len(states))
            states, cells = self.fusion(states, attention_mask, cells)
        states = self.segment_states(states, segment)
        if self.config.standardize_states:
            states = self.state_norm(states)
        vector = self.text_to_vision(states)  # (rows, head_dim)
        regressed = self.point_head(vector).float().sigmoid()  # (rows, 2)
        points, confidence, heatmaps, logits = regressed, None, None, None
        if self.config.head == "heatmap":
            keys = self.cell_keys_of_rows(image.cell_keys, image_index)
            logits = self.heatmap_head(
                vector, regressed, keys, cells
            )  # (rows, height, width)
            heatmaps = logits.flatten(1).softmax(-1).view_as(logits)
            points, confidence = local_soft_argmax(heatmaps, self.config.heatmap_window)
            if self.config.calibrated_confidence:
                confidence = self.confidence_head(vector, confidence.detach())
        loss = None
        if target_points is not None:
            loss = self.point_loss(target_points, regressed, logits)
        return PointLocalizerOutput(
            loss=loss,
            points=points,
            confidence=confidence,
            heatmaps=heatmaps,
            regressed_points=regressed,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


def local_soft_argmax(
    heatmaps: torch.FloatTensor, window: float
) -> tuple[torch.FloatTensor, torch.FloatTensor]:
    """Center of mass around the peak, and the share of the map there.

    Args:
        heatmaps (`torch.FloatTensor` of shape `(rows, height, width)`): probabilities.
        window (`float`): standard deviation in cells of the Gaussian window around the peak.
    Returns:
        points (`(rows, 2)`, canvas units) and confidence (`(rows,)`, in [0, 1]).
    """
    rows, height, width = heatmaps.shape
    peak = heatmaps.flatten(1).argmax(1)[:, None, None]  # (rows, 1, 1)
    y = torch.arange(height, device=heatmaps.device)
    x = torch.arange(width, device=heatmaps.device)
    distance = (y[:, None] - peak // width) ** 2 + (
        x - peak % width
    ) ** 2  # (rows, height, width)
    weights = heatmaps * torch.exp(-distance / (2 * window**2))
    confidence = weights.sum((1, 2))
    weights = weights / confidence[:, None, None]
    center_x = (weights.sum(1) * (x + 0.5)).sum(1) / width
    center_y = (weights.sum(2) * (y + 0.5)).sum(1) / height
    return torch.stack([center_x, center_y], 1), confidence


__all__ = ["PointLocalizerForKeypointDetection", "PointLocalizerModel"]
