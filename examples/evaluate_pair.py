"""Measures a descriptor and a localizer on named points, beside the controls that show whether they look at the picture.

    python examples/evaluate_pair.py --data_dir DATA/animalpose_voc_256 --output results.json

Rows: the rule-based writer's full and terse texts through the localizer; the same on grey pictures and with another point's text; a
text-only predictor fitted on the train texts; the image centre; and the descriptor's own texts through the localizer.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import HfArgumentParser, pipeline, set_seed

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER
from hf_talking_points.data.sources import read_photos
from hf_talking_points.data.triplets import make_views
from hf_talking_points.data.wording import describe_point
from hf_talking_points.evaluation.metrics import clustered_interval, mpck_values, summary
from hf_talking_points.evaluation.protocol import describe_views, localize_views, naming_accuracy, true_points, view_distances
from hf_talking_points.evaluation.text_only import TextOnlyPredictor
from hf_talking_points.hub import results_table


@dataclass
class EvaluationArguments:
    data_dir: list[str] = field(metadata={"help": "folders with an objects.jsonl, or built datasets (folder or Hub id)"})
    split: str = field(default="test", metadata={"help": "test, validation or train"})
    descriptor: str = field(default=MINI_DESCRIPTOR, metadata={"help": "checkpoint (path or Hub id)"})
    localizer: str = field(default=MINI_LOCALIZER, metadata={"help": "checkpoint (path or Hub id)"})
    max_photos: int | None = field(default=None, metadata={"help": "the first photos of the split; all of them if not given"})
    output: str = field(default="results.json", metadata={"help": "the numbers as JSON"})
    batch_size: int = 16
    seed: int = 0


def written(views, style, seed):
    """The writer's texts for every annotated point of each view."""
    texts = []
    for index, view in enumerate(views):
        rng, pixels = np.random.default_rng([seed, index]), np.asarray(view.image())
        texts.append([describe_point(view.photo, owner, point, pixels, style, rng) for owner, point in view.points()])
    return texts


def flat(rows):
    return [text for row in rows for text in row]


def grey_image(view):
    return Image.new("RGB", view.photo.size, (127, 127, 127))


def main():
    args = HfArgumentParser(EvaluationArguments).parse_args_into_dataclasses()[0]
    set_seed(args.seed)
    photos = [photo for folder in args.data_dir for photo in read_photos(folder)]
    views = make_views([p for p in photos if p.split == args.split])[: args.max_photos]
    train = make_views([p for p in photos if p.split == "train"])
    describe, locate = pipeline("point-description", model=args.descriptor), pipeline("point-localization", model=args.localizer)
    points, sizes, image_ids = true_points(views)
    full, terse, unseen = (written(views, style, args.seed) for style in ("full", "terse", "unseen"))

    def located(texts, **kwargs):
        return localize_views(locate, views, texts, args.batch_size, **kwargs)

    train_points, train_sizes, _ = true_points(train)
    predictor = TextOnlyPredictor(seed=args.seed).fit(flat(written(train, "full", args.seed)), train_points / train_sizes)
    shuffled = np.random.default_rng(args.seed).permutation(len(points))
    bounds = np.cumsum([0, *map(len, full)])
    other = [[flat(full)[i] for i in shuffled[a:b]] for a, b in zip(bounds, bounds[1:])]
    described = describe_views(describe, views, args.batch_size)
    found = {
        "writer's full text -> localizer": located(full),
        "writer's terse text -> localizer": located(terse),
        "sentences kept out of training -> localizer": located(unseen),
        "full text, grey picture -> localizer": located(full, image=grey_image),
        "another point's full text -> localizer": located(other),
        "full text -> text-only predictor": predictor.predict(flat(full)) * sizes,
        "image centre": sizes / 2,
        "descriptor's text -> localizer": located(described),
    }
    rows = {}
    for name, predicted in found.items():
        distances = view_distances(views, predicted)
        rows[name] = {
            **summary(distances),
            "median_pixels": float(np.median(np.linalg.norm(predicted - points, axis=1))),
            "mpck_ci95": clustered_interval(mpck_values(distances), image_ids),
            "pck@0.05_ci95": clustered_interval(100.0 * (distances < 0.05), image_ids),
        }
    truth, own = rows["writer's full text -> localizer"], rows["descriptor's text -> localizer"]
    results = {
        "split": args.split,
        "photos": len(views),
        "points": len(points),
        "rows": rows,
        "descriptor": {
            **naming_accuracy(views, described),
            "mpck_of_truth": own["mpck"] / truth["mpck"],
            "pck@0.05_of_truth": own["pck@0.05"] / truth["pck@0.05"],
        },
    }
    Path(args.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\n{results_table(results)}")


if __name__ == "__main__":
    main()
