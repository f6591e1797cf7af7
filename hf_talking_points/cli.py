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


@app.command()
def push(
    checkpoint: Annotated[Path, typer.Argument(help="folder of a saved model or adapter and its processor")],
    repo_id: Annotated[str, typer.Argument(help="owner/name; is created where it does not exist")],
    card: Annotated[Path | None, typer.Option(help="Markdown file for README.md; otherwise the folder's own, or a short one")] = None,
    private: Annotated[bool | None, typer.Option(help="visibility of a new repo; by default the owner's setting")] = None,
    revision: Annotated[str | None, typer.Option(help="branch; is created where it does not exist")] = None,
):
    """Push a checkpoint to the Hub as a repo that loads with trust_remote_code, without this package.

    talking-points push runs/descriptor someone/my-descriptor --private
    """
    from .hub import push_checkpoint

    print(push_checkpoint(checkpoint, repo_id, card, private, revision).commit_url)


@app.command()
def card(
    folder: Annotated[Path, typer.Option(help="model_cards of a clone")] = Path("model_cards"),
    check: Annotated[bool, typer.Option("--check", help="write nothing; fail where a card is not what configs and results give")] = False,
):
    """Write the cards of the embedded pair from their template, the configs of their training and the stored results.

    talking-points card --check
    """
    from .hub import check_cards, write_cards

    (check_cards if check else write_cards)(folder)
