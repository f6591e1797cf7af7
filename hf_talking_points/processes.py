"""Processes that end with the one that started them, however it ends."""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Sequence
from multiprocessing import get_context, parent_process
from pathlib import Path

__all__ = ["end_with_parent", "run_script"]


def end_with_parent() -> None:
    """Has this process, one of `multiprocessing`, end as soon as the one that started it is gone.

    A killed process cannot ask its children to end, which would live on with their models in memory."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_script(
    script: Path, arguments: Sequence[str], log: Path, seconds: float | None = None
) -> int:
    """Runs a Python script in a process of its own, which does not outlive this one.

    Args:
        script (`Path`)
        arguments (list of `str`): of its command line.
        log (`Path`): file to whose end all that it prints is written.
        seconds (`float`, *optional*): after which it is ended.
    Returns:
        `int`: the exit code.

    Raises TimeoutError where it was ended after `seconds`.
    """
    process = get_context("spawn").Process(
        target=_run_script, args=(str(script), list(arguments), str(log))
    )
    process.start()
    process.join(seconds)
    if process.exitcode is not None:
        return process.exitcode
    process.kill()
    process.join()
    raise TimeoutError(f"{script} was ended after {seconds:g} seconds")


def _run_script(script: str, arguments: list[str], log: str) -> None:
    """What the process of a script does."""
    end_with_parent()
    with open(log, "a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
