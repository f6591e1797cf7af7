"""Scripts in processes of their own."""

import sys
import time
from multiprocessing import active_children

import psutil
import pytest

from hf_talking_points.processes import run_script

TALKING = (
    "import sys; print(sys.argv[1:]); sys.stderr.write('and\\n'); sys.exit({code})"
)
WAITING = """
import os, pathlib, sys, time
file = pathlib.Path(sys.argv[1])
file.with_name("half").write_text(str(os.getpid()))
file.with_name("half").rename(file)
time.sleep(120)
"""
PROGRAM = """
import pathlib, sys
from hf_talking_points.processes import run_script
if __name__ == "__main__":
    script, pid_file = map(pathlib.Path, sys.argv[1:])
    run_script(script, [str(pid_file)], script.with_suffix(".log"))
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_script_gets_its_words_and_leaves_log_and_exit_code(tmp_path, code):
    script, log = tmp_path / "talking.py", tmp_path / "log.txt"
    script.write_text(TALKING.format(code=code))
    log.write_text("before\n")
    assert run_script(script, ["--a", "b c"], log) == code
    first, *rest = log.read_text().splitlines()
    assert first == "before"
    assert sorted(rest) == ["['--a', 'b c']", "and"]


def test_a_script_is_ended_after_its_time(tmp_path):
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    with pytest.raises(TimeoutError, match="waiting.py was ended after 0.5 seconds"):
        run_script(script, [str(tmp_path / "pid")], tmp_path / "log.txt", 0.5)
    assert active_children() == []


def test_a_script_does_not_outlive_the_killed_program_that_runs_it(tmp_path):
    program, script = tmp_path / "program.py", tmp_path / "waiting.py"
    program.write_text(PROGRAM)
    script.write_text(WAITING)
    pid_file = tmp_path / "pid"
    first = psutil.Popen([sys.executable, str(program), str(script), str(pid_file)])
    deadline = time.monotonic() + 90
    while not pid_file.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    waiting = psutil.Process(int(pid_file.read_text()))
    first.kill()
    first.wait()
    _, left = psutil.wait_procs([waiting], timeout=10)
    assert left == []
