"""Describes points of two photos that scikit-image ships, finds them again from the words alone, and draws the result.

    python examples/demo.py --output demo.png

The second photo shows a rocket, which the embedded models were never trained on: a generic wording is the right answer there.
"""

import argparse
import math

import skimage.data
from PIL import Image
from transformers import pipeline

import hf_talking_points  # noqa: F401  registers models and pipelines
from hf_talking_points.visualization import draw_round_trip, stack

PHOTOS = {
    "cat": (skimage.data.chelsea, [(172, 117), (321, 132), (266, 235), (350, 30)]),
    "rocket": (skimage.data.rocket, [(320, 160), (320, 266), (192, 266)]),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", default="demo.png", help="where the picture is written")
    output = parser.parse_args().output
    describe, locate = pipeline("point-description"), pipeline("point-localization")
    pictures = []
    for name, (load, points) in PHOTOS.items():
        image = Image.fromarray(load())
        described = describe(image, points=points)
        found = locate(image, text=[row["description"] for row in described], return_heatmaps=True)
        rows = [
            {**row, "found": answer["point"], "heatmap": answer["heatmap"]}
            for row, answer in zip(described, found)
        ]
        for row in rows:
            (x, y), (found_x, found_y) = row["point"], row["found"]
            distance = math.dist(row["point"], row["found"])
            print(
                f"{name} ({x:.0f}, {y:.0f}): {row['description']}\n    found at ({found_x:.0f}, {found_y:.0f}), {distance:.1f} px away"
            )
        pictures.append(draw_round_trip(image, rows))
    stack(pictures).save(output, optimize=True)
    print(f"star = the point, cross = where its description was found: {output}")


if __name__ == "__main__":
    main()
