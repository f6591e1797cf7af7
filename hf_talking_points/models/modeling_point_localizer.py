"""Point Localizer: image + text -> pixel, in one forward pass. Talking Points (arXiv 2510.14583), section 3.2."""

import math
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_talking_points import PointLocalizerConfig
from .modeling_talking_points import (
    TalkingPointsModel,
    TalkingPointsPreTrainedModel,
    backbone_channels,
)


@dataclass
class PointLocalizerImageOutput(ModelOutput):
    """An encoded image.

    Args:
        pooler_output (list of `torch.Tensor` of shape `(image_seq_length, hidden)`): the image tokens, one entry per image.
        keys (`torch.Tensor` of shape `(images, height * width, head_dim)`): what the heat map is scored against; None for "mlp".
    """

    pooler_output: list | None = None
    keys: torch.FloatTensor | None = None

    def runs(self, image_index):
        """Splits rows of text into runs in which every image has as many rows: one where that holds for all, else one for each change of
        image. Yields (rows as a slice, [`PointLocalizerImageOutput`] of the run)."""
        images, rows = len(self.pooler_output), len(image_index)
        index = image_index.tolist()
        if rows % images == 0 and index == [row * images // rows for row in range(rows)]:
            yield slice(rows), self
            return
        start = 0
        for i, run in groupby(index):
            stop = start + len(list(run))
            keys = None if self.keys is None else self.keys[i : i + 1]
            yield (
                slice(start, stop),
                PointLocalizerImageOutput(pooler_output=self.pooler_output[i : i + 1], keys=keys),
            )
            start = stop


@dataclass
class PointLocalizerOutput(ModelOutput):
    """
    Args:
        loss (`torch.Tensor`, *optional*): with `target_points`.
        points (`torch.Tensor` of shape `(rows, 2)`): (x, y) on the canvas, in [0, 1].
        confidence (`torch.Tensor` of shape `(rows,)`, *optional*): share of the heat map around its peak, in [0, 1]; None for "mlp".
        heatmaps (`torch.Tensor` of shape `(rows, height, width)`, *optional*): probabilities that sum to 1; None for "mlp".
        regressed_points (`torch.Tensor` of shape `(rows, 2)`): the regression, which is `points` for "mlp".
    """

    loss: torch.FloatTensor | None = None
    points: torch.FloatTensor | None = None
    confidence: torch.FloatTensor | None = None
    heatmaps: torch.FloatTensor | None = None
    regressed_points: torch.FloatTensor | None = None


def squared_distances(points, height, width):
    """points (`(rows, 2)`) -> squared distances on the canvas to the centres of the cells, `(rows, height, width)`."""
    y = (torch.arange(height, device=points.device) + 0.5) / height
    x = (torch.arange(width, device=points.device) + 0.5) / width
    return (y[:, None] - points[:, 1, None, None]) ** 2 + (x - points[:, 0, None, None]) ** 2


class MapKeys(nn.Module):
    """Backbone maps fused at the finest stride: the high-resolution side of the heat-map head."""

    def __init__(self, config):
        super().__init__()
        vision, dim = config.vision_config, config.head_dim
        self.projections = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(c, dim, 1), nn.GroupNorm(8, dim))
                for c in backbone_channels(vision)
            ]
        )
        self.mix = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, groups=8), nn.GELU(), nn.Conv2d(dim, dim, 1)
        )
        self.side = config.image_size // vision.feature_strides[-len(self.projections)]
        self.position_embedding = nn.Embedding(self.side**2, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, feature_maps):
        size = feature_maps[0].shape[-2:]
        x = sum(
            nn.functional.interpolate(project(m), size=size, mode="bilinear", align_corners=False)
            for project, m in zip(self.projections, feature_maps)
        )
        x = x + self.mix(x)
        return self.norm(x.flatten(2).transpose(1, 2) + self.position_embedding.weight)


class HeatmapHead(nn.Module):
    """Scores every cell against the text, with a Gaussian prior of learned width at the regressed point."""

    def __init__(self, dim):
        super().__init__()
        self.query_projection = nn.Linear(dim, dim)
        self.log_prior_width = nn.Parameter(torch.tensor(-1.6))

    def forward(self, vector, regressed, keys):
        """vector (`(rows, dim)`), regressed (`(rows, 2)`), keys (`(images, cells, dim)`) -> logits, `(rows, side, side)`."""
        side = math.isqrt(keys.shape[1])
        query = self.query_projection(vector).view(len(keys), -1, vector.shape[-1])
        scores = (query @ keys.transpose(1, 2)).float().flatten(0, 1).view(
            -1, side, side
        ) / keys.shape[-1] ** 0.5
        return scores - squared_distances(regressed, side, side) / (
            2 * torch.exp(2 * self.log_prior_width.float())
        )


class PointLocalizerModel(TalkingPointsModel):
    config: PointLocalizerConfig

    def __init__(self, config):
        super().__init__(config)
        if config.head == "heatmap":
            self.map_keys = MapKeys(config)
        self.post_init()
        self.freeze_unreached()

    def unreached_modules(self):
        if self.config.use_perception_prior:
            return super().unreached_modules()
        return [self.pixel_decoder, self.vision_tower.transformer_module]

    def reached_strides(self):
        if self.config.head == "heatmap":
            return set(self.config.vision_config.feature_strides)
        return (
            super().reached_strides()
            if self.config.use_perception_prior
            else set(self.config.token_strides)
        )

    def get_image_features(self, pixel_values=None, feature_maps=None, **kwargs):
        """Encodes images once, however many texts are located in them. Arguments as in [`PointDescriptorModel`]."""
        maps, _, tokens = self.encode_image(pixel_values, feature_maps)
        keys = self.map_keys(maps) if self.config.head == "heatmap" else None
        return PointLocalizerImageOutput(pooler_output=list(tokens), keys=keys)

    def forward(self, input_ids, image, attention_mask=None, **kwargs):
        """-> last hidden states, `(rows, length, hidden)`."""
        tokens = torch.stack(list(image.pooler_output))
        group = len(input_ids) // len(tokens)
        inputs_embeds = self.get_input_embeddings()(input_ids)
        tokens = self.rows_of_images(tokens, len(input_ids)).flatten(0, 1)
        inputs_embeds = self.scatter(
            inputs_embeds, input_ids == self.config.image_token_id, tokens, "image"
        )
        kwargs["use_cache"] = False
        return self.run_language_model(
            input_ids, inputs_embeds, attention_mask, group, **kwargs
        ).last_hidden_state


class PointLocalizerForKeypointDetection(TalkingPointsPreTrainedModel):
    """Finds the pixel that a text describes.

    Rows of text that belong to one image stand together, `pixel_values` holds each image once; the image is encoded once and the rows
    share the prompt's prefix."""

    config: PointLocalizerConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = PointLocalizerModel(config)
        dim = config.head_dim
        if config.standardize_states:
            self.state_norm = nn.BatchNorm1d(config.text_config.hidden_size, affine=False)
        self.text_to_vision = nn.Sequential(
            nn.Linear(config.text_config.hidden_size, dim), nn.GELU(), nn.Linear(dim, dim)
        )
        self.point_head = nn.Sequential(
            nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 2)
        )
        if config.head == "heatmap":
            self.heatmap_head = HeatmapHead(dim)
        self.post_init()
        self.freeze_unreached()

    def get_image_features(self, pixel_values=None, feature_maps=None, **kwargs):
        return self.model.get_image_features(pixel_values, feature_maps, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        pixel_values=None,
        feature_maps=None,
        attention_mask=None,
        image_index=None,
        mm_encoder_outputs=None,
        target_points=None,
        **kwargs,
    ):
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(rows, length)`): each row with exactly one `<SEG>`.
            pixel_values (`torch.Tensor` of shape `(images, 3, image_size, image_size)`)
            feature_maps (list of `torch.Tensor`): the backbone's maps instead of `pixel_values`.
            image_index (`torch.LongTensor` of shape `(rows,)`): the image of each row. Without it every image has as many consecutive rows.
            mm_encoder_outputs (`dict`): {"image": output of `get_image_features`} instead of images.
            target_points (`torch.Tensor` of shape `(rows, 2)`): true (x, y) on the canvas; gives the loss.
        """
        image = (mm_encoder_outputs or {}).get("image")
        if image is None:
            image = self.get_image_features(pixel_values, feature_maps)
        segment = input_ids == self.config.seg_token_id
        if not bool((segment.sum(1) == 1).all()):
            raise ValueError(
                f"every row needs exactly one <SEG> token (id {self.config.seg_token_id}), got {segment.sum(1).tolist()}"
            )
        keys = image.keys
        if image_index is None:
            states = self.model(input_ids, image, attention_mask, **kwargs)[segment]
        else:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            runs = list(image.runs(image_index))
            states = torch.cat(
                [
                    self.model(input_ids[rows], part, mask[rows], **kwargs)[segment[rows]]
                    for rows, part in runs
                ]
            )
            if len(runs) > 1 and keys is not None:
                keys = keys[image_index]
        if self.config.standardize_states:
            states = self.state_norm(states)
        vector = self.text_to_vision(states)
        regressed = self.point_head(vector).float().sigmoid()
        output = PointLocalizerOutput(points=regressed, regressed_points=regressed)
        if self.config.head == "heatmap":
            logits = self.heatmap_head(vector, regressed, keys)
            output.heatmaps = logits.flatten(1).softmax(-1).view_as(logits)
            output.points, output.confidence = local_soft_argmax(
                output.heatmaps, self.config.heatmap_window
            )
        if target_points is not None:
            target_points = target_points.float()
            output.loss = (regressed - target_points).pow(2).mean()
            if self.config.head == "heatmap":
                target = torch.exp(
                    -squared_distances(target_points, *logits.shape[1:])
                    / (2 * self.config.heatmap_sigma**2)
                ).flatten(1)
                cross_entropy = nn.functional.cross_entropy(
                    logits.flatten(1), target / target.sum(1, keepdim=True)
                )
                output.loss = cross_entropy + self.config.point_loss_weight * output.loss
        return output


def local_soft_argmax(heatmaps, window):
    """Centre of mass around the peak, and the share of the map there.

    Args:
        heatmaps (`torch.Tensor` of shape `(rows, height, width)`): probabilities.
        window (`float`): standard deviation in cells of the Gaussian window around the peak.
    Returns:
        points (`(rows, 2)`, canvas units) and confidence (`(rows,)`, in [0, 1]).
    """
    rows, height, width = heatmaps.shape
    best = heatmaps.flatten(1).argmax(1)
    y = torch.arange(height, device=heatmaps.device)
    x = torch.arange(width, device=heatmaps.device)
    distance = (y[:, None] - (best // width)[:, None, None]) ** 2 + (
        x - (best % width)[:, None, None]
    ) ** 2
    weights = heatmaps * torch.exp(-distance / (2 * window**2))
    confidence = weights.sum((1, 2))
    weights = weights / confidence[:, None, None]
    points = torch.stack(
        [(weights.sum(1) * (x + 0.5)).sum(1) / width, (weights.sum(2) * (y + 0.5)).sum(1) / height],
        1,
    )
    return points, confidence


__all__ = ["PointLocalizerForKeypointDetection", "PointLocalizerModel"]
