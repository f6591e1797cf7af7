"""JSON and JSON Lines as other programs write them."""

import json

import pytest

from hf_talking_points.data.json_lines import parse_json, read_json, read_json_lines

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ROWS = [{"image": "a.png"}, {"image": "b.png"}]


def lines_of(path, content):
    path.write_bytes(content)
    return [(number, parse_json(text)) for number, text in read_json_lines(path)]


@pytest.mark.parametrize("line_break", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("start", [b"", BYTE_ORDER_MARK])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n \r\n"])
def test_line_breaks_and_byte_order_marks_are_no_content(
    tmp_path, line_break, start, end
):
    first, second = (json.dumps(row).encode() for row in ROWS)
    content = start + first + line_break + second + end
    assert lines_of(tmp_path / "a.jsonl", content) == [(1, ROWS[0]), (2, ROWS[1])]


def test_blank_lines_are_counted(tmp_path):
    first, second = (json.dumps(row) for row in ROWS)
    content = f"\n{first}\n\n  \t\n{second}\n".encode()
    assert lines_of(tmp_path / "a.jsonl", content) == [(2, ROWS[0]), (5, ROWS[1])]


def test_joined_files_hold_a_byte_order_mark_in_between(tmp_path):
    first, second = (BYTE_ORDER_MARK + json.dumps(row).encode() + b"\n" for row in ROWS)
    assert lines_of(tmp_path / "a.jsonl", first + second) == [
        (1, ROWS[0]),
        (2, ROWS[1]),
    ]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_separators_inside_strings_end_no_line(tmp_path, separator):
    escaped = json.dumps(separator).strip('"') if separator < " " else separator
    content = f'"one{escaped}two"\n"three"\n'.encode()
    assert lines_of(tmp_path / "a.jsonl", content) == [
        (1, f"one{separator}two"),
        (2, "three"),
    ]


def test_bytes_that_are_not_utf8_stay_as_surrogates(tmp_path):
    assert lines_of(tmp_path / "a.jsonl", b'"\xe9.png"') == [(1, "\udce9.png")]


def test_a_file_of_json_may_start_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(BYTE_ORDER_MARK + b'{"a": 1}\r\n')
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "[1,]"])
def test_what_is_no_json_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match="a.json: expected JSON, found"):
        read_json(tmp_path / "a.json")
