"""LlamaPointInPart: (image, point, description) triplets from annotated photos, built in units that survive being killed.

A build first lists its photos (`plan_units`): it reads every photo once, rejects what is broken, drops train photos that nearly equal a
test or validation photo, and writes the rest in units of a few photos. Then it builds each unit (`build_unit`), which depends on nothing
but its own photos and the seed, so that units can be built in any order, by any number of processes, and again after a kill.
"""

import io
import json
import os
import pickle
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value
from huggingface_hub import HfApi
from PIL import Image as PILImage
from PIL import ImageOps
from tqdm import tqdm
from transformers import pipeline

from ..metrics import distinct_n, normalized_distances, pck
from ..visualization import draw_round_trip, stack
from .keypoints import STRATA, balanced_thresholds, choose_points, draw_number
from .sources import SPLITS
from .teachers import PointQuery, RuleTeacher
from .wording import point_facts


@dataclass(frozen=True)
class BuildOptions:
    """What a build makes of its photos.

    Args:
        license (`str`): licence of the photos, as the Hub names it ("cc-by-4.0", "other", "unknown", …).
        images_may_be_shared (`bool`): whether that licence allows to pass the photos on. Without it cards show none and pushes leave
            the image column out.
        styles (`tuple[str]`): each point gets one description in each of these styles.
        per_part (`dict[str, int]`): stratum -> points of each annotated part; "given": 1 keeps the annotated points themselves.
        min_distance (`float`): least distance of two points of a photo, as a share of its longer side.
        most_per_part (`int`, *optional*): parts (or given points) of each split, category and part name that are kept; all of them if None.
        localizer (`str`, *optional*): checkpoint of a localizer that looks for every description; its normalised distance to the point
            becomes the column `localization_distance`.
        most_distance (`float`, *optional*): rows whose distance is larger are left out; needs a localizer.
        duplicate_bits (`int`): a train photo is dropped where at most this many of the 64 bits of its perceptual hash differ from those
            of a test or validation photo.
        unit_photos (`int`): photos that are built, and after a kill built again, together.
        seed (`int`)
    """

    license: str
    images_may_be_shared: bool = False
    styles: tuple = ("full",)
    per_part: dict = field(default_factory=lambda: {"given": 1})
    min_distance: float = 0.0
    most_per_part: int | None = None
    localizer: str | None = None
    most_distance: float | None = None
    duplicate_bits: int = 3
    unit_photos: int = 64
    seed: int = 0

    def __post_init__(self):
        if unknown := [stratum for stratum in self.per_part if stratum not in STRATA]:
            raise ValueError(f"strata {unknown} of per_part are unknown: choose from {STRATA}")
        if self.most_distance is not None and self.localizer is None:
            raise ValueError("most_distance needs a localizer that measures the distance")


def features(options, teacher):
    """Columns of a built dataset: one row for each image, point and style."""
    distance = {"localization_distance": Value("float32")} if options.localizer else {}
    return Features(
        {
            "image": Image(),
            "image_id": Value("string"),
            "point": List(Value("float32"), length=2),
            "description": Value("string"),
            "style": Value("string"),
            "object": Value("string"),
            "object_box": List(Value("float32"), length=4),
            "part": Value("string"),
            "part_box": List(Value("float32")),
            "stratum": Value("string"),
            **{
                f"fact_{name}": Value("string")
                for name in ("size", "in_image", "on_object", "in_part", "spot")
            },
            **{name: Value("string") for name in teacher.columns if name != "description"},
            **distance,
        }
    )


def perceptual_hash(image):
    """64 bits that change little when a photo is scaled, compressed or slightly retouched: the signs of horizontal differences of its
    9 x 8 grey thumbnail."""
    thumbnail = np.asarray(
        image.convert("L").resize((9, 8), PILImage.Resampling.BOX), dtype=np.int16
    )
    return int.from_bytes(np.packbits(thumbnail[:, 1:] > thumbnail[:, :-1]).tobytes(), "big")


def near_duplicates(hashes, of, bits):
    """Which of `hashes` differ by at most `bits` bits from any of `of`, a bool array."""
    hashes, of = np.array(hashes, dtype=np.uint64), np.array(of, dtype=np.uint64)
    found = np.zeros(len(hashes), dtype=bool)
    for start in range(0, len(hashes) if len(of) else 0, 4096):
        found[start : start + 4096] = (
            np.bitwise_count(hashes[start : start + 4096, None] ^ of[None]) <= bits
        ).any(1)
    return found


def write_atomically(path, content):
    """Writes bytes so that a kill leaves either the whole file or none."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def as_json(content):
    return (json.dumps(content, indent=2) + "\n").encode()


class Rejects:
    """Counts what a source had to leave out; with `strict` the first one is an error."""

    def __init__(self, strict):
        self.strict, self.rows = strict, []

    def __call__(self, image_id, reason):
        if self.strict:
            raise ValueError(f"{image_id}: {reason}")
        self.rows.append({"image": image_id, "reason": reason})


def stated_source(source):
    """What a source reads, as JSON can hold it: the reader's name and the arguments that `functools.partial` has bound."""
    if isinstance(source, partial):
        return [
            source.func.__name__,
            *map(str, source.args),
            {name: str(value) for name, value in source.keywords.items()},
        ]
    return [source.__name__]


def plan_units(sources, folder, options, teacher, strict=False):
    """Lists the photos of `sources` in units, once; returns at once where that has been done with the same sources, options and teacher.

    Args:
        sources (list of functions): each takes `on_reject` and yields [`Photo`].
        folder: of the build.
    Returns:
        list of paths of the units.
    """
    folder = Path(folder)
    work, plan = folder / "work", folder / "work" / "plan.json"
    stated = {
        "options": asdict(options),
        "teacher": teacher.info,
        "sources": [stated_source(source) for source in sources],
    }
    stated = json.loads(json.dumps(stated))
    if plan.is_file():
        done = json.loads(plan.read_text())
        changed = [
            name for name, value in stated["options"].items() if value != done["options"].get(name)
        ]
        changed += [name for name in ("teacher", "sources") if stated[name] != done[name]]
        if changed:
            raise ValueError(
                f"{folder} holds a build with other {', '.join(changed)}: finish or remove it, or choose another folder"
            )
        return sorted(work.glob("unit-*.pkl"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (folder / "data").mkdir(exist_ok=True)
    rejects, listed, hashes, seen, numbers = Rejects(strict), [], [], set(), {}
    with open(work / "photos.pkl", "wb") as spool:
        for source in sources:
            for photo in tqdm(source(on_reject=rejects), desc="Reading photos", unit=" photos"):
                if photo.id in seen:
                    rejects(photo.id, "its id has come before")
                    continue
                try:
                    image = photo.open()
                    image.load()
                except (OSError, ValueError) as error:
                    rejects(photo.id, f"{type(error).__name__}: {error}")
                    continue
                if image.size != tuple(photo.size):
                    rejects(
                        photo.id,
                        f"size: expected {tuple(photo.size)} as annotated, found {image.size}",
                    )
                    continue
                seen.add(photo.id)
                listed.append((photo.id, photo.split, spool.tell()))
                pickle.dump(photo, spool)
                hashes.append(perceptual_hash(image))
                for key in named_things(photo):
                    numbers.setdefault(key[:3], []).append(draw_number(options.seed, *key))
    held_out = [h for h, (_, split, _) in zip(hashes, listed) if split != "train"]
    duplicate = near_duplicates(hashes, held_out, options.duplicate_bits)
    thresholds = (
        balanced_thresholds(numbers, options.most_per_part) if options.most_per_part else None
    )
    kept = []
    for (image_id, split, offset), twice in zip(listed, duplicate):
        if twice and split == "train":
            rejects.rows.append(
                {"image": image_id, "reason": "nearly equals a test or validation photo"}
            )
        else:
            kept.append(offset)
    with open(work / "photos.pkl", "rb") as spool:
        for number, start in enumerate(range(0, len(kept), options.unit_photos)):
            unit = []
            for offset in kept[start : start + options.unit_photos]:
                spool.seek(offset)
                photo = pickle.load(spool)
                unit.append(
                    photo if thresholds is None else keep_below(photo, thresholds, options.seed)
                )
            write_atomically(work / f"unit-{number:05d}.pkl", pickle.dumps(unit))
    (work / "photos.pkl").unlink()
    write_atomically(
        folder / "rejects.jsonl", "".join(json.dumps(row) + "\n" for row in rejects.rows).encode()
    )
    vocabulary = sorted({name for key in numbers for name in key[1:3]})
    write_atomically(
        plan,
        as_json(
            {**stated, "photos": len(kept), "rejects": len(rejects.rows), "vocabulary": vocabulary}
        ),
    )
    return sorted(work.glob("unit-*.pkl"))


def named_things(photo):
    """(split, category, name, image id, object, kind, index) of every annotated point and part."""
    for o, annotated in enumerate(photo.objects):
        for kind, named in (
            ("point", [p.part for p in annotated.points]),
            ("part", [p.name for p in annotated.parts]),
        ):
            for i, name in enumerate(named):
                yield photo.split, annotated.category, name, photo.id, o, kind, i


def keep_below(photo, thresholds, seed):
    """The photo with those points and parts whose number is within the threshold of their split, category and name."""
    kept = {
        key[4:] for key in named_things(photo) if draw_number(seed, *key) <= thresholds[key[:3]]
    }
    objects = tuple(
        replace(
            annotated,
            points=tuple(p for i, p in enumerate(annotated.points) if (o, "point", i) in kept),
            parts=tuple(p for i, p in enumerate(annotated.parts) if (o, "part", i) in kept),
        )
        for o, annotated in enumerate(photo.objects)
    )
    return replace(photo, objects=objects)


def encoded(image):
    """An image's file as it is, or PNG where it was made in memory or must be turned for display."""
    path = getattr(image, "filename", "")
    if path and image.getexif().get(0x0112, 1) == 1:
        return Path(path).read_bytes()
    buffer = io.BytesIO()
    ImageOps.exif_transpose(image).save(buffer, "PNG")
    return buffer.getvalue()


def photo_queries(photo, options):
    """[`PointQuery`]s of one photo and the annotation columns of their rows."""
    image = photo.open()
    pixels, gray = np.asarray(image), np.asarray(image.convert("L"))
    rng = np.random.default_rng(int(draw_number(options.seed, "points", photo.id) * 2**53))
    queries, rows = [], []
    for number, (annotated, point, stratum) in enumerate(
        choose_points(photo, gray, options.per_part, options.min_distance, rng)
    ):
        facts = point_facts(photo, annotated, point, pixels)
        for style in options.styles:
            seed = int(draw_number(options.seed, "words", photo.id, number, style) * 2**53)
            queries.append(
                PointQuery(
                    image=image, point=(point.x, point.y), facts=facts, style=style, seed=seed
                )
            )
            rows.append(
                {
                    "image_id": photo.id,
                    "point": [point.x, point.y],
                    "style": style,
                    "object": annotated.category,
                    "object_box": list(annotated.box),
                    "part": point.part,
                    "part_box": list(point.box) if point.box is not None else None,
                    "stratum": stratum,
                    **{
                        f"fact_{name}": getattr(facts, name)
                        for name in ("size", "in_image", "on_object", "in_part", "spot")
                    },
                }
            )
    return queries, rows


@lru_cache(maxsize=1)
def load_localizer(checkpoint):
    return pipeline("point-localization", model=checkpoint)


def localization_distances(locate, rows, queries):
    """Normalised distances at which a point-localization pipeline finds the descriptions of `rows`; rows of a photo stand together."""
    distances = []
    for _, group in groupby(zip(rows, queries), key=lambda pair: pair[0]["image_id"]):
        group = list(group)
        image = group[0][1].image
        found = [
            answer["point"]
            for answer in locate(image, text=[row["description"] for row, _ in group])
        ]
        distances += normalized_distances(
            found, [row["point"] for row, _ in group], [image.size] * len(group)
        ).tolist()
    return distances


def build_unit(unit, folder, options, teacher):
    """Builds the rows of one unit: a Parquet file for each of its splits, then its summary, whose presence says that the unit is done."""
    summary = folder / "work" / f"{unit.stem}.json"
    if summary.is_file():
        return
    photos = pickle.loads(unit.read_bytes())
    vocabulary = json.loads((folder / "work" / "plan.json").read_text())["vocabulary"]
    queries, rows, splits = [], [], []
    for photo in photos:
        some, annotation = photo_queries(photo, options)
        content = (
            {"bytes": encoded(PILImage.open(photo.file())), "path": Path(photo.id).name}
            if some
            else None
        )
        queries += some
        rows += [{"image": content, **row} for row in annotation]
        splits += [photo.split] * len(annotation)
    rows = (
        [{**row, **answer} for row, answer in zip(rows, teacher(queries, vocabulary))]
        if rows
        else []
    )
    counts = {"rows": len(rows)}
    if options.localizer:
        for row, distance in zip(
            rows, localization_distances(load_localizer(options.localizer), rows, queries)
        ):
            row["localization_distance"] = distance
        counts["within 0.1"] = sum(row["localization_distance"] < 0.1 for row in rows)
    if options.most_distance is not None:
        splits = [
            split
            for split, row in zip(splits, rows)
            if row["localization_distance"] <= options.most_distance
        ]
        rows = [row for row in rows if row["localization_distance"] <= options.most_distance]
    for split in SPLITS:
        chosen = [row for row, its in zip(rows, splits) if its == split]
        if chosen:
            table = pa.Table.from_pylist(chosen, schema=features(options, teacher).arrow_schema)
            buffer = io.BytesIO()
            # one dictionary entry for each photo, however many points it has
            pq.write_table(
                table,
                buffer,
                compression="zstd",
                dictionary_pagesize_limit=2**28,
                row_group_size=len(chosen),
            )
            write_atomically(
                folder / "data" / f"{split}-{unit.stem[5:]}.parquet", buffer.getvalue()
            )
    write_atomically(summary, as_json(counts))


def build_units(data=None, rank=0, world_size=1, *, folder, options, teacher):
    """Builds every `world_size`-th planned unit, from `rank` on.

    With all but `data`, `rank` and `world_size` bound by `functools.partial` it is a step of a datatrove pipeline, for clusters:
    `LocalPipelineExecutor([step], tasks=n).run()`, or the Slurm and Ray executors; then [`finish`] once."""
    for unit in sorted((Path(folder) / "work").glob("unit-*.pkl"))[rank::world_size]:
        build_unit(unit, Path(folder), options, teacher)
    return iter(())


def build_dataset(sources, folder, options, teacher=None, num_proc=1, strict=False):
    """Builds a dataset, or goes on with a build that was cut off.

    Args:
        sources (list of functions): each takes `on_reject` and yields [`Photo`].
        folder: where it is written: `data/*.parquet`, `README.md`, `rejects.jsonl`; `work/` holds the state of the build.
        options ([`BuildOptions`])
        teacher (*optional*): writes the descriptions; [`RuleTeacher`] without it.
        num_proc (`int`): processes that build units side by side.
        strict (`bool`): stops at the first photo or annotation that cannot be used; otherwise these go to `rejects.jsonl`.
    Returns:
        `datasets.DatasetDict`
    """
    folder, teacher = Path(folder), teacher or RuleTeacher()
    if unknown := [style for style in options.styles if style not in teacher.styles]:
        raise ValueError(
            f"styles {unknown} are unknown to the teacher: choose from {teacher.styles}"
        )
    units = plan_units(sources, folder, options, teacher, strict)
    build = partial(build_unit, folder=folder, options=options, teacher=teacher)
    if num_proc == 1:
        list(tqdm(map(build, units), total=len(units), desc="Building", unit=" units"))
    else:
        with ProcessPoolExecutor(num_proc, mp_context=get_context("spawn")) as pool:
            list(tqdm(pool.map(build, units), total=len(units), desc="Building", unit=" units"))
    return finish(folder, options, teacher)


def finish(folder, options, teacher):
    """Writes the dataset card of a build whose units are all done, and loads the dataset."""
    folder = Path(folder)
    units = sorted((folder / "work").glob("unit-*.pkl"))
    if missing := [unit.stem for unit in units if not unit.with_suffix(".json").is_file()]:
        raise ValueError(
            f"{len(missing)} of {len(units)} units are not built, the first is {missing[0]}"
        )
    if options.images_may_be_shared:
        draw_samples(folder)
    (folder / "README.md").write_text(dataset_card(folder, options, teacher), encoding="utf-8")
    return load_built(folder)


def draw_samples(folder, photos=3, points=4):
    """Draws some photos of a build with their points and descriptions: `samples.jpg`."""
    pictures = []
    for file in sorted((folder / "data").glob("*.parquet"))[:photos]:
        rows = pq.read_table(
            file, columns=["image", "image_id", "point", "description"]
        ).to_pylist()
        rows = [row for row in rows if row["image_id"] == rows[0]["image_id"]]
        image = ImageOps.exif_transpose(
            PILImage.open(io.BytesIO(rows[0]["image"]["bytes"]))
        ).convert("RGB")
        pictures.append(draw_round_trip(image, rows[:: -(-len(rows) // points)]))
    stack(pictures).save(folder / "samples.jpg", quality=85)


def push_built(folder, repo_id, private=None, token=None):
    """Pushes a finished build with its card; without the photos where their licence does not allow to pass them on."""
    folder = Path(folder)
    shared = json.loads((folder / "work" / "plan.json").read_text())["options"][
        "images_may_be_shared"
    ]
    api = HfApi(token=token)
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as pushed:
        if not shared:
            shutil.copyfile(folder / "README.md", Path(pushed) / "README.md")
            (Path(pushed) / "data").mkdir()
            for file in (folder / "data").glob("*.parquet"):
                kept = Features.from_arrow_schema(pq.read_schema(file))
                kept.pop("image")
                pq.write_table(
                    pq.read_table(file, columns=list(kept)).cast(kept.arrow_schema),
                    Path(pushed) / "data" / file.name,
                )
        source = folder if shared else pushed
        patterns = ["README.md", "samples.jpg", "data/*.parquet"]
        return api.upload_folder(
            repo_id=repo_id, repo_type="dataset", folder_path=source, allow_patterns=patterns
        )


def load_built(folder):
    """The `datasets.DatasetDict` of a finished build."""
    files = {
        split: sorted(map(str, (Path(folder) / "data").glob(f"{split}-*.parquet")))
        for split in SPLITS
    }
    return datasets.load_dataset(
        "parquet", data_files={split: names for split, names in files.items() if names}
    )


def counts_table(title, counts, most=30):
    """Markdown table of a Counter, the most frequent first."""
    lines = [f"| {title} | rows |", "|---|---|"] + [
        f"| {name} | {count:,} |" for name, count in counts.most_common(most)
    ]
    if len(counts) > most:
        lines.append(
            f"| {len(counts) - most} more | {sum(counts.values()) - sum(c for _, c in counts.most_common(most)):,} |"
        )
    return "\n".join(lines)


def entropy(counts):
    """Shannon entropy in bits of a Counter."""
    shares = np.array(list(counts.values())) / max(sum(counts.values()), 1)
    return float(-(shares * np.log2(shares)).sum())


def dataset_card(folder, options, teacher):
    """The card of a built dataset as Markdown: counts read from its files, diversity of its texts, how it was made, what may be shared."""
    names = ["image_id", "object", "part", "stratum", "style", "description"]
    optional = [
        name
        for name in ("plan", "fallback", "localization_distance")
        if name in features(options, teacher)
    ]
    counters = {name: Counter() for name in ("object", "part", "stratum", "style", "plan")}
    splits, lengths, texts, distances, fallbacks = {}, Counter(), {}, {}, Counter()
    for split in SPLITS:
        photos, rows = set(), 0
        for file in sorted((folder / "data").glob(f"{split}-*.parquet")):
            table = pq.read_table(file, columns=names + optional).to_pydict()
            photos.update(table["image_id"])
            rows += len(table["image_id"])
            for name, counter in counters.items():
                counter.update(table.get(name, ()))
            reasons = table.get("fallback") or [""] * len(table["image_id"])
            fallbacks.update(reason.split(":")[0] for reason in reasons if reason)
            made = [
                f"{style}, rule-based instead" if reason else style
                for style, reason in zip(table["style"], reasons)
            ]
            for style, text in zip(made, table["description"]):
                lengths[len(text.split()) // 10] += 1
                texts.setdefault(style, []).append(text)
            for style, distance in zip(made, table.get("localization_distance", ())):
                distances.setdefault(style, []).append(distance)
        splits[split] = (len(photos), rows)
    rejected = Counter(
        json.loads(line)["reason"].split(":")[0]
        for line in (folder / "rejects.jsonl").read_text().splitlines()
    )
    data_files = "\n".join(
        f"  - split: {split}\n    path: data/{split}-*.parquet"
        for split, (_, rows) in splits.items()
        if rows
    )
    return CARD.format(
        license=options.license,
        data_files=data_files,
        splits="\n".join(
            f"| {split} | {photos:,} | {rows:,} |" for split, (photos, rows) in splits.items()
        ),
        tables="\n\n".join(
            counts_table(name, counters[name]) for name in ("object", "part", "stratum", "style")
        ),
        lengths="\n".join(f"| {10 * i}–{10 * i + 9} | {lengths[i]:,} |" for i in sorted(lengths)),
        diversity="\n".join(
            f"| {style} | {len(some):,} | {distinct_n(some[:5000]):.3f} |"
            for style, some in sorted(texts.items())
        ),
        found="\n".join(
            f"| {style} | {len(some):,} | {pck(some, 0.1):.1f} | {np.median(some):.3f} |"
            for style, some in sorted(distances.items())
        ),
        fallbacks="\n".join(f"- {count:,}: {reason}" for reason, count in fallbacks.most_common())
        or "None.",
        plans=f"Sentence plans: {len(counters['plan'])}, entropy {entropy(counters['plan']):.2f} bits."
        if counters["plan"]
        else "",
        made=json.dumps({"teacher": teacher.info, "options": asdict(options)}, indent=2),
        rejects="\n".join(f"- {count:,}: {reason}" for reason, count in rejected.most_common())
        or "None.",
        shared="may" if options.images_may_be_shared else "may not",
        samples="\n![Photos, points and descriptions](samples.jpg)\n"
        if options.images_may_be_shared
        else "",
    )


CARD = """---
license: {license}
task_categories:
- image-to-text
- keypoint-detection
tags:
- hf_talking_points
configs:
- config_name: default
  data_files:
{data_files}
---

# Points and their descriptions

Each row is one pixel of a photo and a text that identifies it, coarse to fine. Made by hf_talking_points after *Talking Points:
Describing and Localizing Pixels* (arXiv 2510.14583). `point` is in pixels of `image`, origin at its top-left corner; the columns `fact_*`
hold what annotation and pixels say, in words, from which the text was written.
{samples}
| split | photos | rows |
|---|---|---|
{splits}

Splits are by photo; train photos that nearly equal a test or validation photo were dropped.

{tables}

| words | rows |
|---|---|
{lengths}

| style | rows | distinct-2 (first 5,000) |
|---|---|---|
{diversity}

{plans}

Found again by the localizer, if one looked:

| style | rows | within 0.1, % | median distance |
|---|---|---|---|
{found}

Texts of a model that were replaced by the rule-based one, by reason:

{fallbacks}

## How it was made

```json
{made}
```

Left out:

{rejects}

## Licence

The photos' licence: {license}. They {shared} be passed on with the dataset.
"""
