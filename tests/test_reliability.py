"""A small share of what docs/reliability.md tells: broken input, and jobs that are killed."""

from pathlib import Path

import pytest
from script_runs import run_program

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, options", [("fuzzing", ["--share", 0.005]), ("killing", ["--kills", 4])]
)
def test_a_share_of_the_accidents_is_survived(tmp_path, name, options):
    ran = run_program(BENCHMARKS / f"{name}.py", "--output", tmp_path, *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert (tmp_path / f"{name}.json").is_file()
