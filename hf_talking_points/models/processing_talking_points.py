"""Processors: photos become square canvases, points canvas coordinates, texts prompts with placeholders, and answers pixels again."""

import torch
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin, ViTImageProcessorPil

from .coordinates import canvas_to_pixels, check_points, letterbox, pixels_to_canvas
from .images import to_rgb
from .remote_code import CompleteRepoMixin

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
    "{%- for message in messages -%}{{- message['content'] -}}"
    "{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- else -%}{{- '\\n' -}}{%- endif -%}{%- endfor -%}"
)


class TalkingPointsProcessor(CompleteRepoMixin, ProcessorMixin):
    """Common part of both processors.

    Args:
        image_processor: rescales and normalises; its `size` is the canvas.
        tokenizer: the language model's, with the special tokens added.
        image_seq_length (`int`): image tokens per image, equal to the model's `config.image_seq_length`.
        prompt (`str`): the user's message; fixed in training and use.
    """

    special_tokens = ()

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        chat_template=None,
        image_seq_length=256,
        prompt=None,
        **kwargs,
    ):
        self.image_seq_length, self.prompt = image_seq_length, prompt or self.default_prompt
        self.image_token = "<image>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)

    @classmethod
    def from_tokenizer(
        cls, tokenizer, image_size=1024, image_seq_length=256, image_mean=0.5, image_std=0.5
    ):
        """A fresh processor for a language model's tokenizer (object, path or Hub id); adds this processor's special tokens to it."""
        if not hasattr(tokenizer, "add_special_tokens"):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        tokenizer.add_special_tokens(
            {"additional_special_tokens": list(cls.special_tokens)},
            replace_extra_special_tokens=False,
        )
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        mean, std = (
            list(v) if isinstance(v, (list, tuple)) else [v] * 3 for v in (image_mean, image_std)
        )
        image_processor = ViTImageProcessorPil(
            size={"height": image_size, "width": image_size}, image_mean=mean, image_std=std
        )
        template = FLATTEN_CONTENT + (tokenizer.chat_template or PLAIN_TEMPLATE)
        return cls(
            image_processor, tokenizer, chat_template=template, image_seq_length=image_seq_length
        )

    @property
    def image_size(self):
        """Side of the canvas in pixels."""
        return self.image_processor.size["height"]

    def canvas(self, image):
        """A PIL RGB image on the canvas that the model sees; the padding has the mean colour."""
        fill = tuple(round(255 * mean) for mean in self.image_processor.image_mean)
        return letterbox(image, self.image_size, fill)

    def pixel_values(self, images):
        """PIL RGB images -> `torch.Tensor` of shape `(images, 3, image_size, image_size)`."""
        return self.image_processor([self.canvas(image) for image in images], return_tensors="pt")[
            "pixel_values"
        ]

    def tokenize(self, texts, **kwargs):
        """Prompts with one `<image>` each -> input ids with all image placeholders. ValueError where the context is too short."""
        texts = [
            text.replace(self.image_token, self.image_token * self.image_seq_length)
            for text in texts
        ]
        # verbose: the error below says it better than the warning
        kwargs = {
            "padding": True,
            "return_tensors": "pt",
            "add_special_tokens": False,
            "verbose": False,
            **kwargs,
        }
        encoded = self.tokenizer(texts, **kwargs)
        limit = self.tokenizer.model_max_length
        for index, mask in enumerate(encoded["attention_mask"]):
            length = int(sum(mask))
            if length > limit:
                raise ValueError(
                    f"text {index} has {length} tokens with its prompt, but the model's context holds {limit}: shorten it"
                )
        return encoded

    def _load_images(self, images):
        if images is None:
            raise ValueError("images are required")
        rows = images if isinstance(images, (list, tuple)) else [images]
        rows = [
            row if isinstance(row, (list, tuple)) else [row] for row in rows
        ]  # chat templates give a list for each conversation
        return [to_rgb(image) for row in rows for image in row]


class PointDescriptorProcessor(TalkingPointsProcessor):
    """Images and points -> inputs of [`PointDescriptorForConditionalGeneration`]."""

    special_tokens = ("<image>", "<region>")
    default_prompt = "<image>Please describe region1 <region>."

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        chat_template=None,
        image_seq_length=256,
        prompt=None,
        **kwargs,
    ):
        self.region_token = "<region>"
        self.region_token_id = tokenizer.convert_tokens_to_ids(self.region_token)
        super().__init__(
            image_processor, tokenizer, chat_template, image_seq_length, prompt, **kwargs
        )

    def render(self, description=None):
        """The conversation as text: the prompt, then `description` as the answer or the start of one."""
        messages = [{"role": "user", "content": self.prompt}]
        if description is not None:
            messages.append({"role": "assistant", "content": description})
        return self.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=description is None
        )

    def __call__(self, images=None, text=None, points=None, normalized=False, **kwargs):
        """
        Args:
            images: an image or a list of images, of any kind that [`to_rgb`] takes.
            text (`str` or `list[str]`, *optional*): prompts with placeholders; by default the fixed prompt, one row for each point.
            points: (x, y) pairs in pixels of the displayed image; for a list of images a list of such lists.
            normalized (`bool`): the points are x / width, y / height instead.
        Returns:
            `BatchFeature` with `pixel_values` (images, 3, s, s), `input_points` (images, points, 2) on the canvas, NaN where an image
            has fewer points, `input_ids` and `attention_mask` (rows, length).
        Raises:
            ValueError: a point outside its image, NaN, of wrong shape; no points; placeholders and points that do not match.
        """
        single = not isinstance(images, (list, tuple))
        images = self._load_images(images)
        if points is None or len(points) == 0:
            raise ValueError("points must hold at least one (x, y)")
        if single:
            points = [points]
        if len(points) != len(images):
            raise ValueError(f"{len(images)} images but {len(points)} lists of points")
        canvas_points = [
            self.points_to_canvas(p, image.size, normalized) for p, image in zip(points, images)
        ]
        if text is None:
            text = [self.render()] * sum(map(len, canvas_points))
        text = [text] if isinstance(text, str) else list(text)
        regions = sum(t.count(self.region_token) for t in text)
        if regions != sum(map(len, canvas_points)):
            raise ValueError(
                f"the text has {regions} {self.region_token} placeholders but there are {sum(map(len, canvas_points))} points"
            )
        kwargs.pop("return_tensors", None)
        input_points = torch.nn.utils.rnn.pad_sequence(
            canvas_points, batch_first=True, padding_value=float("nan")
        )
        encoded = self.tokenize(text, **{"padding_side": "left", **kwargs})
        return BatchFeature(
            {**encoded, "pixel_values": self.pixel_values(images), "input_points": input_points}
        )

    def points_to_canvas(self, points, size, normalized=False):
        """Checked points of one image of `size` = (width, height) -> float32 canvas coordinates of shape (n, 2)."""
        points = check_points(points, *size, normalized)
        if not len(points):
            raise ValueError("points must hold at least one (x, y)")
        return pixels_to_canvas(points, *size, self.image_size).float()

    def _multimodal_inputs_from_conversations(self, conversations, *args, **kwargs):
        images, videos, audios, extra = super()._multimodal_inputs_from_conversations(
            conversations, *args, **kwargs
        )
        points = [
            [
                part["point"]
                for message in c
                if not isinstance(message["content"], str)
                for part in message["content"]
                if part["type"] == "point"
            ]
            for c in conversations
        ]
        return images, videos, audios, {**extra, "points": points} if any(points) else extra

    @property
    def model_input_names(self):
        return ["input_ids", "attention_mask", "pixel_values", "input_points"]


class PointLocalizerProcessor(TalkingPointsProcessor):
    """Images and descriptions -> inputs of [`PointLocalizerForKeypointDetection`], and its outputs -> pixels."""

    special_tokens = ("<image>", "<p>", "</p>", "<SEG>")
    default_prompt = "<image>Please segment region1: {description}"

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        chat_template=None,
        image_seq_length=256,
        prompt=None,
        reply=None,
        **kwargs,
    ):
        self.reply = reply or "<p> keypoint </p> <SEG>"
        self.seg_token_id = tokenizer.convert_tokens_to_ids("<SEG>")
        super().__init__(
            image_processor, tokenizer, chat_template, image_seq_length, prompt, **kwargs
        )

    def render(self, description):
        """The conversation as text: the prompt with the description and the fixed reply that ends in `<SEG>`."""
        messages = [{"role": "user", "content": self.prompt.replace("{description}", description)}]
        return (
            self.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            + self.reply
        )

    def __call__(self, images=None, text=None, **kwargs):
        """
        Args:
            images: an image or a list of images, of any kind that [`to_rgb`] takes.
            text: a description or a list of them; for a list of images a list of such lists.
        Returns:
            `BatchFeature` with `pixel_values` (images, 3, s, s), `input_ids` and `attention_mask` (rows, length), and `image_index`
            (rows,), the image of each row.
        Raises:
            ValueError: no text, an empty text, one with special tokens, one that is longer than the context.
        """
        single = not isinstance(images, (list, tuple))
        images = self._load_images(images)
        rows = [text] if single else text
        if rows is None or len(rows) != len(images):
            raise ValueError(
                f"{len(images)} images but {0 if rows is None else len(rows)} lists of descriptions"
            )
        rows = [[row] if isinstance(row, str) else list(row) for row in rows]
        for row in rows:
            self.check_descriptions(row)
        encoded = self.encode_descriptions(
            [description for row in rows for description in row], **kwargs
        )
        image_index = torch.arange(len(rows)).repeat_interleave(
            torch.tensor([len(row) for row in rows])
        )
        return BatchFeature(
            {**encoded, "pixel_values": self.pixel_values(images), "image_index": image_index}
        )

    def check_descriptions(self, descriptions):
        if not descriptions:
            raise ValueError("text must hold at least one description")
        for index, description in enumerate(descriptions):
            if not isinstance(description, str) or not description.strip():
                raise ValueError(
                    f"description {index} is {description!r} but must be a text that is not empty"
                )
            special = [token for token in self.special_tokens if token in description]
            if special:
                raise ValueError(f"description {index} contains the special token {special[0]!r}")

    def accepts(self, description):
        """Whether a description can be located: a text that is not empty, fits into the context and holds no special token."""
        try:
            self.check_descriptions([description])
            self.encode_descriptions([description])
        except ValueError:
            return False
        return True

    def encode_descriptions(self, descriptions, **kwargs):
        """Descriptions -> `input_ids` and `attention_mask`, one row each."""
        kwargs.pop("return_tensors", None)
        template = self.render("{description}")
        # on the right, so that texts of one image have their prompt's beginning in common, position by position
        return self.tokenize(
            [template.replace("{description}", d) for d in descriptions],
            **{"padding_side": "right", **kwargs},
        )

    def post_process_keypoint_detection(self, outputs, target_sizes):
        """Model output -> pixels of the displayed images.

        Args:
            outputs ([`PointLocalizerOutput`])
            target_sizes (list of `(height, width)`): one for each row.
        Returns:
            list of `{"point": (x, y), "confidence": float or None}`.
        """
        if len(target_sizes) != len(outputs.points):
            raise ValueError(f"{len(outputs.points)} rows but {len(target_sizes)} target_sizes")
        results = []
        for index, (point, (height, width)) in enumerate(
            zip(outputs.points.double().cpu(), target_sizes)
        ):
            x, y = canvas_to_pixels(point, width, height, self.image_size).tolist()
            confidence = None if outputs.confidence is None else float(outputs.confidence[index])
            results.append({"point": (x, y), "confidence": confidence})
        return results

    @property
    def model_input_names(self):
        return ["input_ids", "attention_mask", "pixel_values", "image_index"]


__all__ = ["PointDescriptorProcessor", "PointLocalizerProcessor", "TalkingPointsProcessor"]
