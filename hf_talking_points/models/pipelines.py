"""`pipeline("point-description")` and `pipeline("point-localization")`."""

import torch
from transformers import GenerationConfig, Pipeline

from .images import to_rgb
from .modeling_point_descriptor import PointDescriptorForConditionalGeneration
from .modeling_point_localizer import PointLocalizerForKeypointDetection
from .remote_code import CompleteRepoMixin, write_remote_code


class _TalkingPointsPipeline(CompleteRepoMixin, Pipeline):
    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        expected, given = self.model_class.config_class.model_type, self.model.config.model_type
        if given != expected:
            raise ValueError(
                f"{type(self).__name__} needs a {expected} checkpoint, but got a {given} one"
            )

    def save_pretrained(self, save_directory, **kwargs):
        """Saves a complete repo: weights, configs, processor, and the code for use without this package."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)
        write_remote_code(save_directory)


class PointDescriptionPipeline(_TalkingPointsPipeline):
    """Describes pixels of an image in words.

        describe = pipeline("point-description")
        describe(image, points=[(x, y), ...])                                   # -> [{"point": (x, y), "description": str}, ...]
        describe([{"image": image, "points": [...]}, ...], batch_size=8)        # -> a list of such lists

    `image` is a PIL image, path, URL or array; points are pixels of the displayed image, with `normalized=True` parts of its width and
    height. The image is encoded once for all its points. Raises ValueError for no points and for points outside the image.
    """

    model_class = PointDescriptorForConditionalGeneration
    _pipeline_calls_generate = True
    _default_generation_config = GenerationConfig(max_new_tokens=128, do_sample=False)

    def _sanitize_parameters(self, points=None, normalized=None, generate_kwargs=None, **kwargs):
        preprocess = {
            name: value
            for name, value in (("points", points), ("normalized", normalized))
            if value is not None
        }
        return preprocess, {**kwargs, **(generate_kwargs or {})}, {}

    def preprocess(self, inputs, points=None, normalized=False):
        if isinstance(inputs, dict):
            inputs, points = inputs["image"], inputs.get("points", points)
        if points is None or len(points) == 0:
            raise ValueError("points must hold at least one (x, y)")
        if all(not hasattr(value, "__len__") for value in points):
            points = [points]
        image = to_rgb(inputs)
        canvas_points = self.processor.points_to_canvas(points, image.size, normalized)
        return {
            "pixel_values": self.processor.pixel_values([image]).to(self.dtype),
            "input_points": tuple(map(tuple, canvas_points.tolist())),
            "points": tuple(tuple(map(float, point)) for point in points),
        }

    def _forward(self, model_inputs, **generate_kwargs):
        canvas_points, points = model_inputs["input_points"], model_inputs["points"]
        batched = isinstance(
            points, list
        )  # the pipeline's collate makes lists of what is not a tensor
        canvas_points = canvas_points if batched else [canvas_points]
        input_points = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in canvas_points],
            batch_first=True,
            padding_value=float("nan"),
        )
        image = self.model.get_image_features(
            model_inputs["pixel_values"], input_points.to(self.device)
        )
        counts = [len(row) for row in canvas_points]
        image.pooler_output = [
            tokens for tokens, count in zip(image.pooler_output, counts) for _ in range(count)
        ]
        prompt = self.processor.tokenize(
            [self.processor.render()] * sum(counts), padding_side="left"
        ).to(self.device)
        generated = self.model.generate(
            **prompt,
            mm_encoder_outputs={"image": image},
            **self._prepare_generate_kwargs(generate_kwargs),
        )
        generated = generated.view(sum(counts), -1, generated.shape[-1])[
            :, 0, prompt["input_ids"].shape[1] :
        ]
        rows = [row.tolist() for row in generated.split(counts)]
        return {"ids": rows, "points": points} if batched else {"ids": rows[0], "points": points}

    def postprocess(self, outputs):
        texts = self.processor.batch_decode(outputs["ids"], skip_special_tokens=True)
        return [
            {"point": point, "description": text.strip()}
            for point, text in zip(outputs["points"], texts)
        ]


class PointLocalizationPipeline(_TalkingPointsPipeline):
    """Finds the pixels that texts describe.

        locate = pipeline("point-localization")
        locate(image, text="the dog's left eye")                                # -> [{"description", "point": (x, y), "confidence"}]
        locate([{"image": image, "text": [...]}, ...], batch_size=8)            # -> a list of such lists

    Points are pixels of the displayed image. `confidence` is the share of the heat map around the point, in [0, 1], and None for a head
    without one. With `return_heatmaps=True` each answer has "heatmap", a float array on the square canvas. Raises ValueError for no
    text, an empty text and a text longer than the model's context.
    """

    model_class = PointLocalizerForKeypointDetection

    def _sanitize_parameters(self, text=None, return_heatmaps=None):
        preprocess = {} if text is None else {"text": text}
        return (
            preprocess,
            {},
            {} if return_heatmaps is None else {"return_heatmaps": return_heatmaps},
        )

    def preprocess(self, inputs, text=None):
        if isinstance(inputs, dict):
            inputs, text = inputs["image"], inputs.get("text", text)
        descriptions = [text] if isinstance(text, str) else list(text or [])
        self.processor.check_descriptions(descriptions)
        self.processor.encode_descriptions(
            descriptions
        )  # too long a text is an error here, beside its own image
        image = to_rgb(inputs)
        return {
            "pixel_values": self.processor.pixel_values([image]).to(self.dtype),
            "descriptions": tuple(descriptions),
            "size": (image.height, image.width),
        }

    def _forward(self, model_inputs):
        descriptions, sizes = model_inputs["descriptions"], model_inputs["size"]
        batched = isinstance(descriptions, list)
        descriptions, sizes = (descriptions, sizes) if batched else ([descriptions], [sizes])
        image = self.model.get_image_features(model_inputs["pixel_values"])
        counts = [len(row) for row in descriptions]
        texts = [text for row in descriptions for text in row]
        encoded = self.processor.encode_descriptions(texts).to(self.device)
        image_index = (
            torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(self.device)
        )
        outputs = self.model(
            **encoded, mm_encoder_outputs={"image": image}, image_index=image_index
        )
        found = self.processor.post_process_keypoint_detection(
            outputs, [size for size, n in zip(sizes, counts) for _ in range(n)]
        )
        for result, text in zip(found, texts):
            result["description"] = text
        if outputs.heatmaps is not None:
            for result, heatmap in zip(found, outputs.heatmaps.float().cpu().numpy()):
                result["heatmap"] = heatmap
        rows = [[found.pop(0) for _ in range(n)] for n in counts]
        return {"found": rows} if batched else {"found": rows[0]}

    def postprocess(self, outputs, return_heatmaps=False):
        keys = ("description", "point", "confidence") + (("heatmap",) if return_heatmaps else ())
        return [{key: result.get(key) for key in keys} for result in outputs["found"]]
