"""Supervised training of both models on (image, point, description) triplets, several points of a photo at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import is_peft_model
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForKeypointDetection,
    EvalPrediction,
    PreTrainedModel,
    ProcessorMixin,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    pipeline,
    set_seed,
)
from trl import SFTTrainer

from ..metrics import summary
from ..models.pipelines import PointDescriptionPipeline
from .arguments import (
    PointDescriptorArguments,
    PointDescriptorTrainingArguments,
    PointLocalizerTrainingArguments,
)
from .auxiliary_losses import AuxiliaryHeads, box_mask_loss
from .collators import DescriptorCollator, LocalizerCollator
from .fused_head import completions_only
from .triplet_dataset import Rows, cache_views, triplet_dataset
from .triplet_trainer import (
    NamedRows,
    TripletTrainerMixin,
    copied,
    default_output_dir,
    joined,
    load_model,
)

if TYPE_CHECKING:
    from peft import PeftConfig

    from ..data.triplets import View

__all__ = [
    "DescriptorCollator",
    "LocalizerCollator",
    "PointDescriptorTrainer",
    "PointLocalizerTrainer",
    "cache_views",
    "triplet_dataset",
]

HEADS_FILE = "auxiliary_heads.safetensors"
LOCALIZER_LABELS = ("target_points", "scale")


class PointLocalizerTrainer(TripletTrainerMixin, Trainer):
    """`Trainer` of a Point Localizer on points with descriptions; evaluation reports mPCK and PCK.

    Args:
        model (`str` or `PreTrainedModel`): path or Hub id of a localizer, or a loaded one.
        args ([`PointLocalizerTrainingArguments`] or `TrainingArguments`, *optional*)
        processing_class ([`PointLocalizerProcessor`], *optional*): by default the one that lies beside the checkpoint.
        train_dataset (`datasets.Dataset` or `IterableDataset`): in the row format (docs/dataset_formats.md). In a
            stream the rows of a photo follow each other.
        eval_dataset (the same, or a `dict` of them, *optional*)
        peft_config (`PeftConfig`, *optional*): trains adapters of the model.
        kwargs: further arguments of `Trainer`.
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: TrainingArguments | None = None,
        processing_class: ProcessorMixin | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: NamedRows | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        model = load_model(model, AutoModelForKeypointDetection, "point_localizer")
        if args is None:
            args = PointLocalizerTrainingArguments(default_output_dir(model))
        args = copied(args)
        processor = self.prepare(model, args, processing_class, eval_dataset)
        triplets = self.train_triplets(train_dataset)
        if peft_config is not None:
            set_seed(args.seed)  # of the adapters' first weights
            model = get_peft_model(model, peft_config)
        super().__init__(
            model=model,
            args=args,
            processing_class=processor,
            data_collator=LocalizerCollator(processor),
            train_dataset=triplets,
            eval_dataset=self.eval_triplets(),
            compute_metrics=self.localization_metrics,
            **kwargs,
        )
        self.label_names = list(LOCALIZER_LABELS)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        target = inputs["target_points"]  # (photos, points, 2)
        model_inputs = {
            name: value
            for name, value in inputs.items()
            if name not in LOCALIZER_LABELS
        }
        outputs = model(**model_inputs, target_points=target.flatten(0, 1))
        if not return_outputs:
            return outputs.loss
        return outputs.loss, {
            "loss": outputs.loss,
            "points": outputs.points.view_as(target),
        }

    @staticmethod
    def localization_metrics(prediction: EvalPrediction) -> dict[str, float]:
        target, scale = prediction.label_ids
        offsets = (
            prediction.predictions - target
        ) * scale  # in parts of the photo's sides
        return summary(np.linalg.norm(offsets, axis=-1).ravel())


class ClearHeadGradients(TrainerCallback):
    """Clears the gradients of auxiliary heads after each step, as `Trainer` clears those of its model alone."""

    def __init__(self, heads: AuxiliaryHeads) -> None:
        self.heads = heads

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.heads.zero_grad()


class PointDescriptorTrainer(TripletTrainerMixin, SFTTrainer):
    """TRL's `SFTTrainer` of a Point Descriptor on points with descriptions.

    With `point_mask="predicted"` the masks are supervised by the object boxes ([`box_mask_loss`]). With `heads_weight`
    in the arguments [`AuxiliaryHeads`] are trained along with the model: they lie in the run's checkpoints, but are no
    part of the model. With `localizer` evaluation reports how well the descriptions of points are found.

    Args:
        model (`str` or `PreTrainedModel`): path or Hub id of a descriptor, or a loaded one.
        args ([`PointDescriptorTrainingArguments`], `SFTConfig` or `TrainingArguments`, *optional*)
        processing_class ([`PointDescriptorProcessor`], *optional*): by default the one that lies beside the
            checkpoint.
        train_dataset (`datasets.Dataset` or `IterableDataset`): in the row format (docs/dataset_formats.md). In a
            stream the rows of a photo follow each other.
        eval_dataset (the same, or a `dict` of them, *optional*)
        peft_config (`PeftConfig`, *optional*): trains adapters of the model.
        kwargs: further arguments of `SFTTrainer`.
    """

    # What TRL forces beside TripletTrainerMixin: `_prepare_dataset` would tokenize texts, and the fused head hands out
    # no outputs of the model, so that a hook keeps those of its core (`_core_outputs`) for the auxiliary losses. As
    # the heads are no part of the model, optimizer, clipping, checkpoints and resuming are told of them.

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: TrainingArguments | None = None,
        processing_class: ProcessorMixin | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: NamedRows | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        model = load_model(model, AutoModelForImageTextToText, "point_descriptor")
        if args is None:
            args = PointDescriptorTrainingArguments(default_output_dir(model))
        args = copied(args)
        options = (
            args
            if isinstance(args, PointDescriptorArguments)
            else PointDescriptorArguments()
        )
        processor = self.prepare(model, args, processing_class, eval_dataset)
        triplets = self.train_triplets(train_dataset)
        set_seed(args.seed)  # of the heads' first weights
        is_adapted = peft_config is not None or is_peft_model(model)
        heads = self.auxiliary_heads(options.heads_weight, model, is_adapted)
        self.heads = heads
        self.options = options
        self.locate = None
        if options.localizer is not None:
            self.locate = pipeline("point-localization", model=options.localizer)
        plain = model.get_base_model() if is_peft_model(model) else model
        plain.base_model.register_forward_hook(self.keep_core_outputs)
        boxes = model.config.point_mask == "predicted"
        super().__init__(
            model=model,
            args=args,
            processing_class=processor,
            data_collator=DescriptorCollator(processor, heads, boxes),
            train_dataset=triplets,
            eval_dataset=self.eval_triplets(),
            peft_config=peft_config,
            **kwargs,
        )
        if heads is not None:
            self.prepare_heads(heads)

    def auxiliary_heads(
        self, weight: float, model: PreTrainedModel, is_adapted: bool
    ) -> AuxiliaryHeads | None:
        """Fresh heads for the names of the train photos, where their loss has a weight."""
        if not weight:
            return None
        if is_adapted:
            raise ValueError(
                "heads_weight trains the vision side, which adapters leave as it is: leave one of the two out"
            )
        if not self.train_views:
            raise ValueError(
                "heads_weight needs the names of all parts and objects before training, which a stream does not "
                "tell: load train_dataset without streaming=True, or leave heads_weight out"
            )
        point_dim = 2 * model.config.vision_config.hidden_dim
        return AuxiliaryHeads.for_views(point_dim, self.train_views)

    def prepare_heads(self, heads: AuxiliaryHeads) -> None:
        """Puts the heads where the model is, in as many processes."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError(
                "heads_weight works in one process or with DDP, not with DeepSpeed or FSDP: leave it out"
            )
        self.wrapped_heads = self.accelerator.prepare_model(heads)
        self.add_callback(ClearHeadGradients(heads))

    def keep_core_outputs(self, module: nn.Module, args: tuple, outputs: Any) -> None:
        self._core_outputs = outputs

    def _prepare_dataset(self, dataset: Rows, *args: Any, **kwargs: Any) -> Rows:
        return dataset

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.heads is None:
            return super().create_optimizer(model)
        model = self.model if model is None else model
        return super().create_optimizer(
            nn.ModuleDict({"model": model, "heads": self.heads})
        )

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        if self.heads is None:
            return super()._clip_grad_norm(model)
        parameters = [*model.parameters(), *self.heads.parameters()]
        return self.accelerator.clip_grad_norm_(parameters, self.args.max_grad_norm)

    def save_model(
        self, output_dir: str | None = None, _internal_call: bool = False
    ) -> None:
        """As of `Trainer`; the auxiliary heads come along into the run's checkpoints alone."""
        super().save_model(output_dir, _internal_call)
        # transformers saves checkpoints in this way alone
        checkpoint = output_dir if _internal_call else None
        if self.heads is not None and checkpoint is not None and self.args.should_save:
            save_file(self.heads.state_dict(), Path(checkpoint) / HEADS_FILE)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.heads is None:
            return
        file = Path(resume_from_checkpoint) / HEADS_FILE
        if not file.is_file():
            raise ValueError(
                f"{resume_from_checkpoint} holds no {HEADS_FILE}: it is of a run without heads_weight, "
                "or not a checkpoint of a run"
            )
        self.heads.load_state_dict(load_file(file))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        targets = inputs.pop("point_targets", None)
        boxes = inputs.pop("object_boxes", None)
        needs_logits = return_outputs or self.label_smoother or self.compute_loss_func
        if not needs_logits:
            inputs |= completions_only(inputs.pop("labels"))
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, outputs = result if return_outputs else (result, None)
        core = self._core_outputs
        logged = self._metrics["train" if model.training else "eval"]
        if targets is not None:
            heads_loss = self.wrapped_heads(core.point_features, targets)
            logged["heads_loss"].append(heads_loss.item())
            loss = loss + self.options.heads_weight * heads_loss
        if boxes is not None:
            mask_loss = box_mask_loss(core.point_mask_logits, boxes)
            logged["mask_loss"].append(mask_loss.item())
            loss = loss + mask_loss
        return (loss, outputs) if return_outputs else loss

    def judge(self, views: list[View], metric_key_prefix: str) -> dict[str, float]:
        """How well the localizer finds descriptions of the first photos, and how often they name object and part."""
        if self.locate is None:
            return {}
        # evaluation is of no use to whoever only trains
        from ..evaluation.round_trip import (
            describe_points,
            flat,
            locate_points,
            naming_accuracy,
            view_distances,
        )

        judged = views[: self.options.judged_photos]
        model = self.accelerator.unwrap_model(self.model).eval()
        describe = PointDescriptionPipeline(
            model=model, processor=self.processing_class
        )
        texts = describe_points(describe, judged)
        found = locate_points(self.locate, judged, texts)
        scores = {
            **summary(view_distances(judged, found)),
            **naming_accuracy(judged, flat(texts)),
        }
        metrics = {
            joined(metric_key_prefix, name): value for name, value in scores.items()
        }
        self.log(dict(metrics))
        return metrics
