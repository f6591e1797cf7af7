"""Any image-text-to-text model as describer or as localizer of the protocol.

A describer is called with `(image, points)` and returns a text for each (x, y), a localizer with `(image, texts)` and
returns an array of shape `(len(texts), 2)`; points are pixels of `image`, a PIL RGB image, and a row of NaN is a text
for which the model gave no point: a miss. Both have a `name` for reports and a `fingerprint`, a string that changes
when their answers may. A model that points in its own way joins the panel by an adapter such as

    import numpy as np
    from transformers import AutoModelForCausalLM

    class MoondreamLocalizer:
        def __init__(self, model="vikhyatk/moondream2", revision="2025-06-21"):
            self.model = AutoModelForCausalLM.from_pretrained(
                model, revision=revision, trust_remote_code=True
            )
            self.name = "moondream2"
            self.fingerprint = f"{model}@{revision}"

        def __call__(self, image, texts):
            found = np.full((len(texts), 2), np.nan)
            for index, text in enumerate(texts):
                points = self.model.point(image, text)["points"]
                if points:
                    found[index] = points[0]["x"] * image.width, points[0]["y"] * image.height
            return found
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Pipeline, pipeline

from ..checkpoints import model_version
from ..models.coordinates import check_points
from ..prompts import LONGEST_SIDE, Message, ask, prompt_hash, ring_point
from .point_answers import axis_limits, parse_point, without_reasoning

PROMPTS = Path(__file__).parent / "prompts"
# Qwen2.5-VL answers in pixels of an image whose sides it has rounded to multiples of this
PATCH = 28


class _VisionLanguageModel:
    """Questions of one prompt file, put to an "image-text-to-text" pipeline that is loaded when first asked."""

    def __init__(
        self,
        model: str,
        prompt: str,
        batch_size: int,
        dtype: str | torch.dtype,
        device_map: Any,
        max_new_tokens: int,
        **options: Any,
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.batch_size = batch_size
        self.dtype = dtype
        self.device_map = device_map
        self.max_new_tokens = max_new_tokens
        self.name = Path(model).name
        facts = {
            "version": model_version(model),
            "prompt": prompt_hash(PROMPTS, [prompt]),
            "dtype": str(dtype),
            "max_new_tokens": max_new_tokens,
            **options,
        }
        self.fingerprint = hashlib.sha256(
            json.dumps(facts, sort_keys=True).encode()
        ).hexdigest()

    @cached_property
    def pipe(self) -> Pipeline:
        pipe = pipeline(
            "image-text-to-text",
            self.model,
            dtype=self.dtype,
            device_map=self.device_map,
        )
        pipe.tokenizer.padding_side = (
            "left"  # answers start where the longest question ends
        )
        pipe.tokenizer.pad_token = pipe.tokenizer.pad_token or pipe.tokenizer.eos_token
        return pipe

    def question(self, image: Image.Image, **words: Any) -> list[Message]:
        """The chat that shows an image and asks this model's question, its {places} filled with `words`."""
        return ask(PROMPTS, self.prompt, image=image, **words)

    def answers(self, chats: list[list[Message]]) -> list[str]:
        """One answer to each chat."""
        if not chats:
            return []
        # this pipeline takes all other arguments for its processor's
        answers = self.pipe(
            chats,
            batch_size=self.batch_size,
            return_full_text=False,
            generate_kwargs={"do_sample": False, "max_new_tokens": self.max_new_tokens},
        )
        return [answer[0]["generated_text"] for answer in answers]


class VisionLanguageDescriber(_VisionLanguageModel):
    """Describes points with a model that is shown the image with a ring around the point.

    Args:
        model (`str`): "image-text-to-text" model; Hub id or folder.
        batch_size (`int`), dtype (`str` or `torch.dtype`), device_map (*optional*): as of `pipeline`.
        max_new_tokens (`int`)
    """

    def __init__(
        self,
        model: str,
        batch_size: int = 8,
        dtype: str | torch.dtype = "auto",
        device_map: Any = None,
        max_new_tokens: int = 120,
    ) -> None:
        super().__init__(
            model, "describe", batch_size, dtype, device_map, max_new_tokens
        )

    def __call__(
        self, image: Image.Image, points: Sequence[tuple[float, float]]
    ) -> list[str]:
        """Describes points of an image.

        Args:
            image (PIL RGB image)
            points (list of `(x, y)`): in pixels of `image`. Raises ValueError for one outside it.
        Returns:
            `list[str]`: a text on one line for each point, "" where the model said nothing.
        """
        checked = check_points(points, *image.size).tolist()
        texts: list[str] = []
        # each point has a picture of its own: those of one batch exist at a time
        for start in range(0, len(checked), self.batch_size):
            batch = checked[start : start + self.batch_size]
            texts += self.answers(
                [self.question(ring_point(image, point)) for point in batch]
            )
        return [" ".join(without_reasoning(text).split()) for text in texts]


class VisionLanguageLocalizer(_VisionLanguageModel):
    """Finds points with a model that answers with coordinates.

    Args:
        model (`str`): "image-text-to-text" model; Hub id or folder.
        convention (`str`): of its answers, as of [`parse_point`]; also said in the question. "pixels" are those of the
            image as shown: not larger than `LONGEST_SIDE`, its sides multiples of 28.
        batch_size (`int`), dtype (`str` or `torch.dtype`), device_map (*optional*): as of `pipeline`.
        max_new_tokens (`int`)
    Attributes:
        malformed (`list`): (text, answer) of every answer so far in which [`parse_point`] found no point.
    """

    def __init__(
        self,
        model: str,
        convention: str,
        batch_size: int = 8,
        dtype: str | torch.dtype = "auto",
        device_map: Any = None,
        max_new_tokens: int = 128,
    ) -> None:
        axis_limits(convention, (1, 1))  # an unknown one is told now
        super().__init__(
            model,
            "locate",
            batch_size,
            dtype,
            device_map,
            max_new_tokens,
            convention=convention,
        )
        self.convention = convention
        self.malformed: list[tuple[str, str]] = []

    def shown(self, image: Image.Image) -> Image.Image:
        """`image` as the model is shown it."""
        image = image.copy()
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        if self.convention != "pixels":
            return image
        width = PATCH * max(1, round(image.width / PATCH))
        height = PATCH * max(1, round(image.height / PATCH))
        return image.resize((width, height))

    def __call__(self, image: Image.Image, texts: Sequence[str]) -> np.ndarray:
        """Where the model finds what texts describe.

        Args:
            image (PIL RGB image)
            texts (list of `str`)
        Returns:
            `np.ndarray` of shape `(len(texts), 2)`: pixels of `image`, rows of NaN for malformed answers.
        """
        shown = self.shown(image)
        right, bottom = axis_limits(self.convention, shown.size)
        chats = []
        for text in texts:
            chats.append(
                self.question(shown, description=text, width=right, height=bottom)
            )
        scale = np.array(image.size) / shown.size
        found = np.full((len(texts), 2), np.nan)
        for index, answer in enumerate(self.answers(chats)):
            point = parse_point(answer, self.convention, shown.size)
            if point is None:
                self.malformed.append((texts[index], answer))
            else:
                found[index] = point * scale
        return found
