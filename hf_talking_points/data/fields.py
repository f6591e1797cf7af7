"""Fields of records that others wrote, each checked.

A ValueError says where the record is, which field does not fit, what was expected and what was found.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")
LARGEST = 2**53  # floats hold whole numbers exactly up to it


def misfit(where: str, name: str, expected: str, found: Any) -> ValueError:
    """The error for a field that does not fit."""
    return ValueError(
        f"{where}: field {name!r}: expected {expected}, found {reprlib.repr(found)}"
    )


def file_inside(folder: Path, name: str, field: str, where: str) -> Path:
    """`folder / name`. Raises ValueError where that leads out of the folder, by "..", from the root, or by a link."""
    file = folder / name
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        raise misfit(where, field, f"a file in {folder}", name)
    return file


def is_utf8(text: str) -> bool:
    """Whether a text, read with "surrogateescape", was UTF-8."""
    return SURROGATE.search(text) is None


def printable(text: str) -> str:
    """A text with the bytes that are not UTF-8 escaped."""
    return text.encode(errors="backslashreplace").decode()


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -LARGEST <= value <= LARGEST


def value_of(record: Any, name: str, kind: type, where: str) -> Any:
    """`record[name]`, which must be a `kind`."""
    if not isinstance(record, Mapping):
        raise ValueError(
            f"{where}: expected an object with field {name!r}, found {reprlib.repr(record)}"
        )
    if name not in record:
        expected = "a value" if kind is object else kind.__name__
        raise ValueError(
            f"{where}: field {name!r}: expected {expected}, found no such field"
        )
    value = record[name]
    is_truth_value = isinstance(value, bool) and kind is not object
    if is_truth_value or not isinstance(value, kind):
        raise misfit(where, name, kind.__name__, value)
    return value


def text_of(record: Any, name: str, where: str) -> str:
    """`record[name]`, which must be a string in UTF-8."""
    text = value_of(record, name, str, where)
    if not is_utf8(text):
        raise misfit(where, name, "UTF-8", text)
    return text


def number_of(record: Any, name: str, where: str) -> float:
    """`record[name]`, which must be a finite number."""
    value = value_of(record, name, object, where)
    if not is_number(value):
        raise misfit(where, name, "a number", value)
    return float(value)


def numbers_of(record: Any, name: str, count: int, where: str) -> list[float]:
    """`record[name]`, which must be a list of `count` finite numbers."""
    values = value_of(record, name, list, where)
    if len(values) != count or not all(is_number(value) for value in values):
        raise misfit(where, name, f"a list of {count} numbers", values)
    return [float(value) for value in values]


def box_of(record: Any, name: str, where: str) -> tuple[float, float, float, float]:
    """`record[name]`, which must be a list of four numbers: x1, y1, x2, y2."""
    x1, y1, x2, y2 = numbers_of(record, name, 4, where)
    return x1, y1, x2, y2


def box_or_none(
    record: Any, name: str, where: str
) -> tuple[float, float, float, float] | None:
    """[`box_of`], or None where there is no such field or it is null."""
    if record.get(name) is None:
        return None
    return box_of(record, name, where)


def whole_number(value: Any) -> int | None:
    """The value as `int`, or None where it is no whole number."""
    if not is_number(value) or value != int(value):
        return None
    return int(value)


def whole_number_of(record: Any, name: str, where: str) -> int:
    """`record[name]`, which must be a whole number."""
    value = whole_number(value_of(record, name, object, where))
    if value is None:
        raise misfit(where, name, "int", record[name])
    return value


def require_name(name: str, field: str, raw: str, where: str) -> str:
    """A normalized name, which must not be empty."""
    if not name:
        raise misfit(where, field, "a name", raw)
    return name


def record_name(record: Any, field: str, where: str) -> str:
    """What a record is called where it is rejected: the name in a field, or else its place in the file."""
    name = record.get(field) if isinstance(record, dict) else None
    return printable(name) if isinstance(name, str) and name else where
