"""The cross-family experiment: what each stage sees, time limits, and the comparison."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hf_talking_points.data.sources import read_photos

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("cross_family", EXAMPLES / "cross_family.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(experiment, tmp_path):
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    lines = []
    for number in range(60):
        shown = (
            ("dog",),
            ("cow",),
            ("sheep",),
            ("cat",),
            ("horse",),
            ("dog", "cow"),
            ("dog", "cat"),
        )[number % 7]
        for category in shown:
            record = {
                "image": f"images/{number}.jpg",
                "size": [40, 30],
                "category": category,
                "object_box": [0, 0, 30, 20],
            }
            lines.append(json.dumps({**record, "points": [["nose", 10, 10]]}))
    (source / "objects.jsonl").write_text("\n".join(lines) + "\n")
    experiment.write_data(source, tmp_path)
    return {
        name: read_photos(tmp_path / "data" / name)
        for name in ("rest", "half", "judge", "Canidae", "Bovidae")
    }


def categories(photos):
    return {annotated.category for photo in photos for annotated in photo.objects}


def test_stages_see_the_families_they_should(folders):
    assert categories(folders["rest"]) == categories(folders["half"]) == {"cat", "horse"}
    assert categories(folders["Canidae"]) == {"dog"} and categories(folders["Bovidae"]) == {
        "cow",
        "sheep",
    }
    ids = {name: {photo.id for photo in photos} for name, photos in folders.items()}
    assert ids["half"] < ids["rest"] and ids["half"] and not ids["half"] & ids["judge"]
    assert not ids["Canidae"] & (ids["Bovidae"] | ids["rest"])


def test_a_stage_stops_at_its_limit_and_goes_on(experiment, tmp_path, monkeypatch):
    script = "import pathlib, sys, time\nfolder = pathlib.Path(sys.argv[2]).parent\n"
    script += "(folder / 'seen').exists() and (folder / 'processor_config.json').write_text('{}') or ((folder / 'seen').touch(), time.sleep(60))"
    (tmp_path / "slow.py").write_text(script)
    (tmp_path / "slow.yaml").write_text("max_steps: 5\nbackbone: somewhere\n")
    monkeypatch.setattr(experiment, "EXAMPLES", tmp_path)
    monkeypatch.setitem(experiment.SCRIPTS, "reward", "slow")
    args, common = (
        SimpleNamespace(output_dir=str(tmp_path / "out")),
        {"reward": {"minutes": 0.05, "backbone": None, "seed": 3}},
    )
    with pytest.raises(RuntimeError, match="stage reward reached its limit"):
        experiment.run_stage("reward", "reward", args, common)
    assert experiment.run_stage("reward", "reward", args, common) == str(
        tmp_path / "out" / "reward"
    )
    assert (tmp_path / "out" / "reward" / "config.yaml").read_text().splitlines() == [
        "max_steps: 5",
        f"output_dir: {tmp_path / 'out' / 'reward'}",
        "seed: 3",
    ]


def test_comparison_pairs_points_and_averages_seeds(experiment):
    points = {
        "image_id": np.repeat([f"{n}.jpg" for n in range(20)], 3),
        "part": "left_eye",
        "localizer": "judge",
    }
    texts = [
        "The left eye, at the top and left of the cat.",
        "The nose, at the bottom and left of the cat.",
        "An eye.",
    ] * 20
    runs = [("start", 0.3), ("a", 0.15), ("b", 0.01)]
    samples = pd.concat(
        [
            pd.DataFrame({**points, "system": name, "description": texts, "distance": d})
            for name, d in runs
        ]
    )
    row = experiment.compare(samples, "judge", ["a", "b"])
    assert (
        row["mpck"] == [0, 75]
        and row["mpck_of_seeds"] == [50, 100]
        and row["gain"]["difference"] == 75
    )
    assert row["pck@0.05"] == [0, 50] and row["part_named"] == pytest.approx([100 / 3] * 2)
    assert row["position_words"] == pytest.approx([4 / 3] * 2)  # not that of "left eye"
