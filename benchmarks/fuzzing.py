r"""Gives broken input of every kind to what reads it, and counts what comes of it.

    python benchmarks/fuzzing.py --output fuzzing

An input is taken, or refused by an error that says what is wrong with it: a ValueError, a TypeError or an OSError, of
an endpoint its own, and of a config's field that of transformers. Anything else, more than `LONGEST` seconds or
`MOST_MEMORY` bytes, and a point that is not where it was given, is a failure. Each kind runs in a process of its own.
Writes `fuzzing.json`, with the number of every input that failed; `--kinds pictures --first 1234 --share 0` gives that
one again.
"""

from __future__ import annotations

import copy
import datetime
import io
import json
import math
import multiprocessing
import resource
import shutil
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from datasets import IterableDataset
from huggingface_hub.errors import StrictDataclassFieldValidationError
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    HfArgumentParser,
    Pipeline,
    pipeline,
)
from transformers.utils import logging

from hf_talking_points import MINI_DESCRIPTOR, MINI_LOCALIZER
from hf_talking_points.data.build_config import read_build_config
from hf_talking_points.data.endpoint import EndpointError, EndpointTeacher
from hf_talking_points.data.sources import (
    read_coco_keypoints,
    read_coco_parts,
    read_dataset,
    read_objects,
    read_part_label_maps,
)
from hf_talking_points.evaluation.written_descriptions import WrittenDescriptions
from hf_talking_points.models.coordinates import pixels_to_canvas


class LeftOut(Exception):
    """Records that a reader gave to `on_reject`."""


LONGEST = 5.0  # seconds
MOST_MEMORY = 2 * 2**30  # bytes
TAKEN = "taken"
# the subclasses of these are not among them, but for what the system says of files
SAID = (
    ValueError,
    TypeError,
    EndpointError,
    StrictDataclassFieldValidationError,  # of a config's field that has another type
    LeftOut,
)
SIZE = (48, 36)  # of the photos
FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 80},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_lzw"},
    "GIF": {},
    "AVIF": {},
    "BMP": {},
}
JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    3,
    10**30,
    1e308,
    -1e-320,
    math.nan,
    math.inf,
    "",
    "dog",
    "12",
    "\ud800",
    "\x00",
    "../../outside.jpg",
    "/outside.jpg",
    "word " * 500,
    [],
    {},
    [[]],
    [1, 2],
    [1.5, 2.5, 3.5, 4.5],
    {"id": 1},
    {"size": [2, 2], "counts": [1, 3]},
    {"size": [2, 2], "counts": "0a1"},
]


@dataclass
class Arguments:
    output: str = field(metadata={"help": "folder of the counts"})
    kinds: list[str] = field(
        default_factory=lambda: list(KINDS), metadata={"help": "of input"}
    )
    share: float = field(
        default=1.0, metadata={"help": "of the inputs of each kind; at least one"}
    )
    first: int = field(default=0, metadata={"help": "number of the first input"})
    seed: int = 0


class Moved(Exception):
    """A point that is not where it was given."""


Try = Callable[[np.random.Generator], None]


def mutated_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes after a few accidents: bits that flip, stretches that are lost, doubled, exchanged or emptied."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        if not changed:
            break
        # headers break more than pixels do
        reach = len(changed) if rng.random() < 0.5 else min(64, len(changed))
        start = int(rng.integers(reach))
        end = start + int(rng.integers(1, 17))
        accident = rng.integers(6)
        if accident == 0:
            changed[start] ^= 1 << rng.integers(8)
        elif accident == 1:
            changed[start:end] = rng.bytes(len(changed[start:end]))
        elif accident == 2:
            del changed[start:end]
        elif accident == 3:
            changed[start:start] = changed[start:end]
        elif accident == 4:
            changed[start:end] = bytes([rng.choice([0, 255])]) * (end - start)
        else:
            del changed[start:]
    return bytes(changed)


def mutated_value(value: Any, rng: np.random.Generator) -> Any:
    """A value as of JSON, in which a few entries are missing, doubled or something else."""
    changed = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        changed = with_accident(changed, rng)
    return changed


def with_accident(value: Any, rng: np.random.Generator) -> Any:
    if not value or not isinstance(value, (dict, list)) or rng.random() < 0.1:
        return JUNK[rng.integers(len(JUNK))]
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[rng.integers(len(keys))]
    accident = rng.integers(5)
    if accident == 0:
        del value[key]
    elif accident == 1 and isinstance(value, list):
        value.insert(key, value[key])
    elif accident == 1:
        value[f"{key}s"] = value.pop(key)
    else:
        value[key] = with_accident(value[key], rng)
    return value


def mutated_json(value: Any, rng: np.random.Generator) -> bytes:
    """A JSON text that is broken in its values or in its bytes."""
    if rng.random() < 0.7:
        return json.dumps(mutated_value(value, rng)).encode()
    return mutated_bytes(json.dumps(value).encode(), rng)


def mutated_lines(rows: list[Any], rng: np.random.Generator) -> bytes:
    """JSON Lines of which one is broken."""
    lines = [json.dumps(row).encode() for row in rows]
    number = rng.integers(len(rows))
    lines[number] = mutated_json(rows[number], rng)
    return b"\n".join(lines)


def photo(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3))
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


@cache
def whole_pictures() -> list[bytes]:
    """One of each format and mode that it has, and animations."""
    pictures = []
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    for format_name, options in FORMATS.items():
        for mode in ("RGB", "L", "P", "RGBA", "I;16"):
            file = io.BytesIO()
            try:
                photo(mode).save(file, format_name, **options)
            except (OSError, ValueError, KeyError):
                continue  # the format has no such mode
            pictures.append(file.getvalue())
        if format_name in ("GIF", "WEBP", "PNG", "TIFF"):
            file = io.BytesIO()
            photo().save(
                file, format_name, save_all=True, append_images=[photo(), photo()]
            )
            pictures.append(file.getvalue())
    for format_name in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        photo().save(file, format_name, exif=exif)
        pictures.append(file.getvalue())
    return pictures


@cache
def describe() -> Pipeline:
    return pipeline("point-description", model=MINI_DESCRIPTOR)


@cache
def locate() -> Pipeline:
    return pipeline("point-localization", model=MINI_LOCALIZER)


def pictures(folder: Path) -> Try:
    """Broken pictures as the pipelines take them, by path."""
    file = folder / "picture"

    def give(rng: np.random.Generator) -> None:
        whole = whole_pictures()
        file.write_bytes(mutated_bytes(whole[rng.integers(len(whole))], rng))
        describe().preprocess(str(file), points=[(0, 0)])

    return give


def any_number(rng: np.random.Generator) -> Any:
    """A number, or something that is none."""
    value = float(rng.uniform(-5, 60))
    kinds: list[Callable[[], Any]] = [
        lambda: value,
        lambda: int(value),
        lambda: np.float32(value),
        lambda: np.float16(value),
        lambda: np.int64(value),
        lambda: np.uint8(max(0, value)),
        lambda: torch.tensor(value),
        lambda: torch.tensor([value]),
        lambda: Decimal(str(value)),
        lambda: Fraction(value),
        lambda: complex(value, rng.integers(2)),
        lambda: np.complex64(value),
        lambda: str(value),
        lambda: str(value).encode(),
        lambda: rng.choice([math.nan, math.inf, -math.inf, -0.0]),
        lambda: 10 ** int(rng.integers(400)),
        lambda: 10.0 ** int(rng.integers(-320, 308)),
        lambda: bool(rng.integers(2)),
        lambda: np.bool_(True),
        lambda: np.ma.masked,
        lambda: np.datetime64("2020-01-01"),
        lambda: datetime.timedelta(seconds=value),
        lambda: JUNK[rng.integers(len(JUNK))],
    ]
    # plain numbers often enough that both of a point are
    return kinds[min(int(rng.exponential(6)), len(kinds) - 1)]()


def any_points(rng: np.random.Generator) -> Any:
    """Points, or something that is like them."""
    count = int(rng.integers(1, 4))
    sides = rng.choice([2, 2, 2, 2, 2, 2, 1, 3, 0])
    points = [[any_number(rng) for _ in range(sides)] for _ in range(count)]
    shape = rng.integers(8)
    if shape == 0:
        return points[0]
    if shape == 1:
        return tuple(map(tuple, points))
    if shape == 2:
        plain = rng.uniform(-1, 50, (count, 2))
        kinds = (np.float64, np.float16, np.int16, np.complex128, object, "U8", bool)
        return plain.astype(kinds[rng.integers(len(kinds))])
    if shape == 3:
        return torch.from_numpy(rng.uniform(-1, 50, (count, 2)))
    if shape == 4:
        return np.ma.masked_array(
            rng.uniform(0, 36, (count, 2)), rng.random((count, 2)) < 0.2
        )
    return points


def points(folder: Path) -> Try:
    """Points of any type. Those that are taken must lie where plain numbers would."""
    image = photo()
    side = describe().processor.image_size

    def give(rng: np.random.Generator) -> None:
        given = any_points(rng)
        taken = describe().preprocess(image, points=given)
        plain = np.array([[float(x), float(y)] for x, y in np.reshape(given, (-1, 2))])
        inside = (plain >= 0) & (plain <= SIZE)
        expected = pixels_to_canvas(torch.from_numpy(plain), *SIZE, side)
        found = torch.tensor(taken["input_points"], dtype=torch.float64)
        if not inside.all() or not torch.allclose(found, expected, atol=1e-6):
            raise Moved(f"{given!r} became {found.tolist()}")

    return give


def any_text(rng: np.random.Generator) -> str:
    """Text of any Unicode, also halves of surrogate pairs."""
    length = int(rng.choice([0, 1, 3, 20, 200, 3000]))
    last = int(rng.choice([0x80, 0x250, 0x3000, 0x10000, 0x110000]))
    characters = [chr(code) for code in rng.integers(0, last, length)]
    if rng.random() < 0.3:
        characters[:0] = "the dog's left eye "
    if rng.random() < 0.1:
        characters += ["<SEG>", "<image>", "[SEP]"][: rng.integers(1, 4)]
    return "".join(characters)


def texts(folder: Path) -> Try:
    """Texts of any Unicode, as the localizer's pipeline takes them."""
    image = photo()

    def give(rng: np.random.Generator) -> None:
        locate().preprocess(image, text=any_text(rng))

    return give


def read_all(read: Callable[..., Iterable[Any]]) -> list[Any]:
    """What a reader yields. Raises LeftOut afterwards where it left out records."""
    reasons = []

    def leave_out(image_id: str, reason: str) -> None:
        assert isinstance(image_id, str), image_id
        reasons.append(reason)

    found = list(read(on_reject=leave_out))
    if reasons:
        raise LeftOut(reasons[0])
    return found


OBJECT_LINES = [
    {
        "image": "a.png",
        "size": list(SIZE),
        "category": "dog",
        "object_box": [2, 3, 40, 30],
        "points": [["left_eye", 10, 12], ["tail", 20, 22, [15, 20, 30, 30]]],
        "fine_category": "basset",
    },
    {
        "image": "a.png",
        "size": list(SIZE),
        "category": "cup",
        "object_box": None,
        "points": [],
    },
]
TEXT_LINES = [
    {
        "image": "a.png",
        "x": 10,
        "y": 12,
        "texts": {"rich": "The dark left eye of the dog, in the middle."},
    },
    {"image": "a.png", "x": 20, "y": 22, "text": "The tail of the dog."},
]
KEYPOINTS = {
    "images": [{"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [2, 3, 30, 20],
            "keypoints": [10, 12, 2, 20, 22, 1],
            "iscrowd": 0,
        }
    ],
    "categories": [{"id": 1, "name": "dog", "keypoints": ["left_eye", "tail"]}],
}
PARTS = {
    "images": KEYPOINTS["images"],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [2, 3, 20, 20],
            "segmentation": [[2, 3, 22, 3, 22, 23, 2, 23]],
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "bbox": [0, 0, 48, 36],
            "segmentation": {"size": [36, 48], "counts": [400, 400, 928]},
        },
    ],
    "categories": [{"id": 1, "name": "Quadruped Head", "supercategory": "Quadruped"}],
}
BUILD = {
    "sources": [{"reader": "read_objects", "folder": "photos"}],
    "options": {"license": "other", "styles": ["full", "terse"], "seed": 1},
    "teacher": {"name": "RuleTeacher"},
}


def object_lines(folder: Path) -> Try:
    photo().save(folder / "a.png")

    def give(rng: np.random.Generator) -> None:
        content = mutated_lines(OBJECT_LINES, rng)
        (folder / "objects.jsonl").write_bytes(content)
        for found in read_all(partial(read_objects, folder)):
            found.open()

    return give


def text_lines(folder: Path) -> Try:
    photo().save(folder / "a.png")
    lines = "\n".join(json.dumps(row) for row in OBJECT_LINES)
    (folder / "objects.jsonl").write_text(lines)

    def give(rng: np.random.Generator) -> None:
        (folder / "texts.jsonl").write_bytes(mutated_lines(TEXT_LINES, rng))
        read_all(partial(read_objects, folder))

    return give


def coco(
    read: Callable[..., Iterator[Any]], content: dict[str, Any], folder: Path
) -> Try:
    photo().save(folder / "a.png")
    file = folder / "coco.json"

    def give(rng: np.random.Generator) -> None:
        file.write_bytes(mutated_json(content, rng))
        read_all(partial(read, file, folder))

    return give


def label_maps(folder: Path) -> Try:
    """Label maps of Pascal-Part-116 as broken pictures."""
    maps = {}
    for kind in ("images", "annotations_detectron2_obj", "annotations_detectron2_part"):
        (folder / kind / "train").mkdir(parents=True)
        (folder / kind / "val").mkdir(parents=True)
        file = folder / kind / "train" / "a.png"
        if kind == "images":
            photo().save(file.with_suffix(".jpg"))
            continue
        labels = np.full((SIZE[1], SIZE[0]), 255, dtype=np.uint8)
        labels[5:30, 5:30] = 0
        Image.fromarray(labels).save(file)
        maps[file] = file.read_bytes()

    def give(rng: np.random.Generator) -> None:
        for file, whole in maps.items():
            file.write_bytes(mutated_bytes(whole, rng))
        read_all(partial(read_part_label_maps, folder, ["dog"], ["dog's head"]))

    return give


def dataset_rows(folder: Path) -> Try:
    """Rows of a stream in both forms."""
    file = io.BytesIO()
    photo().save(file, "PNG")
    stored = {"bytes": file.getvalue(), "path": "a.png"}
    point_row = {
        "image": stored,
        "image_id": "a.png",
        "point": [10.0, 12.0],
        "description": "The left eye of the dog.",
        "style": "full",
        "object": "dog",
        "object_box": [2.0, 3.0, 40.0, 30.0],
        "part": "left eye",
        "part_box": [8.0, 10.0, 14.0, 15.0],
        "split": "train",
    }
    dog = {
        "category": "dog",
        "box": [2.0, 3.0, 40.0, 30.0],
        "points": [{"part": "left eye", "x": 10.0, "y": 12.0, "box": None}],
        "parts": [{"name": "head", "box": [8.0, 10.0, 14.0, 15.0]}],
    }
    photo_row = {"image": stored, "image_id": "a", "split": "train", "objects": [dog]}

    def give(rng: np.random.Generator) -> None:
        row = [point_row, photo_row][rng.integers(2)]
        rows = [mutated_value(row, rng)]
        if not isinstance(rows[0], dict):
            return
        stream = IterableDataset.from_generator(partial(iter, rows))
        read_all(partial(read_dataset, stream))

    return give


def written_descriptions(folder: Path) -> Try:
    file = folder / "descriptions.jsonl"

    def give(rng: np.random.Generator) -> None:
        file.write_bytes(mutated_lines(TEXT_LINES, rng))
        WrittenDescriptions(file)

    return give


def build_configs(folder: Path) -> Try:
    file = folder / "build.yaml"

    def give(rng: np.random.Generator) -> None:
        if rng.random() < 0.7:
            content = yaml.safe_dump(mutated_value(BUILD, rng), allow_unicode=True)
            file.write_bytes(content.encode(errors="surrogatepass"))
        else:
            file.write_bytes(mutated_bytes(yaml.safe_dump(BUILD).encode(), rng))
        read_build_config(file, folder)

    return give


def checkpoint_files(name: str, folder: Path) -> Try:
    """A checkpoint of which one JSON file is broken."""
    shutil.copytree(MINI_DESCRIPTOR, folder / "checkpoint")
    file = folder / "checkpoint" / name
    whole = json.loads(file.read_text())

    def give(rng: np.random.Generator) -> None:
        file.write_bytes(mutated_json(whole, rng))
        if name == "config.json":
            AutoModelForImageTextToText.from_pretrained(file.parent)
        else:
            AutoProcessor.from_pretrained(file.parent)

    return give


def weight_files(folder: Path) -> Try:
    """A checkpoint whose safetensors header is broken, or whose file is cut off."""
    shutil.copytree(MINI_DESCRIPTOR, folder / "checkpoint")
    file = folder / "checkpoint" / "model.safetensors"
    whole = file.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")

    def give(rng: np.random.Generator) -> None:
        if rng.random() < 0.2:
            content = whole[: rng.integers(len(whole))]
        elif rng.random() < 0.5:
            header = mutated_json(json.loads(whole[8:length]), rng)
            content = len(header).to_bytes(8, "little") + header + whole[length:]
        else:
            content = mutated_bytes(whole[:length], rng) + whole[length:]
        file.write_bytes(content)
        AutoModelForImageTextToText.from_pretrained(file.parent)

    return give


@contextmanager
def answering(answer: Callable[[], tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """The address of a server that answers everything in one way."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, body = answer()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


ANSWER = {"choices": [{"message": {"role": "assistant", "content": "The left eye."}}]}


def endpoint_answers(folder: Path) -> Try:
    """Answers of a server: any status and headers, broken bodies."""

    def give(rng: np.random.Generator) -> None:
        status = int(rng.choice([200, 200, 200, 204, 301, 400, 401, 404, 429, 500]))
        headers = {}
        for name in ("Retry-After", "Content-Length", "Content-Encoding", "Location"):
            if rng.random() < 0.1:
                values = ["-1", "0", "soon", "1e9", "gzip", "http://127.0.0.1:9/", "é"]
                headers[name] = values[rng.integers(len(values))]
        body = mutated_json(ANSWER, rng)
        with answering(lambda: (status, headers, body)) as address:
            teacher = EndpointTeacher(
                address, "model", retries=1, backoff=0.001, timeout=2
            )
            teacher.answer("text", [[{"role": "user", "content": "Hello"}]], [0])

    return give


# name: (what makes a function that tries one input in a folder, how many inputs)
KINDS: dict[str, tuple[Callable[[Path], Try], int]] = {
    "pictures": (pictures, 20_000),
    "points": (points, 20_000),
    "texts": (texts, 20_000),
    "objects.jsonl": (object_lines, 5_000),
    "texts.jsonl": (text_lines, 5_000),
    "COCO keypoints": (partial(coco, read_coco_keypoints, KEYPOINTS), 5_000),
    "COCO parts": (partial(coco, read_coco_parts, PARTS), 5_000),
    "part label maps": (label_maps, 5_000),
    "dataset rows": (dataset_rows, 5_000),
    "descriptions to evaluate": (written_descriptions, 5_000),
    "YAML of a build": (build_configs, 2_000),
    "config.json": (partial(checkpoint_files, "config.json"), 2_000),
    "processor_config.json": (
        partial(checkpoint_files, "processor_config.json"),
        2_000,
    ),
    "model.safetensors": (weight_files, 2_000),
    "answers of an endpoint": (endpoint_answers, 2_000),
}


def outcome(give: Try, rng: np.random.Generator) -> tuple[str, bool, str]:
    """(what came of an input, whether it may, what was said)."""
    try:
        give(rng)
    except Exception as error:
        name = type(error).__name__
        said = type(error) in SAID or isinstance(error, OSError)
        if said:
            return name, True, str(error)
        return name, False, "".join(traceback.format_exception(error)[-4:])
    return TAKEN, True, ""


def run_kind(name: str, numbers: range, seed: int) -> dict[str, Any]:
    """What came of the inputs of one kind."""
    logging.set_verbosity_error()
    make, _ = KINDS[name]
    counts: Counter[str] = Counter()
    failures = []
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        give = make(Path(folder))
        for number in numbers:
            start = time.monotonic()
            found, is_right, said = outcome(give, np.random.default_rng([seed, number]))
            seconds = time.monotonic() - start
            counts[found] += 1
            longest = max(longest, seconds)
            if not is_right or seconds > LONGEST:
                failures.append(
                    {"number": number, "outcome": found, "s": seconds, "said": said}
                )
    # Linux counts in KiB
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "inputs": len(numbers),
        "outcomes": dict(counts.most_common()),
        "longest_s": longest,
        "peak_memory_bytes": memory,
        "failures": failures,
    }


def table(report: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| input | number | taken | refused | longest, s | peak memory, MB | failures |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, numbers in report.items():
        outcomes = dict(numbers["outcomes"])
        taken = outcomes.pop(TAKEN, 0)
        refused = ", ".join(f"{count} {kind}" for kind, count in outcomes.items())
        memory = numbers["peak_memory_bytes"] / 1e6
        lines.append(
            f"| {name} | {numbers['inputs']} | {taken} | {refused} | {numbers['longest_s']:.2f} | {memory:.0f} "
            f"| {len(numbers['failures'])} |"
        )
    return "\n".join(lines)


def main() -> None:
    args = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    report = {}
    spawn = multiprocessing.get_context("spawn")
    for name in args.kinds:
        count = max(1, round(args.share * KINDS[name][1]))
        numbers = range(args.first, args.first + count)
        # a process for each kind, so that each has a peak of its own
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            report[name] = process.submit(run_kind, name, numbers, args.seed).result()
        content = json.dumps(report, indent=2)
        (output / "fuzzing.json").write_text(content + "\n", encoding="utf-8")
        print(name, report[name]["outcomes"], flush=True)
    print(table(report))
    failed = [name for name, numbers in report.items() if numbers["failures"]]
    if failed:
        raise SystemExit(f"inputs failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
