"""Point Localizer: image + text -> pixel, in one forward pass. Talking Points (arXiv 2510.14583), section 3.2."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_talking_points import PointLocalizerConfig
from .modeling_masked_decoder import rows_of
from .modeling_talking_points import (
    TalkingPointsModel,
    TalkingPointsPreTrainedModel,
    backbone_channels,
    resized,
)


@dataclass
class PointLocalizerImageOutput(ModelOutput):
    """Encoded images.

    Args:
        pooler_output (list of `torch.FloatTensor` of shape `(image_seq_length, hidden)`):
            The image tokens, one entry per image.
        keys (`torch.FloatTensor` of shape `(images, height * width, head_dim)`, *optional*):
            What the heat map is scored against; None for "mlp".
    """

    pooler_output: list[torch.FloatTensor]
    keys: torch.FloatTensor | None = None

    def runs(
        self, image_index: torch.LongTensor
    ) -> Iterator[tuple[slice, "PointLocalizerImageOutput"]]:
        """Splits rows of text into runs in which every image has as many rows: one where that holds for all, else one
        for each change of image.

        Args:
            image_index (`torch.LongTensor` of shape `(rows,)`): the image of each row.
        Returns:
            iterator of (rows of a run, its images).
        """
        images, rows = len(self.pooler_output), len(image_index)
        index = image_index.tolist()
        if rows % images == 0 and index == [
            row * images // rows for row in range(rows)
        ]:
            yield slice(rows), self
            return
        starts = [
            row for row in range(rows) if row == 0 or index[row] != index[row - 1]
        ]
        stops = [*starts[1:], rows]
        for start, stop in zip(starts, stops):
            image = slice(index[start], index[start] + 1)
            output = PointLocalizerImageOutput(
                pooler_output=self.pooler_output[image],
                keys=None if self.keys is None else self.keys[image],
            )
            yield slice(start, stop), output


@dataclass
class PointLocalizerOutput(ModelOutput):
    """Where texts point to.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, returned when `target_points` are given):
            Mean squared error of the regressed points; for "heatmap" the cross-entropy of the map is added.
        points (`torch.FloatTensor` of shape `(rows, 2)`):
            (x, y) on the canvas, in [0, 1].
        confidence (`torch.FloatTensor` of shape `(rows,)`, *optional*):
            Share of the heat map around its peak, in [0, 1]; None for "mlp".
        heatmaps (`torch.FloatTensor` of shape `(rows, height, width)`, *optional*):
            Probabilities that sum to 1; None for "mlp".
        regressed_points (`torch.FloatTensor` of shape `(rows, 2)`):
            The regression, which is `points` for "mlp".
    """

    loss: torch.FloatTensor | None = None
    points: torch.FloatTensor = None
    confidence: torch.FloatTensor | None = None
    heatmaps: torch.FloatTensor | None = None
    regressed_points: torch.FloatTensor = None


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
    """Scores every cell against the text, with a Gaussian prior of learned width at the regressed point."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query_projection = nn.Linear(dim, dim)
        self.log_prior_width = nn.Parameter(torch.tensor([-1.6]))

    def forward(
        self, vector: torch.Tensor, regressed: torch.Tensor, keys: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            vector (`torch.Tensor` of shape `(rows, head_dim)`): of each text; as many rows for every image.
            regressed (`torch.Tensor` of shape `(rows, 2)`): (x, y) on the canvas.
            keys (`torch.Tensor` of shape `(images, side^2, head_dim)`)
        Returns:
            `torch.Tensor` of shape `(rows, side, side)`: logits.
        """
        images, cells, dim = keys.shape
        side = math.isqrt(cells)
        query = self.query_projection(vector).view(images, -1, dim)
        scores = (
            query @ keys.transpose(1, 2)
        ).float()  # (images, rows of an image, cells)
        scores = scores.view(-1, side, side) / dim**0.5
        doubled_variance = 2 * torch.exp(2 * self.log_prior_width.float())
        return scores - squared_distances(regressed, side, side) / doubled_variance


class PointLocalizerModel(TalkingPointsModel):
    config: PointLocalizerConfig

    def __init__(self, config: PointLocalizerConfig) -> None:
        super().__init__(config)
        if config.head == "heatmap":
            self.map_keys = MapKeys(config)
        self.post_init()
        self.freeze_unreached()

    def unreached_modules(self) -> list[nn.Module]:
        if self.config.use_perception_prior:
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
        return PointLocalizerImageOutput(pooler_output=list(tokens), keys=keys)

    def forward(
        self,
        input_ids: torch.LongTensor,
        image: PointLocalizerImageOutput,
        attention_mask: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> torch.FloatTensor:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(rows, length)`): as many consecutive rows for every image.
            image ([`PointLocalizerImageOutput`])
            attention_mask (`torch.LongTensor` of shape `(rows, length)`, *optional*): 0 = padding.
        Returns:
            `torch.FloatTensor` of shape `(rows, length, hidden)`: the last hidden states.
        """
        inputs_embeds = self.get_input_embeddings()(input_ids)
        inputs_embeds = self.scatter_images(
            inputs_embeds, input_ids, image.pooler_output
        )
        rows_per_image = len(input_ids) // len(image.pooler_output)
        kwargs["use_cache"] = False
        output = self.run_language_model(
            input_ids, inputs_embeds, attention_mask, rows_per_image, **kwargs
        )
        return output.last_hidden_state


class PointLocalizerForKeypointDetection(TalkingPointsPreTrainedModel):
    """Finds the pixel that a text describes.

    Rows of text that belong to one image stand together, `pixel_values` holds each image once; the image is encoded
    once and the rows share the prompt's prefix."""

    config: PointLocalizerConfig

    def __init__(self, config: PointLocalizerConfig) -> None:
        super().__init__(config)
        self.model = PointLocalizerModel(config)
        hidden = config.text_config.hidden_size
        dim = config.head_dim
        if config.standardize_states:
            self.state_norm = nn.BatchNorm1d(hidden, affine=False)
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
            self.heatmap_head = HeatmapHead(dim)
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

    def segment_states(
        self,
        input_ids: torch.LongTensor,
        image: PointLocalizerImageOutput,
        attention_mask: torch.LongTensor | None,
        image_index: torch.LongTensor | None,
        **kwargs: Any,
    ) -> tuple[torch.FloatTensor, torch.FloatTensor | None]:
        """
        Returns:
            (last hidden states of `<SEG>`, `(rows, hidden)`; the keys of the heat map, `(images, cells, head_dim)`,
            or one entry per row where images have unequal numbers of rows).
        Raises:
            ValueError: a row has no `<SEG>`, or more than one.
        """
        segment = input_ids == self.config.seg_token_id
        segments_per_row = segment.sum(1)
        if not bool((segments_per_row == 1).all()):
            raise ValueError(
                f"every row needs exactly one <SEG> token (id {self.config.seg_token_id}), "
                f"got {segments_per_row.tolist()}"
            )
        if image_index is None:
            states = self.model(input_ids, image, attention_mask, **kwargs)
            return states[segment], image.keys
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states_of_runs = []
        for rows, run in image.runs(image_index):
            states = self.model(input_ids[rows], run, mask[rows], **kwargs)
            states_of_runs.append(states[segment[rows]])
        keys = image.keys
        if len(states_of_runs) > 1 and keys is not None:
            keys = keys[image_index]
        return torch.cat(states_of_runs), keys

    def point_loss(
        self,
        target_points: torch.FloatTensor,
        regressed: torch.FloatTensor,
        logits: torch.FloatTensor | None,
    ) -> torch.FloatTensor:
        """
        Args:
            target_points (`torch.FloatTensor` of shape `(rows, 2)`): true (x, y) on the canvas.
            regressed (`torch.FloatTensor` of shape `(rows, 2)`)
            logits (`torch.FloatTensor` of shape `(rows, height, width)`): of the heat map; None for "mlp".
        """
        target_points = target_points.float()
        squared_error = (regressed - target_points).pow(2).mean()
        if logits is None:
            return squared_error
        distances = squared_distances(target_points, *logits.shape[1:])
        target = torch.exp(-distances / (2 * self.config.heatmap_sigma**2)).flatten(1)
        target = target / target.sum(1, keepdim=True)
        cross_entropy = nn.functional.cross_entropy(logits.flatten(1), target)
        return cross_entropy + self.config.point_loss_weight * squared_error

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        feature_maps: list[torch.FloatTensor] | None = None,
        attention_mask: torch.LongTensor | None = None,
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
            image_index (`torch.LongTensor` of shape `(rows,)`): the image of each row. Without it every image has as
                many consecutive rows.
            mm_encoder_outputs (`dict`): {"image": output of `get_image_features`} instead of images.
            target_points (`torch.FloatTensor` of shape `(rows, 2)`): true (x, y) on the canvas; gives the loss.
        """
        image = (mm_encoder_outputs or {}).get("image")
        if image is None:
            image = self.get_image_features(pixel_values, feature_maps)
        states, keys = self.segment_states(
            input_ids, image, attention_mask, image_index, **kwargs
        )
        if self.config.standardize_states:
            states = self.state_norm(states)
        vector = self.text_to_vision(states)  # (rows, head_dim)
        regressed = self.point_head(vector).float().sigmoid()  # (rows, 2)
        points, confidence, heatmaps, logits = regressed, None, None, None
        if self.config.head == "heatmap":
            logits = self.heatmap_head(vector, regressed, keys)  # (rows, height, width)
            heatmaps = logits.flatten(1).softmax(-1).view_as(logits)
            points, confidence = local_soft_argmax(heatmaps, self.config.heatmap_window)
        loss = None
        if target_points is not None:
            loss = self.point_loss(target_points, regressed, logits)
        return PointLocalizerOutput(
            loss=loss,
            points=points,
            confidence=confidence,
            heatmaps=heatmaps,
            regressed_points=regressed,
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
