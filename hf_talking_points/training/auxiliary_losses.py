"""Losses that supervise how a descriptor encodes a point, beside the one on its text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.mask2former.modeling_mask2former import (
    dice_loss,
    sigmoid_cross_entropy_loss,
)

from ..data.photos import AnnotatedObject, PartPoint
from ..data.triplets import View

IGNORED = -100  # the class that cross-entropy leaves out
EXTENTS = 6
UNKNOWN_EXTENT = [float("nan")] * EXTENTS
EXTENT_WEIGHT = 10
COLORS = 3
COLOR_SCALE = 50.0  # about the spread of CIELAB's lightness in photos
COLOR_WEIGHT = 3
# OMG-LLaVA's
CROSS_ENTROPY_WEIGHT = 0.4
DICE_WEIGHT = 0.1


class AuxiliaryHeads(nn.Module):
    """What an auxiliary loss reads from the point token while the descriptor is trained.

    That is the part, the object's category, where in the object's box the point lies, the box's place and size, and
    the spot's color, this one by a linear map. They bring these into the token long before the text's loss does, and
    are not needed afterwards.

    Args:
        dim (`int`): of the point token.
        parts (iterable of `str`): names of the parts.
        categories (iterable of `str`): names of the objects.
    """

    def __init__(
        self, dim: int, parts: Iterable[str], categories: Iterable[str]
    ) -> None:
        super().__init__()
        self.parts = {name: index for index, name in enumerate(sorted(set(parts)))}
        self.categories = {
            name: index for index, name in enumerate(sorted(set(categories)))
        }
        self.layers = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.part = nn.Linear(dim, len(self.parts))
        self.category = nn.Linear(
            dim, len(self.categories) + 1
        )  # the last one: no object
        self.extent = nn.Linear(dim, EXTENTS)
        self.color = nn.Linear(dim, COLORS)

    @classmethod
    def for_views(cls, dim: int, views: Iterable[View]) -> AuxiliaryHeads:
        """Heads for the names of parts and objects that points of `views` have."""
        parts = set()
        categories = set()
        for view in views:
            for annotated, point in view.points():
                if annotated is not None:
                    categories.add(annotated.category)
                if point.part is not None:
                    parts.add(point.part)
        return cls(dim, parts, categories)

    def targets(
        self,
        source: tuple[AnnotatedObject | None, PartPoint] | None,
        size: tuple[int, int],
        color: Sequence[float],
    ) -> list[float]:
        """What the heads should read from a point.

        Args:
            source (`tuple`, *optional*): (object, part point); None for surroundings.
            size (`tuple`): (width, height) of the photo in pixels.
            color (of length 3): of the spot, CIELAB.
        Returns:
            [L, a, b, part, category, u, v, center x, center y, width, height]: the color in units of `COLOR_SCALE`,
            places in parts of the object's box and of the photo. Part or category is -100, and the extents NaN, where
            they are not known.
        """
        scaled = [value / COLOR_SCALE for value in color]
        return [*scaled, *self.names_and_extent(source, size)]

    def names_and_extent(
        self,
        source: tuple[AnnotatedObject | None, PartPoint] | None,
        size: tuple[int, int],
    ) -> list[float]:
        """What follows the color in [`targets`]."""
        if source is None:
            return [IGNORED, len(self.categories), *UNKNOWN_EXTENT]
        annotated, point = source
        part = IGNORED if point.part is None else self.parts.get(point.part, IGNORED)
        if annotated is None:
            return [part, IGNORED, *UNKNOWN_EXTENT]
        category = self.categories.get(annotated.category, IGNORED)
        width, height = size
        x1, y1, x2, y2 = annotated.box
        extent = [
            (point.x - x1) / max(x2 - x1, 1),
            (point.y - y1) / max(y2 - y1, 1),
            (x1 + x2) / 2 / width,
            (y1 + y2) / 2 / height,
            (x2 - x1) / width,
            (y2 - y1) / height,
        ]
        return [part, category, *extent]

    def forward(
        self,
        point_embeds: torch.Tensor,
        targets: torch.Tensor,
        known: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss: the means over the colors and the known parts, categories and extents of a batch, or its share.

        Args:
            point_embeds (`torch.Tensor` of shape `(points, dim)`): the point tokens.
            targets (`torch.Tensor` of shape `(points, 11)`): of [`AuxiliaryHeads.targets`].
            known (`torch.Tensor` of shape `(4,)`, *optional*): [`known_targets`] of all batches whose losses are
                added; by default of this one.
        """
        if known is None:
            known = known_targets(targets)
        colors, parts, categories, extents = known.clamp(min=1)
        features = self.layers(point_embeds)
        color, part, category, extent = targets.split([COLORS, 1, 1, EXTENTS], 1)
        color_loss = summed_distance(self.color(point_embeds), color)
        part_loss = summed_cross_entropy(self.part(features), part[:, 0])
        category_loss = summed_cross_entropy(self.category(features), category[:, 0])
        is_known = ~extent.isnan().any(1)
        extent_loss = summed_distance(self.extent(features)[is_known], extent[is_known])
        return (
            COLOR_WEIGHT * color_loss / (COLORS * colors)
            + category_loss / categories
            + part_loss / parts
            + EXTENT_WEIGHT * extent_loss / (EXTENTS * extents)
        )


def known_targets(targets: torch.Tensor) -> torch.Tensor:
    """How many colors, parts, categories and extents are known: `(4,)`.

    Args:
        targets (`torch.Tensor` of shape `(points, 11)`): of [`AuxiliaryHeads.targets`].
    """
    points = torch.tensor([len(targets)], device=targets.device)  # each has a color
    classes = (targets[:, COLORS : COLORS + 2] != IGNORED).sum(0)
    extents = (~targets[:, COLORS + 2 :].isnan().any(1)).sum(0, keepdim=True)
    return torch.cat([points, classes, extents])


def summed_distance(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The sum of the smooth distances between two tensors of one shape."""
    return F.smooth_l1_loss(values.float(), targets, beta=0.1, reduction="sum")


def summed_cross_entropy(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The sum of cross-entropy over the rows whose class is known; 0 where none is.

    Args:
        logits (`torch.Tensor` of shape `(points, classes)`)
        classes (`torch.Tensor` of shape `(points,)`): -100 where the class is not known.
    """
    return F.cross_entropy(
        logits.float(), classes.long(), ignore_index=IGNORED, reduction="sum"
    )


def known_boxes(boxes: torch.Tensor) -> torch.Tensor:
    """How many of the boxes `(points, 4)` are not NaN: `()`."""
    return (~boxes.isnan().any(1)).sum()


def box_mask_loss(
    mask_logits: list[torch.Tensor],
    boxes: torch.Tensor,
    count: torch.Tensor | None = None,
) -> torch.Tensor:
    """Supervises predicted point masks by object boxes: 0.4 cross-entropy + 0.1 dice, the mean over layers.

    Args:
        mask_logits (list of `torch.Tensor` of shape `(points, height, width)`)
        boxes (`torch.Tensor` of shape `(points, 4)`): x1, y1, x2, y2 on the canvas; rows of NaN are left out.
        count (`torch.Tensor` of shape `()`, *optional*): [`known_boxes`] of all batches whose losses are added; by
            default of this one.
    """
    known = ~boxes.isnan().any(1)
    height, width = mask_logits[0].shape[1:]
    target = box_masks(boxes[known], height, width).flatten(
        1
    )  # (known points, height * width)
    count = (known_boxes(boxes) if count is None else count).clamp(min=1)
    losses = []
    for layer in mask_logits:
        logits = layer[known].flatten(1).float()
        cross_entropy = sigmoid_cross_entropy_loss(logits, target, count)
        dice = dice_loss(logits, target, count)
        losses.append(CROSS_ENTROPY_WEIGHT * cross_entropy + DICE_WEIGHT * dice)
    return torch.stack(losses).mean()


def box_masks(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Masks `(boxes, height, width)`: 1 for the cells of a canvas whose center lies in the box, else 0."""
    x1, y1, x2, y2 = (corner[:, None] for corner in boxes.unbind(1))  # (boxes, 1)
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    rows = (y >= y1) & (y <= y2)  # (boxes, height)
    columns = (x >= x1) & (x <= x2)  # (boxes, width)
    return (rows[:, :, None] & columns[:, None]).float()
