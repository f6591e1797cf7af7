"""The cross-family experiment: what each stage sees, time limits, and the comparison."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from example_scripts import EXAMPLES, load_example, option_names
from PIL import Image

from hf_talking_points.data.sources import read_objects

CATEGORIES_SHOWN = [
    ["dog"],
    ["cow"],
    ["sheep"],
    ["cat"],
    ["horse"],
    ["dog", "cow"],
    ["dog", "cat"],
]


@pytest.fixture(scope="module")
def experiment():
    return load_example("cross_family")


def write_objects(folder, count):
    """Photos that show, in turn, what is listed in `CATEGORIES_SHOWN`."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(count):
        Image.new("RGB", (40, 30)).save(folder / "images" / f"{number}.jpg")
        for category in CATEGORIES_SHOWN[number % len(CATEGORIES_SHOWN)]:
            record = {
                "image": f"images/{number}.jpg",
                "size": [40, 30],
                "category": category,
                "object_box": [0, 0, 30, 20],
                "points": [["nose", 10, 10]],
            }
            lines.append(json.dumps(record))
    (folder / "objects.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folders(experiment, tmp_path):
    """Name of a stage's photos -> the photos."""
    write_objects(tmp_path / "source", 60)
    experiment.write_data(tmp_path / "source", tmp_path)
    names = ("rest", "half", "judge", "Canidae", "Bovidae")
    return {name: read_objects(tmp_path / "data" / name) for name in names}


def categories(photos):
    return {annotated.category for photo in photos for annotated in photo.objects}


def test_stages_see_the_families_they_should(folders):
    assert categories(folders["rest"]) == {"cat", "horse"}
    assert categories(folders["half"]) == {"cat", "horse"}
    assert categories(folders["Canidae"]) == {"dog"}
    assert categories(folders["Bovidae"]) == {"cow", "sheep"}
    assert categories(folders["judge"]) == {"dog", "cow", "sheep", "cat", "horse"}


def test_photos_of_stages_overlap_where_they_should(folders):
    ids = {name: {photo.id for photo in photos} for name, photos in folders.items()}
    assert ids["half"] < ids["rest"] and ids["half"]
    assert not ids["half"] & ids["judge"]
    assert not ids["Canidae"] & ids["Bovidae"]
    assert not ids["Canidae"] & ids["rest"]


def test_data_can_be_written_again(experiment, folders, tmp_path):
    before = [photo.file() for photo in folders["rest"]]
    experiment.write_data(tmp_path / "source", tmp_path)
    again = read_objects(tmp_path / "data" / "rest")
    assert [photo.file() for photo in again] == before
    assert all(photo.open().size == (40, 30) for photo in again)


SLOW_AT_FIRST = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[2]).parent
if (folder / "seen").exists():
    (folder / "processor_config.json").write_text("{}")
else:
    (folder / "seen").touch()
    time.sleep(60)
"""


def test_a_stage_stops_at_its_limit_and_goes_on(experiment, tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text(SLOW_AT_FIRST)
    (tmp_path / "slow.yaml").write_text("max_steps: 5\nbackbone: somewhere\n")
    monkeypatch.setattr(experiment, "EXAMPLES", tmp_path)
    monkeypatch.setitem(experiment.SCRIPTS, "reward", "slow")
    output = str(tmp_path / "out")
    stages = {"reward": {"minutes": 0.3, "backbone": None, "seed": 3}}
    with pytest.raises(RuntimeError, match="stage reward reached its limit"):
        experiment.run_stage("reward", "reward", output, stages)
    folder = experiment.run_stage(
        "reward", "reward", output, stages, data_dir=["somewhere"]
    )
    assert folder == str(tmp_path / "out" / "reward")
    options = yaml.safe_load((tmp_path / "out" / "reward" / "config.yaml").read_text())
    expected = {
        "max_steps": 5,
        "output_dir": folder,
        "seed": 3,
        "data_dir": ["somewhere"],
    }
    assert options == expected
    # what is finished is not trained again, and what fails names its log
    assert experiment.run_stage("reward", "reward", output, {}) == folder
    (tmp_path / "slow.py").write_text("raise SystemExit('no data')")
    with pytest.raises(RuntimeError, match="stage other failed: .*log.txt says why"):
        experiment.run_stage("reward", "other", output, stages)
    assert (tmp_path / "out" / "other" / "log.txt").read_text() == "no data\n"


@pytest.mark.parametrize(
    "kind", ["reward", "reward_mlp", "judge", "judge_mlp", "start", "grpo"]
)
def test_stages_change_only_options_that_their_scripts_have(
    experiment, tmp_path, monkeypatch, kind
):
    stages = yaml.safe_load((EXAMPLES / "cross_family.yaml").read_text())
    options = experiment.stage_options(
        kind, tmp_path, stages, {"data_dir": ["somewhere"]}
    )
    assert options.pop("minutes") > 0
    script = load_example(experiment.SCRIPTS[kind])
    assert options.keys() <= option_names(script, monkeypatch)


TEXTS = [
    "The left eye, at the top and left of the cat.",
    "The nose, at the bottom and left of the cat.",
    "An eye.",
]


def samples_of(system, distance):
    """Twenty photos with three points each, all described and found equally well."""
    columns = {
        "image_id": np.repeat([f"{number}.jpg" for number in range(20)], 3),
        "part": "left eye",
        "localizer": "judge",
        "system": system,
        "description": TEXTS * 20,
        "distance": distance,
    }
    return pd.DataFrame(columns)


@pytest.fixture
def row(experiment):
    runs = [samples_of("start", 0.3), samples_of("a", 0.15), samples_of("b", 0.01)]
    return experiment.compare(pd.concat(runs), "judge", ["a", "b"])


def test_comparison_pairs_points_and_averages_seeds(row):
    assert (row["n"], row["photos"]) == (60, 20)
    assert row["mpck"] == [0, 75]
    assert row["mpck_of_seeds"] == [50, 100]
    assert row["gain"]["difference"] == 75
    assert row["pck@0.05"] == [0, 50]
    assert row["part_named"] == pytest.approx([100 / 3] * 2)
    # not that of "left eye"
    assert row["position_words"] == pytest.approx([4 / 3] * 2)


def test_tables_show_before_and_after(experiment, row):
    case = {"trained_on": "Canidae", "tested_on": "Bovidae", "localizer": "judge"}
    lines = experiment.markdown([{**case, **row}]).splitlines()
    gains, texts = lines[2], lines[-1]
    assert gains.startswith("| Canidae | Bovidae | judge | 60 | 0.0 | 75.0 | +75.0 [")
    assert gains.endswith("| +50.0, +100.0 | 0.0 → 50.0 |")
    assert texts.endswith("| 1.33 → 1.33 | 33.3 → 33.3 |")


def test_learning_curves_are_read_from_the_last_checkpoint(experiment, tmp_path):
    for step in (5, 10):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        log = [{"step": 5, "localizer/distance": 0.2}, {"step": 7, "eval_loss": 1.0}]
        log.append({"step": step, "localizer/distance": 0.1})
        (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    assert experiment.learning_curve(str(tmp_path)) == ([5, 10], [0.2, 0.1])
