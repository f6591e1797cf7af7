"""LoRA on the language model alone."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig

# not a list of names: "q_proj" would also hit the vision side
LANGUAGE_MODEL_PROJECTIONS = r".*language_model.*\.(q|k|v|o)_proj"


def paper_lora_config(r: int = 64, lora_alpha: int = 128, **kwargs: Any) -> LoraConfig:
    """LoRA on the attention projections of the language model alone, for the `peft_config` of [`PointGRPOTrainer`].

    Without dropout: it would make the log-probs of a completion differ from those it was sampled with.

    Args:
        r (`int`): rank.
        lora_alpha (`int`): the adapter's output is scaled by `lora_alpha / r`.
        kwargs: further fields of `LoraConfig`, or other values for `lora_dropout` and `target_modules`.
    """
    fields = {
        "lora_dropout": 0.0,
        "target_modules": LANGUAGE_MODEL_PROJECTIONS,
        **kwargs,
    }
    return LoraConfig(r=r, lora_alpha=lora_alpha, **fields)
