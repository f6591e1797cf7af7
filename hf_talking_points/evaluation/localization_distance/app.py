"""A page to try the metric on one image: a description and the pixel it should lead to, and where a localizer finds
it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import evaluate

from hf_talking_points.visualization import draw_round_trip

if TYPE_CHECKING:
    import gradio as gr
    from PIL import Image

metric = evaluate.load(str(Path(__file__).with_name("localization_distance.py")))


def judge(
    image: Image.Image, description: str, x: float, y: float
) -> tuple[Image.Image, str]:
    """The image with the true point as star and the found one as cross, and the distances as text.

    Raises ValueError for a description that the localizer cannot take."""
    scores = metric.compute(
        predictions=[description], references=[(x, y)], images=[image]
    )
    [sample] = scores["per_sample"]
    if scores["misses"]:
        raise ValueError(
            "the localizer cannot take this description: too long, or with special tokens"
        )
    row = {
        "description": description,
        "point": sample["reference"],
        "found": sample["point"],
    }
    found_x, found_y = sample["point"]
    distances = (
        f"{sample['distance']:.4f} of the image's sides ({sample['pixels']:.1f} pixels)"
    )
    return draw_round_trip(
        image, [row]
    ), f"{distances}: found at ({found_x:.1f}, {found_y:.1f})"


def build() -> gr.Interface:
    """The page."""
    import gradio as gr

    def shown(*inputs: Any) -> tuple[Image.Image, str]:
        try:
            return judge(*inputs)
        except (TypeError, ValueError) as error:
            raise gr.Error(str(error)) from error

    readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    return gr.Interface(
        shown,
        inputs=[
            gr.Image(type="pil", image_mode="RGB", label="Image"),
            gr.Textbox(label="Description of one pixel"),
            gr.Number(label="x of the true pixel"),
            gr.Number(label="y of the true pixel"),
        ],
        outputs=[
            gr.Image(label="Star: true pixel, cross: found"),
            gr.Textbox(label="Distance"),
        ],
        title="Localization distance",
        article=readme.split("---", 2)[2],
        flagging_mode="never",
    )


if __name__ == "__main__":
    build().launch()
