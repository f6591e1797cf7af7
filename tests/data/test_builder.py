"""Built datasets: what is in them, and that neither a kill nor the number of processes changes a byte."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial

import datasets
import numpy as np
import psutil
import pytest
from hub_server import HubServer
from PIL import Image
from transformers import pipeline

from hf_talking_points.data.builder import (
    BuildOptions,
    build_dataset,
    build_units,
    finish,
    load_built,
    plan_units,
)
from hf_talking_points.data.crops import shows_nearly_all
from hf_talking_points.data.moved_texts import is_about_frame
from hf_talking_points.data.photos import (
    AnnotatedObject,
    Part,
    PartPoint,
    Photo,
    split_of,
)
from hf_talking_points.data.rows import load_photos, point_features
from hf_talking_points.data.sources import (
    read_coco_keypoints,
    read_coco_parts,
    read_dataset,
    read_objects,
)
from hf_talking_points.data.teachers import RuleTeacher
from hf_talking_points.data.triplets import make_views, sample_triplets
from hf_talking_points.models.images import to_rgb

OPTIONS = BuildOptions(license="cc0-1.0", styles=("full", "terse"), unit_photos=3)


def photo(seed, size=(64, 48)):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def object_line(name, category="dog", x=2, points=None, size=(64, 48), **fields):
    """A line of objects.jsonl: an object with three points, if no others are given."""
    if points is None:
        points = [
            ["nose", x + 5, 8],
            ["left_eye", x + 9.3, 5],
            ["tailbase", x + 20, 30, [x + 15, 25, x + 25, 40]],
        ]
    row = {
        "image": name,
        "size": size,
        "category": category,
        "object_box": [x, 2, x + 30, 45],
        "points": points,
    }
    return json.dumps({**row, **fields}) + "\n"


def write_folder(folder, count=24):
    """Noisy photos with two objects of three points each."""
    folder.mkdir(exist_ok=True)
    lines = []
    for i in range(count):
        photo(i).save(folder / f"{i}.png")
        lines.append(object_line(f"{i}.png", "dog", 2))
        lines.append(object_line(f"{i}.png", "cat", 30))
    (folder / "objects.jsonl").write_text("".join(lines))
    return folder


def rejected(folder):
    """Image -> reason of what a build left out."""
    lines = (folder / "rejects.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["image"]: row["reason"] for row in rows}


def all_rows(dataset, *columns):
    """The rows of all splits."""
    rows = []
    for split in dataset.values():
        rows.extend(split.select_columns(list(columns)) if columns else split)
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    return build_dataset([partial(read_objects, folder)], out, OPTIONS), out


def files(folder):
    """Name -> content of all that a build is read from."""
    content = {file.name: file.read_bytes() for file in (folder / "data").iterdir()}
    content["card"] = (folder / "README.md").read_bytes()
    return content


def test_rows_say_what_the_annotation_says(built, folder):
    dataset, _ = built
    splits = [split_of(f"{i}.png") for i in range(24)]
    for split, rows in dataset.items():
        assert len(rows) == 12 * splits.count(split)
    for row in dataset["train"]:
        assert row["image"].size == (64, 48)
        assert row["image"] == Image.open(folder / row["image_id"])
        assert row["stratum"] == "given"
        assert row["part"] in ("nose", "left eye", "tail base")
        assert row["object"] in row["description"].lower()
        assert row["part"] in row["description"].lower()
        assert ("of the image" in row["description"]) == (row["style"] == "full")
        assert (row["part_box"] is not None) == (row["part"] == "tail base")


def test_rows_have_the_columns_of_the_row_format_first(built):
    dataset, _ = built
    for rows in dataset.values():
        for column, feature in point_features().items():
            assert rows.features[column] == feature
        assert list(rows.features)[: len(point_features())] == list(point_features())


def test_points_and_boxes_are_exact(built):
    dataset, _ = built
    points = {row["point"][0] for row in all_rows(dataset, "point", "part")}
    assert points == {7.0, 11.3, 22.0, 35.0, 39.3, 50.0}


def test_a_stream_of_the_folder_gives_the_same_rows(built):
    dataset, out = built
    stream = datasets.load_dataset(str(out), split="train", streaming=True)
    for streamed, row in zip(stream, dataset["train"], strict=True):
        assert streamed == row


def test_no_photo_is_in_two_splits(built):
    dataset, _ = built
    ids = []
    for split, rows in dataset.items():
        of_split = set(rows["image_id"])
        assert all(split_of(image_id) == split for image_id in of_split)
        ids.extend(of_split)
    assert len(ids) == len(set(ids)) == 24


def test_a_finished_build_is_not_built_again(built, folder):
    _, out = built
    before = {f: f.stat().st_mtime_ns for f in (out / "data").iterdir()}
    again = build_dataset([partial(read_objects, folder)], out, OPTIONS)
    assert {f: f.stat().st_mtime_ns for f in (out / "data").iterdir()} == before
    assert again["train"]["description"] == load_built(out)["train"]["description"]


def test_going_on_with_other_options_teacher_or_sources_is_an_error(
    built, folder, tmp_path
):
    source, out = partial(read_objects, folder), built[1]
    with pytest.raises(ValueError, match="other seed:"):
        build_dataset([source], out, replace(OPTIONS, seed=1))
    teacher = RuleTeacher()
    teacher.info = {"teacher": "another"}
    with pytest.raises(ValueError, match="other teacher:"):
        build_dataset([source], out, OPTIONS, teacher)
    with pytest.raises(ValueError, match="other sources:"):
        build_dataset([source, partial(read_objects, tmp_path)], out, OPTIONS)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"styles": ("rhymed",)}, r"\['rhymed'\]"),
        ({"per_part": {"corner": 1}}, "corner"),
        ({"per_photo": {"sift": 1}}, r"\['sift'\] of per_photo .*'anywhere'"),
        ({"per_photo": {"anywhere": -1}}, "at least 0, got -1"),
        ({"most_distance": 0.1}, "needs a localizer"),
    ],
)
def test_unknown_options_are_errors(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build_dataset(
            [partial(read_objects, folder)],
            tmp_path,
            BuildOptions("cc0-1.0", **options),
        )


@pytest.mark.parametrize("num_proc", [2])
def test_processes_change_no_byte(built, folder, tmp_path, num_proc):
    build_dataset([partial(read_objects, folder)], tmp_path, OPTIONS, num_proc=num_proc)
    assert files(tmp_path) == files(built[1])


PROGRAM = """
import sys, time
from dataclasses import replace
from functools import partial
from pathlib import Path
from hf_talking_points.data import builder
from hf_talking_points.data.sources import read_objects
write = builder.write_atomically
def slowly(path, content):
    write(path, content)
    time.sleep(0.05)
builder.write_atomically = slowly
options = builder.BuildOptions(license="cc0-1.0", styles=("full", "terse"), unit_photos=3)
builder.build_dataset([partial(read_objects, Path(sys.argv[1]))], sys.argv[2], options)
"""


@pytest.mark.parametrize("moment", ["plan.json", "unit-00002.json", "unit-00006.json"])
def test_a_killed_build_ends_like_an_undisturbed_one(built, folder, tmp_path, moment):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path)],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while (
        not (tmp_path / "work" / moment).is_file()
        and time.monotonic() < deadline
        and process.poll() is None
    ):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "README.md").is_file()
    build_dataset([partial(read_objects, folder)], tmp_path, OPTIONS)
    assert files(tmp_path) == files(built[1])


PROGRAM_OF_PROCESSES = """
import sys, time
from functools import partial
from pathlib import Path
from hf_talking_points.data import builder
from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.teachers import RuleTeacher

class SlowTeacher(RuleTeacher):
    def __call__(self, queries, vocabulary=()):
        time.sleep(2)
        return super().__call__(queries, vocabulary)

if __name__ == "__main__":
    options = builder.BuildOptions(license="cc0-1.0", unit_photos=1)
    source = partial(read_objects, Path(sys.argv[1]))
    builder.build_dataset([source], sys.argv[2], options, SlowTeacher(), num_proc=2)
"""


def test_the_processes_of_a_killed_build_end(folder, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM_OF_PROCESSES)
    first = psutil.Popen(
        [sys.executable, str(program), str(folder), str(tmp_path / "built")],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(children := first.children()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(children) >= 3  # two that build, and one that watches over resources
    time.sleep(4)  # until they have begun
    first.kill()
    first.wait()
    _, left = psutil.wait_procs(children, timeout=60)
    assert left == []


def test_near_duplicates_of_held_out_photos_leave_train(folder, tmp_path):
    photos = write_folder(tmp_path / "photos")
    names = [f"{i}.png" for i in range(24)]
    train = [name for name in names if split_of(name) == "train"]
    test = [name for name in names if split_of(name) == "test"]
    twin = Image.open(photos / test[0]).resize((32, 24)).resize((64, 48))
    twin.save(photos / train[0])
    dataset = build_dataset(
        [partial(read_objects, photos)], tmp_path / "built", OPTIONS
    )
    assert train[0] not in dataset["train"]["image_id"]
    assert test[0] in dataset["test"]["image_id"]
    assert rejected(tmp_path / "built") == {
        train[0]: "nearly equals a test or validation photo"
    }


@pytest.mark.parametrize(
    "name",
    ["work/notes.txt", "work/2024/unit-00000.parquet", "README.md", "data/a.parquet"],
)
def test_a_folder_with_files_that_no_build_wrote_is_refused(folder, tmp_path, name):
    file = tmp_path / "output" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    first = name.split("/")[0]
    with pytest.raises(ValueError, match=f"output holds {first}, which no build wrote"):
        build_dataset([partial(read_objects, folder)], tmp_path / "output", OPTIONS)
    assert file.read_text() == "mine"
    left = [path for path in (tmp_path / "output").rglob("*") if path.is_file()]
    assert left == [file]


def test_held_out_categories_leave_train_alone(tmp_path):
    sources = [partial(read_objects, write_folder(tmp_path / "photos"))]
    photos = list(sources[0]())
    shown = {photo.id: photo.objects[0].category for photo in photos}
    chosen = photos[0].objects[0].category
    options = replace(OPTIONS, held_out=(chosen,))
    dataset = build_dataset(sources, tmp_path / "built", options)
    left_out = {
        photo.id
        for photo in photos
        if photo.split == "train" and shown[photo.id] == chosen
    }
    assert left_out
    built = {row["image_id"] for row in all_rows(dataset, "image_id")}
    assert built == set(shown) - left_out
    reason = f"shows what is held out: {chosen}"
    assert rejected(tmp_path / "built") == dict.fromkeys(left_out, reason)


def test_a_held_out_category_that_nothing_shows_is_an_error(folder, tmp_path):
    options = replace(OPTIONS, held_out=("unicorn",))
    with pytest.raises(ValueError, match="unicorn.*no photo shows any"):
        build_dataset([partial(read_objects, folder)], tmp_path / "built", options)


def test_what_few_train_photos_show_is_not_named(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = []
    for number in range(24):
        name = f"{number}.png"
        photo(number).save(folder / name)
        shown = "zebra" if number == 0 else "gazelle"
        line = {"image": name, "size": [64, 48], "category": shown, "points": []}
        lines.append(json.dumps({**line, "object_box": None}) + "\n")
    (folder / "objects.jsonl").write_text("".join(lines))
    options = replace(OPTIONS, styles=("free",), per_photo={"anywhere": 6})
    for least, named in [(0, {"zebra", "gazelle"}), (2, {"gazelle"})]:
        dataset = build_dataset(
            [partial(read_objects, folder)],
            tmp_path / f"least {least}",
            replace(options, least_photos=least),
        )
        texts = " ".join(row["description"] for row in all_rows(dataset))
        assert {name for name in ("zebra", "gazelle") if name in texts} == named


def test_fewer_than_no_photos_is_an_error():
    with pytest.raises(ValueError, match="least_photos must be at least 0, got -1"):
        replace(OPTIONS, least_photos=-1)


def test_broken_photos_are_rejected_and_the_rest_is_built(tmp_path):
    photos = write_folder(tmp_path / "photos")
    (photos / "0.png").write_bytes((photos / "0.png").read_bytes()[:300])
    (photos / "1.png").unlink()
    photo(2, (50, 50)).save(photos / "2.png")
    dataset = build_dataset(
        [partial(read_objects, photos)], tmp_path / "built", OPTIONS
    )
    assert len({row["image_id"] for row in all_rows(dataset, "image_id")}) == 21
    reasons = rejected(tmp_path / "built")
    assert set(reasons) == {"0.png", "1.png", "2.png"}
    assert "states (64, 48), but as displayed it has (50, 50)" in reasons["2.png"]
    card = (tmp_path / "built" / "README.md").read_text()
    assert "- 1: size\n" in card
    assert str(photos) not in card
    with pytest.raises(ValueError, match="0.png"):
        build_dataset(
            [partial(read_objects, photos)], tmp_path / "strict", OPTIONS, strict=True
        )


def test_a_strict_build_goes_on_past_a_photo_without_points(tmp_path):
    photos = write_folder(tmp_path / "photos", 3)
    lines = (
        object_line("0.png", points=[]) + object_line("1.png") + object_line("2.png")
    )
    (photos / "objects.jsonl").write_text(lines)
    dataset = build_dataset(
        [partial(read_objects, photos)], tmp_path / "built", OPTIONS, strict=True
    )
    assert {row["image_id"] for row in all_rows(dataset, "image_id")} == {
        "1.png",
        "2.png",
    }


def test_balance_caps_frequent_parts(folder, tmp_path):
    options = BuildOptions(license="cc0-1.0", most_per_part=2, unit_photos=3)
    dataset = build_dataset([partial(read_objects, folder)], tmp_path, options)
    rows = dataset["train"].select_columns(["object", "part"])
    counts = Counter((row["object"], row["part"]) for row in rows)
    assert set(counts.values()) == {2}
    assert len(counts) == 6


def test_the_folder_loads_as_a_hub_dataset_would(built):
    dataset, out = built
    loaded = datasets.load_dataset(str(out))
    assert set(loaded) == set(dataset)
    for split, rows in dataset.items():
        assert loaded[split]["description"] == rows["description"]


def test_a_folder_that_is_built_anew_does_not_load_as_it_was(tmp_path):
    photos = write_folder(tmp_path / "photos", 4)
    out = tmp_path / "built"
    for x in (10.0, 20.0):
        lines = [object_line(f"{i}.png", points=[["nose", x, 10]]) for i in range(4)]
        (photos / "objects.jsonl").write_text("".join(lines))
        shutil.rmtree(out, ignore_errors=True)
        build_dataset([partial(read_objects, photos)], out, OPTIONS)
        loaded = datasets.load_dataset(str(out))
        assert {row["point"][0] for row in all_rows(loaded, "point")} == {x}


def test_training_reads_the_built_dataset_with_its_texts(built):
    dataset, out = built
    views = make_views(load_photos(out))
    assert len(views) == 24
    assert {view.photo.split for view in views} == set(dataset)
    written = {row["description"] for row in all_rows(dataset, "description")}
    weights = {"full": 0.5, "terse": 0.5}
    for view in views:
        for _, point in view.points():
            assert {style for style, _ in point.texts} == {"full", "terse"}
        _, texts, _ = sample_triplets(view, 6, np.random.default_rng(0), weights)
        assert set(texts) <= written
        _, texts, _ = sample_triplets(
            view, 6, np.random.default_rng(0), {"unseen": 1.0}
        )
        assert not set(texts) & written
    views = make_views(load_photos(out), views_per_photo=2)
    crops = [view for view in views if view.crop is not None]
    is_large = [shows_nearly_all(view.crop, view.source.size) for view in crops]
    assert set(is_large) == {False, True}
    for view, keeps_all in zip(crops, is_large):
        texts = [text for _, point in view.points() for _, text in point.texts]
        assert keeps_all or not any(is_about_frame(text) for text in texts)


def test_parts_of_masks_and_boxes_get_points_of_every_stratum(tmp_path):
    image = tmp_path / "a.png"
    photo(3, (96, 64)).save(image)
    head = Part("head", (10, 10, 50, 50))
    tail = Part("tail", (60.0, 20.0, 90.0, 40.0), np.ones((20, 30), bool))
    dog = AnnotatedObject("dog", (5, 5, 92, 60), (), (head, tail))
    source = Photo("a.png", str(image), (96, 64), (dog,), "train")
    options = BuildOptions(
        "cc0-1.0",
        per_part={"sift": 2, "uniform": 2, "low_gradient": 1, "boundary": 2},
        min_distance=0.02,
    )
    rows = build_dataset([lambda on_reject: [source]], tmp_path / "built", options)[
        "train"
    ]
    assert set(rows["stratum"]) == {"sift", "uniform", "low_gradient", "boundary"}
    assert set(rows["part"]) == {"head", "tail"}
    for row in rows:
        x, y = row["point"]
        x1, y1, x2, y2 = row["part_box"]
        assert x1 <= x <= x2
        assert y1 <= y <= y2
        assert f"within the {row['part']}" in row["description"]


def bare_photo(tmp_path, points=()):
    """A photo on which no object is annotated."""
    photo(5).save(tmp_path / "bare.png")
    path = str(tmp_path / "bare.png")
    return Photo("bare.png", path, (64, 48), (), "train", points=tuple(points))


def test_points_anywhere_are_described_on_any_photo(folder, tmp_path):
    bare = bare_photo(tmp_path)
    sources = [lambda on_reject: [bare], partial(read_objects, folder)]
    options = replace(OPTIONS, styles=("full",), per_photo={"anywhere": 2})
    rows = all_rows(build_dataset(sources, tmp_path / "built", options))
    anywhere = [row for row in rows if row["stratum"] == "anywhere"]
    assert Counter(row["image_id"] for row in anywhere) == dict.fromkeys(
        ["bare.png", *(f"{i}.png" for i in range(24))], 2
    )
    for row in anywhere:
        assert row["part"] is None and row["part_box"] is None
        assert row["description"]
    assert len([row for row in rows if row["stratum"] == "given"]) == 24 * 6


def test_texts_of_a_source_are_rows_in_their_own_styles(tmp_path):
    own = (("rich", "A gray wall."), ("rich", "The wall, gray."), ("full", "A wall."))
    described = PartPoint(None, 7.0, 8.0, texts=own)
    bare = bare_photo(tmp_path, [described, PartPoint(None, 50.0, 30.0)])
    options = BuildOptions("cc0-1.0", styles=("rich", "full", "colloquial"))
    rows = all_rows(
        build_dataset([lambda on_reject: [bare]], tmp_path / "out", options)
    )
    texts = {}
    for row in rows:
        key = (row["point"][0], row["style"], row["text_from"])
        texts.setdefault(key, []).append(row["description"])
    assert texts[7.0, "rich", "source"] == ["A gray wall.", "The wall, gray."]
    assert texts[7.0, "full", "source"] == ["A wall."]
    assert set(texts) - {(7.0, "rich", "source"), (7.0, "full", "source")} == {
        (7.0, "colloquial", "teacher"),
        (50.0, "full", "teacher"),
        (50.0, "colloquial", "teacher"),
    }


def test_a_style_that_nobody_writes_is_named_and_can_be_mended(tmp_path):
    bare = bare_photo(tmp_path, [PartPoint(None, 7.0, 8.0, texts=(("rich", "A."),))])
    sources = [lambda on_reject: [bare]]
    with pytest.raises(ValueError, match=r"\['rhymed'\] are unknown.*\('rich',\)"):
        options = BuildOptions("cc0-1.0", styles=("rich", "rhymed"))
        build_dataset(sources, tmp_path / "built", options)
    options = BuildOptions("cc0-1.0", styles=("rich",))
    assert len(all_rows(build_dataset(sources, tmp_path / "built", options))) == 1


@pytest.fixture(scope="module")
def localizer(make_localizer, tmp_path_factory):
    model, processor = make_localizer(head="heatmap")
    out = str(tmp_path_factory.mktemp("localizer"))
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


def test_localizability_is_measured_and_filtered(folder, localizer, tmp_path):
    few = BuildOptions("cc0-1.0", unit_photos=12, localizer=localizer)
    source = partial(read_objects, folder)
    rows = build_dataset([source], tmp_path / "all", few)["train"]
    locate = pipeline("point-localization", model=localizer)
    for row in rows.select(range(5)):
        [found] = locate(row["image"], text=row["description"])
        x = (found["point"][0] - row["point"][0]) / 64
        y = (found["point"][1] - row["point"][1]) / 48
        assert row["localization_distance"] == pytest.approx(np.hypot(x, y), abs=1e-4)
    limit = float(np.median(rows["localization_distance"]))
    filtered = replace(few, most_distance=limit)
    kept = build_dataset([source], tmp_path / "some", filtered)["train"]
    near = [row["description"] for row in rows if row["localization_distance"] <= limit]
    assert kept["description"] == near
    card = (tmp_path / "all" / "README.md").read_text()
    assert "| full |" in card.partition("Found again")[2]
    assert str(tmp_path.parent) not in card


class LongWinded(RuleTeacher):
    """Writes a text that no localizer can take for every nose."""

    def __call__(self, queries, vocabulary):
        answers = super().__call__(queries, vocabulary)
        for query, answer in zip(queries, answers):
            if query.facts.part == "nose":
                answer["description"] = "word " * 5000
        return answers


def test_a_text_that_cannot_be_located_counts_as_the_farthest_corner(
    folder, localizer, tmp_path
):
    options = BuildOptions("cc0-1.0", unit_photos=12, localizer=localizer)
    rows = build_dataset(
        [partial(read_objects, folder)], tmp_path, options, LongWinded()
    )["train"]
    noses = rows.filter(lambda row: row["part"] == "nose")
    assert len(noses) > 0
    for row in noses:
        x, y = row["point"][0] / 64, row["point"][1] / 48
        farthest = np.hypot(max(x, 1 - x), max(y, 1 - y))
        assert row["localization_distance"] == pytest.approx(farthest, abs=1e-6)


@pytest.mark.parametrize("tasks", [1, 2])
def test_datatrove_tasks_change_no_byte(built, folder, tmp_path, tasks):
    executor = pytest.importorskip("datatrove.executor")
    plan_units(
        [partial(read_objects, folder)], tmp_path / "built", OPTIONS, RuleTeacher()
    )
    step = partial(
        build_units, folder=tmp_path / "built", options=OPTIONS, teacher=RuleTeacher()
    )
    executor.LocalPipelineExecutor(
        [step], tasks=tasks, logging_dir=str(tmp_path / "logs")
    ).run()
    finish(tmp_path / "built", OPTIONS, RuleTeacher())
    assert files(tmp_path / "built") == files(built[1])


def test_an_unfinished_build_has_no_card(folder, tmp_path):
    plan_units([partial(read_objects, folder)], str(tmp_path), OPTIONS, RuleTeacher())
    with pytest.raises(ValueError, match="8 of 8 units are not built"):
        finish(tmp_path, OPTIONS, RuleTeacher())


@pytest.mark.parametrize("shared", [True, False])
def test_pushed_datasets_hold_the_photos_only_where_their_license_allows(
    folder, tmp_path, shared
):
    options = BuildOptions("cc-by-4.0", images_may_be_shared=shared, unit_photos=8)
    dataset = build_dataset([partial(read_objects, folder)], tmp_path, options)
    program = (
        "from hf_talking_points.data.builder import push_built; "
        f"push_built({str(tmp_path)!r}, 'someone/points')"
    )
    with HubServer() as hub:
        variables = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_x",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        command = [sys.executable, "-c", program]
        ran = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-2000:]
        pushed = hub.repos["datasets/someone/points"]
    expected = {f"data/{file.name}" for file in (tmp_path / "data").iterdir()}
    expected.add("README.md")
    if shared:
        expected.add("samples.jpg")
    assert set(pushed) == expected

    (tmp_path / "pulled" / "data").mkdir(parents=True)
    for name, content in pushed.items():
        (tmp_path / "pulled" / name).write_bytes(content)
    pulled = datasets.load_dataset(
        str(tmp_path / "pulled"), cache_dir=str(tmp_path / "cache")
    )
    assert set(pulled) == set(dataset)
    for split, rows in dataset.items():
        assert pulled[split]["description"] == rows["description"]
    assert ("image" in pulled["train"].column_names) == shared
    assert ("samples.jpg" in (tmp_path / "README.md").read_text()) == shared


def points_at(folder, x, names=("0.png", "1.png")):
    lines = [object_line(name, points=[["nose", x, 10]]) for name in names]
    (folder / "objects.jsonl").write_text("".join(lines))
    return partial(read_objects, folder)


def coco_file(folder, annotations, category, names=("0.png", "1.png")):
    images = []
    for number, name in enumerate(names):
        images.append({"id": number, "file_name": name, "width": 64, "height": 48})
    content = {"images": images, "annotations": annotations, "categories": [category]}
    (folder / "coco.json").write_text(json.dumps(content))


def keypoints_at(folder, x, names=("0.png", "1.png")):
    annotations = []
    for number in range(len(names)):
        annotation = {
            "id": number,
            "image_id": number,
            "category_id": 1,
            "bbox": [2, 2, 40, 40],
            "keypoints": [x - 0.5, 9.5, 2],
        }
        annotations.append(annotation)
    category = {"id": 1, "name": "dog", "keypoints": ["nose"]}
    coco_file(folder, annotations, category, names)
    return partial(read_coco_keypoints, folder / "coco.json", folder)


def part_boxes_at(folder, x, names=("0.png", "1.png")):
    annotations = []
    for number in range(len(names)):
        box = [x, 5, 12, 12]
        annotation = {"id": number, "image_id": number, "category_id": 1, "bbox": box}
        annotations.append(annotation)
    category = {"id": 1, "name": "dog head", "supercategory": "dog"}
    coco_file(folder, annotations, category, names)
    return partial(read_coco_parts, folder / "coco.json", folder)


def rows_at(folder, x, names=("0.png", "1.png")):
    count = len(names)
    columns = {
        "image": [str(folder / name) for name in names],
        "image_id": list(names),
        "point": [[float(x), 10.0]] * count,
        "object": ["dog"] * count,
        "object_box": [[2.0, 2.0, 60.0, 40.0]] * count,
        "part": ["nose"] * count,
    }
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    return partial(read_dataset, dataset)


ALL_STRATA = {"given": 1, "uniform": 1}


@pytest.mark.parametrize("source", [points_at, keypoints_at, part_boxes_at, rows_at])
@pytest.mark.parametrize("change", ["points", "photos", "pixels"])
def test_a_build_of_sources_that_have_changed_is_refused(tmp_path, source, change):
    for number in range(4):
        photo(number).save(tmp_path / f"{number}.png")
    options = BuildOptions("cc0-1.0", per_part=ALL_STRATA, duplicate_bits=-1)
    out = tmp_path / "built"
    dataset = build_dataset([source(tmp_path, 10)], out, options)
    again = build_dataset([source(tmp_path, 10)], out, options)
    assert all_rows(again) == all_rows(dataset)
    if change == "points":
        changed = source(tmp_path, 20)
    elif change == "photos":
        changed = source(tmp_path, 10, ("0.png", "2.png"))
    else:
        photo(9).save(tmp_path / "1.png")
        changed = source(tmp_path, 10)
    with pytest.raises(ValueError, match="other sources"):
        build_dataset([changed], out, options)


def test_photos_of_equal_names_are_told_apart(tmp_path):
    sources = []
    for seed, color in enumerate(("red", "blue")):
        folder = tmp_path / color
        folder.mkdir()
        photo(seed).save(folder / "a.png")
        (folder / "objects.jsonl").write_text(
            object_line("a.png", points=[["nose", seed + 10, 9]])
        )
        sources.append(partial(read_objects, folder))
    dataset = build_dataset(sources, tmp_path / "built", OPTIONS)
    rows = all_rows(dataset)
    assert {row["image_id"] for row in rows} == {"red/a.png", "blue/a.png"}
    assert set(dataset) == {split_of("a.png")}
    for row in rows:
        seed = 0 if row["image_id"] == "red/a.png" else 1
        assert row["point"] == [seed + 10.0, 9.0]
        assert np.array_equal(row["image"], photo(seed))


def test_a_photo_that_two_sources_have_is_built_once(tmp_path):
    sources = []
    for name in ("red", "blue"):
        folder = write_folder(tmp_path / name, 2)
        sources.append(partial(read_objects, folder))
    dataset = build_dataset(sources, tmp_path / "built", OPTIONS)
    assert len(all_rows(dataset, "style")) == 2 * 12
    assert set(rejected(tmp_path / "built")) == {"0.png", "1.png"}


def test_paths_of_a_machine_are_in_no_row_and_not_in_the_card(tmp_path):
    home = tmp_path / "jane doe"
    (home / "more").mkdir(parents=True)
    lines = []
    for seed, name in enumerate(("a.png", "more/a.png", "missing.png")):
        path = home / name
        if name != "missing.png":
            photo(seed).save(path)
        lines.append(object_line(str(path)))
    (home / "objects.jsonl").write_text("".join(lines))
    options = replace(OPTIONS, images_may_be_shared=True)
    dataset = build_dataset([partial(read_objects, home)], tmp_path / "built", options)
    ids = {row["image_id"] for row in all_rows(dataset, "image_id")}
    assert len(ids) == 2
    assert ids == {"jane doe/a.png", "jane doe/a.png (2)"}
    for content in files(tmp_path / "built").values():
        assert str(home.parent).encode() not in content


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x013B] = "Jane Doe"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 12.345)})
    return exif


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("from_rows", [False, True])
def test_stored_photos_tell_nothing_of_their_owner(
    tmp_path, kind, orientation, from_rows
):
    file = tmp_path / "a.img"
    photo(0).save(file, kind, exif=exif_of(orientation))
    assert b"Jane Doe" in file.read_bytes()
    size = (48, 64) if orientation == 6 else (64, 48)
    if from_rows:
        columns = {
            "image": [{"bytes": file.read_bytes(), "path": None}],
            "objects": [
                [
                    {
                        "category": "dog",
                        "box": [2.0, 2.0, 40.0, 40.0],
                        "points": [{"part": "nose", "x": 9.0, "y": 9.0}],
                    }
                ]
            ],
        }
        dataset = datasets.Dataset.from_dict(columns).cast_column(
            "image", datasets.Image()
        )
        source = partial(read_dataset, dataset)
    else:
        line = object_line("a.img", points=[["nose", 9, 9]], size=size)
        (tmp_path / "objects.jsonl").write_text(line)
        source = partial(read_objects, tmp_path)
    built = build_dataset([source], tmp_path / "built", BuildOptions("cc0-1.0"))
    [row] = all_rows(built)
    assert row["image"].size == size
    assert not row["image"].getexif()
    assert np.array_equal(to_rgb(row["image"]), to_rgb(file))
    for content in files(tmp_path / "built").values():
        assert b"Jane Doe" not in content


@pytest.mark.parametrize("per_part", [{}, {"given": 0}, {"uniform": 2}])
def test_without_a_point_the_error_says_so(folder, tmp_path, per_part):
    options = BuildOptions("cc0-1.0", per_part=per_part)
    for _ in range(2):  # the second time goes on with what the first has left
        with pytest.raises(ValueError, match="no (point|row).*per_part"):
            build_dataset([partial(read_objects, folder)], tmp_path, options)


def test_without_a_row_within_the_distance_the_error_says_so(
    folder, localizer, tmp_path
):
    options = BuildOptions("cc0-1.0", localizer=localizer, most_distance=0.0)
    with pytest.raises(ValueError, match="no row is left.*most_distance=0.0"):
        build_dataset([partial(read_objects, folder)], tmp_path, options)


def test_without_a_photo_the_error_says_why(tmp_path):
    (tmp_path / "objects.jsonl").write_text(object_line("a.png") + object_line("b.png"))
    for _ in range(2):
        with pytest.raises(
            ValueError, match="no photo is left to build: 2 x FileNotFoundError"
        ):
            build_dataset(
                [partial(read_objects, tmp_path)], tmp_path / "built", OPTIONS
            )
