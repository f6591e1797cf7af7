"""Adapts an ImageNet backbone to objects and their parts, so that it can stay frozen (and its features cached) afterwards.

    python examples/pretrain_backbone.py --config examples/pretrain_backbone.yaml --data_dir DATA/animalpose_voc_256 DATA/cars_256

Dense supervision from named points alone: one heat map per part name over the whole photo, and at every named point its part, its
object's category and where in the object's box it lies. Only the train split is used; the heads are thrown away.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl import TrlParser

from hf_talking_points.data.sources import random_view, read_photos, view, view_image
from hf_talking_points.models.coordinates import letterbox, pixels_to_canvas
from hf_talking_points.models.modeling_efficientnet_lite import (
    EfficientNetLiteBackbone,
    EfficientNetLiteConfig,
)
from hf_talking_points.offline import efficientnet_lite0_state_dict


@dataclass
class DataArguments:
    data_dir: list[str] = field(
        metadata={"help": "folders with an objects.jsonl, or built datasets (folder or Hub id)"}
    )
    image_size: int = field(default=256, metadata={"help": "side of the square canvas in pixels"})


class AnnotatedPhotos(torch.utils.data.Dataset):
    def __init__(self, photos, parts, categories, image_size, augment):
        self.photos, self.image_size, self.augment = photos, image_size, augment
        self.parts, self.categories = parts, categories
        self.pixels = [photo.open() for photo in photos]

    def __len__(self):
        return len(self.photos)

    def __getitem__(self, index):
        photo, image = self.photos[index], self.pixels[index]
        if self.augment:
            rng = np.random.default_rng(torch.randint(2**31, ()).item())
            crop, mirror = random_view(photo, rng)
            photo, image = view(photo, crop, mirror), view_image(image, crop, mirror)
        rows = []
        for o in photo.objects:
            x1, y1, x2, y2 = o.box
            for p in o.points:
                x, y = pixels_to_canvas(
                    torch.tensor([p.x, p.y]), *photo.size, self.image_size
                ).tolist()
                w, h = x2 - x1, y2 - y1
                extent = [(p.x - x1) / w, (p.y - y1) / h, w / photo.size[0], h / photo.size[1]]
                rows.append([x, y, self.parts[p.part], self.categories[o.category], *extent])
        pixels = torch.from_numpy(np.array(letterbox(image, self.image_size))).permute(2, 0, 1)
        if self.augment:
            gain = 1 + 0.25 * (torch.rand(3, 1, 1) + torch.rand(1, 1, 1) - 1)
            pixels = (pixels * gain).clamp(0, 255).to(torch.uint8)
        return {"pixels": pixels, "points": torch.tensor(rows).reshape(-1, 8)}


def collate(rows):
    points = torch.cat(
        [
            torch.cat([torch.full((len(r["points"]), 1), float(i)), r["points"]], 1)
            for i, r in enumerate(rows)
        ]
    )
    return {
        "pixel_values": (torch.stack([r["pixels"] for r in rows]).float() - 127.5) / 127.5,
        "points": points,
    }


def freeze_filters(backbone):
    """Leaves the stem, the first stage and every depthwise filter as ImageNet made them: few weights, but on a CPU their gradients
    cost more than all others."""
    frozen = [backbone._conv_stem, backbone._bn0, *backbone._blocks[: min(backbone.taps) + 1]]
    for module in frozen + [block._depthwise_conv for block in backbone._blocks]:
        module.requires_grad_(False)


class PartsAndObjects(nn.Module):
    def __init__(self, backbone, num_parts, num_categories, dim=160):
        super().__init__()
        self.backbone = backbone
        self.proj = nn.ModuleList([nn.Conv2d(c, dim, 1) for c in backbone.channels])
        self.norm = nn.ModuleList([nn.GroupNorm(8, dim) for _ in backbone.channels])
        self.mix = nn.Sequential(
            nn.Conv2d(dim, dim, 3, 1, 1, groups=8), nn.GELU(), nn.Conv2d(dim, dim, 1)
        )
        self.heat = nn.Conv2d(dim, num_parts, 1)
        self.point = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, num_parts + num_categories + 4)
        )
        self.num_parts, self.num_categories = num_parts, num_categories

    def train(self, mode=True):
        super().train(mode)
        self.backbone.eval()  # batches of 16 are too small for batch statistics
        return self

    def forward(self, pixel_values, points):
        levels = self.backbone(pixel_values).feature_maps
        size = levels[0].shape[-2:]
        fused = sum(
            F.interpolate(norm(proj(level)), size=size, mode="bilinear")
            for proj, norm, level in zip(self.proj, self.norm, levels)
        )
        fused = fused + self.mix(fused)
        row, part, category = points[:, 0].long(), points[:, 3].long(), points[:, 4].long()

        height, width = size
        cells_y, cells_x = ((torch.arange(n) + 0.5) / n for n in (height, width))
        dy, dx = cells_y[None, :] - points[:, 2, None], cells_x[None, :] - points[:, 1, None]
        gaussians = torch.exp(
            -(dy[:, :, None] ** 2 + dx[:, None, :] ** 2) / (2 * 0.025**2)
        ).flatten(1)
        slot, where = torch.unique(row * self.num_parts + part, return_inverse=True)
        target = torch.zeros(len(slot), gaussians.shape[1]).index_add_(0, where, gaussians)
        logits = self.heat(fused).flatten(0, 1)[slot].flatten(1).float()
        heat_loss = F.cross_entropy(logits, target / target.sum(1, keepdim=True))

        grid = points[:, 1:3] * 2 - 1
        at_points = torch.cat(
            [
                F.grid_sample(f[None].float(), grid[row == i][None, None], align_corners=False)[
                    0, :, 0
                ].T
                for i, f in enumerate(fused)
            ]
        )
        out = self.point(at_points).float()
        part_logits, category_logits, extent = out.split(
            [self.num_parts, self.num_categories, 4], 1
        )
        part_loss, category_loss = (
            F.cross_entropy(part_logits, part),
            F.cross_entropy(category_logits, category),
        )
        extent_loss = F.smooth_l1_loss(extent, points[:, 5:9], beta=0.1)
        best = logits.argmax(1)
        found = torch.stack([cells_x[best % width], cells_y[best // width]], 1)[where]
        hits = ((found - points[:, 1:3]).norm(dim=1) < 0.1).float()
        correct = torch.stack(
            [
                (part_logits.argmax(1) == part).float(),
                (category_logits.argmax(1) == category).float(),
                hits,
            ],
            1,
        )
        return {
            "loss": heat_loss + part_loss + category_loss + 10 * extent_loss,
            "correct": correct,
            "extent": (extent - points[:, 5:9]).abs(),
        }


def compute_metrics(prediction):
    part, category, hit = prediction.predictions[0].mean(0).tolist()
    u, v, w, h = prediction.predictions[1].mean(0).tolist()
    return {
        "part": part,
        "category": category,
        "heat_pck_0.1": hit,
        "error_u": u,
        "error_v": v,
        "error_w": w,
        "error_h": h,
    }


def main():
    data, args = TrlParser((DataArguments, TrainingArguments)).parse_args_and_config()
    set_seed(
        args.seed
    )  # fresh weights are made before the trainer, which sets it too late for them
    photos = [
        photo
        for folder in data.data_dir
        for photo in read_photos(folder)
        if any(o.points for o in photo.objects)
    ]
    parts = {
        name: i
        for i, name in enumerate(
            sorted({p.part for f in photos for o in f.objects for p in o.points})
        )
    }
    categories = {
        name: i for i, name in enumerate(sorted({o.category for f in photos for o in f.objects}))
    }
    train, validation = (
        [f for f in photos if f.split == split] for split in ("train", "validation")
    )
    config = EfficientNetLiteConfig(out_features=["stage2", "stage3", "stage4"])
    backbone = EfficientNetLiteBackbone(config)
    backbone.load_state_dict(efficientnet_lite0_state_dict())
    freeze_filters(backbone)
    args.remove_unused_columns, args.label_names = False, ["points"]
    trainer = Trainer(
        model=PartsAndObjects(backbone, len(parts), len(categories)),
        args=args,
        train_dataset=AnnotatedPhotos(train, parts, categories, data.image_size, augment=True),
        eval_dataset=AnnotatedPhotos(validation, parts, categories, data.image_size, augment=False),
        data_collator=collate,
        compute_metrics=compute_metrics,
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(args.output_dir))
    print(trainer.evaluate())
    backbone.save_pretrained(args.output_dir)


if __name__ == "__main__":
    main()
