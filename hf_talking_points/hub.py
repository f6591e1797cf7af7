"""Saving checkpoints for others, and the tables of their cards."""

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


def results_table(results):
    """The output of `examples/evaluate_pair.py` as Markdown."""
    lines = [
        f"{results['split']} split (by photo): {results['photos']} photos, {results['points']} points; in percent, "
        "[95 % interval, bootstrap over photos].",
        "",
        "| text and predictor | mPCK | PCK@0.05 | PCK@0.02 | median px |",
        "|---|---|---|---|---|",
    ]
    for name, row in results["rows"].items():
        mpck, fine = (f"{row[key]:.1f} [{row[f'{key}_ci95'][0]:.1f}, {row[f'{key}_ci95'][1]:.1f}]" for key in ("mpck", "pck@0.05"))
        lines.append(f"| {name} | {mpck} | {fine} | {row['pck@0.02']:.1f} | {row['median_pixels']:.1f} |")
    descriptor = results["descriptor"]
    lines += [
        "",
        f"The descriptor names the object's category in {descriptor['category']:.1f} % and the part in {descriptor['part']:.1f} %; "
        f"its texts reach {descriptor['mpck_of_truth']:.2f} of the mPCK and {descriptor['pck@0.05_of_truth']:.2f} of the PCK@0.05 of "
        "the writer's.",
    ]
    return "\n".join(lines)
