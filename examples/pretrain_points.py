r"""Teaches the point token of a fresh Point Descriptor what is at its point, before the descriptor learns to say it.

python examples/pretrain_points.py --config examples/pretrain_points.yaml --data_dir known

[`AuxiliaryHeads`] read the spot's color, the part, the object and its extent from the token. The language model, which
takes most of the time of train_descriptor.py, does not run. With `freeze: nothing` the backbone learns too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    ProcessorMixin,
    Trainer,
    set_seed,
)
from trl import TrlParser

from hf_talking_points.checkpoints import last_checkpoint
from hf_talking_points.data.photos import PartPoint
from hf_talking_points.data.rows import load_points
from hf_talking_points.data.sources import read_dataset
from hf_talking_points.data.triplets import Owned, View, make_views
from hf_talking_points.models.coordinates import pixels_to_canvas
from hf_talking_points.training.arguments import (
    DataArguments,
    PointDescriptorModelArguments,
    PointDescriptorTrainingArguments,
)
from hf_talking_points.training.auxiliary_losses import (
    COLORS,
    IGNORED,
    NAMES,
    SIZES,
    STEPS,
    AuxiliaryHeads,
    steps_of,
)
from hf_talking_points.training.collators import collate_images
from hf_talking_points.training.compose import prepare_descriptor
from hf_talking_points.training.feature_cache import FeatureCache
from hf_talking_points.training.supervised import HEADS_FILE
from hf_talking_points.training.triplet_dataset import cache_views, training_views
from hf_talking_points.words.looks import spot_colors, spot_patterns

ANYWHERE = 0.25  # share of the points that are drawn from all pixels


@dataclass
class PointTokenTrainingArguments(PointDescriptorTrainingArguments):
    """
    Args:
        backbone_learning_rate (`float`): of the backbone, where it is trained (`freeze: nothing`).
    """

    backbone_learning_rate: float = field(
        default=1e-4,
        metadata={"help": "of the backbone, where it is trained"},
    )


@dataclass
class PointsOfViews(torch.utils.data.Dataset):
    """Points of views with what the heads should read from them.

    Args:
        views (`list[View]`)
        processor ([`PointDescriptorProcessor`])
        heads ([`AuxiliaryHeads`])
        count (`int`): points of each view.
        draws (`int`): times that each view comes, with other points.
        cache ([`FeatureCache`], *optional*): of these views; pixels are given without it.
    """

    views: list[View]
    processor: ProcessorMixin
    heads: AuxiliaryHeads
    count: int
    draws: int = 1
    cache: FeatureCache | None = None

    def __len__(self) -> int:
        return self.draws * len(self.views)

    def __getitem__(self, number: int) -> dict[str, Any]:
        index = number % len(self.views)
        view = self.views[index]
        size = view.photo.size
        sources = self.draw_points(view, np.random.default_rng(number))
        places = [(point.x, point.y) for _, point in sources]
        image = view.image()
        pixels = np.asarray(image)
        colors = spot_colors(pixels, places).tolist()
        patterns = spot_patterns(pixels, places)
        targets = []
        for source, *looks, pixel in zip(sources, colors, patterns, places):
            targets.append(self.heads.targets(source, size, *looks, pixel))
        places = torch.tensor(places, dtype=torch.float64)
        side = self.processor.image_size
        row = {
            "input_points": pixels_to_canvas(places, *size, side).float(),
            "point_targets": torch.tensor(targets),
        }
        if self.cache is None:
            row["pixel_values"] = self.processor.pixel_values([image])[0]
        else:
            row["feature_maps"] = self.cache[index]
        return row

    def draw_points(self, view: View, rng: np.random.Generator) -> list[Owned]:
        """Annotated points and points anywhere, of which only the looks are known."""
        annotated = view.points()
        free = round(ANYWHERE * self.count)
        drawn: list[Owned] = []
        for index in rng.integers(len(annotated), size=self.count - free):
            drawn.append(annotated[index])
        for x, y in rng.uniform(size=(free, 2)) * view.photo.size:
            drawn.append((None, PartPoint(None, x, y)))
        return drawn


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **collate_images(rows),
        "input_points": torch.stack([row["input_points"] for row in rows]),
        "point_targets": torch.stack([row["point_targets"] for row in rows]),
    }


class PointTokens(nn.Module):
    """What precedes a descriptor's language model, and the heads that read its point tokens."""

    def __init__(self, descriptor: PreTrainedModel, heads: AuxiliaryHeads) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.heads = heads

    def forward(
        self,
        input_points: torch.Tensor,
        point_targets: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        feature_maps: list[torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The loss, and what the metrics are made of.

        Args:
            input_points (`torch.Tensor` of shape `(photos, points, 2)`): on the canvas.
            point_targets (`torch.Tensor` of shape `(photos, points, 17)`): of [`AuxiliaryHeads.targets`].
            pixel_values (`torch.Tensor` of shape `(photos, 3, image_size, image_size)`, *optional*)
            feature_maps (list of `torch.Tensor`, *optional*): the backbone's maps instead of `pixel_values`.
        """
        image = self.descriptor.get_image_features(
            pixel_values, input_points, feature_maps
        )
        tokens = image.point_embeds.float()
        targets = point_targets.flatten(0, 1)
        # in full precision, as in PointDescriptorTrainer
        with torch.autocast(tokens.device.type, enabled=False):
            features = self.heads.layers(tokens)
            read = {
                "colors": self.heads.color(tokens),
                "color_names": self.heads.color_name(tokens).argmax(1),
                "patterns": self.heads.pattern(tokens).argmax(1),
                "parts": self.heads.part(features).argmax(1),
                "categories": self.heads.category(features).argmax(1),
                "steps": self.heads.steps(tokens).unflatten(1, (-1, STEPS)).argmax(2),
            }
            loss = self.heads(tokens, targets)
        # a row for each photo, as the targets: accelerate cuts the last batch by rows
        outputs = {"loss": loss}
        for name, values in read.items():
            outputs[name] = values.unflatten(0, input_points.shape[:2])
        return outputs


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """R² of the three axes of color, and how many names and steps are right."""
    colors, color_names, patterns, parts, categories, steps = prediction.predictions
    targets = prediction.label_ids  # (photos, points, 17)
    true = targets[..., :COLORS]
    r2 = 1 - ((colors - true) ** 2).mean(axis=(0, 1)) / true.var(axis=(0, 1))
    metrics = dict(zip(("r2_L", "r2_a", "r2_b"), r2.tolist()))
    names = {
        "color_name": color_names,
        "pattern": patterns,
        "part": parts,
        "category": categories,
    }
    for column, (name, found) in enumerate(names.items(), COLORS):
        known = targets[..., column] != IGNORED
        metrics[name] = float((found == targets[..., column])[known].mean())
    places = torch.from_numpy(targets[..., COLORS + NAMES : -SIZES])
    true_steps = steps_of(places).numpy()
    metrics["step"] = float((steps == true_steps)[true_steps != IGNORED].mean())
    return metrics


class PointTokenTrainer(Trainer):
    """A `Trainer` of [`PointTokens`] with a learning rate of its own for a backbone that is trained."""

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(model)
        trained = []
        for parameter in self.model.descriptor.model.backbone.parameters():
            if parameter.requires_grad:
                trained.append(parameter)
        if not trained:
            return optimizer
        backbone = set(trained)
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if p not in backbone]
        optimizer.add_param_group(
            {
                "params": trained,
                "lr": self.args.backbone_learning_rate,
                "weight_decay": 0.0,
            }
        )
        return optimizer


def train_language_model(descriptor: PreTrainedModel, is_trained: bool) -> None:
    descriptor.model.language_model.requires_grad_(is_trained)
    descriptor.get_output_embeddings().requires_grad_(is_trained)


def main() -> None:
    data_args, model_args, training_args = TrlParser(
        (DataArguments, PointDescriptorModelArguments, PointTokenTrainingArguments)
    ).parse_args_and_config()
    # fresh weights are made before the trainer, which sets the seed too late for them
    set_seed(training_args.seed)

    if training_args.feature_cache is not None and model_args.freeze != "backbone":
        raise ValueError(
            "feature_cache keeps what a frozen backbone computes, but with "
            f"freeze={model_args.freeze!r} it is trained: leave feature_cache out, or set freeze to backbone"
        )
    dataset = load_points(data_args.data_dir)
    for split in ("train", "validation"):
        if split not in dataset:
            raise ValueError(f"{data_args.data_dir}: there is no {split} photo")
    descriptor, processor = prepare_descriptor(
        model_args, dataset["train"], training_args
    )
    train_language_model(descriptor, False)
    views = {
        "train": training_views(dataset["train"], training_args),
        "validation": make_views(list(read_dataset(dataset["validation"]))),
    }
    width = descriptor.config.get_text_config().hidden_size
    heads = AuxiliaryHeads.for_views(width, views["train"])

    def points_of(split: str, draws: int) -> PointsOfViews:
        cache = None
        if training_args.feature_cache is not None:
            backbone = descriptor.model.backbone
            folder = training_args.feature_cache
            cache = cache_views(folder, backbone, processor, views[split])
        count = training_args.points_per_image
        return PointsOfViews(views[split], processor, heads, count, draws, cache)

    training_args.label_names = ["point_targets"]
    trainer = PointTokenTrainer(
        model=PointTokens(descriptor, heads),
        args=training_args,
        data_collator=collate,
        train_dataset=points_of("train", training_args.draws),
        eval_dataset=points_of("validation", 1),
        compute_metrics=compute_metrics,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(training_args))
    print(trainer.evaluate())
    if trainer.is_world_process_zero():
        train_language_model(descriptor, True)
        descriptor.save_pretrained(training_args.output_dir)
        processor.save_pretrained(training_args.output_dir)
        save_file(heads.state_dict(), Path(training_args.output_dir) / HEADS_FILE)


if __name__ == "__main__":
    main()
