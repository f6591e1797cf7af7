"""The plan of a build: which photos are built, in which units, and whether a folder holds a build of the same sources.

Every photo is read once. What cannot be read is rejected, train photos that nearly equal a test or validation photo
are dropped, and the rest is written in units of a few photos.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from tqdm import tqdm

from ..files import LOCK, whole_file
from ..options import check_kinds
from .duplicates import near_duplicates, perceptual_hash
from .keypoints import PHOTO_STRATA, STRATA, balanced_thresholds, draw_number
from .photos import AnnotatedObject, OnReject, PartPoint, Photo, reject
from .rows import reason_kind, tell_apart
from .unit_files import write_unit

BEGUN = "begun"  # a file that says that a build wrote the folder it lies in
Source: TypeAlias = Callable[..., Iterable[Photo]]
# (split, category, name) -> the largest number of a point or part that is kept
Thresholds: TypeAlias = dict[Hashable, float]
# split, category, name, image id, number of the object, "point" or "part", number of that point or part
NamedThing: TypeAlias = tuple[str, str, str | None, str, int, str, int]


@dataclass(frozen=True)
class BuildOptions:
    """What a build makes of its photos.

    Args:
        license (`str`): license of the photos, as the Hub names it ("cc-by-4.0", "other", "unknown", …).
        images_may_be_shared (`bool`): whether that license allows to pass the photos on. Without it cards show none
            and pushes leave the image column out.
        styles (`tuple[str]`): each point gets a description in each of these styles: its own texts where its source
            has some in that style, else the teacher's; none where only texts of sources have that style.
        per_part (`dict[str, int]`): stratum -> points of each annotated part; "given": 1 keeps the annotated points
            themselves, and those that texts of the sources are about.
        per_photo (`dict[str, int]`): stratum -> points of each photo, also of one without annotation; "anywhere" is
            every pixel alike.
        min_distance (`float`): least distance of two points of a photo, as a share of its longer side.
        most_per_part (`int`, *optional*): parts (or given points) of each split, category and part name that are
            kept; all of them if None.
        localizer (`str`, *optional*): checkpoint of a localizer that looks for every description; its normalized
            distance to the point becomes the column `localization_distance`. A description that it cannot take counts
            as found at the farthest corner.
        most_distance (`float`, *optional*): rows whose distance is larger are left out; needs a localizer.
        held_out (`tuple[str]`): categories that a model shall not learn: train photos with an object of one of these
            are left out.
        least_photos (`int`): what fewer photos of the train split show as a whole ([`Photo.classes`]) is not named:
            from one photo nobody learns a name.
        duplicate_bits (`int`): a train photo is dropped where at most this many of the 64 bits of its perceptual hash
            differ from those of a test or validation photo.
        unit_photos (`int`): photos that are built, and after a kill built again, together.
        seed (`int`)
    """

    license: str
    images_may_be_shared: bool = False
    styles: Sequence[str] = ("full",)
    per_part: dict[str, int] = field(default_factory=lambda: {"given": 1})
    per_photo: dict[str, int] = field(default_factory=dict)
    min_distance: float = 0.0
    most_per_part: int | None = None
    localizer: str | None = None
    most_distance: float | None = None
    held_out: Sequence[str] = ()
    least_photos: int = 0
    duplicate_bits: int = 3
    unit_photos: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds(self)
        for name in ("unit_photos", "most_per_part"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.least_photos < 0:
            raise ValueError(
                f"least_photos must be at least 0, got {self.least_photos}"
            )
        check_strata("per_part", self.per_part, STRATA)
        check_strata("per_photo", self.per_photo, PHOTO_STRATA)
        if self.most_distance is not None and self.localizer is None:
            raise ValueError(
                "most_distance needs a localizer that measures the distance"
            )


def check_strata(name: str, counts: dict[str, int], known: Sequence[str]) -> None:
    """Raises ValueError for an unknown stratum and for a negative number of points."""
    unknown = [stratum for stratum in counts if stratum not in known]
    if unknown:
        raise ValueError(
            f"strata {unknown} of {name} are unknown: choose from {tuple(known)}"
        )
    for stratum, count in counts.items():
        if count < 0:
            raise ValueError(
                f"{name}: the points of {stratum!r} must be at least 0, got {count}"
            )


class Rejects:
    """An `on_reject` that keeps what a source had to leave out."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []

    def __call__(self, image_id: str, reason: str) -> None:
        self.rows.append({"image": image_id, "reason": reason})

    def most_frequent(self, count: int = 3) -> str:
        """The most frequent kinds of reasons in one line."""
        kinds = Counter(reason_kind(row["reason"]) for row in self.rows)
        return "; ".join(
            f"{number} x {kind}" for kind, number in kinds.most_common(count)
        )


@dataclass
class ListedPhoto:
    """A photo that can be read.

    Args:
        id (`str`): its id in the dataset.
        split (`str`)
        source (`str`): name of its source.
        offset (`int`): where the [`Photo`] stands in the spool.
        hash (`int`): perceptual hash.
    """

    id: str
    split: str
    source: str
    offset: int
    hash: int


@dataclass
class Listing:
    """The photos of all sources.

    Args:
        photos (list of [`ListedPhoto`])
        vocabulary (set of `str`): names of objects, points and parts.
        text_styles (set of `str`): of the texts that the sources have.
        contents (list of `str`): of each source, the [`ContentDigest`].
    """

    photos: list[ListedPhoto] = field(default_factory=list)
    vocabulary: set[str] = field(default_factory=set)
    text_styles: set[str] = field(default_factory=set)
    contents: list[str] = field(default_factory=list)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes bytes so that a kill leaves either the whole file or none."""
    with whole_file(path) as file:
        file.write_bytes(content)


def as_json(content: Any) -> bytes:
    """An indented JSON file."""
    return (json.dumps(content, indent=2) + "\n").encode()


def planned_units(folder: Path) -> list[Path]:
    """The files of the units of a build, in order."""
    return sorted((folder / "work").glob("unit-*.parquet"))


def plan_units(
    sources: Sequence[Source],
    folder: str | os.PathLike,
    options: BuildOptions,
    teacher: Any,
    strict: bool = False,
) -> list[Path]:
    """Lists the photos of `sources` in units, once; where that has been done with the same sources, options and
    teacher, it stays so.

    Args:
        sources (list of functions): each takes `on_reject` and yields [`Photo`].
        folder: of the build.
        options ([`BuildOptions`])
        teacher: writes the descriptions.
        strict (`bool`): stops at the first photo or annotation that cannot be used.
    Returns:
        list of paths of the units.

    Raises ValueError for a style that neither the teacher nor a text of the sources has, where the folder holds files
    that no build wrote, or a build of other sources, options or another teacher, or where no photo is left.
    """
    folder = Path(folder)
    if not any(options.per_part.values()) and not any(options.per_photo.values()):
        raise ValueError(
            f"no point is asked for: per_part is {options.per_part} and per_photo {options.per_photo}, but one of "
            f"{STRATA} or {PHOTO_STRATA} must have points"
        )
    stated = stated_build(sources, options, teacher)
    work = folder / "work"
    if (work / "plan.json").is_file():
        check_same_build(folder, stated, sources)
        return planned_units(folder)

    begin_anew(folder)
    (folder / "data").mkdir(exist_ok=True)
    rejects = Rejects()
    facts = write_plan_units(sources, folder, options, rejects, strict)
    lines = [json.dumps(row) + "\n" for row in rejects.rows]
    write_atomically(folder / "rejects.jsonl", "".join(lines).encode())
    if not facts["photos"]:
        reasons = rejects.most_frequent() or "the sources have none"
        raise ValueError(
            f"no photo is left to build: {reasons} (see {folder}/rejects.jsonl)"
        )
    check_build_styles(options, teacher, facts["text_styles"])
    plan = {**stated, **facts, "rejects": len(rejects.rows)}
    write_atomically(work / "plan.json", as_json(plan))
    return planned_units(folder)


def begin_anew(folder: Path) -> None:
    """Makes the folder of a build that has no plan yet ready for one.

    Raises ValueError where it holds files that no build wrote, which stay as they are."""
    work = folder / "work"
    begun = work / BEGUN
    if folder.is_dir() and not begun.is_file():
        names = {file.name for file in folder.iterdir()} - {LOCK}
        if work.is_dir() and not any(work.iterdir()):
            names.discard("work")
        if names:
            raise ValueError(
                f"{folder} holds {', '.join(sorted(names)[:3])}, which no build wrote: name a new or empty folder"
            )
    work.mkdir(parents=True, exist_ok=True)
    begun.touch()
    for file in work.iterdir():
        if file != begun:
            file.unlink()


def check_build_styles(
    options: BuildOptions, teacher: Any, text_styles: Sequence[str]
) -> None:
    """Raises ValueError for a style that neither the teacher nor a text of the sources has."""
    known = (*teacher.styles, *text_styles)
    unknown = [style for style in options.styles if style not in known]
    if unknown:
        raise ValueError(
            f"styles {unknown} are unknown: the teacher writes {tuple(teacher.styles)}, "
            f"and the texts of the sources have {tuple(text_styles)}"
        )


def write_plan_units(
    sources: Sequence[Source],
    folder: Path,
    options: BuildOptions,
    rejects: Rejects,
    strict: bool,
) -> dict[str, Any]:
    """Writes the units; returns what the plan says of their photos."""
    on_reject = reject if strict else rejects
    # without a name: no other process reads it, and it is gone with this one
    with tempfile.TemporaryFile(dir=folder / "work") as spool:
        listing = list_photos(sources, spool, on_reject)
        photos = with_distinct_ids(listing.photos, spool, on_reject)
        photos = without_held_out(photos, spool, options.held_out, rejects)
        thresholds = part_thresholds(photos, spool, options)
        photos = without_near_duplicates(photos, options.duplicate_bits, rejects)
        unnamed = seldom_shown(photos, spool, options.least_photos)
        write_units(photos, spool, folder, thresholds, unnamed, options)
    return {
        "contents": listing.contents,
        "photos": len(photos),
        "vocabulary": sorted(listing.vocabulary),
        "text_styles": sorted(listing.text_styles),
    }


def stated_build(
    sources: Sequence[Source], options: BuildOptions, teacher: Any
) -> dict[str, Any]:
    """What a build is made from, as JSON holds it."""
    stated = {
        "options": asdict(options),
        "teacher": teacher.info,
        "sources": [stated_source(source) for source in sources],
    }
    return json.loads(json.dumps(stated))


def stated_source(source: Source) -> list[Any]:
    """What a source reads: the reader's name and the arguments that `functools.partial` has bound."""
    if isinstance(source, partial):
        keywords = {name: str(value) for name, value in source.keywords.items()}
        return [source.func.__name__, *map(str, source.args), keywords]
    return [getattr(source, "__name__", type(source).__name__)]


def check_same_build(
    folder: Path, stated: dict[str, Any], sources: Sequence[Source]
) -> None:
    """Raises ValueError where a folder holds a build of other sources, options or another teacher."""
    done = json.loads((folder / "work" / "plan.json").read_text())
    options = done["options"]
    changed = [
        name for name, value in stated["options"].items() if value != options.get(name)
    ]
    changed += [name for name in ("teacher", "sources") if stated[name] != done[name]]
    if changed:
        names = ", ".join(changed)
        raise ValueError(
            f"{folder} holds a build with other {names}: finish or remove it, or choose another folder"
        )
    for number, (source, content) in enumerate(zip(sources, done.get("contents", ()))):
        if source_content(source) != content:
            name = name_of_source(source, number)
            raise ValueError(
                f"{folder} holds a build with other sources: the content of {name!r} has changed since; "
                "remove the folder to build anew, or choose another one"
            )


class ContentDigest:
    """What tells apart the contents of sources: a hash of the photos' files and of all that is annotated."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, photo: Photo) -> None:
        self._add_values(photo.id, photo.size, photo.split, photo.classes)
        self._add_points(photo.points)
        for annotated in photo.objects:
            self._add_values(annotated.category, annotated.box)
            self._add_points(annotated.points)
            for part in annotated.parts:
                self._add_values(part.name, part.box)
                if part.mask is not None:
                    self._hash.update(np.packbits(part.mask).tobytes())
        self._hash.update(file_digest(photo))

    def _add_points(self, points: Sequence[PartPoint]) -> None:
        for point in points:
            self._add_values(
                point.part, point.x, point.y, point.box, point.texts, point.stratum
            )

    def _add_values(self, *values: Any) -> None:
        self._hash.update(repr(values).encode())

    def value(self) -> str:
        """The hash of all photos that were added, in their order."""
        return self._hash.hexdigest()


def file_digest(photo: Photo) -> bytes:
    """Hash of a photo's file; that of nothing where it cannot be read, which the plan rejects."""
    try:
        file = photo.file()
        content = Path(file).read_bytes() if isinstance(file, str) else file.getvalue()
    except (OSError, ValueError):
        content = b""
    return hashlib.sha256(content).digest()


def source_content(source: Source) -> str:
    """The [`ContentDigest`] of what a source holds now."""
    digest = ContentDigest()
    for photo in tqdm(
        source(on_reject=Rejects()), desc="Comparing photos", unit=" photos"
    ):
        digest.add(photo)
    return digest.value()


def name_of_source(source: Source, number: int) -> str:
    """A name of a source: that of the first file or folder that its reader takes."""
    arguments = (
        [*source.args, *source.keywords.values()] if isinstance(source, partial) else []
    )
    for argument in arguments:
        if isinstance(argument, (str, os.PathLike)):
            path = Path(os.path.abspath(argument))
            return path.stem if path.is_file() else path.name
    return f"source {number + 1}"


def list_photos(
    sources: Sequence[Source], spool: BinaryIO, on_reject: OnReject
) -> Listing:
    """Reads every photo of the sources, each written to the spool if it can be opened."""
    listing = Listing()
    for number, source in enumerate(sources):
        name = name_of_source(source, number)
        digest = ContentDigest()
        for photo in tqdm(
            source(on_reject=on_reject), desc="Reading photos", unit=" photos"
        ):
            digest.add(photo)
            try:
                image = photo.open()
            except ValueError as error:
                on_reject(photo.id, f"size: {error}")
                continue
            except OSError as error:
                on_reject(photo.id, f"{type(error).__name__}: {error}")
                continue
            listed = ListedPhoto(
                id=shareable_id(photo.id),
                split=photo.split,
                source=name,
                offset=spool.tell(),
                hash=perceptual_hash(image),
            )
            listing.photos.append(listed)
            listing.vocabulary.update(names_of(photo))
            listing.text_styles.update(text_styles_of(photo))
            pickle.dump(photo, spool)
        listing.contents.append(digest.value())
    return listing


def shareable_id(image_id: str) -> str:
    """The id of a photo in a dataset: of a path that tells where it lies on a machine, the name alone."""
    if image_id.startswith("file://"):
        return PurePosixPath(image_id).name
    windows_path = PureWindowsPath(image_id)
    if windows_path.drive or image_id.startswith("\\"):
        return windows_path.name
    if image_id.startswith(("/", "~")):
        return PurePosixPath(image_id).name
    return image_id


def names_of(photo: Photo) -> set[str]:
    """The names of objects, points and parts of a photo, and of what all of it shows."""
    names: set[str] = set(photo.classes)
    for annotated in photo.objects:
        if annotated.points or annotated.parts:
            names.add(annotated.category)
        names.update(point.part for point in annotated.points if point.part is not None)
        names.update(part.name for part in annotated.parts)
    return names


def text_styles_of(photo: Photo) -> set[str]:
    """The styles of the texts that describe points of a photo."""
    points = list(photo.points)
    for annotated in photo.objects:
        points.extend(annotated.points)
    styles: set[str] = set()
    for point in points:
        styles.update(style for style, _ in point.texts)
    return styles


def spooled(spool: BinaryIO, listed: ListedPhoto) -> Photo:
    """The photo as the dataset has it."""
    spool.seek(listed.offset)
    photo = pickle.load(spool)
    if photo.id == listed.id:
        return photo
    return replace(photo, id=listed.id, given_split=listed.split)


def with_distinct_ids(
    photos: Sequence[ListedPhoto], spool: BinaryIO, on_reject: OnReject
) -> list[ListedPhoto]:
    """The photos, different ones with different ids, none twice."""

    def content(index: int) -> str:
        return spooled(spool, photos[index]).content_key

    ids = tell_apart(
        [listed.id for listed in photos], [listed.source for listed in photos], content
    )
    seen = set()
    kept = []
    for listed, image_id in zip(photos, ids):
        if image_id in seen:
            on_reject(image_id, "its id has come before, with the same photo")
            continue
        seen.add(image_id)
        kept.append(replace(listed, id=image_id))
    return kept


def without_held_out(
    photos: Sequence[ListedPhoto],
    spool: BinaryIO,
    categories: Sequence[str],
    rejects: Rejects,
) -> list[ListedPhoto]:
    """The photos less those of the train split that show an object of one of the categories.

    Raises ValueError for a category that no photo shows."""
    if not categories:
        return list(photos)
    seen: set[str] = set()
    kept = []
    for listed in photos:
        photo = spooled(spool, listed)
        shown = {*photo.classes, *(annotated.category for annotated in photo.objects)}
        seen |= shown
        held_out = sorted(shown.intersection(categories))
        if held_out and listed.split == "train":
            rejects(listed.id, f"shows what is held out: {', '.join(held_out)}")
        else:
            kept.append(listed)
    unknown = sorted(set(categories) - seen)
    if unknown:
        raise ValueError(
            f"held_out names {unknown}, of which no photo shows any: give categories as the sources name them"
        )
    return kept


def seldom_shown(
    photos: Sequence[ListedPhoto], spool: BinaryIO, least: int
) -> set[str]:
    """The classes of whole photos that fewer than `least` photos of the train split show."""
    if not least:
        return set()
    shown: Counter[str] = Counter()
    classes: set[str] = set()
    for listed in photos:
        photo = spooled(spool, listed)
        classes.update(photo.classes)
        if listed.split == "train":
            shown.update(photo.classes)
    return {name for name in classes if shown[name] < least}


def without_near_duplicates(
    photos: Sequence[ListedPhoto], bits: int, rejects: Rejects
) -> list[ListedPhoto]:
    """The photos less those of the train split that nearly equal a test or validation photo."""
    hashes = [listed.hash for listed in photos]
    held_out = [listed.hash for listed in photos if listed.split != "train"]
    kept = []
    for listed, is_near in zip(photos, near_duplicates(hashes, held_out, bits)):
        if is_near and listed.split == "train":
            rejects(listed.id, "nearly equals a test or validation photo")
        else:
            kept.append(listed)
    return kept


def named_things(photo: Photo) -> Iterator[NamedThing]:
    """The key of every annotated point and part."""
    split = photo.split
    for number, annotated in enumerate(photo.objects):
        category = annotated.category
        for index, point in enumerate(annotated.points):
            yield split, category, point.part, photo.id, number, "point", index
        for index, part in enumerate(annotated.parts):
            yield split, category, part.name, photo.id, number, "part", index


def part_thresholds(
    photos: Sequence[ListedPhoto], spool: BinaryIO, options: BuildOptions
) -> Thresholds | None:
    """What keeps `options.most_per_part` points or parts of each split, category and name; None where all are kept."""
    if not options.most_per_part:
        return None
    numbers: dict[Hashable, list[float]] = defaultdict(list)
    for listed in photos:
        for thing in named_things(spooled(spool, listed)):
            numbers[thing[:3]].append(draw_number(options.seed, *thing))
    return balanced_thresholds(numbers, options.most_per_part)


def keep_below(photo: Photo, thresholds: Thresholds, seed: int) -> Photo:
    """The photo with those points and parts whose number is within the threshold of their split, category and name."""
    kept = set()
    for thing in named_things(photo):
        if draw_number(seed, *thing) <= thresholds[thing[:3]]:
            kept.add(thing[4:])
    objects = []
    for number, annotated in enumerate(photo.objects):
        objects.append(kept_things(annotated, number, kept))
    return replace(photo, objects=tuple(objects))


def kept_things(
    annotated: AnnotatedObject, number: int, kept: set[tuple[int, str, int]]
) -> AnnotatedObject:
    """The object with those points and parts that are in `kept`."""
    points = []
    for index, point in enumerate(annotated.points):
        if (number, "point", index) in kept:
            points.append(point)
    parts = []
    for index, part in enumerate(annotated.parts):
        if (number, "part", index) in kept:
            parts.append(part)
    return replace(annotated, points=tuple(points), parts=tuple(parts))


def write_units(
    photos: Sequence[ListedPhoto],
    spool: BinaryIO,
    folder: Path,
    thresholds: Thresholds | None,
    unnamed: set[str],
    options: BuildOptions,
) -> None:
    """Writes the photos in units of `options.unit_photos`, in their order, less the classes of `unnamed`."""
    for number, start in enumerate(range(0, len(photos), options.unit_photos)):
        unit = []
        for listed in photos[start : start + options.unit_photos]:
            photo = spooled(spool, listed)
            if thresholds is not None:
                photo = keep_below(photo, thresholds, options.seed)
            classes = tuple(name for name in photo.classes if name not in unnamed)
            unit.append(replace(photo, classes=classes))
        write_unit(folder / "work" / f"unit-{number:05d}.parquet", unit)
