"""The one row format of points: what trainers, reward, evaluation and builder read and write, one row for each image,
point and style.

docs/dataset_formats.md describes the columns. A row whose `description` is None has no text of its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
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

from .photos import SPLITS, AnnotatedObject, OnReject, PartPoint, Photo, check_size, split_of
from .sources import read_dataset, read_objects

logger = logging.getLogger(__name__)

PointSource: TypeAlias = "str | os.PathLike | Dataset | DatasetDict"
NUMBERS = {"point": 2, "object_box": 4, "part_box": 4}  # column -> numbers in each row
BATCH_ROWS = 256  # rows whose stored images are held in memory at once


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
    owned = [(annotated, point) for annotated in photo.objects for point in annotated.points]
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
    for _, group in groupby(photos, key=stored_in):
        pieces.append(rows_of_one_store(list(group)))
    if not pieces:
        return Dataset.from_dict(dict.fromkeys(point_features(), []), features=point_features())
    return concatenate_datasets(pieces)


def stored_in(photo: Photo) -> int | None:
    """Identity of the dataset that holds a photo; None for a file."""
    return None if photo.row is None else id(photo.row[0])


def rows_of_one_store(photos: Sequence[Photo]) -> Dataset:
    """The rows of photos that are all files, or all rows of one dataset, which stays where it is."""
    rows: list[dict[str, Any]] = []
    places: list[Any] = []  # of the image of each row: a path, or the row of a dataset
    for photo in photos:
        annotation = annotation_rows(photo)
        place = photo.path if photo.row is None else photo.row[1]
        rows.extend(annotation)
        places.extend([place] * len(annotation))
    annotations = Dataset.from_list(rows, features=annotation_features())
    if photos[0].row is None:
        images = Dataset.from_dict({"image": places}, features=Features({"image": Image()}))
    else:
        stored = photos[0].row[0].select_columns("image").select(places)
        images = stored.cast_column("image", Image())
    return beside(images, annotations)


def beside(images: Dataset, annotations: Dataset) -> Dataset:
    """A dataset with the columns of both, in the order of the row format."""
    return concatenate_datasets([images, annotations], axis=1).select_columns(
        list(point_features())
    )


class RejectCounts:
    """An `on_reject` that counts reasons, to be told at the end."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}  # reason -> the first record that it was given for

    def __call__(self, image_id: str, reason: str) -> None:
        kind = reason.partition(":")[0]
        self.counts[kind] += 1
        self.first.setdefault(kind, f"{image_id}: {reason}")

    def lines(self) -> list[str]:
        """A line for each kind of reason, the most frequent first."""
        most_frequent = self.counts.most_common()
        return [f"{count} x {self.first[kind]}" for kind, count in most_frequent]


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


def read_source(source: PointSource, number: int, on_reject: OnReject) -> Iterator[Reading]:
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
        if split not in (None, "val", *SPLITS):
            raise ValueError(f"{name}: split must be one of {SPLITS}, found {split!r}")
        yield read_rows(dataset, name, split, on_reject)


def source_name(source: str | os.PathLike) -> str:
    """The last part of a folder or Hub id."""
    return Path(os.path.abspath(source)).name


def read_folder(folder: Path, name: str, on_reject: OnReject) -> Reading:
    """A folder with an `objects.jsonl`, less the photos that cannot be opened or have another size than is stated."""
    photos = {}
    for photo in read_objects(folder, on_reject=on_reject):
        try:
            check_size(photo, photo.displayed_size())
        except (OSError, ValueError) as error:
            on_reject(photo.id, str(error))
            continue
        photos[photo.id] = photo
    return Reading(name, rows_of_photos(list(photos.values())), photos)


def read_rows(dataset: Dataset, name: str, split: str | None, on_reject: OnReject) -> Reading:
    """One split of a dataset, whose rows are points or photos."""
    dataset = dataset.with_format(None)
    if "objects" in dataset.column_names:
        photos = {photo.id: photo for photo in read_dataset(dataset, split, on_reject=on_reject)}
        return Reading(name, rows_of_photos(list(photos.values())), photos)
    rows, splits = in_row_format(dataset, name, split, on_reject)
    stated = rows.add_column("split", splits)
    photos = {photo.id: photo for photo in read_dataset(stated, on_reject=on_reject)}
    usable = set()
    for photo in photos.values():
        for row in annotation_rows(photo):
            usable.add((photo.id, *row["point"]))
    kept = []
    for index, row in enumerate(rows.select_columns(["image_id", "point"])):
        if (row["image_id"], *row["point"]) in usable:
            kept.append(index)
    return Reading(name, rows.select(kept), photos)


def in_row_format(
    dataset: Dataset, name: str, split: str | None, on_reject: OnReject
) -> tuple[Dataset, list[str]]:
    """The rows with exactly the columns of the format, and the split of each; no two images have one `image_id`."""
    for needed in ("image", "point"):
        if needed not in dataset.column_names:
            raise ValueError(
                f"{name}: expected a column {needed!r}, found the columns {dataset.column_names}"
            )
    dataset = without_unfit_rows(dataset, name, on_reject)
    images = dataset.select_columns("image").cast_column("image", Image())
    features = annotation_features()
    given = [column for column in features if column in dataset.column_names]
    annotations = dataset.select_columns(given)
    expected = Features({column: features[column] for column in given})
    if annotations.features != expected:
        annotations = annotations.cast(expected)
    for column in features:
        if column not in given:
            values = [None] * len(dataset)
            annotations = annotations.add_column(column, values, feature=features[column])

    keys = stored_keys(images)
    stated = stated_ids(annotations, images, keys)
    splits = [split] * len(dataset)
    if "split" in dataset.column_names:
        splits = [of_row or split for of_row in dataset["split"]]
    splits = [given or split_of(image_id) for given, image_id in zip(splits, stated)]
    ids = distinct_ids(stated, keys)
    if ids != annotations["image_id"][:]:
        annotations = annotations.remove_columns("image_id")
        annotations = annotations.add_column("image_id", ids, feature=Value("string"))
    return beside(images, annotations), splits


def without_unfit_rows(dataset: Dataset, name: str, on_reject: OnReject) -> Dataset:
    """The rows whose point and boxes have as many numbers as they must, the others rejected."""
    unfit = set()
    for column, count in NUMBERS.items():
        if column not in dataset.column_names:
            continue
        values = dataset.select_columns(column).with_format("arrow")[:][column]
        if not pa.types.is_list(values.type) and not pa.types.is_fixed_size_list(values.type):
            raise ValueError(
                f"{name}: column {column!r} must hold lists of {count} numbers, found {values.type}"
            )
        for index, length in enumerate(pc.list_value_length(values).to_pylist()):
            if length != count and not (length is None and column != "point"):
                unfit.add(index)
                on_reject(
                    f"{name}, row {index}",
                    f"{column}: expected {count} numbers, found {length or 'none'}",
                )
    if not unfit:
        return dataset
    return dataset.select([index for index in range(len(dataset)) if index not in unfit])


def stored_keys(images: Dataset) -> list[str]:
    """What tells the stored images of rows apart: a hash of the bytes, or the path; "" where there is none."""
    keys: list[str] = []
    last, key = None, ""
    for batch in images.cast_column("image", Image(decode=False)).iter(BATCH_ROWS):
        for stored in batch["image"]:
            # the rows of a photo mostly follow each other
            if stored != last:
                last, key = stored, stored_key(stored)
            keys.append(key)
    return keys


def stored_key(stored: dict[str, Any] | None) -> str:
    """See [`stored_keys`]; `stored` is {"bytes": …, "path": …}."""
    if stored is None:
        return ""
    if stored["bytes"] is None:
        return stored["path"] or ""
    return hashlib.sha256(stored["bytes"]).hexdigest()


def stated_ids(annotations: Dataset, images: Dataset, keys: Sequence[str]) -> list[str]:
    """The `image_id` of each row; where it is missing, the hash of the image as it is stored."""
    ids = annotations["image_id"][:]
    files = images.cast_column("image", Image(decode=False))
    hashes: dict[str, str] = {}  # key -> hash
    stated = []
    for index, (image_id, key) in enumerate(zip(ids, keys)):
        if image_id is None:
            if key not in hashes:
                hashes[key] = stored_hash(files[index]["image"])
            image_id = hashes[key]
        stated.append(image_id)
    return stated


def stored_hash(stored: dict[str, Any] | None) -> str:
    """SHA-256 of the bytes of a stored image; of its path where there is no such file, which is rejected later."""
    if stored is None:
        return "no image"
    content = stored["bytes"]
    if content is None:
        path = stored["path"]
        content = Path(path).read_bytes() if os.path.isfile(path) else path.encode()
    return hashlib.sha256(content).hexdigest()


def distinct_ids(ids: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The ids, with a number behind them where another image has had the same."""
    keys_of_id: dict[str, list[str]] = defaultdict(list)
    distinct = []
    for image_id, key in zip(ids, keys):
        known = keys_of_id[image_id]
        if key not in known:
            known.append(key)
        number = known.index(key) + 1
        distinct.append(image_id if number == 1 else f"{image_id} ({number})")
    return distinct


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
            if len(numbers_of_size[photo.size]) == 1 or len(splits_of_size[photo.size]) == 1:
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
            reading.photos[image_id] = replace(photo, id=new_id, given_split=photo.split)
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
        rows = reading.rows
        old_ids = rows["image_id"][:]
        kept = [index for index, image_id in enumerate(old_ids) if image_id in reading.photos]
        photos = [reading.photos[old_ids[index]] for index in kept]
        if len(kept) < len(rows):
            rows = rows.select(kept)
        new_ids = [photo.id for photo in photos]
        if new_ids != rows["image_id"][:]:
            rows = rows.remove_columns("image_id")
            rows = rows.add_column("image_id", new_ids, feature=Value("string"))
            rows = rows.select_columns(list(point_features()))
        for split in SPLITS:
            chosen = [index for index, photo in enumerate(photos) if photo.split == split]
            if chosen:
                pieces[split].append(rows.select(chosen))
    joined = {split: concatenate_datasets(parts) for split, parts in pieces.items() if parts}
    return joined
