"""The row format: photos as rows, and sources of every kind as rows, split by photo."""

import json
import logging

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_talking_points.data.builder import BuildOptions, build_dataset
from hf_talking_points.data.photos import AnnotatedObject, PartPoint, Photo, split_of
from hf_talking_points.data.rows import (
    load_photos,
    load_points,
    point_features,
    point_rows,
    tell_apart,
)
from hf_talking_points.data.sources import read_dataset, read_objects

NAMES = [f"{number}.png" for number in range(40)]
TRAIN = [name for name in NAMES if split_of(name) == "train"]
TEST = [name for name in NAMES if split_of(name) == "test"]


def picture(seed, size=(64, 48)):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def write_folder(folder, photos, **fields):
    """A folder with an objects.jsonl; `photos` are (name, seed of its picture)."""
    folder.mkdir(parents=True)
    lines = []
    for name, seed in photos:
        picture(seed).save(folder / name)
        row = {
            "image": name,
            "size": [64, 48],
            "category": "Dog",
            "object_box": [2, 2, 60.5, 40],
            "points": [["left_eye", 10.1, 9], ["nose", 30, 20, [25, 15, 35, 25]]],
            **fields,
        }
        lines.append(json.dumps(row) + "\n")
    (folder / "objects.jsonl").write_text("".join(lines))
    return folder


def rows_of(names, seeds, **columns):
    """A dataset of rows with the columns that are needed, and others."""
    files = [picture(seed) for seed in seeds]
    content = {
        "image": files,
        "image_id": list(names),
        "point": [[5, 6]] * len(files),
        **columns,
    }
    dataset = datasets.Dataset.from_dict(content)
    return dataset.cast_column("image", datasets.Image())


def ids_of(loaded):
    return {split: sorted(set(rows["image_id"])) for split, rows in loaded.items()}


def test_a_folder_becomes_rows_of_the_format(tmp_path):
    folder = write_folder(tmp_path / "photos", [(TRAIN[0], 0), (TEST[0], 1)])
    loaded = load_points(folder)
    assert ids_of(loaded) == {"train": [TRAIN[0]], "test": [TEST[0]]}
    assert loaded["train"].features == point_features()
    eye, nose = loaded["train"]
    image = eye.pop("image")
    assert np.array_equal(image, picture(0))
    assert eye == {
        "image_id": TRAIN[0],
        "point": [10.1, 9.0],
        "description": None,
        "style": None,
        "object": "dog",
        "object_box": [2.0, 2.0, 60.5, 40.0],
        "part": "left eye",
        "part_box": None,
        "stratum": "given",
    }
    assert nose["part_box"] == [25.0, 15.0, 35.0, 25.0]


@pytest.mark.parametrize("kind", ["folder", "dict", "stated", "name"])
def test_a_built_dataset_stays_in_its_splits_and_its_cache(tmp_path, kind):
    photos = [(name, seed) for seed, name in enumerate(TRAIN[:3] + TEST[:2])]
    folder = write_folder(tmp_path / "photos", photos)
    out = tmp_path / "built"
    options = BuildOptions("cc0-1.0", styles=("full", "terse"))
    built = build_dataset([lambda on_reject: read_objects(folder)], out, options)
    if kind == "folder":
        source = out
    elif kind == "name":
        source = str(out)
    elif kind == "dict":
        source = built
    else:
        source = [built["train"], built["test"]]
    loaded = load_points(source)
    assert list(loaded) == ["train", "test"]
    for split, rows in loaded.items():
        assert rows.features == point_features()
        assert len(rows) == len(built[split])
        assert rows.cache_files
        for column in ("image_id", "point", "description", "style", "part_box"):
            assert rows[column] == built[split][column]


def test_the_least_that_a_row_needs():
    dataset = rows_of(["a.png", "b.png"], [0, 1]).remove_columns("image_id")
    loaded = load_points(dataset)
    rows = [row for split in loaded.values() for row in split]
    assert len({row["image_id"] for row in rows}) == 2
    for row in rows:
        assert row["point"] == [5.0, 6.0]
        assert row["description"] is None
        assert row["object"] is None
        photo = next(read_dataset(datasets.Dataset.from_list([row])))
        assert photo.id == row["image_id"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_stated_split_goes_before_the_rule(split):
    by_column = rows_of([TRAIN[0], TEST[0]], [0, 1], split=[split, split])
    assert list(load_points(by_column)) == [split]
    by_key = datasets.DatasetDict({split: rows_of([TRAIN[0], TEST[0]], [0, 1])})
    assert list(load_points(by_key)) == [split]


def test_photos_of_object_rows_become_rows():
    points = [{"part": "nose", "x": 9.0, "y": 9.0}, {"part": "ear", "x": 3.5, "y": 9.0}]
    objects = [{"category": "dog", "box": [2.0, 2.0, 40.0, 40.0], "points": points}]
    images = datasets.Dataset.from_dict(
        {
            "image": [picture(0), picture(1)],
            "image_id": ["a", "b"],
            "objects": [objects] * 2,
            "split": ["train"] * 2,
        }
    ).cast_column("image", datasets.Image())
    rows = load_points(images)["train"]
    assert rows.features == point_features()
    assert rows["image_id"] == ["a", "a", "b", "b"]
    assert rows["part"] == ["nose", "ear", "nose", "ear"]
    assert np.array_equal(rows[3]["image"], picture(1))


def test_rows_give_back_the_photos(tmp_path):
    path = tmp_path / "a.png"
    picture(0).save(path)
    texts = (("full", "The nose of the dog."), ("terse", "Nose."))
    nose = PartPoint("nose", 10.25, 11.5, (5.0, 5.0, 20.0, 20.0), texts, "sift")
    dog = AnnotatedObject(
        "dog", (2.0, 2.0, 40.0, 40.0), (nose, PartPoint("tail", 30.0, 30.0))
    )
    free = PartPoint(None, 60.0, 40.0, None, (("full", "The corner."),))
    photo = Photo("a.png", str(path), (64, 48), (dog,), points=(free,))
    rows = point_rows([photo])
    assert len(rows) == 4
    for given in (rows, rows.to_iterable_dataset()):
        [back] = read_dataset(given)
        assert back.id == "a.png"
        assert back.size == (64, 48)
        assert back.objects == photo.objects
        assert back.points == photo.points
        [point, _] = back.objects[0].points
        assert (point.texts, point.stratum) == (texts, "sift")
    again = point_rows([back])
    for column in rows.column_names[1:]:
        assert again[column] == rows[column]
    assert np.array_equal(again[0]["image"], picture(0))


def test_no_photos_are_no_rows():
    assert len(point_rows([])) == 0
    assert point_rows([]).features == point_features()


def test_a_photo_of_another_size_than_is_stated_is_an_error(tmp_path):
    picture(0).save(tmp_path / "a.png")
    dog = AnnotatedObject("dog", (2.0, 2.0, 40.0, 40.0), (PartPoint("nose", 9.0, 9.0),))
    photo = Photo("a.png", str(tmp_path / "a.png"), (32, 24), (dog,))
    with pytest.raises(ValueError, match=r"a\.png.*\(32, 24\).*\(64, 48\)"):
        point_rows([photo])
    missing = Photo("b.png", str(tmp_path / "b.png"), (64, 48), (dog,))
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        point_rows([missing])


def test_equal_ids_of_different_photos_are_told_apart(tmp_path):
    name = TEST[0]
    red = write_folder(tmp_path / "red", [(name, 0)])
    blue = write_folder(tmp_path / "blue", [(name, 1), (TRAIN[0], 2)])
    loaded = load_points([red, blue])
    assert ids_of(loaded) == {
        "train": [TRAIN[0]],
        "test": [f"blue/{name}", f"red/{name}"],
    }
    for row in loaded["test"]:
        seed = 0 if row["image_id"].startswith("red/") else 1
        assert np.array_equal(row["image"], picture(seed))


def test_the_same_photo_of_two_sources_stays_one(tmp_path):
    red = write_folder(tmp_path / "red", [(TEST[0], 0)])
    blue = write_folder(tmp_path / "blue", [(TEST[0], 0)], points=[["tail", 50, 20]])
    loaded = load_points([red, blue])
    assert ids_of(loaded) == {"test": [TEST[0]]}
    assert set(loaded["test"]["part"]) == {"left eye", "nose", "tail"}


@pytest.mark.parametrize("train_first", [True, False])
def test_a_test_photo_is_in_no_other_split_under_another_name(tmp_path, train_first):
    red = write_folder(tmp_path / "red", [(TRAIN[0], 0), (TRAIN[1], 1)])
    blue = write_folder(tmp_path / "blue", [(TEST[0], 0), (TRAIN[2], 3)])
    sources = [red, blue] if train_first else [blue, red]
    expected = {
        "train": sorted([TRAIN[1], TRAIN[2]]),
        "test": sorted([TRAIN[0], TEST[0]]),
    }
    assert ids_of(load_points(sources)) == expected
    photos = {photo.id: photo.split for photo in load_photos(sources)}
    assert photos == {
        TRAIN[0]: "test",
        TEST[0]: "test",
        TRAIN[1]: "train",
        TRAIN[2]: "train",
    }


def test_the_split_of_a_single_source_stays_that_of_the_rule(tmp_path):
    folder = write_folder(tmp_path / "red", [(TRAIN[0], 0), (TEST[0], 0)])
    assert ids_of(load_points(folder)) == {"train": [TRAIN[0]], "test": [TEST[0]]}


def test_rows_of_one_id_with_different_images_are_different_photos():
    dataset = rows_of(["a.png"] * 3, [0, 1, 0], split=["train"] * 3)
    ids = load_points(dataset)["train"]["image_id"][:]
    assert ids[0] == ids[2] == "a.png"
    assert ids[1] != "a.png"


def test_ids_of_different_contents_get_the_name_of_their_source():
    contents = ["x", "y", "x", "z"]
    ids = tell_apart(
        ["a", "a", "a", "b"], ["red", "red", "blue", "blue"], contents.__getitem__
    )
    assert ids == ["red/a", "red/a (2)", "red/a", "b"]
    taken = tell_apart(
        ["a", "a", "red/a"], ["red", "blue", "blue"], contents.__getitem__
    )
    assert taken == ["red/a (2)", "blue/a", "red/a"]


def broken_folder(folder):
    """Three photos, of which one is broken, and one has another size than is stated."""
    write_folder(folder, [(name, seed) for seed, name in enumerate(TRAIN[:3])])
    (folder / TRAIN[0]).write_bytes(b"no image")
    picture(1, (30, 30)).save(folder / TRAIN[1])
    return folder


def test_what_cannot_be_used_is_left_out_with_a_warning(tmp_path, caplog):
    folder = broken_folder(tmp_path / "photos")
    with caplog.at_level(logging.WARNING):
        loaded = load_points(folder)
    assert ids_of(loaded) == {"train": [TRAIN[2]]}
    assert TRAIN[0] in caplog.text
    assert "(30, 30)" in caplog.text
    caplog.clear()
    rejected = {}
    load_points(folder, on_reject=rejected.__setitem__)
    assert set(rejected) == {TRAIN[0], TRAIN[1]}
    assert not caplog.text


@pytest.mark.parametrize(
    "column, values, reason",
    [
        ("point", [[5.0, 6.0], [5.0, 600.0]], "outside"),
        ("point", [[5.0, 6.0], [5.0]], "2 numbers"),
        ("point", [[5.0, 6.0], None], "point"),
        ("object_box", [[1.0, 2.0, 30.0, 30.0], [1.0, 2.0, 3.0]], "4 numbers"),
        ("image", ["a.png", None], "no image"),
    ],
)
def test_a_row_that_cannot_be_used_is_left_out(
    tmp_path, monkeypatch, column, values, reason
):
    columns = {
        "image": ["a.png"] * 2,
        "image_id": TRAIN[:2],
        "point": [[5.0, 6.0]] * 2,
        "object": ["dog"] * 2,
        column: values,
    }
    monkeypatch.chdir(tmp_path)
    picture(0).save("a.png")
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    reasons = []
    loaded = load_points(dataset, on_reject=lambda image_id, why: reasons.append(why))
    assert ids_of(loaded) == {"train": [TRAIN[0]]}
    assert reason in " ".join(reasons)


def test_where_nothing_is_left_the_error_says_why(tmp_path):
    folder = write_folder(
        tmp_path / "photos", [(TRAIN[0], 0)], points=[["nose", 100, 9]]
    )
    with pytest.raises(
        ValueError, match="no row is left of photos: .*lies outside the photo"
    ):
        load_points(folder)
    with pytest.raises(ValueError, match="no row is left"):
        load_points([])


@pytest.mark.parametrize(
    "source, error, message",
    [
        (3, TypeError, "a folder, a Hub id, a Dataset or a DatasetDict"),
        (datasets.Dataset.from_dict({"point": [[1, 2]]}), ValueError, "image"),
        (datasets.Dataset.from_dict({"image": ["a.png"]}), ValueError, "point"),
        (datasets.DatasetDict({"all": rows_of(["a"], [0])}), ValueError, "'all'"),
    ],
)
def test_sources_of_another_kind_are_errors(source, error, message):
    with pytest.raises(error, match=message):
        load_points([source])


def test_further_columns_stand_behind_those_of_the_format():
    features = point_features(fallback=datasets.Value("string"))
    assert list(features) == [*point_features(), "fallback"]
