"""Rows with the columns "image" and "point": their checks before a run, and their images during it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import datasets
import numpy as np
import torch
from datasets import Dataset, IterableDataset
from PIL import Image

from ..models.coordinates import check_points
from ..models.images import UNREADABLE, displayed_size, open_file, to_rgb

COLUMNS = ("image", "point")
TABLE_FORMATS = ("arrow", "polars")
Row = dict[str, Any]
Rows: TypeAlias = "Dataset | IterableDataset"


def named_datasets(
    train_dataset: Rows | None, eval_dataset: Rows | dict[str, Rows] | None
) -> Iterator[tuple[str, Rows]]:
    """The datasets of a trainer with the names that its messages give them."""
    if train_dataset is not None:
        yield "train_dataset", train_dataset
    if isinstance(eval_dataset, dict):
        for name, dataset in eval_dataset.items():
            yield f"eval_dataset[{name!r}]", dataset
    elif eval_dataset is not None:
        yield "eval_dataset", eval_dataset


def check_rows(dataset: Rows, name: str) -> None:
    """Raises ValueError naming column or row where a dataset lacks a column or a point does not lie on its image, and
    TypeError for anything else than a dataset.

    Points are checked here where the images of a `datasets.Dataset` are local files or encoded bytes, else when they
    are used.
    """
    if not isinstance(dataset, (Dataset, IterableDataset)):
        raise TypeError(
            f"{name} must be a datasets.Dataset or IterableDataset, got {type(dataset).__name__}"
        )
    format_type = format_of(dataset)
    if format_type in TABLE_FORMATS:
        raise ValueError(
            f"{name} has the format {format_type!r}, which gives tables in place of rows: "
            "pass it with_format(None)"
        )
    names = given_columns(dataset)
    if names is not None:
        for column in COLUMNS:
            if column not in names:
                raise ValueError(
                    f"{name} has the columns {names} but needs {list(COLUMNS)}: {column!r} is missing"
                )
        if "prompt" in names:
            raise ValueError(
                f"{name} has a column 'prompt', but what is asked is the processor's prompt: set that of the "
                "processor, or rename or remove the column"
            )
    if isinstance(dataset, Dataset) and stores_images(dataset):
        rows = without_decoding(dataset.with_format(None).select_columns(list(COLUMNS)))
        for number, row in enumerate(rows):
            try:
                check_row(row)
            except UNREADABLE as error:
                raise ValueError(f"row {number} of {name}: {error}") from error


def format_of(dataset: Rows) -> str | None:
    """The type of the format that `with_format`, `set_format` or `with_transform` gave a dataset."""
    if isinstance(dataset, Dataset):
        return dataset.format["type"]
    formatting = dataset._formatting  # a stream tells it nowhere else
    return None if formatting is None else formatting.format_type


def given_columns(dataset: Rows) -> list[str] | None:
    """The columns that rows of a dataset have, which its format may choose; None where a stream does not know them."""
    if not isinstance(dataset, Dataset):
        return dataset.column_names
    if dataset.format["type"] == "custom" and len(dataset):
        return list(dataset[0])
    if dataset.format["output_all_columns"]:
        return dataset.column_names
    return dataset.format["columns"]


def check_count(dataset: Rows, needed: int) -> None:
    """Raises ValueError where a training set has fewer points than one update takes.

    Args:
        dataset: of a stream no more rows are read than are needed.
        needed (`int`): points of one update.
    """
    rows = without_decoding(dataset)
    if isinstance(rows, Dataset):
        count = len(rows)
    else:
        count = len(list(islice(rows, needed)))
    if count < needed:
        raise ValueError(
            f"train_dataset has {count} points but one update takes {needed} "
            "(per_device_train_batch_size * steps_per_generation * processes / num_generations): give more points, or "
            "lower per_device_train_batch_size or steps_per_generation (gradient_accumulation_steps if not given)"
        )


def check_row(row: Row) -> None:
    """Raises one of `UNREADABLE` where there is no image, it is broken, or the point does not lie on it."""
    image = row["image"]
    if image is None:
        raise ValueError("there is no image")
    if not is_remote(image):
        check_points([row["point"]], *displayed_size(stored_file(image)))


def stores_images(dataset: Rows) -> bool:
    """Whether the rows hold image files or their bytes, of which no transform makes something else."""
    if format_of(dataset) == "custom":
        return False
    return dataset.features is not None and isinstance(
        dataset.features["image"], datasets.Image
    )


def without_decoding(dataset: Any) -> Any:
    """A dataset, or each of a `dict` of them, with its images as they are stored: [`open_images`] opens them.

    `datasets` would decode an image anew for every completion, and fails on a turned photo whose EXIF data cannot be
    written.
    """
    if isinstance(dataset, dict):
        return {name: without_decoding(part) for name, part in dataset.items()}
    if dataset is None or not stores_images(dataset):
        return dataset
    return dataset.cast_column("image", datasets.Image(decode=False))


def is_remote(stored: dict[str, Any]) -> bool:
    """Whether an image as `datasets` stores it is to be read from elsewhere, such as one of a stream from the Hub."""
    return (
        stored["bytes"] is None
        and stored["path"] is not None
        and "://" in stored["path"]
    )


def stored_file(stored: dict[str, Any]) -> str | io.BytesIO:
    """An image as `datasets` stores it, {"bytes": ..., "path": ...}, as path or binary file.

    Raises ValueError where it is neither.
    """
    if stored["bytes"] is not None:
        return io.BytesIO(stored["bytes"])
    if stored["path"] is None:
        raise ValueError("there is no image")
    return stored["path"]


def open_image(image: Any) -> Image.Image:
    """PIL RGB image as displayed of an image as `datasets` stores it, or of any kind that [`to_rgb`] takes."""
    if not isinstance(image, dict):
        return to_rgb(image)
    if is_remote(image):
        return to_rgb(datasets.Image().decode_example(image))
    with open_file(stored_file(image)) as opened:
        return to_rgb(opened)


def image_key(image: Any) -> Any:
    """What rows of one image have in common before it is opened: its bytes, its path or the object itself."""
    if isinstance(image, dict):
        return image["path"] if image["bytes"] is None else image["bytes"]
    return image if isinstance(image, (str, os.PathLike)) else id(image)


def open_images(rows: Sequence[Row]) -> list[Row]:
    """The rows with PIL RGB images, the same object in rows of one image.

    Raises ValueError naming the point where the image of a row is missing or broken.
    """
    opened: dict[Any, Image.Image] = {}
    with_images = []
    for row in rows:
        key = image_key(row["image"])
        if key not in opened:
            try:
                opened[key] = open_image(row["image"])
            except (*UNREADABLE, TypeError) as error:
                raise ValueError(
                    f"the image of point {row['point']}: {error}"
                ) from error
        with_images.append({**row, "image": opened[key]})
    return with_images


class RepeatedRows(torch.utils.data.Dataset):
    """A dataset for the batches of TRL's samplers, which name a row once for each completion, and a batch once for
    each step that takes from its completions. Each row is read once, and repetitions are the same object.

    Args:
        dataset (`datasets.Dataset`)
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._numbers: list[int] = []  # of the rows that were read last
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Row:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: list[int]) -> list[Row]:
        distinct = list(dict.fromkeys(numbers))
        if distinct != self._numbers:
            self._rows = self.dataset.__getitems__(distinct)
            self._numbers = distinct
        row_of_number = dict(zip(self._numbers, self._rows))
        return [row_of_number[number] for number in numbers]


def one_row_per_point(rows: Dataset) -> Dataset:
    """The first row of each point of a dataset, which may have one for each style of description.

    Where no description is read, each point then comes once an epoch.
    """
    columns = [
        name
        for name in ("image_id", "point", "object", "part")
        if name in rows.column_names
    ]
    frame = rows.select_columns(columns).to_pandas()
    frame["point"] = frame["point"].map(tuple)
    kept = np.flatnonzero(~frame.duplicated())
    return rows.select(kept)


def find_point(dataset: Any, point: Iterable[float]) -> str:
    """Where a point stands in a dataset, for messages: the number of its first row where that can be told."""
    if isinstance(dataset, Dataset):
        for number, row in enumerate(dataset.select_columns(["point"])):
            if repr(row["point"]) == repr(point):  # NaN is not equal to itself
                return f"row {number} of the dataset"
    return f"the row with point {point}"
