"""The one row format of points: what trainers, reward, evaluation and builder read and write, one row for each image,
point and style.

docs/dataset_formats.md describes the columns. A row whose `description` is None has no text of its own.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

from datasets import (
    Dataset,
    DatasetDict,
    Features,
    Image,
    List,
    Value,
    concatenate_datasets,
    load_dataset,
)

from ..models.images import UNREADABLE
from .dataset_reader import (
    PhotoIds,
    check_split,
    each_row,
    read_dataset,
    stored_image,
)
from .fields import text_of
from .photos import (
    SPLITS,
    AnnotatedObject,
    OnReject,
    PartPoint,
    Photo,
    check_size,
    leave_out,
)
from .sources import read_objects

logger = logging.getLogger(__name__)

PointSource: TypeAlias = "str | os.PathLike | Dataset | DatasetDict"
MISPLACED = re.compile(r"lies outside the photo|has no area")
NUMBERS = {"point": 2, "object_box": 4, "part_box": 4}  # column -> numbers in each row


def point_features(**more: Any) -> Features:
    """Columns of the row format, followed by further ones.

    Args:
        more: name of a column -> its feature, such as `fallback=Value("string")`.
    """
    return Features(
        {
            "image": Image(),
            "image_id": Value("string"),
            "point": List(Value("float64"), length=2),
            "description": Value("string"),
            "style": Value("string"),
            "object": Value("string"),
            "object_box": List(Value("float64"), length=4),
            "part": Value("string"),
            "part_box": List(Value("float64"), length=4),
            "stratum": Value("string"),
            **more,
        }
    )


def annotation_features() -> Features:
    """[`point_features`] less the image."""
    features = point_features()
    del features["image"]
    return features


def annotation_row(
    photo: Photo, annotated: AnnotatedObject | None, point: PartPoint
) -> dict[str, Any]:
    """The row of a point, less image, style and description."""
    return {
        "image_id": photo.id,
        "point": [point.x, point.y],
        "object": None if annotated is None else annotated.category,
        "object_box": None if annotated is None else list(annotated.box),
        "part": point.part,
        "part_box": None if point.box is None else list(point.box),
        "stratum": point.stratum,
    }


def annotation_rows(photo: Photo) -> list[dict[str, Any]]:
    """The rows of a photo, less its image: one for each text of each point, or one without a text."""
    owned = [
        (annotated, point) for annotated in photo.objects for point in annotated.points
    ]
    free = [(None, point) for point in photo.points]
    rows = []
    for annotated, point in [*owned, *free]:
        row = annotation_row(photo, annotated, point)
        for style, description in point.texts or [(None, None)]:
            rows.append({**row, "style": style, "description": description})
    return rows


def point_rows(photos: Iterable[Photo]) -> Dataset:
    """Photos as rows, without a row for a photo without points. Images are opened when their rows are read.

    Args:
        photos (iterable of [`Photo`])
    Returns:
        `datasets.Dataset` with the columns of [`point_features`].

    Raises ValueError naming the photo whose size, as displayed, is not the stated one; FileNotFoundError, or OSError
    naming it, for a file that cannot be read.
    """
    photos = list(photos)
    for photo in photos:
        check_size(photo, photo.displayed_size())
    return rows_of_photos(photos)


def rows_of_photos(photos: Sequence[Photo]) -> Dataset:
    """[`point_rows`] of photos whose sizes are known to be right."""
    pieces = []
    with_points = [photo for photo in photos if annotation_rows(photo)]
    for _, group in groupby(with_points, key=stored_in):
        pieces.append(rows_of_one_store(list(group)))
    if not pieces:
        return Dataset.from_dict(
            dict.fromkeys(point_features(), []), features=point_features()
        )
    return concatenate_datasets(pieces)


def stored_in(photo: Photo) -> int | None:
    """Identity of the dataset that holds a photo; None for a file, and for an image that the photo itself holds."""
    return None if photo.row is None else id(photo.row[0])


def image_place(photo: Photo) -> Any:
    """Where the image of a photo is found: its path, the image itself, or its row in a dataset."""
    if photo.row is not None:
        return photo.row[1]
    return photo.path if photo.stored is None else photo.stored


def rows_of_one_store(photos: Sequence[Photo]) -> Dataset:
    """The rows of photos that are all files or images, or all rows of one dataset, which stays where it is."""
    rows: list[dict[str, Any]] = []
    places: list[
        Any
    ] = []  # of the image of each row: a path, an image, or the row of a dataset
    for photo in photos:
        annotation = annotation_rows(photo)
        place = image_place(photo)
        rows.extend(annotation)
        places.extend([place] * len(annotation))
    annotations = Dataset.from_list(rows, features=annotation_features())
    if photos[0].row is None:
        images = Dataset.from_dict(
            {"image": places}, features=Features({"image": Image()})
        )
    else:
        stored = photos[0].row[0].select_columns("image").select(places)
        images = stored.cast_column("image", Image())
    return join_columns(images, annotations)


def join_columns(images: Dataset, annotations: Dataset) -> Dataset:
    """A dataset with the columns of both, in the order of the row format."""
    return concatenate_datasets([images, annotations], axis=1).select_columns(
        list(point_features())
    )


def reason_kind(reason: str) -> str:
    """What a reason has in common with others: its first clause, or what is wrong with a place."""
    misplaced = MISPLACED.search(reason)
    return misplaced.group() if misplaced else reason.partition(":")[0]


class RejectCounts:
    """An `on_reject` that counts reasons, to be told at the end."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[
            str, str
        ] = {}  # reason -> the first record that it was given for

    def __call__(self, image_id: str, reason: str) -> None:
        kind = reason_kind(reason)
        self.counts[kind] += 1
        self.first.setdefault(kind, f"{image_id}: {reason}")

    def lines(self) -> list[str]:
        """A line for each kind of reason, the most frequent first."""
        lines = []
        for kind, count in self.counts.most_common():
            lines.append(f"{count} x {kind}, first {self.first[kind]}")
        return lines


@dataclass
class Reading:
    """What one source holds.

    Args:
        name (`str`): of its folder or repo, for messages and for ids that other sources have too.
        rows (`Dataset`): in the row format.
        photos (`dict`): `image_id` of the rows -> [`Photo`], whose own id and split may be changed so that all
            sources fit together.
    """

    name: str
    rows: Dataset
    photos: dict[str, Photo]


def load_points(
    sources: PointSource | Sequence[PointSource], on_reject: OnReject | None = None
) -> DatasetDict:
    """Points of one or more sources in the row format, split by photo.

    The split of a photo is the one that its source states, else that of [`split_of`]. Photos of equal content in
    several sources get one split: test where one of them is of the test split, else validation where one is, so that
    no test photo is trained on. Where different photos of several sources have the same id, the source's name becomes
    part of it ("red/000001.png").

    Args:
        sources (one or a list of): a folder with an `objects.jsonl`, a built dataset (its folder or Hub id), a
            `Dataset` or `DatasetDict` of rows in the format or of annotated photos, as [`read_dataset`] takes them.
        on_reject (function of `(image_id, reason)`, *optional*): is told of each record that cannot be used; without
            it their number and reasons are logged as a warning.
    Returns:
        `datasets.DatasetDict` of those of the splits "train", "validation" and "test" that have rows. Datasets stay
        memory-mapped.

    Raises ValueError where no row is left, with the reasons.
    """
    rejects = RejectCounts()

    def tell(image_id: str, reason: str) -> None:
        rejects(image_id, reason)
        if on_reject is not None:
            on_reject(image_id, reason)

    readings = read_sources(sources, tell)
    splits = rows_by_split(readings)
    names = ", ".join(reading.name for reading in readings)
    if not splits:
        reasons = "; ".join(rejects.lines()) or "no point is annotated"
        raise ValueError(f"no row is left of {names or 'no source'}: {reasons}")
    if on_reject is None:
        for line in rejects.lines():
            logger.warning("%s: left out %s", names, line)
    return DatasetDict(splits)


def load_photos(
    sources: PointSource | Sequence[PointSource], on_reject: OnReject | None = None
) -> list[Photo]:
    """The photos of [`load_points`], with all that their sources say of them."""
    rejects = RejectCounts()
    readings = read_sources(sources, on_reject or rejects)
    for line in rejects.lines():
        logger.warning("left out %s", line)
    photos: dict[str, Photo] = {}
    for reading in readings:
        for photo in reading.photos.values():
            photos.setdefault(photo.id, photo)
    return list(photos.values())


def read_sources(
    sources: PointSource | Sequence[PointSource], on_reject: OnReject
) -> list[Reading]:
    """The sources, fitted together: no two photos have one id, no two of equal content are in different splits."""
    if isinstance(sources, (str, os.PathLike, Dataset, DatasetDict)):
        sources = [sources]
    readings: list[Reading] = []
    number_of_source: list[int] = []
    for number, source in enumerate(sources):
        for reading in read_source(source, number, on_reject):
            readings.append(reading)
            number_of_source.append(number)
    if len(set(number_of_source)) > 1:
        share_splits(readings, number_of_source, on_reject)
    tell_photos_apart(readings, on_reject)
    return readings


def read_source(
    source: PointSource, number: int, on_reject: OnReject
) -> Iterator[Reading]:
    """The readings of one source, one for each of its splits where it is a dataset."""
    if isinstance(source, (str, os.PathLike)):
        name = source_name(source)
        if (Path(source) / "objects.jsonl").is_file():
            yield read_folder(Path(source), name, on_reject)
            return
        source = load_dataset(str(source))
    else:
        name = f"dataset {number + 1}"
    if isinstance(source, Dataset):
        stated = None if source.split is None else str(source.split)
        source = {stated if stated in ("val", *SPLITS) else None: source}
    elif not isinstance(source, DatasetDict):
        raise TypeError(
            f"a source is a folder, a Hub id, a Dataset or a DatasetDict, got {type(source).__name__}"
        )
    for split, dataset in source.items():
        check_split(split, name)
        yield read_rows(dataset, name, split, on_reject)


def source_name(source: str | os.PathLike) -> str:
    """The last part of a folder or Hub id."""
    return Path(os.path.abspath(source)).name


def read_folder(folder: Path, name: str, on_reject: OnReject) -> Reading:
    """A folder with an `objects.jsonl`, less the photos that cannot be opened or have another size than is stated.

    Photos without a point have no row.
    """
    photos = {}
    for photo in read_objects(folder, on_reject=on_reject):
        try:
            check_size(photo, photo.displayed_size())
        except (OSError, ValueError) as error:
            on_reject(photo.id, str(error))
            continue
        photos[photo.id] = photo
        if not annotation_rows(photo):
            leave_out(on_reject, photo.id, "no point is annotated on it")
    return Reading(name, rows_of_photos(list(photos.values())), photos)


def read_rows(
    dataset: Dataset, name: str, split: str | None, on_reject: OnReject
) -> Reading:
    """One split of a dataset, whose rows are points or photos."""
    photos = {
        photo.id: photo for photo in read_dataset(dataset, split, on_reject=on_reject)
    }
    if "objects" in dataset.column_names:
        return Reading(name, rows_of_photos(list(photos.values())), photos)
    usable = set()
    for photo in photos.values():
        for row in annotation_rows(photo):
            usable.add((photo.id, *row["point"]))
    ids = row_ids(dataset)
    kept = []
    for index, row in enumerate(each_row(given_annotation(dataset))):
        if has_fitting_numbers(row) and (ids[index], *row["point"]) in usable:
            kept.append(index)
    kept_ids = [ids[index] for index in kept]
    return Reading(name, in_row_format(dataset.select(kept), kept_ids), photos)


def given_annotation(dataset: Dataset) -> Dataset:
    """The columns of the row format that a dataset has, less the image."""
    given = [
        column for column in annotation_features() if column in dataset.column_names
    ]
    return dataset.with_format(None).select_columns(given)


def has_fitting_numbers(row: dict[str, Any]) -> bool:
    """Whether the point and the boxes of a row have as many numbers as they must; boxes may be None."""
    for column, count in NUMBERS.items():
        values = row.get(column)
        if values is None and column != "point":
            continue
        if not isinstance(values, list) or len(values) != count:
            return False
    return True


def row_ids(dataset: Dataset) -> list[str | None]:
    """The id of the photo of each row, as [`read_dataset`] gives it; None where the row cannot be used."""
    columns = [
        column for column in ("image", "image_id") if column in dataset.column_names
    ]
    files = dataset.with_format(None).select_columns(columns)
    ids = PhotoIds()
    ids_of_rows: list[str | None] = []
    files = files.cast_column("image", Image(decode=False))
    for index, row in enumerate(each_row(files)):
        stated = row.get("image_id")
        try:
            stored = stored_image(row["image"], f"row {index}")
            if stated is not None:
                text_of(row, "image_id", f"row {index}")
            ids_of_rows.append(ids.id_of(stated, stored))
        except UNREADABLE:
            ids_of_rows.append(None)  # rejected by `read_dataset`
    return ids_of_rows


def in_row_format(dataset: Dataset, ids: Sequence[str | None]) -> Dataset:
    """The rows with exactly the columns of the format, and with the given ids."""
    images = (
        dataset.with_format(None).select_columns("image").cast_column("image", Image())
    )
    annotations = given_annotation(dataset)
    features = annotation_features()
    expected = Features(
        {column: features[column] for column in annotations.column_names}
    )
    if annotations.features != expected:
        annotations = annotations.cast(expected)
    for column in features:
        if column not in expected:
            missing = [None] * len(dataset)
            annotations = annotations.add_column(
                column, missing, feature=features[column]
            )
    return join_columns(images, with_ids(annotations, ids))


def with_ids(rows: Dataset, ids: Sequence[str | None]) -> Dataset:
    """The rows with other ids."""
    if list(ids) == rows["image_id"][:]:
        return rows
    columns = rows.column_names
    rows = rows.remove_columns("image_id")
    rows = rows.add_column("image_id", list(ids), feature=Value("string"))
    return rows.select_columns(columns)


def share_splits(
    readings: Sequence[Reading], number_of_source: Sequence[int], on_reject: OnReject
) -> None:
    """Gives photos of equal content in several sources one split: that of test, else of validation."""
    numbers_of_size: dict[tuple, set[int]] = defaultdict(set)
    splits_of_size: dict[tuple, set[str]] = defaultdict(set)
    for number, reading in zip(number_of_source, readings):
        for photo in reading.photos.values():
            numbers_of_size[photo.size].add(number)
            splits_of_size[photo.size].add(photo.split)

    found: dict[str, list[tuple[int, Reading, str]]] = defaultdict(list)
    for number, reading in zip(number_of_source, readings):
        for image_id, photo in list(reading.photos.items()):
            # only photos that may be equal to one of another source, in another split, are decoded
            if (
                len(numbers_of_size[photo.size]) == 1
                or len(splits_of_size[photo.size]) == 1
            ):
                continue
            key = content_or_reject(photo, on_reject)
            if key is None:
                del reading.photos[image_id]
            else:
                found[key].append((number, reading, image_id))

    for places in found.values():
        if len({number for number, _, _ in places}) == 1:
            continue
        splits = {reading.photos[image_id].split for _, reading, image_id in places}
        # from the last split, test, to the first, train
        shared = max(splits, key=SPLITS.index)
        for _, reading, image_id in places:
            photo = reading.photos[image_id]
            reading.photos[image_id] = replace(photo, given_split=shared)


def content_or_reject(photo: Photo, on_reject: OnReject) -> str | None:
    """The content key of a photo; None where it cannot be opened, which is rejected."""
    try:
        return photo.content_key
    except (OSError, ValueError) as error:
        on_reject(photo.id, str(error))
        return None


def tell_apart(
    ids: Sequence[str], names: Sequence[str], content: Callable[[int], str]
) -> list[str]:
    """Ids that different photos do not share: the name of its source comes before an id that another photo has too.

    Args:
        ids (list of `str`): of photos.
        names (list of `str`): of the source of each photo.
        content (function): index -> what tells the photo apart; asked only where an id comes more than once.
    Returns:
        list of `str`: an id that still comes twice is that of one photo.
    """
    indices_of_id: dict[str, list[int]] = defaultdict(list)
    for index, image_id in enumerate(ids):
        indices_of_id[image_id].append(index)
    distinct = list(ids)
    taken = set(ids)
    for image_id, indices in indices_of_id.items():
        if len(indices) == 1:
            continue
        contents = [content(index) for index in indices]
        if len(set(contents)) == 1:
            continue
        id_of_content: dict[str, str] = {}
        for index, key in zip(indices, contents):
            if key not in id_of_content:
                id_of_content[key] = free_id(f"{names[index]}/{image_id}", taken)
            distinct[index] = id_of_content[key]
    return distinct


def tell_photos_apart(readings: Sequence[Reading], on_reject: OnReject) -> None:
    """Gives different photos of the readings different ids."""
    places = []
    for reading in readings:
        for image_id in reading.photos:
            places.append((reading, image_id))
    unreadable = []

    def content(index: int) -> str:
        reading, image_id = places[index]
        key = content_or_reject(reading.photos[image_id], on_reject)
        if key is None:
            unreadable.append(index)
            return f"unreadable {index}"
        return key

    ids = [image_id for _, image_id in places]
    names = [reading.name for reading, _ in places]
    for (reading, image_id), new_id in zip(places, tell_apart(ids, names, content)):
        photo = reading.photos[image_id]
        if photo.id != new_id:
            reading.photos[image_id] = replace(
                photo, id=new_id, given_split=photo.split
            )
    for index in unreadable:
        reading, image_id = places[index]
        del reading.photos[image_id]


def free_id(wanted: str, taken: set[str]) -> str:
    """An id that is not taken yet, and is from now on: the wanted one, or that with a number behind it."""
    number = 1
    image_id = wanted
    while image_id in taken:
        number += 1
        image_id = f"{wanted} ({number})"
    taken.add(image_id)
    return image_id


def rows_by_split(readings: Sequence[Reading]) -> dict[str, Dataset]:
    """Split -> the rows of all readings, with the ids and splits of their photos."""
    pieces: dict[str, list[Dataset]] = {split: [] for split in SPLITS}
    for reading in readings:
        kept = []
        photos = []
        for index, image_id in enumerate(reading.rows["image_id"]):
            photo = reading.photos.get(image_id)
            if photo is not None:
                kept.append(index)
                photos.append(photo)
        rows = with_ids(reading.rows.select(kept), [photo.id for photo in photos])
        for split in SPLITS:
            chosen = [
                index for index, photo in enumerate(photos) if photo.split == split
            ]
            if chosen:
                pieces[split].append(rows.select(chosen))
    joined = {}
    for split, parts in pieces.items():
        if parts:
            joined[split] = concatenate_datasets(parts)
    return joined
