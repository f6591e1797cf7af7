"""The paper's cross-family experiment at mini size: GRPO on the points of animals that nobody has described.

    python examples/cross_family.py --data_dir DATA/animalpose_voc_256 --output_dir runs/cross_family --num_proc 2

The descriptor and the reward's localizers read texts about cats and horses alone, and half of the descriptor's do not
name the part. GRPO then sees points, without texts, of one family: dogs (Canidae) or cows and sheep (Bovidae).
Descriptions before and after are judged on test photos of that family and of the other one, by the two localizers of
the reward (one of each head), by two judges that were trained apart (other seeds, the other half of the photos, all
families; one of each head), and by the embedded localizer. Photos that show both families are left out.
Every stage is a folder of its own, with a time limit; what was cut off goes on where it stopped.
"""

import hashlib
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from transformers import HfArgumentParser
from transformers.trainer_utils import get_last_checkpoint

from hf_talking_points import MINI_LOCALIZER
from hf_talking_points.data.json_lines import parse_json, read_json_lines
from hf_talking_points.data.names import names_it
from hf_talking_points.evaluation.protocol import (
    EvaluationOptions,
    evaluate_descriptions,
)
from hf_talking_points.evaluation.report import difference, p_value, table_row
from hf_talking_points.metrics import (
    clustered_interval,
    distinct_n,
    mpck_values,
    paired_difference,
)
from hf_talking_points.options import read_options
from hf_talking_points.processes import run_script
from hf_talking_points.visualization import plot_learning_curves
from hf_talking_points.words.facts import HORIZONTAL, VERTICAL

EXAMPLES = Path(__file__).parent
FAMILIES = {"Canidae": {"dog"}, "Bovidae": {"cow", "sheep"}}
REWARDS = ("reward", "reward_mlp")
JUDGES = ("judge", "judge_mlp")
LOCALIZERS = REWARDS + JUDGES
SCRIPTS = {
    "reward": "train_localizer",
    "reward_mlp": "train_localizer",
    "judge": "train_localizer",
    "judge_mlp": "train_localizer",
    "start": "train_descriptor",
    "grpo": "run_grpo",
}
# the photos of each supervised stage
PHOTOS = {
    "reward": "half",
    "reward_mlp": "half",
    "judge": "judge",
    "judge_mlp": "judge",
    "start": "rest",
}
POSITION_WORDS = set(" ".join(HORIZONTAL + VERTICAL).split())


@dataclass
class CrossFamilyArguments:
    data_dir: str = field(
        metadata={"help": "folder with the objects.jsonl of Animal-Pose"}
    )
    output_dir: str = field(
        default="runs/cross_family",
        metadata={"help": "data, stages, evaluation, results"},
    )
    config: str = field(
        default=str(EXAMPLES / "cross_family.yaml"),
        metadata={"help": "options of the stages"},
    )
    families: list[str] = field(
        default_factory=lambda: list(FAMILIES),
        metadata={"help": "families to train on"},
    )
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2], metadata={"help": "of GRPO"}
    )
    max_photos: int | None = field(
        default=None,
        metadata={"help": "test photos of each family; all of them if not given"},
    )
    num_proc: int = field(
        default=1, metadata={"help": "stages side by side, of one thread each"}
    )


@dataclass
class TrainedModels:
    """Folders of the checkpoints.

    Args:
        start (`str`): the descriptor before GRPO.
        localizers (`dict`): name -> folder.
        policies (`dict`): (family, seed) -> folder of the descriptor after GRPO.
    """

    start: str
    localizers: dict[str, str]
    policies: dict[tuple[str, int], str]

    def policy_names(self, family: str, seeds: list[int]) -> list[str]:
        """What the evaluation calls the policies of one family."""
        return [Path(self.policies[family, seed]).name for seed in seeds]


def data_folder(output_dir: str, name: str) -> Path:
    """Where the photos of "rest", "half", "judge" or a family are."""
    return Path(output_dir) / "data" / name


def read_records(source: str | Path) -> dict[str, list[dict]]:
    """Image -> its records in the `objects.jsonl` of a folder."""
    records: dict[str, list[dict]] = {}
    for _, text in read_json_lines(Path(source) / "objects.jsonl"):
        record = parse_json(text)
        records.setdefault(record["image"], []).append(record)
    return records


def families_shown(records: list[dict]) -> list[str]:
    """The families of which an image shows an animal."""
    shown = {record["category"] for record in records}
    return [family for family, categories in FAMILIES.items() if categories & shown]


def is_of_judges_half(image: str) -> bool:
    """Whether an image is in the half of the photos that the judges learn from."""
    return hashlib.sha1(image.encode()).digest()[1] % 2 == 1


def assign_records(records_of_image: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The records of each stage: "rest" (neither family), its "half" for the reward, "judge" (the other half, all
    families), and the families."""
    assigned: dict[str, list[dict]] = {
        name: [] for name in ("rest", "half", "judge", *FAMILIES)
    }
    for image, records in records_of_image.items():
        families = families_shown(records)
        if len(families) > 1:
            continue
        if is_of_judges_half(image):
            assigned["judge"] += records
        if not families:
            assigned["rest"] += records
            if not is_of_judges_half(image):
                assigned["half"] += records
        for family in families:
            for record in records:
                if record["category"] in FAMILIES[family]:
                    assigned[family].append(record)
    return assigned


def write_data(source: str | Path, output_dir: str | Path) -> None:
    """Writes a folder with the photos of each stage."""
    for name, records in assign_records(read_records(source)).items():
        folder = data_folder(output_dir, name)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(record) + "\n" for record in records]
        (folder / "objects.jsonl").write_text("".join(lines), encoding="utf-8")
        for image in {record["image"] for record in records}:
            # a link would lead out of the folder, which no reader follows
            if not (folder / image).is_file():
                (folder / image).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(source) / image, folder / image)


def stage_options(
    kind: str, folder: Path, stages: dict[str, dict], changes: dict
) -> dict:
    """Options of a stage: those of its script, less what the stage or `changes` set to None."""
    script_options = yaml.safe_load((EXAMPLES / f"{SCRIPTS[kind]}.yaml").read_text())
    options = {**script_options, **stages[kind], **changes, "output_dir": str(folder)}
    return {name: value for name, value in options.items() if value is not None}


def run_stage(
    kind: str, name: str, output_dir: str, stages: dict[str, dict], **changes: object
) -> str:
    """Trains a model, or goes on with it, where it is not finished.

    Args:
        kind (`str`): of the stage, a key of `SCRIPTS`.
        name (`str`): of its folder.
        stages (`dict`): kind -> options, with the time limit in `minutes`.
        changes: further options.
    Returns:
        `str`: folder of the trained model.

    Raises RuntimeError where the stage fails or reaches its time limit.
    """
    folder = Path(output_dir) / name
    if (folder / "processor_config.json").is_file():
        return str(folder)
    print(f"stage {name}", flush=True)
    options = stage_options(kind, folder, stages, changes)
    minutes = options.pop("minutes")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(options))
    script = EXAMPLES / f"{SCRIPTS[kind]}.py"
    log = folder / "log.txt"
    try:
        exit_code = run_script(script, ["--config", str(config)], log, 60 * minutes)
    except TimeoutError as error:
        raise RuntimeError(
            f"stage {name} reached its limit of {minutes} minutes: the same command goes on with it"
        ) from error
    if exit_code:
        raise RuntimeError(f"stage {name} failed: {log} says why")
    return str(folder)


def train_models(args: CrossFamilyArguments, stages: dict[str, dict]) -> TrainedModels:
    """Trains the localizers and the start side by side, then the policies."""

    def submit(kind, name, photos, **changes):
        data_dir = [str(data_folder(args.output_dir, photos))]
        return pool.submit(
            run_stage, kind, name, args.output_dir, stages, data_dir=data_dir, **changes
        )

    with ThreadPoolExecutor(args.num_proc) as pool:
        feature_cache = str(Path(args.output_dir) / "features")
        supervised = {}
        for kind in ("start", *LOCALIZERS):
            supervised[kind] = submit(
                kind, kind, PHOTOS[kind], feature_cache=feature_cache
            )
        start = supervised["start"].result()
        rewards = [supervised[kind].result() for kind in REWARDS]

        policies = {}
        for seed in args.seeds:
            for family in args.families:
                policies[family, seed] = submit(
                    "grpo",
                    f"{family}-seed-{seed}",
                    family,
                    model_name_or_path=start,
                    localizers=rewards,
                    seed=seed,
                )
        return TrainedModels(
            start,
            {kind: supervised[kind].result() for kind in LOCALIZERS},
            {run: job.result() for run, job in policies.items()},
        )


def learning_curve(folder: str) -> tuple[list[int], list[float]]:
    """Steps and mean distances that a run of GRPO logged."""
    state = json.loads(
        Path(get_last_checkpoint(folder), "trainer_state.json").read_text()
    )
    steps = []
    distances = []
    for entry in state["log_history"]:
        if "localizer/distance" in entry:
            steps.append(entry["step"])
            distances.append(entry["localizer/distance"])
    return steps, distances


def plot_policies(trained: TrainedModels, output_dir: str) -> None:
    curves: dict[str, list] = {}
    for (family, _), folder in trained.policies.items():
        curves.setdefault(family, []).append(learning_curve(folder))
    picture = Path(output_dir) / "learning_curves.png"
    plot_learning_curves(curves, picture, "mean distance, parts of the image's sides")


def count_position_words(text: str, part_names: re.Pattern) -> int:
    """Position words of a text, not counting those in names of parts, such as "left eye"."""
    words = re.findall("[a-z]+", part_names.sub("", text.lower()))
    return sum(word in POSITION_WORDS for word in words)


def text_numbers(samples: pd.DataFrame) -> dict[str, float]:
    """What descriptions of points are like: distinct-2, words and position words a text, share (%) that names the
    part."""
    texts = samples.description.tolist()
    part_names = re.compile("|".join(re.escape(part) for part in samples.part.unique()))
    words = [len(text.split()) for text in texts]
    position_words = [count_position_words(text, part_names) for text in texts]
    named = [names_it(text, part) for text, part in zip(texts, samples.part)]
    return {
        "distinct_2": distinct_n(texts),
        "words": float(np.mean(words)),
        "position_words": float(np.mean(position_words)),
        "part_named": float(100 * np.mean(named)),
    }


def compare(samples: pd.DataFrame, localizer: str, runs: list[str]) -> dict:
    """Before and after, by one localizer, on one test family, for one family trained on.

    Args:
        samples (`pandas.DataFrame`): of the protocol, a row for each system, localizer and point.
        runs (`list[str]`): systems, one for each seed.
    """
    judged = samples[samples.localizer == localizer]
    before = judged[judged.system == "start"]
    after = [judged[judged.system == run] for run in runs]

    mpck_before = mpck_values(before.distance)
    mpck_of_runs = [mpck_values(run.distance) for run in after]
    mpck_after = np.mean(mpck_of_runs, axis=0)
    near_before = before.distance < 0.05
    near_after = np.mean([run.distance < 0.05 for run in after], axis=0)
    result = {
        "n": len(before),
        "photos": int(before.image_id.nunique()),
        "mpck": [float(mpck_before.mean()), float(mpck_after.mean())],
        "mpck_ci95": [
            clustered_interval(mpck_before, before.image_id),
            clustered_interval(mpck_after, before.image_id),
        ],
        "mpck_of_seeds": [float(values.mean()) for values in mpck_of_runs],
        "gain": paired_difference(mpck_after, mpck_before, before.image_id),
        "pck@0.05": [float(100 * near_before.mean()), float(100 * near_after.mean())],
    }
    texts_before = text_numbers(before)
    texts_after = [text_numbers(run) for run in after]
    for name, value in texts_before.items():
        result[name] = [
            value,
            float(np.mean([numbers[name] for numbers in texts_after])),
        ]
    return result


def evaluate_family(
    tested: str, args: CrossFamilyArguments, trained: TrainedModels
) -> pd.DataFrame:
    """Descriptions of test photos of a family, before and after GRPO, through all localizers."""
    descriptors = [trained.start, *trained.policies.values()]
    options = EvaluationOptions(
        dataset=[str(data_folder(args.output_dir, tested))],
        output=str(Path(args.output_dir) / f"evaluation-{tested}"),
        descriptions=[
            "ground-truth",
            *(f"point-descriptor:{folder}" for folder in descriptors),
        ],
        localizers=[*trained.localizers.values(), MINI_LOCALIZER],
        styles=["full"],
        controls=False,
        max_photos=args.max_photos,
    )
    evaluate_descriptions(options)
    return pd.read_parquet(Path(options.output) / "samples.parquet")


def compare_families(args: CrossFamilyArguments, trained: TrainedModels) -> list[dict]:
    """A row for each family tested on, family trained on and localizer."""
    rows = []
    for tested in FAMILIES:
        samples = evaluate_family(tested, args, trained)
        for family in args.families:
            runs = trained.policy_names(family, args.seeds)
            for localizer in (*LOCALIZERS, Path(MINI_LOCALIZER).name):
                case = {
                    "trained_on": family,
                    "tested_on": tested,
                    "localizer": localizer,
                }
                rows.append({**case, **compare(samples, localizer, runs)})
    return rows


def before_and_after(values: list[float], digits: int) -> str:
    before, after = values
    return f"{before:.{digits}f} → {after:.{digits}f}"


def gains_table(rows: list[dict]) -> list[str]:
    """Lines of a Markdown table: how much better descriptions are found after GRPO."""
    lines = [
        "| GRPO on | tested on | localizer | n | mPCK before | after | gain | of each seed | PCK@0.05 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        before, after = row["mpck"]
        gains = [f"{value - before:+.1f}" for value in row["mpck_of_seeds"]]
        cells = [
            row["trained_on"],
            row["tested_on"],
            row["localizer"],
            row["n"],
            f"{before:.1f}",
            f"{after:.1f}",
            f"{difference(row['gain'])}, p {p_value(row['gain'])}",
            ", ".join(gains),
            before_and_after(row["pck@0.05"], 1),
        ]
        lines.append(table_row(cells))
    return lines


def texts_table(rows: list[dict]) -> list[str]:
    """Lines of a Markdown table: what the descriptions are like, whichever localizer judges them."""
    lines = [
        "| GRPO on | tested on | distinct-2 | words | position words | part named, % |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["localizer"] == "judge":
            cells = [
                row["trained_on"],
                row["tested_on"],
                before_and_after(row["distinct_2"], 3),
                before_and_after(row["words"], 1),
                before_and_after(row["position_words"], 2),
                before_and_after(row["part_named"], 1),
            ]
            lines.append(table_row(cells))
    return lines


def markdown(rows: list[dict]) -> str:
    """The results as Markdown tables."""
    return "\n".join([*gains_table(rows), "", *texts_table(rows)])


def main() -> None:
    (args,) = HfArgumentParser(CrossFamilyArguments).parse_args_into_dataclasses()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the trainings, several at a time
    stages = read_options(args.config)
    write_data(args.data_dir, args.output_dir)

    trained = train_models(args, stages)
    plot_policies(trained, args.output_dir)
    rows = compare_families(args, trained)

    result = {
        "seeds": args.seeds,
        "max_photos": args.max_photos,
        "stages": stages,
        "rows": rows,
    }
    file = Path(args.output_dir) / "results.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"\n{markdown(rows)}")


if __name__ == "__main__":
    main()
