"""Photos of a build as plain files."""

import io
import pickle

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_talking_points.data.photos import AnnotatedObject, Part, PartPoint, Photo
from hf_talking_points.data.unit_files import read_unit, write_unit

MASK = np.array([[True, False, True], [False, False, True]])
CAT = AnnotatedObject(
    "cat",
    (1.5, 2.0, 30.25, 20.0),
    points=(
        PartPoint("left ear", 3.1, 4.7, (2.0, 3.0, 5.0, 6.0), (("rich", "Ünder…"),)),
        PartPoint(None, 8.0, 9.0),
    ),
    parts=(
        Part("tail", (10.0, 4.0, 13.0, 6.0), MASK),
        Part("paw", (1.0, 1.0, 2.0, 2.0)),
    ),
)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def photo(path=None, **fields):
    return Photo("a/b.png", path, (32, 24), (CAT,), **fields)


def told(photo):
    """All that a photo says of itself, in plain values."""
    objects = []
    for annotated in photo.objects:
        parts = [
            (part.name, part.box, None if part.mask is None else part.mask.tolist())
            for part in annotated.parts
        ]
        texts = [(point.texts, point.stratum) for point in annotated.points]
        objects.append(
            (annotated.category, annotated.box, annotated.points, texts, parts)
        )
    return photo.id, photo.size, photo.split, photo.points, photo.classes, objects


def test_a_photo_comes_back_as_it_was(tmp_path, pixels):
    path = tmp_path / "b.png"
    path.write_bytes(png(pixels))
    dataset = datasets.Dataset.from_dict({"image": [str(path)]}).cast_column(
        "image", datasets.Image()
    )
    undecoded = dataset.cast_column("image", datasets.Image(decode=False))
    surroundings = (PartPoint(None, 1.0, 2.0, stratum="anywhere"),)
    photos = [
        photo(str(path), given_split="test", classes=("cat", "rug")),
        photo(row=(dataset, 0), points=surroundings),
        photo(row=(undecoded, 0)),
        photo(stored={"bytes": png(pixels), "path": None}),
        photo(stored={"bytes": None, "path": str(path)}),
        photo(stored=Image.fromarray(pixels)),
    ]
    write_unit(tmp_path / "unit.parquet", photos)
    back = read_unit(tmp_path / "unit.parquet")
    assert [told(one) for one in back] == [told(one) for one in photos]
    for one in back:
        np.testing.assert_array_equal(np.asarray(one.open()), pixels)
    assert [one.stored is None for one in back] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]


def test_the_same_photos_give_the_same_bytes(tmp_path, pixels):
    files = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for file in files:
        write_unit(file, [photo(stored=Image.fromarray(pixels))])
    assert files[0].read_bytes() == files[1].read_bytes()


def damaged_files(whole):
    """Contents that are no unit."""
    other = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), other)
    wrong = io.BytesIO()
    table = pa.table({"photo": ['{"id": 3}'], "image": pa.array([None], pa.binary())})
    pq.write_table(table, wrong)
    no_json = io.BytesIO()
    table = pa.table({"photo": ["no"], "image": pa.array([None], pa.binary())})
    pq.write_table(table, no_json)
    yield from (b"", whole[:200], whole[:-9], b"x" * 500, pickle.dumps([1]))
    yield from (other.getvalue(), wrong.getvalue(), no_json.getvalue())


def test_a_damaged_file_is_named(tmp_path, pixels):
    file = tmp_path / "unit.parquet"
    write_unit(file, [photo(stored=Image.fromarray(pixels))])
    for content in damaged_files(file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="unit.parquet is damaged or no unit"):
            read_unit(file)
