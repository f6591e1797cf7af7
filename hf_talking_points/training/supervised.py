"""Supervised training of both models on (image, point, description) triplets, several points of a photo at a time."""

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, pipeline
from transformers.models.mask2former.modeling_mask2former import (
    dice_loss,
    sigmoid_cross_entropy_loss,
)
from trl import SFTTrainer

from ..data.triplets import sample_triplets
from ..metrics import summary
from ..evaluation.protocol import describe_views, localize_views, naming_accuracy, view_distances
from ..hub import HubTrainerMixin
from ..models.coordinates import canvas_box, pixels_to_canvas
from ..models.pipelines import PointDescriptionPipeline
from .feature_cache import FeatureCache
from .fused_head import completions_only


def cache_views(folder, backbone, processor, views):
    """[`FeatureCache`] of the canvases of `views`."""

    def normalize(canvases):
        return processor.image_processor(canvases, return_tensors="pt")["pixel_values"]

    def canvas(index):
        return np.asarray(processor.canvas(views[index].image()))

    return FeatureCache(
        folder,
        backbone,
        [view.key for view in views] + [str(processor.image_size)],
        len(views),
        canvas,
        normalize,
    )


def triplet_dataset(
    views,
    processor,
    cache=None,
    points_per_image=8,
    style_weights=None,
    surroundings=0.0,
    draws=1,
    seed=0,
):
    """A `datasets.Dataset` with `draws` rows a view, each with points and descriptions of its own.

    What a row holds follows from `seed` and its index, so that a resumed run goes on with the same data. Columns: `feature_maps` (with
    `cache`) or `pixel_values`; `points` on the canvas; `scale`, parts of the image's width and height for one canvas unit; `size` in
    pixels; `descriptions`; `sources`, (object, part point) or None.
    """

    def transform(batch):
        rows = {
            "feature_maps" if cache else "pixel_values": [],
            "points": [],
            "scale": [],
            "size": [],
            "descriptions": [],
            "sources": [],
        }
        for row in batch["row"]:
            index = row % len(views)
            view, size, rng = (
                views[index],
                views[index].photo.size,
                np.random.default_rng([seed, row]),
            )
            points, descriptions, sources = sample_triplets(
                view, points_per_image, rng, style_weights, surroundings
            )
            if cache:
                rows["feature_maps"].append(cache[index])
            else:
                rows["pixel_values"].append(processor.pixel_values([view.image()])[0])
            points = torch.tensor(points, dtype=torch.float64)
            rows["points"].append(pixels_to_canvas(points, *size, processor.image_size).float())
            _, _, width, height = canvas_box(*size, processor.image_size)
            rows["scale"].append(
                torch.tensor([processor.image_size / width, processor.image_size / height])
            )
            rows["size"].append(size)
            rows["descriptions"].append(descriptions)
            rows["sources"].append(sources)
        return rows

    return Dataset.from_dict({"row": list(range(draws * len(views)))}).with_transform(transform)


def collate_images(rows):
    if "pixel_values" in rows[0]:
        return {"pixel_values": torch.stack([row["pixel_values"] for row in rows])}
    return {
        "feature_maps": [
            torch.stack(level) for level in zip(*(row["feature_maps"] for row in rows))
        ]
    }


class LocalizerCollator:
    """Rows of [`triplet_dataset`] -> inputs of the localizer, with `target_points` and their `scale` of shape (photos, points, 2)."""

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, rows):
        texts = [text for row in rows for text in row["descriptions"]]
        encoded = self.processor.encode_descriptions(texts, padding_side="right")
        points = torch.stack([row["points"] for row in rows])
        scale = torch.stack([row["scale"] for row in rows])[:, None].expand_as(points)
        return {**encoded, **collate_images(rows), "target_points": points, "scale": scale}


class PointLocalizerTrainer(HubTrainerMixin, Trainer):
    """`Trainer` whose evaluation reports mPCK and PCK of the predicted points."""

    def __init__(self, model, args, processing_class, **kwargs):
        args.remove_unused_columns = False
        args.label_names = ["target_points", "scale"]
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            data_collator=LocalizerCollator(processing_class),
            compute_metrics=self.localization_metrics,
            **kwargs,
        )

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        target = inputs["target_points"]
        inputs = {
            name: value for name, value in inputs.items() if name not in ("target_points", "scale")
        }
        outputs = model(**inputs, target_points=target.flatten(0, 1))
        return (
            (outputs.loss, {"loss": outputs.loss, "points": outputs.points.view_as(target)})
            if return_outputs
            else outputs.loss
        )

    @staticmethod
    def localization_metrics(prediction):
        target, scale = prediction.label_ids
        return summary(np.linalg.norm((prediction.predictions - target) * scale, axis=-1).ravel())


class PointHeads(nn.Module):
    """What an auxiliary loss reads from the point token while the descriptor is trained: the part, the object's category, where in the
    object's box the point lies, and the box's size. They bring part and extent into the token long before the text's loss does, and
    are thrown away afterwards."""

    def __init__(self, dim, parts, categories):
        super().__init__()
        self.parts = {name: i for i, name in enumerate(sorted(parts))}
        self.categories = {name: i for i, name in enumerate(sorted(categories))}
        self.layers = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.part, self.category = nn.Linear(dim, len(parts)), nn.Linear(dim, len(categories) + 1)
        self.extent = nn.Linear(dim, 6)

    def targets(self, source, size):
        """-> [part, category, u, v, centre x, centre y, width, height]; part -100 and NaN extents for surroundings."""
        if source is None:
            return [-100, len(self.categories)] + [float("nan")] * 6
        annotated, part = source
        x1, y1, x2, y2 = annotated.box
        u, v = (part.x - x1) / max(x2 - x1, 1), (part.y - y1) / max(y2 - y1, 1)
        extent = [
            u,
            v,
            (x1 + x2) / 2 / size[0],
            (y1 + y2) / 2 / size[1],
            (x2 - x1) / size[0],
            (y2 - y1) / size[1],
        ]
        return [self.parts[part.part], self.categories[annotated.category], *extent]

    def forward(self, point_features, targets):
        features = self.layers(point_features)
        part, category, extent = targets[:, 0].long(), targets[:, 1].long(), targets[:, 2:]
        known = ~extent.isnan().any(1)
        loss = F.cross_entropy(self.category(features).float(), category)
        if known.any():
            loss = loss + F.cross_entropy(self.part(features).float(), part)
            loss = loss + 10 * F.smooth_l1_loss(
                self.extent(features).float()[known], extent[known], beta=0.1
            )
        return loss


def box_mask_loss(mask_logits, boxes):
    """Supervises predicted point masks by object boxes, with OMG-LLaVA's weights: 0.4 cross-entropy + 0.1 dice, mean over layers.

    Args:
        mask_logits (list of `torch.Tensor` of shape `(points, height, width)`)
        boxes (`torch.Tensor` of shape `(points, 4)`): x1, y1, x2, y2 on the canvas; rows of NaN are left out.
    """
    known = ~boxes.isnan().any(1)
    x1, y1, x2, y2 = boxes[known].unbind(1)
    height, width = mask_logits[0].shape[1:]
    y, x = ((torch.arange(n, device=boxes.device) + 0.5) / n for n in (height, width))
    rows = (y >= y1[:, None]) & (y <= y2[:, None])
    columns = (x >= x1[:, None]) & (x <= x2[:, None])
    target = (rows[:, :, None] & columns[:, None]).flatten(1).float()
    count = max(len(target), 1)
    losses = [
        0.4 * sigmoid_cross_entropy_loss(logits, target, count)
        + 0.1 * dice_loss(logits, target, count)
        for logits in (layer[known].flatten(1).float() for layer in mask_logits)
    ]
    return torch.stack(losses).mean()


class DescriptorCollator:
    """Rows of [`triplet_dataset`] -> inputs of the descriptor, with labels on the descriptions alone.

    With `heads` their targets come along, with `boxes` the object boxes on the canvas."""

    def __init__(self, processor, heads=None, boxes=False):
        self.processor, self.heads, self.boxes = processor, heads, boxes

    def canvas_boxes(self, row):
        corners = [
            [source[0].box[:2], source[0].box[2:]] if source else [[float("nan")] * 2] * 2
            for source in row["sources"]
        ]
        return pixels_to_canvas(
            torch.tensor(corners), *row["size"], self.processor.image_size
        ).flatten(1)

    def __call__(self, rows):
        prompt, answered = self.processor.render(), self.processor.render("{description}")
        texts = [
            answered.replace("{description}", text) for row in rows for text in row["descriptions"]
        ]
        encoded = self.processor.tokenize(texts, padding_side="right")
        prompt_length = self.processor.tokenize([prompt])["input_ids"].shape[1]
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
        labels[:, :prompt_length] = -100
        batch = {
            **encoded,
            **collate_images(rows),
            "labels": labels,
            "input_points": torch.stack([row["points"] for row in rows]),
        }
        if self.heads is not None:
            targets = [
                self.heads.targets(source, row["size"]) for row in rows for source in row["sources"]
            ]
            batch["point_targets"] = torch.tensor(targets)
        if self.boxes:
            batch["object_boxes"] = torch.cat([self.canvas_boxes(row) for row in rows])
        return batch


class PointDescriptorTrainer(HubTrainerMixin, SFTTrainer):
    """TRL's `SFTTrainer` on rows of [`triplet_dataset`], optionally with an auxiliary loss on the point token.

    With `point_mask="predicted"` the masks are supervised by the object boxes ([`box_mask_loss`]).

    Args:
        heads ([`PointHeads`], *optional*): trained along with the model, saved in the run's checkpoints but not in the final model.
        heads_weight (`float`): weight of their loss.
        localizer (`str`, *optional*): localizer checkpoint; evaluation then describes the points of `judged_views` and reports the
            mPCK with which it finds them.
        judged_views (list of [`View`])
    """

    def __init__(
        self,
        model,
        args,
        processing_class,
        heads=None,
        heads_weight=1.0,
        localizer=None,
        judged_views=(),
        **kwargs,
    ):
        args.remove_unused_columns = False
        args.dataset_kwargs = {"skip_prepare_dataset": True}
        self.heads_weight, self.judged_views = heads_weight, judged_views
        self.locate = pipeline("point-localization", model=localizer) if localizer else None
        if heads is not None and kwargs.get("peft_config") is not None:
            raise ValueError(
                "heads train the vision side, which peft_config freezes: leave one of the two out"
            )
        if heads is not None:
            model.point_heads = heads
        # the fused head of trl hands out no outputs of the model
        model.base_model.register_forward_hook(
            lambda module, args, out: setattr(self, "_core_outputs", out)
        )
        collator = DescriptorCollator(
            processing_class, heads, boxes=model.config.point_mask == "predicted"
        )
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            data_collator=collator,
            **kwargs,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        targets, boxes = inputs.pop("point_targets", None), inputs.pop("object_boxes", None)
        if not (
            return_outputs or self.label_smoother or self.compute_loss_func
        ):  # all of which need the logits
            inputs |= completions_only(inputs.pop("labels"))
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, outputs = result if return_outputs else (result, None)
        core, logged = self._core_outputs, self._metrics["train" if model.training else "eval"]
        if targets is not None:
            heads_loss = self.accelerator.unwrap_model(model).point_heads(
                core.point_features, targets
            )
            logged["heads_loss"].append(heads_loss.item())
            loss = loss + self.heads_weight * heads_loss
        if boxes is not None:
            mask_loss = box_mask_loss(core.point_mask_logits, boxes)
            logged["mask_loss"].append(mask_loss.item())
            loss = loss + mask_loss
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args, metric_key_prefix="eval", **kwargs):
        metrics = super().evaluate(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.locate is not None:
            model = self.accelerator.unwrap_model(self.model).eval()
            describe = PointDescriptionPipeline(model=model, processor=self.processing_class)
            descriptions = describe_views(describe, self.judged_views)
            found = localize_views(self.locate, self.judged_views, descriptions)
            judged = {
                **summary(view_distances(self.judged_views, found)),
                **naming_accuracy(
                    self.judged_views, [text for row in descriptions for text in row]
                ),
            }
            judged = {f"{metric_key_prefix}_{name}": value for name, value in judged.items()}
            self.log(judged)
            metrics.update(judged)
        return metrics

    def save_model(self, output_dir=None, _internal_call=False):
        """Saves the descriptor; the auxiliary heads stay in checkpoints, from which training is resumed."""
        model = self.accelerator.unwrap_model(self.model)
        if not _internal_call and hasattr(model, "point_heads"):
            del model.point_heads
        super().save_model(output_dir, _internal_call)
