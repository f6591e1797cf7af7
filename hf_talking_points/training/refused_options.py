"""Options of transformers and TRL that the supervised trainers cannot follow: they are refused, with the reason."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, TrainingArguments
from trl import SFTConfig

# option -> (values that change nothing, why others are refused)
OF_ALL: dict[str, tuple[tuple[Any, ...], str]] = {
    "train_sampling_strategy": (
        ("random", "sequential"),
        "rows are drawn when they are asked for, so that no length is known before",
    ),
    "use_liger_kernel": ((False,), "Liger has no kernels for these architectures"),
    "eval_use_gather_object": ((False,), "evaluation gathers tensors alone"),
}
ROWS = "rows are photos with points, of which the processor makes texts in each batch"
OF_DESCRIPTOR: dict[str, tuple[tuple[Any, ...], str]] = {
    "packing": ((False,), "the points of a photo share its encoding in one batch"),
    "eval_packing": (
        (None, False),
        "the points of a photo share its encoding in one batch",
    ),
    "padding_free": ((False,), "the points of a photo share its encoding in one batch"),
    "completion_only_loss": (
        (None, True),
        "the loss is always on the description alone, since the prompt never changes",
    ),
    "assistant_only_loss": (
        (False,),
        "the loss is always on the description and the end of its turn",
    ),
    "truncation_mode": (
        ("keep_start",),
        "it would cut off the placeholders of the image",
    ),
    "chat_template_path": ((None,), "give processing_class a chat_template instead"),
    "pad_token": ((None,), "set that of processing_class.tokenizer instead"),
    "shuffle_dataset": ((False,), "train_sampling_strategy='random' shuffles the rows"),
    "dataset_num_proc": ((None,), ROWS),
    "dataset_kwargs": ((None, {}), ROWS),
    "dataset_text_field": (("text",), ROWS),
}


def check_options(args: TrainingArguments) -> None:
    """Raises ValueError for an option that the trainers cannot follow."""
    refused = {**OF_ALL}
    if isinstance(args, SFTConfig):
        refused.update(OF_DESCRIPTOR)
    for name, (harmless, reason) in refused.items():
        value = getattr(args, name)
        if value not in harmless:
            raise ValueError(f"{name}={value!r} is not for these trainers: {reason}")
    if args.accelerator_config.dispatch_batches:
        raise ValueError(
            "accelerator_config.dispatch_batches=True is not for these trainers: the tensors of a batch have a row "
            "for each photo or for each point, so that no process can hand out parts of it. Leave it out"
        )
    parallelism = args.parallelism_config
    if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
        raise ValueError(
            "parallelism_config with cp_size or sp_size is not for these trainers: the texts of a photo share their "
            "prompt, which must stay whole"
        )


def check_router(config: PreTrainedConfig, coefficient: float | None) -> None:
    """Raises ValueError where TRL would take a load-balancing loss of a mixture of experts.

    Args:
        config: the language model's.
        coefficient (`float`, *optional*): weight of the loss; the config's if None.
    """
    if not hasattr(config, "output_router_logits"):
        return  # TRL says so where a coefficient is given
    if coefficient is None:
        coefficient = getattr(config, "router_aux_loss_coef", 0.0)
    if coefficient or config.output_router_logits:
        raise ValueError(
            f"router_aux_loss_coef={coefficient} cannot work: a Point Descriptor does not return the router logits of "
            "its language model, so there is no load-balancing loss to weight: set router_aux_loss_coef=0.0, and "
            "output_router_logits=False in the model's text_config"
        )
