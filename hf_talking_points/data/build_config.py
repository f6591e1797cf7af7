"""The YAML file that a build is started from: its sources, its options and the teacher that writes the texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from ..options import check_names, read_options
from . import sources, teachers
from .builder import BuildOptions, Source

ENTRIES = ("sources", "options", "teacher")
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
    content = read_options(file)
    check_names(content, ENTRIES, str(file))
    for entry in ("sources", "options"):
        if not content.get(entry):
            raise ValueError(f"{file}: the entry {entry!r} is missing or empty")
    teacher = content.get("teacher", {"name": "RuleTeacher"})
    return BuildConfig(
        sources=[reader_of(entry, Path(root), file) for entry in content["sources"]],
        options=options_of(content["options"], file),
        teacher=teacher_of(teacher, file),
    )


def reader_of(entry: dict[str, Any], root: Path, file: str | os.PathLike) -> Source:
    """The reader of one source, with its arguments bound."""
    arguments = dict(entry)
    name = arguments.pop("reader", None)
    check_names([name], READERS, f"{file}: reader of a source")
    for path in PATHS:
        if path in arguments:
            arguments[path] = root / arguments[path]
    reader = getattr(sources, name)
    check_names(arguments, signature(reader).parameters, f"{file}: {name}")
    return partial(reader, **arguments)


def options_of(entry: dict[str, Any], file: str | os.PathLike) -> BuildOptions:
    """The options of the build."""
    names = [field.name for field in fields(BuildOptions)]
    check_names(entry, names, f"{file}: options")
    try:
        return BuildOptions(**entry)
    except (TypeError, ValueError) as error:  # one that is missing, or does not fit
        raise ValueError(f"{file}: options: {error}") from error


def teacher_of(entry: dict[str, Any], file: str | os.PathLike) -> Callable[..., Any]:
    """The teacher that writes the texts."""
    arguments = dict(entry)
    name = arguments.pop("name", None)
    check_names([name], TEACHERS, f"{file}: name of the teacher")
    teacher = getattr(teachers, name)
    check_names(arguments, signature(teacher).parameters, f"{file}: {name}")
    return teacher(**arguments)
