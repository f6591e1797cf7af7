"""The card of a built dataset: counts of its files, diversity of its texts, how it was made, sample pictures."""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..metrics import distinct_n, pck
from ..models.images import open_file, to_rgb
from ..visualization import draw_round_trip, stack
from ..words.claims import KINDS
from .build_plan import BuildOptions
from .diversity import repeated_skeletons, spread_sample
from .false_claims import false_shares
from .photos import SPLITS
from .rows import reason_kind

COUNTED = ("object", "part", "stratum", "style")
OPTIONAL = ("text_from", "fallback", "false_claims", "localization_distance")
MOST_LINES = 30  # of a table or list
WORDS_STEP = 10
# an absolute path up to its last folder; folders may have spaces in their names
_FOLDERS = re.compile(r"(?:(?<=[\s'\"(])|^)(?:file:/|~|[A-Za-z]:)?[\\/].*[\\/]")
_INDEX = re.compile(r"\[\d+\]|(?<=line) \d+")


@dataclass
class BuildCounts:
    """What is in a built dataset.

    Args:
        splits (`dict`): split -> (photos, rows).
        columns (`dict`): column of [`COUNTED`] -> how often each value comes.
        lengths (`Counter`): words // `WORDS_STEP` -> rows.
        texts (`dict`): style -> descriptions, those of the sources apart, and those that the rule-based writer
            replaced.
        claims (`dict`): style -> the false claims of each description.
        distances (`dict`): style -> normalized distances at which the localizer found them.
        fallbacks (`Counter`): reason -> texts that were replaced.
    """

    splits: dict[str, tuple[int, int]] = field(default_factory=dict)
    columns: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    lengths: Counter = field(default_factory=Counter)
    texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    claims: dict[str, list[list[Any]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    distances: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    fallbacks: Counter = field(default_factory=Counter)

    def add(self, table: dict[str, list[Any]]) -> None:
        """Counts the rows of a file: column -> values."""
        for name in COUNTED:
            self.columns[name].update(table.get(name, ()))
        missing = [None] * len(table["style"])
        reasons = table.get("fallback", missing)
        origins = table.get("text_from", missing)
        for index, text in enumerate(table["description"]):
            style = table["style"][index]
            if origins[index] == "source":
                style = f"{style}, of the sources"
            if reasons[index]:
                self.fallbacks[reasons[index].partition(":")[0]] += 1
                style = f"{style}, rule-based instead"
            self.lengths[len(text.split()) // WORDS_STEP] += 1
            self.texts[style].append(text)
            if "false_claims" in table:
                self.claims[style].append(table["false_claims"][index])
            if "localization_distance" in table:
                self.distances[style].append(table["localization_distance"][index])


def count_rows(folder: Path, columns: Iterable[str]) -> BuildCounts:
    """Reads the counts of a build whose files have the given columns."""
    names = ["image_id", "object", "part", "stratum", "style", "description"]
    names += [name for name in OPTIONAL if name in columns]
    counts = BuildCounts()
    for split in SPLITS:
        photos: set[str] = set()
        rows = 0
        for file in sorted((folder / "data").glob(f"{split}-*.parquet")):
            table = pq.read_table(file, columns=names).to_pydict()
            photos.update(table["image_id"])
            rows += len(table["image_id"])
            counts.add(table)
        counts.splits[split] = (len(photos), rows)
    return counts


def count_table(title: str, counts: Counter) -> str:
    """Markdown table of counts, the most frequent first."""
    lines = [f"| {title} | rows |", "|---|---|"]
    most_frequent = counts.most_common(MOST_LINES)
    for name, count in most_frequent:
        lines.append(f"| {name} | {count:,} |")
    if len(counts) > MOST_LINES:
        shown = sum(count for _, count in most_frequent)
        lines.append(
            f"| {len(counts) - MOST_LINES} more | {sum(counts.values()) - shown:,} |"
        )
    return "\n".join(lines)


def count_list(counts: Counter) -> str:
    """Markdown list of counts, the most frequent first."""
    if not counts:
        return "None."
    most_frequent = counts.most_common(MOST_LINES)
    lines = [f"- {count:,}: {name}" for name, count in most_frequent]
    if len(counts) > MOST_LINES:
        shown = sum(count for _, count in most_frequent)
        lines.append(
            f"- {sum(counts.values()) - shown:,}: {len(counts) - MOST_LINES} more reasons"
        )
    return "\n".join(lines)


def split_table(splits: dict[str, tuple[int, int]]) -> str:
    """Rows of a Markdown table: photos and rows of each split."""
    return "\n".join(
        f"| {split} | {photos:,} | {rows:,} |"
        for split, (photos, rows) in splits.items()
    )


def length_table(lengths: Counter) -> str:
    """Rows of a Markdown table: texts by their number of words."""
    lines = []
    for step in sorted(lengths):
        first = step * WORDS_STEP
        lines.append(f"| {first}–{first + WORDS_STEP - 1} | {lengths[step]:,} |")
    return "\n".join(lines)


def diversity_table(texts: dict[str, list[str]]) -> str:
    """Rows of a Markdown table: how different the texts of each style are."""
    lines = []
    for style, descriptions in sorted(texts.items()):
        sample = spread_sample(descriptions)
        diversity = distinct_n(sample)
        repeated = repeated_skeletons(sample)
        lines.append(
            f"| {style} | {len(descriptions):,} | {diversity:.3f} | {repeated:.1f} |"
        )
    return "\n".join(lines)


def claims_table(claims: dict[str, list[list[Any]]]) -> str:
    """Rows of a Markdown table: how many texts of each style say something false, and of which kind."""
    lines = []
    for style, of_style in sorted(claims.items()):
        having = sum(bool(of_text) for of_text in of_style)
        cells = [style, f"{100 * having / len(of_style):.1f}"]
        for share in false_shares(of_style).values():
            cells.append(f"{share:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def distance_table(distances: dict[str, list[float]]) -> str:
    """Rows of a Markdown table: how well a localizer found the texts of each style."""
    lines = []
    for style, found in sorted(distances.items()):
        lines.append(
            f"| {style} | {len(found):,} | {pck(found, 0.1):.1f} | {np.median(found):.3f} |"
        )
    return "\n".join(lines)


def data_file_lines(splits: dict[str, tuple[int, int]]) -> str:
    """The YAML that names the files of each split that has rows."""
    lines = []
    for split, (_, rows) in splits.items():
        if rows:
            lines.append(f"  - split: {split}\n    path: data/{split}-*.parquet")
    return "\n".join(lines)


def rejected_kinds(folder: Path) -> Counter:
    """Kind of reason -> how many records were left out for it."""
    kinds: Counter = Counter()
    for line in (folder / "rejects.jsonl").read_text().splitlines():
        row = json.loads(line)
        kinds[shareable_kind(row["reason"], row["image"])] += 1
    return kinds


def shareable_kind(reason: str, image_id: str) -> str:
    """The kind of a reason without what is peculiar to one photo, and without the folders of a machine."""
    kind = reason_kind(_FOLDERS.sub("", reason))
    kind = _INDEX.sub("", kind)
    name = re.split(r"[\\/]", image_id)[-1]
    return kind.replace(name, "the photo") if name else kind


def without_folders(value: Any) -> Any:
    """JSON content in which what lies on this machine is named by the last part of its path."""
    if isinstance(value, dict):
        return {
            without_folders(name): without_folders(content)
            for name, content in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_folders(content) for content in value]
    if not isinstance(value, str):
        return value
    is_local = value.startswith(("/", "~", "./", "../", "file:/", "\\"))
    is_local = is_local or re.match(r"[A-Za-z]:[\\/]", value) is not None
    if is_local or os.path.exists(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def dataset_card(
    folder: Path,
    options: BuildOptions,
    teacher: Any,
    columns: Sequence[str],
    content: str,
) -> str:
    """The card of a built dataset as Markdown.

    Args:
        folder: of the build, whose units are all done.
        options ([`BuildOptions`])
        teacher: what wrote the texts.
        columns (list of `str`): of the dataset.
        content (`str`): hash of its files. `load_dataset` keeps what it has loaded by the folder's name and the head
            of its card, and would give the rows of an earlier build in the same folder if the head were the same.
    """
    counts = count_rows(folder, columns)
    tables = [count_table(name, counts.columns[name]) for name in COUNTED]
    made = without_folders({"teacher": teacher.info, "options": asdict(options)})
    samples = ""
    if options.images_may_be_shared:
        samples = "\n![Photos, points and descriptions](samples.jpg)\n"
    return CARD.format(
        license=options.license,
        content=content[:16],
        data_files=data_file_lines(counts.splits),
        splits=split_table(counts.splits),
        tables="\n\n".join(tables),
        lengths=length_table(counts.lengths),
        diversity=diversity_table(counts.texts),
        found=distance_table(counts.distances),
        fallbacks=count_list(counts.fallbacks),
        kinds=" | ".join(KINDS),
        rules="---|" * len(KINDS),
        claims=claims_table(counts.claims),
        made=json.dumps(made, indent=2),
        rejects=count_list(rejected_kinds(folder)),
        shared="may" if options.images_may_be_shared else "may not",
        samples=samples,
    )


def draw_samples(folder: Path, photos: int = 3, points: int = 4) -> None:
    """Draws the first photo of some files of a build with its points and descriptions: `samples.jpg`."""
    columns = ["image", "image_id", "point", "description"]
    pictures = []
    for file in sorted((folder / "data").glob("*.parquet"))[:photos]:
        rows = pq.read_table(file, columns=columns).to_pylist()
        first = rows[0]
        of_photo = [row for row in rows if row["image_id"] == first["image_id"]]
        every = -(-len(of_photo) // points)
        image = to_rgb(open_file(io.BytesIO(first["image"]["bytes"])))
        pictures.append(draw_round_trip(image, of_photo[::every]))
    stack(pictures).save(folder / "samples.jpg", quality=85)


CARD = """---
license: {license}
task_categories:
- image-to-text
- keypoint-detection
tags:
- hf_talking_points
configs:
- config_name: default
  description: content {content}
  data_files:
{data_files}
---

# Points and their descriptions

Each row is one pixel of a photo and a text that identifies it, coarse to fine. Made by hf_talking_points after
*Talking Points: Describing and Localizing Pixels* (arXiv 2510.14583). `point` is in pixels of `image`, origin at its
top-left corner; the columns `fact_*` hold what annotation and pixels say, in words, from which the text was written.
{samples}
| split | photos | rows |
|---|---|---|
{splits}

Splits are by photo; train photos that nearly equal a test or validation photo were dropped.

{tables}

| words | rows |
|---|---|
{lengths}

How different the texts of a style are, on 2,000 of them spread over all: different pairs of neighboring words among
all pairs, and texts whose skeleton, what is left when names, colors, positions and sizes are masked, another one has
too.

| style | rows | distinct-2 | with a repeated skeleton, % |
|---|---|---|---|
{diversity}

Texts that say something that annotation or pixels contradict (column `false_claims`), in percent, and of which kind:

| style | any | {kinds} |
|---|---|{rules}
{claims}

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

## License

The photos' license: {license}. They {shared} be passed on with the dataset.
"""
