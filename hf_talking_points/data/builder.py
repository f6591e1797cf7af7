"""LlamaPointInPart: (image, point, description) triplets from annotated photos, built in units that survive being
killed.

A build first lists its photos ([`plan_units`]) in units. Then it builds each unit ([`build_unit`]), which depends on
nothing but its own photos and the seed, so that units can be built in any order, by any number of processes, and
again after a kill.
"""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetDict, Features, Value, load_dataset
from huggingface_hub import CommitInfo, HfApi
from tqdm import tqdm

from ..files import only_writer
from ..localization import localization_pipeline, locate_texts, points_of
from ..metrics import distances_with_misses
from ..models.pipelines import PointLocalizationPipeline
from ..processes import end_with_parent
from ..words.facts import PointFacts, Scene
from .build_plan import (
    BuildOptions,
    Source,
    as_json,
    plan_units,
    planned_units,
    write_atomically,
)
from .dataset_card import dataset_card, draw_samples
from .false_claims import FALSE_CLAIMS, false_claim_rows, false_claims_of
from .keypoints import choose_points, draw_number
from .photo_files import shareable_file
from .photos import SPLITS, AnnotatedObject, PartPoint, Photo
from .rows import annotation_row, point_features
from .teachers import PointQuery, RuleTeacher
from .unit_files import read_unit

__all__ = [
    "BuildOptions",
    "Source",
    "build_dataset",
    "build_units",
    "finish",
    "load_built",
    "plan_units",
    "push_built",
]

FACTS = ("size", "which", "in_image", "on_object", "in_part", "part_place")
LOOKS = ("color", "pattern")
SEEDS = 2**53  # seeds are whole numbers below this


def features(options: BuildOptions, teacher: Any) -> Features:
    """Columns of a built dataset: the row format, the facts behind the text, what teacher and localizer add."""
    more = {"text_from": Value("string")}
    for name in (*FACTS, *LOOKS):
        more[f"fact_{name}"] = Value("string")
    for column in teacher.columns:
        if column != "description":
            more[column] = Value("string")
    more["false_claims"] = FALSE_CLAIMS
    if options.localizer:
        more["localization_distance"] = Value("float32")
    return point_features(**more)


@dataclass
class Described:
    """A row in the making.

    Args:
        split (`str`): of its photo.
        scene ([`Scene`]): its photo.
        annotated ([`AnnotatedObject`], *optional*), point ([`PartPoint`]): what it is about.
        query ([`PointQuery`]): what the teacher is asked, unless the source has a text.
        row (`dict`): its columns so far; "text_from" says whose text it has, "source" or "teacher".
    """

    split: str
    scene: Scene
    annotated: AnnotatedObject | None
    point: PartPoint
    query: PointQuery
    row: dict[str, Any]


def seed_of(options: BuildOptions, *key: Any) -> int:
    """A seed that follows from the build's seed and a key alone."""
    return int(draw_number(options.seed, *key) * SEEDS)


def fact_columns(facts: PointFacts) -> dict[str, str | None]:
    """What annotation and pixels say of a point, as its rows hold it."""
    columns = {f"fact_{name}": getattr(facts, name) for name in FACTS}
    for name in LOOKS:
        columns[f"fact_{name}"] = getattr(facts.looks, name)
    return columns


def photo_queries(
    photo: Photo, options: BuildOptions, teacher_styles: Sequence[str]
) -> list[Described]:
    """The texts that the source has of the points of one photo, what the teacher is asked of them, and the annotation
    columns of their rows."""
    image = photo.open()
    scene = Scene(photo, np.asarray(image))
    gray = np.asarray(image.convert("L"))
    rng = np.random.default_rng(seed_of(options, "points", photo.id))
    chosen = choose_points(
        photo, gray, options.per_part, options.per_photo, options.min_distance, rng
    )
    scene.looks.look_at([(point.x, point.y) for _, point, _ in chosen])
    described = []
    for number, (annotated, point, stratum) in enumerate(chosen):
        facts = scene.facts(annotated, point)
        row = {
            **annotation_row(photo, annotated, point),
            "stratum": stratum,
            **fact_columns(facts),
        }
        for style in options.styles:
            query = PointQuery(
                image=image,
                point=(point.x, point.y),
                facts=facts,
                style=style,
                seed=seed_of(options, "words", photo.id, number, style),
                false_claims=partial(
                    false_claims_of, scene=scene, annotated=annotated, point=point
                ),
            )
            for columns in texts_of_style(point, style, teacher_styles):
                described.append(
                    Described(
                        photo.split, scene, annotated, point, query, {**row, **columns}
                    )
                )
    return described


def texts_of_style(
    point: PartPoint, style: str, teacher_styles: Sequence[str]
) -> list[dict[str, str]]:
    """The columns of the rows of a point in one style: its own texts, else one row for the teacher's, or none."""
    rows = []
    for own_style, text in point.texts:
        if own_style == style:
            rows.append({"style": style, "text_from": "source", "description": text})
    if not rows and style in teacher_styles:
        rows.append({"style": style, "text_from": "teacher"})
    return rows


def unit_queries(
    photos: Sequence[Photo], options: BuildOptions, teacher_styles: Sequence[str]
) -> list[Described]:
    """[`photo_queries`] of the photos of a unit, with the files that are stored of them."""
    described = []
    for photo in photos:
        of_photo = photo_queries(photo, options, teacher_styles)
        if of_photo:
            content, name = shareable_file(photo.file(), Path(photo.id).name)
            image = {"bytes": content, "path": name}
            for item in of_photo:
                item.row["image"] = image
        described.extend(of_photo)
    return described


def ask_teacher(
    teacher: Any, described: Sequence[Described], vocabulary: Sequence[str]
) -> None:
    """Adds the teacher's columns to the rows that have no text of their source."""
    asked = [item for item in described if item.row["text_from"] == "teacher"]
    if asked:
        queries = [item.query for item in asked]
        for item, answer in zip(asked, teacher(queries, vocabulary)):
            item.row.update(answer)


def check_texts(described: Sequence[Described]) -> None:
    """Adds the column `false_claims`: what each text says that annotation or pixels contradict."""
    for item in described:
        item.row["false_claims"] = false_claim_rows(
            item.row["description"], item.scene, item.annotated, item.point
        )


@lru_cache(maxsize=1)
def localizer_of_units(checkpoint: str) -> PointLocalizationPipeline:
    """The localizer of a build, loaded once for all units of a process."""
    return localization_pipeline(checkpoint)


def measure_distances(
    localizer: PointLocalizationPipeline, described: Sequence[Described]
) -> None:
    """Adds the column `localization_distance`: how far off a localizer finds each description, normalized by the
    sides of its photo.

    A description that the localizer cannot take counts as found at the farthest corner. Rows of a photo stand
    together.
    """
    photos = []
    for _, group in groupby(described, key=lambda item: item.row["image_id"]):
        photos.append(list(group))
    requests = []
    for rows in photos:
        texts = [item.row["description"] for item in rows]
        requests.append((rows[0].query.image, texts))
    for rows, answers in zip(photos, locate_texts(localizer, requests)):
        points = [item.row["point"] for item in rows]
        sizes = [item.query.image.size for item in rows]
        distances = distances_with_misses(points_of(answers), points, sizes)
        for item, distance in zip(rows, distances.tolist()):
            item.row["localization_distance"] = distance


def build_unit(unit: Path, folder: Path, options: BuildOptions, teacher: Any) -> None:
    """Builds the rows of one unit: a Parquet file for each split, then the summary that says that the unit is done."""
    summary = folder / "work" / f"{unit.stem}.json"
    if summary.is_file():
        return
    photos = read_unit(unit)
    plan = json.loads((folder / "work" / "plan.json").read_text())
    described = unit_queries(photos, options, teacher.styles)
    ask_teacher(teacher, described, plan["vocabulary"])
    check_texts(described)
    if options.localizer and described:
        measure_distances(localizer_of_units(options.localizer), described)
    kept = within_distance(described, options.most_distance)
    digests = {}
    for split in SPLITS:
        rows = [item.row for item in kept if item.split == split]
        if rows:
            file = folder / "data" / f"{split}-{unit.stem[5:]}.parquet"
            digests[split] = write_rows(file, rows, features(options, teacher))
    done = {"described": len(described), "rows": len(kept), "sha256": digests}
    write_atomically(summary, as_json(done))


def within_distance(
    described: Sequence[Described], most_distance: float | None
) -> Sequence[Described]:
    """The rows that are found within a distance; all of them without one."""
    if most_distance is None:
        return described
    return [
        item for item in described if item.row["localization_distance"] <= most_distance
    ]


def write_rows(file: Path, rows: Sequence[dict[str, Any]], columns: Features) -> str:
    """Writes rows as a Parquet file, whose SHA-256 is returned. The rows of a photo stand together."""
    schema = columns.arrow_schema
    image_type = schema.field("image").type
    images = []
    for _, group in groupby(rows, key=lambda row: row["image_id"]):
        of_photo = list(group)
        # repeated in Arrow, which is much faster than converting the file for each row
        image = pa.array([of_photo[0]["image"]], image_type)
        images.append(image.take([0] * len(of_photo)))
    annotation = pa.Table.from_pylist(
        rows, schema=schema.remove(schema.get_field_index("image"))
    )
    table = annotation.append_column("image", pa.chunked_array(images))
    table = table.select(schema.names).replace_schema_metadata(schema.metadata)
    buffer = io.BytesIO()
    # one dictionary entry for each photo, however many points it has
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        dictionary_pagesize_limit=2**28,
        row_group_size=len(rows),
    )
    content = buffer.getvalue()
    write_atomically(file, content)
    return hashlib.sha256(content).hexdigest()


def build_units(
    data: Any = None,
    rank: int = 0,
    world_size: int = 1,
    *,
    folder: str | os.PathLike,
    options: BuildOptions,
    teacher: Any,
) -> Iterator[Any]:
    """Builds every `world_size`-th planned unit, from `rank` on.

    With all but `data`, `rank` and `world_size` bound by `functools.partial` it is a step of a datatrove pipeline,
    for clusters: `LocalPipelineExecutor([step], tasks=n).run()`, or the Slurm and Ray executors; then [`finish`] once.
    """
    folder = Path(folder)
    for unit in planned_units(folder)[rank::world_size]:
        build_unit(unit, folder, options, teacher)
    return iter(())


def build_dataset(
    sources: Sequence[Source],
    folder: str | os.PathLike,
    options: BuildOptions,
    teacher: Any = None,
    num_proc: int = 1,
    strict: bool = False,
) -> DatasetDict:
    """Builds a dataset, or goes on with a build that was cut off.

    Args:
        sources (list of functions): each takes `on_reject` and yields [`Photo`].
        folder: where it is written: `data/*.parquet`, `README.md`, `rejects.jsonl`; `work/` holds the state of the
            build.
        options ([`BuildOptions`])
        teacher (*optional*): writes the descriptions; [`RuleTeacher`] without it.
        num_proc (`int`): processes that build units side by side.
        strict (`bool`): stops at the first photo or annotation that cannot be used; otherwise these go to
            `rejects.jsonl`.
    Returns:
        `datasets.DatasetDict` of rows in the row format, with further columns.

    Raises ValueError for a style that neither the teacher nor a text of the sources has, where the folder holds a
    build of other sources, options or another teacher, and where no photo or no row is left; BlockingIOError where
    another process builds there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    teacher = teacher or RuleTeacher()
    with only_writer(folder):
        units = plan_units(sources, folder, options, teacher, strict)
        build = partial(build_unit, folder=folder, options=options, teacher=teacher)
        build_side_by_side(build, units, num_proc)
        return finish(folder, options, teacher)


def build_side_by_side(
    build: Callable[[Any], None], units: Sequence[Any], num_proc: int
) -> None:
    """Builds units in several processes."""
    progress = partial(tqdm, total=len(units), desc="Building", unit=" units")
    if num_proc == 1:
        for unit in progress(units):
            build(unit)
        return
    with ProcessPoolExecutor(
        num_proc, mp_context=get_context("spawn"), initializer=begin_process
    ) as pool:
        for _ in progress(pool.map(build, units)):
            pass


def begin_process() -> None:
    """What a process of a build does first."""
    gc.freeze()  # or it would go through the imported modules again and again
    end_with_parent()


def finish(
    folder: str | os.PathLike, options: BuildOptions, teacher: Any
) -> DatasetDict:
    """Writes the dataset card of a build whose units are all done, and loads the dataset.

    Raises ValueError where a unit is not built, or where no unit has a row.
    """
    folder = Path(folder)
    units = planned_units(folder)
    missing = [unit.stem for unit in units if not unit.with_suffix(".json").is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(units)} units are not built, the first is {missing[0]}"
        )
    summaries = [json.loads(unit.with_suffix(".json").read_text()) for unit in units]
    refuse_empty_build(summaries, options)
    if options.images_may_be_shared:
        draw_samples(folder)
    digests = [summary["sha256"] for summary in summaries]
    content = hashlib.sha256(as_json(digests)).hexdigest()
    card = dataset_card(
        folder, options, teacher, list(features(options, teacher)), content
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return load_built(folder)


def refuse_empty_build(
    summaries: Sequence[dict[str, Any]], options: BuildOptions
) -> None:
    """Raises ValueError, saying why, where no unit has a row."""
    if any(summary["rows"] for summary in summaries):
        return
    described = sum(summary["described"] for summary in summaries)
    if described:
        raise ValueError(
            f"no row is left: the localizer finds none of {described} descriptions within "
            f"most_distance={options.most_distance}"
        )
    raise ValueError(
        f"no row is left: per_part {options.per_part} and per_photo {options.per_photo} chose no point of the photos "
        "that a text could be had of; 'given' takes the annotated and the described points, every other stratum of "
        "per_part needs annotated parts"
    )


def push_built(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Pushes a finished build with its card; without the photos where their license does not allow to pass them on."""
    folder = Path(folder)
    plan = json.loads((folder / "work" / "plan.json").read_text())
    api = HfApi(token=token)
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as without_images:
        source = folder
        if not plan["options"]["images_may_be_shared"]:
            source = Path(without_images)
            copy_without_images(folder, source)
        return api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=source,
            allow_patterns=["README.md", "samples.jpg", "data/*.parquet"],
        )


def copy_without_images(folder: Path, target: Path) -> None:
    """Copies card and rows of a build, less the column of images."""
    shutil.copyfile(folder / "README.md", target / "README.md")
    (target / "data").mkdir()
    for file in (folder / "data").glob("*.parquet"):
        columns = Features.from_arrow_schema(pq.read_schema(file))
        del columns["image"]
        table = pq.read_table(file, columns=list(columns))
        pq.write_table(table.cast(columns.arrow_schema), target / "data" / file.name)


def load_built(folder: str | os.PathLike) -> DatasetDict:
    """The `datasets.DatasetDict` of a finished build."""
    data_files = {}
    for split in SPLITS:
        files = sorted((Path(folder) / "data").glob(f"{split}-*.parquet"))
        if files:
            data_files[split] = [str(file) for file in files]
    return load_dataset("parquet", data_files=data_files)
