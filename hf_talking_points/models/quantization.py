"""Quantized language models: what stands around them keeps its weights."""

import copy
from typing import Any

from transformers import PreTrainedModel
from transformers.utils.quantization_config import QuantizationMethod

# transformers searches the names of modules for it
AROUND_LANGUAGE_MODEL = r"(?!.*language_model\.).*"
# where the methods keep the names of the modules that they leave as they are
SKIP_FIELDS = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")


def of_language_model(quantization_config: Any, prefix: str | None = None) -> Any:
    """A quantization config that converts nothing but the language model of a composed model.

    Args:
        quantization_config (`QuantizationConfigMixin` or `dict`): stays as it is.
        prefix (`str`, *optional*): what the names of its modules begin with, where it was made for the language model
            alone.
    Raises:
        ValueError: the method converts all modules.
    """
    changed = copy.deepcopy(quantization_config)
    if isinstance(changed, dict):
        fields = changed
    else:
        fields = vars(changed)
    for field in SKIP_FIELDS:
        if field in fields:
            names = list(fields[field] or [])
            if prefix is not None:
                names = [in_composed_model(name, prefix) for name in names]
            if AROUND_LANGUAGE_MODEL not in names:
                names.append(AROUND_LANGUAGE_MODEL)
            fields[field] = names
            return changed
    method = QuantizationMethod(fields["quant_method"]).value
    raise ValueError(
        f"quantization by {method} converts all modules, but only the language model of a composed "
        "model can be: take bitsandbytes, torchao or another method that can leave modules out"
    )


def in_composed_model(name: str, prefix: str) -> str:
    """The name that a language model's module has as part of a composed model."""
    if name.startswith(f"{prefix}."):
        return "model.language_model" + name.removeprefix(prefix)
    return name


def take_quantization(model: PreTrainedModel, text: PreTrainedModel) -> None:
    """Makes a model composed of a quantized language model a quantized one for transformers, TRL and PEFT."""
    quantizer = text.hf_quantizer
    quantizer.quantization_config = of_language_model(
        quantizer.quantization_config, text.base_model_prefix
    )
    model.hf_quantizer = quantizer
    model.is_quantized = True
    model.quantization_method = quantizer.quantization_config.quant_method
    quantizer.postprocess_model(model)
