"""Rows with images and points: what is refused, and which images the trainers see."""

import io
import struct

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Image, IterableDataset
from PIL import Image as PILImage

from hf_talking_points.models.coordinates import check_points
from hf_talking_points.training.point_rows import (
    RepeatedRows,
    check_count,
    check_rows,
    find_point,
    named_datasets,
    one_row_per_point,
    open_images,
    without_decoding,
)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def one_row(image, point):
    return Dataset.from_dict({"image": [image], "point": [point]}).cast_column(
        "image", Image()
    )


def exif(*entries):
    """EXIF data with entries of (tag, type, count, four bytes)."""
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    directory = struct.pack("<H", len(entries)) + table + struct.pack("<I", 0)
    return b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + directory


TO_BE_TURNED = (0x0112, 3, 1, struct.pack("<I", 6))


@pytest.mark.parametrize(
    "entries",
    [
        [TO_BE_TURNED],
        [TO_BE_TURNED, (0x0128, 2, 4, b"abc\0")],
        [TO_BE_TURNED, (0x0128, 4, 1, b"\xff\xff\xff\xff")],
    ],
    ids=["turned", "a unit as text", "a unit too large"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_turned_photo_is_seen_as_displayed(random_image, entries, stream):
    """Also where `datasets` itself fails, because the other entry cannot be written."""
    image = random_image(0, 90, 50)
    rows = one_row(encoded(image, exif=exif(*entries)), [40.0, 80.0])
    check_rows(rows, "rows")
    if stream:
        rows = rows.to_iterable_dataset()
    [row] = open_images(list(without_decoding(rows)))
    assert row["image"].size == (50, 90)
    assert row["image"].mode == "RGB"
    assert np.array_equal(row["image"], image.transpose(PILImage.Transpose.ROTATE_270))


def test_points_are_checked_on_the_displayed_image(random_image):
    turned = encoded(random_image(0, 90, 50), exif=exif(TO_BE_TURNED))
    with pytest.raises(ValueError, match=r"row 0 of rows: point 0 is \(80.0, 40.0\)"):
        check_rows(one_row(turned, [80.0, 40.0]), "rows")


def test_sixteen_bits_and_transparency_are_seen_as_by_the_pipelines():
    deep = PILImage.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16))
    clear = PILImage.new("RGBA", (4, 4), (255, 0, 0, 0))
    rows = Dataset.from_dict(
        {"image": [encoded(deep), encoded(clear)], "point": [[1.0, 1.0], [1.0, 1.0]]}
    ).cast_column("image", Image())
    opened = [
        row["image"].getpixel((0, 0))
        for row in open_images(list(without_decoding(rows)))
    ]
    assert opened == [(128, 128, 128), (255, 255, 255)]


def test_an_image_is_opened_once(random_image):
    rows = one_row(encoded(random_image(0)), [1.0, 2.0])
    stored = without_decoding(rows)
    first, second = open_images([stored[0], stored[0]])
    assert first["image"] is second["image"]
    assert first["point"] == [1.0, 2.0]


def test_images_of_any_kind_are_opened(random_image, tmp_path):
    image = random_image(0)
    image.save(tmp_path / "image.png")
    kinds = [image, str(tmp_path / "image.png"), np.asarray(image), encoded(image)]
    opened = open_images([{"image": kind, "point": [0.0, 0.0]} for kind in kinds])
    assert all(np.array_equal(row["image"], image) for row in opened)


@pytest.mark.parametrize(
    "image, message",
    [
        ({"bytes": b"no image", "path": None}, "cannot identify image file"),
        ({"bytes": None, "path": "nowhere.png"}, "No such file"),
        (None, "there is no image"),
    ],
)
def test_missing_and_broken_images_are_refused(random_image, image, message):
    rows = Dataset.from_dict(
        {"image": [encoded(random_image(0)), image], "point": [[1.0, 2.0], [3.0, 4.0]]}
    ).cast_column("image", Image())
    with pytest.raises(ValueError, match=f"row 1 of rows: .*{message}"):
        check_rows(rows, "rows")
    with pytest.raises(ValueError, match=r"the image of point \[3.0, 4.0\]"):
        open_images(list(without_decoding(rows)))


def test_streams_need_the_columns_too(random_image):
    rows = one_row(encoded(random_image(0)), [1.0, 2.0])
    check_rows(rows.to_iterable_dataset(), "rows")
    with pytest.raises(ValueError, match="'point' is missing"):
        check_rows(rows.remove_columns("point").to_iterable_dataset(), "rows")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("format_type", ["torch", "numpy", None])
@pytest.mark.parametrize("decode", [False, True])
def test_rows_of_every_format_are_opened_alike(
    four_points, format_type, decode, stream
):
    rows = four_points.cast_column("image", Image(decode=decode))
    if stream:
        rows = rows.to_iterable_dataset()
    rows = rows.with_format(format_type)
    check_rows(rows, "rows")
    opened = open_images(list(without_decoding(rows)))
    for row, expected in zip(opened, four_points):
        assert np.array_equal(row["image"], expected["image"])
        assert [float(value) for value in row["point"]] == expected["point"]
        canvas = check_points([row["point"]], *row["image"].size)
        assert canvas.tolist() == [expected["point"]]


def test_splits_and_lists_are_no_dataset(four_points):
    for rows in (DatasetDict(train=four_points), list(four_points)):
        with pytest.raises(TypeError, match="rows must be a datasets.Dataset or"):
            check_rows(rows, "rows")


def test_tables_are_no_rows(four_points):
    for rows in (four_points, four_points.to_iterable_dataset()):
        with pytest.raises(ValueError, match="rows has the format 'arrow'"):
            check_rows(rows.with_format("arrow"), "rows")


def test_columns_are_those_that_rows_have(four_points):
    with pytest.raises(ValueError, match="'image' is missing"):
        check_rows(four_points.with_format("torch", columns=["point"]), "rows")
    check_rows(
        four_points.with_format("torch", columns=["point"], output_all_columns=True),
        "rows",
    )
    files = four_points.rename_column("image", "photo")
    check_rows(
        files.with_transform(
            lambda batch: {"image": batch["photo"], "point": batch["point"]}
        ),
        "rows",
    )


def test_prompts_are_the_processors(four_points):
    rows = four_points.add_column("prompt", ["what?"] * 4)
    with pytest.raises(ValueError, match="rows has a column 'prompt'"):
        check_rows(rows, "rows")


def test_a_stream_may_not_know_its_columns(random_image):
    def generate():
        yield {"image": random_image(0), "point": [1.0, 2.0]}

    rows = IterableDataset.from_generator(generate)
    check_rows(rows, "rows")
    [row] = open_images(list(without_decoding(rows)))
    assert row["image"].size == (96, 64)


def test_datasets_are_named_as_they_were_passed(four_points):
    evaluation = {"a": four_points, "b": four_points}
    names = [name for name, _ in named_datasets(four_points, evaluation)]
    assert names == ["train_dataset", "eval_dataset['a']", "eval_dataset['b']"]
    assert [name for name, _ in named_datasets(None, four_points)] == ["eval_dataset"]


def test_a_point_is_found_by_its_row(four_points):
    assert find_point(four_points, [30.0, 70.0]) == "row 2 of the dataset"
    assert find_point(four_points, [1.0, 1.0]) == "the row with point [1.0, 1.0]"
    assert find_point(four_points.to_iterable_dataset(), [1.0, 1.0]).startswith(
        "the row with"
    )


def test_repetitions_are_read_once_and_are_one_object(four_points):
    rows = RepeatedRows(four_points)
    first, second, third = rows.__getitems__([2, 2, 0])
    assert first is second
    assert (first["part"], third["part"]) == ("tail", "ear")
    again, *_ = rows.__getitems__([2, 2, 0])
    assert again is first
    assert rows[1]["part"] == "eye"
    assert len(rows) == 4


def test_points_are_counted_up_to_what_is_needed(four_points):
    def generate():
        yield from four_points
        raise AssertionError("more is read than needed")

    for rows in (four_points, IterableDataset.from_generator(generate)):
        check_count(rows, 4)
    with pytest.raises(ValueError, match="has 4 points but one update takes 5"):
        check_count(four_points.to_iterable_dataset(), 5)


def test_a_point_comes_once_whatever_its_styles():
    rows = Dataset.from_dict(
        {
            "image_id": ["a", "a", "a", "b", "a"],
            "point": [[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [1.0, 2.0]],
            "part": ["eye", "eye", "eye", "eye", "ear"],
            "style": ["full", "terse", "full", "full", "full"],
        }
    )
    kept = one_row_per_point(rows)
    assert kept["image_id"][:] == ["a", "a", "b", "a"]
    assert kept["part"][:] == ["eye", "eye", "eye", "ear"]
    assert set(kept["style"]) == {"full"}
