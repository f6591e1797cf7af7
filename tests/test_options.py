"""Options of files and dataclasses are taken as they are meant, or refused by name."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from hf_talking_points.data.build_plan import BuildOptions
from hf_talking_points.evaluation.protocol import EvaluationOptions
from hf_talking_points.options import check_kinds, check_names, read_options


@dataclass
class Options:
    name: str = "a"
    count: int | None = None
    share: float = 0.5
    controls: bool = True
    styles: Sequence[str] = ("full",)
    points: dict[str, int] = field(default_factory=dict)
    anything: Any = None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"count": 3, "share": 1, "controls": False},
        {"styles": ["full", "terse"], "points": {"given": 1}, "anything": {1, 2}},
        {"styles": []},
    ],
)
def test_values_of_the_kind_are_taken(given):
    check_kinds(Options(**given))


@pytest.mark.parametrize(
    "name, value, asked",
    [
        ("name", None, "text"),
        ("count", "2", "a whole number or null"),
        ("count", 1.5, "a whole number or null"),
        ("count", True, "a whole number or null"),
        ("share", "0.1", "a number"),
        ("controls", "false", "true or false"),
        ("controls", 0, "true or false"),
        ("styles", "full", "a list, each entry text"),
        ("styles", [1], "a list, each entry text"),
        ("points", ["given"], "entries `text: a whole number`"),
        ("points", {"given": "1"}, "entries `text: a whole number`"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(name, value, asked):
    with pytest.raises(ValueError) as error:
        check_kinds(Options(**{name: value}))
    assert str(error.value) == f"{name} must be {asked}, got {value!r}"


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize("name", ["unit_photos", "most_per_part"])
def test_a_build_of_units_without_photos_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        BuildOptions("cc0-1.0", **{name: value})


def test_options_of_build_and_evaluation_are_of_their_kinds():
    with pytest.raises(ValueError, match="images_may_be_shared must be true or false"):
        BuildOptions("cc0-1.0", images_may_be_shared="false")
    with pytest.raises(ValueError, match="controls must be true or false, got 'no'"):
        EvaluationOptions("photos", "report", controls="no")
    with pytest.raises(ValueError, match="styles must be a list, .* got 'full,terse'"):
        EvaluationOptions("photos", "report", styles="full,terse")


def test_a_report_goes_to_a_path_of_any_kind(tmp_path):
    assert EvaluationOptions("photos", tmp_path).output == tmp_path
    with pytest.raises(ValueError, match="output must be text or PathLike, got 3"):
        EvaluationOptions("photos", 3)


def test_an_unknown_name_comes_with_the_nearest_known_one():
    check_names(["seed"], ["seed", "style"], "options")
    with pytest.raises(
        ValueError, match="options: 'sede' is unknown: did you mean 'seed'"
    ):
        check_names(["seed", "sede"], ["seed", "style"], "options")
    with pytest.raises(ValueError, match="'q' is unknown: choose from seed, style"):
        check_names(["q"], ["seed", "style"], "options")


def test_entries_of_a_file(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("a: 1\nb: [2, 3]\n")
    assert read_options(file) == {"a": 1, "b": [2, 3]}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "found nothing"),
        (b"# to do\n", "found nothing"),
        (b"- a\n", "found a list"),
        (b"word\n", "found a str"),
        (b"a: 1\na: 2\n", "'a' comes twice"),
        (b"a: {b: 1, b: 2}\n", "'b' comes twice"),
        (b"? [a, b]\n: 1\n", "is not a YAML file of options"),
        (b"a: [1\n", "is not a YAML file of options"),
        (b"a: \xff\n", "is not a YAML file of options"),
        (b"a: !!python/object/apply:os.getcwd []\n", "is not a YAML file of options"),
    ],
)
def test_what_holds_no_entries_is_refused_with_its_file(tmp_path, content, message):
    file = tmp_path / "options.yaml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"options\.yaml.*{message}") as error:
        read_options(file)
    assert "\n" not in message and str(file) in str(error.value)
