r"""Adapts an ImageNet backbone to objects and their parts, so that it can stay frozen, and its features cached.

python examples/pretrain_backbone.py --config examples/pretrain_backbone.yaml \
    --data_dir DATA/animalpose_voc_256 DATA/cars_256

Dense supervision from named points alone: one heat map per part name over the whole photo, and at every named point
its part, its object's category and where in the object's box it lies. Only the train split is used; the heads are
thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import EvalPrediction, Trainer, TrainingArguments, set_seed
from trl import TrlParser

from hf_talking_points.checkpoints import last_checkpoint
from hf_talking_points.data.crops import crop_image, crop_photo, random_crop
from hf_talking_points.data.photos import Photo
from hf_talking_points.data.rows import load_points
from hf_talking_points.data.sources import read_dataset
from hf_talking_points.models.coordinates import letterbox, pixels_to_canvas
from hf_talking_points.models.modeling_efficientnet_lite import (
    EfficientNetLiteBackbone,
    EfficientNetLiteConfig,
)
from hf_talking_points.offline import efficientnet_lite0_state_dict
from hf_talking_points.training.arguments import DataArguments

# columns of the points of a batch
IMAGE, X, Y, PART, CATEGORY = range(5)
EXTENT = slice(
    5, 9
)  # u, v in the object's box; its width and height in parts of the photo
HEAT_SIGMA = 0.025  # of the canvas's side
HIT_DISTANCE = 0.1
EXTENT_WEIGHT = 10
PIXEL_MEAN = PIXEL_DEVIATION = 127.5
BRIGHTNESS = 0.25  # most that each color is brighter or darker


@dataclass
class BackboneArguments(DataArguments):
    image_size: int = field(
        default=256, metadata={"help": "side of the square canvas in pixels"}
    )


class Names:
    """Numbers for the names of parts and categories."""

    def __init__(self, photos: Iterable[Photo]) -> None:
        parts = set()
        categories = set()
        for photo in photos:
            for annotated in photo.objects:
                categories.add(annotated.category)
                parts.update(
                    point.part for point in annotated.points if point.part is not None
                )
        self.parts = {name: number for number, name in enumerate(sorted(parts))}
        self.categories = {
            name: number for number, name in enumerate(sorted(categories))
        }


class AnnotatedPhotos(torch.utils.data.Dataset):
    """Canvases of photos, or of random crops of them, with their named points."""

    def __init__(
        self, photos: list[Photo], names: Names, image_size: int, augment: bool
    ) -> None:
        self.photos = photos
        self.names = names
        self.image_size = image_size
        self.augment = augment
        self.images = [photo.open() for photo in photos]

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        photo = self.photos[index]
        image = self.images[index]
        if self.augment:
            rng = np.random.default_rng(torch.randint(2**31, ()).item())
            crop, mirror = random_crop(photo, rng)
            photo = crop_photo(photo, crop, mirror)
            image = crop_image(image, crop, mirror)
        points = self.point_rows(photo)
        canvas = np.array(letterbox(image, self.image_size))
        pixels = torch.from_numpy(canvas).permute(
            2, 0, 1
        )  # (3, image_size, image_size)
        if self.augment:
            noise = torch.rand(3, 1, 1) + torch.rand(1, 1, 1) - 1
            pixels = (pixels * (1 + BRIGHTNESS * noise)).clamp(0, 255).to(torch.uint8)
        return {"pixels": pixels, "points": torch.tensor(points).reshape(-1, 8)}

    def point_rows(self, photo: Photo) -> list[list[float]]:
        """The columns of a batch's points, less the image."""
        rows = []
        width, height = photo.size
        for annotated in photo.objects:
            x1, y1, x2, y2 = annotated.box
            for point in annotated.points:
                if point.part is None:
                    continue
                place = torch.tensor([point.x, point.y])
                x, y = pixels_to_canvas(place, width, height, self.image_size).tolist()
                u = (point.x - x1) / (x2 - x1)
                v = (point.y - y1) / (y2 - y1)
                part = self.names.parts[point.part]
                category = self.names.categories[annotated.category]
                size = [(x2 - x1) / width, (y2 - y1) / height]
                rows.append([x, y, part, category, u, v, *size])
        return rows


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    points = []
    for number, row in enumerate(rows):
        image = torch.full((len(row["points"]), 1), float(number))
        points.append(torch.cat([image, row["points"]], 1))  # (points of a photo, 9)
    pixels = torch.stack([row["pixels"] for row in rows]).float()
    return {
        "pixel_values": (pixels - PIXEL_MEAN) / PIXEL_DEVIATION,
        "points": torch.cat(points),
    }


def freeze_filters(backbone: EfficientNetLiteBackbone) -> None:
    """Leaves the stem, the first stage and every depthwise filter as ImageNet made them.

    They have few weights, but on a CPU their gradients cost more than all others.
    """
    first_stage = backbone._blocks[: min(backbone.taps) + 1]
    depthwise = [block._depthwise_conv for block in backbone._blocks]
    for module in [backbone._conv_stem, backbone._bn0, *first_stage, *depthwise]:
        module.requires_grad_(False)


class PartsAndObjects(nn.Module):
    """A backbone with heads that read parts, objects and extents from its feature maps."""

    def __init__(
        self,
        backbone: EfficientNetLiteBackbone,
        num_parts: int,
        num_categories: int,
        dim: int = 160,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.proj = nn.ModuleList(
            [nn.Conv2d(channels, dim, 1) for channels in backbone.channels]
        )
        self.norm = nn.ModuleList([nn.GroupNorm(8, dim) for _ in backbone.channels])
        self.mix = nn.Sequential(
            nn.Conv2d(dim, dim, 3, 1, 1, groups=8), nn.GELU(), nn.Conv2d(dim, dim, 1)
        )
        self.heat = nn.Conv2d(dim, num_parts, 1)
        self.point = nn.Sequential(
            nn.Linear(dim, 2 * dim),
            nn.GELU(),
            nn.Linear(2 * dim, num_parts + num_categories + 4),
        )
        self.num_parts = num_parts
        self.num_categories = num_categories

    def train(self, mode: bool = True) -> PartsAndObjects:
        super().train(mode)
        self.backbone.eval()  # batches of 16 are too small for batch statistics
        return self

    def forward(
        self, pixel_values: torch.Tensor, points: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The loss, and what the metrics are made of.

        Args:
            pixel_values (`torch.Tensor` of shape `(photos, 3, height, width)`)
            points (`torch.Tensor` of shape `(points, 9)`)
        """
        fused = self.fuse(pixel_values)
        heat_loss, hits = self.heat_loss(fused, points)

        sizes = [self.num_parts, self.num_categories, 4]
        read = self.point(features_at(fused, points)).float()
        part_logits, category_logits, extent = read.split(sizes, 1)
        part = points[:, PART].long()
        category = points[:, CATEGORY].long()
        part_loss = F.cross_entropy(part_logits, part)
        category_loss = F.cross_entropy(category_logits, category)
        extent_loss = F.smooth_l1_loss(extent, points[:, EXTENT], beta=0.1)

        part_found = (part_logits.argmax(1) == part).float()
        category_found = (category_logits.argmax(1) == category).float()
        return {
            "loss": heat_loss + part_loss + category_loss + EXTENT_WEIGHT * extent_loss,
            "correct": torch.stack([part_found, category_found, hits], 1),
            "extent": (extent - points[:, EXTENT]).abs(),
        }

    def fuse(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """All feature maps at the size of the largest, `(photos, dim, height, width)`."""
        levels = self.backbone(pixel_values).feature_maps
        size = levels[0].shape[-2:]
        resized = []
        for project, norm, level in zip(self.proj, self.norm, levels):
            resized.append(
                F.interpolate(norm(project(level)), size=size, mode="bilinear")
            )
        fused = sum(resized)
        return fused + self.mix(fused)

    def heat_loss(
        self, fused: torch.Tensor, points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of the heat maps of all parts seen, and for each point whether its map's peak lies near it."""
        height, width = fused.shape[-2:]
        cells_x = (torch.arange(width) + 0.5) / width
        cells_y = (torch.arange(height) + 0.5) / height
        squares_x = (cells_x - points[:, X, None]) ** 2  # (points, width)
        squares_y = (cells_y - points[:, Y, None]) ** 2  # (points, height)
        squares = squares_y[:, :, None] + squares_x[:, None, :]
        gaussians = torch.exp(-squares / (2 * HEAT_SIGMA**2)).flatten(1)

        # one map for each part of each photo, with all of its points
        maps = points[:, IMAGE].long() * self.num_parts + points[:, PART].long()
        seen, map_of_point = torch.unique(maps, return_inverse=True)
        target = torch.zeros(len(seen), height * width).index_add_(
            0, map_of_point, gaussians
        )
        target = target / target.sum(1, keepdim=True)
        logits = (
            self.heat(fused).flatten(0, 1)[seen].flatten(1).float()
        )  # (maps, cells)

        peak = logits.argmax(1)
        peaks = torch.stack([cells_x[peak % width], cells_y[peak // width]], 1)[
            map_of_point
        ]
        hits = (peaks - points[:, [X, Y]]).norm(dim=1) < HIT_DISTANCE
        return F.cross_entropy(logits, target), hits.float()


def features_at(fused: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The features at the points, `(points, dim)`."""
    grid = points[:, [X, Y]] * 2 - 1
    sampled = []
    for number, features in enumerate(fused):
        of_photo = grid[points[:, IMAGE].long() == number]
        features = features[None].float()
        at_points = F.grid_sample(features, of_photo[None, None], align_corners=False)
        sampled.append(at_points[0, :, 0].T)  # (points of a photo, dim)
    return torch.cat(sampled)


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    correct, extent_errors = prediction.predictions
    metrics = dict(zip(("part", "category", "heat_pck_0.1"), correct.mean(0).tolist()))
    errors = zip(("u", "v", "w", "h"), extent_errors.mean(0).tolist())
    metrics.update({f"error_{name}": error for name, error in errors})
    return metrics


class BackboneTrainer(Trainer):
    """`Trainer` of [`PartsAndObjects`], which takes all that a photo's row holds."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            data_collator=collate, compute_metrics=compute_metrics, **kwargs
        )
        self.label_names = ["points"]

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["pixels", "points"]


def named_photos(rows: Any) -> list[Photo]:
    """Photos with a named point on an object."""
    photos = []
    for photo in read_dataset(rows):
        parts = [
            point.part for annotated in photo.objects for point in annotated.points
        ]
        if any(part is not None for part in parts):
            photos.append(photo)
    return photos


def main() -> None:
    data_args, training_args = TrlParser(
        (BackboneArguments, TrainingArguments)
    ).parse_args_and_config()
    # fresh weights are made before the trainer, which sets the seed too late for them
    set_seed(training_args.seed)

    dataset = load_points(data_args.data_dir)
    photos = {split: named_photos(rows) for split, rows in dataset.items()}
    for split in ("train", "validation"):
        if not photos.get(split):
            raise ValueError(
                f"{data_args.data_dir}: no {split} photo has a named point"
            )
    names = Names([photo for of_split in photos.values() for photo in of_split])
    size = data_args.image_size

    config = EfficientNetLiteConfig(out_features=["stage2", "stage3", "stage4"])
    backbone = EfficientNetLiteBackbone(config)
    backbone.load_state_dict(efficientnet_lite0_state_dict())
    freeze_filters(backbone)
    trainer = BackboneTrainer(
        model=PartsAndObjects(backbone, len(names.parts), len(names.categories)),
        args=training_args,
        train_dataset=AnnotatedPhotos(photos["train"], names, size, augment=True),
        eval_dataset=AnnotatedPhotos(photos["validation"], names, size, augment=False),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(training_args))
    print(trainer.evaluate())
    if trainer.is_world_process_zero():
        backbone.save_pretrained(training_args.output_dir)


if __name__ == "__main__":
    main()
