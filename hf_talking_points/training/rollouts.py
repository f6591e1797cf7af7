"""The completions of a generation batch: which of them share an image and a point, and what the model sees of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import torch
from PIL import Image
from trl.trainer.utils import RepeatSampler, split_tensor_dict

from ..models.images import distinct_images, to_rgb
from ..models.modeling_point_descriptor import PointDescriptorImageOutput

Batch = dict[str, Any]


@dataclass(eq=False)
class Sample:
    """An image and a point of it, shared by the completions that describe it.

    Args:
        input_points (`torch.Tensor` of shape `(1, 2)`): (x, y) on the canvas.
        pixel_values (`torch.Tensor` of shape `(3, image_size, image_size)`, *optional*): None once encoded.
        image_tokens (`torch.Tensor` of shape `(image_seq_length, hidden)`, *optional*): what a frozen vision side
            makes of the image.
        point_embeds (`torch.Tensor` of shape `(1, hidden)`, *optional*): what it makes of the point.
    """

    input_points: torch.Tensor
    pixel_values: torch.Tensor | None = None
    image_tokens: torch.Tensor | None = None
    point_embeds: torch.Tensor | None = None

    def store_encoding(
        self, image_tokens: torch.Tensor, point_embeds: torch.Tensor
    ) -> None:
        """Keeps what the vision side gives, and no longer the pixels that it was given."""
        self.image_tokens = image_tokens
        self.point_embeds = point_embeds
        self.pixel_values = None


class EpochSampler(RepeatSampler):
    """TRL's sampler with an order that follows from seed and epoch alone: a resumed run would go through the first
    epoch's again."""

    def set_epoch(self, epoch: int) -> None:
        if self.shuffle:
            self.generator.manual_seed(self.seed + epoch)


def images_to_encode(
    images: Sequence[Any], share: bool
) -> tuple[list[Image.Image], list[int]]:
    """The images that the vision side encodes, and which of them belongs to each row.

    Args:
        images: one for each row, of any kind that [`to_rgb`] takes.
        share (`bool`): equal images are encoded once, else one for each row.
    """
    if share:
        return distinct_images(images)
    return [to_rgb(image) for image in images], list(range(len(images)))


def stacked_points(samples_by_image: Sequence[Sequence[Sample]]) -> torch.Tensor:
    """The points of several images, of shape `(images, most points, 2)`, filled up with NaN."""
    points_by_image = []
    for samples in samples_by_image:
        points = torch.cat([sample.input_points for sample in samples])  # (points, 2)
        points_by_image.append(points)
    return torch.nn.utils.rnn.pad_sequence(
        points_by_image, batch_first=True, padding_value=float("nan")
    )


def rows_per_encoding(samples: Sequence[Sample]) -> int:
    """Into how many consecutive rows an encoding goes, where each encoding is to go into equally many.

    Rows of one sample follow each other, in runs of different lengths where a batch cuts a group; the number divides
    the length of each run.
    """
    run_lengths = []
    for _, run in groupby(samples, key=id):
        run_lengths.append(len(list(run)))
    return math.gcd(*run_lengths)


def image_inputs(samples: Sequence[Sample], share: bool) -> dict[str, Any]:
    """What the model takes beside the text of rows with these samples.

    Args:
        samples: one for each row.
        share (`bool`): consecutive rows of one sample share its encoding.
    """
    rows = rows_per_encoding(samples) if share else 1
    distinct = samples[::rows]  # one for each encoding
    if distinct[0].image_tokens is not None:
        point_embeds = [sample.point_embeds for sample in samples]
        image_output = PointDescriptorImageOutput(
            pooler_output=[sample.image_tokens for sample in distinct],
            point_embeds=torch.cat(point_embeds),  # (completions, hidden)
        )
        return {"mm_encoder_outputs": {"image": image_output}}
    pixel_values = []
    points = []
    for sample in distinct:
        pixel_values.append(sample.pixel_values)
        points.append(sample.input_points.expand(rows, 2))
    return {
        "pixel_values": torch.stack(
            pixel_values
        ),  # (encodings, 3, image_size, image_size)
        "input_points": torch.stack(points),  # (encodings, rows, 2)
    }


def keep_groups_together(batches: Sequence[Batch]) -> list[Batch]:
    """Micro-batches of shuffled rows, filled anew so that the rows of one [`Sample`] follow each other; the samples
    keep their shuffled order."""
    samples: list[Sample] = []
    for batch in batches:
        samples += batch["samples"]
    order = grouped_order(samples)
    reordered = {}
    for name in batches[0]:
        parts = [batch[name] for batch in batches]
        reordered[name] = reorder(parts, order)
    return split_tensor_dict(reordered, len(batches))


def grouped_order(samples: Sequence[Sample]) -> list[int]:
    """Positions of the rows, those of one sample after each other."""
    positions: dict[
        int, list[int]
    ] = {}  # identity of a sample -> positions of its rows
    for position, sample in enumerate(samples):
        positions.setdefault(id(sample), []).append(position)
    return list(chain.from_iterable(positions.values()))


def reorder(parts: Sequence[Any], order: Sequence[int]) -> Any:
    """What micro-batches hold under one name, in a new order of all their rows; what is not one for each row stays."""
    first = parts[0]
    if isinstance(first, list):
        rows = list(chain.from_iterable(parts))
        return [rows[position] for position in order]
    if first is None or first.ndim == 0:
        return first
    return torch.cat(list(parts))[order]
