"""`pipeline("point-description")` and `pipeline("point-localization")`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import GenerationConfig, Pipeline, PreTrainedModel

from .images import to_rgb
from .modeling_point_descriptor import PointDescriptorForConditionalGeneration
from .modeling_point_localizer import PointLocalizerForKeypointDetection
from .remote_code import CompleteRepoMixin, write_remote_code

# options of `generate` that change what it returns beside the sequences, which are all that an answer is made of
SEQUENCES_ALONE = {
    "return_dict_in_generate": False,
    "output_scores": False,
    "output_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
}
# inputs that are one image or row, although some of them can be iterated over
ONE_INPUT = (
    str,
    bytes,
    os.PathLike,
    io.IOBase,
    dict,
    Image.Image,
    np.ndarray,
    torch.Tensor,
)


class Rows(Dataset):
    """A sequence of inputs as a dataset of torch, which transformers' pipelines answer row by row."""

    def __init__(self, rows: Sequence) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


def lazy_inputs(inputs: Any) -> Any:
    """Inputs of a pipeline in a form that transformers tells from a single one.

    A `datasets.Dataset`, a column of one, and any other sequence or iterable become a dataset of torch or a generator;
    a list, of which all answers are made at once, and everything else stays what it is."""
    if isinstance(inputs, (list, Dataset, GeneratorType, *ONE_INPUT)):
        return inputs
    if hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__"):
        return Rows(inputs)
    if isinstance(inputs, Iterable):
        return (row for row in inputs)
    return inputs


def split_by_counts(values: Sequence, counts: Sequence[int]) -> list[Sequence]:
    """Consecutive parts of `values`, of `counts[0]`, `counts[1]`, … entries."""
    parts = []
    start = 0
    for count in counts:
        parts.append(values[start : start + count])
        start += count
    return parts


def check_weights(model: PreTrainedModel) -> None:
    """Raises ValueError, with their names, for weights that a checkpoint lacks, and for one that is not finite."""
    fresh = model.fresh_weights
    if fresh:
        named = ", ".join(fresh[:3])
        raise ValueError(
            f"the checkpoint lacks {len(fresh)} weights of the model, which were drawn at random, such as {named}: "
            "its answers would mean nothing"
        )
    for name, weight in model.named_parameters():
        has_values = weight.device.type != "meta" and weight.numel() > 0
        # there is no maximum of 8 bits
        if not has_values or not weight.is_floating_point() or weight.itemsize < 2:
            continue
        if not weight.detach().abs().amax().isfinite():
            raise ValueError(
                f"weight {name} is not finite: the model diverged, or overflowed where it was stored"
            )


def check_encodings(points: torch.Tensor) -> None:
    """Raises ValueError, with the index, where the encoding of a point, a row of `points`, is not finite."""
    is_finite = points.isfinite().all(-1)
    if not is_finite.all():
        index = int((~is_finite).nonzero()[0])
        raise ValueError(
            f"the encoding of point {index} is not finite: the model overflows in {points.dtype}, or its image does"
        )


class _TalkingPointsPipeline(CompleteRepoMixin, Pipeline):
    """Common part of both pipelines.

    An image and all its points or texts are one input. `preprocess` holds them in tuples: the batching of transformers
    makes a list of them, one entry for each image, and leaves a single input as it is."""

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        expected = self.model_class.config_class.model_type
        given = self.model.config.model_type
        if given != expected:
            raise ValueError(
                f"{type(self).__name__} needs a {expected} checkpoint, but got a {given} one"
            )
        check_weights(self.model)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Answers to one input, or to several.

        Args:
            inputs: an image or a row; a list of these, which gives a list of answers; or a dataset (of torch or of
                `datasets`), a column of one, a generator or another iterable of these, which gives an iterator that
                reads, computes and yields the answers row by row.
        """
        return super().__call__(lazy_inputs(inputs), *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves a complete repo: weights, configs, processor, and the code for use without this package."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)
        write_remote_code(save_directory)


class PointDescriptionPipeline(_TalkingPointsPipeline):
    """Describes pixels of an image in words.

        describe = pipeline("point-description")
        describe(image, points=[(x, y), ...])  # -> [{"point": (x, y), "description": str}, ...]
        describe([{"image": image, "points": [...]}, ...], batch_size=8)  # -> a list of such lists

    `image` is a PIL image, path, URL or array; points are pixels of the displayed image, with `normalized=True` parts
    of its width and height. The image is encoded once for all its points. `style` asks for "rich" or "short"
    descriptions, of a checkpoint that knows them (`processor.styles`).

    Options of `generate` are taken in the call, as `generate_kwargs`, in a `generation_config`, or when the pipeline
    is made. With several returned sequences (`num_return_sequences`) each point has that many answers, one after the
    other.

    Raises ValueError for no points, for points outside the image, and for a style that the checkpoint does not know.
    """

    model_class = PointDescriptorForConditionalGeneration
    _pipeline_calls_generate = True
    _default_generation_config = GenerationConfig(max_new_tokens=128, do_sample=False)

    def _sanitize_parameters(
        self,
        points: Sequence | None = None,
        normalized: bool | None = None,
        style: str | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        preprocess: dict[str, Any] = {}
        forward = {**kwargs, **(generate_kwargs or {})}
        if style is not None:
            forward["style"] = style
        if points is not None:
            preprocess["points"] = points
        if normalized is not None:
            preprocess["normalized"] = normalized
        return preprocess, forward, {}

    def preprocess(
        self, inputs: Any, points: Sequence | None = None, normalized: bool = False
    ) -> dict[str, Any]:
        if isinstance(inputs, dict) and "image" in inputs:
            points = inputs.get("points", points)
            inputs = inputs["image"]
        if points is None or len(points) == 0:
            raise ValueError("points must hold at least one (x, y)")
        if np.ndim(points[0]) == 0:
            points = [tuple(points)]
        image = to_rgb(inputs)
        canvas_points = self.processor.points_to_canvas(points, image.size, normalized)
        return {
            "pixel_values": self.processor.pixel_values([image]).to(self.dtype),
            "input_points": tuple(tuple(point) for point in canvas_points.tolist()),
            "points": tuple((float(x), float(y)) for x, y in points),
        }

    def generate_options(self, generate_kwargs: dict[str, Any]) -> dict[str, Any]:
        """What `generate` gets for a call: sequences alone, and the tokenizer that stop strings need."""
        options = self._prepare_generate_kwargs(generate_kwargs, **SEQUENCES_ALONE)
        if (
            options.get("generation_config") is not None
        ):  # which has these options from now on
            for name in SEQUENCES_ALONE:
                options.pop(name, None)
        options.setdefault("tokenizer", self.processor.tokenizer)
        if self.assistant_model is not None:
            options.setdefault("assistant_model", self.assistant_model)
            options.setdefault("assistant_tokenizer", self.assistant_tokenizer)
        return options

    def _forward(
        self,
        model_inputs: dict[str, Any],
        style: str | None = None,
        **generate_kwargs: Any,
    ) -> dict[str, Any]:
        points = model_inputs["points"]
        batched = isinstance(points, list)
        canvas_points = model_inputs["input_points"]
        points_of_images = canvas_points if batched else [canvas_points]
        counts = [len(image_points) for image_points in points_of_images]
        rows = sum(counts)
        input_points = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(image_points) for image_points in points_of_images],
            batch_first=True,
            padding_value=float("nan"),
        )  # (images, points, 2)
        image = self.model.get_image_features(
            model_inputs["pixel_values"], input_points.to(self.device)
        )
        check_encodings(image.point_embeds)
        tokens_of_rows = []
        for tokens, count in zip(image.pooler_output, counts):
            tokens_of_rows += [tokens] * count
        image.pooler_output = tokens_of_rows
        prompts = [self.processor.render(style=style)] * rows
        prompt = self.processor.tokenize(prompts, padding_side="left").to(self.device)
        sequences = self.model.generate(
            **prompt,
            mm_encoder_outputs={"image": image},
            **self.generate_options(generate_kwargs),
        )
        prompt_length = prompt["input_ids"].shape[1]
        answers = sequences[:, prompt_length:].tolist()
        answers_per_point = len(answers) // rows
        ids = split_by_counts(answers, [count * answers_per_point for count in counts])
        return {"ids": ids if batched else ids[0], "points": points}

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, Any]]:
        texts = self.processor.batch_decode(outputs["ids"], skip_special_tokens=True)
        answers_per_point = len(texts) // len(outputs["points"])
        return [
            {
                "point": outputs["points"][index // answers_per_point],
                "description": text.strip(),
            }
            for index, text in enumerate(texts)
        ]


class PointLocalizationPipeline(_TalkingPointsPipeline):
    """Finds the pixels that texts describe.

        locate = pipeline("point-localization")
        locate(image, text="the dog's left eye")  # -> [{"description", "point": (x, y), "confidence"}]
        locate([{"image": image, "text": [...]}, ...], batch_size=8)  # -> a list of such lists

    Points are pixels of the displayed image. `confidence` is the share of the heat map around the point, or of a
    calibrated localizer the probability that the right point is within 0.1 of the image's sides; in [0, 1], and None
    for a head without a map. With `return_heatmaps=True` each answer has "heatmap", a float array on the square
    canvas.

    Raises ValueError for no text, an empty text and a text longer than the model's context.
    """

    model_class = PointLocalizerForKeypointDetection

    def _sanitize_parameters(
        self,
        text: str | Sequence[str] | None = None,
        return_heatmaps: bool | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        preprocess = {} if text is None else {"text": text}
        postprocess = (
            {} if return_heatmaps is None else {"return_heatmaps": return_heatmaps}
        )
        return preprocess, {}, postprocess

    def preprocess(
        self, inputs: Any, text: str | Sequence[str] | None = None
    ) -> dict[str, Any]:
        if isinstance(inputs, dict) and "image" in inputs:
            text = inputs.get("text", text)
            inputs = inputs["image"]
        descriptions = [text] if isinstance(text, str) else text
        descriptions = [] if descriptions is None else list(descriptions)
        self.processor.check_descriptions(descriptions)
        # too long a text is an error here, beside its own image
        self.processor.encode_descriptions(descriptions)
        image = to_rgb(inputs)
        return {
            "pixel_values": self.processor.pixel_values([image]).to(self.dtype),
            "descriptions": tuple(descriptions),
            "size": (image.height, image.width),
        }

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        descriptions = model_inputs["descriptions"]
        batched = isinstance(descriptions, list)
        texts_of_images = descriptions if batched else [descriptions]
        sizes = model_inputs["size"] if batched else [model_inputs["size"]]
        texts = []
        sizes_of_rows = []
        image_index = []
        for index, (image_texts, size) in enumerate(zip(texts_of_images, sizes)):
            texts += image_texts
            sizes_of_rows += [size] * len(image_texts)
            image_index += [index] * len(image_texts)
        image = self.model.get_image_features(model_inputs["pixel_values"])
        encoded = self.processor.encode_descriptions(texts).to(self.device)
        outputs = self.model(
            **encoded,
            mm_encoder_outputs={"image": image},
            image_index=torch.tensor(image_index, device=self.device),
        )
        answers = self.processor.post_process_keypoint_detection(outputs, sizes_of_rows)
        for answer, text in zip(answers, texts):
            answer["description"] = text
        if outputs.heatmaps is not None:
            for answer, heatmap in zip(answers, outputs.heatmaps.float().cpu().numpy()):
                answer["heatmap"] = heatmap
        found = split_by_counts(
            answers, [len(image_texts) for image_texts in texts_of_images]
        )
        return {"found": found if batched else found[0]}

    def postprocess(
        self, outputs: dict[str, Any], return_heatmaps: bool = False
    ) -> list[dict[str, Any]]:
        keys = ["description", "point", "confidence"]
        if return_heatmaps:
            keys.append("heatmap")
        return [{key: answer.get(key) for key in keys} for answer in outputs["found"]]
