"""Draws random rows of a built dataset, each on its photo.

    python examples/draw_rows.py --dataset points --styles free brief --count 10 --output rows.jpg

Prints the rows, too: style, false claims if there are any, text.
"""

from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset, load_dataset
from transformers import HfArgumentParser

from hf_talking_points.models.images import to_rgb
from hf_talking_points.visualization import beside, draw_round_trip, stack

WIDTH = 560  # of a row
COLUMNS = 2


@dataclass
class Arguments:
    dataset: str = field(metadata={"help": "folder or Hub id of a built dataset"})
    output: str = field(metadata={"help": "file of the picture"})
    styles: list[str] = field(
        default_factory=list, metadata={"help": "of the rows; all without it"}
    )
    split: str = field(default="train", metadata={"help": "of the rows"})
    count: int = field(default=10, metadata={"help": "rows that are drawn"})
    seed: int = 0


def random_rows(rows: Dataset, styles: list[str], count: int, seed: int) -> Dataset:
    """`count` rows of the styles, each of another photo."""
    known = styles or sorted(set(rows["style"]))
    rng = np.random.default_rng(seed)
    photos = rows["image_id"]
    style_of_row = rows["style"]
    chosen: list[int] = []
    taken = set()
    for index in rng.permutation(len(rows)):
        if style_of_row[index] in known and photos[index] not in taken:
            taken.add(photos[index])
            chosen.append(int(index))
    return rows.select(chosen[:count])


def main() -> None:
    parser = HfArgumentParser(Arguments)
    args = parser.parse_args_into_dataclasses()[0]
    rows = load_dataset(args.dataset, split=args.split)
    pictures = []
    for row in random_rows(rows, args.styles, args.count, args.seed):
        false = [claim["phrase"] for claim in row["false_claims"]]
        print(f"{row['style']}: {row['description']}", false or "")
        pictures.append(draw_round_trip(to_rgb(row["image"]), [row], WIDTH))
    bands = []
    for start in range(0, len(pictures), COLUMNS):
        bands.append(beside(pictures[start : start + COLUMNS], WIDTH))
    stack(bands).save(args.output, quality=80)


if __name__ == "__main__":
    main()
