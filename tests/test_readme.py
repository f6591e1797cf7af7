"""The programs of README and documentation run as they stand, or name things that exist."""

import ast
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "docs/datasets.md",
    "docs/evaluation.md",
    "hf_talking_points/evaluation/localization_distance/README.md",
    "docs/grpo.md",
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
