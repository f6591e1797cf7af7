"""The command line: what it asks, writes and refuses, how a run goes on, and options from YAML."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers import pipeline
from typer.testing import CliRunner

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER, visualization
from hf_talking_points.cli import app
from hf_talking_points.evaluation import protocol
from hf_talking_points.visualization import draw_round_trip


def talking_points(*options):
    return CliRunner().invoke(app, list(map(str, options)))


def read_lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def photos(tmp_path, random_image):
    """A folder with two photos, a broken one, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random_image(0).save(folder / "a.png")
    random_image(1, 50, 80).save(folder / "b.JPG", format="jpeg")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:400])
    (folder / "notes.txt").write_text("no photo")
    return folder


def test_errors_are_one_line_without_a_traceback(tmp_path):
    def run(*options):
        command = [
            sys.executable,
            "-c",
            "from hf_talking_points.cli import app; app()",
            *options,
            "evaluate",
            "--dataset",
            "nothing",
        ]
        return subprocess.run(
            [*command, "--output", str(tmp_path), "--descriptions", "oracle"],
            capture_output=True,
            text=True,
        )

    ran = run()
    assert ran.returncode == 1 and ran.stdout == ""
    assert (
        ran.stderr.strip().splitlines()[-1].startswith("ValueError: descriptions 'oracle'")
        and "Traceback" not in ran.stderr
    )
    ran = run("--debug")
    assert ran.returncode == 1 and "Traceback" in ran.stderr


def test_help_shows_an_example():
    result = CliRunner().invoke(app, ["evaluate", "--help"])
    assert (
        result.exit_code == 0
        and "talking-points evaluate --dataset" in result.output
        and "--localizers" in result.output
    )


def test_the_command_line_overrides_the_file(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        protocol, "evaluate_descriptions", lambda options: seen.append(options) or {"rows": []}
    )
    (tmp_path / "e.yaml").write_text(
        "dataset: [a, b]\nstyles: [full, terse]\nlocalizers: [x]\nseed: 3\noutput: here\n"
    )
    result = CliRunner().invoke(
        app,
        [
            "evaluate",
            "--config",
            str(tmp_path / "e.yaml"),
            "--localizers",
            "y,z",
            "--seed",
            "0",
            "--no-controls",
        ],
    )
    assert result.exit_code == 0, result.output
    [options] = seen
    assert (options.dataset, options.styles, options.localizers) == (
        ["a", "b"],
        ["full", "terse"],
        ["y", "z"],
    )
    assert (
        options.seed == 0
        and options.controls is False
        and options.output == "here"
        and options.split == "test"
    )


@pytest.mark.parametrize(
    "missing, given", [("dataset", "output: here\n"), ("output", "dataset: [a]\n")]
)
def test_what_is_needed_is_said(tmp_path, missing, given):
    (tmp_path / "e.yaml").write_text(given)
    result = CliRunner().invoke(app, ["evaluate", "--config", str(tmp_path / "e.yaml")])
    assert isinstance(result.exception, ValueError) and f"--{missing} is needed" in str(
        result.exception
    )


@pytest.mark.parametrize(
    "options, said",
    [
        (["nothing.png", "--point", "1,2"], "nothing.png is no file"),
        ([".", "--point", "1,2"], "folder without images"),
        (["photos"], "--point"),
        (["photos", "--point", "1;2"], "'1;2' is not X,Y"),
        (["photos", "--point", "1,2,3"], "'1,2,3' is not X,Y"),
        (["photos", "--point", "nan,2"], "nan,2 must be finite"),
        (["photos", "--point", "-1,2"], "-1,2 must be finite and not negative"),
        (["photos", "--point", "0.5,1.5", "--normalized"], "0.5,1.5 must lie in [0, 1]"),
        (["photos", "--point", "1,2", "--picture", "p.png"], "not of 3"),
        (["photos/a.png", "--point", "1,2", "--picture", "p.txt"], "p.txt does not end"),
        (["photos/a.png", "--point", "1,2", "--output", "no/o.jsonl"], "no is not a folder"),
    ],
)
def test_wrong_usage_of_describe(photos, monkeypatch, options, said):
    monkeypatch.chdir(photos.parent)
    result = talking_points("describe", *options)
    assert result.exit_code == 2 and said in " ".join(result.stderr.replace("│", " ").split())


def test_wrong_usage_of_locate(photos):
    for texts, said in (
        (["eye", " "], "a text is empty"),
        ([photos / "b.JPG", "eye"], "in quotes"),
    ):
        result = talking_points("locate", photos / "a.png", *texts)
        assert result.exit_code == 2 and said in " ".join(result.stderr.replace("│", " ").split())


def test_a_folder_is_described_and_a_broken_image_named(photos, tmp_path):
    result = talking_points(
        "describe",
        photos,
        "--point",
        "0.5,0.25",
        "--point",
        "0.1,0.9",
        "--normalized",
        "--output",
        tmp_path / "o.jsonl",
    )
    assert result.exit_code == 1 and result.stdout == ""
    [broken, added, failed] = result.stderr.splitlines()
    assert (
        broken.startswith(f"{photos / 'broken.png'}: OSError")
        and "4 lines added" in added
        and failed == "1 of 3 images failed"
    )
    rows = read_lines((tmp_path / "o.jsonl").read_text())
    describe = pipeline("point-description", model=MINI_DESCRIPTOR)
    expected = []
    for name, (width, height) in (("a.png", (96, 64)), ("b.JPG", (50, 80))):
        for answer in describe(
            str(photos / name), points=[(0.5 * width, 0.25 * height), (0.1 * width, 0.9 * height)]
        ):
            expected.append(
                [str(photos / name), [width, height], list(answer["point"]), answer["description"]]
            )
    assert [
        [row[key] for key in ("image", "size", "point", "description")] for row in rows
    ] == expected
    assert {row["model"].split("@")[0] for row in rows} == {"talking-points-descriptor"}


def test_a_run_goes_on_wherever_it_was_killed(photos, tmp_path, monkeypatch):
    output = tmp_path / "o.jsonl"
    options = [
        "describe",
        photos / "a.png",
        photos / "b.JPG",
        "--point",
        "7,8.3",
        "--point",
        "49.9,9",
        "--output",
        output,
    ]
    assert talking_points(*options).exit_code == 0
    whole = output.read_bytes()
    second = whole.index(b"\n") + 1
    for kept in (0, 12, second - 1, second, second + 40):
        output.write_bytes(whole[:kept])
        result = talking_points(*options)
        assert result.exit_code == 0 and output.read_bytes() == whole
        assert ("incomplete last line" in result.stderr) == (kept not in (0, second))
    # everything is there: no model is loaded
    monkeypatch.setattr(transformers, "pipeline", None)
    result = talking_points(*options)
    assert (
        result.exit_code == 0
        and "0 lines added, 4 were there" in result.stderr
        and output.read_bytes() == whole
    )


def test_what_is_there_is_known_in_pixels_and_normalized(photos, tmp_path):
    def run(*options):
        points = [part for point in options[1:] for part in ("--point", point)]
        return talking_points(
            "describe", photos / "a.png", *points, *options[0], "--output", tmp_path / "o.jsonl"
        ).stderr

    run(["--normalized"], f"{1 / 3},0.7")
    assert "1 lines added, 1 were there" in run([], "32,44.8", "3,3")
    assert "0 lines added, 2 were there" in run(
        ["--normalized"], f"{1 / 3},0.7", f"{3 / 96},{3 / 64}"
    )
    points = [row["point"] for row in read_lines((tmp_path / "o.jsonl").read_text())]
    assert points == [[pytest.approx(32), pytest.approx(44.8)], [3, 3]]


def test_answers_are_kept_where_their_picture_cannot_be_drawn(photos, tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(visualization, "draw_round_trip", full)
    files = ["--output", tmp_path / "o.jsonl", "--picture", tmp_path / "p.png"]
    result = talking_points("describe", photos / "a.png", "--point", "1,2", *files)
    assert (
        "no space left" in str(result.exception)
        and len(read_lines((tmp_path / "o.jsonl").read_text())) == 1
    )


def test_debug_shows_where_an_image_failed(photos):
    result = talking_points("--debug", "describe", photos / "broken.png", "--point", "1,2")
    assert result.exit_code == 1 and result.stderr.startswith(f"{photos / 'broken.png'}: Traceback")


@pytest.mark.parametrize(
    "content", [b"hello", b"hello\n", b'{"image": 3}\n', b"[1]\n", b"\xff\xd8\n\x00"]
)
def test_a_file_of_something_else_is_not_touched(photos, tmp_path, content):
    (tmp_path / "o.jsonl").write_bytes(content)
    result = talking_points(
        "describe", photos / "a.png", "--point", "1,2", "--output", tmp_path / "o.jsonl"
    )
    assert isinstance(
        result.exception, ValueError
    ) and "o.jsonl, line 1, is not of describe or locate" in str(result.exception)
    assert (tmp_path / "o.jsonl").read_bytes() == content


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_named(photos):
    result = talking_points("describe", photos / "a.png", "--point", "1,2", "--output", "/dev/full")
    assert isinstance(result.exception, OSError) and "/dev/full" in str(result.exception)


def test_photos_of_every_kind(tmp_path, random_image):
    image, exif = random_image(3), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise for display
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "exif.jpg", exif=exif)
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    image.convert("P").save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(
        tmp_path / "sixteen.png"
    )
    image.resize((20000, 200)).save(tmp_path / "wide.jpg")
    result = talking_points("describe", tmp_path, "--point", "1,0.5", "--json", "--batch-size", 4)
    assert result.exit_code == 0, result.stderr
    rows = read_lines(result.stdout)
    assert [row["size"] for row in rows] == [
        [96, 64],
        [64, 96],
        [1, 1],
        [96, 64],
        [96, 64],
        [20000, 200],
    ]
    assert [row["point"] for row in rows] == [[1, 0.5]] * 6 and all(
        row["description"] for row in rows
    )


def test_a_point_outside_one_image_leaves_the_others(photos):
    result = talking_points(
        "describe", photos / "*.[pJ]*G", photos / "a.png", photos, "--point", "60,30"
    )
    assert (
        result.exit_code == 1
        and result.stdout.startswith(f"{photos / 'a.png'} (60.0, 30.0) ")
        and result.stdout.count("\n") == 1
    )
    assert (
        f"{photos / 'b.JPG'}: ValueError: point 0 is (60.0, 30.0)" in result.stderr
        and "2 of 3 images failed" in result.stderr
    )


def test_texts_are_located_and_drawn(photos, tmp_path):
    texts, output, picture = (
        ["the dog's left eye", "the tail of the horse"],
        tmp_path / "o.jsonl",
        tmp_path / "p.png",
    )
    image = Image.open(photos / "a.png")
    found = pipeline("point-localization", model=MINI_LOCALIZER)(
        image, text=texts, return_heatmaps=True
    )
    result = talking_points("locate", photos / "a.png", *texts, "--json")
    rows = read_lines(result.stdout)
    assert [(row["description"], tuple(row["point"]), row["confidence"]) for row in rows] == [
        (answer["description"], pytest.approx(answer["point"]), pytest.approx(answer["confidence"]))
        for answer in found
    ]
    assert talking_points("locate", photos / "a.png", texts[0], "--output", output).exit_code == 0
    result = talking_points(
        "locate", photos / "a.png", *texts, "--output", output, "--picture", picture
    )
    assert "1 lines added, 1 were there" in result.stderr
    assert [row["description"] for row in read_lines(output.read_text())] == texts
    assert (
        np.abs(
            np.asarray(Image.open(picture)).astype(int) - np.asarray(draw_round_trip(image, found))
        ).max()
        <= 1
    )


@pytest.mark.parametrize(
    "options, said",
    [
        (
            ["describe", "--point", "1,2", "--model", MINI_LOCALIZER],
            "is a point_localizer checkpoint, but describe needs",
        ),
        (
            ["locate", "eye", "--model", MINI_DESCRIPTOR],
            "is a point_descriptor checkpoint, but locate needs",
        ),
        (["locate", "eye", "--model", "/no/folder"], "--model /no/folder: "),
        (["locate", "red " * 600], "the model's context holds"),
        (["locate", "the <SEG> token"], "special token"),
    ],
)
def test_what_no_image_can_be_asked_ends_the_run(photos, options, said):
    result = talking_points(options[0], photos / "a.png", *options[1:])
    assert result.exit_code == 1 and result.stdout == "" and said in str(result.exception)


def test_output_that_nobody_reads_any_more_ends_the_run_quietly(photos):
    points = [option for x in range(20) for option in ("--point", f"{x},2")]
    command = [
        sys.executable,
        "-c",
        "from hf_talking_points.cli import app; app()",
        "describe",
        str(photos / "a.png"),
        *points,
    ]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    program.stdout.close()
    assert program.stderr.read() == "" and program.wait() == 1
