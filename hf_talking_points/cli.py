"""`talking-points`: the command line."""

from __future__ import annotations

import glob
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image


class CommandLine(typer.Typer):
    """A Typer app whose errors take one line, unless `--debug` asks for the traceback."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except Exception as error:
            if "--debug" in sys.argv:
                raise
            from .answering import one_line

            print(one_line(error), file=sys.stderr)
            sys.exit(1)


app = CommandLine(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback()
def talking_points(
    debug: Annotated[
        bool, typer.Option("--debug", help="show the traceback of an error")
    ] = False,
) -> None:
    """Describe pixels of photos in words, and find them again from the words alone."""


Model = Annotated[
    str | None,
    typer.Option(help="checkpoint: folder or Hub id; the embedded one if not given"),
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
    typer.Option(
        help="file for a picture of the answers; for a single image", dir_okay=False
    ),
]
BatchSize = Annotated[
    int, typer.Option(min=1, help="images that are computed together")
]


@app.command()
def describe(
    context: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="files, folders, or patterns such as 'photos/**/*.jpg'",
        ),
    ],
    point: Annotated[
        list[str],
        typer.Option(
            metavar="X,Y", help="pixel of the displayed image; may be repeated"
        ),
    ],
    normalized: Annotated[
        bool,
        typer.Option("--normalized", help="points are x / width, y / height instead"),
    ] = False,
    style: Annotated[
        str | None,
        typer.Option(help="rich or short, of a checkpoint that can be asked for it"),
    ] = None,
    model: Model = None,
    output: Output = None,
    as_json: AsJson = False,
    picture: Picture = None,
    batch_size: BatchSize = 8,
) -> None:
    """Describe points of images in words.

    talking-points describe cat.jpg --point 172,117 --point 266,235 --picture described.png

    talking-points describe photos/ --point 0.5,0.5 --normalized --output described.jsonl
    """
    points = [parse_point_option(text, normalized) for text in point]
    run_questions(
        context,
        "describe",
        images,
        points,
        normalized=normalized,
        style=style,
        model=model,
        output=output,
        as_json=as_json,
        picture=picture,
        batch_size=batch_size,
    )


@app.command()
def locate(
    context: typer.Context,
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="file, folder, or pattern in quotes such as 'photos/**/*.jpg'",
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
) -> None:
    """Find the pixels that texts describe.

    talking-points locate cat.jpg "the cat's left eye" "the tip of its nose" --picture found.png

    talking-points locate 'photos/*.jpg' "the dog's nose" --output found.jsonl
    """
    for text in texts:
        if not text.strip():
            raise typer.BadParameter("a text is empty", param_hint="TEXT")
        if os.path.isfile(text):
            raise typer.BadParameter(
                f"{text} is a file: put a pattern of several images in quotes",
                param_hint="TEXT",
            )
    run_questions(
        context,
        "locate",
        [image],
        texts,
        model=model,
        output=output,
        as_json=as_json,
        picture=picture,
        batch_size=batch_size,
    )


def run_questions(
    context: typer.Context,
    command: str,
    images: list[str],
    questions: list[Any],
    **options: Any,
) -> None:
    """Runs `describe` or `locate`; exit code 1 where an image could not be used."""
    paths = image_paths(images)
    check_files(paths, options["output"], options["picture"])

    from .answering import Run, answer_images

    debug = context.parent is not None and context.parent.params["debug"]
    run = Run(command, paths, list(dict.fromkeys(questions)), debug=debug, **options)
    if not answer_images(run):
        raise typer.Exit(1)


def parse_point_option(text: str, normalized: bool) -> tuple[float, float]:
    """ "X,Y" -> (x, y)."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not X,Y: two numbers and a comma, without a space",
            param_hint="--point",
        ) from None
    limit = 1 if normalized else sys.float_info.max
    if not (0 <= x <= limit and 0 <= y <= limit):  # so is NaN refused
        if normalized:
            expected = "must lie in [0, 1] x [0, 1]"
        else:
            expected = "must be finite and not negative"
        raise typer.BadParameter(f"{text} {expected}", param_hint="--point")
    return x, y


def image_paths(names: list[str]) -> list[str]:
    """Paths of the images that files, folders and patterns name, each once. Of a folder it is the files with an
    extension that Pillow reads, without those of its subfolders."""
    paths: list[str] = []
    for name in names:
        if os.path.isdir(name):
            found = images_in_folder(Path(name))
            problem = "is a folder without images"
        else:
            matching = (
                [name]
                if os.path.isfile(name)
                else sorted(glob.glob(name, recursive=True))
            )
            found = [str(Path(file)) for file in matching if os.path.isfile(file)]
            problem = "is no file or folder, and no file matches it as a pattern"
        if not found:
            raise typer.BadParameter(f"{name} {problem}", param_hint="IMAGE")
        paths += found
    return list(dict.fromkeys(paths))


def images_in_folder(folder: Path) -> list[str]:
    """The files of a folder that have an extension which Pillow reads, sorted."""
    formats = Image.registered_extensions()
    found = []
    for file in sorted(folder.iterdir()):
        if formats.get(file.suffix.lower()) in Image.OPEN and file.is_file():
            found.append(str(file))
    return found


def check_files(paths: list[str], output: Path | None, picture: Path | None) -> None:
    """Usage errors that would otherwise show after the work."""
    if picture and len(paths) > 1:
        raise typer.BadParameter(
            f"a picture is made of a single image, not of {len(paths)}",
            param_hint="--picture",
        )
    if picture and not can_hold_colors(picture):
        raise typer.BadParameter(
            f"{picture} does not end like a picture that can be written, such as .png or .jpg",
            param_hint="--picture",
        )
    for option, file in (("--output", output), ("--picture", picture)):
        if file:
            check_place(option, file)
            check_inputs_stay(option, file, paths)
    if output and picture and os.path.realpath(output) == os.path.realpath(picture):
        raise typer.BadParameter(
            f"{picture} is the --output as well", param_hint="--picture"
        )


def can_hold_colors(picture: Path) -> bool:
    """Whether Pillow writes pictures in colors to a file that ends like this one."""
    kind = Image.registered_extensions().get(picture.suffix.lower())
    if kind not in Image.SAVE:
        return False
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), kind)
    except (OSError, ValueError, KeyError):
        return False
    return True


def check_place(option: str, file: Path) -> None:
    """Raises BadParameter for a file that cannot be written."""
    place = Path(os.path.realpath(file))
    problem = None
    if not place.parent.is_dir():
        problem = f"{place.parent} is not a folder"
    elif not os.access(place.parent, os.W_OK):
        problem = f"nothing can be written to {place.parent}"
    elif place.exists() and not os.access(place, os.W_OK):
        problem = f"{file} cannot be written"
    if problem:
        raise typer.BadParameter(problem, param_hint=option)


def check_inputs_stay(option: str, file: Path, paths: list[str]) -> None:
    """Raises BadParameter for a file that is one of the images."""
    if file.exists() and any(os.path.samefile(file, path) for path in paths):
        raise typer.BadParameter(
            f"{file} is one of the images, and would be overwritten", param_hint=option
        )


@app.command()
def evaluate(
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with these options; what is given here overrides it"
        ),
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
        str | None,
        typer.Option(help="checkpoints or vlm:CONVENTION:MODEL; separated by commas"),
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
    max_photos: Annotated[
        int | None, typer.Option(help="the first photos of the split")
    ] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="folder of the report; the same folder goes on where a run was cut off"
        ),
    ] = None,
) -> None:
    """Judge descriptions by how well localizers find their points.

    talking-points evaluate --dataset data/animalpose_voc_256 --descriptions
    ground-truth,point-descriptor:someone/talking-points-descriptor
    --localizers someone/talking-points-localizer --styles full,terse --output report
    """
    from .evaluation.protocol import EvaluationOptions, evaluate_descriptions
    from .evaluation.report import scores_table
    from .options import check_names, read_options

    options = read_options(config) if config else {}
    check_names(options, EvaluationOptions.__dataclass_fields__, str(config))
    given = {
        "dataset": dataset,
        "descriptions": split_commas(descriptions),
        "localizers": split_commas(localizers),
        "styles": split_commas(styles),
        "split": split,
        "controls": controls,
        "max_photos": max_photos,
        "seed": seed,
        "output": output,
    }
    for name, value in given.items():
        if value is not None and value != []:
            options[name] = value
    for name in ("dataset", "output"):
        if name not in options:
            raise ValueError(f"--{name} is needed, here or in the file of --config")
    report = evaluate_descriptions(EvaluationOptions(**options))
    print(
        f"\n{scores_table(report['rows'])}\n\n{Path(options['output']) / 'report.md'}"
    )


def split_commas(text: str | None) -> list[str] | None:
    """The parts of an option whose values are separated by commas."""
    return None if text is None else text.split(",")


@app.command()
def push(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="folder of a saved model or adapter and its processor"),
    ],
    repo_id: Annotated[
        str, typer.Argument(help="owner/name; is created where it does not exist")
    ],
    card: Annotated[
        Path | None,
        typer.Option(
            help="Markdown file for README.md; otherwise the folder's own, or a short one"
        ),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option(help="visibility of a new repo; by default the owner's setting"),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="branch; is created where it does not exist")
    ] = None,
) -> None:
    """Push a checkpoint to the Hub as a repo that loads with trust_remote_code, without this package.

    talking-points push runs/descriptor someone/my-descriptor --private
    """
    from .hub import push_checkpoint

    print(push_checkpoint(checkpoint, repo_id, card, private, revision).commit_url)


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
) -> None:
    """Start the click-to-point page in a local web server, with the embedded pair unless told otherwise.

    talking-points app --descriptor runs/grpo --descriptor someone/talking-points-descriptor
    """
    from . import MINI_DESCRIPTOR, MINI_LOCALIZER
    from .space.app import run

    run(descriptor or [MINI_DESCRIPTOR], localizer or [MINI_LOCALIZER])
