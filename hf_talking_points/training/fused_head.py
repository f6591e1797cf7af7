"""What TRL's fused head may leave out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from accelerate.utils import is_peft_model

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def completions_only(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs of a descriptor with TRL's fused head that score columns from the first label on, in place of `labels`.

    Where there is no Triton the fused head scores every position and throws away those without a label, which is most
    of them where a prompt holds an image.

    Args:
        labels (`torch.LongTensor` of shape `(rows, length)`): -100 where no loss is taken.
    Returns:
        `dict`: `shift_labels` of shape `(rows, kept)` and `logits_to_keep`, the positions whose states predict them.
    """
    first = int((labels != -100).any(0).int().argmax())
    positions = torch.arange(
        max(first - 1, 0), labels.shape[1] - 1, device=labels.device
    )
    return {"shift_labels": labels[:, positions + 1], "logits_to_keep": positions}


def labels_only(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """As [`completions_only`], of the positions with a label alone, which become one row.

    Args:
        labels (`torch.LongTensor` of shape `(rows, length)`): -100 where no loss is taken.
    Returns:
        `dict`: `shift_labels` of shape `(1, labels)` and `logits_to_keep` of that of `labels`.
    """
    is_labeled = labels != -100
    is_labeled[:, 0] = False  # nothing predicts the first position
    return {
        "shift_labels": labels[is_labeled][None],
        "logits_to_keep": is_labeled.roll(-1, dims=1),
    }


def has_virtual_tokens(model: PreTrainedModel | PeftModel) -> bool:
    """Whether PEFT puts tokens of its own before the prompt, as in prompt tuning. It moves labels with them, but
    nothing that the functions here give."""
    return is_peft_model(model) and model.active_peft_config.is_prompt_learning
