"""Writes the cards of the embedded pair from their template, the configs of their training and the stored results.

python model_cards/write_cards.py
python model_cards/write_cards.py --check  # writes nothing; fails where a card says something else
"""

import argparse
import json
import math
import shlex
from itertools import zip_longest
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors import safe_open
from transformers import AutoConfig

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER
from hf_talking_points.cards import CITATION, TASKS
from hf_talking_points.checkpoints import model_version
from hf_talking_points.evaluation.report import (
    describing_table,
    reading_table,
    results_table,
)
from hf_talking_points.models.remote_code import PIPELINE_TAGS, QUICK_STARTS

FOLDER = Path(__file__).resolve().parent
EXAMPLES = FOLDER.parent / "examples"
REPORT = FOLDER / "mini_pair_test.json"  # `report.json` of the pair's evaluation
# holds the code and the checkpoints that the stored report was made with
REPORT_COMMIT = "8eb0000"
TEMPLATE = FOLDER / "embedded.md.jinja"
SCRIPTS = {MINI_DESCRIPTOR: "train_descriptor", MINI_LOCALIZER: "train_localizer"}
# configurations that were run one after the other
RECIPES = {
    MINI_DESCRIPTOR: [
        "pretrain_points",
        "train_descriptor_known",
        "train_descriptor_known_on",
        "run_grpo_known",
    ],
    MINI_LOCALIZER: [
        "train_localizer_minilm",
        "train_localizer_minilm_on",
        "train_localizer_minilm_fit",
    ],
}
DATASETS = {
    MINI_DESCRIPTOR: [
        "animalpose_voc_256",
        "cars_256",
        "coco_mini",
        "cub_birds",
        "door_handles",
        "imagenet_1000_samples",
    ],
    MINI_LOCALIZER: [
        "animalpose_voc_256",
        "cars_256",
        "clothing",
        "coco_mini",
        "cub_birds",
        "door_handles",
        "grocery",
        "imagenet_1000_samples",
    ],
}
# `reading.json` of benchmarks/reading.py
READING = FOLDER / "mini_localizer_reading_test.json"
# `describing.json` of benchmarks/describing.py
DESCRIBING = FOLDER / "mini_descriptor_describing_test.json"
BUILD = EXAMPLES / "build_known.yaml"  # of the descriptor's photos
# rows of the report that count as the localizer's result
LOCALIZER_ROWS = ("ground truth, full", "ground truth, terse", "ground truth, unseen")
METRICS = {"mpck": "mPCK", "pck@0.05": "PCK@0.05"}


def read_report(file, checkpoint):
    """A stored report. Raises ValueError where it is of other weights than the checkpoint's."""
    report = json.loads(file.read_text(encoding="utf-8"))
    name = Path(checkpoint).name
    if report["fingerprints"][name] != model_version(checkpoint):
        raise ValueError(
            f"{file} judges another {name} than {checkpoint}: evaluate the pair again"
        )
    return report


def count_parameters(checkpoint):
    """Number of stored weights."""
    with safe_open(Path(checkpoint) / "model.safetensors", "pt") as weights:
        return sum(
            math.prod(weights.get_slice(name).get_shape()) for name in weights.keys()
        )


def results_of(checkpoint, report, pipeline_tag):
    """What the report says of a checkpoint, as the entries of a card's `model-index`."""
    name = Path(checkpoint).name
    systems = [name] if checkpoint == MINI_DESCRIPTOR else LOCALIZER_ROWS
    results = []
    for row in report["rows"]:
        if row["system"] not in systems:
            continue
        for metric, title in METRICS.items():
            result = EvalResult(
                task_type=pipeline_tag,
                dataset_type=report["dataset"][0],
                dataset_name="Animal-Pose, PASCAL-VOC part",
                dataset_split=report["split"],
                dataset_config=row["system"],
                metric_type=metric,
                metric_name=title,
                metric_value=round(row[metric], 1),
            )
            results.append(result)
    return results


def embedded_card(checkpoint):
    """The card of an embedded checkpoint, all numbers read from where they come from."""
    name = Path(checkpoint).name
    config = AutoConfig.from_pretrained(checkpoint)
    report = read_report(REPORT, checkpoint)
    reading = read_report(READING, MINI_LOCALIZER)
    describing = read_report(DESCRIBING, MINI_DESCRIPTOR)
    build = yaml.safe_load(BUILD.read_text(encoding="utf-8"))
    held_out = build["options"]["held_out"]
    recipes = {}
    for recipe_name in RECIPES[checkpoint]:
        file = EXAMPLES / f"{recipe_name}.yaml"
        recipes[file.name] = file.read_text(encoding="utf-8").strip()
    runs = [yaml.safe_load(recipe) for recipe in recipes.values()]
    repo_id = f"someone/{name}"
    task, _ = TASKS[config.model_type]
    pipeline_tag = PIPELINE_TAGS[config.model_type]
    metadata = ModelCardData(
        language="en",
        license="other",
        license_name="research-use-photos",
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        datasets=DATASETS[checkpoint],
        metrics=list(METRICS),
        tags=["hf_talking_points", task],
        model_name=name,
        eval_results=results_of(checkpoint, report, pipeline_tag),
    )
    return ModelCard.from_template(
        metadata,
        template_path=TEMPLATE,
        name=name,
        repo_id=repo_id,
        descriptor=checkpoint == MINI_DESCRIPTOR,
        quick_start=QUICK_STARTS[config.model_type].format(repo_id=repo_id),
        config=config,
        image_tokens=config.image_seq_length,
        parameters=count_parameters(checkpoint),
        script=f"examples/{SCRIPTS[checkpoint]}",
        recipes=recipes,
        run=runs[0],
        steps=sum(run["max_steps"] for run in runs),
        reading=reading_table(reading["rows"]),
        describing=describing_table(describing),
        held_out=held_out,
        quoted_held_out=shlex.join(held_out),
        results=results_table(report),
        report=report,
        commit=REPORT_COMMIT,
        citation=CITATION,
    )


def check_card(file, card):
    """Raises ValueError, with file and line, where a stored card is not what it should be."""
    stored = file.read_text(encoding="utf-8").splitlines()
    expected = str(card).splitlines()
    for number, (line, expected_line) in enumerate(zip_longest(stored, expected), 1):
        if line != expected_line:
            raise ValueError(
                f"{file.name}, line {number} is {line!r} but should be {expected_line!r}: "
                "run `python model_cards/write_cards.py`"
            )


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description="Writes the cards of the embedded pair."
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail where a card is not what configs and results give",
    )
    check = parser.parse_args(arguments).check
    for checkpoint in SCRIPTS:
        card = embedded_card(checkpoint)
        file = FOLDER / f"{Path(checkpoint).name}.md"
        if check:
            check_card(file, card)
        else:
            card.save(file)


if __name__ == "__main__":
    main()
