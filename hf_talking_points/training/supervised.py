"""Supervised training of both models on (image, point, description) triplets, several points of a photo at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import is_peft_model, recursively_apply
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
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer

from ..metrics import summary
from ..models.pipelines import PointDescriptionPipeline
from .arguments import (
    PointDescriptorArguments,
    PointDescriptorTrainingArguments,
    PointLocalizerTrainingArguments,
)
from .auxiliary_losses import (
    AuxiliaryHeads,
    box_mask_loss,
    known_boxes,
    known_targets,
)
from .calibration import is_found, of_other_photos
from .collators import DescriptorCollator, LocalizerCollator, Row
from .fused_head import has_virtual_tokens, labels_only
from .processors import processor_of
from .refused_options import check_router
from .triplet_dataset import Rows, cache_views, triplet_dataset
from .triplet_trainer import (
    NamedRows,
    TripletTrainerMixin,
    checked_model,
    copied,
    default_output_dir,
)

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers.utils.quantization_config import QuantizationConfigMixin

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
        data_collator (function, *optional*): makes batches of rows, by default a [`LocalizerCollator`].
        compute_metrics (function, *optional*): by default that of mPCK and PCK.
        kwargs: further arguments of `Trainer`.
    """

    loss_is_scaled_for_ga = True  # by the texts of all batches of an update

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: TrainingArguments | None = None,
        processing_class: ProcessorMixin | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: NamedRows | None = None,
        peft_config: PeftConfig | None = None,
        data_collator: Callable[[list[Row]], dict[str, Any]] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(model, str):
            model = AutoModelForKeypointDetection.from_pretrained(model)
        model = checked_model(model, "point_localizer")
        if args is None:
            args = PointLocalizerTrainingArguments(default_output_dir(model))
        args = copied(args)
        check_localizer_options(args)
        self.foreign_texts = getattr(args, "foreign_texts", 0)
        if self.foreign_texts:
            free_confidence_head(model)
        processor = self.prepare(model, args, processing_class, eval_dataset)
        triplets = self.train_triplets(train_dataset)
        if peft_config is not None:
            set_seed(args.seed)  # of the adapters' first weights
            model = get_peft_model(model, peft_config)
        super().__init__(
            model=model,
            args=args,
            processing_class=processor,
            data_collator=data_collator or LocalizerCollator(processor),
            train_dataset=triplets,
            eval_dataset=self.eval_triplets(),
            compute_metrics=compute_metrics or self.localization_metrics,
            **kwargs,
        )
        if args.label_names is None:
            self.label_names = list(LOCALIZER_LABELS)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if self.foreign_texts and model.training:
            inputs = of_other_photos(inputs, self.foreign_texts)
        target = inputs["target_points"]  # (photos, points, 2)
        model_inputs = {
            name: value
            for name, value in inputs.items()
            if name not in LOCALIZER_LABELS
        }
        rows = target.flatten(0, 1)
        outputs = model(**model_inputs, target_points=rows)
        if self.compute_loss_func is not None:
            loss = self.compute_loss_func(
                outputs, rows, num_items_in_batch=num_items_in_batch
            )
        else:
            loss = outputs.loss
            if self.foreign_texts:
                is_hit = is_found(outputs.points.detach(), target, inputs["scale"])
                loss = loss + confidence_loss(outputs.confidence, is_hit)
            if num_items_in_batch is not None:
                loss = loss * len(rows) / num_items_in_batch
        if num_items_in_batch is not None:
            loss = self.share(loss)
        if not return_outputs:
            return loss
        return loss, {"loss": loss, "points": outputs.points.view_as(target)}

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor | None:
        """How many texts the losses of an update's batches are averaged over, in all processes."""
        if not batch_samples:
            return None
        texts = sum(batch["target_points"][..., 0].numel() for batch in batch_samples)
        return self.over_processes(torch.tensor(texts, device=device))

    @staticmethod
    def localization_metrics(prediction: EvalPrediction) -> dict[str, float]:
        labels = prediction.label_ids
        found = prediction.predictions
        if isinstance(found, list):  # of batches, with eval_do_concat_batches=False
            found = np.concatenate(found)
            labels = [np.concatenate(column) for column in zip(*labels)]
        target, scale = labels
        offsets = (found - target) * scale  # in parts of the photo's sides
        return summary(np.linalg.norm(offsets, axis=-1).ravel())


def free_confidence_head(model: PreTrainedModel) -> None:
    """Lets the confidence head of a localizer be trained. Raises ValueError where it has none."""
    plain = model.get_base_model() if is_peft_model(model) else model
    if not plain.config.calibrated_confidence:
        raise ValueError(
            "foreign_texts trains the confidence, which this localizer reads off its map: "
            "fit it with examples/calibrate_localizer.py first, or leave foreign_texts out"
        )
    plain.confidence_head.requires_grad_(True)


def confidence_loss(confidence: torch.Tensor, is_hit: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of confidences and hits, both of shape `(rows,)`."""
    logits = confidence.float().logit(eps=1e-6)
    return nn.functional.binary_cross_entropy_with_logits(logits, is_hit.float())


def check_localizer_options(args: TrainingArguments) -> None:
    """Raises ValueError for options that a loss on places or its batches have no use for."""
    if args.label_smoothing_factor:
        raise ValueError(
            f"label_smoothing_factor={args.label_smoothing_factor} is not for PointLocalizerTrainer: its labels are "
            "places, not classes. heatmap_sigma of the model's config says how far they are smeared"
        )
    if args.n_gpu > 1:
        raise ValueError(
            "PointLocalizerTrainer does not run with nn.DataParallel, which would cut texts and photos apart: start "
            "it with `accelerate launch` or `torchrun`, or show it one GPU with CUDA_VISIBLE_DEVICES"
        )


class HeadsCallback(TrainerCallback):
    """Does for auxiliary heads what `Trainer` does for its model alone.

    It puts them in as many processes, with the same precision, when training begins, and clears their gradients after
    each step.
    """

    def __init__(self, trainer: PointDescriptorTrainer, heads: AuxiliaryHeads) -> None:
        self.trainer = trainer
        self.heads = heads

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if trainer.heads_are_prepared:
            return
        trainer.wrapped_heads = trainer.accelerator.prepare_model(self.heads)
        trainer.heads_are_prepared = True

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.heads.zero_grad()


def load_pair(
    checkpoint: str, processing_class: ProcessorMixin | None, loading: dict[str, Any]
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The descriptor of a checkpoint, and its processor unless another one is given."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, **loading)
    if processing_class is None:
        is_trusted = loading.get("trust_remote_code", False)
        processing_class = processor_of(model, loading.get("revision"), is_trusted)
    return model, processing_class


def loading_options(
    args: TrainingArguments | None, quantization_config: QuantizationConfigMixin | None
) -> dict[str, Any]:
    """What arguments say of how a checkpoint is loaded."""
    options: dict[str, Any] = {}
    if isinstance(args, SFTConfig):
        options["trust_remote_code"] = args.trust_remote_code
        options.update(args.model_init_kwargs or {})
    if quantization_config is None:
        return options
    if "quantization_config" in options:
        raise ValueError(
            "quantization_config is both an argument of the trainer and one of model_init_kwargs: leave one out"
        )
    return {**options, "quantization_config": quantization_config}


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
        data_collator (function, *optional*): makes batches of rows, by default a [`DescriptorCollator`].
        quantization_config (*optional*): how the weights of a checkpoint are kept.
        kwargs: further arguments of `SFTTrainer`.
    """

    heads_are_prepared = False

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
        data_collator: Callable[[list[Row]], dict[str, Any]] | None = None,
        quantization_config: QuantizationConfigMixin | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("formatting_func") is not None:
            raise ValueError(
                "formatting_func is not for PointDescriptorTrainer: the prompt of the processor is the only one"
            )
        if isinstance(model, str):
            loading = loading_options(args, quantization_config)
            model, processing_class = load_pair(model, processing_class, loading)
            quantization_config = None  # is heeded
        model = checked_model(model, "point_descriptor")
        if args is None:
            args = PointDescriptorTrainingArguments(default_output_dir(model))
        args = copied(args)
        args.model_init_kwargs = None  # are heeded
        processor = self.prepare(model, args, processing_class, eval_dataset)
        triplets = self.train_triplets(train_dataset)
        is_adapted = peft_config is not None or is_peft_model(model)
        self.prepare_losses(model, args, is_adapted)
        super().__init__(
            model=model,
            args=args,
            processing_class=processor,
            data_collator=data_collator or self.collator(processor, args),
            train_dataset=triplets,
            eval_dataset=self.eval_triplets(),
            peft_config=peft_config,
            quantization_config=quantization_config,
            **kwargs,
        )
        self.check_losses(kwargs.get("optimizers"))
        if self.heads is not None:
            self.wrapped_heads: nn.Module = self.heads.to(args.device)
            self.add_callback(HeadsCallback(self, self.heads))

    def prepare_losses(
        self, model: PreTrainedModel, args: TrainingArguments, is_adapted: bool
    ) -> None:
        """Sets what losses and metrics beside that of the text are taken with."""
        coefficient = getattr(args, "router_aux_loss_coef", None)
        check_router(model.config.get_text_config(), coefficient)
        self.options = (
            args
            if isinstance(args, PointDescriptorArguments)
            else PointDescriptorArguments()
        )
        set_seed(args.seed)  # of the heads' first weights
        self.heads = self.auxiliary_heads(self.options.heads_weight, model, is_adapted)
        self.has_mask_loss = model.config.point_mask == "predicted"
        plain = model.get_base_model() if is_peft_model(model) else model
        self._core_outputs: Any = None
        plain.base_model.register_forward_hook(self.keep_core_outputs)
        self.locate = None
        if self.options.localizer is not None:
            self.locate = pipeline(
                "point-localization", model=self.options.localizer, device=args.device
            )

    def collator(
        self, processor: ProcessorMixin, args: TrainingArguments
    ) -> DescriptorCollator:
        """What makes batches with all that the losses take."""
        return DescriptorCollator(
            processor,
            self.heads,
            self.has_mask_loss,
            max_length=getattr(args, "max_length", SFTConfig.max_length),
            pad_to_multiple_of=getattr(args, "pad_to_multiple_of", None),
        )

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
        width = model.config.get_text_config().hidden_size
        return AuxiliaryHeads.for_views(width, self.train_views)

    def check_losses(self, optimizers: tuple[Any, Any] | None) -> None:
        """Raises ValueError where auxiliary losses cannot be taken."""
        finds_unused = self.args.ddp_find_unused_parameters and self.args.world_size > 1
        if self.has_mask_loss and finds_unused:
            raise ValueError(
                "ddp_find_unused_parameters=True does not find what the loss on predicted masks reaches: leave it out"
            )
        if self.heads is None:
            return
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError(
                "heads_weight works in one process or with DDP, not with DeepSpeed or FSDP: leave it out"
            )
        if optimizers is not None and optimizers[0] is not None:
            raise ValueError(
                "heads_weight needs an optimizer that knows the heads, which come with the trainer: "
                "give optimizer_cls_and_kwargs instead of optimizers"
            )

    def keep_core_outputs(self, module: nn.Module, args: tuple, outputs: Any) -> None:
        # a second pass for metrics, as with label smoothing, has no gradients
        if self._core_outputs is None:
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
        if self.heads is not None:
            self.load_heads(resume_from_checkpoint)

    def load_heads(self, folder: str) -> None:
        """Gives the auxiliary heads the weights of those in a folder, for the same names of parts and objects.

        Raises ValueError where there are none, or they are for others."""
        if self.heads is None:
            raise ValueError("heads_weight is 0: there are no heads to load")
        file = Path(folder) / HEADS_FILE
        if not file.is_file():
            raise ValueError(
                f"{folder} holds no {HEADS_FILE}: it is of a run without heads_weight, or not a checkpoint of a run"
            )
        try:
            self.heads.load_state_dict(load_file(file))
        except RuntimeError as error:
            raise ValueError(
                f"{file} is for other names of parts and objects than train_dataset has: {error}"
            ) from error

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        targets = inputs.pop("point_targets", None)
        known_targets_of_update = inputs.pop("known_targets", None)
        boxes = inputs.pop("object_boxes", None)
        self.check_batch(targets, boxes)
        known_boxes_of_update = inputs.pop("known_boxes", None)
        needs_logits = return_outputs or self.label_smoother or self.compute_loss_func
        if not needs_logits and not has_virtual_tokens(self.model):
            inputs |= labels_only(inputs.pop("labels"))
        self._core_outputs = None
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, outputs = result if return_outputs else (result, None)
        core, self._core_outputs = self._core_outputs, None
        if targets is not None:
            known = known_targets_of_update
            heads_loss = self.wrapped_heads(core.point_embeds, targets, known)
            heads_loss = self.logged_share("heads_loss", heads_loss, known)
            loss = loss + self.options.heads_weight * heads_loss
        if boxes is not None:
            known = known_boxes_of_update
            mask_loss = box_mask_loss(core.point_mask_logits, boxes, known)
            loss = loss + self.logged_share("mask_loss", mask_loss, known)
        return (loss, outputs) if return_outputs else loss

    def check_batch(
        self, targets: torch.Tensor | None, boxes: torch.Tensor | None
    ) -> None:
        """Raises ValueError where a data collator of one's own leaves out what a loss is taken on."""
        missing = []
        if self.heads is not None and targets is None:
            missing.append("point_targets")
        if self.has_mask_loss and boxes is None:
            missing.append("object_boxes")
        if missing:
            raise ValueError(
                f"the batches of data_collator have no {' and '.join(missing)}, which a loss is taken on: "
                "add to what DescriptorCollator makes"
            )

    def get_batch_samples(
        self, *args: Any, **kwargs: Any
    ) -> tuple[list[dict[str, Any]], torch.Tensor | int | None]:
        """As of `Trainer`; each batch of an update tells what the auxiliary losses of all are averaged over."""
        batches, num_items_in_batch = super().get_batch_samples(*args, **kwargs)
        self.add_counts(batches, "point_targets", "known_targets", known_targets)
        self.add_counts(batches, "object_boxes", "known_boxes", known_boxes)
        return batches, num_items_in_batch

    def add_counts(
        self,
        batches: list[dict[str, Any]],
        counted: str,
        name: str,
        count: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        """Adds the count of a column over all batches and processes to each batch."""
        counts = [count(batch[counted]) for batch in batches if counted in batch]
        if not counts:
            return
        total = self.over_processes(torch.stack(counts).sum(0))
        for batch in batches:
            batch[name] = total

    def logged_share(
        self, name: str, loss: torch.Tensor, known: torch.Tensor | None
    ) -> torch.Tensor:
        """Logs an auxiliary loss and returns what is added to that of the batch.

        Args:
            name (`str`): under which it is logged.
            loss (`torch.Tensor` of shape `()`): the batch's share of the update's loss, or its own loss.
            known (`torch.Tensor`, *optional*): the update's count that makes it a share.
        """
        steps = 1
        if known is not None:
            loss = self.share(loss)
            steps = self.current_gradient_accumulation_steps  # whose mean is logged
        value = self.accelerator.gather(loss.detach()).mean().item() * steps
        self._metrics["train" if self.model.training else "eval"][name].append(value)
        return loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        # transformers puts back its own after each loop
        self.gather_function = self.gather_texts
        return super().evaluation_loop(*args, **kwargs)

    def gather_texts(self, data: Any) -> Any:
        """As `gather_for_metrics` of accelerate, where tensors with two dimensions or more have a row for each text.

        What comes again at the end of the last batch, so that all processes have as much, is counted in photos."""
        gathered = self.accelerator.gather(data)
        state = self.accelerator.gradient_state
        if not state.end_of_dataloader or state.remainder <= 0:
            return gathered
        texts = state.remainder * self.triplets.sampling.points_per_image

        def without_repeated(tensor: torch.Tensor) -> torch.Tensor:
            return tensor[: texts if tensor.ndim > 1 else state.remainder]

        return recursively_apply(without_repeated, gathered)

    def judge(self, views: list[View]) -> dict[str, float]:
        """How well the localizer finds descriptions of the first photos, and how often they name object and part."""
        if self.locate is None:
            return {}
        # evaluation is of no use to whoever only trains
        from .judging import judged_descriptions

        model = self.accelerator.unwrap_model(self.model).eval()
        describe = PointDescriptionPipeline(
            model=model,
            processor=self.processing_class,
            device=None if hasattr(model, "hf_device_map") else self.args.device,
        )
        return judged_descriptions(
            describe,
            self.locate,
            views[: self.options.judged_photos],
            self.args.per_device_eval_batch_size,
            in_step=self.is_fsdp_enabled or is_deepspeed_zero3_enabled(),
            show_progress=not self.args.disable_tqdm and self.is_world_process_zero(),
        )
