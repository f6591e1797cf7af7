"""Photos with named points, and supervised trainers of tiny models on them."""

import json

import numpy as np
from PIL import Image

from hf_talking_points import PointDescriptorTrainer, PointLocalizerTrainer
from hf_talking_points.data.photos import SPLITS, split_of
from hf_talking_points.training.arguments import (
    PointDescriptorTrainingArguments,
    PointLocalizerTrainingArguments,
)

PARTS = {
    "nose": (0.2, 0.3),
    "tailbase": (0.8, 0.6),
    "left_eye": (0.3, 0.1),
}  # place in the box
ANIMALS = [("dog", (120, 80, 50)), ("sheep", (240, 240, 240))]
PHOTOS = 11  # of which some are in each split
SPLIT_NAMES = {
    split: [
        f"{number}.png"
        for number in range(PHOTOS)
        if split_of(f"{number}.png") == split
    ]
    for split in SPLITS
}
TRAINING = {
    "per_device_train_batch_size": 3,
    "learning_rate": 3e-3,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "seed": 0,
    "bf16": False,
    "max_steps": 4,
    "save_strategy": "no",
    "disable_tqdm": True,
    "points_per_image": 4,
}


def draw_photos(folder, names=None):
    """Noisy photos, a brown or white rectangle on each, with three named points; in `folder` with an objects.jsonl."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(PHOTOS):
        name = f"{number}.png"
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        left = int(rng.integers(0, 25))
        top = int(rng.integers(0, 15))
        width = int(rng.integers(24, 36))
        height = int(rng.integers(20, 30))
        category, color = ANIMALS[number % 2]
        pixels[top : top + height, left : left + width] = color
        if names is not None and name not in names:
            continue
        Image.fromarray(pixels).save(folder / name)
        points = [
            [part, left + u * width, top + v * height] for part, (u, v) in PARTS.items()
        ]
        line = {
            "image": name,
            "size": [64, 48],
            "category": category,
            "object_box": [left, top, left + width, top + height],
            "points": points,
        }
        lines.append(json.dumps(line))
    (folder / "objects.jsonl").write_text("\n".join(lines))
    return folder


def localizer_args(folder, **options):
    fields = {**TRAINING, "styles": ["full", "terse"], "surroundings": 0.2, **options}
    return PointLocalizerTrainingArguments(output_dir=str(folder), **fields)


def descriptor_args(folder, **options):
    fields = {**TRAINING, "styles": ["full"], "surroundings": 0.2, **options}
    return PointDescriptorTrainingArguments(output_dir=str(folder), **fields)


def localizer_trainer(
    make_localizer, rows, folder, eval_rows=None, model_fields=None, **options
):
    """A trainer of a tiny localizer; `options` are those of its arguments."""
    model, processor = make_localizer(**(model_fields or {}))
    return PointLocalizerTrainer(
        model=model,
        args=localizer_args(folder, **options),
        train_dataset=rows,
        eval_dataset=rows if eval_rows is None else eval_rows,
        processing_class=processor,
    )


def descriptor_trainer(
    make_descriptor,
    rows,
    folder,
    eval_rows=None,
    model_fields=None,
    peft_config=None,
    **options,
):
    """A trainer of a tiny descriptor; `options` are those of its arguments."""
    model, processor = make_descriptor(**(model_fields or {}))
    return PointDescriptorTrainer(
        model=model,
        args=descriptor_args(folder, **options),
        train_dataset=rows,
        eval_dataset=rows if eval_rows is None else eval_rows,
        processing_class=processor,
        peft_config=peft_config,
    )


def logged(trainer, name):
    """All values of a metric, in the order in which they were logged."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]
