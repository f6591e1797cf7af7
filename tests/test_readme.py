"""The programs of README and documentation run as they stand, or name things that exist."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from hf_talking_points.cli import app

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "docs/datasets.md",
    "docs/evaluation.md",
    "hf_talking_points/evaluation/localization_distance/README.md",
    "docs/grpo.md",
    "docs/command_line.md",
)
BLOCKS = [(page, block) for page in PAGES for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)]


def run(page, number=0):
    block = [block for name, block in BLOCKS if name == page][number]
    names = {}
    exec(compile(block, page, "exec"), names)
    return names


def test_first_program_runs(capsys):
    pytest.importorskip("skimage")
    run("README.md")
    assert len(capsys.readouterr().out.strip().splitlines()) == 2


@pytest.mark.parametrize("page", PAGES[2:4])
def test_metric_runs(page):
    pytest.importorskip("skimage")
    scores = run(page)["scores"]
    assert scores["n"] == 2 and scores["mpck"] >= 50


def test_documented_maths_and_adapter_run(capsys):
    low, high = eval((run("docs/evaluation.md", 1), capsys.readouterr().out)[1])
    assert 0 < low < high < 100
    localizer = run("docs/evaluation.md", 2)["CentreLocalizer"]()
    assert localizer(Image.new("RGB", (40, 20)), ["a", "b"]).tolist() == [[20, 10]] * 2


@pytest.mark.parametrize("page, block", BLOCKS)
def test_blocks_parse_and_import(page, block):
    tree = ast.parse(block)
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    exec(compile(ast.Module(imports, []), page, "exec"), {})


def test_documented_trainer_takes_a_step(tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    trainer = run("docs/grpo.md")["trainer"]
    trainer.args.max_steps = 1
    trainer.args.save_strategy = "no"
    trainer.train()
    assert trainer.state.global_step == 1


COMMANDS = [(page, line) for page in PAGES for line in re.findall(r"^    (talking-points .*)$", (ROOT / page).read_text(), re.MULTILINE)]


@pytest.mark.parametrize("page, line", COMMANDS)
def test_documented_commands_name_options_that_exist(page, line):
    _, command, *options = shlex.split(line)
    known = {option for parameter in get_command(app).commands[command].params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {option for option in options if option.startswith("--")} <= known


def test_documented_lines_and_pictures_of_the_command_line(tmp_path, monkeypatch):
    skimage_data = pytest.importorskip("skimage.data")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photo = Image.fromarray(skimage_data.chelsea())
    photo.save("photos/cat.png")
    photo.save("cat.jpg")
    commands = [shlex.split(line)[1:] for page, line in COMMANDS if page == "docs/command_line.md"]
    assert len(commands) == 3
    for command in commands:
        assert CliRunner().invoke(app, command).exit_code == 0
    names = run("docs/command_line.md")
    [line] = re.findall(r"^    (\{.*\})$", (ROOT / "docs/command_line.md").read_text(), re.MULTILINE)
    assert [list(row) for row in names["rows"]] == [list(json.loads(line))] and names["places"] == [(0.5, 0.5)]
    run("docs/command_line.md", 1)
    assert Image.open("compared.png").width == 1280
