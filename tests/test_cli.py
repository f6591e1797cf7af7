"""The command line: options from YAML, errors in one line."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hf_talking_points.cli import app
from hf_talking_points.evaluation import protocol


def test_errors_are_one_line_without_a_traceback(tmp_path):
    def run(*options):
        command = [sys.executable, "-c", "from hf_talking_points.cli import app; app()", *options, "evaluate", "--dataset", "nothing"]
        return subprocess.run([*command, "--output", str(tmp_path), "--descriptions", "oracle"], capture_output=True, text=True)

    ran = run()
    assert ran.returncode == 1 and ran.stdout == ""
    assert ran.stderr.strip().splitlines()[-1].startswith("ValueError: descriptions 'oracle'") and "Traceback" not in ran.stderr
    ran = run("--debug")
    assert ran.returncode == 1 and "Traceback" in ran.stderr


def test_help_shows_an_example():
    result = CliRunner().invoke(app, ["evaluate", "--help"])
    assert result.exit_code == 0 and "talking-points evaluate --dataset" in result.output and "--localizers" in result.output


def test_the_command_line_overrides_the_file(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(protocol, "evaluate_descriptions", lambda options: seen.append(options) or {"rows": []})
    (tmp_path / "e.yaml").write_text("dataset: [a, b]\nstyles: [full, terse]\nlocalizers: [x]\nseed: 3\noutput: here\n")
    result = CliRunner().invoke(
        app, ["evaluate", "--config", str(tmp_path / "e.yaml"), "--localizers", "y,z", "--seed", "0", "--no-controls"]
    )
    assert result.exit_code == 0, result.output
    [options] = seen
    assert (options.dataset, options.styles, options.localizers) == (["a", "b"], ["full", "terse"], ["y", "z"])
    assert options.seed == 0 and options.controls is False and options.output == "here" and options.split == "test"


@pytest.mark.parametrize("missing, given", [("dataset", "output: here\n"), ("output", "dataset: [a]\n")])
def test_what_is_needed_is_said(tmp_path, missing, given):
    (tmp_path / "e.yaml").write_text(given)
    result = CliRunner().invoke(app, ["evaluate", "--config", str(tmp_path / "e.yaml")])
    assert isinstance(result.exception, ValueError) and f"--{missing} is needed" in str(result.exception)
