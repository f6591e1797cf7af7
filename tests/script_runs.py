"""Programs of the tests in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def run_program(program, *arguments, launcher=()):
    """Runs a Python program, a text or a file, that may import the modules of this folder.

    `launcher` are the words between `python` and a file, such as those of torchrun.
    """
    code = [str(program)] if isinstance(program, Path) else ["-c", program]
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, *launcher, *code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
