"""OpenCV, of the extra `data`: imported where it is needed, as most of the package does without."""

from __future__ import annotations

from types import ModuleType


def require_opencv() -> ModuleType:
    """The module `cv2`. Raises ModuleNotFoundError that names the extra where it is not installed."""
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "OpenCV is not installed: pip install 'hf-talking-points[data]'"
        ) from error
    return cv2
