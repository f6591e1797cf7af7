"""The README's first program runs as it stands, and its other blocks name things that exist."""

import ast
import re
from pathlib import Path

import pytest

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parent.parent / "README.md").read_text(), re.DOTALL)


def test_first_program_runs(capsys):
    pytest.importorskip("skimage")
    exec(compile(BLOCKS[0], "README.md", "exec"), {})
    assert len(capsys.readouterr().out.strip().splitlines()) == 2


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_parse_and_import(block):
    tree = ast.parse(block)
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    exec(compile(ast.Module(imports, []), "README.md", "exec"), {})
