"""Files of descriptions: what is read, what is refused, and which photo a name means."""

import json

import pytest
from PIL import Image

from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo
from hf_talking_points.data.triplets import make_views
from hf_talking_points.evaluation.written_descriptions import WrittenDescriptions

BOX = (0.0, 0.0, 40.0, 30.0)


def line(image="a.png", point=(5, 6), description="the nose"):
    return json.dumps({"image": image, "point": point, "description": description})


@pytest.fixture
def written(tmp_path):
    """Makes a file of lines and reads it."""

    def read(*lines):
        file = tmp_path / "people.jsonl"
        file.write_text("\n".join(lines) + "\n")
        return WrittenDescriptions(file)

    return read


@pytest.fixture
def photo(tmp_path):
    """Makes a photo of one color with points."""

    def make(image_id, color, *places):
        path = tmp_path / image_id.replace("/", "_")
        Image.new("RGB", (40, 30), color).save(path)
        points = tuple(PartPoint("nose", float(x), float(y)) for x, y in places)
        objects = (AnnotatedObject("dog", BOX, points),)
        return Photo(image_id, str(path), (40, 30), objects, "test")

    return make


def texts_of(written, photos):
    return written.of(make_views(photos), photos)


def test_each_point_gets_its_text(written, photo, caplog):
    photos = [photo("a.png", "red", (5, 6), (7, 8)), photo("b.png", "blue", (5, 6))]
    read = written(line(), line("b.png", [5.001, 6.004], "another nose"))
    assert texts_of(read, photos) == [["the nose", ""], ["another nose"]]
    assert not caplog.records


def test_points_on_no_object_get_their_texts_too(written, photo):
    bare = Photo(
        "a.png",
        photo("a.png", "red").path,
        (40, 30),
        (),
        "test",
        points=(PartPoint(None, 5.0, 6.0),),
    )
    assert texts_of(written(line()), [bare]) == [["the nose"]]


def test_a_name_of_two_photos_is_an_error(written, photo):
    photos = [photo("red/1.png", "red", (5, 6)), photo("blue/1.png", "blue", (5, 6))]
    with pytest.raises(
        ValueError, match=r"'1\.png' may be any of .*'blue/1\.png', 'red/1\.png'"
    ):
        texts_of(written(line("1.png")), photos)
    assert texts_of(written(line("blue/1.png")), photos) == [[""], ["the nose"]]


def test_one_id_of_two_photos_is_an_error(written, photo):
    red = photo("1.png", "red", (5, 6))
    blue = photo("2.png", "blue", (5, 6))
    twins = [red, Photo("1.png", blue.path, blue.size, blue.objects, "test")]
    with pytest.raises(ValueError, match=r"'1\.png' may be any of"):
        texts_of(written(line("1.png")), twins)


def test_a_photo_of_another_split_is_ambiguous_too(written, photo):
    red = photo("red/1.png", "red", (5, 6))
    blue = photo("blue/1.png", "blue", (5, 6))
    with pytest.raises(ValueError, match="may be any of"):
        written(line("1.png")).of(make_views([red]), [red, blue])


def test_copies_of_one_photo_are_no_ambiguity(written, photo):
    photos = [photo("red/1.png", "red", (5, 6)), photo("again/1.png", "red", (5, 6))]
    assert texts_of(written(line("1.png")), photos) == [["the nose"], ["the nose"]]


def test_the_end_of_an_id_is_enough_where_one_photo_has_it(written, photo):
    photos = [photo("red/1.png", "red", (5, 6)), photo("red/11.png", "blue", (5, 6))]
    assert texts_of(written(line("1.png")), photos) == [["the nose"], [""]]


@pytest.mark.parametrize("unused", [line("c.png"), line(point=(9, 9))])
def test_texts_of_nothing_in_the_dataset_are_told(written, photo, caplog, unused):
    photos = [photo("a.png", "red", (5, 6))]
    assert texts_of(written(line(), unused), photos) == [["the nose"]]
    assert "1 of 2 descriptions are of no annotated point of the dataset" in caplog.text


@pytest.mark.parametrize(
    "wrong, message",
    [
        ('{"image": "a.png"}', "point is missing"),
        ('{"image": "a.png", "point": [1, 2]}', "description is missing"),
        ("[1, 2]", "no object in braces"),
        ("{", "Expecting"),
        (line(image=3), "image is no text"),
        (line(description=None), "description is no text"),
        (line(point=[10, 20, 30, 40]), r"point is no \(x, y\)"),
        (line(point=[10, 20, 2]), r"point is no \(x, y\)"),
        (line(point=[10]), r"point is no \(x, y\)"),
        (line(point=[10, None]), r"point is no \(x, y\)"),
        (line(point=[10, "20"]), r"point is no \(x, y\)"),
        (line(point=[10, True]), r"point is no \(x, y\)"),
        (line(point=[[10, 20], [30, 40]]), r"point is no \(x, y\)"),
        (line(point={"x": 10, "y": 20}), r"point is no \(x, y\)"),
        (line(point="10, 20"), r"point is no \(x, y\)"),
        (line(point=[float("nan"), 20]), r"point is no \(x, y\)"),
        (line(point=[10, float("inf")]), r"point is no \(x, y\)"),
        (line(description="other words"), "for a second time"),
    ],
)
def test_other_lines_are_errors_that_name_them(written, wrong, message):
    with pytest.raises(ValueError, match=rf"people\.jsonl, line 2: (?s:.*){message}"):
        written(line(), wrong)


def test_the_same_line_twice_is_no_error(written):
    assert written(line(), line()).texts == {("a.png", 5, 6): "the nose"}


@pytest.mark.parametrize("separator", ["", "\u2028", "\u2029", "\x85"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content,
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b"\n\n  \n"),
        lambda content: content.rstrip(b"\n"),
    ],
    ids=["plain", "byte order mark", "CRLF", "blank lines", "no line break at the end"],
)
def test_lines_as_other_programs_write_them(tmp_path, change, separator):
    rows = []
    for image in ("a.png", "b.png"):
        row = {"image": image, "point": [5, 6], "description": f"left{separator}eye"}
        rows.append(json.dumps(row, ensure_ascii=False))
    file = tmp_path / "people.jsonl"
    file.write_bytes(change("\n".join([*rows, ""]).encode()))
    text = f"left{separator}eye"
    assert WrittenDescriptions(file).texts == {
        ("a.png", 5, 6): text,
        ("b.png", 5, 6): text,
    }


def test_blank_lines_count(written):
    with pytest.raises(ValueError, match="line 4"):
        written(line(), "", "", "{")


def test_the_fingerprint_follows_the_content(written):
    first = written(line()).fingerprint
    assert (
        written(line(description="x")).fingerprint
        != first
        == written(line()).fingerprint
    )
