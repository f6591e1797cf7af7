"""The one place that converts points: displayed pixels, parts of an image's sides, and the models' square canvas.

Pixels: origin at the top-left corner of the top-left pixel, so an image spans [0, width] x [0, height] and the center
of its first pixel is (0.5, 0.5). Normalized: x / width, y / height. Canvas: [0, 1]^2 of the padded square that the
models see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image


def canvas_box(width: int, height: int, canvas_size: int) -> tuple[int, int, int, int]:
    """Where an image lies on the canvas.

    Args:
        width (`int`), height (`int`): of the image in pixels.
        canvas_size (`int`): side of the canvas in pixels.
    Returns:
        (left, top, width, height) in whole canvas pixels.
    """
    scale = canvas_size / max(width, height)
    inner_width = max(1, round(width * scale))
    inner_height = max(1, round(height * scale))
    left = (canvas_size - inner_width) // 2
    top = (canvas_size - inner_height) // 2
    return left, top, inner_width, inner_height


def letterbox(
    image: Image.Image, canvas_size: int, fill: tuple[int, ...] = (127, 127, 127)
) -> Image.Image:
    """Scales an RGB image to fit the canvas, keeping its aspect ratio, and pads it to a square with `fill`."""
    left, top, width, height = canvas_box(image.width, image.height, canvas_size)
    scaled = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    canvas = Image.new("RGB", (canvas_size, canvas_size), fill)
    canvas.paste(scaled, (left, top))
    return canvas


def is_real(values: torch.Tensor | np.ndarray | Any) -> bool:
    """Whether values are real numbers, or arrays of these alone."""
    if isinstance(values, torch.Tensor):
        return not (values.is_complex() or values.dtype == torch.bool)
    if isinstance(values, (list, tuple)):
        return all(is_real(value) for value in values)
    if np.ma.is_masked(values):
        return False
    return np.asarray(values).dtype.kind in "fiu"


def real_points_tensor(points: torch.Tensor | Sequence) -> torch.Tensor:
    """Points as float64 `torch.Tensor`. Raises ValueError naming index and value of what is no real number."""
    if isinstance(points, (str, bytes)) or not hasattr(points, "__getitem__"):
        raise ValueError(f"points must be a list of (x, y) numbers, got {points!r}")
    if not is_real(points):
        for index, point in enumerate(points):
            if not is_real(point):
                raise ValueError(
                    f"points must be a list of (x, y) numbers, but point {index} is {point!r}"
                )
    if isinstance(points, (list, tuple)):
        # PyTorch makes no tensor of a list of tensors, such as rows of a dataset in the format "torch"
        points = [
            point.tolist() if isinstance(point, (torch.Tensor, np.ndarray)) else point
            for point in points
        ]
    try:
        return torch.as_tensor(points, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"points must be a list of (x, y) numbers, got {points!r}"
        ) from error


def check_points(
    points: torch.Tensor | Sequence, width: int, height: int, normalized: bool = False
) -> torch.Tensor:
    """Points of one image in pixels.

    Args:
        points (of shape `(n, 2)`): (x, y) in pixels of the displayed image.
        width (`int`), height (`int`): of the image in pixels.
        normalized (`bool`): the points are x / width, y / height instead.
    Returns:
        float64 `torch.Tensor` of shape `(n, 2)` in pixels.
    Raises:
        ValueError: naming index and value: a wrong shape, what is no real number (text, booleans, complex or masked
            values, dates), a NaN, a point outside [0, width] x [0, height].
    """
    points = real_points_tensor(points)
    if points.ndim != 2 or points.shape[-1] != 2:
        raise ValueError(
            f"points must have shape (number of points, 2), got {tuple(points.shape)}"
        )
    sides = torch.tensor([width, height], dtype=torch.float64)
    limit = torch.ones_like(sides) if normalized else sides
    unit = "normalized units" if normalized else "pixels"
    for index, point in enumerate(points):
        inside = (point >= 0) & (point <= limit)  # false for NaN too
        if not bool(inside.all()):
            raise ValueError(
                f"point {index} is {tuple(point.tolist())} but must lie in "
                f"[0, {limit[0]:g}] x [0, {limit[1]:g}] {unit} of an image of {width} x {height}"
            )
    return points * sides if normalized else points


def pixels_to_canvas(
    points: torch.Tensor, width: int, height: int, canvas_size: int
) -> torch.Tensor:
    """points (`torch.Tensor` of shape `(..., 2)`) in pixels -> canvas units."""
    left, top, inner_width, inner_height = canvas_box(width, height, canvas_size)
    scale = points.new_tensor([inner_width / width, inner_height / height])
    offset = points.new_tensor([left, top])
    return (points * scale + offset) / canvas_size


def canvas_to_pixels(
    points: torch.Tensor, width: int, height: int, canvas_size: int
) -> torch.Tensor:
    """points (`torch.Tensor` of shape `(..., 2)`) in canvas units -> pixels.

    Points on the padding come out beside the image."""
    left, top, inner_width, inner_height = canvas_box(width, height, canvas_size)
    scale = points.new_tensor([width / inner_width, height / inner_height])
    offset = points.new_tensor([left, top])
    return (points * canvas_size - offset) * scale
