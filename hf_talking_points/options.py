"""Options of YAML files and dataclasses, taken strictly: what is misspelled, doubled or of another kind is an error
that names it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

__all__ = ["check_kinds", "check_names", "read_options"]

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that comes twice, of which PyYAML keeps the last in silence."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # which PyYAML refuses
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key_node.value!r} comes twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_options(file: str | os.PathLike) -> dict[str, Any]:
    """The entries of a YAML file.

    Raises ValueError naming the file where it is no YAML, holds no entries, or one of them twice.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
        content = yaml.load(text, _OnceLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a YAML file of options: {error}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{file}: expected lines `name: value`, found {found}")
    return content


def check_names(given: Iterable[Any], known: Iterable[str], where: str) -> None:
    """Raises ValueError, with the nearest known name, for one that is not known.

    Args:
        given: names.
        known: all that there are.
        where (`str`): what the names are of, for the message.
    """
    names = list(known)
    for name in given:
        if name in names:
            continue
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = (
            f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"
        )
        raise ValueError(f"{where}: {name!r} is unknown: {hint}")


def check_kinds(options: Any) -> None:
    """Raises ValueError for a field of a dataclass whose value is of another kind than its annotation says."""
    kinds = get_type_hints(type(options))
    for field in fields(options):
        value, kind = getattr(options, field.name), kinds[field.name]
        if not is_of_kind(value, kind):
            raise ValueError(f"{field.name} must be {in_words(kind)}, got {value!r}")


def is_of_kind(value: Any, kind: Any) -> bool:
    """Whether a value is what an annotation of plain types says; `true` is no number, a whole number is a number."""
    if kind is Any:
        return True
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(is_of_kind(value, choice) for choice in arguments)
    if origin is dict:
        return isinstance(value, dict) and all(
            is_of_kind(key, arguments[0]) and is_of_kind(entry, arguments[1])
            for key, entry in value.items()
        )
    if origin is not None and issubclass(origin, Sequence):
        is_listed = isinstance(value, (list, tuple))
        return is_listed and all(is_of_kind(entry, arguments[0]) for entry in value)
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, kind)


def in_words(kind: Any) -> str:
    """What an annotation asks for."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(in_words, arguments))
    if origin is dict:
        return f"entries `{in_words(arguments[0])}: {in_words(arguments[1])}`"
    if origin is not None:
        return f"a list, each entry {in_words(arguments[0])}"
    if kind is NoneType:
        return "null"
    return WORDS.get(kind, getattr(kind, "__name__", str(kind)))
