"""The click-to-point app: click a pixel, read its description, see where the localizer finds it; or write and see what is found.

This folder is a Space as it stands; `talking-points app` starts the same page with checkpoints of one's own.
"""

import html
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image, ImageDraw
from transformers import TextIteratorStreamer, pipeline

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER
from hf_talking_points.models.coordinates import check_points
from hf_talking_points.models.processing_talking_points import to_rgb
from hf_talking_points.visualization import COLOURS, draw_cross, draw_pair, overlay_heatmap

PHOTOS = [
    Path(__file__).parent / "photos" / f"{name}.jpg"
    for name in ("chelsea", "astronaut", "rocket", "coffee")
]
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_FILE_SIZE = "10mb"
MAX_PIXELS = 32_000_000
VIEW_SIDE = 1024  # longest side of the picture that is shown, in pixels
PIXEL, WORDS = "Pixel → words → pixel", "Words → pixel"
PLACEHOLDERS = {
    PIXEL: "Click a pixel of the photo. Its description appears here; edit it, and the star moves.",
    WORDS: "Describe a spot, for example: the left ear of the cat. Click the photo to mark what you mean.",
}
CSS = """
.picture img {cursor: crosshair; width: 100%}
#gallery {max-width: 600px; margin-left: 0}
#gallery .grid-wrap {min-height: 0}
.answers ol {list-style: none; margin: 0; padding: 0}
.answers li {margin-bottom: 0.5em}
.answers .star {font-size: 1.2em}
"""


@dataclass
class Answer:
    """What one pair of checkpoints says about a point: a text, and where its localizer finds it."""

    text: str = ""
    found: tuple[float, float] | None = None
    confidence: float | None = None
    heatmap: np.ndarray | None = None


@dataclass
class Entry:
    """A clicked point, or None for words alone, and the answers of both pairs. Points are pixels of the photo."""

    clicked: tuple[float, float] | None = None
    answers: list[Answer] = field(default_factory=lambda: [Answer(), Answer()])


class Visit:
    """The photo of one visitor and what was asked about it. `pairs` of checkpoints, one or two, are seen."""

    def __init__(self, image):
        self.pairs = 1
        self.open(image)

    def open(self, image):
        """Takes another photo, about which nothing was asked yet."""
        scale = VIEW_SIDE / max(image.size)
        self.image = image
        self.view = image.resize(
            [max(1, round(side * scale)) for side in image.size],
            Image.Resampling.LANCZOS,
            reducing_gap=3.0,
        )
        self.scale = [shown / side for shown, side in zip(self.view.size, image.size)]
        self.entries = []
        self.current = 0

    def add(self, entry):
        """Makes `entry` the current one."""
        if len(self.entries) == len(COLOURS):
            raise gr.Error(
                f"At most {len(COLOURS)} points at once: clear them first.", print_exception=False
            )
        self.entries.append(entry)
        self.current = len(self.entries) - 1


def read_photo(path):
    """The photo of an uploaded file as PIL RGB image in display orientation. Raises gr.Error for what is not a photo or too large."""
    try:
        image = Image.open(path, formats=FORMATS)
        if image.width * image.height <= MAX_PIXELS:
            return to_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise gr.Error(
            f"This file cannot be read as a photo ({', '.join(FORMATS)}).", print_exception=False
        ) from None
    raise gr.Error(
        f"The photo has {image.width} x {image.height} pixels; at most {MAX_PIXELS // 10**6} million are taken.",
        print_exception=False,
    )


def stream_description(descriptor, image, point):
    """Yields the description of `point` as it grows, at last the whole."""
    streamer = TextIteratorStreamer(
        descriptor.processor.tokenizer, skip_prompt=True, skip_special_tokens=True
    )

    def describe():
        try:
            return descriptor(image, points=[point], streamer=streamer)
        finally:
            streamer.end()  # also after an error, or the loop below would wait for ever

    with ThreadPoolExecutor(1) as executor:
        described = executor.submit(describe)
        text = ""
        for piece in streamer:
            text += piece
            yield text
        [row] = described.result()
    yield row["description"]


def locate(localizer, image, text):
    """The [`Answer`] of a localizer. Raises gr.Error for a text that it refuses."""
    if not text.strip():
        return Answer(text)
    try:
        [row] = localizer(image, text=text, return_heatmaps=True)
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from None
    return Answer(text, row["point"], row["confidence"], row["heatmap"])


def draw_answers(visit, panel):
    """The photo with a cross where was clicked and a star where the localizer finds the text, and the current point's heat map."""
    picture = visit.view.copy()
    if (
        visit.entries
        and (heatmap := visit.entries[visit.current].answers[panel].heatmap) is not None
    ):
        picture = overlay_heatmap(picture, heatmap)
    draw = ImageDraw.Draw(picture)
    for entry, colour in zip(visit.entries, COLOURS):
        clicked, found = (
            None if point is None else [value * scale for value, scale in zip(point, visit.scale)]
            for point in (entry.clicked, entry.answers[panel].found)
        )
        if found is not None:
            draw_pair(draw, found, clicked, 0.018 * VIEW_SIDE, colour)
        elif clicked is not None:
            draw_cross(draw, *clicked, 0.018 * VIEW_SIDE, colour)
    return picture


def list_answers(visit, panel):
    """The points, where they are found and how far that is from the click, as HTML."""
    items = []
    for index, (entry, colour) in enumerate(zip(visit.entries, COLOURS)):
        answer = entry.answers[panel]
        facts = []
        if entry.clicked is not None:
            facts.append("clicked ({:.0f}, {:.0f})".format(*entry.clicked))
        if answer.found is not None:
            facts.append("found at ({:.0f}, {:.0f})".format(*answer.found))
        if answer.found is not None and entry.clicked is not None:
            facts.append(f"<b>{math.dist(entry.clicked, answer.found):.1f} px away</b>")
        if answer.confidence is not None:
            facts.append(f"confidence {answer.confidence:.2f}")
        text = "" if index == visit.current else f"<br>{html.escape(answer.text)}"
        items.append(
            f'<li><span class="star" style="color: {colour}">★</span> {index + 1}: {", ".join(facts)}{text}</li>'
        )
    return f"<ol>{''.join(items)}</ol>"


def load_pipelines(task, checkpoints):
    """Checkpoint folders and Hub ids -> `{name: pipeline}`; a folder's name is its last part. Raises ValueError for equal names."""
    loaded = {}
    for checkpoint in checkpoints:
        name = Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint
        if name in loaded:
            raise ValueError(
                f"two checkpoints for {task} are called {name!r}: rename one of the folders"
            )
        loaded[name] = pipeline(task, model=checkpoint)
    return loaded


def build_panel(number, first, descriptors, localizers):
    """Picture, text and answers of one pair of checkpoints; the second pair is seen only while comparing."""
    with gr.Row(visible=number == 0) as row:
        with gr.Column(scale=3, min_width=300):
            picture = gr.Image(
                first.view,
                interactive=False,
                show_label=False,
                buttons=[],
                elem_id=f"picture-{number}",
                elem_classes="picture",
            )
        with gr.Column(scale=2, min_width=300):
            with gr.Row(visible=len(descriptors) + len(localizers) > 2):
                descriptor, localizer = (
                    gr.Dropdown(
                        list(names),
                        value=list(names)[min(number, len(names) - 1)],
                        label=label,
                        elem_id=f"{label}-{number}",
                    )
                    for label, names in (("Descriptor", descriptors), ("Localizer", localizers))
                )
            text = gr.Textbox(
                label="Description",
                placeholder=PLACEHOLDERS[PIXEL],
                lines=4,
                max_length=1000,
                submit_btn="Find",
                elem_id=f"text-{number}",
            )
            answers = gr.HTML(elem_id=f"answers-{number}", elem_classes="answers")
    return {
        "row": row,
        "picture": picture,
        "descriptor": descriptor,
        "localizer": localizer,
        "text": text,
        "answers": answers,
    }


def build_app(descriptors, localizers):
    """The page.

    Args:
        descriptors (`dict`): name -> [`PointDescriptionPipeline`]; a visitor chooses among these.
        localizers (`dict`): name -> [`PointLocalizationPipeline`].
    Returns:
        `gr.Blocks`, to be started by [`launch`].
    """
    first = Visit(read_photo(PHOTOS[0]))
    # photos of visitors are deleted within two hours
    with gr.Blocks(
        title="Talking Points", analytics_enabled=False, delete_cache=(3600, 3600)
    ) as app:
        visit = gr.State(first)
        gr.Markdown(
            "# Talking Points\nA ✕ is where you clicked, the ★ of its colour is where the localizer finds the description, from the words "
            "alone, and the glow is its heat map."
        )
        with gr.Row():
            direction = gr.Radio(
                [PIXEL, WORDS], value=PIXEL, label="Direction", elem_id="direction"
            )
            compare = gr.Checkbox(
                label="Compare two checkpoints",
                visible=len(descriptors) + len(localizers) > 2,
                elem_id="compare",
            )
        panels = [build_panel(number, first, descriptors, localizers) for number in (0, 1)]
        with gr.Row():
            chosen = gr.Radio([], label="Point", visible=False, elem_id="chosen")
            another = gr.Button("Another text", visible=False, size="md", elem_id="another")
            clear = gr.Button("Clear points", size="md", elem_id="clear")
            upload = gr.UploadButton(
                "Upload a photo", file_types=["image"], size="md", elem_id="upload"
            )
        gallery = gr.Gallery(
            [str(photo) for photo in PHOTOS],
            show_label=False,
            columns=len(PHOTOS),
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="gallery",
        )

        def show(now, typed_in=None):
            """Updates of everything that depends on the visit; the text box that is being typed into is left alone."""
            points = [(str(index + 1), index) for index in range(len(now.entries))]
            updates = {
                visit: now,
                chosen: gr.Radio(
                    points, value=now.current if points else None, visible=len(points) > 1
                ),
            }
            for number, panel in enumerate(panels[: now.pairs]):
                updates[panel["picture"]] = draw_answers(now, number)
                updates[panel["answers"]] = list_answers(now, number)
                if number != typed_in:
                    updates[panel["text"]] = (
                        now.entries[now.current].answers[number].text if now.entries else ""
                    )
            return updates

        def ask(now, index, number, names, text=None):
            """Has an entry answered by one pair: its click described first, unless there is a `text`."""
            entry, descriptor, localizer = (
                now.entries[index],
                descriptors[names[2 * number]],
                localizers[names[2 * number + 1]],
            )
            if text is None:
                for text in stream_description(descriptor, now.image, entry.clicked):
                    entry.answers[number] = Answer(text)
                    if index == now.current:
                        yield {panels[number]["text"]: text}
            entry.answers[number] = locate(localizer, now.image, text)

        def click(event: gr.SelectData, now, towards, *names):
            point = tuple(value / scale for value, scale in zip(event.index, now.scale))
            check_points([point], *now.image.size)
            if towards == WORDS and now.entries:
                now.entries[now.current].clicked = point
            else:
                now.add(Entry(point))
            yield show(now)
            if towards == PIXEL:
                for number in range(now.pairs):
                    yield from ask(now, now.current, number, names)
                    yield show(now)

        def edit(number, now, towards, text, *names):
            if not now.entries:
                now.add(Entry())
            # words alone are a question to both localizers, descriptions are each descriptor's own
            for asked in range(now.pairs) if towards == WORDS else [number]:
                yield from ask(now, now.current, asked, names, text)
            yield show(now, typed_in=number)

        def ask_again(number, now, towards, *names):
            for index, entry in enumerate(now.entries):
                text = (
                    None
                    if towards == PIXEL and entry.clicked
                    else entry.answers[number].text or entry.answers[0].text
                )
                yield from ask(now, index, number, names, text)
            yield show(now)

        def compare_or_not(now, comparing, towards, *names):
            now.pairs = 1 + comparing
            yield {visit: now, panels[1]["row"]: gr.Row(visible=comparing)}
            if comparing:
                yield from ask_again(1, now, towards, *names)

        def switch(towards):
            placeholder = gr.Textbox(placeholder=PLACEHOLDERS[towards])
            return {
                another: gr.Button(visible=towards == WORDS),
                **{panel["text"]: placeholder for panel in panels},
            }

        def choose(now, index):
            now.current = index
            return show(now)

        def add_text(now):
            now.add(Entry())
            return show(now)

        def remove_all(now):
            now.entries.clear()
            now.current = 0
            return show(now)

        def open_photo(now, path):
            now.open(read_photo(path))
            return show(now)

        def pick_photo(event: gr.SelectData, now):
            return open_photo(now, PHOTOS[event.index])

        names = [panel[kind] for panel in panels for kind in ("descriptor", "localizer")]
        texts = [panel["text"] for panel in panels]
        changing = {
            "outputs": [
                *(visit, chosen, another, panels[1]["row"], *texts),
                *(panel[kind] for panel in panels for kind in ("picture", "answers")),
            ],
            "concurrency_id": "models",  # one at a time, in the order of asking
            "concurrency_limit": 1,
            "show_progress": "minimal",
            "show_progress_on": texts,
            "api_visibility": "private",
        }
        for number, panel in enumerate(panels):
            panel["picture"].select(
                click, [visit, direction, *names], trigger_mode="multiple", **changing
            )
            gr.on(
                # Gradio's input event is that of a key typed: what is pasted, deleted or typed on a phone waits for the button
                [panel["text"].input, panel["text"].submit],
                partial(edit, number),
                [visit, direction, panel["text"], *names],
                trigger_mode="always_last",
                **changing,
            )
            for kind in ("descriptor", "localizer"):
                panel[kind].input(
                    partial(ask_again, number), [visit, direction, *names], **changing
                )
        compare.input(compare_or_not, [visit, compare, direction, *names], **changing)
        direction.input(switch, direction, **changing)
        chosen.input(choose, [visit, chosen], **changing)
        another.click(add_text, visit, **changing)
        clear.click(remove_all, visit, **changing)
        upload.upload(open_photo, [visit, upload], **changing)
        gallery.select(pick_photo, visit, **changing)
    return app


def launch(app, **kwargs):
    """Starts the page; `kwargs` are those of `gr.Blocks.launch`."""
    theme = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )  # nothing to download
    # without show_error a visitor reads the messages written for visitors and nothing of other errors
    options = {
        "theme": theme,
        "css": CSS,
        "footer_links": ["gradio"],
        "max_file_size": MAX_FILE_SIZE,
        "show_error": False,
        **kwargs,
    }
    return app.queue(max_size=200).launch(**options)


def run(descriptors, localizers):
    """Loads checkpoints (folders or Hub ids) and starts the page with them."""
    launch(
        build_app(
            load_pipelines("point-description", descriptors),
            load_pipelines("point-localization", localizers),
        )
    )


if __name__ == "__main__":
    # more ids here are offered to visitors, to be compared
    run([MINI_DESCRIPTOR], [MINI_LOCALIZER])
