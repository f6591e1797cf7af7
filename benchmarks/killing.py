r"""Kills long jobs at random moments and starts them again, until they end; what they leave then should equal what an
uninterrupted run leaves.

    python benchmarks/killing.py --output killing

Half of the kills are SIGKILL, half SIGTERM. Each job runs in a process of its own, of whose children none may be left
half a minute after it. The photos are crops of two that scikit-image ships, the models the embedded pair. Writes
`killing.json`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from datasets import disable_progress_bars
from huggingface_hub import constants
from PIL import Image
from skimage.data import chelsea, coffee
from transformers import HfArgumentParser

from hf_talking_points import (
    MINI_DESCRIPTOR,
    MINI_LOCALIZER,
    PointDescriptorTrainer,
    PointGRPOConfig,
    PointGRPOTrainer,
)
from hf_talking_points.checkpoints import last_checkpoint
from hf_talking_points.cli import app
from hf_talking_points.data.builder import BuildOptions, build_dataset, load_built
from hf_talking_points.data.rows import load_points
from hf_talking_points.data.sources import read_objects
from hf_talking_points.evaluation.protocol import (
    EvaluationOptions,
    evaluate_descriptions,
)
from hf_talking_points.hub import push_checkpoint
from hf_talking_points.rewards import LocalizerReward
from hf_talking_points.training.arguments import PointDescriptorTrainingArguments

KILLS_OF_A_RUN = 3  # at most, so that each run ends
ORPHANS_END = 30.0  # seconds; one that has just been started ends after its imports
STEPS = 4
SERVER = Path(__file__).resolve().parents[1] / "tests" / "hub_server.py"


@dataclass
class Arguments:
    output: str = field(metadata={"help": "folder of the counts"})
    jobs: list[str] = field(default_factory=lambda: list(JOBS))
    kills: int = field(default=50, metadata={"help": "of each job"})
    seed: int = 0


@dataclass
class Job:
    """
    Args:
        run: does it, from the folder of the photos, into another folder; again, it goes on.
        result: what it has left in that folder, as something that compares.
    """

    run: Callable[[Path, Path], Any]
    result: Callable[[Path], Any]


def write_photos(folder: Path) -> None:
    """Crops of a cat and a cup with points, four of the test split among them."""
    annotated = [
        (chelsea(), "cat", {"right_eye": (172, 113), "left_eye": (315, 133)}),
        (coffee(), "cup", {"handle": (222, 266), "coffee": (285, 165)}),
    ]
    rng = np.random.default_rng(0)
    lines = []
    for number in range(24):
        pixels, category, points = annotated[number % 2]
        corner = rng.integers(0, 60, 2)
        crop = Image.fromarray(pixels).crop((*corner, *(corner + (380, 230))))
        crop.resize((190, 115)).save(folder / f"{number}.jpg")
        row = {
            "image": f"{number}.jpg",
            "size": [190, 115],
            "category": category,
            "object_box": [5, 5, 185, 110],
            "points": [
                [part, *((np.array(xy) - corner) / 2)] for part, xy in points.items()
            ],
        }
        lines.append(json.dumps(row))
    (folder / "objects.jsonl").write_text("\n".join(lines) + "\n")


def build(data: Path, folder: Path) -> None:
    options = BuildOptions(
        license="other",
        styles=("full", "terse"),
        per_photo={"anywhere": 1},
        unit_photos=4,
        duplicate_bits=0,
    )
    build_dataset([partial(read_objects, data)], folder, options, num_proc=2)


def rows_of_build(folder: Path) -> dict[str, str]:
    return {
        split: hashlib.sha256(repr(rows.to_list()).encode()).hexdigest()
        for split, rows in load_built(folder).items()
    }


def describe(data: Path, folder: Path) -> None:
    points = ["--point", "0.5,0.5", "--point", "0.2,0.7", "--normalized"]
    output = ["--output", str(folder / "answers.jsonl"), "--batch-size", "2"]
    app(["describe", str(data), *points, *output], standalone_mode=False)


def answers(folder: Path) -> list[str]:
    return sorted((folder / "answers.jsonl").read_text().splitlines())


def evaluate(data: Path, folder: Path) -> None:
    options = EvaluationOptions(str(data), folder, styles=["full"], controls=False)
    evaluate_descriptions(options)


def report(folder: Path) -> str:
    """What the report says but for the time that it took."""
    stored = json.loads((folder / "report.json").read_text())
    rows = []
    for row in stored["rows"]:
        rows.append({key: row[key] for key in row if "second" not in key})
    samples = pd.read_parquet(folder / "samples.parquet")
    return json.dumps(rows) + samples.to_json()


def training_options(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "save_steps": 1,
        "save_total_limit": 1,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "seed": 0,
    }


def train(data: Path, folder: Path) -> None:
    args = PointDescriptorTrainingArguments(
        per_device_train_batch_size=2,
        points_per_image=2,
        styles=["full"],
        **training_options(folder),
    )
    trainer = PointDescriptorTrainer(
        MINI_DESCRIPTOR,
        args,
        train_dataset=load_points(str(data))["train"],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(args))


def reinforce(data: Path, folder: Path) -> None:
    args = PointGRPOConfig(
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=24,
        **training_options(folder),
    )
    trainer = PointGRPOTrainer(
        MINI_DESCRIPTOR,
        LocalizerReward(MINI_LOCALIZER, shape="exp"),
        args=args,
        train_dataset=load_points(str(data))["train"],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(args))


def weights(folder: Path) -> str:
    file = folder / f"checkpoint-{STEPS}" / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def push(data: Path, folder: Path) -> None:
    push_checkpoint(MINI_DESCRIPTOR, f"someone/{folder.name}", token="hf_x")


@cache
def local_hub() -> Any:
    """A Hub in this process, to which what is forked from it then talks."""
    spec = importlib.util.spec_from_file_location("hub_server", SERVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hub = module.HubServer().__enter__()
    constants.ENDPOINT = hub.url
    constants.HF_HUB_OFFLINE = False
    constants.HF_HUB_DISABLE_XET = True
    return hub


def pushed(folder: Path) -> dict[str, str]:
    """The hashes of a pushed repo's files."""
    files = local_hub().repos[f"models/someone/{folder.name}"]
    return {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}


JOBS = {
    "build": Job(build, rows_of_build),
    "describe": Job(describe, answers),
    "evaluate": Job(evaluate, report),
    "train": Job(train, weights),
    "GRPO": Job(reinforce, weights),
    "push": Job(push, pushed),
}


def in_own_group(run: Callable[..., Any], log: Path, *arguments: Any) -> None:
    os.setsid()
    with open(log, "ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    run(*arguments)


def attempt(
    job: Job, data: Path, folder: Path, limit: float | None, kind: signal.Signals
) -> bool:
    """Runs a job, kills it after `limit` seconds; returns whether it was killed.

    Raises RuntimeError where it ends otherwise, or leaves a child."""
    log = folder.with_suffix(".log")
    arguments = (job.run, log, data, folder)
    process = multiprocessing.get_context("fork").Process(
        target=in_own_group, args=arguments
    )
    process.start()
    process.join(limit)
    is_killed = process.is_alive()
    if is_killed:
        os.kill(process.pid, kind)
        process.join()
    if not is_killed and process.exitcode != 0:
        raise RuntimeError(f"exit code {process.exitcode}: {log.read_text()[-2000:]}")
    end = time.monotonic() + ORPHANS_END
    while is_group_alive(process.pid):
        if time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            raise RuntimeError("children are left")
        time.sleep(0.05)
    return is_killed


def is_group_alive(group: int) -> bool:
    """Whether a process of a group runs."""
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            is_of_group = os.getpgid(process.pid) == group
            if is_of_group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def run_job(job: Job, data: Path, folder: Path, kills: int, seed: int) -> dict:
    """Kills a job at so many moments; what came of it."""
    rng = np.random.default_rng(seed)
    whole = folder / "whole"
    whole.mkdir()
    start = time.monotonic()
    attempt(job, data, whole, None, signal.SIGKILL)
    seconds = time.monotonic() - start
    expected = job.result(whole)
    killed = runs = equal = 0
    while killed < kills:
        output = folder / f"run-{runs}"
        output.mkdir()
        for _ in range(KILLS_OF_A_RUN):
            kind = rng.choice([signal.SIGKILL, signal.SIGTERM])
            limit = rng.uniform(0, seconds)
            if not attempt(job, data, output, limit, signal.Signals(kind)):
                break
            killed += 1
        else:
            attempt(job, data, output, None, signal.SIGKILL)
        equal += job.result(output) == expected
        runs += 1
    return {"kills": killed, "runs": runs, "equal": equal, "seconds": seconds}


def table(report: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| job | one run, s | kills | runs | ended as an uninterrupted one |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, numbers in report.items():
        lines.append(
            f"| {name} | {numbers['seconds']:.1f} | {numbers['kills']} | {numbers['runs']} | {numbers['equal']} |"
        )
    return "\n".join(lines)


def main() -> None:
    args = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    logging.disable(logging.WARNING)
    disable_progress_bars()
    if "push" in args.jobs:
        local_hub()  # before anything is forked
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    numbers = {}
    for name in args.jobs:
        with tempfile.TemporaryDirectory() as temporary:
            data = Path(temporary) / "photos"
            data.mkdir()
            write_photos(data)
            numbers[name] = run_job(
                JOBS[name], data, Path(temporary), args.kills, args.seed
            )
        content = json.dumps(numbers, indent=2)
        (output / "killing.json").write_text(content + "\n", encoding="utf-8")
        print(name, numbers[name], flush=True)
    print(table(numbers))
    if any(row["equal"] < row["runs"] for row in numbers.values()):
        raise SystemExit("some runs ended otherwise than an uninterrupted one")


if __name__ == "__main__":
    main()
