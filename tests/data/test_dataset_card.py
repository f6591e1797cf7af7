"""The card of a built dataset."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hf_talking_points.data.build_plan import BuildOptions
from hf_talking_points.data.dataset_card import (
    OPTIONAL,
    count_table,
    dataset_card,
    shareable_kind,
    without_folders,
)
from hf_talking_points.data.teachers import RuleTeacher
from hf_talking_points.metrics import distinct_n

COLUMNS = ["image_id", "object", "part", "stratum", "style", "description"]


def write_build(folder, rejects=()):
    """The files that a card is made from: two photos, four rows."""
    (folder / "data").mkdir()
    for split, texts in {
        "train": ["a b c", "A b d"],
        "test": ["word " * 12, "e"],
    }.items():
        table = {
            "image_id": [split] * 2,
            "object": ["dog", "cat"],
            "part": ["nose"] * 2,
            "stratum": ["given"] * 2,
            "style": ["full"] * 2,
            "description": texts,
            "text_from": ["teacher", "source" if split == "test" else "teacher"],
            "false_claims": [[], [{"kind": "color", "phrase": "blue"}]],
            "fallback": [None, "invents: 'paw'" if split == "train" else None],
            "localization_distance": [0.05, 0.3],
        }
        pq.write_table(pa.table(table), folder / "data" / f"{split}-00000.parquet")
    lines = [
        json.dumps({"image": image, "reason": reason}) + "\n"
        for image, reason in rejects
    ]
    (folder / "rejects.jsonl").write_text("".join(lines))
    return folder


def test_the_card_counts_what_the_files_hold(tmp_path):
    folder = write_build(
        tmp_path, [("a.jpg", "size: wrong"), ("b.jpg", "size: wrong too")]
    )
    columns = [*COLUMNS, *OPTIONAL]
    card = dataset_card(
        folder, BuildOptions("cc0-1.0"), RuleTeacher(), columns, "0123" * 16
    )
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "cc0-1.0"
    [config] = head["configs"]
    assert [files["split"] for files in config["data_files"]] == ["train", "test"]
    assert "| train | 1 | 2 |" in card
    assert "| validation | 0 | 0 |" in card
    assert "| dog | 2 |" in card
    assert "| 0–9 | 3 |\n| 10–19 | 1 |" in card
    assert "| full | 2 | 0.2" in card
    assert "| full, of the sources | 1 | 0.000 | 0.0 |" in card
    assert "| full | 0.0 | 0.0 |" in card
    assert "| full, of the sources | 100.0 | 0.0 | 0.0 | 0.0 | 100.0 |" in card
    assert "| full, rule-based instead | 1 | 0.0 | 0.300 |" in card
    assert "- 1: invents\n" in card
    assert "- 2: size\n" in card
    assert "may not be passed on" in card
    assert "samples.jpg" not in card


def test_the_content_is_part_of_the_head_of_the_card(tmp_path):
    folder = write_build(tmp_path)
    heads = set()
    for content in ("a" * 64, "b" * 64):
        card = dataset_card(
            folder, BuildOptions("cc0-1.0"), RuleTeacher(), COLUMNS, content
        )
        heads.add(card.split("---")[1])
    assert len(heads) == 2


def test_the_card_names_what_lies_on_this_machine_by_its_last_part(
    tmp_path, monkeypatch
):
    folder = write_build(
        tmp_path, [("a.jpg", f"{tmp_path}/jane doe/a.jpg does not exist")]
    )
    (tmp_path / "runs" / "localizer").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    teacher = RuleTeacher()
    teacher.info = {
        "text": "/home/jane doe/models/writer",
        "vision": "someone/vision-model",
    }
    for localizer in (
        "runs/localizer",
        str(tmp_path / "runs" / "localizer"),
        "./runs/localizer/",
    ):
        options = BuildOptions("cc0-1.0", localizer=localizer)
        card = dataset_card(folder, options, teacher, COLUMNS, "")
        assert '"localizer": "localizer"' in card
        assert '"text": "writer"' in card
        assert '"vision": "someone/vision-model"' in card
        assert "- 1: the photo does not exist" in card
        assert "jane" not in card
        assert str(tmp_path) not in card


@pytest.mark.parametrize(
    "value, shown",
    [
        ("someone/model", "someone/model"),
        ("/home/jane/model/", "model"),
        ("~/model", "model"),
        ("C:\\Users\\jane\\model", "model"),
        ("file:///home/jane/model", "model"),
        ("../model", "model"),
        (["/home/jane/model", 3], ["model", 3]),
        ("https://example.org/v1", "https://example.org/v1"),
    ],
)
def test_folders_are_left_out_of_names(value, shown):
    assert without_folders({"name": value}) == {"name": shown}


def test_folders_are_left_out_of_keys():
    assert without_folders({"/home/jane/model": None}) == {"model": None}


@pytest.mark.parametrize(
    "reason, kind",
    [
        ("size: 3 instead of 4", "size"),
        ("/home/jane doe/b/a.jpg does not exist", "the photo does not exist"),
        ("C:\\Users\\jane\\a.jpg does not exist", "the photo does not exist"),
        ("/home/jane/coco.json, annotations[17]: no mask", "coco.json, annotations"),
        (
            "left ear: (311.0, -12.0) lies outside the photo of 381 x 253 pixels",
            "lies outside the photo",
        ),
        ("line 3 has a name that is not UTF-8", "line has a name that is not UTF-8"),
    ],
)
def test_reasons_are_counted_without_what_is_peculiar_to_a_photo(reason, kind):
    assert shareable_kind(reason, "b/a.jpg") == kind


def test_long_tables_end_with_a_sum():
    counts = Counter({f"part {number}": 2 for number in range(32)})
    lines = count_table("part", counts).splitlines()
    assert len(lines) == 2 + 30 + 1
    assert lines[-1] == "| 2 more | 4 |"


def test_diversity():
    assert distinct_n(["a b c", "A b d"]) == 3 / 4
    assert distinct_n(["word"]) == 0
    assert distinct_n(["a b", "b a"], 1) == 1 / 2
