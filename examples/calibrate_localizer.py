r"""Makes the confidence of a trained localizer a probability, and says how far it is one.

python examples/calibrate_localizer.py --model_name_or_path runs/localizer --data_dir points \
    --eval_styles full terse free rich short --output_dir runs/localizer-calibrated

It is fitted on the validation split, over all styles together, with texts of other photos, which have no point, and
measured on the test split, style by style, and on such texts.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import AutoModelForKeypointDetection, AutoProcessor, HfArgumentParser

from hf_talking_points.checkpoints import save_half_precision
from hf_talking_points.data.rows import load_points
from hf_talking_points.training.arguments import (
    DataArguments,
    PointSamplingArguments,
)
from hf_talking_points.training.calibration import (
    RADIUS,
    calibrate,
    expected_calibration_error,
    is_found,
    of_other_photos,
)
from hf_talking_points.training.collators import LocalizerCollator
from hf_talking_points.training.triplet_dataset import TripletDatasets


@dataclass
class CalibrationArguments(DataArguments):
    model_name_or_path: str = field(metadata={"help": "localizer with a heat map"})
    output_dir: str = field(metadata={"help": "folder of the calibrated localizer"})
    half_precision_dir: str | None = field(
        default=None, metadata={"help": "folder for a copy with float16 weights"}
    )
    batch_size: int = field(default=16, metadata={"help": "photos at a time"})


def batches_by_style(
    model: Any,
    processor: Any,
    rows: Any,
    sampling: PointSamplingArguments,
    batch_size: int,
) -> dict[str | None, DataLoader]:
    """What a localizer is asked about each photo, style by style."""
    triplets = TripletDatasets(sampling, processor, model.model.backbone)
    data = triplets.evaluation(rows, "data_dir", sampling.eval_styles)
    collate = LocalizerCollator(processor)
    return {
        style: DataLoader(dataset, batch_size, collate_fn=collate)
        for style, dataset in data.datasets.items()
    }


def main() -> None:
    parser = HfArgumentParser((CalibrationArguments, PointSamplingArguments))
    args, sampling = parser.parse_args_into_dataclasses()
    model = AutoModelForKeypointDetection.from_pretrained(args.model_name_or_path)
    model.freeze_backbone()
    processor = AutoProcessor.from_pretrained(args.model_name_or_path)
    rows = load_points(args.data_dir)

    def batches(split: str) -> dict[str | None, DataLoader]:
        return batches_by_style(
            model, processor, rows[split], sampling, args.batch_size
        )

    def fitted() -> Iterator[dict[str, Any]]:
        for style, loader in batches("validation").items():
            for batch in tqdm(loader, desc=f"validation, {style}"):
                yield of_other_photos(batch)
                yield batch

    calibrate(model, fitted())
    model.save_pretrained(args.output_dir)
    processor.save_pretrained(args.output_dir)
    if args.half_precision_dir:
        save_half_precision(copy.deepcopy(model), processor, args.half_precision_dir)
    print(
        f"| style | n | within {RADIUS} | mean confidence | calibration error | confidence in texts of other photos |"
    )
    print("|---|---|---|---|---|---|")
    for style, loader in batches("test").items():
        confidence, is_hit = answers(model, loader)
        error = expected_calibration_error(confidence, is_hit)
        strangers, _ = answers(model, map(of_other_photos, loader))
        print(
            f"| {style} | {len(is_hit)} | {is_hit.float().mean():.3f} | {confidence.mean():.3f} | {error:.3f} "
            f"| {strangers.mean():.3f} |"
        )


@torch.no_grad()
def answers(
    model: Any, batches: Iterable[dict[str, Any]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidence of each answer, and whether it is right."""
    confidences, hits = [], []
    for batch in batches:
        target, scale = batch.pop("target_points"), batch.pop("scale")
        outputs = model(**batch)
        hits.append(is_found(outputs.points, target, scale))
        confidences.append(outputs.confidence)
    return torch.cat(confidences), torch.cat(hits)


if __name__ == "__main__":
    main()
