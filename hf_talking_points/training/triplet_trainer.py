"""What both supervised trainers have in common."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from accelerate.utils import is_peft_model
from datasets import IterableDataset
from transformers import PreTrainedModel, ProcessorMixin, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from .arguments import PointSamplingArguments
from .hub_trainer import HubTrainerMixin
from .processors import processor_of
from .refused_options import check_options
from .triplet_dataset import (
    TRIPLET_COLUMNS,
    EvaluationData,
    Rows,
    TripletDatasets,
    training_views,
)

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from ..data.triplets import View

NamedRows: TypeAlias = "Rows | dict[str, Rows]"
COORDINATES = ("input_points", "target_points", "scale")


def checked_model(model: PreTrainedModel, model_type: str) -> PreTrainedModel:
    """The model of a trainer, with or without adapters. Raises ValueError where it is not of the type."""
    found = model.config.model_type
    if found != model_type:
        raise ValueError(f"model must be a {model_type}, got a {found}")
    return model


def default_output_dir(model: PreTrainedModel) -> str:
    """Where a run without `args` writes."""
    name = Path(model.config._name_or_path).name or model.config.model_type
    return f"{name}-trained"


def copied(args: TrainingArguments) -> TrainingArguments:
    """Arguments that transformers and TRL may change: those of the caller stay as they are.

    The tensors of a batch have a row for each photo or for each point, so that no process can hand out parts of it.
    No parameter that asks for gradients is left unused, so that DDP need not look for such, and would not find those
    that auxiliary losses alone reach.

    Raises ValueError for an option that the trainers cannot follow.
    """
    check_options(args)
    args = copy.copy(args)
    args.accelerator_config = copy.copy(args.accelerator_config)
    args.accelerator_config.dispatch_batches = False
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = False
    return args


def without_casts(policy: Any) -> Any:
    """A policy of FSDP's mixed precision that leaves a model's inputs as they are; None stays None.

    FSDP would cast coordinates too, and points would move by pixels. What is computed in half precision, autocast
    casts where it is computed.

    Args:
        policy (`MixedPrecision` of FSDP, or `MixedPrecisionPolicy` of FSDP2, *optional*)
    """
    if policy is None:
        return None
    names = {field.name for field in dataclasses.fields(policy)}
    casts = names & {"cast_forward_inputs", "cast_root_forward_inputs"}
    return dataclasses.replace(policy, **dict.fromkeys(casts, False))


def joined(*names: str | None) -> str:
    """A metric's prefix: the names that there are, with underscores between them."""
    return "_".join(name for name in names if name)


class TripletTrainerMixin(HubTrainerMixin):
    """Over a `Trainer`: takes datasets in the row format, from which it draws points and descriptions."""

    # What transformers forces: `_set_signature_columns_if_needed` says which columns of a dataset reach the collator,
    # so that `remove_unused_columns` may stay as it is.

    triplets: TripletDatasets
    train_views: list[View]  # none of a stream
    evaluation: dict[
        str, EvaluationData
    ]  # name of an evaluation dataset, "" for the only one
    model: PreTrainedModel
    to_judge: tuple[list[View], str] | None = None  # of what is evaluated, with prefix

    def prepare(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        processing_class: ProcessorMixin | None,
        eval_dataset: NamedRows | None,
    ) -> ProcessorMixin:
        """Sets what the datasets are made with, and the evaluation data; returns the processor."""
        processor = (
            processor_of(model) if processing_class is None else processing_class
        )
        plain = model.get_base_model() if is_peft_model(model) else model
        sampling = (
            args
            if isinstance(args, PointSamplingArguments)
            else PointSamplingArguments()
        )
        self.triplets = TripletDatasets(
            sampling,
            processor,
            plain.model.backbone,
            with_looks=bool(getattr(args, "heads_weight", 0)),
        )
        self.evaluation = {}
        if eval_dataset is not None:
            self.evaluation = self.evaluation_data(eval_dataset, "eval_dataset")
        return processor

    def train_triplets(self, train_dataset: Rows | None) -> Rows | None:
        """The `train_dataset` of the `Trainer`; sets `train_views`."""
        self.train_views = []
        if train_dataset is None:
            return None
        if isinstance(train_dataset, IterableDataset):
            return self.triplets.stream(train_dataset)
        self.train_views = training_views(train_dataset, self.triplets.sampling)
        return self.triplets.train(self.train_views)

    def evaluation_data(
        self, eval_dataset: NamedRows, name: str
    ) -> dict[str, EvaluationData]:
        """Name -> evaluation data of a dataset, or of each of several."""
        styles = self.triplets.sampling.eval_styles
        if not isinstance(eval_dataset, dict):
            return {"": self.triplets.evaluation(eval_dataset, name, styles)}
        evaluation = {}
        for key, rows in eval_dataset.items():
            evaluation[key] = self.triplets.evaluation(rows, f"{name}[{key!r}]", styles)
        return evaluation

    def named_triplets(self, evaluation: dict[str, EvaluationData]) -> dict[str, Rows]:
        """Name and style -> what to evaluate on; "" for the only one."""
        named = {}
        for name, data in evaluation.items():
            for style, triplets in data.datasets.items():
                named[joined(name, style)] = triplets
        return named

    def eval_triplets(self) -> NamedRows | None:
        """The `eval_dataset` of the `Trainer`."""
        named = self.named_triplets(self.evaluation)
        if not named:
            return None
        return named[""] if list(named) == [""] else named

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["row", *TRIPLET_COLUMNS]

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.is_fsdp_enabled:
            plugin = self.accelerator.state.fsdp_plugin
            plugin.mixed_precision_policy = without_casts(plugin.mixed_precision_policy)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A batch on the device of the process. With DeepSpeed, transformers casts it to half precision: coordinates
        stay as they are, or points would move by pixels."""
        prepared = super()._prepare_inputs(inputs)
        for name in COORDINATES:
            if name in inputs:
                prepared[name] = inputs[name].to(self.args.device)
        return prepared

    def get_test_dataloader(self, test_dataset: Rows) -> DataLoader:
        data = self.triplets.evaluation(test_dataset, "test_dataset", styles=None)
        return super().get_test_dataloader(data.datasets[None])

    def evaluate(
        self,
        eval_dataset: NamedRows | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """As of `Trainer`, on the trainer's evaluation data or on other datasets in the row format."""
        if isinstance(eval_dataset, str):
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        if eval_dataset is None and not self.evaluation:
            raise ValueError(
                "eval_dataset is missing, so there is no photo to evaluate on: give the trainer one, or evaluate()"
            )
        evaluation = self.evaluation
        if eval_dataset is not None:
            evaluation = self.evaluation_data(eval_dataset, "eval_dataset")
        metrics = {}
        for name, data in evaluation.items():
            self.to_judge = data.views, joined(metric_key_prefix, name)
            for style, triplets in data.datasets.items():
                key = joined(name, style)
                prefix = joined(metric_key_prefix, key)
                # transformers tells the trainer's own datasets apart by their names
                chosen = (key or None) if eval_dataset is None else triplets
                metrics.update(super().evaluate(chosen, ignore_keys, prefix))
        return metrics

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As of `Trainer`; its metrics, which callbacks see, hold those of [`judge`] once for each dataset."""
        output = super().evaluation_loop(*args, **kwargs)
        if self.to_judge is not None:
            views, prefix = self.to_judge
            self.to_judge = None
            for name, value in self.judge(views).items():
                output.metrics[joined(prefix, name)] = value
        return output

    def judge(self, views: list[View]) -> dict[str, float]:
        """Further metrics of the photos of an evaluation dataset."""
        return {}

    def over_processes(self, count: torch.Tensor) -> torch.Tensor:
        """A count of this process's batches -> that of all whose gradients are averaged."""
        if self.args.average_tokens_across_devices:
            return self.accelerator.reduce(count)
        return count

    def share(self, loss: torch.Tensor) -> torch.Tensor:
        """A sum of losses over the count of [`over_processes`], such that the average over processes is their mean."""
        if self.args.average_tokens_across_devices:
            return loss * self.accelerator.num_processes
        return loss

    def has_fresh_adapter(self) -> bool:
        """Whether the model is an adapter of one that was never saved."""
        return is_peft_model(self.model) and not self.model.config._name_or_path

    def merge_fresh_adapter(self) -> None:
        """Makes the adapter of a freshly composed model part of it: alone it would have no saved model to go with.

        The trainer's model is one without adapters afterwards. Any other model stays as it is.
        """
        if self.has_fresh_adapter():
            self.model = self.model.merge_and_unload()
            self.model_wrapped = self.model

    def save_model(
        self, output_dir: str | None = None, _internal_call: bool = False
    ) -> None:
        """As of `Trainer`. Raises ValueError for an adapter that nobody could load."""
        is_checkpoint = (
            _internal_call and output_dir is not None
        )  # as transformers saves them
        if self.has_fresh_adapter() and not is_checkpoint:
            raise ValueError(
                "the adapter's base model was never saved, so the adapter could not be loaded: "
                "call merge_fresh_adapter() first"
            )
        super().save_model(output_dir, _internal_call)
