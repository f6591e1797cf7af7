"""Processors: photos become square canvases, points canvas coordinates, texts prompts with placeholders, and answers
pixels again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    BatchEncoding,
    BatchFeature,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    ViTImageProcessorPil,
)

from .coordinates import canvas_to_pixels, check_points, letterbox, pixels_to_canvas
from .images import to_rgb
from .remote_code import CompleteRepoMixin

if TYPE_CHECKING:
    from .modeling_point_localizer import PointLocalizerOutput

# turns message contents (a string, or parts of type image, point and text) into strings, whatever template follows
FLATTEN_CONTENT = """
{%- set flat = namespace(messages=[], text='') -%}
{%- for message in messages -%}
  {%- if message['content'] is string -%}{%- set flat.text = message['content'] -%}
  {%- else -%}
    {%- set flat.text = '' -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'image' -%}{%- set flat.text = flat.text + '<image>' -%}
      {%- elif part['type'] == 'point' -%}{%- set flat.text = flat.text + '<region>' -%}
      {%- elif part['type'] == 'text' -%}{%- set flat.text = flat.text + part['text'] -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- set flat.messages = flat.messages + [{'role': message['role'], 'content': flat.text}] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""
PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- message['content'] -}}"
    "{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- else -%}{{- '\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
)


def per_channel(value: float | Sequence[float]) -> list[float]:
    """A value for each of the three color channels."""
    return list(value) if isinstance(value, Sequence) else [value] * 3


class TalkingPointsProcessor(CompleteRepoMixin, ProcessorMixin):
    """Common part of both processors.

    Args:
        image_processor: rescales and normalizes; its `size` is the canvas.
        tokenizer: the language model's, with the special tokens added.
        chat_template (`str`, *optional*): renders a conversation as text.
        image_seq_length (`int`): image tokens per image, equal to the model's `config.image_seq_length`.
        prompt (`str`): the user's message; fixed in training and use.
    """

    special_tokens: ClassVar[tuple[str, ...]] = ()
    default_prompt: ClassVar[str] = ""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_seq_length: int = 256,
        prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_seq_length = image_seq_length
        self.prompt = prompt or self.default_prompt
        self.image_token = "<image>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(
            image_processor, tokenizer, chat_template=chat_template, **kwargs
        )

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: PreTrainedTokenizerBase | str | os.PathLike,
        image_size: int = 1024,
        image_seq_length: int = 256,
        image_mean: float | Sequence[float] = 0.5,
        image_std: float | Sequence[float] = 0.5,
    ) -> TalkingPointsProcessor:
        """A fresh processor for a language model's tokenizer.

        Args:
            tokenizer: object, path or Hub id; this processor's special tokens are added to it.
            image_size (`int`): side of the canvas in pixels.
            image_seq_length (`int`): image tokens per image, equal to the model's `config.image_seq_length`.
            image_mean, image_std (`float` or one for each channel): of pixel values in [0, 1].
        """
        if isinstance(tokenizer, (str, os.PathLike)):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        tokenizer.add_special_tokens(
            {"additional_special_tokens": list(cls.special_tokens)},
            replace_extra_special_tokens=False,
        )
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        image_processor = ViTImageProcessorPil(
            size={"height": image_size, "width": image_size},
            image_mean=per_channel(image_mean),
            image_std=per_channel(image_std),
        )
        template = FLATTEN_CONTENT + (tokenizer.chat_template or PLAIN_TEMPLATE)
        return cls(
            image_processor,
            tokenizer,
            chat_template=template,
            image_seq_length=image_seq_length,
        )

    @property
    def image_size(self) -> int:
        """Side of the canvas in pixels."""
        return self.image_processor.size["height"]

    def canvas(self, image: Image.Image) -> Image.Image:
        """A PIL RGB image on the canvas that the model sees; the padding has the mean color."""
        fill = tuple(round(255 * mean) for mean in self.image_processor.image_mean)
        return letterbox(image, self.image_size, fill)

    def pixel_values(self, images: Sequence[Image.Image]) -> torch.FloatTensor:
        """PIL RGB images -> `torch.FloatTensor` of shape `(images, 3, image_size, image_size)`."""
        canvases = [self.canvas(image) for image in images]
        return self.image_processor(canvases, return_tensors="pt")["pixel_values"]

    def tokenize(self, texts: Sequence[str], **kwargs: Any) -> BatchEncoding:
        """Prompts with one `<image>` each -> input ids with all image placeholders.

        Args:
            texts (`list[str]`)
            kwargs: further options of the tokenizer.
        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask` of shape `(texts, length)`.
        Raises:
            ValueError: a text is longer than the model's context.
        """
        placeholders = self.image_token * self.image_seq_length
        texts = [text.replace(self.image_token, placeholders) for text in texts]
        options = {
            "padding": True,
            "return_tensors": "pt",
            "add_special_tokens": False,
            "verbose": False,  # the error below says it better than the warning
            **kwargs,
        }
        encoded = self.tokenizer(texts, **options)
        self.check_lengths(encoded["attention_mask"].tolist())
        return encoded

    def check_lengths(self, attention_mask: list[list[int]]) -> None:
        """Raises ValueError, naming row and length, for a row that is longer than the model's context.

        Args:
            attention_mask (of shape `(rows, length)`): 0 = padding.
        """
        limit = self.tokenizer.model_max_length
        for index, mask in enumerate(attention_mask):
            length = sum(mask)
            if length > limit:
                raise ValueError(
                    f"text {index} has {length} tokens with its prompt, "
                    f"but the model's context holds {limit}: shorten it"
                )

    def _load_images(self, images: Any) -> list[Image.Image]:
        """An image or a list of images, or of lists of one image each as chat templates give, as PIL RGB images."""
        if images is None:
            raise ValueError("images are required")
        entries = images if isinstance(images, (list, tuple)) else [images]
        loaded = []
        for entry in entries:
            of_conversation = entry if isinstance(entry, (list, tuple)) else [entry]
            loaded += [to_rgb(image) for image in of_conversation]
        return loaded


class PointDescriptorProcessor(TalkingPointsProcessor):
    """Images and points -> inputs of [`PointDescriptorForConditionalGeneration`]."""

    special_tokens = ("<image>", "<region>")
    default_prompt = "<image>Please describe region1 <region>."

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_seq_length: int = 256,
        prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.region_token = "<region>"
        self.region_token_id = tokenizer.convert_tokens_to_ids(self.region_token)
        super().__init__(
            image_processor,
            tokenizer,
            chat_template,
            image_seq_length,
            prompt,
            **kwargs,
        )

    def render(self, description: str | None = None, **kwargs: Any) -> str:
        """The prompt as text and, with `description`, all that is to be generated after it; `kwargs` go to the chat
        template of the prompt."""
        request = {"role": "user", "content": self.prompt}
        prompt = self.apply_chat_template(
            [request], tokenize=False, add_generation_prompt=True, **kwargs
        )
        if description is None:
            return prompt
        return prompt + description + self.end_of_turn()

    def end_of_turn(self) -> str:
        """What is to be generated after a description: the end of the turn, up to the token that ends a generation.

        What a chat template puts before the description, such as an empty block of thoughts, is no part of it: it is
        in the prompt or nowhere."""
        messages = [
            {"role": "user", "content": self.prompt},
            {"role": "assistant", "content": "{description}"},
        ]
        conversation = self.apply_chat_template(messages, tokenize=False)
        end = conversation.rpartition("{description}")[2]
        eos_token = self.tokenizer.eos_token
        return end.partition(eos_token)[0] + eos_token

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        points: Sequence | None = None,
        normalized: bool = False,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            images: an image or a list of images, of any kind that [`to_rgb`] takes.
            text (`str` or `list[str]`, *optional*): prompts with placeholders; by default the fixed prompt, one row
                for each point.
            points: (x, y) pairs in pixels of the displayed image; for a list of images a list of such lists.
            normalized (`bool`): the points are x / width, y / height instead.
        Returns:
            `BatchFeature` with `pixel_values` (images, 3, s, s), `input_points` (images, points, 2) on the canvas, NaN
            where an image has fewer points, `input_ids` and `attention_mask` (rows, length).
        Raises:
            ValueError: a point outside its image, NaN, of wrong shape; no points; placeholders and points that do not
                match.
        """
        single = not isinstance(images, (list, tuple))
        images = self._load_images(images)
        if points is None or len(points) == 0:
            raise ValueError("points must hold at least one (x, y)")
        points_of_images = [points] if single else points
        if len(points_of_images) != len(images):
            raise ValueError(
                f"{len(images)} images but {len(points_of_images)} lists of points"
            )
        canvas_points = [
            self.points_to_canvas(image_points, image.size, normalized)
            for image_points, image in zip(points_of_images, images)
        ]
        count = sum(len(image_points) for image_points in canvas_points)
        if text is None:
            text = [self.render()] * count
        texts = [text] if isinstance(text, str) else list(text)
        regions = sum(row.count(self.region_token) for row in texts)
        if regions != count:
            raise ValueError(
                f"the text has {regions} {self.region_token} placeholders but there are {count} points"
            )
        kwargs.pop("return_tensors", None)
        encoded = self.tokenize(texts, **{"padding_side": "left", **kwargs})
        input_points = torch.nn.utils.rnn.pad_sequence(
            canvas_points, batch_first=True, padding_value=float("nan")
        )
        return BatchFeature(
            {
                **encoded,
                "pixel_values": self.pixel_values(images),
                "input_points": input_points,
            }
        )

    def points_to_canvas(
        self, points: Sequence, size: tuple[int, int], normalized: bool = False
    ) -> torch.FloatTensor:
        """Checked points of one image on the canvas.

        Args:
            points (of shape `(n, 2)`): (x, y) in pixels of the displayed image.
            size (`tuple[int, int]`): (width, height) of the image in pixels.
            normalized (`bool`): the points are x / width, y / height instead.
        Returns:
            float32 `torch.FloatTensor` of shape `(n, 2)`: (x, y) on the canvas, in [0, 1].
        Raises:
            ValueError: no points, or as in [`check_points`].
        """
        pixels = check_points(points, *size, normalized)
        if not len(pixels):
            raise ValueError("points must hold at least one (x, y)")
        return pixels_to_canvas(pixels, *size, self.image_size).float()

    def _multimodal_inputs_from_conversations(
        self, conversations: list, *args: Any, **kwargs: Any
    ) -> tuple:
        images, videos, audios, extra = super()._multimodal_inputs_from_conversations(
            conversations, *args, **kwargs
        )
        points = [
            points_of_conversation(conversation) for conversation in conversations
        ]
        if any(points):
            extra = {**extra, "points": points}
        return images, videos, audios, extra

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "input_points"]


def points_of_conversation(conversation: list[dict[str, Any]]) -> list:
    """The points in the messages of a conversation, in their order."""
    points = []
    for message in conversation:
        content = message["content"]
        if isinstance(content, str):
            continue
        points += [part["point"] for part in content if part["type"] == "point"]
    return points


class PointLocalizerProcessor(TalkingPointsProcessor):
    """Images and descriptions -> inputs of [`PointLocalizerForKeypointDetection`], and its outputs -> pixels.

    Args, beside those of [`TalkingPointsProcessor`]:
        reply (`str`, *optional*): the fixed answer, which ends in `<SEG>`.
    """

    special_tokens = ("<image>", "<p>", "</p>", "<SEG>")
    default_prompt = "<image>Please segment region1: {description}"

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_seq_length: int = 256,
        prompt: str | None = None,
        reply: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.reply = reply or "<p> keypoint </p> <SEG>"
        self.seg_token_id = tokenizer.convert_tokens_to_ids("<SEG>")
        super().__init__(
            image_processor,
            tokenizer,
            chat_template,
            image_seq_length,
            prompt,
            **kwargs,
        )

    def render(self, description: str) -> str:
        """The conversation as text: the prompt with the description and the fixed reply that ends in `<SEG>`."""
        request = self.prompt.replace("{description}", description)
        messages = [{"role": "user", "content": request}]
        prompt = self.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return prompt + self.reply

    def __call__(
        self, images: Any = None, text: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """
        Args:
            images: an image or a list of images, of any kind that [`to_rgb`] takes.
            text: a description or a list of them; for a list of images a list of such lists.
        Returns:
            `BatchFeature` with `pixel_values` (images, 3, s, s), `input_ids` and `attention_mask` (rows, length), and
            `image_index` (rows,), the image of each row.
        Raises:
            ValueError: no text, an empty text, one with special tokens, one that is longer than the context.
        """
        single = not isinstance(images, (list, tuple))
        images = self._load_images(images)
        text_of_images = [text] if single else text
        entries = 0 if text_of_images is None else len(text_of_images)
        if entries != len(images):
            raise ValueError(
                f"{len(images)} images but {entries} lists of descriptions"
            )
        descriptions = []
        image_index = []
        for index, image_text in enumerate(text_of_images):
            of_image = (
                [image_text] if isinstance(image_text, str) else list(image_text or [])
            )
            self.check_descriptions(of_image)
            descriptions += of_image
            image_index += [index] * len(of_image)
        encoded = self.encode_descriptions(descriptions, **kwargs)
        return BatchFeature(
            {
                **encoded,
                "pixel_values": self.pixel_values(images),
                "image_index": torch.tensor(image_index),
            }
        )

    def check_descriptions(self, descriptions: Sequence[str]) -> None:
        """Raises ValueError, naming index and value, for no description, an empty one, one with a special token."""
        if not descriptions:
            raise ValueError("text must hold at least one description")
        for index, description in enumerate(descriptions):
            if not isinstance(description, str) or not description.strip():
                raise ValueError(
                    f"description {index} is {description!r} but must be a text that is not empty"
                )
            for token in self.special_tokens:
                if token in description:
                    raise ValueError(
                        f"description {index} contains the special token {token!r}"
                    )

    def accepts(self, description: str) -> bool:
        """Whether a description can be located: a text that is not empty, fits into the context and holds no special
        token."""
        try:
            self.check_descriptions([description])
            self.encode_descriptions([description])
        except ValueError:
            return False
        return True

    def encode_descriptions(
        self, descriptions: Sequence[str], **kwargs: Any
    ) -> BatchEncoding:
        """Descriptions -> `input_ids` and `attention_mask`, one row each."""
        kwargs.pop("return_tensors", None)
        template = self.render("{description}")
        texts = [template.replace("{description}", text) for text in descriptions]
        # on the right, so that texts of one image have their prompt's beginning in common, position by position
        return self.tokenize(texts, **{"padding_side": "right", **kwargs})

    def post_process_keypoint_detection(
        self, outputs: PointLocalizerOutput, target_sizes: Sequence[tuple[int, int]]
    ) -> list[dict[str, Any]]:
        """Model output -> pixels of the displayed images.

        Args:
            outputs ([`PointLocalizerOutput`])
            target_sizes (list of `(height, width)`): one for each row.
        Returns:
            list of `{"point": (x, y), "confidence": float or None}`.
        """
        if len(target_sizes) != len(outputs.points):
            raise ValueError(
                f"{len(outputs.points)} rows but {len(target_sizes)} target_sizes"
            )
        canvas_points = outputs.points.double().cpu()
        results = []
        for index, (height, width) in enumerate(target_sizes):
            x, y = canvas_to_pixels(
                canvas_points[index], width, height, self.image_size
            ).tolist()
            confidence = (
                None if outputs.confidence is None else float(outputs.confidence[index])
            )
            results.append({"point": (x, y), "confidence": confidence})
        return results

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "image_index"]


__all__ = [
    "PointDescriptorProcessor",
    "PointLocalizerProcessor",
    "TalkingPointsProcessor",
]
