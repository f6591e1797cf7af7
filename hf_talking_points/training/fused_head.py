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


def has_virtual_tokens(model: PreTrainedModel | PeftModel) -> bool:
    """Whether PEFT puts tokens of its own before the prompt, as in prompt tuning. It moves labels with them, but
    nothing that [`completions_only`] gives."""
    return is_peft_model(model) and model.active_peft_config.is_prompt_learning
