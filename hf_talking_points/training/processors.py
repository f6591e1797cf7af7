"""The processor that a checkpoint tells."""

from __future__ import annotations

from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin


def processor_of(
    model: str | PreTrainedModel,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ProcessorMixin:
    """The processor that was saved with a model, for a trainer without `processing_class`.

    Args:
        model: path or Hub id of a checkpoint, or a model that was loaded from one.
        revision (`str`, *optional*), trust_remote_code (`bool`): as for `from_pretrained`.

    Raises ValueError where the model does not come from a checkpoint, or no processor lies there.
    """
    checkpoint = model if isinstance(model, str) else model.config._name_or_path
    if not checkpoint:
        raise ValueError(
            "processing_class is missing, and the model does not come from a checkpoint that tells it: "
            "pass the model's processor"
        )
    try:
        return AutoProcessor.from_pretrained(
            checkpoint, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"processing_class is missing, and {checkpoint} holds no processor: pass the model's processor"
        ) from error
