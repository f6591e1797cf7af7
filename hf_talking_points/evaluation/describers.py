"""What the protocol asks: checkpoints and image-text-to-text models as describers and localizers, from how options
name them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import Pipeline, pipeline

from ..checkpoints import model_version
from ..localization import locate_texts, points_of
from .round_trip import Point
from .vision_language import VisionLanguageDescriber, VisionLanguageLocalizer
from .written_descriptions import WrittenDescriptions


class Checkpoint:
    """A checkpoint whose pipeline is loaded when first asked.

    Args:
        checkpoint (`str`): folder or Hub id.
    """

    task: str

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        self.name = Path(checkpoint).name
        self.fingerprint = model_version(checkpoint)

    @cached_property
    def pipe(self) -> Pipeline:
        return pipeline(self.task, model=self.checkpoint)


class CheckpointDescriber(Checkpoint):
    """A Point Descriptor as describer of the protocol."""

    task = "point-description"

    def __call__(self, image: Image.Image, points: Sequence[Point]) -> list[str]:
        answers = self.pipe(image, points=points, num_return_sequences=1)
        return [answer["description"] for answer in answers]


class CheckpointLocalizer(Checkpoint):
    """A Point Localizer as localizer of the protocol. It has no answer to texts that it cannot take: too long, special
    tokens."""

    task = "point-localization"

    def __call__(self, image: Image.Image, texts: Sequence[str]) -> np.ndarray:
        [answers] = locate_texts(self.pipe, [(image, texts)])
        return points_of(answers)


def load_describer(spec: str) -> Any:
    """The describer, or the [`WrittenDescriptions`], that an option names.

    Args:
        spec (`str`): "point-descriptor:CHECKPOINT", "vlm:MODEL" or "jsonl:FILE".

    Raises ValueError for anything else.
    """
    kind, _, source = spec.partition(":")
    kinds = {
        "point-descriptor": CheckpointDescriber,
        "vlm": VisionLanguageDescriber,
        "jsonl": WrittenDescriptions,
    }
    if kind not in kinds or not source:
        raise ValueError(
            f"descriptions {spec!r}: expected ground-truth, point-descriptor:CHECKPOINT, vlm:MODEL or jsonl:FILE"
        )
    return kinds[kind](source)


def load_localizer(spec: str) -> Any:
    """The localizer that an option names.

    Args:
        spec (`str`): a checkpoint (folder or Hub id), or "vlm:CONVENTION:MODEL" with a convention of [`parse_point`].

    Raises ValueError for a "vlm:" without convention or model.
    """
    if not spec.startswith("vlm:"):
        return CheckpointLocalizer(spec)
    _, convention, *model = spec.split(":", 2)
    if not model:
        raise ValueError(
            f"localizer {spec!r}: expected a checkpoint, or vlm:CONVENTION:MODEL, "
            "such as vlm:0-1000:Qwen/Qwen3-VL-2B-Instruct"
        )
    return VisionLanguageLocalizer(model[0], convention)
