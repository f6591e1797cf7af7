"""Descriptions through localizers: every answer is asked for once, controls give what they should, and a broken run goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import noise_image
from transformers import pipeline

from hf_talking_points.data.sources import read_objects, split_of
from hf_talking_points.data.triplets import make_views
from hf_talking_points.evaluation import protocol
from hf_talking_points.metrics import METRIC_VERSION
from hf_talking_points.evaluation.protocol import (
    AnswerCache,
    EvaluationOptions,
    agreement,
    evaluate_descriptions,
    load_describer,
    load_localizer,
    localize_views,
    locate_texts,
    other_texts,
    points_table,
    scores,
    view_distances,
)
from hf_talking_points.evaluation.report import results_table

POINTS = (("left_eye", 20, 12), ("right_eye", 30, 12), ("nose", 25, 20))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve photos in every split that is used, one or two dogs on each."""
    folder = tmp_path_factory.mktemp("photos")
    names = [f"{i}.png" for i in range(300)]
    names = [
        name
        for split in ("test", "train")
        for name in [n for n in names if split_of(n) == split][:12]
    ]
    rows = []
    for number, name in enumerate(names):
        noise_image(number, 96, 64).save(folder / name)
        for shift in (0, 40)[: 1 + number % 2]:
            points = [[part, x + shift, y + number % 5] for part, x, y in POINTS]
            box = [10 + shift, 2, 45 + shift, 40]
            rows.append(
                {
                    "image": name,
                    "size": [96, 64],
                    "category": "dog",
                    "object_box": box,
                    "points": points,
                }
            )
    (folder / "objects.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def views(photos):
    return make_views([photo for photo in read_objects(photos) if photo.split == "test"])


@pytest.fixture(scope="module")
def pair(make_descriptor, make_localizer, tmp_path_factory):
    folders = []
    for name, (model, processor) in (
        ("tiny-descriptor", make_descriptor()),
        ("tiny-localizer", make_localizer(head="heatmap")),
    ):
        folders.append(tmp_path_factory.mktemp("models") / name)
        model.save_pretrained(folders[-1])
        processor.save_pretrained(folders[-1])
    return folders


class Oracle:
    """Finds the points that it was told of."""

    name = fingerprint = "oracle"

    def __init__(self, views, texts):
        self.known = {
            text: (p.x, p.y)
            for view, row in zip(views, texts)
            for text, (_, p) in zip(row, view.points())
        }
        self.calls = 0

    def __call__(self, image, texts):
        self.calls += len(texts)
        return [self.known[text] for text in texts]


def codes(views):
    numbers = iter(range(10**6))
    return [[f"point {next(numbers)}" for _ in view.points()] for view in views]


def test_an_oracle_gets_everything_right_and_is_asked_once(views, tmp_path):
    texts = codes(views)
    oracle, points = Oracle(views, texts), points_table(views)
    for _ in range(2):
        with closing(AnswerCache(tmp_path / "answers.sqlite")) as cache:
            found, seconds = locate_texts(oracle, views, texts, cache)
        numbers, distances = scores(found, points)
        assert (
            numbers["mpck"] == numbers["pck@0.02"] == numbers["box_pck@0.1"] == 100
            and numbers["misses"] == 0
        )
        assert (distances == 0).all() and oracle.calls == len(points) == len(seconds) == len(
            distances
        )


def test_answers_belong_to_model_image_and_question(views, tmp_path):
    def model(fingerprint, answer):
        def call(image, asked):
            return [(answer, image.getpixel((0, 0))[0]) for _ in asked]

        call.fingerprint = fingerprint
        return call

    dark, light = noise_image(1), noise_image(2)
    with closing(AnswerCache(tmp_path / "answers.sqlite")) as cache:
        first = cache.answers(model("a", 1.0), dark, ["x", "y", "x"])[0]
        assert first[0] == first[1] == first[2] and first[0][0] == 1
        assert cache.answers(model("a", 2.0), dark, ["y"])[0] == first[:1]  # not asked again
        assert cache.answers(model("b", 2.0), dark, ["y"])[0][0][0] == 2
        assert cache.answers(model("a", 3.0), light, ["y"])[0][0][0] == 3
        assert cache.answers(model("a", 3.0), dark, ["z"])[0][0][0] == 3
        short = model("c", 1.0)
        with pytest.raises(ValueError, match="c gave 1 answers to 2 questions"):
            few = type(
                "Few",
                (),
                {
                    "name": "c",
                    "fingerprint": "c",
                    "__call__": lambda self, image, asked: short(image, asked)[:1],
                },
            )()
            cache.answers(few, dark, ["x", "y"])


@pytest.mark.parametrize("refused", ["", "<SEG>"])
def test_views_are_localized_around_refused_texts(views, pair, refused):
    locate, texts = pipeline("point-localization", model=str(pair[1])), codes(views)
    whole = localize_views(locate, views, texts)
    texts[0][1] = refused
    texts[1] = [refused] * len(texts[1])
    found = localize_views(locate, views, texts)
    missed = np.arange(len(found)) == 1
    missed[len(texts[0]) : len(texts[0]) + len(texts[1])] = True
    assert np.isnan(found[missed]).all()
    np.testing.assert_allclose(found[~missed], whole[~missed], atol=1e-3)
    assert (view_distances(views, found)[missed] >= 0.5**0.5).all()
    assert np.isnan(localize_views(locate, views[:1], [[refused] * len(texts[0])])).all()


def test_what_was_not_found_counts_as_the_farthest_corner(views):
    points = points_table(views)
    found = np.full((len(points), 2), np.nan)
    numbers, distances = scores(found, points)
    assert (
        numbers["misses"] == len(points) and numbers["mpck"] == 0 and (distances >= 0.5**0.5).all()
    )
    assert 1 < distances.max() <= 2**0.5


def test_texts_that_are_empty_are_misses_and_never_asked(views, tmp_path):
    texts = codes(views)
    oracle = Oracle(views, texts)
    texts[0][0], texts[1] = "", [""] * len(texts[1])
    with closing(AnswerCache(tmp_path / "answers.sqlite")) as cache:
        found, _ = locate_texts(oracle, views, texts, cache)
    assert (
        np.isnan(found).any(1).sum() == 1 + len(texts[1]) == len(points_table(views)) - oracle.calls
    )


def test_texts_that_a_localizer_cannot_read_are_misses(pair):
    locate = load_localizer(str(pair[1]))
    found = locate(noise_image(), ["the nose", "the nose " * 400, "a <SEG> b", "the ear"])
    assert np.isnan(found).all(1).tolist() == [False, True, True, False]
    np.testing.assert_allclose(
        found[[0, 3]], locate(noise_image(), ["the nose", "the ear"]), atol=1e-3
    )


def test_points_that_share_object_and_part_are_ambiguous(views):
    points = points_table(views)
    twice = points.groupby("image_id").part.transform("size") > 3
    assert (points.unambiguous == ~twice).all() and twice.any() and not twice.all()
    strata = scores(points[["x", "y"]].to_numpy(), points)[0]["strata"]
    assert strata["unambiguous by object and part"]["n"] == int((~twice).sum())


def test_another_points_text_is_a_permutation():
    texts = [["a", "b", "c"], ["d"], ["e", "f"]]
    other = other_texts(texts)
    assert [len(row) for row in other] == [3, 1, 2] and other != texts
    assert sorted(text for row in other for text in row) == list("abcdef") and other == other_texts(
        texts
    )


def test_agreement_of_rankings():
    def rows(a, b):
        pairs = [("one", a), ("two", b)]
        return [
            {"system": str(i), "localizer": name, "mpck": v, "control": False}
            for name, values in pairs
            for i, v in enumerate(values)
        ]

    assert agreement(rows([1, 2, 3], [10, 20, 30])) == pytest.approx(1)
    assert agreement(rows([1, 2, 3], [30, 20, 10])) == pytest.approx(-1)
    assert agreement(rows([1, 2], [10, 20])) is None
    assert agreement(rows([1, 2, 3], [])) is None


@pytest.fixture(scope="module")
def options(photos, pair, tmp_path_factory):
    descriptor, localizer = pair
    written = tmp_path_factory.mktemp("written") / "people.jsonl"
    views = make_views([photo for photo in read_objects(photos) if photo.split == "test"])
    rows = [
        {"image": v.photo.id, "point": [p.x, p.y], "description": f"the {p.part}"}
        for v in views[1:]
        for _, p in v.points()
    ]
    written.write_text("\n".join(map(json.dumps, rows)))
    return EvaluationOptions(
        dataset=[str(photos)],
        output=str(tmp_path_factory.mktemp("report")),
        descriptions=["ground-truth", f"point-descriptor:{descriptor}", f"jsonl:{written}"],
        localizers=[str(localizer)],
        styles=["full", "terse"],
    )


@pytest.fixture(scope="module")
def report(options, request):
    with pytest.MonkeyPatch.context() as patch:
        # fitting it on a dozen photos takes other settings than on thousands
        patch.setattr(
            protocol.TextOnlyPredictor,
            "fit",
            lambda self, texts, points: setattr(self, "mean", points.mean(0)) or self,
        )
        patch.setattr(
            protocol.TextOnlyPredictor,
            "predict",
            lambda self, texts: np.tile(self.mean, (len(texts), 1)),
        )
        return evaluate_descriptions(options)


def test_every_source_meets_every_localizer_and_the_controls(report, options, views):
    systems = {row["system"]: row for row in report["rows"]}
    named = {"ground truth, full", "ground truth, terse", "tiny-descriptor", "people"}
    controls = {
        "ground truth, full, grey picture",
        "no text",
        "ground truth, full, of another point",
        "grid phrases",
        "image centre",
        "ground truth, full, text-only predictor",
    }
    assert {name for name, row in systems.items() if not row["control"]} == named
    assert {name for name, row in systems.items() if row["control"]} == controls
    assert report["points"] == len(points_table(views)) == systems["people"]["n"]
    assert systems["people"]["misses"] == len(views[0].points())
    assert (
        systems["ground truth, full"]["naming"] == {"category": 100, "part": 100}
        and systems["people"]["naming"]["category"] == 0
    )
    assert all("versus" in row for row in report["rows"] if row["system"] != "ground truth, full")
    low, high = systems["image centre"]["ci95"]["mpck"]
    assert low <= systems["image centre"]["mpck"] <= high


def test_the_report_is_complete_and_its_samples_give_its_numbers_again(report, options):
    output = Path(options.output)
    assert json.loads((output / "report.json").read_text()) == report
    page = (output / "report.md").read_text()
    for picture in ("mpck.png", "pck_curves.png", "best.jpg", "worst.jpg"):
        assert (output / picture).stat().st_size > 5000 and f"({picture})" in page
    samples = pd.read_parquet(output / "samples.parquet")
    assert (
        set(samples.metric_version) == {METRIC_VERSION}
        and len(samples) == len(report["rows"]) * report["points"]
    )
    for row in report["rows"]:
        distances = samples[
            (samples.system == row["system"]) & (samples.localizer == row["localizer"])
        ].distance
        assert 50 * ((distances < 0.1).mean() + (distances < 0.2).mean()) == pytest.approx(
            row["mpck"]
        )
        assert row["system"] in page
    table, truth = results_table(report), report["rows"][0]
    low, high = truth["ci95"]["mpck"]
    assert f"test split (by photo): {report['photos']} photos, {report['points']} points" in table
    assert (
        f"| ground truth, full | {truth['mpck']:.1f} [{low:.1f}, {high:.1f}] |" in table
        and "texts of people name" in table
    )


def test_a_run_that_was_killed_goes_on(options, report, tmp_path):
    arguments = [
        "--dataset",
        options.dataset[0],
        "--descriptions",
        ",".join(options.descriptions),
        "--styles",
        "full,terse",
    ]
    arguments += ["--localizers", options.localizers[0], "--no-controls", "--output", str(tmp_path)]
    command = [
        sys.executable,
        "-c",
        "from hf_talking_points.cli import app; app()",
        "evaluate",
        *arguments,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while count_answers(tmp_path) < 30 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = count_answers(tmp_path)
    assert before >= 30 and not (tmp_path / "report.json").is_file()
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    again = {
        row["system"]: row["mpck"]
        for row in json.loads((tmp_path / "report.json").read_text())["rows"]
    }
    assert again == {row["system"]: row["mpck"] for row in report["rows"] if not row["control"]}
    assert "report.md" in ran.stdout and count_answers(tmp_path) > before


def count_answers(folder):
    if not (folder / "answers.sqlite").is_file():
        return 0
    with closing(AnswerCache(folder / "answers.sqlite")) as cache:
        return cache.connection.execute("SELECT count(*) FROM answers").fetchone()[0]


@pytest.mark.parametrize("spec", ["point-descriptor:", "oracle", "gpt:4"])
def test_unknown_sources_are_errors(spec):
    with pytest.raises(ValueError, match="expected ground-truth, point-descriptor:CHECKPOINT"):
        load_describer(spec)


def test_missing_matplotlib_is_said_before_the_work(options, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'hf-talking-points\[evaluation\]'"):
        evaluate_descriptions(options)


def test_bad_options_are_errors(photos, pair, tmp_path):
    with pytest.raises(ValueError, match="expected a checkpoint, or vlm:CONVENTION:MODEL"):
        load_localizer("vlm:0-1000")
    with pytest.raises(ValueError, match="localizers must hold"):
        EvaluationOptions([str(photos)], str(tmp_path), localizers=[])
    with pytest.raises(ValueError, match="split must be one of"):
        EvaluationOptions([str(photos)], str(tmp_path), split="dev")
    with pytest.raises(ValueError, match="no annotated point in the split 'validation'"):
        evaluate_descriptions(
            EvaluationOptions(
                [str(photos)], str(tmp_path), ["ground-truth"], [str(pair[1])], split="validation"
            )
        )
    with pytest.raises(ValueError, match="several models are called 'tiny-localizer'"):
        evaluate_descriptions(
            EvaluationOptions([str(photos)], str(tmp_path), ["ground-truth"], [str(pair[1])] * 2)
        )
    (tmp_path / "bad.jsonl").write_text(
        '{"image": "a.png", "point": [1, 2], "description": "x"}\n{"image": "a.png"}\n'
    )
    with pytest.raises(ValueError, match="bad.jsonl, line 2"):
        load_describer(f"jsonl:{tmp_path / 'bad.jsonl'}")
