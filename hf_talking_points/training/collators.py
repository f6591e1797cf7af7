"""Rows of triplets -> batches of the models. A batch has `photos` images and `photos * points` texts."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin

from ..models.coordinates import pixels_to_canvas
from .auxiliary_losses import AuxiliaryHeads

Row = dict[str, Any]
NO_BOX = [[float("nan")] * 2] * 2


def collate_images(rows: list[Row]) -> dict[str, Any]:
    """`pixel_values` of shape `(photos, 3, height, width)`, or `feature_maps` with a tensor for each level."""
    if "pixel_values" in rows[0]:
        return {"pixel_values": torch.stack([row["pixel_values"] for row in rows])}
    levels = zip(*(row["feature_maps"] for row in rows))
    return {"feature_maps": [torch.stack(level) for level in levels]}


def collate_points(rows: list[Row]) -> torch.Tensor:
    """Points on the canvas, `(photos, points, 2)`."""
    return torch.stack([row["points"] for row in rows])


def all_descriptions(rows: list[Row]) -> list[str]:
    return [text for row in rows for text in row["descriptions"]]


class LocalizerCollator:
    """Rows of [`triplet_dataset`] -> inputs of the localizer.

    `target_points` and their `scale`, both of shape `(photos, points, 2)`, come along for loss and metrics.

    Args:
        processor ([`PointLocalizerProcessor`])
    """

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor = processor

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        encoded = self.processor.encode_descriptions(
            all_descriptions(rows), padding_side="right"
        )
        points = collate_points(rows)
        scale = torch.stack([row["scale"] for row in rows])  # (photos, 2)
        scale = scale[:, None].expand_as(points)  # (photos, points, 2)
        return {
            **encoded,
            **collate_images(rows),
            "target_points": points,
            "scale": scale,
        }


class DescriptorCollator:
    """Rows of [`triplet_dataset`] -> inputs of the descriptor, with labels on the descriptions alone.

    Args:
        processor ([`PointDescriptorProcessor`])
        heads ([`AuxiliaryHeads`], *optional*): whose targets come along as `point_targets`.
        boxes (`bool`): whether `object_boxes` on the canvas come along, of shape `(photos * points, 4)`.
        max_length (`int`, *optional*): tokens after which a text with its prompt is cut off.
        pad_to_multiple_of (`int`, *optional*): of which the length of a batch is a multiple.

    Raises ValueError where `max_length` leaves nothing of a description.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        heads: AuxiliaryHeads | None = None,
        boxes: bool = False,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> None:
        self.processor = processor
        self.heads = heads
        self.boxes = boxes
        self.max_length = max_length
        self.pad_to_multiple_of = pad_to_multiple_of
        if max_length is None:
            return
        for style in processor.styles or [None]:
            prompt = processor.tokenize([processor.render(style=style)])["input_ids"]
            if prompt.shape[1] >= max_length:
                raise ValueError(
                    f"max_length={max_length} leaves nothing of a description behind the prompt with its image, which "
                    f"has {prompt.shape[1]} tokens: raise it, or set it to None"
                )

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        batch = {
            **self.fit(self.encode_texts(all_descriptions(rows))),
            **collate_images(rows),
            "input_points": collate_points(rows),
        }
        if self.heads is not None:
            targets = []
            for row in rows:
                colors = row["colors"].tolist()
                columns = row["sources"], colors, row["patterns"], row["pixels"]
                for source, color, pattern, pixel in zip(*columns):
                    target = self.heads.targets(
                        source, row["size"], color, pattern, pixel
                    )
                    targets.append(target)
            batch["point_targets"] = torch.tensor(targets)
        if self.boxes:
            batch["object_boxes"] = torch.cat([self.canvas_boxes(row) for row in rows])
        return batch

    def encode_texts(self, descriptions: list[str]) -> dict[str, torch.Tensor]:
        """Prompts with descriptions, `(photos * points, length)`, and `labels`, -100 but for the descriptions.

        The prompt asks for the style that the description is in. Both are tokenized apart, as in a generation, where
        no token is part of the prompt and of the description."""
        processor = self.processor
        styles = [processor.style_of(text) for text in descriptions]
        prompts = {style: processor.render(style=style) for style in set(styles)}
        ids_of_prompts = {}
        for style, prompt in prompts.items():
            ids_of_prompts[style] = processor.tokenize([prompt])["input_ids"][0]
        end = processor.end_of_turn()
        answers = processor.tokenize(
            [text + end for text in descriptions], padding_side="right"
        )
        rows: dict[str, list[torch.Tensor]] = {"input_ids": [], "labels": []}
        lengths = answers["attention_mask"].sum(1).tolist()
        for style, answer, length in zip(styles, answers["input_ids"], lengths):
            prompt_ids = ids_of_prompts[style]
            ids = torch.cat([prompt_ids, answer[:length]])
            labels = ids.clone()
            labels[: len(prompt_ids)] = -100
            rows["input_ids"].append(ids)
            rows["labels"].append(labels)
        rows["attention_mask"] = [torch.ones_like(ids) for ids in rows["input_ids"]]
        encoded = {}
        for name, values in rows.items():
            encoded[name] = pad_sequence(
                values, batch_first=True, padding_value=self.padding[name]
            )
        processor.check_lengths(encoded["attention_mask"].tolist())
        return encoded

    @property
    def padding(self) -> dict[str, int]:
        """What stands behind the end of a text."""
        return {
            "input_ids": self.processor.tokenizer.pad_token_id,
            "attention_mask": 0,
            "labels": -100,
        }

    def fit(self, encoded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Texts of `encode_texts` in the length that is asked for."""
        if self.max_length is not None:
            for name, values in encoded.items():
                encoded[name] = values[:, : self.max_length]
        if self.pad_to_multiple_of is None:
            return encoded
        missing = -encoded["input_ids"].shape[1] % self.pad_to_multiple_of
        padded = {}
        for name, values in encoded.items():
            padded[name] = F.pad(values, (0, missing), value=self.padding[name])
        return padded

    def canvas_boxes(self, row: Row) -> torch.Tensor:
        """The objects' boxes on the canvas, `(points, 4)`; NaN for points on no object."""
        corners = []
        for source in row["sources"]:
            annotated = None if source is None else source[0]
            corners.append(
                NO_BOX if annotated is None else [annotated.box[:2], annotated.box[2:]]
            )
        width, height = row["size"]
        side = self.processor.image_size
        on_canvas = pixels_to_canvas(
            torch.tensor(corners), width, height, side
        )  # (points, 2, 2)
        return on_canvas.flatten(1)
