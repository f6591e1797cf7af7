"""Scripts of the folders `examples` and `benchmarks` as modules."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def load_example(name, folder="examples"):
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


class OptionsAsked(Exception):
    """A script asks for its options."""


def option_names(script, monkeypatch):
    """Names of the options of a script that parses them with `TrlParser`."""

    def ask(argument_classes):
        raise OptionsAsked(argument_classes)

    monkeypatch.setattr(script, "TrlParser", ask)
    try:
        script.main()
    except OptionsAsked as asked:
        (argument_classes,) = asked.args
    names = set()
    for argument_class in argument_classes:
        names.update(field.name for field in dataclasses.fields(argument_class))
    return names
