"""Saving checkpoints for others."""

import json
from pathlib import Path

import torch


def save_half_precision(model, processor, folder):
    """Saves weights in float16, half the size, with a config that makes every Auto class compute in float32 on a CPU.

    Raises ValueError where a weight does not fit into float16."""
    folder = Path(folder)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value.half()).all():
            raise ValueError(f"{name} has values that are not finite in float16: save this model in full precision")
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    for part in ("vision_config", "text_config"):
        config[part]["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
