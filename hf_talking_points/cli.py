"""`talking-points`: the command line."""

import glob
import json
import os
import sys
import traceback
from collections import deque
from pathlib import Path
from typing import Annotated

import typer
import yaml
from PIL import Image
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)

ROW_START = b'{"image": '  # what every line of an --output begins with


def one_line(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@app.callback()
def talking_points(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
):
    """Describe pixels of photos in words, and find them again from the words alone."""
    if not debug:
        sys.excepthook = lambda kind, error, _: print(one_line(error), file=sys.stderr)


Model = Annotated[
    str | None, typer.Option(help="checkpoint: folder or Hub id; the embedded one if not given")
]
Output = Annotated[
    Path | None,
    typer.Option(
        help="file that JSON lines are appended to; what is in it already is not computed again",
        dir_okay=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON lines")]
Picture = Annotated[
    Path | None,
    typer.Option(help="file for a picture of the answers; for a single image", dir_okay=False),
]
BatchSize = Annotated[int, typer.Option(min=1, help="images that are computed together")]


@app.command()
def describe(
    context: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", help="files, folders, or patterns such as 'photos/**/*.jpg'"
        ),
    ],
    point: Annotated[
        list[str], typer.Option(metavar="X,Y", help="pixel of the displayed image; may be repeated")
    ],
    normalized: Annotated[
        bool, typer.Option("--normalized", help="points are x / width, y / height instead")
    ] = False,
    model: Model = None,
    output: Output = None,
    as_json: AsJson = False,
    picture: Picture = None,
    batch_size: BatchSize = 8,
):
    """Describe points of images in words.

    talking-points describe cat.jpg --point 172,117 --point 266,235 --picture described.png

    talking-points describe photos/ --point 0.5,0.5 --normalized --output described.jsonl
    """
    points = [parse_point(text, normalized) for text in point]
    answer_images(
        "describe",
        images,
        points,
        normalized,
        model=model,
        output=output,
        as_json=as_json,
        picture=picture,
        batch_size=batch_size,
        debug=context.parent.params["debug"],
    )


@app.command()
def locate(
    context: typer.Context,
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="file, folder, or pattern in quotes such as 'photos/**/*.jpg'"
        ),
    ],
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXT", help="descriptions of one pixel each")
    ],
    model: Model = None,
    output: Output = None,
    as_json: AsJson = False,
    picture: Picture = None,
    batch_size: BatchSize = 8,
):
    """Find the pixels that texts describe.

    talking-points locate cat.jpg "the cat's left eye" "the tip of its nose" --picture found.png

    talking-points locate 'photos/*.jpg' "the dog's nose" --output found.jsonl
    """
    for text in texts:
        if not text.strip():
            raise typer.BadParameter("a text is empty", param_hint="TEXT")
        if os.path.isfile(text):
            raise typer.BadParameter(
                f"{text} is a file: put a pattern of several images in quotes", param_hint="TEXT"
            )
    answer_images(
        "locate",
        [image],
        texts,
        model=model,
        output=output,
        as_json=as_json,
        picture=picture,
        batch_size=batch_size,
        debug=context.parent.params["debug"],
    )


def parse_point(text, normalized):
    """ "X,Y" -> (x, y)."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not X,Y: two numbers and a comma, without a space", param_hint="--point"
        ) from None
    limit = 1 if normalized else sys.float_info.max
    if not (0 <= x <= limit and 0 <= y <= limit):  # so is NaN refused
        expected = (
            "must lie in [0, 1] x [0, 1]" if normalized else "must be finite and not negative"
        )
        raise typer.BadParameter(f"{text} {expected}", param_hint="--point")
    return x, y


def image_paths(names):
    """Paths of the images that files, folders and patterns name, each once. Of a folder it is the files with an extension that Pillow
    reads, without those of its subfolders."""
    extensions = {
        extension
        for extension, format in Image.registered_extensions().items()
        if format in Image.OPEN
    }
    paths = []
    for name in names:
        folder = os.path.isdir(name)
        if folder:
            found = sorted(
                file
                for file in Path(name).iterdir()
                if file.suffix.lower() in extensions and file.is_file()
            )
        else:
            matching = [name] if os.path.isfile(name) else sorted(glob.glob(name, recursive=True))
            found = [Path(file) for file in matching if os.path.isfile(file)]
        if not found:
            what = (
                "is a folder without images"
                if folder
                else "is no file or folder, and no file matches it as a pattern"
            )
            raise typer.BadParameter(f"{name} {what}", param_hint="IMAGE")
        paths += map(str, found)
    return list(dict.fromkeys(paths))


def written_rows(output):
    """Rows that earlier runs wrote to a file. The incomplete last line of a run that was killed is cut off.

    Raises ValueError where the file holds anything else; it is not changed then."""
    *lines, rest = output.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append(
                {key: row[key] for key in ("image", "size", "point", "description", "model")}
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{output}, line {number}, is not of describe or locate: {line[:60]!r}: give another --output"
            ) from error
    if rest:
        if not ROW_START.startswith(rest[: len(ROW_START)]):
            raise ValueError(
                f"{output}, line {len(lines) + 1}, is not of describe or locate: {rest[:60]!r}: give another --output"
            )
        os.truncate(output, output.stat().st_size - len(rest))
        console.print(f"{output}: an incomplete last line is computed again")
    return rows


def open_checkpoint(command, checkpoint):
    """(task, checkpoint, its name with a version that changes with its weights) of a command. ValueError where it is of another kind."""
    from transformers import AutoConfig

    from . import MINI_DESCRIPTOR, MINI_LOCALIZER
    from .evaluation.vision_language import model_version

    task, kind, embedded = {
        "describe": ("point-description", "point_descriptor", MINI_DESCRIPTOR),
        "locate": ("point-localization", "point_localizer", MINI_LOCALIZER),
    }[command]
    checkpoint = checkpoint or embedded
    try:
        given = AutoConfig.from_pretrained(checkpoint).model_type
    except OSError as error:
        raise OSError(f"--model {checkpoint}: {error}") from error
    if given != kind:
        raise ValueError(
            f"--model {checkpoint} is a {given} checkpoint, but {command} needs a {kind} one"
        )
    return task, checkpoint, f"{Path(checkpoint).name}@{model_version(checkpoint)[:12]}"


def append_line(file, line):
    """Appends to a file on disk at once; an error names the file."""
    try:
        with open(file, "ab") as stream:
            stream.write(line.encode() + b"\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def check_files(paths, output, picture):
    """Usage errors that would otherwise show after the work."""
    if picture and len(paths) > 1:
        raise typer.BadParameter(
            f"a picture is made of a single image, not of {len(paths)}", param_hint="--picture"
        )
    if picture and Image.registered_extensions().get(picture.suffix.lower()) not in Image.SAVE:
        raise typer.BadParameter(
            f"{picture} does not end like a picture that can be written, such as .png or .jpg",
            param_hint="--picture",
        )
    for option, file in (("--output", output), ("--picture", picture)):
        if file and not file.parent.is_dir():
            raise typer.BadParameter(f"{file.parent} is not a folder", param_hint=option)


def stream_answers(command, pipe, todo, failed, normalized, debug, **options):
    """Yields (path, image size, answers) for the points or texts that are asked of each path. Paths of images that cannot be used are
    reported and added to `failed`."""
    from .models.coordinates import check_points
    from .models.processing_talking_points import to_rgb

    opened = deque()

    def requests():
        for path, questions in todo.items():
            try:
                image = to_rgb(path)
                if command == "describe":
                    questions = check_points(questions, *image.size, normalized).tolist()
            except Exception as error:  # of whatever kind Pillow raises for a broken file
                failed.append(path)
                console.print(
                    f"{path}:",
                    "".join(traceback.format_exception(error)) if debug else one_line(error),
                )
            else:
                opened.append((path, image.size))
                yield {"image": image, "points" if command == "describe" else "text": questions}

    for answers in pipe(requests(), **options):
        yield *opened.popleft(), answers


def answer_images(
    command, names, asked, normalized=False, *, model, output, as_json, picture, batch_size, debug
):
    """Asks the same points or texts of all images and writes the answers as they come; exit code 1 where an image could not be used."""
    paths, asked = image_paths(names), list(dict.fromkeys(asked))
    check_files(paths, output, picture)

    from transformers import pipeline
    from transformers.utils.logging import disable_progress_bar

    from .models.processing_talking_points import to_rgb
    from .visualization import draw_round_trip

    def key(path, what, size=(1, 1)):
        return path, what if command == "locate" else tuple(
            round(v / s, 6) for v, s in zip(what, size)
        )

    def key_of(row):
        if command == "locate":
            return key(row["image"], row["description"])
        return key(row["image"], row["point"], row["size"] if normalized else (1, 1))

    task, checkpoint, version = open_checkpoint(command, model)
    rows = written_rows(output) if output and output.is_file() else []
    done = {key_of(row) for row in rows if row["model"] == version}
    # a picture shows all answers: all are computed for it, but written only once
    todo = {
        path: questions
        for path in paths
        if (questions := [what for what in asked if picture or key(path, what) not in done])
    }
    added, failed = 0, []
    if todo:
        disable_progress_bar()
        pipe = pipeline(task, model=checkpoint)
        options = {"return_heatmaps": True} if picture and command == "locate" else {}
        answered = stream_answers(
            command, pipe, todo, failed, normalized, debug, batch_size=batch_size, **options
        )
        printed = as_json or not output
        hidden = not console.is_terminal or (
            printed and sys.stdout.isatty()
        )  # printed answers are progress enough
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        with Progress(
            *columns, console=console, transient=True, disable=hidden, redirect_stdout=False
        ) as progress:
            bar = progress.add_task(command, total=len(todo))
            for number, (path, size, answers) in enumerate(answered, 1):
                for answer in answers:
                    row = {
                        "image": path,
                        "size": size,
                        **{name: answer[name] for name in answer if name != "heatmap"},
                        "model": version,
                    }
                    if output and key_of(row) not in done:
                        append_line(output, json.dumps(row))
                        added += 1
                    if as_json:
                        print(json.dumps(row), flush=True)
                    elif not output:
                        confidence = (
                            "" if row.get("confidence") is None else f" {row['confidence']:.2f}"
                        )
                        print(
                            "{} ({:.1f}, {:.1f}){} {}".format(
                                path, *row["point"], confidence, row["description"]
                            ),
                            flush=True,
                        )
                if picture:
                    draw_round_trip(to_rgb(path), answers).save(picture)
                progress.update(bar, completed=number + len(failed))
    if output:
        console.print(f"{output}: {added} lines added, {len(rows)} were there")
    if failed:
        console.print(f"{len(failed)} of {len(paths)} images failed")
        raise typer.Exit(1)


@app.command()
def evaluate(
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with these options; what is given here overrides it"),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="folder with an objects.jsonl, built dataset, or Hub id; may be repeated"
        ),
    ] = None,
    descriptions: Annotated[
        str | None,
        typer.Option(
            help="ground-truth, point-descriptor:CHECKPOINT, vlm:MODEL, jsonl:FILE; separated by commas"
        ),
    ] = None,
    localizers: Annotated[
        str | None, typer.Option(help="checkpoints or vlm:CONVENTION:MODEL; separated by commas")
    ] = None,
    styles: Annotated[
        str | None,
        typer.Option(
            help="styles of the ground truth, separated by commas; the first is the reference"
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="test, validation or train")] = None,
    controls: Annotated[
        bool | None, typer.Option(help="also what words or picture alone give away")
    ] = None,
    max_photos: Annotated[int | None, typer.Option(help="the first photos of the split")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    output: Annotated[
        str | None,
        typer.Option(help="folder of the report; the same folder goes on where a run was cut off"),
    ] = None,
):
    """Judge descriptions by how well localizers find their points.

    talking-points evaluate --dataset data/animalpose_voc_256 --descriptions ground-truth,point-descriptor:someone/talking-points-descriptor
    --localizers someone/talking-points-localizer --styles full,terse --output report
    """
    from .evaluation.protocol import EvaluationOptions, evaluate_descriptions
    from .evaluation.report import scores_table

    given = {
        "dataset": dataset,
        "split": split,
        "controls": controls,
        "max_photos": max_photos,
        "seed": seed,
        "output": output,
    }
    given |= {
        name: value.split(",")
        for name, value in (
            ("descriptions", descriptions),
            ("localizers", localizers),
            ("styles", styles),
        )
        if value is not None
    }
    options = yaml.safe_load(config.read_text(encoding="utf-8")) if config else {}
    options |= {name: value for name, value in given.items() if value not in (None, [])}
    for name in ("dataset", "output"):
        if name not in options:
            raise ValueError(f"--{name} is needed, here or in the file of --config")
    report = evaluate_descriptions(EvaluationOptions(**options))
    print(f"\n{scores_table(report['rows'])}\n\n{Path(options['output']) / 'report.md'}")


@app.command()
def push(
    checkpoint: Annotated[
        Path, typer.Argument(help="folder of a saved model or adapter and its processor")
    ],
    repo_id: Annotated[str, typer.Argument(help="owner/name; is created where it does not exist")],
    card: Annotated[
        Path | None,
        typer.Option(
            help="Markdown file for README.md; otherwise the folder's own, or a short one"
        ),
    ] = None,
    private: Annotated[
        bool | None, typer.Option(help="visibility of a new repo; by default the owner's setting")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="branch; is created where it does not exist")
    ] = None,
):
    """Push a checkpoint to the Hub as a repo that loads with trust_remote_code, without this package.

    talking-points push runs/descriptor someone/my-descriptor --private
    """
    from .hub import push_checkpoint

    print(push_checkpoint(checkpoint, repo_id, card, private, revision).commit_url)


@app.command()
def card(
    folder: Annotated[Path, typer.Option(help="model_cards of a clone")] = Path("model_cards"),
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="write nothing; fail where a card is not what configs and results give"
        ),
    ] = False,
):
    """Write the cards of the embedded pair from their template, the configs of their training and the stored results.

    talking-points card --check
    """
    from .hub import check_cards, write_cards

    (check_cards if check else write_cards)(folder)


@app.command("app")
def click_to_point(
    descriptor: Annotated[
        list[str] | None,
        typer.Option(help="checkpoint folder or Hub id; repeat it to compare several"),
    ] = None,
    localizer: Annotated[
        list[str] | None,
        typer.Option(help="checkpoint folder or Hub id; repeat it to compare several"),
    ] = None,
):
    """Start the click-to-point page in a local web server, with the embedded pair unless told otherwise.

    talking-points app --descriptor runs/grpo --descriptor someone/talking-points-descriptor
    """
    from . import MINI_DESCRIPTOR, MINI_LOCALIZER
    from .space.app import run

    run(descriptor or [MINI_DESCRIPTOR], localizer or [MINI_LOCALIZER])
