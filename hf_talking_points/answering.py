"""The same points or texts asked of many images, with the answers written as they come: `talking-points describe` and
`locate`."""

from __future__ import annotations

import json
import os
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from transformers import AutoConfig, Pipeline, pipeline
from transformers.utils.logging import disable_progress_bar

from . import MINI_DESCRIPTOR, MINI_LOCALIZER
from .checkpoints import model_version
from .data.fields import printable
from .files import only_writer, whole_file
from .localization import confidence_in_words, locate_texts
from .models.coordinates import check_points
from .models.images import to_rgb
from .visualization import draw_round_trip

console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)

Question = (
    str | tuple[float, float]
)  # a text that is located, or a point that is described
Key = tuple[str, Question]  # an image's path, and what is asked of it

ROW_START = b'{"image": '  # what every line of an --output begins with
ROW_KEYS = ("image", "size", "point", "description", "model")
COMMAND_TASKS = {"describe": "point-description", "locate": "point-localization"}
MODEL_TYPES = {"describe": "point_descriptor", "locate": "point_localizer"}
EMBEDDED = {"describe": MINI_DESCRIPTOR, "locate": MINI_LOCALIZER}


@dataclass
class Run:
    """What is asked of which images, and where the answers go.

    Args:
        command (`str`): "describe" or "locate".
        paths (`list[str]`): of the images.
        questions (`list`): points (x, y) that are described, or texts that are located.
        normalized (`bool`): points are x / width, y / height.
        style (`str`, *optional*): of descriptions, one that the checkpoint can be asked for.
        model (`str`, *optional*): checkpoint; the embedded one if None.
        output (`Path`, *optional*): file that JSON lines are appended to.
        as_json (`bool`): prints JSON lines.
        picture (`Path`, *optional*): file for a picture of the answers.
        batch_size (`int`): images that are computed together.
        debug (`bool`): shows the traceback of an image that cannot be used.
    Attributes:
        failed (`list[str]`): paths of the images that could not be used.
    """

    command: str
    paths: Sequence[str]
    questions: Sequence[Question]
    normalized: bool = False
    style: str | None = None
    model: str | None = None
    output: Path | None = None
    as_json: bool = False
    picture: Path | None = None
    batch_size: int = 8
    debug: bool = False
    failed: list[str] = field(default_factory=list)

    def key(self, path: str, question: Question, size: Sequence[float] = (1, 1)) -> Key:
        """How an answer is known again; `size` turns a point in pixels into the units in which it is asked."""
        if isinstance(question, str):
            return path, question
        x, y = question
        return path, (round(x / size[0], 6), round(y / size[1], 6))

    def is_of(self, row: dict[str, Any], version: str) -> bool:
        """Whether an answer as it is written is the one that a version of the model would give."""
        return row["model"] == version and row["style"] == self.style

    def key_of_row(self, row: dict[str, Any]) -> Key:
        """The key of an answer as it is written."""
        if self.command == "locate":
            return self.key(row["image"], row["description"])
        size = row["size"] if self.normalized else (1, 1)
        return self.key(row["image"], row["point"], size)


def one_line(error: BaseException) -> str:
    """Type and message of an error without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def answer_images(run: Run) -> bool:
    """Asks a run's questions of all its images. Answers that `output` holds already are not computed again.

    Returns:
        `bool`: whether every image could be used.

    Raises ValueError for a checkpoint of another kind, for a text that the model cannot take, and for an `output` that
    holds something else; BlockingIOError for one that another run writes to.
    """
    with only_writer(run.output) if run.output else nullcontext():
        return answer_and_write(run)


def answer_and_write(run: Run) -> bool:
    """[`answer_images`] with an `output` that nobody else writes to."""
    checkpoint = run.model or EMBEDDED[run.command]
    version = check_checkpoint(run.command, checkpoint)
    written = (
        read_written_rows(run.output) if run.output and run.output.is_file() else []
    )
    done = {run.key_of_row(row) for row in written if run.is_of(row, version)}
    todo = unanswered(run, done)
    added = 0
    if todo:
        disable_progress_bar()
        pipe = pipeline(COMMAND_TASKS[run.command], model=checkpoint)
        if run.command == "locate":
            # too long a text is an error before the first image
            pipe.processor.check_descriptions(run.questions)
            pipe.processor.encode_descriptions(run.questions)
        if run.style is not None:
            pipe.processor.request(run.style)  # an unknown one is an error here
        added = write_answers(run, pipe, todo, done, version)
    if run.output:
        console.print(f"{run.output}: {added} lines added, {len(written)} were there")
    if run.failed:
        console.print(f"{len(run.failed)} of {len(run.paths)} images failed")
    return not run.failed


def check_checkpoint(command: str, checkpoint: str) -> str:
    """Name and version of a command's checkpoint; the version changes with its weights.

    Raises OSError where there is none, ValueError where it is of another kind.
    """
    try:
        model_type = AutoConfig.from_pretrained(checkpoint).model_type
    except OSError as error:
        raise OSError(f"--model {checkpoint}: {error}") from error
    expected = MODEL_TYPES[command]
    if model_type != expected:
        raise ValueError(
            f"--model {checkpoint} is a {model_type} checkpoint, but {command} needs a {expected} one"
        )
    return f"{Path(checkpoint).name}@{model_version(checkpoint)[:12]}"


def read_written_rows(output: Path) -> list[dict[str, Any]]:
    """Rows that earlier runs wrote to a file. The incomplete last line of a run that was killed is cut off; a whole
    one gets the line break that it lacks.

    Raises ValueError where the file holds anything else; it is not changed then.
    """
    *lines, rest = output.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        rows.append(read_row(output, number, line))
    if not rest:
        return rows
    if is_json(rest):
        rows.append(read_row(output, len(lines) + 1, rest))
        append_line(output, "")
        return rows
    if not ROW_START.startswith(rest[: len(ROW_START)]):
        raise foreign_line(output, len(lines) + 1, rest)
    os.truncate(output, output.stat().st_size - len(rest))
    console.print(f"{output}: an incomplete last line is computed again")
    return rows


def read_row(output: Path, number: int, line: bytes) -> dict[str, Any]:
    """What a line says. Raises ValueError for one that no run has written."""
    try:
        row = json.loads(line)
        kept = {key: row[key] for key in ROW_KEYS}
        return {**kept, "style": row.get("style")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise foreign_line(output, number, line) from error


def is_json(line: bytes) -> bool:
    """Whether a line is whole."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def foreign_line(output: Path, number: int, line: bytes) -> ValueError:
    """The error for a line that no run of `describe` or `locate` has written."""
    return ValueError(
        f"{output}, line {number}, is not of describe or locate: {line[:60]!r}: give another --output"
    )


def unanswered(run: Run, done: set[Key]) -> dict[str, list[Question]]:
    """Path -> the questions that are to be asked of it, of the images that there are any for."""
    todo = {}
    for path in run.paths:
        # a picture shows all answers: all are computed for it, but written only once
        missing = [
            q for q in run.questions if run.picture or run.key(path, q) not in done
        ]
        if missing:
            todo[path] = missing
    return todo


def write_answers(
    run: Run,
    pipe: Pipeline,
    todo: dict[str, list[Question]],
    done: set[Key],
    version: str,
) -> int:
    """Computes, prints, writes and draws the answers; returns how many were written to `output`."""
    added = 0
    printed = run.as_json or not run.output
    # printed answers are progress enough
    hidden = not console.is_terminal or (printed and os.isatty(1))
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    progress = Progress(
        *columns, console=console, transient=True, disable=hidden, redirect_stdout=False
    )
    with progress:
        bar = progress.add_task(run.command, total=len(todo))
        for number, (path, size, answers) in enumerate(
            stream_answers(run, pipe, todo), start=1
        ):
            for answer in answers:
                row = {"image": path, "size": size, **answer, "model": version}
                row.pop("heatmap", None)
                if run.style is not None:
                    row["style"] = run.style
                if run.output and run.key_of_row(row) not in done:
                    append_line(run.output, json.dumps(row))
                    added += 1
                if printed:
                    print(
                        json.dumps(row)
                        if run.as_json
                        else printable(readable_row(row)),
                        flush=True,
                    )
            if run.picture:
                kind = Image.registered_extensions()[run.picture.suffix.lower()]
                with whole_file(run.picture) as file:
                    draw_round_trip(to_rgb(path), answers).save(file, kind)
            progress.update(bar, completed=number + len(run.failed))
    return added


def stream_answers(
    run: Run, pipe: Pipeline, todo: dict[str, list[Question]]
) -> Iterator[tuple[str, tuple[int, int], list[dict[str, Any]]]]:
    """Yields (path, image size, answers) of each image. Those that cannot be used are reported and added to
    `run.failed`."""
    opened: deque[tuple[str, tuple[int, int]]] = deque()

    def requests() -> Iterator[tuple[Any, list[Any]]]:
        for path, questions in todo.items():
            try:
                image = to_rgb(path)
                if run.command == "describe":
                    width, height = image.size
                    questions = check_points(
                        questions, width, height, run.normalized
                    ).tolist()
            except (
                Exception
            ) as error:  # of whatever kind Pillow raises for a broken file
                run.failed.append(path)
                report = (
                    traceback.format_exception(error)
                    if run.debug
                    else [one_line(error)]
                )
                console.print(f"{path}:", "".join(report))
            else:
                opened.append((path, image.size))
                yield image, questions

    if run.command == "locate":
        options = {"return_heatmaps": True} if run.picture else {}
        answered = locate_texts(pipe, requests(), run.batch_size, **options)
    else:
        described = ({"image": image, "points": points} for image, points in requests())
        answered = pipe(
            described,
            batch_size=run.batch_size,
            num_return_sequences=1,
            style=run.style,
        )
    for answers in answered:
        path, size = opened.popleft()
        yield path, size, answers


def append_line(file: Path, line: str) -> None:
    """Appends to a file on disk at once; an error names the file."""
    try:
        with open(file, "ab") as stream:
            stream.write(line.encode() + b"\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def readable_row(row: dict[str, Any]) -> str:
    """An answer on one line."""
    x, y = row["point"]
    confidence = ""
    if row.get("confidence") is not None:
        confidence = f" {confidence_in_words(row['confidence'])}:"
    return f"{row['image']} ({x:.1f}, {y:.1f}){confidence} {row['description']}"
