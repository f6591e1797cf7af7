"""Describes points of photos that scikit-image ships, finds them again from the words alone, and draws the result.

    python examples/demo.py --output demo.png

Cats and cups were in the embedded descriptor's training. A rocket was not: what can be seen, without its name, is the
right answer there.
"""

import math
from dataclasses import dataclass, field

import skimage.data
from PIL import Image
from transformers import HfArgumentParser, pipeline

import hf_talking_points  # noqa: F401  registers models and pipelines
from hf_talking_points.visualization import draw_round_trip, stack

CAT_POINTS = [(172, 117), (321, 132), (266, 235), (350, 30)]
CUP_POINTS = [(222, 266), (285, 165), (500, 200)]
ROCKET_POINTS = [(320, 160), (320, 266), (192, 266)]


@dataclass
class DemoArguments:
    output: str = field(
        default="demo.png", metadata={"help": "where the picture is written"}
    )


def round_trip(describe, locate, image, points):
    """Rows with "point", "description", and "found" and "heatmap" of the localizer."""
    rows = describe(image, points=points)
    texts = [row["description"] for row in rows]
    answers = locate(image, text=texts, return_heatmaps=True)
    for row, answer in zip(rows, answers):
        row["found"] = answer["point"]
        row["heatmap"] = answer["heatmap"]
    return rows


def print_rows(name, rows):
    for row in rows:
        distance = math.dist(row["point"], row["found"])
        print("{} ({:.0f}, {:.0f}): {}".format(name, *row["point"], row["description"]))
        print(
            "    found at ({:.0f}, {:.0f}), {:.1f} px away".format(
                *row["found"], distance
            )
        )


def main():
    [args] = HfArgumentParser(DemoArguments).parse_args_into_dataclasses()
    describe = pipeline("point-description")
    locate = pipeline("point-localization")
    pictures = []
    photos = {
        "cat": (skimage.data.chelsea(), CAT_POINTS),
        "cup": (skimage.data.coffee(), CUP_POINTS),
        "rocket": (skimage.data.rocket(), ROCKET_POINTS),
    }
    for name, (pixels, points) in photos.items():
        image = Image.fromarray(pixels)
        rows = round_trip(describe, locate, image, points)
        print_rows(name, rows)
        pictures.append(draw_round_trip(image, rows))
    stack(pictures).save(args.output, optimize=True)
    print(f"star = the point, cross = where its description was found: {args.output}")


if __name__ == "__main__":
    main()
