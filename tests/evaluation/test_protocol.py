"""The whole protocol: every source meets every localizer, photos are told apart, and a broken run goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import noise_image
from datasets import DatasetDict
from dog_photos import SIZE, dog_row, names_in_split, write_dogs

from hf_talking_points.data.rows import point_rows
from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.triplets import make_views
from hf_talking_points.evaluation import report as report_module
from hf_talking_points.evaluation.answer_cache import AnswerCache
from hf_talking_points.evaluation.protocol import (
    EvaluationOptions,
    evaluate_descriptions,
)
from hf_talking_points.evaluation.report import results_table
from hf_talking_points.evaluation.text_only import TextOnlyPredictor
from hf_talking_points.metrics import METRIC_VERSION

SYSTEMS = {"ground truth, full", "ground truth, terse", "tiny-descriptor", "people"}
CONTROLS = {
    "ground truth, full, gray picture",
    "no text",
    "ground truth, full, of another point",
    "grid phrases",
    "image center",
    "ground truth, full, text-only predictor",
}
MEASURED = ("seconds", "peak_memory_gib")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve photos in every split that is used, one or two dogs on each."""
    folder = tmp_path_factory.mktemp("photos")
    write_dogs(folder, [*names_in_split("test", 12), *names_in_split("train", 12)])
    return folder


def views_of(folder, split="test"):
    return make_views([photo for photo in read_objects(folder) if photo.split == split])


@pytest.fixture(scope="module")
def pair(make_descriptor, make_localizer, tmp_path_factory):
    """Folders of a descriptor and of a localizer."""
    models = {
        "tiny-descriptor": make_descriptor(),
        "tiny-localizer": make_localizer(head="heatmap"),
    }
    folders = []
    for name, parts in models.items():
        folder = tmp_path_factory.mktemp("models") / name
        for part in parts:
            part.save_pretrained(folder)
        folders.append(str(folder))
    return folders


def write_descriptions(file, views):
    """A file with the part's name for each point of views."""
    lines = []
    for view in views:
        for _, point in view.points():
            row = {"image": view.photo.id, "point": [point.x, point.y]}
            lines.append(json.dumps({**row, "description": f"the {point.part}"}))
    file.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def options(photos, pair, tmp_path_factory):
    """Of all that the protocol can do; the people's file leaves the first photo out."""
    descriptor, localizer = pair
    written = tmp_path_factory.mktemp("written") / "people.jsonl"
    write_descriptions(written, views_of(photos)[1:])
    return EvaluationOptions(
        dataset=[str(photos)],
        output=str(tmp_path_factory.mktemp("report")),
        descriptions=[
            "ground-truth",
            f"point-descriptor:{descriptor}",
            f"jsonl:{written}",
        ],
        localizers=[localizer],
        styles=["full", "terse"],
    )


@pytest.fixture(scope="module")
def report(options):
    with pytest.MonkeyPatch.context() as patch:
        # fitting it on a dozen photos takes other settings than on thousands
        patch.setattr(TextOnlyPredictor, "fit", fit_mean)
        patch.setattr(TextOnlyPredictor, "predict", predict_mean)
        return evaluate_descriptions(options)


def fit_mean(predictor, texts, points):
    predictor.mean = points.mean(0)
    return predictor


def predict_mean(predictor, texts):
    return np.tile(predictor.mean, (len(texts), 1))


@pytest.fixture
def truth_of(pair, tmp_path):
    """Evaluates the ground truth alone, and returns the report with its samples."""

    def evaluate(*sources, **changes):
        output = tmp_path / "report"
        changes = {
            "descriptions": ["ground-truth"],
            "styles": ["full"],
            "controls": False,
            **changes,
        }
        options = EvaluationOptions(
            list(sources), str(output), localizers=pair[1:], **changes
        )
        return evaluate_descriptions(options), pd.read_parquet(
            output / "samples.parquet"
        )

    return evaluate


def test_every_source_meets_every_localizer_and_the_controls(report, photos):
    systems = {row["system"]: row for row in report["rows"]}
    assert {name for name, row in systems.items() if not row["control"]} == SYSTEMS
    assert {name for name, row in systems.items() if row["control"]} == CONTROLS
    views = views_of(photos)
    points = sum(len(view.points()) for view in views)
    assert report["photos"] == len(views) == 12
    assert report["points"] == points == systems["people"]["n"]
    assert systems["people"]["misses"] == len(views[0].points())
    assert systems["ground truth, full"]["naming"] == {"category": 100, "part": 100}
    assert systems["people"]["naming"]["category"] == 0
    for name, row in systems.items():
        assert ("versus" in row) == (name != "ground truth, full")
    low, high = systems["image center"]["ci95"]["mpck"]
    assert low <= systems["image center"]["mpck"] <= high


def test_the_report_says_what_each_answer_took(report):
    assert set(report["seconds"]) == {
        "tiny-descriptor: a description",
        "tiny-localizer: a localization",
    }
    assert all(seconds > 0 for seconds in report["seconds"].values())


def test_the_report_is_complete(report, options):
    output = Path(options.output)
    assert json.loads((output / "report.json").read_text()) == report
    page = (output / "report.md").read_text()
    for picture in ("mpck.png", "pck_curves.png", "best.jpg", "worst.jpg"):
        assert (output / picture).stat().st_size > 5000
        assert f"({picture})" in page
    for row in report["rows"]:
        assert row["system"] in page


def test_samples_give_the_numbers_again(report, options):
    samples = pd.read_parquet(Path(options.output) / "samples.parquet")
    assert set(samples.metric_version) == {METRIC_VERSION}
    assert len(samples) == len(report["rows"]) * report["points"]
    for row in report["rows"]:
        chosen = (samples.system == row["system"]) & (
            samples.localizer == row["localizer"]
        )
        distances = samples[chosen].distance
        mpck = 50 * ((distances < 0.1).mean() + (distances < 0.2).mean())
        assert mpck == pytest.approx(row["mpck"])


def test_the_table_of_the_cards(report):
    table = results_table(report)
    truth = report["rows"][0]
    low, high = truth["ci95"]["mpck"]
    assert (
        f"test split (by photo): {report['photos']} photos, {report['points']} points"
        in table
    )
    assert (
        f"| ground truth, full | {truth['mpck']:.1f} [{low:.1f}, {high:.1f}] |" in table
    )
    assert "texts of people name" in table


def test_a_second_run_asks_nothing_and_gives_the_same(report, options):
    file = Path(options.output) / "answers.sqlite"
    with closing(AnswerCache(file)) as cache:
        before = len(cache)
    again = evaluate_descriptions(replace(options, controls=False))
    with closing(AnswerCache(file)) as cache:
        assert len(cache) == before
    systems = [row for row in report["rows"] if not row["control"]]
    assert again["rows"] == systems


def count_answers(folder):
    if not (folder / "answers.sqlite").is_file():
        return 0
    with closing(AnswerCache(folder / "answers.sqlite")) as cache:
        return len(cache)


def test_a_run_that_was_killed_goes_on(options, report, tmp_path):
    arguments = [
        "--dataset",
        options.dataset[0],
        "--descriptions",
        ",".join(options.descriptions),
    ]
    arguments += [
        "--styles",
        "full,terse",
        "--localizers",
        options.localizers[0],
        "--no-controls",
    ]
    program = "from hf_talking_points.cli import app; app()"
    command = [
        sys.executable,
        "-c",
        program,
        "evaluate",
        *arguments,
        "--output",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while (
        count_answers(tmp_path) < 30
        and time.monotonic() < deadline
        and process.poll() is None
    ):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = count_answers(tmp_path)
    assert before >= 30 and not (tmp_path / "report.json").is_file()
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    again = {row["system"]: row["mpck"] for row in rows}
    assert again == {
        row["system"]: row["mpck"] for row in report["rows"] if not row["control"]
    }
    assert "report.md" in ran.stdout and count_answers(tmp_path) > before


# ---- what datasets may be


def comparable(report):
    """A report less what was measured, and less the names of datasets."""
    return {
        name: value
        for name, value in report.items()
        if name not in (*MEASURED, "dataset")
    }


@pytest.fixture
def rows(photos):
    """The photos of the test split as rows."""
    return point_rows([view.photo for view in views_of(photos)])


@pytest.mark.parametrize(
    "form",
    [
        lambda rows: rows,
        lambda rows: DatasetDict(test=rows),
        lambda rows: rows.to_iterable_dataset(),
    ],
    ids=["Dataset", "DatasetDict", "IterableDataset"],
)
def test_rows_are_judged_as_their_folder(truth_of, photos, rows, form):
    expected, _ = truth_of(str(photos))
    found, _ = truth_of(form(rows))
    assert comparable(found) == comparable(expected)


def test_a_dataset_alone_is_the_dataset(photos, rows, tmp_path):
    assert EvaluationOptions(str(photos), str(tmp_path)).dataset == [str(photos)]
    assert EvaluationOptions(rows, str(tmp_path)).dataset == [rows]


def test_texts_of_rows_are_the_ground_truth(truth_of, rows):
    described = rows.remove_columns(["description", "style"])
    words = [f"point {number}" for number in range(len(rows))]
    described = described.add_column("description", words).add_column(
        "style", ["mine"] * len(rows)
    )
    _, samples = truth_of(described, styles=["mine"])
    assert samples.description.tolist() == words


# ---- photos of two sources


@pytest.fixture
def twins(tmp_path):
    """Two folders whose photos have the same names, and their points other places."""
    names = names_in_split("test", 3)
    folders = []
    for seed, (color, shift) in enumerate({"red": 0, "blue": 40}.items()):
        folder = tmp_path / color
        folder.mkdir()
        lines = []
        for number, name in enumerate(names):
            noise_image(100 * seed + number, *SIZE).save(folder / name)
            lines.append(json.dumps(dog_row(name, number, shift)))
        (folder / "objects.jsonl").write_text("\n".join(lines))
        folders.append(folder)
    return folders


def test_photos_of_equal_names_are_different_photos(truth_of, twins, monkeypatch):
    drawn = []

    def draw(items):
        drawn.extend(items)
        return noise_image()

    monkeypatch.setattr(report_module, "draw_extremes", draw)
    report, samples = truth_of(*map(str, twins))
    assert report["photos"] == samples.image_id.nunique() == 6
    assert (samples.groupby("image_id").size() == 3).all()
    low, high = report["rows"][0]["ci95"]["mpck"]
    assert low <= report["rows"][0]["mpck"] <= high
    pixels_of_point = {}
    for view in [*views_of(twins[0]), *views_of(twins[1])]:
        for _, point in view.points():
            pixels_of_point.setdefault((point.x, point.y), []).append(
                view.image().tobytes()
            )
    assert drawn
    for item in drawn:
        assert item["image"].tobytes() in pixels_of_point[item["point"]]


def test_one_source_twice_counts_its_photos_once(truth_of, twins):
    _, samples = truth_of(str(twins[0]), str(twins[0]))
    assert samples.image_id.nunique() == 3


def test_descriptions_of_equal_names_are_an_error_that_names_one(
    truth_of, twins, tmp_path
):
    file = tmp_path / "people.jsonl"
    views = views_of(twins[0])
    write_descriptions(file, views)
    with pytest.raises(
        ValueError, match=rf"'{views[0].photo.id}' may be any of several photos"
    ):
        truth_of(*map(str, twins), descriptions=["ground-truth", f"jsonl:{file}"])
    report, _ = truth_of(str(twins[0]), descriptions=["ground-truth", f"jsonl:{file}"])
    assert [row["misses"] for row in report["rows"]] == [0, 0]


# ---- what cannot be judged


@pytest.mark.parametrize("size", [(48, 32), (192, 128), (64, 96)])
def test_a_stated_size_that_is_not_the_photos_is_never_judged(
    truth_of, tmp_path, size, caplog
):
    [name] = names_in_split("test", 1)
    write_dogs(tmp_path, [name])
    noise_image(0, *size).save(tmp_path / name)
    with pytest.raises(
        ValueError, match="no annotated point in the split 'test'.*size"
    ):
        truth_of(str(tmp_path))
    assert name in caplog.text


def test_a_photo_that_cannot_be_read_is_left_out(truth_of, tmp_path, caplog):
    names = names_in_split("test", 3)
    write_dogs(tmp_path, names)
    (tmp_path / names[1]).write_bytes(b"no image")
    report, samples = truth_of(str(tmp_path))
    assert report["photos"] == 2 and set(samples.image_id) == {names[0], names[2]}
    assert names[1] in caplog.text


def test_a_split_without_photos_is_an_error_that_says_what_there_is(truth_of, photos):
    message = "no annotated point in the split 'validation'; found 12 photos in t.*, 12 photos in t"
    with pytest.raises(ValueError, match=message):
        truth_of(str(photos), split="validation")


def test_controls_without_train_photos_leave_one_out(truth_of, tmp_path, caplog):
    write_dogs(tmp_path, names_in_split("test", 3))
    report, _ = truth_of(str(tmp_path), controls=True)
    controls = {row["system"] for row in report["rows"] if row["control"]}
    assert controls == CONTROLS - {"ground truth, full, text-only predictor"}
    assert "no text-only predictor" in caplog.text


def test_the_text_only_control_of_few_photos(truth_of, photos):
    report, _ = truth_of(str(photos), controls=True, max_photos=2)
    assert {row["system"] for row in report["rows"] if row["control"]} == CONTROLS


def test_missing_matplotlib_is_said_before_the_work(options, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"pip install 'hf-talking-points\[evaluation\]'"
    ):
        evaluate_descriptions(options)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"localizers": []}, "localizers must hold"),
        ({"dataset": []}, "dataset must hold"),
        ({"split": "dev"}, "split must be one of"),
        ({"max_photos": 0}, "max_photos must be positive"),
    ],
)
def test_bad_options_are_errors(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        EvaluationOptions(**{"dataset": ["photos"], "output": str(tmp_path), **change})


def test_models_of_one_name_are_an_error(photos, pair, tmp_path):
    options = EvaluationOptions(
        [str(photos)], str(tmp_path), ["ground-truth"], [pair[1]] * 2
    )
    with pytest.raises(ValueError, match="several models are called 'tiny-localizer'"):
        evaluate_descriptions(options)
