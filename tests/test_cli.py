"""The command line: what it asks, writes and refuses, how a run goes on, and options from YAML."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline
from typer.testing import CliRunner

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER, answering
from hf_talking_points.cli import app
from hf_talking_points.evaluation import protocol
from hf_talking_points.files import only_writer
from hf_talking_points.visualization import draw_round_trip

PROGRAM = [sys.executable, "-c", "from hf_talking_points.cli import app; app()"]


def talking_points(*options):
    return CliRunner().invoke(app, list(map(str, options)))


def run_program(*options):
    return subprocess.run(
        [*PROGRAM, *map(str, options)], capture_output=True, text=True
    )


def read_rows(text):
    return [json.loads(line) for line in text.splitlines()]


def usage_error(result):
    """What a run that ended with a usage error says, without its frame."""
    assert result.exit_code == 2
    return " ".join(result.stderr.replace("│", " ").split())


@pytest.fixture
def photos(tmp_path, random_image):
    """A folder with two photos, a broken one, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random_image(0).save(folder / "a.png")
    random_image(1, 50, 80).save(folder / "b.JPG", format="jpeg")
    content = (folder / "a.png").read_bytes()
    (folder / "broken.png").write_bytes(content[:400])
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture
def output(tmp_path):
    return tmp_path / "answers.jsonl"


def test_errors_are_one_line_without_a_traceback(tmp_path):
    options = [
        "evaluate",
        "--dataset",
        "nothing",
        "--output",
        tmp_path,
        "--descriptions",
        "oracle",
    ]
    ran = run_program(*options)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    last_line = ran.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ValueError: descriptions 'oracle'")

    ran = run_program("--debug", *options)
    assert ran.returncode == 1
    assert "Traceback" in ran.stderr


def test_errors_leave_the_hook_of_the_interpreter_alone():
    hook = sys.excepthook
    talking_points("describe", "nothing.png", "--point", "1,2")
    assert sys.excepthook is hook


def test_help_shows_an_example():
    result = talking_points("evaluate", "--help")
    assert result.exit_code == 0
    assert "talking-points evaluate --dataset" in result.output
    assert "--localizers" in result.output


def test_the_command_line_overrides_the_file(tmp_path, monkeypatch):
    evaluated = []

    def evaluate_descriptions(options):
        evaluated.append(options)
        return {"rows": []}

    monkeypatch.setattr(protocol, "evaluate_descriptions", evaluate_descriptions)
    config = tmp_path / "e.yaml"
    config.write_text(
        "dataset: [a, b]\nstyles: [full, terse]\nlocalizers: [x]\nseed: 3\noutput: here\n"
    )
    given = ["--localizers", "y,z", "--seed", "0", "--no-controls"]
    result = talking_points("evaluate", "--config", config, *given)
    assert result.exit_code == 0, result.output
    [options] = evaluated
    assert options.dataset == ["a", "b"]
    assert options.styles == ["full", "terse"]
    assert options.localizers == ["y", "z"]
    assert options.seed == 0
    assert options.controls is False
    assert options.output == "here"
    assert options.split == "test"


def test_a_misspelled_option_of_the_file_is_named(tmp_path):
    config = tmp_path / "e.yaml"
    config.write_text("dataset: [a]\noutput: here\nstyle: [full]\n")
    result = talking_points("evaluate", "--config", config)
    assert isinstance(result.exception, ValueError)
    assert "e.yaml: 'style' is unknown: did you mean 'styles'?" in str(result.exception)


@pytest.mark.parametrize(
    "missing, given", [("dataset", "output: here\n"), ("output", "dataset: [a]\n")]
)
def test_what_is_needed_is_said(tmp_path, missing, given):
    (tmp_path / "e.yaml").write_text(given)
    result = talking_points("evaluate", "--config", tmp_path / "e.yaml")
    assert isinstance(result.exception, ValueError)
    assert f"--{missing} is needed" in str(result.exception)


@pytest.mark.parametrize(
    "options, message",
    [
        (["nothing.png", "--point", "1,2"], "nothing.png is no file"),
        ([".", "--point", "1,2"], "folder without images"),
        (["photos"], "--point"),
        (["photos", "--point", "1;2"], "'1;2' is not X,Y"),
        (["photos", "--point", "1,2,3"], "'1,2,3' is not X,Y"),
        (["photos", "--point", "nan,2"], "nan,2 must be finite"),
        (["photos", "--point", "-1,2"], "-1,2 must be finite and not negative"),
        (
            ["photos", "--point", "0.5,1.5", "--normalized"],
            "0.5,1.5 must lie in [0, 1]",
        ),
        (["photos", "--point", "1,2", "--picture", "p.png"], "not of 3"),
        (
            ["photos/a.png", "--point", "1,2", "--picture", "p.txt"],
            "p.txt does not end",
        ),
        (
            ["photos/a.png", "--point", "1,2", "--output", "no/o.jsonl"],
            "no is not a folder",
        ),
    ],
)
def test_wrong_usage_of_describe(photos, monkeypatch, options, message):
    monkeypatch.chdir(photos.parent)
    assert message in usage_error(talking_points("describe", *options))


def refused_before_the_work(monkeypatch, *options):
    """The usage error of a run that must not begin."""
    monkeypatch.setattr(
        answering, "answer_images", lambda run: pytest.fail("the work has begun")
    )
    return usage_error(talking_points("describe", *options, "--point", "3,4"))


@pytest.mark.parametrize("ending", [".xbm", ".msp", ".palm", ".wmf", ".h5"])
def test_a_picture_that_holds_no_colors_is_refused(photos, monkeypatch, ending):
    kept = photos / f"kept{ending}"
    kept.write_bytes(b"what somebody keeps")
    said = refused_before_the_work(monkeypatch, photos / "a.png", "--picture", kept)
    assert "can be written" in said
    assert kept.read_bytes() == b"what somebody keeps"


@pytest.mark.parametrize("option", ["--output", "--picture"])
def test_a_link_into_a_folder_that_is_gone_is_refused(photos, monkeypatch, option):
    link = photos.parent / "link.png"
    link.symlink_to(photos.parent / "gone" / "file.png")
    said = refused_before_the_work(monkeypatch, photos / "a.png", option, link)
    assert "is not a folder" in said


@pytest.mark.parametrize("option", ["--output", "--picture"])
def test_a_photo_is_not_written_over(photos, monkeypatch, option):
    link = photos.parent / "link.png"
    link.symlink_to(photos / "a.png")
    for name in (photos / "a.png", photos / ".." / "photos" / "a.png", link):
        said = refused_before_the_work(monkeypatch, photos / "a.png", option, name)
        assert "is one of the images" in said


def test_output_and_picture_are_two_files(photos, monkeypatch):
    both = ["--output", photos.parent / "b.png", "--picture", photos.parent / "b.png"]
    said = refused_before_the_work(monkeypatch, photos / "a.png", *both)
    assert "is the --output as well" in said


def test_a_last_line_without_its_end_is_kept_where_it_is_whole(photos, output):
    asked = ["--point", "3,4", "--output", output]
    talking_points("describe", photos / "a.png", *asked)
    row = output.read_text()
    output.write_text(row.strip())
    talking_points("describe", photos / "b.JPG", *asked)
    assert output.read_text().startswith(row)
    assert len(read_rows(output.read_text())) == 2


@pytest.mark.parametrize(
    "content",
    [
        '{"image": "images/a.jpg", "size": [64, 48], "category": "dog"}',
        '{"image": "a.jpg", "point": [1, 2], "description": "the nose"}',
        '["image"]',
    ],
)
def test_a_line_of_something_else_is_not_touched(photos, output, content):
    output.write_text(content)
    asked = ["describe", photos / "a.png", "--point", "3,4", "--output", output]
    with pytest.raises(ValueError, match="line 1, is not of describe or locate"):
        CliRunner().invoke(app, list(map(str, asked)), catch_exceptions=False)
    assert output.read_text() == content


def test_two_runs_do_not_write_to_one_output(photos, output):
    with only_writer(output):
        asked = ["describe", photos / "a.png", "--point", "3,4", "--output", output]
        with pytest.raises(BlockingIOError, match="answers.jsonl is being written by"):
            CliRunner().invoke(app, list(map(str, asked)), catch_exceptions=False)


def test_a_name_that_is_not_utf8_is_printed_escaped(tmp_path, random_image):
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(name, "wb") as file:
        random_image().save(file, "PNG")
    ran = subprocess.run(
        [*PROGRAM, "describe", str(tmp_path), "--point", "3,4"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert ran.returncode == 0
    assert rb"caf\udce9.png" in ran.stdout


def test_a_text_to_locate_must_not_be_empty(photos):
    result = talking_points("locate", photos / "a.png", "eye", " ")
    assert "a text is empty" in usage_error(result)


def test_a_text_to_locate_must_not_be_a_file(photos):
    result = talking_points("locate", photos / "a.png", photos / "b.JPG", "eye")
    assert "in quotes" in usage_error(result)


def test_a_folder_is_described_and_a_broken_image_named(photos, output):
    points = ["--point", "0.5,0.25", "--point", "0.1,0.9"]
    result = talking_points(
        "describe", photos, *points, "--normalized", "--output", output
    )
    assert result.exit_code == 1
    assert result.stdout == ""
    broken, added, failed = result.stderr.splitlines()
    assert broken.startswith(f"{photos / 'broken.png'}: OSError")
    assert "4 lines added" in added
    assert failed == "1 of 3 images failed"

    describe = pipeline("point-description", model=MINI_DESCRIPTOR)
    expected = []
    for name, width, height in (("a.png", 96, 64), ("b.JPG", 50, 80)):
        path = str(photos / name)
        pixels = [(0.5 * width, 0.25 * height), (0.1 * width, 0.9 * height)]
        for answer in describe(path, points=pixels):
            row = {"image": path, "size": [width, height]}
            row |= {
                "point": list(answer["point"]),
                "description": answer["description"],
            }
            expected.append(row)
    rows = read_rows(output.read_text())
    versions = [row.pop("model") for row in rows]
    assert rows == expected
    assert {version.split("@")[0] for version in versions} == {
        "talking-points-descriptor"
    }


def test_a_run_goes_on_wherever_it_was_killed(photos, output, monkeypatch):
    points = ["--point", "7,8.3", "--point", "49.9,9"]
    images = [photos / "a.png", photos / "b.JPG"]
    options = ["describe", *images, *points, "--output", output]
    assert talking_points(*options).exit_code == 0
    whole = output.read_bytes()
    second = whole.index(b"\n") + 1
    for kept in (0, 12, second - 1, second, second + 40):
        output.write_bytes(whole[:kept])
        result = talking_points(*options)
        assert result.exit_code == 0
        assert output.read_bytes() == whole
        was_cut = kept not in (0, second - 1, second)
        assert ("incomplete last line" in result.stderr) == was_cut

    # everything is there: no model is loaded
    monkeypatch.setattr(answering, "pipeline", None)
    result = talking_points(*options)
    assert result.exit_code == 0
    assert "0 lines added, 4 were there" in result.stderr
    assert output.read_bytes() == whole


def test_descriptions_of_a_style_are_answers_of_their_own(
    photos, output, make_descriptor, tmp_path
):
    model, processor = make_descriptor()
    checkpoint = tmp_path / "checkpoint"
    model.save_pretrained(checkpoint)
    processor.save_pretrained(checkpoint)
    asked = ["describe", photos / "a.png", "--point", "10,20", "--output", output]
    for style in ([], ["--style", "short"], ["--style", "short"]):
        result = talking_points(*asked, "--model", checkpoint, *style)
        assert result.exit_code == 0
    assert [row.get("style") for row in read_rows(output.read_text())] == [
        None,
        "short",
    ]


def test_a_style_that_the_checkpoint_does_not_know_is_an_error(photos):
    asked = ["describe", photos / "a.png", "--point", "10,20", "--style", "loud"]
    with pytest.raises(ValueError, match="'loud' cannot be asked for"):
        CliRunner().invoke(app, list(map(str, asked)), catch_exceptions=False)


def test_what_is_there_is_known_in_pixels_and_normalized(photos, output):
    command = ["describe", photos / "a.png", "--output", output]
    talking_points(*command, "--normalized", "--point", f"{1 / 3},0.7")
    in_pixels = talking_points(*command, "--point", "32,44.8", "--point", "3,3")
    assert "1 lines added, 1 were there" in in_pixels.stderr
    both = ["--point", f"{1 / 3},0.7", "--point", f"{3 / 96},{3 / 64}"]
    normalized = talking_points(*command, "--normalized", *both)
    assert "0 lines added, 2 were there" in normalized.stderr
    first, second = read_rows(output.read_text())
    assert first["point"] == pytest.approx([32, 44.8])
    assert second["point"] == [3, 3]


def test_answers_are_kept_where_their_picture_cannot_be_drawn(
    photos, output, tmp_path, monkeypatch
):
    def draw(image, rows):
        raise OSError("no space left")

    monkeypatch.setattr(answering, "draw_round_trip", draw)
    files = ["--output", output, "--picture", tmp_path / "p.png"]
    result = talking_points("describe", photos / "a.png", "--point", "1,2", *files)
    assert "no space left" in str(result.exception)
    assert len(read_rows(output.read_text())) == 1


def test_debug_shows_where_an_image_failed(photos):
    broken = photos / "broken.png"
    result = talking_points("--debug", "describe", broken, "--point", "1,2")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{broken}: Traceback")


@pytest.mark.parametrize(
    "content", [b"hello", b"hello\n", b'{"image": 3}\n', b"[1]\n", b"\xff\xd8\n\x00"]
)
def test_a_file_of_something_else_is_not_touched(photos, output, content):
    output.write_bytes(content)
    result = talking_points(
        "describe", photos / "a.png", "--point", "1,2", "--output", output
    )
    assert isinstance(result.exception, ValueError)
    assert "answers.jsonl, line 1, is not of describe or locate" in str(
        result.exception
    )
    assert output.read_bytes() == content


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_named(photos):
    result = talking_points(
        "describe", photos / "a.png", "--point", "1,2", "--output", "/dev/full"
    )
    assert isinstance(result.exception, OSError)
    assert "/dev/full" in str(result.exception)


def test_photos_of_every_kind(tmp_path, random_image):
    image = random_image(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise for display
    gray = np.asarray(image.convert("L")).astype(np.uint16)
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "exif.jpg", exif=exif)
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    image.convert("P").save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(gray * 257).save(tmp_path / "sixteen.png")
    image.resize((20000, 200)).save(tmp_path / "wide.jpg")

    result = talking_points(
        "describe", tmp_path, "--point", "1,0.5", "--json", "--batch-size", 4
    )
    assert result.exit_code == 0, result.stderr
    rows = read_rows(result.stdout)
    sizes = [row["size"] for row in rows]
    assert sizes == [[96, 64], [64, 96], [1, 1], [96, 64], [96, 64], [20000, 200]]
    assert all(row["point"] == [1, 0.5] for row in rows)
    assert all(row["description"] for row in rows)


def test_a_point_outside_one_image_leaves_the_others(photos):
    names = [photos / "*.[pJ]*G", photos / "a.png", photos]
    result = talking_points("describe", *names, "--point", "60,30")
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{photos / 'a.png'} (60.0, 30.0) ")
    assert result.stdout.count("\n") == 1
    assert f"{photos / 'b.JPG'}: ValueError: point 0 is (60.0, 30.0)" in result.stderr
    assert "2 of 3 images failed" in result.stderr


def test_texts_are_located_and_drawn(photos, output, tmp_path):
    texts = ["the dog's left eye", "the tail of the horse"]
    path = photos / "a.png"
    image = Image.open(path)
    locate = pipeline("point-localization", model=MINI_LOCALIZER)
    expected = locate(image, text=texts, return_heatmaps=True)

    rows = read_rows(talking_points("locate", path, *texts, "--json").stdout)
    for row, answer in zip(rows, expected, strict=True):
        assert row["description"] == answer["description"]
        assert row["point"] == pytest.approx(answer["point"])
        assert row["confidence"] == pytest.approx(answer["confidence"])

    assert talking_points("locate", path, texts[0], "--output", output).exit_code == 0
    picture = tmp_path / "p.png"
    result = talking_points(
        "locate", path, *texts, "--output", output, "--picture", picture
    )
    assert "1 lines added, 1 were there" in result.stderr
    assert [row["description"] for row in read_rows(output.read_text())] == texts
    drawn = np.asarray(Image.open(picture)).astype(int)
    assert np.abs(drawn - np.asarray(draw_round_trip(image, expected))).max() <= 1


@pytest.mark.parametrize(
    "command, options, message",
    [
        (
            "describe",
            ["--point", "1,2", "--model", MINI_LOCALIZER],
            "is a point_localizer checkpoint, but describe needs",
        ),
        (
            "locate",
            ["eye", "--model", MINI_DESCRIPTOR],
            "is a point_descriptor checkpoint, but locate needs",
        ),
        ("locate", ["eye", "--model", "/no/folder"], "--model /no/folder: "),
        ("locate", ["red " * 1200], "the model's context holds"),
        ("locate", ["the <SEG> token"], "special token"),
    ],
)
def test_what_no_image_can_be_asked_ends_the_run(photos, command, options, message):
    result = talking_points(command, photos / "a.png", *options)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert message in str(result.exception)


def test_output_that_nobody_reads_any_more_ends_the_run_quietly(photos):
    points = []
    for x in range(20):
        points += ["--point", f"{x},2"]
    command = [*PROGRAM, "describe", str(photos / "a.png"), *points]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    program.stdout.close()
    assert program.stderr.read() == ""
    assert program.wait() == 1
