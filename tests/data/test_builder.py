"""Built datasets: what is in them, and that neither a kill nor the number of processes changes a byte."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import datasets
import numpy as np
import pytest
from hub_server import HubServer
from PIL import Image
from transformers import pipeline

from hf_talking_points.data.builder import (
    BuildOptions,
    build_dataset,
    build_units,
    entropy,
    finish,
    load_built,
    near_duplicates,
    perceptual_hash,
    plan_units,
)
from hf_talking_points.data.sources import (
    AnnotatedObject,
    Part,
    Photo,
    read_objects,
    read_photos,
    split_of,
)
from hf_talking_points.data.teachers import RuleTeacher
from hf_talking_points.data.triplets import make_views, sample_triplets
from hf_talking_points.metrics import distinct_n

OPTIONS = BuildOptions(license="cc0-1.0", styles=("full", "terse"), unit_photos=3)


def photo(seed, size=(64, 48)):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def write_folder(folder, count=24):
    """Noisy photos with two objects of three points each."""
    folder.mkdir(exist_ok=True)
    lines = []
    for i in range(count):
        photo(i).save(folder / f"{i}.png")
        for category, x in (("dog", 2), ("cat", 30)):
            points = [
                ["nose", x + 5, 8],
                ["left_eye", x + 9, 5 + i % 7],
                ["tailbase", x + 20, 30, [x + 15, 25, x + 25, 40]],
            ]
            row = {
                "image": f"{i}.png",
                "size": [64, 48],
                "category": category,
                "object_box": [x, 2, x + 30, 45],
                "points": points,
            }
            lines.append(json.dumps(row))
    (folder / "objects.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    return build_dataset([partial(read_objects, folder)], out, OPTIONS), out


def files(folder):
    return {f.name: f.read_bytes() for f in sorted((folder / "data").iterdir())} | {
        "card": (folder / "README.md").read_bytes()
    }


def test_rows_say_what_the_annotation_says(built, folder):
    dataset, _ = built
    assert {split: len(rows) for split, rows in dataset.items()} == {
        split: 12 * sum(split_of(f"{i}.png") == split for i in range(24)) for split in dataset
    }
    for row in dataset["train"]:
        assert row["image"].size == (64, 48) and row["image"] == Image.open(
            folder / row["image_id"]
        )
        assert row["object"] in row["description"].lower() and row["stratum"] == "given"
        assert (
            row["part"].replace("_", " ").replace("tailbase", "tail base")
            in row["description"].lower()
        )
        assert ("of the image" in row["description"]) == (row["style"] == "full")
        assert (row["part_box"] is not None) == (row["part"] == "tailbase")


def test_no_photo_is_in_two_splits(built):
    dataset, _ = built
    ids = [set(rows["image_id"]) for rows in dataset.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 24
    assert all(split_of(i) == split for split, rows in dataset.items() for i in rows["image_id"])


def test_a_finished_build_is_not_built_again(built, folder):
    _, out = built
    before = {f: f.stat().st_mtime_ns for f in (out / "data").iterdir()}
    again = build_dataset([partial(read_objects, folder)], out, OPTIONS)
    assert {f: f.stat().st_mtime_ns for f in (out / "data").iterdir()} == before
    assert again["train"]["description"] == load_built(out)["train"]["description"]


def test_going_on_with_other_options_teacher_or_sources_is_an_error(built, folder, tmp_path):
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
        ({"most_distance": 0.1}, "needs a localizer"),
    ],
)
def test_unknown_options_are_errors(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build_dataset([partial(read_objects, folder)], tmp_path, BuildOptions("cc0-1.0", **options))


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
        [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path)], stderr=subprocess.DEVNULL
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


def test_near_duplicates_of_held_out_photos_leave_train(folder, tmp_path):
    photos = write_folder(tmp_path / "photos")
    names = {
        split: [f"{i}.png" for i in range(24) if split_of(f"{i}.png") == split]
        for split in ("train", "test")
    }
    twin = Image.open(photos / names["test"][0]).resize((32, 24)).resize((64, 48))
    twin.save(photos / names["train"][0])
    dataset = build_dataset([partial(read_objects, photos)], tmp_path / "built", OPTIONS)
    assert (
        names["train"][0] not in dataset["train"]["image_id"]
        and names["test"][0] in dataset["test"]["image_id"]
    )
    [reject] = map(json.loads, (tmp_path / "built" / "rejects.jsonl").read_text().splitlines())
    assert reject == {
        "image": names["train"][0],
        "reason": "nearly equals a test or validation photo",
    }


def test_perceptual_hash_survives_scaling_and_compression(tmp_path):
    original = photo(1, (256, 192))
    original.save(tmp_path / "small.jpg", quality=60)
    assert near_duplicates(
        [perceptual_hash(Image.open(tmp_path / "small.jpg").resize((100, 75)))],
        [perceptual_hash(original)],
        3,
    ).all()
    others = [perceptual_hash(photo(seed)) for seed in range(2, 60)]
    assert not near_duplicates(others, [perceptual_hash(original)], 3).any()
    assert not near_duplicates(others, [], 3).any()


def test_broken_photos_are_rejected_and_the_rest_is_built(tmp_path):
    photos = write_folder(tmp_path / "photos")
    (photos / "0.png").write_bytes((photos / "0.png").read_bytes()[:300])
    (photos / "1.png").unlink()
    photo(2, (50, 50)).save(photos / "2.png")
    dataset = build_dataset([partial(read_objects, photos)], tmp_path / "built", OPTIONS)
    assert sum(len(set(rows["image_id"])) for rows in dataset.values()) == 21
    rejects = {
        r["image"]: r["reason"]
        for r in map(json.loads, (tmp_path / "built" / "rejects.jsonl").read_text().splitlines())
    }
    assert (
        set(rejects) == {"0.png", "1.png", "2.png"}
        and "expected (64, 48) as annotated, found (50, 50)" in rejects["2.png"]
    )
    assert "- 1: size" in (tmp_path / "built" / "README.md").read_text()
    with pytest.raises(ValueError, match="0.png"):
        build_dataset([partial(read_objects, photos)], tmp_path / "strict", OPTIONS, strict=True)


def test_balance_caps_frequent_parts(folder, tmp_path):
    options = BuildOptions(license="cc0-1.0", most_per_part=2, unit_photos=3)
    dataset = build_dataset([partial(read_objects, folder)], tmp_path, options)
    rows = [(r["object"], r["part"]) for r in dataset["train"].select_columns(["object", "part"])]
    things = [(o, p) for o in ("dog", "cat") for p in ("nose", "left_eye", "tailbase")]
    assert {key: rows.count(key) for key in set(rows)} == dict.fromkeys(things, 2)


def test_the_folder_loads_as_a_hub_dataset_would(built):
    dataset, out = built
    loaded = datasets.load_dataset(str(out))
    assert {s: rows["description"] for s, rows in loaded.items()} == {
        s: rows["description"] for s, rows in dataset.items()
    }
    card = (out / "README.md").read_text()
    assert (
        "license: cc0-1.0" in card
        and "| dog |" in card
        and "distinct-2" in card
        and "entropy" in card
    )


def test_training_reads_the_built_dataset_with_its_texts(built):
    dataset, out = built
    views = make_views(read_photos(out))
    assert len(views) == 24 and {v.photo.split for v in views} == set(dataset)
    written = {text for rows in dataset.values() for text in rows["description"]}
    for view in views:
        assert all({style for style, _ in p.texts} == {"full", "terse"} for _, p in view.points())
        _, texts, _ = sample_triplets(
            view, 6, np.random.default_rng(0), {"full": 0.5, "terse": 0.5}
        )
        assert set(texts) <= written
        _, texts, _ = sample_triplets(view, 6, np.random.default_rng(0), {"unseen": 1.0})
        assert not set(texts) & written
    crop = next(v for v in make_views(read_photos(out), views_per_photo=2) if v.crop is not None)
    assert all(not p.texts for _, p in crop.points())


def test_parts_of_masks_and_boxes_get_points_of_every_stratum(tmp_path):
    image = tmp_path / "a.png"
    photo(3, (96, 64)).save(image)
    parts = (
        Part("head", (10, 10, 50, 50)),
        Part("tail", (60.0, 20.0, 90.0, 40.0), np.ones((20, 30), bool)),
    )
    source = Photo(
        "a.png", str(image), (96, 64), (AnnotatedObject("dog", (5, 5, 92, 60), (), parts),), "train"
    )
    options = BuildOptions(
        "cc0-1.0",
        per_part={"sift": 2, "uniform": 2, "low_gradient": 1, "boundary": 2},
        min_distance=0.02,
    )
    rows = build_dataset([lambda on_reject: [source]], tmp_path / "built", options)["train"]
    assert set(rows["stratum"]) == {"sift", "uniform", "low_gradient", "boundary"} and set(
        rows["part"]
    ) == {"head", "tail"}
    for row in rows:
        x1, y1, x2, y2 = row["part_box"]
        assert (
            x1 <= row["point"][0] <= x2
            and y1 <= row["point"][1] <= y2
            and f"within the {row['part']}" in row["description"]
        )


@pytest.fixture(scope="module")
def localizer(make_localizer, tmp_path_factory):
    model, processor = make_localizer(head="heatmap")
    out = str(tmp_path_factory.mktemp("localizer"))
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


def test_localizability_is_measured_and_filtered(folder, localizer, tmp_path):
    few = BuildOptions("cc0-1.0", unit_photos=12, localizer=localizer)
    rows = build_dataset([partial(read_objects, folder)], tmp_path / "all", few)["train"]
    locate = pipeline("point-localization", model=localizer)
    for row in rows.select(range(5)):
        [found] = locate(row["image"], text=row["description"])
        distance = np.hypot(
            (found["point"][0] - row["point"][0]) / 64, (found["point"][1] - row["point"][1]) / 48
        )
        assert row["localization_distance"] == pytest.approx(distance, abs=1e-4)
    limit = float(np.median(rows["localization_distance"]))
    kept = build_dataset(
        [partial(read_objects, folder)], tmp_path / "some", replace(few, most_distance=limit)
    )["train"]
    assert kept["description"] == [
        t for t, d in zip(rows["description"], rows["localization_distance"]) if d <= limit
    ]


@pytest.mark.parametrize("tasks", [1, 2])
def test_datatrove_tasks_change_no_byte(built, folder, tmp_path, tasks):
    executor = pytest.importorskip("datatrove.executor")
    plan_units([partial(read_objects, folder)], tmp_path / "built", OPTIONS, RuleTeacher())
    step = partial(build_units, folder=tmp_path / "built", options=OPTIONS, teacher=RuleTeacher())
    executor.LocalPipelineExecutor([step], tasks=tasks, logging_dir=str(tmp_path / "logs")).run()
    finish(tmp_path / "built", OPTIONS, RuleTeacher())
    assert files(tmp_path / "built") == files(built[1])


def test_an_unfinished_build_has_no_card(folder, tmp_path):
    plan_units([partial(read_objects, folder)], str(tmp_path), OPTIONS, RuleTeacher())
    with pytest.raises(ValueError, match="8 of 8 units are not built"):
        finish(tmp_path, OPTIONS, RuleTeacher())


@pytest.mark.parametrize("shared", [True, False])
def test_pushed_datasets_hold_the_photos_only_where_their_licence_allows(folder, tmp_path, shared):
    options = BuildOptions("cc-by-4.0", images_may_be_shared=shared, unit_photos=8)
    dataset = build_dataset([partial(read_objects, folder)], tmp_path, options)
    program = f"from hf_talking_points.data.builder import push_built; push_built({str(tmp_path)!r}, 'someone/points')"
    with HubServer() as hub:
        env = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_x",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        ran = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        pushed = hub.repos["datasets/someone/points"]
    assert set(pushed) == {f"data/{f.name}" for f in (tmp_path / "data").iterdir()} | {
        "README.md"
    } | ({"samples.jpg"} if shared else set())
    (tmp_path / "pulled" / "data").mkdir(parents=True)
    for name, content in pushed.items():
        (tmp_path / "pulled" / name).write_bytes(content)
    pulled = datasets.load_dataset(str(tmp_path / "pulled"), cache_dir=str(tmp_path / "cache"))
    assert {s: rows["description"] for s, rows in pulled.items()} == {
        s: rows["description"] for s, rows in dataset.items()
    }
    assert (
        ("image" in pulled["train"].column_names)
        == shared
        == ("samples.jpg" in (tmp_path / "README.md").read_text())
    )


def test_diversity():
    assert (
        distinct_n(["a b c", "A b d"]) == 3 / 4
        and distinct_n(["word"]) == 0
        and distinct_n(["a b", "b a"], 1) == 1 / 2
    )
    assert entropy({"a": 5, "b": 5}) == 1 and entropy({"a": 3}) == 0
