"""Texts that people or programs wrote on points of a folder."""

import json

import pytest
from reading import rejected

from hf_talking_points.data.photos import PartPoint
from hf_talking_points.data.sources import read_objects

OBJECT = {
    "image": "images/a.png",
    "size": [40, 20],
    "category": "dog",
    "object_box": [1, 2, 30, 18],
    "points": [["left_eye", 5, 6], ["head", 9.25, 6], ["ear", 9.25, 6]],
}
EAR = "The dog's ear."
LINE = {"image": "images/a.png", "point": [5, 6], "description": EAR}


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of one photo, with texts."""

    def make(*lines):
        (tmp_path / "objects.jsonl").write_text(json.dumps(OBJECT))
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "texts.jsonl").write_text("\n".join(texts))
        return tmp_path

    return make


def texts_of_points(photo):
    points = [*photo.objects[0].points, *photo.points]
    return {(point.part, point.x): point.texts for point in points if point.texts}


def test_a_text_is_of_the_annotated_point_at_its_place(folder):
    texts = {"rich": "A dog, and the spot is on its eye.", "short": "The eye."}
    line = {"image": "images/a.png", "point": [5.001, 6], "texts": texts}
    [photo] = read_objects(folder(line))
    assert texts_of_points(photo) == {("left eye", 5): tuple(texts.items())}


def test_names_tell_which_of_two_points_is_meant(folder):
    named = {**LINE, "point": [9.25, 6], "part": "Ear", "category": "dog"}
    [photo] = read_objects(folder(named))
    assert texts_of_points(photo) == {("ear", 9.25): (("full", EAR),)}
    unnamed = {**LINE, "point": [9.25, 6], "part": None}
    [photo] = read_objects(folder(unnamed))
    assert texts_of_points(photo) == {("head", 9.25): (("full", EAR),)}


def test_a_text_at_any_other_place_brings_a_point_on_no_object(folder):
    line = {**LINE, "point": [12, 9], "part": "paw", "style": "mine"}
    again = {**line, "description": "The floor.", "style": "mine"}
    [photo] = read_objects(folder(line, again, line))
    texts = (("mine", EAR), ("mine", "The floor."))
    assert photo.points == (PartPoint(None, 12, 9),)
    assert photo.points[0].texts == texts


def test_an_image_may_be_named_by_its_end(folder):
    [photo] = read_objects(folder({**LINE, "image": "a.png"}))
    assert texts_of_points(photo) == {("left eye", 5): (("full", EAR),)}


def test_texts_of_other_files_are_asked_for_by_name(folder, tmp_path):
    root = folder(LINE)
    [bare] = read_objects(root, texts=[])
    assert texts_of_points(bare) == {}
    other = tmp_path / "people.jsonl"
    other.write_text(json.dumps({**LINE, "style": "people"}))
    [photo] = read_objects(root, texts=["texts.jsonl", "people.jsonl"])
    texts = (("full", EAR), ("people", EAR))
    assert texts_of_points(photo) == {("left eye", 5): texts}
    with pytest.raises(FileNotFoundError, match="nobody.jsonl"):
        read_objects(root, texts=["nobody.jsonl"])


@pytest.mark.parametrize(
    "bad, reason",
    [
        ("{", "texts.jsonl, line 1: Expecting property name"),
        ("[]", "texts.jsonl, line 1: no object in braces"),
        ({"image": "images/a.png"}, "texts.jsonl, line 1: point is missing"),
        ({**LINE, "point": [1]}, "line 1: point is no (x, y)"),
        ({**LINE, "description": 3}, "line 1: description is no text"),
        ({**LINE, "style": ""}, "line 1: style is empty"),
        ({**LINE, "texts": {}}, "line 1: texts is no object of styles and texts"),
        ({**LINE, "texts": {"rich": None}}, "that of style 'rich' is no text"),
        ({**LINE, "part": 3}, "line 1: part is no text"),
        ({**LINE, "image": "b.png"}, "line 1: no photo has this name"),
        ({**LINE, "point": [41, 6]}, "lies outside the photo of 40 x 20 pixels"),
        ({**LINE, "description": " "}, "text in style 'full' is empty"),
        ({**LINE, "description": "Das linke Ohr des Hundes"}, "is not English"),
        ({**LINE, "description": "the ear " * 200}, "has 400 words"),
    ],
)
def test_what_cannot_be_used_is_rejected_and_the_rest_read(folder, bad, reason):
    root = folder(bad, LINE)
    [photo], [(_, found)] = rejected(read_objects, root)
    assert reason in found
    assert texts_of_points(photo) == {("left eye", 5): (("full", EAR),)}
    with pytest.raises(ValueError):
        read_objects(root)


def test_of_two_texts_the_english_one_is_kept(folder):
    texts = {"rich": "Das linke Ohr des Hundes", "short": EAR}
    line = {"image": "images/a.png", "point": [5, 6], "texts": texts}
    [photo], [(image, reason)] = rejected(read_objects, folder(line))
    assert image == "images/a.png" and "style 'rich'" in reason
    assert texts_of_points(photo) == {("left eye", 5): (("short", EAR),)}
