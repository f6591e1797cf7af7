"""Reading `objects.jsonl`, and folders and built datasets alike."""

import json
import logging

import datasets
import pytest
from PIL import Image
from reading import GONE, changed, rejected

from hf_talking_points.data import sources
from hf_talking_points.data.sources import (
    AnnotatedObject,
    PartPoint,
    read_objects,
    read_photos,
    split_of,
)

NOT_A_NUMBER = float("nan")
ROW = {
    "image": "images/a.png",
    "size": [40, 20],
    "category": "dog",
    "object_box": [1, 2, 30, 18],
    "points": [["left_eye", 5, 6]],
}
WHEEL = ["wheel", 7, 8, [5, 6, 9, 10]]


def write(folder, *lines):
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "objects.jsonl").write_text("\n".join(texts))
    return folder


def test_objects_of_one_photo_come_together(tmp_path):
    other = {**ROW, "image": "images/b.png"}
    cat = {**ROW, "category": "cat", "points": [WHEEL, ["nose", 99, 3]]}
    photos = read_objects(write(tmp_path, ROW, other, cat))
    assert [photo.id for photo in photos] == ["images/a.png", "images/b.png"]
    assert photos[0].path == str(tmp_path / "images/a.png")
    dog, cat = photos[0].objects
    assert (dog.category, cat.category) == ("dog", "cat")
    assert dog.points == (PartPoint("left eye", 5.0, 6.0),)
    # the nose lies outside the photo
    assert cat.points == (PartPoint("wheel", 7.0, 8.0, (5, 6, 9, 10)),)


@pytest.mark.parametrize(
    "name",
    ["../private.png", "images/../../private.png", "{root}/private.png", "link.png"],
)
def test_a_name_that_leads_out_of_the_folder_is_rejected(tmp_path, name):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "private.png")
    (folder / "link.png").symlink_to(tmp_path / "private.png")
    name = name.format(root=tmp_path)
    write(folder, ROW, {**ROW, "image": name})
    reasons = {}
    [photo] = read_objects(folder, on_reject=reasons.__setitem__)
    assert photo.id == ROW["image"]
    assert list(reasons) == [name]
    assert "field 'image': expected a file in" in reasons[name]


def test_a_folder_behind_a_link_is_read(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    write(tmp_path / "there", ROW)
    [photo] = read_objects(tmp_path / "here")
    assert photo.path == str(tmp_path / "here" / ROW["image"])


def test_names_are_in_words(tmp_path):
    points = [["near_eye", 5, 6], ["TailBase", 7, 8], ["hoof (L)", 9, 9]]
    row = {**ROW, "category": "Wild_Horse ", "points": points}
    [photo] = read_objects(write(tmp_path, row))
    [horse] = photo.objects
    assert horse.category == "wild horse"
    assert [point.part for point in horse.points] == [
        "left eye",
        "tail base",
        "left hoof",
    ]


@pytest.mark.parametrize(
    "place, value, reason",
    [
        ([], "{", "line 2: JSONDecodeError"),
        ([], "[]", "line 2: expected an object with field 'image', found"),
        ([], "NaN", "line 2: expected an object with field 'image', found nan"),
        (["image"], GONE, "line 2: field 'image': expected str, found no such field"),
        (["image"], None, "line 2: field 'image': expected str, found None"),
        (["size"], [40], "line 2: field 'size': expected two whole numbers"),
        (
            ["size"],
            [40, 0],
            "line 2: field 'size': expected two whole numbers of at least 1",
        ),
        (
            ["size"],
            [40, -20],
            "line 2: field 'size': expected two whole numbers of at least 1",
        ),
        (["size"], [40, "20"], "line 2: field 'size': expected two whole numbers"),
        (["size"], [40, True], "line 2: field 'size': expected two whole numbers"),
        (
            ["size"],
            [40, NOT_A_NUMBER],
            "line 2: field 'size': expected two whole numbers",
        ),
        (["size"], [40, 20.5], "line 2: field 'size': expected two whole numbers"),
        (["size"], "40x20", "line 2: field 'size': expected list"),
        (["category"], GONE, "line 2: field 'category': expected str"),
        (["category"], 3, "line 2: field 'category': expected str, found 3"),
        (["category"], " ()", "line 2: field 'category': expected a name"),
        (["object_box"], GONE, "line 2: field 'object_box': expected list"),
        (
            ["object_box"],
            [1, 2, 30],
            "line 2: field 'object_box': expected a list of 4 numbers",
        ),
        (
            ["object_box"],
            [1, 2, 30, None],
            "'object_box': expected a list of 4 numbers",
        ),
        (
            ["object_box"],
            [1, 2, 30, NOT_A_NUMBER],
            "'object_box': expected a list of 4 numbers",
        ),
        (["object_box"], [1, 2, 1, 18], "dog: box .* has no area"),
        (
            ["object_box"],
            [50, 2, 60, 18],
            "dog: box .* lies outside the photo of 40 x 20",
        ),
        (["points"], 3, "line 2: field 'points': expected list, found 3"),
        (["points"], GONE, "line 2: field 'points': expected list"),
        (["points", 0], "nose", r"line 2, points\[0\]: expected \[part, x, y\]"),
        (["points", 0], ["nose", 5], r"line 2, points\[0\]: expected \[part, x, y\]"),
        (
            ["points", 0],
            ["nose", 5, 6, None, 7],
            r"points\[0\]: expected \[part, x, y\]",
        ),
        (["points", 0, 0], None, r"points\[0\]: field 'part': expected str"),
        (["points", 0, 0], "_", r"points\[0\]: field 'part': expected a name"),
        (
            ["points", 0, 1],
            "x",
            r"points\[0\]: field 'x': expected a number, found 'x'",
        ),
        (
            ["points", 0, 1],
            True,
            r"points\[0\]: field 'x': expected a number, found True",
        ),
        (["points", 0, 2], NOT_A_NUMBER, r"points\[0\]: field 'y': expected a number"),
        (["points", 0, 2], 10**400, r"points\[0\]: field 'y': expected a number"),
        (
            ["points", 0],
            ["nose", 5, 6, [1, 2]],
            r"field 'box': expected a list of 4 numbers",
        ),
    ],
)
def test_a_line_that_does_not_fit_is_rejected_and_the_rest_read(
    tmp_path, place, value, reason
):
    bad = {**ROW, "image": "b.png"}
    line = changed(bad, place, value) if place else value
    folder = write(tmp_path, ROW, line, {**ROW, "image": "c.png"})
    photos, records = rejected(read_objects, folder)
    assert [photo.id for photo in photos] == ["images/a.png", "c.png"]
    known = "objects.jsonl" if not place or place == ["image"] else "b.png"
    assert {image_id for image_id, _ in records} == {known}
    with pytest.raises(ValueError, match=reason):
        read_objects(folder)


def test_a_bad_line_of_a_photo_leaves_its_other_lines(tmp_path):
    folder = write(tmp_path, {**ROW, "points": 3}, ROW)
    [photo], [(image_id, _)] = rejected(read_objects, folder)
    assert len(photo.objects) == 1 and image_id == photo.id


def test_a_name_that_is_not_utf8_is_rejected(tmp_path):
    folder = write(
        tmp_path, ROW, {**ROW, "image": "e.png"}, {**ROW, "category": "caf?"}
    )
    content = (folder / "objects.jsonl").read_bytes()
    content = content.replace(b"e.png", b"\xe9.png").replace(b"caf?", b"caf\xe9")
    (folder / "objects.jsonl").write_bytes(content)
    [photo], records = rejected(read_objects, folder)
    assert photo.objects[0].category == "dog"
    [(first, first_reason), (second, second_reason)] = records
    assert (first, second) == ("\\udce9.png", "images/a.png")
    assert first_reason.startswith("line 2: field 'image': expected UTF-8")
    assert second_reason.startswith("line 3: field 'category': expected UTF-8")
    json.dumps(records).encode()
    with pytest.raises(ValueError, match="expected UTF-8"):
        read_objects(folder)


def test_what_lies_beside_the_photo_is_rejected_alone(tmp_path):
    part_beside = [["nose", 5, 5], ["wheel", 7, 8, [5, 26, 9, 30]]]
    folder = write(tmp_path, ROW, {**ROW, "image": "d.png", "points": part_beside})
    photos, records = rejected(read_objects, folder)
    assert [point.part for point in photos[1].objects[0].points] == ["nose"]
    reason = (
        "wheel: box (5.0, 26.0, 9.0, 30.0) lies outside the photo of 40 x 20 pixels"
    )
    assert records == [("d.png", reason)]


@pytest.mark.parametrize(
    "box, clipped",
    [
        ([-6, 4, 30, 18], (0, 4, 30, 18)),
        ([10, 4, 46.5, 18], (10, 4, 40, 18)),
        ([-3, -3, 43, 24], (0, 0, 40, 20)),
    ],
)
def test_boxes_that_stick_out_are_clipped(tmp_path, box, clipped):
    points = [["nose", 12, 12, box], ["tail", 1, 1]]
    [photo] = read_objects(
        write(tmp_path, {**ROW, "object_box": box, "points": points})
    )
    nose = PartPoint("nose", 12, 12, clipped)
    assert photo.objects == (
        AnnotatedObject("dog", clipped, (nose, PartPoint("tail", 1, 1))),
    )


@pytest.mark.parametrize(
    "points", [[], [["nose", 99, 3]], [["nose", 5, -1], ["ear", -1, 5]]]
)
def test_a_photo_keeps_its_box_without_a_point_on_it(tmp_path, points):
    folder = write(tmp_path, {**ROW, "image": "b.png", "points": points}, ROW)
    bare, _ = read_objects(folder)
    assert bare.objects == (AnnotatedObject("dog", (1, 2, 30, 18)),)
    _, records = rejected(read_objects, folder)
    assert len(records) == len(points)


def test_a_class_without_a_box_is_one_of_the_photo(tmp_path):
    row = {**ROW, "category": "Golden_Retriever", "object_box": None, "points": []}
    other = {**row, "category": "ball", "fine_category": "tennis ball"}
    [photo] = read_objects(write(tmp_path, row, other, row))
    assert photo.objects == () and photo.points == ()
    assert photo.classes == ("golden retriever", "ball", "tennis ball")


def test_a_fine_category_is_a_class_of_the_photo(tmp_path):
    [photo] = read_objects(write(tmp_path, {**ROW, "fine_category": "basset"}))
    assert photo.classes == ("basset",) and photo.objects[0].category == "dog"


def test_a_part_box_without_its_object_is_rejected(tmp_path):
    row = {**ROW, "object_box": None, "points": [WHEEL, ["handle", 5, 6]]}
    [photo], records = rejected(read_objects, write(tmp_path, row))
    assert photo.points == (PartPoint("handle", 5, 6),)
    reason = "line 1: box of 'wheel' without the box of its object"
    assert records == [("images/a.png", reason)]


def write_more(folder, *rows):
    (folder / "parts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def read_two_files(folder, **options):
    return read_objects(folder, more=["parts.jsonl"], **options)


def test_objects_of_two_files_are_joined(tmp_path):
    write(tmp_path, ROW)
    eye = ["eye", 5.5, 6.5, [4, 5, 7, 8]]
    same = {**ROW, "object_box": [2, 2, 30, 18], "points": [eye, WHEEL]}
    other_kind = {**same, "category": "cat"}
    elsewhere = {**same, "object_box": [20, 2, 40, 18], "points": []}
    other_photo = {**ROW, "image": "b.png"}
    write_more(tmp_path, same, other_kind, elsewhere, other_photo)
    first, second = read_two_files(tmp_path)
    dog, cat, far = first.objects
    assert dog.box == (1, 2, 30, 18)
    # the eye's box belongs to the left eye, which lies in it
    assert dog.points == (
        PartPoint("left eye", 5, 6, (4, 5, 7, 8)),
        PartPoint("wheel", 7, 8, (5, 6, 9, 10)),
    )
    assert cat.category == "cat" and len(cat.points) == 2
    assert far.box == (20, 2, 40, 18)
    assert second.id == "b.png"


def test_two_objects_of_one_file_stay_two(tmp_path):
    write(tmp_path, ROW, ROW)
    write_more(tmp_path, {**ROW, "points": [WHEEL]})
    [photo] = read_two_files(tmp_path)
    assert [len(one.points) for one in photo.objects] == [2, 1]


def test_a_bad_line_of_a_second_file_names_that_file(tmp_path):
    write(tmp_path, ROW)
    write_more(tmp_path, {**ROW, "category": "()"}, {**ROW, "size": [1, 1]})
    _, records = rejected(read_two_files, tmp_path)
    assert [reason.partition(":")[0] for _, reason in records] == [
        "parts.jsonl, line 1",
        "parts.jsonl, line 2",
    ]
    with pytest.raises(FileNotFoundError, match="more.jsonl"):
        read_objects(tmp_path, more=["more.jsonl"])


def test_the_split_of_objects_is_the_rule_whatever_the_publisher_says(tmp_path):
    names = [f"{number}.png" for number in range(40)]
    rows = [{**ROW, "image": name, "split": "train"} for name in names]
    splits = [photo.split for photo in read_objects(write(tmp_path, *rows))]
    assert splits == [split_of(name) for name in names]
    assert len(set(splits)) > 1


def test_a_line_that_disagrees_about_its_photo_is_rejected(tmp_path):
    folder = write(tmp_path, ROW, {**ROW, "size": [40, 21]})
    [photo], _ = rejected(read_objects, folder)
    assert photo.size == (40, 20) and len(photo.objects) == 1
    message = r"line 2: field 'size': expected \(40, 20\).*, found \(40, 21\)"
    with pytest.raises(ValueError, match=message):
        read_objects(folder)


def test_sizes_may_be_written_with_a_point(tmp_path):
    [photo] = read_objects(write(tmp_path, {**ROW, "size": [40.0, 20.0]}, ROW))
    assert photo.size == (40, 20) and len(photo.objects) == 2


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="objects.jsonl"):
        read_objects(tmp_path)


@pytest.mark.parametrize("separator", ["", "\u2028", "\u2029", "\x85"])
def test_lines_are_read_as_other_programs_write_them(tmp_path, separator):
    name = f"lens{separator}cap"
    rows = [{**ROW, "points": [[name, 5, 6]]}, {**ROW, "image": "b.png"}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "\ufeff" + "\r\n\r\n".join(lines) + "\r\n \r\n"
    (tmp_path / "objects.jsonl").write_bytes(text.encode())
    first, second = read_objects(tmp_path)
    assert first.objects[0].points[0].part == name
    assert second.id == "b.png"
    (tmp_path / "objects.jsonl").write_bytes(text.encode() + b"{")
    with pytest.raises(ValueError, match="line 5: JSONDecodeError"):
        read_objects(tmp_path)


def test_photos_of_a_folder_and_of_a_built_dataset(tmp_path, caplog):
    folder = tmp_path / "folder"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(folder / "images" / "a.png")
    write(folder, ROW, "{", {**ROW, "size": 3})
    with caplog.at_level(logging.WARNING):
        [photo] = read_photos(folder)
    assert photo.open().size == (40, 20)
    assert "2 left out, first objects.jsonl: line 2: JSONDecodeError" in caplog.text

    columns = {"image": [photo.path], "image_id": ["a"], "point": [[5.0, 6.0]]}
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    dataset.to_parquet(tmp_path / "built" / "data" / "test-00000.parquet")
    [photo] = read_photos(tmp_path / "built")
    assert (photo.id, photo.split) == ("a", "test")
    assert photo.points == (PartPoint(None, 5, 6),)


def test_all_readers_are_at_hand():
    for name in sources.__all__:
        assert hasattr(sources, name)
