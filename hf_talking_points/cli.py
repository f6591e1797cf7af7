"""`talking-points`: the command line."""

import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def talking_points(debug: Annotated[bool, typer.Option(help="show the traceback of an error")] = False):
    """Describe pixels of photos in words, and find them again from the words alone."""
    if not debug:
        sys.excepthook = lambda kind, error, _: print(f"{kind.__name__}: {error}", file=sys.stderr)


@app.command()
def evaluate(
    config: Annotated[Path | None, typer.Option(help="YAML file with these options; what is given here overrides it")] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="folder with an objects.jsonl, built dataset, or Hub id; may be repeated")
    ] = None,
    descriptions: Annotated[
        str | None, typer.Option(help="ground-truth, point-descriptor:CHECKPOINT, vlm:MODEL, jsonl:FILE; separated by commas")
    ] = None,
    localizers: Annotated[str | None, typer.Option(help="checkpoints or vlm:CONVENTION:MODEL; separated by commas")] = None,
    styles: Annotated[str | None, typer.Option(help="styles of the ground truth, separated by commas; the first is the reference")] = None,
    split: Annotated[str | None, typer.Option(help="test, validation or train")] = None,
    controls: Annotated[bool | None, typer.Option(help="also what words or picture alone give away")] = None,
    max_photos: Annotated[int | None, typer.Option(help="the first photos of the split")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    output: Annotated[str | None, typer.Option(help="folder of the report; the same folder goes on where a run was cut off")] = None,
):
    """Judge descriptions by how well localizers find their points.

    talking-points evaluate --dataset data/animalpose_voc_256 --descriptions ground-truth,point-descriptor:someone/talking-points-descriptor
    --localizers someone/talking-points-localizer --styles full,terse --output report
    """
    from .evaluation.protocol import EvaluationOptions, evaluate_descriptions
    from .evaluation.report import scores_table

    given = {"dataset": dataset, "split": split, "controls": controls, "max_photos": max_photos, "seed": seed, "output": output}
    given |= {
        name: value.split(",")
        for name, value in (("descriptions", descriptions), ("localizers", localizers), ("styles", styles))
        if value is not None
    }
    options = yaml.safe_load(config.read_text(encoding="utf-8")) if config else {}
    options |= {name: value for name, value in given.items() if value not in (None, [])}
    for name in ("dataset", "output"):
        if name not in options:
            raise ValueError(f"--{name} is needed, here or in the file of --config")
    report = evaluate_descriptions(EvaluationOptions(**options))
    print(f"\n{scores_table(report['rows'])}\n\n{Path(options['output']) / 'report.md'}")


@app.command("app")
def click_to_point(
    descriptor: Annotated[list[str] | None, typer.Option(help="checkpoint folder or Hub id; repeat it to compare several")] = None,
    localizer: Annotated[list[str] | None, typer.Option(help="checkpoint folder or Hub id; repeat it to compare several")] = None,
):
    """Start the click-to-point page in a local web server, with the embedded pair unless told otherwise.

    talking-points app --descriptor runs/grpo --descriptor someone/talking-points-descriptor
    """
    from . import MINI_DESCRIPTOR, MINI_LOCALIZER
    from .space.app import run

    run(descriptor or [MINI_DESCRIPTOR], localizer or [MINI_LOCALIZER])
