"""Processors: photos become square canvases, points canvas coordinates, texts prompts with placeholders, and answers
pixels again."""

from __future__ import annotations

import os
import re
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
  {%- set flat.messages = flat.messages + [dict(message, content=flat.text)] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""
PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- message['content'] -}}"
    "{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- else -%}{{- '\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
)
ENCODER_TEMPLATE = (
    "{{- cls_token -}}"
    "{%- for message in messages -%}{{- message['content'] + sep_token -}}{%- endfor -%}"
)


LONE_SURROGATE = re.compile(
    "[\ud800-\udfff]"
)  # half of a character, which cannot be written in UTF-8
# characters of a text for each token of the context: a longer one is refused before it is cut into tokens
CHARACTERS_OF_A_TOKEN = 16
LONGEST_CONTEXT = 100_000  # tokens, of a tokenizer that states no limit


def per_channel(value: float | Sequence[float]) -> list[float]:
    """A value for each of the three color channels."""
    return list(value) if isinstance(value, Sequence) else [value] * 3


def is_single(images: Any) -> bool:
    """Whether `images` is one image, not a list or an array of several."""
    return not isinstance(images, (list, tuple)) and getattr(images, "ndim", 0) < 4


class PointFeatures(BatchFeature):
    """Inputs of a model, whose coordinates keep their precision: in half precision a point would move by pixels."""

    def to(self, *args: Any, **kwargs: Any) -> PointFeatures:
        """Sends all values to a device, casts pixels to a dtype. Arguments as of [`~transformers.BatchFeature.to`]."""
        points = self.data.get("input_points")
        super().to(*args, **kwargs)
        if torch.is_tensor(points):
            device = self.data["input_points"].device
            self.data["input_points"] = points.to(device)
        return self


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
    placeholders: ClassVar[tuple[str, ...]] = ("image",)  # tokens that must not be cut
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
            image_seq_length (`int`): image tokens per image, equal to the model's `config.image_seq_length`; 0 leaves
                the image out of the prompt.
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
        template = PLAIN_TEMPLATE
        if tokenizer.chat_template:  # one, or several by their names
            template = tokenizer.get_chat_template()
        elif tokenizer.cls_token and tokenizer.sep_token:
            template = ENCODER_TEMPLATE
        prompt = cls.default_prompt
        if not image_seq_length:
            prompt = prompt.replace("<image>", "")
        return cls(
            image_processor,
            tokenizer,
            chat_template=FLATTEN_CONTENT + template,
            image_seq_length=image_seq_length,
            prompt=prompt,
        )

    @property
    def image_size(self) -> int:
        """Side of the canvas in pixels."""
        return self.image_processor.size["height"]

    def canvas(self, image: Image.Image) -> Image.Image:
        """A PIL RGB image on the canvas that the model sees; the padding has the mean color."""
        fill = tuple(round(255 * mean) for mean in self.image_processor.image_mean)
        return letterbox(image, self.image_size, fill)

    def pixel_values(
        self, images: Sequence[Image.Image], **kwargs: Any
    ) -> torch.FloatTensor:
        """PIL RGB images -> pixel values.

        Args:
            images (list of `Image.Image`)
            kwargs: options of the image processor; `return_tensors` is "pt" by default.
        Returns:
            `torch.FloatTensor` of shape `(images, 3, image_size, image_size)`, or what `return_tensors` says.
        Raises:
            ValueError: the image processor changes the size of the canvas.
        """
        canvases = [self.canvas(image) for image in images]
        options = {"return_tensors": "pt", **kwargs}
        values = self.image_processor(canvases, **options)["pixel_values"]
        side = self.image_size
        for value in values:
            if tuple(value.shape) != (3, side, side):
                raise ValueError(
                    f"the image processor gives pixel values of shape {tuple(value.shape)} instead of "
                    f"{(3, side, side)}: it must not crop or pad the canvas"
                )
        return values

    def tokenize(self, texts: Sequence[str], **kwargs: Any) -> BatchEncoding:
        """Prompts with one `<image>` each -> input ids with all image placeholders.

        Args:
            texts (`list[str]`)
            kwargs: further options of the tokenizer; `return_tensors` is "pt" by default.
        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask` of shape `(texts, length)`.
        Raises:
            ValueError: a text is longer than the model's context, or has lost placeholders by truncation.
        """
        options = {
            "padding": True,
            "return_tensors": "pt",
            "add_special_tokens": False,
            "return_token_type_ids": False,  # a prompt is one segment
            "verbose": False,  # the error below says it better than the warning
            **kwargs,
        }
        return_tensors = options.pop("return_tensors")
        wants_mask = options.pop("return_attention_mask", None)
        wants_types = options.pop("return_mm_token_type_ids", False)
        wants_offsets = options.pop("return_text_replacement_offsets", False)
        count = sum(text.count(self.image_token) for text in texts)
        placeholders = self.image_token * self.image_seq_length
        texts, offsets = self.get_text_with_replacements(
            list(texts), [placeholders] * count
        )
        encoded = self.tokenizer(texts, return_attention_mask=True, **options)
        self.check_lengths(encoded["attention_mask"])
        self._check_special_mm_tokens(texts, encoded, self.placeholders)
        if wants_mask is False:
            encoded.pop("attention_mask")
        if wants_types:
            types = self.create_mm_token_type_ids(encoded["input_ids"])
            encoded["mm_token_type_ids"] = types
        encoded.convert_to_tensors(return_tensors)
        if wants_offsets:
            encoded["text_replacement_offsets"] = offsets
        return encoded

    def check_text(self, text: str, name: str) -> None:
        """Raises ValueError, with the text's name, for one that no tokenizer should be given: it is no Unicode, or far
        longer than the context."""
        found = LONE_SURROGATE.search(text)
        if found is not None:
            raise ValueError(
                f"{name} has a lone surrogate, {found[0]!a} at character {found.start()}, which is no text: "
                "read it with the encoding that it was written in"
            )
        context = min(self.tokenizer.model_max_length, LONGEST_CONTEXT)
        most = CHARACTERS_OF_A_TOKEN * context
        if len(text) > most:
            raise ValueError(
                f"{name} has {len(text)} characters, but a context of {context} tokens holds {most} at most"
            )

    def merge_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a call, of all forms that transformers' processors take.

        Args:
            options (`dict`): options of tokenizer and image processor, flat or in `text_kwargs`, `images_kwargs` and
                `common_kwargs`.
        Returns:
            `{"text_kwargs": dict, "images_kwargs": dict, "return_tensors": "pt", "np", … or None}`.
        Raises:
            TypeError: an option that neither of them knows, or a value of a wrong type.
            ValueError: an option that would move points or change what a row is.
        """
        # the side of padding is the processor's: generation needs the left, rows of one image the right
        defaults = dict(self.tokenizer.init_kwargs)
        defaults.pop("padding_side", None)
        merged = self._merge_kwargs(tokenizer_init_kwargs=defaults, **options)
        text_options = merged["text_kwargs"]
        image_options = merged["images_kwargs"]
        known = {*merged, *text_options, *image_options, "common_kwargs"}
        known -= {"videos_kwargs", "audio_kwargs"}
        for name, value in options.items():
            if name not in known and value is not None:
                raise TypeError(
                    f"{type(self).__name__} does not take {name}={value!r}: "
                    "only options of its tokenizer and of its image processor"
                )
        for name in ("return_mm_token_type_ids", "return_text_replacement_offsets"):
            text_options[name] = merged[name]
        self.check_fixed_options({**image_options, **text_options})
        stated = []
        for given in (text_options, image_options):
            if "return_tensors" in given:
                stated.append(given.pop("return_tensors"))
        return_tensors = stated[0] if stated else "pt"
        if any(kind != return_tensors for kind in stated):
            raise ValueError(f"return_tensors must be one for all, got {stated}")
        return {
            "text_kwargs": text_options,
            "images_kwargs": image_options,
            "return_tensors": return_tensors,
        }

    def check_fixed_options(self, options: dict[str, Any]) -> None:
        """Raises ValueError, naming option and value, where an option is not what these processors need it to be."""
        side = self.image_size
        fixed = {
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": side, "width": side},
            "resample": Image.Resampling.BICUBIC,
            "do_center_crop": False,
            "crop_size": None,
            "do_pad": False,
            "pad_size": None,
            "data_format": "channels_first",
            "image_seq_length": self.image_seq_length,
            "text_pair": None,
            "text_target": None,
            "text_pair_target": None,
            "is_split_into_words": False,
            "return_overflowing_tokens": False,
        }
        for name, value in fixed.items():
            given = options.get(name)
            if given is not None and given != value:
                raise ValueError(
                    f"{name}={given!r} is not possible, only {value!r}: an image is scaled to a canvas of "
                    f"{side} x {side} pixels, on which its points lie, and a row is one prompt"
                )

    def features(
        self, data: dict[str, Any], return_tensors: str | None
    ) -> PointFeatures:
        """Inputs of the model from lists of arrays and numbers, as tensors of a kind unless it is None."""
        return PointFeatures(
            data,
            tensor_type=return_tensors,
            skip_tensor_conversion=self.skip_tensor_conversion,
        )

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

    def _load_images(
        self, images: Any, input_data_format: str | None = None
    ) -> list[Image.Image]:
        """An image, a list or an array of images, or a list of lists of one image each as chat templates give, as PIL
        RGB images."""
        if images is None:
            raise ValueError("images are required")
        entries = [images] if is_single(images) else images
        loaded = []
        for entry in entries:
            of_conversation = entry if isinstance(entry, (list, tuple)) else [entry]
            loaded += [to_rgb(image, input_data_format) for image in of_conversation]
        return loaded


# how a descriptor is asked for the styles that it knows
STYLE_REQUESTS = {"rich": "", "short": " in a few words"}
SHORT_WORDS = 20  # a longer description is a rich one


class PointDescriptorProcessor(TalkingPointsProcessor):
    """Images and points -> inputs of [`PointDescriptorForConditionalGeneration`].

    Where the prompt has `{style}`, "rich" and "short" descriptions can be asked for."""

    special_tokens = ("<image>", "<region>")
    placeholders = ("image", "region")
    default_prompt = "<image>Please describe region1 <region>{style}."

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

    @property
    def styles(self) -> list[str]:
        """What a description can be asked for by; nothing where the prompt is always the same."""
        return list(STYLE_REQUESTS) if "{style}" in self.prompt else []

    def style_of(self, description: str) -> str | None:
        """The style that a description is in, by its length; None where no style can be asked for."""
        if not self.styles:
            return None
        return "short" if len(description.split()) <= SHORT_WORDS else "rich"

    def request(self, style: str | None = None) -> str:
        """The user's message.

        Args:
            style (`str`, *optional*): one of `styles`, by default "rich".
        Raises:
            ValueError: the style cannot be asked for.
        """
        if style is not None and style not in self.styles:
            known = ", ".join(self.styles) or "no style, its prompt is always the same"
            raise ValueError(
                f"style {style!r} cannot be asked for; this checkpoint knows {known}"
            )
        return self.prompt.replace("{style}", STYLE_REQUESTS[style or "rich"])

    def render(
        self,
        description: str | None = None,
        style: str | None = None,
        **kwargs: Any,
    ) -> str:
        """The prompt as text and, with `description`, all that is to be generated after it; `style` as of [`request`],
        `kwargs` go to the chat template of the prompt."""
        request = {"role": "user", "content": self.request(style)}
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
            {"role": "user", "content": self.request()},
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
        style: str | None = None,
        **kwargs: Any,
    ) -> PointFeatures:
        """
        Args:
            images: an image or a list of images, of any kind that [`to_rgb`] takes, or an array of images.
            text (`str` or `list[str]`, *optional*): prompts with placeholders; by default the fixed prompt, one row
                for each point.
            points: (x, y) pairs in pixels of the displayed image; for a list of images a list of such lists.
            normalized (`bool`): the points are x / width, y / height instead.
            style (`str`, *optional*): of the fixed prompt, one of `styles`; by default "rich".
            kwargs: options of tokenizer and image processor, as of every processor of transformers; `return_tensors`
                is "pt" by default.
        Returns:
            [`PointFeatures`] with `pixel_values` (images, 3, s, s), `input_points` (images, points, 2) on the canvas,
            NaN where an image has fewer points, `input_ids` and `attention_mask` (rows, length).
        Raises:
            ValueError: a point outside its image, NaN, of wrong shape; no points; placeholders and points that do not
                match; an unknown style; as in `merge_options`.
        """
        options = self.merge_options(kwargs)
        image_options = options["images_kwargs"]
        single = is_single(images)
        images = self._load_images(images, image_options.pop("input_data_format", None))
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
            text = [self.render(style=style)] * count
        texts = [text] if isinstance(text, str) else list(text)
        for index, row in enumerate(texts):
            self.check_text(row, f"text {index}")
        regions = sum(row.count(self.region_token) for row in texts)
        if regions != count:
            raise ValueError(
                f"the text has {regions} {self.region_token} placeholders but there are {count} points"
            )
        text_options = {"padding_side": "left", **options["text_kwargs"]}
        encoded = self.tokenize(texts, **text_options, return_tensors=None)
        input_points = torch.nn.utils.rnn.pad_sequence(
            canvas_points, batch_first=True, padding_value=float("nan")
        )
        values = self.pixel_values(images, **image_options, return_tensors=None)
        return self.features(
            {
                **encoded,
                "pixel_values": values,
                "input_points": [*input_points.numpy()],
            },
            options["return_tensors"],
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
        content = message.get("content") or []
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
    placeholders = ("image", "seg")
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
        self.seg_token = "<SEG>"
        self.seg_token_id = tokenizer.convert_tokens_to_ids(self.seg_token)
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
    ) -> PointFeatures:
        """
        Args:
            images: an image or a list of images, of any kind that [`to_rgb`] takes, or an array of images.
            text: a description or a list of them; for a list of images a list of such lists.
            kwargs: options of tokenizer and image processor, as of every processor of transformers; `return_tensors`
                is "pt" by default.
        Returns:
            [`PointFeatures`] with `pixel_values` (images, 3, s, s), `input_ids` and `attention_mask` (rows, length),
            and `image_index` (rows,), the image of each row.
        Raises:
            ValueError: no text, an empty text, one with special tokens, one that is longer than the context; as in
                `merge_options`.
        """
        options = self.merge_options(kwargs)
        image_options = options["images_kwargs"]
        single = is_single(images)
        images = self._load_images(images, image_options.pop("input_data_format", None))
        text_of_images = [text] if single else text
        entries = 0 if text_of_images is None else len(text_of_images)
        if entries != len(images):
            raise ValueError(
                f"{len(images)} images but {entries} lists of descriptions"
            )
        descriptions = []
        image_index = []
        for index, image_text in enumerate(text_of_images):
            of_image = [image_text] if isinstance(image_text, str) else image_text
            of_image = [] if of_image is None else list(of_image)
            self.check_descriptions(of_image)
            descriptions += of_image
            image_index += [index] * len(of_image)
        encoded = self.encode_descriptions(
            descriptions, **options["text_kwargs"], return_tensors=None
        )
        values = self.pixel_values(images, **image_options, return_tensors=None)
        return self.features(
            {**encoded, "pixel_values": values, "image_index": image_index},
            options["return_tensors"],
        )

    def check_descriptions(self, descriptions: Sequence[str]) -> None:
        """Raises ValueError, naming the index, for no description, an empty one, one with a special token, and as in
        [`check_text`]."""
        if not descriptions:
            raise ValueError("text must hold at least one description")
        for index, description in enumerate(descriptions):
            if not isinstance(description, str) or not description.strip():
                raise ValueError(
                    f"description {index} is {description!r} but must be a text that is not empty"
                )
            self.check_text(description, f"description {index}")
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
        """Descriptions -> `input_ids` and `attention_mask`, one row each. Options as of `tokenize`."""
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
        Raises:
            ValueError: a point is not finite, or there are not as many sizes.
        """
        if len(target_sizes) != len(outputs.points):
            raise ValueError(
                f"{len(outputs.points)} rows but {len(target_sizes)} target_sizes"
            )
        canvas_points = outputs.points.double().cpu()
        results = []
        for index, (height, width) in enumerate(target_sizes):
            if not canvas_points[index].isfinite().all():
                raise ValueError(
                    f"the point of text {index} is not finite: the model diverged, or overflows in its dtype"
                )
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
    "PointFeatures",
    "PointLocalizerProcessor",
    "TalkingPointsProcessor",
]
