"""Any image-text-to-text model as describer or as localizer of the protocol.

A describer is called with `(image, points)` and returns a text for each (x, y), a localizer with `(image, texts)` and returns an array of
shape `(len(texts), 2)`; points are pixels of `image`, a PIL RGB image, and a row of NaN is a text for which the model gave no point: a
miss. Both have a `name` for reports and a `fingerprint`, a string that changes when their answers may. A model that points in its own way
joins the panel by an adapter such as

    import numpy as np
    from transformers import AutoModelForCausalLM

    class MoondreamLocalizer:
        def __init__(self, model="vikhyatk/moondream2", revision="2025-06-21"):
            self.model = AutoModelForCausalLM.from_pretrained(model, revision=revision, trust_remote_code=True)
            self.name, self.fingerprint = "moondream2", f"{model}@{revision}"

        def __call__(self, image, texts):
            found = np.full((len(texts), 2), np.nan)
            for row, text in zip(found, texts):
                points = self.model.point(image, text)["points"]
                if points:
                    row[:] = points[0]["x"] * image.width, points[0]["y"] * image.height
            return found
"""

import hashlib
import json
import re
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import AutoConfig, pipeline

from ..data.teachers import LONGEST_SIDE, ask, prompt_hash, ring_point
from ..models.coordinates import check_points

PROMPTS = Path(__file__).parent / "prompts"
CONVENTIONS = {
    "0-1": 1,
    "0-100": 100,
    "0-1000": 1000,
    "pixels": None,
}  # what the right and the bottom edge are called
UNITS = {"0-100": "%", "pixels": "px"}  # that an answer may write behind its numbers
PATCH = 28  # pixels; Qwen2.5-VL answers in pixels of an image whose sides it has rounded to multiples of this

_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_GAP = r"(?:\s*[,;]\s*|\s+)"
_POINT = re.compile(
    rf"(?:[\[(]|<point>)\s*{_NUMBER}{_GAP}{_NUMBER}(?:{_GAP}{_NUMBER}{_GAP}{_NUMBER})?\s*(?:[\])]|</point>)"
    rf"|\bx1?[\"']?\s*[=:]\s*[\"']?{_NUMBER}[\"']?[\s,;]*(?:and\s+)?[\"']?y1?[\"']?\s*[=:]\s*[\"']?{_NUMBER}"
    rf"|\bcoords=[\"']\s*\d+\s+\d+\s+{_NUMBER}\s+{_NUMBER}"
    rf"|\A\s*{_NUMBER}{_GAP}{_NUMBER}\s*\.?\s*\Z"
)


def axis_limits(convention, size):
    """What x is called at the right edge and y at the bottom edge of an image of `size`. Raises ValueError for an unknown convention."""
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {tuple(CONVENTIONS)}, got {convention!r}")
    limit = CONVENTIONS[convention]
    return tuple(size) if limit is None else (limit, limit)


def without_reasoning(answer):
    """What a model says after its <think> block; nothing where that does not end."""
    return answer.rpartition("</think>")[2].partition("<think>")[0]


def parse_point(answer, convention, size):
    """The first point that an answer names.

    Read are (x, y) and [x, y], also within JSON such as {"point_2d": [x, y]}; x and y as attributes (<point x="1" y="2">,
    <points x1="1" y1="2" ...>) or keys (x=1, y=2; {"x": 1, "y": 2}); <points coords="image object x y ...">; <point>x y</point>; two bare
    numbers; and a box [x1, y1, x2, y2], of which the centre is meant. <think> blocks are skipped.

    Args:
        answer (`str`)
        convention (`str`): "0-1", "0-100" or "0-1000" of width and height, or "pixels".
        size (`tuple`): (width, height) in pixels of the image that the model was shown.
    Returns:
        (x, y) in pixels of that image, or None for an answer without a point, or whose point or box leaves the convention's range.
    """
    limits = axis_limits(convention, size)
    found = _POINT.search(without_reasoning(answer).replace(UNITS.get(convention, ""), ""))
    if found is None:
        return None
    values = [float(value) for value in found.groups() if value is not None]
    axes = (values[::2], values[1::2])
    if not all(0 <= value <= limit for axis, limit in zip(axes, limits) for value in axis):
        return None
    return tuple(
        sum(axis) / len(axis) / limit * side for axis, limit, side in zip(axes, limits, size)
    )


def model_version(model):
    """The commit of a model of the Hub; of a local folder, SHA-256 over its files."""
    folder = Path(model)
    if not folder.is_dir():
        return AutoConfig.from_pretrained(model)._commit_hash
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with open(file, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


class _VisionLanguageModel:
    """Questions of one prompt file, put to an "image-text-to-text" pipeline that is loaded when first asked."""

    def __init__(self, model, prompt, batch_size, dtype, device_map, max_new_tokens, **options):
        self.model, self.prompt = model, prompt
        self.batch_size, self.dtype, self.device_map, self.max_new_tokens = (
            batch_size,
            dtype,
            device_map,
            max_new_tokens,
        )
        self.name = Path(model).name
        facts = {
            "version": model_version(model),
            "prompt": prompt_hash([prompt], PROMPTS),
            "dtype": str(dtype),
            "max_new_tokens": max_new_tokens,
            **options,
        }
        self.fingerprint = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def pipe(self):
        pipe = pipeline(
            "image-text-to-text", self.model, dtype=self.dtype, device_map=self.device_map
        )
        pipe.tokenizer.padding_side = "left"  # answers start where the longest question ends
        pipe.tokenizer.pad_token = pipe.tokenizer.pad_token or pipe.tokenizer.eos_token
        return pipe

    def answers(self, questions):
        """One answer to each of `questions` (iterable of (PIL image, the words that fill the prompt's {places}))."""
        chats = [
            ask(self.prompt, image=image, folder=PROMPTS, **words) for image, words in questions
        ]
        generation = {"do_sample": False, "max_new_tokens": self.max_new_tokens}
        # this pipeline takes all other arguments for its processor's
        answers = (
            self.pipe(
                chats,
                batch_size=self.batch_size,
                return_full_text=False,
                generate_kwargs=generation,
            )
            if chats
            else []
        )
        return [answer[0]["generated_text"] for answer in answers]


class VisionLanguageDescriber(_VisionLanguageModel):
    """Describes points with a model that is shown the image with a ring around the point.

    Args:
        model (`str`): "image-text-to-text" model; Hub id or folder.
        batch_size (`int`), dtype (`str` or `torch.dtype`), device_map (*optional*): as of `pipeline`.
        max_new_tokens (`int`)
    """

    def __init__(self, model, batch_size=8, dtype="auto", device_map=None, max_new_tokens=120):
        super().__init__(model, "describe", batch_size, dtype, device_map, max_new_tokens)

    def __call__(self, image, points):
        """-> a text, on one line, for each (x, y) in pixels of `image`; "" where the model said nothing.

        Raises ValueError for a point outside the image."""
        points = check_points(points, *image.size).tolist()
        texts = []
        for start in range(0, len(points), self.batch_size):  # each point has a picture of its own
            texts += self.answers(
                (ring_point(image, point), {}) for point in points[start : start + self.batch_size]
            )
        return [" ".join(without_reasoning(text).split()) for text in texts]


class VisionLanguageLocalizer(_VisionLanguageModel):
    """Finds points with a model that answers with coordinates.

    Args:
        model (`str`): "image-text-to-text" model; Hub id or folder.
        convention (`str`): of its answers, as of [`parse_point`]; also said in the question. "pixels" are those of the image as shown:
            not larger than `LONGEST_SIDE`, its sides multiples of 28.
        batch_size (`int`), dtype (`str` or `torch.dtype`), device_map (*optional*): as of `pipeline`.
        max_new_tokens (`int`)
    Attributes:
        malformed (`list`): (text, answer) of every answer so far in which [`parse_point`] found no point.
    """

    def __init__(
        self, model, convention, batch_size=8, dtype="auto", device_map=None, max_new_tokens=128
    ):
        axis_limits(convention, (1, 1))
        super().__init__(
            model, "locate", batch_size, dtype, device_map, max_new_tokens, convention=convention
        )
        self.convention, self.malformed = convention, []

    def shown(self, image):
        """`image` as the model is shown it."""
        image = image.copy()
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        if self.convention == "pixels":
            image = image.resize([PATCH * max(1, round(side / PATCH)) for side in image.size])
        return image

    def __call__(self, image, texts):
        """-> array of shape `(len(texts), 2)` in pixels of `image`, rows of NaN for malformed answers."""
        shown = self.shown(image)
        width, height = axis_limits(self.convention, shown.size)
        answers = self.answers(
            (shown, {"description": text, "width": width, "height": height}) for text in texts
        )
        found = np.full((len(texts), 2), np.nan)
        for row, text, answer in zip(found, texts, answers):
            point = parse_point(answer, self.convention, shown.size)
            if point is None:
                self.malformed.append((text, answer))
            else:
                row[:] = np.array(point) / shown.size * image.size
        return found
