"""A page to try the metric on one image: a description and the pixel it should lead to, and where a localizer finds it."""

from pathlib import Path

import evaluate

from hf_talking_points.visualization import draw_round_trip

metric = evaluate.load(str(Path(__file__).with_name("localization_distance.py")))


def judge(image, description, x, y):
    """-> the image with the true point as star and the found one as cross, and the distances as text."""
    [sample] = metric.compute(predictions=[description], references=[(x, y)], images=[image])[
        "per_sample"
    ]
    row = {"description": description, "point": sample["reference"], "found": sample["point"]}
    found = "({:.1f}, {:.1f})".format(*sample["point"])
    return (
        draw_round_trip(image, [row]),
        f"{sample['distance']:.4f} of the image's sides ({sample['pixels']:.1f} pixels): found at {found}",
    )


def build():
    import gradio as gr

    def shown(*inputs):
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
        outputs=[gr.Image(label="Star: true pixel, cross: found"), gr.Textbox(label="Distance")],
        title="Localization distance",
        article=readme.split("---", 2)[2],
        flagging_mode="never",
    )


if __name__ == "__main__":
    build().launch()
