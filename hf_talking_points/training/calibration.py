"""Makes a localizer's confidence a probability: that the right point is within 0.1 of the image's sides.

It is one for texts of the photo that they come with. Texts of other photos ([`of_other_photos`]), which fit nothing,
count a little in it, so that theirs is low, as far as the localizer can tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn
from transformers import PreTrainedModel

from ..models.modeling_point_localizer import ConfidenceHead, local_soft_argmax

__all__ = [
    "RADIUS",
    "calibrate",
    "expected_calibration_error",
    "is_found",
    "of_other_photos",
]

RADIUS = 0.1  # in parts of the image's sides
PENALTY = 1e-2  # on squared weights of standardized inputs
# of a text of another photo: the more, the lower is the confidence in right answers too
FOREIGN_WEIGHT = 0.05
FIT_STEPS = 200


@torch.no_grad()
def calibrate(model: PreTrainedModel, batches: Iterable[dict[str, Any]]) -> None:
    """Fits a localizer's confidence head by logistic regression, and makes the model use it.

    Args:
        model (`PointLocalizerForKeypointDetection`): with a heat map, in evaluation mode.
        batches: of [`~training.collators.LocalizerCollator`], of photos that the model was not trained on, and of
            these by [`of_other_photos`].

    Raises ValueError where the model has no map or there is no batch.
    """
    if model.config.head != "heatmap":
        raise ValueError(
            f"confidence is read from a map, which head {model.config.head!r} has not"
        )
    vectors, shares, hits, weights = [], [], [], []
    for batch in batches:
        vector, share, is_hit = measured(model, batch)
        vectors.append(vector)
        shares.append(share)
        hits.append(is_hit)
        is_foreign = batch["target_points"].isnan().any(-1).flatten()
        weights.append(torch.where(is_foreign, FOREIGN_WEIGHT, 1.0))
    if not hits:
        raise ValueError("batches is empty: there is no answer to learn from")
    head = fitted_head(
        torch.cat(vectors), torch.cat(shares), torch.cat(hits), torch.cat(weights)
    )
    model.config.calibrated_confidence = True
    model.confidence_head = head.to(model.device, model.dtype).requires_grad_(False)


def of_other_photos(batch: dict[str, Any], count: int | None = None) -> dict[str, Any]:
    """A batch of [`LocalizerCollator`] in which each photo has texts of the one before it.

    Args:
        batch (`dict`): of one photo alone it stays as it is.
        count (`int`, *optional*): texts of each photo that are exchanged, the last ones; by default all of them.
    Returns:
        `dict`: with right points, `target_points`, that are NaN for the exchanged texts.
    """
    points = batch["target_points"]
    photos, texts = points.shape[:2]
    if photos == 1:
        return batch
    kept = 0 if count is None else texts - count
    is_foreign = torch.arange(texts, device=points.device) >= kept
    moved = dict(batch)
    for name in ("input_ids", "attention_mask"):
        own = batch[name].unflatten(0, (photos, texts))
        exchanged = torch.where(is_foreign[:, None], own.roll(1, 0), own)
        moved[name] = exchanged.flatten(0, 1)
    foreign_points = points.masked_fill(is_foreign[:, None], torch.nan)
    return {**moved, "target_points": foreign_points}


def measured(
    model: PreTrainedModel, batch: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each text of a batch its vector `(rows, head_dim)`, the share of the map around the peak `(rows,)`, and
    whether it was found within `RADIUS`, `(rows,)`."""
    inputs = send_to_device(batch, model.device)
    target, scale = inputs.pop("target_points"), inputs.pop("scale")
    vectors: list[torch.Tensor] = []
    hook = model.text_to_vision.register_forward_hook(
        lambda module, args, output: vectors.append(output)
    )
    try:
        outputs = model(**inputs)
    finally:
        hook.remove()
    _, share = local_soft_argmax(outputs.heatmaps, model.config.heatmap_window)
    return vectors[0].float(), share.float(), is_found(outputs.points, target, scale)


def is_found(
    points: torch.Tensor, target: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Whether points are within `RADIUS` of the right ones.

    Args:
        points (`torch.Tensor` of shape `(rows, 2)`): on the canvas.
        target (`torch.Tensor` of shape `(photos, points of a photo, 2)`): on the canvas, as many; NaN where no point
            is right.
        scale (`torch.Tensor` of shape `(photos, 1, 2)`): of each canvas in parts of its photo's sides.
    Returns:
        bool `torch.Tensor` of shape `(rows,)`.
    """
    offsets = (points.view_as(target) - target) * scale
    return offsets.norm(dim=-1).flatten() < RADIUS


def fitted_head(
    vectors: torch.Tensor,
    shares: torch.Tensor,
    is_hit: torch.Tensor,
    answer_weights: torch.Tensor,
) -> ConfidenceHead:
    """The head of least log loss, less a penalty on its weights.

    Args:
        vectors, shares, is_hit: as [`measured`] gives them.
        answer_weights (`torch.Tensor` of shape `(rows,)`): how much each answer counts.
    """
    answer_weights = answer_weights.to(vectors) / answer_weights.sum()
    head = ConfidenceHead(vectors.shape[1])
    inputs = torch.cat([vectors, shares.logit(eps=1e-4)[:, None]], 1)
    mean, deviation = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
    standardized = (inputs - mean) / deviation
    weights = torch.zeros(inputs.shape[1], requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=FIT_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = standardized @ weights + bias
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, is_hit.float(), answer_weights, reduction="sum"
        )
        loss = loss + PENALTY * weights.pow(2).sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():
        head.linear.weight.copy_((weights / deviation)[None])
        head.linear.bias.copy_(bias - (weights / deviation) @ mean)
    return head


def expected_calibration_error(
    confidence: torch.Tensor, is_hit: torch.Tensor, bins: int = 10
) -> float:
    """Mean distance between confidence and share of hits, over bins of equal width, weighted by their answers.

    Args:
        confidence (`torch.Tensor` of shape `(answers,)`): in [0, 1].
        is_hit (bool `torch.Tensor` of shape `(answers,)`)
        bins (`int`)
    """
    number = (confidence * bins).long().clamp(max=bins - 1)
    error = 0.0
    for chosen in range(bins):
        inside = number == chosen
        if inside.any():
            gap = confidence[inside].mean() - is_hit[inside].float().mean()
            error += float(inside.float().mean() * gap.abs())
    return error
