"""Cards of the embedded pair: what they say is what configs and stored results give."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from hf_talking_points.cli import app

ROOT = Path(__file__).parent.parent
NAMES = ("talking-points-descriptor", "talking-points-localizer")


@pytest.fixture
def clone(tmp_path):
    """Cards, stored results and training configs, to be changed."""
    shutil.copytree(ROOT / "model_cards", tmp_path / "model_cards")
    (tmp_path / "examples").mkdir()
    for name in ("train_descriptor.yaml", "train_localizer.yaml"):
        shutil.copyfile(ROOT / "examples" / name, tmp_path / "examples" / name)
    return tmp_path


def run(clone, *options):
    return CliRunner().invoke(app, ["card", "--folder", str(clone / "model_cards"), *options])


def change(file, old, new):
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))


def test_stored_cards_are_up_to_date():
    result = CliRunner().invoke(app, ["card", "--folder", str(ROOT / "model_cards"), "--check"])
    assert result.exit_code == 0, result.exception


@pytest.mark.parametrize(
    "file, old, new, line",
    [
        (
            "model_cards/mini_pair_test.json",
            '"mpck": 89.05797101449275',
            '"mpck": 88.8',
            "| ground truth, full | 89.1",
        ),
        ("model_cards/talking-points-descriptor.md", "value: 93.0", "value: 94.0", "value: 94.0"),
        ("model_cards/talking-points-localizer.md", "| 65.3 [62.6", "| 66.3 [62.6", "| 66.3 [62.6"),
        ("examples/train_localizer.yaml", "max_steps: 2600", "max_steps: 2700", "2600 steps"),
    ],
)
def test_a_card_that_says_something_else_fails_the_check(clone, file, old, new, line):
    change(clone / file, old, new)
    result = run(clone, "--check")
    assert (
        isinstance(result.exception, ValueError)
        and line in str(result.exception)
        and "run `talking-points card`" in str(result.exception)
    )
    assert run(clone).exit_code == 0 and run(clone, "--check").exit_code == 0


def test_results_of_other_weights_are_refused(clone):
    report = clone / "model_cards" / "mini_pair_test.json"
    change(
        report, json.loads(report.read_text())["fingerprints"]["talking-points-localizer"], "0" * 64
    )
    for options in ([], ["--check"]):
        result = run(clone, *options)
        assert isinstance(
            result.exception, ValueError
        ) and "judges another talking-points-localizer" in str(result.exception)


@pytest.mark.parametrize("name", NAMES)
def test_metadata_of_a_card(name):
    card = ModelCard.load(ROOT / "model_cards" / f"{name}.md")
    rows = {
        row["system"]: row
        for row in json.loads((ROOT / "model_cards" / "mini_pair_test.json").read_text())["rows"]
    }
    assert (
        card.data.library_name == "transformers"
        and card.data.license == "other"
        and card.data.language == "en"
    )
    assert card.data.pipeline_tag == (
        "image-text-to-text" if "descriptor" in name else "keypoint-detection"
    )
    assert (
        card.data.datasets
        and card.data.metrics
        and len(card.data.eval_results) == (2 if "descriptor" in name else 6)
    )
    for result in card.data.eval_results:
        row = rows[result.dataset_config]
        assert (
            result.metric_value == round(row[result.metric_type], 1)
            and result.dataset_split == "test"
        )
        assert f"| {row['system']} | {row['mpck']:.1f} " in card.text


def test_the_package_carries_the_cards():
    for name in NAMES:
        assert (ROOT / "hf_talking_points" / "model_cards" / f"{name}.md").read_text() == (
            ROOT / "model_cards" / f"{name}.md"
        ).read_text()
