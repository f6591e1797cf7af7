"""Losses that supervise how a descriptor encodes a point, beside the one on its text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.mask2former.modeling_mask2former import (
    dice_loss,
    sigmoid_cross_entropy_loss,
)

from ..data.triplets import Owned, View
from ..words.facts import shares_of
from ..words.looks import COLOR_NAMES, PATTERNS, ranked_colors

IGNORED = -100  # the class that cross-entropy leaves out
UNKNOWN = float("nan")
# what a row of targets consists of
COLORS = 3
NAMES = 4
SHARES = 8
SIZES = 2
EXTENTS = 6
EXTENT_WEIGHT = 10
COLOR_SCALE = 50.0  # about the spread of CIELAB's lightness in photos
COLOR_WEIGHT = 3
STEPS = 10  # of a share, twice as fine as the writer's words
STEP_WEIGHT = 4
# OMG-LLaVA's
CROSS_ENTROPY_WEIGHT = 0.4
DICE_WEIGHT = 0.1


class AuxiliaryHeads(nn.Module):
    """What an auxiliary loss reads from the point token while the descriptor is trained.

    That is the spot's color and pattern, the part, the object's category, where the point lies in the photo, in the
    object's box and in the part's, and the object's place and size. They bring these into the token long before the
    text's loss does, and are not needed afterwards. Colors and places are read twice, as numbers and as one of a few
    names or steps: a small language model hardly turns the numbers into words, but copies the classes.

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
        self.color_name = nn.Linear(dim, len(COLOR_NAMES))
        self.pattern = nn.Linear(dim, len(PATTERNS))
        self.steps = nn.Linear(dim, SHARES * STEPS)

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
        source: Owned | None,
        size: tuple[int, int],
        color: Sequence[float],
        pattern: str,
        pixel: Sequence[float],
    ) -> list[float]:
        """What the heads should read from a point.

        Args:
            source (`tuple`, *optional*): (object, part point); None for surroundings.
            size (`tuple`): (width, height) of the photo in pixels.
            color (of length 3): of the spot, CIELAB.
            pattern (`str`): of the spot, one of `PATTERNS`.
            pixel (of length 2): (x, y) of the point, in pixels of the photo.
        Returns:
            [L, a, b, color name, pattern, part, category, x, y, u, v, center x, center y, part u, part v, width,
            height]: the color in units of `COLOR_SCALE`; the point in parts of the photo and of the object's box; the
            box's center; the point in parts of the part's box; the box's size. Names are -100 and the others NaN where
            they are not known.
        """
        scaled = [value / COLOR_SCALE for value in color]
        ((name,),) = ranked_colors(np.array([color]), 1)
        width, height = size
        in_photo = pixel[0] / width, pixel[1] / height
        on_object = center = extent = in_part = (UNKNOWN, UNKNOWN)
        if source is not None and source[1].box is not None:
            in_part = shares_of(source[1], source[1].box)
        if source is not None and source[0] is not None:
            on_object = shares_of(source[1], source[0].box)
            x1, y1, x2, y2 = source[0].box
            center = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
            extent = (x2 - x1) / width, (y2 - y1) / height
        looks = [COLOR_NAMES.index(name), PATTERNS.index(pattern)]
        names = [*looks, *self.names(source)]
        return [*scaled, *names, *in_photo, *on_object, *center, *in_part, *extent]

    def names(self, source: Owned | None) -> tuple[int, int]:
        """The classes of part and category."""
        if source is None:
            return IGNORED, len(self.categories)
        annotated, point = source
        part = IGNORED if point.part is None else self.parts.get(point.part, IGNORED)
        if annotated is None:
            return part, IGNORED
        return part, self.categories.get(annotated.category, IGNORED)

    def forward(
        self,
        point_embeds: torch.Tensor,
        targets: torch.Tensor,
        known: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss: the means over what is known of the points of a batch, or its share.

        Args:
            point_embeds (`torch.Tensor` of shape `(points, dim)`): the point tokens.
            targets (`torch.Tensor` of shape `(points, 17)`): of [`AuxiliaryHeads.targets`].
            known (`torch.Tensor` of shape `(5,)`, *optional*): [`known_targets`] of all batches whose losses are
                added; by default of this one.
        """
        if known is None:
            known = known_targets(targets)
        points, parts, categories, extents, shares = known.clamp(min=1)
        features = self.layers(point_embeds)
        color, names, places, _ = targets.split([COLORS, NAMES, SHARES, SIZES], 1)
        color_name, pattern, part, category = names.unbind(1)
        color_loss = summed_distance(self.color(point_embeds), color)
        color_name_loss = summed_cross_entropy(
            self.color_name(point_embeds), color_name
        )
        pattern_loss = summed_cross_entropy(self.pattern(point_embeds), pattern)
        part_loss = summed_cross_entropy(self.part(features), part)
        category_loss = summed_cross_entropy(self.category(features), category)
        extent = extents_of(targets)
        is_known = ~extent.isnan().any(1)
        extent_loss = summed_distance(self.extent(features)[is_known], extent[is_known])
        step_loss = summed_cross_entropy(
            self.steps(point_embeds).view(-1, STEPS), steps_of(places).flatten()
        )
        return (
            COLOR_WEIGHT * color_loss / (COLORS * points)
            + (color_name_loss + pattern_loss) / points
            + category_loss / categories
            + part_loss / parts
            + EXTENT_WEIGHT * extent_loss / (EXTENTS * extents)
            + STEP_WEIGHT * step_loss / shares
        )


def extents_of(targets: torch.Tensor) -> torch.Tensor:
    """Where a point is on its object, and the object's center and size: `(points, 6)` of targets `(points, 17)`."""
    places, sizes = targets[:, COLORS + NAMES :].split([SHARES, SIZES], 1)
    return torch.cat([places[:, 2:6], sizes], 1)


def steps_of(shares: torch.Tensor) -> torch.Tensor:
    """The classes of shares in [0, 1], in equal steps; what lies beyond an end is in the step at that end, and NaN in
    none."""
    steps = (shares * STEPS).floor().clamp(0, STEPS - 1)
    return steps.nan_to_num(IGNORED).long()


def known_targets(targets: torch.Tensor) -> torch.Tensor:
    """How many colors, parts, categories, extents and shares are known: `(5,)`.

    Args:
        targets (`torch.Tensor` of shape `(points, 17)`): of [`AuxiliaryHeads.targets`].
    """
    points = torch.tensor([len(targets)], device=targets.device)  # each has looks
    classes = (targets[:, COLORS + 2 : COLORS + NAMES] != IGNORED).sum(0)
    extents = (~extents_of(targets).isnan().any(1)).sum(0, keepdim=True)
    places = targets[:, COLORS + NAMES : COLORS + NAMES + SHARES]
    shares = (~places.isnan()).sum().unsqueeze(0)
    return torch.cat([points, classes, extents, shares])


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
