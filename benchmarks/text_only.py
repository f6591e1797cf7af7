"""What the words alone give away: a predictor that reads the texts of a style and sees no picture.

    python benchmarks/text_only.py --data_dir DATA/animalpose_voc_256 --styles full free brief

Fits it on the train texts of each style, as the control of `talking-points evaluate` does, and prints how near its
points come on another split.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import HfArgumentParser

from hf_talking_points.data.rows import load_photos
from hf_talking_points.data.triplets import make_views
from hf_talking_points.evaluation.controls import (
    describable_views,
    ground_truth_texts,
    text_only_points,
)
from hf_talking_points.evaluation.round_trip import flat, true_points
from hf_talking_points.evaluation.scores import image_ids
from hf_talking_points.metrics import score_points


@dataclass
class Arguments:
    data_dir: str = field(metadata={"help": "folder with an objects.jsonl"})
    styles: list[str] = field(default_factory=lambda: ["full", "free", "brief"])
    split: str = field(default="validation", metadata={"help": "that is predicted"})
    seed: int = 0


def main() -> None:
    parser = HfArgumentParser(Arguments)
    args = parser.parse_args_into_dataclasses()[0]
    photos = load_photos(args.data_dir)
    train_views = make_views([photo for photo in photos if photo.split == "train"])
    views = make_views([photo for photo in photos if photo.split == args.split])
    views = describable_views(views, args.styles)
    true, sizes = true_points(views)
    ids = []
    for view, image_id in zip(views, image_ids(views)):
        ids.extend([image_id] * len(view.points()))
    print("| style | mPCK | PCK@0.05 |")
    print("|---|---|---|")
    for style in args.styles:
        texts = flat(ground_truth_texts(views, style, args.seed))
        found = text_only_points(texts, views, train_views, style, args.seed)
        numbers = score_points(found, true, sizes, ids)
        cells = [style]
        for key in ("mpck", "pck@0.05"):
            low, high = numbers["ci95"][key]
            cells.append(f"{numbers[key]:.1f} [{low:.1f}, {high:.1f}]")
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
