"""What TRL's fused head may leave out."""

from __future__ import annotations

import torch


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
