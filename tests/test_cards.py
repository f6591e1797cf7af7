"""Cards: those of the embedded pair say what configs and stored results give, a run's card says what it was."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

ROOT = Path(__file__).parent.parent
NAMES = ("talking-points-descriptor", "talking-points-localizer")


@pytest.fixture
def clone(tmp_path):
    """Cards as they should be, their script, stored results and training configs, to be changed."""
    shutil.copytree(ROOT / "model_cards", tmp_path / "model_cards")
    (tmp_path / "examples").mkdir()
    for file in (ROOT / "examples").glob("*.yaml"):
        shutil.copyfile(file, tmp_path / "examples" / file.name)
    write_cards(tmp_path)
    return tmp_path


def write_cards(clone, *options):
    """Runs the script of a clone."""
    script = clone / "model_cards" / "write_cards.py"
    spec = importlib.util.spec_from_file_location("write_cards", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(options)


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def stored_report(clone):
    return json.loads((clone / "model_cards" / "mini_pair_test.json").read_text())


def reference_row(clone):
    """The row of the report that the localizer's card gives first."""
    for row in stored_report(clone)["rows"]:
        if row["system"] == "ground truth, full":
            return row


def test_stored_cards_are_up_to_date():
    write_cards(ROOT, "--check")


def check_then_write(clone, line):
    """The check names `line`, and writing the cards settles it."""
    with pytest.raises(
        ValueError, match="run `python model_cards/write_cards.py`"
    ) as raised:
        write_cards(clone, "--check")
    assert line in str(raised.value)
    write_cards(clone)
    write_cards(clone, "--check")


def test_a_changed_result_fails_the_check(clone):
    report = clone / "model_cards" / "mini_pair_test.json"
    mpck = reference_row(clone)["mpck"]
    change(report, f'"mpck": {mpck}', '"mpck": 12.3')
    check_then_write(clone, f"| ground truth, full | {mpck:.1f}")
    for name in NAMES:
        card = (clone / "model_cards" / f"{name}.md").read_text()
        assert "| ground truth, full | 12.3 " in card


def test_a_changed_recipe_fails_the_check(clone):
    change(
        clone / "examples" / "train_localizer_minilm_on.yaml",
        "max_steps: 4200",
        "max_steps: 4300",
    )
    check_then_write(clone, "10200 steps")
    assert (
        "10300 steps"
        in (clone / "model_cards" / "talking-points-localizer.md").read_text()
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("line", ["license: other", "## Limits", "| no text |"])
def test_a_card_changed_by_hand_fails_the_check(clone, name, line):
    change(clone / "model_cards" / f"{name}.md", line, f"{line} indeed")
    check_then_write(clone, f"{line} indeed")


@pytest.mark.parametrize("name", NAMES)
def test_results_of_other_weights_are_refused(clone, name):
    report = clone / "model_cards" / "mini_pair_test.json"
    change(report, stored_report(clone)["fingerprints"][name], "0" * 64)
    for options in ([], ["--check"]):
        with pytest.raises(ValueError, match=f"judges another {name}"):
            write_cards(clone, *options)


def test_readings_of_other_weights_are_refused(clone):
    reading = clone / "model_cards" / "mini_localizer_reading_test.json"
    version = json.loads(reading.read_text())["fingerprints"][NAMES[1]]
    change(reading, version, "0" * 64)
    with pytest.raises(
        ValueError, match=f"reading_test.json judges another {NAMES[1]}"
    ):
        write_cards(clone)


@pytest.mark.parametrize(
    "name, pipeline_tag, systems",
    [
        ("talking-points-descriptor", "image-text-to-text", 1),
        ("talking-points-localizer", "keypoint-detection", 3),
    ],
)
def test_metadata_of_a_card(name, pipeline_tag, systems):
    card = ModelCard.load(ROOT / "model_cards" / f"{name}.md")
    assert card.data.library_name == "transformers"
    assert card.data.license == "other"
    assert card.data.language == "en"
    assert card.data.pipeline_tag == pipeline_tag
    assert card.data.datasets
    assert card.data.metrics == ["mpck", "pck@0.05"]
    assert len(card.data.eval_results) == 2 * systems


@pytest.mark.parametrize("name", NAMES)
def test_results_of_a_card_are_the_stored_ones(name):
    card = ModelCard.load(ROOT / "model_cards" / f"{name}.md")
    rows = {row["system"]: row for row in stored_report(ROOT)["rows"]}
    for result in card.data.eval_results:
        row = rows[result.dataset_config]
        assert result.metric_value == round(row[result.metric_type], 1)
        assert result.dataset_split == "test"
        assert f"| {row['system']} | {row['mpck']:.1f} " in card.text
