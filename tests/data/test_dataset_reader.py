"""Datasets of points and of photos, streaming or not, as annotated photos."""

import io
import pickle

import datasets
import numpy as np
import pytest
from PIL import Image
from reading import rejected

from hf_talking_points.data.dataset_reader import ROWS_AT_A_TIME, each_row
from hf_talking_points.data.photos import AnnotatedObject, PartPoint, split_of
from hf_talking_points.data.sources import read_dataset

NOT_A_NUMBER = float("nan")
EYE = {"part": "left_eye", "x": 5.0, "y": 6.0, "box": [4.0, 5.0, 7.0, 8.0]}
NOSE = {"part": "nose", "x": 9.0, "y": 6.0, "box": None}
HEAD = {"name": "Head", "box": [1.0, 2.0, 12.0, 9.0]}
DOG = {
    "category": "dog",
    "box": [1.0, 2.0, 30.0, 18.0],
    "points": [EYE, NOSE],
    "parts": [HEAD],
}
ON_DOG = {"object": "dog", "object_box": [1.0, 2.0, 30.0, 18.0]}


def stored(size=(40, 20), orientation=1, cut=None, seed=0):
    """An image as a dataset stores it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "JPEG", exif=exif)
    return {"bytes": content.getvalue()[:cut], "path": None}


def as_dataset(*rows):
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        columns[name] = [row.get(name) for row in rows]
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def point_row(image_id="a.jpg", part="nose", **fields):
    """A row of the format, on the dog."""
    row = {"image": stored(), "image_id": image_id, "description": "…", "style": "full"}
    return {
        **row,
        **ON_DOG,
        "part": part,
        "part_box": None,
        "point": [5.5, 6.5],
        **fields,
    }


def forms(dataset):
    """The same rows, kept and streamed."""
    streamed = dataset.to_iterable_dataset()
    without_features = streamed.map(dict)
    return [dataset, dataset.with_format("numpy"), streamed, without_features]


def test_a_dataset_of_photos(tmp_path):
    dataset = as_dataset(
        {
            "image": stored(),
            "image_id": "a.jpg",
            "split": "validation",
            "objects": [DOG],
        },
        {
            "image": stored((20, 40), orientation=6),
            "image_id": "b.jpg",
            "split": None,
            "objects": [{**DOG, "points": []}],
        },
    )
    dataset.save_to_disk(tmp_path)
    for source in (*forms(dataset), datasets.load_from_disk(tmp_path)):
        first, second = read_dataset(source, split="test")
        assert (first.id, first.path, first.size) == ("a.jpg", None, (40, 20))
        assert (first.split, second.split) == ("validation", "test")
        [dog] = first.objects
        assert (dog.category, dog.box) == ("dog", (1, 2, 30, 18))
        eye = PartPoint("left eye", 5, 6, (4, 5, 7, 8))
        assert dog.points == (eye, PartPoint("nose", 9, 6))
        [head] = dog.parts
        assert (head.name, head.box, head.mask) == ("head", (1, 2, 12, 9), None)
        assert second.size == second.open().size == (40, 20)
        again = pickle.loads(pickle.dumps(first))
        assert again.objects[0].points == dog.points
        assert again.open().tobytes() == first.open().tobytes()


def test_photos_without_ids_are_called_by_what_is_stored():
    nose = {"part": "nose", "x": 3, "y": 4}
    objects = [{"category": "dog", "box": [1, 2, 30, 18], "points": [nose]}]
    rows = [{"image": stored(seed=seed), "objects": objects} for seed in (0, 1)]
    first, second = read_dataset(as_dataset(*rows))
    [again] = read_dataset(as_dataset(rows[1]))
    assert first.id != second.id == again.id
    assert (first.given_split, first.split) == (None, split_of(first.id))
    assert first.objects == (
        AnnotatedObject("dog", (1, 2, 30, 18), (PartPoint("nose", 3, 4),)),
    )


def test_a_dataset_of_points():
    tail = {
        "object": "cat",
        "object_box": [0.0, 0.0, 9.0, 9.0],
        "part_box": [2.0, 2.0, 5.0, 6.0],
    }
    dataset = as_dataset(
        point_row(),
        point_row(style="terse"),
        point_row(part="tail", point=[3.5, 4.5], **tail),
        point_row(part="tail", point=[8.5, 9.5]),
        point_row("b.jpg", point=[1.5, 1.5], image=stored(seed=1)),
    )
    for source in forms(dataset):
        first, second = read_dataset(source, split="train")
        assert (first.id, second.id, first.split) == ("a.jpg", "b.jpg", "train")
        assert first.open().size == (40, 20)
        dog_points = (PartPoint("nose", 5.5, 6.5), PartPoint("tail", 8.5, 9.5))
        cat_points = (PartPoint("tail", 3.5, 4.5, (2, 2, 5, 6)),)
        dog = AnnotatedObject("dog", (1, 2, 30, 18), dog_points)
        assert first.objects == (dog, AnnotatedObject("cat", (0, 0, 9, 9), cat_points))
        assert first.objects[0].points[0].texts == (("full", "…"), ("terse", "…"))


def test_scattered_rows_of_a_photo_come_together_but_in_a_stream():
    rows = [
        point_row(),
        point_row("b.jpg", image=stored(seed=1)),
        point_row(part="ear"),
    ]
    dataset = as_dataset(*rows)
    assert [photo.id for photo in read_dataset(dataset)] == ["a.jpg", "b.jpg"]
    streamed = list(read_dataset(dataset.to_iterable_dataset()))
    assert [photo.id for photo in streamed] == ["a.jpg", "b.jpg", "a.jpg"]


def test_only_image_and_point_are_needed():
    rows = [
        {"image": stored(), "point": [5, 6]},
        {"image": stored(), "point": [7, 8]},
        {"image": stored(seed=1), "point": [7, 8]},
    ]
    for source in forms(as_dataset(*rows)):
        first, second = read_dataset(source)
        assert first.points == (PartPoint(None, 5, 6), PartPoint(None, 7, 8))
        assert first.objects == () and first.points[0].texts == ()
        assert first.id != second.id


@pytest.mark.parametrize("missing", [{"object": None}, {"object_box": None}])
def test_a_point_without_an_object_is_on_none(missing):
    row = point_row(part="Left_Eye", **missing)
    [photo] = read_dataset(as_dataset(point_row(), row))
    assert photo.points == (PartPoint("left eye", 5.5, 6.5),)
    assert photo.objects[0].points == (PartPoint("nose", 5.5, 6.5),)


def test_descriptions_may_be_missing_and_have_no_style():
    rows = [
        point_row(description=None),
        point_row(part="ear", description=" \n"),
        point_row(part="tail", description="The tail.", style=None),
        point_row(part="tail", description="Its tail.", style="short", stratum="sift"),
    ]
    [photo] = read_dataset(as_dataset(*rows))
    nose, ear, tail = photo.objects[0].points
    assert nose.texts == ear.texts == ()
    assert tail.texts == (("full", "The tail."), ("short", "Its tail."))
    assert {point.stratum for point in (nose, ear, tail)} == {"given"}


def test_the_stratum_is_kept():
    [photo] = read_dataset(as_dataset(point_row(stratum="sift")))
    assert photo.objects[0].points[0].stratum == "sift"


def test_names_of_older_datasets_are_in_words():
    rows = [
        point_row(part="left_eye", object="traffic_light"),
        point_row(part="left eye", object="traffic light"),
    ]
    [photo] = read_dataset(as_dataset(*rows))
    [light] = photo.objects
    assert light.category == "traffic light"
    assert light.points == (PartPoint("left eye", 5.5, 6.5),)
    assert len(light.points[0].texts) == 2


def test_different_images_under_one_id_are_different_photos():
    rows = []
    for seed in (0, 1, 2):
        rows.append(point_row(image=stored(seed=seed)))
        rows.append(
            point_row(image=stored(seed=seed), part="ear", point=[seed + 1.5, 4.5])
        )
    rows.append(point_row("a.jpg#2", image=stored(seed=3)))
    for source in forms(as_dataset(*rows)):
        photos = list(read_dataset(source))
        assert [photo.id for photo in photos] == [
            "a.jpg",
            "a.jpg#2",
            "a.jpg#3",
            "a.jpg#2#2",
        ]
        for number, photo in enumerate(photos[:3]):
            assert photo.objects[0].points[1].x == number + 1.5
        assert len({photo.content_key for photo in photos}) == 4


def test_a_photo_of_objects_under_an_id_that_another_image_has_is_read():
    rows = [
        {"image": stored(seed=seed), "image_id": "a.jpg", "objects": [DOG]}
        for seed in (0, 1)
    ]
    assert [photo.id for photo in read_dataset(as_dataset(*rows))] == [
        "a.jpg",
        "a.jpg#2",
    ]


def test_a_stream_without_features_holds_images_as_it_gives_them(tmp_path):
    decoded = Image.open(io.BytesIO(stored()["bytes"]))
    decoded.convert("RGB").save(tmp_path / "a.png")

    def rows():
        yield {"image": decoded, "point": [5, 6]}
        yield {"image": str(tmp_path / "a.png"), "point": [5, 6]}
        yield {"image": stored(), "point": [5, 6]}

    stream = datasets.IterableDataset.from_generator(rows)
    photos = list(read_dataset(stream))
    assert {photo.open().tobytes() for photo in photos} == {
        decoded.convert("RGB").tobytes()
    }
    assert len(photos) == 3


def test_an_empty_stream_has_no_photo():
    assert (
        list(read_dataset(datasets.IterableDataset.from_generator(lambda: iter(()))))
        == []
    )


def test_bad_photos_of_a_dataset_are_rejected():
    sticking_out = {**DOG, "parts": [{"name": "head", "box": [1.0, 2.0, 50.0, 9.0]}]}
    dataset = as_dataset(
        {"image": stored(), "image_id": "a.jpg", "objects": [DOG]},
        {"image": stored(), "image_id": "a.jpg", "objects": [DOG]},
        {"image": None, "image_id": "b.jpg", "objects": [DOG]},
        {"image": stored(cut=30), "image_id": "c.jpg", "objects": [DOG]},
        {"image": stored(), "image_id": "d.jpg", "objects": []},
        {"image": stored(), "image_id": "e.jpg", "objects": [sticking_out]},
        {"image": stored(cut=-40), "image_id": "f.jpg", "objects": [DOG]},
    )
    for source in (dataset, dataset.to_iterable_dataset()):
        photos, records = rejected(read_dataset, source)
        assert [photo.id for photo in photos] == ["a.jpg", "e.jpg", "f.jpg"]
        assert photos[1].objects[0].parts[0].box == (1, 2, 40, 9)
        assert [record[0] for record in records] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
        reasons = [
            "row 1: its id has come before",
            "row 2 has no image",
            "row 3: its image cannot be read",
            "no point and no part",
        ]
        for expected, (_, reason) in zip(reasons, records, strict=True):
            assert expected in reason
        with pytest.raises(OSError, match="f.jpg cannot be read as an image"):
            photos[2].open()


@pytest.mark.parametrize(
    "fields, reason",
    [
        (
            {"box": [1.0, 2.0, 3.0]},
            r"row 0, objects\[0\]: field 'box': expected a list of 4",
        ),
        ({"box": None}, r"field 'box': expected list, found None"),
        (
            {"box": [1.0, 2.0, NOT_A_NUMBER, 4.0]},
            r"field 'box': expected a list of 4 numbers",
        ),
        ({"category": None}, r"field 'category': expected str, found None"),
        ({"category": "()"}, r"field 'category': expected a name"),
        (
            {"points": [{**EYE, "part": None}]},
            r"field 'part': expected str, found None",
        ),
        ({"points": [{**EYE, "part": "_"}]}, r"field 'part': expected a name"),
        ({"points": [{**EYE, "x": None}]}, r"field 'x': expected a number, found None"),
        (
            {"points": [{**EYE, "y": NOT_A_NUMBER}]},
            r"field 'y': expected a number, found nan",
        ),
        (
            {"points": [{**EYE, "box": [1.0]}]},
            r"field 'box': expected a list of 4 numbers",
        ),
        (
            {"parts": [{**HEAD, "name": None}]},
            r"field 'name': expected str, found None",
        ),
        ({"parts": [{**HEAD, "box": None}]}, r"field 'box': expected list, found None"),
    ],
)
def test_an_object_that_does_not_fit_rejects_its_photo_alone(fields, reason):
    rows = [
        {"image": stored(), "image_id": "bad", "objects": [{**DOG, **fields}]},
        {"image": stored(), "image_id": "good", "objects": [DOG]},
    ]
    dataset = as_dataset(*rows)
    [photo], [(image_id, _)] = rejected(read_dataset, dataset)
    assert (photo.id, image_id) == ("good", "bad")
    with pytest.raises(ValueError, match=reason):
        list(read_dataset(dataset))


@pytest.mark.parametrize(
    "fields, reason",
    [
        (
            {"point": [1.0]},
            r"dataset, row 1: field 'point': expected a list of 2 numbers",
        ),
        (
            {"point": [1.0, NOT_A_NUMBER]},
            r"field 'point': expected a list of 2 numbers",
        ),
        ({"point": [1.0, None]}, r"field 'point': expected a list of 2 numbers"),
        ({"point": None}, r"field 'point': expected list, found None"),
        ({"point": [50.0, 6.0]}, r"nose: at \(50.0, 6.0\) lies outside"),
        ({"object": ""}, r"field 'object': expected a name, found ''"),
        (
            {"object_box": [1.0, 2.0]},
            r"field 'object_box': expected a list of 4 numbers",
        ),
        ({"object_box": [50.0, 2.0, 60.0, 9.0]}, r"dog: box .* lies outside the photo"),
        ({"part": " _ "}, r"field 'part': expected a name"),
        ({"part_box": [1.0]}, r"field 'part_box': expected a list of 4 numbers"),
        ({"split": "dev"}, r"field 'split': expected one of .*, found 'dev'"),
        ({"image": None}, r"dataset, row 1 has no image"),
    ],
)
def test_a_bad_row_is_rejected_alone(fields, reason):
    rows = [
        point_row("good"),
        point_row("bad", **fields),
        point_row("good", part="ear"),
    ]
    dataset = as_dataset(*rows)
    [photo], records = rejected(read_dataset, dataset)
    assert photo.id == "good" and len(photo.objects[0].points) == 2
    assert {image_id for image_id, _ in records} == {"bad"}
    with pytest.raises(ValueError, match=reason):
        list(read_dataset(dataset))


def test_a_bad_row_among_those_of_a_photo_leaves_the_rest():
    rows = [point_row(), point_row(part="ear", point=[1.0]), point_row(part="tail")]
    [photo], [(image_id, _)] = rejected(read_dataset, as_dataset(*rows))
    assert [point.part for point in photo.objects[0].points] == ["nose", "tail"]
    assert image_id == "a.jpg"


def test_a_missing_file_is_rejected(tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png"), str(tmp_path / "gone.png")]
    for columns in ({}, {"image_id": ["a", "b"]}):
        dataset = datasets.Dataset.from_dict(
            {"image": paths, "point": [[5, 6]] * 2, **columns}
        )
        dataset = dataset.cast_column("image", datasets.Image())
        [photo], [(_, reason)] = rejected(read_dataset, dataset)
        assert photo.size == (40, 20) and "row 1: its image cannot be read" in reason


@pytest.mark.parametrize("name", ["image", "point"])
def test_a_dataset_without_a_needed_column_is_refused(name):
    dataset = as_dataset(point_row()).remove_columns(name)
    for source in (dataset, dataset.to_iterable_dataset()):
        with pytest.raises(
            ValueError, match=f"field '{name}': expected a column of this name"
        ):
            rejected(read_dataset, source)


def test_other_kinds_of_datasets_are_refused():
    dataset = datasets.DatasetDict(train=as_dataset(point_row()))
    with pytest.raises(TypeError, match="got DatasetDict: choose one of its splits"):
        list(read_dataset(dataset))
    with pytest.raises(TypeError, match="got list"):
        list(read_dataset([]))
    with pytest.raises(ValueError, match="split: expected one of .*, found 'dev'"):
        list(read_dataset(dataset["train"], "dev"))


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_A_TIME, 2 * ROWS_AT_A_TIME + 1])
def test_rows_read_together_are_those_read_one_by_one(count):
    dataset = as_dataset(*(point_row(f"{index}.jpg") for index in range(70)))
    dataset = dataset.cast_column("image", datasets.Image(decode=False))
    dataset = dataset.shuffle(seed=0).select(range(count))
    assert list(each_row(dataset)) == list(dataset)
