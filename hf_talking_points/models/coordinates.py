"""The one place that converts points: pixels of the displayed image, normalised to its sides, and the square canvas of the models.

Pixels: origin at the top-left corner of the top-left pixel, so an image spans [0, width] x [0, height] and the centre of its first
pixel is (0.5, 0.5). Normalised: x / width, y / height. Canvas: [0, 1]^2 of the padded square that the models see.
"""

import torch
from PIL import Image


def canvas_box(width, height, canvas_size):
    """Where an image of `width` x `height` lies on a canvas of `canvas_size`: (left, top, width, height) in whole canvas pixels."""
    scale = canvas_size / max(width, height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    return (
        (canvas_size - inner_width) // 2,
        (canvas_size - inner_height) // 2,
        inner_width,
        inner_height,
    )


def letterbox(image, canvas_size, fill=(127, 127, 127)):
    """Scales an RGB image to fit the canvas, keeping its aspect ratio, and pads it to a square with `fill`."""
    left, top, width, height = canvas_box(*image.size, canvas_size)
    canvas = Image.new("RGB", (canvas_size, canvas_size), fill)
    canvas.paste(
        image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0), (left, top)
    )
    return canvas


def check_points(points, width, height, normalized=False):
    """Points of one image as a float64 tensor of shape (n, 2) in pixels.

    Raises ValueError naming index and value for a wrong shape, a NaN, or a point outside [0, width] x [0, height]."""
    try:
        points = torch.as_tensor(points, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"points must be a list of (x, y) numbers, got {points!r}") from error
    if points.ndim != 2 or points.shape[-1] != 2:
        raise ValueError(f"points must have shape (number of points, 2), got {tuple(points.shape)}")
    limit = torch.tensor([1.0, 1.0] if normalized else [width, height], dtype=torch.float64)
    for index, point in enumerate(points):
        if not bool(((point >= 0) & (point <= limit)).all()):  # false for NaN too
            unit = "normalized units" if normalized else "pixels"
            raise ValueError(
                f"point {index} is {tuple(point.tolist())} but must lie in [0, {limit[0]:g}] x [0, {limit[1]:g}] {unit} "
                f"of an image of {width} x {height}"
            )
    return points * torch.tensor([width, height], dtype=torch.float64) if normalized else points


def pixels_to_canvas(points, width, height, canvas_size):
    """points (`torch.Tensor` of shape `(..., 2)`) in pixels -> canvas units."""
    left, top, inner_width, inner_height = canvas_box(width, height, canvas_size)
    scale = points.new_tensor([inner_width / width, inner_height / height])
    return (points * scale + points.new_tensor([left, top])) / canvas_size


def canvas_to_pixels(points, width, height, canvas_size):
    """points (`torch.Tensor` of shape `(..., 2)`) in canvas units -> pixels. Points on the padding come out beside the image."""
    left, top, inner_width, inner_height = canvas_box(width, height, canvas_size)
    scale = points.new_tensor([width / inner_width, height / inner_height])
    return (points * canvas_size - points.new_tensor([left, top])) * scale
