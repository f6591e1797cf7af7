"""The YAML file that a build is started from: its sources, its options and the teacher that writes the texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from . import sources, teachers
from .builder import BuildOptions, Source

READERS = (
    "read_objects",
    "read_coco_keypoints",
    "read_coco_parts",
    "read_part_label_maps",
)
TEACHERS = ("RuleTeacher", "ModelTeacher", "EndpointTeacher")
PATHS = (
    "folder",
    "annotations",
    "images",
)  # arguments of readers that are relative to `root`


@dataclass
class BuildConfig:
    """What [`build_dataset`] is called with."""

    sources: list[Source]
    options: BuildOptions
    teacher: Callable[..., Any]


def read_build_config(
    file: str | os.PathLike, root: str | os.PathLike = "."
) -> BuildConfig:
    """Reads a YAML file such as `examples/build_llama_point_in_part.yaml`.

    Args:
        file: with the entries `sources`, `options` and, if not the rule-based writer is meant, `teacher`.
        root: what the paths of the sources are relative to.

    Raises ValueError naming the entry that is missing or unknown.
    """
    content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected the entries sources and options")
    for entry in ("sources", "options"):
        if not content.get(entry):
            raise ValueError(f"{file}: the entry {entry!r} is missing or empty")
    teacher = content.get("teacher", {"name": "RuleTeacher"})
    return BuildConfig(
        sources=[reader_of(entry, Path(root), file) for entry in content["sources"]],
        options=options_of(content["options"], file),
        teacher=teacher_of(teacher, file),
    )


def known(name: Any, choices: tuple[str, ...], where: str) -> str:
    """The name. Raises ValueError where it is not one of the choices."""
    if name not in choices:
        raise ValueError(f"{where}: choose from {', '.join(choices)}, found {name!r}")
    return name


def reader_of(entry: dict[str, Any], root: Path, file: str | os.PathLike) -> Source:
    """The reader of one source, with its arguments bound."""
    arguments = dict(entry)
    name = known(arguments.pop("reader", None), READERS, f"{file}: reader of a source")
    for path in PATHS:
        if path in arguments:
            arguments[path] = root / arguments[path]
    return partial(getattr(sources, name), **arguments)


def options_of(entry: dict[str, Any], file: str | os.PathLike) -> BuildOptions:
    """The options of the build."""
    names = tuple(field.name for field in fields(BuildOptions))
    for name in entry:
        known(name, names, f"{file}: options")
    return BuildOptions(**entry)


def teacher_of(entry: dict[str, Any], file: str | os.PathLike) -> Callable[..., Any]:
    """The teacher that writes the texts."""
    arguments = dict(entry)
    name = known(arguments.pop("name", None), TEACHERS, f"{file}: name of the teacher")
    return getattr(teachers, name)(**arguments)
