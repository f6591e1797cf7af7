"""The paper's cross-family experiment at mini size: GRPO on the points of animals whose descriptions nobody has written.

    python examples/cross_family.py --data_dir DATA/animalpose_voc_256 --output_dir runs/cross_family --num_proc 2

The descriptor and the reward's localizers read texts about cats and horses alone, and half of the descriptor's do not name the part. GRPO
then sees points, without texts, of one family: dogs (Canidae) or cows and sheep (Bovidae). Descriptions before and after are judged on test
photos of that family and of the other one, by the two localizers of the reward (one of each head), by two judges that were trained apart
(other seeds, the other half of the photos, all families; one of each head), and by the embedded localizer. Photos that show both families
are left out.
Every stage is a folder of its own, with a time limit; what was cut off goes on where it stopped.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from transformers import HfArgumentParser
from transformers.trainer_utils import get_last_checkpoint

from hf_talking_points import MINI_LOCALIZER
from hf_talking_points.data.wording import HORIZONTAL, VERTICAL, names_it, readable
from hf_talking_points.metrics import (
    clustered_interval,
    distinct_n,
    mpck_values,
    paired_difference,
)
from hf_talking_points.evaluation.protocol import EvaluationOptions, evaluate_descriptions
from hf_talking_points.evaluation.report import p_value
from hf_talking_points.visualization import plot_learning_curves

EXAMPLES = Path(__file__).parent
FAMILIES = {"Canidae": {"dog"}, "Bovidae": {"cow", "sheep"}}
REWARDS, JUDGES = ("reward", "reward_mlp"), ("judge", "judge_mlp")
LOCALIZERS = REWARDS + JUDGES
SCRIPTS = {
    **dict.fromkeys(LOCALIZERS, "train_localizer"),
    "start": "train_descriptor",
    "grpo": "run_grpo",
}
POSITIONS = {word for phrase in HORIZONTAL + VERTICAL for word in phrase.split()}


@dataclass
class CrossFamilyArguments:
    data_dir: str = field(metadata={"help": "folder with the objects.jsonl of Animal-Pose"})
    output_dir: str = field(
        default="runs/cross_family", metadata={"help": "data, stages, evaluation, results"}
    )
    config: str = field(
        default=str(EXAMPLES / "cross_family.yaml"), metadata={"help": "options of the stages"}
    )
    families: list[str] = field(
        default_factory=lambda: list(FAMILIES), metadata={"help": "families to train on"}
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "of GRPO"})
    max_photos: int | None = field(
        default=None, metadata={"help": "test photos of each family; all of them if not given"}
    )
    num_proc: int = field(default=1, metadata={"help": "stages side by side, of one thread each"})


def write_data(source, output):
    """Folders with the photos of each stage: "rest" (neither family), its "half" for the reward, "judge" (the other half, all families),
    and the families."""
    photos = {}
    for line in (Path(source) / "objects.jsonl").read_text(encoding="utf-8").splitlines():
        photos.setdefault(json.loads(line)["image"], []).append(json.loads(line))
    chosen = {name: [] for name in ("rest", "half", "judge", *FAMILIES)}
    for image, objects in photos.items():
        shown = {
            family
            for family, names in FAMILIES.items()
            if names & {record["category"] for record in objects}
        }
        other_half = hashlib.sha1(image.encode()).digest()[1] % 2
        if len(shown) == 2:
            continue
        if other_half:
            chosen["judge"] += objects
        if shown:
            [family] = shown
            chosen[family] += [
                record for record in objects if record["category"] in FAMILIES[family]
            ]
        else:
            chosen["rest"] += objects
            if not other_half:
                chosen["half"] += objects
    for name, objects in chosen.items():
        folder = Path(output) / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "objects.jsonl").write_text(
            "".join(json.dumps(record) + "\n" for record in objects), encoding="utf-8"
        )
        if not (folder / "images").is_symlink():
            (folder / "images").symlink_to(
                (Path(source) / "images").resolve(), target_is_directory=True
            )


def run_stage(kind, name, args, common, **fields):
    """Folder of a trained model; trains it, or goes on with it, where it is not finished.

    Raises RuntimeError where it reaches its time limit."""
    folder, script = Path(args.output_dir) / name, SCRIPTS[kind]
    if (folder / "processor_config.json").is_file():
        return str(folder)
    options = (
        yaml.safe_load((EXAMPLES / f"{script}.yaml").read_text())
        | common[kind]
        | fields
        | {"output_dir": str(folder)}
    )
    minutes = options.pop("minutes")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(
        yaml.safe_dump({key: value for key, value in options.items() if value is not None})
    )
    print(f"stage {name}", flush=True)
    with open(folder / "log.txt", "a") as log:
        command = [sys.executable, str(EXAMPLES / f"{script}.py"), "--config", str(config)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            subprocess.run(
                command,
                check=True,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=60 * minutes,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(
                f"stage {name} reached its limit of {minutes} minutes: the same command goes on with it"
            ) from error
    return str(folder)


def text_numbers(samples):
    """Of descriptions of points: distinct-2, words and position words a text (not those in names of parts, such as "left eye"), share (%)
    that names the part."""
    texts, names = (
        samples.description.tolist(),
        "|".join(re.escape(readable(part)) for part in samples.part.unique()),
    )
    positions = [
        [word in POSITIONS for word in re.findall("[a-z]+", re.sub(names, "", text.lower()))]
        for text in texts
    ]
    return {
        "distinct_2": distinct_n(texts),
        "words": float(np.mean([len(text.split()) for text in texts])),
        "position_words": float(np.mean([sum(row) for row in positions])),
        "part_named": float(
            100 * np.mean([names_it(text, part) for text, part in zip(texts, samples.part)])
        ),
    }


def compare(samples, localizer, runs):
    """Before and after for one family trained on, test family and localizer."""
    before = samples[(samples.localizer == localizer) & (samples.system == "start")]
    after = [samples[(samples.localizer == localizer) & (samples.system == run)] for run in runs]
    values = [
        mpck_values(before.distance),
        np.mean([mpck_values(run.distance) for run in after], 0),
    ]
    near = [(before.distance < 0.05).to_numpy(), np.mean([run.distance < 0.05 for run in after], 0)]
    fine = {
        key: [text_numbers(before)[key], float(np.mean([text_numbers(run)[key] for run in after]))]
        for key in text_numbers(before)
    }
    return {
        "n": len(before),
        "photos": int(before.image_id.nunique()),
        "mpck": [float(value.mean()) for value in values],
        "mpck_ci95": [clustered_interval(value, before.image_id) for value in values],
        "mpck_of_seeds": [float(mpck_values(run.distance).mean()) for run in after],
        "gain": paired_difference(values[1], values[0], before.image_id),
        "pck@0.05": [float(100 * value.mean()) for value in near],
        **fine,
    }


def markdown(result):
    """The results as Markdown tables."""
    lines = [
        "| GRPO on | tested on | localizer | n | mPCK before | after | gain | of each seed | PCK@0.05 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        low, high = row["gain"]["ci95"]
        seeds = ", ".join(f"{value - row['mpck'][0]:+.1f}" for value in row["mpck_of_seeds"])
        lines.append(
            f"| {row['trained_on']} | {row['tested_on']} | {row['localizer']} | {row['n']} | {row['mpck'][0]:.1f} | {row['mpck'][1]:.1f} "
            f"| {row['gain']['difference']:+.1f} [{low:+.1f}, {high:+.1f}], p {p_value(row['gain'])} | {seeds} "
            f"| {row['pck@0.05'][0]:.1f} → {row['pck@0.05'][1]:.1f} |"
        )
    lines += [
        "",
        "| GRPO on | tested on | distinct-2 | words | position words | part named, % |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        if row["localizer"] == "judge":
            cells = " | ".join(
                f"{row[key][0]:.{digits}f} → {row[key][1]:.{digits}f}"
                for key, digits in (
                    ("distinct_2", 3),
                    ("words", 1),
                    ("position_words", 2),
                    ("part_named", 1),
                )
            )
            lines.append(f"| {row['trained_on']} | {row['tested_on']} | {cells} |")
    return "\n".join(lines)


def main():
    args = HfArgumentParser(CrossFamilyArguments).parse_args_into_dataclasses()[0]
    output, common = Path(args.output_dir), yaml.safe_load(Path(args.config).read_text())
    write_data(args.data_dir, output)
    data = {name: [str(output / "data" / name)] for name in ("rest", "half", "judge", *FAMILIES)}
    cache = {"feature_cache": str(output / "features")}
    with ThreadPoolExecutor(args.num_proc) as pool:
        photos = {
            "start": "rest",
            **dict.fromkeys(REWARDS, "half"),
            **dict.fromkeys(JUDGES, "judge"),
        }
        jobs = {
            kind: pool.submit(run_stage, kind, kind, args, common, data_dir=data[name], **cache)
            for kind, name in photos.items()
        }
        start, rewards = jobs["start"].result(), [jobs[kind].result() for kind in REWARDS]
        taught = {
            (family, seed): pool.submit(
                *(run_stage, "grpo", f"{family}-seed-{seed}", args, common),
                **{
                    "model_name_or_path": start,
                    "localizers": rewards,
                    "data_dir": data[family],
                    "seed": seed,
                },
            )
            for seed in args.seeds
            for family in args.families
        }
        taught = {key: job.result() for key, job in taught.items()}
        localizers = [jobs[kind].result() for kind in LOCALIZERS]
    curves = {}
    for (family, _), folder in taught.items():
        state = json.loads(Path(get_last_checkpoint(folder), "trainer_state.json").read_text())
        rows = [row for row in state["log_history"] if "localizer/distance" in row]
        curves.setdefault(family, []).append(
            ([row["step"] for row in rows], [row["localizer/distance"] for row in rows])
        )
    plot_learning_curves(
        curves, output / "learning_curves.png", "mean distance, parts of the image's sides"
    )
    rows = []
    for tested in FAMILIES:
        options = EvaluationOptions(
            dataset=data[tested],
            output=str(output / f"evaluation-{tested}"),
            descriptions=[
                "ground-truth",
                *(f"point-descriptor:{folder}" for folder in (start, *taught.values())),
            ],
            localizers=[*localizers, MINI_LOCALIZER],
            styles=["full"],
            controls=False,
            max_photos=args.max_photos,
        )
        evaluate_descriptions(options)
        samples = pd.read_parquet(Path(options.output) / "samples.parquet")
        for trained in args.families:
            runs = [Path(taught[trained, seed]).name for seed in args.seeds]
            for localizer in (*LOCALIZERS, Path(MINI_LOCALIZER).name):
                row = {"trained_on": trained, "tested_on": tested, "localizer": localizer}
                rows.append({**row, **compare(samples, localizer, runs)})
    result = {"seeds": args.seeds, "max_photos": args.max_photos, "stages": common, "rows": rows}
    (output / "results.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"\n{markdown(result)}")


if __name__ == "__main__":
    main()
