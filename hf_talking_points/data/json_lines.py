"""JSON and JSON Lines files as other programs write them.

Bytes that are not UTF-8 stay in strings as lone surrogates, which [`is_utf8`] finds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

BYTE_ORDER_MARK = "\ufeff"


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for anything else."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(file: str | PathLike) -> Any:
    """The content of a JSON file. Raises ValueError naming it where it is no JSON."""
    text = Path(file).read_text(encoding="utf-8", errors="surrogateescape")
    try:
        return parse_json(text.removeprefix(BYTE_ORDER_MARK))
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON, found {error}") from error


def read_json_lines(file: str | PathLike) -> Iterator[tuple[int, str]]:
    """The lines of a JSON Lines file that are not blank, each with its number in the file, counted from 1.

    A byte order mark and the ends of lines, of any operating system, are left out. Line separators of Unicode, which
    JSON allows inside strings, end no line.

    Yields:
        (number, text): what [`parse_json`] takes.
    """
    with open(file, encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(BYTE_ORDER_MARK)
            if text.strip():
                yield number, text.rstrip("\n")
