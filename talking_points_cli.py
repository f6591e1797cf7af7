"""The program `talking-points`.

Importing hf_talking_points registers its models with transformers, which takes seconds. Help and wrong usage need not wait for that: the
command line is loaded here without its package, which the commands import when they run.
"""

import importlib.util
from pathlib import Path

_package = importlib.util.find_spec("hf_talking_points")
_spec = importlib.util.spec_from_file_location("hf_talking_points.cli", Path(_package.origin).with_name("cli.py"))
_cli = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_cli)
app = _cli.app
