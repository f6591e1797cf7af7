"""The click-to-point app: click a pixel, read its description, see where the localizer finds it; or write and see what
is found.

This folder is a Space as it stands; `talking-points app` starts the same page with checkpoints of one's own.
"""

from __future__ import annotations

import html
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageDraw
from transformers import Pipeline, TextIteratorStreamer, pipeline

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER
from hf_talking_points.localization import confidence_in_words
from hf_talking_points.models.coordinates import check_points
from hf_talking_points.models.images import UNREADABLE, open_file, to_rgb
from hf_talking_points.visualization import (
    MARK_COLORS,
    draw_cross,
    draw_pair,
    overlay_heatmap,
)

Point = tuple[float, float]

PHOTO_NAMES = ("chelsea", "astronaut", "rocket", "coffee")
PHOTOS = [Path(__file__).parent / "photos" / f"{name}.jpg" for name in PHOTO_NAMES]
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_FILE_SIZE = "10mb"
MAX_PIXELS = 32_000_000
# longest side of what is kept of a photo: more than any localizer reads, and 64 visits take half a GB at most
KEPT_SIDE = 1536
VISITS = 64  # that are kept; the oldest one is forgotten
SHOWN_SIDE = 1024  # longest side of the picture that is shown, in pixels
MARK_RADIUS = 0.018 * SHOWN_SIDE
PIXEL = "Pixel → words → pixel"
WORDS = "Words → pixel"
PLACEHOLDERS = {
    PIXEL: "Click a pixel of the photo. Its description appears here; edit it, and the cross moves.",
    WORDS: "Describe a spot, for example: the left ear of the cat. Click the photo to mark what you mean.",
}
STYLES = [("at length", "rich"), ("in a few words", "short")]
INTRODUCTION = (
    "# Talking Points\nA ★ is where you clicked, the ✕ of its color is where the localizer finds "
    "the description, from the words alone, and the glow is its heat map."
)
CSS = """
.picture img {cursor: crosshair; width: 100%}
#gallery {max-width: 600px; margin-left: 0}
#gallery .grid-wrap {min-height: 0}
.answers ol {list-style: none; margin: 0; padding: 0}
.answers li {margin-bottom: 0.5em}
.answers .mark {font-size: 1.2em}
"""


@dataclass
class Answer:
    """What one pair of checkpoints says about a point: a text, and where its localizer finds it."""

    text: str = ""
    found: Point | None = None
    confidence: float | None = None
    heatmap: np.ndarray | None = None


@dataclass
class Entry:
    """A clicked point, or None for words alone, and the answers of both pairs. Points are pixels of the photo."""

    clicked: Point | None = None
    answers: list[Answer] = field(default_factory=lambda: [Answer(), Answer()])


class Visit:
    """The photo of one visitor and what was asked about it.

    Attributes:
        image (PIL RGB image): the photo, with at most `KEPT_SIDE` pixels along its longer side.
        size (`tuple`): (width, height) of the photo itself, in whose pixels all points are.
        shown (PIL RGB image): the photo as it is shown, `SHOWN_SIDE` pixels long.
        scale (`tuple`): pixels of `shown` for a pixel of the photo, along x and y.
        pairs (`int`): of checkpoints, one or two, that are seen.
        entries (list of [`Entry`]), current (`int`): the points, and which of them the text box belongs to.
    """

    def __init__(self, image: Image.Image) -> None:
        self.pairs = 1
        self.open(image)

    def open(self, image: Image.Image) -> None:
        """Takes another photo, about which nothing was asked yet."""
        scale = SHOWN_SIDE / max(image.size)
        width = max(1, round(image.width * scale))
        height = max(1, round(image.height * scale))
        self.size = image.size
        self.image = image
        if max(image.size) > KEPT_SIDE:
            self.image = image.copy()
            self.image.thumbnail((KEPT_SIDE, KEPT_SIDE), Image.Resampling.LANCZOS)
        self.shown = image.resize(
            (width, height), Image.Resampling.LANCZOS, reducing_gap=3.0
        )
        self.scale = (width / image.width, height / image.height)
        self.entries: list[Entry] = []
        self.current = 0

    def add(self, entry: Entry) -> None:
        """Makes `entry` the current one. Raises gr.Error where there are as many as colors."""
        if len(self.entries) == len(MARK_COLORS):
            raise gr.Error(
                f"At most {len(MARK_COLORS)} points at once: clear them first.",
                print_exception=False,
            )
        self.entries.append(entry)
        self.current = len(self.entries) - 1

    def on_shown(self, point: Point) -> Point:
        """A point of the photo on the picture that is shown."""
        return point[0] * self.scale[0], point[1] * self.scale[1]

    def on_photo(self, point: Point) -> Point:
        """A point of the picture that is shown on the photo. Raises ValueError for a point beside it."""
        x, y = point[0] / self.scale[0], point[1] / self.scale[1]
        check_points([(x, y)], *self.size)
        return x, y

    def on_kept(self, point: Point) -> Point:
        """A point of the photo on what is kept of it."""
        return (
            point[0] * self.image.width / self.size[0],
            point[1] * self.image.height / self.size[1],
        )

    def from_kept(self, point: Point) -> Point:
        """A point of what is kept of the photo, on the photo."""
        return (
            point[0] * self.size[0] / self.image.width,
            point[1] * self.size[1] / self.image.height,
        )


def read_photo(path: str | os.PathLike) -> Image.Image:
    """The photo of an uploaded file as PIL RGB image as it is displayed.

    Raises gr.Error for what is not a photo or too large.
    """
    try:
        image = open_file(path, formats=FORMATS)
        if image.width * image.height <= MAX_PIXELS:
            return to_rgb(image)
    except UNREADABLE:
        raise gr.Error(
            f"This file cannot be read as a photo ({', '.join(FORMATS)}).",
            print_exception=False,
        ) from None
    raise gr.Error(
        f"The photo has {image.width} x {image.height} pixels; "
        f"at most {MAX_PIXELS // 10**6} million are taken.",
        print_exception=False,
    )


def stream_description(
    descriptor: Pipeline, image: Image.Image, point: Point, style: str
) -> Iterator[str]:
    """Yields the description of `point` as it grows, at last the whole; in a style where the descriptor knows any."""
    options = {"style": style} if descriptor.processor.styles else {}
    streamer = TextIteratorStreamer(
        descriptor.processor.tokenizer, skip_prompt=True, skip_special_tokens=True
    )

    def describe() -> list[dict[str, Any]]:
        try:
            return descriptor(image, points=[point], streamer=streamer, **options)
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


def locate(localizer: Pipeline, visit: Visit, text: str) -> Answer:
    """The [`Answer`] of a localizer. Raises gr.Error for a text that it cannot take."""
    if not text.strip():
        return Answer(text)
    try:
        [row] = localizer(visit.image, text=text, return_heatmaps=True)
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from None
    found = visit.from_kept(row["point"])
    return Answer(text, found, row["confidence"], row["heatmap"])


def draw_answers(visit: Visit, panel: int) -> Image.Image:
    """The photo with a star where was clicked and a cross where the localizer finds the text, and the heat map of the
    current point."""
    picture = visit.shown.copy()
    if visit.entries:
        heatmap = visit.entries[visit.current].answers[panel].heatmap
        if heatmap is not None:
            picture = overlay_heatmap(picture, heatmap)
    draw = ImageDraw.Draw(picture)
    for entry, color in zip(visit.entries, MARK_COLORS):
        found = entry.answers[panel].found
        if entry.clicked is not None:
            star = visit.on_shown(entry.clicked)
            cross = None if found is None else visit.on_shown(found)
            draw_pair(draw, star, cross, MARK_RADIUS, color)
        elif found is not None:
            draw_cross(draw, *visit.on_shown(found), MARK_RADIUS, color)
    return picture


def list_answers(visit: Visit, panel: int) -> str:
    """The points, where they are found and how far that is from the click, as HTML."""
    items = []
    for index, (entry, color) in enumerate(zip(visit.entries, MARK_COLORS)):
        answer = entry.answers[panel]
        mark = "★" if entry.clicked is not None else "✕"
        text = "" if index == visit.current else f"<br>{html.escape(answer.text)}"
        items.append(
            f'<li><span class="mark" style="color: {color}">{mark}</span> '
            f"{index + 1}: {', '.join(facts_of(entry, answer))}{text}</li>"
        )
    return f"<ol>{''.join(items)}</ol>"


def facts_of(entry: Entry, answer: Answer) -> list[str]:
    """What the list says of one point, as HTML."""
    facts = []
    if entry.clicked is not None:
        facts.append("clicked ({:.0f}, {:.0f})".format(*entry.clicked))
    if answer.found is not None:
        facts.append("found at ({:.0f}, {:.0f})".format(*answer.found))
    if answer.found is not None and entry.clicked is not None:
        facts.append(f"<b>{math.dist(entry.clicked, answer.found):.1f} px away</b>")
    if answer.confidence is not None:
        facts.append(confidence_in_words(answer.confidence))
    return facts


def load_pipelines(task: str, checkpoints: Iterable[str]) -> dict[str, Pipeline]:
    """Checkpoint folders and Hub ids -> `{name: pipeline}`; a folder's name is its last part. Raises ValueError for
    equal names."""
    loaded: dict[str, Pipeline] = {}
    for checkpoint in checkpoints:
        name = (
            Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint
        )
        if name in loaded:
            raise ValueError(
                f"two checkpoints for {task} are called {name!r}: rename one of the folders"
            )
        loaded[name] = pipeline(task, model=checkpoint)
    return loaded


@dataclass
class Panel:
    """Picture, text and answers of one pair of checkpoints on the page."""

    row: gr.Row
    picture: gr.Image
    descriptor: gr.Dropdown
    localizer: gr.Dropdown
    text: gr.Textbox
    answers: gr.HTML


class Page:
    """The components of the page and what they do.

    Each handler takes the [`Visit`] and gives back the components that changed. `style` is that of descriptions;
    `names` are those of the chosen checkpoints: descriptor and localizer of the first panel, then of the second.

    Args:
        descriptors (`dict`): name -> [`PointDescriptionPipeline`]; a visitor chooses among these.
        localizers (`dict`): name -> [`PointLocalizationPipeline`].
    """

    def __init__(
        self, descriptors: Mapping[str, Pipeline], localizers: Mapping[str, Pipeline]
    ) -> None:
        self.descriptors = descriptors
        self.localizers = localizers
        self.has_choice = len(descriptors) + len(localizers) > 2
        first = Visit(read_photo(PHOTOS[0]))
        self.visit = gr.State(first)
        gr.Markdown(INTRODUCTION)
        knows_styles = any(pipe.processor.styles for pipe in descriptors.values())
        with gr.Row():
            self.direction = gr.Radio(
                [PIXEL, WORDS], value=PIXEL, label="Direction", elem_id="direction"
            )
            self.style = gr.Radio(
                STYLES,
                value="rich",
                label="Described",
                visible=knows_styles,
                elem_id="style",
            )
            self.compare = gr.Checkbox(
                label="Compare two checkpoints",
                visible=self.has_choice,
                elem_id="compare",
            )
        self.panels = [self.build_panel(number, first) for number in (0, 1)]
        with gr.Row():
            self.chosen = gr.Radio([], label="Point", visible=False, elem_id="chosen")
            self.another = gr.Button(
                "Another text", visible=False, size="md", elem_id="another"
            )
            self.clear = gr.Button("Clear points", size="md", elem_id="clear")
            self.upload = gr.UploadButton(
                "Upload a photo", file_types=["image"], size="md", elem_id="upload"
            )
        self.gallery = gr.Gallery(
            [str(photo) for photo in PHOTOS],
            show_label=False,
            columns=len(PHOTOS),
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="gallery",
        )
        self.connect()

    def build_panel(self, number: int, first: Visit) -> Panel:
        """The panel of one pair; the second pair is seen only while comparing."""
        with gr.Row(visible=number == 0) as row:
            with gr.Column(scale=3, min_width=300):
                picture = gr.Image(
                    first.shown,
                    interactive=False,
                    show_label=False,
                    buttons=[],
                    elem_id=f"picture-{number}",
                    elem_classes="picture",
                )
            with gr.Column(scale=2, min_width=300):
                with gr.Row(visible=self.has_choice):
                    descriptor = self.build_dropdown(
                        "Descriptor", self.descriptors, number
                    )
                    localizer = self.build_dropdown(
                        "Localizer", self.localizers, number
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
        return Panel(row, picture, descriptor, localizer, text, answers)

    def build_dropdown(
        self, label: str, checkpoints: Mapping[str, Pipeline], number: int
    ) -> gr.Dropdown:
        """The choice among checkpoints of one kind; the second panel starts with the second of them."""
        names = list(checkpoints)
        value = names[min(number, len(names) - 1)]
        return gr.Dropdown(names, value=value, label=label, elem_id=f"{label}-{number}")

    def connect(self) -> None:
        """Tells which event calls which handler."""
        names = []
        for panel in self.panels:
            names += [panel.descriptor, panel.localizer]
        texts = [panel.text for panel in self.panels]
        outputs = [self.visit, self.chosen, self.another, self.panels[1].row, *texts]
        for panel in self.panels:
            outputs += [panel.picture, panel.answers]
        changing = {
            "outputs": outputs,
            "concurrency_id": "models",  # one at a time, in the order of asking
            "concurrency_limit": 1,
            "show_progress": "minimal",
            "show_progress_on": texts,
            "api_visibility": "private",
        }
        choices = [self.direction, self.style, *names]
        asking = [self.visit, *choices]
        for number, panel in enumerate(self.panels):
            panel.picture.select(
                self.click, asking, trigger_mode="multiple", **changing
            )
            gr.on(
                # Gradio's input event is that of a key typed: what is pasted, deleted or typed on a phone waits for
                # the button
                [panel.text.input, panel.text.submit],
                partial(self.edit, number),
                [self.visit, panel.text, *choices],
                trigger_mode="always_last",
                **changing,
            )
            panel.descriptor.input(partial(self.ask_again, number), asking, **changing)
            panel.localizer.input(partial(self.ask_again, number), asking, **changing)
        comparing = [self.visit, self.compare, *choices]
        self.compare.input(self.compare_or_not, comparing, **changing)
        self.direction.input(self.switch, self.direction, **changing)
        self.chosen.input(self.choose, [self.visit, self.chosen], **changing)
        self.another.click(self.add_text, self.visit, **changing)
        self.clear.click(self.remove_all, self.visit, **changing)
        self.upload.upload(self.open_photo, [self.visit, self.upload], **changing)
        self.gallery.select(self.pick_photo, self.visit, **changing)

    def show(self, visit: Visit, typed_in: int | None = None) -> dict:
        """Updates of everything that depends on the visit; the text box that is being typed into is left alone."""
        points = [(str(index + 1), index) for index in range(len(visit.entries))]
        current = visit.current if points else None
        updates = {
            self.visit: visit,
            self.chosen: gr.Radio(points, value=current, visible=len(points) > 1),
        }
        for number, panel in enumerate(self.panels[: visit.pairs]):
            updates[panel.picture] = draw_answers(visit, number)
            updates[panel.answers] = list_answers(visit, number)
            if number != typed_in:
                has_entry = bool(visit.entries)
                answers = visit.entries[visit.current].answers if has_entry else None
                updates[panel.text] = answers[number].text if answers else ""
        return updates

    def ask(
        self,
        visit: Visit,
        index: int,
        number: int,
        style: str,
        names: tuple[str, ...],
        text: str | None = None,
    ) -> Iterator[dict]:
        """Has an entry answered by one pair: its click described first, unless there is a `text`."""
        entry = visit.entries[index]
        descriptor = self.descriptors[names[2 * number]]
        localizer = self.localizers[names[2 * number + 1]]
        if text is None and entry.clicked is not None:
            described = stream_description(
                descriptor, visit.image, visit.on_kept(entry.clicked), style
            )
            for text in described:
                entry.answers[number] = Answer(text)
                if index == visit.current:
                    yield {self.panels[number].text: text}
        entry.answers[number] = locate(localizer, visit, text or "")

    def click(
        self,
        event: gr.SelectData,
        visit: Visit,
        direction: str,
        style: str,
        *names: str,
    ) -> Iterator[dict]:
        """Takes a click on a picture: a point to be described, or what the current words mean."""
        point = visit.on_photo(event.index)
        if direction == WORDS and visit.entries:
            visit.entries[visit.current].clicked = point
        else:
            visit.add(Entry(point))
        yield self.show(visit)
        if direction == PIXEL:
            for number in range(visit.pairs):
                yield from self.ask(visit, visit.current, number, style, names)
                yield self.show(visit)

    def edit(
        self,
        number: int,
        visit: Visit,
        text: str,
        direction: str,
        style: str,
        *names: str,
    ) -> Iterator[dict]:
        """Takes a text that was written into a panel's box."""
        if not visit.entries:
            visit.add(Entry())
        # words alone are a question to both localizers, descriptions are each descriptor's own
        asked = range(visit.pairs) if direction == WORDS else [number]
        for panel in asked:
            yield from self.ask(visit, visit.current, panel, style, names, text)
        yield self.show(visit, typed_in=number)

    def ask_again(
        self, number: int, visit: Visit, direction: str, style: str, *names: str
    ) -> Iterator[dict]:
        """Has all points answered by a pair that was added or changed."""
        for index, entry in enumerate(visit.entries):
            text = None
            if direction == WORDS or entry.clicked is None:
                text = entry.answers[number].text or entry.answers[0].text
            yield from self.ask(visit, index, number, style, names, text)
        yield self.show(visit)

    def compare_or_not(
        self, visit: Visit, comparing: bool, *choices: str
    ) -> Iterator[dict]:
        """Shows or hides the second panel."""
        visit.pairs = 2 if comparing else 1
        yield {self.visit: visit, self.panels[1].row: gr.Row(visible=comparing)}
        if comparing:
            yield from self.ask_again(1, visit, *choices)

    def switch(self, direction: str) -> dict:
        """Changes between describing clicks and locating words."""
        updates = {self.another: gr.Button(visible=direction == WORDS)}
        for panel in self.panels:
            updates[panel.text] = gr.Textbox(placeholder=PLACEHOLDERS[direction])
        return updates

    def choose(self, visit: Visit, index: int) -> dict:
        """Makes another point the current one."""
        visit.current = index
        return self.show(visit)

    def add_text(self, visit: Visit) -> dict:
        """Starts another text."""
        visit.add(Entry())
        return self.show(visit)

    def remove_all(self, visit: Visit) -> dict:
        """Forgets all points."""
        visit.entries.clear()
        visit.current = 0
        return self.show(visit)

    def open_photo(self, visit: Visit, path: str | os.PathLike) -> dict:
        """Takes an uploaded photo."""
        visit.open(read_photo(path))
        return self.show(visit)

    def pick_photo(self, event: gr.SelectData, visit: Visit) -> dict:
        """Takes a photo of the gallery."""
        return self.open_photo(visit, PHOTOS[event.index])


def build_app(
    descriptors: Mapping[str, Pipeline], localizers: Mapping[str, Pipeline]
) -> gr.Blocks:
    """The page, to be started by [`launch`]. Arguments as of [`Page`]."""
    # photos of visitors are deleted within two hours
    with gr.Blocks(
        title="Talking Points", analytics_enabled=False, delete_cache=(3600, 3600)
    ) as app:
        Page(descriptors, localizers)
    return app


def launch(app: gr.Blocks, **kwargs: Any) -> Any:
    """Starts the page; `kwargs` are those of `gr.Blocks.launch`, and so is what is returned."""
    # nothing to download
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    options = {
        "theme": theme,
        "css": CSS,
        "footer_links": ["gradio"],
        "max_file_size": MAX_FILE_SIZE,
        "state_session_capacity": VISITS,
        # without it a visitor reads the messages written for visitors and nothing of other errors
        "show_error": False,
        **kwargs,
    }
    # a request beside the queue would have a model answer two at once
    return app.queue(max_size=200, api_open=False).launch(**options)


def run(descriptors: Iterable[str], localizers: Iterable[str]) -> None:
    """Loads checkpoints (folders or Hub ids) and starts the page with them."""
    described_by = load_pipelines("point-description", descriptors)
    located_by = load_pipelines("point-localization", localizers)
    launch(build_app(described_by, located_by))


if __name__ == "__main__":
    # more ids here are offered to visitors, to be compared
    run([MINI_DESCRIPTOR], [MINI_LOCALIZER])
